"""Types of data sets: samples, findings, specifications."""

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
# optional fields of a sample and their usual values, which JSON omits
EXTRA: dict[str, Any] = {"targets": None, "eye": None, "modality": "oct", "scan": None, "site": None}


@dataclass(frozen=True)
class ScanOf:
    """The volume and position of a B-scan.

    Attributes:
        file: path relative to the data set's root, with forward slashes. part: index of the volume in the file; index: index
            of the B-scan in the volume; both from 0.
        volume: digest of the volume's B-scans in order, independent of the file name: one eye at one time.
        frames: number of B-scans of the volume. label: class index of the eye, None if unknown.
        shape: B-scans, rows and columns of a file without a header, from the table; laterality: its eye, from the table.
        intensity: name of the intensity mapping. spatial: whether consecutive B-scans are neighbours in space.
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
        """File, volume and B-scan as one name: file.vol#0[12]."""
        return f"{self.file}#{self.part}[{self.index}]"


@dataclass(frozen=True)
class Sample:
    """One image: a file, or a B-scan of a volume (octc/datasets/pictures.py reads both).

    Attributes:
        path: path relative to the data set's root, with forward slashes; for a B-scan its name.
        label: class index.
        patient: patient id; None if unknown (the image is then a group of its own in a split).
        part: "train" or "test" if the layout has an official split, else None.
        sha256: SHA-256 of the file, or of the grey values of a B-scan; it identifies the image, because names are reused
            between releases. Empty for an unreadable file, for which `octc.datasets.pictures.read_picture` raises.
        targets: class indices of a multi-label image (`label` is then the rarest of them, for stratified splits); None for
            an image with one class.
        eye: id of the eye, if images are evaluated by eye.
        modality: one of MODALITIES.
        scan: volume and position of a B-scan; None for an image file.
        site: site or device of the acquisition, from the table; None if not stated.
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
        """The file that contains the image, relative to the data set's root."""
        return self.path if self.scan is None else self.scan.file

    def has(self, k: int) -> bool:
        """Whether the image is of class k."""
        return self.label == k if self.targets is None else k in self.targets

    def to_json(self) -> dict[str, Any]:
        """The fields for JSON, without optional fields that have their usual value."""
        value = asdict(self)
        return {key: value[key] for key in value if key not in EXTRA or value[key] != EXTRA[key]}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Sample:
        targets, scan = value.get("targets"), value.get("scan")
        of = None if scan is None else ScanOf(**{**scan, "shape": scan["shape"] and tuple(scan["shape"])})
        return Sample(**{**value, "targets": None if targets is None else tuple(targets), "scan": of})


def sample_ids(samples: Sequence[Sample]) -> list[str]:
    """Unique ids of images, "sha256:path"; the same file may exist at two paths."""
    return [f"{one.sha256}:{one.path}" for one in samples]


@dataclass(frozen=True)
class Finding:
    """A problem or warning of a data set: code, message, all affected items, and a hint."""

    code: str
    message: str
    items: tuple[str, ...]
    hint: str

    def error(self) -> OctcError:
        """The finding as an error; at most ten items are listed."""
        return OctcError(self.code, self.message, hint=self.hint, place=self.place)

    @property
    def place(self) -> str | None:
        """The first ten items in one line; line breaks in file names are escaped."""
        return shorten([item.replace("\n", "\\n") for item in self.items]) if self.items else None


def unlisted(unread: Sequence[Left], table: str) -> Iterator[Finding]:
    """Image files that the table of a data set does not list."""
    if listed := tuple(sorted(one.path for one in unread if one.why == UNLISTED)):
        yield Finding("OCT-W214", f"{len(listed)} images are in no row of {table}", listed, "they are not used")


def ids_of(samples: Iterable[Sample]) -> PatientIds:
    """Whether it is known whose these images are."""
    return patient_ids(sample.patient for sample in samples)


@dataclass(frozen=True)
class Samples:
    """A scanned data set: class names in order, and all images sorted by path (B-scans of volumes by content).

    Attributes:
        skipped: (path, reason) of unreadable files that `--skip-bad` left out.
        left_out: images that the scan left out (copies, conflicting labels); the release contains them.
        notes: warnings (OCT-W...) about what was left out, linked or looks wrong.
        unread: files and folders of the tree that are not among the images, and the reason.
        parts: for a class tree with parts (folder, part that its name denotes: "train", "val" or "test"); (folder, "all") if
            all class folders are in one folder below the root.
        tree: result of walking through the root folder.
        rule: the rule that gave the patient ids, as text; "" if the layout gave them.
        known_as: digest of all scanned files, also unreadable ones; a stored patient rule is found by it.
        may_lack: classes that the user allows to be absent from val and test (`--allow-empty`).
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
        """Digest of the classes, and of path, label and SHA-256 of every image; a B-scan is identified by volume and index."""
        rows = [[_place(s), s.label, s.sha256, *([list(s.targets)] if s.targets is not None else [])] for s in self.items]
        return sha256_bytes(canonical_json([self.classes, rows]))


def _place(sample: Sample) -> str:
    scan = sample.scan
    return sample.path if scan is None or not scan.volume else f"{scan.volume}[{scan.index}]"


def scan_json(samples: Samples) -> dict[str, Any]:
    """How folders were read, and everything that was left out: {"read", "parts", "left_out", "left_out_counts"}."""
    return {
        "read": len(samples.items), "parts": dict(samples.parts), "left_out": [asdict(one) for one in samples.unread],
        "left_out_counts": count_left(samples.unread),
    }  # fmt: skip


def words_of_scan(items: Sequence[Sample], parts: Sequence[tuple[str, str]], unread: Sequence[Left]) -> list[str]:
    """Text lines: how folders were read, and what was left out."""
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
    """Options of a scan besides root, classes and layout (`octc.datasets.reading` makes it from the command's options).

    Attributes:
        columns: octc's column name -> name in the table. roots: folders with the table's images; empty: the table's folder.
        links: folders besides the root that symbolic links may point into; None: links to folders are not followed.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    roots: tuple[Path, ...] = ()
    links: tuple[Path, ...] | None = None


PLAIN = Reading()


@dataclass(frozen=True)
class DatasetSpec:
    """A data set octc knows.

    Attributes:
        classes: class names in the order of the label index; None: taken from the class folders (sorted by name).
        scan: (root, classes, progress, reading) -> Samples; raises OctcError (E206, E218, E230, ...).
        default_root: folder to use without `--data` and `OCTC_DATA`; None: one of them is required.
        note: caveat printed with every metric on this data set, or empty.
        fetched_as: name for `octc data fetch`, or empty.
        task: "multiclass" or "multilabel". modalities: modalities of the images; data sets with two are for
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
    """Groups of identical images (same SHA-256), in order of appearance; unreadable files are ignored."""
    by_sum: dict[str, list[Sample]] = {}
    for sample in items:
        if sample.sha256:
            by_sum.setdefault(sample.sha256, []).append(sample)
    return [same for same in by_sum.values() if len(same) > 1]


def contradicting(items: Iterable[Sample]) -> list[list[Sample]]:
    """Groups of identical images whose labels differ."""
    return [same for same in copies_in(items) if len({(s.label, s.targets) for s in same}) > 1]
