"""What must hold for any two models: the order of the images, swapping the models, a model against itself, too few images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from octc.stats.comparison import Comparison, compare_logits
from octc.stats.power import smallest_n
from octc.stats.proportions import holm, mcnemar_exact, mcnemar_midp, p_non_inferior, tango_interval, wilson
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import judge
from tests.octc.parity_cases import CLASSES

QUICK = ParityOptions(margin=5.0, class_margin=10.0, bootstrap=1000)
SOME = settings(max_examples=12, deadline=None, database=None, derandomize=True)
MANY = settings(max_examples=100, deadline=None, database=None, derandomize=True)
COUNTS = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 400))


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """Labels, patients and logits of two models; the first of them knows the classes."""
    n = draw(st.integers(16, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.arange(n) % 4
    reference = rng.normal(0, 0.6, (n, 1, 4)) + 3 * np.eye(4)[labels][:, None]
    candidate = reference + rng.normal(0, draw(st.sampled_from([0.05, 0.5, 2.0])), (n, 1, 4))
    patients = [f"p{i}" for i in rng.integers(0, max(2, n // draw(st.integers(1, 4))), n)]
    return {
        "ids": [f"{i:04d}" for i in rng.permutation(n)], "labels": labels.tolist(),
        "patients": patients if draw(st.booleans()) else [None] * n,
        "reference": reference.astype(np.float32), "candidate": candidate.astype(np.float32),
    }  # fmt: skip


def compared(world: dict[str, Any], options: ParityOptions = QUICK, **more: Any) -> Comparison:
    changed = {**world, **more}
    return compare_logits(
        changed["ids"], changed["labels"], changed["patients"], changed["reference"], changed["candidate"], CLASSES, options
    )


@SOME
@given(worlds(), st.integers(0, 1000))
def test_the_order_of_the_images_does_not_matter(world: dict[str, Any], seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(world["ids"]))
    mixed = {key: value[order] if hasattr(value, "shape") else [value[i] for i in order] for key, value in world.items()}
    one, other = compared(world), compared(mixed)
    assert one == other
    assert judge(one, QUICK) == judge(other, QUICK)


@SOME
@given(worlds())
def test_swapping_the_models_flips_every_sign(world: dict[str, Any]) -> None:
    there = compared(world)
    assume(np.mean(world["candidate"][:, 0].argmax(axis=1) == world["labels"]) > 0.6)  # a model at chance is no reference
    back = compared(world, reference=world["candidate"], candidate=world["reference"])
    assert (there.pair.lost, there.pair.gained) == (back.pair.gained, back.pair.lost)
    assert there.pair.difference == -back.pair.difference
    for one, other in ((there.pair.tango, back.pair.tango), (there.pair.scaled, back.pair.scaled)):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one == pytest.approx((-other[1], -other[0]), abs=1e-9)
    assert there.agreement["rate"] == back.agreement["rate"]
    assert there.agreement["dlogit_max"] == back.agreement["dlogit_max"]
    for r, s in zip(there.auc, back.auc, strict=True):
        assert r.difference == pytest.approx(-s.difference, abs=1e-12)
    for r, s in zip(there.per_class, back.per_class, strict=True):
        assert (r.pair.lost, r.pair.gained, r.p) == (s.pair.gained, s.pair.lost, s.p)


@SOME
@given(worlds())
def test_a_model_against_itself_loses_nothing_and_is_never_worse(world: dict[str, Any]) -> None:
    same = compared(world, candidate=world["reference"])
    found = judge(same, QUICK)
    assert (same.pair.lost, same.pair.gained, same.pair.difference) == (0, 0, 0)
    assert (same.agreement["rate"], same.agreement["kl_max"], same.agreement["dlogit_max"]) == (1.0, 0.0, 0.0)
    assert all(row.difference == 0 for row in same.auc)
    assert found.word in ("equivalent", "inconclusive")  # never inferior, never fail, however few images
    assert not found.better
    assert not found.loss_shown


def test_a_model_against_itself_is_equivalent_where_the_images_suffice() -> None:
    labels = np.arange(2000) % 4
    logits = (np.random.default_rng(0).normal(0, 0.8, (2000, 1, 4)) + 3 * np.eye(4)[labels][:, None]).astype(np.float32)
    world = {
        "ids": [f"{i:04d}" for i in range(2000)], "labels": labels.tolist(), "patients": [f"p{i // 2}" for i in range(2000)],
        "reference": logits, "candidate": logits,
    }  # fmt: skip
    options = ParityOptions(margin=1.0, class_margin=3.0, plan_discordance=0.005, bootstrap=1000)
    found = judge(compared(world, options), options)
    assert (found.word, found.exit_code, found.reasons) == ("equivalent", 0, ())


@SOME
@given(worlds(), st.floats(0.2, 4.0))
def test_too_few_images_are_never_enough(world: dict[str, Any], margin: float) -> None:
    options = ParityOptions(margin=margin, class_margin=30.0, bootstrap=1000)
    assert len(world["ids"]) < smallest_n(options.delta)
    for candidate in (world["reference"], world["candidate"]):
        found = judge(compared(world, options, candidate=candidate), options)
        assert found.word not in ("non_inferior", "equivalent")
        assert found.exit_code == 1


@MANY
@given(COUNTS, st.floats(0.01, 0.4))
def test_intervals_hold_their_estimate_mirror_and_shrink_with_n(counts: tuple[int, int, int], alpha: float) -> None:
    lost, gained, even = counts
    n = max(1, lost + gained + even)
    low, high = tango_interval(n, lost, gained, alpha)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert tango_interval(n, gained, lost, alpha) == pytest.approx((-high, -low), abs=1e-9)
    assert tango_interval(4 * n, 4 * lost, 4 * gained, alpha)[0] >= low - 1e-9
    limits = wilson(lost, n, alpha)
    assert limits is not None
    assert 0 <= limits[0] <= lost / n + 1e-12
    assert lost / n - 1e-12 <= limits[1] <= 1


@MANY
@given(COUNTS, st.floats(0.01, 0.3))
def test_tests_are_probabilities_and_agree_with_their_interval(counts: tuple[int, int, int], margin: float) -> None:
    lost, gained, even = counts
    n = max(1, lost + gained + even)
    for p in (mcnemar_exact(lost, gained), mcnemar_midp(lost, gained), p_non_inferior(n, lost, gained, margin)):
        assert 0 <= p <= 1
    assert mcnemar_exact(lost, gained) == mcnemar_exact(gained, lost)
    assert mcnemar_midp(lost, gained) <= mcnemar_exact(lost, gained)
    low = tango_interval(n, lost, gained, 0.05)[0]
    if abs(low + margin) > 1e-6:
        assert (low > -margin) == (p_non_inferior(n, lost, gained, margin) < 0.025)


@MANY
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_holm_only_raises_keeps_the_order_and_does_not_depend_on_it(p: list[float], random: Any) -> None:
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert all(a <= 1 for a in adjusted)
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm([p[i] for i in order]) == [adjusted[i] for i in order]


def test_the_same_numbers_as_scipys_own_tests() -> None:
    """An oracle: the exact test of McNemar is a binomial one, and scipy has Wilson's interval."""
    for lost, gained in ((0, 3), (7, 1), (12, 4), (30, 25)):
        assert mcnemar_exact(lost, gained) == pytest.approx(binomtest(lost, lost + gained).pvalue, abs=1e-12)
    for hits, n in ((0, 5), (245, 250), (984, 1000)):
        limits = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits, n) == pytest.approx((limits.low, limits.high), abs=1e-12)
