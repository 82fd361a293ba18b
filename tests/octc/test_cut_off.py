"""Pictures whose data end too early, or have a hole: a decoder fills them up, and they are refused."""

from __future__ import annotations

import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile
from pydicom.encaps import generate_frames

from octc.core.errors import OctcError
from octc.imaging import cut_off
from octc.imaging.decode import decode_image, whole_only
from octc.volumes import read_volume
from octc.volumes.writing import RLE
from tests.octc.pictures import encoded, png_of, refused
from tests.octc.volumes.opt_objects import encapsulated, made, stored

NOISE = np.random.default_rng(3).normal(120, 40, (91, 139)).clip(0, 255).astype(np.uint8)
GREY = Image.fromarray(NOISE)
COLOUR = Image.merge("RGB", [GREY, GREY.transpose(Image.Transpose.ROTATE_180), GREY.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
PLAIN: tuple[dict[str, Any], ...] = ({}, {"optimize": True}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3})


def cuts(whole: bytes, at: int) -> dict[str, bytes]:
    """A file of which everything from a place on is gone, is zeros, or has a hole in it."""
    rest = len(whole) - at
    return {
        "padded": whole[:at] + bytes(rest),
        "ended": whole[:at] + b"\xff\xd9",
        "padded and ended": whole[:at] + bytes(rest - 2) + b"\xff\xd9",
        "a hole of zeros": whole[:at] + bytes(900) + whole[at + 900 :],
    }


@pytest.mark.parametrize("how", PLAIN, ids=str)
@pytest.mark.parametrize(
    ("picture", "subsampling"),
    [(GREY, 0), (COLOUR, 0), (COLOUR, 1), (COLOUR, 2), (COLOUR.convert("CMYK"), 0)],
    ids=("grey", "4:4:4", "4:2:2", "4:2:0", "CMYK"),
)
def test_a_jpeg_without_its_last_part_is_refused(picture: Image.Image, subsampling: int, how: dict[str, Any]) -> None:
    whole = encoded(picture, "JPEG", quality=90, subsampling=subsampling, **how)
    decode_image(whole, "whole.jpg")
    frame = cut_off._read(whole)
    assert cut_off._count(whole, frame) is None, "every block is counted, and none is left over"
    assert not cut_off._is_odd(whole, frame)
    for at in (len(whole) // 2, len(whole) - 1000):
        for name, data in cuts(whole, at).items():
            assert refused(data).code == "OCT-E201", name


@pytest.mark.parametrize("how", [{}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 5}], ids=str)
@pytest.mark.parametrize(("picture", "subsampling"), [(GREY, 0), (COLOUR, 0), (COLOUR, 2), (COLOUR.convert("CMYK"), 0)])
def test_every_scan_of_a_progressive_jpeg_is_counted(picture: Image.Image, subsampling: int, how: dict[str, Any]) -> None:
    whole = encoded(picture, "JPEG", quality=75, subsampling=subsampling, progressive=True, **how)
    frame = cut_off._read(whole)
    assert cut_off._count(whole, frame) is None
    assert not cut_off._is_odd(whole, frame)
    for scan in frame.scans:
        if scan.end - scan.start > 2000:
            at = (scan.start + scan.end) // 2
            assert refused(whole[:at] + bytes(300) + whole[at + 300 :]).code == "OCT-E201", scan


def test_a_progressive_jpeg_without_its_last_scans_is_refused() -> None:
    whole = encoded(COLOUR, "JPEG", quality=90, progressive=True)
    decode_image(whole, "whole.jpg")
    for name, data in cuts(whole, len(whole) // 2).items():
        assert refused(data).code == "OCT-E201", name


@pytest.mark.parametrize("how", [{}, {"optimize": True}, {"restart_marker_rows": 1}], ids=str)
def test_a_hole_is_found_wherever_it_lies(how: dict[str, Any]) -> None:
    """Also where as many blocks are left as there should be, and in pictures that are not counted."""
    whole = encoded(GREY, "JPEG", quality=90, **how)
    frame = cut_off._read(whole)
    for at in range(frame.scans[0].start + 10, len(whole) - 300, 331):
        data = whole[:at] + bytes(100) + whole[at + 100 :]
        assert refused(data).code == "OCT-E201", at
        assert cut_off._hole(data, cut_off._read(data)) or how, "the usual codes make a run of zeros numbers"


@pytest.mark.parametrize("compression", ["tiff_deflate", "tiff_adobe_deflate", "jpeg", "packbits", "tiff_lzw"])
def test_a_hole_in_a_strip_of_a_tiff_is_found(compression: str, tmp_path: Path) -> None:
    dark = Image.fromarray(np.where(NOISE < 140, 0, NOISE))
    for picture in (GREY, dark):
        whole = encoded(picture, "TIFF", compression=compression)
        decode_image(whole, "whole.tif")
        for at in range(400, min(len(whole) - 900, 6000), 700):
            assert refused(whole[:at] + bytes(400) + whole[at + 400 :]).code == "OCT-E201", at
    path = tmp_path / "stack.tif"
    GREY.save(path, save_all=True, append_images=[GREY], compression=compression)
    data = path.read_bytes()
    assert np.array_equal(read_volume(path).frame(1), read_volume(path).frame(0))
    path.write_bytes(data[:2000] + bytes(400) + data[2400:])
    with pytest.raises(OctcError) as error:
        read_volume(path).frame(0)
    assert error.value.code == "OCT-E222"


BASE = {256: (64,), 257: (48,), 258: (8,), 259: (1,), 262: (1,), 277: (1,)}
PIXELS = (np.arange(48 * 64) % 251).astype(np.uint8)
LONG = (273, 279, 324, 325)


def tiff_of(body: bytes, tags: dict[int, tuple[int, ...]]) -> bytes:
    """A TIFF of one page that is not compressed: its directory, then its pixels from byte 4096 on."""
    far = 8 + 2 + 12 * len(tags) + 4
    entries = more = b""
    for tag, values in sorted(tags.items()):
        letter, kind = ("I", 4) if tag in LONG else ("H", 3)
        data = struct.pack(f"<{len(values)}{letter}", *values)
        place = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", far + len(more))
        more += data if len(data) > 4 else b""
        entries += struct.pack("<2HI", tag, kind, len(values)) + place
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + more
    return head.ljust(4096, b"\0") + body


def strips(sizes: tuple[int, ...], starts: tuple[int, ...] = (), rows: int = 24) -> dict[int, tuple[int, ...]]:
    return {**BASE, 278: (rows,), 273: starts or (4096, 4096 + 24 * 64), 279: sizes}


def tiles(sizes: tuple[int, ...], starts: tuple[int, ...] = (4096, 5120, 6144, 7168)) -> dict[int, tuple[int, ...]]:
    return {**BASE, 322: (32,), 323: (32,), 324: starts, 325: sizes}


PLANES = {**BASE, 258: (8, 8, 8), 262: (2,), 277: (3,), 284: (2,), 278: (48,)}
HALF = 24 * 64


@pytest.mark.parametrize(
    ("tags", "right"),
    [
        (strips((HALF, HALF)), True),
        (strips((2 * HALF,), (4096,), rows=48), True),
        (strips((2 * HALF,), (4096,), rows=65535), True),
        (strips((0,), (4096,), rows=48), True),  # as some programs leave the size of the only strip
        (strips((HALF + 9, HALF)), True),
        (strips((0,), (0,), rows=48), False),
        (strips((HALF, 0), (4096, 0)), False),
        (strips((HALF, 0)), False),
        (strips((HALF,), (4096,)), False),
        (strips((HALF, HALF - 64)), False),
        (strips((2 * HALF - 1,), (4096,), rows=48), False),
        (tiles((1024, 1024, 0, 1024)), False),
        (tiles((1024, 1024, 1024, 1024), (4096, 0, 6144, 7168)), False),
        (tiles((1024, 1024, 1024), (4096, 5120, 6144)), False),
        (tiles((1024, 1024, 1000, 1024)), False),
        ({**PLANES, 273: (4096, 4096), 279: (2 * HALF,) * 2}, False),
        ({**PLANES, 273: (4096, 4096, 0), 279: (2 * HALF, 2 * HALF, 0)}, False),
        ({**strips((HALF, HALF)), 258: (16,)}, False),
    ],
)
def test_plain_strips_and_tiles_hold_the_whole_page(tags: dict[int, tuple[int, ...]], *, right: bool) -> None:
    """Strips of sparse files, and those that end too early, would be black, or what lies elsewhere in the file."""
    data = tiff_of(PIXELS.tobytes() + PIXELS.tobytes(), tags)
    if right:
        assert np.array_equal(np.asarray(decode_image(data, "scan.tif").image), PIXELS.reshape(48, 64))
    else:
        assert refused(data).code == "OCT-E201"


def test_plain_tiles_and_planes_are_read_where_they_are_whole() -> None:
    data = tiff_of(PIXELS.tobytes() + PIXELS.tobytes(), tiles((1024,) * 4))
    first = np.asarray(decode_image(data, "scan.tif").image)[:32, :32]
    assert np.array_equal(first, PIXELS[:1024].reshape(32, 32))
    planes = {**PLANES, 273: (4096, 4096, 4096), 279: (2 * HALF,) * 3}
    found = np.asarray(decode_image(tiff_of(PIXELS.tobytes(), planes), "scan.tif").image)
    assert np.array_equal(found, np.repeat(PIXELS.reshape(48, 64, 1), 3, axis=2))


def test_a_page_of_a_stack_without_its_strip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    GREY.save(path, save_all=True, append_images=[GREY])
    with Image.open(path) as picture:
        picture.seek(1)
        start = picture.tag_v2[273][0]  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    at = data.rindex(struct.pack("<2HII", 273, 4, 1, start))
    struct.pack_into("<I", data, at + 8, 0)
    path.write_bytes(data)
    assert np.array_equal(read_volume(path).frame(0), NOISE)
    with pytest.raises(OctcError) as error:
        read_volume(path).frame(1)
    assert error.value.code == "OCT-E222"


@pytest.mark.parametrize(("colours", "right"), [(251, True), (256, True), (250, False), (0, False)])
def test_a_palette_has_the_colours_of_all_pixels(colours: int, *, right: bool) -> None:
    """Without one Pillow takes the numbers for grey, and a colour that is missing for black."""
    rows = b"".join(b"\0" + row.tobytes() for row in PIXELS.reshape(48, 64))
    data = png_of(64, 48, 8, zlib.compress(rows), colour=3)
    body = bytes(255 - n // 3 for n in range(3 * colours))
    palette = struct.pack(">I", len(body)) + b"PLTE" + body + struct.pack(">I", zlib.crc32(b"PLTE" + body))
    data = data[:33] + (palette if colours else b"") + data[33:]
    if right:
        assert np.array_equal(np.asarray(decode_image(data, "scan.png").image)[..., 0], 255 - PIXELS.reshape(48, 64))
    else:
        assert refused(data).code == "OCT-E201"


@pytest.mark.parametrize("level", [0, 127, 128, 255])
@pytest.mark.parametrize("how", [{}, {"optimize": True}, {"progressive": True}], ids=str)
def test_a_flat_jpeg_is_whole(level: int, how: dict[str, Any]) -> None:
    """With codes of its own it is nothing but zeros, and its last block is of the grey of a missing one."""
    flat = encoded(Image.new("L", (700, 500), level), "JPEG", **how)
    assert np.ptp(np.asarray(decode_image(flat, "flat.jpg").image)) == 0


def test_what_lies_behind_the_end_of_a_jpeg_does_not_count() -> None:
    whole = encoded(GREY, "JPEG", quality=90)
    want = np.asarray(decode_image(whole, "a.jpg").image)
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + 40) + b"Exif\0\0" + b"\xff\xd8\xff\xd9" + bytes(30)
    for data in (whole + bytes(9000), whole + whole, whole + b"\xff" * 50, whole[:2] + thumbnail + whole[2:]):
        assert (np.asarray(decode_image(data, "a.jpg").image) == want).all()
    assert (np.asarray(decode_image(whole[:-2] + bytes(9000), "a.jpg").image) == want).all(), "all blocks are there"


@pytest.mark.parametrize(("depth", "colour", "bits"), [(1, 0, 1), (8, 0, 8), (16, 0, 16), (8, 2, 24), (16, 6, 64)])
@pytest.mark.parametrize("interlaced", [0, 1])
def test_a_png_whose_rows_end_too_early_is_refused(depth: int, colour: int, bits: int, interlaced: int) -> None:
    width, height = 61, 47
    passes = cut_off.ADAM7 if interlaced else ((0, 0, 1, 1),)
    sides = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    rows = [b"\0" + b"\xa5" * -(-columns * bits // 8) for columns, count in sides for _ in range(count)]

    def png(*parts: bytes) -> bytes:
        return png_of(width, height, depth, zlib.compress(b"".join(parts)), colour, interlaced)

    decode_image(png(*rows), "a.png")
    decode_image(png(*rows[:-9], *(bytes(len(row)) for row in rows[-9:])), "dark.png")
    for gone in (1, 9):
        assert refused(png(*rows[:-gone])).code == "OCT-E201", gone


def test_only_what_is_asked_for_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are black, and much more behind them."""
    rows = (b"\0" + bytes(64)) * 64
    data = png_of(64, 64, 8, zlib.compress(rows + bytes(20 << 20)))
    monkeypatch.setattr(cut_off, "PIECE", 1000)
    taken: list[int] = []
    real = zlib.decompressobj

    class Counted:
        def __init__(self) -> None:
            self.inner = real()

        def decompress(self, data: bytes, most: int) -> bytes:
            found = self.inner.decompress(data, most)
            taken.append(len(found))
            return found

        @property
        def unconsumed_tail(self) -> bytes:
            return self.inner.unconsumed_tail

    monkeypatch.setattr(cut_off.zlib, "decompressobj", Counted)
    decode_image(data, "a.png")
    assert len(rows) <= sum(taken) <= len(rows) + 1000


@pytest.mark.parametrize("padded", [False, True])
def test_a_frame_of_an_object_without_its_last_part_is_refused(padded: bool, tmp_path: Path) -> None:
    whole = encoded(GREY, "JPEG", quality=90)
    cut = whole[: len(whole) // 2] + (bytes(len(whole) // 2 - 2) if padded else b"") + b"\xff\xd9"
    path = stored(encapsulated(made([NOISE, NOISE]), [whole, cut], syntax="1.2.840.10008.1.2.4.50"), tmp_path)
    volume = read_volume(path)
    assert np.array_equal(volume.frame(0), np.asarray(decode_image(whole, "a.jpg").image))
    with pytest.raises(OctcError) as error:
        volume.frame(1)
    assert (error.value.code, "frame 1" in error.value.message) == ("OCT-E222", True)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_a_hole_in_a_run_length_frame_is_found(kind: str, tmp_path: Path) -> None:
    """Zeros are PackBits too, literals of one zero each: a decoder takes them. Behind the last pixel they are padding."""
    picture = NOISE.astype(kind) * (1 if kind == "u1" else 16)
    picture[20:60] = 0
    value = made([picture] * 31, bits=8 if kind == "u1" else 12, syntax=RLE)
    whole = next(generate_frames(value.PixelData, number_of_frames=31))
    holed = [whole[:at] + bytes(400) + whole[at + 400 :] for at in np.linspace(800, len(whole) - 800, 30).astype(int)]
    path = stored(encapsulated(value, [whole + bytes(400), *holed], syntax=RLE), tmp_path)
    volume, told = read_volume(path), []
    assert np.array_equal(volume.raw(0), picture)
    for index in range(1, 31):
        with pytest.raises(OctcError) as error:
            volume.frame(index)
        assert error.value.code == "OCT-E222"
        told.append("a hole of zeros" in error.value.message)
    assert any(told)  # the others have too few pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_what_a_caller_has_pillow_fill_in_is_refused_here_and_stays_so_for_the_caller(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Notebooks set it for pictures of their own: half a scan would be answered as a whole one."""
    whole = encoded(GREY, kind)
    for given in (True, False):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", given)
        with pytest.raises(OctcError) as caught:
            decode_image(whole[: len(whole) * 6 // 10], "half")
        assert caught.value.code == "OCT-E201"
        assert decode_image(whole, "whole").image.size == GREY.size
        assert ImageFile.LOAD_TRUNCATED_IMAGES is given


def test_threads_that_decode_put_it_back_when_the_last_one_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    entered, leave, seen = threading.Event(), threading.Event(), list[bool]()

    def other() -> None:
        with whole_only():
            entered.set()
            leave.wait(60)
            seen.append(ImageFile.LOAD_TRUNCATED_IMAGES)

    with whole_only():
        thread = threading.Thread(target=other)
        thread.start()
        assert entered.wait(60)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False, "the other one is at it still"
    leave.set()
    thread.join(60)
    assert (seen, ImageFile.LOAD_TRUNCATED_IMAGES) == ([False], True)
