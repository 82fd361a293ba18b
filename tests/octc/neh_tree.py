"""A small NEH as it was released: a table with the known faults, and the images it names."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

HEADER = ("Patient ID", "Class", "Eye", "B-scan", "Label", "Directory")
CLASSES = ("NORMAL", "DRUSEN", "CNV")
Line = tuple[object, ...]


def picture(path: Path, seed: int) -> None:
    """A picture like no other: smooth noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (8, 10), dtype=np.uint8)
    Image.fromarray(small).resize((50, 40), Image.Resampling.BICUBIC).save(path, "JPEG", quality=90)


def write_table(root: Path, lines: list[Line]) -> None:
    with (root / "data_information.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADER)
        writer.writerows(lines)


def write_neh(root: Path, patients: int = 6, images: int = 3) -> list[Line]:
    """CLASS/NUMBER/OD/INDEX_LABEL.jpg; the last image of each ill patient is a normal slice. Returns the table's lines."""
    lines: list[Line] = []
    for kind, name in enumerate(CLASSES):
        for number in range(1, patients + 1):
            for index in range(images):
                label = "NORMAL" if index == images - 1 else name
                directory = f"{name}/{number}/OD/{index:03d}_{label.lower()}.jpg"
                picture(root / "NEH_UT_2021RetinalOCTDataset" / directory, 10_000 * kind + 100 * number + index)
                lines.append((number, name, "OD", index, label, directory))
    write_table(root, lines)
    return lines
