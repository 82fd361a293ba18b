"""`octc results`: summarises, filters and compares the rows that `octc predict --out` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.archive.judge import Accuracy, Paired
    from octc.archive.results import Summary


def results(  # noqa: PLR0913 - an option a parameter
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder that octc predict --out wrote")],
    where: Annotated[
        str | None, typer.Option(help="Print rows that match an SQL condition, as CSV (needs DuckDB)", metavar="SQL")
    ] = None,
    table: Annotated[Literal["scans", "eyes", "failed"], typer.Option(help="With --where: table to query")] = "scans",
    against: Annotated[
        Path | None, typer.Option(help="Compute accuracy with this table of path, label, patient", metavar="LABELS")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Compare with other results of the same images", metavar="RESULTS2")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="With --compare and --against: largest accepted loss of accuracy, percentage points")
    ] = None,
    class_margin: Annotated[
        float | None,
        typer.Option(help="With --margin: largest accepted loss of each class's sensitivity, percentage points (3)"),
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Write an HTML page about the results", metavar="FILE")] = None,
    photos: Annotated[bool, typer.Option("--photos", help="With --page: show the B-scans that it lists")] = False,
) -> int:
    """Summarise the rows of octc predict --out, filter them by SQL, compute accuracy against labels, or compare two results."""
    if sum((where is not None, against is not None or compare is not None, page is not None)) > 1:
        raise OctcError("OCT-E102", "several questions at once", hint="one of --where, --against/--compare, --page")
    stated = margin is not None or class_margin is not None
    if (photos and page is None) or (stated and (compare is None or against is None)):
        text = "--photos is of --page, --margin and --class-margin of --compare with --against"
        raise OctcError("OCT-E102", text, hint="octc results --help")
    from octc.archive.judge import accuracy, compare_results
    from octc.archive.results import summarise

    if where is not None:
        return _rows(session, folder, where, table)
    if compare is not None:
        from octc.stats.test_plan import ParityOptions

        usual = ParityOptions()
        both = (usual.margin if margin is None else margin, usual.class_margin if class_margin is None else class_margin)
        pair = compare_results(folder, compare, against, ParityOptions(margin=both[0], class_margin=both[1]))
        session.report(pair.to_json())
        session.result(_pair(pair))
        return 0 if pair.judged is None else pair.judged.verdict.exit_code
    if against is not None:
        found = accuracy(folder, against)
        session.report(found.to_json())
        session.result(_accuracy(found))
        return 0
    summary = summarise(folder)
    session.report(summary.to_json())
    if page is not None:
        from octc.archive.page import write_page

        write_page(page, summary, photos=photos)
        session.say(f"  page           {page}")
        return 0
    session.result(Rows(("", ""), _summary(summary)))
    return 0


def _rows(session: Session, folder: Path, where: str, table: str) -> int:
    from octc.archive.results import select
    from octc.core.csv_files import csv_line

    names, rows = select(folder, where, table)
    if session.json:
        session.report({"rows": [dict(zip(names, row, strict=True)) for row in rows]})
        return 0
    session.rows(csv_line(names))
    for row in rows:
        session.rows(csv_line(["; ".join(value) if isinstance(value, list) else value for value in row]))
    return 0


def _summary(found: Summary) -> list[tuple[str, str]]:
    whole = found.whole
    lines = [
        ("artifact", f"{found.artifact['name']} ({found.artifact['model']})"),
        ("inputs", f"{found.inputs:,}{'' if found.complete else ', not complete'}"),
        ("B-scans", f"{whole.scans:,}"),
        ("eyes", f"{found.eyes:,}"),
        ("unlike", f"{whole.unlike:,} of {whole.judged:,} that could be compared"),
        *((f"label {name}", f"{count:,}") for name, count in whole.labels.most_common()),
        *((f"failed {code}", f"{count:,}") for code, count in found.failures.most_common()),
    ]
    for name, values in sorted(found.groups.items()):
        lines += [(f"{name} {value}", f"{one.scans:,}, {one.unlike:,} unlike") for value, one in sorted(values.items())]
    return lines


def _limits(value: tuple[float, float] | None) -> str:
    return "no interval" if value is None else f"[{100 * value[0]:.2f}, {100 * value[1]:.2f}]"


def _accuracy(found: Accuracy) -> Any:
    whose = "patients unknown" if found.patients is None else f"{found.patients:,} patients"
    lines = [
        ("accuracy", f"{100 * found.accuracy:.2f} % {_limits(found.interval)} of {found.answered:,} answers, {whose}"),
        ("without a label", f"{found.unlabelled:,}"),
        ("without a row", f"{found.absent:,} of {found.labels:,} lines"),
    ]
    for name, true, other in zip(found.classes, found.sensitivity, found.specificity, strict=True):
        shares = ["-" if share is None else f"{100 * share:.2f} %" for share in (true, other)]
        lines.append((name, f"sensitivity {shares[0]}, specificity {shares[1]}"))
    return Rows(("", ""), [*lines, *([("note", found.warning)] if found.warning else [])])


def _pair(found: Paired) -> Any:
    whose = "patients unknown" if found.patients is None else f"{found.patients:,} patients"
    lines = [
        ("B-scans of both", f"{found.n:,}; only one of them has {found.only[0]:,} and {found.only[1]:,}"),
        ("same class", f"{100 * found.agreement:.3f} % {_limits(found.interval)}, {whose}"),
        ("probabilities", f"differ by {found.mean:.2e} on average, {found.largest:.2e} at most"),
    ]
    if found.judged is not None:
        lines += [("", line) for line in str(found.judged).splitlines()]
    return Rows(("", ""), lines)
