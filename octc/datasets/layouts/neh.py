"""NEH (Noor Eye Hospital 2021): a table lists every B-scan with its patient and label.

Known errors of the release are handled here and reported:

* patient numbers restart in every class folder, so the patient id is class and number together;
* `Directory` differs from the file system in letter case, and some rows are duplicated;
* identical eyes occur under several patients of one class (these become one patient) or of two classes (the images are left out
  if their labels conflict, and the patients are still merged).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from octc.core.cells import whole_number
from octc.core.errors import OctcError
from octc.core.grouping import roots_of
from octc.datasets.base import PLAIN, UNLISTED, Finding, Progress, Reading, Sample, Samples, unlisted
from octc.datasets.layouts.csv_table import key_of, leaves, read_table
from octc.datasets.layouts.folders import images_below, sums_of
from octc.datasets.tables import refuse_lines
from octc.datasets.tree import Left, Tree, has_file, litter, names_in, open_tree

TABLE = "data_information.csv"
IMAGES = "NEH_UT_2021RetinalOCTDataset"
CLASSES = ("NORMAL", "DRUSEN", "CNV")
NEEDED = ("Patient ID", "Class", "Eye", "Label", "Directory")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        number: patient number, unique only together with `folder`.
        folder: column Class, the diagnosis of the patient; label: label of this B-scan. Both as written in the table.
        path: path relative to the root, in the letter case of the file system; as in the table if the file is missing.
    """

    line: int
    number: int
    folder: str
    eye: str
    label: str
    directory: str
    path: str

    @property
    def patient(self) -> str:
        return f"{self.folder.upper()}/{self.number}"


def find_table(root: Path) -> Path | None:
    """data_information.csv in the root, or one folder below."""
    places = [root, *(root / name for name in names_in(root) if not litter(name))]
    return next((place / TABLE for place in places if has_file(place / TABLE)), None)


def read_rows(root: Path, tree: Tree | None = None) -> list[Row]:
    """Read the table in its own order; paths are matched to files regardless of letter case.

    Raises:
        OctcError: E230 no table; E209 unusable lines (an invalid label, a path outside the root or one that matches two files);
            E205 a link outside the root; E231 folders that cannot be read.
    """
    table = find_table(root)
    if table is None:
        hint = f"--data DIR with {TABLE} and {IMAGES}/ in it, or octc data fetch neh"
        raise OctcError("OCT-E230", f"no {TABLE} in {root}", hint=hint, place=str(root))
    files: dict[str, list[str]] = defaultdict(list)
    for image in images_below(tree or open_tree(root)):
        files[key_of(image.relative_to(root).as_posix())].append(image.relative_to(root).as_posix())
    beside = table.parent.relative_to(root).as_posix()
    tops = [top for top in (f"{beside}/{IMAGES}", beside, IMAGES, "") if (root / top).is_dir()]
    rows, problems = [], []
    for line, cells in read_table(table, NEEDED, f"restore {TABLE} of the release"):
        why = _why_unusable(cells)
        found = [] if why else _on_disk(cells["Directory"], tops, files)
        if len(found) > 1:
            why = f"{cells['Directory']} fits {' and '.join(found)}"
        if why:
            problems.append(f"line {line}: {why}")
            continue
        path = found[0] if found else (PurePosixPath(tops[0]) / cells["Directory"].replace("\\", "/").strip("/")).as_posix()
        number = whole_number(cells["Patient ID"]) or 0
        rows.append(Row(line, number, cells["Class"], cells["Eye"], cells["Label"], cells["Directory"], path))
    refuse_lines(table, problems, f"correct these lines of {TABLE}")
    return rows


def _why_unusable(cells: dict[str, str]) -> str:
    for column in ("Class", "Label"):
        if cells[column].upper() not in CLASSES:
            return f"{column} {cells[column]!r} is none of {', '.join(CLASSES)}"
    if whole_number(cells["Patient ID"]) is None:
        return f"Patient ID {cells['Patient ID']!r} is no whole number"
    if not key_of(cells["Directory"]) or leaves(cells["Directory"]):
        return f"Directory {cells['Directory']!r} is no path inside the data set"
    return ""


def _on_disk(directory: str, tops: Sequence[str], files: dict[str, list[str]]) -> list[str]:
    """The files that match a Directory: the exact one, else all that differ only in letter case."""
    for top in tops:
        found = files.get(key_of(f"{top}/{directory}"), [])
        exact = [path for path in found if path.endswith("/" + directory.strip("/")) or path == directory]
        if found:
            return exact if len(exact) == 1 else found
    return []


