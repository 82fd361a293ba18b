"""Archives from elsewhere: what would leave the folder, link, or grow without end is refused, and nothing of it stays."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.datasets.download import unpack as module
from octc.datasets.download.sources import place_neh, place_ucsd
from octc.datasets.download.unpack import unpack

Made = Callable[[Path], None]


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], how: int = zipfile.ZIP_DEFLATED) -> Made:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", how) as archive:
            for name, data in members:
                archive.writestr(name, data)

    return make


def tarred(*members: tuple[str, bytes | tarfile.TarInfo], how: str = "w:gz") -> Made:
    def make(path: Path) -> None:
        with tarfile.open(path, how) as archive:  # type: ignore[call-overload]
            for name, what in members:
                info = what if isinstance(what, tarfile.TarInfo) else tarfile.TarInfo(name)
                if isinstance(what, bytes):
                    info.size = len(what)
                archive.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)

    return make


def kind(name: str, kind: bytes, target: str = "") -> tuple[str, tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return name, info


def linked(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def run(tmp_path: Path, make: Made, place: Callable[[str], str | None] = lambda name: name) -> int:
    archive, into = tmp_path / "archive", tmp_path / "into"
    make(archive)
    into.mkdir()
    return unpack(archive, into, place)


def refused(tmp_path: Path, make: Made, code: str) -> OctcError:
    with pytest.raises(OctcError) as caught:
        run(tmp_path, make)
    assert (caught.value.code, caught.value.exit_code) == (code, 3)
    assert {p.name for p in tmp_path.iterdir()} == {"archive", "into"}
    return caught.value


@pytest.mark.parametrize("make", [zipped, tarred])
def test_files_arrive_below_the_folder(tmp_path: Path, make: Callable[..., Made]) -> None:
    seen: list[tuple[int, int]] = []
    archive, into = tmp_path / "archive", tmp_path / "into"
    make(("a/b.txt", b"one"), ("a/c/d.txt", b""), ("e.txt", b"x" * 5000))(archive)
    into.mkdir()
    assert unpack(archive, into, lambda name: name, lambda done, total: seen.append((done, total))) == 3
    assert (into / "a/b.txt").read_bytes() == b"one"
    assert (into / "e.txt").stat().st_size == 5000
    assert len(seen) == 3


@pytest.mark.parametrize("how", ["w", "w:bz2", "w:xz"])
def test_other_compressions(tmp_path: Path, how: str) -> None:
    assert run(tmp_path, tarred(("a.txt", b"one"), how=how)) == 1


UNSAFE = ("../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil", "C:evil", "\\\\host\\share\\evil", "\\evil")


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_d16_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, make: Callable[..., Made], name: str) -> None:
    error = refused(tmp_path, make(("good.txt", b"x"), (name, b"x")), "OCT-E219")
    assert "unsafe path" in error.message


def test_an_unsafe_path_is_refused_even_where_it_is_not_wanted(tmp_path: Path) -> None:
    with pytest.raises(OctcError, match="unsafe path"):
        run(tmp_path, zipped(("a.txt", b"x"), ("../b.doc", b"x")), lambda name: name if name.endswith("txt") else None)


TROUBLE = {
    "symbolic link": kind("link", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": kind("link", tarfile.LNKTYPE, "a.txt"),
    "device": kind("null", tarfile.CHRTYPE),
    "fifo": kind("pipe", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_d16_links_and_devices_are_refused(tmp_path: Path, trouble: str) -> None:
    assert "link or device" in refused(tmp_path, tarred(("a.txt", b"x"), TROUBLE[trouble]), "OCT-E219").message


def test_d16_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    assert "link or device" in refused(tmp_path, zipped(("a.txt", b"x"), (linked("l"), b"/etc/passwd")), "OCT-E219").message


@pytest.mark.parametrize("make", [zipped, tarred])
def test_d05_a_bomb_is_refused(tmp_path: Path, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST", 1 << 20)
    error = refused(tmp_path, make(("zeros", bytes(8 << 20))), "OCT-E219")
    assert "are allowed" in error.message or "more than" in error.message
    assert sum(path.stat().st_size for path in (tmp_path / "into").rglob("*") if path.is_file()) <= 2 << 20


def test_a_bomb_whose_header_lies_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST", 1 << 20)

    def make(path: Path) -> None:
        zipped(("zeros", bytes(8 << 20)))(path)
        data = path.read_bytes()
        path.write_bytes(data.replace((8 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")))

    refused(tmp_path, make, "OCT-E217")
    assert sum(path.stat().st_size for path in (tmp_path / "into").rglob("*") if path.is_file()) <= 2 << 20


def test_more_members_than_any_data_set_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_MEMBERS", 3)
    members = [(f"{n}.txt", b"x") for n in range(4)]
    for number, make in enumerate((zipped, tarred)):
        folder = tmp_path / str(number)
        folder.mkdir()
        refused(folder, make(*members), "OCT-E219")


def test_the_same_path_twice_is_refused(tmp_path: Path) -> None:
    assert "twice" in refused(tmp_path, tarred(("a.txt", b"x"), ("a.txt", b"y")), "OCT-E219").message


def test_a_damaged_archive(tmp_path: Path) -> None:
    def flipped(path: Path) -> None:
        zipped(("a.txt", b"x" * 1000), how=zipfile.ZIP_STORED)(path)
        data = bytearray(path.read_bytes())
        data[200] ^= 1
        path.write_bytes(data)

    def cut(path: Path) -> None:
        tarred(("a.bin", bytes(range(256)) * 4000))(path)
        path.write_bytes(path.read_bytes()[:-2000])

    for number, make in enumerate((flipped, cut)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert "damaged" in refused(folder, make, "OCT-E217").message


def test_what_is_no_archive(tmp_path: Path) -> None:
    for number, (data, said) in enumerate(
        ((b"<!DOCTYPE html><p>log in", "web page"), (b"abc" * 100, "neither"), (b"", "neither"))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert said in refused(folder, lambda path, data=data: path.write_bytes(data), "OCT-E217").message  # type: ignore[misc]


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(OctcError, match="holds nothing of this data set") as caught:
        run(tmp_path, zipped(("CellData/chest_xray/test/NORMAL/a.jpeg", b"x")), place_ucsd)
    assert caught.value.code == "OCT-E217"


def test_too_little_disk_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 10}))
    with pytest.raises(OctcError, match="100 bytes to unpack, 10 are free") as caught:
        run(tmp_path, zipped(("a.txt", b"x" * 100)))
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E904", 4)
    assert list((tmp_path / "into").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("CellData/OCT/train/CNV/CNV-1-1.jpeg", "CellData/OCT/train/CNV/CNV-1-1.jpeg"),
        ("OCT2017 /test/DME/DME-1-1.jpeg", "CellData/OCT/test/DME/DME-1-1.jpeg"),
        ("OCT2017/val/DME/DME-1-1.jpeg", None),
        ("CellData/chest_xray/train/NORMAL/IM-1.jpeg", None),
        ("__MACOSX/CellData/OCT/train/CNV/CNV-1-1.jpeg", None),
        ("CellData/OCT/train/CNV/._CNV-1-1.jpeg", None),
        ("CellData/OCT/train/.DS_Store", None),
    ],
)
def test_what_is_wanted_of_ucsd(name: str, place: str | None) -> None:
    assert place_ucsd(name) == place


def test_what_is_wanted_of_neh() -> None:
    assert place_neh("data_information.csv") == "data_information.csv"
    assert place_neh("NEH/CNV/1 /OD/003_CNV.tif") == "NEH/CNV/1 /OD/003_CNV.tif"
    assert [place_neh(name) for name in ("__MACOSX/a.jpg", "a/.b.jpg", "readme.txt")] == [None] * 3


def test_a_tar_archive_that_holds_a_zip_archive_is_a_tar_archive(tmp_path: Path) -> None:
    inner = tmp_path / "inner.zip"
    zipped(("other.png", b"other"))(inner)
    assert run(tmp_path, tarred(("a/x.png", b"1"), ("a/inner.zip", inner.read_bytes()), how="w")) == 2
    assert sorted(path.name for path in (tmp_path / "into" / "a").iterdir()) == ["inner.zip", "x.png"]


@pytest.mark.parametrize("at", [3 * 1024, 3 * 1024 + 100])
def test_a_tar_archive_that_ends_between_two_members_is_damaged(at: int, tmp_path: Path) -> None:
    def make(path: Path) -> None:
        tarred(*[(f"a/{number}.png", bytes(512)) for number in range(9)], how="w")(path)
        path.write_bytes(path.read_bytes()[:at])

    with pytest.raises(OctcError) as caught:
        run(tmp_path, make)
    assert caught.value.code == "OCT-E217"


def test_a_hole_in_the_headers_of_a_tar_archive_is_damage(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        tarred(*[(f"a/{number}.png", b"1" * 512) for number in range(9)], how="w")(path)
        data = path.read_bytes()
        path.write_bytes(data[:3072] + b"?" * 512 + data[3584:])

    with pytest.raises(OctcError) as caught:
        run(tmp_path, make)
    assert caught.value.code == "OCT-E217"


@pytest.mark.parametrize(
    "make",
    [
        zipped(("a", b"1"), ("a/b", b"2")), zipped(("a/b", b"1"), ("a", b"2")), tarred(("a", b"1"), ("a/b", b"2")),
        zipped(("n" * 300, b"1")), tarred(("n" * 300, b"1")),
    ],
)  # fmt: skip
def test_names_that_cannot_be_files_are_not_a_lack_of_room(make: Made, tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        run(tmp_path, make)
    assert caught.value.code == "OCT-E219"


@pytest.mark.parametrize(("flag", "method"), [(0, 9), (0, 93), (1, 8)])
def test_members_that_are_encrypted_or_of_an_unknown_method_are_not_called_damaged(
    flag: int, method: int, tmp_path: Path
) -> None:
    def make(path: Path) -> None:
        zipped(("a.png", b"1"))(path)
        data = bytearray(path.read_bytes())
        for start, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            place = data.index(start) + at
            data[place : place + 4] = bytes((flag, 0, method, 0))
        path.write_bytes(data)

    with pytest.raises(OctcError) as caught:
        run(tmp_path, make)
    assert (caught.value.code, "damaged" in caught.value.message) == ("OCT-E217", False)


@pytest.mark.parametrize(
    ("head", "name"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\7\0", "rar")]
)
def test_archives_of_other_kinds_are_named(head: bytes, name: str, tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        run(tmp_path, lambda path: path.write_bytes(head + bytes(600)) and None)
    assert (caught.value.code, name in caught.value.message) == ("OCT-E217", True)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_a_gigabyte_is_refused_before_memory_is_taken(kind: bytes, tmp_path: Path) -> None:
    def make(path: Path) -> None:
        info = tarfile.TarInfo("header")
        info.type, info.size = kind, 1 << 30
        path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))

    with pytest.raises(OctcError) as caught:
        run(tmp_path, make)
    assert caught.value.code == "OCT-E219"
