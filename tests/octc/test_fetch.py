"""Fetching a data set: what is said before the first byte, what stands there afterwards, and what does not."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.datasets.download import http as download
from octc.datasets.download.fetch import RECEIPT, Fetched, FetchOptions, _alone, fetch
from octc.datasets.download.http import spell_bytes
from octc.datasets.download.sources import SOURCES, RemoteFile, Source, mendeley_files, source_of
from octc.datasets.registry import scan_dataset
from octc.datasets.synthetic.bscans import write_phantoms
from tests.octc.test_octmnist import arrays
from tests.octc.web import Web, serving


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A zip like the one of UCSD: OCT images, chest X-rays and a Mac's leftovers."""
    root = tmp_path_factory.mktemp("made") / "phantom"
    write_phantoms(root, 4, 2, 0, size=(64, 62))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for path in sorted(root.rglob("*.jpeg")):
            made.write(path, path.relative_to(root))
        made.writestr("CellData/chest_xray/train/NORMAL/IM-1.jpeg", b"x")
        made.writestr("__MACOSX/CellData/OCT/train/CNV/._CNV-1-1.jpeg", b"x")
    return stream.getvalue()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(download, "PAUSES", (0.0,))
    monkeypatch.setattr(download, "BLOCK", 1000)
    with serving() as web:
        yield web


def source(web: Web, archive: bytes, **change: object) -> Source:
    """UCSD as its publisher would list it, on this machine."""
    page = web.put("/f/1", archive)
    details = {"sha256_hash": page.sha256, "size": len(archive), "download_url": web.url("/f/1"), **change}
    entries = [
        {"filename": "ZhangLabData.zip", "content_details": details},
        {"filename": "notes.pdf", "content_details": {}},
    ]
    web.put("/public-api/files", json.dumps(entries).encode(), kind="application/json")
    return replace(SOURCES["ucsd"], index=web.url("/public-api/files"))


def silent(_label: str) -> Callable[[int, int], None]:
    return lambda _done, _total: None


def run(source: Source, root: Path, said: list[str] | None = None, **more: object) -> Fetched:
    return fetch(source, root, ([] if said is None else said).append, silent, FetchOptions(**more))  # type: ignore[arg-type]


def refused(code: str, source: Source, root: Path, **more: object) -> OctcError:
    with pytest.raises(OctcError) as caught:
        run(source, root, **more)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.hint
    return caught.value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_size_licence_source_and_sum_are_said_before_the_first_byte(web: Web, archive: bytes, tmp_path: Path) -> None:
    known = source(web, archive)
    page = web.pages["/f/1"]
    before: list[str] = []

    def say(text: str) -> None:
        before.extend([text] if not page.asked else [])

    done = fetch(known, tmp_path / "UCSD", say, silent)
    text = "\n".join(before)
    for word in ("CC BY 4.0", web.url("/f/1"), spell_bytes(len(archive)), page.sha256, "Kermany"):
        assert word in text
    assert done.written == 16
    assert len(scan_dataset("ucsd", tmp_path / "UCSD").items) == 16
    assert names(tmp_path / "UCSD") == ["CellData", RECEIPT]
    assert names(tmp_path) == ["UCSD"]
    receipt = json.loads((tmp_path / "UCSD" / RECEIPT).read_text())
    assert receipt["files"] == [{"name": "ZhangLabData.zip", "bytes": len(archive), "sha256": page.sha256}]
    assert receipt["licence"] == known.licence
    assert "root" not in receipt


def test_a_download_that_broke_off_goes_on_with_the_next_command(web: Web, archive: bytes, tmp_path: Path) -> None:
    known = source(web, archive)
    page = web.pages["/f/1"]
    page.faults += ["short"] * 4
    page.ranges = False
    refused("OCT-E217", known, tmp_path / "UCSD")
    assert names(tmp_path) == [".tmp-fetch-UCSD"]
    page.faults.clear()
    page.ranges = True
    assert run(known, tmp_path / "UCSD").written == 16
    assert page.asked[-1].startswith("bytes=")
    assert names(tmp_path) == ["UCSD"]


def test_a_wrong_sum_leaves_nothing_of_the_data_set(web: Web, archive: bytes, tmp_path: Path) -> None:
    error = refused("OCT-E217", source(web, archive, sha256_hash="0" * 64), tmp_path / "UCSD")
    assert error.exit_code == 3
    assert not (tmp_path / "UCSD").exists()
    assert names(tmp_path / ".tmp-fetch-UCSD") == []


