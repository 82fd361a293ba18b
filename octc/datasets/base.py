"""Samples, what a data set is, and how a folder becomes samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError, shorten
from octc.core.files import canonical_json, sha256_bytes
from octc.datasets.tree import Left, Tree, count_left, words_left
from octc.stats.patients import PatientIds, patient_ids

MODALITIES = ("oct", "fundus")
UNLISTED = "in no row of the table"
# fields of a sample, and what most have there
EXTRA: dict[str, Any] = {"targets": None, "eye": None, "modality": "oct", "scan": None, "site": None}


@dataclass(frozen=True)
class ScanOf:
    """Which B-scan of which volume an image is.

    Attributes:
        file: relative to the data set's root, with forward slashes. part: which volume of the file; index: which B-scan of it,
            both from 0.
        volume: digest of the volume's B-scans in their order, whatever the file is called: one eye at one time.
        frames: B-scans of the volume. label: index of the class of the eye, None where it is not known.
        shape: B-scans, rows and columns of a file without a header, which the table says; laterality: the same of its eye.
        intensity: name of the mapping of its grey. spatial: whether the B-scans lie side by side, in their order.
    """

    file: str
    part: int
    index: int
    volume: str
    frames: int
    label: int | None = None
    shape: tuple[int, int, int] | None = None
    laterality: str | None = None
    intensity: str = ""
    spatial: bool = False

    @property
    def name(self) -> str:
        """File, volume and B-scan in one: file.vol#0[12]."""
        return f"{self.file}#{self.part}[{self.index}]"


@dataclass(frozen=True)
class Sample:
    """One image: a file, or a B-scan of a volume (octc/datasets/pictures.py reads both).

    Attributes:
        path: relative to the data set's root, with forward slashes; of a B-scan its name.
        label: index into the classes.
        patient: the patient's id, or None where it is not known (the image is then its own group, and may be of anybody).
        part: "train" or "test" where the layout has an official split, else None.
        sha256: of the file, of a B-scan of its grey; the identity of an image (names are reused between releases). Empty for
            what cannot be read, which `octc.datasets.pictures.read_picture` then refuses by name.
        targets: indices of all its classes, where classes do not exclude each other (`label` is then the rarest of them, by
            which a split is stratified); None where an image has one class.
        eye: the eye's id, where images are judged together by eye.
        modality: one of MODALITIES.
        scan: which B-scan of which volume it is; None for a file that is a picture.
        site: where, or with which device, it was taken, as a table says; None where it says nothing.
    """

    path: str
    label: int
    patient: str | None
    part: str | None
    sha256: str
    targets: tuple[int, ...] | None = None
    eye: str | None = None
    modality: str = "oct"
    scan: ScanOf | None = None
    site: str | None = None

    @property
    def file(self) -> str:
        """The file that the image is read from, relative to the data set's root."""
        return self.path if self.scan is None else self.scan.file

    def has(self, k: int) -> bool:
        """Whether the image is of class k."""
        return self.label == k if self.targets is None else k in self.targets

    def to_json(self) -> dict[str, Any]:
        """Without the fields that only some data sets have, where this one has them not."""
        value = asdict(self)
        return {key: value[key] for key in value if key not in EXTRA or value[key] != EXTRA[key]}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Sample:
        targets, scan = value.get("targets"), value.get("scan")
        of = None if scan is None else ScanOf(**{**scan, "shape": scan["shape"] and tuple(scan["shape"])})
        return Sample(**{**value, "targets": None if targets is None else tuple(targets), "scan": of})


def sample_ids(samples: Sequence[Sample]) -> list[str]:
    """Unique names of images: by content and by place, for the same file may stand in two places."""
    return [f"{one.sha256}:{one.path}" for one in samples]


@dataclass(frozen=True)
class Finding:
    """One thing that was found in a data set: its code, what it is in words, all it concerns, and the hint."""

    code: str
    message: str
    items: tuple[str, ...]
    hint: str

    def error(self) -> OctcError:
        """As an error that a command can end with; at most ten items are spelt out."""
        return OctcError(self.code, self.message, hint=self.hint, place=self.place)

    @property
    def place(self) -> str | None:
        """The first ten items in one line; line breaks in file names are spelt."""
        return shorten([item.replace("\n", "\\n") for item in self.items]) if self.items else None


def unlisted(unread: Sequence[Left], table: str) -> Iterator[Finding]:
    """Images on the disk that the table of a data set does not name."""
    if listed := tuple(sorted(one.path for one in unread if one.why == UNLISTED)):
        yield Finding("OCT-W214", f"{len(listed)} images are in no row of {table}", listed, "they are not used")


def ids_of(samples: Iterable[Sample]) -> PatientIds:
    """Whether it is known whose these images are."""
    return patient_ids(sample.patient for sample in samples)


