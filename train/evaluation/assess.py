"""A finished training on a part of its split: every image once, written as an evaluation (train/evaluation/files.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from octc.core.clock import utc_now
from octc.core.errors import OctcError, shorten
from octc.datasets.base import Progress, Sample
from octc.datasets.pictures import content_of, read_picture
from octc.datasets.split import Split, read_split
from octc.imaging.preprocess import VIEWS, Preprocess, UInt8
from octc.machine.cpu import reading_pool
from octc.stats.task import task_of
from octc.store.runs import Run
from octc.store.test_set_log import PARTS as HELD_OUT
from octc.store.test_set_log import log_part
from octc.train.batches.images import cached_images
from octc.train.evaluation.files import write_curves, write_evaluation
from octc.train.evaluation.outcome import Evaluation, Predictions, newest_evaluation, next_evaluation, weights_of
from octc.train.loop.checkpoint import Checkpoint, read_checkpoint
from octc.train.loop.evaluate import logits_of
from octc.train.networks.models import rebuilt

CHUNK = 32  # pictures decoded at once


@dataclass(frozen=True)
class Reading:
    """How a part of a split is read.

    Attributes:
        part: "train", "val" or "test" (of folds "official" too). tta: "none", "hflip" or "5" views
            (octc.imaging.preprocess.VIEWS), the same for teacher and student.
        combine: mean of the views' "probabilities" or "logits", where classes exclude each other.
        pool: of an eye's images, "max" or "mean", where they do not.
        command: that reads, for the test-set log.
    """

    part: str
    tta: str = "none"
    combine: str = "probabilities"
    pool: str = "max"
    device: Any = "cpu"
    progress: Progress | None = None
    command: str = "eval"


def predict(
    model: nn.Module, chunks: Iterator[UInt8], pre: Preprocess, device: Any, progress: Progress | None, total: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits float32 [n, views, K] of prepared pictures, uint8 [<= CHUNK, views, channels, size, size] at a time."""
    rows, done = [], 0
    for chunk in chunks:
        flat = logits_of(model, chunk.reshape(-1, *chunk.shape[2:]), pre, device)
        rows.append(flat.numpy().reshape(*chunk.shape[:2], -1))
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    return np.concatenate(rows)


def prepared(samples: Sequence[Sample], root: Path, pre: Preprocess, views: Sequence[str]) -> Iterator[UInt8]:
    """Decode and prepare pictures in their order.

    Raises:
        OctcError: of `read_picture`, for the first picture that cannot be read.
    """

    def one(sample: Sample) -> UInt8:
        return pre.prepare(read_picture(root, sample, pre.value_range).image, views)

    with reading_pool() as pool:
        for start in range(0, len(samples), CHUNK):
            yield np.stack(list(pool.map(one, samples[start : start + CHUNK])))


def from_cache(images: UInt8) -> Iterator[UInt8]:
    """The one plain view of pictures that are prepared already."""
    for start in range(0, len(images), CHUNK):
        yield np.array(images[start : start + CHUNK])[:, None]


def part_of(run: Run, part: str) -> tuple[Split, tuple[Sample, ...]]:
    """A run's split, and one part of it (E104 where it has none of that name or no image in it)."""
    split = read_split(run.split)
    return split, _samples(run, split, part)


def _samples(run: Run, split: Split, part: str) -> tuple[Sample, ...]:
    samples = split.parts.get(part, ())
    if not samples:
        known = ", ".join(name for name, items in split.parts.items() if items)
        raise OctcError("OCT-E104", f"the split of {run.id} has no images in {part!r}", hint=f"one of: {known}")
    return samples


def network_of(run: Run) -> tuple[nn.Module, Checkpoint, Split]:
    """A run's network with its weights (of the float training), and the split that it was trained on.

    Raises:
        OctcError: E107 / E307 / E501 no checkpoint that can be used, E216 the split is another one.
    """
    checkpoint, state = read_checkpoint(run.path / "train")
    split = read_split(run.split)
    if split.digest != checkpoint.split_digest:
        text = "the run's split is not the one that it was trained on"
        raise OctcError("OCT-E216", text, hint="train again", place=str(run.split))
    model = rebuilt(checkpoint, state, str(run.path / "train"))
    return model, checkpoint, split


def trained(run: Run, root: Path, part: str) -> tuple[nn.Module, Checkpoint, Split]:
    """`network_of` a run; the files of `part` are there."""
    model, checkpoint, split = network_of(run)
    check_files(root, _samples(run, split, part))
    return model, checkpoint, split


