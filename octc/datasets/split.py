"""The split of a run: grouped by patient, stratified by class, seeded, with a digest. A patient in two parts is an error.

An image without a known patient is a group of its own, and the split then states that leakage cannot be excluded. Only a split
with another protocol than "clean" (octc/datasets/released_splits.py) may leak; every output then states it.
"""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET

from octc.core.errors import OctcError, shorten
from octc.core.files import canonical_json, read_json, sha256_bytes, write_json
from octc.core.grouping import roots_of
from octc.datasets.base import Sample, Samples, ids_of
from octc.datasets.patients import before_fields
from octc.schemas.common import convert
from octc.schemas.split import SplitFile
from octc.stats.patients import UNKNOWN, PatientIds

PARTS = ("train", "val", "test")
OFFICIAL = "official"  # a fourth part, of folds only: the official test part, not used for training or choosing the epoch
SETS = {"select": "val", "test": "test", "official": OFFICIAL}  # name of a set in options -> part of the split
CLEAN, RELEASED, RELEASED_TEACHER = "clean", "as-released", "as-released-teacher"
PROTOCOLS = (CLEAN, RELEASED, RELEASED_TEACHER)
IMPORTED = "imported"  # a clean split, but the network was trained elsewhere on unknown images


@dataclass(frozen=True)
class Split:
    """The assignment of images to train, val and test.

    Attributes:
        dropped: number of training images left out because they share a patient or content with the official test part or
            with the stated validation images (in a released fold: because it does not use them).
        protocol: "clean": no known patient and no content is in two parts; the others are KD-OCT's released splits with leaks.
        fold: (number from 1, number of folds), or None. The test part of a fold is its held-out part.
        may_lack: classes that the user allows to be absent from val and test.
        left_out: the acquisition that a fold leaves out ("size 512x496"), or empty.
    """

    dataset: str
    classes: tuple[str, ...]
    seed: int
    parts: dict[str, tuple[Sample, ...]]
    dropped: int = 0
    protocol: str = CLEAN
    fold: tuple[int, int] | None = None
    may_lack: tuple[str, ...] = ()
    left_out: str = ""

    @property
    def digest(self) -> str:
        """Digest of the classes and, per part, the sorted (SHA-256, label) pairs; also of the protocol, unless it is clean."""
        content = {part: sorted([s.sha256, s.label, *(s.targets or ())] for s in items) for part, items in self.parts.items()}
        more = [] if self.protocol == CLEAN else [self.protocol]
        return sha256_bytes(canonical_json([self.classes, content, *more]))

    @property
    def note(self) -> str:
        """The caveat to print with every metric on this split; empty for a clean one."""
        if self.protocol == CLEAN:
            return ""
        if self.protocol == IMPORTED:
            return "the network was trained elsewhere: whether it saw these images is not known"
        return f"LEAKY split ({self.protocol}): for comparison with published numbers only, no measure of accuracy"

    @property
    def dropped_words(self) -> str:
        """A sentence about the training images that were dropped because of the official test part."""
        what = "their content" if self.patient_ids.state == UNKNOWN else "a patient or their content"
        return f"{self.dropped} training images share {what} with test and are left out"

    @property
    def patient_ids(self) -> PatientIds:
        """Whether the patients of the images are known, over all parts."""
        return ids_of(s for items in self.parts.values() for s in items)

    @property
    def leakage(self) -> str:
        """ "none", or the reason why there may be leakage."""
        return "; ".join(text for text in (self.note, self.patient_ids.leakage) if text) or "none"

    def write(self, path: Path) -> None:
        """Write split.json."""
        parts = {part: [s.to_json() for s in items] for part, items in self.parts.items()}
        head = {
            "dataset": self.dataset, "classes": self.classes, "seed": self.seed, "dropped": self.dropped,
            "protocol": self.protocol, "fold": self.fold, "allow_empty": self.may_lack, **self.patient_ids.to_json(),
        }  # fmt: skip
        left_out = {"left_out": self.left_out} if self.left_out else {}
        write_json(path, {**head, **left_out, "digest": self.digest, "parts": parts})

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of images per part and class."""
        return {
            part: {name: sum(s.has(k) for s in items) for k, name in enumerate(self.classes)}
            for part, items in self.parts.items()
        }

    def people(self) -> dict[str, int | None]:
        """Number of known patients per part; None if no patient of the split is known."""
        some = self.patient_ids.count is not None
        return {part: ids_of(items).patients if some else None for part, items in self.parts.items()}

    def patients(self) -> dict[str, dict[str, int | None]]:
        """Number of known patients per part and class; None if no patient of the split is known."""
        some = self.patient_ids.count is not None
        return {
            part: {name: ids_of(s for s in items if s.has(k)).patients if some else None for k, name in enumerate(self.classes)}
            for part, items in self.parts.items()
        }


def read_split(path: Path) -> Split:
    """Read split.json and check its digest (OctcError E216: it does not match)."""
    try:
        value: dict[str, Any] = read_json(path)
        found = convert(value, SplitFile, path)
        names = (*PARTS, *(name for name in value["parts"] if name == OFFICIAL))
        parts = {part: tuple(Sample.from_json(s) for s in value["parts"][part]) for part in names}
        if found.patient_ids is UNSET:
            parts = _read_again(parts, found.dataset, found.classes)
        fold = None if found.fold is None else (found.fold[0], found.fold[1])
        lacking = tuple(found.allow_empty)
        split = Split(
            found.dataset, tuple(found.classes), found.seed, parts, found.dropped, found.protocol, fold, lacking, found.left_out
        )
        good = split.digest == found.digest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OctcError("OCT-E216", f"split cannot be read: {error}", hint="train again", place=str(path)) from error
    if not good:
        raise OctcError(
            "OCT-E216", "the digest in the split file does not match its content", hint="train again", place=str(path)
        )
    return split


def _read_again(parts: dict[str, tuple[Sample, ...]], dataset: str, classes: Sequence[str]) -> dict[str, tuple[Sample, ...]]:
    """The parts of a split file of an older version, without patient ids that today's rules do not confirm."""
    rows = [(s.path, classes[s.label], s.patient, s.eye) for items in parts.values() for s in items]
    people = iter(before_fields(dataset, rows, classes))
    return {part: tuple(replace(s, patient=next(people)) for s in items) for part, items in parts.items()}


