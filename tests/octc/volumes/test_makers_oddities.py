"""Makers' files as they arrive: headers with impossible lengths, files that end behind their B-scans or within their header."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.datasets.synthetic import volumes as synthetic
from octc.datasets.synthetic.volumes import DrawnEye, draw_eye_volume
from octc.volumes import RawShape, read_volume, read_volumes
from octc.volumes.volume import millimetres
from octc.volumes.writing import write_pictures
from tests.octc.volumes.opt_objects import made, stored


@pytest.fixture(scope="module")
def drawn() -> DrawnEye:
    return draw_eye_volume("CNV", 1, "L", frames=3, size=(64, 48))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 0.0])
def test_lengths_that_cannot_be_are_not_known(number: float, drawn: DrawnEye, tmp_path: Path) -> None:
    data = bytearray(synthetic.vol_bytes(drawn))
    assert data.startswith(b"HSF-OCT-")
    struct.pack_into("<2d", data, 24, number, number)  # across, and between B-scans
    (tmp_path / "a.vol").write_bytes(data)
    volume = read_volume(tmp_path / "a.vol")
    assert volume.spacing.value is not None
    assert (volume.spacing.value[0], volume.spacing.value[2]) == (None, None)
    assert volume.spacing.value[1] == pytest.approx(drawn.spacing[1])
    json.dumps(volume.to_json(), allow_nan=False)
    struct.pack_into("<d", data, 40, number)
    (tmp_path / "a.vol").write_bytes(data)
    assert read_volume(tmp_path / "a.vol").spacing.to_json() == {"value": None, "source": "unknown"}


@pytest.mark.parametrize("number", ["0", "-0.5"])
def test_lengths_of_an_object_that_cannot_be_are_not_known(number: str, tmp_path: Path) -> None:
    value = made()
    measures = value.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing, measures.SpacingBetweenSlices = [number, number], number
    for groups in value.PerFrameFunctionalGroupsSequence:
        del groups.PlanePositionSequence
    assert read_volume(stored(value, tmp_path)).spacing.to_json() == {"value": None, "source": "unknown"}


def test_lengths_of_a_manifest_are_numbers(drawn: DrawnEye, tmp_path: Path) -> None:
    synthetic.write_dicom(drawn, tmp_path / "a.dcm")
    write_pictures(read_volume(tmp_path / "a.dcm"), tmp_path / "stack")
    manifest = tmp_path / "stack" / "volume.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "spacing_mm": ["wide", 0.004, -1]}))
    assert read_volume(manifest).spacing.value == (None, 0.004, None)


def test_what_is_no_length() -> None:
    assert millimetres((0.25, None, 1), "x").value == (0.25, None, 1.0)
    assert millimetres((None, float("nan"), "1"), "x").value is None


def test_a_file_that_ends_behind_its_b_scans_says_so(drawn: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.fda_bytes(drawn)
    (tmp_path / "a.fda").write_bytes(data)
    whole = read_volume(tmp_path / "a.fda")
    assert not any("cut short" in note for note in whole.notes)
    chunk = b"\x04@END" + struct.pack("<I", 100) + bytes(10)  # of 100 bytes, 10 are there
    assert data.endswith(b"\0")  # no name of a chunk: the end of the list
    (tmp_path / "a.fda").write_bytes(data[:-1] + chunk)
    told = read_volume(tmp_path / "a.fda")
    assert (told.frames, told.laterality.value) == (whole.frames, "L")
    assert any("cut short" in note for note in told.notes)


@pytest.mark.parametrize("name", ["e2e", "fda"])
def test_a_header_that_is_not_whole_is_called_cut_short(name: str, drawn: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.e2e_bytes([drawn]) if name == "e2e" else synthetic.fda_bytes(drawn)
    for length in (4, 15, 30):
        (tmp_path / f"a.{name}").write_bytes(data[:length])
        with pytest.raises(OctcError) as caught:
            read_volume(tmp_path / f"a.{name}")
        assert caught.value.code == "OCT-E226"


def test_pictures_of_an_export_are_found_in_another_letter_case(drawn: DrawnEye, tmp_path: Path) -> None:
    path = synthetic.write_xml(drawn, tmp_path)
    for file in [one for one in tmp_path.iterdir() if one != path]:
        file.rename(tmp_path / file.name.upper())
    volume = read_volume(path)
    assert all(np.array_equal(volume.frame(k), picture) for k, picture in enumerate(drawn.frames))
    first = next(one for one in sorted(tmp_path.iterdir()) if one != path)
    (tmp_path / first.name.title()).write_bytes(first.read_bytes())  # 000.Bmp beside 000.BMP: which one is meant is not known
    with pytest.raises(OctcError) as caught:
        read_volume(path)
    assert caught.value.code == "OCT-E226"


def test_a_picture_of_an_export_that_is_deeper_than_the_others_is_refused(drawn: DrawnEye, tmp_path: Path) -> None:
    path = synthetic.write_xml(drawn, tmp_path)
    last = sorted(one for one in tmp_path.iterdir() if one != path)[-1]
    Image.fromarray(drawn.frames[2].astype(np.uint16) * 16).save(tmp_path / "deep.tif")
    (tmp_path / "deep.tif").replace(last)
    volume = read_volume(path)
    assert np.array_equal(volume.frame(0), drawn.frames[0])
    with pytest.raises(OctcError, match="uint16") as caught:
        volume.frame(2)
    assert caught.value.code == "OCT-E229"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e9, -1e9])
def test_reflectivity_that_is_none_is_refused_where_its_b_scan_is_shown(number: float, drawn: DrawnEye, tmp_path: Path) -> None:
    """As another version, or another order of bytes, would have it: never a B-scan that is black."""
    data = bytearray(synthetic.vol_bytes(drawn))
    rows, columns = drawn.frames.shape[1:]
    first = len(data) - 4 * rows * columns  # of the last B-scan
    struct.pack_into("<f", data, first + 40, number)
    (tmp_path / "a.vol").write_bytes(data)
    volume = read_volume(tmp_path / "a.vol")
    assert volume.frame(0).max() > 0
    with pytest.raises(OctcError) as caught:
        volume.frame(2)
    assert caught.value.code == "OCT-E222"


def test_bytes_of_the_other_order_are_no_reflectivity(drawn: DrawnEye, tmp_path: Path) -> None:
    data = bytearray(synthetic.vol_bytes(drawn))
    size = 4 * drawn.frames[0].size
    data[-size:] = np.frombuffer(data[-size:], "<f4").astype(">f4").tobytes()
    (tmp_path / "a.vol").write_bytes(data)
    with pytest.raises(OctcError) as caught:
        read_volume(tmp_path / "a.vol").frame(2)
    assert caught.value.code == "OCT-E222"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_without_an_end_are_no_grey(number: float, drawn: DrawnEye, tmp_path: Path) -> None:
    """One of them would make all others of an Optovue B-scan black."""
    values = np.frombuffer(synthetic.optovue_bytes(drawn), "<f4").copy()
    values[5] = number
    (tmp_path / "a.OCT").write_bytes(values.tobytes())
    volume = read_volume(tmp_path / "a.OCT", shape=RawShape(*drawn.frames.shape))
    with pytest.raises(OctcError) as caught:
        volume.frame(0)
    assert caught.value.code == "OCT-E222"
    assert (volume.frame(1) == drawn.frames[1]).mean() > 0.9


def test_zeros_of_a_capture_name_no_eye(drawn: DrawnEye, tmp_path: Path) -> None:
    """As programs leave them that take identity away; a right eye is a zero too, with a day beside it."""
    facts, pixels = dict(synthetic._topcon_facts(drawn)), (b"@IMG_SCAN_03", synthetic._topcon_pixels(drawn))
    capture = facts[b"@CAPTURE_INFO_02"]
    found = []
    for data in (capture, b"\0" + capture[1:], bytes(len(capture))):
        path = tmp_path / f"{len(found)}.fds"
        path.write_bytes(synthetic._topcon(b"FDS", [*({**facts, b"@CAPTURE_INFO_02": data}.items()), pixels]))
        found.append(read_volume(path))
    assert [one.laterality.value for one in found] == [drawn.eye, "R", None]
    assert [one.laterality.source for one in found][2] == "unknown"
    assert [one.acquired.value is None for one in found] == [False, False, True]


def test_a_pattern_that_is_not_stated_is_none(drawn: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.bioptigen_bytes(drawn)
    (tmp_path / "a.OCT").write_bytes(data)
    (tmp_path / "b.OCT").write_bytes(data.replace(b"SCANTYPE", b"SCANTYPO"))
    assert [read_volume(tmp_path / name).pattern.value for name in ("a.OCT", "b.OCT")] == ["volume", None]


def test_a_second_block_of_b_scans_is_told(drawn: DrawnEye, tmp_path: Path) -> None:
    facts, pixels = synthetic._topcon_facts(drawn), (b"@IMG_SCAN_03", synthetic._topcon_pixels(drawn))
    (tmp_path / "a.fds").write_bytes(synthetic._topcon(b"FDS", [*facts, pixels]))
    (tmp_path / "b.fds").write_bytes(synthetic._topcon(b"FDS", [*facts, pixels, pixels]))
    one, two = read_volume(tmp_path / "a.fds"), read_volume(tmp_path / "b.fds")
    assert (one.complete.value, two.complete.value) == (True, None)
    assert any("2 blocks @IMG_SCAN_03" in note for note in two.notes)
    assert not any("blocks" in note for note in one.notes)


@pytest.mark.parametrize(("names", "code"), [((), "OCT-E227"), ((b"@IMG_TRC_02", b"@IMG_FUNDUS"), "OCT-E227"),
                                              ((b"@IMG_OTHER_09",), "OCT-E229")])  # fmt: skip
def test_a_photograph_of_a_topcon_is_no_scan(names: tuple[bytes, ...], code: str, drawn: DrawnEye, tmp_path: Path) -> None:
    chunks = [*synthetic._topcon_facts(drawn), *((name, bytes(60)) for name in names)]
    (tmp_path / "a.fda").write_bytes(synthetic._topcon(b"FDA", chunks))
    with pytest.raises(OctcError) as caught:
        read_volumes(tmp_path / "a.fda")
    assert caught.value.code == code