def test_an_archive_that_is_refused_leaves_nothing(web: Web, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("OCT/train/CNV/CNV-1-1.jpeg", b"x")
        made.writestr("../../evil", b"x")
    error = refused("OCT-E219", source(web, stream.getvalue()), tmp_path / "UCSD")
    assert error.exit_code == 3
    assert names(tmp_path) == []


@pytest.mark.parametrize("change", [{"sha256_hash": "abc"}, {"size": "many"}, {"download_url": "ftp://127.0.0.1/x"}])
def test_a_list_that_is_not_understood(web: Web, archive: bytes, tmp_path: Path, change: dict[str, str]) -> None:
    known = source(web, archive, **change)
    refused("OCT-E104" if "download_url" in change else "OCT-E217", known, tmp_path / "UCSD")
    assert web.pages["/f/1"].asked == []


def test_a_list_without_the_archive(web: Web, archive: bytes, tmp_path: Path) -> None:
    known = source(web, archive)
    web.put("/public-api/files", b"[]", kind="application/json")
    assert "no archive" in refused("OCT-E217", known, tmp_path / "UCSD").message
    web.put("/public-api/files", b'{"message": "sorry"}', kind="application/json")
    refused("OCT-E217", known, tmp_path / "UCSD")
    del web.pages["/public-api/files"]
    assert refused("OCT-E218", known, tmp_path / "UCSD").exit_code == 4


def test_an_existing_folder_is_kept_unless_it_was_fetched_before(web: Web, archive: bytes, tmp_path: Path) -> None:
    root = tmp_path / "UCSD"
    root.mkdir()
    run(source(web, archive), root)  # an empty folder is as good as none
    refused("OCT-E106", source(web, archive), root)
    (root / "mark").write_text("old")
    run(source(web, archive), root, force=True)
    assert names(root) == ["CellData", RECEIPT]
    (root / RECEIPT).unlink()
    error = refused("OCT-E106", source(web, archive), root, force=True)
    assert "was not fetched by octc" in error.message
    assert names(root) == ["CellData"]


def test_two_at_once_are_refused(web: Web, archive: bytes, tmp_path: Path) -> None:
    known = source(web, archive)
    with _alone(tmp_path / ".tmp-fetch-UCSD"):
        error = refused("OCT-E108", known, tmp_path / "UCSD")
    assert error.exit_code == 2
    assert run(known, tmp_path / "UCSD").written == 16


def test_offline_names_the_way_without_a_network(tmp_path: Path) -> None:
    for name in ("ucsd", "neh", "octmnist"):
        error = refused("OCT-E990", source_of(name), tmp_path / "x", offline=True)
        assert error.exit_code == 4
        assert "--from FILE" in error.hint
    assert names(tmp_path) == []


def test_a_file_that_is_here_needs_no_network(archive: bytes, tmp_path: Path) -> None:
    file = tmp_path / "ZhangLabData.zip"
    file.write_bytes(archive)
    said: list[str] = []
    run(SOURCES["ucsd"], tmp_path / "UCSD", said, place=str(file), offline=True)
    assert "was not verified" in "\n".join(said)
    assert names(tmp_path) == ["UCSD", "ZhangLabData.zip"]
    refused("OCT-E217", SOURCES["ucsd"], tmp_path / "again", place=str(file), sha256="0" * 64)
    assert file.is_file()
    refused("OCT-E230", SOURCES["ucsd"], tmp_path / "again", place=str(tmp_path / "gone.zip"))


def test_neh_takes_archive_and_table(web: Web, tmp_path: Path) -> None:
    from tests.octc.neh_tree import write_neh

    write_neh(tmp_path / "made", patients=2)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for path in sorted((tmp_path / "made").rglob("*.jpg")):
            made.write(path, path.relative_to(tmp_path / "made"))
    table = (tmp_path / "made/data_information.csv").read_bytes()
    entries = []
    for name, data in (("NEH_UT_2021RetinalOCTDataset.zip", stream.getvalue()), ("data_information.csv", table)):
        page = web.put(f"/{name}", data)
        details = {"sha256_hash": page.sha256.upper(), "size": len(data), "download_url": web.url(f"/{name}")}
        entries.append({"filename": name, "content_details": details})
    web.put("/list", json.dumps(entries).encode(), kind="application/json")
    done = run(replace(SOURCES["neh"], index=web.url("/list")), tmp_path / "NEH")
    assert done.written == 19
    assert len(scan_dataset("neh", tmp_path / "NEH").items) == 14


def test_octmnist_comes_as_medmnist_states_it(web: Web, tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, **arrays())  # type: ignore[arg-type]
    page = web.put("/octmnist_64.npz", stream.getvalue())

    def files(_answer: object, size: int) -> list[RemoteFile]:
        return [RemoteFile(f"octmnist_{size}.npz", web.url("/octmnist_64.npz?download=1"), None, f"md5:{page.md5}")]

    said: list[str] = []
    done = run(replace(SOURCES["octmnist"], files=files), tmp_path / "OCTMNIST", said)
    assert done.written == 44
    assert page.md5 in "\n".join(said)
    assert f"octmnist_64.npz has {spell_bytes(len(page.body))}" in said
    assert len(scan_dataset("octmnist", tmp_path / "OCTMNIST").items) == 44


def test_the_sources_are_those_of_the_publishers() -> None:
    for name, known in SOURCES.items():
        assert known.name == name
        assert known.page.startswith("https://")
        assert not known.index or known.index.startswith("https://data.mendeley.com/public-api/datasets/")
    entry = {
        "filename": "ZhangLabData.zip",
        "content_details": {"sha256_hash": "a" * 64, "size": 3, "download_url": "https://x/y"},
    }
    pick = partial(mendeley_files, wanted=r"^ZhangLabData.*\.zip$", page="p")
    assert pick([entry, {**entry, "filename": "ChestXRay2017.zip"}], 0) == [
        RemoteFile("ZhangLabData.zip", "https://x/y", 3, "sha256:" + "a" * 64)
    ]
    assert pick([{**entry, "filename": "ZhangLabData/../../x.zip"}], 0)[0].name == "x.zip"
    with pytest.raises(OctcError, match="cannot be fetched"):
        source_of("usdc")


def test_sizes_in_words() -> None:
    assert [spell_bytes(n) for n in (0, 999, 1000, 8_440_000_000)] == [
        "0 bytes", "999 bytes", "1.00 kB (1,000 bytes)", "8.44 GB (8,440,000,000 bytes)"
    ]  # fmt: skip
