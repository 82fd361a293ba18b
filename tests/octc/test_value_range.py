"""Stored grey values: the range of a set, a stated range in every kind of file, and WebP, against what the pixels are."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, features

from octc.core.errors import OctcError
from octc.datasets.audit import audit
from octc.datasets.image_facts import look_at_values
from octc.datasets.registry import scan_dataset
from octc.imaging.decode import decode_image, read_image
from octc.imaging.preprocess import Preprocess
from octc.imaging.value_range import StoredValues, value_range_of

RNG = np.random.default_rng(7)
TWELVE = RNG.integers(0, 4096, (48, 64), dtype=np.uint16)
TWELVE[0, :2] = 0, 4095


def ruled(values: npt.NDArray[np.generic], low: float, high: float) -> npt.NDArray[np.uint8]:
    """What a stated range makes of values, computed by itself."""
    return np.rint((np.clip(values.astype(np.float64), low, high) - low) * 255 / (high - low)).astype(np.uint8)


def saved(array: npt.NDArray[np.generic], kind: str, **words: object) -> bytes:
    stream = io.BytesIO()
    if kind == "TIFF":
        tifffile.imwrite(stream, array, **words)  # type: ignore[arg-type]
    else:
        Image.fromarray(array).save(stream, kind, **words)
    return stream.getvalue()


DEEP = {
    "png": saved(TWELVE, "PNG"),
    "tiff, little-endian": saved(TWELVE, "TIFF", photometric="minisblack"),
    "tiff, big-endian": saved(TWELVE, "TIFF", photometric="minisblack", byteorder=">"),
    "tiff, deflated": saved(TWELVE, "TIFF", photometric="minisblack", compression="zlib"),
    "tiff, 32 bits": saved(TWELVE.astype(np.uint32), "TIFF", photometric="minisblack"),
    "tiff, float": saved(TWELVE.astype(np.float32), "TIFF", photometric="minisblack"),
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("span", [(0.0, 4095.0), (500.0, 3000.0)])
def test_a_stated_range_counts_in_every_kind_of_deep_grey(name: str, span: tuple[float, float]) -> None:
    decoded = decode_image(DEEP[name], name, span)
    assert np.array_equal(np.asarray(decoded.image), ruled(TWELVE, *span))
    assert decoded.stored is not None
    assert decoded.stored[1:] == (0.0, 4095.0)


def test_white_is_0_is_turned_over_behind_the_range() -> None:
    data = saved(TWELVE, "TIFF", photometric="miniswhite")
    assert np.array_equal(np.asarray(decode_image(data, "x", (0, 4095)).image), 255 - ruled(TWELVE, 0, 4095))


def test_without_a_range_16_levels_are_left_and_that_is_said(tmp_path: Path) -> None:
    plain = np.asarray(decode_image(DEEP["png"], "x").image)
    assert len(np.unique(plain)) <= 17
    for kind in ("A", "B"):
        for n in range(4):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 4000, (48, 48), dtype=np.uint16)).save(tmp_path / "set" / kind / f"{n}.png")
    report = audit("folder", tmp_path / "set", near="off")
    (found,) = [one for one in report.warnings if one.code == "OCT-W223"]
    assert "17 of 256 grey levels" in found.message
    assert found.hint.startswith("--value-range 0,4095 ")
    assert report.values["uint16"]["images"] == 8
    stated = audit("folder", tmp_path / "set", near="off", values=(0, 4095))
    assert "OCT-W223" not in {one.code for one in stated.warnings}
    cut = audit("folder", tmp_path / "set", near="off", values=(0, 1000))
    assert any("cut off" in one.message for one in cut.warnings)
    samples = scan_dataset("folder", tmp_path / "set")
    assert [one.code for one in look_at_values(samples, None)] == ["OCT-W223"]
    assert look_at_values(samples, (0, 4095)) == []


@pytest.mark.parametrize(("kind", "low", "high", "levels", "proposed"), [
    ("uint16", 0, 4095, 17, (0, 4095)), ("uint16", 3, 1000, 5, (0, 1023)), ("uint16", 0, 255, 2, (0, 255)),
    ("uint16", 0, 16000, 63, (0, 16383)), ("uint16", 30000, 31000, 5, (30000, 31000)), ("uint8", 0, 15, 16, (0, 15)),
    ("float32", 0, 0.25, 65, (0, 0.25)),
])  # fmt: skip
def test_levels_and_the_range_that_is_proposed(
    kind: str, low: float, high: float, levels: int, proposed: tuple[float, float]
) -> None:
    one = StoredValues(5, low, high)
    assert one.levels(kind) == levels
    assert one.proposed == proposed


def test_float_images_that_are_scaled_each_by_its_own_maximum_are_named(tmp_path: Path) -> None:
    for n, kind in enumerate(("A", "B", "A", "B")):
        (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
        values = RNG.uniform(0, 100 + 50 * n, (48, 48)).astype(np.float32)
        tifffile.imwrite(tmp_path / "set" / kind / f"{n}.tif", values, photometric="minisblack")
    (found,) = [one for one in audit("folder", tmp_path / "set", near="off").warnings if one.code == "OCT-W223"]
    assert "each is scaled by its own values" in found.message


def test_8_bit_pictures_follow_a_range_that_ends_in_8_bits_alone() -> None:
    dark = RNG.integers(0, 16, (48, 48), dtype=np.uint8)
    for kind in ("PNG", "BMP", "TIFF"):
        data = saved(dark, kind, photometric="minisblack") if kind == "TIFF" else saved(dark, kind)
        assert np.array_equal(np.asarray(decode_image(data, kind, (0, 15)).image.convert("L")), ruled(dark, 0, 15))
        assert np.array_equal(np.asarray(decode_image(data, kind, (0, 4095)).image.convert("L")), dark)


def test_colour_of_16_bits_is_refused_where_a_range_is_stated() -> None:
    data = saved(np.dstack([TWELVE] * 3), "TIFF", photometric="rgb")
    assert decode_image(data, "x").image.mode == "RGB"
    with pytest.raises(OctcError) as caught:
        decode_image(data, "x", (0, 4095))
    assert caught.value.code == "OCT-E202"


def test_a_range_is_part_of_the_preprocessing() -> None:
    pre = Preprocess(64, value_range=(0.0, 4095.0))
    assert pre.to_json()["value_range"] == (0.0, 4095.0)
    assert Preprocess.from_json({**pre.to_json(), "value_range": [0, 4095]}) == pre
    assert "value_range" not in Preprocess(64).to_json()
    with pytest.raises(ValueError, match="lower one first"):
        Preprocess.from_json({**pre.to_json(), "value_range": [5, 5]})
    for text in ("4095", "5,5", "9,1", "a,b", "0,inf", ""):
        with pytest.raises(OctcError):
            value_range_of(text)


GREY = RNG.integers(0, 256, (48, 64), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)


def webp(array: npt.NDArray[np.uint8], **words: object) -> bytes:
    return saved(array, "WEBP", **words)


def test_lossless_webp_is_what_was_drawn() -> None:
    assert features.check("webp")
    assert np.array_equal(np.asarray(decode_image(webp(COLOUR, lossless=True), "x.webp").image), COLOUR)
    grey = decode_image(webp(GREY, lossless=True), "x.webp").image
    assert np.array_equal(np.asarray(grey.convert("L")), GREY)


@pytest.mark.parametrize("quality", [20, 80])
def test_lossy_webp_is_what_another_decoder_gives(quality: int) -> None:
    torch = pytest.importorskip("torch")
    other = pytest.importorskip("torchvision.io")
    smooth = np.kron(COLOUR[::8, ::8], np.ones((8, 8, 1), np.uint8))
    data = webp(smooth, quality=quality)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its move to torchcodec
        theirs = other.decode_webp(torch.frombuffer(bytearray(data), dtype=torch.uint8)).numpy().transpose(1, 2, 0)
    assert np.array_equal(np.asarray(decode_image(data, "x").image), theirs)


def test_transparent_webp_is_laid_over_black_and_an_orientation_is_applied() -> None:
    alpha = np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)
    layer = np.dstack([COLOUR, np.tile(alpha, (48, 1))])
    found = np.asarray(decode_image(webp(layer, lossless=True, exact=True), "x").image)
    assert np.array_equal(found, np.where(alpha[None, :, None] > 0, COLOUR, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_image(webp(COLOUR, lossless=True, exif=exif), "x")
    assert np.array_equal(np.asarray(turned.image), np.rot90(COLOUR, -1))
    assert [code for code, _ in turned.notes] == ["OCT-W208"]


def animated() -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(np.roll(COLOUR, n, 0)) for n in range(3)]
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def header(kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


HUGE = {
    "VP8X": header(b"VP8X", bytes(4) + (16382).to_bytes(3, "little") + (16382).to_bytes(3, "little")),
    "VP8L": header(b"VP8L", b"\x2f" + (16382 | 16382 << 14).to_bytes(4, "little") + bytes(20)),
    "VP8": header(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(20)),
}


@pytest.mark.parametrize(("data", "code"), [
    (animated(), "OCT-E204"), (webp(COLOUR)[:-40], "OCT-E201"), (webp(COLOUR)[: len(webp(COLOUR)) // 2], "OCT-E201"),
    (webp(COLOUR)[:14], "OCT-E201"), (webp(COLOUR[:20, :20]), "OCT-E208"), *((data, "OCT-E203") for data in HUGE.values()),
    (header(b"VP8L", b"\x2f" + bytes(30)), "OCT-E202"),
])  # fmt: skip
def test_webp_within_limits(data: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / "x.webp").write_bytes(data)
    with pytest.raises(OctcError) as caught:
        read_image(tmp_path / "x.webp")
    assert caught.value.code == code


def test_webp_in_a_data_set_counts_and_a_wrong_name_is_noted(tmp_path: Path) -> None:
    for kind in ("A", "B"):
        (tmp_path / kind).mkdir()
        for n in range(2):
            (tmp_path / kind / f"{n}.webp").write_bytes(webp(RNG.integers(0, 256, (48, 48), dtype=np.uint8), lossless=True))
    samples = scan_dataset("folder", tmp_path)
    assert len(samples.items) == 4
    (tmp_path / "x.png").write_bytes(webp(COLOUR))
    assert read_image(tmp_path / "x.png").notes[0][0] == "OCT-W201"
