"""What the gateway cannot help: peers that drip, end or hang in the middle, senders at once, a watched folder that goes."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pynetdicom import AE, evt

from octc.serve import watch as watched
from octc.serve.dicom import destinations
from octc.serve.dicom import gateway as module
from octc.serve.watch import Watch
from octc.store.runs import Run
from tests.serve.dicom import peers, world
from tests.serve.dicom.test_gateway import Started, engine, finished, started, states
from tests.serve.process import serving

__all__ = ["engine", "started"]  # fixtures
# pynetdicom 3.0.4 does not close the socket of a connection that was refused or broken
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")


@contextmanager
def listening(answer: Callable[[socket.socket, threading.Event], None], port: int = 0) -> Iterator[int]:
    """A peer of raw bytes: what it does with each connection, and its port."""
    done, begun = threading.Event(), list[threading.Thread]()
    with socket.create_server(("127.0.0.1", port)) as server:

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):  # the other side has gone
                answer(connection, done)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                begun.append(threading.Thread(target=one, args=(connection,)))
                begun[-1].start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            server.shutdown(socket.SHUT_RDWR)
            for one_of in (thread, *begun):
                one_of.join()


def dripping(head: bytes, drop: bytes, take: int) -> Callable[[socket.socket, threading.Event], None]:
    """Reads something, says the beginning of an answer, and then a little now and then."""

    def answer(connection: socket.socket, done: threading.Event) -> None:
        connection.recv(take)
        connection.sendall(head)
        while not done.wait(0.05):
            connection.sendall(drop)

    return answer


DRIPS = {
    "status": dripping(b"HTTP/1.1 2", b"0", 1 << 20),
    "headers": dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x", 1 << 20),
    "body": dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{", b" ", 1 << 20),
    "body without a length": dripping(b"HTTP/1.1 200 OK\r\n\r\n{", b" ", 1 << 20),
    "body without an end": dripping(b"HTTP/1.1 200 OK\r\n\r\n", b" " * (1 << 20), 1 << 20),
}


@pytest.mark.parametrize("where", sorted(DRIPS))
def test_an_answer_that_drips_does_not_hold_the_only_sender(
    where: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "WHOLE", 0.6)
    monkeypatch.setattr(module, "LONGEST", 0.2)
    with listening(DRIPS[where]) as port:
        found, spool = started(report_to=f"http://127.0.0.1:{port}/studies")
        peers.send(found.port or 0, [world.eye_object("R")])
        peers.until(lambda: sum(one["event"] == "not-sent" for one in peers.audit(spool)) >= 2)
        assert states(spool) == {"queue": 0, "outbox": 1, "done": 0, "dead": 0}
    told = {one["reason"] for one in peers.audit(spool) if one["event"] == "not-sent"}
    limit = "bytes" if where == "body without an end" else "no whole answer within 0.6 s"
    assert all(limit in reason for reason in told), told


def test_a_quick_answer_is_not_held_up_by_the_limit(started: Started) -> None:
    with peers.web_pacs() as (pacs, address):
        found, spool = started(report_to=address)
        begun = time.monotonic()
        peers.send(found.port or 0, [world.eye_object("R")])
        finished(spool, 1)
        assert (list(pacs.times.values()), time.monotonic() - begun < destinations.WHOLE / 10) == ([1], True)
    assert not [thread for thread in threading.enumerate() if thread.name == "octc-in-time"]


@pytest.mark.parametrize("head", [b"", b"\x02\x00\x00", b"\x02\x00\x00\x00\x10\x00", b"HTTP/1.1 400 Bad"])
def test_a_pacs_that_hangs_or_drips_does_not_hold_the_only_sender(
    head: bytes, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of its answer to the association; when it is well again the report comes to it."""
    monkeypatch.setattr(destinations, "SECONDS", 1)
    monkeypatch.setattr(destinations, "WHOLE", 2.0)
    monkeypatch.setattr(module, "LONGEST", 0.2)
    with listening(dripping(head, b"\0" if head else b"", 1 << 16)) as port:
        found, spool = started(report_to=f"PACS@127.0.0.1:{port}")
        peers.send(found.port or 0, [world.eye_object("R")])
        peers.until(lambda: sum(one["event"] == "not-sent" for one in peers.audit(spool)) >= 2, 30)
    with peers.pacs(port) as (pacs, _):
        finished(spool, 1)
        assert list(pacs.times.values()) == [1]


