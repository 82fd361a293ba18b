"""What writers of DICOM do otherwise and mean alike: kinds of values, blanks and zeros around codes, planes, stacks, sizes."""

from __future__ import annotations

import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from octc.core.errors import OctcError
from octc.volumes import dicom, read_volume, read_volumes
from octc.volumes.volume import patient_hash
from octc.volumes.writing import JPEG_2000
from tests.octc.volumes.opt_objects import as_implicit, encapsulated, frames, item, made, stored
from tests.octc.volumes.test_dicom_oddities import encoded, refusal


def signed(bits: int = 16) -> Any:
    """An object of signed pixels whose first row is -2000, which is padding."""
    low = -(1 << (bits - 1))
    pictures = [(one.astype(int) + low).astype(np.int16) for one in frames(top=(1 << bits) - 1, kind="u2")]
    for one in pictures:
        one[one == -2000] = 0
        one[0] = -2000
    value = made([one.view("u2") & ((1 << bits) - 1) for one in pictures], bits=bits)
    value.PixelRepresentation = 1
    return value


@pytest.mark.parametrize(
    ("kind", "number"), [("SS", -2000), ("US", 63536), ("OW", struct.pack("<h", -2000)), ("UN", b"\x30\xf8")]
)
@pytest.mark.parametrize("bits", [16, 12])
def test_padding_of_signed_pixels_is_found_however_it_is_written(kind: str, number: Any, bits: int, tmp_path: Path) -> None:
    value = signed(bits)
    value.add_new(0x00280120, kind, number)
    shown = read_volume(stored(value, tmp_path)).frame(1)
    assert not shown[0].any()
    assert shown[1:].any(axis=1).all()


def test_padding_in_the_bits_that_are_stored_is_found(tmp_path: Path) -> None:
    value = signed(12)
    value.add_new(0x00280120, "US", 4096 - 2000)
    assert not read_volume(stored(value, tmp_path)).frame(1)[0].any()


@pytest.mark.parametrize("implicit", [False, True])
def test_a_range_of_padding_may_be_written_with_a_sign(implicit: bool, tmp_path: Path) -> None:
    """Of pixels without one: 65000 to 65535 as -536 to -1."""
    pictures = frames(top=60000, kind="u2")
    for one in pictures:
        one[0] = 65100
        one[1] = 65535
    value = made(pictures, bits=16)
    kind = "US" if implicit else "SS"
    value.add_new(0x00280120, kind, 65535 if implicit else -1)
    value.add_new(0x00280121, kind, 65000 if implicit else -536)
    shown = read_volume(stored(as_implicit(value) if implicit else value, tmp_path)).frame(0)
    assert not shown[:2].any()
    assert shown[2:].any(axis=1).all()


@pytest.mark.parametrize("kind", ["ModalityLUTSequence", "VOILUTSequence"])
@pytest.mark.parametrize("first", [-2048, 65536 - 2048])
def test_a_table_of_signed_pixels_begins_below_zero_however_it_is_written(kind: str, first: int, tmp_path: Path) -> None:
    """Its count of 4096 may be written as a number with a sign too."""
    table = (np.arange(4096) ** 2 / 4095**2 * 65535).astype(np.uint16)
    one = Dataset()
    one.add_new(0x00283002, "SS" if first < 0 else "US", [4096, first, 16])
    one.add_new(0x00283006, "OW", table.tobytes())
    value = signed(12)
    setattr(value, kind, [one])
    volume = read_volume(stored(value, tmp_path))
    assert np.array_equal(volume.frame(1), np.floor(table[volume.raw(1).astype(int) + 2048] / 65535 * 255 + 0.5))


def raw_text(path: Path, old: bytes, new: bytes) -> Path:
    """A file in which a text of a length is another one of it."""
    data = path.read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return path


def test_a_table_of_more_than_32767_entries_may_have_a_negative_count(tmp_path: Path) -> None:
    table = np.arange(40000, dtype=np.uint16)
    one = Dataset()
    one.add_new(0x00283002, "US", [40000, 0, 16])
    one.add_new(0x00283006, "OW", table.tobytes())
    value = made(frames(top=39999, kind="u2"), bits=16)
    value.ModalityLUTSequence = [one]
    tag = struct.pack("<2H", 0x0028, 0x3002)
    volume = read_volume(raw_text(stored(value, tmp_path), tag + b"US", tag + b"SS"))
    assert np.array_equal(volume.frame(1), np.floor(volume.raw(1) / 39999 * 255 + 0.5))


@pytest.mark.parametrize("word", [b"R\0", b" R", b"\0R", b"R\n"])
def test_what_stands_around_a_letter_is_no_part_of_it(word: bytes, tmp_path: Path) -> None:
    value = made()
    del value.SharedFunctionalGroupsSequence[0].FrameAnatomySequence
    old = struct.pack("<2H2sH", 0x0020, 0x0062, b"CS", 2) + b"R "
    path = raw_text(stored(value, tmp_path), old, old[:-2] + word)
    volume = read_volume(path)
    assert (volume.laterality.value, volume.laterality.source) == ("R", "ImageLaterality")


