"""The labelled set that `octc verify` judges on: a part of the run's split, every image checked against it before use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError, shorten
from octc.datasets.base import Sample, ids_of
from octc.datasets.pictures import content_of
from octc.datasets.pictures import is_here as picture_is_here
from octc.datasets.registry import DATASETS
from octc.datasets.split import SETS, Split, check_split, groups_of, read_split
from octc.datasets.tree import has_folder, scan_images
from octc.imaging.decode import read_image
from octc.stats.patients import KNOWN, PARTIAL, UNKNOWN, PatientIds
from octc.store.artifacts import Artifact
from octc.store.locations import image_root
from octc.store.runs import Run

SPOKEN = {"test": "test set", "select": "validation set", "tables": "joined tables"}


def spoken(name: str) -> str:
    """The name of a set in text: "test set", "validation set"."""
    return SPOKEN.get(name, f"{name} set")


@dataclass(frozen=True)
class LabelledSet:
    """Images with labels. samples: in the order of the split; `patient` links patients that share a picture.

    protocol: which split this is, in words; note: what must be printed beside numbers of this data set;
    leakage: of the whole split: "none", or why there may be some (another protocol than "clean", patients that are not known).
    known: whether it is known whose the images of this set are.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    protocol: str
    note: str
    leakage: str = "none"

    @property
    def known(self) -> PatientIds:
        return ids_of(self.samples)


def read_set(run: Run, root: Path, name: str) -> LabelledSet:
    """A set of a run; nothing of it has been looked at yet.

    Raises:
        OctcError: E216 the split cannot be read, E212 or E210 leakage, E207 it lacks images.
    """
    split = read_split(run.split)
    check_split(split)
    samples = linked(split.parts[SETS[name]])
    spec = DATASETS.get(split.dataset)
    note = "; ".join(text for text in (split.note, spec.note if spec else "") if text)
    return LabelledSet(name, root, split.classes, samples, _protocol(split, name), note, split.leakage)


def _protocol(split: Split, name: str) -> str:
    if split.note:
        return f"{split.protocol} {name} set"
    known = split.patient_ids
    who, shared, level = {
        KNOWN: ("patients that were not trained on", "of its patients", "patient-level test split"),
        PARTIAL: (
            "images, and known patients, that were not trained on",
            "of its known patients or with its content",
            "test split, patient-level where a patient is known",
        ),
        UNKNOWN: ("images that were not trained on", "with its content", "image-level test split, patients unknown"),
    }[known.state]
    if name == "select":
        return f"validation set: {who}"
    if any(sample.part == "test" for sample in split.parts["test"]):
        return f"published test part ({split.dropped} training images {shared} were dropped)"
    return level


def linked(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples with one patient for all that share a patient or a picture (one content under two patient numbers)."""
    names: dict[int, str] = {}
    groups = groups_of(samples)
    for group, sample in zip(groups, samples, strict=True):
        if sample.patient is not None:
            names.setdefault(group, sample.patient)
    return tuple(replace(sample, patient=names.get(group)) for group, sample in zip(groups, samples, strict=True))


def is_here(one: LabelledSet) -> bool:
    """Whether any image of the set exists under its root."""
    return any(picture_is_here(one.root, sample) for sample in one.samples)


def check_images(one: LabelledSet, split: Split, progress: Callable[[int], None]) -> None:
    """Refuse a set whose files are not those of the split (E216, with what was removed, changed and added).

    Every file of the set is read; in its folders, files that the split does not know are looked for.
    """
    changes = []
    for sample in one.samples:
        try:
            if content_of(one.root, sample) != sample.sha256:
                changes.append(f"changed {sample.path}")
        except FileNotFoundError:
            changes.append(f"removed {sample.path}")
        except OSError as error:
            changes.append(f"unreadable {sample.path} ({error.strerror})")
        except OctcError as error:
            changes.append(f"unreadable {sample.path} ({error.code}: {error.message})")
        progress(1)
    changes += _added(one, split)
    if changes:
        text = (
            f"{len(changes)} files of the {spoken(one.name)} are not as they were when it was split: {shorten(sorted(changes))}"
        )
        hint = "restore these files, or train and export again: octc train student"
        raise OctcError("OCT-E216", text, hint=hint, place=str(one.root))


def _added(one: LabelledSet, split: Split) -> list[str]:
    """Pictures beside those of the set that the split does not know, and folders that cannot be listed. What cannot be decoded
    was left out of it on purpose."""
    if split.dropped and not all(sample.part == "test" for sample in one.samples):
        return []  # the dropped training images lie there too, and are not listed
    known = {sample.file for items in split.parts.values() for sample in items}
    found = []
    for folder in sorted({(one.root / sample.path).parent for sample in one.samples if sample.scan is None}):
        if not has_folder(folder):
            continue
        images, why = scan_images(folder)
        if why:
            found.append(f"unreadable {folder.relative_to(one.root).as_posix()}/ ({why})")
        for path in images:
            name = path.relative_to(one.root).as_posix()
            if name in known:
                continue
            try:
                read_image(path)
            except OctcError:
                continue
            found.append(f"added {name}")
    return found


def check_artifact(artifact: Artifact, split: Split) -> None:
    """Refuse an artifact that may have seen this split's images.

    Raises:
        OctcError: E216 it was made from another split, E309 other classes, E214 a calibration image is in val or test.
    """
    digest = artifact.lineage.get("split_digest")
    if digest != split.digest:
        text = f"{artifact.name} was made from another split ({str(digest)[:12]}, this one is {split.digest[:12]})"
        why = "it may have been trained on these images"
        raise OctcError("OCT-E216", text, hint="octc export, from the run that this split belongs to", why=why)
    if artifact.classes != split.classes:
        text = f"{artifact.name} has the classes {', '.join(artifact.classes)}; the set has {', '.join(split.classes)}"
        raise OctcError("OCT-E309", text, hint="compare models of the same classes in the same order")
    listed: dict[str, Any] = artifact.details.get("quantisation") or {}
    calibration = set(listed.get("calibration") or ())
    shared = [s.path for part in ("val", "test") for s in split.parts[part] if s.sha256 in calibration]
    if shared:
        text = (
            f"calibration images of {artifact.name} overlap val or test ({len(shared)} files, sha256 match): {shorten(shared)}"
        )
        why = "parity measured on images seen in calibration is not evidence"
        raise OctcError("OCT-E214", text, hint="octc train student again: the split is made anew", why=why)


def folded_temperature(artifact: Artifact) -> float:
    """What the logits of an artifact were divided by when it was exported; 1 where nothing was."""
    value = (artifact.details.get("temperature") or {}).get("folded", 1.0)
    return float(value) if isinstance(value, (int, float)) and value > 0 else 1.0


def find_set(
    run: Run | None, name: str, data: str | None, environ: Mapping[str, str]
) -> tuple[LabelledSet | None, Split | None, str]:
    """The labelled set of this name with its split, or why it is not on this machine."""
    if run is None:
        return None, None, "the run of this artifact, with its split, is not on this machine"
    try:
        root = image_root(run, data, environ)
    except OctcError as error:
        if data is not None or error.code != "OCT-E230":
            raise
        return None, None, f"the images of {run.read().get('dataset')} are not on this machine (--data DIR)"
    labelled = read_set(run, root, name)
    if data is None and not is_here(labelled):
        return None, None, f"the images of the {spoken(name)} are not on this machine (--data DIR)"
    return labelled, read_split(run.split), ""