def scan_neh(
    root: Path,
    classes: Sequence[str] | None,
    progress: Progress | None = None,
    reading: Reading = PLAIN,
    *,
    same_class: bool = True,
) -> Samples:
    """Scan the B-scans of the table. With `same_class` only those whose label equals the diagnosis of the patient
    (`Class == Label`, case-sensitive, the filter of KD-OCT); otherwise all.

    A missing file gets an empty SHA-256 and is reported when it is decoded. Raises the errors of `read_rows`, and OctcError
    E206 if a class has no images.
    """
    names = tuple(classes or CLASSES)
    tree = open_tree(root, reading.links)
    rows = read_rows(root, tree)
    paths = sorted({row.path for row in rows})
    sums = dict(zip(paths, sums_of([root / path for path in paths], progress), strict=True))
    person = linked_patients(rows, sums)
    labels: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        labels[sums[row.path] or row.path].add(row.label.upper())
    items: list[Sample] = []
    copies: list[tuple[Row, Sample]] = []
    torn: list[tuple[Row, Sample]] = []
    seen: set[str] = set()
    for row in sorted(rows, key=lambda row: (row.path, row.line)):
        if same_class and row.folder != row.label:
            continue
        content = sums[row.path] or row.path
        sample = Sample(row.path, names.index(row.label.upper()), person[row.patient], None, sums[row.path])
        if len(labels[content]) > 1:
            torn.append((row, sample))
        elif content in seen:
            copies.append((row, sample))
        else:
            seen.add(content)
            items.append(sample)
    if empty := [name for k, name in enumerate(names) if not any(s.label == k for s in items)]:
        text = f"no image of {', '.join(empty)} is left"
        raise OctcError("OCT-E206", text, hint="octc data check neh-all, or octc data fetch neh", place=str(root))
    named = set(paths)
    unread = tuple(Left(path, UNLISTED) for path in tree.images if path not in named)
    notes = (
        *_linked(person),
        *_left_out("OCT-W217", "images have contradicting labels and are left out", torn),
        *_left_out("OCT-W218", "copies of an image (or rows that name it again) are left out", copies),
        *_disagreeing(rows, same_class),
        *unlisted(unread, TABLE),
    )
    left_out = tuple(sample for _, sample in (*torn, *copies))
    return Samples(root, names, tuple(items), left_out=left_out, notes=notes, unread=unread, tree=tree)


scan_neh_all = partial(scan_neh, same_class=False)


def linked_patients(rows: Sequence[Row], sums: dict[str, str]) -> dict[str, str]:
    """Patient in the table -> merged id of all patients that share an image with it, joined by "="."""
    names = sorted({row.patient for row in rows})
    number = {name: i for i, name in enumerate(names)}
    first: dict[str, str] = {}
    pairs = ((number[first.setdefault(sums[row.path] or row.path, row.patient)], number[row.patient]) for row in rows)
    groups: dict[int, list[str]] = defaultdict(list)
    for name, group in zip(names, roots_of(len(names), pairs), strict=True):
        groups[group].append(name)
    return {patient: "=".join(group) for group in groups.values() for patient in group}


def _linked(person: dict[str, str]) -> Iterator[Finding]:
    if linked := sorted({name for name in person.values() if "=" in name}):
        count = sum(name.count("=") + 1 for name in linked)
        text = f"{count} patients share images with another one and count as {len(linked)}"
        yield Finding("OCT-W216", text, tuple(linked), "none needed: no split separates them")


def _left_out(code: str, text: str, found: Sequence[tuple[Row, Sample]]) -> Iterator[Finding]:
    if found:
        listed = tuple(f"{row.path} (line {row.line}, {row.label})" for row, _ in found)
        yield Finding(code, f"{len(found)} {text}", listed, "none needed; the source would have to correct its table")


def _disagreeing(rows: Sequence[Row], same_class: bool) -> Iterator[Finding]:
    """Warnings about rows whose path contradicts their columns, and labels that differ only in letter case."""
    listed = tuple(f"line {row.line}: {why}" for row in rows if (why := ", ".join(_contradictions(row))))
    if listed:
        text = f"{len(listed)} rows contradict their own path; the columns count"
        yield Finding("OCT-W214", text, listed, "look at them: the table may be misaligned")
    case = tuple(
        f"line {row.line}: Class {row.folder}, Label {row.label}"
        for row in rows
        if row.folder != row.label and row.folder.upper() == row.label.upper()
    )
    if case and same_class:
        text = f"{len(case)} rows are left out because Class and Label differ in letter case"
        yield Finding("OCT-W214", text, case, "--dataset neh-all keeps them")


def _contradictions(row: Row) -> Iterator[str]:
    *folders, name = key_of(row.directory).split("/")
    label = name.rpartition(".")[0].rpartition("_")[2]
    known = {kind.lower() for kind in CLASSES}
    told = {
        "Class": ([part for part in folders if part in known], row.folder),
        "Patient ID": ([str(int(part)) for part in folders if part.isascii() and part.isdigit()], str(row.number)),
        "Eye": ([part for part in folders if part in ("od", "os")], row.eye),
        "Label": ([label] if label in known else [], row.label),
    }
    for column, (found, written) in told.items():
        if len(found) == 1 and found[0] != written.lower():
            yield f"{column} {written or '(empty)'}, path {found[0]}"
