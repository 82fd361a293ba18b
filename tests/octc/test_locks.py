"""File systems without locks, and disks that take a part of what is written."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from octc.archive.store import Shard, holding, planning
from octc.bench.parity.plan_lock import register_use
from octc.core.errors import OctcError
from octc.core.faults import fault_of
from octc.core.files import append_whole
from octc.core.locks import lock, must_lock
from octc.schemas.logs import Owner, Reading
from octc.serve.dicom.spool import AUDIT, Spool
from octc.store.claims import Claim, claiming, take_claim
from octc.store.runs import Run, create_run, owning
from octc.store.test_set_log import LOG, log_reading, read_log


def reading(when: str) -> Reading:
    return Reading(when, "eval", "test", 40, "d" * 64, {"weights": "1"}, {})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "runs", "student", "folder")


@pytest.fixture
def lockless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS without a lock server, or mounted by a program in user space."""

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)


@contextmanager
def files_of_at_most(count: int) -> Iterator[None]:
    """No file of this process may be longer: a write across that takes what fits, as on a disk that is all but full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_lock_is_ours_somebody_elses_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    with path.open("wb") as one, path.open("rb") as other:
        assert lock(one, shared=True) is True
        assert lock(other, shared=True) is True
        assert lock(one) is False
        other.close()
        assert must_lock(one, path) is True
        monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSYS, "none")))
        assert lock(one) is None
        with pytest.raises(OSError, match="locks") as caught:
            must_lock(one, path)
    found = fault_of(caught.value)
    assert found is not None
    assert (found.code, found.exit_code, found.place) == ("OCT-E906", 4, str(path))


@pytest.mark.usefixtures("lockless")
def test_without_locks_runs_claims_and_the_records_of_the_test_set_work(run: Run, tmp_path: Path) -> None:
    with owning(run):
        run.update(status="done")
        log_reading(run.path, reading("2026-01-01T00:00:00Z"))
        assert len(log_reading(run.path, reading("2026-01-02T00:00:00Z")).readings) == 2
        with pytest.raises(OctcError) as caught, owning(run):  # its process is there: that needs no lock
            pass
        assert caught.value.code == "OCT-E108"
    assert run.read()["status"] == "done"
    with claiming(tmp_path / "claim") as mine, claiming(tmp_path / "claim") as other:
        assert isinstance(mine, Claim)
        assert isinstance(other, Owner)
    use = register_use(run, {}, {}, {"a": "1"}, {"a": "0"}, "2026-01-03T00:00:00Z")
    assert (use.uses, len(read_log(run.path).readings)) == (2, 3)


@pytest.mark.usefixtures("lockless")
def test_without_locks_what_two_processes_would_spoil_is_refused_with_4(tmp_path: Path) -> None:
    places = {"alone": Shard(1, 1), "array": Shard(1, 2)}
    for name, shard in places.items():
        with pytest.raises(OctcError) as caught, holding(tmp_path / name, shard):
            pass
        assert (caught.value.code, caught.value.exit_code) == ("OCT-E906", 4)
    with pytest.raises(OSError, match="locks"), planning(tmp_path / "array"):
        pass
    with pytest.raises(OctcError) as caught, Spool(tmp_path / "spool"):
        pass
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E906", 4)


def test_what_a_full_disk_takes_a_part_of_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("ab", buffering=0) as stream:
        append_whole(stream.fileno(), b"a" * 90)
        with files_of_at_most(100), pytest.raises(OSError, match="large"):
            append_whole(stream.fileno(), b"b" * 20)
        assert path.read_bytes() == b"a" * 90
        append_whole(stream.fileno(), b"c" * 20)
    assert path.read_bytes() == b"a" * 90 + b"c" * 20


def test_a_reading_whose_row_does_not_fit_is_refused_before_an_image_is_read(run: Run) -> None:
    """A row that is written in part would be taken for one whose reading never began."""
    log_reading(run.path, reading("2026-01-01T00:00:00Z"))
    before = (run.path / LOG).read_bytes()
    with files_of_at_most(len(before) + 50), pytest.raises(OctcError) as caught:
        log_reading(run.path, reading("2026-01-02T00:00:00Z"))
    found = fault_of(caught.value)
    assert found is not None
    assert found.exit_code == 4
    assert (run.path / LOG).read_bytes() == before
    log_reading(run.path, reading("2026-01-03T00:00:00Z"))
    assert [one.time_utc for one in read_log(run.path).readings] == ["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"]


@pytest.mark.parametrize("room", [1, 10, 200])
def test_a_run_that_does_not_fit_is_not_there(tmp_path: Path, room: int) -> None:
    """No room for the number of the run, for the head of its log, for run.json."""
    with files_of_at_most(room), pytest.raises(OctcError) as caught:
        create_run(tmp_path, "student", "folder", notes="x" * 200)
    assert caught.value.exit_code == 4
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert create_run(tmp_path, "student", "folder").id == ("r-0001-student-folder" if room == 1 else "r-0002-student-folder")


def test_a_claim_that_does_not_fit_is_nobodys(tmp_path: Path) -> None:
    with files_of_at_most(20), pytest.raises(OSError, match="large"):
        take_claim(tmp_path / "claim")
    assert list(tmp_path.iterdir()) == []


def test_a_line_of_an_audit_log_is_whole_or_not_there(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        size = (tmp_path / AUDIT).stat().st_size
        with files_of_at_most(size + 20), pytest.raises(OSError, match="large") as caught:
            spool.audit("sent", "a" * 32)
        assert caught.value.filename == str(tmp_path / AUDIT)
        assert (tmp_path / AUDIT).stat().st_size == size
        spool.audit("sent", "b" * 32)
    lines = [json.loads(line) for line in (tmp_path / AUDIT).read_text().splitlines()]
    assert [line.get("key") for line in lines] == [None, "b" * 32]
