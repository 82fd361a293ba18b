"""Makers' files: drawn eyes in each format come back as they were drawn; the shared samples as their makers say."""

from __future__ import annotations

import codecs
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.datasets.synthetic import volumes as synthetic
from octc.datasets.synthetic.volumes import DrawnEye, draw_eye_volume
from octc.imaging.decode import read_image
from octc.volumes import RawShape, Volume, format_of, read_volume, read_volumes
from octc.volumes.heyex_e2e import grey as e2e_grey
from octc.volumes.volume import HEYEX
from octc.volumes.writing import write_opt, write_pictures
from tests.house.tree import ROOT
from tests.octc.tiffs import tiff

CLINIC = ROOT.parent / "shared" / "data" / "clinic"
needs_samples = pytest.mark.skipif(not CLINIC.is_dir(), reason="the small vendor files (data/clinic) are not on this machine")
KNOWN = {
    "dicom": ("dicom", "uint8", True), "vol": ("heidelberg-vol", "float32", True), "fda": ("topcon", "uint8", True),
    "fds": ("topcon", "uint16", True), "e2e": ("heidelberg-e2e", "uint16", True), "bioptigen": ("bioptigen", "uint16", False),
    "tiff": ("tiff-stack", "uint8", False),
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> DrawnEye:
    return draw_eye_volume("CNV", 3, "L", frames=4, size=(64, 48))


def written(drawn: DrawnEye, folder: Path, name: str) -> Path:
    """The eye in a format, under a name that says nothing of it and names the wrong eye."""
    ending, write = synthetic.WRITERS[name]
    path = folder / f"OD{ending}.bin"
    write(drawn, path)
    return path


def same_grey(volume: Volume, drawn: DrawnEye) -> None:
    """The last column may be marked as outside of the scan."""
    assert volume.frames == len(drawn.frames)
    for index, frame in enumerate(drawn.frames):
        assert np.array_equal(volume.frame(index)[:, :-1], frame[:, :-1]), index


@pytest.mark.parametrize("name", synthetic.WRITERS)
def test_a_drawn_eye_comes_back_from_every_format(name: str, drawn: DrawnEye, tmp_path: Path) -> None:
    volume = read_volume(written(drawn, tmp_path, name), key=b"site")
    kind, dtype, knows = KNOWN[name]
    assert (volume.format, volume.dtype, volume.raw(0).dtype) == (kind, dtype, np.dtype(dtype))
    same_grey(volume, drawn)
    assert volume.laterality.value == ("L" if knows else None)
    assert volume.acquired.value == (drawn.moment.isoformat() if name != "tiff" else None)
    assert (volume.patient is not None) == knows
    if knows and name != "e2e":
        assert volume.spacing.value == pytest.approx(drawn.spacing)


def test_the_same_patient_has_the_same_hash_in_every_format(drawn: DrawnEye, tmp_path: Path) -> None:
    hashes = {read_volume(written(drawn, tmp_path, name), key=b"site").patient for name in KNOWN if KNOWN[name][2]}
    assert len(hashes) == 1


def test_outside_of_a_heidelberg_scan_is_black(drawn: DrawnEye, tmp_path: Path) -> None:
    for name in ("vol", "e2e"):
        assert not read_volume(written(drawn, tmp_path, name)).frame(0)[:, -1].any()


def test_heidelbergs_curve_has_the_published_values() -> None:
    """(ln(x + 2.44e-4) + 8.3) / 8.285: 0.01 is grey 114 (the fourth root would give 81), 1 is white, 0 is black."""
    from octc.volumes.heyex_vol import grey

    values = np.array([[0.0, 0.01, 0.1, 1.0, 3.0, np.finfo(np.float32).max]], np.float32)
    assert grey(HEYEX, values, 0).tolist() == [[0, 114, 185, 255, 255, 0]]


def test_e2e_grey_rises_with_the_code() -> None:
    """Mantissa bits in plain order: a larger code is never darker, up to what lies outside."""
    grey = e2e_grey(HEYEX, np.arange(1 << 16), 0)
    assert (np.diff(grey[:-1].astype(int)) >= 0).all()
    assert grey[0xFFFF] == 0
    codes = synthetic.ufloat16(np.array([0.3, 0.4], np.float32))
    assert grey[codes[1]] > grey[codes[0]]


def test_several_eyes_in_one_file_are_several_volumes(drawn: DrawnEye, tmp_path: Path) -> None:
    other = draw_eye_volume("DME", 9, "R", frames=3, size=(64, 48))
    path = tmp_path / "both.e2e"
    path.write_bytes(synthetic.e2e_bytes([drawn, other]))
    both = read_volumes(path, key=b"site")
    assert [(one.laterality.value, one.frames, one.name) for one in both] == [("L", 4, f"{path}#0"), ("R", 3, f"{path}#1")]
    same_grey(both[0], drawn)
    same_grey(both[1], other)
    assert both[0].patient != both[1].patient


def test_an_eye_letter_that_cannot_be_read_is_not_inherited(drawn: DrawnEye, tmp_path: Path) -> None:
    nameless = DrawnEye(drawn.frames, "?", drawn.patient, drawn.moment, drawn.label)
    path = tmp_path / "both.e2e"
    path.write_bytes(synthetic.e2e_bytes([drawn, nameless]))
    assert [one.laterality.value for one in read_volumes(path)] == ["L", None]


def test_heidelberg_xml_takes_its_pictures_from_its_own_folder(drawn: DrawnEye, tmp_path: Path) -> None:
    path = synthetic.write_xml(drawn, tmp_path)
    volume = read_volume(path, key=b"site")
    same_grey(volume, drawn)
    assert (volume.laterality.value, volume.spacing.value) == ("L", pytest.approx(drawn.spacing))
    (tmp_path / "002.bmp").unlink()
    with pytest.raises(OctcError) as caught:
        read_volume(path)
    assert caught.value.code == "OCT-E226"
    assert read_volume(path, allow_cut=True).frames == 3
    text = path.read_text().replace("<HEDX>", "<!DOCTYPE x><HEDX>")
    path.write_text(text)
    with pytest.raises(OctcError) as caught:
        read_volume(path)
    assert caught.value.code == "OCT-E222"


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", b""), ("utf-8", codecs.BOM_UTF8), ("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-16-le", b""), ("utf-16-be", b""), ("iso-8859-1", b""), ("windows-1252", b""), ("shift_jis", b""),
    ],
)  # fmt: skip
def test_heidelberg_xml_is_read_in_the_encoding_that_it_declares(
    encoding: str, mark: bytes, declared: bool, drawn: DrawnEye, tmp_path: Path
) -> None:
    """Declared or, of UTF-8 and UTF-16, shown by the first bytes; the patient has a letter that is other bytes in each."""
    name = "ﾔﾏﾀﾞ" if encoding == "shift_jis" else "Müller"
    path = synthetic.write_xml(replace(drawn, patient=name), tmp_path)
    wanted = read_volume(path, key=b"site")
    said = f' encoding="{encoding if encoding[:3] != "utf" or not mark else encoding[:6]}"' if declared else ""
    path.write_bytes(mark + path.read_text().replace(' encoding="utf-8"', said).encode(encoding))
    if not declared and encoding[:3] != "utf":
        with pytest.raises(OctcError) as caught:
            read_volume(path)
        assert caught.value.code == "OCT-E222"
        return
    volume = read_volume(path, key=b"site")
    assert (volume.format, volume.patient) == ("heidelberg-xml", wanted.patient)
    same_grey(volume, drawn)