@pytest.mark.parametrize("how", ["abort", "close"])
def test_a_pacs_that_ends_the_association_halfway_gets_all_again(
    how: str, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a report and its picture it takes one and goes; then it takes both."""
    monkeypatch.setattr(module, "LONGEST", 0.2)
    taken: list[str] = []

    def store(event: Any) -> int:
        taken.append(str(event.dataset.SOPInstanceUID))
        if len(taken) == 2:
            if how == "abort":
                event.assoc.abort()
            else:
                event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
        return 0

    entity = AE(ae_title="PACS")
    for kind in (peers.SR, peers.CAPTURE):
        entity.add_supported_context(kind)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        found, spool = started(report_to=f"PACS@127.0.0.1:{server.server_address[1]}", heat_map=True)
        peers.send(found.port or 0, [world.eye_object("R")])
        finished(spool, 1)
    finally:
        entity.shutdown()
    assert (len(taken), len(set(taken)), taken[2:]) == (4, 2, taken[:2])
    assert [one["event"] for one in peers.audit(spool)] == ["opened", "received", "answered", "not-sent", "sent"]


def test_senders_of_one_object_at_once_make_one_report(started: Started, tmp_path: Path) -> None:
    source, statuses = world.eye_object("R"), list[Any]()
    found, spool = started(report_to=str(tmp_path / "reports"))
    threads = [threading.Thread(target=lambda: statuses.append(peers.send(found.port or 0, [source]))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finished(spool, 1)
    events = [one["event"] for one in peers.audit(spool)]
    assert (statuses, events.count("received"), events.count("repeated")) == ([[0]] * 5, 1, 4)
    assert len(list((tmp_path / "reports").iterdir())) == 1
    assert list((spool / "incoming").iterdir()) == []


def test_an_object_that_the_disk_cannot_hold_leaves_nothing_behind(started: Started, tmp_path: Path) -> None:
    """Half of it would keep a full disk full, and every later object out."""
    noise = np.random.default_rng(1).integers(0, 256, (20, 256, 256)).astype(np.uint8)
    found, spool = started(report_to=str(tmp_path / "reports"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        assert peers.send(found.port or 0, [world.eye_object("L", frames=list(noise))]) == [None]
        peers.until(lambda: not list((spool / "incoming").iterdir()))
        assert peers.send(found.port or 0, [world.eye_object("R")]) == [0]
        finished(spool, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [one["event"] for one in peers.audit(spool)] == ["opened", "fault", "received", "answered", "sent"]
    assert peers.send(found.port or 0, [world.eye_object("L", frames=list(noise))]) == [0]
    finished(spool, 2)


def test_a_watched_folder_that_goes_is_said_and_comes_back_by_itself(warm: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    """A real server: its log, its audit log, its health and its metrics."""
    drop, away = tmp_path / "drop", tmp_path / "away"
    drop.mkdir()
    words = ("--watch", drop, "--spool", tmp_path / "spool", "--report-to", tmp_path / "reports")
    with serving(warm, run.artifacts / "onnx-int8", *words) as server, server.client() as client:

        def faults() -> Sequence[str]:
            answer = client.get("/v2/health/ready")
            assert (answer.status_code, answer.json()["ready"]) == (200, True)
            return list(answer.json().get("faults", []))

        assert faults() == []
        assert "octc_faults 0.0" in client.get("/metrics").text
        drop.rename(away)
        (fault,) = peers.until(faults)
        assert "No such file" in fault
        assert "octc_faults 1.0" in client.get("/metrics").text
        world.stored(world.eye_object("R"), away / "eye.dcm")
        away.rename(drop)
        peers.until(lambda: (tmp_path / "reports").is_dir() and list((tmp_path / "reports").iterdir()), 30)
        assert faults() == []
    events = [one["event"] for one in peers.audit(tmp_path / "spool")]
    assert events == ["opened", "watch-away", "watch-back", "received", "answered", "sent"]
    log = [line["event"] for line in server.lines if line["event"].startswith("watch: the folder")]
    assert len(log) == 2
    assert str(tmp_path) not in "".join(log)


def test_a_mount_point_without_its_file_system_is_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are there then are not taken: they are of another file system. One that is mounted later counts from then."""
    place, mounted = tmp_path / "nas", {tmp_path, Path("/")}
    place.mkdir()
    (place / "a.dcm").write_bytes(b"x")
    real = Path.is_mount
    monkeypatch.setattr(Path, "is_mount", lambda path: path in mounted or (path not in (tmp_path, place) and real(path)))
    came: list[str] = []

    def look(watch: Watch, *moments: float) -> str | None:
        for moment in moments:
            watch.look(moment)
        return watch.away

    mounted.add(place)
    watch = Watch(place, lambda path: came.append(path.name))
    mounted.discard(place)
    assert look(watch, 0.0, 5.0) == "its file system is not mounted"
    assert came == []
    mounted.add(place)
    assert (look(watch, 6.0, 10.0), came) == (None, ["a.dcm"])
    mounted.discard(place)
    later = Watch(place, lambda path: came.append(path.name))
    mounted.add(place)
    assert look(later, 0.0) is None
    mounted.discard(place)
    assert look(later, 1.0) == "its file system is not mounted"


def test_folders_below_that_cannot_be_looked_into_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "a.dcm").write_bytes(b"x")
    scan = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("two"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(watched.os, "scandir", closed)
    watch = Watch(tmp_path, lambda _: None)
    assert [watch.look(moment) for moment in (0.0, 3.0)] == [0, 1]
    assert (watch.closed, watch.away) == (1, None)
