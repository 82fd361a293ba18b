"""Where the bits of a number lie, what losses do at the ends of the range, and how much of an object is read at all."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from octc.core.errors import OctcError
from octc.volumes import dicom, read_volume
from tests.octc.volumes.opt_objects import frames, made, stored
from tests.octc.volumes.test_dicom_oddities import EXTENDED, encapsulated, encoded, refusal

EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
JPEG_2000_LOSSY = "1.2.840.10008.1.2.4.91"


@pytest.mark.parametrize("syntax", [EXPLICIT, ImplicitVRLittleEndian, ExplicitVRBigEndian, DEFLATED, RLELossless])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("bits", "high"), [(12, 15), (12, 13), (8, 15), (10, 10)])
def test_stored_bits_may_lie_anywhere_in_their_word(bits: int, high: int, signed: bool, syntax: str, tmp_path: Path) -> None:
    """BitsStored bits that end at HighBit are the number (PS3.5 8.1.1, until 2014); the others, all set here, do not count."""
    pictures = [picture.astype(np.int64) for picture in frames(2, top=(1 << bits) - 1, kind="u2")]
    below = high + 1 - bits
    words = [((picture << below) | (0xFFFF ^ (((1 << bits) - 1) << below))).astype("u2") for picture in pictures]
    value = made(words, bits=16)
    if syntax == RLELossless:
        value.compress(RLELossless, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        value.PixelData = b"".join(word.astype(">u2").tobytes() for word in words)
    value.file_meta.TransferSyntaxUID = UID(syntax)
    value.BitsStored, value.HighBit, value.PixelRepresentation = bits, high, int(signed)
    volume = read_volume(stored(value, tmp_path))
    for index, picture in enumerate(pictures):
        expected = np.where(picture >> (bits - 1), picture - (1 << bits), picture) if signed else picture
        assert np.array_equal(volume.raw(index), expected)
        shares = (expected + ((1 << (bits - 1)) if signed else 0)) / ((1 << bits) - 1)
        assert np.abs(volume.frame(index) - shares * 255).max() <= 0.5


def test_compressed_numbers_end_where_they_have_to(tmp_path: Path) -> None:
    value = encapsulated(made(frames(1)), [encoded(frames(1)[0])])
    value.BitsAllocated, value.BitsStored, value.HighBit = 16, 8, 15
    assert refusal(stored(value, tmp_path)).code == "OCT-E229"


def test_losses_beyond_the_range_are_held_at_its_ends(tmp_path: Path) -> None:
    """A stream of 16 bits that holds 10, as gdcm writes it, swings over 1023 beside an edge: white does not become black."""
    picture = np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint16) * 1023
    data = encoded(picture, "JPEG2000", no_jp2=True, irreversible=True, quality_mode="rates", quality_layers=[12])
    decoded = np.asarray(Image.open(io.BytesIO(data))).astype(np.int64)
    assert decoded.max() > 1023
    value = encapsulated(made([picture], bits=10), [data], syntax=JPEG_2000_LOSSY)
    found = read_volume(stored(value, tmp_path)).raw(0)
    assert np.array_equal(found, np.minimum(decoded, 1023))
    assert found[decoded > 1023].min() == 1023


def test_decoders_of_eight_bits_are_none_of_twelve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With python-gdcm installed pydicom has a second decoder of JPEG Extended, which has no 12 bits either."""
    from pydicom.pixels.decoders.base import get_decoder

    decoder = get_decoder(UID(EXTENDED))
    monkeypatch.setattr(decoder, "_available", {**decoder._available, "gdcm": decoder._available["pillow"]})
    assert set(decoder.available_plugins) == {"pillow", "gdcm"}
    value = encapsulated(made(frames(1, top=4095, kind="u2"), bits=12), [b"\xff\xd8\xff\xd9"], syntax=EXTENDED)
    assert refusal(stored(value, tmp_path)).code == "OCT-E221"


def with_items(path: Path, count: int) -> Path:
    """An object, deflated, with a sequence of so many empty items before its functional groups."""
    value = made()
    value.file_meta.TransferSyntaxUID = UID(DEFLATED)
    data = stored(value, path.parent, path.name).read_bytes()
    start = 144 + int(struct.unpack("<I", data[140:144])[0])
    body = zlib.decompress(data[start:], -zlib.MAX_WBITS)
    at = body.index(struct.pack("<2H2s", 0x5200, 0x9229, b"SQ"))
    items = struct.pack("<2HI", 0xFFFE, 0xE000, 0) * count + struct.pack("<2HI", 0xFFFE, 0xE0DD, 0)
    sequence = struct.pack("<2H2s2xI", 0x0040, 0x0275, b"SQ", 0xFFFFFFFF) + items
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = data[:start] + packer.compress(body[:at] + sequence + body[at:]) + packer.flush()
    path.write_bytes(data + b"\0" * (len(data) % 2))
    return path


def test_elements_of_a_deflated_object_are_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty items take a thousandth of a byte each in the file, and a hundred times their eight bytes in memory."""
    monkeypatch.setattr(dicom, "MAX_READS", 3_000)
    path = with_items(tmp_path / "object.dcm", 10)
    assert [np.array_equal(read_volume(path).raw(k), picture) for k, picture in enumerate(frames())] == [True] * 3
    assert str(dicom.head_of(path, ["SOPInstanceUID"]).SOPInstanceUID) == str(dicom.head_of(path).SOPInstanceUID)
    path = with_items(tmp_path / "object.dcm", 10_000)
    error = refusal(path)
    assert (error.code, "elements" in error.message) == ("OCT-E222", True)
    with pytest.raises(OctcError) as caught:
        dicom.head_of(path, ["SOPInstanceUID"])
    assert caught.value.code == "OCT-E222"


@pytest.mark.parametrize("syntax", [EXPLICIT, ImplicitVRLittleEndian, DEFLATED])
def test_an_object_that_ends_anywhere_is_called_cut_short(syntax: str, tmp_path: Path) -> None:
    value = made([np.arange(30, dtype="u1").reshape(5, 6)] * 2)
    value.file_meta.TransferSyntaxUID = UID(syntax)
    path = stored(value, tmp_path)
    data = path.read_bytes()
    for end in range(132, len(data) - 1, 4 if syntax == EXPLICIT else 20):
        path.write_bytes(data[:end])
        assert refusal(path).code in ("OCT-E220", "OCT-E226")


def of_group_0407(value: Any, maker: str, owner: str) -> Any:
    value.Manufacturer = maker
    value.private_block(0x0407, owner, create=True).add_new(5, "OB", b"12")
    return value


@pytest.mark.parametrize(
    ("maker", "owner", "scrambled"),
    [
        ("Carl Zeiss Meditec", "ACME", True), ("Maker", "99CZM_NIM_INTERNAL_01", True), ("", "ACME", True),
        ("Maker", "ACME VIEWER 1.0", False),
    ],
)  # fmt: skip
def test_a_private_group_is_of_the_maker_that_reserved_it(maker: str, owner: str, scrambled: bool, tmp_path: Path) -> None:
    """Any maker may use group 0407 (PS3.5 7.8.1): only that of Zeiss means scrambled pixels."""
    path = stored(of_group_0407(made(), maker, owner), tmp_path)
    if scrambled:
        assert refusal(path).code == "OCT-E223"
    else:
        assert np.array_equal(read_volume(path).frame(1), frames()[1])
