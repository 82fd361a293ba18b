"""A run on a part of its split: deterministic views, files, and a log of every reading of test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.datasets.split import read_split
from octc.imaging.decode import read_image
from octc.imaging.preprocess import VIEWS
from octc.store.runs import Run
from octc.train.evaluation.assess import evaluate_run
from octc.train.evaluation.outcome import newest_evaluation, read_predictions
from octc.train.loop.checkpoint import read_checkpoint
from octc.train.loop.evaluate import logits_of
from octc.train.networks.models import build_model
from tests.tiny_run import make_run, write_patterns


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("patterns") / "set"
    write_patterns(place, patients=6, images=2)
    return place


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Run:
    return make_run(tmp_path_factory.mktemp("runs"), root)


def test_test_is_read_once_and_logged_and_val_is_not(run: Run, root: Path) -> None:
    before = len(run.read()["stages"])
    found = evaluate_run(run, root, "test")
    assert found.figures.accuracy == 1.0  # the patterns are easy
    entry = run.read()["stages"][before]
    assert (entry["stage"], entry["part"], entry["tta"], entry["accuracy"]) == ("evaluated", "test", "none", 1.0)
    evaluate_run(run, root, "val")
    assert len(run.read()["stages"]) == before + 1
    facts = json.loads((run.path / "eval" / "val-none" / "figures.json").read_text())["facts"]
    assert facts["chose_the_epoch"] is True
    assert facts["checkpoint_sha256"] == read_checkpoint(run.path / "train")[0].sha256


def test_a11_five_views_are_the_same_every_time(run: Run, root: Path) -> None:
    folder, again = (evaluate_run(run, root, "val", tta="5").folder for _ in range(2))
    assert folder == run.path / "eval" / "val-5"
    assert again == run.path / "eval" / "val-5-2"
    first, second = ({path.name: path.read_bytes() for path in one.iterdir()} for one in (folder, again))
    assert second == first
    stored = read_predictions(folder)
    assert stored.views == VIEWS["5"]
    checkpoint, state = read_checkpoint(run.path / "train")
    model = build_model(checkpoint.model, len(checkpoint.classes))
    model.load_state_dict(state)
    samples = read_split(run.split).parts["val"]
    prepared = checkpoint.preprocess.prepare(read_image(root / samples[3].path).image, VIEWS["5"])
    assert stored.paths[3] == samples[3].path
    assert stored.logits[3] == pytest.approx(logits_of(model, prepared, checkpoint.preprocess, "cpu").numpy(), abs=1e-5)


def test_the_plain_view_is_the_first_of_five(run: Run, root: Path) -> None:
    evaluate_run(run, root, "val")
    evaluate_run(run, root, "val", tta="5", combine="logits")
    plain, five = (read_predictions(newest_evaluation(run.path, "val", views)) for views in ("none", "5"))
    assert np.abs(plain.logits[:, 0] - five.logits[:, 0]).max() < 1e-4
    document = json.loads((newest_evaluation(run.path, "val", "5") / "figures.json").read_text())
    assert (document["combine"], document["views"]) == ("logits", list(VIEWS["5"]))


def test_another_split_is_refused(run: Run, root: Path) -> None:
    kept = run.split.read_bytes()
    value = json.loads(kept)
    split = read_split(run.split)
    moved = {**split.parts, "train": split.parts["train"][1:], "test": (*split.parts["test"], split.parts["train"][0])}
    try:
        type(split)(split.dataset, split.classes, split.seed, moved).write(run.split)
        with pytest.raises(OctcError, match="not the one") as caught:
            evaluate_run(run, root, "test")
        assert caught.value.code == "OCT-E216"
    finally:
        run.split.write_bytes(kept)
    assert json.loads(run.split.read_bytes()) == value
