"""Every file is decoded right or refused by name: never padded, never a black picture, never an unnamed error."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from octc.datasets.phantom import draw_phantom
from octc.errors import OctcError
from octc.image import Preprocess, decode_image, quality_notes, read_image


@pytest.fixture(scope="module")
def scan() -> Image.Image:
    return draw_phantom("DME", 1, 1, (256, 248))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def refused(data: bytes) -> OctcError:
    with pytest.raises(OctcError) as caught:
        decode_image(data, "scan")
    assert caught.value.mend
    assert caught.value.place == "scan"
    return caught.value


def outcome(data: bytes) -> tuple[str | None, np.ndarray | None]:
    """The code it was refused with, or its pixels."""
    try:
        return None, np.asarray(decode_image(data, "scan").image)
    except OctcError as error:
        return error.code, None


def codes(data: bytes, name: str = "scan.png") -> list[str]:
    return [code for code, _ in decode_image(data, name).notes]


def png_of(width: int, height: int, bits: int, packed: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_d01_empty_file_is_refused() -> None:
    assert refused(b"").code == "OCT-E201"


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99, 0.999])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
    ],
)
def test_d02_cut_off_is_refused_or_whole(scan: Image.Image, kind: str, options: dict[str, object], share: float) -> None:
    data = encoded(scan, kind, **options)
    whole = np.asarray(decode_image(data, "scan").image)
    cut = data[: int(len(data) * share)]
    code, got = outcome(cut)
    if code is None:  # only what came after the pixels is missing (a TIFF directory lies first or last)
        assert share > 0.99
        np.testing.assert_array_equal(got, whole)
    else:
        assert code in {"OCT-E201", "OCT-E202"}


def test_d02_tail_of_zeros_is_refused(scan: Image.Image) -> None:
    """What a download leaves that reserved its length first."""
    for kind in ("JPEG", "PNG"):
        data = encoded(scan, kind)
        assert refused(data[: len(data) * 9 // 10] + bytes(len(data) // 10)).code == "OCT-E201"


def test_d02_altered_byte_of_a_png_is_refused(scan: Image.Image) -> None:
    data = bytearray(encoded(scan, "PNG"))
    data[len(data) // 2] ^= 0x10
    assert refused(bytes(data)).code == "OCT-E201"


def test_d03_format_by_content(scan: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "scan.jpg"
    path.write_bytes(encoded(scan, "PNG"))
    decoded = read_image(path)
    assert [code for code, _ in decoded.notes] == ["OCT-W201"]
    np.testing.assert_array_equal(np.asarray(decoded.image), np.asarray(scan))


@pytest.mark.parametrize("data", [b"<html><body>404</body></html>", b"Not found\n", b"GIF89a" + bytes(100), bytes(5000)])
def test_d04_not_an_image(data: bytes) -> None:
    error = refused(data)
    assert error.code == "OCT-E202"
    assert "image" in error.message


def test_d04_unreadable_paths_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for name in ("absent.png", "folder.png"):
        with pytest.raises(OctcError) as caught:
            read_image(tmp_path / name)
        assert caught.value.code == "OCT-E201"
        assert name in str(caught.value.place)


BOMB = """
import re, sys
from pathlib import Path
from octc.errors import OctcError
from octc.image import read_image
try:
    read_image(Path(sys.argv[1]))
except OctcError as error:
    print(error.code, error.message)
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""  # VmHWM and not ru_maxrss, which a child inherits from whoever started it


