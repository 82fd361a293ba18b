"""Every recipe of KD-OCT and its baselines: its values, and a training of it at a tiny size with evaluation and resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from octc.core.errors import OctcError
from octc.datasets.layouts.folders import scan_folder
from octc.datasets.split import Split, make_split
from octc.store.runs import create_run
from octc.train import stages
from octc.train.evaluation.outcome import read_predictions
from octc.train.loop.checkpoint import read_checkpoint
from octc.train.loop.tensorboard import FILE
from octc.train.recipes.config import IMAGENET, Mix, Objective, Recipe, Stage, Swa, plain
from octc.train.recipes.registry import BASELINES, RECIPES
from octc.train.stages import Context, train_student, train_teacher
from tests.tiny_run import write_patterns
from tests.train.contexts import new_context
from tests.train.test_nets import TINY_TOWER

KD = [name for name in RECIPES if name.startswith("kd-oct")]
NEEDS = {"hog-svm": "sklearn", "medsiglip": "transformers"}
# a network of the same kind that is trained in a second
STAND_INS: dict[str, dict[str, Any]] = {
    "convnextv2_large.fcmae_ft_in22k_in1k": {"model": "test_convnext2"},
    "convnext_large.fb_in22k_ft_in1k_384": {"model": "test_convnext"},
    "efficientnet_b2.ra_in1k": {"model": "test_efficientnet"},
    "medsiglip": {"model_kwargs": TINY_TOWER},
    "sfnet": {"model_kwargs": {"trunk": "test_convnext", "drop_rate": 0.3}},
    "hog-svm": {"size": 64, "model_kwargs": {"size": 64}},
    "resnet50.tv_in1k": {"model": "test_resnet"},
    "densenet121.tv_in1k": {"model": "test_efficientnet"},
    "efficientnet_b0.ra_in1k": {"model": "test_efficientnet"},
    "fpn-resnet50": {"model_kwargs": {"trunk": "resnet18", "widths": (64, 64, 128, 256, 512)}},
    **{key: {"epochs": 1} for key in ("vgg16-gap", "fpn-vgg16", "fpn-densenet121")},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("set") / "set"
    write_patterns(place, patients=5, images=1)
    return place


@pytest.fixture(scope="module")
def split(root: Path) -> Split:
    return make_split(scan_folder(root, None), "folder", 0)


def tiny(stage: Stage) -> Stage:
    """The recipe's own fields but for the size of everything: two epochs, the second released and averaged."""
    swa = replace(stage.swa, start=1) if stage.swa.start else stage.swa
    small = replace(stage, weights="none", size=32, epochs=2, batch=4, freeze=min(stage.freeze, 1), swa=swa, warmup=0.5)
    small = replace(small, accumulate=min(small.accumulate, 2))
    return replace(small, **STAND_INS.get(stage.model, {}))


def need(stage: Stage) -> None:
    if stage.model in NEEDS:
        pytest.importorskip(NEEDS[stage.model])


def stopping(ctx: Context, epoch: int) -> Context:
    """The same work, interrupted when an epoch is reported."""

    def report(row: dict[str, Any]) -> None:
        if row.get("epoch") == epoch:
            raise KeyboardInterrupt

    return replace(ctx, report=report)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BASELINES, *KD])
def test_f75_every_recipe_trains_evaluates_and_resumes(name: str, tmp_path: Path, root: Path, split: Split) -> None:
    full = RECIPES[name]()
    need(full.teacher)
    stage = tiny(full.teacher)
    ctx = new_context(tmp_path, root, split, replace(full, teacher=stage, student=tiny(full.student)))
    resumes = stage.epochs == 2 and name != "hog-svm"
    if resumes:
        with pytest.raises(KeyboardInterrupt):
            train_teacher(stopping(ctx, 1))
    made = train_teacher(replace(ctx, resume=resumes))
    assert made.metrics["epochs"] == (1 if name == "hog-svm" else stage.epochs)
    assert (made.metrics.get("swa") is not None) == (stage.swa.start > 0 and stage.swa.judged)
    checkpoint, state = read_checkpoint(ctx.run.path / "train")
    assert checkpoint.model == stage.model
    assert all(bool(torch.isfinite(t).all()) for t in state.values() if t.is_floating_point())
    assert made.metrics["parameters"] > 1000
    assert made.metrics["macs"] > 0
    stored = read_predictions(ctx.run.path / "eval" / "val-none")
    right = sum(int(row[0].argmax()) == k for row, k in zip(stored.logits, stored.labels, strict=True))
    assert right == round(made.metrics["val_accuracy"] * made.metrics["val_n"])
    assert stored.facts["chose_the_epoch"] is True
    for file in ("history.csv", "curves.svg", "curves.png", f"tensorboard/{FILE}"):
        assert (ctx.run.path / "train" / file).is_file(), file


@pytest.mark.parametrize("name", ["kd-oct-neh", "kd-oct-ucsd-as-released"])
def test_f18_the_student_of_kd_oct_learns_from_its_teacher(name: str, tmp_path: Path, root: Path, split: Split) -> None:
    full = RECIPES[name]()
    recipe = replace(full, teacher=tiny(full.teacher), student=tiny(full.student))
    teacher = new_context(tmp_path, root, split, recipe)
    train_teacher(teacher)
    rows: list[dict[str, Any]] = []
    ctx = replace(new_context(tmp_path, root, split, recipe, "student"), report=rows.append)
    made = train_student(replace(ctx, teachers=(teacher.run.path / "train",)))
    assert made.parent is not None
    for row in rows:
        total = 0.7 * row["train_soft"] + 0.3 * row["train_hard"]
        assert row["train_loss"] == pytest.approx(total, rel=1e-4)  # F33


