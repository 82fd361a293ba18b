"""Volumes among the inputs: each of their B-scans is a picture, and behind the last one stands an answer for the eye."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.errors import OctcError
from octc.core.standard_input import NAME
from octc.runtimes.inputs import may_be_volume
from octc.runtimes.predict import NO_EYE, Eye, Record, Scan, Unread, decided, mappings_of, ruled
from octc.stats.aggregation import Aggregation, aggregate, places_of, stated_aggregation
from octc.stats.deciding import KEY, Decided, stated_decision
from octc.stats.multilabel import thresholds_of
from octc.store.artifacts import Artifact
from octc.volumes.formats import pictures_of, read_volumes
from octc.volumes.likeness import fitted, mismatch
from octc.volumes.volume import Volume

RATED, LEAST_QUALITY = ("heidelberg-vol", "heidelberg-xml"), 15.0  # dB; OSCAR-IB, Tewarie et al. 2012
LACKING = ("OCT-E221", "OCT-E901")  # a decoder or a library that this one file needs
SPOILT = 0.5  # share of B-scans that failed or are unlike the training images, from which on there is no answer for the eye


@dataclass(frozen=True)
class Reading:
    """How volumes among the inputs are read.

    key: the site's secret for the hash of the patient. mappings: how the grey of the training images was made (`mappings_of`),
    None where the artifact does not say so.
    """

    allow_cut: bool = False
    key: bytes | None = None
    mappings: tuple[Mapping[str, Any], ...] | None = None


def opened(items: Iterable[Path | Volume], how: Reading) -> list[Path | Scan | Unread]:
    """Pictures as they are, volumes as their B-scans in order; a volume that cannot be read as one item with its error.

    Files that a volume is made of besides its own (parts of a concatenation, pictures of an export) are not taken again.
    """
    found: list[tuple[Path, list[Volume] | OctcError | None]] = []
    inside: set[Path] = set()
    for item in items:
        if isinstance(item, Volume):
            found.append((item.path, [fitted(item, how.mappings or ())]))
        elif item not in inside:
            volumes = volumes_in(item, how)
            if isinstance(volumes, list):
                inside.update(other for one in volumes for other in one.others)
            elif volumes is not None:
                inside.update(_pictures(item))
            found.append((item, volumes))
    return [one for path, volumes in found if path not in inside for one in _items(path, volumes)]


def _pictures(path: Path) -> tuple[Path, ...]:
    """Pictures that a volume names which cannot be read: without it nobody knows what they are."""
    try:
        return pictures_of(path)
    except OctcError:
        return ()


def _items(path: Path, found: list[Volume] | OctcError | None) -> list[Path | Scan | Unread]:
    if found is None:
        return [path]
    if isinstance(found, OctcError):
        return [Unread(path, found)]
    return [Scan(volume, index) for volume in found for index in range(volume.frames)]


def volumes_in(path: Path, how: Reading) -> list[Volume] | OctcError | None:
    """The volumes of a file, why they cannot be read, or None for a file that is no volume."""
    if not may_be_volume(path):
        return None
    try:
        return [fitted(one, how.mappings or ()) for one in read_volumes(path, allow_cut=how.allow_cut, key=how.key)]
    except OctcError as error:
        if error.exit_code == 4 and error.code not in LACKING:  # the machine, not the file
            raise
        return error


def with_eyes(records: Iterable[Record], artifact: Artifact, how: Aggregation) -> Iterator[Record]:
    """The same records, and behind the last B-scan of each volume one for its eye."""
    waiting: list[Record] = []
    for record in records:
        yield record
        if record.scan is None:
            continue
        waiting.append(record)
        if record.scan.index == record.scan.volume.frames - 1:
            yield answer_of(waiting, artifact, how)
            waiting = []


def shown_as(records: Iterable[Record], kept: Path | None) -> Iterator[Record]:
    """Records of the file that keeps the standard input are called `-`."""
    for record in records:
        path = str(record.path)
        own = kept is not None and path.startswith(str(kept))
        if own and record.error is not None:
            record.error.place = NAME
        yield replace(record, path=Path(NAME + path.removeprefix(str(kept)))) if own else record


def aggregation_of(artifact: Artifact, asked: str | None = None) -> Aggregation:
    """How an artifact makes an eye's answer: as asked, else as its manifest says, else the mean of the logits."""
    if asked is not None:
        return Aggregation(asked, chosen_on="the user")
    return stated_aggregation(artifact.details)


