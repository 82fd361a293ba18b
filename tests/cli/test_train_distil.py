"""`octc train student` with another distillation, cached views and several teachers; what cannot be had is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

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
    assert main(["train", "student", *FEW, *where, *options, "--teacher", both, "--any-teacher"]) == 0
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
    words = (
        *FEW,
        "--run-dir",
        str(taught),
        "--data",
        str(patterns),
        "--seed",
        "9",
        "--teacher",
        first,
        "--any-teacher",
        "--no-qat",
    )
    code, _, _ = said("student", *words, "--no-qat", "--cached-views", "1")
    assert code == 0
    assert {path: path.stat().st_mtime_ns for folder in folders for path in folder.iterdir()} == files
    assert sorted((taught / ".cache").glob("logits-*")) == folders


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--distil", "fitnet"), "fitnet"),
        (("--cached-views", "-1"), "cached-views"),
        (("--cached-views-on", "local"), "no view is cached"),
        (("--teacher", "r-0001,r-0001"), "--teacher"),
        (("--teacher", "r-0001,none"), "--teacher"),
    ],
)
def test_what_cannot_be_had_is_refused_before_any_work(said: Said, words: tuple[str, ...], text: str) -> None:
    code, _, err = said("student", *SMOKE, *words)
    assert code == 2
    assert text in err


ASKS_NO_TEACHER = """
import sys
from octc.train.distill import teachers
teachers.write_view = None
from octc.cli._app.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_cluster_computes_the_views_of_a_cache(taught: Path, patterns: Path, tmp_path: Path) -> None:
    """The files are those that one process writes."""
    pytest.importorskip("ray")
    environ = {**os.environ, "HOME": str(tmp_path)}
    environ.pop("OCTC_OFFLINE", None)  # the processes of a cluster talk to each other
    first = min(run.id for run in scan_runs(taught, "teacher"))
    here, elsewhere = ("-m", "octc.cli._app.main"), ("-c", ASKS_NO_TEACHER)
    octc = ["train", "student", *SMOKE, "--data", str(patterns)]
    octc += [*["--epochs", "2", "--quiet", "--any-teacher", "--no-qat", "--cached-views", "2", "--teacher"], first]
    found = []
    for name, program, more in (("here", here, []), ("cluster", elsewhere, ["--cached-views-on", "local"])):
        runs = tmp_path / name
        shutil.copytree(taught, runs, ignore=lambda _folder, names: [one for one in names if one.startswith("logits-")])
        words = [sys.executable, "-W", "ignore", *program, *octc, "--run-dir", str(runs), *more]
        done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr
        found.append({path.relative_to(runs): path for path in sorted((runs / ".cache").glob("logits-*/*"))})
    assert list(found[0]) == list(found[1])
    assert len(found[0]) == 2
    for place, path in found[0].items():
        one, other = load_file(path), load_file(found[1][place])
        assert torch.equal(one["sums"], other["sums"])
        assert torch.allclose(one["logits"].float(), other["logits"].float(), atol=2e-2)