def test_f60_a_large_student_is_warned_about(tmp_path: Path, root: Path, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = []
    stage = replace(tiny(RECIPES["kd-oct"]().student), epochs=1)
    ctx = replace(new_context(tmp_path, root, split, Recipe("r", stage, stage), "student"), report=rows.append)
    train_student(ctx)
    assert not any("warning" in row for row in rows)
    monkeypatch.setattr(stages, "LARGE", 100)
    train_student(replace(ctx, run=create_run(tmp_path, "student", "folder")))
    assert [row["code"] for row in rows if "warning" in row] == ["OCT-W310"]


def test_a_network_that_cannot_checkpoint_activations_is_refused(tmp_path: Path, root: Path, split: Split) -> None:
    stage = replace(tiny(RECIPES["fpn-resnet50"]().teacher), checkpointing=True)
    with pytest.raises(OctcError, match="no gradient checkpointing"):
        train_teacher(new_context(tmp_path, root, split, Recipe("r", stage, stage)))


def test_hyper_parameters_that_both_presets_share() -> None:
    for data, batch, accumulate, small in (("ucsd", 64, 1, 16), ("neh", 4, 4, 8)):
        for preset in ("", "-as-released"):
            recipe = RECIPES[f"kd-oct-{data}{preset}"]()
            t, s = recipe.teacher, recipe.student
            assert (t.batch, t.accumulate, s.batch, s.accumulate) == (batch, accumulate, small, 2)
            assert (t.size, t.epochs, t.lr, t.lr * t.backbone, t.freeze) == (384, 150, 1e-4, pytest.approx(2e-5), 5)
            assert (t.decay, t.warmup, t.patience, t.schedule, t.clip, t.ema) == (0.05, 10, 25, "epoch", 0.0, 0.0)
            assert (t.model_kwargs, t.objective.gamma, t.objective.weights) == (
                {"drop_rate": 0.3, "drop_path_rate": 0.3}, 2.0, "balanced",
            )  # fmt: skip
            assert (t.swa.start, t.swa.lr, t.swa.anneal) == (100, 1e-5, 10)
            assert (s.size, s.epochs, s.lr, s.decay, s.warmup, s.patience, s.schedule) == (384, 100, 1e-3, 0.01, 5, 20, "epoch")
            assert (s.model_kwargs, s.freeze, s.backbone, s.swa, s.mix) == ({"drop_rate": 0.3}, 0, 1.0, Swa(), Mix())
            assert recipe.distillation.temperature == 4.0
            assert recipe.distillation.alpha == 0.7


def test_what_the_clean_preset_mends_and_the_released_one_repeats() -> None:
    clean, released = RECIPES["kd-oct-ucsd"](), RECIPES["kd-oct-ucsd-as-released"]()
    assert (clean.teacher.objective.kind, released.teacher.objective.kind) == ("focal", "focal-seed")  # A10
    assert clean.teacher.mix == Mix(mixup=0.4, cutmix=1.0, prob=0.8, switch=0.5)  # A9
    assert (clean.teacher.smoothing, released.teacher.smoothing, released.teacher.mix) == (0.1, 0.0, Mix())
    assert (clean.teacher.swa.judged, clean.teacher.swa.flat) == (True, False)  # C5
    assert (released.teacher.swa.judged, released.teacher.swa.flat) == (False, True)
    assert clean.teacher.select == clean.student.select == "recall"  # B7
    assert (released.teacher.select, released.student.select) == ("batches", "accuracy")
    for role in ("teacher", "student"):
        one, other = getattr(clean, role), getattr(released, role)
        assert (one.drop_rest, one.decay_all) == (False, False)  # C10
        assert (other.drop_rest, other.decay_all, other.views) == (True, True, f"kd-{role}-as-released")


def test_medsiglip_and_sfnet_have_the_values_of_the_table() -> None:
    m, released = RECIPES["medsiglip"]().teacher, RECIPES["medsiglip-as-released"]().teacher
    assert (m.size, m.epochs, m.freeze, m.restart, m.batch, m.lr, m.warmup, m.decay) == (448, 120, 20, True, 8, 1e-3, 5, 1e-4)
    assert (m.clip, m.ema, m.ema_warmup, m.patience, m.select, m.smoothing) == (1.0, 0.9997, False, 25, "accuracy", 0.1)
    assert m.mix == Mix(mixup=0.2, cutmix=1.0, prob=0.5, switch=0.5, partner="permutation")
    assert m.lr * m.floor == pytest.approx(1e-7)
    assert (m.lr * m.backbone, released.lr * released.backbone) == (pytest.approx(5e-5), 1e-3)  # B10
    assert (m.mean, released.mean, released.std) == ((0.5, 0.5, 0.5), *IMAGENET)  # B10
    s = RECIPES["sfnet"]().teacher
    assert (s.size, s.epochs, s.batch, s.lr, s.decay, s.warmup, s.clip, s.patience) == (224, 300, 64, 5e-4, 0.05, 10, 1.0, 50)
    assert (s.select, s.objective) == ("accuracy", Objective("ce", weights="inverse"))
    assert s.lr * s.floor == pytest.approx(1e-6)


def test_plain_keeps_the_network_and_drops_what_was_its_training() -> None:
    for make in RECIPES.values():
        recipe: Recipe = make()
        for stage in (recipe.teacher, recipe.student):
            bare = plain(stage)
            assert (bare.model, bare.size, bare.mean, bare.std, bare.resize) == (
                stage.model, stage.size, stage.mean, stage.std, stage.resize,
            )  # fmt: skip
            assert (bare.mix, bare.swa, bare.objective, bare.freeze, bare.views) == (Mix(), Swa(), Objective(), 0, "")
            assert plain(bare) == bare