def check_files(root: Path, samples: Sequence[Sample]) -> None:
    """Refuse images that are gone or not those of the split (E216), by their sums."""

    def same(sample: Sample) -> bool:
        try:
            return content_of(root, sample) == sample.sha256
        except (OSError, OctcError):
            return False

    with reading_pool() as pool:
        wrong = [s.path for s, good in zip(samples, pool.map(same, samples), strict=True) if not good]
    if wrong:
        text = f"{len(wrong)} images are gone or changed since the split: {shorten(wrong)}"
        raise OctcError("OCT-E216", text, hint="restore the images, or name their folder: --data DIR", place=str(root))


def evaluate_run(
    run: Run,
    root: Path,
    part: str,
    *,
    tta: str = "none",
    combine: str = "probabilities",
    device: Any = "cpu",
    progress: Progress | None = None,
    command: str = "eval",
) -> Evaluation:
    """Evaluate a run's network on a part of its split; writes eval/PART-TTA/ (-2, -3, ... where it was evaluated before), and
    a row of the test-set log before a test image is read.

    Args:
        root: of the data set. part: "train", "val" or "test" (of folds "official" too).
        tta: "none", "hflip" or "5" views (octc.imaging.preprocess.VIEWS), the same for teacher and student.
        combine: mean of the views' "probabilities" or "logits".
        command: that reads, for the log.

    Raises:
        OctcError: E107 / E307 / E501 no checkpoint that can be used, E216 the split is another one, E201... a picture, E109 a
            reading of test cannot be logged.
    """
    how = Reading(part, tta, combine, device=device, progress=progress, command=command)
    return assess(*trained(run, root, part), run, root, how)


def is_evaluated(run: Run, part: str, sha256: str, tta: str = "none") -> bool:
    """Whether an evaluation of a part is there that is of these weights."""
    return weights_of(newest_evaluation(run.path, part, tta, sha256)) == sha256


def complete(run: Run, root: Path, device: Any) -> Checkpoint:
    """What stands behind the checkpoint of a training, made where a kill came between: its curves, its evaluation on val."""
    checkpoint, _ = read_checkpoint(run.path / "train")
    if not (run.path / "train" / "curves.png").is_file():
        write_curves(run.path / "train", f"{run.id} · {checkpoint.model}")
    alone = task_of(checkpoint.recipe.get("task")).exclusive  # the others are evaluated before their checkpoint is written
    if alone and not is_evaluated(run, "val", checkpoint.sha256):
        evaluate_run(run, root, "val", device=device)
    return checkpoint


def answers(
    model: nn.Module, checkpoint: Checkpoint, split: Split, run: Run, root: Path, how: Reading
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits float32 [n, views, K] of a part of a split, after a row of the test-set log where it is held out."""
    averaged = {"combine": how.combine} if task_of(checkpoint.recipe.get("task")).exclusive else {"pool": how.pool}
    log_part(run.path, split, how.part, {"weights": checkpoint.sha256}, how.command, utc_now(), tta=how.tta, **averaged)
    model.to(how.device).to(memory_format=torch.channels_last)
    samples, pre = split.parts[how.part], checkpoint.preprocess
    if how.tta == "none":
        chunks = from_cache(cached_images(run.path.parent / ".cache", root, samples, pre))
    else:
        chunks = prepared(samples, root, pre, VIEWS[how.tta])
    return predict(model, chunks, pre, how.device, how.progress, len(samples))


def assess(model: nn.Module, checkpoint: Checkpoint, split: Split, run: Run, root: Path, how: Reading) -> Evaluation:
    """`evaluate_run` of a network with its weights in."""
    part, tta, samples = how.part, how.tta, split.parts[how.part]
    logits = answers(model, checkpoint, split, run, root, how)
    facts = {"run": run.id, "part": part, "tta": tta, "warning": split.note, "fold": split.fold, "leakage": split.leakage}
    with next_evaluation(run.path, part, tta) as folder:
        found = write_evaluation(folder, records(facts, checkpoint, samples, logits), how.combine)
    if part in HELD_OUT:
        run.log_stage("evaluated", part=part, tta=tta, sha256=checkpoint.sha256, accuracy=found.figures.accuracy)
    return found


def records(facts: dict[str, Any], checkpoint: Checkpoint, samples: Sequence[Sample], logits: Any) -> Predictions:
    """Logits with whose they are. facts: run, part, tta, and what must be said of the split."""
    whose = {
        "role": checkpoint.role,
        "model": checkpoint.model,
        "dataset": checkpoint.dataset,
        "weights": checkpoint.weights,
        "checkpoint_sha256": checkpoint.sha256,
        "split_digest": checkpoint.split_digest,
        "data_digest": checkpoint.data_digest,
        "chose_the_epoch": facts["part"] == "val",
    }
    return Predictions(
        paths=tuple(s.path for s in samples),
        sums=tuple(s.sha256 for s in samples),
        patients=tuple(s.patient for s in samples),
        labels=tuple(s.label for s in samples),
        logits=logits,
        views=VIEWS[facts["tta"]],
        classes=checkpoint.classes,
        facts={**facts, **whose},
    )
