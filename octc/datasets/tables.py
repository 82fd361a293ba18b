"""Reads tables of images: separated by commas, semicolons or tabs, with any usual column names and any kind of path."""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from octc.core.cells import NO_LABEL, label_of, trimmed
from octc.core.errors import OctcError, shorten
from octc.imaging.kinds import HEAD, PARQUET, foreign

Record = tuple[int, dict[str, str]]  # line number, column -> stripped cell
MOST = 256 << 20  # maximum size of a table, bytes
NONE: Mapping[str, str] = {}
ALIASES = {
    "path": "path",
    "label": "label",
    "patient": "patient",
    "split": "part",
    "part": "part",
    "site": "site",
}  # names in --column
_HEAD = re.compile(rf"(?:^|,)\s*({'|'.join(ALIASES)})=")
ENDINGS = (".csv", ".tsv", ".txt")
SEPARATORS = ",;\t|"
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx, .ods; .xls
SHEETS = (b"xl/", b"opendocument.spreadsheet")  # names in workbook archives, which other archives lack
MAKE_CSV = "a line for each image, as CSV, with pandas: pandas.{}(FILE).to_csv('labels.csv', index=False)"
_LINE, _QUOTED = re.compile(r"[^\r\n]*\S[^\r\n]*"), re.compile(r'"(?:[^"]|"")*"')
_STATED = re.compile(r'"?sep=([,;\t|])"?\r?\n', re.IGNORECASE)
FIRST = 1 << 16  # bytes that are read to find the first lines of a table
# Usual names of columns, without letter case, blanks and underscores; the first one found in a table is used.
USUAL: dict[str, tuple[str, ...]] = {
    "path": (
        "path", "imagepath", "filepath", "filename", "file", "image", "imagename", "img", "imgpath", "imgname", "imageid",
        "images", "bscanpath", "bild", "bilddatei", "dateiname", "imagem", "imagen",
        "pathtrialimagetypesubjectvisiteyeimagename", "idimage",  # OLIVES, Kaggle
    ),
    "label": (
        "label", "class", "diagnosis", "disease", "category", "target", "labels", "classname", "dx", "condition", "finding",
        "pathology", "diagnose", "befund", "klasse", "diagnostico",
    ),
    "patient": (
        "patient", "patientid", "subject", "subjectid", "patientnumber", "patientno", "patientname", "pid", "participant",
        "participantid", "person", "caseid", "patientsid", "patientenid", "patientennummer", "patientennr", "paciente",
    ),
    "part": ("part", "split", "set", "partition", "subset", "usage", "datasplit"),
    "volume": ("volume", "volumeindex", "series"),
    "eye": ("eye", "laterality", "side"),
    "frame": ("frame", "frameindex", "bscan", "bscanindex", "slice", "sliceindex"),
    "shape": ("shape", "dimensions"),
    "site": (
        "site", "device", "scanner", "center", "centre", "hospital", "clinic", "devicename", "devicemodel", "scannermodel",
        "manufacturer", "vendor", "instrument", "camera", "machine", "zentrum", "geraet", "gerät", "standort", "centro",
    ),
}  # fmt: skip
HINT = (
    "a header line path,label,patient (and split: train, val or test, where it is given), or their usual names, then one "
    "line for each image; a patient that is not known is an empty cell, or no column"
)

FILL = (
    "a merged cell of a spreadsheet holds its value in its first line alone: fill the lines below it, with pandas: "
    "t = pandas.read_csv(TABLE).ffill(); t.to_csv(TABLE, index=False)"
)
TITLE = 20  # lines that are searched for a header below a title


