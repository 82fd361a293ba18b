"""`octc train student --weights teacher`: what is refused before any work, the record, resume, folds, a use that is judged."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import octc
from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.datasets.licences import terms_of
from octc.store.runs import Run, scan_runs
from octc.train.loop.checkpoint import read_checkpoint
from octc.train.networks.models import build_model
from octc.train.recipes.registry import RECIPES
from tests.cli.train_words import SMOKE, Said, one_processor, patterns, said

__all__ = ["one_processor", "patterns", "said"]  # fixtures
LENT = ("--weights", "teacher", "--no-qat", "--epochs", "1")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, patterns: Path) -> Path:
    """Runs with a teacher and its student, which began from it, trained in one go."""
    place = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("OCTC_DATA", str(patterns))
        assert main(["train", "student", *SMOKE, *LENT, "--with-teacher", "--any-teacher", "--quiet"]) == 0
    return place / "runs"


@pytest.fixture
def runs(taught: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(taught, tmp_path / "runs"))


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["train", *words, "--json"]) != 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["error"]
    return found


def recipe_with(path: Path, model: str) -> str:
    """The recipe of the tests with another student, as a file."""
    recipe = RECIPES["smoke"]()
    path.write_text(json.dumps(asdict(replace(recipe, student=replace(recipe.student, model=model)))))
    return str(path)


def test_the_student_has_its_teachers_weights_and_the_teacher_those_of_its_recipe(taught: Path) -> None:
    student, teacher = scan_runs(taught)
    lender, made = (read_checkpoint(run.path / "train")[0] for run in (teacher, student))
    assert (teacher.read()["kind"], teacher.read()["request"]["weights"]) == ("teacher", None)
    assert lender.weights == {"source": "random", "licence": "none"}
    assert student.read()["request"]["weights"] == {"file": "teacher", "sha256": None}
    assert made.weights["sha256"] == lender.sha256 == student.read()["teacher_sha256"]
    assert made.weights["source"] == f"teacher {lender.model} (random)"
    assert made.weights["licence"] == "none"
    fit = made.weights["fit"]
    assert fit["parameters"] == sum(value.numel() for value in build_model(made.model, 4).parameters())
    assert fit["taken_whole"] + fit["taken_in_part"] + fit["drawn"] == fit["parameters"]
    assert fit["taken_in_part"] > fit["parameters"] // 2


def test_a_dry_run_says_what_would_be_lent_and_writes_nothing(
    said: Said, runs: Path, taught: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(runs.rglob("*"))
    assert main(["train", "student", *SMOKE, *LENT, "--dry-run", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)["data"]["weights"]
    made, _ = read_checkpoint(scan_runs(taught)[0].path / "train")
    assert found == made.weights
    assert f"{found['fit']['taken_in_part']:,}" in captured.err
    assert sorted(runs.rglob("*")) == before


def test_it_goes_on_as_it_was_asked_for(said: Said, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training that was stopped before its first step begins from the same weights again; other ones are another request."""
    run = scan_runs(runs)[0]
    state = load_file(run.path / "train" / "model.safetensors")
    shutil.rmtree(run.path / "train")
    run.update(status="interrupted", stages=[])
    for words in (("--weights", "none"), ("--teacher", "none")):
        assert error_of(capsys, "student", "--resume", run.id, *words)["code"] in ("OCT-E110", "OCT-E102")
    code, _, err = said("student", "--resume", run.id)
    assert code == 0, err
    again = load_file(run.path / "train" / "model.safetensors")
    assert all(bool((state[name] == value).all()) for name, value in again.items())
    run.update(status="interrupted")
    assert said("student", "--resume", run.id, "--weights", "teacher", "--dry-run")[0] == 0


