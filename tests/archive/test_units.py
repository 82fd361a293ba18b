"""One unit in this process: the same answers as `octc.load`, and inputs that vanish, change, hang or are no images."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import octc
from octc.archive.files import Opener
from octc.archive.hand import Hand, Stopped
from octc.archive.listing import entries_of, user_schema
from octc.archive.plan import FOLDER, read_units, write_plan
from octc.archive.store import Done, digest, part_path
from octc.archive.unit import Shop, Task, do_unit
from octc.archive.worker import Setup, open_shop
from octc.cli._app.main import main
from octc.core.files import sha256_file
from octc.runtimes.scans import Reading
from octc.store.artifacts import read_artifact
from octc.store.monitor_store import open_store
from octc.volumes import read_volume
from octc.volumes import writing as stacks
from octc.volumes.source import Source
from tests.archive.world import rows, write_pictures, write_volume
from tests.tiny_artifacts import artifact_folder

OPTIONS = {
    "views": "none", "batch": 8, "allow_cut": False, "aggregation": {"method": "mean", "top": 3, "chosen_on": ""},
}  # fmt: skip


def planned(results: Path, *words: Path) -> None:
    names = list(map(str, words))
    assert write_plan(results / FOLDER, entries_of(names, results / "index"), user_schema(names), first=True)


def setup_of(results: Path, limit: float = 60.0) -> Setup:
    folder = artifact_folder()
    return Setup(str(results), str(folder), sha256_file(folder / "artifact.json"), digest(OPTIONS), OPTIONS, None, 1, limit)


def shop_of(results: Path, limit: float = 60.0) -> Shop:
    return open_shop(setup_of(results, limit))


def done(shop: Shop, **task: Any) -> Done:
    (unit,) = read_units(shop.folder / FOLDER)
    found = do_unit(shop, Task(unit, **task), lambda _kind, _count: None)
    assert found is not None
    return found


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


def test_rows_are_the_answers_of_a_model(tmp_path: Path, results: Path) -> None:
    archive = tmp_path / "archive"
    write_pictures(archive, 11)
    write_volume(archive / "site-1" / "eye", frames=5)
    planned(results, archive)
    found = done(shop_of(results))
    scans, eyes = rows(results), rows(results, "eyes")
    files = list(dict.fromkeys(row["file"] for row in scans))
    with octc.load(artifact_folder(), threads=1) as model:
        said = model.predict(files)
        expected = [one for one in said if one.eye is None]
        (eye,) = [one for one in said if one.eye is not None]
        names = model.classes
    for row, one in zip(scans, expected, strict=True):
        assert one.probabilities is not None
        assert [row[f"p_{name}"] for name in names] == pytest.approx([one.probabilities[name] for name in names], abs=1e-6)
        assert (row["label"], row["frame"]) == (one.label, one.frame)
        assert row["sha256"] == sha256_file(Path(row["file"]))
    assert (found.inputs, found.failed, found.volumes, found.sides) == (12, 0, 1, 1)
    assert (eyes[0]["label"], eyes[0]["eye"], eyes[0]["frames"], scans[-1]["eye"]) == (eye.label, "L", 5, None)
    assert {row["eye"] for row in scans if row["file"].endswith(".vol")} == {"L"}


def test_each_frame_of_a_long_volume_is_a_word_of_life(tmp_path: Path, results: Path) -> None:
    planned(results, write_volume(tmp_path / "eye", frames=5))
    (unit,) = read_units(results / FOLDER)
    told: list[tuple[str, int]] = []
    assert do_unit(shop_of(results), Task(unit), lambda kind, count: told.append((kind, count))) is not None
    assert told == [("inputs", 0)] * 5 + [("inputs", 1)]


def test_a_process_that_starts_while_all_are_stopped_is_ended(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(results, *write_pictures(tmp_path / "archive", 2))
    (unit,) = read_units(results / FOLDER)
    hand = Hand(setup_of(results))
    begun, start = [], subprocess.Popen

    def late(*words: Any, **options: Any) -> Any:
        process = start(*words, **options)
        begun.append(process)
        hand.stop()  # there is no process yet that it could end
        return process

    monkeypatch.setattr(subprocess, "Popen", late)
    with pytest.raises(Stopped):
        hand.complete(Task(unit))
    hand.close()
    assert [process.returncode for process in begun] == [-signal.SIGKILL]


def test_a_folder_and_an_empty_file_are_refused_by_what_they_are(tmp_path: Path) -> None:
    (empty := tmp_path / "empty.png").touch()
    (folder := tmp_path / "scans.png").mkdir()
    opener = Opener(read_artifact(artifact_folder()), ("plain",), None, Reading())
    errors = [opener.open((place, str(path))).error for place, path in enumerate((empty, folder, tmp_path / "gone.png"))]
    assert [None if one is None else one.code for one in errors] == ["OCT-E201", "OCT-E201", "OCT-E201"]


def test_what_folders_hold_besides_is_counted_and_what_is_called_a_volume_is_an_input(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (good,) = write_pictures(archive, 1, folders=1)
    (archive / "deep").mkdir()
    for name in ("a.txt", "deep/b.txt", "c.gif", "empty.vol", "deep/lost.DCM"):
        (archive / name).write_bytes(b"" if name == "empty.vol" else b"no volume")
    (archive / "gone.dcm").symlink_to(tmp_path / "nowhere")
    (archive / "gone.txt").symlink_to(tmp_path / "nowhere")
    (archive / "link").symlink_to(archive / "deep")
    os.mkfifo(archive / "pipe.dcm")  # reading it would wait for ever
    left: Counter[str] = Counter()
    found = {one.path for one in entries_of([str(archive)], tmp_path / "index", left)}
    assert found == {str(good), *(str(archive / name) for name in ("empty.vol", "deep/lost.DCM", "gone.dcm"))}
    assert left == {".txt": 2, ".gif": 1, "link that leads nowhere": 1, "link to a folder": 1, ".dcm": 1}
    opener = Opener(read_artifact(artifact_folder()), ("plain",), None, Reading())
    errors = {Path(path).name: opener.open((place, path)).error for place, path in enumerate(sorted(found - {str(good)}))}
    codes = {name: one and one.code for name, one in errors.items()}
    assert codes == {"empty.vol": "OCT-E202", "lost.DCM": "OCT-E202", "gone.dcm": "OCT-E201"}


def test_what_cannot_be_read_is_a_row_with_its_reason(tmp_path: Path, results: Path) -> None:
    good, bad, gone = write_pictures(tmp_path / "archive", 3, folders=1)
    bad.write_bytes(b"no picture")
    planned(results, tmp_path / "archive")
    gone.unlink()
    found = done(shop_of(results))
    assert [row["file"] for row in rows(results)] == [str(good)]
    failed = {row["file"]: (row["code"], bool(row["hint"])) for row in _failed(results)}
    assert failed == {str(bad): ("OCT-E202", True), str(gone): ("OCT-E201", True)}
    assert found.failed == 2


def test_a_monitor_hears_of_the_same_inputs_from_archives_and_from_predict(tmp_path: Path, results: Path) -> None:
    """Pictures, volumes of one and of several files, and what cannot be read: once each, whichever came first."""
    archive = tmp_path / "archive"
    _, bad = write_pictures(archive / "pictures", 2, folders=1)
    bad.write_bytes(b"no picture")
    write_volume(archive / "eye")
    broken = write_volume(archive / "broken")
    broken.write_bytes(broken.read_bytes()[:3000])
    stacks.write_pictures(read_volume(write_volume(tmp_path / "other", frames=3, laterality="R")), archive / "stack")
    planned(results, archive)
    digest_of = sha256_file(artifact_folder() / "artifact.json")
    with open_store(tmp_path / "s.sqlite", make=True) as store:
        done(replace(shop_of(results), monitor=store))
        heard = store.seen(digest_of)
        assert sorted(one.sketch["unread"] or 0.0 for one in heard) == [0.0, 0.0, 0.0, 1.0, 1.0]
        main(["predict", str(artifact_folder()), str(archive), "--monitor", str(tmp_path / "s.sqlite")])
        assert store.seen(digest_of) == heard


def _failed(results: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    return list(parquet.read_table(part_path(results, "failed", 0)).to_pylist())


def test_a_volume_that_is_written_to_meanwhile_has_no_rows(
    tmp_path: Path,
    results: Path,
) -> None:
    volume = write_volume(tmp_path / "archive" / "eye")
    planned(results, tmp_path / "archive")
    shop = shop_of(results)

    def writing(batch: Any) -> Any:
        os.utime(volume, ns=(1, 1))
        return shop.runtime(batch)

    done(replace(shop, runtime=writing))  # type: ignore[arg-type]
    assert rows(results) == []
    assert [row["code"] for row in _failed(results)] == ["OCT-E239"]


@pytest.fixture
def quiet_leases() -> Iterator[None]:
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGIO, before)


@pytest.mark.usefixtures("quiet_leases")
def test_an_input_that_hangs_its_reader_is_left_behind(tmp_path: Path, results: Path) -> None:
    """Whoever opens a file on which another has a lease waits until it is given up: a file server that does not answer."""
    pictures = write_pictures(tmp_path / "archive", 12, folders=1)
    planned(results, tmp_path / "archive")
    shop = shop_of(results, limit=1.0)
    handles = [os.open(pictures[place], os.O_RDONLY) for place in (3, 4, 5)]
    try:
        try:
            for handle in handles:
                fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"this file system has no leases: {error}")
        with open_store(tmp_path / "seen.sqlite", make=True) as store:
            found = done(replace(shop, monitor=store))
            heard = store.seen(shop.marks["artifact"])
    finally:
        for handle in handles:
            os.close(handle)
    assert len(heard) == 9  # of the others nothing is known yet
    assert [row["file"] for row in rows(results)] == [
        str(path) for place, path in enumerate(pictures) if place not in (3, 4, 5)
    ]
    assert {row["code"] for row in _failed(results)} == {"OCT-E238"}
    assert found.failed == 3


def test_a_file_that_goes_or_fails_while_it_is_read_is_a_row_of_its_own(
    tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went behind the look at its size; its block of the disk cannot be read; the disk itself is another matter."""
    _, goes, broken = write_pictures(tmp_path / "archive", 3, folders=1)
    volume = write_volume(tmp_path / "archive" / "eye")
    planned(results, tmp_path / "archive")
    read, numbers = Path.read_bytes, Source.take

    def read_bytes(path: Path) -> bytes:
        if path == goes:
            path.unlink(missing_ok=True)
        if path == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read(path)

    def take(source: Source, offset: int, count: int) -> bytes:
        if source.path == volume and offset > 2048:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(source.path))
        return numbers(source, offset, count)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    monkeypatch.setattr(Source, "take", take)
    assert done(shop_of(results)).failed == 3
    failed = {Path(row["file"]): (row["code"], row["message"]) for row in _failed(results)}
    assert {code for code, _ in failed.values()} == {"OCT-E201"}
    assert ("No such file" in failed[goes][1], "Input/output" in failed[broken][1]) == (True, True)
    assert len(rows(results)) == 1


def test_nothing_in_the_folder_of_work_is_run(tmp_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(results, *write_pictures(tmp_path / "archive", 2))
    (unit,) = read_units(results / FOLDER)
    (tmp_path / "queue.py").write_text("raise SystemExit(3)")  # named as a module that every worker imports
    monkeypatch.chdir(tmp_path)
    hand = Hand(setup_of(results))
    try:
        assert hand.complete(Task(unit)).failed == 0
    finally:
        hand.close()
    assert hand.deaths == 0


def test_a_unit_that_is_done_again_keeps_rows_of_the_same_bytes(tmp_path: Path, results: Path) -> None:
    first, second, third = write_pictures(tmp_path / "archive", 3, folders=1)
    planned(results, tmp_path / "archive")
    shop = shop_of(results)
    done(shop)
    before = rows(results)
    second.write_bytes(first.read_bytes())
    third.touch()
    seen = []

    def counting(batch: Any) -> Any:
        seen.append(len(batch))
        return shop.runtime(batch)

    done(replace(shop, runtime=counting), reuse=True)  # type: ignore[arg-type]
    after = rows(results)
    assert seen == [1]
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1]["sha256"] == before[0]["sha256"]
