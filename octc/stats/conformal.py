"""Conformal prediction sets with coverage for new patients: scores, limits, sets (docs/abstention.md).

Patients are exchangeable, images of different patients are not. So each patient of the validation set has the same weight,
shared by the scores of its images (hierarchical conformal prediction, Lee, Barber and Willett 2023; Dunn, Wasserman and Ramdas
2022). The coverage guarantee is for an image drawn from a new patient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from octc.stats.decision_rules import Method, SetRule
from octc.stats.metrics import Bool, Float64, Int64

ALWAYS = 1.0  # a limit that no score exceeds
TIE = 1e-12


def lac_scores(probabilities: npt.ArrayLike) -> Float64:
    """LAC score: 1 - probability of each class, [n, K] (least ambiguous sets, Sadinle, Lei and Wasserman 2019)."""
    return 1 - np.asarray(probabilities, np.float64)


def aps_scores(probabilities: npt.ArrayLike, share: npt.ArrayLike = 0.0) -> Float64:
    """APS score: total probability of the classes more likely than each class, [n, K] (Romano, Sesia and Candes 2020).

    share: share of the class's own probability to add: [n, 1] or a number. With 0 the most likely class is in every set, and
    sets are deterministic; uniform random numbers give the randomised scores of the paper.
    """
    values = np.asarray(probabilities, np.float64)
    order = np.argsort(-values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked
    found = np.empty_like(values)
    np.put_along_axis(found, order, before, axis=1)
    return np.clip(found + np.asarray(share, np.float64) * values, 0.0, 1.0)


SCORES: Mapping[str, Callable[[npt.ArrayLike], Float64]] = {"lac": lac_scores, "aps": aps_scores}


def patient_quantile(scores: npt.ArrayLike, patients: npt.ArrayLike, coverage: float) -> float:
    """Conformal quantile of the scores over m patients and one new patient, whose score may be arbitrarily large.

    Args:
        scores: [n]. patients: [n], patient numbers; the images of a patient share its weight 1 / (m + 1).

    Returns: the limit; 1 if m patients are too few for this coverage.

    >>> patient_quantile([0.1, 0.2, 0.3], [0, 1, 2], 0.5), patient_quantile([0.1, 0.2, 0.3], [0, 1, 2], 0.9)
    (0.2, 1.0)
    """
    values = np.asarray(scores, np.float64)
    if not len(values):
        return ALWAYS
    _, dense, sizes = np.unique(np.asarray(patients), return_inverse=True, return_counts=True)
    order = np.argsort(values, kind="stable")
    mass = np.cumsum((1 / sizes[dense])[order]) / (len(sizes) + 1)
    place = int(np.searchsorted(mass, coverage - TIE))
    return ALWAYS if place == len(values) else float(min(values[order[place]], ALWAYS))


def patients_needed(coverage: float) -> int:
    """The minimum number of patients for this coverage.

    >>> patients_needed(0.9), patients_needed(0.95)
    (9, 19)
    """
    return math.ceil(coverage / (1 - coverage) - TIE)


def fit_sets(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    patients: Int64 | None,
    classes: Sequence[str],
    how: tuple[Method, float, bool],
) -> SetRule:
    """Fit the limits of prediction sets on a labelled set that the network was not trained on.

    Args:
        probabilities: [n, K]. patients: patient number of each image; None: unknown, each image counts as a patient.
        how: method, coverage (0 to 1), and whether the coverage is for each class (else over all classes).
    """
    method, coverage, each = how
    values, true = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    who = np.arange(len(true)) if patients is None else np.asarray(patients)
    own = SCORES[method](values)[np.arange(len(true)), true]
    groups = [true == k for k in range(len(classes))] if each else [np.ones(len(true), bool)]
    limits = [patient_quantile(own[mine], who[mine], coverage) for mine in groups]
    counts = [len(np.unique(who[mine])) for mine in groups]
    least = patients_needed(coverage)
    names = list(classes) if each else ["all"]
    return SetRule(
        method=method, coverage=coverage, by="class" if each else "all",
        limits=limits if each else limits * len(classes),
        images=[int(mine.sum()) for mine in groups], patients=counts,
        short=[name for name, count in zip(names, counts, strict=True) if count < least],
        patients_known=patients is not None,
    )  # fmt: skip


def sets_of(probabilities: npt.ArrayLike, rule: SetRule) -> Bool:
    """The prediction set of each image as a boolean mask [n, K]."""
    found: Bool = SCORES[rule.method](np.atleast_2d(probabilities)) <= np.asarray(rule.limits) + TIE
    return found


def p_kept(covered: float, tested: int, fitted: int, coverage: float) -> float:
    """p-value of an observed coverage, under the hypothesis that the coverage guarantee holds.

    With one image per patient, the coverage of new patients given m = `fitted` calibration patients is Beta(m + 1 - l, l) with
    l = floor((m + 1)(1 - coverage)) (Vovk 2012), and the count among `tested` patients is beta-binomial. With several images
    per patient the shares vary less, so the p-value is conservative.

    covered: number of covered patients, a sum of shares. Returns P(X <= covered), with `covered` rounded up.
    """
    out = math.floor((fitted + 1) * (1 - coverage) + TIE)
    if tested == 0 or out == 0:
        return 1.0
    a, b, most = fitted + 1 - out, out, min(tested, math.ceil(covered - 1e-9))
    whole = _log_beta(a, b)
    terms = (
        math.lgamma(tested + 1) - math.lgamma(k + 1) - math.lgamma(tested - k + 1) + _log_beta(k + a, tested - k + b) - whole
        for k in range(most + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