def read_columns(
    path: Path, wanted: Sequence[str], optional: Sequence[str] = (), stated: Mapping[str, str] = NONE
) -> list[Record]:
    """Read the required columns of a table, under octc's column names.

    Args:
        optional: columns that may be missing. stated: octc's column name -> name in this table.

    Raises:
        OctcError: E209 the table cannot be read, a column is missing or duplicated, or a line has another number of cells.
    """
    rows = rows_of(path)
    header = [name.strip() for name in rows[0][1]] if rows else []
    places = {column: place_of(column, header, path, stated) for column in (*wanted, *optional)}
    if absent := [column for column in wanted if places[column] is None]:
        text = f"columns missing or doubled: {', '.join(absent)}; the table has {', '.join(header[:40]) or 'no line'}"
        names = ",".join(f"{column}=NAME" for column in absent)
        hint = f"--column {names}, or {HINT}"
        if "label" in absent and len(marks := _marks(header, rows)) > 1:
            text += f"; {', '.join(marks[:20])} contain 0 and 1, one column per class"
            hint = f"one column with the name of the class, with pandas: t['label'] = t[{marks[:20]}].idxmax(axis=1)"
        if (below := _header_below(rows, absent, path, stated)) is not None:
            hint = f"line {below} looks like the header: remove the lines above it"
        raise OctcError("OCT-E209", text, hint=hint, place=f"{path}:1")
    if twice := sorted({header[one] for one in places.values() if one is not None and [*places.values()].count(one) > 1}):
        text = f"one column is given for two purposes: {', '.join(twice)}"
        raise OctcError("OCT-E209", text, hint="another --column", place=f"{path}:1")
    check_cells(header, rows, path, "the separator")
    known = {column: place for column, place in places.items() if place is not None}
    return [(line, {name: _cell(row[place], name in optional) for name, place in known.items()}) for line, row in rows[1:]]


def _cell(text: str, optional: bool) -> str:
    """A cell; "" where one that may be empty says that there is nothing, as R writes it (NA)."""
    return label_of(text) if optional else trimmed(text)


def check_cells(header: Sequence[str], lines: Sequence[tuple[int, list[str]]], path: Path, separator: str) -> None:
    """Refuse a table with a duplicated column, or a line with another number of cells than the header (OctcError E209)."""
    check_header(header, path)
    if torn := [f"line {line} ({len(row)} cells)" for line, row in lines[1:] if len(row) != len(header)]:
        text = f"{len(torn)} lines do not have {len(header)} cells"
        raise OctcError("OCT-E209", text, hint=f"quote cells that hold {separator}", place=f"{path}: {shorten(torn)}")


def check_header(header: Sequence[str], path: Path) -> None:
    """Refuse a table with a duplicated column (OctcError E209)."""
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        text = f"duplicated columns: {', '.join(twice)}: it is not clear which one to use"
        raise OctcError("OCT-E209", text, hint="keep one column of each name", place=f"{path}:1")


def columns_of(path: Path, stated: Mapping[str, str] = NONE) -> dict[str, str | None]:
    """octc's column name -> name in the table, None if it has no such column (OctcError E209 as in `read_columns`)."""
    rows = rows_of(path)
    header = [name.strip() for name in rows[0][1]] if rows else []
    places = {column: place_of(column, header, path, stated) for column in USUAL}
    return {column: None if place is None else header[place] for column, place in places.items()}


def classes_of(records: Sequence[Record]) -> tuple[str, ...]:
    """The sorted labels of a table; a cell for a missing label ("NaN", "N/A") is not a class."""
    return tuple(sorted({cells["label"] for _, cells in records if cells["label"].casefold() not in NO_LABEL}))


def hint_of(records: Sequence[Record]) -> str:
    """A hint for unusable lines: how to fill merged cells, or else the expected form of a table."""
    blank = [not cells["label"] for _, cells in records]
    return FILL if 2 * sum(blank) > len(blank) and not blank[0] else HINT


def refuse_lines(path: Path, problems: Sequence[str], hint: str) -> None:
    """Raise OctcError E209 with the list of problems, if there are any."""
    if problems:
        text = f"{len(problems)} lines of the table cannot be used"
        raise OctcError("OCT-E209", text, hint=hint, place=f"{path}: {shorten(problems)}")