def test_another_teacher_at_a_resume_is_refused(said: Said, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student, teacher = scan_runs(runs)
    student.update(status="interrupted")
    assert error_of(capsys, "student", "--resume", student.id, "--teacher", "none", "--allow-change")["code"] == "OCT-E102"
    pair = f"{teacher.id},{student.id}"
    assert error_of(capsys, "student", "--resume", student.id, "--teacher", pair, "--allow-change")["code"] == "OCT-E102"


def test_what_cannot_lend_is_refused_before_any_work(
    said: Said, tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = recipe_with(tmp_path / "other.json", "test_resnet")
    data = ("--dataset", "folder")
    before = sorted(runs.rglob("*"))
    for words in (
        ("student", *data, "--recipe", other, *LENT, "--with-teacher"),
        ("student", *data, "--recipe", other, *LENT, "--with-teacher", "--folds", "2"),
        ("student", *data, "--recipe", other, *LENT),
    ):
        found = error_of(capsys, *words)
        assert found["code"] == "OCT-E307", words
        assert "--weights" in found["help"]
    monkeypatch.setenv("OCTC_DATA", str(tmp_path / "nowhere"))  # what the options show needs no images
    for words in (
        ("student", *SMOKE, *LENT, "--teacher", "none"), ("student", *SMOKE, *LENT, "--teacher", "r-0001,r-0002"),
        ("teacher", *SMOKE, "--weights", "teacher"),
        ("retnet-student", "--dataset", "paired-phantom", "--modality", "oct", "--weights", "teacher"),
        ("retnet-teacher", "--dataset", "paired-phantom", "--modality", "oct", "--weights", "teacher"),
    ):  # fmt: skip
        found = error_of(capsys, *words)
        assert found["code"] == "OCT-E102", words
        assert "--weights" in found["help"]
    assert sorted(runs.rglob("*")) == before


@pytest.mark.parametrize("word", ["teacher", "none"])
def test_a_word_that_is_also_a_file_is_not_guessed(
    said: Said, tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(build_model("mobilenetv4_conv_small_050", 4).state_dict(), tmp_path / word)
    found = error_of(capsys, "student", *SMOKE, "--teacher", "none", "--weights", word)
    assert found["code"] == "OCT-E104"
    assert str(tmp_path / word) in found["help"]
    assert said("student", *SMOKE, "--teacher", "none", "--weights", str(tmp_path / word), "--dry-run")[0] == 0


@pytest.mark.slow
def test_each_fold_has_the_weights_of_its_own_teacher(said: Said, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folds = ("--folds", "2")
    code, _, err = said("student", *SMOKE, *LENT, *folds, "--with-teacher")
    assert code == 0, err
    kinds: dict[str, list[Run]] = {"teacher": [], "student": []}
    for run in reversed(scan_runs(tmp_path / "runs")):
        kinds[run.read()["kind"]].append(run)
    lenders = [read_checkpoint(run.path / "train")[0].sha256 for run in kinds["teacher"]]
    assert len(set(lenders)) == 2
    assert [read_checkpoint(run.path / "train")[0].weights["sha256"] for run in kinds["student"]] == lenders
    code, _, err = said("student", *SMOKE, *LENT, *folds)  # the same job, which is done
    assert code == 0, err
    assert len(scan_runs(tmp_path / "runs")) == 4
    assert error_of(capsys, "student", *SMOKE, *LENT, *folds, "--teacher", "none")["code"] == "OCT-E102"
    other = recipe_with(tmp_path / "other.json", "test_resnet")
    found = error_of(capsys, "student", "--dataset", "folder", "--recipe", other, *LENT, *folds)
    assert found["code"] == "OCT-E307"  # of the teachers that are there, before a fold is begun
    assert len(scan_runs(tmp_path / "runs")) == 4


def test_a_use_is_judged_by_what_the_teacher_began_from(
    said: Said, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student, teacher = scan_runs(runs)
    use = ("--use", "commercial", "--dry-run")
    assert said("student", *SMOKE, *LENT, *use)[0] == 0
    assert said("student", *SMOKE, *LENT, *use, "--with-teacher")[0] == 0
    made, _ = read_checkpoint(student.path / "train")
    terms = terms_of({"dataset": "folder", "weights": made.weights, "parent": made.parent}, made.model)
    assert {term.use for term in terms} == {"allowed"}
    foreign = tmp_path / "theirs.safetensors"
    shutil.copy(teacher.path / "train" / "model.safetensors", foreign)
    words = ("student", *SMOKE, *LENT, *use, "--teacher", str(foreign))
    found = error_of(capsys, *words)
    assert found["code"] == "OCT-E412"
    assert ": start weights" in found["message"]
    rows = [{"name": "theirs", "licence": "MIT", "source": "contract 1", "digests": [sha256_file(foreign)]}]
    (tmp_path / "licences.json").write_text(json.dumps(rows))
    found = error_of(capsys, *words, "--licences", str(tmp_path / "licences.json"))
    assert found["code"] == "OCT-E412"
    assert "start weights" not in found["message"], "known by its digest; what the teacher was trained on is not"


def test_python_takes_the_word_and_a_file_as_texts(said: Said, runs: Path, tmp_path: Path) -> None:
    student = scan_runs(runs)[0]
    common: dict[str, Any] = {"dataset": "folder", "run_dir": runs, "qat": False, "epochs": 1, "any_teacher": True}
    made = octc.train("smoke", weights="teacher", **common)
    one, other = (load_file(run.path / "train" / "model.safetensors") for run in (student, made))
    assert all(bool((one[name] == value).all()) for name, value in other.items())
    began = octc.train("smoke", weights=str(made.path / "train" / "model.safetensors"), teacher=False, **common)
    assert read_checkpoint(began.path / "train")[0].weights["source"] == "file model.safetensors"
    with pytest.raises(OctcError) as caught:
        octc.train("smoke", weights="teacher", teacher=False, **common)
    assert caught.value.code == "OCT-E102"


def test_a_dry_run_with_a_teacher_that_is_trained_first(said: Said, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both plans are said, of a teacher that is not there yet."""
    assert main(["train", "student", *SMOKE, *LENT, "--with-teacher", "--dry-run", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)["data"]["weights"]
    assert (found["source"], found["licence"]) == ("teacher mobilenetv4_conv_small (random)", "none")
    assert found["fit"]["taken_in_part"] > 0
    for stage in (RECIPES["smoke"]().teacher, RECIPES["smoke"]().student):
        assert f"{stage.model} at {stage.size} px" in captured.err
    assert not (tmp_path / "runs").exists()
