"""What a claim says where classes do not exclude each other: decisions by class, mAP over eyes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from octc.bench.parity.words import span
from octc.stats.multilabel_comparison import COLUMNS as PER_CLASS
from octc.stats.multilabel_comparison import Decisions
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import pp

if TYPE_CHECKING:
    from octc.bench.parity.claim import ParityReport

COLUMNS = ("mAP %", "decisions regressed/improved")
SPELT = {"lost": "regressed", "gained": "improved"}


def margins(options: ParityOptions) -> str:
    """The margin of a verdict: there is none for each class."""
    return f"margin {options.margin:g} pp of mAP"


def cells(report: ParityReport) -> tuple[str, str, str, str, str]:
    """For the table: reference, candidate, regressed/improved, difference with interval, agreement."""
    one: Decisions = report.comparison
    changes = "/".join(str(sum(row[key] for row in one.per_class)) for key in ("lost", "gained"))
    return (*_areas(one), changes, f"{_points(one.difference)} {span(one.interval)}", f"{100 * one.agreement:.2f}")


def warnings(report: ParityReport) -> list[str]:
    """What must be said of the comparison itself."""
    one: Decisions = report.comparison
    empty = [str(row["class"]) for row in one.per_class if not row["support"]]
    return [f"classes without images: {', '.join(empty)}"] if empty else []


def deciding(report: ParityReport) -> Iterator[str]:
    """The interval that decided, and what it was drawn over."""
    one: Decisions = report.comparison
    drawn = "eyes" if one.known.count is None else "patients"
    how = f"paired bootstrap of {drawn}; mAP over {one.eyes} eyes"
    yield f"  deciding     {span(one.interval)} pp around {_points(one.difference)} pp ({how})"


def brief(report: ParityReport) -> Iterator[str]:
    """The numbers that decide."""
    one: Decisions = report.comparison
    count, flips = one.n * len(one.per_class), sum(row["flips"] for row in one.per_class)
    before, after = _areas(one)
    same = f"{100 * one.agreement:.2f} % of the decisions agree ({flips} of {count} differ)"
    yield f"  mAP          {before} -> {after} %; {same}"
    if shown := [row for row in one.per_class if row["ap_candidate"] is not None]:
        lowest = min(shown, key=lambda row: row["ap_candidate"])
        areas = " -> ".join(_area(lowest[key]) for key in ("ap_reference", "ap_candidate"))
        worst = max(one.per_class, key=lambda row: row["lost"])
        changed = (
            f"; most regressed decisions: {worst['class']} ({worst['lost']})" if worst["lost"] else "; no decision regressed"
        )
        yield f"  classes      lowest AP {lowest['class']} {areas}{changed}"


def details(report: ParityReport) -> Iterator[str]:
    """Every number: the brief ones, each rule, a row for each class."""
    one: Decisions = report.comparison
    yield from deciding(report)
    yield from brief(report)
    yield f"  logits       largest difference {one.dlogit_max:.3g}"
    for i, part in enumerate(report.verdict.parts):
        yield f"  {'rules' if i == 0 else '':<12} {'✓' if part.holds else '✗'} {part.detail or part.name}"
    yield "  " + " ".join(f"{SPELT.get(column, column)[:12]:>12}" for column in PER_CLASS)
    for row in one.per_class:
        yield "  " + " ".join(_cell(row[column]) for column in PER_CLASS)


def _areas(one: Decisions) -> tuple[str, str]:
    before, after = (one.map[side] for side in ("reference", "candidate"))
    return _percent(before), _percent(after)


def _percent(value: float | None) -> str:
    return "null" if value is None else f"{100 * value:.2f}"


def _points(value: float | None) -> str:
    return "null" if value is None else pp(value)


def _area(value: float | None) -> str:
    return "null" if value is None else f"{value:.4f}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:>12.4f}"
    return f"{'n/a' if value is None else value:>12}"
