"""The walk through a folder: images, what is left out and why, folders that cannot be entered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.datasets.tree import HIDDEN, Left, count_left, litter, may_be_image, open_tree, scan_tree, scan_words, words_left
from tests.class_tree import write_abyss, write_tree


@pytest.mark.parametrize("name", [
    "__MACOSX", "._CNV-1-1.jpeg", ".DS_Store", ".AppleDouble", ".Trash-1000", ".ipynb_checkpoints", ".git", "Thumbs.db",
    "THUMBS.DB", "desktop.ini", "Desktop.ini", "$RECYCLE.BIN", "$Recycle.Bin", "RECYCLER", "System Volume Information",
    "lost+found", "@eaDir", "@EADIR", "#recycle", "#snapshot", "@Recycle", ".@__thumb", "Recycle Bin", "thumbnails", "Thumbs",
    "thumb", "CNV-1-1_thumb.jpg", "thumb_CNV-1-1.jpg", "SYNOPHOTO_THUMB_XL.jpg", "scan.thumbnail.png", "FOUND.000",
    "a.jpg@SynoEAStream", "__pycache__", "~$labels.xlsx", "CNV-1-1.jpeg.part",
])  # fmt: skip
def test_litter(name: str) -> None:
    assert litter(name)


@pytest.mark.parametrize("name", [
    "CNV", "CNV-1-1.jpeg", "thumbprint.png", "Recycled paper", "macosx", "eaDir", "NORMAL", "-", "scan 1.png", "part",
])  # fmt: skip
def test_no_litter(name: str) -> None:
    assert not litter(name)


def test_everything_in_a_tree_is_taken_or_named(tmp_path: Path) -> None:
    write_tree(tmp_path, [
        "b.png", "a/z.JPG", "a/A.tiff", "a/deep/x.bmp", "a/x.gif", "a/y.GIF", "a/scan7", "a/v.dcm", "a/notes.txt", "a/README",
        "__MACOSX/a/._z.JPG", "a/.ipynb_checkpoints/z.png", "a/@eaDir/z.jpg", "a/thumbs/z.jpg", "empty/",
    ])  # fmt: skip
    os.mkfifo(tmp_path / "a/pipe.png")
    (tmp_path / "a/up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a/same.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "a/round").symlink_to(tmp_path / "a/round")
    (tmp_path / "a/gone.png").symlink_to(tmp_path / "gone.png")
    tree = scan_tree(tmp_path)
    assert tree.images == ("b.png", "a/A.tiff", "a/gone.png", "a/same.png", "a/z.JPG", "a/deep/x.bmp")
    assert tree.inside == {"": ("a", "empty"), "a": ("deep",), "a/deep": (), "empty": ()}
    assert (tree.below[""], tree.below["a"], tree.below["a/deep"], tree.below.get("empty")) == (6, 5, 1, None)
    assert {one.path: one.why for one in tree.left} == {
        "__MACOSX/": "debris", "a/.ipynb_checkpoints/": HIDDEN, "a/@eaDir/": "debris", "a/thumbs/": "thumbnail",
        "a/README": "no ending", "a/notes.txt": ".txt", "a/pipe.png": "no regular file", "a/round": "link that leads nowhere",
        "a/scan7": "no ending", "a/up/": "link to a folder", "a/v.dcm": ".dcm", "a/x.gif": ".gif", "a/y.GIF": ".gif",
    }  # fmt: skip
    assert sorted(tree.links) == ["a/gone.png", "a/round", "a/same.png", "a/up"]
    assert tree.closed == ()
    counts = count_left(tree.left)
    assert (counts[".gif"], counts["debris"], counts["no ending"], sum(counts.values())) == (2, 2, 2, 13)
    missed = sorted(one.path for one in tree.left if may_be_image(one))
    assert missed == ["a/pipe.png", "a/round", "a/scan7", "a/up/", "a/v.dcm", "a/x.gif", "a/y.GIF"]
    assert words_left([]) == "nothing"
    assert "2 .gif" in words_left(tree.left)


def test_a_folder_that_no_path_reaches_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, ["CNV/a.png", "DME/b.png"])
    last = write_abyss(tmp_path / "CNV")
    tree = scan_tree(tmp_path)
    assert tree.images == ("CNV/a.png", "DME/b.png")
    assert tree.closed == ((last.relative_to(tmp_path).as_posix(), os.strerror(36)),)
    with pytest.raises(OctcError) as caught:
        open_tree(tmp_path)
    assert (caught.value.code, caught.value.exit_code, caught.value.place) == ("OCT-E231", 3, str(last))


def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for name, code in (("absent", "OCT-E230"), ("file", "OCT-E230"), ("file/below", "OCT-E230"), ("round", "OCT-E231")):
        with pytest.raises(OctcError) as caught:
            open_tree(tmp_path / name)
        assert caught.value.code == code
    with pytest.raises(OctcError) as caught:
        open_tree(tmp_path / ("n" * 256))
    assert caught.value.code == "OCT-E231"


def test_words_are_files_or_folders(tmp_path: Path) -> None:
    write_tree(tmp_path, ["in/a.png", "in/b.gif", "in/.c.png", "none/b.gif"])
    last = write_abyss(tmp_path / "in")
    paths, left = scan_words([str(tmp_path / "in"), "absent.png"])
    assert paths == [tmp_path / "in/a.png", last, Path("absent.png")]
    assert left == [Left(str(tmp_path / "in/.c.png"), HIDDEN), Left(str(tmp_path / "in/b.gif"), ".gif")]
    with pytest.raises(OctcError, match=r"1 \.gif") as caught:
        scan_words([str(tmp_path / "none")])
    assert caught.value.code == "OCT-E201"
