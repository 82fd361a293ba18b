"""OPT and other grey DICOM: greys, order, eyes, spacing; against pydicom's own transforms and numbers written down here."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from octc.core.errors import OctcError
from octc.volumes import read_volume, read_volumes
from octc.volumes.dicom import windowed
from octc.volumes.writing import JPEG_2000, JPEG_LS, RLE, UNCOMPRESSED, write_opt
from tests.octc.volumes.opt_objects import SHAPE, as_big_endian, as_implicit, frames, item, made, stored


def refusal(path: Path, **how: Any) -> OctcError:
    with pytest.raises(OctcError) as caught:
        read_volumes(path, **how)
    return caught.value


@pytest.mark.parametrize("syntax", [UNCOMPRESSED, RLE, JPEG_2000, JPEG_LS])
@pytest.mark.parametrize(("bits", "kind"), [(8, "u1"), (12, "u2"), (16, "u2")])
def test_lossless_syntaxes_give_the_numbers_that_were_written(syntax: str, bits: int, kind: str, tmp_path: Path) -> None:
    pictures = frames(top=(1 << bits) - 1, kind=kind)
    volume = read_volume(stored(made(pictures, bits=bits, syntax=syntax), tmp_path))
    assert (volume.frames, volume.rows, volume.columns, volume.dtype) == (3, *SHAPE, "uint8" if bits == 8 else "uint16")
    for index, picture in enumerate(pictures):
        assert np.array_equal(volume.raw(index), picture)
        assert np.array_equal(volume.raw(index), pixel_array(volume.path, index=index))
        assert np.array_equal(volume.frame(index), np.floor(picture / ((1 << bits) - 1) * 255 + 0.5))


def test_implicit_deflated_and_big_endian_are_read(tmp_path: Path) -> None:
    deflated = made()
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    words = frames(top=4095, kind="u2")
    for name, value, pictures in (
        ("implicit", as_implicit(made()), frames()),
        ("deflated", deflated, frames()),
        ("big", as_big_endian(made(words, bits=12)), words),
    ):
        volume = read_volume(stored(value, tmp_path, name))
        assert all(np.array_equal(volume.raw(k), picture) for k, picture in enumerate(pictures)), name


def test_a_lossy_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    value, compressed = made(), []
    for picture in frames():
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "JPEG", quality=90)
        compressed.append(stream.getvalue())
    value.PixelData, value["PixelData"].VR = encapsulate(compressed), "OB"
    value["PixelData"].is_undefined_length = True
    value.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    volume = read_volume(stored(value, tmp_path))
    assert np.array_equal(volume.frame(1), np.asarray(Image.open(io.BytesIO(compressed[1]))))


def test_rescale_and_window_of_functional_groups_are_applied_frame_by_frame(tmp_path: Path) -> None:
    pictures = frames(top=4095, kind="u2")
    value = made(pictures, bits=12)
    value.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [
        item(RescaleSlope="2", RescaleIntercept="-100", RescaleType="US")
    ]
    windows = [(1000.0, 500.0), (4000.0, 4000.0), (8000.0, 200.0)]
    for groups, (centre, width) in zip(value.PerFrameFunctionalGroupsSequence, windows, strict=True):
        groups.FrameVOILUTSequence = [item(WindowCenter=str(centre), WindowWidth=str(width))]
    volume = read_volume(stored(value, tmp_path))
    for index, ((centre, width), picture) in enumerate(zip(windows, pictures, strict=True)):
        alone = item(RescaleSlope=2, RescaleIntercept=-100, WindowCenter=centre, WindowWidth=width, BitsStored=12,
                     PixelRepresentation=0, PhotometricInterpretation="MONOCHROME2")  # fmt: skip
        rescaled = apply_modality_lut(picture, alone)
        shown = apply_voi_lut(rescaled, alone)
        low, high = -100.0, 4095 * 2 - 100.0
        expected = np.floor((shown - low) / (high - low) * 255 + 0.5)
        assert np.abs(volume.frame(index).astype(int) - expected).max() <= 1, index
        assert len(np.unique(volume.frame(index))) > 3
    assert volume.intensity.to_json()["per"] == "frame"


@pytest.mark.parametrize(("function", "centre", "width"), [("LINEAR", 100, 1), ("LINEAR", 90, 41), ("LINEAR_EXACT", 90, 41)])
def test_windows_have_the_standards_numbers(function: str, centre: float, width: float) -> None:
    """PS3.3 C.11.2.1.2: ends of the window, and the middle."""
    low, high = (centre - width / 2, centre + width / 2)
    if function == "LINEAR":
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    values = np.array([low - 1, low, (low + high) / 2, high, high + 1])
    shown = windowed(values, centre, width, function)
    assert (shown[0], shown[-1]) == (0, 1)
    if width > 1:
        assert np.allclose(shown, [0, 0, 0.5, 1, 1])
    assert windowed(np.array([centre]), centre, 10, "SIGMOID")[0] == 0.5


def test_unknown_window_functions_are_refused(tmp_path: Path) -> None:
    value = made()
    value.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence = [
        item(WindowCenter="1", WindowWidth="2", VOILUTFunction="CUBIC")
    ]
    assert refusal(stored(value, tmp_path)).code == "OCT-E222"


def test_white_is_turned_over_once(tmp_path: Path) -> None:
    cases = (("1", "MONOCHROME1", "INVERSE"), ("no shape", "MONOCHROME1", None), ("shape", "MONOCHROME2", "INVERSE"))
    for name, photometric, shape in cases:
        value = made()
        value.PhotometricInterpretation = photometric
        if shape is None:
            del value.PresentationLUTShape
        else:
            value.PresentationLUTShape = shape
        volume = read_volume(stored(value, tmp_path, name))
        assert np.array_equal(volume.frame(0), 255 - frames()[0]), name
        assert np.array_equal(volume.raw(0), frames()[0]), name


def test_tables_of_values_and_of_grey_are_applied(tmp_path: Path) -> None:
    table = np.arange(256)[::-1].astype(np.uint16) * 16
    value = made()
    value.ModalityLUTSequence = [item(LUTDescriptor=[256, 0, 16], LUTData=table.tobytes(), ModalityLUTType="US")]
    value.VOILUTSequence = [item(LUTDescriptor=[4096, 0, 8], LUTData=(np.arange(4096) // 16).astype("<u2").tobytes())]
    volume = read_volume(stored(value, tmp_path))
    assert np.array_equal(volume.frame(0), 255 - frames()[0])


@pytest.mark.parametrize("limit", [{}, {"PixelPaddingRangeLimit": None}, {"PixelPaddingRangeLimit": -500}])
def test_padding_is_black_and_signed_numbers_keep_their_sign(limit: dict[str, Any], tmp_path: Path) -> None:
    signed = [picture.astype("i2") - 500 for picture in frames(top=1000, kind="u2")]
    value = made([one.view("u2") for one in signed], bits=12)
    value.PixelData = b"".join((one & 0xFFF).astype("<u2").tobytes() for one in signed)
    value.PixelRepresentation = 1
    value.PixelPaddingValue = -500
    for name, stated in limit.items():
        setattr(value, name, stated)
    volume = read_volume(stored(value, tmp_path))
    assert volume.dtype == "int16"
    assert np.array_equal(volume.raw(0), signed[0])
    expected = np.floor((signed[0].astype(float) + 2048) / 4095 * 255 + 0.5)
    expected[signed[0] == -500] = 0
    assert np.array_equal(volume.frame(0), expected)


def test_bits_above_bits_stored_do_not_count_and_are_told(tmp_path: Path) -> None:
    pictures = frames(top=1023, kind="u2")
    value = made(pictures, bits=10)
    value.PixelData = b"".join((picture | 0xF000).astype("<u2").tobytes() for picture in pictures)
    volume = read_volume(stored(value, tmp_path))
    assert np.array_equal(volume.raw(2), pictures[2])
    assert any("BitsStored" in note for note in volume.notes)


def test_frames_are_sorted_by_their_number_else_by_place_else_not_at_all(tmp_path: Path) -> None:
    value = made()
    for groups, number in zip(value.PerFrameFunctionalGroupsSequence, (3, 1, 2), strict=True):
        groups.FrameContentSequence[0].InStackPositionNumber = number
    volume = read_volume(stored(value, tmp_path))
    assert [int(volume.frame(k)[0, 0]) for k in range(3)] == [31, 62, 0]
    assert volume.order.value == "InStackPositionNumber"
    for groups, place in zip(value.PerFrameFunctionalGroupsSequence, (0.5, 0.0, 0.25), strict=True):
        del groups.FrameContentSequence[0].InStackPositionNumber
        groups.PlanePositionSequence[0].ImagePositionPatient = [0, place, 0]
    volume = read_volume(stored(value, tmp_path))
    assert [int(volume.frame(k)[0, 0]) for k in range(3)] == [31, 62, 0]
    assert volume.order.source == "ImagePositionPatient"
    assert volume.spacing.value == (0.25, 0.004, 0.012)
    for groups in value.PerFrameFunctionalGroupsSequence:
        del groups.PlanePositionSequence
    volume = read_volume(stored(value, tmp_path))
    assert [int(volume.frame(k)[0, 0]) for k in range(3)] == [0, 31, 62]
    assert volume.order.value == "file order"


def test_a_gap_in_the_numbers_is_told(tmp_path: Path) -> None:
    value = made()
    value.PerFrameFunctionalGroupsSequence[2].FrameContentSequence[0].InStackPositionNumber = 5
    volume = read_volume(stored(value, tmp_path))
    assert volume.complete.value is False
    assert any("missing" in note for note in volume.notes)


def test_two_eyes_in_one_object_are_two_volumes(tmp_path: Path) -> None:
    value = made()
    del value.SharedFunctionalGroupsSequence[0].FrameAnatomySequence
    value.ImageLaterality = "B"
    for groups, eye in zip(value.PerFrameFunctionalGroupsSequence, "RLR", strict=True):
        groups.FrameAnatomySequence = [item(FrameLaterality=eye)]
    path = stored(value, tmp_path)
    both = read_volumes(path)
    assert [(one.laterality.value, one.frames, one.part, one.parts) for one in both] == [("R", 2, 0, 2), ("L", 1, 1, 2)]
    assert np.array_equal(both[1].frame(0), frames()[1])
    with pytest.raises(OctcError) as caught:
        read_volume(path)
    assert caught.value.code == "OCT-E224"
    assert read_volume(path, index=1).laterality.value == "L"


@pytest.mark.parametrize("named", [{}, {"ImageLaterality": "B"}, {"ImageLaterality": "R", "Laterality": "L"}])
def test_an_eye_that_is_not_named_clearly_stays_unknown(named: dict[str, str], tmp_path: Path) -> None:
    value = made()
    del value.SharedFunctionalGroupsSequence[0].FrameAnatomySequence
    del value.ImageLaterality
    for name, eye in named.items():
        setattr(value, name, eye)
    volume = read_volume(stored(value, tmp_path, "Scan_OD_right.dcm"))
    assert (volume.laterality.value, volume.laterality.source) == (None, "unknown")


def test_the_parts_of_a_concatenation_are_one_volume(tmp_path: Path) -> None:
    pictures = frames(5)
    parts = []
    for number, chosen in enumerate(([0, 1], [2, 3], [4]), start=1):
        value = made([pictures[k] for k in chosen])
        value.SOPInstanceUID = UID(f"2.25.{number}")
        value.ConcatenationUID, value.InConcatenationNumber, value.InConcatenationTotalNumber = UID("2.25.99"), number, 3
        for groups, k in zip(value.PerFrameFunctionalGroupsSequence, chosen, strict=True):
            groups.FrameContentSequence[0].InStackPositionNumber = k + 1
        parts.append(stored(value, tmp_path, f"part-{4 - number}.dcm"))
    volume = read_volume(parts[1])
    assert volume.frames == 5
    assert volume.complete.value is True
    assert all(np.array_equal(volume.frame(k), pictures[k]) for k in range(5))
    parts[0].unlink()
    volume = read_volume(parts[1])
    assert (volume.frames, volume.complete.value) == (3, False)


def test_what_holds_no_scans_is_named(tmp_path: Path) -> None:
    colour = made()
    colour.SamplesPerPixel, colour.PhotometricInterpretation, colour.PlanarConfiguration = 3, "RGB", 0
    colour.NumberOfFrames = 1
    assert refusal(stored(colour, tmp_path)).code == "OCT-E227"
    fundus = made()
    fundus.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.77.1.5.1")
    assert refusal(stored(fundus, tmp_path)).code == "OCT-E227"
    empty = made()
    del empty.PixelData
    assert refusal(stored(empty, tmp_path)).code == "OCT-E220"
    scrambled = made()
    scrambled.add_new(0x04070010, "LO", "99CZM_NIM_INTERNAL_01")
    scrambled.add_new(0x04071005, "OB", b"12")
    assert refusal(stored(scrambled, tmp_path)).code == "OCT-E223"
    index = made()
    index.file_meta.MediaStorageSOPClassUID = index.SOPClassUID = UID("1.2.840.10008.1.3.10")
    assert refusal(stored(index, tmp_path, "DICOMDIR")).code == "OCT-E227"


def test_a_syntax_without_a_decoder_is_named(tmp_path: Path) -> None:
    value = made()
    value.PixelData, value["PixelData"].VR = encapsulate([b"\xff\xd8\xff\xc3" + bytes(40)] * 3), "OB"
    value["PixelData"].is_undefined_length = True
    value.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.70")
    error = refusal(stored(value, tmp_path))
    assert error.code == "OCT-E221"
    assert "JPEG Lossless" in error.message


def test_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    many = made()
    many.NumberOfFrames = 100_000
    few = made()
    few.NumberOfFrames = 2_000
    for groups in (few,):
        groups.PerFrameFunctionalGroupsSequence = few.PerFrameFunctionalGroupsSequence[:1] * 2000
    bits = made()
    bits.BitsStored, bits.HighBit = 12, 11
    large = made()
    large.Rows = large.Columns = 65535
    for name, value in (("many", many), ("few", few), ("bits", bits), ("large", large)):
        assert refusal(stored(value, tmp_path, name)).code == "OCT-E222", name


def test_surplus_bytes_are_no_frames(tmp_path: Path) -> None:
    value = made()
    value.PixelData += bytes(SHAPE[0] * SHAPE[1])
    volume = read_volume(stored(value, tmp_path))
    assert volume.frames == 3
    assert any("follow the last frame" in note for note in volume.notes)


@pytest.mark.parametrize("syntax", [UNCOMPRESSED, RLE])
def test_a_cut_object_says_so_and_gives_its_whole_frames_on_request(syntax: str, tmp_path: Path) -> None:
    path = stored(made(syntax=syntax), tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - SHAPE[0] * SHAPE[1] // 2])
    assert refusal(path).code == "OCT-E226"
    volume = read_volume(path, allow_cut=True)
    assert (volume.frames, volume.complete.value) == (2, False)
    assert np.array_equal(volume.frame(1), frames()[1])


def test_compressed_pictures_of_another_size_are_refused(tmp_path: Path) -> None:
    value = made(syntax=JPEG_2000)
    value.Rows = 20
    volume = read_volume(stored(value, tmp_path))
    with pytest.raises(OctcError, match="is declared"):
        volume.frame(0)


def test_identity_leaves_only_as_a_keyed_hash(tmp_path: Path) -> None:
    value = made()
    value.PatientName, value.PatientBirthDate = "Doe^Jane", "19500101"
    path = stored(value, tmp_path)
    one, other, none = read_volume(path, key=b"site"), read_volume(path, key=b"elsewhere"), read_volume(path)
    assert one.patient != other.patient
    assert one.patient == read_volume(path, key=b"site").patient
    assert none.patient is None
    for word in ("Doe", "Jane", "1950", "P-1"):
        assert word not in str(one.to_json())


def test_highdicom_reads_the_same_numbers(tmp_path: Path) -> None:
    """An independent reader, with its transforms switched off and on."""
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed (it is an oracle only)")
    path = stored(made(frames(top=4095, kind="u2"), bits=12), tmp_path)
    image = highdicom.Image.from_dataset(dcmread(path))
    volume = read_volume(path)
    for index in range(3):
        assert np.array_equal(image.get_frame(index + 1, apply_real_world_transform=False), volume.raw(index))


def test_odd_values_are_not_told_to_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """pydicom warns of and logs values that do not fit their type; warnings are errors in these tests."""
    path = stored(made(), tmp_path)
    data = path.read_bytes().replace(b"20260203040506", b"2026-2-3 04:05")
    path.write_bytes(data.replace(b"P-1 ", b"\xff\xfe1 "))
    volume = read_volume(path, key=b"site")
    assert volume.frames == 3
    assert volume.acquired.value is None
    assert capfd.readouterr() == ("", "")


def test_the_encoding_counts_and_not_what_the_header_says_of_it(tmp_path: Path) -> None:
    """pydicom reads explicit and implicit elements whatever is stated; the pixels begin where they do."""
    path = stored(made(), tmp_path)
    data = path.read_bytes()
    assert data.count(b"1.2.840.10008.1.2.1\0") == 1
    path.write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"))
    volume = read_volume(path)
    assert all(np.array_equal(volume.frame(k), picture) for k, picture in enumerate(frames()))
    value = made()
    value.preamble = bytes(128)
    del value.file_meta.TransferSyntaxUID
    value.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=False)
    volume = read_volume(path)
    assert all(np.array_equal(volume.frame(k), picture) for k, picture in enumerate(frames()))


def test_bytes_in_words_of_the_other_order_are_turned(tmp_path: Path) -> None:
    value = made()
    value.PixelData = np.frombuffer(value.PixelData, "<u2").astype(">u2").tobytes()
    value["PixelData"].VR = "OW"
    value.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.2")
    volume = read_volume(stored(value, tmp_path))
    assert all(np.array_equal(volume.frame(k), picture) for k, picture in enumerate(frames()))


def test_a_table_of_grey_in_functional_groups_is_applied(tmp_path: Path) -> None:
    value = made()
    table = item(LUTDescriptor=[256, 0, 8], LUTData=np.arange(255, -1, -1).astype("<u2").tobytes())
    value.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence = [item(VOILUTSequence=[table])]
    assert np.array_equal(read_volume(stored(value, tmp_path)).frame(0), 255 - frames()[0])


def test_a_table_may_begin_below_zero_whatever_the_encoding(tmp_path: Path) -> None:
    value = made()
    value.RescaleSlope, value.RescaleIntercept = "1", "-128"
    table = item(LUTDescriptor=[256, 65536 - 128, 8], LUTData=np.arange(256).astype("<u2").tobytes())
    value.VOILUTSequence = [table]
    assert np.array_equal(read_volume(stored(value, tmp_path)).frame(0), frames()[0])


@pytest.mark.parametrize(
    ("frame", "image", "series", "eye"),
    [
        ("R", "R", "", "R"), ("R", "B", "", "R"), ("R", "", "", "R"), ("R", "L", "", None), ("R", "", "L", None),
        ("B", "R", "", None), ("", "B", "R", None), ("", "L", "R", None), ("", "", "L", "L"), ("U", "L", "", "L"),
    ],
)  # fmt: skip
def test_contradicting_words_about_the_eye_leave_it_unknown(
    frame: str, image: str, series: str, eye: str | None, tmp_path: Path
) -> None:
    value = made()
    value.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].FrameLaterality = frame
    value.ImageLaterality = image
    value.Laterality = series
    volume = read_volume(stored(value, tmp_path))
    assert volume.laterality.value == eye
    assert any("contradicting" in note for note in volume.notes) == (eye is None)


def test_frames_that_are_not_counted_are_not_called_complete(tmp_path: Path) -> None:
    value = made()
    del value.NumberOfFrames
    volume = read_volume(stored(value, tmp_path))
    assert (volume.frames, volume.complete.value) == (1, None)
    assert any("follow the last frame" in note for note in volume.notes)


def test_what_is_converted_claims_nothing_that_its_source_does_not(tmp_path: Path) -> None:
    value = made()
    value.BurnedInAnnotation, value.LossyImageCompression = "YES", "01"
    path = stored(value, tmp_path)
    write_opt(read_volume(path), tmp_path / "copy.dcm")
    copy = dcmread(tmp_path / "copy.dcm")
    assert (copy.BurnedInAnnotation, copy.LossyImageCompression) == ("YES", "01")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 100])
    write_opt(read_volume(path, allow_cut=True), tmp_path / "cut.dcm")
    again = read_volume(tmp_path / "cut.dcm")
    assert again.complete.value is False
    darker = made()
    darker.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence = [item(WindowCenter="200", WindowWidth="400")]
    write_opt(read_volume(stored(darker, tmp_path, "darker.dcm")), tmp_path / "darker-copy.dcm")
    assert dcmread(tmp_path / "darker-copy.dcm").SOPInstanceUID != copy.SOPInstanceUID


def test_plain_eight_bits_are_mapped_as_pictures_are(tmp_path: Path) -> None:
    assert read_volume(stored(made(), tmp_path)).intensity.name == "linear"
    words = made(frames(top=4095, kind="u2"), bits=12)
    assert read_volume(stored(words, tmp_path)).intensity.name == "dicom"
