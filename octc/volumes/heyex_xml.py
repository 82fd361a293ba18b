"""Heidelberg's XML export: an XML file beside TIFF or BMP pictures, already mapped to 8 bits by the maker.

Source: the export itself, as eyepy 0.21 reads it. Grey is not that of a `.vol` of the same scan before its curve is applied.
Pictures are taken by their name from the folder of the XML file, never from elsewhere.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from xml.etree import ElementTree

import numpy as np

from octc.core.errors import OctcError, shorten
from octc.imaging.decode import read_image, read_size
from octc.volumes.source import Source, corrupt, cut_short, moment_of
from octc.volumes.stacks import grey_picture
from octc.volumes.volume import (
    HEYEX_EXPORT,
    MAX_FRAMES,
    SIDES,
    UNKNOWN,
    Fact,
    Volume,
    as_stored,
    millimetres,
    patient_hash,
)

NAME = "heidelberg-xml"
ROOT = "HEDX"
MAX_XML = 64 << 20
PLACE = "OphthalmicAcquisitionContext"
STARTS = (  # a mark, or `<` and `?` in two or four bytes each
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"), (b"<\0?\0", "utf-16-le"), (b"\0<\0?", "utf-16-be"),
)  # fmt: skip
DECLARED = re.compile(r"""<\?xml\s[^>]*?\bencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""", re.ASCII)
ASCII = bytes(range(32, 127))
UNEVEN = 0.04  # of the distance between two B-scans, by which places that are written with few digits may differ
VOLUME = "volume"


def is_xml(head: bytes) -> bool:
    """Whether a file begins as Heidelberg's XML."""
    encoding, _ = _encoding(head)
    return "<HEDX" in codecs.getincrementaldecoder(encoding)("replace").decode(head)[:1024]


def read(path: Path, key: bytes | None, allow_cut: bool) -> list[Volume]:
    """A volume for each series, and size of pictures in it. Raises: OctcError E222 damaged, E226 pictures are missing."""
    root = _root(path)
    found = []
    for patient in root.iter("Patient"):
        hashed = patient_hash(key, _text(patient, "PatientID"))
        for study in patient.iter("Study"):
            for series in study.iter("Series"):
                found += [_Scans(series, study, hashed, *some) for some in _by_size(path, _scans(series), allow_cut)]
    if not found:
        raise OctcError("OCT-E227", f"{path.name} names no B-scans", hint="export the OCT images too", place=str(path))
    others = tuple(file for file in _pictures(path, root) if file.is_file())
    return [_volume(path, one, number, len(found), others) for number, one in enumerate(found)]


def pictures(path: Path) -> list[Path]:
    """All pictures that the XML names, those of the eye's surface too, whether they are there or not."""
    return _pictures(path, _root(path))


def _pictures(path: Path, root: ElementTree.Element) -> list[Path]:
    return [file for file in _beside(path.parent, [_name(image) for image in root.iter("Image")]) if file != path.parent]


def _root(path: Path) -> ElementTree.Element:
    source = Source(path)
    if source.size > MAX_XML:
        raise corrupt(path, f"XML of {source.size} bytes")
    data = source.take(0, source.size)
    try:
        text = _decoded(data)
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise corrupt(path, "XML that declares entities")
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise corrupt(path, f"XML: {error}") from error


def _encoding(data: bytes) -> tuple[str, bool]:
    """The encoding that the first bytes of an XML file show, and whether they settle it: appendix F of XML 1.0. Where they do
    not, it is one that has ASCII as it is, and the declaration names it."""
    for start, encoding in STARTS:
        if data.startswith(start):
            return encoding, True
    return "utf-8", False


def _decoded(data: bytes) -> str:
    """An XML file as text, by its mark and its declaration (ValueError where they disagree, or are not those of its bytes)."""
    encoding, settled = _encoding(data)
    said = DECLARED.match(data[:1024].decode(encoding, "replace").removeprefix("\ufeff"))
    if said is not None:
        try:
            known, plain = codecs.lookup(said[1]).name, ASCII.decode(said[1], "replace")
        except LookupError as error:
            raise ValueError(f"its encoding {said[1]} is not known") from error
        if not (known.startswith(encoding[:6]) if settled else plain == ASCII.decode()):
            raise ValueError(f"declares {said[1]}, and its bytes are not")
        encoding = encoding if settled else known
    return data.decode(encoding).removeprefix("\ufeff")


def _scans(series: ElementTree.Element) -> list[ElementTree.Element]:
    return [image for image in series.iter("Image") if _text(image, "ImageType/Type") == "OCT"]


def _name(image: ElementTree.Element) -> str:
    """The name of a picture's file, without the place where it was written."""
    return PureWindowsPath(_text(image, "ImageData/ExamURL").replace("/", "\\")).name


