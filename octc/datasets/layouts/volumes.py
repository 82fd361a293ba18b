"""Data sets of volumes with a table, volumes.csv: columns path, label, patient; volume, eye, frame, part, shape if needed.

A row has the path of a file (DICOM, .vol, .e2e, .fda ...: docs/volumes.md) or a folder, relative to the table. In a file with
several volumes, `volume` (index from 0) or `eye` (R or L) selects one. The label applies to the eye and to all its B-scans; a
row with `frame` (index from 0) labels one B-scan, and B-scans without a label are then left out.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from octc.core.cells import given, whole_number
from octc.core.errors import OctcError
from octc.datasets.base import PLAIN, UNLISTED, Finding, Progress, Reading, Sample, Samples, ScanOf
from octc.datasets.layouts.csv import find_csv
from octc.datasets.layouts.csv_table import leaves
from octc.datasets.layouts.folders import check_train
from octc.datasets.parts import READ_AS, part_of
from octc.datasets.patient_rules import alike, doubtful
from octc.datasets.pictures import scan_digests
from octc.datasets.tables import FILL, NONE, Record, classes_of, hint_of, read_columns, refuse_lines
from octc.datasets.tree import DEBRIS, HIDDEN, THUMBNAIL, Left, Tree, has_file, has_folder, is_under, open_tree
from octc.machine.cpu import reading_pool
from octc.volumes.formats import format_of, read_volumes, without_scans
from octc.volumes.volume import RawShape, Volume

NAME, FIRST = "volumes.csv", 20  # lines read to recognise a table of volumes
COLUMNS, MORE = ("path", "label"), ("patient", "volume", "eye", "frame", "part", "shape", "site")
EYES = {"r": "R", "od": "R", "right": "R", "re": "R", "l": "L", "os": "L", "left": "L", "le": "L", "": None}
HINT = (
    "a header line path,label,patient (and volume, eye, frame, part, shape where needed), then a line for each volume or eye, "
    "or for each B-scan with its frame from 0; a patient that is not known is an empty cell"
)


def find_volumes(root: Path, stated: Mapping[str, str] = NONE) -> Path | None:
    """Find the table: `root` itself, else volumes.csv in the root, else as `find_csv`."""
    return root / NAME if has_file(root / NAME) else find_csv(root, stated)


def names_volumes(root: Path) -> bool:
    """Whether a folder has volumes.csv, or a table with a volume in one of its first lines."""
    table = find_volumes(root)
    if table is None or table.name == NAME:
        return table is not None
    try:
        first = read_columns(table, COLUMNS)[:FIRST]
    except OctcError:
        return False
    return any(not leaves(cells["path"]) and _is_volume(table.parent / cells["path"]) for _, cells in first)


@dataclass(frozen=True)
class Listed:
    """A volume after reading: its location, facts, and the identity of each of its B-scans.

    person: hash of the patient id in the file, with a key that is discarded; None without an id. device: as stated in the file.
    """

    file: str
    part: int
    frames: int
    eye: str | None
    digest: str
    sums: tuple[str, ...]
    intensity: str
    complete: bool
    spatial: bool
    person: str | None
    device: str | None = None
    others: tuple[Path, ...] = ()


Read = Sequence[Listed] | OctcError


@dataclass(frozen=True)
class Row:
    """A parsed line of the table. eye: "R", "L" or None; shape: dimensions of a file without a header."""

    line: int
    path: str
    label: int
    patient: str | None
    volume: int | None
    eye: str | None
    frame: int | None
    part: str | None
    shape: tuple[int, int, int] | None
    site: str | None


@dataclass
class Labelled:
    """The rows of the table for one volume."""

    volume: Listed
    whole: Row | None = None
    frames: dict[int, Row] = field(default_factory=dict)

    @property
    def rows(self) -> list[Row]:
        return [*([self.whole] if self.whole is not None else []), *self.frames.values()]


def scan_volumes(
    root: Path, classes: Sequence[str] | None, progress: Progress | None = None, reading: Reading = PLAIN
) -> Samples:
    """Scan the B-scans of the volumes in the table, sorted by content. Pixels are read once, for the digests.

    An unreadable volume becomes one sample with an empty SHA-256, and is reported when it is decoded. Patient ids inside the
    files are used only to group volumes without a patient in the table.

    Raises:
        OctcError: E230 no table; E209 unusable lines; E205 a path outside the root; E206 fewer than two classes; E207 a class
            of test is absent from train; E231 folders that cannot be read; E221, E901 a decoder is missing.
    """
    table = find_volumes(root, reading.columns)
    if table is None:
        if not has_folder(root):
            open_tree(root)  # says why
        raise OctcError("OCT-E230", f"no table of volumes in {root}", hint=f"{NAME}: {HINT}", place=str(root))
    if len(reading.roots) > 1:
        text = "volumes lie below one folder"
        raise OctcError("OCT-E102", text, hint="--image-root with the folder that holds them all", place="--image-root")
    root = reading.roots[0] if reading.roots else table.parent
    tree = open_tree(root, reading.links)
    records = [(n, {"patient": "", **cells}) for n, cells in read_columns(table, COLUMNS, MORE, reading.columns)]
    names = tuple(classes or classes_of(records))
    if len(names) < 2:
        raise OctcError("OCT-E206", f"{len(names)} classes in the table, at least two are needed", hint=HINT, place=str(table))
    rows = _rows(table, records, names)
    places = _places(tree, rows)
    asked = {(file, row.shape, row.eye) for row in rows for file in places[row.path]}
    read = _read_all(root, sorted(asked, key=repr), progress)
    labelled, bad, problems = _labelled(rows, places, read, _homes(tree, read))
    refuse_lines(table, problems, HINT)
    people, doubts = _people(labelled)
    split = any(row.part for row in rows)
    items = [*_samples(labelled, people, split), *bad]
    if empty := [name for k, name in enumerate(names) if not any(s.label == k for s in items)]:
        raise OctcError("OCT-E206", f"no B-scan of {', '.join(empty)} in the table", hint=HINT, place=str(table))
    if split:
        train = {names[s.label] for s in items if s.part != "test"}
        check_train(train, {names[s.label] for s in items if s.part == "test"}, root)
    items.sort(key=lambda s: (s.scan.volume, s.scan.index, s.path) if s.scan is not None else ("", 0, s.path))
    unread, taken = _unread(tree, table.name, read)
    kept = replace(tree, left=tuple(one for one in tree.left if one.path not in taken))
    notes = (
        *_notes(table.name, labelled, unread),
        *doubts,
        *alike("labels", names),
        *doubtful(sorted(set(people.values()))),
    )
    return Samples(root, names, tuple(items), notes=notes, unread=unread, tree=kept)


def _rows(table: Path, records: Sequence[Record], names: Sequence[str]) -> list[Row]:
    """Parse the lines of the table (OctcError E209 lists all invalid lines)."""
    split = any(cells.get("part") for _, cells in records)
    rows, problems = [], []
    for line, cells in records:
        try:
            rows.append(_row(line, cells, names, split))
        except ValueError as error:
            problems.append(f"line {line}: {error}")
    filled = hint_of(records)
    refuse_lines(table, problems, filled if filled == FILL else HINT)
    return rows


def _row(line: int, cells: dict[str, str], names: Sequence[str], split: bool) -> Row:
    text = cells["path"].replace("\\", "/")
    path = "/".join(part for part in text.split("/") if part not in ("", "."))
    if not path or leaves(text) or text.startswith("/") or ":" in text[:2]:
        raise ValueError(f"path {cells['path']!r} is no path below the table's folder")
    if cells["label"] not in names:
        raise ValueError(f"label {cells['label']!r} is none of {', '.join(names)}")
    eye = (given(cells.get("eye", "")) or "").lower()
    if eye not in EYES:
        raise ValueError(f"eye {cells['eye']!r} is neither R nor L")
    part = part_of(cells.get("part", "")) or cells.get("part", "")
    if split and part not in READ_AS:
        raise ValueError(f"split {cells.get('part', '')!r} is none of {', '.join(READ_AS)}")
    volume, frame = (_number(cells, name) for name in ("volume", "frame"))
    shape = cells.get("shape", "").lower()
    sides = [int(n) if n.isdecimal() else 0 for n in shape.split("x")] if shape else []
    if shape and (len(sides) != 3 or min(sides) < 1):
        raise ValueError(f"shape {shape!r} is not FRAMESxROWSxCOLUMNS")
    return Row(
        line, path, names.index(cells["label"]), given(cells["patient"]), volume, EYES[eye], frame,
        part if split else None, (sides[0], sides[1], sides[2]) if sides else None, given(cells.get("site", "")),
    )  # fmt: skip


def _number(cells: dict[str, str], name: str) -> int | None:
    text = cells.get(name, "")
    if text and whole_number(text) is None:
        raise ValueError(f"{name} {text!r} is no whole number from 0")
    return whole_number(text)


def _places(tree: Tree, rows: Iterable[Row]) -> dict[str, list[str]]:
    """Path in the table -> files: itself, or the volumes in a folder (OctcError E205: a path outside the root)."""
    found: dict[str, list[str]] = {}
    files = _files(tree)
    for path in {row.path for row in rows}:
        place = tree.root / path
        if place.is_symlink() or place.exists():
            tree.check_link(path)
        if not has_folder(place):
            found[path] = [path]
            continue
        for link in (link for link in tree.links if is_under(link, path)):
            tree.check_link(link)
        found[path] = [one for one in files if is_under(one, path) and _is_volume(tree.root / one)]
    return found


def _files(tree: Tree) -> list[str]:
    """All files of a tree except system files."""
    left = [one.path for one in tree.left if one.why not in (HIDDEN, DEBRIS, THUMBNAIL) and not one.path.endswith("/")]
    return sorted([*tree.images, *left])


def _is_volume(path: Path) -> bool:
    try:
        return path.is_file() and format_of(path) is not None and without_scans(path) is None
    except (OctcError, OSError):
        return False


Asked = tuple[str, "tuple[int, int, int] | None", "str | None"]  # file, shape, eye


def _read_all(root: Path, files: Sequence[Asked], progress: Progress | None) -> dict[str, Read]:
    """File -> its volumes, or the error; files that belong to the object of another file are read with it."""
    once: dict[str, Asked] = {}
    for asked in files:
        once.setdefault(asked[0], asked)
    found: dict[str, Read] = {}
    with reading_pool() as pool:
        for file, one in zip(once, pool.map(partial(_read, root, secrets.token_bytes(32)), once.values()), strict=True):
            if isinstance(one, OctcError) and one.exit_code == 4:
                raise one
            found[file] = one
            if progress is not None:
                progress(len(found), len(once))
    return found


def _read(root: Path, key: bytes, asked: Asked) -> Read:
    file, shape, eye = asked
    try:
        raw = None if shape is None else RawShape(*shape, laterality=eye)
        return [_listed(file, one) for one in read_volumes(root / file, key=key, shape=raw)]
    except OctcError as error:
        return error


def _listed(file: str, volume: Volume) -> Listed:
    digest, sums = scan_digests(volume)
    return Listed(
        file, volume.part, volume.frames, volume.laterality.value, digest, tuple(sums), volume.intensity.name,
        volume.complete.value is not False, volume.spatial, volume.patient, volume.device.value, volume.others,
    )  # fmt: skip


def _labelled(
    rows: Sequence[Row], places: dict[str, list[str]], read: dict[str, Read], homes: dict[str, str]
) -> tuple[list[Labelled], list[Sample], list[str]]:
    """Assign the rows to volumes; also returns the unreadable files and the unusable lines."""
    known: dict[tuple[str, int], Labelled] = {}
    bad: dict[str, Sample] = {}
    problems: list[str] = []
    for row in rows:
        volumes: list[Listed] = []
        for file in dict.fromkeys(homes[file] for file in places[row.path]):
            if isinstance(read[file], OctcError):
                scan = ScanOf(file, row.volume or 0, row.frame or 0, "", 0, shape=row.shape, laterality=row.eye)
                bad.setdefault(file, Sample(file, row.label, row.patient, row.part, "", scan=scan, site=row.site))
            volumes += _of(read[file])
        if not volumes and all(isinstance(read[file], OctcError) for file in places[row.path]) and places[row.path]:
            continue
        chosen = _chosen(row, volumes)
        if isinstance(chosen, str):
            problems.append(f"line {row.line}: {chosen}")
            continue
        for one in chosen:
            entry = known.setdefault((one.file, one.part), Labelled(one))
            if why := _taken(entry, row):
                problems.append(f"line {row.line}: {why}")
    return list(known.values()), list(bad.values()), problems


def _homes(tree: Tree, read: dict[str, Read]) -> dict[str, str]:
    """File -> its representative: all parts of a DICOM concatenation are one object, whichever part the table lists."""
    beside = {file: {other for one in _of(found) for other in _inside(tree.root, one.others)} for file, found in read.items()}
    return {file: min([file, *(other for other in beside[file] if other in read)]) for file in read}


def _inside(root: Path, paths: Iterable[Path]) -> Iterator[str]:
    """The paths below the root, relative to it."""
    real = root.resolve()
    return (path.resolve().relative_to(real).as_posix() for path in paths if path.resolve().is_relative_to(real))


def _of(read: Read) -> Sequence[Listed]:
    return () if isinstance(read, OctcError) else read


def _chosen(row: Row, volumes: Sequence[Listed]) -> list[Listed] | str:
    """The volumes that a row refers to, or the reason why this is ambiguous."""
    if not volumes:
        return f"{row.path} is a folder without a volume"
    left = [one for one in volumes if row.volume is None or one.part == row.volume]
    if not left:
        return f"{row.path} has no volume {row.volume} (it holds {len(volumes)}, counted from 0)"
    if row.eye is not None:
        of_eye = [one for one in left if one.eye == row.eye]
        unnamed = [one for one in left if one.eye is None]
        if not of_eye and len(left) == 1 and unnamed:
            return [replace(left[0], eye=row.eye)]
        if not of_eye:
            held = ", ".join(sorted({one.eye or "unknown" for one in left}))
            return f"{row.path} holds no volume of the {row.eye} eye (eyes: {held})"
        left = of_eye
    elif len(left) > 1 and (row.volume is None or len({one.file for one in left}) > 1):
        return f"{row.path} holds {len(left)} volumes: say which in the column volume, or whose in the column eye"
    if row.frame is not None and len(left) > 1:
        return f"frame {row.frame} of {len(left)} volumes: say which in the column volume"
    if row.frame is not None and row.frame >= left[0].frames:
        return f"{row.path} has no frame {row.frame} (it holds {left[0].frames}, counted from 0)"
    return left


def _taken(entry: Labelled, row: Row) -> str:
    """Add a row to a volume; returns the contradiction with its earlier rows, or ""."""
    before = entry.rows[0] if entry.rows else row
    if (before.patient, before.part, before.shape, before.site) != (row.patient, row.part, row.shape, row.site):
        return f"{row.path} stood above (line {before.line}) with another patient, part, shape or site"
    if row.frame is None:
        if entry.whole is not None and entry.whole.label != row.label:
            return f"{row.path} stood above (line {entry.whole.line}) with another label"
        entry.whole = entry.whole or row
        return ""
    first = entry.frames.setdefault(row.frame, row)
    return "" if first.label == row.label else f"frame {row.frame} of {row.path} stood above with another label"


def _people(labelled: Sequence[Labelled]) -> tuple[dict[int, str], list[Finding]]:
    """The patient of each volume (by index in `labelled`): from the table, else a number for each patient id in the files.

    Numbers follow the content of the volumes, independent of file names. Also returns warnings about ids in the files that
    belong to several patients of the table.
    """
    named: dict[int, str] = {}
    by_id: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(labelled):
        if (patient := one.rows[0].patient) is not None:
            named[place] = patient
        if one.volume.person is not None:
            by_id[one.volume.person].append(place)
    doubts = []
    order = sorted(by_id.values(), key=lambda places: min(labelled[place].volume.digest for place in places))
    for number, places in enumerate(order, 1):
        said = sorted({named[place] for place in places if place in named})
        if len(said) > 1:
            text = f"volumes with one patient id in their files stand under {len(said)} patients of the table"
            doubts.append(Finding("OCT-W221", text, tuple(said), "one patient of the table for one patient"))
            continue
        for place in places:
            named.setdefault(place, said[0] if said else f"file-id-{number}")
    return named, doubts


def _samples(labelled: Sequence[Labelled], people: dict[int, str], split: bool) -> Iterator[Sample]:
    """A sample for each labelled B-scan. Its site is from the table; if no row has one, it is the device stated in the file."""
    stated = any(row.site is not None for one in labelled for row in one.rows)
    devices = _devices(() if stated else [one.volume.device for one in labelled])
    for place, one in enumerate(labelled):
        volume, row = one.volume, one.rows[0]
        patient = people.get(place)
        whose = f"volume {volume.digest[:16]}" if patient is None else f"{patient} {volume.eye}" if volume.eye else None
        labels = {index: found.label for index, found in one.frames.items()}
        if not labels and one.whole is not None:
            labels = dict.fromkeys(range(volume.frames), one.whole.label)
        of_eye = one.whole.label if one.whole is not None else None
        if of_eye is None and len(labels) == volume.frames and len(set(labels.values())) == 1:
            of_eye = labels[0]
        for index, label in sorted(labels.items()):
            scan = ScanOf(
                volume.file,
                volume.part,
                index,
                volume.digest,
                volume.frames,
                of_eye,
                row.shape,
                volume.eye,
                volume.intensity,
                volume.spatial,
            )
            part = row.part if split else None
            site = row.site if stated else devices.get(volume.device)
            yield Sample(scan.name, label, patient, part, volume.sums[index], eye=whose, scan=scan, site=site)


def _devices(names: Iterable[str | None]) -> dict[str | None, str]:
    """Device name -> its shortest form in any file. Some formats state the manufacturer only and others also the model, so
    "Topcon" and "Topcon 3DOCT-1000" may be the same device."""
    found: dict[str | None, str] = {}
    words = {name: tuple(name.casefold().split()) for name in names if name}
    for name, own in words.items():
        found[name] = min((one for one, few in words.items() if own[: len(few)] == few), key=lambda one: (len(words[one]), one))
    return found


def _unread(tree: Tree, table: str, read: dict[str, Read]) -> tuple[tuple[Left, ...], set[str]]:
    """Volumes and images in the tree that no row lists, and the files that were used."""
    taken = {table, *read}
    for one in read.values():
        for listed in _of(one):
            taken |= set(_inside(tree.root, listed.others))
    rest = [path for path in _files(tree) if path not in taken]
    images = frozenset(tree.images)
    found = [path for path in rest if path in images or _is_volume(tree.root / path)]
    return tuple(Left(path, UNLISTED) for path in found), taken | set(found)


def _notes(table: str, labelled: Sequence[Labelled], unread: Sequence[Left]) -> Iterator[Finding]:
    if unread:
        listed = tuple(sorted(one.path for one in unread))
        yield Finding("OCT-W214", f"{len(listed)} files are in no row of {table}", listed, "they are not used")
    cut = tuple(sorted(one.volume.file for one in labelled if not one.volume.complete))
    if cut:
        yield Finding("OCT-W806", f"{len(cut)} volumes are incomplete", cut, "export them again, or take their rows out")
    part = tuple(
        sorted(f"{one.volume.file} ({len(one.frames)} of {one.volume.frames})" for one in labelled
               if one.frames and len(one.frames) < one.volume.frames)
    )  # fmt: skip
    if part:
        text = f"of {len(part)} volumes only some B-scans are labelled; the others are left out, and no eye is judged by these"
        yield Finding("OCT-W214", text, part, "a row for each frame, or one row for the eye")