def test_codes_may_have_blanks_and_zeros_around_them(tmp_path: Path) -> None:
    value = made()
    value.PhotometricInterpretation = " MONOCHROME1"
    value.WindowCenter, value.WindowWidth, value.VOILUTFunction = 128, 256, " LINEAR_EXACT"
    value.LossyImageCompression, value.BurnedInAnnotation = " 01", " NO"
    volume = read_volume(stored(value, tmp_path))
    assert np.array_equal(volume.frame(0), 255 - np.floor(frames()[0] / 256 * 255 + 0.5))
    assert (volume.lossy, volume.annotated) == (True, False)


def test_a_patient_is_one_whatever_pads_the_id(tmp_path: Path) -> None:
    want = patient_hash(b"key", "P-1")
    for word in ("P-1\0\0", " P-1", "\0P-1 \0"):
        value = made()
        value.PatientID = word
        assert read_volume(stored(value, tmp_path), key=b"key").patient == want
    assert patient_hash(b"key", "\0 ") is None


@pytest.mark.parametrize(
    ("shared", "own", "top", "eyes"),
    [
        ("R", ["L", "L", "L"], "", [None]), ("R", [None, None, None], "", ["R"]), ("B", ["R", "L", "R"], "B", [None]),
        (None, ["R", "L", "R"], "B", ["R", "L"]), (None, ["R", None, "R"], "L", [None, "L"]), ("", ["L", "L", "L"], "", ["L"]),
        (None, [None, None, None], "", [None]), ("U", [None, None, None], "R", ["R"]),
    ],
)  # fmt: skip
def test_eyes_of_frames_of_all_frames_and_of_the_object(
    shared: str | None, own: list[str | None], top: str, eyes: list[str | None], tmp_path: Path
) -> None:
    value = made()
    value.ImageLaterality = top
    groups = value.SharedFunctionalGroupsSequence[0]
    if shared is None:
        del groups.FrameAnatomySequence
    else:
        groups.FrameAnatomySequence = [item(FrameLaterality=shared)]
    for one, word in zip(value.PerFrameFunctionalGroupsSequence, own, strict=True):
        if word is not None:
            one.FrameAnatomySequence = [item(FrameLaterality=word)]
    found = read_volumes(stored(value, tmp_path))
    assert [volume.laterality.value for volume in found] == eyes
    assert sum(volume.frames for volume in found) == 3


def planes(value: Any, turns: list[tuple[float, ...]], stacks: str = "") -> Any:
    """Frames whose rows run along these directions, each a mm behind the one before."""
    shared = value.SharedFunctionalGroupsSequence[0]
    if "PlaneOrientationSequence" in shared:
        del shared.PlaneOrientationSequence
    for index, (one, across) in enumerate(zip(value.PerFrameFunctionalGroupsSequence, turns, strict=True)):
        one.PlaneOrientationSequence = [item(ImageOrientationPatient=[*across, 0.0, 0.0, 1.0])]
        one.PlanePositionSequence = [item(ImagePositionPatient=[float(index), float(index), 0.0])]
        if stacks:
            one.FrameContentSequence[0].StackID = stacks[index]
    return value


def test_planes_that_turn_have_no_distance(tmp_path: Path) -> None:
    """A star of lines, although it states a distance."""
    value = made(frames(4))
    for groups in (value.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0],):
        groups.SpacingBetweenSlices = 0.25
    turns = [(float(np.cos(a)), float(np.sin(a)), 0.0) for a in np.arange(4) * np.pi / 4]
    volume = read_volume(stored(planes(value, turns), tmp_path))
    assert (volume.spatial, volume.spacing.value[0], volume.pattern.value) == (False, None, None)
    assert volume.order.value == "InStackPositionNumber"
    assert any("not parallel" in note for note in volume.notes)


def test_stacks_across_each_other_are_volumes_of_their_own(tmp_path: Path) -> None:
    """Five lines across and five down, whose numbers go on: a cross."""
    across, down = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
    crossed = planes(made(frames(6)), [across] * 3 + [down] * 3, "111222")
    first, other = read_volumes(stored(crossed, tmp_path))
    assert (first.frames, other.frames, first.parts) == (3, 3, 2)
    assert np.array_equal(other.frame(0), frames(6)[3])
    alike = planes(made(frames(6)), [across] * 6, "111222")
    assert read_volume(stored(alike, tmp_path)).frames == 6


