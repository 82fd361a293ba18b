"""Operating points, when to refer, and costs: chosen on a labelled set, with what that set can and cannot show."""

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

CONFIDENCES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)  # that a risk is tried at, fixed before any image is seen
RESAMPLES = 2000


def choose_point(
    scores: npt.ArrayLike, positive: Bool, clusters: Int64, about: tuple[str, Kind, float], alpha: float = 0.05
) -> OperatingPoint:
    """The threshold of one class for a stated sensitivity or specificity.

    The strictest threshold for a sensitivity (the loosest for a specificity) whose clustered lower limit reaches the level;
    where none does, the one whose share does, and the words say that the sample cannot show it. A limit of the k-th smallest
    score is exact for a threshold chosen so (tolerance limits, Wilks 1941), for independent images.

    Args:
        scores: probability of the class, [n]. positive: whether it is the class, [n]. clusters: patients, [n].
        about: name of the class, what is stated, its level.
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
    """The threshold that misses so many (more where scores are equal), halfway to the next score, and what it gives."""
    up = kind == "sensitivity"
    own = np.sort(values[mine])
    if not len(own):
        return (0.0 if up else 1.0), proportion(np.zeros(0, bool), np.zeros(0, np.int64), alpha)
    edge = own[misses] if up else own[::-1][misses]
    beyond = values[values < edge] if up else values[values > edge]
    other = beyond.max(initial=0.0) if up else beyond.min(initial=1.0)
    threshold = float((edge + other) / 2)
    if not up and threshold <= edge:  # halfway is the score itself: the next number
        threshold = min(float(np.nextafter(edge, 2.0)), 1.0)  # of a score of 1 there is none: it is always reached
    hit = (values[mine] >= threshold) if up else (values[mine] < threshold)
    return threshold, proportion(hit, clusters[mine], alpha)


def _point_words(about: tuple[str, Kind, float], found: Proportion, needed: int, most: float, *, shown: bool) -> str:
    """most: the lower limit where nothing is missed, the most that these images can show."""
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
    """The lowest confidence from which on answers are kept, so that at most `risk` of the kept ones are wrong.

    Each of CONFIDENCES is tested by betting on the patients' means of (wrong - risk) x kept, at alpha divided by their number
    (Bonferroni), which holds for any dependence among a patient's images. Where none is shown, the lowest one whose share of
    wrong answers is small enough, and the words say so.

    Args:
        answers: the class that is answered to each image [n], where other rules decide it; None: the likeliest.
    """
    values = np.asarray(probabilities, np.float64)
    told = values.argmax(axis=1) if answers is None else np.asarray(answers, np.int64)
    top, wrong = values.max(axis=1), told != np.asarray(labels, np.int64)
    level = alpha / len(CONFIDENCES)
    shown_at, seen_at = None, None
    for at in CONFIDENCES:
        kept = top >= at
        gains = patient_means((wrong - risk) * kept, clusters) + risk  # within 0 and 1, its mean at most `risk`
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
    """Patients, all of whose answers are kept and right, from which on a risk is shown."""
    steps = np.log1p(np.asarray(STAKES) * risk / (1 - risk))
    count = 1
    while np.log(np.exp(count * steps).mean()) < -math.log(level):
        count = max(count + 1, int(count * 1.01))
    return count


def choose_share(probabilities: npt.ArrayLike, clusters: Int64, share: float, alpha: float = 0.05) -> ReferRule:
    """The highest confidence below which no more than `share` of the images lie: those are referred."""
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
    """What a table of costs comes to: mean cost of an image with its patient bootstrap, and that of the likeliest class."""
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
