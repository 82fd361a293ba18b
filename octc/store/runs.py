"""The run folder: runs/<id>/ with run.json, split.json, train/, qat/, artifacts/, test-set.jsonl.

Ids are never reused, and one process owns a run while it writes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.core.clock import utc_now
from octc.core.errors import OctcError
from octc.core.faults import fault_of
from octc.core.files import TEMPORARY, entries, publishing, read_json, remove_leftovers, write_bytes, write_json
from octc.core.locks import lock
from octc.schemas.common import VERSION, convert
from octc.schemas.logs import Owner
from octc.schemas.runs import RunFile
from octc.store.artifacts import MANIFEST
from octc.store.claims import is_here, take_claim, words_of
from octc.store.test_set_log import begin_log

RUN = "run.json"
LOCK = "lock.json"
LAST = ".last-number"
TAKEN = "OCT-E106"
RESTORE = f"restore {RUN} from a copy; its checkpoints and artifacts are read by their paths without it (RUN/artifacts/NAME)"
ID = re.compile(r"^r-(\d{4,})")


@dataclass(frozen=True)
class Run:
    """One run.

    run.json: id, kind ("teacher" or "student"), dataset, data_root, data_digest, split_digest, recipe (resolved),
    created (UTC), status ("running", "done", "failed", "interrupted"), stages (append-only: what, when, facts).
    """

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def split(self) -> Path:
        return self.path / "split.json"

    def read(self) -> dict[str, Any]:
        """run.json, checked against `RunFile`, as a dictionary (OctcError E107 where it is none)."""
        try:
            value: dict[str, Any] = read_json(self.path / RUN)
            convert(value, RunFile, self.path / RUN)
        except (OSError, ValueError) as error:
            if (fault := fault_of(error, self.path / RUN)) is not None:
                raise fault from error
            there = (self.path / RUN).is_file()
            text = f"{RUN} of {self.id} cannot be read" if there else f"not a run: {self.path}"
            hint = RESTORE if there else "octc list runs"
            raise OctcError("OCT-E107", text, hint=hint, place=str(self.path), why=str(error)) from error
        return value

    def update(self, **fields: Any) -> None:
        """Replace top-level fields of run.json."""
        with self._alone():
            write_json(self.path / RUN, {**self.read(), **fields})

    def note_end(self, status: str) -> None:
        """The status of a run that ended early ("interrupted", "failed"), while an exception goes on: that it cannot be written
        (a full disk, a run that was removed) does not hide why it ended."""
        with contextlib.suppress(OctcError, OSError):
            self.update(status=status)

    def log_stage(self, stage: str, **facts: Any) -> None:
        """Append one entry to the stage log."""
        with self._alone():
            value = self.read()
            value["stages"].append({"stage": stage, "time_utc": utc_now(), **facts})
            write_json(self.path / RUN, value)

    def has_stage(self, stage: str, **facts: Any) -> bool:
        """Whether the stage log has a stage with these facts: a kill may come between what it made and its line."""
        wanted = {"stage": stage, **facts}
        return any(all(one.get(name) == value for name, value in wanted.items()) for one in self.read()["stages"])

    def _alone(self) -> AbstractContextManager[None]:
        """While run.json is read and written anew: an evaluation notes what it did beside the process that owns the run."""
        return alone(self.path) if self.path.is_dir() else contextlib.nullcontext()


def create_run(
    run_dir: Path, kind: str, dataset: str, *, suffix: str = "", begin: Callable[[Run], None] | None = None, **fields: Any
) -> Run:
    """Make runs/r-NNNN-<kind>-<dataset><suffix>/ with a fresh number (OctcError E109 when the folder cannot be written).

    begin: writes what a run has from its first moment (its split). The folder takes its name when all of that and run.json are
    there: a process that is killed before leaves no run, and nothing of that name.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        while True:
            path = _free_name(run_dir, f"{kind}-{dataset}{suffix}")
            head = {
                "schema_version": VERSION,
                "id": path.name,
                "kind": kind,
                "dataset": dataset,
                "created": utc_now(),
                "status": "running",
            }
            try:
                with publishing(path) as folder:
                    begin_log(folder, head["created"])
                    if begin is not None:
                        begin(Run(folder))
                    write_json(folder / RUN, {**head, **fields, "stages": []})
                return Run(path)
            except OctcError as error:
                if error.code != TAKEN or not os.path.lexists(path):
                    raise
    except OSError as error:
        error.filename = error.filename2 = None  # of a folder that is gone again
        if (fault := fault_of(error, run_dir)) is not None:
            raise fault from error
        text = f"run folder {run_dir} cannot be written: {error.strerror}"
        raise OctcError("OCT-E109", text, hint="--run-dir DIR with a writable folder", place=str(run_dir)) from error


