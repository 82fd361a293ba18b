"""Heidelberg's `.e2e` and `.sdb`: undocumented; several eyes and exams in one file. Experimental.

Source: the descriptions of uocte and LibE2E, and what OCT-Converter 0.7 and eyepy 0.21 read. Directories are chained from the
last one; an entry names a chunk by patient, study, series and slice. B-scans are 16-bit floats without sign: 6 bits of exponent
(bias 63), 10 bits of mantissa in plain order (other readers take them reversed: docs/volumes.md); 0xFFFF lies outside.
No pair of such a file and the maker's own export was at hand, so grey is not proved. What other readers call a quality (a float
behind the number of averages) is 0.84 for B-scans of 39 and 42 dB (OCT-Converter#138): it is none, and not read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from octc.core.errors import OctcError
from octc.volumes.source import Source, corrupt, cut_short, filetime, stored_at, text_of, unsupported
from octc.volumes.volume import (
    HEYEX_PATTERNS,
    LEFT,
    MAX_FRAME_PIXELS,
    MAX_FRAMES,
    MAX_VOLUMES,
    RIGHT,
    UNKNOWN,
    Curve,
    Fact,
    Raw,
    UInt8,
    Volume,
    heyex_grey,
    heyex_log,
    millimetres,
    patient_hash,
    to_grey,
)

NAME = "heidelberg-e2e"
DATA, TABLE = b"MDbData", b"MDbDir"  # how chunks and directories begin
HEADER, DIRECTORY, ENTRY, CHUNK = 36, 52, 44, 60
MAX_DIRECTORIES, MAX_ENTRIES = 100_000, 2_000_000
PATIENT, SCAN, IMAGE = 9, 10004, 0x40000000
LETTER = {11: 14, 3: 4}  # type of a chunk that names the eye -> where its letter stands
KINDS = frozenset((*LETTER, PATIENT, SCAN, IMAGE))  # of the chunks that are read
IMAGE_HEADER, FLOATS = 20, 0x20  # bytes before the pixels; the third byte of the kind of an image of 16-bit floats
EXPORT = "export it as RAW (.vol), XML or DICOM from Heidelberg Eye Explorer"
OUTSIDE = 0xFFFF
EYES = {b"R": RIGHT, b"L": LEFT}


@lru_cache(maxsize=4)
def _grey_of_codes(curve: Curve) -> UInt8:
    codes = np.arange(1 << 16)
    values = (1 + (codes & 1023) / 1024) * np.exp2((codes >> 10).astype(np.float64) - 63)
    share = heyex_grey(values.astype(np.float32), curve)
    share[OUTSIDE] = 0
    return to_grey(share)


def grey(curve: Curve, raw: Raw, _index: int) -> UInt8:
    """Codes to grey; outside of the scan is black."""
    return _grey_of_codes(curve)[raw]


@dataclass
class Series:
    """What the chunks of one series say. images: slice -> (offset of the pixels, rows, columns). others: images in the place of
    B-scans that are none of 16-bit floats. again: B-scans in the place of one that was there. slices: one more than the largest
    number of a slice. eyes: type of chunk -> letters.
    """

    images: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    others: int = 0
    again: int = 0
    slices: int = 0
    cut: int = 0
    eyes: dict[int, set[bytes]] = field(default_factory=dict)
    declared: int | None = None
    pattern: int = 0
    ticks: int = 0
    depth: float = 0.0


def read(path: Path, key: bytes | None, allow_cut: bool) -> list[Volume]:
    """A volume for each series that has B-scans. Raises: OctcError E222 E226 E227 E229."""
    source = Source(path)
    patients: dict[int, str] = {}
    series: dict[tuple[int, int, int], Series] = {}
    ended: OctcError | None = None
    try:
        for start in _chunks(source):
            _chunk(source, start, series, patients)
    except OctcError as error:
        if error.code != "OCT-E226":
            raise
        ended = error
        for start in _searched(source):  # the directories are gone: what is whole is found by its name
            _chunk(source, start, series, patients)
    found = [(place, one, slices) for place, one in sorted(series.items()) for slices in _by_size(one)]
    cut = ended is not None or any(one.cut for one in series.values())
    whole = sum(len(slices) for _, _, slices in found)
    if cut and not (allow_cut and whole):
        raise cut_short(path, "chunks that it names are missing", whole)
    if not found and any(one.others for one in series.values()):
        raise unsupported(path, "its B-scans are none of 16-bit floats", EXPORT)
    if not found and series:
        hint = "give the file of an exam with OCT scans; photographs and angiographies alone have none"
        raise OctcError("OCT-E227", f"{path.name} holds no B-scans", hint=hint, place=str(path))
    if not found:
        raise corrupt(path, "no B-scans in it")
    if len(found) > MAX_VOLUMES:
        raise corrupt(path, f"{len(found)} volumes")
    return [
        _volume(source, (number, len(found)), one, slices, patient_hash(key, patients.get(place[0], "")), cut)
        for number, (place, one, slices) in enumerate(found)
    ]


def _by_size(one: Series) -> list[list[int]]:
    """The slices of a series, in their order; those of each size are a volume of their own."""
    found: dict[tuple[int, int], list[int]] = {}
    for position in sorted(one.images):
        found.setdefault(one.images[position][1:], []).append(position)
    return list(found.values())


def _chunks(source: Source) -> list[int]:
    """Where chunks begin: the directories are followed from the newest to the oldest, each once."""
    at = HEADER
    numbers = source.numbers("<12sI20x4I", at)
    current = int(numbers[3])
    seen: set[int] = set()
    starts: list[int] = []
    while current:
        if current in seen or len(seen) > MAX_DIRECTORIES:
            raise corrupt(source.path, f"the directory at {current} is chained in a circle")
        seen.add(current)
        name, _, entries, _, previous, _ = source.numbers("<12sI20x4I", current)
        if not name.startswith(TABLE):
            raise cut_short(source.path, f"no directory begins at byte {current}: there is a hole in it")
        if len(starts) + entries > MAX_ENTRIES:
            raise corrupt(source.path, f"{entries} entries in a directory")
        table = source.take(current + DIRECTORY, entries * ENTRY)
        for position, start, kind in struct.iter_unpack("<2I28xI4x", table):
            if start > position:
                starts.append(start)
                if kind in KINDS and source.take(start, len(DATA)) != DATA:
                    raise cut_short(source.path, f"no chunk begins at byte {start}: there is a hole in it")
        current = previous
    return sorted(set(starts))


def _searched(source: Source) -> list[int]:
    """Where chunks begin that are whole, found by their name; for a file without its directories."""
    starts, at, block = [], 0, 1 << 24
    while at < source.size:
        data = source.take(at, min(block + len(DATA), source.size - at))
        place = data.find(DATA)
        while place != -1:
            starts.append(at + place)
            place = data.find(DATA, place + 1)
        at += block
    fitting = []
    for start in sorted(set(starts)):
        if start + CHUNK <= source.size and start + CHUNK + source.numbers("<I", start + 24)[0] <= source.size:
            fitting.append(start)
    return fitting


def _chunk(source: Source, start: int, series: dict[tuple[int, int, int], Series], patients: dict[int, str]) -> None:
    """Take what a chunk says into its series."""
    _, _, _, _, size, _, patient, study, number, position, index, _, kind, _ = source.numbers("<12s5I3IiHHII", start)
    data = start + CHUNK
    if kind == PATIENT and size >= 127:
        raw = source.take(data, 127)
        patients.setdefault(patient, text_of(raw[102:127]))
        return
    if kind not in KINDS:
        return
    one = series.setdefault((patient, study, number), Series())
    if kind in LETTER and size > LETTER[kind]:
        one.eyes.setdefault(kind, set()).add(source.take(data + LETTER[kind], 1))
    elif kind == SCAN and size >= 104:
        _scan(source, data, one)
    elif kind == IMAGE and index == 1:
        _image(source, data, size, position // 2, one)


def _image(source: Source, data: int, size: int, position: int, one: Series) -> None:
    """Where the pixels of a B-scan lie. One without pixels is not there; one of another kind is no reflectivity."""
    if position < 0:
        return  # of the whole series: a picture of the surface
    _, kind, _, rows, columns = source.numbers("<5I", data)
    one.slices = max(one.slices, position + 1)
    if kind >> 16 & 0xFF != FLOATS:
        one.others += 1
        return
    if rows * columns == 0:
        return
    pixels = 2 * rows * columns
    if rows * columns > MAX_FRAME_PIXELS or len(one.images) >= MAX_FRAMES:
        raise corrupt(source.path, f"B-scan {position} of {rows} x {columns}")
    if size < IMAGE_HEADER + pixels:
        raise corrupt(source.path, f"B-scan {position} of {rows} x {columns} in a chunk of {size} bytes")
    if data + IMAGE_HEADER + pixels > source.size:
        one.cut += 1
        return
    one.again += position in one.images
    one.images[position] = (data + IMAGE_HEADER, rows, columns)


def _scan(source: Source, data: int, one: Series) -> None:
    """What the maker notes of a B-scan (LibE2E's bscanmetadataelement)."""
    (depth,) = source.numbers("<f", data + 36)
    images, _, pattern = source.numbers("<3I", data + 64)
    (ticks,) = source.numbers("<Q", data + 88)
    one.declared = max(one.declared or 0, images) if 0 < images <= MAX_FRAMES else one.declared
    one.pattern, one.ticks = one.pattern or pattern, one.ticks or ticks
    one.depth = one.depth or (depth if 0 < depth < 1 else 0.0)


def _eye(one: Series) -> tuple[str | None, str]:
    """The eye and the chunk that names it; None where none does, or two contradict each other."""
    named = [(EYES[letter], kind) for kind in LETTER for letter in one.eyes.get(kind, ()) if letter in EYES]
    if len({eye for eye, _ in named}) != 1:
        return None, "named in contradicting ways" if named else "not named"
    eye, kind = named[0]
    return eye, f"chunk type {kind}"


def _volume(source: Source, place: tuple[int, int], one: Series, slices: list[int], patient: str | None, cut: bool) -> Volume:
    _, rows, columns = one.images[slices[0]]
    places = [one.images[position][0] for position in slices]
    eye, eye_source = _eye(one)
    moment = filetime(one.ticks)
    expected = max(one.slices, one.declared or 0)
    complete = not cut and len(one.images) == expected
    notes = ["experimental: grey of .e2e is not checked against an export of the maker"]
    if eye is None:
        notes.append(f"the eye is {eye_source} in this series")
    if len(slices) < len(one.images):
        notes.append(f"the series has B-scans of several sizes: these are {len(slices)} of {len(one.images)}")
    if one.others:
        notes.append(f"{one.others} images of the series are none of 16-bit floats and are not read")
    if one.again:
        notes.append(f"{one.again} B-scans are there again: of each place the last one in the file is read")
    if not complete:
        notes.append(f"{len(one.images)} of {expected} B-scans are there" + (", the file is cut short" if cut else ""))
    return Volume(
        path=source.path,
        format=NAME,
        frames=len(slices),
        rows=rows,
        columns=columns,
        dtype="uint16",
        intensity=heyex_log(grey),
        remap=partial(heyex_log, grey),
        read=stored_at(source, "<u2", places, (rows, columns)),
        part=place[0],
        parts=place[1],
        laterality=Fact(eye, eye_source) if eye else Fact(),
        spacing=millimetres((None, one.depth, None), "chunk type 10004"),
        pattern=Fact(HEYEX_PATTERNS[one.pattern], "chunk type 10004") if one.pattern in HEYEX_PATTERNS else Fact(),
        device=Fact("Heidelberg Engineering", "file type"),
        acquired=Fact(moment, "chunk type 10004" if moment else UNKNOWN),
        order=Fact("slice number", "directory of the file"),
        complete=Fact(complete, "slice numbers" if one.declared is None else "chunk type 10004"),
        patient=patient,
        notes=tuple(notes),
        lossy=False,
        annotated=False,
        experimental=True,
    )
