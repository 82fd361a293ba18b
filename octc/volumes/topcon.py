"""Topcon's `.fda` and `.fds`: "FOCT", then chunks of a name, a length and data.

Source: the description of uocte (Topcon File Format) and of OCT-Converter 0.7. B-scans are JPEG 2000 of 8 bits (@IMG_JPEG),
motion-compensated uint16 (@IMG_MOT_COMP_03, _02) or uint16 as scanned (@IMG_SCAN_03). All numbers are little-endian.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from octc.core.errors import OctcError
from octc.imaging.cut_off import jpeg_cut
from octc.imaging.decode import whole_only
from octc.imaging.zero_runs import jpeg_2000_cut
from octc.volumes.source import Source, corrupt, cut_short, moment_of, stored_at, text_of, unsupported
from octc.volumes.volume import (
    LEFT,
    RIGHT,
    UNKNOWN,
    Fact,
    Raw,
    Spacing,
    Volume,
    are_sizes,
    linear,
    millimetres,
    patient_hash,
)

NAME = "topcon"
MAGIC = b"FOCT"
HEADERS = (15, 12)  # bytes before the first chunk: as a rule, and of an FDS of a Triton plus (OCT-Converter#13)
MAX_CHUNKS = 10_000
PIECE = 1 << 20  # bytes that are looked at at once
EXPORT = "export it as DICOM or as pictures from the device's own program"
# how the B-scans can be stored, the first that is there is taken; the rest of the name -> what is said of it
JPEG, COMPENSATED, SCANNED = b"@IMG_JPEG", (b"@IMG_MOT_COMP_03", b"@IMG_MOT_COMP_02"), b"@IMG_SCAN_03"
STORED = {b"FDA": (JPEG, *COMPENSATED, SCANNED), b"FDS": (SCANNED, *COMPENSATED, JPEG)}
# mode, width, height, bits, B-scans, format, size; a motion-compensated block has four positions before the size
PLAIN = ("<B4IBI", "<B4IB5I")
PHOTOGRAPHS = (b"@IMG_FUNDUS", b"@IMG_TRC", b"@IMG_TRC_02", b"@IMG_OBS")  # pictures of the eye's surface
PATTERNS = {0: "line", 1: "line", 2: "volume", 3: "radial", 4: "cross", 7: "line", 11: "cross"}  # 7 lines; a cross of 5
NO_MODE = -1
CAPTURE = b"@CAPTURE_INFO_02"  # eye, mode, ...
EYES = {0: RIGHT, 1: LEFT}


@dataclass(frozen=True)
class Chunk:
    """Where the data of a chunk lie."""

    name: bytes
    offset: int
    size: int


@dataclass(frozen=True)
class Scans:
    """B-scans of a chunk: how many are whole of how many, their size, and a function that gives one.

    more: whether the chunk holds more than it declares.
    """

    mode: int
    rows: int
    columns: int
    declared: int
    whole: int
    dtype: str
    largest: int
    read: Callable[[int], Raw]
    more: bool = False


def read(path: Path, key: bytes | None, allow_cut: bool) -> list[Volume]:
    """The one volume of a file. Raises: OctcError E222 E226 E227 E229."""
    source = Source(path)
    chunks, whole_file, repeated = chunks_of(source)
    kind = source.take(4, 3)
    found = next((chunks[name] for name in STORED.get(kind, STORED[b"FDA"]) if name in chunks), None)
    if found is None:
        if not whole_file or not chunks:
            raise cut_short(path, "it ends before any B-scan, or has a hole there")
        if not any(name.startswith(b"@IMG") and name not in PHOTOGRAPHS for name in chunks):
            text = f"{path.name} holds no B-scans (chunks: {_names(chunks)})"
            raise OctcError("OCT-E227", text, hint="give the file of the OCT scan of this visit", place=str(path))
        raise unsupported(path, f"no B-scans in a form that is known (chunks: {_names(chunks)})", EXPORT)
    scans = _compressed(source, found) if found.name == JPEG else _plain(source, found, chunks)
    if not (0 < scans.whole == scans.declared or (allow_cut and scans.whole)):
        raise cut_short(path, f"{scans.whole} of {scans.declared} B-scans are whole", scans.whole)
    notes = [] if scans.whole == scans.declared else [f"cut short: {scans.whole} of {scans.declared} B-scans"]
    if not whole_file and scans.whole == scans.declared:
        notes.append("the file is cut short behind its B-scans, or has a hole there: what else it says may be missing")
    if found.name == SCANNED and any(name in chunks for name in COMPENSATED):
        notes.append("B-scans as scanned; the motion-compensated ones of the file are not used")
    if found.name in repeated:
        notes.append(f"the file holds {repeated[found.name]} blocks {_word(found.name)}: the first one is read, the others not")
    if scans.more:
        notes.append("there is more than the B-scans that it declares: some may have been left out")
    unsure = found.name in repeated or scans.more
    eye, moment = _capture(source, chunks)
    if eye.value is None:
        notes.append("the eye is not named")
    return [
        Volume(
            path=path,
            format=NAME,
            frames=scans.whole,
            rows=scans.rows,
            columns=scans.columns,
            dtype=scans.dtype,
            intensity=linear(0, scans.largest),
            read=scans.read,
            laterality=eye,
            spacing=_spacing(source, chunks, scans),
            pattern=Fact(PATTERNS[scans.mode], _word(found.name)) if scans.mode in PATTERNS else Fact(),
            device=_device(source, chunks),
            acquired=moment,
            order=Fact("file order", "order in the file"),
            complete=Fact() if unsure else Fact(scans.whole == scans.declared, _word(found.name)),
            patient=_patient(source, chunks, key),
            notes=tuple(notes),
            lossy=None if found.name == JPEG else False,
            annotated=False,
        )
    ]


def chunks_of(source: Source) -> tuple[dict[bytes, Chunk], bool, dict[bytes, int]]:
    """The first chunk of each name, whether the list ends where the file does, and how many of a name there are if several."""
    found: dict[bytes, Chunk] = {}
    counts: Counter[bytes] = Counter()
    at = next((at for at in HEADERS if source.head(at + 2)[at + 1 :] == b"@"), HEADERS[0])
    for _ in range(MAX_CHUNKS):
        if at >= source.size:
            return found, at == source.size, _several(counts)
        length = source.take(at, 1)[0]
        if length == 0:  # the end of the list, and nothing but zeros behind it: else it is a hole
            return found, _is_filled_up(source, at), _several(counts)
        if at + 1 + length + 4 > source.size:
            return found, False, _several(counts)
        name = source.take(at + 1, length)
        if not name.startswith(b"@"):
            raise corrupt(source.path, f"no chunk begins at byte {at}")
        (size,) = source.numbers("<I", at + 1 + length)
        start = at + 1 + length + 4
        found.setdefault(name, Chunk(name, start, size))
        counts[name] += 1
        at = start + size
    raise corrupt(source.path, f"more than {MAX_CHUNKS} chunks")


def _is_filled_up(source: Source, at: int) -> bool:
    """Whether only zeros lie from a place to the end of a file."""
    pieces = (source.take(start, min(PIECE, source.size - start)) for start in range(at, source.size, PIECE))
    return not any(piece.strip(b"\0") for piece in pieces)


def _several(counts: Counter[bytes]) -> dict[bytes, int]:
    return {name: count for name, count in counts.items() if count > 1}


def _checked(source: Source, rows: int, columns: int, frames: int) -> None:
    if not are_sizes(frames, rows, columns):
        raise corrupt(source.path, f"{frames} B-scans of {rows} x {columns}")


def _compressed(source: Source, chunk: Chunk) -> Scans:
    """@IMG_JPEG: mode, two numbers that are not known, width, height, B-scans, one more; then size and JPEG 2000 of each."""
    mode, _, _, columns, rows, frames, _ = source.numbers("<B6I", chunk.offset)
    _checked(source, rows, columns, frames)
    places: list[tuple[int, int]] = []
    at, end = chunk.offset + 25, chunk.offset + chunk.size
    for _ in range(frames):
        if at + 4 > min(end, source.size):
            break
        (size,) = source.numbers("<I", at)
        if at + 4 + size > end:
            raise corrupt(source.path, f"a B-scan of {size} bytes leaves its chunk")
        if at + 4 + size > source.size:
            break
        places.append((at + 4, size))
        at += 4 + size
    read_one = partial(_decoded, source, tuple(places), (rows, columns))
    more = len(places) == frames and at + 4 < end
    return Scans(mode, rows, columns, frames, len(places), "uint8", 255, read_one, more)


def _decoded(source: Source, places: Sequence[tuple[int, int]], shape: tuple[int, int], index: int) -> Raw:
    data = source.take(*places[index])
    with whole_only(), Image.open(io.BytesIO(data), formats=("JPEG2000", "JPEG")) as picture:
        if (picture.height, picture.width) != shape:
            what = f"B-scan {index} is {picture.height} x {picture.width}"
            raise corrupt(source.path, f"{what}, {shape[0]} x {shape[1]} is declared")
        if picture.mode != "L":
            raise unsupported(source.path, f"B-scan {index} is no grey of 8 bits ({picture.mode})", EXPORT)
        picture.load()
        cut = jpeg_cut(data, picture) if picture.format == "JPEG" else jpeg_2000_cut(data)
        if cut is not None:
            raise corrupt(source.path, f"B-scan {index} is damaged or cut off: {cut}")
        return np.asarray(picture)


def _plain(source: Source, chunk: Chunk, chunks: dict[bytes, Chunk]) -> Scans:
    """uint16, or uint8, of each B-scan, a row of depth after the other, behind one of the headers of PLAIN: that whose size is
    the one of its numbers. The mode of a motion-compensated block is 0 whatever was scanned: that of the capture counts."""
    mode, columns, rows, bits, frames = source.numbers("<B4I", chunk.offset)
    _checked(source, rows, columns, frames)
    if bits not in (8, 16):
        if bits in (12, 32, 64):
            raise unsupported(source.path, f"{bits} bits a pixel", EXPORT)
        raise corrupt(source.path, f"{bits} bits a pixel")
    if chunk.name in COMPENSATED:
        captured = _part(source, chunks, CAPTURE, "<2B")
        mode = captured[1] if captured is not None else NO_MODE
    kind = "<u2" if bits == 16 else "u1"
    step = rows * columns * (bits // 8)
    header = next((n for n in map(struct.calcsize, PLAIN) if _fits(source, chunk, n, frames * step)), None)
    if header is None:
        raise corrupt(source.path, f"{frames} B-scans of {rows} x {columns} do not fit into their chunk")
    start = chunk.offset + header
    whole = max(0, min(frames, (source.size - start) // step))
    read_one = stored_at(source, kind, range(start, start + whole * step, step), (rows, columns))
    more = chunk.size >= header + (frames + 1) * step
    return Scans(mode, rows, columns, frames, whole, "uint16" if bits == 16 else "uint8", (1 << bits) - 1, read_one, more)


def _fits(source: Source, chunk: Chunk, header: int, size: int) -> bool:
    """Whether a header of so many bytes ends in the size of the numbers, and these lie in the chunk."""
    return header + size <= chunk.size and source.numbers("<I", chunk.offset + header - 4)[0] >= size


def _part(source: Source, chunks: dict[bytes, Chunk], name: bytes, layout: str) -> tuple[int, ...] | None:
    """Numbers at the beginning of a chunk; None where it is absent or shorter."""
    chunk = chunks.get(name)
    if chunk is None or chunk.size < struct.calcsize(layout) or chunk.offset + struct.calcsize(layout) > source.size:
        return None
    return source.numbers(layout, chunk.offset)


def _capture(source: Source, chunks: dict[bytes, Chunk]) -> tuple[Fact[str], Fact[str]]:
    """Eye and moment: @CAPTURE_INFO_02 (eye, mode, session, label of 100 bytes, six numbers), or the older @CAPTURE_INFO."""
    for name, layout in ((CAPTURE, "<BBI100x6H"), (b"@CAPTURE_INFO", "<B6H")):
        numbers = _part(source, chunks, name, layout)
        if numbers is not None and any(numbers):  # zeros alone, as anonymisers leave them, name no right eye
            eye, moment = EYES.get(numbers[0]), moment_of(tuple(numbers[-6:]))
            word = _word(name)
            return Fact(eye, word if eye else UNKNOWN), Fact(moment, word if moment else UNKNOWN)
    return Fact(), Fact()


def _spacing(source: Source, chunks: dict[bytes, Chunk], scans: Scans) -> Fact[Spacing]:
    """mm from the width and height of the field (mm) and the depth of a pixel (micrometres)."""
    for name, layout in ((b"@PARAM_SCAN_04", "<3I3d"), (b"@PARAM_SCAN_02", "<B5I3d")):
        numbers = _part(source, chunks, name, layout)
        if numbers is not None:
            width, height, depth = numbers[-3:]
            volume = PATTERNS.get(scans.mode) == "volume" and scans.declared > 1
            between = height / scans.declared if volume and height < 100 and not scans.more else None
            across = width / scans.columns if width < 100 else None
            return millimetres((between, depth / 1000 if depth < 1000 else None, across), _word(name))
    return Fact()


def _device(source: Source, chunks: dict[bytes, Chunk]) -> Fact[str]:
    for name in (b"@HW_INFO_03", b"@HW_INFO_02", b"@HW_INFO_01"):
        chunk = chunks.get(name)
        if chunk is not None and chunk.offset + 16 <= source.size and chunk.size >= 16:
            model = text_of(source.take(chunk.offset, 16))
            return Fact(f"Topcon {model}".strip(), _word(name))
    return Fact("Topcon", "file type")


def _patient(source: Source, chunks: dict[bytes, Chunk], key: bytes | None) -> str | None:
    """The hash of the patient's id: the first 32 bytes of @PATIENT_INFO_02, or of the older chunk."""
    for name in (b"@PATIENT_INFO_02", b"@PATIENT_INFO"):
        chunk = chunks.get(name)
        if chunk is not None and chunk.size >= 32 and chunk.offset + 32 <= source.size:
            return patient_hash(key, text_of(source.take(chunk.offset, 32)))
    return None


def _word(name: bytes) -> str:
    return name.decode("ascii", "replace")


def _names(chunks: dict[bytes, Chunk]) -> str:
    return ", ".join(sorted(_word(name) for name in chunks)[:10]) or "none"
