"""`octc data fetch`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError
from octc.core.progress import counting


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
    from octc.datasets.download.fetch import fetch as fetch_source
    from octc.datasets.download.sources import SIZES, source_of
    from octc.datasets.registry import spec_of

    source = source_of(name)
    if sha256 is not None and place is None:
        raise OctcError("OCT-E102", "--sha256 without --from", hint="leave it out: the source states its own checksum")
    if sha256 is not None and (len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef")):
        raise OctcError("OCT-E104", f"--sha256 {sha256}", hint="64 hexadecimal digits", place="--sha256")
    if size is not None and (name != "octmnist" or place is not None):
        raise OctcError("OCT-E102", "--size is of octmnist as its source has it", hint="leave --size out")
    if size is not None and size not in SIZES:
        hint = f"one of: {', '.join(map(str, SIZES))} (octc takes no image below 32 pixels)"
        raise OctcError("OCT-E104", f"--size {size}", hint=hint, place="--size")
    root = Path(session.data or str(spec_of(name).default_root))
    with ExitStack() as stack:
        options = FetchOptions(place, sha256, size or SIZES[0], force, session.offline)
        done = fetch_source(source, root, session.say, lambda label: stack.enter_context(counting(session, label)), options)
    session.report(asdict(done))
    session.result(f"{done.written} files of {name} in {root}")
    chosen = "" if session.data is None else f" --data {root}"
    session.say(f"licence: {done.licence}\nnext: octc data check {name}{chosen}")
    return 0
