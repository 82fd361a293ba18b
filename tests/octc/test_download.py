"""D29: what a server does wrong ends with its cause in one line; what arrived is continued, or gone."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from octc.core.errors import OctcError
from octc.datasets.download import http as download
from octc.datasets.download.http import fetch_file, read_answer
from octc.datasets.download.sources import RemoteFile
from tests.octc.web import Page, Web, serving

BODY = bytes(os.urandom(300_000))
PAGE = "https://example.org/data"


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(download, "TIMEOUT", (2.0, 0.4))
    monkeypatch.setattr(download, "BLOCK", 10_000)
    with serving() as web:
        yield web


def get(web: Web, page: Page, folder: Path, said: list[str] | None = None, path: str = "/a.zip", **more: object) -> Path:
    file = RemoteFile("a.zip", web.url(path), **{"digest": f"sha256:{page.sha256}", **more})  # type: ignore[arg-type]
    return fetch_file(file, folder, PAGE, ([] if said is None else said).append)


def refused(web: Web, page: Page, folder: Path, **more: object) -> OctcError:
    with pytest.raises(OctcError) as caught:
        get(web, page, folder, **more)  # type: ignore[arg-type]
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_is_not_asked_for_twice(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY)
    seen: list[tuple[int, int]] = []
    file = RemoteFile("a.zip", web.url("/a.zip"), len(BODY), f"sha256:{page.sha256}")
    found = fetch_file(file, tmp_path, PAGE, [].append, lambda done, total: seen.append((done, total)))
    assert found.read_bytes() == BODY
    assert names(tmp_path) == ["a.zip"]
    assert seen[-1] == (len(BODY), len(BODY))
    assert len(seen) >= 10
    assert get(web, page, tmp_path) == found
    assert page.asked == [""]


def test_an_md5_is_checked_as_well(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY)
    assert get(web, page, tmp_path, digest=f"md5:{page.md5}").read_bytes() == BODY
    (tmp_path / "a.zip").unlink()
    assert refused(web, page, tmp_path, digest=f"md5:{'0' * 32}").code == "OCT-E217"


def test_a_break_is_continued_within_the_command(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY, faults=["short", "short"])
    said: list[str] = []
    assert get(web, page, tmp_path, said).read_bytes() == BODY
    assert page.asked == ["", "bytes=150000-", "bytes=220000-"]  # whole blocks of what had come
    assert "going on with a.zip at 150000 of 300000 bytes" in said


def test_a_server_without_ranges_begins_anew(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY, faults=["short"], ranges=False)
    said: list[str] = []
    assert get(web, page, tmp_path, said).read_bytes() == BODY
    assert "a.zip cannot be resumed and starts again" in said


def test_without_a_version_nothing_is_continued(web: Web, tmp_path: Path) -> None:
    """Nobody could tell whether the rest belongs to what is here."""
    page = web.put("/a.zip", BODY, faults=["short"], tag=None)
    assert get(web, page, tmp_path).read_bytes() == BODY
    assert page.asked == ["", ""]


def test_cut_short_every_time_is_3_and_keeps_what_arrived(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY, faults=["short"] * 40, ranges=False)
    error = refused(web, page, tmp_path)
    assert (error.code, error.exit_code) == ("OCT-E217", 3)
    assert "goes on from there" in error.hint
    assert names(tmp_path) == ["a.zip.part", "a.zip.part.json"]
    assert (tmp_path / "a.zip.part").read_bytes() == BODY[:150_000]
    assert len(page.asked) == 5
    page.faults.clear()
    page.ranges = True
    assert get(web, page, tmp_path).read_bytes() == BODY
    assert page.asked[-1] == "bytes=150000-"
    assert names(tmp_path) == ["a.zip"]


def test_a_file_that_changed_at_its_source_is_not_glued(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY, faults=["short"] * 5, ranges=False)
    refused(web, page, tmp_path)
    other = web.put("/a.zip", BODY[::-1], tag='"v2"')
    assert get(web, other, tmp_path).read_bytes() == BODY[::-1]
    (tmp_path / "a.zip").unlink()
    refused(web, web.put("/a.zip", BODY, faults=["short"] * 5, ranges=False), tmp_path)
    smaller = web.put("/a.zip", BODY[:1000])  # the same version, they say, and shorter than what is here
    assert get(web, smaller, tmp_path).read_bytes() == BODY[:1000]


def test_what_arrived_of_an_old_version_is_not_continued_as_the_new_one(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version begins and finds no room for a byte; its source states no sum."""
    page = web.put("/a.zip", BODY, faults=["short"] * 5, ranges=False)
    refused(web, page, tmp_path, digest=None)
    assert (tmp_path / "a.zip.part").read_bytes() == BODY[:150_000]
    other = web.put("/a.zip", BODY[::-1], tag='"v2"')
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        assert refused(web, other, tmp_path, digest=None).code == "OCT-E904"
    assert get(web, other, tmp_path, digest=None).read_bytes() == BODY[::-1]