def _free_name(run_dir: Path, name: str) -> Path:
    """The folder of a new run, whose number nobody else is given. Where the file system has no lock on `run_dir` another
    machine may take it meanwhile: the folder decides, and the next number is free."""
    with alone(run_dir):
        there = max((int(m[1]) for p in run_dir.iterdir() if (m := ID.match(p.name))), default=0)
        number = 1 + max(there, _last_number(run_dir))
        write_bytes(run_dir / LAST, b"%d\n" % number)
    return run_dir / f"r-{number:04d}-{name}"


def _last_number(run_dir: Path) -> int:
    """The highest number that was ever given here; its run may have been deleted since."""
    try:
        return int((run_dir / LAST).read_text())
    except (OSError, ValueError):
        return 0


def folders_in(place: Path) -> list[Path]:
    """Folders directly in `place`, by name, but hidden and half-written ones."""
    return [path for path in entries(place) if path.is_dir() and not path.name.startswith((TEMPORARY, "."))]


def artifact_folders(place: Path) -> list[Path]:
    """Folders directly in `place` that hold a manifest, by name; half-written ones are passed over."""
    return [path for path in folders_in(place) if (path / MANIFEST).is_file()]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time, by a lock on the folder itself; where the file system has no locks, without one."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle, wait=True)
        yield
    finally:
        os.close(handle)


def scan_runs(run_dir: Path, kind: str | None = None, dataset: str | None = None) -> list[Run]:
    """All readable runs, newest first (by number). Whoever takes the newest asks `refuse_unread` too."""
    return [run for run, _ in read_runs(run_dir, kind, dataset)]


def read_runs(run_dir: Path, kind: str | None = None, dataset: str | None = None) -> list[tuple[Run, dict[str, Any]]]:
    """`scan_runs` with what is in each run.json. Whoever needs it takes it from here: a run may be removed at any moment
    (`octc runs prune`, a training that was refused), and a second look would be an error then."""
    found = []
    for run in _all_runs(run_dir):
        value = _read_or_error(run)
        if isinstance(value, dict) and kind in (None, value.get("kind")) and dataset in (None, value.get("dataset")):
            found.append((run, value))
    return sorted(found, key=lambda pair: (-_number(pair[0]), pair[0].id))


def unread_runs(run_dir: Path) -> list[tuple[Run, OctcError]]:
    """Runs whose run.json is there and cannot be read, and why: nobody knows what they are. By name."""
    return [(run, error) for run in _all_runs(run_dir) if isinstance(error := _read_or_error(run), OctcError)]


def _all_runs(run_dir: Path) -> list[Run]:
    return [Run(path) for path in entries(run_dir) if ID.match(path.name) is not None and os.path.lexists(path / RUN)]


def _read_or_error(run: Run) -> dict[str, Any] | OctcError | None:
    """What is in run.json, or why it cannot be read; None where it has gone meanwhile."""
    try:
        return run.read()
    except OctcError as error:
        return error if os.path.lexists(run.path / RUN) else None


def refuse_unread(run_dir: Path, kind: str | None, dataset: str | None, taken: Run | None) -> None:
    """The error of a run that cannot be read where it may be the newest one that is meant: newer than the one that would be
    taken, and by its name of that kind and data set. An older run must not answer in its place without a word."""
    meant = re.compile(rf"r-\d+-{kind or '[a-z]+'}-{re.escape(dataset) if dataset else '.'}")
    newer = (run for run in reversed(_all_runs(run_dir)) if taken is None or _number(run) > _number(taken))
    for error in (_read_or_error(run) for run in newer if meant.match(run.id)):
        if not isinstance(error, OctcError):
            continue
        if error.code != "OCT-E107":
            raise error
        hint = error.hint if taken is None else f"{error.hint}; or name another run, for example {taken.id}"
        raise OctcError(error.code, f"{error.message}, and it may be the newest", hint=hint, place=error.place, why=error.why)


