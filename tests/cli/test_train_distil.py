"""`octc train student` with another distillation, cached views and several teachers; what cannot be had is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from octc.cli._app.main import main
from octc.store.runs import Run, scan_runs
from octc.train.loop.checkpoint import read_checkpoint
from tests.cli.train_words import SMOKE, Said, one_processor, patterns, said

__all__ = ["one_processor", "patterns", "said"]  # fixtures
FEW = (*SMOKE, "--epochs", "1", "--quiet")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, patterns: Path) -> Path:
    """A run folder with two teachers of one split, and a student of both with cached views, tuned."""
    runs = tmp_path_factory.mktemp("taught") / "runs"
    where = ("--run-dir", str(runs), "--data", str(patterns))
    for batch in ("8", "4"):  # one seed is one split; two teachers of it differ in something else
        assert main(["train", "teacher", *FEW, "--batch", batch, *where]) == 0
    options = ("--distil", "dist", "--standardise", "--calibrate", "--cached-views", "2")
    both = ",".join(sorted(run.id for run in scan_runs(runs, "teacher")))
    assert main(["train", "student", *FEW, *where, *options, "--teacher", both]) == 0
    return runs


def student_of(runs: Path) -> Run:
    return scan_runs(runs, "student")[-1]


def test_the_run_says_how_it_was_taught(taught: Path) -> None:
    known = student_of(taught).read()
    how = known["recipe"]["distillation"]
    assert (how["kind"], how["temperature"], how["standardise"], how["calibrate"], how["views"]) == ("dist", 1.0, True, True, 2)
    lock = (student_of(taught).path / "config.lock.toml").read_text()
    for line in ('distil = "dist"', "standardise = true", "calibrate = true", "cached_views = 2"):
        assert line in lock
    made, _ = read_checkpoint(student_of(taught).path / "train")
    assert made.parent is not None
    sums = [read_checkpoint(run.path / "train")[0].sha256 for run in sorted(scan_runs(taught, "teacher"), key=lambda r: r.id)]
    assert [one["sha256"] for one in made.parent["teachers"]] == sums
    assert made.parent["sha256"] == sums[0]
    assert all("reason" in one["temperature"] for one in made.parent["teachers"])
    assert known["more_teachers"] == [str((taught / sorted(r.id for r in scan_runs(taught, "teacher"))[1] / "train").resolve())]


def test_the_cache_is_used_by_the_next_student_and_by_its_tuning(taught: Path, said: Said, patterns: Path) -> None:
    """One epoch shows one view: a folder for each teacher, and one of the first teacher for the tuning's gentle views."""
    folders = sorted((taught / ".cache").glob("logits-*"))
    assert len(folders) == 3
    files = {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()}
    assert len(files) == 3
    first = min(run.id for run in scan_runs(taught, "teacher"))
    words = (*FEW, "--run-dir", str(taught), "--data", str(patterns), "--seed", "9", "--teacher", first, "--no-qat")
    code, _, _ = said("student", *words, "--cached-views", "1")
    assert code == 0
    assert {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()} == files
    assert sorted((taught / ".cache").glob("logits-*")) == folders


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--distil", "fitnet"), "unknown distillation"),
        (("--cached-views", "-1"), "cached-views"),
        (("--teacher", "r-0001,r-0001"), "--teacher"),
        (("--teacher", "r-0001,none"), "--teacher"),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_work(said: Said, words: tuple[str, ...], text: str) -> None:
    code, _, err = said("student", *SMOKE, *words)
    assert code == 2
    assert text in err