def test_another_piece_than_was_asked_for_is_refused(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY, faults=["short", "other piece"])
    assert refused(web, page, tmp_path).code == "OCT-E217"


def test_everything_arrived_before_the_end_is_not_fetched_again(web: Web, tmp_path: Path) -> None:
    """Killed between the last byte and the check of the sum."""
    page = web.put("/a.zip", BODY, faults=["short"] * 5, ranges=False)
    refused(web, page, tmp_path)
    (tmp_path / "a.zip.part").write_bytes(BODY)
    asked = len(page.asked)
    assert get(web, page, tmp_path).read_bytes() == BODY
    assert len(page.asked) == asked


def test_a_wrong_sum_is_3_and_leaves_nothing(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY)
    error = refused(web, page, tmp_path, digest=f"sha256:{'0' * 64}")
    assert (error.code, error.exit_code) == ("OCT-E217", 3)
    assert "does not have the checksum" in error.message
    assert names(tmp_path) == []


def test_another_size_than_was_listed_is_3_before_a_byte_is_written(web: Web, tmp_path: Path) -> None:
    error = refused(web, web.put("/a.zip", BODY), tmp_path, size=5)
    assert error.code == "OCT-E217"
    assert "has 300000 bytes at its source, the list says 5" in error.message
    assert names(tmp_path) == []


def test_a_web_page_instead_of_the_file_is_3(web: Web, tmp_path: Path) -> None:
    error = refused(web, web.put("/a.zip", BODY, faults=["html"]), tmp_path)
    assert error.code == "OCT-E217"
    assert "a web page" in error.message
    assert "--from FILE" in error.hint
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404])
def test_not_found_and_forbidden_are_4(web: Web, tmp_path: Path, status: int) -> None:
    page = web.put("/a.zip", BODY, faults=[f"status {status}"])
    error = refused(web, page, tmp_path)
    assert (error.code, error.exit_code) == ("OCT-E218", 4)
    assert str(status) in error.message
    assert PAGE in error.hint
    assert len(page.asked) == 1


def test_a_server_that_is_busy_is_asked_again(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY, faults=["status 503", "status 429"])
    assert get(web, page, tmp_path).read_bytes() == BODY
    page.faults += ["status 503"] * 10
    (tmp_path / "a.zip").unlink()
    assert refused(web, page, tmp_path).code == "OCT-E218"


def test_a_server_that_stops_sending_is_4_in_time_and_keeps_what_arrived(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY, faults=["hang"] * 20, ranges=False)
    error = refused(web, page, tmp_path)
    assert (error.code, error.exit_code) == ("OCT-E218", 4)
    assert names(tmp_path) == ["a.zip.part", "a.zip.part.json"]


def test_a_server_that_never_answers_is_4(web: Web, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        web.port = silent.getsockname()[1]
        error = refused(web, Page(b""), tmp_path)
    assert error.code == "OCT-E218"
    assert "did not answer in time" in error.message


def test_nobody_listens_is_4(web: Web, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        web.port = closed.getsockname()[1]
    error = refused(web, Page(b""), tmp_path)
    assert (error.code, error.exit_code) == ("OCT-E218", 4)
    assert "Connection refused" in error.message


def test_a_full_disk_is_said_before_the_download(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = web.put("/a.zip", BODY)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _path: type("Usage", (), {"free": 1000}))
    error = refused(web, page, tmp_path)
    assert (error.code, error.exit_code) == ("OCT-E904", 4)


def test_a_secure_address_may_not_lead_to_an_open_one() -> None:
    download._check_way("https://a.org/x", ["https://a.org/x", "https://b.org/y"], PAGE)
    with pytest.raises(OctcError) as caught:
        download._check_way("https://a.org/x", ["https://a.org/x", "http://b.org/y"], PAGE)
    assert caught.value.code == "OCT-E218"
    assert caught.value.place == "http://b.org/y"


def test_a_list_of_files(web: Web) -> None:
    web.put("/list", b'[{"a": 1}]', kind="application/json")
    assert read_answer(web.url("/list"), PAGE) == [{"a": 1}]
    web.put("/broken", b"<html>", kind="text/html")
    with pytest.raises(OctcError) as caught:
        read_answer(web.url("/broken"), PAGE)
    assert caught.value.code == "OCT-E217"
    with pytest.raises(OctcError) as caught:
        read_answer(web.url("/gone"), PAGE)
    assert caught.value.code == "OCT-E218"


def test_two_commands_at_once_each_end_with_a_whole_file(web: Web, tmp_path: Path) -> None:
    page = web.put("/a.zip", BODY)
    found: list[bytes] = []

    def work(number: int) -> None:
        (tmp_path / str(number)).mkdir()
        found.append(get(web, page, tmp_path / str(number)).read_bytes())

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BODY] * 3
