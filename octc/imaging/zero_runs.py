"""Runs of zeros that no encoder writes, in streams whose codes are not read here: JPEG 2000, WebP, Zstandard.

A hole of zeros (a block of a disk or a packet of a network that never came) is taken for codes by their decoders, and the
picture is filled up. The codes of an arithmetic coder and of a Huffman coder that has learnt its symbols look like chance, so
that 64 zeros are none; what may be zeros for another reason is left out or counted: packets of JPEG 2000 without anything
(ITU-T T.800, B.10.3), pixels that were stored as they are (RFC 8878, 3.1.1.2.2 and 3.1.1.3.1.1), flat blocks of WebP.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

SHORTEST = 64  # bytes
ZEROS = bytes(SHORTEST)
RUN = re.compile(rb"\0{%d,}" % SHORTEST)
# JPEG 2000 (T.800, annex A): begin of a codestream with its sizes, markers
CODESTREAM = b"\xff\x4f\xff\x51"
SIZ, COD, COC, SOT, SOD, EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
PRECINCTS, RAW_CODES = 1, 1  # bits of the style of a component, and of its code blocks: bits that no coder has seen
WHOLE = 15  # log2 of the side of a precinct that is not stated
LONGEST_RAW = 2048  # bytes of zeros that such bits of two code blocks may be: of 4096 numbers each, twice
# Zstandard (RFC 8878)
MAGIC = 0xFD2FB528
RAW, RLE, COMPRESSED = 0, 1, 2  # kinds of blocks, and of literals (3: compressed as the ones before)
EMPTY_BLOCKS = 2  # one after the other, none of them the last
# WebP (RFC 9649): chunks with compressed pixels; pixels to which one more zero may belong where blocks of 256 are flat
COMPRESSED_CHUNKS, PIXELS_A_ZERO = (b"VP8 ", b"VP8L", b"ALPH"), 2048


@dataclass
class Codestream:
    """Of the main header of a JPEG 2000: tiles, most packets of one, and whether bits may be stored as they are."""

    tiles: int = 0
    tile: tuple[int, int] = (0, 0)
    components: list[tuple[int, int]] = field(default_factory=list)
    layers: int = 1
    packets: int = 0
    raw: bool = False

    def take(self, marker: int, body: bytes) -> None:
        """What a segment of a header says."""
        if marker == SIZ:
            right, low, left, top, wide, high, across, down = struct.unpack(">8I", body[2:34])
            self.tile = (min(wide, right - left), min(high, low - top))
            self.tiles = ceil((right - across) / wide) * ceil((low - down) / high)
            self.components = [(body[at + 1], body[at + 2]) for at in range(36, len(body), 3)]
        elif marker == COD:
            self.layers = max(self.layers, int.from_bytes(body[2:4], "big"))
            self._style(body[0], body[5:])
        elif marker == COC:
            at = 1 if len(self.components) < 257 else 2
            self._style(body[at], body[at + 1 :])

    def _style(self, style: int, body: bytes) -> None:
        """Levels, code blocks and precincts; the largest number of packets counts for all components."""
        levels = body[0]
        self.raw = self.raw or bool(body[3] & RAW_CODES)
        count = 0
        for wide, high in self.components:
            for level in range(levels + 1):
                size = body[5 + level] if style & PRECINCTS else WHOLE | WHOLE << 4
                sides = (self.tile[0] / wide, size & 15), (self.tile[1] / high, size >> 4)
                across, down = (ceil(side / (1 << (levels - level)) / (1 << log)) + 1 for side, log in sides)
                count += across * down
        self.packets = max(self.packets, count * self.layers)


def jpeg_2000_cut(data: bytes) -> str | None:
    """Why a JPEG 2000 that its decoder has taken is not whole: tiles that are missing, or zeros in the place of codes."""
    try:
        return _walked(data)
    except (IndexError, ValueError, ZeroDivisionError, struct.error):
        return None  # the decoder knew it: it is of a form that is not walked through here


def _walked(data: bytes) -> str | None:
    at = data.find(CODESTREAM) + 2
    head, seen, found = Codestream(), set[int](), False
    while 1 < at <= len(data) - 12:
        marker, length = struct.unpack(">2H", data[at : at + 4])
        if marker == EOC:
            break
        if marker != SOT:
            if found:
                return f"no tile begins at byte {at}"
            head.take(marker, data[at + 4 : at + 2 + length])
            at += 2 + length
            continue
        tile, size = struct.unpack(">HI", data[at + 4 : at + 10])
        found, end = True, at + size if size else len(data)
        if (why := _zeros(data, _behind_headers(data, at, end, head), end, _longest(head))) is not None:
            return why
        seen.add(tile)
        at = end
    missing = head.tiles - len(seen)
    return f"{missing} of {head.tiles} tiles are missing" if found and missing > 0 else None


def _behind_headers(data: bytes, at: int, end: int, head: Codestream) -> int:
    """Where the packets of a part of a tile begin."""
    while at + 4 <= end:
        marker, length = struct.unpack(">2H", data[at : at + 4])
        if marker == SOD:
            return at + 2
        if marker in (COD, COC):
            head.take(marker, data[at + 4 : at + 2 + length])
        at += 2 + length
    return end


def _longest(head: Codestream) -> int:
    """How many zeros one after the other may be packets without anything, and bits as they are."""
    return SHORTEST + head.packets + (LONGEST_RAW if head.raw else 0)


def webp_cut(data: bytes, pixels: int = 1 << 20) -> str | None:
    """Why a WebP that its decoder has taken is not whole: zeros in the place of codes."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] in COMPRESSED_CHUNKS:
            why = _zeros(data, at + 8, min(len(data), at + 8 + size), SHORTEST + pixels // PIXELS_A_ZERO)
            if why is not None:
                return why
        at += 8 + size + size % 2
    return None


def zstandard_cut(data: bytes) -> str | None:
    """Why a frame of Zstandard that its decoder has taken is not whole: zeros in the place of codes, or blocks of nothing.

    Zeros in what is stored as it is may be pixels, and are not seen.
    """
    if int.from_bytes(data[:4], "little") != MAGIC or len(data) < 6:
        return None
    empty = 0
    for start, kind, size, last in _blocks(data):
        if start + size > len(data):
            return "its data end too early"
        empty = empty + 1 if kind == RAW and size == 0 and not last else 0
        if empty == EMPTY_BLOCKS:
            return f"a hole of zeros ends at byte {start}"
        if kind > COMPRESSED:
            return f"no block begins at byte {start - 3}"
        if kind == COMPRESSED:
            begin = start + _stored_literals(data[start : start + 3])
            if (why := _zeros(data, begin, start + size, SHORTEST)) is not None:
                return why
    return None


def _blocks(data: bytes) -> Iterator[tuple[int, int, int, bool]]:
    """Of each block of a frame: where it begins, its kind, its bytes, and whether it is the last one."""
    single, stated = data[4] >> 5 & 1, data[4] >> 6
    at = 5 + (not single) + (0, 1, 2, 4)[data[4] & 3] + (single, 2, 4, 8)[stated]
    last = False
    while not last:
        head = int.from_bytes(data[at : at + 3].ljust(3, b"\0"), "little")
        last, kind, size = bool(head & 1) or at + 3 > len(data), head >> 1 & 3, head >> 3
        size = 1 if kind == RLE else size
        yield at + 3, kind, size, last
        at += 3 + size


def _stored_literals(head: bytes) -> int:
    """Bytes at the beginning of a compressed block that are literals as they are, with their header; 0 where they are coded."""
    number, form = int.from_bytes(head, "little"), head[0] >> 2 & 3
    if head[0] & 3 != RAW:
        return 0
    bytes_of_head = 1 if form in (0, 2) else 2 if form == 1 else 3
    return bytes_of_head + ((number & (1 << 8 * bytes_of_head) - 1) >> (3 if bytes_of_head == 1 else 4))


def _zeros(data: bytes, start: int, end: int, longest: int) -> str | None:
    for run in RUN.finditer(data, start, end):
        if run.end() - run.start() > longest:
            return f"a hole of zeros begins at byte {run.start()}"
    return None
