"""DICOM as it is met outside: fragments, offset tables, signs, tables of grey, contradicting parts, other classes."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import UID, ExplicitVRBigEndian

from octc.core.errors import OctcError
from octc.volumes import read_volume, read_volumes
from octc.volumes.formats import without_scans
from octc.volumes.volume import Fact, patient_hash
from octc.volumes.writing import JPEG_2000, JPEG_LS, RLE
from tests.octc.volumes.opt_objects import encapsulated, frames, item, made, parts, stored

JPEG = "1.2.840.10008.1.2.4.50"
EXTENDED = "1.2.840.10008.1.2.4.51"


def refusal(path: Path, **how: Any) -> OctcError:
    with pytest.raises(OctcError) as caught:
        read_volumes(path, **how)
    return caught.value


def encoded(picture: np.ndarray, kind: str = "JPEG2000", **how: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **(how or {"no_jp2": True, "irreversible": False}))
    data = stream.getvalue()
    return data + b"\0" * (len(data) % 2)


def pieces(data: bytes, count: int) -> list[bytes]:
    step = len(data) // count // 2 * 2
    return [data[k * step : (k + 1) * step if k < count - 1 else len(data)] for k in range(count)]


@pytest.mark.parametrize("syntax", [JPEG_2000, JPEG_LS, RLE])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_signed_numbers_keep_their_sign_in_every_compression(syntax: str, bits: int, tmp_path: Path) -> None:
    """JPEG-LS knows no sign (PS3.5 8.2.3): a decoder gives numbers of BitsStored bits, and the highest one is the sign."""
    kind, low = ("u1" if bits == 8 else "u2"), -(1 << (bits - 1))
    codes = frames(top=(1 << bits) - 1, kind=kind)
    signed = [(code.astype(int) + low).astype("i1" if bits == 8 else "i2") for code in codes]
    value = made([one.view(kind) & kind_mask(bits, kind) for one in signed], bits=bits, syntax=syntax)
    value.PixelRepresentation = 1
    volume = read_volume(stored(value, tmp_path))
    for index in range(3):
        assert np.array_equal(volume.raw(index), signed[index])
        assert np.array_equal(volume.frame(index), np.floor(codes[index] / ((1 << bits) - 1) * 255 + 0.5))


def kind_mask(bits: int, kind: str) -> Any:
    return np.dtype(kind).type((1 << bits) - 1)


@pytest.mark.parametrize("kind", ["JPEG2000", "JPEG"])
def test_frames_of_several_fragments_need_no_table(kind: str, tmp_path: Path) -> None:
    pictures = frames()
    compressed = [encoded(one, kind, **({} if kind == "JPEG2000" else {"quality": 95})) for one in pictures]
    fragments = [piece for one in compressed for piece in pieces(one, 3)]
    syntax = JPEG_2000 if kind == "JPEG2000" else JPEG
    path = stored(encapsulated(made(), fragments, syntax=syntax), tmp_path)
    volume = read_volume(path)
    for index, one in enumerate(compressed):
        assert np.array_equal(volume.frame(index), np.asarray(Image.open(io.BytesIO(one))))
    data = path.read_bytes()
    end = data.index(fragments[7])  # cut within the last frame, behind its first fragment
    path.write_bytes(data[: end - 8])
    assert refusal(path).code == "OCT-E226"
    part = read_volume(path, allow_cut=True)
    assert (part.frames, part.complete.value) == (2, False)
    assert np.array_equal(part.frame(1), volume.frame(1))


def test_fragments_that_begin_no_picture_are_not_shared_out(tmp_path: Path) -> None:
    compressed = [encoded(one) for one in frames()]
    fragments = [*pieces(compressed[0], 2), compressed[1]]
    assert refusal(stored(encapsulated(made(), [*fragments, b"\0\0"]), tmp_path)).code == "OCT-E222"


@pytest.mark.parametrize("table", [(0, 10, 20), (0, 0, 0), (2, 4, 6), (0, 4)])
def test_an_offset_table_that_names_no_fragments_is_refused(table: tuple[int, ...], tmp_path: Path) -> None:
    """Not "cut short": a table that is a little off would else give frames under other numbers."""
    fragments = [encoded(one) for one in frames()]
    path = stored(encapsulated(made(), fragments, struct.pack(f"<{len(table)}I", *table)), tmp_path)
    for how in ({}, {"allow_cut": True}):
        error = refusal(path, **how)
        assert error.code == "OCT-E222"
        assert "offset table" in error.message


def test_compressed_pixels_are_never_read_as_plain_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 256, (40, 48)).astype(np.uint8) for _ in range(3)]  # which compresses to more than it was
    path = stored(encapsulated(made(noise), [encoded(one) for one in noise]), tmp_path)
    assert np.array_equal(read_volume(path).frame(2), noise[2])
    data = path.read_bytes()
    stated = JPEG_2000.encode()
    assert data.count(stated) == 1
    path.write_bytes(data.replace(stated, b"1.2.840.10008.1.2.1".ljust(len(stated), b"\0")))
    error = refusal(path)
    assert error.code == "OCT-E222"
    assert "compressed" in error.message


def test_a_frame_that_cannot_be_decoded_is_named_in_one_line(tmp_path: Path) -> None:
    compressed = [encoded(one) for one in frames()]
    compressed[1] = compressed[1][: len(compressed[1]) // 4 * 2]
    volume = read_volume(stored(encapsulated(made(), compressed), tmp_path))
    assert volume.frame(0).shape == (40, 48)
    with pytest.raises(OctcError, match="frame 1 cannot be decoded") as caught:
        volume.frame(1)
    assert "\n" not in caught.value.message


def test_jpeg_of_12_bits_has_no_decoder_and_says_so(tmp_path: Path) -> None:
    value = encapsulated(made(frames(top=4095, kind="u2"), bits=12), [b"\xff\xd8\xff\xc1" + bytes(40)] * 3, syntax=EXTENDED)
    error = refusal(stored(value, tmp_path))
    assert (error.code, "12 bits" in error.message, "dcmdjpeg" in error.hint) == ("OCT-E221", True, True)
    eight = encapsulated(made(), [encoded(one, "JPEG", quality=95) for one in frames()], syntax=EXTENDED)
    assert read_volume(stored(eight, tmp_path)).frames == 3


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.102"])
def test_hints_name_programs_that_can_do_it(syntax: str, tmp_path: Path) -> None:
    error = refusal(stored(encapsulated(made(), [b"\xff\x4f\xff\x51" + bytes(40)] * 3, syntax=syntax), tmp_path))
    assert error.code == "OCT-E221"
    assert "dcmdjpeg" not in error.hint


@pytest.mark.parametrize("name", ["SamplesPerPixel", "HighBit", "PixelRepresentation"])
def test_an_empty_attribute_counts_as_an_absent_one(name: str, tmp_path: Path) -> None:
    value = made()
    setattr(value, name, None)
    assert np.array_equal(read_volume(stored(value, tmp_path)).frame(1), frames()[1])


@pytest.mark.parametrize("name", ["Rows", "BitsAllocated", "BitsStored"])
def test_sizes_that_are_not_said_are_named(name: str, tmp_path: Path) -> None:
    value = made()
    setattr(value, name, None)
    error = refusal(stored(value, tmp_path))
    assert error.code == "OCT-E222"
    assert "NoneType" not in error.message


def test_a_slope_of_zero_is_refused(tmp_path: Path) -> None:
    value = made()
    value.RescaleSlope, value.RescaleIntercept = "0", "0"
    error = refusal(stored(value, tmp_path))
    assert (error.code, "slope" in error.message) == ("OCT-E222", True)
    value.RescaleSlope = None
    assert np.array_equal(read_volume(stored(value, tmp_path)).frame(0), frames()[0])


@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("form", ["OW", "US"])
def test_tables_of_big_endian_objects_have_their_bytes_the_other_way_round(kind: str, form: str, tmp_path: Path) -> None:
    words = frames(top=4095, kind="u2")
    table = (np.arange(4096) ** 2 / 4095**2 * 65535).astype(np.uint16)
    one = item(LUTDescriptor=[4096, 0, 16])
    one.add_new(0x00283006, form, table.astype(">u2").tobytes() if form == "OW" else table.tolist())
    value = made(words, bits=12)
    value.PixelData = b"".join(word.astype(">u2").tobytes() for word in words)
    value.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    setattr(value, kind, [one])
    volume = read_volume(stored(value, tmp_path))
    assert np.array_equal(volume.frame(1), np.floor(table[words[1]] / 65535 * 255 + 0.5))


@pytest.mark.parametrize("count", [256, 255])
def test_a_table_of_bytes_is_a_table(count: int, tmp_path: Path) -> None:
    """PS3.3 C.11.1.1.1: the length of the data says whether an entry has 8 or 16 bits."""
    table = np.arange(count)[::-1].astype(np.uint8)
    value = made()
    value.VOILUTSequence = [item(LUTDescriptor=[count, 0, 8], LUTData=table.tobytes() + b"\0" * (count % 2))]
    shown = read_volume(stored(value, tmp_path)).frame(0)
    assert np.array_equal(shown, table[np.minimum(frames()[0], count - 1)])


def test_every_part_of_a_concatenation_opens_the_same_volume(tmp_path: Path) -> None:
    for path in parts(tmp_path):
        volume = read_volume(path)
        assert (volume.frames, volume.complete.value) == (6, True)
        assert not any("follow" in note for note in volume.notes)
        assert all(np.array_equal(volume.frame(k), picture) for k, picture in enumerate(frames(6)))


def test_parts_of_a_concatenation_are_found_behind_a_thousand_other_files(tmp_path: Path) -> None:
    found = parts(tmp_path)
    for number in range(1100):
        (tmp_path / f"a-{number:04d}.dcm").write_bytes(bytes(128) + b"DICM" * (number % 2) + bytes(70))
    volumes = [read_volume(path) for path in found]
    assert [(volume.frames, volume.complete.value) for volume in volumes] == [(6, True)] * 3
    found[2].unlink()  # what was seen of it before counts no more
    assert read_volume(found[0]).complete.value is False


@pytest.mark.parametrize(("absent", "complete"), [(None, None), (2, None), (1, False), (0, False)])
def test_parts_that_nobody_counted_are_not_called_complete(absent: int | None, complete: bool | None, tmp_path: Path) -> None:
    found = parts(tmp_path, total=None)
    if absent is not None:
        found.pop(absent).unlink()
    assert read_volume(found[0]).complete.value is complete


@pytest.mark.parametrize(
    ("name", "value"), [("PhotometricInterpretation", "MONOCHROME1"), ("ImageLaterality", "L"), ("PatientID", "P-2")]
)
def test_parts_that_contradict_each_other_are_no_volume(name: str, value: str, tmp_path: Path) -> None:
    for path in parts(tmp_path, **{name: value}):
        error = refusal(path)
        assert (error.code, name in error.message) == ("OCT-E222", True)
        assert "P-2" not in error.message


def test_what_is_unusual_in_the_order_is_told(tmp_path: Path) -> None:
    value = made()
    for groups, place in zip(value.PerFrameFunctionalGroupsSequence, (3, 2, 1), strict=True):
        del groups.FrameContentSequence[0].InStackPositionNumber
        del groups.PlanePositionSequence
        groups.FrameContentSequence[0].DimensionIndexValues = [1, place]
    told = read_volume(stored(value, tmp_path))
    assert told.order.value == "file order"
    assert any("dimension indices" in note for note in told.notes)
    value.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].InStackPositionNumber = 1
    assert any("2 frames have no number" in note for note in read_volume(stored(value, tmp_path)).notes)
    value.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].StackID = "other"
    assert any("2 stacks" in note for note in read_volume(stored(value, tmp_path)).notes)


@pytest.mark.parametrize(
    ("kind", "what"),
    [("66.7", "segmentation"), ("66.8", "segmentation"), ("81.1", "thickness"), ("30", "parametric map"), ("82.1", "cornea")],
)
def test_maps_and_labels_are_no_scans(kind: str, what: str, tmp_path: Path) -> None:
    value = made()
    value.SOPClassUID = UID(f"1.2.840.10008.5.1.4.1.1.{kind}")
    error = refusal(stored(value, tmp_path))
    assert (error.code, what in error.message) == ("OCT-E227", True)


@pytest.mark.parametrize(("kind", "what"), [("88.33", "structured report"), ("11.1", "presentation state"), ("66", "raw data")])
def test_objects_without_pixels_are_named_by_their_class(kind: str, what: str, tmp_path: Path) -> None:
    value = made()
    del value.PixelData
    value.SOPClassUID = UID(f"1.2.840.10008.5.1.4.1.1.{kind}")
    error = refusal(stored(value, tmp_path))
    assert (error.code, what in error.message) == ("OCT-E227", True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("FloatPixelData", bytes(16)), ("DoubleFloatPixelData", bytes(16)), ("PixelDataProviderURL", "http://store/1")],
)
def test_pixels_that_are_elsewhere_are_not_called_missing(name: str, value: Any, tmp_path: Path) -> None:
    one = made()
    del one.PixelData
    setattr(one, name, value)
    assert refusal(stored(one, tmp_path)).code == "OCT-E229"


@pytest.mark.parametrize("explicit", [True, False])
def test_dicom_that_lost_its_header_is_named(explicit: bool, tmp_path: Path) -> None:
    value = made()
    if not explicit:
        value.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2")
    data = stored(value, tmp_path).read_bytes()
    for name, cut in (("meta", 132), ("none", 132 + 12 + struct.unpack_from("<I", data, 140)[0])):
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(data[cut:])
        error = refusal(path)
        assert (error.code, "dcmconv" in error.hint) == ("OCT-E202", True)


@pytest.mark.parametrize("number", [b"nan ", b"inf ", b"-inf"])
@pytest.mark.parametrize("name", ["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"])
def test_a_window_or_a_rescale_without_a_number_is_refused(name: str, number: bytes, tmp_path: Path) -> None:
    """pydicom reads them as numbers; by such a one every frame would be one grey."""
    value = made(frames(top=4095, kind="u2"), bits=12)
    value.WindowCenter, value.WindowWidth, value.RescaleSlope, value.RescaleIntercept = "100", "1000", "1", "0"
    setattr(value, name, "4321")
    path = stored(value, tmp_path)
    assert read_volume(path).frames == 3
    data = path.read_bytes()
    assert data.count(b"4321") == 1
    path.write_bytes(data.replace(b"4321", number))
    assert refusal(path).code == "OCT-E222"


@pytest.mark.parametrize(
    ("moment", "known"),
    [
        (b"20260203040506", "2026-02-03T04:05:06"),
        (b"20261399999999", None),
        (b"20260230010101", None),
        (b"2026020304    ", None),
    ],
)
def test_a_moment_that_cannot_be_is_not_known(moment: bytes, known: str | None, tmp_path: Path) -> None:
    path = stored(made(), tmp_path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"20260203040506", moment))
    assert read_volume(path).acquired.value == known


@pytest.mark.parametrize(
    ("date", "time", "known"),
    [
        ("20260203", "040506", "2026-02-03T04:05:06"),
        ("20260203", "040506.789", "2026-02-03T04:05:06"),
        ("2026.02.03", "04:05:06", "2026-02-03T04:05:06"),
        ("20260203", "04", None),
        ("", "040506", None),
        ("20260203", "", None),
    ],
)
def test_a_moment_whose_date_and_time_stand_apart_is_known(date: str, time: str, known: str | None, tmp_path: Path) -> None:
    value = made()
    del value.AcquisitionDateTime
    with warnings.catch_warnings():  # pydicom knows the old forms and warns of them
        warnings.simplefilter("ignore")
        value.AcquisitionDate, value.AcquisitionTime = date, time
        path = stored(value, tmp_path)
    assert read_volume(path).acquired == (Fact(known, "AcquisitionDate, AcquisitionTime") if known else Fact())


def test_a_deflated_object_that_ends_too_early_is_cut_short(tmp_path: Path) -> None:
    value = made()
    value.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    path = stored(value, tmp_path)
    data = path.read_bytes()
    assert read_volume(path).frames == 3
    for share in (0.5, 0.9, 0.99):
        path.write_bytes(data[: int(len(data) * share)])
        assert refusal(path).code == "OCT-E226"


def test_an_id_with_a_backslash_is_the_id_that_it_is(tmp_path: Path) -> None:
    value = made()
    value.PatientID, value.Manufacturer = "A\\B", "One\\Two"
    volume = read_volume(stored(value, tmp_path), key=b"site")
    assert volume.patient == patient_hash(b"site", "A\\B")
    assert str(volume.device.value).startswith("One\\Two")


def test_an_object_that_declares_fewer_frames_than_it_has_is_not_called_complete(tmp_path: Path) -> None:
    whole = made()
    assert read_volume(stored(whole, tmp_path)).complete.value is True
    fewer = made()
    fewer.NumberOfFrames, fewer.PerFrameFunctionalGroupsSequence = 2, fewer.PerFrameFunctionalGroupsSequence[:2]
    groups = made(frames(2))
    groups.PerFrameFunctionalGroupsSequence = whole.PerFrameFunctionalGroupsSequence
    for value in (fewer, groups):
        found = read_volume(stored(value, tmp_path))
        assert (found.frames, found.complete.value) == (2, None)
        assert all(np.array_equal(one, other) for one, other in zip(found, frames(2), strict=True))


@pytest.mark.parametrize(("syntax", "kind"), [(JPEG, "JPEG2000"), (JPEG_2000, "JPEG")])
def test_a_frame_of_another_kind_than_its_transfer_syntax_is_refused(syntax: str, kind: str, tmp_path: Path) -> None:
    """Whether it is whole, and has losses, would be judged by the syntax."""
    pictures = [encoded(one, kind, **({"quality": 95} if kind == "JPEG" else {})) for one in frames()]
    volume = read_volume(stored(encapsulated(made(), pictures, syntax=syntax), tmp_path))
    with pytest.raises(OctcError) as caught:
        volume.frame(0)
    assert caught.value.code == "OCT-E222"


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_stack_that_was_taken_twice_is_two_volumes(interleaved: bool, tmp_path: Path) -> None:
    value, pictures = made(frames(6)), frames(6)
    for index, groups in enumerate(value.PerFrameFunctionalGroupsSequence):
        content = groups.FrameContentSequence[0]
        place, time = (index // 2, index % 2) if interleaved else (index % 3, index // 3)
        content.InStackPositionNumber, content.TemporalPositionIndex = place + 1, time + 1
        del groups.PlanePositionSequence
    found = read_volumes(stored(value, tmp_path))
    assert [volume.frames for volume in found] == [3, 3]
    first = pictures[::2] if interleaved else pictures[:3]
    assert all(np.array_equal(one, other) for one, other in zip(found[0], first, strict=True))


def test_a_voi_table_behind_a_modality_table_begins_where_it_says(tmp_path: Path) -> None:
    """What the modality table gives has no sign, whether or not the pixels have one."""
    pictures = frames(top=4000, kind="u2")
    value = made(pictures, bits=16)
    value.PixelRepresentation = 1
    value.ModalityLUTSequence = [item(LUTDescriptor=[4096, 0, 16], LUTData=[40_000 + k for k in range(4096)])]
    value.VOILUTSequence = [item(LUTDescriptor=[4096, 40_000, 8], LUTData=[k // 16 for k in range(4096)])]
    for table in (value.ModalityLUTSequence[0], value.VOILUTSequence[0]):
        table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    found = read_volume(stored(value, tmp_path))
    assert all(np.array_equal(one, other // 16) for one, other in zip(found, pictures, strict=True))


@pytest.mark.parametrize("spacing", [["0.004", ""], ["0.004"], ["0.004", "0.012", "0.1"]])
def test_a_spacing_of_other_than_two_numbers_is_not_known(spacing: list[str], tmp_path: Path) -> None:
    value = made()
    measures = value.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    del measures.PixelSpacing
    measures.add_new(0x00280030, "DS", spacing)
    found = read_volume(stored(value, tmp_path)).spacing.value
    assert found is not None
    assert found[1:] == (None, None)


@pytest.mark.parametrize("name", ["ImageLaterality", "FrameLaterality"])
def test_an_eye_of_two_letters_is_not_known(name: str, tmp_path: Path) -> None:
    value = made()
    for groups in (value.SharedFunctionalGroupsSequence[0], *value.PerFrameFunctionalGroupsSequence):
        for anatomy in groups.get("FrameAnatomySequence", ()) if name == "FrameLaterality" else ():
            anatomy.FrameLaterality = ["R", "L"]
    if name == "ImageLaterality":
        value.ImageLaterality = ["R", "L"]
    assert read_volume(stored(value, tmp_path)).laterality.value is None


def test_fragments_that_are_empty_or_of_two_bytes_are_put_together(tmp_path: Path) -> None:
    codes = [encoded(one) for one in frames()]
    empty = [b"", codes[0], b"", codes[1], codes[2], b""]
    small = [piece for code in codes for piece in (code[:2], code[2:])]
    for fragments in (empty, small):
        found = read_volume(stored(encapsulated(made(), fragments), tmp_path))
        assert all(np.array_equal(one, other) for one, other in zip(found, frames(), strict=True))
    lost = stored(encapsulated(made(), [codes[0], b"", codes[2]]), tmp_path)
    assert refusal(lost).code == "OCT-E222"


@pytest.mark.parametrize(
    "kind",
    [
        "5.1.4.1.1.481.3", "5.1.4.1.1.481.5", "5.1.4.1.1.9.1.1", "5.1.4.38.1", "5.1.4.39.1", "5.1.4.1.1.67", "5.1.4.1.1.68.1",
        "5.1.4.1.1.90.1", "5.1.4.1.1.91.1", "5.1.4.1.1.200.2", "5.1.4.1.1.201.1", "5.1.4.34.7", "5.1.4.43.1",
    ],
)  # fmt: skip
def test_objects_of_classes_without_images_are_passed_over_in_a_folder(kind: str, tmp_path: Path) -> None:
    value = made()
    value.SOPClassUID = value.file_meta.MediaStorageSOPClassUID = UID(f"1.2.840.10008.{kind}")
    del value.PixelData
    path = stored(value, tmp_path)
    assert (refusal(path).code, without_scans(path) is not None) == ("OCT-E227", True)


@pytest.mark.parametrize("word", ["N/A", "REMOVED", "Anon", "?", "--", "XXXX", "0000", "DEIDENTIFIED"])
def test_what_stands_in_the_place_of_an_id_is_nobody(word: str, tmp_path: Path) -> None:
    value = made()
    value.PatientID = word
    assert read_volume(stored(value, tmp_path), key=b"site").patient is None


def test_links_in_a_circle_are_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.symlink_to(path.name)
    assert refusal(path).code == "OCT-E201"