def only_newest(runs: Iterable[Run], run_dir: Path, kind: str | None, dataset: str | None = None) -> Run | None:
    """The first of runs of a kind and data set that are sorted as `scan_runs` does; None where there is none.

    Raises:
        OctcError: E107 two have its number (one of them was copied here from elsewhere); as `refuse_unread`.
    """
    first, second = (*itertools.islice(runs, 2), None, None)[:2]
    refuse_unread(run_dir, kind, dataset, first)
    if first is None or second is None or _number(first) != _number(second):
        return first
    text = f"two equally new runs: {first.id} and {second.id}"
    raise OctcError("OCT-E107", text, hint=f"name one, for example {first.id}", place=str(first.path.parent))


def _number(run: Run) -> int:
    found = ID.match(run.id)
    return int(found[1]) if found else -1


def newest_run(run_dir: Path, kind: str | None = None, dataset: str | None = None, *, artifacts: bool = False) -> Run:
    """The newest finished run of that kind (with artifacts, if asked).

    Raises:
        OctcError: E107 with the candidates and the command that makes one.
    """
    runs = read_runs(run_dir, kind, dataset)
    done = (run for run, value in runs if value.get("status") == "done" and (not artifacts or artifact_folders(run.artifacts)))
    if (run := only_newest(done, run_dir, kind, dataset)) is not None:
        return run
    wanted = " ".join(word for word in (kind or "", "run", f"on {dataset}" if dataset else "") if word)
    others = [f"{run.id} ({value.get('status')})" for run, value in (runs or read_runs(run_dir))[:10]]
    why = f"found: {', '.join(others)}" if others else f"no run lies in {run_dir}"
    hint = "octc export" if artifacts else f"octc train {kind or 'student'} --dataset {dataset or 'NAME'}"
    raise OctcError(
        "OCT-E107",
        f"no successful {wanted}{' with artifacts' if artifacts else ''}",
        hint=hint,
        why=why,
        place=str(run_dir),
    )


def find_run(run_dir: Path, name: str) -> Run:
    """A run by path, id or the beginning of its id (E107 when none, or more than one, fits)."""
    direct = Path(name)
    if direct.name == RUN and direct.is_file():
        direct = direct.parent
    if (direct / RUN).is_file():
        return Run(direct)
    fits = _named(scan_runs(run_dir), name)
    if len(fits) == 1:
        return fits[0]
    unread = unread_runs(run_dir)
    if not fits and (meant := _named([run for run, _ in unread], name)):
        raise next(error for run, error in unread if run == meant[0])
    listed = ", ".join(run.id for run in (fits or scan_runs(run_dir))[:10]) or "none"
    raise OctcError("OCT-E107", f"no such run: {name}", hint="octc list runs", why=f"candidates: {listed}")


def _named(runs: list[Run], name: str) -> list[Run]:
    """Runs that a name means: an id, a number (r-1000 is not r-10000), the beginning of an id."""
    whole = ID.fullmatch(name)
    fits = [run for run in runs if run.id == name] or [run for run in runs if whole and _number(run) == int(whole[1])]
    return fits or [run for run in runs if name and run.id.startswith(name)]


@contextmanager
def owning(run: Run, *, tidy: bool = True) -> Iterator[str | None]:
    """Own a run while writing to it. Yields a sentence when a stale lock was recovered, else None.

    What processes left half-written in the run when they were killed is removed first, unless `tidy` is false.

    Raises:
        OctcError: E108 with PID and host of the process that owns it.
    """
    path = run.path / LOCK
    try:
        mine = take_claim(path)
    except OSError as error:
        if (fault := fault_of(error, run.path)) is not None:
            raise fault from error
        raise OctcError("OCT-E109", f"{run.path} cannot be written: {error.strerror}", hint="--run-dir DIR") from error
    if isinstance(mine, Owner):
        text = f"run {run.id} is in use by {words_of(mine)}"
        hint = "wait for it, or give another --run-dir"
        if not is_here(mine):  # nobody can look from here; a container has another name each time it starts
            hint = f"wait for it; where that machine, or container, has ended or was started again: rm {shlex.quote(str(path))}"
        raise OctcError("OCT-E108", text, hint=hint, place=str(path))
    left = mine.left
    try:
        if tidy and (gone := remove_leftovers(run.path)):
            logging.getLogger("octc").info("removed what a process that was killed left: %s", ", ".join(gone))
        yield None if left is None else f"recovered a stale lock of process {left.pid} on {left.host}"
    finally:
        mine.give_back()
