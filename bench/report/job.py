"""A report as one job: find the artifacts, read what is stored, write the folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from octc.bench.report.collect.run_summary import RunSummary, read_run_summary
from octc.bench.report.write import Wanted, write_report
from octc.core.clock import utc_now
from octc.core.errors import OctcError
from octc.core.files import at_free_name
from octc.core.options import check_choices
from octc.core.progress import LogReporter, Reporter
from octc.datasets.registry import find_root
from octc.datasets.split import read_split
from octc.schemas.requests import ReportOptions
from octc.store.find import Found, find_artifacts, path_of
from octc.store.locations import image_root
from octc.store.test_set_log import log_part


@dataclass(frozen=True)
class Job:
    """A report of what a path, a run or nothing names (`find_artifacts`). run_dir, data, environ: where runs and images lie."""

    artifacts: str | None = None
    requested: ReportOptions = field(default_factory=ReportOptions)
    run_dir: Path = Path("runs")
    data: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    reporter: Reporter = field(default_factory=LogReporter)


@dataclass(frozen=True)
class Report:
    """A report that was written: its folder, the names of its files, report.json, the artifacts that it is about."""

    folder: Path
    files: tuple[str, ...]
    document: dict[str, Any]
    founds: tuple[Found, ...]

    @property
    def run_id(self) -> str:
        return str(self.founds[0].artifact.lineage.get("run"))

    @property
    def page(self) -> Path:
        """The page, else the Markdown."""
        return self.folder / ("report.html" if "report.html" in self.files else "report.md")


def make_report(job: Job) -> Report:
    """Write a report. Nothing is measured and nothing is fetched.

    Raises:
        OctcError: E104 an unknown checklist, E102 photos with hidden names, E107 no artifact, E106 the folder exists,
            E230 photos of images that are not here.
    """
    requested = job.requested
    check_choices(requested)
    if requested.photos and requested.redact_ids:
        raise OctcError("OCT-E102", "--photos and --redact-ids: an image shows whose it is", hint="leave one of them out")
    founds, words = find_artifacts(job.artifacts, job.run_dir, job.environ)
    job.reporter.say(words)
    summary = read_run_summary(founds, job.run_dir)
    both = requested.html == requested.md
    wanted = Wanted(
        requested.html or both,
        requested.md or both,
        requested.redact_ids,
        _root(job, summary) if requested.photos else None,
        requested.checklist,
        requested.sbom,
    )
    out, place = None if requested.out is None else Path(requested.out), job.run_dir.parent / "reports"
    if requested.photos:
        _log_photos(summary, out)
        summary = read_run_summary(founds, job.run_dir)

    def write(folder: Path) -> tuple[list[str], dict[str, Any]]:
        return write_report(folder, summary, wanted, utc_now())

    folder, (names, document) = at_free_name(lambda: _free(place), write) if out is None else (out, write(out))
    return Report(folder, tuple(names), document, tuple(founds))


def _log_photos(summary: RunSummary, out: Path | None) -> None:
    """A row of the run's test-set log: images of the test part are shown. Not where the folder is there and nothing will be."""
    sets = {document["set"]["name"] for documents in summary.stored.values() for document in documents if document.get("set")}
    if summary.run is not None and summary.run.split.is_file() and "test" in sets and not (out is not None and out.exists()):
        log_part(summary.run.path, read_split(summary.run.split), "test", summary.checksums, "report --photos", utc_now())


def _root(job: Job, summary: RunSummary) -> Path:
    """Root of the data set whose images are shown (E230 where it is not here)."""
    if summary.run is None:
        return find_root(str(summary.first.artifact.lineage.get("dataset")), job.data, job.environ)
    return image_root(summary.run, job.data, job.environ)


def _free(place: Path) -> Path:
    """reports/report-<time>, a name that nothing has yet."""
    stem = place / f"report-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    names = (stem if number == 0 else stem.with_name(f"{stem.name}-{number}") for number in range(1000))
    return next(path for path in names if not path.exists())


def report_run(
    run: Any = None,
    *,
    out: str | Path | None = None,
    options: ReportOptions | None = None,
    run_dir: str | Path = "runs",
    data: str | Path | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Write one page about a run from what training, `octc.verify` and `octc.bench` stored. Nothing is measured.

    Args:
        run: a run (its id or folder), a folder of artifacts, one artifact, or a model of `octc.load`; None: the newest
            student run with artifacts.
        out: the folder to write, which must not exist; None: reports/report-<time> beside the folder of runs.
        options: the checklist, the bill of materials, photos.
        run_dir: folder of the runs. data: root of the data set, for photos. reporter: receives messages; None: the log `octc`.

    Returns:
        The page, report.html; Markdown, figures, model card and report.json lie beside it.

    Raises:
        OctcError: E107 no artifact; E106 `out` exists; E104 an unknown checklist; E230 the images for photos are not here.

    >>> import octc
    >>> octc.report("no-such-run")
    Traceback (most recent call last):
    octc.core.errors.OctcError: no artifact and no run: no-such-run
    """
    requested = options or ReportOptions()
    if out is not None:
        requested = replace(requested, out=str(out))
    given = None if run is None else path_of(run)
    where = None if data is None else str(data)
    return make_report(Job(given, requested, Path(run_dir), where, reporter=reporter or LogReporter())).page
