"""What a newcomer to the readers met: kinds that are not read, files that are cut, volumes that go to other processes."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.sequence import Sequence as Items

from octc.core.errors import OctcError
from octc.datasets.synthetic import volumes as synthetic
from octc.datasets.synthetic.volumes import DrawnEye, draw_eye_volume
from octc.imaging.decode import read_image
from octc.volumes import RawShape, format_of, formats, read_volume, read_volumes
from octc.volumes.writing import JPEG_2000, RLE, write_opt, write_pictures
from tests.octc.volumes.opt_objects import frames, item, made, stored


@pytest.fixture(scope="module")
def drawn() -> DrawnEye:
    return draw_eye_volume("CNV", 1, "L", frames=3, size=(64, 48))


def refusal(path: Path, **how: Any) -> OctcError:
    with pytest.raises(OctcError) as caught:
        read_volumes(path, **how)
    return caught.value


def palette(value: Any) -> None:
    value.PhotometricInterpretation = "PALETTE COLOR"


def deep(value: Any) -> None:
    value.BitsAllocated = value.BitsStored = 32
    value.HighBit = 31


def packed(value: Any) -> None:
    value.BitsAllocated = value.BitsStored = 12
    value.HighBit = 11


@pytest.mark.parametrize(("change", "what"), [(palette, "palette"), (deep, "32 bits"), (packed, "12 bits allocated")])
def test_valid_objects_of_kinds_that_are_not_read_are_named_so(tmp_path: Path, change: Any, what: str) -> None:
    value = made()
    change(value)
    error = refusal(stored(value, tmp_path))
    assert error.code == "OCT-E229"
    assert what in error.message
    assert "damaged" not in error.message
    assert error.hint


def pages(*pictures: Image.Image, **how: Any) -> bytes:
    stream = io.BytesIO()
    pictures[0].save(stream, "TIFF", save_all=True, append_images=pictures[1:], **how)
    return stream.getvalue()


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("big", [False, True])
def test_a_stack_of_pages_that_is_cut_short_says_so(tmp_path: Path, compression: str | None, big: bool) -> None:
    rng = np.random.default_rng(1)
    shown = [Image.fromarray(rng.integers(0, 255, (40, 48)).astype(np.uint8)) for _ in range(4)]
    data = pages(*shown, compression=compression, big_tiff=big)
    path = tmp_path / "stack.tif"
    path.write_bytes(data)
    whole = read_volume(path)
    assert whole.frames == 4
    codes = set()
    for cut in range(12, len(data) - 1, 97):
        path.write_bytes(data[:cut])
        error = refusal(path)
        codes.add(error.code)
        assert "cut short" in error.message or error.code == "OCT-E202"
        if "--allow-cut" in error.hint and "page" in error.message:
            part = read_volume(path, allow_cut=True)
            assert part.complete.value is False
            for index in range(part.frames):
                assert np.array_equal(part.frame(index), whole.frame(index))
    assert "OCT-E226" in codes
    path.write_bytes(data[:30])
    assert refusal(path).code == "OCT-E226"


def test_a_picture_in_a_tiff_that_is_cut_off_says_so(tmp_path: Path) -> None:
    data = pages(Image.fromarray(np.arange(40 * 48, dtype=np.uint8).reshape(40, 48)))
    (start,) = struct.unpack_from("<I", data, 4)
    moved = bytearray(data[:8] + b"\0" * 5000 + data[8:])  # the directory behind the pixels, as many writers have it
    struct.pack_into("<I", moved, 4, start + 5000)
    (tmp_path / "a.tif").write_bytes(moved[: start + 4000])
    with pytest.raises(OctcError) as caught:
        read_image(tmp_path / "a.tif")
    assert caught.value.code == "OCT-E201"
    assert "cut off" in caught.value.message


def test_a_key_without_an_id_in_the_file_is_said(drawn: DrawnEye, tmp_path: Path) -> None:
    (tmp_path / "a.oct").write_bytes(synthetic.bioptigen_bytes(drawn))
    (tmp_path / "a.vol").write_bytes(synthetic.vol_bytes(drawn))
    key = b"0123456789abcdef"
    told = read_volume(tmp_path / "a.oct", key=key).notes
    assert any("no patient" in note for note in told)
    assert not any("no patient" in note for note in read_volume(tmp_path / "a.oct").notes)
    named = read_volume(tmp_path / "a.vol", key=key)
    assert named.patient is not None
    assert not any("no patient" in note for note in named.notes)


def everywhere(drawn: DrawnEye, folder: Path) -> list[Path]:
    """A file of every format, and of DICOM in several syntaxes."""
    found = []
    for name, (ending, write) in synthetic.WRITERS.items():
        write(drawn, folder / f"{name}{ending}")
        found.append(folder / f"{name}{ending}")
    (folder / "xml").mkdir()
    found.append(synthetic.write_xml(drawn, folder / "xml"))
    write_pictures(read_volume(folder / "dicom.dcm"), folder / "stack")
    found.append(folder / "stack" / "volume.json")
    for name, syntax in (("rle", RLE), ("jpeg2000", JPEG_2000)):
        write_opt(read_volume(folder / "vol.vol"), folder / f"{name}.dcm", syntax=syntax)
        found.append(folder / f"{name}.dcm")
    words = made(frames(top=4095, kind="u2"), bits=12)
    words.PhotometricInterpretation = "MONOCHROME1"
    found.append(stored(words, folder, "turned.dcm"))
    return found


def test_volumes_of_every_format_go_to_other_processes(drawn: DrawnEye, tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(synthetic.img_bytes(drawn))
    volumes = [read_volume(path) for path in everywhere(drawn, tmp_path)]
    volumes.append(read_volume(tmp_path / "a.img", shape=RawShape(3, 48, 64, "L")))
    for volume in volumes:
        sent = pickle.dumps(volume)
        assert len(sent) < 200_000, "no pixels go along"
        back = pickle.loads(sent)
        assert back.to_json() == volume.to_json()
        for index in range(volume.frames):
            assert np.array_equal(back.frame(index), volume.frame(index)), volume.format


def many_groups(count: int, declared: int, *, undefined: bool) -> Any:
    value = made()
    value.NumberOfFrames = declared
    value.PerFrameFunctionalGroupsSequence = Items(
        [item(FrameContentSequence=[item(StackID="1", InStackPositionNumber=k + 1)]) for k in range(count)]
    )
    if undefined:
        value["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    return value


@pytest.mark.parametrize("undefined", [False, True])
def test_too_many_frames_are_refused_before_their_groups_are_parsed(tmp_path: Path, undefined: bool) -> None:
    path = stored(many_groups(20_000, 100_000, undefined=undefined), tmp_path)
    tracemalloc.start()
    error = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.code == "OCT-E222"
    assert "100000 frames" in error.message
    assert peak < 8 << 20


def test_more_elements_than_any_volume_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from octc.volumes import dicom

    monkeypatch.setattr(dicom, "MAX_READS", 2000)
    error = refusal(stored(many_groups(3000, 3, undefined=True), tmp_path))
    assert error.code == "OCT-E222"
    assert "elements" in error.message


def test_what_a_file_is_is_looked_at_once(drawn: DrawnEye, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from octc.runtimes.inputs import scan_inputs, split_inputs
    from octc.runtimes.scans import Reading, opened

    looked: list[Path] = []
    head = formats.Source.head
    monkeypatch.setattr(formats.Source, "head", lambda self, count: looked.append(self.path) or head(self, count))
    (tmp_path / "a.vol").write_bytes(synthetic.vol_bytes(drawn))
    _, words = split_inputs([str(tmp_path / "a.vol")], tmp_path / "runs")
    paths, _ = scan_inputs(words)
    assert len(opened(paths, Reading())) == 3
    assert len(looked) == 1
    (tmp_path / "a.vol").write_bytes(synthetic.fda_bytes(drawn))
    assert format_of(tmp_path / "a.vol") == "topcon"
    assert len(looked) == 2
