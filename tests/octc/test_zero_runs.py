"""Holes in streams whose codes are not read: JPEG 2000 and JPEG-LS in objects and volumes, WebP, strips and tiles of a TIFF."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian

from octc.core.errors import OctcError
from octc.datasets.synthetic import volumes as synthetic
from octc.datasets.synthetic.volumes import draw_eye_volume
from octc.imaging import zero_runs
from octc.imaging.decode import decode_image
from octc.volumes import read_volume
from octc.volumes.writing import JPEG_LS
from tests.octc.pictures import encoded, refused
from tests.octc.test_cut_off import COLOUR, GREY, NOISE
from tests.octc.volumes.opt_objects import encapsulated, made, stored

DEEP = Image.fromarray(NOISE.astype(np.uint16) * 16 + np.random.default_rng(5).integers(0, 16, NOISE.shape).astype(np.uint16))
FLAT = Image.new("L", (139, 91), 9)
EOC = b"\xff\xd9"
FORMS: tuple[dict[str, Any], ...] = (
    {},
    {"irreversible": True, "quality_mode": "rates", "quality_layers": [3]},
    {"quality_mode": "rates", "quality_layers": [9, 5, 2], "progression": "RPCL"},
    {"tile_size": (64, 64)},
    {"precinct_size": (64, 64)},
)


def codestream(picture: Image.Image, **how: Any) -> bytes:
    return encoded(picture, "JPEG2000", no_jp2=True, **how)


def holed(whole: bytes, at: int, size: int = 400) -> bytes:
    return whole[:at] + bytes(size) + whole[at + size :]


def code_of(path: Path, index: int) -> str:
    with pytest.raises(OctcError) as caught:
        read_volume(path).frame(index)
    return caught.value.code


@pytest.mark.parametrize("how", FORMS, ids=str)
def test_a_jpeg_2000_without_a_part_is_refused_in_an_object(how: dict[str, Any], tmp_path: Path) -> None:
    whole = codestream(GREY, **how)
    ruined = [holed(whole, at) for at in np.linspace(250, len(whole) - 500, 5).astype(int)]
    for at in (len(whole) // 3, len(whole) * 2 // 3):
        ruined += [
            whole[:at] + bytes(len(whole) - at - 2) + EOC,
            whole[:at] + EOC,
            whole[:at],
            whole[:at] + bytes(len(whole) - at),
        ]
    even = [one + b"\0" * (len(one) % 2) for one in (whole, *ruined)]
    path = stored(encapsulated(made([NOISE] * len(even)), even), tmp_path)
    assert read_volume(path).frame(0).shape == NOISE.shape
    assert {code_of(path, index) for index in range(1, len(even))} == {"OCT-E222"}


@pytest.mark.parametrize("how", FORMS, ids=str)
@pytest.mark.parametrize(
    "picture", [GREY, DEEP, FLAT, Image.fromarray(np.where(NOISE < 200, 0, NOISE))], ids=("grey", "deep", "flat", "dark")
)
def test_a_whole_jpeg_2000_is_whole(picture: Image.Image, how: dict[str, Any]) -> None:
    assert zero_runs.jpeg_2000_cut(codestream(picture, **how)) is None
    assert zero_runs.jpeg_2000_cut(encoded(picture, "JPEG2000", **how)) is None


def test_packets_without_anything_are_no_hole() -> None:
    """Of each of 2000 layers and 6 resolutions one that is a byte of zeros; a longer run is none of them."""
    main = struct.pack(">2H2x8IH3B", 0xFF51, 41, 64, 64, 0, 0, 64, 64, 0, 0, 1, 7, 1, 1)
    main += struct.pack(">2H2BH6B", 0xFF52, 12, 0, 0, 2000, 0, 5, 4, 4, 0, 1)[:14]
    for count, cut in ((12_000, False), (120_000, True)):
        part = struct.pack(">2HHI2BH", 0xFF90, 10, 0, 14 + count, 0, 1, 0xFF93) + bytes(count)
        assert (zero_runs.jpeg_2000_cut(b"\xff\x4f" + main + part + EOC) is not None) is cut


def test_a_hole_in_a_b_scan_of_topcon_is_refused(tmp_path: Path) -> None:
    drawn = draw_eye_volume("CNV", 3, "L", frames=4, size=(128, 96))
    data = synthetic.fda_bytes(drawn)
    starts = [at for at in range(len(data)) if data.startswith(zero_runs.CODESTREAM, at)]
    path = tmp_path / "a.fda"
    path.write_bytes(holed(data, starts[1] + (starts[2] - starts[1]) // 2, 300))
    volume = read_volume(path)
    assert np.array_equal(volume.frame(0), drawn.frames[0])
    assert code_of(path, 1) == "OCT-E222"
    assert np.array_equal(volume.frame(2), drawn.frames[2])


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_jpeg_ls_with_a_hole_is_refused_by_its_decoder(bits: int, tmp_path: Path) -> None:
    """Zeros are longer codes than there are."""
    kind = "u1" if bits == 8 else "u2"
    value = made([(NOISE.astype(int) * ((1 << bits) - 1) // 255).astype(kind)] * 6, bits=bits, syntax=JPEG_LS)
    whole = next(generate_frames(value.PixelData, number_of_frames=6))
    ruined = [holed(whole, at, 100) for at in np.linspace(100, len(whole) - 300, 4).astype(int)]
    cut = whole[: len(whole) // 4 * 2] + EOC
    path = stored(encapsulated(value, [whole, *ruined, cut], syntax=JPEG_LS), tmp_path)
    assert read_volume(path).frame(0).shape == NOISE.shape
    assert {code_of(path, index) for index in range(1, 6)} == {"OCT-E222"}


def test_a_deflated_object_with_a_hole_is_refused(tmp_path: Path) -> None:
    """It has no sum: what its pixels would be then has another length."""
    value = made([NOISE] * 3)
    value.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = stored(value, tmp_path)
    assert np.array_equal(read_volume(path).frame(2), NOISE)
    whole = path.read_bytes()
    for at in np.linspace(1500, len(whole) - 500, 12).astype(int):
        path.write_bytes(holed(whole, at, 100))
        with pytest.raises(OctcError) as caught:
            read_volume(path)
        assert caught.value.code in ("OCT-E222", "OCT-E226"), at
    value.add_new(0xFFFCFFFC, "OB", bytes(40))  # padding behind the pixels is allowed
    assert np.array_equal(read_volume(stored(value, tmp_path, "padded.dcm")).frame(1), NOISE)


@pytest.mark.parametrize("ending", ["jp2", "j2k"])
def test_a_jpeg_2000_alone_is_no_picture_that_is_read(ending: str) -> None:
    assert refused(encoded(GREY, "JPEG2000", no_jp2=ending == "j2k")).code == "OCT-E202"


@pytest.mark.parametrize("how", [{"quality": 80}, {"quality": 95, "method": 0}, {"lossless": True}], ids=str)
def test_a_webp_with_a_hole_is_refused(how: dict[str, Any]) -> None:
    for picture in (GREY, COLOUR):
        whole = encoded(picture, "WEBP", **how)
        decode_image(whole, "a.webp")
        for at in np.linspace(200, len(whole) - 700, 8).astype(int):
            assert refused(holed(whole, at)).code == "OCT-E201", at
        assert refused(whole[:2000] + bytes(len(whole) - 2000)).code == "OCT-E201"


@pytest.mark.parametrize("how", [{"quality": 80}, {"quality": 80, "method": 0}, {"lossless": True}], ids=str)
def test_large_flat_parts_of_a_webp_are_no_hole(how: dict[str, Any]) -> None:
    wide = np.zeros((700, 900), np.uint8)
    wide[300:391, 400:539] = NOISE
    for picture in (Image.fromarray(wide), Image.new("L", (900, 700), 0), Image.new("L", (900, 700), 128)):
        decode_image(encoded(picture, "WEBP", **how), "a.webp")


def tiled(picture: Image.Image, compression: str, side: int = 64) -> bytes:
    """A TIFF of tiles, each compressed as the one strip of a picture of its own."""
    parts, code = [], 0
    for top in range(0, picture.height, side):
        for left in range(0, picture.width, side):
            alone = encoded(picture.crop((left, top, left + side, top + side)), "TIFF", compression=compression)
            directory, order = struct.unpack_from("<I", alone, 4)[0], "<HHII"
            tags = {}
            for number in range(struct.unpack_from("<H", alone, directory)[0]):
                tag, kind, _, value = struct.unpack_from(order, alone, directory + 2 + 12 * number)
                tags[tag] = value & 0xFFFF if kind == 3 else value
            code = tags[259]
            parts.append(alone[tags[273] : tags[273] + tags[279]])
    body, places = bytearray(b"II*\0" + bytes(4)), []
    for part in parts:
        places.append(len(body))
        body += part
    lists = len(body)
    body += struct.pack(f"<{2 * len(parts)}I", *places, *map(len, parts))
    entries = [(256, picture.width), (257, picture.height), (258, 8), (259, code), (262, 1), (277, 1), (322, side), (323, side)]
    rows = [struct.pack("<2H2I", tag, 4, 1, value) for tag, value in entries]
    rows += [struct.pack("<2H2I", tag, 4, len(parts), lists + 4 * len(parts) * k) for k, tag in enumerate((324, 325))]
    struct.pack_into("<I", body, 4, len(body))
    return bytes(body) + struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4)


@pytest.mark.parametrize("compression", ["lzma", "zstd", "tiff_lzw", "tiff_adobe_deflate"])
def test_a_hole_in_a_tile_or_a_strip_is_found(compression: str, tmp_path: Path) -> None:
    square = GREY.resize((128, 128), Image.Resampling.BICUBIC)  # not so even that its tiles would be stored as they are
    for whole, want in (
        (tiled(square, compression), square), (encoded(GREY, "TIFF", compression=compression), GREY),
        (encoded(DEEP, "TIFF", compression=compression), None), (encoded(COLOUR, "TIFF", compression=compression), COLOUR),
    ):  # fmt: skip
        shown = np.asarray(decode_image(whole, "a.tif").image)
        assert want is None or np.array_equal(shown, np.asarray(want))
        for at in np.linspace(400, len(whole) - 900, 12).astype(int):
            assert refused(holed(whole, at, 300)).code == "OCT-E201", at
    path = tmp_path / "stack.tif"
    GREY.save(path, save_all=True, append_images=[GREY], compression=compression)
    data = path.read_bytes()
    path.write_bytes(holed(data, 3000))
    assert code_of(path, 0) == "OCT-E222"


@pytest.mark.parametrize("compression", ["lzma", "zstd", "tiff_lzw"])
def test_dark_and_flat_strips_are_whole(compression: str) -> None:
    dark = np.zeros((600, 800), np.uint8)
    dark[100:191, 300:439] = NOISE
    for picture in (dark, np.zeros((600, 800), np.uint8), dark.astype(np.uint16) * 256):
        found = np.asarray(decode_image(encoded(Image.fromarray(picture), "TIFF", compression=compression), "a.tif").image)
        assert np.array_equal(found == 0, picture == 0)


def test_pixels_that_zstandard_stores_as_they_are_may_be_black() -> None:
    """A block, or literals, without codes: zeros there are pixels."""
    raw = struct.pack("<I", zero_runs.MAGIC) + bytes([0x20, 200]) + (1 | 200 << 3).to_bytes(3, "little") + bytes(200)
    assert zero_runs.zstandard_cut(raw) is None
    literals = (200 << 4 | 1 << 2).to_bytes(2, "little") + bytes(200)  # of 12 bits
    body = literals + b"\0"  # no sequences
    block = struct.pack("<I", zero_runs.MAGIC) + bytes([0x20, 200]) + (1 | 2 << 1 | len(body) << 3).to_bytes(3, "little") + body
    assert zero_runs.zstandard_cut(block) is None
    empty = struct.pack("<I", zero_runs.MAGIC) + bytes([0x20, 200]) + bytes(90)
    assert zero_runs.zstandard_cut(empty) is not None
