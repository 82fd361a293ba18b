"""The choices of a search on tables: budgets, dominance, rounds that fit, and a problem whose best answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.export.search.select import (
    Answers,
    Budget,
    Cost,
    Rung,
    Score,
    choose,
    dominated,
    least_margin,
    over_budget,
    plan_rounds,
    promoted,
    rungs_of,
    seconds_of,
)

EPOCHS, PATIENTS, IMAGES = 9, 800, 5


def cost(name: str, ms: float, megabytes: float, macs: int, mj: float | None = None) -> Cost:
    return Cost(name, ms, 0.95 * ms, 1.05 * ms, round(megabytes * 1e6), macs, mj)


def test_a_budget_is_judged_by_the_upper_limit_of_the_interval() -> None:
    one = cost("a", 4.8, 3.9, 100, 20.0)
    assert over_budget(one, Budget(ms=5.1, mb=4, mj=21)) == ""
    assert "up to 5.04, 5 ms allowed" in over_budget(one, Budget(ms=5))
    both = over_budget(one, Budget(mb=3, mj=19))
    assert "3 MB allowed" in both
    assert "19 mJ allowed" in both
    assert over_budget(cost("b", 1, 1, 1), Budget(mj=5)), "what was not measured is within no budget"


def test_a_smaller_network_that_is_slower_and_larger_in_file_is_dominated() -> None:
    table = [cost("small", 8, 4, 100), cost("large", 5, 3.9, 500), cost("largest", 5.1, 3.8, 700), cost("quick", 2, 1, 50)]
    assert dominated(table) == {"small": "largest"}
    near = [cost("small", 5.2, 4, 100), cost("large", 5, 4, 500)]
    assert dominated(near) == {}, "intervals that overlap show nothing"
    assert dominated([cost("small", 8, 4, 100), cost("large", 5, 4.1, 500)]) == {}, "its file is larger"


def test_the_least_margin_that_validation_images_can_show() -> None:
    """Tango's limit where no answer differs is z^2 / (n + z^2)."""
    assert least_margin([f"p{k}" for k in range(200)]) == pytest.approx(3.8415 / (200 + 3.8415), abs=1e-5)
    crowded = least_margin([f"p{k // 4}" for k in range(200)])
    assert crowded is not None
    assert crowded > 3.8415 / 203.8415, "four images of a patient show less than those of four patients"
    assert least_margin(["one"] * 200) is None
    right, patients = np.ones(200, dtype=bool), [f"p{k}" for k in range(200)]
    same = [Answers(Score("sure", 2.0, 1.0, 0.1), right), Answers(Score("quick", 1.0, 1.0, 0.2), right)]
    assert [choose(same, patients, margin).winner for margin in (0.0188, 0.0189)] == ["sure", "quick"]


def test_rounds_of_successive_halving() -> None:
    assert rungs_of(27, 9) == (Rung(27, 1), Rung(9, 3), Rung(3, 9))
    assert rungs_of(3, 12) == (Rung(3, 12),)
    assert rungs_of(4, 9) == (Rung(4, 9),), "two rounds would be dearer than training all to the end"
    assert rungs_of(12, 12) == (Rung(12, 1), Rung(4, 4), Rung(3, 12))
    assert rungs_of(27, 2) == (Rung(27, 2),), "there is no round of less than an epoch"
    costs = {f"c{k}": 1.0 for k in range(27)}
    assert seconds_of(rungs_of(27, 9), costs) == 27 * 9 / 3


def test_hours_shorten_the_epochs_first_and_then_cut_the_dearest() -> None:
    costs = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 40.0}
    free = plan_rounds(costs, 9, None)
    assert (free.epochs, free.cut, free.full) == (9, (), 9 * 46)
    tight = plan_rounds(costs, 9, 250.0)
    assert tight.cut == ()
    assert tight.epochs < 9
    assert tight.seconds <= 250
    tighter = plan_rounds(costs, 9, 30.0)
    assert tighter.cut == ("d",)
    with pytest.raises(OctcError, match="the shortest takes") as caught:
        plan_rounds(costs, 9, 1.0)
    assert caught.value.code == "OCT-E104"


