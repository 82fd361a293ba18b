"""TIFF, PNG and BMP files of every kind, written here byte by byte, so that no library decides what their numbers mean."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
NONE, DEFLATE, PACKBITS = 1, 8, 32773
SIZES = {3: "H", 4: "I", 5: "I"}  # SHORT, LONG, RATIONAL
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def packed(rows: Array, bits: int) -> bytes:
    """Rows of numbers [rows, n] of a few bits each, highest first, every row filled up to a byte."""
    text = ["".join(format(int(value) & (1 << bits) - 1, f"0{bits}b") for value in row) for row in rows]
    return b"".join(int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big") for row in text)


def samples(part: Array, bits: int, form: int, order: str) -> bytes:
    """Numbers [rows, columns, samples] as a file holds them."""
    if bits in (8, 16, 32, 64):
        return part.astype(f"{order}{'?uif'[form]}{bits // 8}").tobytes()
    return packed(part.reshape(len(part), -1), bits)


def packbits(data: bytes, rows: int) -> bytes:
    """Runs of literal bytes, none across the end of a row."""
    width = len(data) // rows
    pieces = [data[y * width + x : y * width + min(x + 128, width)] for y in range(rows) for x in range(0, width, 128)]
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


@dataclass(frozen=True)
class Layout:
    """How the strips lie in the file, and its further tags. reverse: FillOrder 2."""

    compression: int = NONE
    separate: bool = False
    reverse: bool = False
    extra: Sequence[int] = ()
    tags: Sequence[tuple[int, int, list[int]]] = ()


def tiff(values: Array, photometric: int | None, bits: int = 8, form: int = 1, order: str = "<", **layout: Any) -> bytes:
    """A TIFF of strips of 16 rows. values [H, W] or [H, W, S]; form: 1 unsigned, 2 signed, 3 float; layout: of `Layout`."""
    how = Layout(**layout)
    cube = values if values.ndim == 3 else values[..., None]
    height, width, count = cube.shape
    planes = [cube[..., k : k + 1] for k in range(count)] if how.separate else [cube]
    strips = []
    for plane in planes:
        for y in range(0, height, 16):
            part = plane[y : y + 16]
            data = samples(part, bits, form, order)
            data = zlib.compress(data) if how.compression == DEFLATE else data
            data = packbits(data, len(part)) if how.compression == PACKBITS else data
            strips.append(data.translate(REVERSED) if how.reverse else data)
    body = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    places = []
    for strip in strips:
        places.append(len(body))
        body += strip + bytes(len(strip) % 2)
    entries = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * count), (259, 3, [how.compression]),
        (266, 3, [2 if how.reverse else 1]), (273, 4, places), (277, 3, [count]), (278, 4, [16]),
        (279, 4, [len(strip) for strip in strips]), (284, 3, [2 if how.separate else 1]), (339, 3, [form] * count), *how.tags,
    ]  # fmt: skip
    entries += [(262, 3, [photometric])] if photometric is not None else []
    entries += [(338, 3, list(how.extra))] if how.extra else []
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, numbers in sorted(entries):
        raw = struct.pack(f"{order}{len(numbers)}{SIZES[kind]}", *numbers)
        if len(raw) > 4:
            place = len(body)
            body += raw + bytes(len(raw) % 2)
            raw = struct.pack(f"{order}I", place)
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers) // (2 if kind == 5 else 1)) + raw.ljust(4, b"\0")
    body[4:8] = struct.pack(f"{order}I", len(body))
    return bytes(body) + directory + bytes(4)


def png(values: Array, colour: int, bits: int, transparent: bytes | None = None, palette: bytes | None = None) -> bytes:
    """A PNG. values [H, W] or [H, W, S]; colour: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    cube = values if values.ndim == 3 else values[..., None]

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", cube.shape[1], cube.shape[0], bits, colour, 0, 0, 0))
    head += chunk(b"PLTE", palette) if palette is not None else b""
    head += chunk(b"tRNS", transparent) if transparent is not None else b""
    rows = b"".join(b"\0" + samples(row[None], bits, 1, ">") for row in cube)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bmp(values: Array, bits: int, palette: Array | None = None, *, downwards: bool = False, masks: Sequence[int] = ()) -> bytes:
    """A BMP. values [H, W] numbers of `bits` bits, [H, W, 3] or [H, W, 4]; palette [n, 3]; downwards: first row first;
    masks: of red, green and blue, or of alpha too (a header of version 3)."""
    rows = []
    for row in values:
        swapped = row if row.ndim == 1 else row[:, [2, 1, 0, 3][: row.shape[1]]]
        data = packed(row[None], bits) if bits < 8 else swapped.astype(f"<u{bits // 8 if row.ndim == 1 else 1}").tobytes()
        rows.append(data + bytes(-len(data) % 4))
    height, width = values.shape[:2]
    colours = b"" if palette is None else b"".join(bytes([*map(int, colour[::-1]), 0]) for colour in palette)
    extra = struct.pack(f"<{len(masks)}I", *masks)
    start = 54 + len(extra) + len(colours)
    body = b"".join(rows if downwards else rows[::-1])
    head = struct.pack(
        "<IiiHHIIiiII", 56 if len(masks) == 4 else 40, width, -height if downwards else height, 1, bits, 3 if masks else 0,
        len(body), 2835, 2835, 0 if palette is None else len(palette), 0,
    )  # fmt: skip
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + extra + colours + body
