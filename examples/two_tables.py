"""Is the new classifier as good as the old one? Two tables of predictions, wherever they come from, and nothing else.

    python examples/two_tables.py old.csv new.csv --margin 2

Each table has the columns image, label, patient and one column of probabilities a class. Without tables, two are drawn.
"""

from __future__ import annotations

import argparse
import csv
import random

import octc

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
Row = dict[str, str]


def drawn(wrong: int, seed: int) -> list[Row]:
    """600 images of 300 patients, of which a classifier gets `wrong` wrong."""
    rng = random.Random(seed)
    missed = set(rng.sample(range(600), wrong))
    rows = []
    for i in range(600):
        label = CLASSES[i % 4]
        said = CLASSES[(i + 1) % 4] if i in missed else label
        scores = {name: 0.94 if name == said else 0.02 for name in CLASSES}
        rows.append({"image": f"{i}.png", "label": label, "patient": f"p{i // 2}", **{k: str(v) for k, v in scores.items()}})
    return rows


def read(path: str) -> list[Row]:
    with open(path, newline="", encoding="utf-8") as stream:  # noqa: PTH123  (an example reads as people write)
        return list(csv.DictReader(stream))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help="old.csv new.csv")
    parser.add_argument("--margin", type=float, default=3.0, help="largest acceptable loss of accuracy, points")
    given = parser.parse_args()
    old, new = (read(path) for path in given.tables) if given.tables else (drawn(12, 1), drawn(14, 2))
    names = [name for name in old[0] if name not in ("image", "label", "patient")]
    order = {row["image"]: row for row in new}
    found = octc.compare(
        [row["label"] for row in old],
        [[float(row[name]) for name in names] for row in old],
        [[float(order[row["image"]][name]) for name in names] for row in old],
        patients=[row["patient"] or None for row in old],
        ids=[row["image"] for row in old],
        classes=names,
        gate=octc.Gate(margin=given.margin, class_margin=4 * given.margin, bootstrap=2000),
    )
    print(found)
    return found.verdict.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
