"""Several folds of one model: the spread of every figure, and the figures of the matrices' sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octc.metrics import ClassFigures, Figures, figures_of

NAMES = (
    "accuracy", "macro_sensitivity", "macro_specificity", "macro_precision", "macro_f1", "disease_vs_normal_sensitivity",
    "disease_vs_normal_specificity",
)  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """A figure over folds, as fractions. None where a fold lacks it; the sample deviation (ddof 1) needs two folds.

    KD-OCT prints the population deviation (ddof 0) behind its +- sign.
    """

    per_fold: tuple[float | None, ...]
    mean: float | None
    std_population: float | None
    std_sample: float | None


def spread_of(values: Sequence[float | None]) -> Spread:
    """Mean and both deviations of one figure over folds."""
    known = np.array([value for value in values if value is not None], np.float64)
    if len(known) < len(values) or not len(known):
        return Spread(tuple(values), None, None, None)
    sample = float(known.std(ddof=1)) if len(known) > 1 else None
    return Spread(tuple(values), float(known.mean()), float(known.std()), sample)


@dataclass(frozen=True)
class Folds:
    """spreads: by name. per_class: spreads of each class, by name. pooled: figures of the sum of all matrices."""

    spreads: dict[str, Spread]
    per_class: dict[str, tuple[Spread, ...]]
    pooled: Figures


def summarise_folds(matrices: Sequence[npt.ArrayLike], normal: int | None = None) -> Folds:
    """Summary of the confusion matrices [true, predicted] of several folds, all with the same classes."""
    folds = [figures_of(matrix, normal) for matrix in matrices]
    classes = range(len(folds[0].per_class))

    def of_class(name: str, k: int) -> Spread:
        rows: list[ClassFigures] = [fold.per_class[k] for fold in folds]
        return spread_of([getattr(row, name) for row in rows])

    return Folds(
        spreads={name: spread_of([getattr(fold, name) for fold in folds]) for name in NAMES},
        per_class={
            name: tuple(of_class(name, k) for k in classes) for name in ("sensitivity", "specificity", "precision", "f1")
        },
        pooled=figures_of(np.sum([np.asarray(matrix) for matrix in matrices], axis=0), normal),
    )
