"""Stages: a teacher, its student, what they may learn from each other, and the checkpoints that they leave."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octc.core.errors import OctcError
from octc.datasets.layouts.folders import scan_folder
from octc.datasets.split import Split, make_split
from octc.imaging.preprocess import Preprocess
from octc.train.distill.loading import SameView, load_teacher
from octc.train.loop.checkpoint import read_checkpoint, write_checkpoint
from octc.train.loop.evaluate import network_input
from octc.train.loop.processes import make_accelerator
from octc.train.networks.models import build_model
from octc.train.recipes.config import Augment, Recipe, Stage, with_fields
from octc.train.recipes.registry import RECIPES
from octc.train.stages import facts_of, preprocess_of, train_student, train_teacher
from tests.tiny_run import write_patterns
from tests.train.contexts import new_context

STAGE = Stage(
    model="test_resnet", weights="none", size=64, epochs=2, lr=3e-3, batch=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
    augment=Augment(hflip=0.5),
)  # fmt: skip
RECIPE = Recipe("tiny", replace(STAGE, epochs=4), replace(STAGE, model="test_efficientnet"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("set")
    write_patterns(place / "set", patients=6, images=3)
    return place / "set"


@pytest.fixture(scope="module")
def split(root: Path) -> Split:
    return make_split(scan_folder(root, None), "folder", 0)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, root: Path, split: Split) -> Path:
    ctx = new_context(tmp_path_factory.mktemp("teacher"), root, split, RECIPE)
    train_teacher(ctx)
    return ctx.run.path / "train"


def test_teacher_leaves_a_checkpoint_that_says_what_it_is(teacher: Path, split: Split) -> None:
    checkpoint, state = read_checkpoint(teacher)
    assert (checkpoint.role, checkpoint.model, checkpoint.dataset) == ("teacher", "test_resnet", "folder")
    assert checkpoint.classes == split.classes
    assert checkpoint.split_digest == split.digest
    assert checkpoint.preprocess == Preprocess(64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert checkpoint.recipe["teacher"]["epochs"] == 4
    assert checkpoint.weights["source"] == "random"
    assert checkpoint.metrics["val_n"] == len(split.parts["val"])
    assert 0.25 <= checkpoint.metrics["val_accuracy"] <= 1
    assert checkpoint.parent is None
    build_model(checkpoint.model, 4, **checkpoint.model_kwargs).load_state_dict(state)


def test_student_learns_from_the_teacher_and_says_from_which(tmp_path: Path, root: Path, split: Split, teacher: Path) -> None:
    rows: list[dict[str, Any]] = []
    ctx = replace(new_context(tmp_path, root, split, RECIPE, "student"), report=rows.append)
    made = train_student(replace(ctx, teachers=(teacher,)))
    assert made.parent is not None
    assert made.parent["sha256"] == read_checkpoint(teacher)[0].sha256
    assert {"train_soft", "train_hard", "train_loss", "train_acc"} <= set(rows[0])
    row = rows[0]
    assert row["train_loss"] == pytest.approx(0.7 * row["train_soft"] + 0.3 * row["train_hard"], rel=1e-5)


def test_student_without_a_teacher_learns_from_labels_alone(tmp_path: Path, root: Path, split: Split) -> None:
    rows: list[dict[str, Any]] = []
    made = train_student(replace(new_context(tmp_path, root, split, RECIPE, "student"), report=rows.append))
    assert made.parent is None
    assert "train_soft" not in rows[0]


def test_same_seed_same_weights_other_seed_other_weights(tmp_path: Path, root: Path, split: Split) -> None:
    """Also the random start: nothing of this process's past decides it."""
    sums = []
    for place, seed in enumerate((3, 3, 4)):
        torch.manual_seed(place)
        ctx = replace(new_context(tmp_path / str(place), root, split, with_fields(RECIPE, epochs=1)), seed=seed)
        sums.append(train_teacher(ctx).sha256)
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.parametrize(
    ("first", "second"),
    [("test_vit", "test_resnet"), ("test_convnext", "test_byobnet")],
)
def test_any_pair_of_timm_trains_by_replacing_names(tmp_path: Path, root: Path, split: Split, first: str, second: str) -> None:
    smoke = with_fields(RECIPES["smoke"](), epochs=1, size=64)
    kwargs = {"img_size": 64} if first == "test_vit" else {}
    recipe = replace(
        smoke, teacher=replace(smoke.teacher, model=first, model_kwargs=kwargs), student=replace(smoke.student, model=second)
    )
    ctx = new_context(tmp_path / "t", root, split, recipe)
    train_teacher(ctx)
    made = train_student(
        replace(new_context(tmp_path / "s", root, split, recipe, "student"), teachers=(ctx.run.path / "train",))
    )
    assert made.model == second
    assert made.parent is not None
    assert made.parent["model"] == first