@pytest.mark.parametrize(
    ("declared", "encoding", "words"),
    [
        ("utf-16", "utf-8", "declares utf-16"), ("utf-8", "utf-16", "declares utf-8"), ("klingon", "utf-8", "klingon"),
        ("rot13", "utf-8", "rot13"), ("punycode", "utf-8", "punycode"), ("utf-7", "utf-8", "utf-7"),
        ("us-ascii", "utf-8", "XML"),
    ],
)  # fmt: skip
def test_xml_that_is_not_what_it_declares_is_refused(
    declared: str, encoding: str, words: str, drawn: DrawnEye, tmp_path: Path
) -> None:
    path = synthetic.write_xml(replace(drawn, patient="Müller"), tmp_path)
    path.write_bytes(path.read_text().replace('"utf-8"', f'"{declared}"').encode(encoding))
    with pytest.raises(OctcError) as caught:
        read_volume(path)
    assert (caught.value.code, words in caught.value.message) == ("OCT-E222", True)


@pytest.mark.parametrize("entity", ["<!DOCTYPE x>", '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'])
def test_xml_with_entities_is_refused_in_utf_16_too(entity: str, drawn: DrawnEye, tmp_path: Path) -> None:
    path = synthetic.write_xml(drawn, tmp_path)
    path.write_bytes(path.read_text().replace("<HEDX>", f"{entity}<HEDX>").replace('"utf-8"', '"utf-16"').encode("utf-16"))
    with pytest.raises(OctcError) as caught:
        read_volume(path)
    assert (caught.value.code, "entities" in caught.value.message) == ("OCT-E222", True)


