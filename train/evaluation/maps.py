"""Where a run's network looks: Grad-CAM over single pictures, and SFNet's own excitation weights, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from octc.core.csv_files import csv_bytes
from octc.core.files import publishing, write_bytes
from octc.datasets.base import Sample
from octc.datasets.pictures import read_picture
from octc.imaging.preprocess import Preprocess
from octc.store.runs import Run
from octc.train.evaluation.assess import check_files, part_of
from octc.train.evaluation.outcome import Predictions, combined, newest_evaluation, read_predictions
from octc.train.loop.checkpoint import read_checkpoint
from octc.train.loop.evaluate import network_input
from octc.train.networks.attention import grad_cam
from octc.train.networks.models import rebuilt
from octc.train.networks.sfnet import SfNet

COLUMNS = ("file", "path", "label", "predicted", "probability")
WEIGHTS = ("file", "stage", "channel", "weight")
HOT = np.array((255, 80, 0), np.float64)  # what is laid over the picture, by its share


def chosen_first(answers: Predictions, count: int) -> list[int]:
    """Indices of up to `count` images: those that were answered wrong, the surest first, then the least sure right ones."""
    probabilities = combined(answers)[0]
    said, sure = probabilities.argmax(1), probabilities.max(1)
    wrong = said != np.array(answers.labels)
    return sorted(range(len(said)), key=lambda i: (not wrong[i], -sure[i] if wrong[i] else sure[i]))[:count]


def write_maps(
    run: Run, root: Path, part: str, tta: str, count: int, device: Any = "cpu", *, evaluation: Path | None = None
) -> Path:
    """Maps of `count` images of an evaluation that is there (the newest without `evaluation`), in a folder beside it,
    eval/PART-TTA-maps/: NN.png (the picture beside itself under Grad-CAM of the predicted class), maps.csv, and of an SFNet
    excitation.csv.

    Raises:
        OctcError: E107 the part was not evaluated, E216 an image changed, E307 the network has no maps (HOG), E106
            the maps of this evaluation are there.
    """
    checkpoint, state = read_checkpoint(run.path / "train")
    evaluation = evaluation or newest_evaluation(run.path, part, tta)
    answers = read_predictions(evaluation)
    picked = chosen_first(answers, count)
    by_path = {sample.path: sample for sample in part_of(run, part)[1]}
    samples = [by_path[answers.paths[i]] for i in picked]
    check_files(root, samples)
    model = rebuilt(checkpoint, state, str(run.path / "train"))
    model.to(device).eval()
    pictures, inputs = _prepared(samples, root, checkpoint.preprocess, device)
    probabilities = combined(answers)[0][picked]
    said = probabilities.argmax(1)
    maps = grad_cam(model, inputs, torch.from_numpy(said).to(device)).cpu().numpy()
    folder = evaluation.with_name(f"{evaluation.name}-maps")
    with publishing(folder) as new:
        rows = []
        for number, (picture, heat) in enumerate(zip(pictures, maps, strict=True)):
            name = f"{number:02d}.png"
            Image.fromarray(beside(picture, heat)).save(new / name)
            sample, label = samples[number], int(said[number])
            classes = checkpoint.classes
            rows.append((name, sample.path, classes[sample.label], classes[label], float(probabilities[number, label])))
        write_bytes(new / "maps.csv", csv_bytes(COLUMNS, rows))
        if isinstance(model, SfNet):
            write_bytes(new / "excitation.csv", csv_bytes(WEIGHTS, excitation_rows(model, inputs)))
    return folder


def _prepared(
    samples: Sequence[Sample], root: Path, pre: Preprocess, device: Any
) -> tuple[npt.NDArray[np.uint8], torch.Tensor]:
    images = np.stack([pre.prepare(read_picture(root, sample, pre.value_range).image)[0] for sample in samples])
    return images, network_input(torch.from_numpy(images).to(device), pre)


def beside(picture: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """A picture uint8 [C, h, w] and the same under its map [h, w] of 0..1: uint8 [h, 2 w, 3]."""
    plain = np.repeat(picture, 3, axis=0) if len(picture) == 1 else picture
    plain = np.ascontiguousarray(plain.transpose(1, 2, 0))
    share = 0.6 * heat[..., None].astype(np.float64)
    mixed = np.clip(np.rint((1 - share) * plain + share * HOT), 0, 255).astype(np.uint8)
    return np.concatenate([plain, mixed], axis=1)


def excitation_rows(model: nn.Module, inputs: torch.Tensor) -> list[tuple[str, int, int, float]]:
    """SFNet's read-out as rows: file, stage from 1, channel, weight in (0, 1)."""
    assert isinstance(model, SfNet)
    with torch.inference_mode():
        stages = [weights.cpu().numpy() for weights in model.read_out(inputs)]
    return [
        (f"{image:02d}.png", stage, channel, float(weight))
        for stage, weights in enumerate(stages, 1)
        for image, row in enumerate(weights)
        for channel, weight in enumerate(row)
    ]
