"""`octc data check`: tests whether a data set is complete, readable and free of leakage. Changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from octc.core.errors import OctcError
from octc.datasets.base import DatasetSpec, Finding, Progress, Sample, Samples, contradicting, copies_in, ids_of, words_of_scan
from octc.datasets.image_facts import BORDER, ImageFacts, read_facts, sizes_of, tell_release, value_notes
from octc.datasets.near_duplicates import near_pairs
from octc.datasets.patient_rules import HINT as WHOSE_HINT
from octc.datasets.registry import UCSD_LAYOUT, scan_dataset, spec_of
from octc.datasets.split import groups_of, shared_eyes, shared_patients
from octc.datasets.tree import DEBRIS, HIDDEN, LINK, LOST, THUMBNAIL, Left, count_left
from octc.imaging.decode import Values
from octc.imaging.value_range import stored_values
from octc.stats.patients import UNKNOWN, PatientIds

NEAR = ("error", "warn", "off")
EXPECT = ("subset", "published")
Count = TypeVar("Count", int, "int | None")
LEAKS = ("OCT-E210", "OCT-E211", "OCT-E212")


@dataclass(frozen=True)
class AuditReport:
    """Result of `audit`.

    Attributes:
        counts: part -> class -> number of images; patients: part -> class -> number of known patients, None if no patient of
            the data set is known. The part is "all" without an official split.
        patient_ids: "known", "partial" or "unknown"; images_without_patient: number of images without a patient id.
        leakage: "none", "found", or the reason why leakage between parts (official or drawn) cannot be excluded.
        sizes, modes: "512x496" (or mode) -> number of images.
        white: class -> share of images with a white border (a network can learn a class by its border if the shares differ).
        release: release of the published data set that the test part comes from, if it can be identified.
        findings: exit code 1, or 3 for unreadable files. warnings: exit code 0.
        others: files in the tree that are not images by name, without system files.
        read: number of images. parts: folder -> part that its name denotes, for a class tree with parts.
        left_out: {"path", "why"} of every file and folder that was not read; left_out_counts: why -> count.
        lines: the same as text.
        values: type of the stored grey values -> {"images", "low", "high"}. value_range: the stated range, or None.
    """

    dataset: str
    root: str
    digest: str
    counts: dict[str, dict[str, int]]
    patients: dict[str, dict[str, int | None]]
    sizes: dict[str, int]
    modes: dict[str, int]
    white: dict[str, float]
    findings: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    others: tuple[str, ...]
    release: str = ""
    read: int = 0
    parts: dict[str, str] = field(default_factory=dict)
    left_out: tuple[Left, ...] = ()
    left_out_counts: dict[str, int] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    patient_ids: str = UNKNOWN
    images_without_patient: int = 0
    leakage: str = ""
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    value_range: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        def plain(finding: Finding) -> dict[str, Any]:
            return {
                "code": finding.code,
                "message": finding.message,
                "items": finding.items,
                "hint": finding.hint,
                "mend": finding.hint,
            }

        listed = {name: [plain(one) for one in getattr(self, name)] for name in ("findings", "warnings")}
        return {**asdict(self), **listed}


def audit(
    name: str,
    root: Path,
    near: str = "error",
    expect: str = "subset",
    scanned: Progress | None = None,
    read: Progress | None = None,
    samples: Samples | None = None,
    values: Values | None = None,
) -> AuditReport:
    """Check a data set.

    Args:
        near: how near-duplicates across parts are reported: "error", "warn" or "off" (no search).
        expect: "published": any difference from the published counts is a finding; "subset": fewer images are accepted.
        scanned, read: progress callbacks of hashing and decoding. samples: the scanned data set; None: scan it.
        values: stated value range for decoding.

    Raises:
        OctcError: E104 an invalid option; E205, E206, E207, E230, E231 the data set cannot be scanned.
    """
    for value, allowed, option in ((near, NEAR, "--near-duplicates"), (expect, EXPECT, "--expect")):
        if value not in allowed:
            raise OctcError("OCT-E104", f"{option} {value}", hint=f"one of: {', '.join(allowed)}", place=option)
    spec = spec_of(name)
    samples = samples or scan_dataset(name, root, progress=scanned)
    facts = read_facts(samples.root, samples.items, read, values)
    good = [(s, f) for s, f in zip(samples.items, facts, strict=True) if f.failure is None]
    items = [s for s, _ in good]
    known = samples.patient_ids
    found = [
        *_unreadable(samples, facts),
        *_copies(samples.classes, items),
        *_patients(items, known),
        *(_near(good, known, near) if near != "off" else ()),
        *(_near_contradictions(samples.classes, good) if near != "off" else ()),
        *_published(spec, samples, expect),
        *_noted(good),
        *value_notes((f.stored for _, f in good), values),
        *samples.notes,
    ]
    return AuditReport(
        dataset=name,
        root=str(root),
        digest=samples.digest,
        counts=_table(samples, len),
        patients=_table(samples, lambda own: None if known.count is None else ids_of(own).patients),
        sizes=sizes_of(facts),
        modes=dict(Counter(f.mode for _, f in good).most_common()),
        white={
            kind: float(np.mean([f.edge > BORDER for s, f in good if s.has(k)] or [False]))
            for k, kind in enumerate(samples.classes)
        },
        findings=tuple(f for f in found if f.code.startswith("OCT-E")),
        warnings=tuple(f for f in found if f.code.startswith("OCT-W")),
        others=tuple(sorted(one.path for one in samples.unread if one.why not in (HIDDEN, DEBRIS, THUMBNAIL, LINK, LOST))),
        release=tell_release(samples.items, facts) if spec.layout == UCSD_LAYOUT else "",
        read=len(samples.items),
        parts=dict(samples.parts),
        left_out=samples.unread,
        left_out_counts=count_left(samples.unread),
        lines=tuple(words_of_scan(samples.items, samples.parts, samples.unread)),
        **known.to_json(),
        values={kind: one.to_json() for kind, one in stored_values(f.stored for _, f in good if f.stored).items()},
        value_range=values,
        leakage="found" if any(f.code in LEAKS for f in found) else known.leakage or "none",
    )


def _table(samples: Samples, measure: Callable[[list[Sample]], Count]) -> dict[str, dict[str, Count]]:
    several = len({s.modality for s in samples.items}) > 1
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples.items:
        groups[f"{sample.part or 'all'} {sample.modality}" if several else sample.part or "all"].append(sample)
    return {
        part: {kind: measure([s for s in groups[part] if s.has(k)]) for k, kind in enumerate(samples.classes)}
        for part in sorted(groups, reverse=True)
    }


def _unreadable(samples: Samples, facts: Sequence[ImageFacts]) -> Iterator[Finding]:
    """One finding per error code, which lists every file and the cause."""
    by_code: dict[str, list[str]] = defaultdict(list)
    for sample, fact in zip(samples.items, facts, strict=True):
        if fact.failure is not None:
            by_code[fact.failure[0]].append(f"{sample.path} ({fact.failure[1]})")
    for code, items in sorted(by_code.items()):
        hint = "replace the files, or train with --skip-bad"
        yield Finding(code, f"{len(items)} files cannot be used", tuple(items), hint)


def _copies(classes: Sequence[str], items: Sequence[Sample]) -> Iterator[Finding]:
    """Identical files: under two classes, in two parts, or twice in one part."""
    copies, conflicts = copies_in(items), contradicting(items)
    leaks = [same for same in copies if len({s.part for s in same}) > 1]
    inside = [same for same in copies if len({(s.label, s.targets) for s in same}) == 1 and len({s.part for s in same}) == 1]
    patients = sum(ids_of(same).patients > 1 for same in copies)
    of_two = f", {patients} of them with two patients" if patients else ""
    if conflicts:
        listed = tuple(" = ".join(f"{s.path} ({classes[s.label]})" for s in same) for same in conflicts)
        yield Finding("OCT-E213", f"{len(conflicts)} images are in two classes", listed, "keep each in its true class only")
    if leaks:
        parts = " and ".join(sorted({str(s.part) for same in leaks for s in same}, key=("train", "val", "test").index))
        text = f"{len(leaks)} images are in both {parts} (same sha256)"
        yield Finding("OCT-E210", text, tuple(map(_equal, leaks)), "remove them from train")
    if inside:
        text = f"{len(inside)} images occur more than once in one part{of_two}"
        yield Finding("OCT-W210", text, tuple(map(_equal, inside)), "remove the copies (a split never separates them)")


def _equal(same: Sequence[Sample]) -> str:
    return " = ".join(s.path for s in same)


def _patients(items: Sequence[Sample], known: PatientIds) -> Iterator[Finding]:
    parts = {part: [s for s in items if s.part == part] for part in ("train", "val", "test")}
    for one, other in combinations(parts, 2):
        for kind, share in (("patients", shared_patients), ("eyes", shared_eyes)):
            if shared := share(parts[one], parts[other]):
                text = f"{len(shared)} {kind} are in both {one} and {other}"
                yield Finding("OCT-E212", text, tuple(shared), f"move all images of {_a(kind)} to one part")
    if known.warning:
        nameless = tuple(s.path for s in items if s.patient is None)
        yield Finding("OCT-W212", known.warning, nameless, WHOSE_HINT)


def _a(kind: str) -> str:
    return {"patients": "a patient", "eyes": "an eye"}[kind]


def _near(good: Sequence[tuple[Sample, ImageFacts]], known: PatientIds, near: str) -> Iterator[Finding]:
    """Near-duplicates across train and test. Without an official split, and inside each official part: across patients, or
    across images if no patient is known."""
    seen = [(s, f.signs) for s, f in good if f.signs is not None]
    parts = [[pair for pair in seen if (pair[0].part == "test") == test] for test in (False, True)]
    inside: list[tuple[Sample, Sample, int]] = []
    for part in parts:
        pairs = near_pairs([b for _, b in part], groups=groups_of([s for s, _ in part]))
        inside += [(part[i][0], part[j][0], d) for i, j, d in pairs]
    train, test = parts
    pairs = near_pairs([b for _, b in train], [b for _, b in test])
    across = [(train[i][0], test[j][0], d) for i, j, d in pairs]
    hint = "remove one of each pair, or --near-duplicates warn"
    if listed := tuple(_alike(across)):
        code = "OCT-E211" if near == "error" else "OCT-W213"
        yield Finding(code, f"{len(listed)} pairs of train and test look the same", listed, hint)
    if listed := tuple(_alike(inside)):
        official = bool(parts[1])
        whose = {"known": "of different patients ", "partial": "not known to be of one patient "}.get(known.state, "")
        where = f"{whose}{'in one part (a fold' if official else '(a split'} may separate them)"
        code = "OCT-E211" if near == "error" and not official else "OCT-W213"
        yield Finding(code, f"{len(listed)} pairs {where} look the same", listed, hint)


def _near_contradictions(classes: Sequence[str], good: Sequence[tuple[Sample, ImageFacts]]) -> Iterator[Finding]:
    """Near-duplicates with different labels, of any patients; B-scans of one volume are excluded."""
    seen = [(s, f.signs) for s, f in good if f.signs is not None]
    kinds = {label: number for number, label in enumerate(dict.fromkeys((s.label, s.targets) for s, _ in seen))}
    pairs = near_pairs([b for _, b in seen], groups=[kinds[s.label, s.targets] for s, _ in seen])
    torn = [(seen[i][0], seen[j][0], d) for i, j, d in pairs]
    torn = [(a, b, d) for a, b, d in torn if a.scan is None or b.scan is None or a.scan.volume != b.scan.volume]
    if listed := tuple(_alike(torn, classes)):
        hint = "compare both: if they are the same scan, keep one of them, in its true class"
        yield Finding("OCT-W213", f"{len(listed)} pairs under two classes look the same", listed, hint)


def _alike(pairs: Sequence[tuple[Sample, Sample, int]], classes: Sequence[str] = ()) -> Iterator[str]:
    """Pairs as text, with their classes if given. Identical files are excluded: they are another finding."""
    for one, other, differing in pairs:
        if one.sha256 != other.sha256:
            of = [f" ({classes[s.label]})" if classes else "" for s in (one, other)]
            yield f"{one.path}{of[0]} ~ {other.path}{of[1]} ({differing} of 255 hash bits differ)"


def _published(spec: DatasetSpec, samples: Samples, expect: str) -> Iterator[Finding]:
    """Compare with the published counts: fewer images are a subset (or an incomplete archive), more are another data set."""
    if spec.published is None:
        return
    more_parts = tuple(f"{top}/" for top, kind in samples.parts if kind == "val")  # not part of the published counts
    whole = tuple(s for s in (*samples.items, *samples.left_out) if not s.path.startswith(more_parts))
    found = _table(replace(samples, items=whole), len)  # counts as released
    listed, more = [], False
    for part, classes in spec.published.items():
        for kind, count in classes.items():
            have = found.get(part, {}).get(kind, 0)
            more = more or have > count
            if have != count:
                listed.append(f"{part}/{kind}: expected {count}, found {have}")
    if listed:
        total = sum(sum(classes.values()) for classes in spec.published.values())
        text = f"{len(whole)} images, {total} were published"
        finding = more or expect == "published"
        hint = "unpack the whole archive" if finding and not more else "results are not comparable with published ones"
        yield Finding("OCT-E215" if finding else "OCT-W215", text, tuple(listed), hint)


def _noted(good: Sequence[tuple[Sample, ImageFacts]]) -> Iterator[Finding]:
    """Warnings of decoding and of the quality check, one per code."""
    texts = {
        "OCT-W201": ("files whose name and content disagree on the format", "rename them"),
        "OCT-W208": ("images were converted by a fixed rule", "no action needed; octc applies the same rule everywhere"),
        "OCT-W211": ("images are black or uniform", "inspect them"),
    }
    by_code: dict[str, list[str]] = defaultdict(list)
    for sample, fact in good:
        for code, text in fact.notes:
            by_code[code].append(f"{sample.path}: {text.partition(': ')[2]}")
    for code, items in sorted(by_code.items()):
        text, hint = texts[code]
        yield Finding(code, f"{len(items)} {text}", tuple(items), hint)
