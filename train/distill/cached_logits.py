"""A teacher's logits of seeded views, computed once and kept: what later students, tunings and sweeps learn from.

View v of an image is the augmentation drawn from (view seed, v, place of the image in train); epoch e of a training shows view
e mod N. Teacher and student see one picture by construction, and on a sample of the images this is checked by the bits.

One folder a teacher and way of drawing, one safetensors file a view: logits float16 [n, K] (4 classes are 8 bytes a view), and
the sha256 of the input of every sampled image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from octc.core.errors import OctcError
from octc.core.files import canonical_json, parse_json, sha256_bytes, write_bytes
from octc.train.batches.inputs import training_views
from octc.train.loop.training import Data
from octc.train.recipes.config import Stage

SAMPLED = 64  # images a view whose bits are compared
LARGEST = 60000.0  # of a float16 logit
FORMAT = 2
HINT = "delete this folder: the logits are computed anew"


@dataclass(frozen=True)
class Drawn:
    """What decides a cache: who draws (`stage`), how many views, their seed, the kind of device, the teacher's precision."""

    stage: Stage
    views: int
    seed: int
    device: str
    precision: str
    teacher_precision: str = "fp32"

    def key(self, teacher: str, split: str) -> dict[str, Any]:
        """All that decides the logits. Bits of a view may differ with torch, the processor's kind, and a GPU's batch."""
        stage = self.stage
        on_cpu = self.device == "cpu"
        other = {} if self.teacher_precision == "fp32" else {"teacher_precision": self.teacher_precision}
        return {
            **other,
            "format": FORMAT,
            "teacher": teacher,
            "split": split,
            "seed": self.seed,
            "size": stage.size,
            "mean": list(stage.mean),
            "std": list(stage.std),
            "resize": stage.resize,
            "augment": asdict(stage.augment),
            "pipeline": stage.views,
            "canvas": stage.canvas,
            "precision": self.precision,
            "torch": torch.__version__,
            "device": torch.backends.cpu.get_cpu_capability() if on_cpu else f"{self.device}, batch {stage.batch}",
        }


@dataclass(frozen=True)
class Logits:
    """The cache of one teacher: logits float16 [views, n, K], and {(view, image): sha256 of its input} of the sample."""

    folder: Path
    values: torch.Tensor
    sums: dict[tuple[int, int], bytes]

    def of(self, view: int, indices: Sequence[int]) -> torch.Tensor:
        """float32 [len(indices), K]."""
        return self.values[view, list(indices)].float()

    def check(self, view: int, indices: Sequence[int], inputs: torch.Tensor) -> None:
        """Refuse (E311) inputs [N, 3, H, W] whose bits are not those that the teacher saw, among the sampled images."""
        for row, index in enumerate(indices):
            known = self.sums.get((view, index))
            if known is not None and known != sum_of(inputs[row]):
                text = f"view {view} of training image {index} is not the picture that the teacher was shown"
                raise OctcError("OCT-E311", text, hint=HINT, place=str(self.folder))


def sum_of(picture: torch.Tensor) -> bytes:
    """sha256 of a float32 picture [3, H, W], whatever its layout in memory."""
    return bytes.fromhex(sha256_bytes(picture.detach().float().cpu().contiguous().numpy().tobytes()))


def sampled(count: int) -> list[int]:
    """Images whose bits are compared: at most SAMPLED, evenly spread."""
    return sorted({int(i) for i in np.linspace(0, count - 1, min(count, SAMPLED))})


def folder_of(cache: Path, key: dict[str, Any]) -> Path:
    """Where the views of a key lie."""
    return cache / f"logits-{sha256_bytes(canonical_json(key))[:24]}"


def missing_views(folder: Path, views: int) -> list[int]:
    """Views that are not there yet; a file is there whole or not at all."""
    return [view for view in range(views) if not _path(folder, view).is_file()]


def claim_of(folder: Path, view: int) -> Path:
    """Where a process claims a view that it computes."""
    return folder / f"view-{view:04d}.lock"


