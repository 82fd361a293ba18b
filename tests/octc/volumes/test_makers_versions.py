"""Files of makers as other models and versions write them, by the descriptions of others."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.datasets.synthetic import volumes as synthetic
from octc.datasets.synthetic.volumes import DrawnEye, draw_eye_volume
from octc.runtimes.predict import Unread
from octc.runtimes.scans import Reading, opened
from octc.volumes import Volume, read_volume, read_volumes
from octc.volumes.formats import pictures_of
from tests.octc.volumes.test_makers import CLINIC, needs_samples, same_grey


@pytest.fixture(scope="module")
def drawn() -> DrawnEye:
    return draw_eye_volume("CNV", 3, "L", frames=4, size=(64, 48))


def chunk_of(data: bytes, kind: int, number: int = 0) -> int:
    """Where a chunk of a kind begins in an `.e2e`."""
    found = [at.start() for at in re.finditer(rb"MDbData", data) if struct.unpack_from("<I", data, at.start() + 52)[0] == kind]
    return found[number]


def e2e(drawn: DrawnEye, folder: Path, changes: dict[int, bytes]) -> list[Volume]:
    data = bytearray(synthetic.e2e_bytes([drawn]))
    for at, what in changes.items():
        data[at : at + len(what)] = what
    (folder / "a.e2e").write_bytes(data)
    return read_volumes(folder / "a.e2e")


@needs_samples
def test_the_shared_e2e_file_names_its_eye() -> None:
    (volume,) = read_volumes(CLINIC / "e2e_minimized.E2E", allow_cut=True)
    assert (volume.laterality.value, volume.laterality.source) == ("L", "chunk type 11")


def test_an_e2e_names_the_eye_in_one_of_two_chunks(drawn: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.e2e_bytes([drawn])
    at = chunk_of(data, 11)
    kind, body = at + 52, at + 60
    as_three = {kind: struct.pack("<I", 3), body: bytes(4) + b"R" + bytes(22)}
    (other,) = e2e(drawn, tmp_path, as_three)
    assert (other.laterality.value, other.laterality.source) == ("R", "chunk type 3")
    patient = chunk_of(data, 9)
    both = {patient + 52: struct.pack("<I", 3), patient + 60: bytes(4) + b"R"}
    (torn,) = e2e(drawn, tmp_path, both)
    assert torn.laterality.value is None
    assert any("contradicting" in note for note in torn.notes)


def test_what_is_called_quality_in_an_e2e_is_none(drawn: DrawnEye, tmp_path: Path) -> None:
    """0.84 for B-scans of 39 and 42 dB (OCT-Converter#138): by a limit of 15 dB nothing would be left of an eye."""
    assert e2e(drawn, tmp_path, {})[0].quality == ()


def test_images_of_an_e2e_that_are_no_floats_are_no_b_scans(drawn: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.e2e_bytes([drawn])
    eight = struct.pack("<I", 0x02010201)
    places = [chunk_of(data, 0x40000000, k) + 64 for k in range(4)]  # drawn from the last B-scan to the first
    (volume,) = e2e(drawn, tmp_path, {places[0]: eight})
    assert (volume.frames, volume.complete.value) == (3, False)
    assert any("1 images" in note for note in volume.notes)
    same_grey(volume, replace(drawn, frames=drawn.frames[:3]))
    with pytest.raises(OctcError) as caught:
        e2e(drawn, tmp_path, dict.fromkeys(places, eight))
    assert caught.value.code == "OCT-E229"


def test_an_e2e_with_an_empty_b_scan_lacks_it(drawn: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.e2e_bytes([drawn])
    (volume,) = e2e(drawn, tmp_path, {chunk_of(data, 0x40000000) + 72: bytes(8)})
    assert (volume.frames, volume.complete.value) == (3, False)


def test_b_scans_of_an_e2e_that_leave_their_chunk_are_refused(drawn: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.e2e_bytes([drawn])
    rows = struct.pack("<I", 47)
    (volume,) = e2e(drawn, tmp_path, {chunk_of(data, 0x40000000, k) + 72: rows for k in range(4)})
    assert volume.rows == 47
    with pytest.raises(OctcError) as caught:
        e2e(drawn, tmp_path, {chunk_of(data, 0x40000000) + 72: struct.pack("<I", 49)})
    assert caught.value.code == "OCT-E222"


def test_b_scans_of_two_sizes_in_a_series_are_two_volumes(drawn: DrawnEye, tmp_path: Path) -> None:
    """Lines and circles of one acquisition."""
    data = synthetic.e2e_bytes([drawn])
    turned = struct.pack("<2I", 64, 48)
    first, other = e2e(drawn, tmp_path, {chunk_of(data, 0x40000000, k) + 72: turned for k in (0, 1)})
    assert [(one.frames, one.rows, one.columns, one.complete.value) for one in (first, other)] == [
        (2, 48, 64, True), (2, 64, 48, True),
    ]  # fmt: skip
    same_grey(first, replace(drawn, frames=drawn.frames[:2]))


def test_a_series_of_which_all_is_cut_off_is_not_forgotten(drawn: DrawnEye, tmp_path: Path) -> None:
    """The other eye is whole, and the file is cut short all the same."""
    data = bytearray(synthetic.e2e_bytes([drawn, replace(drawn, eye="R")]))
    for k in range(4, 8):
        at = chunk_of(bytes(data), 0x40000000, k)
        struct.pack_into("<I", data, at + 24, 1 << 30)
        struct.pack_into("<2I", data, at + 72, 4000, 4000)
    (tmp_path / "a.e2e").write_bytes(data)
    with pytest.raises(OctcError) as caught:
        read_volumes(tmp_path / "a.e2e")
    assert caught.value.code == "OCT-E226"


@pytest.mark.parametrize(
    ("pattern", "name", "spatial"),
    [(0, None, True), (3, "volume", True), (5, "radial", False), (6, "radial", False), (9, None, False)],
)
def test_only_lines_beside_each_other_have_a_distance(
    pattern: int, name: str | None, *, spatial: bool, drawn: DrawnEye, tmp_path: Path
) -> None:
    data = bytearray(synthetic.vol_bytes(drawn))
    struct.pack_into("<i", data, 96, pattern)
    (tmp_path / "a.vol").write_bytes(data)
    volume = read_volume(tmp_path / "a.vol")
    assert (volume.pattern.value, volume.spatial) == (name, spatial)


def placed(drawn: DrawnEye, folder: Path, ends: list[tuple[float, float, float, float]], kind: str = "") -> Volume:
    """Heidelberg's XML whose lines go from (x, y) to (x, y), mm."""
    path = synthetic.write_xml(drawn, folder)
    text = path.read_text().replace("<Laterality>", f"{kind}<Laterality>", 1)
    parts = re.split(r"<Start>.*?</End>", text)
    assert len(parts) == len(ends) + 1
    lines = [
        f"<Start><Coord><X>{a:.2f}</X><Y>{b:.2f}</Y></Coord></Start><End><Coord><X>{c:.2f}</X><Y>{d:.2f}</Y></Coord></End>"
        for a, b, c, d in ends
    ]
    path.write_text("".join(part + line for part, line in zip(parts, [*lines, ""], strict=True)))
    return read_volume(path)


def test_the_lines_of_a_star_lie_not_beside_each_other(drawn: DrawnEye, tmp_path: Path) -> None:
    """Their ends are as far apart as those of a volume, and go the other way."""
    angles = [math.pi * k / 4 for k in range(4)]
    star = [(4.5 - 3 * math.cos(a), 4.5 - 3 * math.sin(a), 4.5 + 3 * math.cos(a), 4.5 + 3 * math.sin(a)) for a in angles]
    assert not placed(drawn, tmp_path, star).spatial
    tilted = [(1 + 0.1 * k, 1 + 0.24 * k, 7 + 0.1 * k, -1.5 + 0.24 * k) for k in range(4)]
    volume = placed(drawn, tmp_path, tilted)
    assert volume.spatial
    assert volume.spacing.value[0] == pytest.approx(0.26)
    assert placed(drawn, tmp_path, star, "<Type>Volume</Type>").pattern.value == "volume"


@pytest.mark.parametrize("name", [b"@IMG_MOT_COMP_03", b"@IMG_MOT_COMP_02"])
@pytest.mark.parametrize("positions", [True, False])
def test_motion_compensated_b_scans_have_positions_before_their_size(
    name: bytes, *, positions: bool, drawn: DrawnEye, tmp_path: Path
) -> None:
    block = synthetic._topcon_pixels(drawn, compensated=positions)
    (tmp_path / "a.fda").write_bytes(synthetic._topcon(b"FDA", [*synthetic._topcon_facts(drawn), (name, block)]))
    volume = read_volume(tmp_path / "a.fda")
    same_grey(volume, drawn)
    assert (volume.pattern.value, volume.pattern.source) == ("volume", name.decode())
    assert volume.spacing.value == pytest.approx(drawn.spacing)


@needs_samples
def test_the_motion_compensated_block_of_the_shared_file_is_read(tmp_path: Path) -> None:
    """Without the block as scanned: its 48 bytes lie behind a header of 38."""
    data = (CLINIC / "fds_minimized.fds").read_bytes()
    (tmp_path / "a.fds").write_bytes(data.replace(b"@IMG_SCAN_03", b"@IMG_SCAN_99"))
    volume = read_volume(tmp_path / "a.fds")
    at = data.index(b"@IMG_MOT_COMP_03") + 16 + 4 + 38
    assert (volume.frames, volume.rows, volume.columns) == (4, 3, 2)
    assert np.array_equal(np.stack([volume.raw(k) for k in range(4)]).ravel(), np.frombuffer(data, "<u2", 24, at))


@pytest.mark.parametrize(
    ("mode", "pattern"), [(0, "line"), (2, "volume"), (3, "radial"), (7, "line"), (11, "cross"), (99, None)]
)
def test_topcon_numbers_its_patterns(mode: int, pattern: str | None, drawn: DrawnEye, tmp_path: Path) -> None:
    data = bytearray(synthetic.fda_bytes(drawn))
    data[data.index(b"@IMG_JPEG") + 9 + 4] = mode
    (tmp_path / "a.fda").write_bytes(data)
    assert read_volume(tmp_path / "a.fda").pattern.value == pattern


def bioptigen(drawn: DrawnEye, folder: Path, *fields: bytes, scan: int = 1) -> Volume:
    """With further fields of the header, and a kind of scan."""
    data = synthetic.bioptigen_bytes(drawn)
    place = data.index(synthetic._keyed(b"SCANTYPE", struct.pack("<I", 1)))
    data = data[:place] + synthetic._keyed(b"SCANTYPE", struct.pack("<I", scan)) + b"".join(fields) + data[place + 20 :]
    (folder / "a.OCT").write_bytes(data)
    return read_volume(folder / "a.OCT")


@pytest.mark.parametrize(
    ("scan", "pattern", "spatial"), [(0, "line", False), (1, "volume", True), (2, "circle", False), (3, "radial", False)]
)
def test_bioptigen_numbers_its_patterns(scan: int, pattern: str, *, spatial: bool, drawn: DrawnEye, tmp_path: Path) -> None:
    volume = bioptigen(drawn, tmp_path, scan=scan)
    assert (volume.pattern.value, volume.spatial) == (pattern, spatial)
    assert (volume.spacing.value[0] is None) == (not spatial)


def test_repeated_and_mixed_b_scans_of_bioptigen_are_told(drawn: DrawnEye, tmp_path: Path) -> None:
    counts = (synthetic._keyed(name, struct.pack("<I", 2)) for name in (b"SCANS", b"FRAMES"))
    volume = bioptigen(drawn, tmp_path, *counts)
    assert volume.spacing.value[0] is None
    assert any("2 B-scans of each place" in note for note in volume.notes)
    with pytest.raises(OctcError) as caught:
        bioptigen(drawn, tmp_path, scan=6)
    assert caught.value.code == "OCT-E229"


def test_a_b_scan_of_bioptigen_with_other_lines_is_refused(drawn: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.bioptigen_bytes(drawn)
    count = synthetic._keyed(b"LINECOUNT", struct.pack("<I", 64))
    (tmp_path / "a.OCT").write_bytes(data.replace(count, synthetic._keyed(b"LINECOUNT", struct.pack("<I", 63))))
    with pytest.raises(OctcError) as caught:
        read_volume(tmp_path / "a.OCT")
    assert caught.value.code == "OCT-E229"


def test_codes_of_the_largest_exponent_are_white_and_the_last_one_is_outside(drawn: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.e2e_bytes([drawn])
    first = chunk_of(data, 0x40000000, 3) + 60 + 20  # drawn from the last B-scan to the first
    codes = (0xFFFF, 0xFFFE, 0xFC00, 0xFBFF, 0x0000)
    (volume,) = e2e(drawn, tmp_path, {first: struct.pack("<5H", *codes)})
    assert volume.raw(0)[0, :5].tolist() == list(codes)
    assert volume.frame(0)[0, :5].tolist() == [0, 255, 255, 255, 0]


def test_chunks_of_an_fds_may_begin_three_bytes_earlier(drawn: DrawnEye, tmp_path: Path) -> None:
    """As a Triton plus writes them (OCT-Converter#13)."""
    data = synthetic.fds_bytes(drawn)
    (tmp_path / "a.fds").write_bytes(data[:7] + data[10:])
    volume = read_volume(tmp_path / "a.fds")
    same_grey(volume, drawn)
    assert (volume.laterality.value, volume.complete.value) == (drawn.eye, True)


@pytest.mark.parametrize("version", [b"HSF-OCT-100", b"HSF-OCT-101", b"HSF-OCT-103"])
def test_b_scans_of_a_vol_that_name_no_length_have_that_of_the_file(version: bytes, drawn: DrawnEye, tmp_path: Path) -> None:
    data = bytearray(synthetic.vol_bytes(drawn))
    path = tmp_path / "a.vol"
    path.write_bytes(data)
    whole = read_volume(path)
    data[: len(version)] = version
    (length,) = struct.unpack_from("<i", data, 100)
    (columns, count, rows), (wide, high) = struct.unpack_from("<3i", data, 12), struct.unpack_from("<2i", data, 48)
    for index in range(count):
        struct.pack_into("<i", data, 2048 + wide * high + index * (length + 4 * rows * columns) + 12, 0)
    path.write_bytes(data)
    volume = read_volume(path)
    assert volume.digest() == whole.digest()
    struct.pack_into("<i", data, 100, 0)
    path.write_bytes(data)
    with pytest.raises(OctcError) as caught:
        read_volume(path)
    assert caught.value.code == "OCT-E222"


def test_pictures_of_two_sizes_in_a_series_of_an_export_are_two_volumes(drawn: DrawnEye, tmp_path: Path) -> None:
    path = synthetic.write_xml(drawn, tmp_path)
    Image.fromarray(drawn.frames[1][:40]).save(tmp_path / "001.bmp")
    first, other = read_volumes(path)
    assert [(one.frames, one.rows, one.columns, one.complete.value) for one in (first, other)] == [
        (3, 48, 64, True),
        (1, 40, 64, True),
    ]
    assert np.array_equal(first.frame(1), drawn.frames[2])
    assert np.array_equal(other.frame(0), drawn.frames[1][:40])
    (tmp_path / "003.bmp").unlink()
    with pytest.raises(OctcError) as caught:
        read_volumes(path)
    assert caught.value.code == "OCT-E226"
    assert [(one.frames, one.complete.value) for one in read_volumes(path, allow_cut=True)] == [(2, False), (1, False)]


def test_the_photograph_of_an_export_is_a_part_of_it(drawn: DrawnEye, tmp_path: Path) -> None:
    """Heidelberg's XML names that of the eye's surface too: it is no B-scan, and no picture of its own. Where the export cannot
    be read, nobody knows what its pictures are."""
    path = synthetic.write_xml(drawn, tmp_path)
    Image.fromarray(np.full((96, 96), 90, np.uint8)).save(tmp_path / "slo.bmp")
    photograph = (
        "<Image><ImageType><Type>LOCALIZER</Type></ImageType><ImageData><ExamURL>C:\\x\\SLO.bmp</ExamURL></ImageData></Image>"
    )
    path.write_text(path.read_text().replace("<Image>", photograph + "<Image>", 1))
    everything = sorted(tmp_path.iterdir())
    (volume,) = read_volumes(path)
    assert (volume.frames, tmp_path / "slo.bmp" in volume.others) == (4, True)
    found = opened(everything, Reading())
    assert [type(one).__name__ for one in found] == ["Scan"] * 4
    (tmp_path / "002.bmp").unlink()
    (unread,) = opened([one for one in everything if one.exists()], Reading())
    assert isinstance(unread, Unread)
    assert unread.error.code == "OCT-E226"
    assert set(pictures_of(path)) == {tmp_path / name for name in ("slo.bmp", "000.bmp", "001.bmp", "002.bmp", "003.bmp")}


def refused(path: Path, data: bytes, *, allow_cut: bool = False) -> str:
    path.write_bytes(data)
    with pytest.raises(OctcError) as caught:
        read_volumes(path, allow_cut=allow_cut)
    return caught.value.code


def holed(data: bytes, start: int, end: int) -> bytes:
    return data[:start] + bytes(end - start) + data[end:]


def test_b_scans_of_a_vol_that_never_came_are_not_black(drawn: DrawnEye, tmp_path: Path) -> None:
    """A copy that was broken off in a file of the whole length: zeros from a place on, or in the place of a header."""
    data, path = synthetic.vol_bytes(drawn), tmp_path / "a.vol"
    step, first = 512 + 4 * 64 * 48, 2048 + 64 * 64
    assert refused(path, holed(data, first + 2 * step, len(data))) == "OCT-E226"
    (left,) = read_volumes(path, allow_cut=True)
    assert (left.frames, left.complete.value) == (2, False)
    same_grey(left, replace(drawn, frames=drawn.frames[:2]))
    assert refused(path, holed(data, first + step, first + step + 512)) == "OCT-E226"
    assert refused(path, holed(data, first, first + 512), allow_cut=True) == "OCT-E226"
    for k in range(4):
        data = holed(data, first + k * step, first + k * step + 12)  # none names its version: then it says nothing
    path.write_bytes(data)
    same_grey(read_volume(path), drawn)


def test_a_hole_in_the_list_of_chunks_of_a_topcon_file_is_no_end(drawn: DrawnEye, tmp_path: Path) -> None:
    data, path = synthetic.fda_bytes(drawn), tmp_path / "a.fda"
    path.write_bytes(data + bytes(1000))
    assert read_volume(path).notes == ()
    same_grey(read_volume(path), drawn)
    at = data.index(b"@IMG_JPEG") - 1
    assert refused(path, holed(data, at, at + 10)) == "OCT-E226"
    listed = re.sub(rb"@IMG_JPEG", b"@IMG_XXXX", data)  # no B-scans: a hole before them is no other file
    assert refused(path, listed) == "OCT-E229"
    assert refused(path, holed(listed, at, at + 10)) == "OCT-E226"


def test_an_e2e_with_a_hole_in_a_directory_or_a_chunk_is_cut_short(drawn: DrawnEye, tmp_path: Path) -> None:
    data, path = synthetic.e2e_bytes([drawn]), tmp_path / "a.e2e"
    table, letter = data.rindex(b"MDbDir"), chunk_of(data, 11)
    for start, end in ((table, table + 52), (letter, letter + 60), (chunk_of(data, 0x40000000), None)):
        assert refused(path, holed(data, start, end or start + 60)) == "OCT-E226"
    (left,) = read_volumes(path, allow_cut=True)
    assert (left.frames, left.laterality.value, left.complete.value) == (3, "L", False)
    same_grey(left, replace(drawn, frames=drawn.frames[:3]))
    path.write_bytes(holed(data, letter, letter + 60))
    (left,) = read_volumes(path, allow_cut=True)
    assert (left.frames, left.laterality.value, left.complete.value) == (4, None, False)


def test_numbers_of_an_xml_may_have_a_comma(drawn: DrawnEye, tmp_path: Path) -> None:
    """Without its quality a bad B-scan would count."""
    path = synthetic.write_xml(drawn, tmp_path)
    before = read_volume(path)
    text = path.read_text().replace("<ImageQuality>30<", "<ImageQuality>12.5<").replace("<Second>0<", "<Second>7.25<")
    path.write_text(re.sub(r"(>-?\d+)\.(\d+<)", r"\1,\2", text))
    found = read_volume(path)
    assert before.spacing.value is not None
    assert found.spacing == before.spacing
    assert (found.quality, found.acquired.value) == ((12.5,) * 4, "2026-01-04T09:30:07")


def test_an_xml_that_names_a_picture_twice_is_refused(drawn: DrawnEye, tmp_path: Path) -> None:
    """A B-scan is missing, and another one would stand in its place."""
    path = synthetic.write_xml(drawn, tmp_path)
    assert refused(path, path.read_bytes().replace(b"002.bmp", b"001.BMP")) == "OCT-E222"


def test_two_letters_of_one_kind_contradict_each_other(drawn: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.e2e_bytes([drawn])
    patient = chunk_of(data, 9)
    for letter, eye in ((b"R", None), (b"L", "L"), (b"?", "L")):
        changes = {patient + 52: struct.pack("<I", 11), patient + 60: bytes(14) + letter}
        (volume,) = e2e(drawn, tmp_path, changes)
        assert volume.laterality.value == eye


def test_a_b_scan_of_an_e2e_that_is_there_again_is_told(drawn: DrawnEye, tmp_path: Path) -> None:
    """Of each place the last one in the file counts; B-scans were drawn from the last to the first."""
    data = synthetic.e2e_bytes([drawn])
    last, before = (chunk_of(data, 0x40000000, k) for k in (3, 2))
    (volume,) = e2e(drawn, tmp_path, {last + 44: data[before + 44 : before + 48]})
    assert (volume.frames, volume.complete.value) == (3, False)
    assert any("1 B-scans" in note for note in volume.notes)
    same_grey(volume, replace(drawn, frames=drawn.frames[[0, 2, 3]]))


def test_an_e2e_without_oct_scans_is_whole(drawn: DrawnEye, tmp_path: Path) -> None:
    """Photographs and angiographies alone, as the maker's cameras take them."""
    data = synthetic.e2e_bytes([drawn])
    surface = {chunk_of(data, 0x40000000, k) + 44: struct.pack("<i", -1) for k in range(4)}
    with pytest.raises(OctcError) as caught:
        e2e(drawn, tmp_path, surface)
    assert caught.value.code == "OCT-E227"


@pytest.mark.parametrize("name", [b"@IMG_JPEG", b"@IMG_SCAN_03"])
def test_a_topcon_block_that_declares_fewer_b_scans_than_it_has_is_not_called_complete(
    name: bytes, drawn: DrawnEye, tmp_path: Path
) -> None:
    data = bytearray(synthetic.fda_bytes(drawn) if name == b"@IMG_JPEG" else synthetic.fds_bytes(drawn))
    at = data.index(name) + len(name) + 4 + (17 if name == b"@IMG_JPEG" else 13)
    assert struct.unpack_from("<I", data, at) == (4,)
    struct.pack_into("<I", data, at, 3)
    (tmp_path / "a.fda").write_bytes(data)
    volume = read_volume(tmp_path / "a.fda")
    assert (volume.frames, volume.complete.value) == (3, None)
    assert volume.spacing.value is not None
    assert volume.spacing.value[0] is None
    same_grey(volume, replace(drawn, frames=drawn.frames[:3]))