def groups_of(items: Sequence[Sample]) -> list[int]:
    """Group index of each sample: images of the same patient, eye or content are in one group."""
    first: dict[tuple[str, str], int] = {}

    def pairs() -> Iterator[tuple[int, int]]:
        for i, sample in enumerate(items):
            keys = [("content", sample.sha256)] if sample.sha256 else []  # an unreadable file equals no other
            keys += [("patient", sample.patient)] if sample.patient is not None else []
            keys += [("eye", sample.eye)] if sample.eye is not None else []
            for key in keys:
                yield first.setdefault(key, i), i

    return roots_of(len(items), pairs())


def _take(items: Sequence[Sample], share: float, classes: int, rng: np.random.Generator) -> set[int]:
    """Indices of about `share` of each class, in whole groups.

    Groups are visited in random order (not by size: patients with most images are not typical), and one is taken if it brings
    the class shares closer to `share`. A class without any group then gets its smallest one, if another group remains.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups_of(items)):
        members[group].append(i)
    groups = [(chosen, Counter(items[i].label for i in chosen)) for _, chosen in sorted(members.items())]
    order = [groups[j] for j in rng.permutation(len(groups))]
    totals = Counter(s.label for s in items)
    left = Counter(label for _, counts in groups for label in counts)  # groups of each class that remain
    missing = {k: totals[k] * share for k in range(classes)}
    taken: set[int] = set()

    def take(chosen: list[int], counts: Counter[int]) -> None:
        taken.update(chosen)
        for k, n in counts.items():
            missing[k] -= n
            left[k] -= 1

    for chosen, counts in order:
        gain = sum((abs(missing[k]) - abs(missing[k] - n)) / max(totals[k] * share, 1.0) for k, n in counts.items())
        if gain > 0 and all(left[k] > 1 for k in counts):
            take(chosen, counts)
    for k in range(classes):
        if totals[k] and missing[k] == totals[k] * share:
            spare = [(c, n) for c, n in order if k in n and not taken.issuperset(c) and all(left[j] > 1 for j in n)]
            if spare:
                take(*min(spare, key=lambda group: len(group[0])))
    return taken


def make_split(samples: Samples, dataset: str, seed: int, val: float = 0.2, test: float = 0.2) -> Split:
    """Make a stratified split, grouped by patient if patients are known.

    An official test part of the layout is used as test, and training images that share a patient or content with it are
    dropped (and counted); otherwise the share `test` of the images is drawn. Validation images stated in a table are used as
    val by the same rule; otherwise val is the share `val` of the remaining images.

    Raises:
        OctcError: E207 a class is absent from train, or a part is empty; E233 a class is absent from val or test and not in
            `samples.may_lack`; E212, E210 parts share a patient or content (impossible by construction).
    """
    rng = np.random.default_rng([seed, 0x5011])
    rest, official, dropped = apart(samples)
    if not official:
        _, official = drawn([s for s in rest if s.part != "val"], test, len(samples.classes), rng)
        rest, _, lost = without(rest, official)
        dropped += lost
    if stated := tuple(s for s in rest if s.part == "val"):
        train, chosen, lost = without(rest, stated)
        dropped += lost
    else:
        train, chosen = drawn(rest, val, len(samples.classes), rng)
    parts = {"train": train, "val": chosen, "test": official}
    split = Split(dataset, samples.classes, seed, parts, dropped, may_lack=samples.may_lack)
    check_split(split)
    check_classes(split)
    return split


def apart(samples: Samples) -> tuple[tuple[Sample, ...], tuple[Sample, ...], int]:
    """Training images, the official test part, and the number of training images dropped for their patient or content.

    Links are transitive: if one image of a patient is also an image of a patient in the test part, all images of the former
    are dropped.
    """
    return without(samples.items, [s for s in samples.items if s.part == "test"])


def without(items: Sequence[Sample], chosen: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Sample, ...], int]:
    """The images that share no patient and no content with the chosen ones, the chosen ones, and the number of the others."""
    groups, taken = groups_of(items), {s.path for s in chosen}
    hit = {group for s, group in zip(items, groups, strict=True) if s.path in taken}
    kept = tuple(s for s, group in zip(items, groups, strict=True) if group not in hit)
    return kept, tuple(chosen), len(items) - len(chosen) - len(kept)


def drawn(
    items: Sequence[Sample], share: float, classes: int, rng: np.random.Generator
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split off about `share` of each class in whole groups; returns the rest and the drawn images."""
    chosen = _take(items, share, classes, rng)
    return tuple(s for i, s in enumerate(items) if i not in chosen), tuple(items[i] for i in sorted(chosen))


