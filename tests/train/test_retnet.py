"""Cross-modal training: networks at full size, partners, gradients of a step, quantisation that acts, recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from octc.compress.calibrate import observe, set_ranges
from octc.compress.finetune_crossmodal import decision_closeness
from octc.compress.placement import convolutions, prepare, quantisers, set_mode
from octc.imaging.preprocess import Preprocess
from octc.train.crossmodal.pairs import make_partners
from octc.train.crossmodal.ways import (
    Lesson,
    Pair,
    align_mlp,
    feature_width,
    judge_by,
    make_optimiser,
    student_ways,
    with_features,
)
from octc.train.loop.optim import classifier_of, halving, rate
from octc.train.loop.training import Data
from octc.train.loop.ways import Batch
from octc.train.networks.macs import count_macs
from octc.train.networks.models import build_model, parameter_count
from octc.train.recipes.config import Augment
from octc.train.recipes.crossmodal import EYE_RECIPES, CrossModal, EyeRecipe, EyeStage
from octc.train.recipes.registry import stored_recipe

SIZE, CLASSES = 64, 4


def test_full_size_is_that_of_the_specification() -> None:
    with torch.device("meta"):
        model = build_model("qd-resnet50", 11)
    assert parameter_count(model) == 25_568_043
    assert feature_width(model) == 1000
    assert parameter_count(align_mlp(1000, 1000)) == 3_003_000
    assert count_macs(model, 448) / 1e9 == pytest.approx(16.35, abs=0.02)
    assert classifier_of(build_model("test_resnet", 3)) == "fc"


@pytest.mark.parametrize("name", list(EYE_RECIPES))
def test_recipes_survive_json_and_say_what_they_are(name: str) -> None:
    import json
    from dataclasses import asdict

    recipe = EYE_RECIPES[name]()
    assert stored_recipe(json.loads(json.dumps(asdict(recipe)))) == recipe
    assert recipe.name == name
    assert recipe.task == "multilabel"
    assert (recipe.select == "test") == (name == "retnet-as-released")
    assert "Command:" in (EYE_RECIPES[name].__doc__ or "")


def test_values_of_as_released_are_those_of_the_specification() -> None:
    recipe: EyeRecipe = EYE_RECIPES["retnet-as-released"]()
    stage, cross = recipe.student, recipe.cross
    assert isinstance(stage, EyeStage)
    assert (stage.size, stage.epochs, stage.batch, stage.lr, stage.decay, stage.momentum) == (448, 80, 8, 1e-3, 1e-4, 0.9)
    assert (cross.temperature, cross.alpha, cross.beta, cross.start, cross.teacher) == (4.0, 2.0, 1.0, 0, "online")
    assert (stage.mean, stage.std, stage.model_kwargs["drop_rate"]) == ((0.5,) * 3, (0.5,) * 3, 0.5)


def test_the_plateau_rule_counts_on_and_a_teacher_keeps_its_rate() -> None:
    best_first = [0.1] + [0.5] * 20  # bad from the second epoch on, counted from index 6
    assert [halving(best_first[:n], 0.0) for n in (6, 10, 11, 16, 21)] == [1.0, 1.0, 0.5, 0.25, 0.125]
    assert halving([0.5] * 6 + [0.5] * 4 + [0.1] + [0.5] * 4, 0.0) == 1.0  # an improvement sets the counter to 0
    stage = replace(EYE_RECIPES["retnet"]().student, schedule="halving")
    assert rate(stage, "teacher", 30, 0, 10, best_first) == stage.lr
    assert rate(stage, "all", 30, 0, 10, best_first) == stage.lr / 8


def test_f35_partners_have_the_same_labels_and_follow_the_seed() -> None:
    own = [(0,), (1, 2), (3,), (2, 1)]
    theirs = [(0,), (2, 1), (0,), (1, 2), (1,)]
    partners = make_partners(own, theirs)
    chosen, matched = partners.draw(7, 0, [0, 1, 2, 3])
    assert matched == [True, True, False, True]  # nobody else has (3,) alone
    assert all(sorted(theirs[c]) == sorted(own[i]) for i, c in enumerate(chosen) if matched[i])
    assert partners.draw(7, 0, [3, 1]) == ([chosen[3], chosen[1]], [True, True])  # neither order nor batch matters
    draws = {tuple(partners.draw(7, epoch, [0, 1])[0]) for epoch in range(40)}
    assert draws == {(a, b) for a in (0, 2) for b in (1, 3)}  # every match is drawn at some time


def labels_of(n: int) -> torch.Tensor:
    rows = torch.zeros(n, CLASSES)
    rows[torch.arange(n), torch.arange(n) % CLASSES] = 1
    return rows


def make_lesson(network: nn.Module, **how: Any) -> Lesson:
    rng = np.random.default_rng(0)
    targets = [(i % CLASSES,) for i in range(12)]
    return Lesson(
        CrossModal(**how), network, Preprocess(SIZE, 3, mean=(0.5,) * 3, std=(0.5,) * 3),
        rng.integers(0, 256, (12, 3, SIZE, SIZE), dtype=np.uint8), labels_of(12), make_partners(targets, targets), Augment(), 3,
    )  # fmt: skip


def make_data() -> Data:
    images = np.random.default_rng(1).integers(0, 256, (12, 1, SIZE, SIZE), dtype=np.uint8)
    return Data(images, list(labels_of(12)), images, list(labels_of(12)), Preprocess(SIZE, mean=(0.5,) * 3, std=(0.5,) * 3))


def one_step(pair: Pair, lesson: Lesson) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    data = make_data()
    ways = student_ways(pair, lesson, data, judge_by(([str(i) for i in range(12)], [None] * 12, "union")))
    x = torch.randn(8, 3, SIZE, SIZE)
    pair.train()
    return ways.step(pair, Batch(x, labels_of(8), None, list(range(8)), 0))


def tiny(seed: int = 0, name: str = "test_resnet") -> nn.Module:
    torch.manual_seed(seed)
    return build_model(name, CLASSES)


def test_a_frozen_teacher_stays_as_it_is_and_student_and_align_learn() -> None:
    teacher = tiny(1).eval().requires_grad_(False)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = tiny()
    pair = Pair(student, align_mlp(feature_width(student), feature_width(teacher)))
    value, parts = one_step(pair, make_lesson(teacher))
    value.backward()
    assert float(value.detach()) == pytest.approx(float(parts["bce"] + parts["cpm"] + parts["csa"]), rel=1e-5)
    assert all(p.grad is not None for p in pair.parameters())
    assert float(pair.align[0].weight.grad.abs().sum()) > 0  # type: ignore[union-attr, operator]
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_b13_an_online_teacher_learns_from_its_own_labels_alone_at_its_own_rate() -> None:
    teacher, student = tiny(1), tiny()
    pair = Pair(student, align_mlp(feature_width(student), feature_width(teacher)), teacher)
    value, parts = one_step(pair, make_lesson(teacher, teacher="online", targets="train"))
    own = dict(teacher.named_parameters())["fc.bias"]
    gradient = torch.autograd.grad(value, own, retain_graph=True)[0]
    np.testing.assert_allclose(float(value.detach()), float(sum(parts[k] for k in ("bce", "cpm", "csa", "teacher"))), rtol=1e-5)
    assert float(gradient.abs().sum()) > 0
    optimiser = make_optimiser(pair, EYE_RECIPES["retnet-as-released"]().student)
    assert isinstance(optimiser, torch.optim.SGD)
    assert [group["part"] for group in optimiser.param_groups] == ["all", "teacher"]


def test_a15_two_students_learn_from_each_other() -> None:
    teacher = tiny(1).eval().requires_grad_(False)
    student, peer = tiny(), tiny(2)
    width = feature_width(student)
    pair = Pair(student, align_mlp(width, width))
    pair.peer, pair.peer_align = peer, align_mlp(width, width)
    lesson = replace(make_lesson(teacher, mutual=1.0), own_teacher=teacher, own_preprocess=make_data().preprocess)
    value, parts = one_step(pair, lesson)
    assert float(parts["mutual"]) > 0
    value.backward()
    assert all(p.grad is not None for p in pair.parameters())
    without, _ = one_step(pair, replace(lesson, how=CrossModal(mutual=0.0)))
    assert float(value.detach()) - float(without.detach()) == pytest.approx(float(parts["mutual"]), rel=1e-2)


@pytest.mark.parametrize("name", ["test_resnet", "qd-tiny"])
def test_features_are_what_the_classifier_reads(name: str) -> None:
    model = tiny(name=name).eval()
    features, logits = with_features(model, lambda: model(torch.zeros(2, 3, SIZE, SIZE)))
    linear: Any = model.get_submodule(classifier_of(model))
    assert features.shape == (2, feature_width(model))
    torch.testing.assert_close(linear(features), logits)


@pytest.fixture(scope="module")
def quantised() -> tuple[nn.Module, Any, torch.Tensor]:
    """A network with its quantisers calibrated, and images."""
    model = tiny(3, "qd-tiny").eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # the last norm of a block starts at zero, and nothing flows through it
            nn.init.uniform_(module.weight, 0.5, 1.5)
    images = torch.randn(8, 3, SIZE, SIZE)
    made = prepare(model, SIZE)
    observe(made, lambda: iter([images]))
    set_ranges(made, "max")
    return model, made, images


def test_c17_c18_the_prepared_network_is_the_same_until_it_is_switched_on(
    quantised: tuple[nn.Module, Any, torch.Tensor],
) -> None:
    model, made, images = quantised
    assert len(quantisers(made)) > 0
    assert len(convolutions(made)) > 0
    with torch.no_grad():
        set_mode(made, "off")
        torch.testing.assert_close(made(images), model(images), rtol=1e-4, atol=1e-4)
        set_mode(made, "on")
        assert float((made(images) - model(images)).abs().max()) > 0


def test_a14_fake_quantisation_acts_in_training_and_lets_gradients_through(
    quantised: tuple[nn.Module, Any, torch.Tensor],
) -> None:
    _, made, images = quantised
    made.train().requires_grad_(True)
    teacher = tiny(1).eval().requires_grad_(False)
    pair = Pair(made, align_mlp(1000, feature_width(teacher)))
    values = {}
    for mode in ("off", "on"):
        set_mode(made, mode)
        made.zero_grad()
        value, _ = one_step(pair, make_lesson(teacher))
        value.backward()
        values[mode] = float(value.detach())
    assert values["on"] != values["off"]
    for name, conv in convolutions(made).items():
        gradient = conv.conv.weight.grad
        assert gradient is not None, name
        assert float(gradient.abs().sum()) > 0, name
    del images


def test_decisions_are_counted_over_every_class() -> None:
    a = torch.tensor([[1.0, -1.0], [2.0, 3.0]])
    found = decision_closeness(a, torch.tensor([[1.0, 1.0], [2.0, 3.0]]))
    assert found["agreement"] == 0.75
    assert found["kl"] > 0
    assert decision_closeness(a, a) == {"agreement": 1.0, "kl": 0.0}


def test_an_epoch_is_judged_by_the_map_over_eyes() -> None:
    judge: Callable[..., Any] = judge_by((["a", "a", "b", "b"], ["p", "p", "q", "q"], "union"))
    labels = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])]
    good = torch.tensor([[-1.0, -3.0], [2.0, -3.0], [-2.0, 1.0], [-2.0, -1.0]])
    found = judge(None, good, labels, labels)
    assert found.more["val_map"] == 1.0  # the eye takes the larger score, from an image that lacks the label itself
    assert judge(None, -good, labels, labels).criterion > found.criterion
