"""Your own network to an INT8 artifact that passed a gate: no run folder, no recipe, a few seconds on a CPU.

    python examples/own_network.py --out artifacts

Replace `network` by yours (normalised float [N, 3, S, S] -> logits [N, K]) and the drawn images by your own files.
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image, ImageDraw
from torch import nn

import octc

CLASSES = ("bright", "dark")
SIZE = 64


def picture(label: int, seed: int) -> Image.Image:
    """A grey picture with a light or a dark disc: stands for a B-scan."""
    drawn = Image.new("L", (96, 80), 105 + seed % 13)
    left, side = 20 + seed % 17, 20 + seed % 11
    ImageDraw.Draw(drawn).ellipse((left, 20, left + side, 20 + side), fill=(230, 15)[label])
    return drawn


def network() -> nn.Module:
    """A small convolutional network: two stages, norms, a residual sum."""

    class Block(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x + self.norm(self.conv(x)))

    stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, len(CLASSES)))
    return nn.Sequential(stem, nn.ReLU(), Block(16), nn.MaxPool2d(2), Block(16), *head)


def trained(images: list[Image.Image], labels: list[int], pre: octc.Preprocess) -> nn.Module:
    """Twenty steps of plain training: an example has to know its classes, or a gate has nothing to keep."""
    torch.manual_seed(0)
    model = network()
    batch = torch.stack([torch.from_numpy(pre.prepare(image)[0]) for image in images]).float()
    x = (batch / 255 - torch.tensor(pre.mean).view(1, 3, 1, 1)) / torch.tensor(pre.std).view(1, 3, 1, 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(20):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), torch.tensor(labels)).backward()
        optimiser.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="artifacts", help="folder for the artifacts")
    out = parser.parse_args().out
    pre = octc.Preprocess(size=SIZE)
    labels = [i % 2 for i in range(160)]
    images = [picture(label, i) for i, label in enumerate(labels)]
    model = trained(images[:64], labels[:64], pre)
    quantized = octc.quantize(model, images[:64], pre, classes=CLASSES, validation=(images[64:], labels[64:]), name="two-discs")
    gate = octc.Gate(margin=5, class_margin=10)
    for folder in octc.export(quantized, targets=["onnx", "openvino"], precision="int8", out=out, gate=gate):
        with octc.load(folder) as loaded:
            print(folder, loaded.artifact.details["gate"]["word"], loaded.classes)


if __name__ == "__main__":
    main()