@pytest.mark.parametrize(
    ("ending", "make", "dtype"), [(".img", synthetic.img_bytes, "uint8"), (".OCT", synthetic.optovue_bytes, "float32")]
)
def test_files_without_a_header_need_the_users_word(
    ending: str, make: Any, dtype: str, drawn: DrawnEye, tmp_path: Path
) -> None:
    path = tmp_path / f"P_OD{ending}"
    path.write_bytes(make(drawn))
    for shape in (None, RawShape(4, 48, 65), RawShape(3, 48, 64)):
        with pytest.raises(OctcError) as caught:
            read_volume(path, shape=shape)
        assert caught.value.code == "OCT-E225"
    volume = read_volume(path, shape=RawShape(4, 48, 64, "L"))
    assert (volume.laterality.value, volume.laterality.source, volume.dtype) == ("L", "the user", dtype)
    assert np.array_equal(volume.raw(1), drawn.frames[1])


def test_content_decides_and_not_the_ending(drawn: DrawnEye, tmp_path: Path) -> None:
    for name in synthetic.WRITERS:
        path = tmp_path / "picture.jpg"
        synthetic.WRITERS[name][1](drawn, path)
        assert format_of(path) == KNOWN[name][0]
    Image.fromarray(drawn.frames[0]).save(tmp_path / "real.dcm", "PNG")
    assert format_of(tmp_path / "real.dcm") is None


