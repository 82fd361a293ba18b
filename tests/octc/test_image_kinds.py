"""Every photometric interpretation, depth, sign, byte order and compression against numbers that were written beforehand.

A file is read as it is meant, or refused with E202: never upside down in grey, never wrapped, never with turned bytes.
"""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from octc.core.errors import OctcError
from octc.imaging.decode import decode_image, read_image
from octc.volumes import read_volume
from tests.octc.pictures import encoded, outcome
from tests.octc.tiffs import DEFLATE, NONE, PACKBITS, bmp, png, tiff

Array = npt.NDArray[Any]
H, W = 40, 48
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
GREYS = [
    (1, UNSIGNED), (2, UNSIGNED), (4, UNSIGNED), (6, UNSIGNED), (8, UNSIGNED), (8, SIGNED), (10, UNSIGNED), (12, UNSIGNED),
    (14, UNSIGNED), (16, UNSIGNED), (16, SIGNED), (16, FLOAT), (32, UNSIGNED), (32, SIGNED), (32, FLOAT), (64, UNSIGNED),
    (64, FLOAT),
]  # fmt: skip
TOPS = {12: 4095.0, 16: 65535.0, 32: 65535.0}  # what becomes white at least; of 8 bits and fewer, and of floats, below


def numbers(bits: int, form: int) -> Array:
    """A ramp [H, W] over the whole type, float64 (exact: the steps of 64 bits are coarse)."""
    ramp = np.linspace(0, 1, H * W).reshape(H, W)
    if form == FLOAT:
        return (ramp * 2 - 0.5).astype(np.float32).astype(np.float64)
    if form == SIGNED:
        return np.rint((ramp * 2 - 1) * (2 ** (bits - 1) - 1))
    return np.floor(ramp * (2**bits - 1) + 0.5) if bits < 64 else np.floor(ramp * 2**52) * 2**11


def grey_expected(values: Array, bits: int, form: int, photometric: int) -> Array:
    """The documented rule: zero or the lowest value is black, the type's end or the highest value is white."""
    top = 1.0 if form == FLOAT else TOPS.get(bits, 2.0**bits - 1)
    low, high = min(0.0, values.min()), max(values.max(), top)
    found = np.rint((values - low) * (255 / (high - low))).astype(np.uint8)
    return 255 - found if photometric == 0 else found


def grey_of(data: bytes) -> Array | str:
    """The pixels [H, W], or the code of the refusal."""
    try:
        found = np.asarray(decode_image(data, "scan.tiff").image)
    except OctcError as error:
        return error.code
    assert found.ndim == 2
    return found


@pytest.mark.parametrize(("bits", "form"), GREYS)
def test_grey_tiff_of_every_kind_is_right_or_refused(bits: int, form: int) -> None:
    values, read = numbers(bits, form), set()
    typed = values.astype({UNSIGNED: np.uint64, SIGNED: np.int64, FLOAT: np.float64}[form])
    for photometric, order, compression, reverse in product((0, 1), "<>", (NONE, DEFLATE, PACKBITS), (False, True)):
        data = tiff(typed, photometric, bits, form, order, compression=compression, reverse=reverse)
        if bits in (8, 32) and not reverse:  # the oracle reads what was meant; other depths it needs more packages for
            np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)).astype(np.float64), values)
        found = grey_of(data)
        if isinstance(found, str):
            assert found == "OCT-E202"
            continue
        np.testing.assert_array_equal(found, grey_expected(values, bits, form, photometric), (photometric, order, compression))
        read.add((photometric, order, compression, reverse))
    for kind in product((0, 1), "<>", (NONE, DEFLATE, PACKBITS)):
        if (bits, form) in ((1, UNSIGNED), (2, UNSIGNED), (4, UNSIGNED), (8, UNSIGNED), (32, FLOAT)) or (
            (bits, form) == (16, UNSIGNED) and (kind[0] == 1 or kind[1] == "<")
        ):
            assert (*kind, False) in read