def test_teacher_of_another_size_and_normalisation_sees_the_same_picture(root: Path, split: Split, teacher: Path) -> None:
    checkpoint, _ = read_checkpoint(teacher)
    student = Preprocess(64)  # ImageNet's mean and std
    model, _ = load_teacher(teacher, split, student, "cpu")
    assert isinstance(model, SameView)
    plain, _ = load_teacher(teacher, split, checkpoint.preprocess, "cpu")
    assert not isinstance(plain, SameView)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 1, 64, 64)).astype(np.uint8))
    with torch.no_grad():
        expected = plain(network_input(images, checkpoint.preprocess))
        found = model(network_input(images, student))
        smaller = load_teacher(teacher, split, replace(student, size=32), "cpu")[0](
            network_input(images[..., ::2, ::2], replace(student, size=32))
        )
    assert torch.allclose(found, expected, atol=1e-4)
    assert smaller.shape == expected.shape
    assert model.training is False
    assert not any(p.requires_grad for p in model.parameters())


def test_fixed_size_teacher_takes_a_smaller_student(tmp_path: Path, root: Path, split: Split) -> None:
    smoke = with_fields(RECIPES["smoke"](), epochs=1, size=64)
    teacher = replace(smoke.teacher, model="test_vit", model_kwargs={"img_size": 96}, size=96)
    recipe = replace(smoke, teacher=teacher, student=replace(smoke.student, model="test_resnet"))
    ctx = new_context(tmp_path / "t", root, split, recipe)
    train_teacher(ctx)
    train_student(replace(new_context(tmp_path / "s", root, split, recipe, "student"), teachers=(ctx.run.path / "train",)))


def altered(teacher: Path, folder: Path, **fields: Any) -> Path:
    checkpoint, state = read_checkpoint(teacher)
    write_checkpoint(folder, state, replace(checkpoint, **fields))
    return folder


def refused(folder: Path, split: Split) -> OctcError:
    with pytest.raises(OctcError) as caught:
        load_teacher(folder, split, Preprocess(64), "cpu")
    return caught.value


def test_t17_another_class_order_is_refused_with_both(tmp_path: Path, split: Split, teacher: Path) -> None:
    turned = (*split.classes[1:], split.classes[0])
    error = refused(altered(teacher, tmp_path, classes=turned), split)
    assert error.code == "OCT-E309"
    assert error.exit_code == 3
    assert ", ".join(turned) in error.message
    assert ", ".join(split.classes) in error.message


def test_teacher_of_another_split_is_refused(tmp_path: Path, split: Split, teacher: Path) -> None:
    """It may have seen the patients that the student is selected on."""
    error = refused(altered(teacher, tmp_path, split_digest="0" * 64), split)
    assert error.code == "OCT-E212"


def test_t08_teacher_of_another_architecture_or_class_count_is_refused(tmp_path: Path, split: Split, teacher: Path) -> None:
    error = refused(altered(teacher, tmp_path / "a", model="test_efficientnet"), split)
    assert error.code == "OCT-E307"
    assert "missing keys" in error.message
    checkpoint, state = read_checkpoint(teacher)
    wider = {**state, "fc.weight": torch.zeros(5, state["fc.weight"].shape[1]), "fc.bias": torch.zeros(5)}
    write_checkpoint(tmp_path / "b", wider, checkpoint)
    error = refused(tmp_path / "b", split)
    assert "fc.weight: file [5" in error.message


def test_facts_name_all_that_decides_a_result(tmp_path: Path, root: Path, split: Split) -> None:
    ctx = new_context(tmp_path, root, split, RECIPE)
    facts = facts_of(ctx, RECIPE.teacher, "teacher")
    assert facts["stage.lr"] == RECIPE.teacher.lr
    assert facts["split"] == split.digest
    assert (facts["seed"], facts["processes"], facts["precision"]) == (3, 1, "no")
    for other in (
        facts_of(replace(ctx, seed=4), RECIPE.teacher, "teacher"),
        facts_of(ctx, replace(RECIPE.teacher, augment=Augment(hflip=0.4)), "teacher"),
        facts_of(ctx, RECIPE.teacher, "student"),
        facts_of(ctx, RECIPE.teacher, "teacher", {"sha256": "x"}),
        facts_of(replace(ctx, recipe=replace(RECIPE, val=0.1)), RECIPE.teacher, "teacher"),
    ):
        assert other != facts


def test_preprocessing_of_a_stage_travels_whole() -> None:
    stage = replace(STAGE, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    assert preprocess_of(stage) == Preprocess(64, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), resize=stage.resize)
    assert asdict(stage)["mean"] == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(("device", "precision"), [("cuda", "auto"), ("cuda:3", "auto"), ("cpu", "fp16")])
def test_device_or_precision_that_is_not_there_is_refused(device: str, precision: str) -> None:
    if device != "cpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(OctcError) as caught:
        make_accelerator(device, precision)
    assert caught.value.code == "OCT-E903"


def test_process_that_cannot_join_the_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each of torchrun's processes would train a network of its own."""
    make_accelerator("cpu")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OctcError) as caught:
        make_accelerator("cpu")
    assert caught.value.code == "OCT-E903"
    assert "2 processes were started, and this one sees 1" in caught.value.message
