"""Bioptigen's `.OCT`: keyed fields of a length, a name, a size and a value; then frames of uint16, an A-scan after the other.

Source: the maker's own script extractOctFunction.m, and OCT-Converter 0.7. The file does not say which eye it is of: the user
does, or it stays unknown.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from octc.volumes.source import Source, corrupt, cut_short, moment_of, stored_at, unsupported
from octc.volumes.volume import UNKNOWN, Fact, Volume, are_sizes, linear, millimetres

NAME = "bioptigen"
HEADER_KEY, FRAME_KEY, PIXELS_KEY = b"FRAMEHEADER", b"FRAMEDATA", b"FRAMESAMPLES"
MAX_FIELDS = 100
PATTERNS = {0: "line", 1: "volume", 2: "circle", 3: "radial"}
MIXED = 6  # B-scans of several densities in one


def is_bioptigen(head: bytes) -> bool:
    """Whether a file begins with a keyed field "FRAMEHEADER" behind its magic number and version."""
    return head[6:].startswith(struct.pack("<I", len(HEADER_KEY)) + HEADER_KEY)


def read(path: Path, _key: bytes | None, allow_cut: bool) -> list[Volume]:
    """The one volume of a file. Raises: OctcError E222 E226."""
    source = Source(path)
    fields, at = _fields(source, 6, stop=FRAME_KEY)
    frames, columns, rows = (_whole(source, fields, name) for name in (b"FRAMECOUNT", b"LINECOUNT", b"LINELENGTH"))
    if not are_sizes(frames, rows, columns):
        raise corrupt(path, f"{frames} B-scans of {rows} x {columns}")
    if _number(fields, b"SCANTYPE") == MIXED:
        raise unsupported(path, "a scan of several densities (SCANTYPE 6)")
    places, moment = _frames(source, at, frames, 2 * rows * columns)
    if len(places) < frames and not (allow_cut and places):
        raise cut_short(path, f"{len(places)} of {frames} B-scans are whole", len(places))

    width, height = _millimetres(fields, b"SCANLENGTH"), _millimetres(fields, b"ELSCANLENGTH")
    depth = _millimetres(fields, b"SCANDEPTH")
    pattern = PATTERNS.get(_number(fields, b"SCANTYPE")) if fields.get(b"SCANTYPE") else None
    repeats = _number(fields, b"FRAMES")
    notes = ["the eye is not named in a file of this format"]
    if repeats > 1 and frames > 1:
        notes.append(f"{repeats} B-scans of each place follow each other (FRAMES)")
    between = height / frames if height and pattern == "volume" and repeats <= 1 else None
    if len(places) < frames:
        notes.append(f"cut short: {len(places)} of {frames} B-scans")
    return [
        Volume(
            path=path,
            format=NAME,
            frames=len(places),
            rows=rows,
            columns=columns,
            dtype="uint16",
            intensity=linear(0, 65535),
            read=stored_at(source, "<u2", places, (columns, rows), np.transpose),
            spacing=millimetres((between, depth and depth / rows, width and width / columns), "scan lengths"),
            pattern=Fact(pattern, "SCANTYPE") if pattern else Fact(),
            device=Fact("Bioptigen", "file type"),
            acquired=Fact(moment, "FRAMEDATETIME" if moment else UNKNOWN),
            order=Fact("file order", "order in the file"),
            complete=Fact(len(places) == frames, "FRAMECOUNT"),
            notes=tuple(notes),
            lossy=False,
            annotated=False,
        )
    ]


def _fields(source: Source, at: int, stop: bytes) -> tuple[dict[bytes, bytes], int]:
    """Fields up to the one called `stop`, and where that one begins."""
    found: dict[bytes, bytes] = {}
    for _ in range(MAX_FIELDS):
        (length,) = source.numbers("<I", at)
        if length == 0:  # the end of a group
            at += 4
            continue
        if length > 64:
            raise corrupt(source.path, f"a field's name of {length} bytes at {at}")
        name = source.take(at + 4, length)
        if name == stop:
            return found, at
        (size,) = source.numbers("<I", at + 4 + length)
        start = at + 8 + length
        found[name] = source.take(start, size) if size <= 4096 else b""
        at = start + size
    raise corrupt(source.path, "no frame follows the header")


def _frames(source: Source, at: int, frames: int, size: int) -> tuple[list[int], str | None]:
    """Where the pixels of each whole frame begin, and the moment of the first one."""
    places: list[int] = []
    moment: str | None = None
    for _ in range(frames):
        if at + 8 > source.size:
            break
        try:
            _, start = _fields(source, at, stop=FRAME_KEY)
            length = len(FRAME_KEY)
            inner, pixels = _fields(source, start + 8 + length, stop=PIXELS_KEY)
        except Exception as error:  # a frame that is cut
            if getattr(error, "code", "") == "OCT-E226":
                break
            raise
        begin = pixels + 8 + len(PIXELS_KEY)
        if begin > source.size:
            break
        (own,) = source.numbers("<I", begin - 4)
        if own != size:
            what = f"B-scan {len(places)} has {own} bytes, {size} are those of the lines that the header counts"
            raise unsupported(source.path, what)
        if begin + size > source.size:
            break
        when = inner.get(b"FRAMEDATETIME", b"")
        if moment is None and len(when) >= 16:
            year, month, _, day, hour, minute, second, _ = struct.unpack("<8H", when[:16])
            moment = moment_of((year, month, day, hour, minute, second))
        places.append(begin)
        at = begin + size
    return places, moment


def _number(fields: dict[bytes, bytes], name: bytes) -> int:
    return int.from_bytes(fields.get(name, b"")[:8], "little")


def _whole(source: Source, fields: dict[bytes, bytes], name: bytes) -> int:
    if name not in fields:
        raise corrupt(source.path, f"the header has no {name.decode()}")
    return _number(fields, name)


def _millimetres(fields: dict[bytes, bytes], name: bytes) -> Any:
    data = fields.get(name, b"")
    value = float(struct.unpack("<d", data[:8])[0]) if len(data) >= 8 else 0.0
    return value if 0 < value < 1000 else None
