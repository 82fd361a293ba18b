"""Metrics: valid SVG and PNG that show the numbers they were given."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from octc.figures.canvas import Axes, Box, Figure, Line, Words, shade, ticks, to_png, to_svg
from octc.figures.plots import confusion_figure, curves_figure, per_class_figure, roc_figure
from octc.stats.metrics import metrics_of
from octc.stats.roc import roc
from octc.train.evaluation.files import write_curves
from octc.train.loop.history import read_history, write_history

SVG = "{http://www.w3.org/2000/svg}"
CLASSES = ("cnv", "drusen & <more>", "normal")
MATRIX = [[986, 75, 1], [36, 749, 11], [0, 0, 0]]
HISTORY = [
    {
        "epoch": k + 1,
        "train_loss": 2.0 / (k + 1),
        "train_acc": 0.2 * k,
        "val_loss": 2.2 / (k + 1),
        "val_acc": 0.15 * k,
        "lr": 0.1,
    }
    for k in range(5)
]


def read(figure: Figure) -> ElementTree.Element:
    return ElementTree.fromstring(to_svg(figure).decode())


def words(figure: Figure) -> list[str]:
    return [str(node.text) for node in read(figure).iter(f"{SVG}text")]


def png(figure: Figure) -> Image.Image:
    picture = Image.open(io.BytesIO(to_png(figure)))
    picture.load()
    return picture


def every() -> dict[str, Figure]:
    rng = np.random.default_rng(0)
    scores, truth = rng.random(50), rng.random(50) < 0.4
    return {
        "confusion": confusion_figure(MATRIX, CLASSES, "title"),
        "curves": curves_figure(HISTORY, "title"),
        "per_class": per_class_figure(metrics_of(MATRIX).per_class, CLASSES, "title"),
        "roc": roc_figure([roc(scores, truth), None, roc(truth, truth)], CLASSES, "title"),
    }


@pytest.mark.parametrize("name", ["confusion", "curves", "per_class", "roc"])
def test_both_files_are_valid_and_not_blank(name: str) -> None:
    figure = every()[name]
    root = read(figure)
    assert (root.get("width"), root.get("height")) == (str(figure.width), str(figure.height))
    assert "title" in words(figure)
    picture = png(figure)
    assert picture.size == (2 * figure.width, 2 * figure.height)
    colours = picture.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 4
    for part in figure.parts:
        spots = [(part.x, part.y)] if not isinstance(part, Line) else part.points
        assert all(0 <= x <= figure.width and 0 <= y <= figure.height for x, y in spots), part


def test_confusion_matrix_shows_counts_shares_and_names() -> None:
    found = words(confusion_figure(MATRIX, CLASSES, "t"))
    for text in ("986", "75", "749", "92.8 %", "94.1 %", "cnv", "drusen & <more>", "predicted", "true"):
        assert text in found, text
    assert found.count("no image") == 3
    assert words(confusion_figure([[1234567]], ["x"], "t")).count("1,234,567") == 1


def test_cells_are_darker_the_larger_their_share() -> None:
    fills = [part.fill for part in confusion_figure(MATRIX, CLASSES, "t").parts if isinstance(part, Box)]
    assert fills[0] == shade(986 / 1062)
    assert shade(0.0) == "#f7fbff"
    assert int(shade(0.9)[1:3], 16) < int(shade(0.1)[1:3], 16)


def test_curves_go_through_the_points() -> None:
    lines = [part for part in curves_figure(HISTORY, "t").parts if isinstance(part, Line) and len(part.points) == 5]
    assert len(lines) == 4  # train and val, loss and accuracy
    axes = Axes(80, 70, 520, 290, (1.0, 5.0), (0.0, 2.2 * 1.05))
    assert lines[0].points == tuple(axes.place(row["epoch"], row["train_loss"]) for row in HISTORY)
    assert lines[1].points == tuple(axes.place(row["epoch"], row["val_loss"]) for row in HISTORY)


def test_one_epoch_and_values_that_are_not_finite_can_be_drawn() -> None:
    rows = [{**HISTORY[0], "train_loss": float("nan")}]
    figure = curves_figure(rows, "t")
    read(figure)
    png(figure)


def test_bars_have_the_height_of_their_value() -> None:
    one = metrics_of(MATRIX).per_class
    boxes = [part for part in per_class_figure(one, CLASSES, "t").parts if isinstance(part, Box)]
    assert boxes[1].height == pytest.approx(280 * (one[0].sensitivity or 0))
    assert words(per_class_figure(one, CLASSES, "t")).count("n/a") == 4  # the class without images


def test_roc_names_areas_and_what_is_not_defined() -> None:
    found = words(every()["roc"])
    assert "drusen & <more>, AUC n/a" in found
    assert "normal, AUC 1.0000" in found


def test_words_of_a_foreign_script_do_not_stop_the_picture() -> None:
    png(Figure(100, 40, (Words(50, 20, "Drüsen 眼"), Words(20, 20, "true", upright=True))))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 2.31), (1.0, 150.0), (1.0, 2.0), (0.0, 1e-4), (0.0, 3e5)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 9
    assert all(low - 1e-9 <= value <= high * (1 + 1e-9) for value in found)
    assert all(len(f"{value:g}") <= 6 for value in found)


def test_history_is_read_as_it_was_written_and_drawn_from_the_file(tmp_path: Path) -> None:
    write_history(tmp_path, HISTORY)
    assert read_history(tmp_path) == HISTORY
    write_curves(tmp_path, "r-0001")
    assert (tmp_path / "curves.svg").read_bytes() == to_svg(curves_figure(HISTORY, "r-0001"))
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.format == "PNG"
