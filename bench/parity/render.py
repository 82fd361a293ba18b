"""The report of a claim as text: the verdict first, then what it rests on (docs/parity.md, sections 16 and 17).

The words of a positive verdict are used only with one, and always with margin, level, n, patients and set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from octc.bench.parity.document import class_specificity
from octc.bench.parity.render_details import areas, subgroup_lines, temperatures
from octc.stats.comparison import Comparison
from octc.stats.proportions import Interval, mcnemar_exact, mcnemar_midp, p_non_inferior, p_tost, tier_reached, wilson
from octc.stats.test_plan import ParityOptions
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
SHOWN_FLIPS = 10


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


def conditions(report: ParityReport) -> str:
    """Margin, level, set, n, patients: what every verdict is printed with."""
    options, people = report.options, "no patient ids" if report.patients is None else report.known.words
    usual = options.alpha == 0.05
    level = "" if usual else f" ({100 * (1 - options.alpha):g} % interval, one-sided {options.alpha / 2:g})"
    claim = " (two one-sided tests)" if options.claim == "tost" else ""
    return (
        f"margin {options.margin:g} pp, class margin {options.class_margin:g} pp, alpha {options.alpha:g}{level}{claim}, "
        f"{report.set.name} set, n={report.n} images, {people}"
    )


def _accuracy(comparison: Comparison, options: ParityOptions) -> Iterator[str]:
    pair = comparison.pair
    k_r, k_c = comparison.hits("reference"), comparison.hits("candidate")
    by = None if pair.patients is None else pair.deff
    deff = "" if by is None else f", design effect {by:.3f}"
    yield f"  deciding     {span(pair.deciding)} pp around {pp(pair.difference)} pp ({pair.decided_by}{deff})"
    yield f"  accuracy     reference {rate(k_r, comparison.n, options.alpha, by)}"
    yield f"               candidate {rate(k_c, comparison.n, options.alpha, by)}"
    seen = f"exact {mcnemar_exact(pair.lost, pair.gained):.4f}, mid-p {mcnemar_midp(pair.lost, pair.gained):.4f}"
    yield f"  pairs        lost {pair.lost}, gained {pair.gained}, both wrong {comparison.both_wrong}; McNemar {seen}"
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
        counts = f"lost {pair.lost}, gained {pair.gained}"
        screen = f"mid-p {result.p:.4f}, Holm over {sum(one.n > 0 for one in comparison.per_class)}: {result.p_holm:.4f}"
        yield f"               {counts}; {pp(pair.difference)} {span(pair.deciding)} pp; guard {guard}; {screen}"


def _quality(comparison: Comparison) -> Iterator[str]:
    r, c = comparison.calibration["reference"], comparison.calibration["candidate"]
    for name, key in (("sensitivity", "macro_sensitivity"), ("specificity", "macro_specificity")):
        rows = [_macro(comparison, model, key) for model in ("reference", "candidate")]
        yield f"  {'macro' if name == 'sensitivity' else '':<12} {name}  {rows[0]} -> {rows[1]}"
    width = f"equal width {r['ece_width']:.4f} -> {c['ece_width']:.4f}"
    scores = f"Brier {r['brier']:.4f} -> {c['brier']:.4f}, NLL {r['nll']:.4f} -> {c['nll']:.4f}"
    yield from areas(comparison)
    yield f"  calibration  ECE {r['ece_mass']:.4f} -> {c['ece_mass']:.4f} ({width}), {scores}"
    yield from temperatures(comparison)
    found = comparison.agreement
    low, high = found["wilson"]
    near = "" if found["near_tie_flips"] is None else f", {found['near_tie_flips']} of the flips near ties"
    share = f"{100 * found['rate']:.3f} % [{100 * low:.3f}, {100 * high:.3f}]"
    yield f"  agreement    {share} ({found['count']}/{comparison.n}){near}"
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


# reasons of an inconclusive verdict that more images of the same kind would settle
SETTLED_BY_IMAGES = ("interval_crosses_margin", "underpowered_plan", "auc")


def more_would_settle(report: ParityReport) -> bool:
    """Whether every part that is open is open for want of images; not one patient, one artifact, an empty class."""
    parts = [part for part in report.verdict.parts if not part.holds]
    return bool(parts) and all(
        part.reason in SETTLED_BY_IMAGES or (part.reason.startswith("class:") and part.detail != "empty_class")
        for part in parts
    )


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
    """The verdict's word; on the select set it is only used together with that set's name."""
    word = HEAD[report.word] + (" on select" if report.set.name == "select" else "")
    return f"{word} (exploratory)" if report.set.exploratory else word


def claim_of(report: ParityReport) -> str:
    """Who against whom, with which views."""
    what = {"fp32": "its FP32 reference", "teacher": "its teacher"}[report.against]
    views = "" if report.tta == "none" else f" with TTA {report.tta}"
    return f"{report.candidate.name} against {what} {report.reference.name}{views}"


def report_text(report: ParityReport) -> str:
    """Lines joined by a line break, none at the end."""
    return "\n".join(_lines(report))


def brief_text(report: ParityReport) -> str:
    """The verdict, why, and the numbers that decide: at most nine lines of it."""
    return "\n".join(_brief(report))


def short_text(report: ParityReport) -> str:
    """The verdict, why, and the interval that decided: a claim beside others."""
    return "\n".join(_short(report))


def _brief(report: ParityReport) -> Iterator[str]:
    yield from _short(report)
    yield from _whose(report)
    comparison, options = report.comparison, report.options
    if comparison is not None and not report.withheld:
        k_r, k_c = comparison.hits("reference"), comparison.hits("candidate")
        alpha, n = options.alpha, comparison.n
        agreement = f"{100 * comparison.agreement['rate']:.2f} % of the answers agree"
        yield f"  accuracy     {rate(k_r, n, alpha)} -> {rate(k_c, n, alpha)}; {agreement}"
        yield f"  classes      {_guards(comparison, options)}"
        if losses := [f"{one.column} = {one.value}" for one in report.subgroups if one.loss]:
            yield f"  subgroups    LOSS beyond chance: {', '.join(losses)}"
        yield from list(_plan(report, comparison))[1:2]
    told = (report.known.warning, *(w for w in report.warnings if w.startswith(("exploratory", "classes without"))))
    if others := [w for w in report.warnings if w not in told]:
        yield f"  warning      {'; '.join(others)}"


def _short(report: ParityReport) -> Iterator[str]:
    yield from _why(report)
    comparison = report.comparison
    if comparison is not None and not report.withheld:
        pair = comparison.pair
        pairs = f"lost {pair.lost}, gained {pair.gained}, both wrong {comparison.both_wrong} of {comparison.n}"
        yield f"  deciding     {span(pair.deciding)} pp around {pp(pair.difference)} pp ({pair.decided_by}); {pairs}"


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


def _head(report: ParityReport) -> Iterator[str]:
    """The verdict, why, and the protocol."""
    yield from _why(report)
    info = report.set
    uses = "" if info.uses_of_test is None else f"; {uses_words(info.uses_of_test, info.readings_of_test)}"
    yield f"  protocol     {info.protocol or 'as given'}; TTA {report.tta}; single model{uses}"
    yield from _whose(report)


def _why(report: ParityReport) -> Iterator[str]:
    verdict, info = report.verdict, report.set
    yield f"{head_word(report)}: {claim_of(report)} · {conditions(report)}"
    if info.exploratory:
        yield f"  exploratory  {info.exploratory}"
    if report.withheld:
        yield f"  not tested   {report.withheld}; its numbers are descriptive"
    elif verdict.reasons:
        yield f"  reasons      {', '.join(verdict.reasons)}"
    if verdict.loss_shown:
        yield "  note         a loss was shown: the whole interval lies below zero"
    if verdict.better:
        yield "  note         better: the whole interval lies above zero"
    if report.comparison is None:
        shown = ", ".join(one[:12] for one in report.not_finite[:SHOWN_FLIPS])
        yield f"  not finite   {len(report.not_finite)} of {report.n} images: {shown}"


def _whose(report: ParityReport) -> Iterator[str]:
    """What is said beside every number of this data set, and whether patients are known."""
    info = report.set
    if info.note:
        yield f"  note         {info.note}"
    for text in dict.fromkeys((info.leakage, report.known.warning)):
        if (
            text not in ("", "none", "not_checked")
            and not report.known.warning.startswith(f"{text};")
            and text not in info.note
        ):
            yield f"  patients     {text}"


def _lines(report: ParityReport) -> Iterator[str]:
    comparison = report.comparison
    yield from _head(report)
    yield f"  measured     reference {report.reference.source}; candidate {report.candidate.source}"
    if comparison is not None:
        yield from _accuracy(comparison, report.options)
        yield from _classes(comparison, report.options)
        yield from _quality(comparison)
        yield from _plan(report, comparison)
        yield from subgroup_lines(report.subgroups)
    backend = report.backend()
    if backend is not None and comparison is not None:
        held = "within" if backend["ok"] else "beyond"
        on = report.candidate.runtime or "runtime not named"
        yield f"  backend      {backend['pair_id']}: {held} its row (information; {on})"
    if report.golden is not None:
        yield f"  golden       {golden_words(report.golden)}: {'as exported' if report.golden['ok'] else 'DIFFERENT'}"
    for warning in report.warnings:
        if not warning.startswith("exploratory") and warning != report.known.warning:  # said in the first lines
            yield f"  warning      {warning}"
