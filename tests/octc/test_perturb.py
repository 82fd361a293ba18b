"""Pictures made worse: the same on every machine, milder before more severe, mode and size kept; and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from octc.imaging.corruptions import KINDS, Kind, seed_of
from octc.stats.robustness import clustered_p, robustness
from octc.stats.subgroups import binned, subgroups
from octc.stats.test_plan import ParityOptions

OPTIONS = ParityOptions(margin=5.0, bootstrap=1000)
N = 400


def picture(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.integers(60, 190, (8, 10)), np.ones((8, 8)))
    return Image.fromarray(smooth.astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_levels_grow_and_are_the_same_again(kind: Kind, mode: str) -> None:
    clean = picture(mode)
    gaps = []
    for level in kind.levels:
        one, again = (kind.apply(clean, level, seed_of("x", kind.name, level)) for _ in range(2))
        assert (one.mode, one.size) == (clean.mode, clean.size)
        assert one.tobytes() == again.tobytes()
        gaps.append(float(np.abs(np.asarray(one, float) - np.asarray(clean, float)).mean()))
    assert gaps[0] > 0
    assert gaps == sorted(gaps)
    assert len(kind.levels) == 5


def test_noise_differs_between_pictures_and_levels() -> None:
    assert len({seed_of(name, "noise", level) for name in ("a", "b") for level in (0.04, 0.08)}) == 4


def predictions(right: int, seed: int = 0) -> np.ndarray:
    """Answers to labels of 0, of which the first `right` of a drawn order are right."""
    said = np.ones(N, np.int64)
    said[np.random.default_rng(seed).permutation(N)[:right]] = 0
    return said


def test_a_candidate_that_breaks_earlier_is_named_and_one_that_breaks_alike_is_not() -> None:
    labels, clean = np.zeros(N, np.int64), (predictions(390), predictions(390))
    worse = {
        ("noise", 0.1): (predictions(388), predictions(330)), ("noise", 0.2): (predictions(300), predictions(250)),
        ("blur", 1.0): (predictions(385), predictions(384)), ("blur", 2.0): (predictions(320), predictions(318)),
    }  # fmt: skip
    found = robustness(labels, clean, worse, np.arange(N) // 2, OPTIONS)
    assert found.earlier == ("noise",)
    assert found.breaks == {"noise": (0.2, 0.1), "blur": (2.0, 2.0)}
    first = found.cells[0]
    assert first.difference == pytest.approx((330 - 388) / N)
    assert first.excess == pytest.approx((330 - 388) / N)  # clean they are equal
    assert first.p <= first.p_holm < 0.05
    assert found.cells[2].p_holm > 0.05
    assert found.to_json()["breaks_at"]["noise"] == {"reference": 0.2, "candidate": 0.1}


def test_a_difference_that_was_there_before_is_no_excess() -> None:
    labels = np.zeros(N, np.int64)
    both = (predictions(390), predictions(360))
    found = robustness(labels, both, {("noise", 0.1): both}, None, OPTIONS)
    assert (found.cells[0].excess, found.cells[0].p) == (0.0, 1.0)
    assert found.cells[0].difference < 0


def test_the_test_of_the_excess_looks_at_patients() -> None:
    steps = np.repeat(np.array([-1.0] * 6 + [0.0] * 94), 4)
    assert clustered_p(steps, np.arange(400) // 4) > 100 * clustered_p(steps, None)
    assert clustered_p(steps, np.zeros(400, np.int64)) == 1.0


def test_subgroups_find_a_loss_that_the_whole_hides() -> None:
    labels = np.zeros(N, np.int64)
    new = np.arange(N) % 8 == 0
    candidate = np.where(new & (np.arange(N) % 16 == 0), 1, 0)
    found = subgroups(labels, (labels, candidate), np.arange(N), {"device": np.where(new, "new", "old").tolist()}, OPTIONS)
    rows = {one.value: one for one in found}
    assert (rows["new"].lost, rows["new"].n, rows["new"].loss) == (25, 50, True)
    assert (rows["old"].lost, rows["old"].loss, rows["old"].p_holm) == (0, False, 1.0)
    assert rows["new"].accuracy("candidate", 0.05)[0] == 0.5


def test_numbers_become_quarters_and_few_values_stay() -> None:
    assert binned("eye", ["left", None, "right", ""]) == ["left", "(not given)", "right", "(not given)"]
    quarters = binned("age", [str(i) for i in range(1, 101)])
    assert [quarters[0], quarters[30], quarters[60], quarters[99]] == [
        "up to 25", "above 25 up to 50", "above 50 up to 75", "above 75 up to 100",
    ]  # fmt: skip
    assert {quarters.count(name) for name in set(quarters)} == {25}
    gaps = binned("age", [*(str(i) for i in range(1, 101)), "nan", "NaN", ""])
    assert (gaps[:100], set(gaps[100:])) == (quarters, {"(not given)"})
    skewed = binned("age", ["0"] * 90 + [str(i) for i in range(1, 21)])
    assert set(skewed) == {"up to 0", "above 0 up to 20"}
