"""Your own data from a table to an INT8 file that is compared on patients it never saw: path, label and patient in a CSV.

    python examples/own_data_table.py --table images.csv --out artifacts

The table has the columns path (relative to the table), label and patient. Without one, 720 pictures of 240 patients are drawn.
Patients are divided before anything is trained, so that none is in two parts.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import nn

import octc

SIZE = 64


@dataclass(frozen=True)
class Row:
    """A line of the table, its path as it can be opened."""

    path: Path
    label: str
    patient: str

    @property
    def part(self) -> str:
        """train, val or test, by the patient's name alone: the same on every machine and in every later table."""
        share = hashlib.sha256(self.patient.encode()).digest()[0] / 256
        return "train" if share < 0.5 else "val" if share < 0.75 else "test"


def read(table: Path) -> list[Row]:
    with table.open(newline="", encoding="utf-8") as stream:
        return [Row(table.parent / row["path"], row["label"], row["patient"]) for row in csv.DictReader(stream)]


def draw(folder: Path) -> Path:
    """Pictures with a bright or a dark disc, three of each of 240 patients, and their table: they stand for B-scans."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["path,label,patient"]
    for i in range(720):
        patient, label = i // 3, ("bright", "dark")[i // 3 % 2]
        picture = Image.new("L", (96, 80), 105 + i % 13)
        left, side = 20 + i % 17, 20 + i % 11
        ImageDraw.Draw(picture).ellipse((left, 20, left + side, 20 + side), fill=230 if label == "bright" else 15)
        picture.save(folder / f"{i}.png")
        lines.append(f"{i}.png,{label},p{patient:03d}")
    table = folder / "images.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def trained(rows: list[Row], classes: list[str], pre: octc.Preprocess) -> nn.Module:
    """A small network and thirty plain steps; yours takes its place."""
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*body, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, len(classes)))
    batch = torch.stack([torch.from_numpy(pre.prepare(Image.open(row.path))[0]) for row in rows]).float() / 255
    x = (batch - torch.tensor(pre.mean).view(1, 3, 1, 1)) / torch.tensor(pre.std).view(1, 3, 1, 1)
    y = torch.tensor([classes.index(row.label) for row in rows])
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(30):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval()


def probabilities(folder: Path, rows: list[Row], classes: list[str]) -> list[list[float]]:
    """What an artifact answers; a file that cannot be read ends the program with its error."""
    found = []
    with octc.load(folder) as model:
        for answer in model.iter_predict([row.path for row in rows]):
            if answer.probabilities is None:
                raise SystemExit(str(answer.error))
            found.append([answer.probabilities[name] for name in classes])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, help="CSV with path, label, patient")
    parser.add_argument("--out", type=Path, default=Path("artifacts"), help="folder for the artifacts")
    parser.add_argument("--margin", type=float, default=10.0, help="largest acceptable loss of accuracy, points")
    given = parser.parse_args()
    rows = read(given.table or draw(Path("drawn")))
    classes = sorted({row.label for row in rows})
    train, val, test = ([row for row in rows if row.part == part] for part in ("train", "val", "test"))
    print(f"{len(train)} images train, {len(val)} choose, {len(test)} test; {len({row.patient for row in test})} test patients")
    pre = octc.Preprocess(size=SIZE)
    network = trained(train, classes, pre)
    validation = ([row.path for row in val], [row.label for row in val])
    quantized = octc.quantize(
        network, [row.path for row in train[:128]], pre, classes=classes, validation=validation, name="discs"
    )
    gate = octc.Gate(margin=given.margin, class_margin=2 * given.margin)
    (before,) = octc.export(quantized, ["onnx"], "fp32", out=given.out)
    (after,) = octc.export(quantized, ["onnx"], "int8", out=given.out, gate=gate)
    found = octc.compare(
        [row.label for row in test],
        probabilities(before, test, classes),
        probabilities(after, test, classes),
        patients=[row.patient for row in test],
        ids=[str(row.path) for row in test],
        classes=classes,
        gate=gate,
    )
    print(found)
    return found.verdict.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
