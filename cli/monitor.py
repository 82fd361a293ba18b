"""`octc monitor`: tests whether inputs, predictions and computations on a device still match the artifact's validation set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError


def monitor(  # noqa: PLR0913 - an option a parameter
    session: Session,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Artifact in use here, or a run")],
    store: Annotated[
        Path | None, typer.Argument(metavar="STORE", help="Store that predict and serve write with --monitor")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of labels that arrived later: path, label, patient")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Output folder for monitor.html, .json and .prom")] = None,
    margin: Annotated[
        float, typer.Option(help="Accepted loss of accuracy against the validation set, percentage points")
    ] = 2.0,
    false_alarms: Annotated[
        float, typer.Option(help="Probability of a false drift alarm over a store's whole life, percent")
    ] = 1.0,
    replay: Annotated[bool, typer.Option("--replay/--no-replay", help="Replay the golden images on this machine")] = True,
    learn: Annotated[
        bool, typer.Option("--learn", help="Store a summary of the validation set in the artifact, and stop")
    ] = False,
) -> int:
    """Test for drift of inputs and predictions, replay the golden images, and estimate accuracy with and without labels.

    Run it as often as you like: the false alarm rate holds for the whole life of a store. Exit code 1: there is an alarm.
    Nothing is sent to another machine.
    """
    if learn != (store is None):
        text = "--learn takes the artifact alone" if learn else "no store is named"
        raise OctcError("OCT-E102", text, hint="octc monitor ARTIFACT STORE, or octc monitor ARTIFACT --learn")
    if not 0 < false_alarms < 100 or not 0 <= margin < 100:
        text = f"--false-alarms {false_alarms:g}, --margin {margin:g}"
        raise OctcError("OCT-E104", text, hint="percent, above 0 and below 100", place="--false-alarms")
    if store is None:
        from octc.export.reference import fit_reference

        folders = fit_reference(artifact, data=session.data, run_dir=session.run_dir, reporter=session)
        session.report({"report": None, "folder": None, "learned": [str(folder) for folder in folders]})
        session.result("\n".join(f"{folder}: knows its validation set" for folder in folders))
        return 0
    import msgspec

    from octc.bench.monitor.job import MonitorOptions, monitor_box
    from octc.bench.monitor.judge import Limits
    from octc.bench.monitor.page import words_of

    limits = Limits(alpha=false_alarms / 100, margin=margin / 100)
    options = MonitorOptions(labels, replay, limits)
    found = monitor_box(artifact, store, out=out, options=options, reporter=session)
    session.report({"report": msgspec.to_builtins(found), "folder": None if out is None else str(out), "learned": []})
    session.result("\n".join(words_of(found)))
    if found.alarms:
        hint = "look at the page (--out DIR); octc verify where labelled images are"
        raise OctcError("OCT-E711", "; ".join(found.alarms), hint=hint, place=str(store))
    return 0
