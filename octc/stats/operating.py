"""Chooses operating points, referral rules and costs on a labelled set, and states what that set can show."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from octc.stats.betting import STAKES, e_value
from octc.stats.cluster_bootstrap import bootstrap_sums, dense_index, patient_means, percentile_interval
from octc.stats.deciding import actions_of
from octc.stats.decision_rules import CostRule, Kind, OperatingPoint, ReferRule
from octc.stats.metrics import Bool, Float64, Int64
from octc.stats.proportion_intervals import Proportion, images_needed, proportion

CONFIDENCES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)  # candidate thresholds for a risk limit, fixed in advance
RESAMPLES = 2000


def choose_point(
    scores: npt.ArrayLike, positive: Bool, clusters: Int64, about: tuple[str, Kind, float], alpha: float = 0.05
) -> OperatingPoint:
    """Choose the threshold of one class for a target sensitivity or specificity.

    It is the highest threshold for a sensitivity (the lowest for a specificity) whose clustered lower limit reaches the level.
    If there is none, it is the one whose point estimate does, and the text states that the sample cannot show the level. For
    independent images the limit is exact although the threshold is chosen on the same data (tolerance limits, Wilks 1941).

    Args:
        scores: probability of the class, [n]. positive: whether the image has the class, [n]. clusters: patients, [n].
        about: (class name, "sensitivity" or "specificity", level).
    """
    name, kind, level = about
    values = np.asarray(scores, np.float64)
    mine = positive if kind == "sensitivity" else ~positive
    chosen: tuple[float, Proportion] | None = None
    fallback = first = _candidate(values, mine, clusters, kind, 0, alpha)
    for misses in range(int(mine.sum())):
        threshold, found = _candidate(values, mine, clusters, kind, misses, alpha)
        if found.clustered[0] < level and (found.value or 0) < level:
            break
        if found.clustered[0] >= level:
            chosen = (threshold, found)
        else:
            fallback = (threshold, found)
    threshold, found = chosen or fallback
    rest = ~mine
    other = proportion((values >= threshold)[rest] == (kind == "specificity"), clusters[rest], alpha)
    needed = images_needed(level, alpha)
    shown = chosen is not None
    return OperatingPoint(
        name=name, kind=kind, level=level, threshold=threshold, hits=found.hits, n=found.n, patients=found.patients,
        exact=list(found.exact), clustered=list(found.clustered), deff=found.deff, other=other.value,
        other_limits=list(other.clustered) if other.n else None, needed=needed, alpha=alpha, shown=shown,
        words=_point_words(about, found, needed, first[1].clustered[0], shown=shown),
    )  # fmt: skip


def _candidate(values: Float64, mine: Bool, clusters: Int64, kind: Kind, misses: int, alpha: float) -> tuple[float, Proportion]:
    """The threshold with `misses` misses (more with ties), midway to the next score, and its proportion of hits."""
    up = kind == "sensitivity"
    own = np.sort(values[mine])
    if not len(own):
        return (0.0 if up else 1.0), proportion(np.zeros(0, bool), np.zeros(0, np.int64), alpha)
    edge = own[misses] if up else own[::-1][misses]
    beyond = values[values < edge] if up else values[values > edge]
    other = beyond.max(initial=0.0) if up else beyond.min(initial=1.0)
    threshold = float((edge + other) / 2)
    if not up and threshold <= edge:  # the midpoint rounds to the score itself: use the next float
        threshold = min(float(np.nextafter(edge, 2.0)), 1.0)  # at most 1
    hit = (values[mine] >= threshold) if up else (values[mine] < threshold)
    return threshold, proportion(hit, clusters[mine], alpha)


def _point_words(about: tuple[str, Kind, float], found: Proportion, needed: int, most: float, *, shown: bool) -> str:
    """The result as text. most: lower limit without a miss, the largest that these images can show."""
    name, kind, level = about
    whose = f"{found.n} {name if kind == 'sensitivity' else f'other than {name}'} images of {found.patients} patients"
    share = 100 * (found.value or 0)
    got = f"{share:.1f} % [{100 * found.clustered[0]:.1f}, {100 * found.clustered[1]:.1f}] on {whose}"
    if shown:
        return f"a {kind} of {100 * level:g} % is shown: {got}"
    if most < level:
        return (
            f"{whose} cannot show a {kind} of {100 * level:g} %: without a miss the lower limit is {100 * most:.1f} %, and "
            f"{needed} images of different patients without a miss are needed; it is {got}"
        )
    return f"a {kind} of {100 * level:g} % is not shown: {got}"


def choose_risk(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    clusters: Int64,
    risk: float,
    alpha: float = 0.05,
    answers: npt.ArrayLike | None = None,
) -> ReferRule:
    """Choose the lowest confidence threshold such that at most `risk` of the predictions above it are wrong.

    Each of CONFIDENCES is tested by betting on the patient means of (wrong - risk) * kept, at alpha divided by their number
    (Bonferroni); this is valid for any dependence among a patient's images. If no threshold is shown, it is the lowest one
    whose observed share of wrong predictions is small enough, and the text states that.

    Args:
        answers: predicted class of each image [n], if other rules determine it; None: the most likely class.
    """
    values = np.asarray(probabilities, np.float64)
    told = values.argmax(axis=1) if answers is None else np.asarray(answers, np.int64)
    top, wrong = values.max(axis=1), told != np.asarray(labels, np.int64)
    level = alpha / len(CONFIDENCES)
    shown_at, seen_at = None, None
    for at in CONFIDENCES:
        kept = top >= at
        gains = patient_means((wrong - risk) * kept, clusters) + risk  # in [0, 1]; its mean is at most `risk` under the claim
        if shown_at is None and e_value(gains, risk, above=False) >= 1 / level:
            shown_at = at
        if seen_at is None and kept.any() and _mean_risk(wrong, kept, clusters) <= risk:
            seen_at = at
    at = shown_at or seen_at or CONFIDENCES[-1]
    kept = top >= at
    found = proportion(wrong[kept], clusters[kept], alpha)
    patients = len(np.unique(clusters))
    needed = _patients_for(risk, level)
    share = "no answer is kept" if found.value is None else f"{100 * found.value:.1f} % of {found.n} kept answers are wrong"
    if shown_at is not None:
        words = f"a risk of {100 * risk:g} % is shown: {share}, {patients} patients"
    else:
        can = f"{patients} patients cannot show it" if patients < needed else "it is not shown"
        words = f"a risk of {100 * risk:g} %: {can} ({needed} patients without a wrong answer are needed); {share}"
    return ReferRule(
        target="risk", level=risk, confidence=at, kept=float(kept.mean()), value=found.value,
        limits=list(found.clustered) if found.n else None, images=len(top), patients=patients, alpha=alpha,
        shown=shown_at is not None, words=words,
    )  # fmt: skip


def _mean_risk(wrong: Bool, kept: Bool, clusters: Int64) -> float:
    lost, held = (patient_means(one, clusters) for one in (wrong & kept, kept))
    return float(lost.sum() / held.sum())


def _patients_for(risk: float, level: float) -> int:
    """Minimum number of patients with only kept and correct predictions that shows a risk."""
    steps = np.log1p(np.asarray(STAKES) * risk / (1 - risk))
    count = 1
    while np.log(np.exp(count * steps).mean()) < -math.log(level):
        count = max(count + 1, int(count * 1.01))
    return count


def choose_share(probabilities: npt.ArrayLike, clusters: Int64, share: float, alpha: float = 0.05) -> ReferRule:
    """Choose the highest confidence threshold with at most `share` of the images below it; those are referred."""
    top = np.asarray(probabilities, np.float64).max(axis=1)
    ordered = np.sort(top)
    count = math.floor(share * len(top) + 1e-9)
    at = float(ordered[count]) if count < len(top) else 1.0
    below = ordered[ordered < at]
    at = float((at + below.max(initial=0.0)) / 2) if len(below) else min(at, float(ordered[0]))
    found = proportion(top < at, clusters, alpha)
    value = float(found.value or 0.0)
    shown = found.clustered[1] <= share
    got = f"{100 * value:.1f} % [{100 * found.clustered[0]:.1f}, {100 * found.clustered[1]:.1f}] of {found.n} images"
    whose = "is shown" if shown else "is what was asked for, not a limit that the sample shows"
    return ReferRule(
        target="share", level=share, confidence=at, kept=1 - value, value=value, limits=list(found.clustered), images=found.n,
        patients=found.patients, alpha=alpha, shown=shown, words=f"at most {100 * share:g} % referred {whose}: {got}",
    )  # fmt: skip


def judge_costs(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, clusters: Int64, costs: Sequence[Sequence[float]], seed: int = 0
) -> CostRule:
    """Evaluate a cost table: mean cost per image with its patient bootstrap, and that of predicting the most likely class."""
    values, true = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    table = np.asarray(costs, np.float64)
    paid = table[true, actions_of(values, costs)]
    dense = dense_index(clusters)
    sums = np.stack([np.bincount(dense, weights=paid), np.bincount(dense).astype(np.float64)], axis=1)
    limits = None
    if len(sums) > 1:
        drawn = bootstrap_sums(sums, lambda total: total[:, 0] / total[:, 1], RESAMPLES, seed)
        limits = list(percentile_interval(drawn, 0.05))
    plain = float(table[true, values.argmax(axis=1)].mean())
    rows = [[float(cell) for cell in row] for row in costs]
    return CostRule(costs=rows, mean=float(paid.mean()), limits=limits, plain=plain, images=len(true), patients=len(sums))
