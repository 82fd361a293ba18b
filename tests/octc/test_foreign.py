"""Preprocessing of other libraries, read as data, against what these libraries do themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torchvision
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification
from transformers import ConvNextImageProcessor, ViTImageProcessor

from octc.core.errors import OctcError
from octc.imaging.foreign import Foreign, read_foreign
from octc.imaging.preprocess import Float32, Preprocess
from tests.stand_ins import normalised


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width)
    smooth = np.kron(rng.integers(0, 256, (height // 8, width // 8, 3)), np.ones((8, 8, 1)))
    return Image.fromarray(np.clip(smooth + rng.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8))


PICTURES = [picture(200, 120), picture(96, 184), picture(160, 160)]


def ours(known: Foreign, image: Image.Image) -> Float32:
    """What octc reads the source to do: float32 [3, S, S]."""
    return known.normalised(known.picture(image)[None])[0]


@pytest.mark.parametrize("image", PICTURES)
@pytest.mark.parametrize("stated", [
    {"input_size": (3, 64, 64), "crop_pct": 0.875, "interpolation": "bicubic", "crop_mode": "center"},
    {"input_size": (3, 64, 64), "crop_pct": 1.0, "interpolation": "bilinear", "crop_mode": "center"},
    {"input_size": (3, 64, 64), "crop_pct": 0.9, "interpolation": "bicubic", "crop_mode": "squash"},
])  # fmt: skip
def test_timm(stated: dict[str, Any], image: Image.Image) -> None:
    full = {**stated, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    theirs = create_transform(**full)(image).numpy()
    np.testing.assert_allclose(ours(read_foreign({"pretrained_cfg": full}), image), theirs, atol=1e-5)


@pytest.mark.parametrize("image", PICTURES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_torchvision(interpolation: str, image: Image.Image) -> None:
    stated = {"crop_size": 64, "resize_size": 80, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25), "antialias": True}
    theirs = ImageClassification(**{**stated, "interpolation": InterpolationMode(interpolation)})(image).numpy()
    np.testing.assert_allclose(ours(read_foreign({**stated, "interpolation": interpolation}), image), theirs, atol=1e-5)


@pytest.mark.parametrize("image", PICTURES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_torchvision_without_antialiasing_on_tensors(interpolation: str, image: Image.Image) -> None:
    stated = {"crop_size": 64, "resize_size": 80, "mean": (0, 0, 0), "std": (1, 1, 1), "antialias": False}
    pixels = torchvision.transforms.functional.pil_to_tensor(image)
    theirs = ImageClassification(**{**stated, "interpolation": InterpolationMode(interpolation)})(pixels).numpy()
    known = read_foreign({**stated, "interpolation": interpolation})
    away = np.abs(ours(known, image) - theirs) * 255
    assert away.max() <= 1.01  # rounded to whole grey levels in another place
    with_ = np.abs(ours(read_foreign({**stated, "interpolation": interpolation, "antialias": True}), image) - theirs) * 255
    assert with_.max() > 20


@pytest.mark.parametrize("image", PICTURES)
@pytest.mark.parametrize("processor", [
    ViTImageProcessor(size={"height": 64, "width": 64}, resample=2, image_mean=[0.5] * 3, image_std=[0.5] * 3),
    ViTImageProcessor(size={"height": 64, "width": 64}, resample=3, do_normalize=False),
    ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875, resample=3),
])  # fmt: skip
def test_transformers(processor: Any, image: Image.Image) -> None:
    known = read_foreign(processor.to_dict())
    theirs = np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
    level = 1 / 255 / min(known.std) if known.factor < 1 else 1
    away = np.abs(ours(known, image) - theirs) / level  # it resizes as PyTorch does, which rounds once less
    assert np.quantile(away, 0.99) <= 2.01
    assert away.mean() <= 0.5


def test_every_preset_of_timm_and_torchvision_can_be_read() -> None:
    """Or says what cannot be repeated: input that is not square, crops with a border."""
    refused = set()
    for name in timm.list_pretrained()[::40]:
        stated = timm.models.get_pretrained_cfg(name).to_dict()
        try:
            known = read_foreign(stated)
        except OctcError as error:
            refused.add(error.message)
            continue
        assert known.size == stated["input_size"][1]
    assert all("square" in text or "crop_mode" in text for text in refused)
    for name in torchvision.models.list_models(torchvision.models):
        preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
        assert read_foreign({"crop_size": preset.crop_size, "resize_size": preset.resize_size}).size == preset.crop_size[0]


def test_octcs_own_is_matched_to_the_bit() -> None:
    for pre in (Preprocess(64), Preprocess(48, 3, "bicubic"), Preprocess(32, clahe=2.0)):
        known = read_foreign(pre.to_json())
        assert known.preprocess == pre
        assert known.unmatched == ()
        for image in PICTURES:
            np.testing.assert_array_equal(known.picture(image), pre.prepare(image)[0])


def test_another_factor_is_the_same_numbers_in_octcs_terms() -> None:
    """No rescaling, a mean of 0 to 255: as Preprocess, values of 0 to 1."""
    stated = {
        "do_rescale": False,
        "image_mean": [100, 110, 120],
        "image_std": [50, 60, 70],
        "size": {"height": 64, "width": 64},
    }
    known = read_foreign(stated)
    pixels = known.picture(PICTURES[0])[None]
    np.testing.assert_allclose(normalised(pixels, known.preprocess), known.normalised(pixels), atol=1e-4)


@pytest.mark.parametrize("keys", [("mean", "std", {"size": 64}), ("image_mean", "image_std", {"do_rescale": True})])
def test_a_mean_of_0_to_255_for_pixels_of_0_to_1_is_refused_with_its_255th(keys: tuple[str, str, dict[str, Any]]) -> None:
    mean, std, more = keys
    with pytest.raises(OctcError) as caught:
        read_foreign({**more, mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375]})
    assert caught.value.code == "OCT-E104"
    assert '"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]' in caught.value.hint


@pytest.mark.parametrize("wrong", [
    [], {}, {"size": 64, "strange": 1}, {"size": "big"}, {"size": 64, "std": [0, 1, 1]}, {"size": 4},
    {"input_size": [3, 64, 32]}, {"input_size": [3, 64, 64], "crop_mode": "border"}, {"crop_size": [64], "mean": [1, 2]},
    {"do_resize": True, "do_pad": True}, {"do_resize": True, "size": {"height": 64, "width": 48}},
    {"input_size": [3, 64, 64], "interpolation": "fancy"}, {"size": 64, "mean": [float("nan"), 0, 0]},
    {"do_resize": True, "rescale_factor": 0}, {"do_resize": True, "rescale_factor": -1 / 255},
])  # fmt: skip
def test_what_cannot_be_repeated_is_refused(wrong: Any) -> None:
    with pytest.raises(OctcError) as caught:
        read_foreign(wrong)
    assert caught.value.code == "OCT-E104"
    assert "preprocessor_config.json" in caught.value.hint
