"""`octc simplify`: simplifies a trained student and stores it as a new run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.schemas.simplifying import SimplifyOptions

if TYPE_CHECKING:
    from octc.compress.simplify.walk import MakeLatency


def simplify(
    session: Session,
    options: SimplifyOptions,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Student run (the newest finished one)")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop")] = False,
) -> int:
    """Replace SiLU, remove squeeze-excite, prune channels. Each step is distilled, and kept if the gate accepts it.

    Exit code 1: no step was accepted, or the result is slower than --budget.
    """
    options.check()
    from octc.core.optional import need, need_wing

    need_wing("export" if options.budget is not None else "train")
    if options.prune is not None or options.budget is not None:
        need("torch_pruning")
    from octc.compress.simplify.job import simplify_run

    measure: MakeLatency | None = None
    if options.budget is not None:
        from octc.export.latency import latency_of

        measure = latency_of
    found = simplify_run(
        run, options, run_dir=session.run_dir, data=session.data, latency=measure, dry_run=dry_run, reporter=session
    )
    session.report(found.document)
    if found.run is None:
        session.result("dry run: nothing was written")
        return 0
    session.run_id = found.run.id
    session.result(str(found.run.path))
    session.say(f"next: octc export {found.run.id} && octc verify && octc bench")
    found.raise_if_failed()
    return 0
