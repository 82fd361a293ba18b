"""Lines of a report beside the verdict: areas, calibration with its temperature, subgroups, robustness, layers that differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from octc.stats.auc import AucRow
from octc.stats.comparison import Comparison
from octc.stats.proportions import Interval
from octc.stats.robustness import Robustness
from octc.stats.subgroups import Subgroup
from octc.stats.verdict import pp

if TYPE_CHECKING:
    from octc.runtimes.layers import LayerGap

SHOWN = 10


def areas(comparison: Comparison) -> Iterator[str]:
    """The mean area, then each class."""
    *classes, macro = comparison.auc
    if macro.reference is None:
        yield f"  AUC          null ({macro.reason})"
        return
    for head, row in (("AUC", macro), *(("", one) for one in classes)):
        yield f"  {head:<12} {row.name:<12} {_area(row)}"


def _area(row: AucRow) -> str:
    if row.reference is None or row.candidate is None:
        return f"null ({row.reason})"
    before, after = _limited(row.reference, row.reference_interval), _limited(row.candidate, row.candidate_interval)
    why = "" if row.reason is None else f", {row.reason}"
    change = f"{row.difference:+.4f} {_limits(row.difference_interval)}"
    return f"{before} -> {after}; {change} ({row.method}{why})"


def _limited(value: float, limits: Interval | None) -> str:
    return f"{value:.4f} {_limits(limits)}"


def _limits(limits: Interval | None) -> str:
    return "[null]" if limits is None else f"[{limits[0]:.4f}, {limits[1]:.4f}]"


def temperatures(comparison: Comparison) -> Iterator[str]:
    """What one temperature a model, fitted on the select set, would do for the calibration here."""
    fitted = [comparison.temperatures[name] for name in ("reference", "candidate")]
    if all(one.reason is not None for one in fitted):
        if any(one.reason not in ("not_given", None) for one in fitted):
            yield f"  temperature  1 ({fitted[1].reason})"
        return
    values = " -> ".join(f"{one.value:.4f}" + ("" if one.reason is None else f" ({one.reason})") for one in fitted)
    after = [comparison.after_temperature[name] for name in ("reference", "candidate")]
    scores = ", ".join(
        f"{word} {after[0][key]:.4f} -> {after[1][key]:.4f}"
        for word, key in (("ECE", "ece_mass"), ("Brier", "brier"), ("NLL", "nll"))
    )
    yield f"  temperature  {values}, fitted on {fitted[1].n} validation images; with it {scores}"


def subgroup_lines(found: Sequence[Subgroup]) -> Iterator[str]:
    """One line a subgroup; they describe and decide nothing."""
    for i, one in enumerate(found):
        head = "subgroups" if i == 0 else ""
        people = "" if one.patients is None else f", {one.patients} patients"
        limits = "null" if one.deciding is None else f"[{pp(one.deciding[0])}, {pp(one.deciding[1])}]"
        tested = f"p {one.p:.3f}, Holm {one.p_holm:.3f}{'; LOSS beyond chance' if one.loss else ''}"
        yield (
            f"  {head:<12} {one.column} = {one.value}: {one.hits_reference} -> {one.hits_candidate} of {one.n}{people}; "
            f"regressed {one.lost}, improved {one.gained}; {pp(one.difference)} {limits} pp, {tested}"
        )
    if found:
        yield f"               ({len(found)} subgroups: they describe; none of them alone shows parity)"


def robust_lines(found: Robustness, candidate: str, margin: float) -> Iterator[str]:
    """Accuracy of both at every level of every disturbance, and under which the candidate breaks earlier."""
    clean = f"{100 * found.clean_reference:.2f} -> {100 * found.clean_candidate:.2f}"
    yield f"  robustness   accuracy, %, reference -> candidate; clean {clean}, n={found.cells[0].n}"
    for kind, (r, c) in found.breaks.items():
        cells = [one for one in found.cells if one.kind == kind]
        steps = ", ".join(f"{one.level:g}: {100 * one.reference:.1f} -> {100 * one.candidate:.1f}" for one in cells)
        first = [("not up to the last level" if level is None else f"at {level:g}") for level in (r, c)]
        yield f"               {kind:<11} {steps}; loss of {margin:g} pp {first[0]} -> {first[1]}"
    if found.earlier:
        yield f"               {candidate} BREAKS EARLIER than its reference: {', '.join(found.earlier)}"
    else:
        yield f"               {candidate} breaks no earlier than its reference (Holm over {len(found.cells)} comparisons)"


def layer_lines(gaps: Sequence[LayerGap], suspected: Sequence[LayerGap]) -> Iterator[str]:
    """Where the file departs from its FP32 reference: the layers that add most error, with the factor of their results."""
    if not suspected:
        worst = max(gaps, key=lambda one: one.added)
        yield (
            f"  layers       none of {len(gaps)} stands out: {worst.name} adds most, {100 * worst.added:.1f} % of its size; "
            f"the last is {100 * gaps[-1].error:.1f} % off"
        )
        return
    for i, one in enumerate(suspected[:SHOWN]):
        place = next(k for k, gap in enumerate(gaps, 1) if gap is one)
        yield (
            f"  {'layers' if i == 0 else '':<12} {one.name} (layer {place} of {len(gaps)}): {100 * one.error:.1f} % off, "
            f"{100 * one.added:.1f} % of it added here; its results are {one.gain:.3f} times those of FP32"
        )
