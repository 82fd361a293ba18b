"""Values of the KD-OCT specification, sections 8.2 and 9.1, and the same formulas in numpy."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.nn import functional

from octc.train.config import Objective
from octc.train.focal import label_loss
from octc.train.losses import learning_rate, soft_loss
from octc.train.recipes import Distillation
from octc.train.stages import distilled_loss

Z = torch.tensor([[2, 0.5, -1], [0, 1, 0.5], [-0.5, 0.25, 1.5], [1, 1, 1]], dtype=torch.float64)
ZT = torch.tensor([[3, 0, -2], [-1, 2, 0], [-1, 0, 2.5], [0.5, 1.5, 1]], dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 1])
LABELS = label_loss(Objective(), 0.0, [], 3)


class Fixed(torch.nn.Module):
    """A teacher that says what it is told to."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return self.logits


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_soft_loss_has_the_value_of_the_specification() -> None:
    assert float(soft_loss(Z, ZT, 4.0)) == pytest.approx(0.2677695498, abs=1e-9)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0, 10.0])
def test_soft_loss_equals_numpy(temperature: float) -> None:
    rng = np.random.default_rng(0)
    z, zt = rng.normal(0, 3, (16, 4)), rng.normal(0, 3, (16, 4))
    q, p = softmax(z / temperature), softmax(zt / temperature)
    expected = temperature**2 * (p * (np.log(p) - np.log(q))).sum(1).mean()
    assert float(soft_loss(torch.tensor(z), torch.tensor(zt), temperature)) == pytest.approx(expected, rel=1e-10)


def test_soft_loss_is_zero_only_for_equal_distributions() -> None:
    assert float(soft_loss(ZT, ZT, 4.0)) == pytest.approx(0, abs=1e-12)
    assert float(soft_loss(ZT + 5, ZT, 4.0)) == pytest.approx(0, abs=1e-12)
    assert float(soft_loss(Z, ZT, 4.0)) > 0


def test_distillation_has_the_value_of_the_specification_and_shows_the_teacher_the_same_tensor() -> None:
    teacher = Fixed(ZT.float())
    student = Z.float().requires_grad_(True)
    x = torch.randn(4, 3, 8, 8)
    value, parts = distilled_loss(teacher, Distillation(), nullcontext, LABELS)(student, x, Y)
    assert value.item() == pytest.approx(0.3653495688, abs=1e-6)
    assert parts["soft"].item() == pytest.approx(0.2677695498, abs=1e-6)
    assert parts["hard"].item() == pytest.approx(0.5930362799, abs=1e-6)
    assert teacher.seen[0] is x


def test_gradient_of_distillation_reaches_the_student_and_never_the_teacher() -> None:
    teacher = Fixed(ZT)
    student = Z.clone().requires_grad_(True)
    value, _ = distilled_loss(teacher, Distillation(), nullcontext, LABELS)(student, torch.zeros(1), Y)
    value.backward()
    assert teacher.logits.grad is None
    p, q = softmax(ZT.numpy() / 4), softmax(Z.numpy() / 4)
    hard = softmax(Z.numpy()) - np.eye(3)[Y.numpy()]
    assert student.grad is not None
    assert np.allclose(student.grad.numpy(), (0.7 * 4 * (q - p) + 0.3 * hard) / 4)


def test_loss_on_labels_smooths_as_pytorch_does() -> None:
    value, parts = label_loss(Objective(), 0.0, [], 3)(Z, torch.zeros(1), Y)
    assert float(value) == pytest.approx(0.5930362799, abs=1e-9)
    assert parts == {}
    assert float(label_loss(Objective(), 0.1, [], 3)(Z, torch.zeros(1), Y)[0]) == pytest.approx(0.6701196133, abs=1e-9)
    assert float(label_loss(Objective(), 0.1, [], 3)(Z, torch.zeros(1), Y)[0]) == pytest.approx(
        float(functional.cross_entropy(Z, Y, label_smoothing=0.1))
    )


# epochs done, learning rate of the student of KD-OCT in that epoch (E 100, W 5, base 1e-3, r 1e-3)
STUDENT = [(1, 2e-4), (2, 4e-4), (5, 1e-3), (6, 9.997269e-4), (25, 8.946757e-4), (50, 5.417484e-4), (75, 1.621979e-4),
           (98, 2.092093e-6), (99, 1.273098e-6)]  # fmt: skip


@pytest.mark.parametrize(("done", "expected"), STUDENT)
def test_schedule_has_the_values_of_the_specification(done: float, expected: float) -> None:
    assert 1e-3 * learning_rate(done, 100, 5, 1e-3) == pytest.approx(expected, rel=1e-6)


def test_schedule_rises_then_falls_to_the_floor_and_never_to_zero() -> None:
    factors = np.array([learning_rate(done, 24, 1, 0.01) for done in np.linspace(0, 24, 1001)])
    top = int(factors.argmax())
    assert (np.diff(factors[: top + 1]) >= 0).all()
    assert (np.diff(factors[top:]) <= 0).all()
    assert factors.max() == pytest.approx(1, abs=1e-3)
    assert factors.min() > 0
    assert factors[-1] == pytest.approx(0.01)
    assert learning_rate(30, 24, 1, 0.01) == pytest.approx(0.01)  # beyond the end it stays
    assert learning_rate(1, 1, 1, 0.01) == pytest.approx(1)  # warm-up as long as the training
    assert learning_rate(0, 4, 0, 0.01) == pytest.approx(1)  # no warm-up
