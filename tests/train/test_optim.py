"""Schedules against the check values of KD-OCT, parameter groups, accumulation, freezing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from octc.core.errors import OctcError
from octc.train.loop.optim import accumulation, head_names, parameter_groups, plateau, rate
from octc.train.networks.models import build_model
from octc.train.recipes.config import Stage, Swa
from octc.train.recipes.registry import RECIPES
from tests.train.tiny import train

PLAIN = Stage(model="test_resnet", weights="none", size=32, epochs=10, lr=1e-3)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, 2e-4), (1, 4e-4), (4, 1e-3), (5, 1e-3), (6, 9.997269e-4), (25, 8.946757e-4), (50, 5.417484e-4), (75, 1.621979e-4),
     (98, 2.092093e-6), (99, 1.273098e-6)],
)  # fmt: skip
def test_student_formula_9_1(epoch: int, expected: float) -> None:
    for name in ("kd-oct-ucsd", "kd-oct-neh-as-released"):
        student = RECIPES[name]().student
        assert rate(student, "all", epoch, 3, 10, []) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("epoch", "head", "backbone"),
    [(0, 1e-5, 2e-6), (4, 5e-5, 1e-5), (9, 1e-4, 2e-5), (10, 1e-4, 2e-5), (11, 9.998742e-5, 1.999748e-5),
     (25, 9.719697e-5, 1.943939e-5), (50, 8.119332e-5, 1.623866e-5), (75, 5.564263e-5, 1.112853e-5),
     (99, 2.939275e-5, 5.878551e-6), (100, 2.837751e-5, 5.675501e-6), (101, 2.792778e-5, 5.781329e-6),
     (105, 1.918875e-5, 7.837751e-6), (109, 1.044973e-5, 9.894172e-6), (110, 1e-5, 1e-5), (149, 1e-5, 1e-5)],
)  # fmt: skip
def test_teacher_formula_9_2_as_released(epoch: int, head: float, backbone: float) -> None:
    teacher = RECIPES["kd-oct-ucsd-as-released"]().teacher
    assert rate(teacher, "head", epoch, 0, 7, []) == pytest.approx(head, rel=1e-6)
    assert rate(teacher, "backbone", epoch, 0, 7, []) == pytest.approx(backbone, rel=1e-6)


@pytest.mark.parametrize(("epoch", "head"), [(101, 2.737317e-5), (105, 2.3475e-5), (110, 1.890668e-5), (149, 1.125757e-7)])
def test_teacher_without_swa(epoch: int, head: float) -> None:
    teacher = replace(RECIPES["kd-oct-ucsd-as-released"]().teacher, swa=Swa())
    assert rate(teacher, "head", epoch, 0, 7, []) == pytest.approx(head, rel=1e-6)


def test_c5_the_clean_teacher_never_raises_the_backbone_in_swa() -> None:
    teacher = RECIPES["kd-oct-ucsd"]().teacher
    rates = [rate(teacher, "backbone", epoch, 0, 7, []) for epoch in range(10, teacher.epochs)]
    assert all(later <= before + 1e-15 for before, later in pairwise(rates))
    assert rates[-1] == pytest.approx(0.2 * 1e-5)


@pytest.mark.parametrize(
    ("iteration", "first", "second"),
    [(0, 2.0998e-6, 2.0998e-6), (99, 2.0008e-4, 2.0008e-4), (249, 5.0005e-4, 5.0005e-4), (499, 1e-3, 1e-3),
     (500, 9.999989e-4, 1e-3)],
)  # fmt: skip
def test_medsiglip_formula_9_3_in_both_phases(iteration: int, first: float, second: float) -> None:
    stage = RECIPES["medsiglip-as-released"]().teacher
    epoch, step = divmod(iteration, 100)
    assert rate(stage, "head", epoch, step, 100, []) == pytest.approx(first, rel=1e-6)
    assert rate(stage, "backbone", 20 + epoch, step, 100, []) == pytest.approx(second, rel=1e-6)  # B10: the head's rate


def test_medsiglip_ends_at_the_floor_in_both_phases() -> None:
    stage = RECIPES["medsiglip"]().teacher
    assert rate(stage, "head", 10, 0, 100, []) == pytest.approx(7.491176e-4, rel=1e-6)
    assert rate(stage, "head", 19, 99, 100, []) == pytest.approx(1e-7)
    assert rate(stage, "head", 20 + 50, 0, 100, []) == pytest.approx(5.411708e-4, rel=1e-6)
    assert rate(stage, "head", 119, 99, 100, []) == pytest.approx(1e-7)
    assert rate(stage, "backbone", 24, 99, 100, []) == pytest.approx(5e-5)  # clean: the encoder's own peak


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [(0, 0.0), (1, 5e-7), (500, 2.5e-4), (999, 4.995e-4), (1000, 5e-4), (15000, 2.640077e-4), (29999, 1.000001e-6)],
)
def test_sfnet_formula_9_4(iteration: int, expected: float) -> None:
    epoch, step = divmod(iteration, 100)
    assert rate(RECIPES["sfnet"]().teacher, "all", epoch, step, 100, []) == pytest.approx(expected, rel=1e-6)


def test_plateau_halves_after_three_epochs_without_better_loss() -> None:
    assert plateau([], 0.01) == 1.0
    assert plateau([1.0, 0.9, 0.95, 0.95], 0.01) == 1.0
    assert plateau([1.0, 0.9, 0.95, 0.95, 0.95], 0.01) == 0.5
    assert plateau([1.0, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95], 0.01) == 0.25
    assert plateau([1.0, 0.9, 0.95, 0.95, 0.95, 0.8, 0.9, 0.9], 0.01) == 0.5
    assert plateau([1.0] * 100, 0.01) == 0.01
    assert rate(replace(PLAIN, schedule="plateau"), "all", 4, 0, 9, [1.0] * 4) == pytest.approx(5e-4)


def test_the_head_of_the_published_teacher_is_its_norm_and_linear() -> None:
    with torch.device("meta"):
        model = build_model("convnextv2_large.fcmae_ft_in22k_in1k", 3)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(sizes[name] for name in head_names(model)) == 7683


@pytest.mark.parametrize("name", ["efficientnet_b0", "resnet50", "densenet121", "vgg16-gap", "fpn-vgg16", "sfnet"])
def test_every_baseline_has_a_head(name: str) -> None:
    with torch.device("meta"):
        model = build_model(name, 4)
    heads = head_names(model)
    assert 0 < len(heads) < len(dict(model.named_parameters()))
    assert any(model.get_parameter(n).shape[0] == 4 for n in heads)


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(OctcError, match="no classifier"):
        head_names(nn.Sequential(nn.Linear(2, 2)))


def test_groups_hold_every_parameter_once_with_their_decay() -> None:
    model = build_model("test_efficientnet", 3)
    everything = {id(p) for p in model.parameters()}
    for stage in (
        PLAIN,
        replace(PLAIN, backbone=0.2),
        replace(PLAIN, freeze=1, decay_all=True),
        replace(PLAIN, decay_all=True),
    ):
        groups = parameter_groups(model, stage)
        ids = [id(p) for group in groups for p in group["params"]]
        assert len(ids) == len(set(ids))
        assert set(ids) == everything
        for group in groups:
            whole = stage.decay_all or all(p.ndim > 1 for p in group["params"])
            assert group["weight_decay"] == (stage.decay if whole else 0.0)
    parts = [group["part"] for group in parameter_groups(model, replace(PLAIN, backbone=0.2))]
    assert parts == ["backbone", "backbone", "head", "head"]


def test_c10_the_last_group_of_an_epoch_steps_or_is_dropped() -> None:
    groups = [accumulation(step, 5, 2) for step in range(5)]
    assert [(g.size, g.last) for g in groups] == [(2, False), (2, True), (2, False), (2, True), (1, True)]
    groups = [accumulation(step, 5, 2, drop_rest=True) for step in range(5)]
    assert [(g.size, g.last) for g in groups] == [(2, False), (2, True), (2, False), (2, True), (2, False)]


def test_dropping_every_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OctcError, match="fewer than"):
        train(tmp_path, accumulate=9, drop_rest=True)


def test_the_remainder_acts_only_where_it_is_stepped_on(tmp_path: Path) -> None:
    kept = train(tmp_path / "kept", accumulate=2, epochs=1, ema=0.0)
    dropped = train(tmp_path / "dropped", accumulate=2, epochs=1, ema=0.0, drop_rest=True)
    assert any(not torch.equal(kept.state[name], dropped.state[name]) for name in kept.state)