def answer_of(records: list[Record], artifact: Artifact, how: Aggregation) -> Record:
    """The record of an eye: aggregated probabilities; no label where the volume does not allow one, with the reason."""
    scan = records[0].scan
    assert scan is not None
    volume = scan.volume
    usable = [record for record in records if _counts(record)]
    reasons = _reasons(volume, len(usable), len(records))
    eye = Eye(volume.laterality.value, len(records), len(usable), how, reasons, volume.patient)
    record = Record(Path(volume.name), eye=eye, notes=tuple(_notes(volume, artifact, how, reasons)))
    exclusive = artifact.task != "multilabel"
    rules = stated_decision(artifact.details, artifact.classes, "eye")
    if not usable:
        referred = Decided(label=None, flagged=None, members=None, refer=True, why=(NO_EYE,))
        return replace(record, decided=referred) if exclusive and rules is not None else record
    chosen = [one.scan.index for one in usable if one.scan is not None]
    places = places_of(volume.frames, chosen) if volume.spatial else None
    scores = aggregate(np.asarray([one.probabilities for one in usable]), how, exclusive=exclusive, places=places)
    if not exclusive:
        record = decided(record, scores, thresholds_of(artifact.details, len(artifact.classes)))
        return replace(record, label=None, labels=()) if reasons else record
    answered = replace(record, probabilities=tuple(map(float, scores)), label=None if reasons else int(scores.argmax()))
    if rules is None and KEY in artifact.details:
        text = "the artifact's decision rules are of images, and none was chosen for eyes: the likeliest class is answered"
        answered = replace(answered, notes=(*answered.notes, ("OCT-W810", text)))
    return ruled(answered, artifact, rules)


def _counts(record: Record) -> bool:
    """Whether a B-scan counts for its eye: it has an answer, is like the training images, and its quality allows one."""
    scan = record.scan
    assert scan is not None
    quality = scan.volume.quality[scan.index] if scan.volume.quality else 0.0
    poor = scan.volume.format in RATED and 0 < quality < LEAST_QUALITY
    flagged = any(code == "OCT-W211" for code, _ in record.notes)
    return record.probabilities is not None and not (record.unlike or poor or flagged)


def _reasons(volume: Volume, usable: int, frames: int) -> tuple[str, ...]:
    """Why there is no answer for an eye; empty where there is one."""
    reasons = []
    if volume.complete.value is False:
        reasons.append("the volume is incomplete")
    if usable < frames * (1 - SPOILT) or not usable:
        text = f"{frames - usable} of {frames} B-scans failed, are of low quality or unlike the training images"
        reasons.append(text)
    return tuple(reasons)


def _notes(volume: Volume, artifact: Artifact, how: Aggregation, reasons: tuple[str, ...]) -> list[tuple[str, str]]:
    notes = [("OCT-W804", f"no answer for the eye: {reason}") for reason in reasons]
    if text := mismatch(volume.intensity.name, mappings_of(artifact)):
        notes.append(("OCT-W805", text))
    if (values := artifact.preprocess.value_range) is not None:
        span = f"{values[0]:g} to {values[1]:g}"
        text = f"grey of a volume is as its format states; the artifact's range ({span}) is of image files"
        notes.append(("OCT-W805", text))
    if how.position and not volume.spatial:
        notes.append(("OCT-W806", "places of the B-scans along the eye are not known: all of them count alike"))
    notes += [("OCT-W806", note) for note in volume.notes]
    if not how.chosen_on:
        notes.append(("OCT-W807", f"aggregated by {how.method}, the default: it was not chosen on a validation set"))
    return notes