def shared_patients(one: Iterable[Sample], other: Iterable[Sample]) -> list[str]:
    """Patients with images in both."""
    return sorted({s.patient for s in one if s.patient is not None} & {s.patient for s in other if s.patient is not None})


def shared_eyes(one: Iterable[Sample], other: Iterable[Sample]) -> list[str]:
    """Eyes with images in both whose patient is unknown (a known patient is reported by `shared_patients`)."""
    sides = [[s for s in side if s.eye is not None] for side in (one, other)]
    unnamed = {s.eye for side in sides for s in side if s.patient is None}
    both = {s.eye for s in sides[0]} & {s.eye for s in sides[1]} & unnamed
    return sorted(eye for eye in both if eye is not None)


def shared_content(one: Iterable[Sample], other: Iterable[Sample]) -> list[str]:
    """Paths in `one` whose content is also in `other`."""
    sums = {s.sha256 for s in other if s.sha256}
    return sorted(s.path for s in one if s.sha256 in sums)


def leaks_of(split: Split) -> list[dict[str, Any]]:
    """Leakage between parts: {"parts", "patients", "eyes", "images"} for every pair of parts that share something."""
    found = []
    for one, other in combinations(split.parts, 2):
        patients = shared_patients(split.parts[one], split.parts[other])
        eyes = shared_eyes(split.parts[one], split.parts[other])
        images = shared_content(split.parts[one], split.parts[other])
        if patients or eyes or images:
            found.append({"parts": [one, other], "patients": patients, "eyes": eyes, "images": images})
    return found


def check_split(split: Split) -> None:
    """Raise OctcError if parts share a patient (E212) or content (E210), if train lacks a class, or a part is empty (E207).

    Shared patients and content are errors only for the protocol "clean".
    """
    for leak in leaks_of(split) if split.protocol in (CLEAN, IMPORTED) else ():
        where = f"in both {leak['parts'][0]} and {leak['parts'][1]}"
        hint = "train again with a new split"
        for kind in ("patients", "eyes"):
            if shared := leak[kind]:
                raise OctcError("OCT-E212", f"{len(shared)} {kind} {where}: {shorten(shared)}", hint=hint)
        raise OctcError("OCT-E210", f"{len(leak['images'])} images {where}: {shorten(leak['images'])}", hint=hint)
    train = split.parts["train"]
    if missing := [name for k, name in enumerate(split.classes) if not any(s.has(k) for s in train)]:
        hint = "add images of these classes, from other patients"
        raise OctcError("OCT-E207", f"classes absent from train: {', '.join(missing)}", hint=hint)
    for part in PARTS:
        if not split.parts[part]:
            more = "add images" if split.patient_ids.state == UNKNOWN else "add patients: each part needs whole patients"
            raise OctcError("OCT-E207", f"no image remains for {part}", hint=more)


def check_classes(split: Split) -> None:
    """Refuse a split whose val or test has no image of an existing class, unless `may_lack` lists it (OctcError E233): the
    epoch would be chosen, or the artifact tested, without that class. Multi-label data sets are not refused, because an image
    is drawn with all its labels and rare ones may be absent.
    """
    if any(s.targets is not None for items in split.parts.values() for s in items):
        return
    lacking: dict[str, list[str]] = {}
    for k, name in enumerate(split.classes):
        if name not in split.may_lack:
            parts = [part for part in ("val", "test") if not any(s.has(k) for s in split.parts[part])]
            if parts:
                lacking[name] = parts
    if not lacking:
        return
    told, wanted = [], 3 - any(s.part == "test" for s in split.parts["test"])
    for name, parts in lacking.items():
        own = [s for items in split.parts.values() for s in items if s.has(split.classes.index(name))]
        groups = len(set(groups_of(own)))
        kind = "images" if ids_of(own).state == UNKNOWN else "patients"
        told.append(f"{name} has {groups} {kind}, and none remains for {' and '.join(parts)}")
    text = f"{len(lacking)} classes cannot be divided: {'; '.join(told)}" if len(told) > 1 else f"class {told[0]}"
    names = ",".join(lacking)
    hint = f"add images of other patients (a class needs {wanted} of them to be divided), or --allow-empty {shlex.quote(names)}"
    raise OctcError("OCT-E233", text, hint=hint)
