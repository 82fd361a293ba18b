"""`octc eval`: evaluates a run's network on the validation or test set of its split; writes tables and figures."""

from __future__ import annotations

from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.schemas.verification import EvalOptions


def evaluate(
    session: Session,
    requested: EvalOptions,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Run (the newest finished one)")] = None,
) -> int:
    """Evaluate a run's network. Writes a new folder in runs/<id>/eval/; older evaluations stay."""
    from octc.core.optional import need
    from octc.store.runs import find_run, newest_run

    for module in ("torch", "timm", "safetensors"):
        need(module)
    from octc.train.evaluation.job import evaluate

    chosen = newest_run(session.run_dir) if run is None else find_run(session.run_dir, run)
    if run is None:
        session.say(f"using run {chosen.id} (newest finished; choose with RUN)")
    session.run_id = chosen.id
    found = evaluate(chosen, requested, data=session.data, reporter=session)
    session.report(found.document)
    session.result(f"{found.report}{found.folder}")
    return 0
