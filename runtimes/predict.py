"""Files in, records out: decode, prepare, look at, run, combine views. A bad file becomes a record of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from octc.core.errors import OctcError
from octc.imaging.input_statistics import InputStatistics, Likeness, compare_picture
from octc.imaging.preprocess import SIDES, VIEWS, Decoded, UInt8, quality_notes, read_image, size_fault
from octc.runtimes.base import Runtime
from octc.stats.aggregation import Aggregation
from octc.stats.metrics import combine_views
from octc.stats.multilabel import thresholds_of, view_scores
from octc.store.artifacts import Artifact
from octc.volumes.volume import Volume

Note = tuple[str, str]  # code, text
UNSURE = 0.5  # no class reaches this probability
AHEAD = 2  # batches of pictures that are decoded while one runs


@dataclass(frozen=True)
class Scan:
    """A B-scan of a volume, as an input. index: from 0."""

    volume: Volume
    index: int


@dataclass(frozen=True)
class Unread:
    """An input that could not be opened, and why."""

    path: Path
    error: OctcError


Input = Path | Scan | Unread


@dataclass(frozen=True)
class Eye:
    """What an eye's answer rests on.

    Attributes:
        laterality: "R", "L" or None. frames: B-scans of the volume; usable: those that count. reasons: why there is no label.
        patient: keyed hash, where the reader was given a key.
    """

    laterality: str | None
    frames: int
    usable: int
    aggregation: Aggregation
    reasons: tuple[str, ...] = ()
    patient: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "laterality": self.laterality,
            "frames": self.frames,
            "usable": self.usable,
            "aggregation": self.aggregation.to_json(),
            "no_answer": list(self.reasons),
            "patient": self.patient,
        }


@dataclass(frozen=True)
class Record:
    """What is said of one file, of one B-scan of a volume, or of an eye.

    Attributes:
        scan: the B-scan that it is of, else None. eye: what an eye's answer rests on, else None.
        probabilities: of every class, float64; None where there was an error.
        label: index of the likeliest class; None where there was an error, or the picture is unlike the training images.
        labels: indices of all classes that reach their threshold, where classes do not exclude each other; else None.
        likeness: None where the artifact does not know its training images.
        notes: warnings (code, text). map: heat map of the answer, where one was requested.
    """

    path: Path
    probabilities: tuple[float, ...] | None = None
    label: int | None = None
    likeness: Likeness | None = None
    notes: tuple[Note, ...] = ()
    error: OctcError | None = None
    labels: tuple[int, ...] | None = None
    scan: Scan | None = None
    eye: Eye | None = None
    map: Path | None = None

    @property
    def name(self) -> str:
        """The file; of a B-scan with its number, of an eye with its side."""
        if self.eye is not None:
            return f"{self.path} (eye {self.eye.laterality or 'unknown'})"
        return str(self.path) if self.scan is None else f"{self.path}[{self.scan.index}]"

    @property
    def confidence(self) -> float | None:
        """The largest probability."""
        return None if self.probabilities is None else max(self.probabilities)

    @property
    def unlike(self) -> bool:
        return self.likeness is not None and self.likeness.unlike

    @property
    def _status(self) -> str:
        if self.error is not None:
            return "error"
        if self.eye is not None and self.eye.reasons:
            return "no_answer"
        return "unlike" if self.unlike else "ok"

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """A record of `octc predict --json`."""
        error = self.error
        return {
            "file": str(self.path),
            **({} if self.scan is None else {"frame": self.scan.index}),
            **({} if self.eye is None else {"eye": self.eye.to_json()}),
            "status": self._status,
            "label": None if self.label is None else classes[self.label],
            **({} if self.labels is None else {"labels": [classes[k] for k in self.labels]}),
            "confidence": self.confidence,
            "probabilities": None if self.probabilities is None else dict(zip(classes, self.probabilities, strict=True)),
            "out_of_distribution": None if self.likeness is None else self.unlike,
            "distance": None if self.likeness is None else self.likeness.distance,
            "distance_limit": None if self.likeness is None else self.likeness.limit,
            "notes": [{"code": code, "message": text} for code, text in self.notes],
            "error": None if error is None else {"code": error.code, "message": error.message, "help": error.hint},
            **({} if self.map is None else {"map": str(self.map)}),
        }


def known_inputs(artifact: Artifact) -> InputStatistics | None:
    """What the manifest says of the training images; None where it says nothing (E502 where it says nonsense)."""
    value = artifact.details.get("input_statistics")
    if value is None:
        return None
    try:
        return InputStatistics.from_json(value)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        text = f"input statistics in the manifest are not valid: {error}"
        raise OctcError("OCT-E502", text, hint="do not use this artifact", place="artifact.json") from error


@dataclass(frozen=True)
class _Prepared:
    record: Record
    images: UInt8 | None  # [views, channels, size, size]


def classify(
    runtime: Runtime, artifact: Artifact, paths: Iterable[Input], *, views: str = "none", batch: int = 8, threads: int = 1
) -> Iterator[Record]:
    """Records in the order of `paths`, as soon as they are known.

    Args:
        views: key of `octc.imaging.preprocess.VIEWS`. batch: images in one call of the runtime (as many a
            picture as views).
        threads: pictures that are decoded at once.
    """
    names, known = VIEWS[views], known_inputs(artifact)
    each = max(1, batch // len(names))  # pictures in one call
    waiting: list[_Prepared] = []
    for one in _prepared(artifact, paths, names, known, each, threads):
        waiting.append(one)
        if sum(entry.images is not None for entry in waiting) == each:
            yield from _run(runtime, waiting, batch, artifact)
            waiting = []
    yield from _run(runtime, waiting, batch, artifact)


def _prepared(
    artifact: Artifact, paths: Iterable[Input], names: Sequence[str], known: InputStatistics | None, each: int, threads: int
) -> Iterator[_Prepared]:
    def one(item: Input) -> _Prepared:
        if isinstance(item, Unread):
            return _Prepared(Record(item.path, error=item.error), None)
        blank = Record(Path(item.volume.name), scan=item) if isinstance(item, Scan) else Record(item)
        try:
            picture = decoded(item)
        except OctcError as error:
            if error.exit_code == 4:  # the machine, not the image
                raise
            return _Prepared(replace(blank, error=error), None)
        likeness = None if known is None else compare_picture(picture.image, known)
        images = artifact.preprocess.prepare(picture.image, names)
        return _Prepared(replace(blank, likeness=likeness, notes=(*picture.notes, *_notes(images, likeness))), images)

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        futures: deque[Future[_Prepared]] = deque()
        try:
            for path in paths:
                futures.append(pool.submit(one, path))
                if len(futures) > max(AHEAD * each, threads):
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            for future in futures:  # who takes no more records does not wait for what is left
                future.cancel()


def decoded(item: Path | Scan) -> Decoded:
    """The picture of an input: a file's, or that of a B-scan, within the quality gate of pictures."""
    if isinstance(item, Path):
        return read_image(item)
    if (text := size_fault(item.volume.columns, item.volume.rows)) is not None:
        raise OctcError("OCT-E208", text, hint=SIDES, place=item.volume.name)
    return Decoded(Image.fromarray(item.volume.frame(item.index)))


