"""Pictures whose data end too early, of which a decoder makes a whole picture all the same: what is not there is grey (JPEG) or
black (PNG). A download that was broken off and padded with zeros is one, and so is a file with a hole.

A JPEG is counted through, block by block, only where something points to it (ITU-T T.81, annexes B and F): no marker ends it, a
run of zeros lies in its data, or its last block is of the grey that decoders fill in.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Any

from PIL import Image

MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")  # behind the data of a scan, which has stuffed bytes and restarts in it
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
SOI, EOI, SOS, DHT, DRI, TEM = 0xD8, 0xD9, 0xDA, 0xC4, 0xDD, 0x01
SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2  # Huffman-coded
FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
ZEROS = bytes(64)  # no encoder's, but of a flat picture with codes of its own
FILLED = (127, 128)  # the grey of a block without data, and of an inverted one
TAIL = 8  # bytes of zeros that the last blocks were read from
MOST_PIXELS = 4_000_000  # that are counted through: a second
PIECE = 1 << 20  # bytes that are unpacked at once
SIDE = 8  # of a block, pixels
Table = tuple[list[int], list[int]]  # of the next 16 bits: how many of them are the code (0: none), and the symbol


@dataclass
class Scan:
    """Of one SOS: its components, each with where its tables are written (DC, AC), which coefficients to which bit, and where
    its data lie."""

    components: list[tuple[int, bytes, bytes]]
    spectral: tuple[int, int]
    low: int
    start: int
    end: int
    restart: int


@dataclass
class Frame:
    """kind: marker of the frame. components: their sampling factors (across, down). ended: whether EOI is there."""

    kind: int = 0
    width: int = 0
    height: int = 0
    components: dict[int, tuple[int, int]] = field(default_factory=dict)
    scans: list[Scan] = field(default_factory=list)
    ended: bool = False


def jpeg_cut(data: bytes, picture: Image.Image) -> str | None:
    """Why a JPEG that Pillow has decoded is not whole; None where it is, or where nothing points to it.

    Args:
        data: the file. picture: as it was decoded, before it is turned or converted.
    """
    try:
        frame = _read(data)
        if frame.kind == PROGRESSIVE:
            return _scans_missing(frame)
        if frame.kind in SEQUENTIAL and picture.width * picture.height <= MOST_PIXELS:
            return _count(data, frame) if _is_odd(data, frame) or _grey_at_the_end(picture) else None
    except (IndexError, KeyError, ValueError, TypeError):
        return None  # the decoder knew it: it is of a form that is not counted here
    return None if frame.ended else "no marker ends it"


def _is_odd(data: bytes, frame: Frame) -> bool:
    """No end, a run of zeros, or not as many restarts as there should be."""
    if not frame.ended:
        return True
    for scan in frame.scans:
        part = data[scan.start : scan.end]
        if ZEROS in part or len(RESTART.findall(part)) != (ceil(_units(frame, scan) / scan.restart) - 1 if scan.restart else 0):
            return True
    return False


def _grey_at_the_end(picture: Image.Image) -> bool:
    width, height = picture.size
    left, top = (max((side - 1) // SIDE * SIDE, side - 2) for side in (width, height))
    found: Any = picture.crop((left, top, width, height)).getextrema()
    bands = found if isinstance(found[0], tuple) else (found,)
    return all(low in FILLED and high in FILLED for low, high in bands[:3])


def _read(data: bytes) -> Frame:
    """The headers of a JPEG, up to its end."""
    frame, tables, restart, at = Frame(), dict[int, bytes](), 0, 2
    while at >= 0 and at + 4 <= len(data):
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)
            continue
        marker = data[at + 1]
        if marker == EOI:
            frame.ended = True
            break
        if marker in (0xFF, 0, TEM, SOI) or 0xD0 <= marker <= 0xD7:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker in FRAMES:
            frame.kind, frame.height, frame.width = marker, *(int.from_bytes(body[k : k + 2], "big") for k in (1, 3))
            frame.components = {body[k]: (body[k + 1] >> 4, body[k + 1] & 15) for k in range(6, 6 + 3 * body[5], 3)}
        elif marker == DHT:
            tables |= _by_number(body)
        elif marker == DRI:
            restart = int.from_bytes(body[:2], "big")
        elif marker == SOS:
            found = MARKER.search(data, at)
            end = len(data) if found is None else found.start()
            rows = [(body[1 + 2 * k], body[2 + 2 * k]) for k in range(body[0])]
            named = [(one, tables.get(which >> 4, b""), tables.get(16 + (which & 15), b"")) for one, which in rows]
            first, last, bits = body[1 + 2 * body[0] : 4 + 2 * body[0]]
            frame.scans.append(Scan(named, (first, last), bits & 15, at, end, restart))
            at = end
    frame.ended = frame.ended or (at >= 0 and data[at : at + 2] == bytes((0xFF, EOI)))
    return frame


def _by_number(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The tables of a DHT: class and number of each, and what is written of it."""
    at = 0
    while at < len(body):
        end = at + 17 + sum(body[at + 1 : at + 17])
        yield body[at], body[at + 1 : end]
        at = end


