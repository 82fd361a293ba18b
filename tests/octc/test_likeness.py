"""Pictures like those that were trained on pass; photographs, text, noise and plain patterns do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from octc.datasets.synthetic.bscans import draw_phantom
from octc.imaging.decode import read_image
from octc.imaging.input_statistics import FEWEST, STATISTICS, InputStatistics, compare_picture, describe, fit_statistics

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")


def drawn(patients: range) -> list[Image.Image]:
    """Synthetic B-scans of some patients, every class."""
    return [draw_phantom(name, patient, 0) for name in CLASSES for patient in patients]


def fitted(pictures: list[Image.Image]) -> InputStatistics:
    rows = [row for row in map(describe, pictures) if row is not None]
    known = fit_statistics(rows)
    assert known is not None
    return known


@pytest.fixture(scope="module")
def known() -> InputStatistics:
    return fitted(drawn(range(1, 17)))


def scene(seed: int) -> Image.Image:
    """A drawn outdoor picture: sky, ground, sun, a house, a tree."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (400, 300), (120, 170, 230))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, int(rng.integers(150, 220)), 400, 300), fill=(60, 140, 50))
    left = int(rng.integers(20, 250))
    pen.rectangle((left, 120, left + 110, 230), fill=(170, 80, 60))
    pen.polygon([(left - 10, 120), (left + 55, 60), (left + 120, 120)], fill=(90, 40, 30))
    pen.ellipse((320, 20, 370, 70), fill=(255, 230, 90))
    return picture


def fundus(seed: int) -> Image.Image:
    """A drawn picture of the back of an eye: a disc of colour on black with vessels."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (420, 420))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((15, 15, 405, 405), fill=(190, 85, 40))
    pen.ellipse((270, 180, 330, 240), fill=(250, 210, 140))
    for _ in range(10):
        pen.line([(300, 210), *((int(a), int(b)) for a, b in rng.integers(60, 360, (3, 2)))], fill=(100, 20, 15), width=3)
    return picture


def page(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    picture = Image.new("L", (600, 500), 255)
    pen = ImageDraw.Draw(picture)
    for row in range(15, 480, 18):
        pen.text((15, row), "".join(rng.choice(list("abcdefgh ijkl mnop"), int(rng.integers(20, 90)))), fill=0)
    return picture


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (300, 400), dtype=np.uint8))


def plain(seed: int) -> Image.Image:
    return Image.new("L", (200, 200), seed * 60)


@pytest.mark.parametrize("draw", [scene, fundus, page, noise, plain])
@pytest.mark.parametrize("grey", [False, True])
def test_what_is_no_scan_is_told(known: InputStatistics, draw: Any, grey: bool) -> None:
    for seed in range(4):
        picture = draw(seed)
        found = compare_picture(picture.convert("L") if grey else picture, known)
        assert found.unlike, (seed, found)
        assert found.distance is None or found.unusual


def test_other_patients_of_the_same_kind_pass(known: InputStatistics) -> None:
    found = [compare_picture(picture, known) for picture in drawn(range(100, 116))]
    assert not [one for one in found if one.unlike]
    assert not compare_picture(draw_phantom("DME", 200, 0).convert("RGB"), known).unlike  # grey in three channels is grey


def test_a_scan_on_its_side_in_colour_or_inverted_is_told(known: InputStatistics) -> None:
    scan = draw_phantom("NORMAL", 200, 0)
    assert compare_picture(scan.rotate(90, expand=True), known).unlike
    assert compare_picture(ImageOps.invert(scan), known).unlike
    coloured = compare_picture(ImageOps.colorize(scan, "black", "white", mid="orange"), known)
    assert coloured.unlike
    assert "colour" in coloured.unusual


def test_white_padding_of_a_registered_scan_is_not_counted(known: InputStatistics) -> None:
    scan = draw_phantom("NORMAL", 201, 0).convert("L")
    padded = Image.new("L", scan.size, 255)
    padded.paste(scan.crop((0, 60, scan.width, scan.height)), (0, 60))
    before, after = compare_picture(scan, known), compare_picture(padded, known)
    assert not after.unlike
    assert after.distance == pytest.approx(before.distance, rel=0.5)
    assert compare_picture(Image.new("L", (300, 200), 255), known).distance is None


def test_statistics_survive_json_and_refuse_nonsense(known: InputStatistics) -> None:
    value = json.loads(json.dumps(known.to_json(), allow_nan=False))
    assert InputStatistics.from_json(value) == known
    spoilt: list[dict[str, Any]] = [
        {"mean": value["mean"][1:]}, {"spread": [0.0] * len(STATISTICS)}, {"limit": -1}, {"limit": None}, {"inverse": "x"},
        {"inverse": [[float("nan")] * len(STATISTICS)] * len(STATISTICS)}, {"mean": None}, {"images": []},
    ]  # fmt: skip
    for change in spoilt:
        with pytest.raises((ValueError, TypeError)):
            InputStatistics.from_json({**value, **change})
    for wrong in ({}, [], None, 3, "x"):
        with pytest.raises((ValueError, TypeError, KeyError)):
            InputStatistics.from_json(wrong)


def test_too_few_images_say_nothing() -> None:
    rows = [row for row in map(describe, drawn(range(1, 7))) if row is not None]
    assert fit_statistics(rows[: FEWEST - 1]) is None
    assert fit_statistics(rows[:FEWEST]) is not None


def test_real_scans_of_another_acquisition_pass_and_other_pictures_do_not(ucsd: Path) -> None:
    """Every fourth training image against every eighth test image, which come from other acquisitions."""
    root = ucsd / "CellData" / "OCT"
    train, test = (
        [read_image(path).image for name in CLASSES for path in sorted((root / part / name).glob("*.jpeg"))[::step]]
        for part, step in (("train", 4), ("test", 8))
    )
    known = fitted(train)
    flagged = [found for found in (compare_picture(picture, known) for picture in test) if found.unlike]
    assert len(flagged) <= 0.01 * len(test)
    others = [draw(seed).convert("L") for draw in (scene, fundus, page, noise) for seed in range(4)]
    assert all(compare_picture(picture, known).unlike for picture in others)