@dataclass(frozen=True)
class Samples:
    """A scanned data set: the classes in order and every image, sorted by path (B-scans of volumes by content).

    Attributes:
        skipped: the unreadable files that `--skip-bad` left out: (path, why).
        left_out: images that the scan itself left out (copies, contradicting labels); what was released holds them.
        notes: warnings (OCT-W...) about what was left out, linked or looks wrong.
        unread: files and folders of the tree that are not among the images, and why.
        parts: (folder, the part that its name spells: "train", "val" or "test") of a class tree with parts; (folder, "all")
            of one whose class folders all lie in one folder below the root.
        tree: the walk through the root that found all this.
        rule: the rule that gave the patients, in words; "" where the layout gave them.
        known_as: digest of all that was scanned, unreadable files too, under which a rule is kept.
        may_lack: classes that val and test may lack, because somebody said so (`--allow-empty`).
    """

    root: Path
    classes: tuple[str, ...]
    items: tuple[Sample, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    left_out: tuple[Sample, ...] = ()
    notes: tuple[Finding, ...] = ()
    unread: tuple[Left, ...] = ()
    parts: tuple[tuple[str, str], ...] = ()
    tree: Tree | None = field(default=None, compare=False, repr=False)
    rule: str = ""
    known_as: str = ""
    may_lack: tuple[str, ...] = ()

    @property
    def patient_ids(self) -> PatientIds:
        """Whether it is known whose these images are."""
        return ids_of(self.items)

    @property
    def digest(self) -> str:
        """Digest of the content: classes, and path and sum of every image; of a B-scan its volume and number, not its file."""
        rows = [[_place(s), s.label, s.sha256, *([list(s.targets)] if s.targets is not None else [])] for s in self.items]
        return sha256_bytes(canonical_json([self.classes, rows]))


def _place(sample: Sample) -> str:
    scan = sample.scan
    return sample.path if scan is None or not scan.volume else f"{scan.volume}[{scan.index}]"


def scan_json(samples: Samples) -> dict[str, Any]:
    """What was read as what and what was left out, whole: {"read", "parts", "left_out", "left_out_counts"}."""
    return {
        "read": len(samples.items), "parts": dict(samples.parts), "left_out": [asdict(one) for one in samples.unread],
        "left_out_counts": count_left(samples.unread),
    }  # fmt: skip


def words_of_scan(items: Sequence[Sample], parts: Sequence[tuple[str, str]], unread: Sequence[Left]) -> list[str]:
    """Lines that say what was read as what, and what was left out."""
    lines = []
    for top, kind in parts:
        count = sum(s.path.startswith(f"{top}/") for s in items)
        also = " (validation images are drawn again)" if kind == "val" else ""
        as_what = "" if kind == "all" else f", read as {'test' if kind == 'test' else 'train'}{also}"
        lines.append(f"{top}: {count} images{as_what}")
    if any(kind == "train" for _, kind in parts) and all(kind != "test" for _, kind in parts):
        lines.append("no test part: the test images are drawn from train")
    lines.append(f"read: {len(items)} images; left out: {words_left(unread)}")
    return lines


Progress = Callable[[int, int], None]  # done, total


@dataclass(frozen=True)
class Reading:
    """What a scan is told beside root, classes and layout (`octc.datasets.reading` makes one of options).

    Attributes:
        columns: octc's name of a column -> what the table calls it. roots: folders that the table's images lie in; none: that
            of the table. links: folders that links may lead into beside the root; None: links to folders are not followed.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    roots: tuple[Path, ...] = ()
    links: tuple[Path, ...] | None = None


PLAIN = Reading()


@dataclass(frozen=True)
class DatasetSpec:
    """A data set octc knows.

    Attributes:
        classes: in the order of the label index; None when the class folders give them (sorted by name).
        scan: root, classes, progress, reading -> Samples; raises OctcError (E206, E218, E230, ...).
        default_root: where it is looked for without `--data` and `OCTC_DATA`; None: it must be given.
        note: printed beside every number that is measured on it, or empty.
        fetched_as: the name that `octc data fetch` knows it by, or empty.
        task: "multiclass" or "multilabel". modalities: of its images; two of them are for
            octc train retnet-teacher and retnet-student.
    """

    name: str
    title: str
    classes: tuple[str, ...] | None
    scan: Callable[[Path, Sequence[str] | None, Progress | None, Reading], Samples]
    default_root: str | None
    layout: str
    licence: str
    source: str
    note: str = ""
    published: dict[str, Any] | None = None  # counts of the published release: {"train": {...}, "test": {...}}
    fetched_as: str = ""
    task: str = "multiclass"
    modalities: tuple[str, ...] = ("oct",)
    nameless: bool = False
    table: bool = False


def copies_in(items: Iterable[Sample]) -> list[list[Sample]]:
    """Images whose bytes are there more than once, in the order in which they come; what could not be read is none."""
    by_sum: dict[str, list[Sample]] = {}
    for sample in items:
        if sample.sha256:
            by_sum.setdefault(sample.sha256, []).append(sample)
    return [same for same in by_sum.values() if len(same) > 1]


def contradicting(items: Iterable[Sample]) -> list[list[Sample]]:
    """Those of them whose labels differ."""
    return [same for same in copies_in(items) if len({(s.label, s.targets) for s in same}) > 1]
