"""One worker process under supervision: started, watched, replaced. A unit that kills it is halved until the image is found."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import IO, Any

from octc.archive.store import Done
from octc.archive.unit import Task
from octc.archive.worker import Setup, task_json
from octc.core.errors import OctcError
from octc.core.faults import error_of
from octc.core.files import parse_json

STARTING = 600.0  # seconds: an engine may be built first
GRACE = 60.0  # seconds beyond the time limit of an input without a word
STARTS = 5  # in a row that fail
DEATHS = 25  # in a row without a unit that is done
KILLERS = 10  # inputs of one unit that end the process
# `-m` and `-c` look for modules in the folder of work first, and an archive may hold a queue.py
PROGRAM = "import sys; sys.path = [place for place in sys.path if place]; from octc.archive.worker import main; main()"
ENGINE = ("OCT-E502", "OCT-E701", "OCT-E999")  # an engine that refuses an image says so


class Death(Exception):
    """A worker ended, fell silent, or its engine refused."""


class Stopped(Exception):
    """The job ends: workers were told to go."""


@dataclass
class Hand:
    """A worker process. step: called with each number of inputs that are done."""

    setup: Setup
    step: Callable[[int], None] = lambda _count: None
    deaths: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _lines: queue.SimpleQueue[bytes] = field(default_factory=queue.SimpleQueue)
    _log: IO[bytes] | None = None
    _stopped: bool = False

    def complete(self, task: Task) -> Done:
        """Do a unit, whatever ends the process meanwhile.

        Raises:
            OctcError: what the machine lacks; E611 processes end again and again, and no image is to blame.
        """
        skip: dict[str, str] = {}
        tried = 0
        while True:
            counted = _Counted(self.step)
            try:
                found = self._ask(replace(task, skip=skip), counted)
            except Death as death:
                counted.take_back()
                self._count(death)
                tried += 1
                if tried > 1 and (blame := self._find(replace(task, skip=skip, write=False))):
                    skip[blame] = str(death)
                    tried = 0
                if len(skip) > KILLERS:
                    raise _hopeless(f"{len(skip)} images of one unit", str(death)) from death
                continue
            self.deaths = 0
            assert found is not None
            counted.fill(found.inputs)
            return found

    def _count(self, death: Death) -> None:
        self.deaths += 1
        if self._stopped:
            raise Stopped from death
        if self.deaths > DEATHS:
            raise _hopeless(f"{self.deaths} processes in a row", str(death)) from death

    def _find(self, task: Task) -> str | None:
        """The input or B-scan that ends the process: halves are tried until one is left. None: it does not happen again."""
        first, last = 0, task.unit.inputs
        frames = _Frames()
        while last - first > 1:
            middle = (first + last) // 2
            if self._dies(replace(task, files=(first, middle)), frames):
                last = middle
            elif self._dies(replace(task, files=(middle, last)), frames):
                first = middle
            else:
                return None
        frames.count = 0
        if not self._dies(replace(task, files=(first, last)), frames):
            return None
        if frames.count < 2:
            return str(first)
        low, high = 0, frames.count
        while high - low > 1:
            middle = (low + high) // 2
            if self._dies(replace(task, files=(first, last), frames=(low, middle)), frames):
                high = middle
            elif self._dies(replace(task, files=(first, last), frames=(middle, high)), frames):
                low = middle
            else:
                return None
        return f"{first}:{low}"

    def _dies(self, task: Task, frames: _Frames) -> bool:
        try:
            self._ask(task, frames)
        except Death as death:
            if self._stopped:
                raise Stopped from death
            return True
        return False

    def _ask(self, task: Task, listener: Callable[[str, int], None]) -> Done | None:
        """One task for the process. Raises Death, and OctcError for what the machine lacks."""
        process = self._started()
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(task_json(task)).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise self._dead() from error
        while True:
            kind, value = self._heard(self.setup.limit + GRACE)
            if kind == "done":
                return None if value is None else Done.from_json(value)
            if kind == "fault":
                self._refused(value)
            listener(kind, int(value))

    def _refused(self, value: dict[str, Any]) -> None:
        error = error_of(value)
        if error.code in ENGINE:
            raise Death(f"{error.code} {error.message}")
        raise error

    def _started(self) -> subprocess.Popen[bytes]:
        if self._stopped:
            raise Stopped
        if self._process is not None:
            return self._process
        for _ in range(STARTS - 1):
            with suppress(Death):
                return self._start()
            if self._stopped:
                raise Stopped
        try:
            return self._start()
        except Death as death:
            raise _hopeless(f"{STARTS} processes at their start", str(death)) from death

    def _start(self) -> subprocess.Popen[bytes]:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._lines = queue.SimpleQueue()
        words = [sys.executable, "-c", PROGRAM]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=self._log, start_new_session=True)
        assert self._process.stdin is not None
        if self._stopped:  # meanwhile, and it was not there yet to be ended
            self._process.kill()
        threading.Thread(target=_listen, args=(self._process.stdout, self._lines), daemon=True).start()
        with suppress(OSError):  # it died at once: reading says so
            self._process.stdin.write(json.dumps(asdict(self.setup)).encode() + b"\n")
            self._process.stdin.flush()
        kind, value = self._heard(STARTING)
        if kind == "fault":
            self.close()
            raise error_of(value)
        return self._process

    def _heard(self, seconds: float) -> tuple[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise self._dead(f"no word for {seconds:.0f} s") from None
        if not line:
            raise self._dead()
        ((kind, value),) = parse_json(line).items()
        return kind, value

    def _dead(self, why: str = "") -> Death:
        """How the process ended; it is gone afterwards."""
        process, log = self._process, self._log
        assert process is not None
        if why:
            process.kill()
        code = process.wait()
        text = why or (f"signal {-code}" if code < 0 else f"exit code {code}")
        if log is not None:
            log.seek(max(0, log.seek(0, 2) - 500))
            lines = log.read().decode(errors="replace").strip().splitlines()
            text += f" ({lines[-1][:200]})" if lines else ""
        self.close()
        return Death(text)

    def stop(self) -> None:
        """End the process from another thread; whoever waits for it gets `Stopped`."""
        self._stopped = True
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None


def _listen(stream: IO[bytes] | None, lines: queue.SimpleQueue[bytes]) -> None:
    with suppress(ValueError, OSError):  # closed meanwhile
        for line in stream or ():
            lines.put(line)
    lines.put(b"")


@dataclass
class _Counted:
    """Inputs of a unit that were told to be done: no more and no fewer than there are in the end."""

    step: Callable[[int], None]
    count: int = 0

    def __call__(self, kind: str, count: int) -> None:
        if kind == "inputs":
            self.count += count
            self.step(count)

    def take_back(self) -> None:
        self.step(-self.count)
        self.count = 0

    def fill(self, inputs: int) -> None:
        self.step(inputs - self.count)


@dataclass
class _Frames:
    """How many B-scans the only input has, once a process said so."""

    count: int = 0

    def __call__(self, kind: str, count: int) -> None:
        if kind == "frames":
            self.count = count


def _hopeless(what: str, why: str) -> OctcError:
    text = f"{what} ended: {why}"
    return OctcError("OCT-E611", text, hint="octc doctor; fewer --workers, a smaller --batch; what is done stays", why=why)
