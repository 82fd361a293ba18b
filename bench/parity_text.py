"""The report of a claim as text: the verdict first, then what it rests on (sections 16 and 17 of the parity contract).

The words of a positive verdict are used only with one, and always with margin, level, n, patients and set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from octc.bench.parity_json import class_specificity
from octc.compare import Comparison
from octc.plan import ParityOptions
from octc.stats import Interval, mcnemar_exact, mcnemar_midp, p_non_inferior, p_tost, tier_reached, wilson
from octc.verdict import pp

if TYPE_CHECKING:
    from octc.bench.parity import ParityReport

HEAD = {
    "fail": "FAIL",
    "inferior": "INFERIOR",
    "inconclusive": "INCONCLUSIVE",
    "non_inferior": "NON-INFERIOR",
    "equivalent": "EQUIVALENT",
    "not_tested": "NOT TESTED",
}
SHOWN_FLIPS = 10


def rate(hits: float, n: int, alpha: float) -> str:
    """A proportion with its Wilson interval and its count."""
    limits = wilson(hits, n, alpha)
    if limits is None:
        return "null (no image)"
    return f"{100 * hits / n:.2f} % [{100 * limits[0]:.2f}, {100 * limits[1]:.2f}] ({hits:g}/{n})"


def span(limits: Interval | None) -> str:
    return "null" if limits is None else f"[{pp(limits[0])}, {pp(limits[1])}]"


def conditions(report: ParityReport) -> str:
    """Margin, level, set, n, patients: what every verdict is printed with."""
    options, people = report.options, "no patient ids" if report.patients is None else f"{report.patients} patients"
    if options.alpha == 0.05:
        level = ""
    else:
        level = f" ({100 * (1 - options.alpha):g} % interval, one-sided {options.alpha / 2:g})"
    claim = " (two one-sided tests)" if options.claim == "tost" else ""
    return (
        f"margin {options.margin:g} pp, class margin {options.class_margin:g} pp, alpha {options.alpha:g}{level}{claim}, "
        f"{report.set.name} set, n={report.n} images, {people}"
    )


def _accuracy(comparison: Comparison, options: ParityOptions) -> Iterator[str]:
    pair = comparison.pair
    k_r, k_c = comparison.hits("reference"), comparison.hits("candidate")
    deff = "" if pair.patients is None else f", design effect {pair.deff:.3f}"
    yield f"  deciding     {span(pair.deciding)} pp around {pp(pair.difference)} pp ({pair.decided_by}{deff})"
    yield f"  accuracy     reference {rate(k_r, comparison.n, options.alpha)}"
    yield f"               candidate {rate(k_c, comparison.n, options.alpha)}"
    seen = f"exact {mcnemar_exact(pair.lost, pair.gained):.4f}, mid-p {mcnemar_midp(pair.lost, pair.gained):.4f}"
    yield f"  pairs        lost {pair.lost}, gained {pair.gained}, both wrong {comparison.both_wrong}; McNemar {seen}"
    n_eff = pair.effective
    tests = f"{p_non_inferior(*n_eff, options.delta):.5f} one-sided, {p_tost(*n_eff, options.delta):.5f} two one-sided"
    yield f"  intervals    Tango {span(pair.tango)}, scaled {span(pair.scaled)}, patient bootstrap {span(pair.bootstrap)} pp"
    yield f"  p at margin  {tests}"
    tiers = ", ".join(f"{t} % {'reached' if tier_reached(k_r, k_c, t) else 'not reached'}" for t in ("99", "99.9"))
    yield f"  tiers        {tiers}"


def _classes(comparison: Comparison, options: ParityOptions) -> Iterator[str]:
    for k, result in enumerate(comparison.per_class):
        pair = result.pair
        if pair is None:
            yield f"  {result.name:<12} null (no image of this class)"
            continue
        rows = []
        for figures in (comparison.figures["reference"], comparison.figures["candidate"]):
            tn, others = class_specificity(figures, k)
            rows.append((rate(figures.per_class[k].tp, result.n, options.alpha), rate(tn, others, options.alpha)))
        guard = "holds" if result.guard else f"open ({result.guard_reason})"
        yield f"  {result.name:<12} sensitivity  {rows[0][0]} -> {rows[1][0]}"
        yield f"               specificity  {rows[0][1]} -> {rows[1][1]}"
        counts = f"lost {pair.lost}, gained {pair.gained}"
        screen = f"mid-p {result.p:.4f}, Holm over {sum(one.n > 0 for one in comparison.per_class)}: {result.p_holm:.4f}"
        yield f"               {counts}; {pp(pair.difference)} {span(pair.deciding)} pp; guard {guard}; {screen}"


def _quality(comparison: Comparison) -> Iterator[str]:
    r, c = comparison.calibration["reference"], comparison.calibration["candidate"]
    yield (
        f"  calibration  ECE {r['ece_mass']:.4f} -> {c['ece_mass']:.4f} (equal width {r['ece_width']:.4f} -> {c['ece_width']:.4f}), "
        f"Brier {r['brier']:.4f} -> {c['brier']:.4f}, NLL {r['nll']:.4f} -> {c['nll']:.4f}"
    )
    found = comparison.agreement
    low, high = found["wilson"]
    near = "" if found["near_tie_flips"] is None else f", {found['near_tie_flips']} of the flips near ties"
    yield (
        f"  agreement    {100 * found['rate']:.3f} % [{100 * low:.3f}, {100 * high:.3f}] ({found['count']}/{comparison.n}){near}"
    )
    yield (
        f"  logits       KL mean {found['kl_mean']:.2e}, p95 {found['kl_p95']:.2e}, max {found['kl_max']:.2e} nats; "
        f"largest difference {found['dlogit_max']:.3f} (spread {found['s']:.3f})"
    )
    flips = found["flips"]
    for flip in flips[:SHOWN_FLIPS]:
        margins = f"margins {flip['margin_reference']:.3f}, {flip['margin_candidate']:.3f}"
        yield f"    flip {flip['id'][:12]} label {flip['label']}: {flip['reference']} -> {flip['candidate']} ({margins})"
    if len(flips) > SHOWN_FLIPS:
        yield f"    … and {len(flips) - SHOWN_FLIPS} more (--json for all)"


def _plan(report: ParityReport, comparison: Comparison) -> Iterator[str]:
    plan = comparison.plan
    yield (
        f"  plan         power {plan.power:.3f} at {100 * plan.discordance:.2f} % discordance ({plan.discordance_source}), "
        f"correlation {plan.icc:.2f} ({plan.icc_source}), effective n {plan.n_eff}"
    )
    if report.word in ("inconclusive", "not_tested"):
        numbers = [f"{n:,} images for {p}" if n else f"more than 10,000,000 for {p}" for n, p in
                   ((plan.needed_60, "power 0.60"), (plan.needed_80, "power 0.80"))]  # fmt: skip
        yield f"  would settle a patient-disjoint set like this one: {', '.join(numbers)}, at this margin"
        short = [f"{one.name} {one.needed}" for one in comparison.per_class if one.needed is not None]
        if short:
            yield f"               and for the class margin at least (images): {', '.join(short)}"


def report_text(report: ParityReport) -> str:
    """Lines joined by a line break, none at the end."""
    return "\n".join(_lines(report))


def _lines(report: ParityReport) -> Iterator[str]:
    verdict, comparison, info = report.verdict, report.comparison, report.set
    what = {"fp32": "FP32 reference", "teacher": "teacher"}[report.against]
    views = "" if report.tta == "none" else f" with TTA {report.tta}"
    yield f"{HEAD[report.word]}: {report.candidate.name} against its {what} {report.reference.name}{views} · {conditions(report)}"
    if report.withheld:
        yield f"  not tested   {report.withheld}; the numbers below are descriptive"
    elif verdict.reasons:
        yield f"  reasons      {', '.join(verdict.reasons)}"
    if report.verdict.loss_shown and comparison is not None:
        yield "  note         a loss was shown: the whole interval lies below zero"
    if report.verdict.better:
        yield "  note         better: the whole interval lies above zero"
    uses = "" if info.uses_of_test is None else f"; test set used {info.uses_of_test} times by this run"
    yield f"  protocol     {info.protocol or 'as given'}; TTA {report.tta}; single model{uses}"
    if comparison is None:
        shown = ", ".join(one[:12] for one in report.not_finite[:SHOWN_FLIPS])
        yield f"  not finite   {len(report.not_finite)} of {report.n} images: {shown}"
    else:
        yield from _accuracy(comparison, report.options)
        yield from _classes(comparison, report.options)
        yield from _quality(comparison)
        yield from _plan(report, comparison)
    backend = report.backend()
    if backend is not None and comparison is not None:
        held = "within" if backend["ok"] else "beyond"
        yield f"  backend      {backend['pair_id']}: {held} its row (information; {report.candidate.runtime or 'runtime not named'})"
    if report.golden is not None:
        yield f"  golden       {report.golden.get('images')} images replayed: {'as exported' if report.golden['ok'] else 'DIFFERENT'}"
    for warning in report.warnings:
        yield f"  warning      {warning}"
