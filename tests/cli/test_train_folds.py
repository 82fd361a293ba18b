"""`octc train ... --folds K`: one job of independent runs, killed, gone on with, done in parts elsewhere, compared."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.datasets.split import read_split
from octc.store.runs import Run, scan_runs
from octc.train.evaluation.outcome import read_predictions
from octc.train.jobs import folds
from tests.cli.test_train_stopped import rows_of, started
from tests.cli.train_words import SMOKE, Said, one_processor, patterns, said
from tests.tiny_run import write_patterns

pytestmark = pytest.mark.slow

__all__ = ["one_processor", "patterns", "said"]  # fixtures
FOLDS = ("--folds", "3", "--epochs", "1")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, patterns: Path) -> Path:
    """A run folder with both jobs: three teachers, three students, two summaries."""
    runs = tmp_path_factory.mktemp("folds") / "runs"
    words = ["train", "student", *SMOKE, *FOLDS, "--with-teacher", "--any-teacher", "--no-qat", "--quiet"]
    assert main([*words, "--run-dir", str(runs), "--data", str(patterns)]) == 0
    return runs


def job(runs: Path, kind: str) -> Path:
    (found,) = runs.glob(f"cv-{kind}-*")
    return found


def test_every_fold_is_a_run_of_its_own_taught_by_its_own_teacher(done: Path) -> None:
    students, teachers = (sorted(scan_runs(done, kind), key=lambda r: r.id) for kind in ("student", "teacher"))
    assert [run.id[-2:] for run in students] == [run.id[-2:] for run in teachers] == ["f1", "f2", "f3"]
    held: list[str] = []
    for number, (student, teacher) in enumerate(zip(students, teachers, strict=True), 1):
        known, split = student.read(), read_split(student.split)
        assert known["status"] == "done"
        assert known["fold"] == [number, 3]
        assert known["teacher_run"] == teacher.id
        assert known["split_digest"] == teacher.read()["split_digest"] == split.digest
        assert [entry["stage"] for entry in known["stages"]] == ["train", "evaluated"]  # what it held out was read once
        held += [sample.path for sample in split.parts["test"]]
    assert len(held) == len(set(held)) == 48


def test_the_summary_says_what_the_folds_said(done: Path) -> None:
    folder = job(done, "student")
    summary = json.loads((folder / "summary.json").read_text())
    accuracies = []
    for fold in summary["folds"]:
        answers = read_predictions(done / fold["run"] / "eval" / "test-none")
        accuracies.append(float(np.mean(answers.logits[:, 0].argmax(1) == np.array(answers.labels))))
    assert [fold["figures"]["accuracy"] for fold in summary["folds"]] == pytest.approx(accuracies)
    spread = summary["spread"]["accuracy"]
    assert spread["std_population"] == pytest.approx(np.std(accuracies))
    assert spread["std_sample"] == pytest.approx(np.std(accuracies, ddof=1))
    pooled = read_predictions(folder / "out-of-fold")
    assert len(pooled.labels) == summary["out_of_fold"]["n"] == 48
    assert summary["out_of_fold"]["patients"] == 24
    limits = summary["out_of_fold"]["patient_bootstrap_95"]["accuracy"]
    assert limits[0] <= summary["out_of_fold"]["figures"]["accuracy"] <= limits[1]
    assert summary["ensemble"] is None  # this set has no official test
    assert {path.name for path in folder.iterdir()} == {
        "summary.json", "cv_results.csv", "training_summary.csv", "cv_summary.svg", "cv_summary.png", "out-of-fold",
    }  # fmt: skip


def test_the_same_command_again_trains_nothing_and_shows_the_table(done: Path, said: Said) -> None:
    before = (job(done, "student") / "out-of-fold" / "predictions.csv").read_bytes()
    code, out, err = said("student", *SMOKE, *FOLDS, "--no-qat", "--run-dir", str(done))
    assert code == 0, err
    assert err.count("is done") == 3
    assert "epoch 1/1" not in err
    for words in ("mean", "std0", "std1", "out-of-fold", "95%", "macro sensitivity, %"):
        assert words in out
    assert "no ensemble" in err
    assert len(scan_runs(done)) == 6
    assert (job(done, "student") / "out-of-fold" / "predictions.csv").read_bytes() == before


def test_f59_compare_pairs_the_out_of_fold_answers(done: Path, said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    words = (job(done, "student").name, job(done, "teacher").name)
    assert main(["compare", *words, "--run-dir", str(done)]) == 0
    captured = capsys.readouterr()
    assert f"the teacher {words[1]} is the reference" in captured.err
    for text in ("accuracy difference", "McNemar mid-p", "mean over folds", "times smaller"):
        assert text in captured.out
    folder = Path(captured.out.splitlines()[-1])
    document = json.loads((folder / "compare.json").read_text())
    assert document["n"] == 48
    with (folder / "model_comparison.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    gap = float(row["teacher_accuracy"]) - float(row["student_accuracy"])
    assert float(row["accuracy_gap_mean_pct"]) == pytest.approx(gap)
    assert float(row["compression_ratio"]) == pytest.approx(float(row["teacher_params_M"]) / float(row["student_params_M"]))
    code, _, err = said("student", *SMOKE, "--folds", "3", "--dry-run", "--epochs", "2")  # another job: another run folder
    assert (code, "OCT-E107" in err) == (2, True)


def test_a_plain_student_does_not_take_the_teacher_of_a_fold(done: Path, said: Said) -> None:
    code, _, err = said("student", *SMOKE, "--epochs", "1", "--run-dir", str(done))
    assert (code, "OCT-E107" in err) == (2, True)


def test_a_killed_job_goes_on_with_the_same_command_and_ends_as_if_it_had_not(
    done: Path, tmp_path: Path, patterns: Path, said: Said
) -> None:
    process = started(tmp_path, patterns, *SMOKE, *FOLDS)
    first, second = (tmp_path / "runs" / f"r-000{n}-teacher-folder-f{n}" for n in (1, 2))
    deadline = time.monotonic() + 900
    while not (second / "train").exists() and rows_of(second) == 0:  # the second fold has begun
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=900)
    kept = (first / "train" / "checkpoint.json").read_bytes()
    assert not list((tmp_path / "runs").glob("cv-*"))
    code, _, err = said("teacher", *SMOKE, *FOLDS)
    assert code == 0, err
    assert f"fold 1    {first.name} is done" in err
    assert f"fold 2    {second.name} goes on" in err
    assert (first / "train" / "checkpoint.json").read_bytes() == kept
    assert len(scan_runs(tmp_path / "runs")) == 3
    one, other = (job(place, "teacher") / "out-of-fold" / "predictions.csv" for place in (done, tmp_path / "runs"))
    assert one.read_bytes() == other.read_bytes()


def test_folds_of_other_machines_are_copied_beside_and_summed_up(done: Path, tmp_path: Path, said: Said) -> None:
    for run in scan_runs(done, "teacher"):
        if not run.id.endswith("f2"):
            shutil.copytree(run.path, tmp_path / "runs" / run.id)
    first = tmp_path / "runs" / "r-0001-teacher-folder-f1"
    kept = first.rename(tmp_path / "away")
    code, out, err = said("teacher", *SMOKE, *FOLDS, "--fold", "2")
    assert code == 0, err
    assert "no summary yet: fold 1 of 3" in err
    assert "-f2" in out
    kept.rename(first)
    code, _, err = said("teacher", *SMOKE, *FOLDS)
    assert code == 0, err
    assert "epoch 1/1" not in err
    one, other = (job(place, "teacher") / "out-of-fold" / "predictions.csv" for place in (done, tmp_path / "runs"))
    assert one.read_bytes() == other.read_bytes()


def test_f05_every_fold_without_a_teacher_is_named_before_any_work(done: Path, tmp_path: Path, said: Said) -> None:
    shutil.copytree(done / "r-0002-teacher-folder-f2", tmp_path / "runs" / "r-0002-teacher-folder-f2")
    code, _, err = said("student", *SMOKE, *FOLDS)
    assert code == 2
    assert "OCT-E107" in err
    assert "for fold 1, 3 of 3" in err
    assert "octc train teacher --dataset folder --recipe smoke --folds 3" in err
    assert len(scan_runs(tmp_path / "runs")) == 1


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [(("--fold", "2"), "OCT-E102", "--folds 5 --fold 2"), (("--folds", "3", "--fold", "4"), "OCT-E104", "1 to 3"),
     (("--folds", "9"), "OCT-E207", "--folds 6"), (("--protocol", "leaky"), "OCT-E104", "as-released"),
     (("--folds", "3", "--teacher", "r-0001"), "OCT-E102", "leave --teacher out")],
)  # fmt: skip
def test_folds_that_cannot_be(said: Said, words: tuple[str, ...], code: str, named: str, tmp_path: Path) -> None:
    exit_code, _, err = said("student", *SMOKE, *words)
    assert exit_code in (2, 3)
    assert code in err
    assert named in err
    assert not (tmp_path / "runs").exists()


def test_a_single_fold_goes_on_by_its_name_but_not_with_folds_said_twice(done: Path, tmp_path: Path, said: Said) -> None:
    source = Run(done / "r-0001-teacher-folder-f1")
    shutil.copytree(source.path, tmp_path / "runs" / source.id)
    code, _, err = said("teacher", "--resume", source.id, "--folds", "3")
    assert (code, "OCT-E102" in err) == (2, True)
    code, out, err = said("teacher", "--resume", source.id)
    assert code == 0, err
    assert out.splitlines() == [f"runs/{source.id}"]


def test_a_fold_that_fails_by_itself_leaves_the_others_to_be_trained(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss is not finite, or memory is short for it: given again, it alone is trained, and the summary is made."""
    real, broken = folds.train_one, [OctcError("OCT-E301", "not finite", hint="h"), MemoryError()]

    def train(job: Any, asked: Any, *words: Any, **more: Any) -> Any:
        if asked.fold == 1 and broken:
            raise broken.pop(0)
        return real(job, asked, *words, **more)

    monkeypatch.setattr(folds, "train_one", train)
    code, _, err = said("teacher", *SMOKE, *FOLDS)
    assert (code, "OCT-E301" in err, "fold 1 of 3" in err) == (5, True, True), err
    assert [run.id[-2:] for run in scan_runs(tmp_path / "runs")] == ["f3", "f2"]
    assert not list((tmp_path / "runs").glob("cv-*"))
    code, _, err = said("teacher", *SMOKE, *FOLDS)
    assert (code, "OCT-E904" in err, err.count("is done")) == (4, True, 2), err
    broken.append(OctcError("OCT-E108", "in use", hint="h"))  # of no fold alone
    code, _, err = said("teacher", *SMOKE, *FOLDS)
    assert (code, "OCT-E108" in err) == (2, True), err
    code, _, err = said("teacher", *SMOKE, *FOLDS)
    assert code == 0, err
    assert (job(tmp_path / "runs", "teacher") / "summary.json").is_file()


