"""The choices of a search as pure functions over tables: what is too dear, what is beaten, who goes on, who wins.

Nothing is read, run or stored, and nothing here knows a network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.stats.cluster_bootstrap import Paired, cluster_index, named_images, paired

ETA = 3  # of successive halving: one candidate in so many goes on, with so many times the epochs
LEAST = 3  # candidates of the last round, so that there is something to choose from
SHORTEST = 3  # epochs that --hours may shorten the last round to
SLACK = 0.9  # share of the time left that is planned with
UNITS = {"ms": "ms", "mb": "MB", "mj": "mJ"}


@dataclass(frozen=True)
class Budget:
    """Limits that all have to hold; None: none. ms: median of batch 1. mb: 10^6 bytes. mj: gross energy of an image."""

    ms: float | None = None
    mb: float | None = None
    mj: float | None = None

    def to_json(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if value is not None}

    def words(self) -> str:
        """ "5 ms, 4 MB"."""
        return ", ".join(f"{value:g} {UNITS[name]}" for name, value in self.to_json().items())


@dataclass(frozen=True)
class Cost:
    """What a candidate costs on the target: median ms with its 95 % interval, bytes of its files, mJ of an image (None: not
    measured), multiply-accumulates of an image."""

    name: str
    ms: float
    low: float
    high: float
    bytes: int
    macs: int
    mj: float | None = None


def over_budget(cost: Cost, budget: Budget) -> str:
    """Why a candidate is over the budget, or "". A time is judged by the upper limit of its interval, as `octc bench` does."""
    rows = [
        (budget.ms, cost.high, f"{cost.ms:.3g} ms, up to {cost.high:.3g}", "ms"),
        (budget.mb, cost.bytes / 1e6, f"{cost.bytes / 1e6:.3g} MB", "MB"),
        (budget.mj, math.inf if cost.mj is None else cost.mj, f"{cost.mj or 0:.3g} mJ", "mJ"),
    ]
    return "; ".join(
        f"{text}, {limit:g} {unit} allowed" for limit, value, text, unit in rows if limit is not None and value > limit
    )


def dominated(costs: Sequence[Cost]) -> dict[str, str]:
    """Candidates that a larger one beats: it has more arithmetic, no larger files, and is shown to be no slower (its interval
    ends below the other's). name -> who beats it (the one with the most arithmetic)."""
    found = {}
    for one in costs:
        better = [c for c in costs if c.macs > one.macs and c.bytes <= one.bytes and c.high <= one.low]
        if better:
            found[one.name] = max(better, key=lambda c: (c.macs, -c.ms)).name
    return found


@dataclass(frozen=True)
class Rung:
    """A round: so many candidates are trained for so many epochs."""

    count: int
    epochs: int


def rungs_of(count: int, epochs: int, eta: int = ETA, least: int = LEAST) -> tuple[Rung, ...]:
    """The rounds of successive halving (Jamieson and Talwalkar 2016) for `count` candidates, the last one with `epochs`.

    A candidate's round is a whole training of its own, whose rate goes down to its end: networks are compared as trained, and
    the accuracy of a round is not that of a training that was cut off.
    """
    steps = max(0, math.ceil(math.log(max(count, 1) / least, eta) - 1e-9))
    steps = min(steps, math.floor(math.log(max(epochs, 1), eta) + 1e-9))
    sizes = [min(count, max(least, math.ceil(count / eta**k))) for k in range(steps + 1)]
    rungs = tuple(Rung(size, max(1, round(epochs / eta ** (steps - k)))) for k, size in enumerate(sizes))
    dearer = sum(rung.count * rung.epochs for rung in rungs) >= count * epochs  # few candidates: halving saves nothing
    return (Rung(count, epochs),) if dearer else rungs


def seconds_of(rungs: Sequence[Rung], per_epoch: Mapping[str, float], fixed: float = 0.0, workers: int = 1) -> float:
    """The most that rounds take: those that go on are taken to be the dearest.

    Args:
        per_epoch: seconds of each candidate. fixed: seconds of a training beside its epochs.
        workers: as quick as the one that was timed; each takes the next trial when it is free. A round lasts at most a share of
            its work and what the others may wait for its longest trial, whatever the order is (Graham 1966).
    """
    dearest = sorted(per_epoch.values(), reverse=True)
    total = 0.0
    for rung in rungs:
        costs = [fixed + rung.epochs * one for one in dearest[: rung.count]]
        longest = max(costs, default=0.0)
        total += longest if len(costs) <= workers else (sum(costs) + (workers - 1) * longest) / workers
    return total


@dataclass(frozen=True)
class Plan:
    """Rounds that fit. cut: candidates that are left out for it. seconds: the most that it takes; full: all of them trained for
    all epochs."""

    rungs: tuple[Rung, ...]
    epochs: int
    cut: tuple[str, ...]
    seconds: float
    full: float


def plan_rounds(
    per_epoch: Mapping[str, float], epochs: int, seconds: float | None, fixed: float = 0.0, workers: int = 1
) -> Plan:
    """Rounds of so many workers within `seconds` (None: no bound): first the epochs are shortened, down to SHORTEST; then the
    candidates that are the dearest to train are left out, one after another.

    Raises:
        OctcError: E104 there is no time for one candidate.
    """
    full = seconds_of((Rung(len(per_epoch), epochs),), per_epoch, fixed, workers)
    left = sorted(per_epoch, key=lambda name: (per_epoch[name], name))
    while left:
        known = {name: per_epoch[name] for name in left}
        for length in range(epochs, min(epochs, SHORTEST) - 1, -1):
            rungs = rungs_of(len(left), length)
            need = seconds_of(rungs, known, fixed, workers)
            if seconds is None or need <= SLACK * seconds:
                return Plan(rungs, length, tuple(sorted(set(per_epoch) - set(left))), need, full)
        left.pop()
    least = min(per_epoch.values()) * min(epochs, SHORTEST) + fixed
    text = f"{max(0.0, seconds or 0) / 3600:.2g} hours are left for trainings, the shortest takes {least / 3600:.2g}"
    raise OctcError("OCT-E104", text, hint="more --hours, fewer --cached-views, or smaller candidates", place="--hours")


@dataclass(frozen=True)
class Score:
    """A candidate after a round: ms on the target, accuracy and cross-entropy on the validation images."""

    name: str
    ms: float
    accuracy: float
    loss: float = 0.0


def better_first(score: Score) -> tuple[float, float, float, str]:
    """Key of the stated criterion: accuracy on validation, then cross-entropy, then time."""
    return (-score.accuracy, score.loss, score.ms, score.name)


def promoted(scores: Sequence[Score], keep: int) -> list[str]:
    """Who goes on: those that nobody beats in time and accuracy at once, the most accurate first; where they are fewer than
    `keep`, those that only they beat, and so on (non-dominated sorting)."""
    left, chosen = list(scores), list[Score]()
    while left and len(chosen) < keep:
        front = [one for one in left if not any(_beats(other, one) for other in left)]
        chosen += sorted(front, key=better_first)
        left = [one for one in left if one not in front]
    return [one.name for one in chosen[:keep]]


def _beats(one: Score, other: Score) -> bool:
    """No slower, no less accurate, and better in one of both."""
    mine, theirs = (one.ms, -one.accuracy, one.loss), (other.ms, -other.accuracy, other.loss)
    return mine[0] <= theirs[0] and mine[1:] <= theirs[1:] and mine != theirs


@dataclass(frozen=True)
class Answers:
    """A finalist's right answers bool [n] on the validation images, and its score."""

    score: Score
    right: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Beside:
    """A finalist beside the best: the paired comparison (None for the best itself), and whether it is not inferior."""

    name: str
    pair: Paired | None
    non_inferior: bool


@dataclass(frozen=True)
class Choice:
    """best: by the criterion. winner: the fastest that is not inferior to it. order: of all that are not inferior, the fastest
    first. rows: in the order of the finalists."""

    best: str
    winner: str
    order: tuple[str, ...]
    rows: tuple[Beside, ...]


def least_margin(patients: Sequence[str | None]) -> float | None:
    """The smallest margin (a fraction) within which two networks are shown to be that give the same answer to every image, by
    the interval of `choose`. None: no margin, where all images are one patient's."""
    same = np.zeros(len(patients), dtype=np.bool_)
    interval = paired(same, same, cluster_index(patients), named=named_images(patients)).deciding
    return None if interval is None else -interval[0]


def choose(finalists: Sequence[Answers], patients: Sequence[str | None], margin: float, *, resamples: int = 10_000) -> Choice:
    """The fastest finalist that is non-inferior to the best one: the lower limit of the paired 95 % interval of its accuracy
    less the best one's lies at or above -margin (Tango's, widened for patients, and their bootstrap, as `octc verify` has it).

    Args:
        patients: of each image, None where unknown. margin: a fraction.
    """
    best = min(finalists, key=lambda one: better_first(one.score))
    clusters, named = cluster_index(patients), named_images(patients)
    rows = []
    for one in finalists:
        if one is best:
            rows.append(Beside(one.score.name, None, True))
            continue
        lost, gained = best.right & ~one.right, ~best.right & one.right
        pair = paired(lost, gained, clusters, named=named, resamples=resamples)
        rows.append(Beside(one.score.name, pair, pair.deciding is not None and pair.deciding[0] >= -margin))
    fits = {row.name for row in rows if row.non_inferior}
    order = tuple(
        a.score.name for a in sorted(finalists, key=lambda a: (a.score.ms, *better_first(a.score))) if a.score.name in fits
    )
    return Choice(best.score.name, order[0], order, tuple(rows))
