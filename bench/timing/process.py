"""The parent's side of a worker process: starts it, sends commands, monitors the machine meanwhile, and always ends it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from octc.bench.timing.conditions import Snapshot
from octc.core.errors import OctcError
from octc.core.files import parse_json
from octc.machine.memory import BLAS_THREADS, limit_words, spare_space

POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
CLOSE_SECONDS = 5.0
CHUNK = 1 << 16
KILLED = "signal SIGKILL"  # sent by the system when memory is exhausted; octc never sends it to a worker it waits for
Look = Callable[[], Snapshot]


class Worker:
    """A worker process with one artifact.

    Args:
        name: name of the artifact, for errors.
        scratch: empty folder of this bench; the worker runs in it and its stderr is stored there.
        keep_log: moves the log out of `scratch` after a failure; returns its new path.
    """

    def __init__(self, name: str, scratch: Path, threads: int, keep_log: Callable[[Path], Path]) -> None:
        self.name = name
        self._keep_log = keep_log
        self._log = scratch / f"{name}.log"
        self._rest = b""
        self._busy = False
        narrow = spare_space(os.environ)  # sets environment variables for the process too
        environment = {**os.environ, **dict.fromkeys(POOLS, str(threads)), **({BLAS_THREADS: "1"} if narrow else {})}
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "octc.bench.timing.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=scratch,
                env=environment,
                start_new_session=True,
                bufsize=0,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def ask(
        self, message: dict[str, Any], timeout_s: float, look: Look | None = None, every_s: float = 0.5
    ) -> tuple[dict[str, Any], tuple[Snapshot, ...]]:
        """Send a command and wait for the reply; also returns snapshots of the machine during the timed part.

        Raises:
            OctcError: the error of the worker, or E609 if it died or did not reply in time.
        """
        assert self._child.stdin is not None
        self._busy = True
        with contextlib.suppress(BrokenPipeError):  # its end is handled below
            self._child.stdin.write(json.dumps(message).encode() + b"\n")
        looks: list[Snapshot] = []
        timing, deadline = False, time.monotonic() + timeout_s
        while True:
            line = self._line(min(every_s, max(0.0, deadline - time.monotonic())) if timing else deadline - time.monotonic())
            if line is None:
                if time.monotonic() >= deadline:
                    raise self._failure(f"no answer within {timeout_s:.0f} s")
                if look is not None:
                    looks.append(look())
                continue
            answer: dict[str, Any] = parse_json(line)
            if "event" in answer:
                timing = answer["event"] == "timing"
                if look is not None:
                    looks.append(look())
                continue
            self._busy = False
            if "error" in answer:
                raise OctcError(**answer["error"])
            return answer, tuple(looks)

    def close(self) -> None:
        """End the process: let it exit by itself, else kill it; one that is still working is killed immediately."""
        if self._child.poll() is None and not self._busy:
            with contextlib.suppress(OSError):
                if self._child.stdin is not None:
                    self._child.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(CLOSE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill the process."""
        if self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _line(self, timeout_s: float) -> bytes | None:
        """The next line, or None after the timeout."""
        assert self._child.stdout is not None
        pipe, deadline = self._child.stdout.fileno(), time.monotonic() + timeout_s
        pieces = [self._rest]
        while b"\n" not in pieces[-1]:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._rest = b"".join(pieces)
                return None
            piece = os.read(pipe, CHUNK)
            if not piece:
                raise self._failure(_spell_end(self._child.wait()))
            pieces.append(piece)
        line, _, self._rest = b"".join(pieces).partition(b"\n")
        return line

    def _failure(self, what: str) -> OctcError:
        self.kill()
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        place = self._keep_log(self._log)
        last = lines[-1].strip()[:200] if lines else None
        hint = "read the log; octc verify tests the artifact, octc doctor lists what is installed"
        if what == KILLED:
            room = limit_words()
            hint = "most likely memory was exhausted: close other programs, raise the limit, use --batch 1 or a smaller network"
            last = last or room or None
        return OctcError(
            "OCT-E609",
            f"{self.name}: the runtime crashed while it was measured: {what}",
            place=str(place),
            why=last,
            hint=hint,
        )


def _spell_end(code: int) -> str:
    """The exit code or signal of a process as text."""
    if code >= 0:
        return f"exit {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"
