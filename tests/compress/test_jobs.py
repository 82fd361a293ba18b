"""`octc.train`: the function makes what the command makes, for both tasks, and refuses what makes no run."""

from __future__ import annotations

from pathlib import Path

import pytest

import octc
from octc.cli._app.main import main
from octc.core.progress import LogReporter
from octc.store.runs import Run, find_run
from tests.cli.train_words import one_processor, patterns
from tests.paired_set import write_pairs

__all__ = ["one_processor", "patterns"]  # fixtures


def weights(run: Run, stage: str = "train") -> bytes:
    return (run.path / stage / "model.safetensors").read_bytes()


def test_the_function_trains_a_teacher_and_its_student_as_the_command_does(tmp_path: Path, patterns: Path) -> None:
    reporter = LogReporter()
    run = octc.train(
        "smoke",
        data=patterns,
        dataset="folder",
        teacher=True,
        any_teacher=True,
        epochs=1,
        qat=False,
        run_dir=tmp_path / "a",
        reporter=reporter,
    )
    facts = run.read()
    assert (facts["status"], facts["kind"], facts["teacher_run"]) == ("done", "student", "r-0001-teacher-folder")
    assert facts["recipe"]["student"]["epochs"] == 1
    assert not (run.path / "qat").exists()
    assert "OCT-W212" in {warning["code"] for warning in reporter.warnings} or not reporter.warnings
    words = ("--dataset", "folder", "--recipe", "smoke", "--epochs", "1", "--data", str(patterns), "--quiet")
    assert main(("train", "teacher", *words, "--run-dir", str(tmp_path / "b"))) == 0
    assert weights(find_run(tmp_path / "b", "r-0001")) == weights(find_run(tmp_path / "a", "r-0001"))
    again = octc.train(resume=str(run.path), data=patterns, run_dir=tmp_path / "a")
    assert again == run
    assert weights(again) == weights(run)


def test_a_student_across_modalities_is_the_same_job(tmp_path: Path) -> None:
    root = tmp_path / "pairs"
    write_pairs(root)
    run = octc.train(
        "retnet-smoke", data=root, dataset="paired-phantom", modality="oct", teacher=True, epochs=1, run_dir=tmp_path / "runs"
    )
    facts = run.read()
    assert (facts["task"], facts["modality"], facts["status"]) == ("multilabel", "oct", "done")
    teacher = find_run(tmp_path / "runs", str(facts["teacher_run"])).read()
    assert (teacher["kind"], teacher["modality"], teacher["seed"]) == ("teacher", "fundus", facts["seed"])
    assert (run.path / "qat" / "checkpoint.json").is_file()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"folds": 3}, "OCT-E102"),
        ({"modality": "both"}, "OCT-E102"),
        ({"modality": "oct"}, "OCT-E102"),
        ({"mutual": True}, "OCT-E102"),
        ({"epochs": 0}, "OCT-E104"),
        ({"batch": "many"}, "OCT-E104"),
        ({"device": "tpu"}, "OCT-E104"),
        ({"role": "pupil"}, "OCT-E104"),
        ({"role": "teacher", "teacher": True}, "OCT-E102"),
        ({"recipe": "smok"}, "OCT-E104"),
        ({"dataset": None}, "OCT-E104"),
    ],
)
def test_what_makes_no_run_is_refused_before_any_work(tmp_path: Path, options: dict[str, object], code: str) -> None:
    given: dict[str, object] = {"recipe": "smoke", "dataset": "phantom", **options}
    with pytest.raises(octc.OctcError) as caught:
        octc.train(run_dir=tmp_path, **given)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_an_option_that_there_is_not_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="epoch"):
        octc.train("smoke", epoch=3)
    with pytest.raises(TypeError, match="qat"):
        octc.train("smoke", role="teacher", qat=True)
