"""The queries: a prepared tensor through the engine (device row), or compressed bytes to a class (end-to-end row)."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.errors import OctcError
from octc.core.faults import fault_of
from octc.imaging.decode import decode_image
from octc.imaging.preprocess import Float32, Preprocess, UInt8
from octc.stats.metrics import softmax

INPUTS = 64  # different inputs in rotation, so that caches do not help
PARTS = ("decode", "preprocess", "infer", "post")

Model = Callable[[UInt8], Float32]


@dataclass(frozen=True)
class Picture:
    """A compressed image in memory; `place` is its name in errors."""

    data: bytes
    place: str


@dataclass
class Parts:
    """Durations of the parts of each end-to-end query, ns."""

    times: dict[str, array[int]] = field(default_factory=lambda: {name: array("q") for name in PARTS})

    def clear(self) -> None:
        for values in self.times.values():
            del values[:]


def read_pictures(paths: Sequence[str]) -> tuple[list[Picture], float]:
    """Read compressed files into memory; also returns the median time to read one, ms (not part of any row).

    Raises:
        OctcError: E201 a file cannot be read.
    """
    pictures, times = [], []
    for path in paths:
        start = time.perf_counter_ns()
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            if (fault := fault_of(error, path)) is not None:
                raise fault from error
            raise OctcError("OCT-E201", f"cannot be read: {error.strerror}", hint="check the path", place=path) from error
        times.append((time.perf_counter_ns() - start) / 1e6)
        pictures.append(Picture(data, path))
    return pictures, float(np.median(times))


def tensors(pictures: Sequence[Picture], preprocess: Preprocess, batch: int) -> list[UInt8]:
    """64 different inputs uint8 [batch, channels, size, size]: sliding windows over the preprocessed images."""
    prepared = [preprocess.prepare(decode_image(p.data, p.place, preprocess.value_range).image)[0] for p in pictures[:INPUTS]]
    pool = np.stack([prepared[i % len(prepared)] for i in range(INPUTS + batch - 1)])
    return [pool[i : i + batch] for i in range(INPUTS)]


def device_query(model: Model, inputs: Sequence[UInt8]) -> Callable[[int], Float32]:
    """A query of the device row: the inference call alone, from a tensor to logits, both in host memory."""
    count = len(inputs)
    return lambda number: model(inputs[number % count])


def end_to_end_query(
    model: Model, pictures: Sequence[Picture], preprocess: Preprocess, batch: int, parts: Parts
) -> Callable[[int], tuple[Any, Any]]:
    """A query of the end-to-end row: `batch` compressed images to classes and probabilities; its parts are timed too."""
    clock, count = time.perf_counter_ns, len(pictures)
    decode, prepare, infer, post = (parts.times[name] for name in PARTS)

    def query(number: int) -> tuple[Any, Any]:
        begin = clock()
        chosen = [pictures[(number * batch + i) % count] for i in range(batch)]
        decoded = [decode_image(picture.data, picture.place, preprocess.value_range).image for picture in chosen]
        decoded_at = clock()
        array_ = np.concatenate([preprocess.prepare(image) for image in decoded])
        prepared_at = clock()
        logits = model(array_)
        inferred_at = clock()
        probabilities = softmax(logits)
        labels = probabilities.argmax(axis=1)
        end = clock()
        decode.append(decoded_at - begin)
        prepare.append(prepared_at - decoded_at)
        infer.append(inferred_at - prepared_at)
        post.append(end - inferred_at)
        return labels, probabilities

    return query


def same_output(one: Any, other: Any) -> bool:
    """Tolerance K9 on a CPU: the same file on the same machine gives bit-identical outputs."""
    first, second = ([np.asarray(part) for part in (value if isinstance(value, tuple) else (value,))] for value in (one, other))
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def in_batches(model: Model, batch: int) -> Model:
    """Wrap a model with a fixed `batch` size for any number of images: the last batch is padded and the padding removed."""

    def run(images: UInt8) -> Float32:
        found = []
        for start in range(0, len(images), batch):
            chunk = images[start : start + batch]
            padded = np.concatenate([chunk, np.repeat(chunk[-1:], batch - len(chunk), axis=0)])
            found.append(np.asarray(model(padded))[: len(chunk)])
        return np.concatenate(found)

    return run
