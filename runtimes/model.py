"""An artifact as a notebook uses it: checked, opened, its golden images replayed, ready to predict."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from octc.core.errors import OctcError
from octc.core.progress import LogReporter
from octc.core.several import several
from octc.imaging.preprocess import VIEWS, Preprocess
from octc.runtimes.base import Runtime
from octc.runtimes.golden import GoldenReport, check_golden, require_golden
from octc.runtimes.maps import HeatMap, MapOptions, map_of
from octc.runtimes.predict import Eye, Record, classify, mappings_of
from octc.runtimes.registry import choose_threads, open_runtime, prefer
from octc.runtimes.room import BATCH, Batch
from octc.runtimes.scans import Reading, aggregation_of, opened, with_eyes
from octc.store.artifacts import MANIFEST, Artifact, read_artifact
from octc.store.find import Found, find_artifacts
from octc.volumes.volume import Volume

Place = str | os.PathLike[str]
Images = Place | Volume | Sequence[Place | Volume]


@dataclass(frozen=True)
class Prediction:
    """What an artifact answers for one image.

    Attributes:
        file: the path as given.
        label: the predicted class: the most probable one, or what the artifact's decision rules choose; None if the file cannot
            be read or the image is unlike the training images.
        labels: for a multi-label artifact, all classes that reach their threshold; else None.
        probabilities: class name -> probability (0 to 1); None if the file cannot be read.
        set: classes of the prediction set, most probable first. flagged: all classes whose operating point is reached.
            refer: whether a person should decide. why: the reasons. These follow the artifact's rules (docs/abstention.md);
            without rules they are None, and `why` is ().
        notes: remarks for the reader, each with its code. error: why there is no prediction, with a hint; else None.
        frame: number of the B-scan within a volume, from 0. eye: for the prediction of an eye, what it is based on (side,
            B-scans, how they were aggregated, why there is no label). Both are None for an image.
    """

    file: str
    label: str | None
    labels: tuple[str, ...] | None
    probabilities: dict[str, float] | None
    notes: tuple[tuple[str, str], ...]
    error: OctcError | None
    frame: int | None = None
    eye: Eye | None = None
    set: tuple[str, ...] | None = None
    refer: bool | None = None
    why: tuple[str, ...] = ()
    flagged: tuple[str, ...] | None = None

    @property
    def confidence(self) -> float | None:
        """The largest probability."""
        return None if self.probabilities is None else max(self.probabilities.values())


class Model:
    """An opened artifact; `octc.load` makes one. A context manager: leaving it frees the engine.

    Attributes:
        folder: the artifact's folder. artifact: its manifest (name, classes, target, precision, lineage).
        golden: the comparison of the golden images on this machine with their recorded logits.
    """

    def __init__(self, folder: Path, artifact: Artifact, runtime: Runtime, golden: GoldenReport, threads: int) -> None:
        self.folder = folder
        self.artifact = artifact
        self.golden = golden
        self._runtime = runtime
        self._threads = threads

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the network's outputs."""
        return self.artifact.classes

    @property
    def preprocess(self) -> Preprocess:
        """What is done to a picture before the network sees it: size in pixels, resampling, channels."""
        return self.artifact.preprocess

    def predict(self, images: Images, *, views: str = "none", batch: int | None = None) -> list[Prediction]:
        """Predict all images, in their order. A file that cannot be read becomes a prediction with an error.

        Args:
            images: image files, and volumes as files or as read by `octc.volumes`: a volume gives one prediction per B-scan and
                then one for the eye. A single image needs no list.
            views: "none", "hflip" or "5": test-time augmentation, probabilities averaged.
            batch: images per call of the engine; None: 8, halved when memory is short.

        Raises:
            OctcError: E104 unknown views, a batch out of range, or an input that is not a file; E904 memory is short.
        """
        return list(self.iter_predict(images, views=views, batch=batch))

    def iter_predict(self, images: Images, *, views: str = "none", batch: int | None = None) -> Iterator[Prediction]:
        """Like `predict`, but yields each prediction as soon as it is known and keeps nothing in memory."""
        if views not in VIEWS:
            raise OctcError("OCT-E104", f"views {views!r} is not known", hint=f"one of: {', '.join(VIEWS)}", place="views")
        size = _batch(batch)
        how = Reading(mappings=mappings_of(self.artifact))
        inputs = opened((one if isinstance(one, Volume) else _path(one) for one in several(images, Volume)), how)
        records = classify(
            self._runtime, self.artifact, inputs, views=views, batch=size, threads=self._threads, monitored=False
        )
        for record in with_eyes(records, self.artifact, aggregation_of(self.artifact)):
            yield self._answer(record)

    def maps(
        self,
        images: Place | Sequence[Place],
        *,
        patch: int | None = None,
        stride: int | None = None,
        batch: int = BATCH,
    ) -> list[HeatMap | None]:
        """What each answer depends on, by covering squares of the image; this file's own engine answers (no torch).

        Args:
            images: image files.
            patch, stride: side of the square and its step, pixels of the network's input; None: an eighth of the input's
                side, and half of that: 226 runs of the network an image.
            batch: images in one call of the engine.

        Returns: maps in the order of `images`, each with `values` (float32 [S, S], the fall of the probability of the answer),
            `caption()` and `to_png()`; None where there is no answer to explain (`predict` says why).

        Raises:
            OctcError: E104 a square that does not fit, or a batch out of range.
        """
        options = MapOptions(patch, stride, batch)
        options.sizes(self.preprocess.size)
        size = _batch(batch)
        records = classify(self._runtime, self.artifact, map(_path, several(images)), batch=size, threads=self._threads)
        return [map_of(self._runtime, self.artifact, record, options) for record in records]

    def _answer(self, record: Record) -> Prediction:
        names, values, rules = self.classes, record.probabilities, record.decided
        members = None if rules is None else rules.members
        return Prediction(
            file=str(record.path),
            label=None if record.label is None else names[record.label],
            labels=None if record.labels is None else tuple(names[k] for k in record.labels),
            probabilities=None if values is None else dict(zip(names, values, strict=True)),
            notes=record.notes,
            error=record.error,
            frame=None if record.scan is None else record.scan.index,
            eye=record.eye,
            set=None if members is None else tuple(names[k] for k in members),
            refer=None if rules is None else rules.refer,
            why=() if rules is None else rules.why,
            flagged=None if rules is None or rules.flagged is None else tuple(names[k] for k in rules.flagged),
        )

    def close(self) -> None:
        """Free what the engine holds."""
        self._runtime.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<octc model {self.artifact.name} of {', '.join(self.classes)} at {self.folder}>"


