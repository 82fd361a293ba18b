"""Published augmentation pipelines: their order, their values, what C11 mends, and draws that depend on their key alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from octc.train.batches import pipelines as views
from octc.train.batches.pipelines import AS_RELEASED, PIPELINES, erase, picture_views, rand_augment
from octc.train.recipes.config import HALF, Stage
from octc.train.recipes.registry import RECIPES

SIDE = 32


def stage(name: str, **fields: Any) -> Stage:
    return replace(Stage(model="x", weights="none", size=SIDE, epochs=1, lr=0.1, views=name), **fields)


def canvas(count: int = 4, side: int = 40) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 1, side, side), dtype=np.uint8))


@pytest.mark.parametrize("name", [*PIPELINES, *(f"{name}{AS_RELEASED}" for name in ("kd-teacher", "kd-student"))])
def test_views_have_the_networks_size_and_depend_on_seed_epoch_and_image_alone(name: str) -> None:
    images, indices = canvas(), torch.tensor([5, 6, 7, 8])
    found = picture_views(images, indices, stage(name), 1, 2)
    assert found.shape == (4, 3, SIDE, SIDE)
    assert found.dtype == torch.float32
    assert 0 <= float(found.min()) <= float(found.max()) <= 255
    turned = picture_views(images.flip(0), indices.flip(0), stage(name), 1, 2)
    assert torch.equal(turned.flip(0), found)
    assert not torch.equal(picture_views(images, indices, stage(name), 1, 3), found)
    assert not torch.equal(picture_views(images, indices, stage(name), 2, 2), found)


def names_of(steps: list[Any]) -> list[str]:
    return [step.func.__name__ for step in steps]


def test_f43_steps_stand_in_the_published_order_with_their_values() -> None:
    teacher = PIPELINES["kd-teacher"][0](384, False)
    assert names_of(teacher) == [
        "crop",
        "rand_augment",
        "rotate",
        "affine",
        "jitter",
        "hflip",
        "vflip",
        "sometimes",
        "sometimes",
    ]
    values = [step.keywords for step in teacher]
    assert values[1] == {
        "m": 9, "turn": 30, "fixed": False,
        "names": ("brightness", "contrast", "saturation", "sharpness", "rotate", "translate"),
    }  # fmt: skip
    assert values[2:7] == [
        {"degrees": 20}, {"shear": 15, "scale": 0.15}, {"brightness": 0.3, "contrast": 0.3, "saturation": 0.2, "hue": 0.05},
        {"p": 0.5}, {"p": 0.3},
    ]  # fmt: skip
    assert (values[7]["p"], values[7]["step"].func, values[7]["step"].keywords) == (0.2, views.blur, {"kernel": 3})
    assert (values[8]["p"], values[8]["step"].func, values[8]["step"].keywords) == (0.2, views.posterize, {"p": 0.5})
    assert PIPELINES["kd-teacher"][1:] == (0.25, 0.15, False)
    student = PIPELINES["kd-student"][0](384, False)
    assert names_of(student) == ["crop", "rand_augment", "rotate", "jitter", "hflip"]
    assert student[1].keywords["names"] == ("brightness", "contrast", "rotate", "translate")
    assert (student[1].keywords["m"], student[1].keywords["turn"]) == (7, 20)
    assert PIPELINES["kd-student"][1:] == (0.2, 0.1, False)
    siglip = PIPELINES["medsiglip"][0](448, True)
    assert names_of(siglip) == ["resized_crop", "hflip", "sometimes", "sometimes", "sometimes", "rotate"]
    assert PIPELINES["medsiglip"][1:] == (0.2, 0.1, True)
    assert names_of(PIPELINES["sfnet"][0](224, True)) == ["resized_crop", "hflip", "vflip", "rotate", "jitter"]
    assert PIPELINES["sfnet"][1] == 0.0


def test_canvases_are_the_published_first_resizes() -> None:
    for recipe, side in (("kd-oct-ucsd-as-released", 416), ("sfnet", 246), ("medsiglip", 512)):
        teacher = RECIPES[recipe]().teacher
        assert round(teacher.size * teacher.canvas) == side


GREY = Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64), dtype=np.uint8))


def one_operation(name: str, fixed: bool, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return np.asarray(rand_augment(GREY, rng, 9, 30, (name,), fixed))


def test_c11_translation_moves_pixels_only_in_the_mended_pipeline() -> None:
    assert np.array_equal(one_operation("translate", fixed=False), np.asarray(GREY))
    moved = {seed: one_operation("translate", fixed=True, seed=seed) for seed in range(6)}
    shift = round(0.09 * 64)
    for picture in moved.values():
        down = np.array_equal(picture[shift:, shift:], np.asarray(GREY)[:-shift, :-shift])
        up = np.array_equal(picture[:-shift, :-shift], np.asarray(GREY)[shift:, shift:])
        assert down != up
    assert len({picture.tobytes() for picture in moved.values()}) == 2  # both signs occur


def test_c11_saturation_does_nothing_on_grey_and_is_not_drawn_where_mended() -> None:
    assert np.array_equal(one_operation("saturation", fixed=False), np.asarray(GREY))
    assert "saturation" not in PIPELINES["kd-teacher"][0](384, True)[1].keywords["names"]
    assert not np.array_equal(one_operation("sharpness", fixed=False), np.asarray(GREY))


def test_two_distinct_operations_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def note(name: str, picture: Image.Image, factor: float) -> Image.Image:
        assert factor == pytest.approx(1.3) or factor == pytest.approx(0.7)
        seen.append(name)
        return picture

    names = ("brightness", "contrast", "saturation", "sharpness")
    monkeypatch.setattr(views, "ADJUST", {name: partial(note, name) for name in names})
    for seed in range(40):
        rand_augment(GREY, np.random.default_rng(seed), 9, 30, names, False)
    pairs = list(zip(seen[::2], seen[1::2], strict=True))
    assert all(first != second for first, second in pairs)
    assert len(set(pairs)) > 8  # of 12


def test_erased_boxes_have_the_published_sizes() -> None:
    pixels = np.full((3, 64, 64), 200.0, np.float32)
    shares = []
    for seed in range(300):
        out = erase(pixels, np.random.default_rng(seed), 0.25, 0.15, [0.0, 0.0, 0.0])
        shares.append(float((out[0] == 0).mean()))
    hit = [share for share in shares if share > 0]
    assert len(hit) / 300 == pytest.approx(0.25, abs=0.08)
    assert min(hit) > 0.015
    assert max(hit) < 0.16
    assert float(pixels.min()) == 200.0


def test_erasing_after_normalising_leaves_zero_in_the_network() -> None:
    how = stage("medsiglip", mean=HALF[0], std=HALF[1])
    images = torch.full((64, 1, 40, 40), 255, dtype=torch.uint8)
    found = picture_views(images, torch.arange(64), how, 0, 0)
    normalised = (found / 255 - 0.5) / 0.5
    erased = (normalised.abs() < 1e-6).flatten(1).float().mean(1)
    assert 4 <= int((erased > 0.015).sum()) <= 24  # about a fifth of 64
