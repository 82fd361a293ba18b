"""`octc eval`: a run's network on the validation set or the test part of its split, with every table and figure as a file."""

from __future__ import annotations

from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.datasets.split import SETS


def evaluate(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run; the newest finished one without it")] = None,
    split: Annotated[str, typer.Option(help=f"Part: {', '.join(SETS)} (of folds); reading test is logged")] = "select",
    tta: Annotated[str, typer.Option(help="Views that are averaged: none, hflip or 5")] = "none",
    average: Annotated[
        str, typer.Option(help="What is averaged over views: probabilities, or logits (as KD-OCT)")
    ] = "probabilities",
    maps: Annotated[
        int, typer.Option(min=0, max=256, help="Draw where the network looks (Grad-CAM) on this many images, wrong ones first")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
) -> int:
    """Evaluate a run's network. Writes a new folder in runs/<id>/eval/, never over an older one."""
    from octc.core.optional import need
    from octc.store.runs import find_run, newest_run

    for module in ("torch", "timm", "safetensors"):
        need(module)
    from octc.train.evaluation.job import EvalOptions, evaluate

    chosen = newest_run(session.run_dir) if run is None else find_run(session.run_dir, run)
    if run is None:
        session.say(f"using run {chosen.id} (newest finished; choose with RUN)")
    session.run_id = chosen.id
    found = evaluate(chosen, EvalOptions(split, tta, average, maps, device), data=session.data, reporter=session)
    session.report(found.document)
    session.result(f"{found.report}{found.folder}")
    return 0
