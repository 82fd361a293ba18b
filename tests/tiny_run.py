"""A small run that really learned something: four patterns, timm's test networks, three seconds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from octc.datasets.layouts.folders import scan_folder
from octc.datasets.split import Split, make_split
from octc.imaging.preprocess import Preprocess
from octc.store.runs import Run, create_run
from octc.train.batches.images import cached_images
from octc.train.loop.checkpoint import Checkpoint, write_checkpoint
from octc.train.networks.models import build_model, normalise
from tests.integration.made_once import made_once

MODEL = "test_resnet"  # 15 convolutions, ReLU, residual additions
PATTERNS = ("bright", "dark", "lying", "upright")
SIZE = 64


def write_patterns(root: Path, patients: int = 12, images: int = 4) -> None:
    """root/CLASS/CLASS-PATIENT-INDEX.png: noise about a level, or stripes of either direction."""
    rng = np.random.default_rng(5)
    stripes = np.where(np.arange(80) // 8 % 2, 190.0, 60.0)
    bases = {"bright": np.full((80, 80), 200.0), "dark": np.full((80, 80), 40.0)}
    bases |= {"lying": np.tile(stripes[:, None], (1, 80)), "upright": np.tile(stripes, (80, 1))}
    for place, name in enumerate(PATTERNS):
        (root / name).mkdir(parents=True)
        for patient in range(patients):
            for index in range(images):
                pixels = np.clip(bases[name] + rng.normal(0, 12, (80, 80)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / name / f"{name.upper()}-{1000 * place + patient}-{index}.png")


def make_run(run_dir: Path, root: Path, kind: str = "student", model: str = MODEL, **fields: Any) -> Run:
    """A finished run on the patterns."""
    return make_run_of(run_dir, make_split(scan_folder(root, None), "folder", 0), root, kind, model, **fields)


def make_run_of(run_dir: Path, split: Split, root: Path, kind: str = "student", model: str = MODEL, **fields: Any) -> Run:
    """A finished run on the training images of a split."""
    torch.manual_seed(0)
    pre = Preprocess(SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    network = build_model(model, len(split.classes))
    images = torch.from_numpy(np.array(cached_images(run_dir / ".cache", root, split.parts["train"], pre)))
    labels = torch.tensor([s.label for s in split.parts["train"]])
    _fit(network, normalise(images, pre), labels)
    run = create_run(run_dir, kind, split.dataset, data_root=str(root), **fields)
    split.write(run.split)
    checkpoint = Checkpoint(
        role=kind, model=model, model_kwargs={}, classes=split.classes, preprocess=pre, recipe={"name": "patterns"},
        dataset=split.dataset, split_digest=split.digest, data_digest="0" * 64, weights={"source": "none", "licence": "MIT"},
    )  # fmt: skip
    write_checkpoint(run.path / "train", network.state_dict(), checkpoint)
    run.update(status="done")
    return run


def trained_run() -> Run:
    """The run of `make_run` on the pictures of `write_patterns`, which lie under `patterns` beside its run folder."""
    return Run(next((made_once("tiny-run", _make) / "runs").glob("r-*")))


def _make(base: Path) -> None:
    write_patterns(base / "patterns")
    make_run(base / "runs", base / "patterns")


def _fit(network: Any, x: torch.Tensor, labels: torch.Tensor) -> None:
    """What `_learn` does to it; the same network on the same pictures learns once. The seed behind it is always the same."""
    start = network.state_dict()
    found = hashlib.sha256(f"{network}\n{sorted(start)} {tuple(x.shape)} {torch.get_num_threads()}".encode())
    for tensor in (*(start[name] for name in sorted(start)), x, labels):
        found.update(tensor.contiguous().numpy().tobytes())

    def learn(folder: Path) -> None:
        _learn(network, x, labels)
        save_file(network.state_dict(), folder / "weights.safetensors")

    place = made_once(f"learned-{found.hexdigest()[:16]}", learn)
    network.load_state_dict(load_file(place / "weights.safetensors"))
    network.eval().requires_grad_(False)
    torch.manual_seed(0)


def _learn(network: Any, x: torch.Tensor, labels: torch.Tensor) -> None:
    """Sixty steps; enough for every picture to be told."""
    rng = np.random.default_rng(1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    network.train()
    with torch.enable_grad():
        for _ in range(60):
            chosen = torch.from_numpy(rng.permutation(len(x))[:24])
            optimizer.zero_grad()
            functional.cross_entropy(network(x[chosen]), labels[chosen], label_smoothing=0.05).backward()
            optimizer.step()
