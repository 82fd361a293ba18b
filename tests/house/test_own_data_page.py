"""docs/your-own-data.md: its commands are carried out on drawn images, the trainings as dry runs and, slowly, as they are."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.datasets.patient_rules import apply_rule, read_rule
from octc.datasets.registry import scan_dataset
from octc.datasets.synthetic.bscans import CLASSES, draw_phantom
from tests.cli.conftest import Said, said
from tests.house.tree import ROOT

__all__ = ["said"]  # a fixture

PAGE = (ROOT / "docs" / "your-own-data.md").read_text()
LOOKS, RUNS = (
    {name: text.strip().splitlines() for name, text in re.findall(rf"<!-- {kind}: (\w+) -->\n```sh\n(.*?)```", PAGE, re.S)}
    for kind in ("test", "run")
)
TRAININGS = [  # with a teacher that is to be trained first, of that alone: a dry run has none to show a student to
    line.replace("train student", "train teacher").replace("--with-teacher", "--dry-run")
    if "--with-teacher" in line
    else f"{line} --dry-run"
    for line in PAGE.splitlines()
    if line.startswith("octc train ")
]


Make = Callable[[str, int, int], Image.Image]  # class, patient, number


@cache
def bscan(kind: str, person: int, index: int) -> Image.Image:
    return draw_phantom(kind, 100 * CLASSES.index(kind) + person, index, (256, 248), severity=1.0)


def pattern(kind: str, person: int, index: int) -> Image.Image:
    """Light, dark, or stripes of either direction: what two minutes suffice to learn."""
    stripes = np.where(np.arange(80) // 8 % 2, 190.0, 60.0)
    base = (np.full((80, 80), 200.0), np.full((80, 80), 40.0), np.tile(stripes[:, None], (1, 80)), np.tile(stripes, (80, 1)))
    noise = np.random.default_rng([CLASSES.index(kind), person, index]).normal(0, 12, (80, 80))
    return Image.fromarray(np.clip(base[CLASSES.index(kind)] + noise, 0, 255).astype(np.uint8))


def save(picture: Image.Image, place: Path, *, deep: bool = False) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if deep:
        picture = Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 16)
    picture.save(place, compress_level=1)


PEOPLE, IMAGES = 8, 3  # of each class
PLACES = {
    "folder": "--data images",
    "table": "--data labels.csv",
    "deep": "--data deep",
    "links": "--data linked",
    "few": "--data rare",
}


def write_folder(root: Path, make: Make, *, deep: bool = False) -> None:
    for k, kind in enumerate(CLASSES):
        for person in range(PEOPLE):
            for index in range(IMAGES):
                name = f"{kind}-{100 * k + 11 + person}-{index}.png" if deep else f"P{k}{person:02d}/OD_{index}.png"
                save(make(kind, person, index), root / kind / name, deep=deep)


def write_table(place: Path, make: Make) -> None:
    lines = ["file;dx;pid;fold"]
    parts = (*["train"] * (PEOPLE - 2), "val", "test")
    for k, kind in enumerate(CLASSES):
        for person in range(PEOPLE):
            for index in range(IMAGES):
                save(make(kind, person, index), place / "store" / f"{kind}{person}{index}.png")
                lines.append(f"{place / 'store' / f'{kind}{person}{index}'};{kind};{k}{person};{parts[person]}")
    (place / "labels.csv").write_text("\n".join(lines) + "\n")


def write_links(place: Path, make: Make) -> None:
    write_folder(place / "made", make)
    (place / "cache").mkdir()
    for n, path in enumerate(sorted((place / "made").rglob("*.png"))):
        kind, folder, _ = path.relative_to(place / "made").parts
        stored = path.rename(place / "cache" / f"{n:032x}")
        link = place / "linked" / kind / f"{kind}-{int(folder[1:]) + 10}-{n}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(stored)


def write(way: str, place: Path, make: Make = bscan) -> None:
    if way == "folder":
        write_folder(place / "images", make)
    elif way == "deep":
        write_folder(place / "deep", make, deep=True)
    elif way == "table":
        write_table(place, make)
    elif way == "links":
        write_links(place, make)
    else:
        for k, kind in enumerate(("CNV", "NORMAL", "RARE")):
            for person in range(1 if kind == "RARE" else 4):
                for index in range(2):
                    save(make(CLASSES[k], person, index), place / "rare" / kind / f"{kind}-{100 * k + 11 + person}-{index}.png")


@pytest.mark.parametrize("way", LOOKS)
def test_the_commands_that_look_and_the_plan_of_the_training(way: str, tmp_path: Path, said: Said) -> None:
    write(way, tmp_path)
    told = ""
    for line in (*LOOKS[way], *(line for line in TRAININGS if PLACES[way] in line)):
        words = shlex.split(line)
        assert words[0] == "octc"
        code, out, err = said(*words[1:])
        assert code == 0, (line, err)
        told += out + err
    if way == "folder":
        samples = scan_dataset("folder", tmp_path / "images")
        rule = read_rule(tmp_path / "runs", samples.digest)
        assert rule is not None
        assert len({one.patient for one in apply_rule(samples, rule).items}) == 4 * PEOPLE
    elif way == "deep":
        assert told.count("OCT-W223") == 1  # of the first look alone: the others state a range
        assert "--value-range 0,4095 uses the whole scale" in told


@pytest.mark.slow
@pytest.mark.parametrize("way", RUNS)
def test_every_way_ends_in_an_int8_file_that_was_judged(way: str, tmp_path: Path, said: Said) -> None:
    write(way, tmp_path, pattern)
    for line in (*LOOKS[way], *RUNS[way]):
        words = shlex.split(line)
        assert words[0] == "octc"
        code, out, err = said(*words[1:])
        assert code in ((0, 1) if words[1] == "verify" else (0,)), (line, out, err)
    (place,) = tmp_path.glob("runs/*/artifacts/onnx-int8/verify.json")
    assert json.loads(place.read_text())["test"]["set"]["n"] > 0


def test_no_block_of_the_page_is_left_out() -> None:
    assert set(RUNS) == set(LOOKS) - {"few"}
    assert len(re.findall(r"^```sh$", PAGE, re.M)) == len(LOOKS) + len(RUNS)
