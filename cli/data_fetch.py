"""`octc data fetch`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from octc.cli._app.session import Session


def fetch(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Data set: ucsd, neh or octmnist")],
    place: Annotated[str | None, typer.Option("--from", metavar="URL|FILE", help="Another URL, or a local archive")] = None,
    sha256: Annotated[str | None, typer.Option(help="Expected SHA-256 of the file given with --from")] = None,
    size: Annotated[int | None, typer.Option(help="Image size of octmnist: 64, 128 or 224 pixels (64)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Download again")] = False,
) -> int:
    """Download a data set, verify its checksum and unpack it. Source, licence, size and checksum are printed first.

    Repeat the command to resume an interrupted download. The folder appears only when it is complete.
    """
    from octc.datasets.download.fetch import FetchOptions
    from octc.datasets.download.job import fetch_data

    options = FetchOptions(place, sha256, size, force, session.offline)
    done = fetch_data(name, root=session.data, options=options, reporter=session)
    session.report(asdict(done))
    session.result(f"{done.written} files of {name} in {done.root}")
    chosen = "" if session.data is None else f" --data {done.root}"
    session.say(f"licence: {done.licence}\nnext: octc data check {name}{chosen}")
    return 0