@lru_cache(maxsize=16)  # most files have the tables of annex K
def _table(written: bytes) -> Table:
    lengths, symbols, code, at = [0] * 65536, [0] * 65536, 0, 16
    for length, count in enumerate(written[:16], 1):
        span = 1 << (16 - length)
        for symbol in written[at : at + count]:
            first, code = code * span, code + 1
            lengths[first : first + span], symbols[first : first + span] = [length] * span, [symbol] * span
        at, code = at + count, code << 1
    return lengths, symbols


def _scans_missing(frame: Frame) -> str | None:
    """Of a progressive JPEG: every coefficient of every component has to come to its last bit."""
    left = {(one, k): 1 for one in frame.components for k in range(64)}
    for scan in frame.scans:
        for one, _, _ in scan.components:
            for k in range(scan.spectral[0], scan.spectral[1] + 1):
                left[one, k] = scan.low
    missing = sum(low > 0 for low in left.values())
    if missing:
        return f"its last scans are missing (progressive; {missing} of {len(left)} coefficients are not whole)"
    return None if frame.ended else "no marker ends it"


def _count(data: bytes, frame: Frame) -> str | None:
    """Decode the codes of every block; the first reason why there are fewer, or more, than the picture has."""
    for scan in frame.scans:
        units, inside, done = _units(frame, scan), _inside(frame, scan), 0
        for part in RESTART.split(data[scan.start : scan.end]):
            bits = part.rstrip(b"\xff").replace(b"\xff\0", b"\xff")  # what fills up before a marker, and stuffed bytes
            most = min(scan.restart or units, units - done)
            count, used, zeros = _blocks(bits, inside, most)
            done += count
            if count < most:
                return f"its data end after {done} of {units} parts"
            rest = bits[used:]
            if rest.strip(b"\0\xff") or (rest and zeros):
                return f"{len(rest)} bytes are left over behind its {units} parts"
        if done < units:
            return f"its data end after {done} of {units} parts"
    return None


def _units(frame: Frame, scan: Scan) -> int:
    """How many units (MCU) a scan has: of one component its own blocks, of several what all of them share."""
    across, down = (max(one[k] for one in frame.components.values()) for k in (0, 1))
    if len(scan.components) > 1:
        return ceil(frame.width / (8 * across)) * ceil(frame.height / (8 * down))
    wide, high = frame.components[scan.components[0][0]]
    return ceil(ceil(frame.width * wide / across) / 8) * ceil(ceil(frame.height * high / down) / 8)


def _inside(frame: Frame, scan: Scan) -> list[tuple[Table, Table]]:
    """The tables of each block of a unit."""
    several = len(scan.components) > 1
    sampling = [frame.components[one] if several else (1, 1) for one, _, _ in scan.components]
    return [
        (_table(dc), _table(ac))
        for (_, dc, ac), (wide, high) in zip(scan.components, sampling, strict=True)
        for _ in range(wide * high)
    ]


def _blocks(data: bytes, inside: list[tuple[Table, Table]], most: int) -> tuple[int, int, bool]:
    """Whole units in the data of one interval, up to `most`; the bytes that they take, and whether these end in zeros."""
    value, have, at, size, done = 0, 0, 0, len(data), 0
    padded = data + bytes(8)
    for _ in range(most):
        for dc, ac in inside:
            k = 0
            while k < 64:
                if have < 32:
                    value = (value & ((1 << have) - 1)) << 32 | int.from_bytes(padded[at : at + 4], "big")
                    have, at = have + 32, at + 4
                lengths, symbols = dc if k == 0 else ac
                code = value >> (have - 16) & 0xFFFF
                length = lengths[code]
                have -= length + (symbols[code] & 15)
                if not length or 8 * at - have > 8 * size:
                    return done, size, False
                if k and symbols[code] & 15 == 0 and symbols[code] != 0xF0:
                    break
                k += 1 + (symbols[code] >> 4 if k else 0)
        done += 1
    used = at - have // 8
    return done, used, used >= TAIL and not any(data[used - TAIL : used])


def png_cut(data: bytes, picture: Image.Image) -> str | None:
    """Why a PNG that Pillow has decoded is not whole: its stream ends, rightly, before the last row; None where it is whole.

    Looked at where the last rows are nothing but zeros, as those that never came are.
    """
    rows = picture.crop((0, max(0, picture.height - 2), picture.width, picture.height))
    if all(rows.crop((0, k, rows.width, k + 1)).getbbox(alpha_only=False) for k in range(rows.height)):
        return None
    width, height, depth, colour, interlaced = struct.unpack(">IIBB2xB", data[16:29])
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sides = [(ceil((width - x) / dx), ceil((height - y) / dy)) for x, y, dx, dy in passes if width > x and height > y]
    wanted = sum(count * (1 + ceil(columns * bits / 8)) for columns, count in sides)
    stream, left, found = zlib.decompressobj(), b"".join(_image_data(data)), 0
    while found < wanted and (more := stream.decompress(left, PIECE)):
        found, left = found + len(more), stream.unconsumed_tail
    return None if found >= wanted else f"its data end after {found} of {wanted} bytes"


# first column, first row, columns and rows apart, of the passes of an interlaced PNG (8.2 of its specification)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _image_data(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            yield data[at + 8 : at + 8 + length]
        at += 12 + length