@pytest.mark.parametrize("sides", [(30_000, 30_000), (10_000, 9_000)])
def test_d05_bomb_is_refused_from_its_header(sides: tuple[int, int], tmp_path: Path) -> None:
    """A valid picture of that many black pixels in a small file; above and below Pillow's own limit."""
    path = tmp_path / "bomb.png"
    packer = zlib.compressobj(1)
    row = bytes(1 + (sides[0] + 7) // 8)  # filter byte, one bit per pixel
    packed = b"".join(packer.compress(row * 100) for _ in range(sides[1] // 100)) + packer.flush()
    path.write_bytes(png_of(*sides, bits=1, packed=packed))
    assert path.stat().st_size < 2 << 20
    done = subprocess.run([sys.executable, "-c", BOMB, str(path)], capture_output=True, text=True, check=True, timeout=60)
    said, peak = done.stdout.strip().splitlines()
    assert said.startswith("OCT-E203")
    assert int(peak) < 300 * 1024


def test_d05_the_bomb_would_decode_if_it_were_small() -> None:
    """The hand-made PNG above is a real one."""
    data = png_of(64, 64, bits=1, packed=zlib.compress(bytes(9) * 64))
    assert decode_image(data, "scan").image.size == (64, 64)


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
def test_d05_bomb_in_metadata_is_refused_or_passed_over(kind: str, scan: Image.Image) -> None:
    packed = zlib.compress(bytes(200 << 20), 9)
    body = {"zTXt": b"a\0\0", "iTXt": b"a\0\1\0\0\0", "iCCP": b"a\0\0"}[kind] + packed
    chunk = struct.pack(">I", len(body)) + kind.encode() + body + struct.pack(">I", zlib.crc32(kind.encode() + body))
    data = encoded(scan, "PNG")
    assert refused(data[:33] + chunk + data[33:]).code in {"OCT-E201", "OCT-E202"}


def test_d05_large_plain_profile_is_no_obstacle(scan: Image.Image) -> None:
    data = encoded(scan, "JPEG", icc_profile=bytes(300_000), quality=95)
    assert decode_image(data, "scan").image.size == scan.size


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_d07_16_bit_is_scaled(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    decoded = decode_image(encoded(Image.fromarray(ramp), kind), f"scan.{kind.lower()}")
    got = np.asarray(decoded.image)
    assert decoded.image.mode == "L"
    np.testing.assert_array_equal(got, np.rint(ramp * (255 / 65535)).astype(np.uint8))
    assert len(np.unique(got)) == 256  # nothing is clipped
    assert [code for code, _ in decoded.notes] == ["OCT-W208"]


def test_d07_32_bit_float_and_signed_ranges() -> None:
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    for values, low, high in ((ramp, 0, 255), (ramp * 4000, 0, 255), (ramp * 2 - 1, 0, 255), (ramp * 0.5, 0, 128)):
        got = np.asarray(decode_image(encoded(Image.fromarray(values), "TIFF"), "scan.tiff").image)
        assert (int(got.min()), int(got.max())) == (low, high)
    large = (ramp * 1e6).astype(np.int32)
    got = np.asarray(decode_image(encoded(Image.fromarray(large), "TIFF"), "scan.tiff").image)
    assert (int(got[0, 0]), int(got[-1, -1])) == (0, 255)
    broken = ramp.copy()
    broken[3, 3] = np.nan
    assert refused(encoded(Image.fromarray(broken), "TIFF")).code == "OCT-E201"


def test_d08_alpha_palette_cmyk_and_1_bit(scan: Image.Image) -> None:
    grey = np.asarray(scan)
    layer = scan.convert("RGBA")
    layer.putalpha(Image.fromarray(np.where(np.arange(256)[None] < 128, 255, 0).astype(np.uint8).repeat(248, 0)))
    laid = decode_image(encoded(layer, "PNG"), "scan.png")
    np.testing.assert_array_equal(np.asarray(laid.image)[:, :128, 0], grey[:, :128])
    assert not np.asarray(laid.image)[:, 128:].any()  # what was transparent is black, not what lay hidden under it
    palette = decode_image(encoded(scan.convert("P"), "PNG"), "scan.png")
    assert np.abs(np.asarray(palette.image.convert("L")).astype(int) - grey).max() <= 1
    cmyk = decode_image(encoded(scan.convert("CMYK"), "JPEG", quality=95), "scan.jpg")
    assert np.abs(np.asarray(cmyk.image.convert("L")).astype(int) - grey).mean() < 6
    bits = decode_image(encoded(scan.convert("1"), "PNG"), "scan.png")
    assert set(np.unique(np.asarray(bits.image))) == {0, 255}
    for decoded in (laid, palette, cmyk, bits):
        assert decoded.image.mode in {"L", "RGB"}
        assert [code for code, _ in decoded.notes] == ["OCT-W208"]


@pytest.mark.parametrize("sides", [(1, 1), (3, 4000), (31, 31), (600, 32)])
def test_d10_outside_the_quality_gate(sides: tuple[int, int]) -> None:
    error = refused(encoded(Image.new("L", sides), "PNG"))
    assert error.code == "OCT-E208"
    assert f"{sides[0]} x {sides[1]} px" in error.message


def test_d11_black_and_constant_pictures_are_noted() -> None:
    def note(value: int) -> str | None:
        return quality_notes(np.full((1, 1, 64, 64), value, np.uint8))

    assert "constant" in str(note(0))
    assert "constant" in str(note(128))
    specks = np.zeros((1, 1, 64, 64), np.uint8)
    specks[0, 0, 0, :3] = 200
    assert "black" in str(quality_notes(specks))


def test_d11_a_scan_is_not_noted(scan: Image.Image) -> None:
    assert quality_notes(Preprocess(96).prepare(scan)) is None


def test_d13_several_frames_are_refused(scan: Image.Image) -> None:
    other = scan.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for kind in ("TIFF", "PNG"):
        error = refused(encoded(scan, kind, save_all=True, append_images=[other]))
        assert error.code == "OCT-E204"
        assert "2 frames" in error.message


def test_d13_tiff_whose_directories_form_a_loop_ends() -> None:
    data = bytearray(encoded(Image.new("L", (64, 64), 9), "TIFF"))
    start = struct.unpack("<I", data[4:8])[0]
    entries = struct.unpack("<H", data[start : start + 2])[0]
    data[start + 2 + 12 * entries : start + 6 + 12 * entries] = struct.pack("<I", start)
    done: list[object] = []

    def decode() -> None:
        try:
            done.append(decode_image(bytes(data), "scan"))
        except OctcError as error:
            done.append(error.code)

    worker = threading.Thread(target=decode, daemon=True)
    worker.start()
    worker.join(10)
    assert done


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_exif_orientation_is_applied_as_viewers_do(scan: Image.Image, turn: int) -> None:
    stored = {1: scan, 3: scan.rotate(180), 6: scan.rotate(90, expand=True), 8: scan.rotate(270, expand=True)}[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    for kind in ("PNG", "TIFF"):
        decoded = decode_image(encoded(stored, kind, exif=exif), f"scan.{kind.lower()}")
        np.testing.assert_array_equal(np.asarray(decoded.image), np.asarray(scan))
    assert codes(encoded(stored, "JPEG", exif=exif), "scan.jpg") == (["OCT-W208"] if turn > 1 else [])


def test_broken_metadata_does_not_cost_the_picture(scan: Image.Image) -> None:
    data = encoded(scan, "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 40)
    assert decode_image(data, "scan.jpg").notes == ()


def test_text_chunks_do_not_reach_the_picture(scan: Image.Image) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("PatientName", "someone")
    assert "PatientName" not in decode_image(encoded(scan, "PNG", pnginfo=info), "scan.png").image.info


def test_altered_bytes_never_raise_anything_else(scan: Image.Image) -> None:
    """2,000 damaged files of seven kinds: each is decoded, or refused with a code."""
    small = scan.resize((64, 62))
    deep = Image.fromarray(np.asarray(small).astype(np.uint16) * 257)
    kinds = [
        encoded(small, "JPEG"), encoded(small, "JPEG", progressive=True), encoded(small, "PNG"), encoded(deep, "PNG"),
        encoded(small, "TIFF"), encoded(small, "TIFF", compression="tiff_adobe_deflate"), encoded(small, "BMP"),
    ]  # fmt: skip
    rng = random.Random(0)
    outcomes = {"decoded": 0, "refused": 0}
    for turn in range(2000):
        data = bytearray(kinds[turn % len(kinds)])
        for _ in range(rng.choice([1, 1, 3, 20])):
            data[rng.randrange(min(len(data), 200) if turn % 2 else len(data))] = rng.randrange(256)
        try:
            decode_image(bytes(data), "scan")
            outcomes["decoded"] += 1
        except OctcError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 200


def test_threads_leave_the_warnings_filter_as_it_was(scan: Image.Image) -> None:
    data = encoded(scan, "PNG")
    before = list(warnings.filters)
    workers = [threading.Thread(target=lambda: [decode_image(data, "scan") for _ in range(20)]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert list(warnings.filters) == before


def test_prepare_gives_what_a_graph_takes(scan: Image.Image) -> None:
    views = ("identity", "hflip", "vflip", "zoom", "rotate5")
    batch = Preprocess(96).prepare(scan, views)
    assert batch.shape == (5, 1, 96, 96)
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch[1], batch[0][:, :, ::-1])
    np.testing.assert_array_equal(batch[2], batch[0][:, ::-1])
    assert Preprocess(96, channels=3).prepare(scan).shape == (1, 3, 96, 96)


def test_normalise_is_the_formula() -> None:
    pre = Preprocess(4, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    got = pre.normalise(np.full((1, 1, 4, 4), 51, np.uint8))
    np.testing.assert_allclose(got[0, :, 0, 0], [(0.2 - 0.1) / 0.4, 0.0, (0.2 - 0.3) / 0.6], atol=1e-6)
    assert Preprocess.from_json(pre.to_json()) == pre


def test_header_alone_decides_the_size() -> None:
    """A header that promises little and data that is too short: refused as damaged, not padded."""
    assert refused(png_of(64, 64, 8, zlib.compress(bytes(1000)))).code == "OCT-E201"


def test_real_images_need_no_note(ucsd: Path) -> None:
    paths = sorted(ucsd.rglob("*.jpeg"))[::20]
    assert paths
    assert [note for path in paths for note in read_image(path).notes] == []
