"""`octc data list | check | synthetic`, and helpers of the commands about data."""

from __future__ import annotations

import os
from collections.abc import Iterable
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
    from octc.datasets.base import Finding, Samples

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
    from octc.datasets.audit import audit
    from octc.datasets.reading import read_data
    from octc.imaging.value_range import value_range_of

    name, root = place_of(session, what, options)
    with counting(session, "checksums") as scanned:
        samples = read_data((name, root), options, session.run_dir, session.say, scanned)
    values = value_range_of(options.value_range)
    with counting(session, "images") as read:
        report = audit(name, root, near_duplicates, expect, read=read, samples=samples, values=values)
    session.report(report.to_json())
    session.result(_audit_table(report))
    session.result("\n".join(wrapped(line, session.width) for line in report.lines))
    _say_facts(session, report)
    warn_notes(session, report.warnings)
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


def place_of(session: Session, what: str, options: DataOptions) -> tuple[str, Path]:
    """Name and root of a data set, from a name, a folder or a table. Prints what was chosen."""
    from octc.datasets.registry import DATASETS, find_root, guess_layout, spec_of
    from octc.datasets.tree import has_file, is_folder

    if what not in DATASETS and not Path(what).exists() and (Path(what).name != what or Path(what).suffix):
        hint = f"a folder of images, a table, or one of: {', '.join(DATASETS)}"
        raise OctcError("OCT-E230", f"no such folder or table: {what}", hint=hint, place=what)
    if what not in DATASETS and (has_file(Path(what)) or options.column or options.image_root):
        root, told = Path(what), guess_layout(Path(what))
        name = told if spec_of(told).table else "csv"
        how = "a table"
    elif what in DATASETS or not is_folder(Path(what)):
        name, root = spec_of(what).name, find_root(what, session.data, os.environ)
        how = "choose with --data DIR"
    else:
        name, root = guess_layout(Path(what)), Path(what)
        how = "told by its folders"
    session.say(f"using data set {name} in {root} ({how})")
    return name, root


def tell_scan(session: Session, samples: Samples) -> None:
    """Print how each folder was read, what was left out, and the warnings of the scan."""
    from octc.datasets.base import scan_json, words_of_scan

    session.document["scan"] = scan_json(samples)
    for line in words_of_scan(samples.items, samples.parts, samples.unread):
        session.say(line)
    warn_notes(session, samples.notes)


def warn_notes(session: Session, notes: Iterable[Finding]) -> None:
    """Print the warnings of a scan."""
    for note in notes:
        session.warn(note.code, f"{note.message}; {note.hint}" if note.code == "OCT-W223" else note.message, note.place)


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
