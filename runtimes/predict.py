"""Files in, records out: decode, prepare, look at, run, combine views. A bad file becomes a record of its own."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.errors import OctcError
from octc.datasets.pictures import scan_picture
from octc.imaging.decode import Admit, Decoded, Values, read_image
from octc.imaging.input_statistics import InputStatistics, Likeness, compare_picture
from octc.imaging.preprocess import VIEWS, Float32, UInt8, quality_notes
from octc.runtimes.room import Batch
from octc.stats.aggregation import Aggregation
from octc.stats.deciding import Decided, decide, stated_decision
from octc.stats.decision_rules import Decision
from octc.stats.metrics import combine_views
from octc.stats.multilabel import thresholds_of, view_scores
from octc.store.artifacts import Artifact
from octc.volumes.likeness import PICTURE, mismatch
from octc.volumes.volume import HEYEX_LOG, Volume

Note = tuple[str, str]  # code, text
Engine = Callable[[UInt8], Float32]  # a Runtime, or what stands before one
UNSURE = 0.5  # no class reaches this probability
NO_EYE = "no answer for the eye"  # why a person is to decide
DECODING_THREAD = "octc-decoding"  # begins the name of the threads that decode
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
        decided: what the artifact's rules make of the probabilities (set, refer); None where it has none.
        notes: warnings (code, text). map: heat map of the answer, where one was requested. report: file of the structured
            report that the answer of an eye is in, where one was requested.
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
    decided: Decided | None = None
    map: Path | None = None
    report: Path | None = None

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
            **({} if self.decided is None else ruled_json(self.decided, classes)),
            **({} if self.map is None else {"map": str(self.map)}),
            **({} if self.report is None else {"report": str(self.report)}),
        }


def ruled_json(decided: Decided, classes: Sequence[str]) -> dict[str, Any]:
    """The fields of a record that rules give."""
    flags = {} if decided.flagged is None else {"flagged": [classes[k] for k in decided.flagged]}
    members = None if decided.members is None else [classes[k] for k in decided.members]
    return {"set": members, "refer": decided.refer, "refer_because": list(decided.why), **flags}


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


def mappings_of(artifact: Artifact) -> tuple[Mapping[str, Any], ...] | None:
    """How the grey of the training images was made (`Intensity.to_json`); None where the manifest says nothing.

    Raises:
        OctcError: E502 it says nonsense.
    """
    value = artifact.details.get("intensity")
    if value is None:
        return None
    try:
        found = tuple({**one, "name": str(one["name"])} for one in value["mappings"])
        for one in found:
            if one["name"] == HEYEX_LOG and not (one["offset"] > 0 and one["scale"] > 0 and np.isfinite(one["shift"])):
                raise ValueError("a curve that cannot be")
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        text = f"intensity in the manifest is not valid: {error}"
        raise OctcError("OCT-E502", text, hint="do not use this artifact", place="artifact.json") from error
    return found


@dataclass(frozen=True)
class Prepared:
    """An input that is ready for the engine. images: [views, channels, size, size]; None where the record is complete."""

    record: Record
    images: UInt8 | None


def classify(
    runtime: Engine,
    artifact: Artifact,
    paths: Iterable[Input],
    *,
    views: str = "none",
    batch: Batch | None = None,
    threads: int = 1,
    monitored: bool = True,
    decode: Callable[[Path | Scan], Decoded] | None = None,
) -> Iterator[Record]:
    """Records in the order of `paths`, as soon as they are known.

    Args:
        views: key of `octc.imaging.preprocess.VIEWS`. batch: images in one call of the runtime (as many a
            picture as views), None: the usual number, halved where memory is short.
        threads: pictures that are decoded at once. monitored: the records may go to a monitor's store, which keeps more of a
            picture than whether it is like the training images. decode: as of `prepare_input`.
    """
    names, known = VIEWS[views], known_inputs(artifact)

    def prepare(item: Input) -> Prepared:
        return prepare_input(artifact, item, names, known, decode, monitored=monitored)

    batch = batch or Batch()
    each = max(1, batch.size // len(names))  # pictures in one call
    waiting: list[Prepared] = []
    with closing(_prepared(prepare, paths, each, threads)) as ready:
        for one in ready:
            waiting.append(one)
            if sum(entry.images is not None for entry in waiting) == each:
                yield from answer_group(runtime, waiting, batch, artifact)
                waiting = []
    yield from answer_group(runtime, waiting, batch, artifact)


def _prepared(
    prepare: Callable[[Input], Prepared], paths: Iterable[Input], each: int, threads: int
) -> Generator[Prepared, None, None]:
    rest = iter(paths)
    first = list(itertools.islice(rest, 2))
    if len(first) < 2:  # nothing runs meanwhile, and a thread costs as much as a small picture
        yield from map(prepare, first)
        return
    pool = ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix=DECODING_THREAD)
    futures: deque[Future[Prepared]] = deque()
    try:
        for path in itertools.chain(first, rest):
            futures.append(pool.submit(prepare, path))
            if len(futures) > max(AHEAD * each, threads):
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        # who takes no more records does not wait for what is left. What was forgotten is closed by Python's collector, which
        # runs in any thread: one of the pool cannot wait for itself
        inside = threading.current_thread().name.startswith(DECODING_THREAD)
        pool.shutdown(wait=not inside, cancel_futures=True)


def prepare_input(
    artifact: Artifact,
    item: Input,
    names: Sequence[str],
    known: InputStatistics | None,
    decode: Callable[[Path | Scan], Decoded] | None = None,
    *,
    monitored: bool = True,
) -> Prepared:
    """An input decoded, compared with the training images (`known`) and made ready in its views.

    Args:
        names: of the views. decode: (file or B-scan) -> picture; None: `decoded`. monitored: as of `classify`.

    Raises:
        OctcError: what the machine lacks; what is wrong with the input is in its record.
    """
    if isinstance(item, Unread):
        return Prepared(Record(item.path, error=item.error), None)
    blank = Record(Path(item.volume.name), scan=item) if isinstance(item, Scan) else Record(item)
    try:
        picture = decoded(item, artifact.preprocess.value_range) if decode is None else decode(item)
    except OctcError as error:
        if error.exit_code == 4:  # the machine, not the image
            raise
        return Prepared(replace(blank, error=error), None)
    likeness = None if known is None else compare_picture(picture.image, known, order=monitored)
    images = artifact.preprocess.prepare(picture.image, names)
    doubt = mismatch(PICTURE, mappings_of(artifact)) if isinstance(item, Path) else ""
    notes = (*picture.notes, *([("OCT-W805", doubt)] if doubt else []), *_notes(images, likeness))
    return Prepared(replace(blank, likeness=likeness, notes=notes), images)


def decoded(item: Path | Scan, values: Values | None = None, admit: Admit | None = None) -> Decoded:
    """The picture of an input: a file's, by the value range of the artifact, or that of a B-scan, within the quality gate.

    admit: of a file, as `read_image` has it.
    """
    if isinstance(item, Path):
        return read_image(item, values, admit)
    return scan_picture(item.volume, item.index)


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


def answer_group(runtime: Engine, waiting: Sequence[Prepared], batch: Batch, artifact: Artifact) -> Iterator[Record]:
    """Records of a group: its images go through the runtime together, its errors keep their place."""
    images = [one.images for one in waiting if one.images is not None]
    if not images:
        yield from (one.record for one in waiting)
        return
    logits = batch.run(runtime, np.concatenate(images))
    answers = iter(logits.reshape(len(images), -1, logits.shape[1]))
    rules = stated_decision(artifact.details, artifact.classes)
    for one in waiting:
        if one.images is None:
            yield one.record
        else:
            answer = next(answers)
            yield ruled(_answered(one.record, answer, artifact), artifact, rules, views=len(answer))


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


def ruled(record: Record, artifact: Artifact, rules: Decision | None, *, views: int = 1) -> Record:
    """A record by the rules of its artifact: its label, its set, whether a person is to decide."""
    values = record.probabilities
    if rules is None or values is None or record.labels is not None:
        return record
    if views > 1:
        text = "the artifact's decision rules are of one view, and are not applied to the mean of several"
        return replace(record, notes=(*record.notes, ("OCT-W810", text)))
    found = decide(values, rules, artifact.classes)
    if record.label is None:  # unlike the training images, or an eye without an answer
        why = "unlike the training images" if record.eye is None else NO_EYE
        return replace(record, decided=replace(found, members=None, flagged=None, refer=True, why=(why,)))
    return replace(record, label=found.label, decided=found)


def decided(record: Record, scores: Any, thresholds: Sequence[float]) -> Record:
    """A record of classes that do not exclude each other; scores float64 [K]. No class of an unlike picture is said."""
    own = tuple(k for k, at in enumerate(thresholds) if scores[k] >= at)
    label = None if record.unlike or not own else max(own, key=lambda k: scores[k])
    return replace(record, probabilities=tuple(map(float, scores)), label=label, labels=() if record.unlike else own)
