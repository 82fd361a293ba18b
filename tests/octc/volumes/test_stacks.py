"""Stacks of pictures with a manifest, and drawn volumes on the disk: whole, refused by name, or not touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from octc.core.errors import OctcError
from octc.datasets.synthetic.volumes import WRITERS, write_volumes
from octc.imaging.decode import read_image
from octc.volumes import Volume, format_of, read_volume
from octc.volumes.identity import read_identity_key
from octc.volumes.stacks import FILE, pages
from octc.volumes.writing import write_pictures


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "volumes"
    write_volumes(folder, ("vol", "tiff", "bioptigen"), patients=1, frames=3)
    return folder


@contextmanager
def refused(code: str, *, said: str = "") -> Iterator[None]:
    with pytest.raises(OctcError) as caught:
        yield
    assert (caught.value.code, said in caught.value.message) == (code, True), caught.value.message


def test_drawn_volumes_are_listed_with_what_was_drawn_and_read_back(drawn: Path) -> None:
    rows = (drawn / "volumes.csv").read_text().splitlines()
    files = sorted(path.name for path in drawn.iterdir() if path.suffix in {ending for ending, _ in WRITERS.values()})
    assert rows[0] == "path,label,patient,eye"
    assert sorted(row.split(",")[0] for row in rows[1:]) == files
    assert {path.split(",")[3] for path in rows[1:]} == {"R", "L"}
    for row in rows[1:]:
        name, _, _, eye = row.split(",")
        volume = read_volume(drawn / name)
        assert volume.frames == 3
        assert volume.laterality.value in (eye, None)  # a TIFF says neither eye


def test_a_folder_that_octc_did_not_draw_is_never_replaced(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("ten years")
    for force in (False, True):
        with refused("OCT-E106"):
            write_volumes(tmp_path / "mine", ("vol",), patients=1, frames=2, force=force)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "ten years"
    for formats in ((), ("vol", "tape")):
        with refused("OCT-E104"):
            write_volumes(tmp_path / "new", formats)
    assert not (tmp_path / "new").exists()


@pytest.fixture
def stack(drawn: Path, tmp_path: Path) -> Path:
    write_pictures(read_volume(next(drawn.glob("*.vol"))), tmp_path / "stack")
    return tmp_path / "stack" / FILE


def test_a_stack_is_read_back_as_it_was_written(drawn: Path, stack: Path) -> None:
    before, after = read_volume(next(drawn.glob("*.vol"))), read_volume(stack)
    assert format_of(stack) == "manifest"
    assert [np.array_equal(a, b) for a, b in zip(before, after, strict=True)] == [True] * 3
    names = ("laterality", "spacing", "pattern", "device", "acquired", "complete")
    assert [getattr(after, n).value for n in names] == [getattr(before, n).value for n in names]
    with refused("OCT-E106"):
        write_pictures(before, stack.parent)
    (stack.parent.parent / "other").mkdir()
    (stack.parent.parent / "other" / "file").write_text("")
    with refused("OCT-E106"):
        write_pictures(before, stack.parent.parent / "other", force=True)


def changed(stack: Path, **fields: object) -> Volume:
    value = {**json.loads(stack.read_text()), **fields}
    stack.write_text(json.dumps(value))
    return read_volume(stack)


def test_a_stack_that_is_not_whole_is_refused_by_name(stack: Path) -> None:
    frames = json.loads(stack.read_text())["frames"]
    with refused("OCT-E222", said="not a file beside it"):
        changed(stack, frames=[{**frames[0], "file": "../secret.png"}])
    with refused("OCT-E222"):
        changed(stack, frames=[])
    assert changed(stack, frames=frames, complete=False).complete.value is False
    assert changed(stack, complete=None, spacing_mm=[1, 2], laterality="both").complete.value is None
    assert (read_volume(stack).spacing.value, read_volume(stack).laterality.value) == (None, None)
    first = stack.parent / frames[0]["file"]
    whole = first.read_bytes()
    Image.new("L", (40, 40)).save(first)
    with refused("OCT-E501", said=first.name):
        read_volume(stack)
    first.write_bytes(whole)
    first.unlink()
    with refused("OCT-E226", said="2 of 3"):
        read_volume(stack)
    cut = read_volume(stack, allow_cut=True)
    assert (cut.frames, cut.complete.value) == (2, False)


def test_pages_of_other_sizes_are_refused_and_what_is_no_stack_is_none(tmp_path: Path) -> None:
    two = [Image.new("L", (64, 48), 9), Image.new("L", (48, 64), 9)]
    two[0].save(tmp_path / "a.tif", save_all=True, append_images=two[1:])
    volume = read_volume(tmp_path / "a.tif")
    assert volume.frames == 2
    assert volume.frame(0).shape == (48, 64)
    with refused("OCT-E229", said="page 1 is 64 x 48"):
        volume.frame(1)
    Image.new("RGB", (64, 48)).save(tmp_path / "b.tif", save_all=True, append_images=[Image.new("RGB", (64, 48))])
    with refused("OCT-E229", said="pages in mode RGB"):
        read_volume(tmp_path / "b.tif")
    for text in ("[]", "{", '{"schema": "other"}'):
        (tmp_path / FILE).write_text(text)
        assert format_of(tmp_path / FILE) is None


def write_pages(path: Path, *marked: tuple[np.ndarray, dict[int, int]]) -> None:
    """A TIFF of pages, each with tags of its own."""
    with TiffImagePlugin.AppendingTiffWriter(str(path), new=True) as file:
        for pixels, tags in marked:
            Image.fromarray(pixels).save(file, "TIFF", tiffinfo=tags)
            file.newFrame()


@pytest.mark.parametrize("mark", [{254: 1}, {254: 5}, {255: 2}])
def test_pages_that_repeat_another_one_are_no_b_scans(tmp_path: Path, mark: dict[int, int]) -> None:
    """A picture with its thumbnail is a picture, whichever is first; of a stack with thumbnails the rest is the volume."""
    rng = np.random.default_rng(0)
    scans = [rng.integers(0, 255, (96, 128)).astype(np.uint8) for _ in range(3)]
    own = [(one, {254: 2}) for one in scans]  # pages of a document of several pages
    small = [(one[::2, ::2].copy(), mark) for one in scans]
    for name, two in (("behind", (own[0], small[0])), ("first", (small[0], own[0]))):
        path = tmp_path / f"{name}.tif"
        write_pages(path, *two)
        assert not pages(path).several
        assert format_of(path) is None
        assert np.array_equal(np.asarray(read_image(path).image), scans[0])
    path = tmp_path / "stack.tif"
    write_pages(path, own[0], small[0], own[1], own[2], small[2])
    volume = read_volume(path)
    assert volume.frames == 3
    for k, scan in enumerate(scans):
        assert np.array_equal(volume.frame(k), scan)
    assert any(note.startswith("2 pages") for note in volume.notes)
    write_pages(path, small[0], small[1])
    with refused("OCT-E204", said="2 frames"):
        read_image(path)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_pages_on_their_side_are_turned(turn: int, kind: str, compression: str | None, tmp_path: Path) -> None:
    """TIFF 6.0, Orientation: where row 0 and column 0 are to be seen."""
    page = (np.arange(40 * 60).reshape(40, 60) % 251).astype(kind)
    side_up = {
        1: page, 2: page[:, ::-1], 3: page[::-1, ::-1], 4: page[::-1],
        5: page.T, 6: np.rot90(page, -1), 7: page.T[::-1, ::-1], 8: np.rot90(page),
    }[turn]  # fmt: skip
    pictures = [Image.fromarray(page + k) for k in range(3)]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[274] = turn
    path = tmp_path / "stack.tif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], tiffinfo=tags, compression=compression)
    volume = read_volume(path)
    assert (volume.frames, volume.rows, volume.columns) == (3, *side_up.shape)
    for k in range(3):
        assert np.array_equal(volume.raw(k), side_up + k)


def test_the_secret_of_a_site_is_long_enough_or_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("  0123456789abcdef\n")
    assert read_identity_key(tmp_path / "key") == b"0123456789abcdef"
    (tmp_path / "key").write_text("short")
    for path in (tmp_path / "key", tmp_path / "nowhere"):
        with refused("OCT-E104"):
            read_identity_key(path)


@pytest.mark.parametrize(
    ("how", "axes", "stacks"),
    [
        ("imagej", "TZYX", True), ("imagej", "ZCYX", True), ("imagej", "CYX", False), ("imagej", "ZYX", False),
        ("ome", "CZYX", True), ("ome", "TZYX", True), ("ome", "TYX", False), ("ome", "ZYX", False),
        ("shaped", "CZYX", True), ("shaped", "ZYX", False),
    ],
)  # fmt: skip
def test_pages_of_several_channels_or_times_are_no_one_volume(how: str, axes: str, *, stacks: bool, tmp_path: Path) -> None:
    pictures = np.arange(6 * 40 * 48).reshape(6, 40, 48).astype(np.uint8)
    array = (
        pictures.reshape(2, 3, 40, 48) if stacks and axes != "ZCYX" else pictures.reshape(3, 2, 40, 48) if stacks else pictures
    )
    path = tmp_path / "pages.tif"
    tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": axes}, **({} if how == "shaped" else {how: True}))
    if stacks:
        with refused("OCT-E229"):
            read_volume(path)
    else:
        found = read_volume(path)
        assert all(np.array_equal(one, other) for one, other in zip(found, pictures, strict=True))


def test_two_images_of_ome_are_no_one_volume(tmp_path: Path) -> None:
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for value in (1, 2):
            file.write(np.full((3, 40, 48), value, np.uint8), photometric="minisblack", metadata={"axes": "ZYX"})
    with refused("OCT-E229"):
        read_volume(path)


def test_one_page_that_stands_for_many_images_is_no_picture(tmp_path: Path) -> None:
    """As tifffile writes it where it is asked to, and as MetaMorph does (a value of tag 33629 for each image)."""
    path = tmp_path / "one.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((6, 40, 48), np.uint8), photometric="minisblack", truncate=True)
    with refused("OCT-E202"):
        read_image(path)
    tags = [(33629, 5, 3, (1, 1) * 3, True)]
    tifffile.imwrite(path, np.zeros((40, 48), np.uint8), photometric="minisblack", extratags=tags)
    with refused("OCT-E202"):
        read_image(path)
    tifffile.imwrite(path, np.zeros((40, 48), np.uint8), photometric="minisblack", extratags=[(33629, 5, 1, (1, 1), True)])
    assert read_image(path).image.size == (48, 40)
