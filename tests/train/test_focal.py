"""Losses and class weights against the check values of KD-OCT."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from octc.train.loop.label_losses import (
    balanced_weights,
    class_weights,
    cross_entropy,
    focal,
    focal_each,
    focal_seed,
    focal_seed_each,
    inverse_weights,
    label_loss,
    objective,
    smoothed,
)
from octc.train.recipes.config import Objective

Z = torch.tensor([[2, 0.5, -1], [0, 1, 0.5], [-0.5, 0.25, 1.5], [1, 1, 1]], dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 1])
W = torch.tensor([0.744, 1.127, 1.301], dtype=torch.float64)


def close(value: torch.Tensor | float, expected: float | list[float]) -> None:
    assert torch.as_tensor(value).tolist() == pytest.approx(expected, abs=1e-10)


def test_a10_seed_form_has_the_weight_inside_the_exponent() -> None:
    close(focal_seed_each(Z, Y, W, 2.0), [0.0048489386, 0.2197992302, 0.0618012986, 0.6242778003])
    close(focal_seed(Z, Y, W), 0.2276818169)


def test_textbook_form() -> None:
    close(focal_each(Z, Y, W, 2.0), [0.0082530061, 0.1867298941, 0.0403046118, 0.5502826886])
    close(focal(Z, Y, W), 0.1963925501)


def test_both_forms_are_one_without_weights_and_cross_entropy_without_gamma() -> None:
    close(focal(Z, Y), float(focal_seed(Z, Y)))
    close(focal(Z, Y, gamma=0.0), 0.5930362799)
    close(focal_seed(Z, Y, gamma=0.0), 0.5930362799)


def test_medsiglip_smoothing_and_mixture() -> None:
    q = smoothed(functional.one_hot(Y, 3).double(), 0.1)
    assert q[0].tolist() == pytest.approx([0.9, 0.05, 0.05])
    close(-(q * functional.log_softmax(Z, 1)).sum(1).mean(), 0.7086612799)
    close(functional.cross_entropy(Z, Y, label_smoothing=0.1), 0.6701196133)
    close(objective(Objective("ce+focal"), Z, Y, W, 0.1), 0.5549806610)


def test_medsiglip_mixed_batches_have_the_smoothed_entropy_alone() -> None:
    one, other = functional.one_hot(Y, 3).double(), functional.one_hot(Y.flip(0), 3).double()
    found = objective(Objective("ce+focal"), Z, 0.3 * one + 0.7 * other, W, 0.1)
    parts = [-(smoothed(q, 0.1) * functional.log_softmax(Z, 1)).sum(1).mean() for q in (one, other)]
    close(found, float(0.3 * parts[0] + 0.7 * parts[1]))


def test_cross_entropy_plain_and_weighted() -> None:
    close(cross_entropy(Z, Y), 0.5930362799)
    close(cross_entropy(Z, Y, W), 0.6146138515)
    close(cross_entropy(Z, functional.one_hot(Y, 3).double(), W), 0.6146138515)
    by_hand = functional.cross_entropy(Z, Y, weight=W, label_smoothing=0.1)
    close(cross_entropy(Z, functional.one_hot(Y, 3).double(), W, 0.1), float(by_hand))


@pytest.mark.parametrize("kind", ["ce", "focal", "focal-seed"])
def test_every_loss_of_a_mixed_target_is_the_mix_of_both_losses(kind: str) -> None:
    """Per sample, so that the weighted mean's denominator does not come in."""
    how = Objective(kind)
    one, other = functional.one_hot(Y, 3).double(), functional.one_hot(Y.roll(1), 3).double()
    mixed = objective(how, Z, 0.2 * one + 0.8 * other, None, 0.0)
    close(mixed, float(0.2 * objective(how, Z, Y, None, 0.0) + 0.8 * objective(how, Z, Y.roll(1), None, 0.0)))


@pytest.mark.parametrize("kind", ["ce", "ce+focal", "focal", "focal-seed"])
def test_a9_label_smoothing_acts_on_every_loss(kind: str) -> None:
    how = Objective(kind)
    assert abs(float(objective(how, Z, Y, W, 0.1)) - float(objective(how, Z, Y, W, 0.0))) > 1e-3


def test_balanced_weights_of_both_data_sets() -> None:
    neh = [0] * 5667 + [1] * 3742 + [2] * 3240
    assert balanced_weights(neh, 3).tolist() == pytest.approx([0.744015, 1.126759, 1.301337], abs=1e-6)
    ucsd = [0] * 29765 + [1] * 9080 + [2] * 6894 + [3] * 40912
    assert balanced_weights(ucsd, 4).tolist() == pytest.approx([0.727793, 2.385765, 3.142261, 0.529496], abs=1e-6)


def test_inverse_weights_of_sfnet() -> None:
    neh = [0] * 5667 + [1] * 3742 + [2] * 3240
    found = inverse_weights(neh, 3)
    assert found.tolist() == pytest.approx([0.703646, 1.065624, 1.230730], abs=1e-6)
    assert float(found.mean()) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["balanced", "inverse"])
def test_a_class_without_images_weighs_nothing(kind: str) -> None:
    found = class_weights(kind, [0, 0, 2], 3)
    assert found is not None
    assert float(found[1]) == 0.0
    assert bool(torch.isfinite(found).all())


def test_the_loss_of_a_stage_takes_its_weights_from_the_training_labels() -> None:
    loss = label_loss(Objective("focal", weights="balanced"), 0.0, [0, 0, 0, 1, 2], 3)
    value, parts = loss(Z, Z, Y)
    close(value, float(focal(Z, Y, balanced_weights([0, 0, 0, 1, 2], 3))))
    assert parts == {}
    plain, _ = label_loss(Objective(), 0.1, [], 3)(Z, Z, Y)
    assert torch.equal(plain, functional.cross_entropy(Z, Y, label_smoothing=0.1))


def test_focal_gradients_are_finite_where_a_sample_is_certain() -> None:
    z = torch.tensor([[40.0, -40.0, -40.0], [-40.0, 40.0, 40.0]], requires_grad=True)
    for kind in ("focal", "focal-seed"):
        (grad,) = torch.autograd.grad(objective(Objective(kind), z, torch.tensor([0, 0]), W, 0.0), z)
        assert bool(torch.isfinite(grad).all())