def test_16_bit_tiff_in_which_0_is_white_is_not_upside_down(tmp_path: Path) -> None:
    """As tifffile, ImageJ and scanners write it."""
    values = numbers(16, UNSIGNED).astype(np.uint16)
    kinds: dict[str, dict[str, Any]] = {"plain": {}, "packed": {"compression": "zlib"}, "tiles": {"tile": (32, 32)}}
    for name, options in kinds.items():
        path = tmp_path / f"{name}.tiff"
        tifffile.imwrite(path, values, photometric="miniswhite", byteorder="<", **options)
        found = read_image(path)
        np.testing.assert_array_equal(np.asarray(found.image), 255 - np.rint(values * (255 / 65535)).astype(np.uint8))
        assert "0 is white" in found.notes[0][1]
    eight = np.rint(values / 257).astype(np.uint8)
    tifffile.imwrite(tmp_path / "eight.tiff", eight, photometric="miniswhite")
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "eight.tiff").image), 255 - eight)


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_tiff_that_does_not_say_whether_0_is_white_is_refused(bits: int) -> None:
    with pytest.raises(OctcError) as caught:
        decode_image(tiff(numbers(bits, UNSIGNED), None, bits), "scan.tiff")
    assert caught.value.code == "OCT-E202"
    assert "PhotometricInterpretation" in caught.value.message
    assert caught.value.hint


def test_what_cannot_be_read_is_named() -> None:
    """Not "not an image": it is one, and another program can turn it into one that is read here."""
    for data, words in (
        (tiff(numbers(16, UNSIGNED), 0, 16, order=">"), ("0 is white", "16 bits", "big-endian")),
        (tiff(numbers(64, FLOAT), 1, 64, FLOAT), ("64 bits", "float")),
        (tiff(colours(3), 8), ("CIELab",)),
    ):
        with pytest.raises(OctcError) as caught:
            decode_image(data, "scan.tiff")
        assert caught.value.code == "OCT-E202"
        assert all(word in caught.value.message for word in words)
        assert "save it as" in caught.value.hint


def test_signed_bytes_that_are_never_negative_are_what_they_were() -> None:
    values = np.rint(numbers(8, UNSIGNED) / 2.01)
    np.testing.assert_array_equal(grey_of(tiff(values, 1, 8, SIGNED)), values.astype(np.uint8))


def colours(count: int, bits: int = 8) -> Array:
    """Ramps [H, W, count] that differ from channel to channel."""
    ramp = np.floor(np.linspace(0, 1, H * W) * (2**bits - 1) + 0.5).reshape(H, W)
    return np.stack([np.roll(ramp, 7 * k, axis=1)[:: -1 if k == 1 else 1] for k in range(count)], -1).astype(np.uint64)


def of_cmyk(inks: Array) -> Array:
    return np.rint((255 - inks[..., :3]) * (255 - inks[..., 3:4]) / 255)


def of_ycbcr(values: Array) -> Array:
    y, blue, red = (values[..., k].astype(np.float64) for k in range(3))
    rgb = np.stack(
        [y + 1.402 * (red - 128), y - 0.344136 * (blue - 128) - 0.714136 * (red - 128), y + 1.772 * (blue - 128)], -1
    )
    return np.clip(np.rint(rgb), 0, 255)


def laid(values: Array) -> Array:
    return np.rint(values[..., :-1] * values[..., -1:] / 255)