def _header_below(
    rows: Sequence[tuple[int, list[str]]], absent: Sequence[str], path: Path, stated: Mapping[str, str]
) -> int | None:
    """The line number of a header below a title; None if there is none."""
    for line, row in rows[1:TITLE]:
        header = [name.strip() for name in row]
        try:
            if all(place_of(column, header, path, stated) is not None for column in absent):
                return line
        except OctcError:
            continue
    return None


def _marks(header: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> list[str]:
    """Columns that contain only 0 and 1, and both: one-hot columns of classes."""
    cells = [[row[i].strip() for _, row in rows[1:] if i < len(row)] for i in range(len(header))]
    return [name for name, own in zip(header, cells, strict=True) if set(own) == {"0", "1"}]


@dataclass(frozen=True)
class Form:
    """Format of a text table. before: number of lines before the header (1 if the first line states the separator)."""

    encoding: str
    separator: str
    before: int


def form_of(path: Path) -> Form:
    """Detect the format of a table from its first bytes (OSError: it cannot be read)."""
    with path.open("rb") as stream:
        head = stream.read(FIRST)
    encoding = _encoding(head)
    separator, length = _separator(codecs.getincrementaldecoder(encoding)("replace").decode(head))
    return Form(encoding, separator, int(length > 0))


def _encoding(head: bytes) -> str:
    return "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _separator(text: str) -> tuple[str, int]:
    """The separator of a table, and the length of a line `sep=;` that a spreadsheet program wrote (0: none)."""
    if stated := _STATED.match(text):
        return stated[1], stated.end()
    first = _LINE.search(text)  # without its quoted cells, which may hold any of them
    return max(SEPARATORS, key=_QUOTED.sub("", first[0] if first else "").count), 0


def rows_of(path: Path, hint: str = HINT) -> list[tuple[int, list[str]]]:
    """The non-empty lines of a table with their line numbers, the header first. hint: hint of an OctcError E209.

    Raises:
        OctcError: E209 the table cannot be read.
    """
    try:
        if path.stat().st_size > MOST:
            raise ValueError(f"more than {MOST} bytes")
        text = _text(path, path.read_bytes())
        separator, length = _separator(text)
        reader = csv.reader(io.StringIO(text[length:], newline=""), delimiter=separator, strict=True)
        return [(reader.line_num + (length > 0), row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OctcError("OCT-E209", f"table cannot be read: {reason}", hint=hint, place=str(path)) from error


def _text(path: Path, data: bytes) -> str:
    """Decode a table as UTF-8, or as UTF-16 with a byte order mark. OctcError E209 names any other known file type."""
    if data.startswith(WORKBOOKS) and (data[:2] != b"PK" or any(word in data for word in SHEETS)):
        text = f"{path.name} is a workbook of a spreadsheet program, not a table of text"
        raise OctcError("OCT-E209", text, hint="save its sheet as CSV (UTF-8), and name that file", place=str(path))
    try:
        text = data.decode(_encoding(data))
    except UnicodeDecodeError:
        text = "\0"
    text = "\0" if data.startswith(WORKBOOKS) else text
    if text.lstrip()[:1] in ("{", "["):
        lines = text.strip().splitlines()
        rows = len(lines) > 1 and all(line.rstrip().endswith("}") for line in lines[:2])  # JSON Lines
        hint = MAKE_CSV.format("read_json").replace("FILE", "FILE, lines=True") if rows else MAKE_CSV.format("read_json")
        raise OctcError("OCT-E209", f"{path.name} is JSON, not a table", hint=hint, place=str(path))
    if "\0" not in text:
        return text
    name, hint = foreign(data[:HEAD]) or ("", "save it as CSV in UTF-8, with the program that wrote it")
    hint = MAKE_CSV.format("read_parquet") if name == PARQUET else hint
    what = (
        f"{path.name} is {name}, not a table of text" if name else "table cannot be read: not UTF-8, nor UTF-16 with its mark"
    )
    raise OctcError("OCT-E209", what, hint=hint, place=str(path))


def stated_columns(text: str | None) -> dict[str, str]:
    """Parse `--column path=NAME,label=NAME,...` to octc's column name -> name in the table. Names may contain commas, blanks.

    Raises:
        OctcError: E104 the text is not such a list.

    >>> stated_columns("path=Image, OCT,label=dx,split=fold") == {"path": "Image, OCT", "label": "dx", "part": "fold"}
    True
    """
    if text is None:
        return {}
    hint = f"--column path=NAME,label=NAME   ({', '.join(ALIASES)})"
    heads = list(_HEAD.finditer(text))
    if not heads or heads[0].start():
        raise OctcError("OCT-E104", f"--column {text}", hint=hint, place="--column")
    ends = [*(head.start() for head in heads[1:]), len(text)]
    named = [(ALIASES[head[1]], text[head.end() : end].strip()) for head, end in zip(heads, ends, strict=True)]
    if len(dict(named)) < len(named) or not all(name for _, name in named):
        raise OctcError("OCT-E104", f"--column {text}: a column twice, or without a name", hint=hint, place="--column")
    return dict(named)


def place_of(column: str, header: Sequence[str], path: Path, stated: Mapping[str, str] = NONE) -> int | None:
    """Index of a column: by its stated name, else by the first usual name in the header; None if there is none."""
    if column in stated:
        name = stated[column]
        for alike in (str, str.casefold, _bare):
            if len(found := [i for i, one in enumerate(header) if alike(one) == alike(name)]) == 1:
                return found[0]
        text = f"no column {name!r} (or several) for {column}; the table has {', '.join(header[:40]) or 'no line'}"
        raise OctcError("OCT-E209", text, hint="--column with a name of the table", place=f"{path}:1")
    for usual in USUAL[column]:
        found = [i for i, name in enumerate(header) if _bare(name) == usual]
        if len(found) > 1:
            text = f"columns missing or doubled: {column}; the table has {', '.join(header)}"
            raise OctcError("OCT-E209", text, hint=HINT, place=f"{path}:1")
        if found:
            return found[0]
    return None


def _bare(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def resolver(images: Sequence[str], fit: Callable[[str, list[str]], None] | None = None) -> Callable[[str], str | None]:
    """Make a function that finds the image for a path in a table. The path may be relative to the root, absolute on another
    machine, without its folders, in another letter case or Unicode form, or without extension.

    Args:
        images: paths below the root, with forward slashes. fit: callback for a cell that matches several images.

    Returns: a function from a cell to one of `images`; None if none or several match, if the path leads out of the root,
        or if its folder exists and lacks the file (a file of the same name in another folder is another image).

    >>> find = resolver(["A/x_1.jpg", "B/x_1.jpg", "B/y.png"])
    >>> find("D:/set/a/X_1.JPG"), find("x_1"), find("y"), find("../A/x_1.jpg"), find("A/y.png")
    ('A/x_1.jpg', None, 'B/y.png', None, None)
    """
    by_end: dict[str, list[tuple[str, ...]]] = {}
    here: set[tuple[str, ...]] = set()  # folders of images, each with as many of those above it as one likes
    for image in images:
        parts = tuple(map(_spelt, image.split("/")))
        for end in {parts[-1], PurePosixPath(parts[-1]).stem}:
            by_end.setdefault(end, []).append((*parts[:-1], image))
        here.update(parts[start:-1] for start in range(len(parts) - 1))

    def find(cell: str) -> str | None:
        wanted = tuple(_spelt(part) for part in re.split(r"[\\/]+", cell.strip()) if part not in ("", "."))
        if not wanted or ".." in wanted:
            return None
        fits = by_end.get(wanted[-1], [])
        for length in range(len(wanted), 0, -1):
            folders = wanted[-length:-1]
            hits = [one[-1] for one in fits if one[-length:-1] == folders]
            if hits:
                if len(hits) > 1 and fit is not None:
                    fit(cell, hits)
                return hits[0] if len(hits) == 1 else None
            if folders in here:
                return None
        return None

    return find


def _spelt(name: str) -> str:
    """A name for comparing: without letter case, and an accent in the one form of its two."""
    return unicodedata.normalize("NFC", name).casefold()
