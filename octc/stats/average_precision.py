"""Patient bootstrap of the mAP over eyes: its interval, and the interval of the difference of two models on the same eyes.

Without known patients, eyes are resampled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from octc.stats.cluster_bootstrap import clusters_of, percentile_interval
from octc.stats.metrics import Int64
from octc.stats.multilabel import Eyes, mean_ap
from octc.stats.proportions import Interval

RESAMPLES, SEED = 2000, 0


def _resampled(patients: Sequence[str | None], resamples: int, seed: int) -> Iterator[Int64]:
    """Row indices of the eyes in each resample: patients are drawn with replacement, each with all its eyes."""
    groups = clusters_of(patients)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    rng = np.random.Generator(np.random.PCG64(seed))
    for _ in range(resamples):
        yield np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])


def map_interval(eyes: Eyes, *, resamples: int = RESAMPLES, seed: int = SEED, alpha: float = 0.05) -> Interval | None:
    """Patient bootstrap interval of the mAP; None with fewer than two patients."""
    return _interval([mean_ap(eyes.scores[own], eyes.truth[own]) for own in _draws(eyes.patients, resamples, seed)], alpha)


def map_difference(
    one: Eyes, other: Eyes, *, resamples: int = RESAMPLES, seed: int = SEED, alpha: float = 0.05
) -> tuple[float | None, Interval | None]:
    """mAP of `other` minus that of `one` on the same eyes, and its paired patient bootstrap interval."""
    if one.names != other.names or not np.array_equal(one.truth, other.truth):
        raise ValueError("two models can only be compared on the same eyes")
    first, second = mean_ap(one.scores, one.truth), mean_ap(other.scores, other.truth)
    draws = _draws(one.patients, resamples, seed)
    values = [_minus(mean_ap(other.scores[own], other.truth[own]), mean_ap(one.scores[own], one.truth[own])) for own in draws]
    return _minus(second, first), _interval(values, alpha)


def _draws(patients: Sequence[str | None], resamples: int, seed: int) -> Iterable[Int64]:
    alone = len({i if p is None else p for i, p in enumerate(patients)}) < 2
    return [] if alone else _resampled(patients, resamples, seed)


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _interval(values: Sequence[float | None], alpha: float) -> Interval | None:
    known = np.array([value for value in values if value is not None], np.float64)
    return percentile_interval(known, alpha) if len(known) and len(known) >= 0.99 * len(values) else None