def test_who_goes_on_is_what_nobody_beats() -> None:
    table = [Score("slow", 9, 0.95), Score("beaten", 9.5, 0.94), Score("middle", 5, 0.945), Score("quick", 2, 0.90)]
    assert promoted(table, 3) == ["slow", "middle", "quick"]
    assert promoted(table, 2) == ["slow", "middle"]
    assert promoted(table, 4) == ["slow", "middle", "quick", "beaten"]
    assert promoted([Score("a", 1, 0.9, 0.3), Score("b", 1, 0.9, 0.2)], 1) == ["b"], "equal accuracy: the smaller loss"


def test_the_fastest_that_is_not_inferior_wins() -> None:
    rng = np.random.default_rng(0)
    patients = [f"p{k // 4}" for k in range(4000)]
    best = rng.random(4000) < 0.95
    close, far = best.copy(), best.copy()
    close[:8] ^= True
    far[rng.random(4000) < 0.04] = False

    def table(margin: float) -> str:
        rows = [
            Answers(Score("best", 5, 0.95), best),
            Answers(Score("close", 3, 0.949), close),
            Answers(Score("far", 1, 0.91), far),
        ]
        return choose(rows, patients, margin, resamples=1000).winner

    assert table(0.01) == "close"
    assert table(0.10) == "far"
    assert table(0.0001) == "best", "what the images cannot show is not claimed"


def test_one_patient_shows_nothing() -> None:
    right = np.array([True] * 20)
    other = right.copy()
    other[0] = False
    rows = [Answers(Score("a", 2, 1.0), right), Answers(Score("b", 1, 0.95), other)]
    assert choose(rows, ["p"] * 20, 0.5).winner == "a"


class Problem:
    """27 made-up networks: times, accuracies after long training, learning curves; right answers on images of patients.

    The best answer is "c-answer": 0.3 points below the best network at a third of its time. Everything quicker is at least
    3 points worse, everything else is slower. After the first round networks are 5.3 to 8 points below what they reach, each by
    a length of its own, so that their order there is not the last one.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        times = np.exp(self.rng.uniform(np.log(2.0), np.log(12.0), 27))
        final = 0.955 - 0.0025 * (12 - times) / 10 - self.rng.uniform(0.004, 0.05, 27)
        self.networks = {
            f"c-{k}": (float(ms), float(acc)) for k, (ms, acc) in enumerate(zip(times[:25], final[:25], strict=True))
        }
        self.networks = {n: (ms, min(acc, 0.925) if ms < 3.2 else acc) for n, (ms, acc) in self.networks.items()}
        self.networks |= {"c-best": (9.0, 0.958), "c-answer": (3.0, 0.955)}
        self.speed = {name: float(self.rng.uniform(0.06, 0.09)) for name in self.networks}
        self.trouble = np.repeat(self.rng.normal(0, 1, PATIENTS), IMAGES) + self.rng.normal(0, 1, PATIENTS * IMAGES)
        self.patients = [f"p{k // IMAGES}" for k in range(PATIENTS * IMAGES)]
        self.spent = 0

    def train(self, name: str, epochs: int) -> Answers:
        """Right where an image's trouble, with some noise of this network, is below what so many epochs teach it."""
        self.spent += epochs
        ms, final = self.networks[name]
        accuracy = final - self.speed[name] * (1 / epochs - 1 / EPOCHS) - abs(self.rng.normal(0, 0.001))
        noisy = self.trouble + self.rng.normal(0, 0.15, len(self.trouble))
        right = noisy <= np.quantile(noisy, accuracy)
        return Answers(Score(name, ms, float(right.mean())), right)


def searched(seed: int) -> tuple[str, float]:
    """Who is found, and the share of the full cost."""
    problem = Problem(seed)
    left, answers = list(problem.networks), list[Answers]()
    rungs = rungs_of(len(left), EPOCHS)
    for number, rung in enumerate(rungs):
        answers = [problem.train(name, rung.epochs) for name in left]
        if number + 1 < len(rungs):
            left = promoted([one.score for one in answers], rungs[number + 1].count)
    found = choose(answers, problem.patients, 0.01, resamples=1000)
    return found.winner, problem.spent / (len(problem.networks) * EPOCHS)


def test_the_known_best_answer_is_found_at_a_third_of_the_cost() -> None:
    found = [searched(seed) for seed in range(20)]
    assert max(share for _, share in found) <= 1 / 3
    assert sum(winner == "c-answer" for winner, _ in found) >= 19, [winner for winner, _ in found]
