"""How often does the gate err? Simulated test sets at the true margin, with patients whose images are alike; and its power.

    python benchmarks/gate_simulation.py            4000 test sets a row
    python benchmarks/gate_simulation.py --quick    400

An image is lost (the candidate alone is wrong), gained, or neither. With probability sqrt(ICC) it does what its patient does,
else it is drawn on its own, so that two images of one patient have the correlation ICC. The gate is that of `octc verify`: the
lower deciding limit of `octc.stats.cluster_bootstrap.paired` beyond minus the margin. The other
parts of a verdict can only turn a pass
into none, so that its error rate is at most the one here. Ends with 1 where a rate is not as promised.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass

import numpy as np

from octc.stats.cluster_bootstrap import mean_cluster_size, paired
from octc.stats.power import exact_power
from octc.stats.proportions import tango_interval, z_of

ALPHA, PROMISED = 0.05, 0.05
MONTE_CARLO = 2.576  # standard errors of a simulated rate that count as chance


@dataclass(frozen=True)
class World:
    """n images; `most` images of a patient at most (1: independent images); discordance and margin as fractions."""

    n: int
    most: int
    icc: float
    discordance: float
    margin: float

    @property
    def name(self) -> str:
        who = "independent" if self.most == 1 else f"up to {self.most} a patient, ICC {self.icc:g}"
        return f"n={self.n}, {who}, d={100 * self.discordance:g} %, margin {100 * self.margin:g} pp"


# at the true margin; the first is the shape of the UCSD subset of the README
ERRORS = (
    World(826, 18, 0.5, 0.04, 0.02), World(826, 18, 0.2, 0.04, 0.02), World(826, 18, 0.9, 0.06, 0.02),
    World(1000, 4, 0.5, 0.02, 0.01), World(1000, 1, 0.0, 0.02, 0.01), World(3000, 8, 0.5, 0.02, 0.01),
    World(250, 1, 0.0, 0.04, 0.03), World(250, 6, 0.5, 0.06, 0.03),
)  # fmt: skip
# at a true difference of 0; the table of docs/parity.md, section 14.6
POWERS = (World(1000, 1, 0.0, 0.01, 0.01), World(1000, 1, 0.0, 0.02, 0.01), World(393, 1, 0.0, 0.01, 0.02),
          World(250, 1, 0.0, 0.02, 0.03))  # fmt: skip
CLUSTERED_POWERS = (World(826, 18, 0.5, 0.01, 0.02), World(3000, 8, 0.5, 0.01, 0.01))


def patients_of(world: World, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """The patient of each image: most have one, a few have many."""
    share = 1.0 / np.arange(1, world.most + 1) ** 2.2
    sizes = rng.choice(np.arange(1, world.most + 1), size=world.n, p=share / share.sum())
    return np.repeat(np.arange(world.n), sizes)[: world.n].astype(np.int64)


def outcomes(
    world: World, difference: float, patients: np.ndarray[tuple[int, ...], np.dtype[np.int64]], rng: np.random.Generator
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.bool_]], np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """Lost and gained, each [n]."""
    lost = (world.discordance - difference) / 2
    edges = (lost, world.discordance)
    own = np.searchsorted(edges, rng.random(world.n), side="right")
    shared = np.searchsorted(edges, rng.random(int(patients.max()) + 1), side="right")[patients]
    what = np.where(rng.random(world.n) < math.sqrt(world.icc), shared, own)
    return what == 0, what == 1


def rates(world: World, difference: float, count: int, resamples: int, seed: int) -> tuple[float, float, float, float]:
    """Share that passes, share that would pass if patients were not looked at, mean cluster size, mean design effect."""
    rng = np.random.default_rng(seed)
    passed = plain = 0
    sizes, effects = [], []
    for turn in range(count):
        patients = patients_of(world, rng)
        lost, gained = outcomes(world, difference, patients, rng)
        clusters = None if world.most == 1 else patients
        found = paired(lost, gained, clusters, alpha=ALPHA, resamples=resamples, seed=turn)
        passed += found.deciding is not None and found.deciding[0] > -world.margin
        plain += tango_interval(world.n, found.lost, found.gained, ALPHA)[0] > -world.margin
        sizes.append(1.0 if clusters is None else mean_cluster_size(clusters))
        effects.append(found.deff)
    return passed / count, plain / count, float(np.mean(sizes)), float(np.mean(effects))


def spread(rate: float, count: int) -> float:
    """What chance may add to a simulated rate."""
    return MONTE_CARLO * math.sqrt(max(rate * (1 - rate), 1 / count) / count)


def simulate(count: int, resamples: int, seed: int) -> int:
    """Print both tables; how many rates are not as promised."""
    wrong = 0
    say = sys.stdout.write
    say(f"{count} test sets a row, {resamples} resamples, alpha {ALPHA} (z {z_of(ALPHA):.6f}), seed {seed}\n\n")
    say("| at the true margin | patients' m~ | deff | wrongly passed | without patients |\n| --- | --- | --- | --- | --- |\n")
    for i, world in enumerate(ERRORS):
        rate, plain, size, deff = rates(world, -world.margin, count, resamples, seed + i)
        bad = rate > PROMISED + spread(PROMISED, count)
        wrong += bad
        say(f"| {world.name} | {size:.2f} | {deff:.2f} | {rate:.4f}{' TOO OFTEN' if bad else ''} | {plain:.4f} |\n")
    say("\n| at a true difference of 0 | power promised | simulated |\n| --- | --- | --- |\n")
    for i, world in enumerate((*POWERS, *CLUSTERED_POWERS)):
        rate, _, size, _ = rates(world, 0.0, count, resamples, seed + 100 + i)
        planned = exact_power(math.floor(world.n / (1 + (size - 1) * world.icc)), world.discordance, world.margin, ALPHA)
        bad = world.most == 1 and abs(rate - planned) > spread(planned, count)
        wrong += bad
        say(f"| {world.name} | {planned:.3f} | {rate:.3f}{' NOT AS PROMISED' if bad else ''} |\n")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer test sets")
    parser.add_argument("--sets", type=int, help="test sets a row (4000; quick: 400)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    count = given.sets or (400 if given.quick else 4000)
    return 1 if simulate(count, 1000, given.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