def _by_size(
    path: Path, scans: list[ElementTree.Element], allow_cut: bool
) -> list[tuple[list[ElementTree.Element], list[Path], tuple[int, int], int, int]]:
    """The B-scans of a series whose pictures are there, by their size: elements, files, (rows, columns), how many of all sizes
    are there, how many are named.

    A size is read from the picture; where its header cannot be read it is that of the others, and reading it says why.
    """
    files = _beside(path.parent, [_name(scan) for scan in scans])
    there = [index for index, file in enumerate(files) if file.name and file != path.parent and file.is_file()]
    if len(there) < len(files) and not (allow_cut and there):
        absent = next(file.name for index, file in enumerate(files) if index not in there)
        raise cut_short(path, f"{len(there)} of {len(files)} pictures are in its folder ({absent} is not)", len(there))
    if len(there) > MAX_FRAMES:
        raise corrupt(path, f"{len(there)} B-scans")
    if twice := sorted({file.name for file, count in Counter(files[index] for index in there).items() if count > 1}):
        raise corrupt(path, f"several B-scans of a series are of one picture: {shorten(twice)}")
    sizes: dict[int, tuple[int, int]] = {}
    for index in there:
        with suppress(OSError, ValueError):
            columns, rows = read_size(files[index])
            sizes[index] = rows, columns
    if there and not sizes:
        read_image(files[there[0]])  # says why
    usual = next(iter(sizes.values()), (0, 0))
    found: dict[tuple[int, int], list[int]] = {}
    for index in there:
        found.setdefault(sizes.get(index, usual), []).append(index)
    return [
        ([scans[index] for index in some], [files[index] for index in some], size, len(there), len(files))
        for size, some in found.items()
    ]


def _text(element: ElementTree.Element, where: str) -> str:
    found = element.find(where)
    return (found.text or "").strip() if found is not None else ""


def _number(element: ElementTree.Element, where: str) -> float | None:
    """A number, with a point or (in some languages of the program) a comma before its decimals; None where there is none."""
    try:
        value = float(_text(element, where).replace(",", "."))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


@dataclass(frozen=True)
class _Scans:
    """B-scans of one size of a series. named: how many of any size the series names, there: how many of these there are."""

    series: ElementTree.Element
    study: ElementTree.Element
    patient: str | None
    scans: list[ElementTree.Element]
    files: list[Path]
    size: tuple[int, int]
    there: int
    named: int


def _volume(path: Path, found: _Scans, part: int, parts: int, others: tuple[Path, ...]) -> Volume:
    series, scans, (rows, columns) = found.series, found.scans, found.size
    eye, moment = SIDES.get(_text(series, "Laterality")), _moment(scans[0], found.study)
    notes = [] if eye else ["the eye is not named"]
    if found.there < found.named:
        notes.append(f"{found.there} of {found.named} pictures are there")
    if len(scans) < found.there:
        notes.append(f"the series has B-scans of several sizes: these are {len(scans)} of {found.there}")
    quality = [_number(scan, f"{PLACE}/ImageQuality") for scan in scans]
    return Volume(
        path=path,
        format=NAME,
        frames=len(scans),
        rows=rows,
        columns=columns,
        dtype="uint8",
        intensity=as_stored(HEYEX_EXPORT),
        read=partial(grey_picture, path, tuple(found.files), (rows, columns)),
        part=part,
        parts=parts,
        laterality=Fact(eye, "Laterality") if eye else Fact(),
        spacing=millimetres(
            (_between(scans), _number(scans[0], f"{PLACE}/ScaleY"), _number(scans[0], f"{PLACE}/ScaleX")), PLACE
        ),
        pattern=Fact(VOLUME, "Type") if _text(series, "Type").lower() == VOLUME else Fact(),
        device=Fact("Heidelberg Engineering", "file type"),
        acquired=Fact(moment, "AcquisitionTime" if moment else UNKNOWN),
        order=Fact("file order", "order in the XML"),
        complete=Fact(found.there == found.named, "pictures that the XML names"),
        patient=found.patient,
        quality=tuple(q for q in quality if q is not None) if None not in quality else (),
        notes=tuple(notes),
        others=others,
    )


def _beside(folder: Path, names: Sequence[str]) -> list[Path]:
    """Files of these names in a folder; where one is not there, the only one that differs from it in letter case alone."""
    there = {file.name for file in folder.iterdir()}
    alike: dict[str, list[str]] = defaultdict(list)
    for name in there:
        alike[name.casefold()].append(name)
    return [
        folder / (own[0] if name not in there and len(own := alike.get(name.casefold(), [])) == 1 else name) for name in names
    ]


def _between(scans: list[ElementTree.Element]) -> float | None:
    """mm between B-scans, where they are parallel and even: from the starts of their lines."""
    ends = [[_number(scan, f"{PLACE}/{end}/Coord/{axis}") for end in ("Start", "End") for axis in ("X", "Y")] for scan in scans]
    if len(scans) < 2 or any(None in end for end in ends):
        return None
    steps = np.diff(np.asarray(ends, float).reshape(-1, 2, 2), axis=0)  # of the start and of the end of each line
    mean = steps.mean(axis=(0, 1))
    length = float(np.linalg.norm(mean))
    even = bool((np.linalg.norm(steps - mean, axis=2) <= UNEVEN * length).all())  # a star turns: its ends go opposite ways
    return round(length, 6) if even and length > 0 else None


def _moment(scan: ElementTree.Element, study: ElementTree.Element) -> str | None:
    """When a B-scan was taken: the day of its study, and the time of its acquisition where it is named."""
    day = [_number(study, f"StudyDate/Date/{part}") for part in ("Year", "Month", "Day")]
    time = [_number(scan, f"AcquisitionTime/Time/{part}") for part in ("Hour", "Minute", "Second")]
    if None in day or None in time:
        return None
    return moment_of(tuple(int(n) for n in (*day, *time) if n is not None))
