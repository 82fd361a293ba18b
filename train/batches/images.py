"""Images as a memory-mapped uint8 array, decoded once, and batches of it that every process and every resume sees alike."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler

from octc.core.errors import OctcError, combined
from octc.core.files import canonical_json, replacing, sha256_bytes
from octc.datasets.base import Progress, Sample
from octc.datasets.pictures import read_picture
from octc.imaging.decode import DECODING
from octc.imaging.preprocess import Preprocess
from octc.machine.cpu import reading_pool
from octc.store.claims import waiting_for

CLAIM = ".lock"  # ending of the file of who decodes


def cached_images(
    folder: Path, root: Path, samples: Sequence[Sample], preprocess: Preprocess, progress: Progress | None = None
) -> npt.NDArray[np.uint8]:
    """Prepared images uint8 [N, channels, size, size], memory-mapped; made once per content and preprocessing.

    Raises:
        OctcError: the error of each file that cannot be decoded (all of them, as `Several`), E904 when the disk is full.
    """
    key = sha256_bytes(canonical_json([DECODING, preprocess.to_json(), [s.sha256 for s in samples]]))[:24]
    path = folder / f"{key}.npy"
    shape = (len(samples), preprocess.channels, preprocess.size, preprocess.size)
    if not _is_whole(path, shape):
        try:
            with waiting_for(path.with_suffix(CLAIM)):  # other trainings that share the folder want the same images
                if not _is_whole(path, shape):
                    _write_cache(path, root, samples, preprocess, progress)
        except OSError as error:
            text = f"image cache cannot be written: {error.strerror}"
            raise OctcError("OCT-E904", text, hint="free disk space, or --run-dir DIR elsewhere", place=str(folder)) from error
    array: npt.NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return array


def _is_whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a cache of that shape is there; one that was cut off is not."""
    try:
        found = np.lib.format.open_memmap(path, mode="r")  # np.load takes other formats too, and says of an empty file EOFError
        return bool(found.shape == shape and found.dtype == np.uint8)
    except (OSError, ValueError):
        return False


def _write_cache(path: Path, root: Path, samples: Sequence[Sample], preprocess: Preprocess, progress: Progress | None) -> None:
    shape = (len(samples), preprocess.channels, preprocess.size, preprocess.size)

    def prepare(sample: Sample) -> npt.NDArray[np.uint8] | OctcError:
        try:
            image: npt.NDArray[np.uint8] = preprocess.prepare(read_picture(root, sample, preprocess.value_range).image)[0]
            return image
        except OctcError as error:
            return error

    with replacing(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        with temporary.open("r+b") as stream:  # a full disk is an error now; met while writing to the map it kills the process
            os.posix_fallocate(stream.fileno(), 0, temporary.stat().st_size)
        failed: list[OctcError] = []
        with reading_pool() as pool:
            for index, image in enumerate(pool.map(prepare, samples)):
                if isinstance(image, OctcError):
                    failed.append(image)
                else:
                    array[index] = image
                if progress is not None:
                    progress(index + 1, len(samples))
        if failed:
            raise combined(failed)
        array.flush()


class ImageSet(Dataset[tuple[torch.Tensor, Any, int]]):
    """uint8 image [channels, size, size], label (an index, or a tensor), index."""

    def __init__(self, images: npt.NDArray[np.uint8], labels: Sequence[Any]) -> None:
        self.images = images
        self.labels = list(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any, int]:
        return torch.from_numpy(np.array(self.images[index])), self.labels[index], index


class EpochBatches(Sampler[list[int]]):
    """Batches of one epoch: a permutation that only seed and epoch decide; what does not fill a batch for every process is
    dropped. A batch larger than a process's share of the images is made smaller (E104 when there is less than one)."""

    def __init__(self, count: int, batch: int, seed: int, processes: int = 1) -> None:
        if count < processes:
            raise OctcError("OCT-E104", f"{count} training images for {processes} processes", hint="start fewer processes")
        self.count = count
        self.batch = min(batch, count // processes)
        self.batch_size = self.batch  # accelerate shards by this name
        self.drop_last = True
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.count // self.batch

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch, 1]).permutation(self.count)
        for start in range(0, len(self) * self.batch, self.batch):
            yield [int(index) for index in order[start : start + self.batch]]


def eval_batches(images: npt.NDArray[np.uint8], batch: int) -> Iterator[torch.Tensor]:
    """uint8 [<= batch, channels, size, size], in order."""
    for start in range(0, len(images), batch):
        yield torch.from_numpy(np.array(images[start : start + batch]))
