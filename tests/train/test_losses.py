"""Values of KD-OCT and the same formulas in numpy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from octc.train.distill.losses import dist_loss, dkd_loss, learning_rate, soft_loss, standardised, teacher_loss
from octc.train.distill.teachers import Teacher, asked, distilled_loss
from octc.train.loop.label_losses import label_loss
from octc.train.recipes.config import DISTILLATIONS, Distillation, Objective

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


def taught_by(teacher: Fixed) -> Callable[[torch.Tensor], torch.Tensor]:
    return asked([Teacher(teacher, "")], nullcontext)


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
    value, parts = distilled_loss(taught_by(teacher), Distillation(), LABELS)(student, x, Y)
    assert value.item() == pytest.approx(0.3653495688, abs=1e-6)
    assert parts["soft"].item() == pytest.approx(0.2677695498, abs=1e-6)
    assert parts["hard"].item() == pytest.approx(0.5930362799, abs=1e-6)
    assert teacher.seen[0] is x


def test_gradient_of_distillation_reaches_the_student_and_never_the_teacher() -> None:
    teacher = Fixed(ZT.float())
    student = Z.float().clone().requires_grad_(True)
    value, _ = distilled_loss(taught_by(teacher), Distillation(), LABELS)(student, torch.zeros(1), Y)
    value.backward()
    assert teacher.logits.grad is None
    p, q = softmax(ZT.numpy() / 4), softmax(Z.numpy() / 4)
    hard = softmax(Z.numpy()) - np.eye(3)[Y.numpy()]
    assert student.grad is not None
    assert np.allclose(student.grad.numpy(), (0.7 * 4 * (q - p) + 0.3 * hard) / 4, atol=1e-6)


RNG = np.random.default_rng(5)
S, T = RNG.normal(0, 3, (9, 4)), RNG.normal(0, 3, (9, 4))
CLASS = RNG.integers(0, 4, 9)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of Pearson's r of each row with the same row, by numpy's own corrcoef."""
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))


@pytest.mark.parametrize(("t", "inter", "intra"), [(1.0, 2.0, 2.0), (4.0, 1.0, 0.5)])
def test_dist_equals_numpy(t: float, inter: float, intra: float) -> None:
    """Huang et al., NeurIPS 2022, equations 8 to 11."""
    p, q = softmax(S / t), softmax(T / t)
    expected = t**2 * (inter * (1 - correlation(p, q)) + intra * (1 - correlation(p.T, q.T)))
    found = dist_loss(torch.tensor(S), torch.tensor(T), t, inter, intra)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_dist_asks_for_order_and_not_for_equal_probabilities() -> None:
    """A linear change of the teacher's probabilities costs nothing along the classes, where KL does."""
    q = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]], dtype=torch.float64)
    flat = 0.5 * q + 0.5 / 3
    assert float(dist_loss(flat.log(), q.log(), 1.0, 1.0, 0.0)) == pytest.approx(0, abs=1e-12)
    assert float(soft_loss(flat.log(), q.log(), 1.0)) > 0.05
    assert torch.isfinite(dist_loss(torch.zeros(4, 3), ZT.float(), 1.0, 2.0, 2.0))  # a constant row has no correlation


@pytest.mark.parametrize(("t", "target", "others"), [(4.0, 1.0, 8.0), (1.0, 0.5, 2.0)])
def test_dkd_equals_numpy(t: float, target: float, others: float) -> None:
    """Zhao et al., CVPR 2022, equation 7: the binary part, and the part among the other classes."""
    p, q = softmax(T / t), softmax(S / t)
    tckd, nckd = 0.0, 0.0
    for i, y in enumerate(CLASS):
        rest = [k for k in range(4) if k != y]
        pair_p, pair_q = np.array([p[i, y], p[i, rest].sum()]), np.array([q[i, y], q[i, rest].sum()])
        hat_p, hat_q = p[i, rest] / p[i, rest].sum(), q[i, rest] / q[i, rest].sum()
        tckd += float((pair_p * np.log(pair_p / pair_q)).sum())
        nckd += float((hat_p * np.log(hat_p / hat_q)).sum())
    expected = t**2 * (target * tckd + others * nckd) / 9
    found = dkd_loss(torch.tensor(S), torch.tensor(T), torch.tensor(CLASS), t, target, others)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_dkd_with_the_teachers_doubt_as_its_weight_is_kl() -> None:
    """KL = TCKD + (1 - p_true) NCKD, image by image (the paper's equation 5)."""
    for i in range(9):
        doubt = float(1 - softmax(T[i : i + 1] / 4)[0, CLASS[i]])
        s, t, y = torch.tensor(S[i : i + 1]), torch.tensor(T[i : i + 1]), torch.tensor(CLASS[i : i + 1])
        assert float(dkd_loss(s, t, y, 4.0, 1.0, doubt)) == pytest.approx(float(soft_loss(s, t, 4.0)), rel=1e-9)


def test_standardised_equals_numpy_and_leaves_the_scale_behind() -> None:
    """Sun et al., CVPR 2024, algorithm 1."""
    expected = (S - S.mean(1, keepdims=True)) / S.std(1, keepdims=True)
    assert np.allclose(standardised(torch.tensor(S)).numpy(), expected, atol=1e-6)
    how = Distillation(standardise=True, temperature=2.0)
    found = teacher_loss(torch.tensor(3 * T + 7), torch.tensor(T), torch.tensor(CLASS), how)
    assert float(found) == pytest.approx(0, abs=1e-9)
    z, zt = (expected, (T - T.mean(1, keepdims=True)) / T.std(1, keepdims=True))
    p, q = softmax(zt / 2), softmax(z / 2)
    kl = 4 * (p * np.log(p / q)).sum(1).mean()
    assert float(teacher_loss(torch.tensor(S), torch.tensor(T), torch.tensor(CLASS), how)) == pytest.approx(kl, rel=1e-6)


@pytest.mark.parametrize("name", sorted(DISTILLATIONS))
def test_every_kind_sends_its_gradient_to_the_student(name: str) -> None:
    how = replace(Distillation(), **DISTILLATIONS[name])
    student = torch.tensor(S, requires_grad=True)
    loss = distilled_loss(lambda _: torch.tensor(T), how, label_loss(Objective(), 0.0, [], 4))
    value, parts = loss(student, torch.zeros(1), torch.tensor(CLASS))
    value.backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert float(student.grad.abs().max()) > 0
    whole = 0.7 * parts["soft"] + 0.3 * parts["hard"] if name == "kl" else parts["soft"] + parts["hard"]
    assert value.item() == pytest.approx(whole.item())


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
