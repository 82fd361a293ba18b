"""Verdicts from the numbers of a comparison: the parts in order, and the export gate (docs/parity.md, sections 4 and 7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from octc.stats.comparison import RIGHT, SCORES, Comparison, Logits, compare_logits, nonfinite
from octc.stats.metrics import Int64
from octc.stats.patients import Patients
from octc.stats.power import FLOOR
from octc.stats.proportions import tier_needed, tier_reached, wilson
from octc.stats.test_plan import ParityOptions

WORDS = ("fail", "inferior", "inconclusive", "non_inferior", "equivalent")  # worst first
SHOWN = ("non_inferior", "equivalent")  # words that show non-inferiority
CODES = {"inferior": "OCT-E704", "inconclusive": "OCT-E705"}


@dataclass(frozen=True)
class Part:
    """One rule: whether it holds; if not, the resulting verdict, reason and code; and its numbers as a sentence."""

    name: str
    holds: bool
    word: str
    reason: str
    detail: str
    code: str


@dataclass(frozen=True)
class Verdict:
    """A verdict with its reasons and two flags. `exit_code` is 0 only if the claim is shown."""

    word: str
    reasons: tuple[str, ...]
    parts: tuple[Part, ...]
    better: bool
    loss_shown: bool
    exploratory: bool
    exit_code: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def conclude(
    word: str,
    reasons: Sequence[str],
    parts: Sequence[Part],
    *,
    limits: tuple[float, float] | None = None,
    claim: str = "",
    exploratory: bool = False,
) -> Verdict:
    """Make the verdict; this is the only place that decides whether a claim is shown, and so the exit code.

    limits: interval of the difference candidate minus reference. claim: "tost" requires equivalence, others non-inferiority.
    """
    enough = ("equivalent",) if claim == "tost" else SHOWN
    better, loss_shown = limits is not None and limits[0] > 0, limits is not None and limits[1] < 0
    code = 0 if word in enough else 1
    return Verdict(word, tuple(reasons), tuple(parts), better, loss_shown, exploratory, code)


def pp(value: float) -> str:
    """A fraction as percentage points with sign and three decimals."""
    return f"{100 * value:+.3f}"


def _floor_parts(comparison: Comparison, options: ParityOptions) -> Iterator[Part]:
    n, k_r, k_c = comparison.n, comparison.hits("reference"), comparison.hits("candidate")
    predicted, share = comparison.predicted_classes, comparison.largest_share
    lower = (wilson(k_c, n, options.alpha) or (0.0, 0.0))[0]
    several = predicted["candidate"] > 1 or predicted["reference"] == 1
    holds = share == 1 or (several and lower > share)  # with one class in the labels a constant prediction is correct
    text = f"{predicted['candidate']} classes predicted, lower limit {100 * lower:.3f} %, largest class {100 * share:.3f} %"
    if comparison.form != RIGHT:
        yield Part("not at chance", holds, "fail", "chance_level", text, "OCT-E702")
    for tier in {"99": ("99",), "99.9": ("99", "99.9")}[options.tier]:
        text = f"{k_c} right, {tier_needed(k_r, tier)} needed ({k_r} in the reference)"
        yield Part(f"tier {tier} %", tier_reached(k_r, k_c, tier), "fail", f"tier_{tier}", text, "OCT-E703")


def _ece_part(comparison: Comparison, options: ParityOptions) -> Part:
    before, after = (comparison.after_temperature[name]["ece_mass"] for name in ("reference", "candidate"))
    holds = after <= before + options.ece_slack
    own = any(one.value != 1 for one in comparison.temperatures.values())
    text = f"ECE {before:.4f} to {after:.4f}, allowed up to {before + options.ece_slack:.4f}"
    text += ", each with its own temperature" if own else ""
    return Part("ECE", holds, "fail", "ece", text, "OCT-E707")


def _accuracy_parts(comparison: Comparison, options: ParityOptions) -> Iterator[Part]:
    limits, delta = comparison.pair.deciding, options.delta
    if limits is None:
        yield Part("patients", False, "inconclusive", "one_cluster", "one patient only", CODES["inconclusive"])
        return
    text = f"difference {pp(comparison.pair.difference)} pp [{pp(limits[0])}, {pp(limits[1])}], margin {options.margin:g} pp"
    yield Part("not worse than the margin", limits[1] >= -delta, "inferior", "accuracy", text, CODES["inferior"])
    yield Part("non-inferiority", limits[0] > -delta, "inconclusive", "interval_crosses_margin", text, CODES["inconclusive"])


def _auc_parts(comparison: Comparison, options: ParityOptions) -> Iterator[Part]:
    """The AUC rule, only if a margin is given (docs/parity.md, section 8)."""
    if options.auc_margin is None:
        return
    name, code = "area under the ROC curves", CODES["inconclusive"]
    if not comparison.auc:
        yield Part(name, False, "inconclusive", "no_scores", "no scores, and so no areas", code)
        return
    row = comparison.auc[-1]
    if row.difference_interval is None:
        yield Part(name, False, "inconclusive", "auc", f"no interval: {row.reason}", code)
        return
    low, high = row.difference_interval
    text = f"difference {pp(row.difference or 0.0)} points [{pp(low)}, {pp(high)}], margin {options.auc_margin:g} points"
    if high < -options.auc_margin / 100:
        yield Part(name, False, "inferior", "auc", text, CODES["inferior"])
    else:
        yield Part(name, low > -options.auc_margin / 100, "inconclusive", "auc", text, code)


def _class_parts(comparison: Comparison, options: ParityOptions) -> Iterator[Part]:
    for result in comparison.per_class:
        pair = result.pair
        if pair is None:
            yield Part(f"class {result.name}", False, "inconclusive", f"class:{result.name}", "empty_class", "OCT-E705")
            continue
        text = f"regressed {pair.lost}, improved {pair.gained} of {result.n}, Holm-adjusted mid-p {result.p_holm:.4f}"
        yield Part(f"harm {result.name}", not result.harm, "inferior", f"harm:{result.name}", text, CODES["inferior"])
        shown = "null" if pair.deciding is None else f"[{pp(pair.deciding[0])}, {pp(pair.deciding[1])}]"
        needed = "" if result.needed is None else f"; about {result.needed:,} images of this class would settle it"
        text = f"{shown} pp, class margin {options.class_margin:g} pp, {result.guard_reason or 'holds'}{needed}"
        yield Part(f"class {result.name}", result.guard, "inconclusive", f"class:{result.name}", text, CODES["inconclusive"])


def _plan_parts(comparison: Comparison) -> Iterator[Part]:
    plan = comparison.plan
    text = f"planned power {plan.power:.3f}, at least {FLOOR:.2f} needed"
    yield Part("plan", plan.power >= FLOOR, "inconclusive", "underpowered_plan", text, CODES["inconclusive"])
    if comparison.form != RIGHT and sum(result.n > 0 for result in comparison.per_class) == 1:
        yield Part("labels", False, "inconclusive", "single_class", "one class only in the labels", CODES["inconclusive"])


def golden_part(ok: bool | None, detail: str = "") -> list[Part]:
    """The part about golden images; empty if they were not replayed."""
    return [] if ok is None else [Part("golden images", ok, "fail", "golden", detail, "OCT-E506")]


def parts_of(comparison: Comparison, options: ParityOptions) -> list[Part]:
    """All rules of docs/parity.md, section 4.1, in order; the caller adds finiteness and golden images.

    Without scores there is no calibration rule, and if only right or wrong is known there are no class rules.
    """
    return [
        *_floor_parts(comparison, options),
        *([_ece_part(comparison, options)] if comparison.form == SCORES else []),
        *_accuracy_parts(comparison, options),
        *(_class_parts(comparison, options) if comparison.form != RIGHT else ()),
        *_auc_parts(comparison, options),
        *_plan_parts(comparison),
    ]


def judge(comparison: Comparison, options: ParityOptions, extra: Sequence[Part] = (), exploratory: bool = False) -> Verdict:
    """The worst verdict of all parts; equivalent if all hold and the upper limit is below the margin too."""
    parts = (*extra, *parts_of(comparison, options))
    return judge_parts(parts, comparison.pair.deciding, options, exploratory)


def judge_parts(
    parts: Sequence[Part], limits: tuple[float, float] | None, options: ParityOptions, exploratory: bool = False
) -> Verdict:
    """The worst verdict of the given parts. limits: interval of the difference that decides."""
    failed = [part for part in parts if not part.holds]
    best = "equivalent" if limits is not None and limits[1] < options.delta else "non_inferior"
    word = min((part.word for part in failed), key=WORDS.index, default=best)
    reasons = [part.reason for part in sorted(failed, key=lambda part: WORDS.index(part.word))]
    if word == "non_inferior" and options.claim == "tost":
        reasons.append("upper_limit_crosses_margin")
    return conclude(word, reasons, parts, limits=limits, claim=options.claim, exploratory=exploratory)


def finite_part(bad: Sequence[str], total: int) -> Part:
    """The part about finite logits. bad: ids of the images with NaN or infinity."""
    text = (
        f"NaN or infinity in the logits of {len(bad)} of {total} images" if bad else f"all logits of {total} images are finite"
    )
    return Part("finite", not bad, "fail", "not_finite", text, "OCT-E701")


def judge_nonfinite(bad: Sequence[str], total: int, extra: Sequence[Part] = (), exploratory: bool = False) -> Verdict:
    """The verdict for a candidate with NaN or infinity in its logits: fail, without statistics."""
    parts = (finite_part(bad, total), *extra)
    return conclude("fail", ("not_finite",), parts, exploratory=exploratory)


@dataclass(frozen=True)
class GateResult:
    """Decision of the export gate on the validation set (docs/parity.md, section 4.2). It selects, and makes no claim.

    Attributes:
        accepted: whether the artifact may be published.
        word: "non-inferior on select", "parity not shown yet" (warning W405) or "rejected".
        reasons: reasons of a rejection, else the claims that are not shown yet.
        needed: number of images for a planned power of 0.80, or None.
        facts: counts of the comparison, which `octc verify` uses for its plan.
    """

    accepted: bool
    word: str
    reasons: tuple[str, ...]
    needed: int | None
    verdict: Verdict
    comparison: Comparison | None

    def to_json(self) -> dict[str, Any]:
        """The fields for the manifest: decision, counts, interval, agreement, and the facts for a later plan."""
        head: dict[str, Any] = {
            "set": "select",
            "accepted": self.accepted,
            "word": self.word,
            "reasons": list(self.reasons),
            "needed_n": self.needed,
        }
        one = self.comparison
        if one is None:
            return head
        limits = None if one.pair.deciding is None else [100 * limit for limit in one.pair.deciding]
        return {
            **head,
            "n": one.n,
            "patients": one.pair.patients,
            "accuracy": {name: 100 * one.hits(name) / one.n for name in ("reference", "candidate")},
            "difference_pp": 100 * one.pair.difference,
            "deciding_pp": limits,
            "agreement": one.agreement["rate"],
            "kl_mean": one.agreement["kl_mean"],
            "ece": {name: one.calibration[name]["ece_mass"] for name in one.calibration},
            "facts": one.facts(),
        }


def gate(
    ids: Sequence[str],
    labels: Sequence[int] | Int64,
    patients: Patients,
    reference: Logits,
    candidate: Logits,
    classes: Sequence[str],
    options: ParityOptions | None = None,
    extra: Sequence[Part] = (),
) -> GateResult:
    """The export gate, from logits [n, K] or [n, views, K] on the validation set, same images and order.

    Raises:
        OctcError: E708 when the reference is at chance.
    """
    options = options or ParityOptions()
    r, c = (a[:, None] if a.ndim == 2 else a for a in (reference, candidate))
    if bad := nonfinite(ids, c):
        verdict = judge_nonfinite(bad, len(ids), extra)
        return GateResult(False, "rejected", verdict.reasons, None, verdict, None)
    comparison = compare_logits(ids, labels, patients, r, c, classes, options)
    verdict = judge(comparison, options, extra)
    hard = [
        part.reason for part in verdict.parts if not part.holds and part.word in ("fail", "inferior") and part.name != "ECE"
    ]
    if comparison.pair.difference < -options.delta:
        hard.append("point_difference")
    if hard:
        return GateResult(False, "rejected", tuple(hard), None, verdict, comparison)
    limits = comparison.pair.deciding
    if limits is not None and limits[0] > -options.delta:
        return GateResult(True, "non-inferior on select", (), None, verdict, comparison)
    return GateResult(True, "parity not shown yet", verdict.reasons, comparison.plan.needed_80, verdict, comparison)
