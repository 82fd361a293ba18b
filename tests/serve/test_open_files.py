"""A server whose clients hold all connections that the system allows."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from octc.serve.logs import start_log
from octc.serve.server import _exceptions, _open_files
from octc.store.runs import Run
from tests.serve.process import serving

FILES = 48


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    lines = io.StringIO()
    start_log(lines)
    yield lines
    start_log()


def test_idle_connections_leave_open_files_to_the_requests(run: Run, pictures: list[Path], tmp_path: Path) -> None:
    """Half of the open files may be connections; a further one is closed, and who has one is answered."""
    limited = ("prlimit", f"--nofile={FILES}", sys.executable)
    with serving(limited, run.artifacts / "onnx-int8", "--uploads", tmp_path) as found, ExitStack() as idle:
        host, port = found.place.split(":")
        body = pictures[0].read_bytes()
        head = f"POST /v1/predict HTTP/1.1\r\nHost: {found.place}\r\nContent-Type: application/octet-stream\r\n"

        def asked(line: socket.socket) -> bytes:
            line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            return line.recv(12)

        known = idle.enter_context(socket.create_connection((host, int(port)), 30))
        assert asked(known) == b"HTTP/1.1 200"
        known.recv(1 << 16)
        lines = [idle.enter_context(socket.create_connection((host, int(port)), 30)) for _ in range(2 * FILES)]
        end = time.monotonic() + 20
        while sum(map(is_closed, lines)) < 2 * FILES - FILES // 2 and time.monotonic() < end:
            time.sleep(0.05)
        closed = [one for one in lines if is_closed(one)]
        assert len(lines) - len(closed) <= FILES // 2
        assert asked(known) == b"HTTP/1.1 200"
        for one in lines:
            one.close()
        with found.client() as client:
            assert client.post("/v1/predict", files={"file": ("a.png", body)}).status_code == 200
        assert len(list(Path(f"/proc/{found.process.pid}/fd").iterdir())) < FILES // 2
    assert len(found.lines) + len(found.plain) < 20


def is_closed(line: socket.socket) -> bool:
    line.setblocking(False)
    try:
        return line.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_connections_that_cannot_be_accepted_are_told_once_in_a_while(log: io.StringIO) -> None:
    """asyncio tells it for each of the waiting ones, again each second: that fills the disk of the log."""
    told: list[str] = []
    loop = asyncio.new_event_loop()
    try:
        loop.default_exception_handler = lambda context: told.append(context["message"])  # type: ignore[method-assign]
        loop.set_exception_handler(_exceptions(0.05))
        for _ in range(100):
            none = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            loop.call_exception_handler({"message": "socket.accept() out of system resource", "exception": none})
        time.sleep(0.06)
        loop.call_exception_handler({"message": "again", "exception": none})
        loop.call_exception_handler({"message": "another", "exception": ValueError("another")})
    finally:
        loop.close()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [(one["event"], one["level"], one["code"]) for one in lines] == [("not accepted", "error", "OCT-E906")] * 2
    assert "ulimit -n" in lines[0]["help"]
    assert told == ["another"]


def test_the_limit_of_open_files_is_raised_while_it_serves_and_no_longer() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, before[1]))
    try:
        with _open_files():
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(4096, before[1]), before[1])
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (1000, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
