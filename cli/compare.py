"""`octc compare`: compares two runs, cross-validations or artifacts on the same images, or two prediction tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.errors import OctcError
from octc.core.options import OneOf, described, spelled
from octc.datasets.split import SETS
from octc.imaging.preprocess import VIEWS
from octc.schemas.comparing import TableFiles, TableOptions
from octc.schemas.verification import SPELLED
from octc.stats.test_plan import ParityOptions

if TYPE_CHECKING:
    from octc.stats.two_models import Versus

WHAT = "A run, a cross-validation (runs/cv-...), an artifact, or a table of predictions (CSV, JSON lines, Parquet)"
METRICS = {
    "accuracy": "accuracy, %",
    "macro_sensitivity": "macro sensitivity, %",
    "macro_specificity": "macro specificity, %",
    "macro_f1": "macro F1, %",
    "disease_vs_normal_sensitivity": "disease against normal: sensitivity, %",
    "disease_vs_normal_specificity": "disease against normal: specificity, %",
}
SIZES = {"parameters": ("parameters, M", 1e6), "macs": ("MACs of an image, G", 1e9), "file_mib": ("file, MiB", 1.0)}


def compare(
    session: Session,
    tables: TableOptions,
    margins: ParityOptions,
    written: TableFiles,
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help=WHAT)],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="The one that would replace it")],
    split: Annotated[
        str,
        OneOf((*SPELLED, *SETS)),
        typer.Option(help="Set to compare on (select is val); test of a cross-validation: out-of-fold predictions"),
    ] = "test",
    tta: Annotated[str, OneOf(VIEWS), typer.Option(help="Test-time augmentation: views to average")] = "none",
) -> int:
    """Compare accuracy (interval, McNemar test), parameters, MACs, file size and latency. Writes reports/compare-<time>/.

    Two prediction tables of any program are joined by key and tested as octc verify does: at the given margins, by patient
    (--cluster). Exit code 0 only if the claim is shown.
    """
    paths = Path(reference), Path(candidate)
    if all(_is_table(path) for path in paths):
        from octc.cli.compare_tables import compare_tables

        return compare_tables(session, paths, tables, margins, written)
    _check_runs(session, paths)
    from octc.export.compare import Job, compare_runs, write_comparison

    job = Job(split, tta, session.run_dir, session.data, os.environ, session)
    found = compare_runs(reference, candidate, job)
    folder, document = write_comparison(found, job)
    session.report(document)
    session.result(Rows(("metric", *(side.name for side in found.sides), "difference"), rows_of(found)))
    session.result(Rows(("class", "n", *(side.name for side in found.sides), "difference", "p, Holm"), class_rows(found)))
    session.result("\n".join(words_of(found)))
    session.result(str(folder))
    if job.split == "select":
        session.say("  these images chose the epoch of both: no claim   (--split test)")
    for side in found.sides:
        if not side.latency:
            session.say(f"  no latency of {side.name}: octc export {side.facts.get('run') or 'RUN'} && octc bench")
    return 0


def _is_table(path: Path) -> bool:
    from octc.bench.parity.tables.read import is_table

    return is_table(path) and not path.is_dir()


def _check_runs(session: Session, paths: tuple[Path, Path]) -> None:
    """Refuse a table together with a run, and options that apply to tables only (OctcError E102)."""
    from octc.bench.parity.tables.read import table_hint

    if mixed := [path for path in paths if _is_table(path)]:
        other = next(path for path in paths if path not in mixed)
        text = f"{mixed[0]} is a table, and {other} is none"
        found = table_hint(other) if other.is_file() else None
        raise OctcError("OCT-E102", text, hint=found or "two tables, or two runs or artifacts", place=str(other))
    own = {one.name: spelled(one) for kind in (TableOptions, ParityOptions, TableFiles) for one in described(kind)}
    if given := [name for key, name in own.items() if session.origins.get(f"compare.{key}") == "flag"]:
        text = f"{', '.join(given)}: runs and artifacts are put beside each other, and not judged"
        raise OctcError(
            "OCT-E102", text, hint="octc verify judges an artifact; tables of predictions are judged", place=given[0]
        )


def rows_of(found: Versus) -> list[tuple[str, ...]]:
    """Table rows: metrics, losses, sizes and latencies of both sides."""
    one, other = found.figures
    rows = []
    for name, words in METRICS.items():
        values = (getattr(one, name), getattr(other, name))
        if None not in values:
            rows.append((words, *(f"{100 * v:.2f}" for v in values), f"{100 * (values[1] - values[0]):+.2f}"))
    rows.append(("loss, nats", *(f"{v:.4f}" for v in found.losses), f"{found.losses[1] - found.losses[0]:+.4f}"))
    for name, (words, unit) in SIZES.items():
        left, right = (side.size.get(name) for side in found.sides)
        rows.append((words, *(_number(v, unit) for v in (left, right)), _smaller(left, right)))
    rows += [(f"{row['artifact']} p50, ms ({row['host']})", *_times(found, k, row), "") for k, row in _measured(found)]
    return rows


def _measured(found: Versus) -> list[tuple[int, dict[str, Any]]]:
    return [(k, row) for k, side in enumerate(found.sides) for row in side.latency]


def _times(found: Versus, k: int, row: dict[str, Any]) -> tuple[str, str]:
    cells = ["", ""]
    cells[k] = f"{row['p50_ms']['value']:.2f}" if row["p50_ms"].get("value") is not None else "null"
    return cells[0], cells[1]


def _number(value: float | None, unit: float) -> str:
    return "unknown" if value is None else f"{value / unit:,.3f}"


def _smaller(one: float | None, other: float | None) -> str:
    if not one or not other:
        return "unknown"
    return (
        f"{one / other:.1f} times smaller ({100 * (1 - other / one):.1f} % less)"
        if other <= one
        else f"{other / one:.1f} times"
    )


def class_rows(found: Versus) -> list[tuple[str, ...]]:
    """Table rows: sensitivity of each class with its paired interval."""
    rows = []
    for row in found.per_class:
        values = [f"{100 * v:.2f}" if v is not None else "-" for v in (row.reference, row.candidate)]
        limits = "-" if row.pair is None else f"{100 * row.pair.difference:+.2f} {_span(row.pair.deciding)}"
        rows.append((row.name, f"{row.n:,}", *values, limits, "-" if row.p_holm is None else f"{row.p_holm:.4f}"))
    return rows


def _span(limits: tuple[float, float] | None) -> str:
    return "[no interval: one patient]" if limits is None else f"[{100 * limits[0]:+.2f}, {100 * limits[1]:+.2f}]"


def words_of(found: Versus) -> list[str]:
    """The paired comparison as sentences."""
    pair = found.pair
    over = {"known": f" of {found.known.words}", "partial": f" ({found.known.words})"}.get(found.known.state, "")
    how = f"{_span(pair.deciding)} on {found.n:,} images{over} ({pair.decided_by.replace('_', ' ')})"
    agree = f"regressed {pair.lost}, improved {pair.gained}, equal predictions {100 * found.agreement:.2f} %"
    tests = f"McNemar mid-p {found.mcnemar_midp:.4f} (exact {found.mcnemar_exact:.4f})"
    counts = "" if found.patients is None else "it counts images, not patients; "
    lines = [
        f"accuracy difference {100 * pair.difference:+.2f} points {how}; {agree}",
        f"{tests}: {counts}a large p shows nothing",
    ]
    if found.known.warning:
        lines.append(found.known.warning)
    first, second = (side.facts.get("mean_accuracy") for side in found.sides)
    if first is not None and second is not None:
        spelt = [f"{100 * side.facts['mean_accuracy']:.2f} ± {100 * side.facts['std_ddof0']:.2f}" for side in found.sides]
        lines.append(f"mean over folds ± std (ddof 0): {spelt[0]} and {spelt[1]}, gap {100 * (first - second):+.2f} points")
    together = [side.ensemble for side in found.sides]
    if together[0] is not None and together[1] is not None:
        lines.append(f"ensembles on the official test: {100 * together[0]:.2f} and {100 * together[1]:.2f}")
    return lines
