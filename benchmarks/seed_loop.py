"""KD-OCT's training of a student as it was published, for benchmarks/training.py alone.

Every image is opened and augmented with Pillow in every epoch, by data-loading workers; the teacher is asked in float32 at
every step; tensors lie as they come. Written with torchvision's own transforms.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEMPERATURE, ALPHA, ACCUMULATE = 4.0, 0.7, 2


class RandAugment:
    """Two of four operations at full magnitude (m = 7) with a random sign; translation by 0.07 pixels, as released."""

    def __call__(self, image: Image.Image) -> Image.Image:
        for name in np.random.choice(("brightness", "contrast", "rotate", "translate"), 2, replace=False):
            sign = float(np.random.choice((-1.0, 1.0)))
            if name == "rotate":
                image = image.rotate(sign * 7 / 30 * 20, fillcolor=0)
            elif name == "translate":
                image = transforms.functional.affine(image, 0, [sign * 0.07, sign * 0.07], 1.0, [0.0])
            else:
                enhance = ImageEnhance.Brightness if name == "brightness" else ImageEnhance.Contrast
                image = enhance(image).enhance(1 + sign * 7 / 30)
        return image


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Files, decoded and augmented when they are asked for."""

    def __init__(self, files: Sequence[Path], labels: Sequence[int], size: int) -> None:
        self.files, self.labels = list(files), list(labels)
        self.steps = transforms.Compose(
            [
                transforms.Resize((size + 32, size + 32)),
                transforms.RandomCrop(size),
                RandAugment(),
                transforms.RandomRotation(15),
                transforms.ColorJitter(0.2, 0.2, 0.2),
                transforms.RandomHorizontalFlip(0.5),
                transforms.ToTensor(),
                transforms.RandomErasing(0.2, scale=(0.02, 0.1)),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.steps(Image.open(self.files[index]).convert("RGB")), self.labels[index]


def train(
    student: nn.Module, teacher: nn.Module, pictures: Pictures, steps: int, batch: int, workers: int, device: torch.device
) -> float:
    """Seconds from making the loader to the end of the last of `steps` steps."""
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.01)
    start = time.perf_counter()
    loader = DataLoader(
        pictures, batch, shuffle=True, drop_last=True, num_workers=workers, pin_memory=device.type == "cuda"
    )  # fmt: skip
    done, correct = 0, 0
    while done < steps:
        for images, labels in loader:
            x, y = images.to(device), labels.to(device)
            with torch.no_grad():
                target = teacher(x)
            with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                logits = student(x)
            correct += _step(logits.float(), target, y)
            done += 1
            if done % ACCUMULATE == 0:
                optimizer.step()
                optimizer.zero_grad()
            if done == steps:
                break
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _step(logits: torch.Tensor, target: torch.Tensor, y: torch.Tensor) -> int:
    """0.3 CE + 0.7 T^2 KL; the gradient of it. Returns how many were right."""
    hard = functional.cross_entropy(logits, y)
    logs = functional.log_softmax(logits / TEMPERATURE, 1)
    soft = functional.kl_div(logs, functional.softmax(target / TEMPERATURE, 1), reduction="batchmean") * TEMPERATURE**2
    loss: Any = ((1 - ALPHA) * hard + ALPHA * soft) / ACCUMULATE
    loss.backward()
    return int((logits.argmax(1) == y).sum().item())
