"""The parent's side of a worker: start it, ask it, look at the machine meanwhile, and end it whatever happens."""

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
KILLED = "signal SIGKILL"  # what the system sends where memory ran out; octc itself sends it to nobody whose end it awaits
Look = Callable[[], Snapshot]


class Worker:
    """One process with one artifact.

    Args:
        name: of the artifact, for errors.
        scratch: an empty place that this bench owns; the worker runs there and its stderr is kept there.
        keep_log: moves the log out of `scratch` when the worker failed; its new place.
    """

    def __init__(self, name: str, scratch: Path, threads: int, keep_log: Callable[[Path], Path]) -> None:
        self.name = name
        self._keep_log = keep_log
        self._log = scratch / f"{name}.log"
        self._rest = b""
        self._busy = False
        narrow = spare_space(os.environ)  # it sets variables that the process shall have too
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
        """Send a command and wait for its answer; the looks at the machine while the timed part ran.

        Raises:
            OctcError: what the worker refused, or E609 when it died or did not answer in time.
        """
        assert self._child.stdin is not None
        self._busy = True
        with contextlib.suppress(BrokenPipeError):  # its end is seen below
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
        """Let it end, and end it where it does not; one that is still at work is ended at once."""
        if self._child.poll() is None and not self._busy:
            with contextlib.suppress(OSError):
                if self._child.stdin is not None:
                    self._child.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(CLOSE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it now."""
        if self._child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _line(self, timeout_s: float) -> bytes | None:
        """The next line, or None when there is none in time."""
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
        hint = "read the log; octc verify tells whether the artifact works, octc doctor what is installed"
        if what == KILLED:
            room = limit_words()
            hint = "most likely memory ran out: close other programs, raise the limit, --batch 1, or take a smaller network"
            last = last or room or None
        return OctcError(
            "OCT-E609",
            f"{self.name}: the runtime crashed while it was measured: {what}",
            place=str(place),
            why=last,
            hint=hint,
        )


def _spell_end(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit {code}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"