def test_folds_that_leave_out_a_size(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each network is judged on the size that it never saw, by its own teacher; the summary says which that is."""
    root = tmp_path / "two sizes"
    write_patterns(root, patients=12, images=1)
    for path in root.glob("*/*.png"):
        if int(path.stem.split("-")[1]) % 1000 < 7:
            Image.open(path).resize((120, 80)).save(path)
    monkeypatch.setenv("OCTC_DATA", str(root))
    words = (*SMOKE, "--leave-out", "size", "--epochs", "1")
    code, _, err = said("student", *words)
    assert (code, "octc train teacher --dataset folder --recipe smoke --leave-out size" in err) == (2, True)
    code, out, err = said("student", *words, "--with-teacher", "--no-qat")
    assert code == 0, err
    assert "leaves out size 120x80" in err
    assert "left out" in out
    runs = tmp_path / "runs"
    summary = json.loads((job(runs, "student") / "summary.json").read_text())
    assert [fold["left_out"] for fold in summary["folds"]] == ["size 120x80", "size 80x80"]
    assert [fold["n"] for fold in summary["folds"]] == [28, 20]
    assert summary["out_of_fold"]["n"] == 48
    assert len(scan_runs(runs)) == 4
    code, _, err = said("student", *words, "--no-qat")
    assert (code, err.count("is done")) == (0, 2)
    for more, wanted in ((("--folds", "3"), "OCT-E102"), (("--fold", "3"), "OCT-E104")):
        code, _, err = said("student", *words, *more)
        assert (code, wanted in err) == (2, True), err
    code, _, err = said("student", "--leave-out", "size", "--resume", summary["folds"][0]["run"])
    assert (code, "OCT-E102" in err) == (2, True), err
    code, _, err = said("student", *SMOKE, "--leave-out", "scanner")
    assert (code, "one of: size, site" in err) == (2, True)
