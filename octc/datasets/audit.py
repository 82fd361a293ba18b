"""`octc data check`: is this data set whole, readable and free of leakage? Nothing is changed, everything is listed."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from octc.datasets.base import DatasetSpec, Progress, Sample, Samples
from octc.datasets.near import Bits, near_pairs, signs_of
from octc.datasets.split import groups_of, shared_patients
from octc.datasets.table import scan_dataset, spec_of
from octc.errors import OctcError, shorten
from octc.image import quality_notes, read_image

NEAR = ("error", "warn", "off")
EXPECT = ("subset", "published")
WHITE, BORDER = 250, 0.02  # grey level, share of the pixels from which an image counts as having a white border


@dataclass(frozen=True)
class Finding:
    """One thing that was found: its code, what it is in words, all it concerns, and the mend."""

    code: str
    message: str
    items: tuple[str, ...]
    mend: str

    def error(self) -> OctcError:
        """As an error that a command can end with; at most ten items are spelt out."""
        return OctcError(self.code, self.message, mend=self.mend, place=self.place)

    @property
    def place(self) -> str | None:
        """The first ten items in one line; line breaks in file names are spelt."""
        return shorten([item.replace("\n", "\\n") for item in self.items]) if self.items else None


@dataclass(frozen=True)
class ImageFacts:
    """What decoding one image told; `failure` is (code, message) where it could not be read."""

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    white: float = 0.0
    signs: Bits | None = None
    failure: tuple[str, str] | None = None
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class AuditReport:
    """The outcome.

    Attributes:
        counts: part -> class -> images; patients: part -> class -> patients. The part is "all" without an official split.
        sizes, modes: "512x496" -> images.
        white: class -> share of its images that have a white border (a class that differs can be told by it).
        findings: end with exit code 1, or 3 for files that cannot be read. warnings end with 0.
        others: files in the tree that are no image by their name.
    """

    dataset: str
    root: str
    digest: str
    counts: dict[str, dict[str, int]]
    patients: dict[str, dict[str, int]]
    sizes: dict[str, int]
    modes: dict[str, int]
    white: dict[str, float]
    findings: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    others: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def audit(
    name: str,
    root: Path,
    near: str = "error",
    expect: str = "subset",
    scanned: Progress | None = None,
    read: Progress | None = None,
) -> AuditReport:
    """Check a data set.

    Args:
        near: what a near-duplicate across parts is: "error", "warn" or "off" (not looked for).
        expect: "published" makes every difference from the published counts a finding; "subset" allows fewer images.
        scanned, read: progress of hashing and of decoding.

    Raises:
        OctcError: E104 bad option, and what scanning raises (E205, E206, E207, E230): such a tree cannot be counted.
    """
    for value, allowed, option in ((near, NEAR, "--near-duplicates"), (expect, EXPECT, "--expect")):
        if value not in allowed:
            raise OctcError("OCT-E104", f"{option} {value}", mend=f"one of: {', '.join(allowed)}", place=option)
    spec = spec_of(name)
    samples = scan_dataset(name, root, progress=scanned)
    facts = read_facts(samples, read)
    good = [(s, f) for s, f in zip(samples.items, facts, strict=True) if f.failure is None]
    items = [s for s, _ in good]
    found = [
        *_unreadable(samples, facts),
        *_copies(samples.classes, items),
        *_patients(items),
        *(_near(good, near) if near != "off" else ()),
        *_published(spec, samples, expect),
        *_noted(good),
    ]
    return AuditReport(
        dataset=name,
        root=str(root),
        digest=samples.digest,
        counts=_table(samples, len),
        patients=_table(samples, lambda chosen: len({s.patient or s.path for s in chosen})),
        sizes=dict(Counter(f"{f.size[0]}x{f.size[1]}" for _, f in good).most_common()),
        modes=dict(Counter(f.mode for _, f in good).most_common()),
        white={
            kind: float(np.mean([f.white > BORDER for s, f in good if s.label == k] or [False]))
            for k, kind in enumerate(samples.classes)
        },
        findings=tuple(f for f in found if f.code.startswith("OCT-E")),
        warnings=tuple(f for f in found if f.code.startswith("OCT-W")),
        others=tuple(_others(root, {s.path for s in samples.items})),
    )


def read_facts(samples: Samples, progress: Progress | None = None) -> list[ImageFacts]:
    """Decode every image once, in threads (Pillow lets go of the interpreter)."""
    facts: list[ImageFacts] = []
    with ThreadPoolExecutor(max_workers=max(2, len(os.sched_getaffinity(0)))) as pool:
        for fact in pool.map(partial(_facts, samples.root), samples.items):
            facts.append(fact)
            if progress is not None:
                progress(len(facts), len(samples.items))
    return facts


def _facts(root: Path, sample: Sample) -> ImageFacts:
    try:
        decoded = read_image(root / sample.path)
    except OctcError as error:
        return ImageFacts(failure=(error.code, error.message))
    grey = decoded.image.convert("L")
    pixels = np.asarray(grey)
    quality = quality_notes(pixels[None, None])
    notes = decoded.notes if quality is None else (*decoded.notes, ("OCT-W211", f"{Path(sample.path).name}: {quality}"))
    white = float((pixels >= WHITE).mean())
    return ImageFacts(grey.size, decoded.image.mode, white, None if quality else signs_of(grey), notes=notes)


def _table(samples: Samples, measure: Callable[[list[Sample]], int]) -> dict[str, dict[str, int]]:
    parts = sorted({s.part or "all" for s in samples.items}, reverse=True)
    return {
        part: {
            kind: measure([s for s in samples.items if (s.part or "all") == part and s.label == k])
            for k, kind in enumerate(samples.classes)
        }
        for part in parts
    }


def _unreadable(samples: Samples, facts: Sequence[ImageFacts]) -> Iterator[Finding]:
    """One finding per code, every file named with its cause."""
    by_code: dict[str, list[str]] = defaultdict(list)
    for sample, fact in zip(samples.items, facts, strict=True):
        if fact.failure is not None:
            by_code[fact.failure[0]].append(f"{sample.path} ({fact.failure[1]})")
    for code, items in sorted(by_code.items()):
        mend = "replace the files, or train with --skip-bad"
        yield Finding(code, f"{len(items)} files cannot be used", tuple(items), mend)


def _copies(classes: Sequence[str], items: Sequence[Sample]) -> Iterator[Finding]:
    """The same bytes more than once: under two classes, in two parts, or twice in one part."""
    by_sum: dict[str, list[Sample]] = defaultdict(list)
    for sample in items:
        by_sum[sample.sha256].append(sample)
    copies = [same for same in by_sum.values() if len(same) > 1]
    conflicts = [same for same in copies if len({s.label for s in same}) > 1]
    leaks = [same for same in copies if len({s.part for s in same}) > 1]
    inside = [same for same in copies if len({s.label for s in same}) == 1 and len({s.part for s in same}) == 1]
    patients = sum(len({s.patient for s in same}) > 1 for same in copies)
    of_two = f", {patients} of them under two patients" if patients else ""
    if conflicts:
        listed = tuple(" = ".join(f"{s.path} ({classes[s.label]})" for s in same) for same in conflicts)
        yield Finding("OCT-E213", f"{len(conflicts)} images lie under two classes", listed, "keep each under its true class")
    if leaks:
        text = f"{len(leaks)} images are in both train and test (same sha256)"
        yield Finding("OCT-E210", text, tuple(map(_equal, leaks)), "remove them from train")
    if inside:
        text = f"{len(inside)} images are there more than once in one part{of_two}"
        yield Finding("OCT-W210", text, tuple(map(_equal, inside)), "remove the copies (a split never separates them)")


def _equal(same: Sequence[Sample]) -> str:
    return " = ".join(s.path for s in same)


def _patients(items: Sequence[Sample]) -> Iterator[Finding]:
    shared = shared_patients((s for s in items if s.part == "train"), (s for s in items if s.part == "test"))
    if shared:
        text = f"{len(shared)} patients are in both train and test"
        yield Finding("OCT-E212", text, tuple(shared), "move all images of a patient to one part")
    nameless = [s.path for s in items if s.patient is None]
    if nameless:
        text = f"{len(nameless)} file names give no patient: each such image counts as a patient of its own"
        yield Finding("OCT-W212", text, tuple(nameless), "name files CLASS-PATIENT-INDEX, or leakage cannot be excluded")


def _near(good: Sequence[tuple[Sample, ImageFacts]], near: str) -> Iterator[Finding]:
    """Across train and test; without an official split, across the groups that a split keeps together."""
    seen = [(s, f.signs) for s, f in good if f.signs is not None]
    train = [pair for pair in seen if pair[0].part != "test"]
    test = [pair for pair in seen if pair[0].part == "test"]
    if test:
        pairs = near_pairs([b for _, b in train], [b for _, b in test])
        sides = [(train[i][0], test[j][0], d) for i, j, d in pairs]
    else:
        pairs = near_pairs([b for _, b in train], groups=groups_of([s for s, _ in train]))
        sides = [(train[i][0], train[j][0], d) for i, j, d in pairs]
    listed = tuple(f"{a.path} ~ {b.path} ({d} of 255 signs differ)" for a, b, d in sides if a.sha256 != b.sha256)
    if listed:
        where = "of train and test" if test else "of different patients (a split may separate them)"
        text = f"{len(listed)} pairs {where} look the same"
        mend = "remove one of each pair, or --near-duplicates warn"
        yield Finding("OCT-E211" if near == "error" else "OCT-W213", text, listed, mend)


def _published(spec: DatasetSpec, samples: Samples, expect: str) -> Iterator[Finding]:
    """Fewer images than published are a subset (or an archive half unpacked); more are another data set."""
    if spec.published is None:
        return
    found = _table(samples, len)
    listed, more = [], False
    for part, classes in spec.published.items():
        for kind, count in classes.items():
            have = found.get(part, {}).get(kind, 0)
            more = more or have > count
            if have != count:
                listed.append(f"{part}/{kind}: expected {count}, found {have}")
    if listed:
        total = sum(sum(classes.values()) for classes in spec.published.values())
        text = f"{len(samples.items)} images, {total} were published"
        finding = more or expect == "published"
        mend = "unpack the whole archive" if finding and not more else "results are not comparable with published ones"
        yield Finding("OCT-E215" if finding else "OCT-W215", text, tuple(listed), mend)


def _noted(good: Sequence[tuple[Sample, ImageFacts]]) -> Iterator[Finding]:
    """Warnings of decoding and of the quality gate, one per code."""
    texts = {
        "OCT-W201": ("files whose name and content disagree on the format", "rename them"),
        "OCT-W208": ("images were converted by rule", "none needed; the rule is the same everywhere"),
        "OCT-W211": ("images are black or constant", "look at them"),
    }
    by_code: dict[str, list[str]] = defaultdict(list)
    for sample, fact in good:
        for code, text in fact.notes:
            by_code[code].append(f"{sample.path}: {text.partition(': ')[2]}")
    for code, items in sorted(by_code.items()):
        text, mend = texts[code]
        yield Finding(code, f"{len(items)} {text}", tuple(items), mend)


def _others(root: Path, known: set[str]) -> Iterator[str]:
    for place, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = (Path(place) / name).relative_to(root).as_posix()
            if path not in known and not name.startswith("."):
                yield path