def test_deep_tiff_pages_in_which_white_is_0_are_turned_over(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    ramp = np.arange(40 * 40, dtype=np.uint16).reshape(40, 40) * 40
    for kind, expected in (("minisblack", ramp), ("miniswhite", 65535 - ramp)):
        path = tmp_path / f"{kind}.tif"
        tifffile.imwrite(path, np.stack([ramp, ramp]), photometric=kind)
        volume = read_volume(path)
        assert (volume.frames, volume.dtype) == (2, "uint16")
        assert np.array_equal(volume.frame(1), np.floor(expected / 65535 * 255 + 0.5))


def test_opt_and_pictures_hold_what_the_volume_showed(drawn: DrawnEye, tmp_path: Path) -> None:
    volume = read_volume(written(drawn, tmp_path, "vol"))
    write_opt(volume, tmp_path / "out.dcm")
    write_pictures(volume, tmp_path / "pictures")
    for path in (tmp_path / "out.dcm", tmp_path / "pictures" / "volume.json"):
        again = read_volume(path)
        assert all(np.array_equal(again.frame(k), volume.frame(k)) for k in range(volume.frames)), path
        assert (again.laterality.value, again.acquired.value) == ("L", volume.acquired.value)
        assert again.spacing.value == pytest.approx(volume.spacing.value)
        assert drawn.patient not in path.read_bytes().decode("latin-1")
    picture = tmp_path / "pictures" / "00001.png"
    Image.new("L", (64, 48), 9).save(picture)
    with pytest.raises(OctcError) as caught:
        read_volume(tmp_path / "pictures" / "volume.json")
    assert caught.value.code == "OCT-E501"


def test_motion_compensated_pixels_of_topcon_are_read(drawn: DrawnEye, tmp_path: Path) -> None:
    path = tmp_path / "a.fda"
    path.write_bytes(synthetic.fda_bytes(drawn, compressed=False))
    volume = read_volume(path)
    assert (volume.format, volume.dtype) == ("topcon", "uint16")
    same_grey(volume, drawn)


def test_opt_is_not_written_for_an_eye_that_is_not_known(drawn: DrawnEye, tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        write_opt(read_volume(written(drawn, tmp_path, "tiff")), tmp_path / "out.dcm")
    assert caught.value.code == "OCT-E104"
    assert not (tmp_path / "out.dcm").exists()


def test_the_digest_of_a_volume_does_not_change_with_its_name(drawn: DrawnEye, tmp_path: Path) -> None:
    path = written(drawn, tmp_path, "fda")
    before = read_volume(path).digest()
    path.rename(tmp_path / "another.name")
    assert read_volume(tmp_path / "another.name").digest() == before
    assert read_volume(written(drawn, tmp_path, "fds")).digest() != before


@pytest.mark.parametrize("name", [*(name for name in synthetic.WRITERS if name != "tiff")])
def test_a_file_cut_anywhere_is_refused_or_gives_whole_frames(name: str, drawn: DrawnEye, tmp_path: Path) -> None:
    path = written(drawn, tmp_path, name)
    data = path.read_bytes()
    for length in range(0, len(data) - 1, max(1, len(data) // 40)):
        path.write_bytes(data[:length])
        with pytest.raises(OctcError) as caught:
            read_volumes(path)
        assert caught.value.code in ("OCT-E202", "OCT-E222", "OCT-E226", "OCT-E220"), (length, caught.value.message)
        try:
            found = read_volumes(path, allow_cut=True)
        except OctcError:
            continue
        for volume in found:
            assert volume.complete.value is False
            for index in range(volume.frames):
                assert np.array_equal(volume.frame(index)[:, :-1], drawn.frames[index][:, :-1]) or name == "e2e"


@pytest.mark.parametrize("name", ["vol", "fda", "fds", "e2e", "bioptigen", "dicom"])
def test_altered_bytes_end_in_a_coded_error_or_in_frames(name: str, drawn: DrawnEye, tmp_path: Path) -> None:
    """A short run of what benchmarks/fuzz_volumes.py does for long."""
    path = written(drawn, tmp_path, name)
    data = path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(150):
        changed = bytearray(data)
        for place in rng.integers(0, min(len(data), 4096), rng.integers(1, 6)):
            changed[place] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
        path.write_bytes(changed)
        try:
            for volume in read_volumes(path, allow_cut=bool(rng.integers(2))):
                for index in range(min(volume.frames, 3)):
                    assert volume.frame(index).shape == (volume.rows, volume.columns)
        except (OctcError, ValueError):
            continue


def test_hostile_counts_are_refused_before_memory_is_taken(drawn: DrawnEye, tmp_path: Path) -> None:
    path = tmp_path / "scan.vol"
    for offset, value in ((12, 1 << 30), (16, 1 << 30), (20, -5), (16, 0)):
        data = bytearray(synthetic.vol_bytes(drawn))
        struct.pack_into("<i", data, offset, value)
        path.write_bytes(data)
        with pytest.raises(OctcError) as caught:
            read_volumes(path)
        assert caught.value.code == "OCT-E222"


@needs_samples
def test_the_shared_topcon_files_are_what_their_readme_says() -> None:
    fda, fds = read_volume(CLINIC / "fda_minimized.fda"), read_volume(CLINIC / "fds_minimized.fds")
    assert (fda.frames, fda.rows, fda.columns, fda.dtype, fda.laterality.value) == (1, 650, 512, "uint8", "L")
    assert fda.spacing.value == (None, 0.0035, pytest.approx(6 / 512))
    assert fda.acquired.value == "2010-07-09T09:23:36"
    assert (fds.frames, fds.rows, fds.columns, fds.dtype, fds.laterality.value) == (4, 3, 2, "uint16", "L")
    data = (CLINIC / "fds_minimized.fds").read_bytes()
    place = data.index(b"@IMG_SCAN_03") + len(b"@IMG_SCAN_03") + 4 + 22
    pixels = np.frombuffer(data, "<u2", 24, place).reshape(4, 3, 2)
    assert all(np.array_equal(fds.raw(k), pixels[k]) for k in range(4))


@needs_samples
def test_the_shared_vol_file_is_what_eyepy_wrote() -> None:
    volume = read_volume(CLINIC / "synthetic.vol")
    assert (volume.frames, volume.rows, volume.columns, volume.laterality.value) == (10, 40, 50, "R")
    assert volume.spacing.value == pytest.approx((0.03144444444444448, 0.003872, 0.011819))
    assert volume.patient is None


@needs_samples
def test_the_shared_e2e_file_is_cut_short() -> None:
    with pytest.raises(OctcError) as caught:
        read_volumes(CLINIC / "e2e_minimized.E2E")
    assert caught.value.code == "OCT-E226"
    (volume,) = read_volumes(CLINIC / "e2e_minimized.E2E", allow_cut=True)
    assert (volume.frames, volume.rows, volume.columns, volume.complete.value) == (1, 496, 512, False)


def test_a_folder_that_octc_did_not_write_is_never_replaced(drawn: DrawnEye, tmp_path: Path) -> None:
    path = written(drawn, tmp_path, "vol")
    (tmp_path / "other.txt").write_text("kept")
    volume = read_volume(path)
    for work in (
        lambda: write_pictures(volume, tmp_path, force=True),
        lambda: synthetic.write_volumes(tmp_path, ["vol"], patients=1, frames=1, force=True),
    ):
        with pytest.raises(OctcError) as caught:
            work()
        assert caught.value.code == "OCT-E106"
    assert (tmp_path / "other.txt").read_text() == "kept"
    write_pictures(volume, tmp_path / "stack")
    write_pictures(volume, tmp_path / "stack", force=True)
    assert read_volume(tmp_path / "stack" / "volume.json").intensity.name == "heyex-log"


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.vol", tmp_path):
        with pytest.raises(OctcError) as caught:
            read_volumes(path)
        assert caught.value.code == "OCT-E201"


def test_dimensions_of_a_file_that_has_a_header_are_refused(drawn: DrawnEye, tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        read_volume(written(drawn, tmp_path, "fda"), shape=RawShape(1, 2, 3))
    assert caught.value.code == "OCT-E102"


def test_pages_are_read_by_the_rules_of_pictures(tmp_path: Path) -> None:
    """12-bit grey is scaled by 4095, as `read_image` scales the same page alone; one that does not say what 0 is is refused."""
    ramp = (np.arange(40 * 40, dtype=np.uint16).reshape(40, 40) * 2) % 4096
    (tmp_path / "alone.tif").write_bytes(tiff(ramp, 1, bits=12))
    (tmp_path / "two.tif").write_bytes(twice(tiff(ramp, 1, bits=12)))
    volume = read_volume(tmp_path / "two.tif")
    assert (volume.frames, volume.dtype) == (2, "uint16")
    assert np.array_equal(volume.raw(1), ramp)
    alone = np.asarray(read_image(tmp_path / "alone.tif").image)
    assert np.abs(volume.frame(1).astype(int) - alone).max() <= 1  # halves are rounded up here, to even there
    assert alone.max() > 190
    (tmp_path / "unsaid.tif").write_bytes(twice(tiff(ramp.astype(np.uint8), None)))
    with pytest.raises(OctcError) as caught:
        read_volume(tmp_path / "unsaid.tif")
    assert caught.value.code == "OCT-E229"


def twice(data: bytes) -> bytes:
    """A little-endian TIFF of one page with the same page again."""
    (start,) = struct.unpack_from("<I", data, 4)
    size = 2 + 12 * struct.unpack_from("<H", data, start)[0]
    whole = bytearray(data + b"\0" * (len(data) % 2))
    struct.pack_into("<I", whole, start + size, len(whole))
    return bytes(whole) + data[start : start + size] + bytes(4)