def write_view(
    folder: Path,
    key: dict[str, Any],
    view: int,
    teacher: Callable[[torch.Tensor], torch.Tensor],
    data: Data,
    drawn: Drawn,
    device: Any,
    tell: Callable[[int], None] = lambda _: None,
) -> None:
    """Show a teacher one view of every training image, and write what it says.

    Raises:
        OctcError: E301 logits that are not finite or beyond float16, E904 when the disk is full.
    """
    sample, rows, sums = set(sampled(len(data.labels))), [], []
    for indices, count, inputs in _batches(data, drawn, view, device):
        logits = teacher(inputs).float().cpu()
        if not bool(torch.isfinite(logits).all()) or float(logits.abs().max()) > LARGEST:
            text = f"the teacher's logits are not finite, or larger than {LARGEST:g}"
            raise OctcError("OCT-E301", text, hint="--cached-views 0, or another teacher", place=str(folder))
        rows.append(logits[:count].half())
        sums += [sum_of(inputs[row]) for row, index in enumerate(indices[:count]) if index in sample]
        tell(count)
    tensors = {"logits": torch.cat(rows), "sums": torch.tensor([list(one) for one in sums], dtype=torch.uint8)}
    head = {"key": json.dumps(key, sort_keys=True), "view": str(view), "sha256": _sum(tensors)}
    try:
        write_bytes(_path(folder, view), save(tensors, metadata=head))
    except OSError as error:
        text = f"logits cannot be written: {error.strerror}"
        raise OctcError("OCT-E904", text, hint="free disk space, or --run-dir DIR elsewhere", place=str(folder)) from error


def read_logits(folder: Path, key: dict[str, Any], views: int, count: int) -> Logits:
    """The views of a cache.

    Raises:
        OctcError: E311 logits of another teacher, split or way of drawing, E501 a damaged file.
    """
    values: list[torch.Tensor] = []
    sums: dict[tuple[int, int], bytes] = {}
    for view in range(views):
        path = _path(folder, view)
        try:
            with safe_open(path, framework="pt") as file:
                head = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in ("logits", "sums")}
        except (OSError, SafetensorError) as error:
            raise OctcError("OCT-E501", f"cached logits are damaged: {error}", hint=HINT, place=str(path)) from error
        if head.get("sha256") != _sum(tensors):
            raise OctcError("OCT-E501", "cached logits do not match their sha256", hint=HINT, place=str(path))
        _check_head(head, key, view, path)
        if len(tensors["logits"]) != count:
            text = f"cached logits of {len(tensors['logits'])} images, train has {count}"
            raise OctcError("OCT-E311", text, hint=HINT, place=str(path))
        values.append(tensors["logits"])
        sums |= {(view, i): bytes(row.tolist()) for i, row in zip(sampled(count), tensors["sums"], strict=True)}
    return Logits(folder, torch.stack(values), sums)


def _check_head(head: dict[str, str], key: dict[str, Any], view: int, path: Path) -> None:
    try:
        known = dict(parse_json(head.get("key", "{}")))
    except (ValueError, TypeError) as error:
        raise OctcError("OCT-E501", f"cached logits are damaged: {error}", hint=HINT, place=str(path)) from error
    wrong = sorted(name for name in {*known, *key} if known.get(name) != key.get(name))
    if wrong or head.get("view") != str(view):
        text = f"cached logits differ from what is wanted in: {', '.join(wrong) or 'view'}"
        raise OctcError("OCT-E311", text, hint=HINT, place=str(path))


def _sum(tensors: dict[str, torch.Tensor]) -> str:
    return sha256_bytes(b"".join(tensors[name].contiguous().numpy().tobytes() for name in sorted(tensors)))


def _path(folder: Path, view: int) -> Path:
    return folder / f"view-{view:04d}.safetensors"


def _batches(data: Data, drawn: Drawn, view: int, device: Any) -> Iterator[tuple[list[int], int, torch.Tensor]]:
    """Indices of every training image, how many of them count, and their inputs, in batches of one length: the last one is
    filled up with the first images, so that every batch is computed alike."""
    total, batch = len(data.labels), min(drawn.stage.batch, len(data.labels))
    for start in range(0, total, batch):
        own = list(range(start, min(start + batch, total)))
        indices = [*own, *range(batch - len(own))]
        images = torch.from_numpy(np.array(data.images[indices])).to(device)
        views = training_views(images, torch.tensor(indices), drawn.stage, data.preprocess, drawn.seed, view)
        yield indices, len(own), views
