"""`octc artifact licences` and `octc data overlap`: licences of an artifact, and images that two data sets share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.core.options import OneOf
from octc.schemas.licences import USES


def licences(
    session: Session,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact, a folder of artifacts, or a run")],
    use: Annotated[
        str | None, OneOf(USES), typer.Option(help="Intended use; exit code 1 if a licence does not allow it")
    ] = None,
    known: Annotated[Path | None, typer.Option("--licences", metavar="FILE", help="Licences that you know (JSON)")] = None,
) -> int:
    """List data, start weights and teachers with their licences and sources; a copy keeps the licence of its original."""
    from octc.cli._app.tables import Rows
    from octc.datasets.licences import read_known, refuse, shared_json, terms_of
    from octc.store.find import find_artifacts

    own = () if known is None else read_known(known)
    founds, words = find_artifacts(artifact, session.run_dir, os.environ)
    session.say(words)
    terms = {one.artifact.name: terms_of(one.artifact.lineage, one.artifact.model, own) for one in founds}
    shared = {one.artifact.name: shared_json(str(one.artifact.lineage.get("dataset") or "")) for one in founds}
    rows = [(name, [t.to_json() for t in found], shared[name]) for name, found in terms.items()]
    session.report({"artifacts": [{"artifact": name, "terms": own, "shared_images": sets} for name, own, sets in rows]})
    columns = ("what", "which", "licence", "commercial use", "how that is known", "source")
    for name, found in terms.items():
        session.result(Rows(columns, [(t.what, t.name, t.licence, t.use, t.why, t.source) for t in found], name))
        for each in shared[name]:
            told = f"{each['data_set']} shares images with the data of {name}: {each['how']} ({each['source']})"
            session.say(f"  ! {told}; it is no independent test of it")
    if use is not None:
        refuse([term for found in terms.values() for term in found], use)
    return 0


def overlap(
    session: Session,
    one: Annotated[Path, typer.Argument(metavar="DIR", help="A class tree, or the root of a known data set")],
    other: Annotated[Path, typer.Argument(metavar="DIR", help="Another one")],
) -> int:
    """Find images that two data sets share, by checksum and by perceptual hash. Exit code 1: there are some."""
    from octc.cli._app.tables import Rows
    from octc.core.errors import OctcError
    from octc.datasets.layouts.folders import scan_folder
    from octc.datasets.overlap import find_overlap

    found = find_overlap((one.name, other.name), scan_folder(one, None), scan_folder(other, None), session)
    session.report(found.to_json())
    rows = [(a, b, "the same file") for a, b in found.same] + [(a, b, f"{n} of 255 hash bits differ") for a, b, n in found.near]
    session.result(Rows((one.name, other.name, ""), rows[:50], f"{found.shared} of {found.images[0]} images are in both"))
    for sentence in found.stated:
        session.say(f"  stated: {sentence}")
    if found.shared:
        text = f"{found.shared} images of {one.name} are in {other.name} too"
        raise OctcError("OCT-E210", text, hint="do not train on one and judge on the other", place=str(other))
    return 0