def _notes(images: UInt8, likeness: Likeness | None) -> list[Note]:
    notes: list[Note] = []
    if (text := quality_notes(images[:1])) is not None:
        notes.append(("OCT-W211", text))
    if likeness is not None and likeness.unlike:
        far = "" if likeness.distance is None else f"distance {likeness.distance:.1f}, limit {likeness.limit:.1f}"
        why = ", ".join(likeness.unusual)
        more = "; ".join(part for part in (far, why and f"most unusual: {why}") if part)
        notes.append(("OCT-W801", f"unlike the training images, no label ({more})"))
    return notes


def _run(runtime: Runtime, waiting: Sequence[_Prepared], batch: int, artifact: Artifact) -> Iterator[Record]:
    """Records of a group: its images go through the runtime together, its errors keep their place."""
    images = [one.images for one in waiting if one.images is not None]
    if not images:
        yield from (one.record for one in waiting)
        return
    flat = np.concatenate(images)
    logits = np.concatenate([runtime(flat[start : start + batch]) for start in range(0, len(flat), batch)])
    answers = iter(logits.reshape(len(images), -1, logits.shape[1]))
    for one in waiting:
        yield one.record if one.images is None else _answered(one.record, next(answers), artifact)


def _answered(record: Record, logits: Any, artifact: Artifact) -> Record:
    """A record with its probabilities; logits float32 [views, K]."""
    if not np.isfinite(logits).all():
        error = OctcError("OCT-E701", "outputs are not finite", hint="octc verify this artifact", place=str(record.path))
        return replace(record, error=error)
    if artifact.task == "multilabel":
        return decided(record, view_scores(logits[None])[0], thresholds_of(artifact.details, len(artifact.classes)))
    probabilities = combine_views(logits[None])[0][0]
    notes = record.notes
    if probabilities.max() < UNSURE:
        notes = (
            *notes,
            ("OCT-W802", f"no class reaches {100 * UNSURE:g} % (the likeliest has {100 * probabilities.max():.1f} %)"),
        )
    label = None if record.unlike else int(probabilities.argmax())
    return replace(record, probabilities=tuple(map(float, probabilities)), label=label, notes=notes)


def decided(record: Record, scores: Any, thresholds: Sequence[float]) -> Record:
    """A record of classes that do not exclude each other; scores float64 [K]. No class of an unlike picture is said."""
    own = tuple(k for k, at in enumerate(thresholds) if scores[k] >= at)
    label = None if record.unlike or not own else max(own, key=lambda k: scores[k])
    return replace(record, probabilities=tuple(map(float, scores)), label=label, labels=() if record.unlike else own)
