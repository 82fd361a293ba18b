"""`octc report`: one page about a run, from what train, verify and bench stored."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.bench.report.collect.run_summary import Dossier

CHECKLISTS = ("claim", "tripod-ai")


def report(
    session: Session,
    bundle: Annotated[
        str | None, typer.Argument(metavar="[RUN|ARTIFACT]", help="Run or artifacts; newest student run with artifacts")
    ] = None,
    html: Annotated[bool, typer.Option("--html", help="The page (and not the Markdown)")] = False,
    md: Annotated[bool, typer.Option("--md", help="The Markdown with its figures (and not the page)")] = False,
    checklist: Annotated[str | None, typer.Option(help="claim or tripod-ai, with what octc knows filled in")] = None,
    sbom: Annotated[bool, typer.Option("--sbom", help="A bill of materials (CycloneDX) beside the report")] = False,
    photos: Annotated[bool, typer.Option("--photos", help="Show the images whose label changed")] = False,
    redact_ids: Annotated[bool, typer.Option("--redact-ids", help="Images by keyed checksums instead of their names")] = False,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="DIR", help="Where to (reports/report-<time>)")] = None,
) -> int:
    """Write report.html, report.md, report.json and a model card of a run. Nothing is measured and nothing is fetched."""
    if checklist is not None and checklist not in CHECKLISTS:
        hint = f"one of: {', '.join(CHECKLISTS)}"
        raise OctcError("OCT-E104", f"--checklist {checklist} is not known", hint=hint, place="--checklist")
    if photos and redact_ids:
        raise OctcError("OCT-E102", "--photos and --redact-ids: an image shows whose it is", hint="leave one of them out")
    from octc.bench.report.collect.run_summary import read_dossier
    from octc.bench.report.write import Wanted, write_report
    from octc.cli.choose import say_choice
    from octc.store.find import find_artifacts
    from octc.store.runs import utc_now

    founds, words = find_artifacts(bundle, session.run_dir, os.environ)
    session.say(words)
    dossier = read_dossier(founds, session.run_dir)
    session.run_id = str(dossier.first.artifact.lineage.get("run"))
    both = html == md
    wanted = Wanted(html or both, md or both, redact_ids, _root(session, dossier) if photos else None, checklist, sbom)
    folder = Path(out) if out else _free(session.run_dir.parent / "reports")
    if photos:
        _log_photos(dossier, folder)
        dossier = read_dossier(founds, session.run_dir)
    names, document = write_report(folder, dossier, wanted, utc_now())
    session.report({"folder": str(folder), "files": names, "report": document})
    for name in names:
        if not name.startswith("figures/"):
            session.result(str(folder / name))
    say_choice(session, founds)
    return 0


def _log_photos(dossier: Dossier, folder: Path) -> None:
    """A row of the run's test-set log: images of the test part are shown. Not where the folder is there and nothing will be."""
    from octc.datasets.split import read_split
    from octc.store.runs import utc_now
    from octc.store.test_set_log import log_part

    sets = {document["set"]["name"] for documents in dossier.stored.values() for document in documents if document.get("set")}
    if dossier.run is not None and dossier.run.split.is_file() and "test" in sets and not folder.exists():
        log_part(dossier.run.path, read_split(dossier.run.split), "test", dossier.sums, "report --photos", utc_now())


def _root(session: Session, dossier: Dossier) -> Path:
    """Root of the data set whose images are shown (E230 where it is not here)."""
    from octc.datasets.registry import find_root
    from octc.store.locations import image_root

    if dossier.run is None:
        return find_root(str(dossier.first.artifact.lineage.get("dataset")), session.data, os.environ)
    return image_root(dossier.run, session.data, os.environ)


def _free(place: Path) -> Path:
    """reports/report-<time>, a name that nothing has yet."""
    stem = place / f"report-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = (stem if number == 0 else stem.with_name(f"{stem.name}-{number}") for number in range(1000))
    return next(path for path in names if not path.exists())