YCBCR = [(530, 3, [1, 1])]  # YCbCr: a colour for each pixel
COLOURS: dict[str, tuple[int, int, tuple[int, ...], Any, int]] = {
    "RGB": (2, 3, (), lambda v: v, 0), "RGB and more": (2, 4, (0,), lambda v: v[..., :3], 0),
    "RGBA": (2, 4, (2,), laid, 1), "RGBA, premultiplied": (2, 4, (1,), lambda v: v[..., :3], 1),
    "RGBA unsaid": (2, 4, (), laid, 1),
    "grey and more": (1, 2, (0,), lambda v: v[..., :1], 0), "grey, alpha": (1, 2, (2,), laid, 1),
    "grey, alpha, premultiplied": (1, 2, (1,), lambda v: v[..., :1], 1),
    "0 is white and more": (0, 2, (0,), lambda v: 255 - v[..., :1], 0),
    "CMYK": (5, 4, (), of_cmyk, 1), "CMYK and more": (5, 5, (0,), of_cmyk, 1), "YCbCr": (6, 3, (), of_ycbcr, 2),
    "CIELab": (8, 3, (), None, 0), "mask": (4, 1, (), None, 0), "ICCLab": (9, 3, (), None, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", COLOURS)
def test_colour_tiff_of_every_kind_is_right_or_refused(name: str) -> None:
    photometric, count, extra, rule, slack = COLOURS[name]
    read = set()
    for bits, order, compression, separate, reverse in product(
        (8, 16), "<>", (NONE, DEFLATE, PACKBITS), (False, True), (False, True)
    ):  # fmt: skip
        values = colours(count, bits)
        if 1 in extra:  # no colour above its alpha
            values[..., -1] = 2**bits - 1 - values[..., 0] // 4
            values = np.minimum(values, values[..., -1:])
        tags = YCBCR if photometric == 6 else []
        data = tiff(
            values, photometric, bits, order=order, compression=compression, separate=separate, reverse=reverse, extra=extra,
            tags=tags,
        )  # fmt: skip
        code, pixels = outcome(data)
        if pixels is None:
            assert code == "OCT-E202", (bits, order, compression, separate, reverse)
            continue
        found = pixels.astype(int)
        assert rule is not None
        expected = rule(values / (1 if bits == 8 else 257.0))
        found = found if found.ndim == 3 else found[..., None]
        far = np.abs(found - expected).max()
        assert far <= slack + (bits == 16), (bits, order, compression, separate, reverse, far)
        read.add((bits, order, compression, separate))
    if name in ("RGB", "CMYK"):
        assert {(8, o, c, s) for o, c, s in product("<>", (NONE, DEFLATE, PACKBITS), (False, True))} <= read
    assert bool(read) == (rule is not None)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_tiff(bits: int) -> None:
    rng = np.random.default_rng(bits)
    table = rng.integers(0, 65536, (3, 2**bits))
    values = numbers(bits, UNSIGNED).astype(int)
    for order, compression, reverse in product("<>", (NONE, DEFLATE, PACKBITS), (False, True)):
        data = tiff(
            values, 3, bits, order=order, compression=compression, reverse=reverse, tags=[(320, 3, table.ravel().tolist())]
        )
        if reverse and compression == NONE and isinstance(code := outcome(data)[0], str):
            assert code == "OCT-E202"
            continue
        found = np.asarray(decode_image(data, "scan.tiff").image)
        np.testing.assert_array_equal(found, (table[:, values] // 256).transpose(1, 2, 0))
    small = [(320, 3, (table // 256).ravel().tolist())]  # 8-bit entries where TIFF has 16-bit ones: all would be black
    with pytest.raises(OctcError) as caught:
        decode_image(tiff(values, 3, bits, tags=small), "scan.tiff")
    assert caught.value.code == "OCT-E202"


def test_ycbcr_tiff_that_is_not_plain_is_refused() -> None:
    wide = [(532, 5, [15, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1])]  # black at 15, white at 235
    for tags in ([], [(530, 3, [2, 1])], [*YCBCR, *wide]):
        with pytest.raises(OctcError) as caught:
            decode_image(tiff(colours(3), 6, tags=tags), "scan.tiff")
        assert caught.value.code == "OCT-E202"


@pytest.mark.parametrize("kind", ["L", "RGB", "1", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
def test_compressions_keep_the_grey(kind: str, compression: str) -> None:
    if (compression == "jpeg" and kind not in ("L", "RGB")) or (compression == "group4" and kind != "1"):
        return
    ramp = np.tile(np.linspace(0, 255, W).round().astype(np.uint8), (H, 1))
    plain = Image.fromarray(ramp.astype(np.uint16) * 257) if kind == "I;16" else Image.fromarray(ramp).convert(kind)
    plain = Image.fromarray(ramp.astype(np.float32) / 255) if kind == "F" else plain
    found = np.asarray(decode_image(encoded(plain, "TIFF", compression=compression), "scan.tiff").image.convert("L")).astype(
        int
    )
    wanted = np.asarray(plain.convert("L")) if kind == "1" else ramp
    assert np.abs(found - wanted).max() <= (4 if compression == "jpeg" else 1)


TURNED: dict[int, Any] = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1], 7: lambda a: a.T[::-1, ::-1], 8: lambda a: a.T[::-1],
}  # fmt: skip


@pytest.mark.parametrize("turn", TURNED)
def test_orientation_of_deep_and_of_turned_over_tiffs(turn: int) -> None:
    values = numbers(16, UNSIGNED)
    found = grey_of(tiff(values, 0, 16, tags=[(274, 3, [turn])]))
    np.testing.assert_array_equal(found, TURNED[turn](grey_expected(values, 16, UNSIGNED, 0)))


def rgb_of(data: bytes, name: str) -> Array:
    return np.asarray(decode_image(data, name).image.convert("RGB")).astype(int)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_grey_and_its_transparent_value(bits: int) -> None:
    values = numbers(bits, UNSIGNED).astype(int)
    grey = np.rint(values * (255 / (2**bits - 1)))
    np.testing.assert_array_equal(rgb_of(png(values, 0, bits), "a.png"), np.stack([grey] * 3, -1))
    key = int(values[H // 2, 0])
    seen = np.where(values == key, 0, grey)
    assert (seen != grey).any()
    data = png(values, 0, bits, key.to_bytes(2, "big"))
    np.testing.assert_array_equal(rgb_of(data, "a.png"), np.stack([seen] * 3, -1))
    assert "black" in decode_image(data, "a.png").notes[0][1]


def test_png_colours_and_their_transparent_colour() -> None:
    values = colours(3).astype(int)
    key = values[H // 2, 5]
    seen = np.where((values == key).all(-1, keepdims=True), 0, values)
    assert (seen != values).any()
    np.testing.assert_array_equal(rgb_of(png(values, 2, 8), "a.png"), values)
    name = b"".join(int(part).to_bytes(2, "big") for part in key)
    np.testing.assert_array_equal(rgb_of(png(values, 2, 8, name), "a.png"), seen)
    deep = colours(3, 16).astype(int)
    assert np.abs(rgb_of(png(deep, 2, 16), "a.png") - deep / 257).max() <= 1
    with pytest.raises(OctcError) as caught:
        decode_image(png(deep, 2, 16, name), "a.png")
    assert caught.value.code == "OCT-E202"


@pytest.mark.parametrize("bits", [8, 16])
def test_png_alpha_is_laid_over_black(bits: int) -> None:
    for colour, count in ((4, 2), (6, 4)):
        values = colours(count, bits).astype(int)
        expected = laid(values / (1 if bits == 8 else 257.0))
        assert np.abs(rgb_of(png(values, colour, bits), "a.png") - expected).max() <= (1 if bits == 8 else 2)


EXACT = {"WEBP": {"lossless": True, "exact": True}}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_picture_that_is_transparent_everywhere_is_no_black_one(kind: str, mode: str) -> None:
    """Programs differ in whether they show the picture under it."""
    grey = Image.fromarray(numbers(8, UNSIGNED).astype(np.uint8))
    picture = grey.convert(mode)
    picture.putalpha(0)
    assert outcome(encoded(picture, kind, **EXACT.get(kind, {})))[0] == "OCT-E202"
    alpha = Image.new("L", picture.size, 0)
    alpha.putpixel((5, 5), 255)  # one pixel that is meant to be seen: all others are black
    picture.putalpha(alpha)
    found = np.asarray(decode_image(encoded(picture, kind, **EXACT.get(kind, {})), "a").image)
    assert found[5, 5].max() == np.asarray(grey)[5, 5]
    assert found.sum() == found[5, 5].sum()


def test_a_palette_that_is_transparent_everywhere_is_no_black_picture() -> None:
    picture = Image.fromarray(numbers(8, UNSIGNED).astype(np.uint8)).convert("P")
    assert outcome(encoded(picture, "PNG", transparency=bytes(256)))[0] == "OCT-E202"
    assert outcome(encoded(picture, "PNG", transparency=bytes(255) + b"\xff"))[0] is None


@pytest.mark.parametrize("downwards", [False, True])
def test_bmp_with_a_mask_of_transparency_that_was_never_set(downwards: bool) -> None:
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    for alpha in (0, 255):
        four = np.concatenate([colours(3), np.full((H, W, 1), alpha, np.uint64)], -1)
        data = bmp(four, 32, downwards=downwards, masks=masks)
        if alpha:
            np.testing.assert_array_equal(rgb_of(data, "a.bmp"), colours(3))
            continue
        assert outcome(data)[0] == "OCT-E202"


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_palettes(bits: int) -> None:
    rng = np.random.default_rng(bits)
    table, alpha = rng.integers(0, 256, (2**bits, 3)), rng.integers(0, 256, 2**bits)
    values = numbers(bits, UNSIGNED).astype(int)
    palette = table.astype(np.uint8).tobytes()
    np.testing.assert_array_equal(rgb_of(png(values, 3, bits, palette=palette), "a.png"), table[values])
    found = rgb_of(png(values, 3, bits, alpha.astype(np.uint8).tobytes(), palette), "a.png")
    assert np.abs(found - table[values] * alpha[values][..., None] / 255).max() <= 1


@pytest.mark.parametrize("downwards", [False, True])
def test_bmp_of_every_depth(downwards: bool) -> None:
    rng = np.random.default_rng(0)
    for bits in (1, 4, 8):
        values = numbers(bits, UNSIGNED).astype(int)
        grey = np.repeat(np.linspace(0, 255, 2**bits).round()[:, None], 3, 1).astype(int)
        for palette in (grey, grey[::-1], rng.integers(0, 256, (2**bits, 3))):
            found = rgb_of(bmp(values, bits, palette, downwards=downwards), "a.bmp")
            np.testing.assert_array_equal(found, palette[values])
    five = np.stack([np.roll(numbers(5, UNSIGNED).astype(int), k) for k in (0, 7, 19)], -1)
    words = five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]
    for masks in ((), (0x7C00, 0x3E0, 0x1F)):
        assert np.abs(rgb_of(bmp(words, 16, downwards=downwards, masks=masks), "a.bmp") - five * 255 / 31).max() <= 1
    np.testing.assert_array_equal(rgb_of(bmp(colours(3), 24, downwards=downwards), "a.bmp"), colours(3))
    for alpha in (0, 128, 255):  # the fourth byte of such a file means nothing
        four = np.concatenate([colours(3), np.full((H, W, 1), alpha, np.uint64)], -1)
        np.testing.assert_array_equal(rgb_of(bmp(four, 32, downwards=downwards), "a.bmp"), colours(3))


def without_adobe(data: bytes) -> bytes:
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def test_jpeg_of_every_kind() -> None:
    ramp = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))
    scan = Image.fromarray(ramp)
    kinds = {"grey": scan, "YCbCr": scan.convert("RGB"), "CMYK": scan.convert("RGB").convert("CMYK")}
    for kind, picture in kinds.items():
        found = rgb_of(encoded(picture, "JPEG", quality=98), "a.jpg")
        assert np.abs(found - ramp[..., None].astype(int)).max() <= 3, kind
    assert np.abs(rgb_of(encoded(kinds["YCbCr"], "JPEG", quality=98, keep_rgb=True), "a.jpg") - ramp[..., None]).max() <= 3
    with pytest.raises(OctcError) as caught:  # programs disagree whether the ink of such a file is stored upside down
        decode_image(without_adobe(encoded(kinds["CMYK"], "JPEG", quality=98)), "a.jpg")
    assert caught.value.code == "OCT-E202"


def test_ycck_jpeg() -> None:
    """Adobe's transform 2: Y, Cb, Cr of the inverted inks, and K; written as four planes that are then called so."""
    ramp = np.tile(np.linspace(0, 255, 64).round().astype(np.uint8), (48, 1))
    flat = np.full_like(ramp, 127)  # stored inverted: 128, no colour
    planes = [Image.fromarray(plane) for plane in (255 - ramp, flat, flat, np.zeros_like(ramp))]
    data = bytearray(encoded(Image.merge("CMYK", planes), "JPEG", quality=98))
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    data[at] = 2
    found = rgb_of(bytes(data), "a.jpg")
    assert np.abs(found - (255 - ramp[..., None].astype(int))).max() <= 3


def test_bytes_of_the_new_kinds_that_were_altered_never_raise_anything_else() -> None:
    rng = np.random.default_rng(4)
    deep = numbers(16, UNSIGNED)
    kinds = [
        tiff(deep, 0, 16), tiff(numbers(12, UNSIGNED).astype(int), 1, 12, compression=DEFLATE), tiff(colours(3), 6, tags=YCBCR),
        tiff(numbers(32, FLOAT), 0, 32, FLOAT, ">", compression=PACKBITS), png(numbers(4, UNSIGNED).astype(int), 0, 4, b"\0\3"),
        png(colours(3), 2, 8, bytes(6)), tiff(colours(4), 5, separate=True),
    ]  # fmt: skip
    outcomes = {"decoded": 0, "refused": 0}
    for turn in range(700):
        data = bytearray(kinds[turn % len(kinds)])
        for _ in range(int(rng.choice([1, 1, 3, 20]))):
            tail = turn % 2 and turn % len(kinds) not in (4, 5)  # where a TIFF has its directory
            place = int(rng.integers(len(data) - 250, len(data)) if tail else rng.integers(0, min(len(data), 200)))
            data[place] = int(rng.integers(256))
        code, _ = outcome(bytes(data))
        outcomes["decoded" if code is None else "refused"] += 1
    assert min(outcomes.values()) > 50


def written(*pages: dict[str, Any], **how: Any) -> bytes:
    """Pages as tifffile writes them: each its pixels (data) and its tags."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, **how) as writer:
        for page in pages:
            writer.write(**page)
    return stream.getvalue()


@pytest.mark.parametrize("masks", [1, 3])
def test_a_page_that_is_a_mask_as_the_standard_has_it_is_no_second_image(masks: int) -> None:
    """PhotometricInterpretation 4 and NewSubfileType 4 (TIFF 6.0, section 8): Pillow knows no such pixels."""
    scan = (np.arange(H * W) % 251).astype(np.uint8).reshape(H, W)
    image = {"data": scan, "photometric": "minisblack"}
    mask = {"data": scan > 7, "photometric": 4, "subfiletype": 4}
    assert np.array_equal(grey_of(written(image, *[mask] * masks)), scan)
    assert grey_of(written(image, *[mask] * masks, image)) == "OCT-E204"
    assert grey_of(written(image, {**mask, "subfiletype": 0})) == "OCT-E201", "a page that is no copy and cannot be read"


@pytest.mark.parametrize(("pages", "code"), [(1, "OCT-E202"), (2, "OCT-E229")])
def test_big_tiff_with_its_highest_bytes_first_is_named(pages: int, code: str, tmp_path: Path) -> None:
    """Pillow lists its first bytes, and reads its places as those of another TIFF. With the lowest first it is read."""
    scan, path = (np.arange(H * W) % 251).astype(np.uint8).reshape(H, W), tmp_path / "a.tif"
    image = {"data": scan, "photometric": "minisblack"}
    for order in "<>":
        path.write_bytes(written(*[image] * pages, bigtiff=True, byteorder=order))
        if order == "<":
            assert np.array_equal(read_image(path).image if pages == 1 else read_volume(path).frame(1), scan)
            continue
        with pytest.raises(OctcError) as caught:
            read_image(path) if pages == 1 else read_volume(path)
        assert caught.value.code == code
        assert "BigTIFF" in caught.value.message