def _path(given: Any) -> Path:
    """A file by its name (E104 for a picture in memory: how a file becomes grey values is a part of the answer)."""
    try:
        return Path(given)
    except TypeError as error:
        text = f"{type(given).__name__} is neither a path nor a volume"
        hint = "name the file itself, save a picture of your own as PNG first, or octc.read_volume(PATH)"
        raise OctcError("OCT-E104", text, hint=hint, place="images") from error


def _batch(batch: int | None) -> Batch:
    if batch is None:
        return Batch(warn=LogReporter().warn)
    if not 1 <= batch <= 256:
        raise OctcError("OCT-E104", f"batch {batch} is out of range", hint="1 to 256", place="batch")
    return Batch(batch, asked=True)


def located(place: str | os.PathLike[str]) -> Found:
    """The artifact at a place, checked: an artifact's folder, or of a run's artifacts the one that runs best here."""
    folder = Path(place)
    if (folder / MANIFEST).is_file():
        return Found(folder, read_artifact(folder))
    return prefer(find_artifacts(str(folder), Path("runs"), {})[0])


def load(place: str | os.PathLike[str], *, threads: int | None = None, batch: int | None = None) -> Model:
    """Open an artifact: check checksums and signature, scan the model file, replay the golden images.

    Args:
        place: an artifact's folder, or a run's folder (the artifact is then chosen as `octc predict` chooses).
        threads: for the engine and for decoding; None: the usable physical cores within the container's quota.
        batch: a fixed number of images per call, for engines with static shapes; None: any.

    Returns: the opened model; use it as a context manager, or call `close()`.

    Raises:
        OctcError: E107 no artifact there; E501, E502, E504, E507 damaged, unsafe or not signed; E901 its engine is not
            installed; E506, E508 it gives other results here than where it was made.

    >>> import octc
    >>> with octc.load("artifacts/onnx-fp32") as model:
    ...     prediction = model.predict(["a.png"])[0]
    >>> list(prediction.probabilities)
    ['CNV', 'NORMAL']
    """
    found = located(place)
    folder, artifact = found.folder, found.artifact
    count = choose_threads(threads)
    runtime = open_runtime(folder, artifact, threads=count, batch=batch, kept=True)
    try:
        if why := getattr(runtime, "not_kept", ""):
            LogReporter().warn("OCT-W905", why)
        parts = partial(Batch(batch or BATCH).run, runtime)  # in the shape that `predict` takes: another one is memory too
        report = check_golden(folder, artifact, parts)
        require_golden(report, artifact)
    except BaseException:
        runtime.close()
        raise
    return Model(folder, artifact, runtime, report, count)
