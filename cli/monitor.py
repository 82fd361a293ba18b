"""`octc monitor`: is what this box sees, answers and computes still what its artifact knows?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError


def monitor(  # noqa: PLR0913 - an option a parameter
    session: Session,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="The artifact that answers here, or a run")],
    store: Annotated[
        Path | None, typer.Argument(metavar="STORE", help="File that predict, serve and archives added to (--monitor)")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV of labels that arrived: path, label, and patient")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for monitor.html, .json and .prom")] = None,
    margin: Annotated[float, typer.Option(help="Points that accuracy in the field may lie below validation's")] = 2.0,
    false_alarms: Annotated[float, typer.Option(help="Percent of boxes that ever see a false alarm of drift")] = 1.0,
    replay: Annotated[bool, typer.Option("--replay/--no-replay", help="Replay the golden images on this machine")] = True,
    learn: Annotated[
        bool, typer.Option("--learn", help="Store in the artifact what its validation set looks like, and end")
    ] = False,
) -> int:
    """Drift, golden images, accuracy without labels and with them; ends with 1 where anything is an alarm. Sends nothing.

    Look as often as you like: the false alarm rate is of the whole life of a store.
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
