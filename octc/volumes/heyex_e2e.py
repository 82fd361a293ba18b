"""Heidelberg's `.e2e` and `.sdb`: undocumented; several eyes and exams in one file. Experimental.

Source: the descriptions of uocte and LibE2E, and what OCT-Converter 0.7 reads. Directories are chained from the last one;
an entry names a chunk by patient, study, series and slice. B-scans are 16-bit floats without sign: 6 bits of exponent
(bias 63), 10 bits of mantissa in plain order (other readers take them reversed: docs/volumes.md); 0xFFFF lies outside.
No pair of such a file and the maker's own export was at hand, so grey is not proved.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from octc.core.errors import OctcError
from octc.volumes.source import Source, corrupt, cut_short, filetime, stored_at, text_of
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
DATA = b"MDbData"
HEADER, DIRECTORY, ENTRY, CHUNK = 36, 52, 44, 60
MAX_DIRECTORIES, MAX_ENTRIES = 100_000, 2_000_000
PATIENT, EYE, SCAN, IMAGE = 9, 3, 10004, 0x40000000
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
    """What the chunks of one series say. images: slice -> (offset of the pixels, rows, columns)."""

    images: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    cut: int = 0
    eye: bytes | None = None
    declared: int | None = None
    pattern: int = 0
    ticks: int = 0
    depth: float = 0.0
    quality: dict[int, float] = field(default_factory=dict)


def read(path: Path, key: bytes | None, allow_cut: bool) -> list[Volume]:
    """A volume for each series that has B-scans. Raises: OctcError E222 E226."""
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
    found = {place: one for place, one in sorted(series.items()) if one.images}
    cut = ended is not None or any(one.cut for one in found.values())
    whole = sum(len(one.images) for one in found.values())
    if cut and not (allow_cut and whole):
        raise cut_short(path, "chunks that it names are missing", whole)
    if not found:
        raise corrupt(path, "no B-scans in it")
    if len(found) > MAX_VOLUMES:
        raise corrupt(path, f"{len(found)} volumes")
    return [
        _volume(source, number, len(found), one, patient_hash(key, patients.get(place[0], "")), cut)
        for number, (place, one) in enumerate(found.items())
    ]


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
        _, _, entries, _, previous, _ = source.numbers("<12sI20x4I", current)
        if len(starts) + entries > MAX_ENTRIES:
            raise corrupt(source.path, f"{entries} entries in a directory")
        table = source.take(current + DIRECTORY, entries * ENTRY)
        for position, start in struct.iter_unpack("<2I36x", table):
            if start > position:
                starts.append(start)
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
    if kind not in (EYE, SCAN, IMAGE):
        return
    one = series.setdefault((patient, study, number), Series())
    if kind == EYE and size >= 5:
        one.eye = one.eye or source.take(data + 4, 1)
    elif kind == SCAN and size >= 104:
        _scan(source, data, position // 2, one)
    elif kind == IMAGE and index == 1:
        _, _, _, rows, columns = source.numbers("<5I", data)
        if rows * columns == 0 or rows * columns > MAX_FRAME_PIXELS or len(one.images) >= MAX_FRAMES:
            raise corrupt(source.path, f"B-scan {position // 2} of {rows} x {columns}")
        if data + 20 + 2 * rows * columns > source.size:
            one.cut += 1
            return
        one.images[position // 2] = (data + 20, rows, columns)


def _scan(source: Source, data: int, position: int, one: Series) -> None:
    """What the maker notes of a B-scan (LibE2E's bscanmetadataelement)."""
    (depth,) = source.numbers("<f", data + 36)
    images, _, pattern = source.numbers("<3I", data + 64)
    (ticks,) = source.numbers("<Q", data + 88)
    _, quality = source.numbers("<If", data + 96)
    one.declared = max(one.declared or 0, images) if 0 < images <= MAX_FRAMES else one.declared
    one.pattern, one.ticks = one.pattern or pattern, one.ticks or ticks
    one.depth = one.depth or (depth if 0 < depth < 1 else 0.0)
    one.quality[position] = quality


def _volume(source: Source, part: int, parts: int, one: Series, patient: str | None, cut: bool) -> Volume:
    slices = sorted(one.images)
    sizes = {one.images[place][1:] for place in slices}
    if len(sizes) > 1:
        raise corrupt(source.path, f"B-scans of one series have several sizes: {sorted(sizes)}")
    rows, columns = next(iter(sizes))
    places = [one.images[place][0] for place in slices]
    eye = EYES.get(one.eye or b"")
    moment = filetime(one.ticks)
    expected = max(slices[-1] + 1, one.declared or 0)
    complete = not cut and len(slices) == expected
    notes = ["experimental: grey of .e2e is not checked against an export of the maker"]
    if eye is None:
        notes.append("the eye is not named in this series")
    if not complete:
        notes.append(f"{len(slices)} of {expected} B-scans are there" + (", the file is cut short" if cut else ""))
    quality = tuple(one.quality[place] for place in slices) if all(place in one.quality for place in slices) else ()
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
        part=part,
        parts=parts,
        laterality=Fact(eye, "chunk type 3") if eye else Fact(),
        spacing=millimetres((None, one.depth, None), "chunk type 10004"),
        pattern=Fact(HEYEX_PATTERNS[one.pattern], "chunk type 10004") if one.pattern in HEYEX_PATTERNS else Fact(),
        device=Fact("Heidelberg Engineering", "file type"),
        acquired=Fact(moment, "chunk type 10004" if moment else UNKNOWN),
        order=Fact("slice number", "directory of the file"),
        complete=Fact(complete, "slice numbers" if one.declared is None else "chunk type 10004"),
        patient=patient,
        quality=quality,
        notes=tuple(notes),
        lossy=False,
        annotated=False,
        experimental=True,
    )
