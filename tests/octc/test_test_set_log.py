"""The log of readings of the test images: every one counted, in its order, whoever reads and whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.core.files import write_json
from octc.datasets.registry import scan_dataset
from octc.datasets.split import make_split
from octc.datasets.synthetic.bscans import write_phantoms
from octc.schemas.logs import Reading
from octc.store.runs import Run, create_run
from octc.store.test_set_log import LOG, log_files, log_part, log_reading, read_log, spelled


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "runs", "student", "folder")


def reading(when: str, command: str = "eval", sha: str = "1", **options: str) -> Reading:
    return Reading(when, command, "test", 40, "d" * 64, {"weights": sha}, options)


def test_every_reading_is_counted_and_a_repeat_is_named_as_one(run: Run) -> None:
    assert read_log(run.path).complete
    assert spelled(read_log(run.path)) == "the test images were not read"
    for when in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"):
        log_reading(run.path, reading(when))
    log = log_reading(run.path, reading("2026-01-03T00:00:00Z", "ptq"))
    assert (len(log.readings), log.uses, log.complete) == (3, 2, True)
    assert log_reading(run.path, reading("2026-01-04T00:00:00Z", sha="2")).uses == 3  # other weights
    assert log_reading(run.path, reading("2026-01-05T00:00:00Z", tta="5")).uses == 4  # other options
    text = spelled(read_log(run.path))
    for word in ("5 times", "octc eval 4", "octc ptq 1", "2026-01-02T00:00:00Z", "2026-01-05T00:00:00Z"):
        assert word in text


def test_processes_that_read_at_once_are_all_in_the_log(run: Run) -> None:
    script = (
        "import sys; from pathlib import Path; from octc.schemas.logs import Reading\n"
        "from octc.store.test_set_log import log_reading\n"
        "for i in range(20): log_reading(Path(sys.argv[1]), "
        "Reading('now', 'eval', 'test', 1, 'd', {'weights': f'{sys.argv[2]}-{i}'}))"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(run.path), str(number)]) for number in range(3)]
    assert [one.wait(120) for one in started] == [0, 0, 0]
    log = read_log(run.path)
    assert (len(log.readings), log.uses) == (60, 60)


def test_a_row_that_was_cut_off_is_none_and_the_next_one_stands_on_a_line_of_its_own(run: Run) -> None:
    log_reading(run.path, reading("2026-01-01T00:00:00Z"))
    with (run.path / LOG).open("ab") as stream:
        stream.write(b'{"time_utc":"2026-01-02T0')
    assert len(read_log(run.path).readings) == 1
    assert len(log_reading(run.path, reading("2026-01-03T00:00:00Z", "ptq")).readings) == 2
    assert all(json.loads(line) for line in (run.path / LOG).read_text().splitlines())


@pytest.mark.parametrize("line", ["{", "[]", '{"time_utc": 3}', '{"x": 1}'])
def test_a_damaged_log_is_refused_and_left_as_it_is(run: Run, line: str) -> None:
    log_reading(run.path, reading("2026-01-01T00:00:00Z"))
    text = (run.path / LOG).read_text() + line + "\n"
    (run.path / LOG).write_text(text)
    for call in (lambda: read_log(run.path), lambda: log_reading(run.path, reading("2026-01-02T00:00:00Z"))):
        with pytest.raises(OctcError) as caught:
            call()
        assert (caught.value.code, caught.value.exit_code) == ("OCT-E709", 3)
    assert (run.path / LOG).read_text() == text


def test_what_cannot_be_written_down_is_not_read(run: Run) -> None:
    (run.path / LOG).unlink()
    (run.path / LOG).mkdir()  # nobody can write a file of this name, root neither
    with pytest.raises(OctcError) as caught:
        log_reading(run.path, reading("2026-01-01T00:00:00Z"))
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E109", 2)


def test_an_older_run_gives_what_it_noted_and_says_what_is_not_known(run: Run) -> None:
    (run.path / LOG).unlink()
    assert "not recorded" in spelled(read_log(run.path))
    noted = {"stage": "evaluated", "time_utc": "2025-01-01T00:00:00Z", "part": "test", "tta": "none", "sha256": "1"}
    other = {"stage": "evaluated", "time_utc": "2025-01-02T00:00:00Z", "part": "val", "tta": "none", "sha256": "1"}
    run.update(stages=[noted, other])
    use = {"time_utc": "2025-02-01T00:00:00Z", "artifacts": {"a": "1"}, "options": {}}
    plan = {"locked_at": "2025-02-01T00:00:00Z", "artifacts": {"a": "1"}}
    write_json(run.path / "verify-plan.json", {"schema_version": "1.0", "plan": plan, "uses": [use]})
    before = read_log(run.path)
    assert [(one.command, one.images) for one in before.readings] == [("eval", None), ("verify", None)]
    log = log_reading(run.path, reading("2026-01-01T00:00:00Z"))
    run.log_stage("evaluated", part="test", tta="none", sha256="1")  # of the reading that is in the log
    log = read_log(run.path)
    assert (len(log.readings), log.complete, log.since) == (3, False, "2026-01-01T00:00:00Z")
    assert "not recorded before 2026-01-01T00:00:00Z" in spelled(log)


def test_a_clock_that_was_set_back_hides_no_reading_of_before_the_log(run: Run) -> None:
    """What an older octc noted seems to be later than the log that begins now; what is noted from now on is in the log."""
    (run.path / LOG).unlink()
    run.update(
        stages=[{"stage": "evaluated", "time_utc": "2031-01-01T00:00:00Z", "part": "test", "tta": "none", "sha256": "1"}]
    )
    log_reading(run.path, reading("2026-01-01T00:00:00Z"))
    run.log_stage("evaluated", part="test", tta="none", sha256="1")
    assert [one.time_utc for one in read_log(run.path).readings] == ["2031-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_may_not_be_written(run: Run) -> None:
    run.path.chmod(0o500)
    (run.path / LOG).chmod(0o400)
    try:
        with pytest.raises(OctcError, match="cannot be written down"):
            log_reading(run.path, reading("2026-01-01T00:00:00Z"))
    finally:
        run.path.chmod(0o700)


def test_test_images_are_told_by_their_content_whatever_they_are_called(run: Run, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "drawn", 6, 6, 0, size=(64, 64))
    split = make_split(scan_dataset("phantom", tmp_path / "drawn"), "phantom", 0)
    test = [tmp_path / "drawn" / sample.path for sample in split.parts["test"]]
    train = [tmp_path / "drawn" / sample.path for sample in split.parts["train"]]
    renamed = tmp_path / "other-name.jpeg"
    renamed.write_bytes(test[1].read_bytes())
    assert log_files(run.path, test, {"a": "1"}, "predict", "now") == 0  # a run without a split holds no test image
    split.write(run.split)
    assert log_files(run.path, [*train, tmp_path / "absent.jpeg"], {"a": "1"}, "predict", "now") == 0
    assert read_log(run.path).readings == ()
    assert log_files(run.path, [test[0], renamed, *train], {"a": "1"}, "predict", "now") == 2
    assert log_files(run.path, [test[0], renamed], {"a": "1"}, "predict", "now", named=True) == 1
    log_part(run.path, split, "val", {"a": "1"}, "eval", "now")  # something is chosen on it: no reading
    log_part(run.path, split, "test", {"a": "1"}, "eval", "now", tta="none")
    readings = read_log(run.path).readings
    assert [(one.command, one.images, one.part) for one in readings] == [
        ("predict", 2, "test"),
        ("predict", 1, "test"),
        ("eval", len(test), "test"),
    ]
    assert {one.split_digest for one in readings} == {split.digest}
    assert readings[-1].options == {"tta": "none"}
