"""Every file is decoded right or refused by name: never padded, never a black picture, never an unnamed error."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from octc.core.errors import OctcError
from octc.datasets.synthetic.bscans import draw_phantom
from octc.imaging.decode import decode_image, read_image
from tests.octc.pictures import encoded, outcome, png_of, refused


@pytest.fixture(scope="module")
def scan() -> Image.Image:
    return draw_phantom("DME", 1, 1, (256, 248))


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
from octc.core.errors import OctcError
from octc.imaging.decode import read_image
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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_who_limits_pixels_is_told_before_any_is_decoded_and_the_file_is_opened_once(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scan"
    path.write_bytes(encoded(Image.new("L", (120, 100)), kind))
    opened: list[object] = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda *words, **more: opened.append(words) or real(*words, **more))

    def too_many(pixels: int) -> None:
        raise OctcError("OCT-E911", f"{pixels} pixels", hint="none")

    with pytest.raises(OctcError, match="12000 pixels"):
        read_image(path, admit=too_many)
    assert len(opened) == (0 if kind == "WEBP" else 1)  # Pillow allocates a WebP to open it
    told: list[int] = []
    read_image(path, admit=told.append)
    assert set(told) == {12000}
