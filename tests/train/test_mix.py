"""MixUp and CutMix: what is mixed, by how much, and that the targets say so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from octc.train.batches.mix import Mixing, draw_mixing, mix_images, mix_targets
from octc.train.recipes.config import Mix

BOTH = Mix(mixup=0.4, cutmix=1.0, prob=0.8, switch=0.5)


def draws(how: Mix, count: int = 400) -> list[Mixing | None]:
    return [draw_mixing(how, (0, 0, step, 0), 6, 32) for step in range(count)]


def test_nothing_is_mixed_by_default() -> None:
    assert not Mix().on
    assert draws(Mix(), 20) == [None] * 20
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    assert mix_images(images, None) is images
    assert mix_targets(labels, None, 3) is labels


def test_probabilities_of_mixing_and_of_cutting() -> None:
    found = draws(BOTH)
    mixed = [mixing for mixing in found if mixing is not None]
    assert len(mixed) / len(found) == pytest.approx(0.8, abs=0.06)
    assert sum(m.box is not None for m in mixed) / len(mixed) == pytest.approx(0.5, abs=0.08)
    assert all(0.0 <= m.share <= 1.0 for m in mixed)
    assert all(m is not None and m.box is None for m in draws(Mix(mixup=0.2), 50))
    assert all(m is not None and m.box is not None for m in draws(Mix(cutmix=1.0), 50))


def test_a_draw_depends_on_its_key_alone() -> None:
    assert draw_mixing(BOTH, (3, 1, 4, 0), 6, 32) == draw_mixing(BOTH, (3, 1, 4, 0), 6, 32)
    keys = [(3, 1, 4, 0), (4, 1, 4, 0), (3, 2, 4, 0), (3, 1, 5, 0), (3, 1, 4, 1)]
    shares = {m.share if (m := draw_mixing(Mix(mixup=1.0), key, 6, 32)) else -1.0 for key in keys}
    assert len(shares) == len(keys)


def test_partners_are_the_batch_backwards_or_permuted() -> None:
    first = draw_mixing(Mix(mixup=1.0), (0, 0, 0, 0), 5, 32)
    assert first is not None
    assert first.partner == (4, 3, 2, 1, 0)
    permuted = draws(Mix(mixup=1.0, partner="permutation"), 30)
    assert all(m is not None and sorted(m.partner) == list(range(6)) for m in permuted)
    assert len({m.partner for m in permuted if m is not None}) > 20


def test_mixup_is_the_weighted_mean_of_both_pictures_and_labels() -> None:
    images, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    mixing = Mixing((3, 2, 1, 0), 0.3, None)
    assert torch.allclose(mix_images(images, mixing), 0.3 * images + 0.7 * images.flip(0), atol=1e-6)
    targets = mix_targets(labels, mixing, 3)
    assert targets[1].tolist() == pytest.approx([0.0, 0.3, 0.7])
    assert targets[0].tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert torch.allclose(targets.sum(1), torch.ones(4))


def test_cutmix_share_is_what_was_cut_off_and_the_box_is_the_partners() -> None:
    images = torch.rand(6, 1, 32, 32)
    kept = images.clone()
    for mixing in draws(Mix(cutmix=1.0), 60):
        assert mixing is not None
        assert mixing.box is not None
        y0, y1, x0, x1 = mixing.box
        assert 0 <= y0 <= y1 <= 32
        assert 0 <= x0 <= x1 <= 32
        assert mixing.share == pytest.approx(1 - (y1 - y0) * (x1 - x0) / 1024)
        mixed = mix_images(images, mixing)
        inside = np.zeros((32, 32), bool)
        inside[y0:y1, x0:x1] = True
        other = images[list(mixing.partner)]
        assert torch.equal(mixed, torch.where(torch.from_numpy(inside), other, images))
    assert torch.equal(images, kept)