def test_frames_of_several_stacks_are_sorted_in_each(tmp_path: Path) -> None:
    value = made(frames(6))
    for groups, (stack, number) in zip(
        value.PerFrameFunctionalGroupsSequence, [("1", 3), ("2", 2), ("1", 1), ("2", 3), ("1", 2), ("2", 1)], strict=True
    ):
        groups.FrameContentSequence[0].StackID, groups.FrameContentSequence[0].InStackPositionNumber = stack, number
    first, other = read_volumes(stored(value, tmp_path))
    for volume, order in ((first, (2, 4, 0)), (other, (5, 1, 3))):
        assert (volume.order.value, volume.complete.value) == ("InStackPositionNumber", True)
        assert all(np.array_equal(volume.frame(k), frames(6)[which]) for k, which in enumerate(order))


@pytest.mark.parametrize("syntax", ["1.2.840.113619.5.2", "1.3.46.670589.33.1.4.1", "1.2.3.4.5"])
def test_a_private_transfer_syntax_has_no_decoder(syntax: str, tmp_path: Path) -> None:
    path = stored(encapsulated(made(), [b"\1\2" * 40] * 3, syntax=JPEG_2000), tmp_path)
    old = JPEG_2000.encode()
    path.write_bytes(path.read_bytes().replace(old, syntax.encode().ljust(len(old), b"\0")[: len(old)]))
    error = refusal(path)
    assert (error.code, bool(error.hint)) == ("OCT-E221", True)


def test_a_deflated_object_beyond_the_limit_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = made([np.zeros((40, 48), np.uint8)] * 60)
    value.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = stored(value, tmp_path)
    assert read_volume(path).frames == 60
    monkeypatch.setattr(dicom, "MAX_INFLATED", 100_000)
    error = refusal(path)
    assert (error.code, "dcmconv" in error.hint) == ("OCT-E229", True)


@pytest.mark.parametrize("implicit", [True, False])
def test_an_object_of_3_gib_is_read_frame_by_frame(implicit: bool, tmp_path: Path) -> None:
    """4,100 frames of 1024 x 768 in a file with a hole, the last one written at its end."""
    count, rows, columns = 4100, 1024, 768
    value = made()
    value.Rows, value.Columns, value.NumberOfFrames = rows, columns, count
    del value.PerFrameFunctionalGroupsSequence
    path = stored(as_implicit(value) if implicit else value, tmp_path)
    data = path.read_bytes()
    head = struct.pack("<2H", 0x7FE0, 0x0010)
    at = data.rindex(head) + (4 if implicit else 8)
    size = count * rows * columns
    last = (np.arange(rows * columns).reshape(rows, columns) % 251).astype(np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with path.open("r+b") as stream:
        stream.truncate(at)
        stream.seek(at)
        stream.write(struct.pack("<I", size))
        stream.truncate(at + 4 + size)
        stream.seek(at + 4 + size - last.size)
        stream.write(last.tobytes())
    volume = read_volume(path)
    assert (volume.frames, path.stat().st_size > 3 << 30) == (count, True)
    assert np.array_equal(volume.frame(count - 1), last)
    assert not volume.frame(2000).any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    with path.open("r+b") as stream:
        stream.truncate(at + 4 + size - 10)
    assert refusal(path).code == "OCT-E226"


@pytest.mark.parametrize("size", [(33, 41), (41, 33), (35, 64)])
@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99", JPEG_2000]
)
@pytest.mark.parametrize("count", [1, 3])
def test_frames_of_odd_sizes(size: tuple[int, int], syntax: str, count: int, tmp_path: Path) -> None:
    pictures = [(np.arange(size[0] * size[1]).reshape(size) * 7 + 31 * k).astype(np.uint8) for k in range(count)]
    compressed = syntax in ("1.2.840.10008.1.2.5", JPEG_2000)
    value = made(pictures, syntax=syntax if compressed else "1.2.840.10008.1.2.1")
    value.file_meta.TransferSyntaxUID = syntax
    volume = read_volume(stored(value, tmp_path))
    assert (volume.frames, all(np.array_equal(volume.frame(k), one) for k, one in enumerate(pictures))) == (count, True)


def test_eight_bits_in_words_of_sixteen_in_a_compression_of_eight(tmp_path: Path) -> None:
    value = encapsulated(made(frames(kind="u2"), bits=12), [encoded(one) for one in frames()])
    value.BitsStored, value.HighBit = 8, 7
    volume = read_volume(stored(value, tmp_path))
    assert np.array_equal(volume.frame(2), frames()[2])


def test_colours_are_named_as_such(tmp_path: Path) -> None:
    for planar, meant in ((0, "RGB"), (1, "RGB"), (0, "YBR_FULL"), (0, "YBR_FULL_422")):
        value = made()
        value.SamplesPerPixel, value.PhotometricInterpretation, value.PlanarConfiguration = 3, meant, planar
        value.PixelData = b"\x40" * (3 * 40 * 48 * 3)
        with pytest.raises(OctcError) as caught:
            read_volume(stored(value, tmp_path))
        assert caught.value.code == "OCT-E227"
