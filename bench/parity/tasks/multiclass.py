"""A claim where classes exclude each other: accuracy, sensitivities, calibration (docs/parity.md, sections 16 and 17)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from octc.bench.parity.document import class_specificity
from octc.bench.parity.tasks.details import areas, subgroup_lines, temperatures
from octc.bench.parity.words import percents, rate, span
from octc.stats.comparison import RIGHT, SCORES, Comparison
from octc.stats.proportions import mcnemar_exact, mcnemar_midp, p_non_inferior, p_tost, tier_reached, wilson
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import pp

if TYPE_CHECKING:
    from octc.bench.parity.claim import ParityReport

SHOWN_FLIPS = 10
COLUMNS = ("accuracy % [95 %]", "regressed/improved")


def margins(options: ParityOptions) -> str:
    """The margins of a verdict."""
    return f"margin {options.margin:g} pp, class margin {options.class_margin:g} pp"


def cells(report: ParityReport) -> tuple[str, str, str, str, str]:
    """For the table: reference, candidate, regressed/improved, difference with interval, agreement."""
    one: Comparison = report.comparison
    pair = one.pair
    sides = (_accuracy_cell(one, model, report.options.alpha) for model in ("reference", "candidate"))
    difference, agreement = f"{pp(pair.difference)} {span(pair.deciding)}", f"{100 * one.agreement['rate']:.2f}"
    return (*sides, f"{pair.lost}/{pair.gained}", difference, agreement)  # type: ignore[return-value]


def _accuracy_cell(comparison: Comparison, model: str, alpha: float) -> str:
    hits, n = comparison.hits(model), comparison.n
    limits = wilson(hits, n, alpha)
    return f"{100 * hits / n:.2f} {'' if limits is None else percents(limits)}"


def warnings(report: ParityReport) -> list[str]:
    """What must be said of the comparison itself."""
    comparison: Comparison = report.comparison
    found: list[str] = []
    if comparison.form == RIGHT:
        return found
    if empty := [one.name for one in comparison.per_class if one.n == 0]:
        found.append(f"classes without images: {', '.join(empty)}")
    for name, ties in comparison.ties.items():
        if comparison.form == SCORES and ties > 0.001 * comparison.n:
            found.append(f"{ties} of {comparison.n} images have equal largest scores in the {name}")
    return found


def deciding(report: ParityReport) -> Iterator[str]:
    """The interval that decided, and the counts that it comes from."""
    comparison: Comparison = report.comparison
    pair = comparison.pair
    pairs = f"regressed {pair.lost}, improved {pair.gained}, both wrong {comparison.both_wrong} of {comparison.n}"
    yield f"  deciding     {span(pair.deciding)} pp around {pp(pair.difference)} pp ({pair.decided_by}); {pairs}"


def brief(report: ParityReport) -> Iterator[str]:
    """The numbers that decide."""
    comparison, options = report.comparison, report.options
    k_r, k_c = comparison.hits("reference"), comparison.hits("candidate")
    alpha, n = options.alpha, comparison.n
    agreement = f"{100 * comparison.agreement['rate']:.2f} % of the predictions agree"
    yield f"  accuracy     {rate(k_r, n, alpha)} -> {rate(k_c, n, alpha)}; {agreement}"
    if comparison.form != RIGHT:
        yield f"  classes      {_guards(comparison, options)}"
    if losses := [f"{one.column} = {one.value}" for one in report.subgroups if one.loss]:
        yield f"  subgroups    LOSS beyond chance: {', '.join(losses)}"
    yield from list(_plan(report, comparison))[1:2]


def details(report: ParityReport) -> Iterator[str]:
    """Every number."""
    comparison: Comparison = report.comparison
    yield from _accuracy(comparison, report.options)
    if comparison.form != RIGHT:
        yield from _classes(comparison, report.options)
        yield from _macros(comparison)
    if comparison.form == SCORES:
        yield from _quality(comparison)
    yield from _agreement(comparison)
    yield from _plan(report, comparison)
    yield from subgroup_lines(report.subgroups)


def _accuracy(comparison: Comparison, options: ParityOptions) -> Iterator[str]:
    pair = comparison.pair
    k_r, k_c = comparison.hits("reference"), comparison.hits("candidate")
    by = None if pair.patients is None else pair.deff
    deff = "" if by is None else f", design effect {by:.3f}"
    yield f"  deciding     {span(pair.deciding)} pp around {pp(pair.difference)} pp ({pair.decided_by}{deff})"
    yield f"  accuracy     reference {rate(k_r, comparison.n, options.alpha, by)}"
    yield f"               candidate {rate(k_c, comparison.n, options.alpha, by)}"
    seen = f"exact {mcnemar_exact(pair.lost, pair.gained):.4f}, mid-p {mcnemar_midp(pair.lost, pair.gained):.4f}"
    yield f"  pairs        regressed {pair.lost}, improved {pair.gained}, both wrong {comparison.both_wrong}; McNemar {seen}"
    n_eff = pair.effective
    tests = f"{p_non_inferior(*n_eff, options.delta):.5f} one-sided, {p_tost(*n_eff, options.delta):.5f} two one-sided"
    drawn = span(pair.bootstrap) if pair.bootstrap_reason is None else f"null ({pair.bootstrap_reason})"
    more = "" if pair.patients is None else f", scaled {span(pair.scaled)}, patient bootstrap {drawn}"
    yield f"  intervals    Tango {span(pair.tango)}{more} pp{', not clustered' if pair.patients is None else ''}"
    yield f"  p at margin  {tests}"
    tiers = ", ".join(f"{t} % {'reached' if tier_reached(k_r, k_c, t) else 'not reached'}" for t in ("99", "99.9"))
    yield f"  tiers        {tiers}"


def _classes(comparison: Comparison, options: ParityOptions) -> Iterator[str]:
    for k, result in enumerate(comparison.per_class):
        pair = result.pair
        if pair is None:
            yield f"  {result.name:<12} null (no image of this class)"
            continue
        by = None if pair.patients is None else pair.deff
        before, after = (comparison.figures[model] for model in ("reference", "candidate"))
        guard = "holds" if result.guard else f"open: {result.guard_reason}"
        yield f"  {result.name:<12} sensitivity  {rate(before.per_class[k].tp, result.n, options.alpha, by)}"
        yield f"{'':<25}to {rate(after.per_class[k].tp, result.n, options.alpha, by)}"
        for model, word in (("reference", "specificity "), ("candidate", "         to ")):
            drawn = comparison.intervals[model].get(f"specificity:{k}")
            people = "" if by is None else f", by patient {'[null]' if drawn is None else percents(drawn)}"
            counted = rate(*class_specificity(comparison.figures[model], k), options.alpha)
            yield f"               {word} {counted}{people}"
        counts = f"regressed {pair.lost}, improved {pair.gained}"
        screen = f"mid-p {result.p:.4f}, Holm over {sum(one.n > 0 for one in comparison.per_class)}: {result.p_holm:.4f}"
        yield f"               {counts}; {pp(pair.difference)} {span(pair.deciding)} pp; guard {guard}; {screen}"


def _macros(comparison: Comparison) -> Iterator[str]:
    for name, key in (("sensitivity", "macro_sensitivity"), ("specificity", "macro_specificity")):
        rows = [_macro(comparison, model, key) for model in ("reference", "candidate")]
        yield f"  {'macro' if name == 'sensitivity' else '':<12} {name}  {rows[0]} -> {rows[1]}"


def _quality(comparison: Comparison) -> Iterator[str]:
    r, c = comparison.calibration["reference"], comparison.calibration["candidate"]
    width = f"equal width {r['ece_width']:.4f} -> {c['ece_width']:.4f}"
    scores = f"Brier {r['brier']:.4f} -> {c['brier']:.4f}, NLL {r['nll']:.4f} -> {c['nll']:.4f}"
    yield from areas(comparison)
    yield f"  calibration  ECE {r['ece_mass']:.4f} -> {c['ece_mass']:.4f} ({width}), {scores}"
    yield from temperatures(comparison)


def _agreement(comparison: Comparison) -> Iterator[str]:
    found = comparison.agreement
    low, high = found["wilson"]
    near = "" if found["near_tie_flips"] is None else f", {found['near_tie_flips']} of the flips near ties"
    share = f"{100 * found['rate']:.3f} % [{100 * low:.3f}, {100 * high:.3f}]"
    yield f"  agreement    {share} ({found['count']}/{comparison.n}){near}"
    if comparison.form == SCORES:
        yield (
            f"  logits       KL mean {found['kl_mean']:.2e}, p95 {found['kl_p95']:.2e}, max {found['kl_max']:.2e} nats; "
            f"largest difference {found['dlogit_max']:.3f} (spread {found['s']:.3f})"
        )
    flips = found["flips"]
    for flip in flips[:SHOWN_FLIPS]:
        margins = f" (margins {flip['margin_reference']:.3f}, {flip['margin_candidate']:.3f})"
        margins = margins if comparison.form == SCORES else ""
        yield f"    flip {flip['id'][:12]} label {flip['label']}: {flip['reference']} -> {flip['candidate']}{margins}"
    if (more := comparison.n - found["count"] - SHOWN_FLIPS) > 0:
        yield f"    … and {more} more (--json for {'all' if len(flips) == more + SHOWN_FLIPS else f'{len(flips):,}'})"


def _macro(comparison: Comparison, model: str, key: str) -> str:
    value = getattr(comparison.figures[model], key)
    if value is None:
        return "null (single class)"
    limits = comparison.intervals[model][key]
    return f"{100 * value:.2f} % {'[null]' if limits is None else percents(limits)}"


def _plan(report: ParityReport, comparison: Comparison) -> Iterator[str]:
    plan = comparison.plan
    yield (
        f"  plan         power {plan.power:.3f} at {100 * plan.discordance:.2f} % discordance ({plan.discordance_source}), "
        f"correlation {plan.icc:.2f} ({plan.icc_source}), effective n {plan.n_eff}"
    )
    if report.word in ("inconclusive", "not_tested") and not report.set.exploratory and more_would_settle(report):
        numbers = [
            f"{'more than 10,000,000' if n is None else f'{n:,}'} images for power {power}"
            for n, power in ((plan.needed_60, "0.60"), (plan.needed_80, "0.80"))
        ]
        like = "set" if report.set.leakage not in ("none", "not_checked") else "patient-disjoint set"
        yield f"  would settle a {like} like this one of {', '.join(numbers)}, at this margin"
        short = [f"{one.name} {one.needed:,}" for one in comparison.per_class if one.needed is not None]
        if short:
            yield f"               and for the class margin, power 0.80: {', '.join(short)} images"


def _guards(comparison: Comparison, options: ParityOptions) -> str:
    """The class that is found least often, and the guards that are open; a class without images is named too."""
    names = [one.name for one in comparison.per_class if one.n]
    if not names:
        return "none has an image"
    measured = zip(comparison.per_class, comparison.figures["candidate"].per_class, strict=True)
    lowest, found = min(((one, own) for one, own in measured if one.n), key=lambda pair: pair[1].tp / pair[0].n)
    text = f"lowest sensitivity {lowest.name} {rate(found.tp, lowest.n, options.alpha)}"
    empty = [one.name for one in comparison.per_class if not one.n]
    opened = [f"{one.name} ({one.guard_reason})" for one in comparison.per_class if one.n and not one.guard]
    text += f"; guard open: {', '.join(opened)}" if opened else "; every guard holds"
    return text + (f"; without images: {', '.join(empty)}" if empty else "")


# reasons of an inconclusive verdict that more images of the same kind would settle
SETTLED_BY_IMAGES = ("interval_crosses_margin", "underpowered_plan", "auc")


def more_would_settle(report: ParityReport) -> bool:
    """Whether every part that is open is open for want of images; not one patient, one artifact, an empty class."""
    parts = [part for part in report.verdict.parts if not part.holds]
    return bool(parts) and all(
        part.reason in SETTLED_BY_IMAGES or (part.reason.startswith("class:") and part.detail != "empty_class")
        for part in parts
    )
