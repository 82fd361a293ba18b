"""How often a monitor calls where nothing changed, and after how many eyes it finds another scanner.

    python benchmarks/monitor.py [--boxes 10000] [--changed 200] [--eyes 150] [--pool 240] [--seed 0]

Box-months: each box has a reference of 60 patients and then sees so many eyes; streams are the statistics of drawn B-scans
that a monitor keeps. Changes: gamma, noise, and another maker's order (rows from below). The capital is looked at after every
eye. In the second row nothing changes either, but two pictures follow each other that are of one patient, which docs/monitor.md
says are no two new eyes. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from octc.datasets.synthetic.bscans import CLASSES, draw_phantom
from octc.imaging.input_statistics import STATISTICS, describe, order_of
from octc.stats.drift import evidence, together

Floats = npt.NDArray[np.float64]
Change = Callable[[Floats, np.random.Generator], Floats]
REFERENCE, ALPHA, CHUNK = 60, 0.01, 50
CHANGES: dict[str, Change] = {
    "gamma 1.3": lambda grey, _rng: grey**1.3,
    "gamma 1.1": lambda grey, _rng: grey**1.1,
    "noise 0.05": lambda grey, rng: np.clip(grey + rng.normal(0, 0.05, grey.shape), 0, 1),
    "rows from below": lambda grey, _rng: grey[::-1],
}


def pool(count: int, seed: int, change: Change | None = None, index: int = 0) -> Floats:
    """Statistics [count, 18] of drawn B-scans of every class, the `index`-th of each patient, as they are or changed."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        picture = draw_phantom(CLASSES[k % len(CLASSES)], 1000 * seed + k, index, severity=0.5).convert("L")
        grey = np.asarray(picture, np.float64) / 255
        shown = grey if change is None else change(grey, rng)
        seen = Image.fromarray((255 * shown).round().astype(np.uint8))
        found = describe(seen)
        rows.append(np.r_[np.zeros(len(STATISTICS)) if found is None else found, order_of(seen)])
    return np.array(rows)


def ranked(values: Floats, rng: np.random.Generator) -> Floats:
    """Ranks [boxes, streams, eyes] of values [boxes, REFERENCE + eyes, streams], each among all before it."""
    boxes, count, streams = values.shape
    found = np.empty((boxes, streams, count - REFERENCE))
    for t in range(REFERENCE, count):
        before, now = values[:, :t], values[:, t : t + 1]
        more, same = (before > now).sum(axis=1), (before == now).sum(axis=1)
        found[:, :, t - REFERENCE] = (more + rng.random((boxes, streams)) * (same + 1)) / (t + 1)
    return found


def first_alarms(
    clean: Floats, changed: Floats, boxes: int, eyes: int, rng: np.random.Generator, second: Floats | None = None
) -> Floats:
    """Eyes until the alarm of each box; infinite where there is none. second: of the patients of `changed` another picture,
    which follows the first one."""
    found = []
    for start in range(0, boxes, CHUNK):
        many = min(CHUNK, boxes - start)
        before = clean[rng.integers(0, len(clean), (many, REFERENCE))]
        who = rng.integers(0, len(changed), (many, eyes))
        after = changed[who]
        if second is not None:
            who[:, 1::2] = who[:, ::2][:, : who[:, 1::2].shape[1]]
            after = changed[who]
            after[:, 1::2] = second[who[:, 1::2]]
        values = np.concatenate([before, after], axis=1)
        jitter = rng.normal(0, 1e-6, values.shape)  # a pool is drawn from again and again: no two eyes are equal
        paths = together(evidence(ranked(values + jitter, rng)))
        over = paths >= -math.log(ALPHA)
        found.append(np.where(over.any(axis=1), over.argmax(axis=1) + 1.0, np.inf))
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=10_000, help="box-months without a change")
    parser.add_argument("--changed", type=int, default=200, help="boxes with each change")
    parser.add_argument("--eyes", type=int, default=150, help="eyes of a box-month")
    parser.add_argument("--pool", type=int, default=240, help="drawn B-scans that boxes are drawn from")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    say = sys.stdout.write
    begun, rng = time.perf_counter(), np.random.default_rng(given.seed)
    clean = pool(given.pool, given.seed)
    alarms = np.isfinite(first_alarms(clean, clean, given.boxes, given.eyes, rng))
    error = math.sqrt(ALPHA * (1 - ALPHA) / given.boxes)
    say(f"reference {REFERENCE} patients, {given.eyes} eyes a box-month, {clean.shape[1]} streams, alpha {ALPHA:g}\n\n")
    say("| change | boxes | alarms, % | eyes until the alarm: median, 95 % |\n| --- | --- | --- | --- |\n")
    rate = f"{100 * alarms.mean():.2f} (stated {100 * ALPHA:g} +- {100 * error:.2f})"
    say(f"| none | {given.boxes:,} | {rate} | |\n")
    other = pool(given.pool, given.seed, index=1)
    paired = np.isfinite(first_alarms(clean, clean, given.changed, given.eyes, rng, other)).mean()
    say(f"| none, two pictures of each patient | {given.changed:,} | {100 * paired:.2f} | |\n")
    for name, change in CHANGES.items():
        at = first_alarms(clean, pool(given.pool, given.seed, change), given.changed, given.eyes, rng)
        low, high = np.quantile(at, [0.5, 0.95], method="inverted_cdf")
        say(f"| {name} | {given.changed:,} | {100 * np.isfinite(at).mean():.1f} | {low:g}, {high:g} |\n")
    say(f"\n{time.perf_counter() - begun:.0f} s\n")


if __name__ == "__main__":
    main()
