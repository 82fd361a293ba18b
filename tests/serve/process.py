"""`octc serve` as a process of its own, for tests: it is there when it says so, and gone when the block ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2


@dataclass
class Serving:
    """A running server: its addresses, its process, and the lines of its log so far."""

    process: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    token: str | None = None

    @property
    def start(self) -> dict[str, Any]:
        return next(line for line in self.lines if line["event"] == "ready")

    @property
    def http(self) -> str:
        return str(self.start["http"]).replace("0.0.0.0", "127.0.0.1")

    @property
    def grpc(self) -> str:
        return str(self.start["grpc"])

    @property
    def place(self) -> str:
        """host:port of HTTP."""
        return self.http.partition("://")[2]

    def client(self, **more: Any) -> httpx2.Client:
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return httpx2.Client(base_url=self.http, headers=headers, timeout=60, trust_env=False, **more)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == name]

    def read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{"):
                self.lines.append(json.loads(line))
                if self.lines[-1]["event"] == "ready":
                    self.ready.set()
            else:
                self.plain.append(line)
        self.ready.set()


@contextmanager
def serving(
    python: Sequence[str], *words: str | Path, env: Mapping[str, str] | None = None, token: str | None = None
) -> Iterator[Serving]:
    """`octc serve WORDS...` at ports that the system chooses."""
    command = [*python, "-m", "octc.cli._app.main", "serve", *map(str, words), "--port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(
        command, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    found = Serving(process, token=token)
    reader = threading.Thread(target=found.read, daemon=True)
    reader.start()
    try:
        assert found.ready.wait(120)
        assert found.events("ready"), "".join(found.plain)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(10)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
