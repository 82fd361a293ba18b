"""Augmentation: draws that depend on seed, epoch and image alone, and pictures that stay what they are."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from octc.train.batches.augment import DRAWS, augment, draw
from octc.train.recipes.config import Augment
from octc.train.recipes.registry import RECIPES

ALL = Augment(rotate=15, shear=8, translate=0.1, scale=0.4, hflip=0.5, vflip=0.5, brightness=0.3, contrast=0.3, gamma=0.3,
              noise=0.2, blur=0.5, erase=0.5, border=0.5)  # fmt: skip


def pictures(count: int = 12, size: int = 40) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, 1, size, size)).astype(np.uint8))


def views(images: torch.Tensor, indices: list[int], how: Augment = ALL, seed: int = 0, epoch: int = 0) -> torch.Tensor:
    return augment(images[indices], torch.from_numpy(draw(seed, epoch, np.array(indices))), how)


def test_a_picture_looks_the_same_in_every_batch_and_order() -> None:
    images = pictures()
    whole = views(images, list(range(12)))
    turned = views(images, list(range(11, -1, -1)))
    alone = torch.cat([views(images, [i]) for i in range(12)])
    pairs = torch.cat([views(images, [i, (i + 5) % 12])[:1] for i in range(12)])
    for other in (turned.flip(0), alone, pairs):
        assert torch.equal(whole, other)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_depend_on_no_batch_where_threads_share_out_its_pixels(threads: int) -> None:
    """Logits of a teacher are kept with the sum of what it was shown, in batches of its own: other bits are refused (E311)."""
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (7, 3, 211, 211)).astype(np.uint8))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = views(images, list(range(7)))
        for size in (1, 2, 4):
            parts = torch.cat([views(images, list(range(i, min(i + size, 7)))) for i in range(0, 7, size)])
            assert torch.equal(parts, whole), size
    finally:
        torch.set_num_threads(before)


def test_draws_differ_by_seed_epoch_and_picture_and_repeat_exactly() -> None:
    first = draw(0, 0, np.arange(50))
    assert first.shape == (50, DRAWS)
    assert first.dtype == np.float32
    assert (first >= 0).all()
    assert (first <= 1).all()
    assert np.array_equal(first, draw(0, 0, np.arange(50)))
    assert np.array_equal(first[7:9], draw(0, 0, np.array([7, 8])))
    rows = np.concatenate([first, draw(0, 1, np.arange(50)), draw(1, 0, np.arange(50))])
    assert len(np.unique(rows.round(6), axis=0)) == 150
    assert abs(float(draw(3, 2, np.arange(4000)).mean()) - 0.5) < 0.01


def test_every_epoch_shows_another_view() -> None:
    images = pictures()
    assert not torch.allclose(views(images, [3], epoch=0), views(images, [3], epoch=1), atol=1.0)


def test_all_ranges_zero_is_the_picture_itself() -> None:
    images = pictures()
    assert torch.equal(views(images, list(range(12)), Augment()), images.float())


@pytest.mark.parametrize("name", [f.name for f in fields(Augment) if f.name not in ("erase_area", "border")])
def test_each_step_alone_acts_and_keeps_the_range(name: str) -> None:
    images = pictures(16)
    value = {"rotate": 10.0, "shear": 10.0, "hflip": 1.0, "vflip": 1.0, "blur": 1.0, "erase": 1.0}.get(name, 0.2)
    out = views(images, list(range(16)), replace(Augment(), **{name: value}))
    assert out.shape == images.shape
    assert out.dtype == torch.float32
    assert float(out.min()) >= 0
    assert float(out.max()) <= 255
    changed = (out - images.float()).abs().amax((1, 2, 3)) > 1
    assert changed.float().mean() > 0.9


def test_flips_are_exact_mirrors() -> None:
    images = pictures()
    across = views(images, list(range(12)), Augment(hflip=1.0))
    assert torch.allclose(across, images.float().flip(3), atol=0.05)
    down = views(images, list(range(12)), Augment(vflip=1.0))
    assert torch.allclose(down, images.float().flip(2), atol=0.05)


def test_geometry_moves_a_spot_where_the_draw_says() -> None:
    """A bright spot right of the middle: its place after rotation, scale and shift, from the drawn numbers in plain algebra."""
    size = 129
    image = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    image[0, 0, 62:67, 92:97] = 255  # centre (x, y) = (30, 0) from the middle
    for epoch in range(6):
        how = Augment(rotate=30, translate=0.1, scale=0.2)
        u = draw(0, epoch, np.array([0]))
        s = (u[0] * 2 - 1).astype(np.float64)
        out = augment(image, torch.from_numpy(u), how)[0, 0].double()
        y, x = np.mgrid[:size, :size] - size // 2
        weight = out.numpy() / float(out.sum())
        found = np.array([(weight * x).sum(), (weight * y).sum()])
        # out(p) = in(M p + t): the spot appears at M^-1 (p0 - t)
        angle = np.radians(30 * s[0])
        zoom = np.array([1 + 0.2 * s[2], 1 + 0.2 * s[3]])
        matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom[:, None]
        shift = np.array([s[6], s[7]]) * 0.1 * size
        assert np.allclose(found, np.linalg.solve(matrix, np.array([30.0, 0.0]) - shift), atol=0.6)


def test_scale_brings_the_spot_nearer_or_further_by_its_factor() -> None:
    image = torch.full((1, 1, 64, 64), 200, dtype=torch.uint8)
    shares = []
    for epoch in range(200):
        out = augment(image, torch.from_numpy(draw(0, epoch, np.array([0]))), Augment(translate=0.1))
        shares.append(float((out < 1).float().mean()))
    assert max(shares) < 1 - 0.9**2 + 0.01  # what is moved in from outside is at most a tenth a side
    assert max(shares) > 0.1


def test_border_is_black_or_white_by_its_share() -> None:
    image = torch.full((1, 1, 64, 64), 128, dtype=torch.uint8)
    corners = []
    for epoch in range(300):
        out = augment(image, torch.from_numpy(draw(0, epoch, np.array([0]))), Augment(rotate=40, border=0.3))
        if float((out - 128).abs().max()) > 60:
            corners.append(float(out[0, 0, 0, 0]) > 128)
    assert len(corners) > 200
    assert 0.2 < np.mean(corners) < 0.4


def test_erased_box_is_black_within_its_area_and_as_often_as_asked() -> None:
    image = torch.full((1, 1, 100, 100), 255, dtype=torch.uint8)
    u = torch.from_numpy(draw(5, 0, np.arange(600)))
    out = augment(image.expand(600, 1, 100, 100), u, Augment(erase=0.25, erase_area=0.15))
    dark = (out == 0).float().mean((1, 2, 3))
    hit = dark > 0
    assert 0.2 < float(hit.float().mean()) < 0.3
    assert float(dark[hit].max()) <= 0.16
    assert float(dark[hit].min()) >= 0.015
    assert set(out.unique().tolist()) == {0.0, 255.0}


def test_speckle_has_the_asked_strength_and_no_bias() -> None:
    image = torch.full((200, 1, 32, 32), 100, dtype=torch.uint8)
    u = draw(2, 0, np.arange(200))
    out = augment(image, torch.from_numpy(u), Augment(noise=0.2))
    sigma = out.std((1, 2, 3)).numpy() / 100
    assert np.allclose(sigma, 0.2 * u[:, 12], atol=0.02)
    assert abs(float(out.mean()) - 100) < 0.5


@pytest.mark.parametrize("name", RECIPES)
def test_views_of_the_recipes_stay_pictures(name: str) -> None:
    """A layered picture under the views of a recipe: neither blank nor saturated, nor far from where it was in the mean."""
    layers = (np.sin(np.arange(64) / 4) * 60 + 110).astype(np.uint8)
    images = torch.from_numpy(np.tile(layers[:, None], (1, 64))[None, None]).expand(64, 1, 64, 64)
    recipe = RECIPES[name]()
    for stage in (recipe.teacher, recipe.student):
        out = views(images, list(range(64)), stage.augment)
        assert float(out.std((1, 2, 3)).min()) > 15
        means = out.mean((1, 2, 3))
        assert float(means.min()) > 25
        assert float(means.max()) < 230
