"""Temperature scaling of a network's logits, fitted on the validation set (docs/parity.md, section 9; Guo et al. 2017).

The mean negative log-likelihood of softmax(z / T) is minimised over ln T. With a single view it changes no prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.optional import need
from octc.stats.metrics import combine_views, nll_scores

LOWEST, HIGHEST = 0.05, 20.0
LEAST_IMAGES = 100
TOLERANCE = 1e-9  # tolerance of ln T


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature, or 1 with the reason why none was fitted.

    Attributes:
        before, after: mean negative log-likelihood on the fitted images, nats; None without a fit.
        reason: "at_bound", "no_errors", "too_few_images", or why the images are not available.
    """

    value: float = 1.0
    set: str = "select"
    n: int = 0
    before: float | None = None
    after: float | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "nll_before": self.before, "nll_after": self.after} | {"fitted": self.reason is None}


def nll_at(logits: npt.ArrayLike, labels: npt.ArrayLike, temperature: float) -> float:
    """Mean negative log-likelihood of logits [n, views, K] / T, nats; T is applied to each view before averaging."""
    values = np.asarray(logits, np.float64) / temperature
    return float(nll_scores(combine_views(values)[1], labels).mean())


def fit(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The T in [0.05, 20] with the lowest mean negative log-likelihood; logits [n, K] or [n, views, K]."""
    values = np.asarray(logits, np.float64)
    views = values[:, None] if values.ndim == 2 else values
    found = need("scipy.optimize").minimize_scalar(
        lambda x: nll_at(views, labels, math.exp(x)),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": TOLERANCE, "maxiter": 200},
    )
    return math.exp(float(found.x))


def fit_temperature(logits: npt.NDArray[np.float32], labels: Sequence[int], name: str = "select") -> Temperature:
    """Fit a temperature; it is 1 with a reason for fewer than 100 images, no wrong prediction, or an optimum at a bound."""
    values = np.asarray(logits, np.float64)
    views = values[:, None] if values.ndim == 2 else values
    true = np.asarray(labels, np.int64)
    if len(true) < LEAST_IMAGES:
        return Temperature(set=name, n=len(true), reason="too_few_images")
    if not np.isfinite(views).all():
        return Temperature(set=name, n=len(true), reason="not_finite")
    if (combine_views(views)[0].argmax(axis=1) == true).all():
        return Temperature(set=name, n=len(true), reason="no_errors")
    value = fit(views, true)
    if not LOWEST * 1.001 < value < HIGHEST / 1.001:
        return Temperature(set=name, n=len(true), reason="at_bound")
    return Temperature(value, name, len(true), nll_at(views, true, 1.0), nll_at(views, true, value))
