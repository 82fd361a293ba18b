"""Run models over a labelled set: one record per image, joined later by the checksum of the image file, never by position."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.core.files import canonical_json, parse_json, replacing, sha256_bytes
from octc.datasets.base import Sample
from octc.datasets.pictures import read_picture
from octc.imaging.preprocess import Float32, Preprocess, UInt8
from octc.machine.cpu import reading_pool

Model = Callable[[UInt8], Float32]  # what a Runtime is here: uint8 [N, channels, size, size] -> logits [N, K]
Progress = Callable[[int], None]  # images done since the last call
CHUNK = 16  # pictures held at once, times the views


@dataclass(frozen=True)
class Records:
    """Logits of one artifact on a set.

    Attributes:
        ids: sha256 of each image file; a repeated content carries "#2", "#3" behind it.
        labels: index into the classes.
        patients: id, or None where the data set has none.
        logits: float32 [n, views, K], as the runtime delivered them.
        views: names out of `octc.imaging.preprocess.VIEWS`.
        artifact: checksum of the artifact's manifest; preprocess: `Preprocess.to_json()`.
        facts: of the runtime and the machine that gave the logits, and when.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    patients: tuple[str | None, ...]
    logits: Float32
    views: tuple[str, ...]
    artifact: str
    preprocess: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)

    def only(self, views: Sequence[str]) -> Records:
        """The same records with these views alone."""
        return replace(self, logits=self.logits[:, [self.views.index(view) for view in views]], views=tuple(views))

    def in_order(self, ids: Sequence[str]) -> Records:
        """The same records in the order of `ids`."""
        if tuple(ids) == self.ids:
            return self
        where = {one: i for i, one in enumerate(self.ids)}
        order = [where[one] for one in ids]
        return replace(
            self,
            ids=tuple(ids),
            labels=tuple(self.labels[i] for i in order),
            patients=tuple(self.patients[i] for i in order),
            logits=self.logits[order],
        )

    @property
    def preprocess_sha256(self) -> str:
        return sha256_bytes(canonical_json(self.preprocess))


def image_ids(samples: Sequence[Sample]) -> tuple[str, ...]:
    """The id of each image: its sum; files with one content are told apart by their place among themselves."""
    seen: Counter[str] = Counter()
    ids = []
    for sample in samples:
        seen[sample.sha256] += 1
        ids.append(sample.sha256 if seen[sample.sha256] == 1 else f"{sample.sha256}#{seen[sample.sha256]}")
    return tuple(ids)


def prepared_chunks(samples: Sequence[Sample], root: Path, preprocess: Preprocess, views: Sequence[str]) -> Iterator[UInt8]:
    """Decode and prepare pictures in their order: uint8 [<= CHUNK, views, channels, size, size]; one chunk is read ahead.

    Raises:
        OctcError: of `read_picture`, for the first picture that cannot be read.
    """

    def one(sample: Sample) -> UInt8:
        return preprocess.prepare(read_picture(root, sample, preprocess.value_range).image, views)

    with reading_pool() as pool:
        waiting: list[Future[UInt8]] = []
        for start in range(0, len(samples) + CHUNK, CHUNK):
            ahead = [pool.submit(one, sample) for sample in samples[start : start + CHUNK]]
            if waiting:
                yield np.stack([future.result() for future in waiting])
            waiting = ahead


def measure_all(
    models: Mapping[str, Model],
    preprocess: Preprocess,
    samples: Sequence[Sample],
    root: Path,
    views: Sequence[str] = ("identity",),
    progress: Progress | None = None,
) -> dict[str, Float32]:
    """Logits [n, views, K] of several models that share a preprocessing; every picture is decoded once."""
    found: dict[str, list[Float32]] = {name: [] for name in models}
    for chunk in prepared_chunks(samples, root, preprocess, views):
        flat = chunk.reshape(-1, *chunk.shape[2:])
        for name, model in models.items():
            parts = [np.asarray(model(flat[i : i + CHUNK]), np.float32) for i in range(0, len(flat), CHUNK)]
            found[name].append(np.concatenate(parts).reshape(*chunk.shape[:2], -1))
        if progress is not None:
            progress(len(chunk))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def records_of(
    samples: Sequence[Sample],
    logits: Float32,
    views: Sequence[str],
    artifact: str,
    preprocess: Preprocess,
    facts: Mapping[str, Any] | None = None,
) -> Records:
    """Records from logits [n, views, K] in the order of `samples`."""
    return Records(
        ids=image_ids(samples),
        labels=tuple(s.label for s in samples),
        patients=tuple(s.patient for s in samples),
        logits=logits,
        views=tuple(views),
        artifact=artifact,
        preprocess=parse_json(canonical_json(preprocess.to_json())),
        facts=parse_json(canonical_json(dict(facts or {}))),
    )


def measure(
    runtime: Model,
    preprocess: Preprocess,
    samples: Sequence[Sample],
    root: Path,
    views: Sequence[str] = ("identity",),
    progress: Progress | None = None,
    *,
    artifact: str = "",
) -> Records:
    """Run one model over a set. `artifact` is the sum that the records will carry."""
    logits = measure_all({"": runtime}, preprocess, samples, root, views, progress)[""]
    return records_of(samples, logits, views, artifact, preprocess)


def write_records(path: Path, records: Records) -> None:
    """Write records as npz, atomically (plain arrays; a missing patient is an empty string)."""
    patients = np.array([patient or "" for patient in records.patients])
    head = {name: getattr(records, name) for name in ("artifact", "preprocess", "facts")}
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            ids=np.array(records.ids),
            labels=np.array(records.labels),
            patients=patients,
            logits=records.logits,
            views=np.array(records.views),
            head=np.frombuffer(canonical_json(head), np.uint8),
        )


def read_records(path: Path) -> Records:
    """Read what `write_records` wrote; no pickle (OctcError E708 when it cannot be read)."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as data:  # numpy leaves its own open on damage
            if len(set(data.files)) != len(data.files):
                raise ValueError("an array that occurs twice")
            head = parse_json(data["head"].tobytes())
            logits: npt.NDArray[np.float32] = data["logits"].astype(np.float32)
            return Records(
                tuple(data["ids"].tolist()),
                tuple(data["labels"].tolist()),
                tuple(p or None for p in data["patients"].tolist()),
                logits,
                tuple(data["views"].tolist()),
                head["artifact"],
                head["preprocess"],
                head["facts"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise OctcError("OCT-E708", f"records cannot be read: {error}", hint="measure them again", place=str(path)) from error
