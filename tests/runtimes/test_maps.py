"""Heat maps by occlusion: a network that looks at a known region, by its real engine, from Python and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn

import octc
from octc.runtimes.maps import POINT, MapOptions, calls_for, occlusion
from tests.conftest import Octc

HERE = True  # commands in this process (tests/conftest.py)

SIZE, REGION = 64, (slice(8, 20), slice(26, 38))  # rows, columns that the network looks at
PRE = octc.Preprocess(size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
QUICK = octc.QuantizeOptions(rounding=False, observers=["max"])


class Looks(nn.Module):
    """Logits from the mean of one region: a bright one is the second class."""

    def __init__(self, gain: float = 1.5) -> None:
        super().__init__()
        kernel = torch.zeros(1, 3, SIZE, SIZE)
        kernel[:, :, REGION[0], REGION[1]] = gain / 3 / 144
        self.conv = nn.Conv2d(3, 1, SIZE, bias=False)
        self.conv.weight = nn.Parameter(kernel)
        self.head = nn.Linear(1, 2)
        self.head.weight, self.head.bias = nn.Parameter(torch.tensor([[-1.0], [1.0]])), nn.Parameter(torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.conv(x).flatten(1))
        return found


def picture(bright: bool, seed: int) -> Image.Image:
    """Noise about grey, a bright or dark square where the network looks, and a bright one elsewhere, which it ignores."""
    pixels = np.random.default_rng(seed).normal(110, 6, (SIZE, SIZE))
    pixels[REGION] += 90 if bright else -90
    pixels[40:56, 4:20] += 60
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An FP32 artifact of the network for one engine, and pictures beside it."""
    place = tmp_path_factory.mktemp(request.param)
    images = [picture(i % 2 == 1, i) for i in range(24)]
    own = octc.quantize(Looks(), images, PRE, classes=["dark", "bright"], options=QUICK, name="looks")
    precision = {"onnx": "fp32", "openvino": "fp16"}[request.param]
    (artifact,) = octc.export(own, [request.param], precision, out=place)
    for i in range(4):
        images[i].save(place / f"{i}.png")
    (place / "notes.png").write_text("no image")
    return artifact


def inside(values: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Mean change of the region and the largest one that is farther away than a square."""
    outside = np.ones_like(values, bool)
    outside[:28, 18:46] = False
    return float(values[REGION].mean()), float(np.abs(values[outside]).max())


def test_a_map_shows_the_region_that_the_network_looks_at(folder: Path) -> None:
    pictures = [folder.parent / f"{i}.png" for i in (0, 1)]
    with octc.load(folder) as model:
        dark, bright = model.maps(pictures)
        answers = model.predict(pictures)
        again = model.maps(pictures, batch=3)
    assert dark is not None
    assert bright is not None
    for heat, answer in ((dark, answers[0]), (bright, answers[1])):
        assert (heat.label, heat.probability) == (answer.label, pytest.approx(answer.confidence))
        here, elsewhere = inside(heat.values)
        assert here > 0.02 > 20 * elsewhere
        peak = np.unravel_index(int(heat.values.argmax()), heat.values.shape)
        assert 8 <= peak[0] < 20
        assert 26 <= peak[1] < 38
    assert dark.to_png() == dark.to_png()
    assert again[0] is not None
    assert again[0].values == pytest.approx(dark.values, abs=1e-6)


def test_the_command_writes_a_captioned_picture_for_each_answer(folder: Path, tmp_path: Path, octc: Octc) -> None:
    words = [str(folder.parent / name) for name in ("0.png", "notes.png", "1.png")]
    done = octc("predict", str(folder), *words, "--maps", "maps", "--json")
    assert done.returncode == 3, done.stderr
    records = json.loads(done.stdout)["data"]["records"]
    assert [record.get("map") for record in records] == ["maps/0001-0.png", None, "maps/0003-1.png"]
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        "0001-0.png",
        "0003-1.png",
    ]
    for record in (records[0], records[2]):
        with Image.open(tmp_path / record["map"]) as image:
            said = str(image.info["Description"])
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert f"{record['label']}, probability {record['confidence']:.4f}" in said
        assert f"Network {folder.name} (looks), file model." in said
        assert "squares of 8 px, step 4 px, of 64 x 64 px" in said
        side = (pixels.shape[1] - 24) // 2
        plain, mapped = pixels[8 : 8 + side, 8 : 8 + side], pixels[8 : 8 + side, 16 + side : 16 + 2 * side]
        orange = mapped[..., 0] - mapped[..., 2]
        scale = side // SIZE
        assert (plain[..., 0] == plain[..., 2]).all()  # the picture itself is grey
        assert orange[14 * scale, 32 * scale] > 60
        assert abs(orange[50 * scale, 50 * scale]) < 10
    again = octc("predict", str(folder), words[0], "--maps", "maps")
    assert (again.returncode, "OCT-E106" in again.stderr, "maps-2" in again.stderr) == (2, True, True)
    several = octc("predict", str(folder), words[0], "--maps", "other", "--tta", "hflip")
    assert (several.returncode, "OCT-E102" in several.stderr) == (2, True)
    assert not (tmp_path / "other").exists()


def test_no_map_without_an_answer_and_no_square_that_does_not_fit(folder: Path) -> None:
    with octc.load(folder) as model:
        assert model.maps([folder.parent / "notes.png"]) == [None]
        for patch, stride in ((0, None), (33, None), (6, 7), (6, 0)):
            with pytest.raises(octc.OctcError) as caught:
                model.maps([], patch=patch, stride=stride)
            assert caught.value.code == "OCT-E104"


def test_a_picture_whose_answer_depends_on_no_region_stays_pale(folder: Path) -> None:
    flat = Image.new("L", (SIZE, SIZE), 120)
    flat.save(folder.parent / "flat.png")
    with octc.load(folder) as model:
        (heat,) = model.maps([folder.parent / "flat.png"])
    if heat is not None:  # a flat picture may be unlike the training images: then there is no answer
        assert float(np.abs(heat.values).max()) < POINT
        assert "by one point" in heat.caption()[3]


def test_every_pixel_is_covered_and_the_number_of_runs_is_the_one_that_is_told() -> None:
    seen: list[int] = []

    def network(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        seen.append(len(batch))
        bright = batch.astype(np.float32).mean(axis=(1, 2, 3)) / 255
        return np.stack([bright, -bright], axis=1)

    image = np.zeros((1, 20, 20), np.uint8)
    image[:, 17:, 17:] = 255  # in the corner that only the last squares reach
    score, values = occlusion(network, image, lambda logits: logits[:, 0].astype(np.float64), 6, 4, batch=7)
    assert np.isfinite(values).all()
    assert score == pytest.approx(float(image.mean()) / 255)
    assert np.unravel_index(int(values.argmax()), values.shape) >= (14, 14)
    assert set(seen) == {7}
    assert 0 <= sum(seen) - calls_for(20, MapOptions(6, 4)) < 7
