"""A web server on this machine that serves bytes well or badly, and remembers what it was asked."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What an address serves.

    Attributes:
        faults: one for each request, then none: "short" closes after half of what is left, "hang" stops sending there,
            "status 503", "html", "other piece"; "slow" sends a little at a time.
        ranges: whether a part may be asked for. tag: version of the file; None: none is stated.
    """

    body: bytes
    faults: list[str] = field(default_factory=list)
    ranges: bool = True
    tag: str | None = '"v1"'
    kind: str = "application/zip"
    asked: list[str] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    @property
    def md5(self) -> str:
        return hashlib.md5(self.body, usedforsecurity=False).hexdigest()


class Web:
    """`pages` by path; `url(path)` is where one stands."""

    def __init__(self, port: int) -> None:
        self.pages: dict[str, Page] = {}
        self.port = port
        self.stop = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def put(self, path: str, body: bytes, **more: object) -> Page:
        self.pages[path] = Page(body, **more)  # type: ignore[arg-type]
        return self.pages[path]


class Server(ThreadingHTTPServer):
    """`web` is what it serves."""

    daemon_threads = True
    web: Web

    def handle_error(self, *_arguments: object) -> None:
        """A client that goes away is no news."""


class Handler(BaseHTTPRequestHandler):
    """What a page says, with its fault. `web` is its server's."""

    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        page = self.server.web.pages.get(self.path.partition("?")[0])
        if page is None:
            return self._plain(404, b"no such file")
        page.asked.append(self.headers.get("Range", ""))
        fault = page.faults.pop(0) if page.faults else ""
        if fault.startswith("status"):
            return self._plain(int(fault.split()[1]), b"sorry")
        if fault == "html":
            page = Page(b"<html>log in</html>", kind="text/html; charset=utf-8")
        return self._send(page, fault)

    def _plain(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send(self, page: Page, fault: str) -> None:
        start, wanted = 0, self.headers.get("Range")
        same = self.headers.get("If-Range", page.tag) == page.tag
        if wanted and page.ranges and same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(page.body):
                return self._plain(416, b"")
            self.send_response(206)
            shown = start + (7 if fault == "other piece" else 0)
            self.send_header("Content-Range", f"bytes {shown}-{len(page.body) - 1}/{len(page.body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str(len(page.body) - start))
        if page.tag is not None:
            self.send_header("ETag", page.tag)
        self.end_headers()
        rest = page.body[start:]
        try:
            self._body(rest, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _body(self, rest: bytes, fault: str) -> None:
        if fault in ("short", "hang"):
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            if fault == "hang":
                self.server.web.stop.wait(20)
            self.close_connection = True
            return
        step = 2000 if fault == "slow" else len(rest) or 1
        for at in range(0, len(rest), step):
            self.wfile.write(rest[at : at + step])
            if fault == "slow":
                time.sleep(0.02)


@contextmanager
def serving() -> Iterator[Web]:
    """A server in threads of this process, until the block ends."""
    server = Server(("127.0.0.1", 0), Handler)
    web = server.web = Web(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        web.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()
