"""Cross-modal losses against numpy written from the formulas, the specification's check values, and their edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from octc.train.crossmodal.losses import (
    Side,
    class_set,
    cross_modal,
    major_dims,
    mutual_divergence,
    prototypes,
    similarity_alignment,
)

F = np.float64
S = [[1, 2, 0, -1, 0.5, 3], [0, 1, 1, 2, -0.5, 1], [2, -1, 0.5, 0, 1, 0.5], [-1, 0, 3, 1, 0.25, -0.75]]
T = [[2, 1, 0, 0, 1, 2], [1, 1, -1, 1, 0, 0.5], [0, 2, 1, -1, 0.5, 1], [0.5, 0, 2, 1, -1, 0]]
V = [[1, -1, 0.5], [-0.5, 2, 0], [0, 0.5, 1.5], [2, 1, -1]]
U = [[1.5, -0.5, 0], [0, 1, -1], [0.5, 0, 2], [1, 1, 0.5]]
YS = [[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0]]
YT = [[1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 1, 0]]


def side(features: object, logits: object, labels: object) -> Side:
    return Side(*(torch.tensor(np.asarray(value), dtype=torch.float64) for value in (features, logits, labels)))


def numpy_kd(a: np.ndarray, b: np.ndarray, weight: float, t: float) -> float:
    """Row by row, from the definition of the divergence."""
    total = 0.0
    for row_a, row_b in zip(a, b, strict=True):
        p, q = (np.exp(r / t) / np.exp(r / t).sum() for r in (row_b, row_a))
        total += sum(pi * np.log(pi / qi) for pi, qi in zip(p, q, strict=True))
    return weight * t * t * total / len(a)


def numpy_losses(values: Any, labels: Any, temperature: float, alpha: float, beta: float) -> tuple[float, float]:
    """CPM and CSA with loops over classes and dimensions."""
    s, t, v, u, ys, yt = (np.asarray(a, F) for a in (*values, *labels))
    shared = [k for k in range(ys.shape[1]) if ys[:, k].any() and yt[:, k].any()]
    if not shared:
        return 0.0, 0.0

    def means(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.array([np.mean([x for x, y in zip(values, labels, strict=True) if y[k] == 1], axis=0) for k in shared])

    ps, pt, qs, qt = means(s, ys), means(t, yt), means(v, ys), means(u, yt)
    mu = ps.mean(0)
    cpm = 0.0
    for chosen in ([d for d in range(len(mu)) if mu[d] > mu.mean()], [d for d in range(len(mu)) if mu[d] <= mu.mean()]):
        cpm += numpy_kd(ps[:, chosen], pt[:, chosen], alpha, temperature) if chosen else 0.0

    def cosines(q: np.ndarray) -> np.ndarray:
        return np.array([[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in q] for a in q])

    return cpm, numpy_kd(cosines(qs), cosines(qt), beta, temperature)


def test_f34_the_check_values_of_the_specification() -> None:
    student, teacher = side(S, V, YS), side(T, U, YT)
    assert class_set(student.labels, teacher.labels).tolist() == [0, 1]
    own = prototypes(student.features, student.labels, torch.tensor([0, 1]))
    np.testing.assert_allclose(own.mean(0), [0.5, 0.5, 1.0416666667, 0.8333333333, 0.1666666667, 0.9166666667], atol=1e-9)
    assert major_dims(own).tolist() == [False, False, True, True, False, True]
    cpm, csa = cross_modal(student, teacher, 4.0, 2.0, 1.0)
    assert float(cpm) == pytest.approx(0.5727426887, abs=1e-9)
    assert float(csa) == pytest.approx(0.0212744204, abs=1e-9)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(student.logits, student.labels)
    assert float(bce + cpm + csa) == pytest.approx(1.2620872227, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_f34_equal_to_numpy_on_random_batches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    batch, classes, dims = int(rng.integers(1, 9)), int(rng.integers(1, 12)), int(rng.integers(1, 40))
    values = [rng.normal(0, 2, (batch, width)) for width in (dims, dims, classes, classes)]
    labels = [(rng.random((batch, classes)) < 0.3).astype(F) for _ in range(2)]
    expected = numpy_losses(values, labels, 3.0, 1.5, 0.7)
    found = cross_modal(side(values[0], values[2], labels[0]), side(values[1], values[3], labels[1]), 3.0, 1.5, 0.7)
    np.testing.assert_allclose([float(x) for x in found], expected, atol=1e-9)


def test_c20_no_shared_class_gives_zero_and_a_gradient_that_is_zero() -> None:
    features = torch.tensor(S, dtype=torch.float64, requires_grad=True)
    student = Side(features, torch.tensor(V, dtype=torch.float64), torch.tensor([[1, 0, 0]] * 4))
    teacher = side(T, U, [[0, 1, 0]] * 4)
    cpm, csa = cross_modal(student, teacher, 4.0, 2.0, 1.0)
    assert float(cpm) == 0.0
    assert float(csa) == 0.0
    (features.sum() * 0 + cpm + csa).backward()
    assert float(features.grad.abs().sum()) == 0.0  # type: ignore[union-attr]


def test_one_class_has_no_similarity_and_equal_prototypes_have_no_major_half() -> None:
    one = torch.tensor([[1.0, 2.0]])
    assert float(similarity_alignment(one, 3 * one, 4.0, 1.0)) == pytest.approx(0.0, abs=1e-7)
    flat = side([[1, 1, 1]] * 2, [[1, 2]] * 2, [[1, 0], [1, 0]])
    other = side([[1, 2, 3]] * 2, [[1, 2]] * 2, [[1, 0], [1, 0]])
    cpm, _ = cross_modal(flat, other, 4.0, 2.0, 1.0)  # all dimensions are minor
    assert float(cpm) == pytest.approx(numpy_kd(np.ones((1, 3)), np.array([[1.0, 2, 3]]), 2.0, 4.0), abs=1e-9)


def test_gradients_reach_the_student_alone() -> None:
    tensors = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (S, V, T, U)]
    cpm, csa = cross_modal(
        Side(tensors[0], tensors[1], torch.tensor(YS)), Side(tensors[2], tensors[3], torch.tensor(YT)), 4, 2, 1
    )
    (cpm + csa).backward()
    assert all(float(t.grad.abs().sum()) > 0 for t in tensors[:2])  # type: ignore[union-attr]
    assert all(t.grad is None for t in tensors[2:])


def test_x3_mutual_learning_is_the_bernoulli_divergence_of_matched_pairs() -> None:
    rng = np.random.default_rng(1)
    own, other = rng.normal(0, 2, (5, 3)), rng.normal(0, 2, (5, 3))
    matched = np.array([True, False, True, True, False])
    p, q = (1 / (1 + np.exp(-x[matched])) for x in (other, own))
    expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    a, b = torch.tensor(own, requires_grad=True), torch.tensor(other, requires_grad=True)
    found = mutual_divergence(a, b, torch.tensor(matched))
    assert float(found.detach()) == pytest.approx(expected, abs=1e-12)
    found.backward()
    assert b.grad is None
    assert float(a.grad[1].abs().sum()) == 0.0  # type: ignore[index]
    assert float(mutual_divergence(a, b, torch.zeros(5, dtype=torch.bool))) == 0.0
