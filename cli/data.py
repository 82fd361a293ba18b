"""`octc data list | check | synthetic`, and helpers of the commands about data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows, wrapped
from octc.core.data_options import DataOptions
from octc.core.errors import OctcError, Several
from octc.core.progress import counting

if TYPE_CHECKING:
    from octc.datasets.audit import AuditReport

NAME = "Name of a data set (octc data list), a folder, or a table"


def list_(session: Session) -> int:
    """List known data sets, and which of them are on this machine."""
    from octc.datasets.registry import DATASETS, find_root

    cells, rows = [], {}
    for name, spec in DATASETS.items():
        try:
            root = str(find_root(name, session.data, os.environ))
        except OctcError:
            root = ""
        cells.append((name, root or "no", spec.title, spec.layout, spec.licence))
        rows[name] = {
            "title": spec.title, "classes": spec.classes, "root": root or None, "layout": spec.layout, "licence": spec.licence,
            "source": spec.source, "note": spec.note,
        }  # fmt: skip
    session.report({"datasets": rows})
    session.result(Rows(("name", "here", "what it is", "layout", "licence"), cells))
    return 0


def check(
    session: Session,
    options: DataOptions,
    what: Annotated[str, typer.Argument(metavar="NAME|PATH", help=NAME)] = "ucsd",
    near_duplicates: Annotated[
        str, typer.Option(help="Near-duplicates between training and test: error, warn or off")
    ] = "error",
    expect: Annotated[str, typer.Option(help="subset: accept fewer images than published; published: require all")] = "subset",
) -> int:
    """Check a data set: counts, unreadable files, duplicates, near-duplicates, patients in both parts, conflicting labels.

    Exit code 1: something was found. Exit code 3: a file cannot be read.
    """
    from octc.datasets.jobs import check_data
    from octc.datasets.reading import warn_notes

    report = check_data(
        what,
        data=session.data,
        near_duplicates=near_duplicates,
        expect=expect,
        options=options,
        run_dir=session.run_dir,
        reporter=session,
    )
    session.report(report.to_json())
    session.result(_audit_table(report))
    session.result("\n".join(wrapped(line, session.width) for line in report.lines))
    _say_facts(session, report)
    warn_notes(report.warnings, session)
    if report.findings:
        raise Several([found.error() for found in report.findings])
    whole = {"known": "no image and no patient is", "partial": "no image and no known patient is"}.get(
        report.patient_ids, "no image is"
    )
    session.say(f"✓ nothing found: every file is readable, {whole} on both sides")
    if report.patient_ids != "known":
        session.say(f"! leakage: {report.leakage}")
    return 0


def phantom(
    session: Session,
    folder: Annotated[str | None, typer.Argument(metavar="DIR", help="Output folder (./Dataset/phantom)")] = None,
    images: Annotated[int, typer.Option(min=2, help="Images per class (four classes)")] = 120,
    patients: Annotated[int | None, typer.Option(min=2, help="Patients per class (half the number of images)")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; the same seed gives the same images")] = 0,
    severity: Annotated[
        float, typer.Option(min=0, max=1, help="Minimum severity of disease: 0 includes subtle cases, 1 excludes them")
    ] = 0.0,
    force: Annotated[bool, typer.Option("--force", help="Replace existing images")] = False,
) -> int:
    """Generate synthetic B-scans in the layout of UCSD; a quarter is the test part. They say nothing about real patients."""
    from octc.datasets.registry import spec_of
    from octc.datasets.synthetic.bscans import write_phantoms

    root = Path(folder or session.data or str(spec_of("phantom").default_root))
    people = patients or max(2, images // 2)
    with counting(session, "drawing") as step:
        total = write_phantoms(root, images, people, seed, severity=severity, force=force, progress=step)
    session.report({"root": str(root), "images": total, "patients": 4 * people, "seed": seed, "severity": severity})
    session.result(f"{total} images of {4 * people} synthetic patients in {root}")
    chosen = "" if root == Path(str(spec_of("phantom").default_root)) else f" --data {root}"
    session.say(f"next: octc train student --dataset phantom --recipe smoke --with-teacher --any-teacher{chosen}")
    return 0


def people_cell(count: int | None) -> str:
    """A patient count as a table cell."""
    return "unknown" if count is None else str(count)


def _audit_table(report: AuditReport) -> Rows:
    cells = [
        (part, kind, str(count), people_cell(report.patients[part][kind]))
        for part, row in report.counts.items()
        for kind, count in row.items()
    ]
    return Rows(("part", "class", "images", "patients"), cells, f"{report.dataset}: {report.root}")


def _say_facts(session: Session, report: AuditReport) -> None:
    sizes = [f"{size} ({count})" for size, count in report.sizes.items()]
    more = f" and {len(sizes) - 5} more" if len(sizes) > 5 else ""
    session.say(f"sizes: {', '.join(sizes[:5])}{more}")
    for kind, one in report.values.items():
        low, high = report.value_range or (0, 0)
        applies = report.value_range is not None and (kind != "uint8" or high <= 255)
        stated = f", of which {low:g} to {high:g} become black to white" if applies else ""
        session.say(f"stored values: {one['images']:g} images hold {kind} from {one['low']:g} to {one['high']:g}{stated}")
    white = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in report.white.items())
    session.say(f"images with a white border: {white}")
    if report.release:
        session.say(f"release of the test part: {report.release}")
    session.say(f"digest {report.digest}")
