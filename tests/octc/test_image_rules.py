"""How pictures are converted: depths, channels, orientation, size; and what is noted about them."""

from __future__ import annotations

import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.datasets.synthetic.bscans import draw_phantom
from octc.imaging.decode import decode_image, read_image, read_size
from octc.imaging.preprocess import Preprocess, quality_notes
from tests.octc import tiffs
from tests.octc.pictures import codes, encoded, png_of, refused


@pytest.fixture(scope="module")
def scan() -> Image.Image:
    return draw_phantom("DME", 1, 1, (256, 248))


def test_d03_format_by_content(scan: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "scan.jpg"
    path.write_bytes(encoded(scan, "PNG"))
    decoded = read_image(path)
    assert [code for code, _ in decoded.notes] == ["OCT-W201"]
    np.testing.assert_array_equal(np.asarray(decoded.image), np.asarray(scan))


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


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_exif_orientation_is_applied_as_viewers_do(scan: Image.Image, turn: int) -> None:
    stored = {1: scan, 3: scan.rotate(180), 6: scan.rotate(90, expand=True), 8: scan.rotate(270, expand=True)}[turn]
    exif = Image.Exif()
    exif[0x0112] = turn
    for kind in ("PNG", "TIFF"):
        decoded = decode_image(encoded(stored, kind, exif=exif), f"scan.{kind.lower()}")
        np.testing.assert_array_equal(np.asarray(decoded.image), np.asarray(scan))
    assert codes(encoded(stored, "JPEG", exif=exif), "scan.jpg") == (["OCT-W208"] if turn > 1 else [])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_the_size_of_a_file_is_that_of_its_picture(kind: str, turn: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / "scan"
    Image.new("L", (96, 40), 80).save(path, kind, exif=exif)
    assert read_size(path) == decode_image(path.read_bytes(), "scan").image.size == ((40, 96) if turn > 4 else (96, 40))


def test_a_size_that_cannot_be_read_is_an_error_of_the_file(tmp_path: Path) -> None:
    for data in (b"", b"GIF89a" + bytes(20), png_of(40000, 40000, 8, b"")):
        (tmp_path / "scan.png").write_bytes(data)
        with pytest.raises((OSError, ValueError)):
            read_size(tmp_path / "scan.png")


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


def test_scale_and_shift_are_the_formula_of_the_normalisation() -> None:
    pre = Preprocess(4, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    scale, shift = (np.array(values) for values in pre.affine)
    np.testing.assert_allclose(51 * scale - shift, [(0.2 - 0.1) / 0.4, 0.0, (0.2 - 0.3) / 0.6], atol=1e-6)
    assert Preprocess.from_json(pre.to_json()) == pre


def test_header_alone_decides_the_size() -> None:
    """A header that promises little and data that is too short: refused as damaged, not padded."""
    assert refused(png_of(64, 64, 8, zlib.compress(bytes(1000)))).code == "OCT-E201"


def test_real_images_need_no_note(ucsd: Path) -> None:
    paths = sorted(ucsd.rglob("*.jpeg"))[::20]
    assert paths
    assert [note for path in paths for note in read_image(path).notes] == []


@pytest.mark.parametrize("bits", [8, 16])
def test_a_predictor_that_no_decoder_undoes_is_refused(bits: int) -> None:
    """libtiff passes over it where the compression is PackBits or none, tifffile undoes it: two pictures of one file."""
    values = np.arange(64 * 64).reshape(64, 64) % 200
    predictor = [(317, 3, [2])]
    for compression in (tiffs.NONE, tiffs.PACKBITS):
        decode_image(tiffs.tiff(values, 1, bits, compression=compression), "a.tif")
        error = refused(tiffs.tiff(values, 1, bits, compression=compression, tags=predictor))
        assert (error.code, "predictor" in error.message) == ("OCT-E202", True)
    decode_image(tiffs.tiff(values, 1, bits, compression=tiffs.DEFLATE, tags=predictor), "a.tif")
    decode_image(tiffs.tiff(values, 1, bits, tags=[(317, 3, [1])]), "a.tif")
