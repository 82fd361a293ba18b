"""Networks with attention and shuffled channels, which OpenVINO makes operators of its own from, in every engine's file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import octc
from octc.compress.placement import XNNPACK, quantisers
from octc.machine.cpu import read_flags
from octc.runtimes.model import load
from octc.train.networks.models import normalise

PRE = octc.Preprocess(size=32)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = (layer(x).unflatten(2, (2, 8)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        x = x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        logits: torch.Tensor = self.head(x.mean(1))
        return logits


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shuffle = nn.Conv2d(3, 8, 4, 4), nn.ChannelShuffle(4)
        self.last, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.relu(self.last(self.shuffle(torch.relu(self.stem(x))))).mean((2, 3)))
        return logits


class Placed(nn.Module):
    """As EdgeNeXt: places that a convolution makes of a constant, in front of a transformer of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.place, self.head = nn.Conv2d(3, 16, 8, 8), nn.Conv2d(4, 16, 1), nn.Linear(16, 2)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu")
        self.register_buffer("places", torch.randn(1, 4, 4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.place(self.places.expand(x.shape[0], -1, -1, -1))
        logits: torch.Tensor = self.head(self.encoder(x.flatten(2).permute(2, 0, 1)).mean(0))
        return logits


def limited() -> bool:
    """Whether OpenVINO refuses layer norms over the last axis, because kernels are limited below what the processor has.

    OpenVINO 2026.4.1 with ONEDNN_MAX_CPU_ISA=SSE41 (`make test-isa`) on a processor with AVX2: "bad combination". Processors
    that have no AVX2 compile them, with that variable too (emulated Nehalem, Sandy Bridge and Denverton, docs/experiments.md).
    """
    return os.environ.get("ONEDNN_MAX_CPU_ISA") == "SSE41" and "avx2" in read_flags()[1]


@pytest.mark.parametrize("kind", [Attention, Shuffled, Placed])
def test_every_file_answers_as_the_network_does(kind: type[nn.Module], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = []
    for i in range(16):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray((rng.integers(0, 120, (40, 40)) + 40 * (i % 4)).astype(np.uint8)).save(files[-1])
    images = [Image.open(file).convert("L") for file in files]
    torch.manual_seed(0)
    model = kind().eval()
    with torch.no_grad():
        pixels = normalise(torch.stack([torch.from_numpy(PRE.prepare(image)[0]) for image in images]), PRE)
        expected = model(pixels).softmax(1).numpy()
    options = octc.QuantizeOptions(rounding=False, observers=["max"])
    quantized = octc.quantize(model, images, PRE, classes=["a", "b"], options=options)
    octc.export(quantized, ["tensorrt"], out=tmp_path / "tensorrt")  # what TensorRT would run in float is refused
    targets = ["onnx", "openvino"]
    if kind is Placed and limited():
        targets.remove("openvino")
        with pytest.raises(octc.OctcError) as caught:
            octc.export(quantized, ["openvino"], "fp32", out=tmp_path / "refused")
        assert caught.value.code == "OCT-E407"
    for precision, most in (("fp32", 1e-4), ("int8", 0.05)):
        for one in octc.export(quantized, targets, precision, out=tmp_path / precision):
            folder = getattr(one, "folder", one)
            found = np.array([list(row.probabilities.values()) for row in load(folder).predict(files)])
            assert np.abs(found - expected).max() < most, (precision, str(folder))


class Repeated(nn.Module):
    """As XCiT: a map of places that a convolution makes of a constant, in every image of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.place = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1)
        self.last, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 2)
        self.register_buffer("places", torch.randn(1, 8, 8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        steps = self.places.expand(x.shape[0], -1, -1, -1)
        places = self.place(torch.cat([steps.sin(), steps.cos()], dim=3).permute(0, 3, 1, 2)).relu()
        logits: torch.Tensor = self.head(torch.relu(self.last(x + places)).mean((2, 3)))
        return logits


def test_places_in_every_image_are_one_constant_to_litert(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray((rng.integers(0, 120, (40, 40)) + 40 * (i % 4)).astype(np.uint8)) for i in range(16)]
    torch.manual_seed(0)
    options = octc.QuantizeOptions(rounding=False, observers=["max"], placement=XNNPACK)
    quantized = octc.quantize(Repeated().eval(), images, PRE, classes=["a", "b"], options=options)
    names = set(quantisers(quantized.module))
    assert names == {"quant_input_x", "quant_inner_relu", "quant_inner_relu_1", "quant_input_add", "quant_inner_relu_2"}
    (one,) = octc.export(quantized, ["litert"], out=tmp_path)
    pixels = normalise(torch.stack([torch.from_numpy(PRE.prepare(image)[0]) for image in images]), PRE)
    with torch.no_grad():
        expected = quantized.module(pixels).softmax(1).numpy()
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    for image, file in zip(images, files, strict=True):
        image.save(file)
    found = np.array([list(row.probabilities.values()) for row in load(getattr(one, "folder", one)).predict(files)])
    assert np.abs(found - expected).max() < 0.01


class Spatial(nn.Module):
    """As CBAM: places are weighed by the mean and the largest of their channels (Woo et al. 2018, arXiv 1807.06521)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.place = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(2, 1, 7, padding=3)
        self.last, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = x * torch.sigmoid(20 * self.place(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)))
        logits: torch.Tensor = self.head(torch.relu(self.last(x)).mean((2, 3)))
        return logits


def test_openvino_weighs_places_as_the_quantisers_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray((rng.integers(0, 120, (40, 40)) + 40 * (i % 4)).astype(np.uint8)) for i in range(16)]
    torch.manual_seed(0)
    options = octc.QuantizeOptions(rounding=False, observers=["max"])
    quantized = octc.quantize(Spatial().eval(), images, PRE, classes=["a", "b"], options=options)
    (folder,) = octc.export(quantized, ["openvino"], out=tmp_path)
    report = json.loads((folder / "artifact.json").read_text())["details"]["golden"]
    assert report["delta_over_s"] < 0.005  # 0.015 where OpenVINO rounds the largest to whole numbers
