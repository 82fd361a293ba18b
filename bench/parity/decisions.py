"""Judge on a labelled set whether the decision rules of an artifact and its reference keep their guarantees.

Each side decides by its own rules, which were chosen on its own answers. `carried`: what the reference's rules would have made
of the candidate's answers, had they been copied. A rule is "broken" where the set shows that, which ends a verification with 1;
"kept" where it shows the level; else "open", which fails nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from octc.bench.parity.words import percents
from octc.stats.cluster_bootstrap import Paired, cluster_index, clusters_of, named_images, paired
from octc.stats.conformal import p_kept, sets_of
from octc.stats.deciding import decide
from octc.stats.decision_rules import CostRule, Decision, OperatingPoint, ReferRule, SetRule
from octc.stats.metrics import Bool, Float64, Int64
from octc.stats.operating import judge_costs
from octc.stats.proportion_intervals import Proportion, proportion
from octc.stats.proportions import Interval

KEPT, OPEN, BROKEN = "kept", "open", "broken"


@dataclass(frozen=True)
class Findings:
    """What belongs to answers whose classes do not exclude each other: truth [n, K], and from which score on each is found."""

    truth: Bool
    thresholds: tuple[float, ...]


@dataclass(frozen=True)
class Answered:
    """Labelled answers of a side.

    Attributes:
        probabilities: [n, K]. labels: [n]. patients: of each, None where unknown. clusters: the same as numbers [n], where an
            unknown one is its own. several: where classes do not exclude each other; `labels` then says nothing.
    """

    probabilities: Float64
    labels: Int64
    patients: tuple[str | None, ...]
    classes: tuple[str, ...]
    several: Findings | None = None

    def positive(self, k: int) -> Bool:
        """Which images are of a class, or have a finding, [n]."""
        found: Bool = self.labels == k if self.several is None else self.several.truth[:, k]
        return found

    @cached_property
    def clusters(self) -> Int64:
        return clusters_of(self.patients)

    @property
    def known(self) -> bool:
        """Whether the patients of all are known."""
        return all(one is not None for one in self.patients)


@dataclass(frozen=True)
class Promise:
    """A promise and what came of it.

    Attributes:
        what: "coverage", "sensitivity", "specificity", "risk" or "referred"; name: of the class, or "all". level: promised.
        found: on this set. p: of coverage, how probable one as low is where the promise holds; else None. word: KEPT, ...
    """

    what: str
    name: str
    level: float
    found: Proportion
    p: float | None
    word: str

    def to_json(self) -> dict[str, Any]:
        one = self.found
        return {
            "what": self.what, "name": self.name, "level": self.level, "hits": one.hits, "n": one.n, "patients": one.patients,
            "value": one.value, "by_patient": one.by_patient, "exact": list(one.exact), "clustered": list(one.clustered),
            "deff": one.deff, "p_kept": self.p, "word": self.word,
        }  # fmt: skip


@dataclass(frozen=True)
class SideDecisions:
    """The rules of a side judged. sizes: images by number of classes in their set, None without sets. accuracy: where classes
    do not exclude each other (`several`) of images whose findings are all right."""

    promises: tuple[Promise, ...]
    sizes: tuple[int, ...] | None
    referred: int
    accuracy: float
    accuracy_kept: float | None
    costs: CostRule | None
    several: bool = False

    @property
    def mean_set_size(self) -> float | None:
        """Classes in a set on average; None without sets."""
        count = sum(self.sizes or ())
        return sum(k * n for k, n in enumerate(self.sizes or ())) / count if count else None

    def to_json(self) -> dict[str, Any]:
        costs = None if self.costs is None else {name: getattr(self.costs, name) for name in ("mean", "limits", "plain")}
        return {
            "promises": [one.to_json() for one in self.promises],
            "set_sizes": None if self.sizes is None else list(self.sizes),
            "mean_set_size": self.mean_set_size,
            "referred": self.referred,
            "accuracy": self.accuracy,
            "accuracy_kept": self.accuracy_kept,
            "costs": costs,
        }


@dataclass(frozen=True)
class Change:
    """What the candidate changes: images with another label, another set, another referral; coverage as paired outcomes;
    carried: promises of the reference's rules on the candidate's answers."""

    labels: int
    sets: int | None
    referrals: int
    coverage: Paired | None
    carried: tuple[Promise, ...]

    def to_json(self) -> dict[str, Any]:
        pair = self.coverage
        coverage = None
        if pair is not None:
            deciding = None if pair.deciding is None else list(pair.deciding)
            coverage = {
                "lost": pair.lost, "gained": pair.gained, "difference": pair.difference, "deciding": deciding,
                "decided_by": pair.decided_by,
            }  # fmt: skip
        return {
            "labels": self.labels, "sets": self.sets, "referrals": self.referrals, "coverage": coverage,
            "carried": [one.to_json() for one in self.carried],
        }  # fmt: skip


@dataclass(frozen=True)
class DecisionVerdict:
    """Rules of both sides on one unit ("image" or "eye"); a side is None where it has no rules."""

    unit: str
    reference: SideDecisions | None
    candidate: SideDecisions | None
    change: Change | None

    @property
    def broken(self) -> tuple[Promise, ...]:
        """Promises of the candidate that are shown not to be kept."""
        return () if self.candidate is None else tuple(one for one in self.candidate.promises if one.word == BROKEN)

    def to_json(self) -> dict[str, Any]:
        sides = {"reference": self.reference, "candidate": self.candidate}
        return {
            "unit": self.unit,
            **{name: None if side is None else side.to_json() for name, side in sides.items()},
            "change": None if self.change is None else self.change.to_json(),
        }


def judge_decisions(
    unit: str,
    sides: tuple[Answered, Answered],
    rules: tuple[Decision | None, Decision | None],
    alpha: float = 0.05,
) -> DecisionVerdict | None:
    """Judge the rules of reference and candidate on the same labelled answers; None where neither has any."""
    if rules == (None, None):
        return None
    applied = [None if rule is None else _apply(side, rule) for side, rule in zip(sides, rules, strict=True)]
    made = [None if one is None else _judged(one, alpha) for one in applied]
    change = None
    if applied[0] is not None and applied[1] is not None:
        change = _change(applied[0], applied[1], alpha)
    return DecisionVerdict(unit, made[0], made[1], change)


@dataclass(frozen=True)
class _Applied:
    """A rule applied once to the answers of a side: what is answered (a class, or findings [n, K]) and whether that is right,
    what is referred, which classes are in the sets."""

    side: Answered
    rule: Decision
    labels: Int64
    right: Bool
    refer: Bool
    inside: Bool | None


def _apply(side: Answered, rule: Decision) -> _Applied:
    if side.several is not None:
        found_ones = side.probabilities >= np.asarray(side.several.thresholds)
        right = (found_ones == side.several.truth).all(axis=1)
        return _Applied(side, rule, found_ones.astype(np.int64), right, np.zeros(len(right), np.bool_), None)
    found = [decide(row, rule, side.classes) for row in side.probabilities]
    inside = None if rule.sets is None else sets_of(side.probabilities, rule.sets)
    labels = np.array([one.label for one in found], np.int64)
    return _Applied(side, rule, labels, labels == side.labels, np.array([one.refer for one in found], np.bool_), inside)


def _judged(applied: _Applied, alpha: float) -> SideDecisions:
    side, rule = applied.side, applied.rule
    right, kept = applied.right, ~applied.refer
    sizes = None
    if applied.inside is not None:
        sizes = tuple(np.bincount(applied.inside.sum(axis=1), minlength=len(side.classes) + 1).tolist())
    costs = None
    if rule.costs is not None:
        costs = judge_costs(side.probabilities, side.labels, side.clusters, rule.costs.costs)
    return SideDecisions(
        tuple(_promises(applied, alpha)), sizes, int(applied.refer.sum()), float(right.mean()),
        float(right[kept].mean()) if kept.any() else None, costs, side.several is not None,
    )  # fmt: skip


def _promises(applied: _Applied, alpha: float) -> Iterator[Promise]:
    side, rule = applied.side, applied.rule
    if rule.sets is not None and applied.inside is not None:
        yield from _coverages(side, rule.sets, applied.inside, alpha)
    for point in rule.points:
        yield _point(side, point, alpha)
    if rule.refer is not None:
        yield _referral(applied, rule.refer, alpha)


def _coverages(side: Answered, rule: SetRule, inside: Bool, alpha: float) -> Iterator[Promise]:
    """Of each class, or of all: judged at alpha divided by their number."""
    covered = inside[np.arange(len(side.labels)), side.labels]
    each = rule.by == "class"
    names = side.classes if each else ("all",)
    for k, name in enumerate(names):
        mine = side.labels == k if each else np.ones(len(side.labels), bool)
        found = proportion(covered[mine], side.clusters[mine], alpha)
        p = p_kept((found.by_patient or 0.0) * found.patients, found.patients, rule.patients[k], rule.coverage)
        word = BROKEN if found.n and p < alpha / len(names) else KEPT if found.clustered[0] >= rule.coverage else OPEN
        yield Promise("coverage", name, rule.coverage, found, p, word)


def _word(found: Proportion, level: float, *, at_most: bool) -> str:
    low, high = found.clustered
    if not found.n:
        return OPEN
    if at_most:
        return BROKEN if low > level else KEPT if high <= level else OPEN
    return BROKEN if high < level else KEPT if low >= level else OPEN


def _point(side: Answered, point: OperatingPoint, alpha: float) -> Promise:
    k = side.classes.index(point.name)
    reached, mine = side.probabilities[:, k] >= point.threshold, side.positive(k)
    hit, among = (reached, mine) if point.kind == "sensitivity" else (~reached, ~mine)
    found = proportion(hit[among], side.clusters[among], alpha)
    return Promise(point.kind, point.name, point.level, found, None, _word(found, point.level, at_most=False))


def _referral(applied: _Applied, rule: ReferRule, alpha: float) -> Promise:
    side = applied.side
    kept = side.probabilities.max(axis=1) >= rule.confidence
    if rule.target == "share":
        found = proportion(~kept, side.clusters, alpha)
        return Promise("referred", "all", rule.level, found, None, _word(found, rule.level, at_most=True))
    wrong = ~applied.right
    found = proportion(wrong[kept], side.clusters[kept], alpha)
    return Promise("risk", "all", rule.level, found, None, _word(found, rule.level, at_most=True))


def _change(before: _Applied, after: _Applied, alpha: float) -> Change:
    sets, pair = None, None
    if before.inside is not None and after.inside is not None:
        sets = int((before.inside != after.inside).any(axis=1).sum())
        labels, patients = before.side.labels, before.side.patients
        was, now = (one[np.arange(len(labels)), labels] for one in (before.inside, after.inside))
        whose = cluster_index(patients)
        pair = paired(was & ~now, now & ~was, whose, named=named_images(patients), alpha=alpha, resamples=2000)
    carried = tuple(_promises(_apply(after.side, before.rule), alpha))
    changed = int((before.labels != after.labels).reshape(len(before.labels), -1).any(axis=1).sum())
    return Change(changed, sets, int((before.refer != after.refer).sum()), pair, carried)


WHAT = {"coverage": "coverage", "sensitivity": "sensitivity", "specificity": "specificity", "risk": "wrong among kept",
        "referred": "referred"}  # fmt: skip


def decision_lines(found: DecisionVerdict) -> Iterator[str]:
    """What is said of the rules of a candidate, beside those of its reference."""
    side = found.candidate
    if side is None:
        yield f"  rules        none of its own ({found.unit}s): octc threshold and octc abstain choose some on validation"
        return
    before = {} if found.reference is None else {(one.what, one.name): one for one in found.reference.promises}
    for one in side.promises:
        yield f"  rules        {_line(one, before.get((one.what, one.name)))}"
    if side.sizes is not None:
        shares = ", ".join(f"{k}: {count}" for k, count in enumerate(side.sizes) if count)
        yield f"               classes in a set {side.mean_set_size or 0:.2f} on average ({shares} {found.unit}s)"
    yield f"               {_kept_words(side)}"
    if side.costs is not None:
        yield f"               mean cost {side.costs.mean:.3f}, of the likeliest class {side.costs.plain:.3f}"
    if found.change is not None:
        yield f"               {_change_words(found.change)}"


def _kept_words(side: SideDecisions) -> str:
    if side.several:
        return f"every finding right in {100 * side.accuracy:.2f} % of the images"
    kept = "none kept" if side.accuracy_kept is None else f"accuracy of the kept {100 * side.accuracy_kept:.2f} %"
    return f"referred {side.referred}; {kept}, of all {100 * side.accuracy:.2f} %"


def _line(one: Promise, before: Promise | None) -> str:
    was = "" if before is None or before.found.value is None else f"{100 * before.found.value:.2f} % -> "
    found = one.found
    if found.value is None:
        return f"{WHAT[one.what]} of {one.name}: no image here"
    limits: Interval = found.clustered
    chance = "" if one.p is None else f", p {one.p:.3f}"
    return (
        f"{WHAT[one.what]}{'' if one.name == 'all' else f' of {one.name}'} {was}{100 * found.value:.2f} % "
        f"{percents(found.exact)}, by patient {percents(limits)} ({found.hits}/{found.n}), promised "
        f"{'at most ' if one.what in ('risk', 'referred') else ''}{100 * one.level:g} %{chance}: {one.word}"
    )


def _change_words(change: Change) -> str:
    sets = "" if change.sets is None else f", {change.sets} with another set"
    pair = change.coverage
    covered = "" if pair is None else f"; coverage {100 * pair.difference:+.2f} pp (lost {pair.lost}, gained {pair.gained})"
    carried = [one for one in change.carried if one.word == BROKEN]
    copied = "".join(f"; with the reference's own rules {one.what} of {one.name} would be broken" for one in carried)
    return f"{change.labels} with another label{sets}, {change.referrals} referred otherwise{covered}{copied}"
