"""Quantiles of a measurement against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import bdtr, stdtrit

from octc.bench.timing.quantiles import binomial_cdf, student_quantile


@pytest.mark.parametrize("share", [0.9, 0.95, 0.975, 0.999])
def test_students_quantile_is_scipys(share: float) -> None:
    for freedom in (*range(1, 41), 99, 100, 999, 1000, 20001):
        assert student_quantile(freedom, share) == pytest.approx(float(stdtrit(freedom, share)), rel=1e-11), freedom


@pytest.mark.parametrize("p", [0.5, 0.9, 0.95, 0.99, 0.999])
def test_the_binomial_distribution_is_scipys(p: float) -> None:
    for n in (1, 2, 16, 299, 1000, 20_000, 200_000):
        np.testing.assert_allclose(binomial_cdf(n, p), bdtr(np.arange(n + 1), n, p), rtol=0, atol=1e-9)
