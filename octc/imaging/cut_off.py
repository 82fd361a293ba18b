"""Pictures whose data end too early, of which a decoder makes a whole picture all the same: what is not there is grey (JPEG) or
black (PNG). A download that was broken off and padded with zeros is one, and so is a file with a hole.

A JPEG is counted through, block by block, only where something points to it (ITU-T T.81, annexes B, F and G): no marker ends
it, a run of zeros lies in its data, or its last block is of the grey that decoders fill in. The strips and tiles of a TIFF are
looked at where zeros lie in them: a JPEG as any other, of deflate and LZMA the whole stream with its sum, which a decoder that
has its rows passes over, codes of PackBits, and what `zero_runs` knows of other streams.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from math import ceil
from typing import Any

from PIL import Image

from octc.imaging.zero_runs import ZEROS, webp_cut, zstandard_cut

MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")  # behind the data of a scan, which has stuffed bytes and restarts in it
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
SOI, EOI, SOS, DHT, DRI, TEM = 0xD8, 0xD9, 0xDA, 0xC4, 0xDD, 0x01
SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1), 0xC2  # Huffman-coded
FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
RUN_OF_ZEROS = 0xF0  # a symbol without a number that ends no block
FILLED = (127, 128)  # the grey of a block without data, and of an inverted one
ALIKE = 64  # coefficients that one code of zeros, one after the other, has: more than any picture
TAIL = 8  # bytes of zeros that the last blocks were read from
MOST_PIXELS = 4_000_000  # that are counted through: a second
PIECE, MOST_UNPACKED = 1 << 20, 1 << 29  # bytes that are unpacked at once, and of a strip at most
SIDE = 8  # of a block, pixels
# TIFF tags: compression, where strips and tiles begin, how long they are, the tables that the JPEGs of all of them share
COMPRESSION, STARTS, SIZES, TABLES = 259, (273, 324), (279, 325), 347
# width and height of a page and of its tiles, bits and samples of a pixel, rows of a strip, whether planes lie apart
WIDTH, HEIGHT, TILE_WIDTH, TILE_HEIGHT, BITS, SAMPLES, ROWS, PLANAR = 256, 257, 322, 323, 258, 277, 278, 284
NOT_COMPRESSED, APART = 1, 2
TIFF_HEADER = 8  # bytes, in which no pixels can lie
DEFLATE, JPEG, LZW, PACKBITS, LZMA, ZSTANDARD, WEBP = (8, 32946), 7, 5, 32773, 34925, 50000, 50001
MOST_LZMA = 1 << 28  # bytes of memory that its decoder may ask for
SINGLES = 16  # literals of one zero each, one after the other, that no encoder of PackBits writes
RLE_HEADER = 64  # bytes: how many segments, and where up to 15 begin
Table = tuple[list[int], list[int]]  # of the next 16 bits: how many of them are the code (0: none), and the symbol


@dataclass
class Scan:
    """Of one SOS: its components, each with where its tables are written (DC, AC), which coefficients from which bit to which,
    and where its data lie. high: 0 where their bits begin."""

    components: list[tuple[int, bytes, bytes]]
    spectral: tuple[int, int]
    high: int
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
    return _stream_cut(data, picture.width * picture.height, partial(_grey_at_the_end, picture))


def _stream_cut(data: bytes, pixels: int, suspect: Callable[[], bool]) -> str | None:
    """Why a JPEG is not whole. suspect: whether it is to be counted though nothing in its data points to it."""
    try:
        frame = _read(data)
        if frame.kind == PROGRESSIVE and (why := _scans_missing(frame)) is not None:
            return why
        if frame.kind in (*SEQUENTIAL, PROGRESSIVE):
            if (why := _hole(data, frame)) is not None:
                return why
            if pixels <= MOST_PIXELS:
                return _count(data, frame) if _is_odd(data, frame) or suspect() else None
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


def _hole(data: bytes, frame: Frame) -> str | None:
    """Why a run of zeros is no part of a picture: with its codes they are coefficients, the same one a hundred times over."""
    for scan in frame.scans:
        if scan.spectral[1] and not scan.high and any(_is_number(_table(ac)[1][0]) for _, _, ac in scan.components):
            at = data.find(ZEROS, scan.start, scan.end)
            if at >= 0 and data[at : scan.end].strip(b"\0\xff"):  # else it is the end that is filled up: that is counted
                return f"a hole of zeros begins at byte {at}"
    return None


def _is_number(symbol: int) -> bool:
    """Whether a symbol of an AC table is other than the end of blocks."""
    return bool(symbol & 15) or symbol == RUN_OF_ZEROS


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
            frame.scans.append(Scan(named, (first, last), bits >> 4, bits & 15, at, end, restart))
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
    known: dict[int, list[int]] = {}
    for scan in frame.scans:
        units, done, blocks = _units(frame, scan), 0, _counter(frame, scan, known)
        for part in RESTART.split(data[scan.start : scan.end]):
            bits = part.rstrip(b"\xff").replace(b"\xff\0", b"\xff")  # what fills up before a marker, and stuffed bytes
            most = min(scan.restart or units, units - done)
            count, used = blocks(bits, done, most)
            done += count
            if count < most:
                return f"its data end after {done} of {units} parts"
            rest, zeros = bits[used:], used >= TAIL and not any(bits[used - TAIL : used])
            if rest.strip(b"\0\xff") or (rest and zeros):
                return f"{len(rest)} bytes are left over behind its {units} parts"
        if done < units:
            return f"its data end after {done} of {units} parts"
    return None


Blocks = Callable[[bytes, int, int], "tuple[int, int]"]


def _counter(frame: Frame, scan: Scan, known: dict[int, list[int]]) -> Blocks:
    """How the units of a scan are counted: (data of an interval, units before it, most that it may have) -> whole units and the
    bytes that they take. known: of each component of a progressive JPEG the coefficients of its blocks that are not 0."""
    if frame.kind != PROGRESSIVE:
        return partial(_blocks, _inside(frame, scan))
    if scan.spectral[0] == 0:
        return partial(_means, [dc for dc, _ in _inside(frame, scan)], scan)
    one, _, ac = scan.components[0]
    return partial(_bands, _table(ac), scan, known.setdefault(one, [0] * _units(frame, scan)))


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


def _blocks(inside: list[tuple[Table, Table]], data: bytes, _before: int, most: int) -> tuple[int, int]:
    """Whole units in the data of one interval, up to `most`, and the bytes that they take."""
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
                    return done, size
                if k and symbols[code] & 15 == 0 and symbols[code] != RUN_OF_ZEROS:
                    break
                k += 1 + (symbols[code] >> 4 if k else 0)
        done += 1
    return done, at - have // 8


class Bits:
    """Bits of an interval, the highest of a byte first; behind its end they are 0. at: the place of the next one."""

    def __init__(self, data: bytes) -> None:
        self.padded, self.size, self.at = data + bytes(8), 8 * len(data), 0

    def take(self, count: int) -> int:
        """The next bits, 16 at most, as a number."""
        byte, skip = divmod(self.at, 8)
        self.at += count
        return (int.from_bytes(self.padded[byte : byte + 4], "big") << skip & 0xFFFFFFFF) >> (32 - count)

    def symbol(self, table: Table) -> int:
        """The symbol of the next code; at the end of the data, or where there is no such code, the place is behind it."""
        byte, skip = divmod(self.at, 8)
        code = int.from_bytes(self.padded[byte : byte + 4], "big") >> (16 - skip) & 0xFFFF
        self.at += table[0][code] or self.size + 1
        return table[1][code]

    @property
    def over(self) -> bool:
        """Whether more was taken than there is."""
        return self.at > self.size

    @property
    def used(self) -> int:
        """Bytes that were taken, the last one perhaps in part."""
        return min(self.at + 7, self.size) // 8


def _means(tables: list[Table], scan: Scan, data: bytes, _before: int, most: int) -> tuple[int, int]:
    """`Blocks` of a progressive scan of the first coefficients (G.1.2.1)."""
    bits = Bits(data)
    for done in range(most):
        for table in tables:
            bits.take(1 if scan.high else bits.symbol(table) & 15)
        if bits.over:
            return done, bits.used
    return most, bits.used


def _bands(table: Table, scan: Scan, known: list[int], data: bytes, before: int, most: int) -> tuple[int, int]:
    """`Blocks` of a progressive scan of a band of coefficients, or of a further bit of them (G.1.2.2, G.1.2.3)."""
    bits, ended, alike = Bits(data), 0, 0
    first, last = scan.spectral
    for done in range(most):
        block, k = known[before + done], first
        while not ended and k <= last and not bits.over:
            symbol = bits.symbol(table)
            zeros, size = symbol >> 4, symbol & 15
            if not _is_number(symbol):
                ended = (1 << zeros) + bits.take(zeros)
                break
            number = bits.take(min(size, 1) if scan.high else size)
            alike = alike + 1 if (symbol, number) == (table[1][0], 0) else 0
            if alike == ALIKE:
                return done, bits.used
            if scan.high:
                k = _refined(bits, block, k, last, zeros)
            else:
                k += zeros
            block |= bool(size) << k
            k += 1
        if ended:
            ended -= 1
            if scan.high:
                bits.at += (block >> k & (1 << max(0, last + 1 - k)) - 1).bit_count()
        if bits.over:
            return done, bits.used
        known[before + done] = block
    return most, bits.used


def _refined(bits: Bits, block: int, k: int, last: int, zeros: int) -> int:
    """Behind so many coefficients that are 0, where the next such one stands; those that are not are refined by a bit each."""
    while k <= last:
        if block >> k & 1:
            bits.at += 1
        elif zeros == 0:
            break
        else:
            zeros -= 1
        k += 1
    return k


def png_cut(data: bytes, picture: Image.Image) -> str | None:
    """Why a PNG that Pillow has decoded is not whole: its stream ends, rightly, before the last row, or its palette lacks a
    colour; None where it is whole.

    The stream is looked at where the last rows are nothing but zeros, as those that never came are.
    """
    if picture.mode == "P":
        colours, most = sum(map(len, _chunks(data, b"PLTE"))) // 3, picture.getextrema()[1]
        if most >= colours:  # type: ignore[operator]
            return f"its palette has {colours} colours, and a pixel is of number {most}"
    rows = picture.crop((0, max(0, picture.height - 2), picture.width, picture.height))
    if all(rows.crop((0, k, rows.width, k + 1)).getbbox(alpha_only=False) for k in range(rows.height)):
        return None
    width, height, depth, colour, interlaced = struct.unpack(">IIBB2xB", data[16:29])
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sides = [(ceil((width - x) / dx), ceil((height - y) / dy)) for x, y, dx, dy in passes if width > x and height > y]
    wanted = sum(count * (1 + ceil(columns * bits / 8)) for columns, count in sides)
    stream, left, found = zlib.decompressobj(), b"".join(_chunks(data, b"IDAT")), 0
    while found < wanted and (more := stream.decompress(left, PIECE)):
        found, left = found + len(more), stream.unconsumed_tail
    return None if found >= wanted else f"its data end after {found} of {wanted} bytes"


# first column, first row, columns and rows apart, of the passes of an interlaced PNG (8.2 of its specification)
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _chunks(data: bytes, kind: bytes) -> Iterator[bytes]:
    """The data of the chunks of a kind of a PNG."""
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == kind:
            yield data[at + 8 : at + 8 + length]
        at += 12 + length


def tiff_cut(data: bytes, picture: Image.Image) -> str | None:
    """Why the page of a TIFF that Pillow has decoded is not whole; None where it is, or where nothing points to it."""
    return strips_cut(lambda start, size: data[start : start + size], picture.tag_v2, picture.size)  # type: ignore[attr-defined]


def strips_cut(take: Callable[[int, int], bytes], tags: Mapping[int, Any], size: tuple[int, int]) -> str | None:
    """The same of a page whose strips, or tiles, are taken by where they begin and how many bytes they have."""
    kind = _number(tags, COMPRESSION, NOT_COMPRESSED)
    starts, sizes = (_numbers(tags, names) for names in (STARTS, SIZES))
    if kind == NOT_COMPRESSED:
        return _plain_cut(tags, starts, sizes)
    if kind not in (JPEG, *STREAMS):
        return None
    for number, place in enumerate(zip(starts, sizes, strict=False)):
        part = take(*place)
        if ZEROS not in part:
            continue
        if kind == JPEG:
            tables = bytes(tags.get(TABLES, b""))
            why = _stream_cut(tables[:-2] + part[2:] if tables else part, size[0] * size[1], lambda: False)
        else:
            why = STREAMS[kind](part)
        if why is not None:
            return f"strip {number}: {why}"
    return None


def _plain_cut(tags: Mapping[int, Any], starts: tuple[int, ...], sizes: tuple[int, ...]) -> str | None:
    """Why strips, or tiles, of plain pixels are not those of a whole page (TIFF 6.0, sections 3 and 15): some are not named,
    are said to be nowhere (as in sparse files), or have fewer bytes than their pixels. Decoders leave such a place black, or
    take for its pixels what lies at the beginning of the file, or behind the strip. No size at all, of the only strip, is the
    rest of the file to everybody."""
    count, in_plane, full, last = _plain_sizes(tags)
    if len(starts) < count:
        return f"{len(starts)} of {count} strips are named"
    for number, start in enumerate(starts[:count]):
        size = sizes[number] if number < len(sizes) else 0
        if start < TIFF_HEADER or (size == 0 and count > 1):
            return f"strip {number} is nowhere in the file (a sparse TIFF)"
        whole = full if (number + 1) % in_plane else last
        if 0 < size < whole:
            return f"strip {number} has {size} bytes, its pixels have {whole}"
    return None


def _plain_sizes(tags: Mapping[int, Any]) -> tuple[int, int, int, int]:
    """How many strips, or tiles, that are not compressed a page has by its tags, and how many each plane of it; the bytes of
    one, and of the last one of a plane."""
    width, height = _number(tags, WIDTH), _number(tags, HEIGHT)
    samples, apart = _number(tags, SAMPLES), _number(tags, PLANAR) == APART
    bits, planes = _number(tags, BITS) * (1 if apart else samples), samples if apart else 1
    if TILE_WIDTH in tags:
        wide, high = _number(tags, TILE_WIDTH), _number(tags, TILE_HEIGHT)
        count, size = ceil(width / wide) * ceil(height / high), ceil(wide * bits / 8) * high
        return count * planes, count, size, size
    rows, row = min(_number(tags, ROWS, height), height), ceil(width * bits / 8)
    count = ceil(height / rows)
    return count * planes, count, row * rows, row * (height - rows * (count - 1))


def _number(tags: Mapping[int, Any], tag: int, otherwise: int = 1) -> int:
    """The first number of a tag, 1 at least."""
    value = tags.get(tag, otherwise)
    return max(1, int(value[0] if isinstance(value, tuple) else value))


def _numbers(tags: Mapping[int, Any], names: tuple[int, int]) -> tuple[int, ...]:
    found = next((tags[name] for name in names if name in tags), ())
    return tuple(found) if isinstance(found, tuple) else (int(found),)


def _deflated(data: bytes) -> str | None:
    """Why a stream of zlib does not have the sum that it states; None where it has, or is longer than any strip."""
    return _unsound(zlib.decompressobj(), data, zlib.error)


def _lzma(data: bytes) -> str | None:
    """The same of a stream of LZMA, whose parts end in numbers that only its whole decoder looks at."""
    import lzma  # which not every Python has

    return _unsound(lzma.LZMADecompressor(lzma.FORMAT_AUTO, MOST_LZMA), data, lzma.LZMAError)


def _unsound(stream: Any, left: bytes, damage: type[Exception]) -> str | None:
    """Why a decoder refuses a stream, or does not come to its end. What it has not read yet zlib gives back, and LZMA keeps."""
    found = 0
    try:
        while not stream.eof and found < MOST_UNPACKED and (more := stream.decompress(left, PIECE)):
            found, left = found + len(more), getattr(stream, "unconsumed_tail", b"")
    except damage as error:
        return str(error)
    return None if stream.eof or found >= MOST_UNPACKED else "its data end too early"


def _lzw(data: bytes) -> str:
    """The codes of one zero after the other grow longer: no encoder writes a run of zeros, and strips without one are not asked
    about."""
    return f"a hole of zeros begins at byte {data.find(ZEROS)}"


def rle_cut(data: bytes, pixels: int) -> str | None:
    """Why a frame of DICOM's RLE Lossless is not whole, else None: segments of PackBits (PS3.5 annex G)."""
    count, *starts = struct.unpack_from("<16L", data.ljust(RLE_HEADER, b"\0"))
    ends = [*starts[1:count], len(data)]
    parts = (data[start:end] for start, end in zip(starts[:count], ends, strict=False))
    return next(
        (f"segment {number}: {why}" for number, part in enumerate(parts) if (why := _singles(part, pixels)) is not None), None
    )


def _singles(data: bytes, most: int | None = None) -> str | None:
    """Why PackBits are not whole: zeros read as their codes are literals of one zero each, and a run has a code of its own.
    most: bytes that are asked for; behind them may be anything."""
    if bytes(2 * SINGLES) not in data:
        return None
    at, alike, found = 0, 0, 0
    while at < len(data) and (most is None or found < most):
        code = data[at]
        found += code + 1 if code < 128 else 257 - code if code > 128 else 0
        alike = alike + 1 if code == 0 and data[at + 1 : at + 2] == b"\0" else 0
        if alike == SINGLES:
            return f"a hole of zeros ends at byte {at}"
        at += 1 if code == 128 else 2 if code > 128 else code + 2
    return None


STREAMS: Mapping[int, Callable[[bytes], str | None]] = {  # compression of a strip -> why it is not whole
    **dict.fromkeys(DEFLATE, _deflated),
    LZW: _lzw,
    PACKBITS: _singles,
    LZMA: _lzma,
    ZSTANDARD: zstandard_cut,
    WEBP: webp_cut,
}
