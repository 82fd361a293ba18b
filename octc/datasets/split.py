"""One split per run: grouped by patient, stratified by class, seeded, with a digest. A split that shares a patient raises."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octc.datasets.base import Sample, Samples
from octc.errors import OctcError, shorten
from octc.files import canonical_json, read_json, sha256_bytes, write_json

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Which image is used for what. `dropped` counts training images that share a patient or content with the official test."""

    dataset: str
    classes: tuple[str, ...]
    seed: int
    parts: dict[str, tuple[Sample, ...]]
    dropped: int = 0

    @property
    def digest(self) -> str:
        """Digest over the classes and, per part, the sorted (sum, label) pairs."""
        content = {part: sorted([s.sha256, s.label] for s in items) for part, items in self.parts.items()}
        return sha256_bytes(canonical_json([self.classes, content]))

    def write(self, path: Path) -> None:
        """Write split.json."""
        parts = {part: [asdict(s) for s in items] for part, items in self.parts.items()}
        head = {"dataset": self.dataset, "classes": self.classes, "seed": self.seed, "dropped": self.dropped}
        write_json(path, {**head, "digest": self.digest, "parts": parts})

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per part and class."""
        return {
            part: {name: sum(s.label == k for s in items) for k, name in enumerate(self.classes)}
            for part, items in self.parts.items()
        }


def read_split(path: Path) -> Split:
    """Read split.json and check its digest (OctcError E216 when it does not hold)."""
    try:
        value: dict[str, Any] = read_json(path)
        parts = {part: tuple(Sample(**s) for s in value["parts"][part]) for part in PARTS}
        split = Split(value["dataset"], tuple(value["classes"]), value["seed"], parts, value["dropped"])
        good = split.digest == value["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OctcError("OCT-E216", f"split cannot be read: {error}", mend="train again", place=str(path)) from error
    if not good:
        raise OctcError("OCT-E216", "split does not have the digest that it states", mend="train again", place=str(path))
    return split


def groups_of(items: Sequence[Sample]) -> list[int]:
    """Group number of each sample: images of one patient, and images with one content, are one group (union-find)."""
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, sample in enumerate(items):
        keys = [("content", sample.sha256)] + ([("patient", sample.patient)] if sample.patient is not None else [])
        for key in keys:
            parent[root(i)] = root(first.setdefault(key, i))
    return [root(i) for i in range(len(items))]


def _take(items: Sequence[Sample], share: float, classes: int, rng: np.random.Generator) -> set[int]:
    """Indices of about `share` of each class, in whole groups.

    Groups come in random order (never by size: the busiest patients are not the typical ones), and one is taken when it
    brings the class shares nearer to what is wanted. A class that was left out gets its smallest group, if another one stays.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups_of(items)):
        members[group].append(i)
    groups = [(chosen, Counter(items[i].label for i in chosen)) for _, chosen in sorted(members.items())]
    order = [groups[j] for j in rng.permutation(len(groups))]
    totals = Counter(s.label for s in items)
    left = Counter(label for _, counts in groups for label in counts)  # groups of each class that stay
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
    """Patient-grouped stratified split.

    Where the layout has an official test part, that is the test and training images that share a patient or a content with
    it are dropped (counted); otherwise `test` of the images is drawn. `val` is the share of the remaining images.

    Raises:
        OctcError: E207 a class absent from train, E212 / E210 if parts share a patient or content (never, by construction).
    """
    rng = np.random.default_rng([seed, 0x5011])
    official = [s for s in samples.items if s.part == "test"]
    rest = [s for s in samples.items if s.part != "test"]
    dropped = 0
    if official:
        patients = {s.patient for s in official if s.patient is not None}
        sums = {s.sha256 for s in official}
        kept = [s for s in rest if s.patient not in patients and s.sha256 not in sums]
        dropped, rest = len(rest) - len(kept), kept
    else:
        chosen = _take(rest, test, len(samples.classes), rng)
        official = [s for i, s in enumerate(rest) if i in chosen]
        rest = [s for i, s in enumerate(rest) if i not in chosen]
    chosen = _take(rest, val, len(samples.classes), rng)
    parts = {
        "train": tuple(s for i, s in enumerate(rest) if i not in chosen),
        "val": tuple(s for i, s in enumerate(rest) if i in chosen),
        "test": tuple(official),
    }
    split = Split(dataset, samples.classes, seed, parts, dropped)
    check_split(split)
    return split


def shared_patients(one: Iterable[Sample], other: Iterable[Sample]) -> list[str]:
    """Patients with images on both sides."""
    return sorted({s.patient for s in one if s.patient is not None} & {s.patient for s in other if s.patient is not None})


def check_split(split: Split) -> None:
    """Raise on a shared patient (E212), shared content (E210), or a class that train does not have (E207)."""
    for i, first in enumerate(PARTS):
        for second in PARTS[i + 1 :]:
            mend = "train again with a new split"
            if patients := shared_patients(split.parts[first], split.parts[second]):
                text = f"{len(patients)} patients in both {first} and {second}: {shorten(patients)}"
                raise OctcError("OCT-E212", text, mend=mend)
            same = {s.sha256 for s in split.parts[first]} & {s.sha256 for s in split.parts[second]}
            if same:
                paths = sorted(s.path for s in split.parts[first] if s.sha256 in same)
                raise OctcError("OCT-E210", f"{len(same)} images in both {first} and {second}: {shorten(paths)}", mend=mend)
    for part in PARTS:
        present = {s.label for s in split.parts[part]}
        missing = [name for k, name in enumerate(split.classes) if k not in present]
        if missing and part == "train":
            raise OctcError(
                "OCT-E207",
                f"classes absent from train: {', '.join(missing)}",
                mend="add images of these classes, from other patients",
            )
        if not split.parts[part]:
            raise OctcError("OCT-E207", f"no image is left for {part}", mend="add patients: each part needs whole patients")
