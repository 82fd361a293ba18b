"""`octc eval --maps N`: pictures with Grad-CAM beside an evaluation, and SFNet's excitation weights (F73)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from octc.core.errors import OctcError
from octc.train.evaluation.assess import evaluate_run
from octc.train.evaluation.maps import beside, chosen_first, excitation_rows, write_maps
from octc.train.evaluation.outcome import Predictions
from octc.train.networks.sfnet import SfNet
from tests.tiny_run import make_run, write_patterns


def test_f73_maps_lie_beside_the_evaluation_wrong_answers_first(tmp_path: Path) -> None:
    write_patterns(tmp_path / "set", patients=5, images=1)
    run = make_run(tmp_path / "runs", tmp_path / "set")
    with pytest.raises(OctcError) as caught:
        write_maps(run, tmp_path / "set", "val", "none", 3)
    assert caught.value.code == "OCT-E107"
    evaluate_run(run, tmp_path / "set", "val")
    folder = write_maps(run, tmp_path / "set", "val", "none", 3)
    with (folder / "maps.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == ["00.png", "01.png", "02.png"] == sorted(p.name for p in folder.glob("*.png"))
    shown = 0
    for row in rows:
        assert row["path"].split("/")[0] == row["label"]
        with Image.open(folder / row["file"]) as picture:
            pixels = np.asarray(picture).astype(int)
        assert pixels.shape == (64, 128, 3)
        left, right = pixels[:, :64], pixels[:, 64:]
        assert np.ptp(left, axis=2).max() == 0  # the picture is grey,
        shown = max(shown, int(np.ptp(right, axis=2).max()))
    assert shown > 20  # and the maps on them are not
    assert not (folder / "excitation.csv").exists()


def test_wrong_answers_come_first_the_surest_of_them_before_the_others() -> None:
    logits = np.array([[9, 0], [0, 1], [0, 9], [0.1, 0]], np.float32)[:, None]
    names = tuple("abcd")
    answers = Predictions(names, names, (None,) * 4, (0, 0, 0, 0), logits, ("identity",), ("x", "y"))
    assert chosen_first(answers, 3) == [2, 1, 3]


def test_a_map_of_nothing_leaves_the_picture() -> None:
    picture = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    both = beside(picture, np.zeros((3, 4), np.float32))
    assert both.shape == (3, 8, 3)
    assert (both[:, :4] == both[:, 4:]).all()


def test_excitation_of_every_channel_of_every_stage() -> None:
    torch.manual_seed(0)
    model = SfNet(3, trunk="test_convnext").eval()
    x = torch.rand(2, 3, 64, 64)
    rows = excitation_rows(model, x)
    with torch.no_grad():
        weights = model.read_out(x)
    assert len(rows) == sum(stage.numel() for stage in weights)
    name, stage, channel, value = rows[-1]
    assert (name, stage, channel) == ("01.png", 4, weights[3].shape[1] - 1)
    assert value == pytest.approx(float(weights[3][1, -1]), abs=1e-6)
