"""Numbers and conditions of a claim as people read them, for every task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from octc.stats.proportions import Interval, wilson
from octc.stats.verdict import pp

if TYPE_CHECKING:
    from octc.bench.parity.claim import ParityReport

HEAD = {
    "fail": "FAIL",
    "inferior": "INFERIOR",
    "inconclusive": "INCONCLUSIVE",
    "non_inferior": "NON-INFERIOR",
    "equivalent": "EQUIVALENT",
    "not_tested": "NOT TESTED",
}


def rate(hits: float, n: int, alpha: float, deff: float | None = None) -> str:
    """A proportion with its Wilson interval and its count; with a design effect, the wider interval of patients too."""
    limits = wilson(hits, n, alpha)
    if limits is None:
        return "null (no image)"
    wider = None if deff is None else wilson(hits / deff, n / deff, alpha)
    more = "" if wider is None else f", by patient {percents(wider)}"
    return f"{100 * hits / n:.2f} % {percents(limits)}{more} ({hits:g}/{n})"


def percents(limits: Interval) -> str:
    """An interval of a proportion in percent."""
    return f"[{100 * limits[0]:.2f}, {100 * limits[1]:.2f}]"


def span(limits: Interval | None) -> str:
    """An interval of a difference in percentage points."""
    return "null" if limits is None else f"[{pp(limits[0])}, {pp(limits[1])}]"


def times(count: int | None) -> str:
    """1 time, 2 times."""
    return f"{count} time{'' if count == 1 else 's'}"


def uses_words(uses: int, readings: int | None) -> str:
    """How often the test set was used, and read where repeats make that more."""
    more = "" if readings in (None, uses) else f" and read {times(readings)}, repeats counted"
    return f"test set used {times(uses)} by this run{more}"


def golden_words(golden: Mapping[str, Any]) -> str:
    """The golden replay in words: images, largest difference, its limit."""
    delta, limit = golden.get("delta_over_s"), golden.get("tolerance")
    words = f"{golden.get('images')} golden images replayed"
    return words if limit is None else f"{words}, delta over s {'null' if delta is None else f'{delta:.2g}'} (limit {limit:g})"


def head_word(report: ParityReport) -> str:
    """The verdict's word; on the validation set it is only used together with that set's name."""
    word = HEAD[report.word] + (" on the validation set" if report.set.name == "select" else "")
    return f"{word} (exploratory)" if report.set.exploratory else word


def claim_of(report: ParityReport) -> str:
    """Who against whom, with which views."""
    what = {"fp32": "its FP32 reference ", "teacher": "its teacher ", "table": ""}[report.against]
    views = "" if report.tta == "none" else f" with TTA {report.tta}"
    unit = "" if report.set.unit == "images" else f", {report.set.unit}"
    return f"{report.candidate.name} against {what}{report.reference.name}{views}{unit}"
