"""Which artifacts a command takes when it is told a path, a run, or nothing, and what it says of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from octc.core.errors import OctcError, Several
from octc.imaging.preprocess import Preprocess
from octc.store.artifacts import Artifact, write_manifest
from octc.store.find import Found, find_artifacts, read_teacher
from octc.store.runs import Run, create_run, newest_run


def write_artifact(folder: Path, name: str = "onnx-fp32", role: str = "student", **lineage: Any) -> Path:
    """A whole artifact whose model is a line of text."""
    place = folder / name
    place.mkdir(parents=True)
    (place / "model.onnx").write_text(f"{name} of {lineage}")
    target, precision = name.split("-")[:2]
    write_manifest(place, Artifact(
        name=name, role=role, model="m", target=target, precision=precision, classes=("a", "b"), preprocess=Preprocess(16),
        lineage=lineage, main_file="model.onnx",
    ))  # fmt: skip
    return place


def write_run(run_dir: Path, *names: str, kind: str = "student", status: str = "done", **lineage: Any) -> Run:
    run = create_run(run_dir, kind, "folder")
    run.update(status=status)
    for name in names:
        write_artifact(run.artifacts, name, kind, run=run.id, **lineage)
    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUNS = Path("runs")


def names(founds: list[Found]) -> list[str]:
    return [found.artifact.name for found in founds]


def test_a_folder_with_a_manifest_is_that_artifact(here: Path) -> None:
    place = write_artifact(here / "copied")
    founds, words = find_artifacts(str(place), RUNS, {})
    assert ([found.folder for found in founds], words) == ([place], f"using {place}")


@pytest.mark.parametrize("word", ["runs/{id}/artifacts", "runs/{id}", "{id}", "r-0001"])
def test_folder_of_artifacts_run_folder_id_and_its_beginning(here: Path, word: str) -> None:
    run = write_run(RUNS, "onnx-fp32", "openvino-int8")
    founds, words = find_artifacts(word.format(id=run.id), RUNS, {})
    assert names(founds) == ["onnx-fp32", "openvino-int8"]
    assert words.startswith("using runs/")


def test_without_a_path_the_newest_finished_student_run_with_artifacts(here: Path) -> None:
    write_run(RUNS, "onnx-fp32")
    wanted = write_run(RUNS, "onnx-int8", "onnx-fp32")
    write_run(RUNS, "onnx-fp32", status="failed")
    write_run(RUNS)
    write_run(RUNS, "onnx-fp32", kind="teacher")
    founds, words = find_artifacts(None, RUNS, {})
    assert {found.folder.parent for found in founds} == {wanted.artifacts}
    assert words == f"using {wanted.artifacts} (newest valid; choose with ARTIFACT)"


def test_the_environment_and_the_current_folder_come_first(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(RUNS, "onnx-fp32")
    mine = write_artifact(here / "mine", "onnx-fp16")
    founds, words = find_artifacts(None, RUNS, {"OCTC_ARTIFACT": str(mine)})
    assert (names(founds), "$OCTC_ARTIFACT" in words) == (["onnx-fp16"], True)
    monkeypatch.chdir(mine)
    founds, words = find_artifacts(None, here / "runs", {})
    assert (names(founds), "this folder" in words) == (["onnx-fp16"], True)
    with pytest.raises(OctcError, match="no artifact and no run: nothing"):
        find_artifacts(None, RUNS, {"OCTC_ARTIFACT": "nothing"})


def test_copied_artifacts_on_a_device_the_newest_students(here: Path) -> None:
    write_artifact(here / "artifacts" / "old", run="r-0001", exported="2026-01-01T00:00:00Z")
    write_artifact(here / "artifacts" / "new", run="r-0002", exported="2026-01-02T00:00:00Z")
    write_artifact(here / "artifacts" / "new", "onnx-int8", run="r-0002", exported="2026-01-02T00:00:01Z")
    write_artifact(here / "artifacts" / "big", role="teacher", run="r-0009", exported="2026-01-09T00:00:00Z")
    founds, words = find_artifacts(None, RUNS, {})
    assert [found.folder.parent.name for found in founds] == ["new", "new"]
    assert "artifacts" in words


def test_two_equally_new_ones_are_an_error_and_no_guess(here: Path) -> None:
    """The same number from two machines, or the same name with another checkpoint: nothing says which is newer."""
    for run, date in (("r-0001-student-a", "2026-01-01"), ("r-0001-student-b", "2026-01-02")):
        write_artifact(here / "artifacts" / run, run=run, exported=f"{date}T00:00:00Z")
    with pytest.raises(
        OctcError, match="two equally new runs under artifacts: r-0001-student-a and r-0001-student-b"
    ) as caught:
        find_artifacts(None, RUNS, {})
    assert caught.value.code == "OCT-E107"
    for sha in ("a", "b"):
        write_artifact(here / "artifacts" / f"again-{sha}", run="r-0002-student-a", checkpoint=sha)
    with pytest.raises(OctcError, match="r-0002-student-a and r-0002-student-a"):
        find_artifacts(None, RUNS, {})


def test_newest_is_the_highest_number_whatever_the_clock_said(here: Path) -> None:
    """A clock that went back between two exports, and a second run folder under the number of another."""
    write_artifact(here / "artifacts" / "a", run="r-0002-student-x", exported="2031-01-01T00:00:00Z")
    write_artifact(here / "artifacts" / "b", run="r-0010-student-x", exported="2026-01-01T00:00:00Z")
    write_artifact(here / "artifacts" / "c", run="unnumbered", exported="2040-01-01T00:00:00Z")
    founds, words = find_artifacts(None, RUNS, {})
    assert [found.folder.parent.name for found in founds] == ["b"]
    assert str(founds[0].folder) in words
    assert "r-0002-student-x, unnumbered has a later date" in words
    first = write_run(RUNS, "onnx-fp32")
    first.update(created="2040-01-01T00:00:00Z")
    second = write_run(RUNS, "onnx-fp32")
    second.update(created="2001-01-01T00:00:00Z")
    os.utime(first.path / "run.json")
    assert find_artifacts(None, RUNS, {})[0][0].folder.parent == second.artifacts
    assert newest_run(RUNS, "student").id == second.id
    shutil.copytree(second.path, RUNS / "r-0002-student-from-elsewhere")
    for choose in (lambda: find_artifacts(None, RUNS, {}), lambda: newest_run(RUNS, "student")):
        with pytest.raises(OctcError, match="two equally new runs") as caught:
            choose()
        assert (caught.value.code, "r-0002-student-" in caught.value.hint) == ("OCT-E107", True)


@pytest.mark.parametrize("name", ["model.onnx", "artifact.json", "golden.npz"])
def test_a_file_of_an_artifact_means_the_artifact(here: Path, name: str) -> None:
    place = write_artifact(here / "copied")
    (place / "golden.npz").write_bytes(b"x")
    write_manifest(place, read_artifact_of(place))
    other = write_artifact(RUNS / "r-0009-student-x" / "artifacts", "onnx-int8")
    assert other.is_dir()
    founds, words = find_artifacts(str(place / name), RUNS, {})
    assert ([found.folder for found in founds], str(place) in words) == ([place], True)
    assert [found.folder for found in find_artifacts(None, RUNS, {"OCTC_ARTIFACT": str(place / name)})[0]] == [place]
    (here / "link.onnx").symlink_to(place / name)
    assert [found.folder.resolve() for found in find_artifacts("link.onnx", RUNS, {})[0]] == [place.resolve()]


def read_artifact_of(place: Path) -> Artifact:
    """The manifest as it is, whatever lies beside it by now."""
    value = json.loads((place / "artifact.json").read_text())
    return Artifact(**{**{k: v for k, v in value.items() if k != "schema_version"}, "classes": tuple(value["classes"]),
                       "preprocess": Preprocess.from_json(value["preprocess"]), "files": {}})  # fmt: skip


def test_a_file_that_is_no_artifact_is_refused(here: Path) -> None:
    run = write_run(RUNS, "onnx-fp32")
    (here / "other.onnx").write_bytes(b"x")
    (run.path / "train").mkdir()
    (run.path / "train" / "model.safetensors").write_bytes(b"x")
    for word in ("other.onnx", str(run.path / "train" / "model.safetensors")):
        with pytest.raises(OctcError, match="no artifact lies around it") as caught:
            find_artifacts(word, RUNS, {})
        assert (caught.value.code, caught.value.place) == ("OCT-E107", word)
    (run.artifacts / "onnx-fp32" / "other.onnx").write_bytes(b"x")
    with pytest.raises(OctcError) as caught:
        find_artifacts(str(run.artifacts / "onnx-fp32" / "other.onnx"), RUNS, {})
    assert caught.value.code == "OCT-E502"
    assert names(find_artifacts(str(write_run(RUNS, "onnx-int8").path / "run.json"), RUNS, {})[0]) == ["onnx-int8"]


def test_one_of_several_models_of_an_artifact_must_be_the_one_that_answers(here: Path) -> None:
    place = write_artifact(here / "copied", "tensorrt-int8")
    (place / "model.fp16.onnx").write_text("another network")
    write_manifest(place, read_artifact_of(place))
    with pytest.raises(OctcError, match="one of the files of tensorrt-int8") as caught:
        find_artifacts(str(place / "model.fp16.onnx"), RUNS, {})
    assert (caught.value.code, str(place) in caught.value.hint) == ("OCT-E107", True)


def test_nothing_at_all_says_where_it_looked_and_what_makes_one(here: Path) -> None:
    run = write_run(RUNS)
    with pytest.raises(OctcError, match="no artifact here") as caught:
        find_artifacts(None, RUNS, {})
    error = caught.value
    assert (error.code, error.exit_code) == ("OCT-E107", 2)
    assert "octc export" in error.hint
    assert run.id in str(error.why)


@pytest.mark.parametrize(("word", "text", "hint"), [
    ("r-0001", "has no artifacts", "octc export r-0001"), ("r-0077", "no artifact and no run: r-0077", "octc list runs"),
    ("empty", "no artifact in empty", "octc export"),
])  # fmt: skip
def test_a_named_place_without_artifacts(here: Path, word: str, text: str, hint: str) -> None:
    write_run(RUNS)
    (here / "empty").mkdir()
    with pytest.raises(OctcError, match=text) as caught:
        find_artifacts(word, RUNS, {})
    assert caught.value.code == "OCT-E107"
    assert hint in caught.value.hint


def test_a_damaged_one_that_was_named_is_an_error(here: Path) -> None:
    place = write_artifact(here / "copied")
    (place / "model.onnx").write_text("changed")
    with pytest.raises(OctcError) as caught:
        find_artifacts(str(place), RUNS, {})
    assert caught.value.code == "OCT-E501"


def test_a_damaged_one_among_several_is_passed_over_aloud(here: Path) -> None:
    run = write_run(RUNS, "onnx-fp32", "onnx-int8")
    (run.artifacts / "onnx-int8" / "more").write_text("x")
    founds, words = find_artifacts(None, RUNS, {})
    assert names(founds) == ["onnx-fp32"]
    assert "passed over: onnx-int8: more is not listed in the manifest [OCT-E502]" in words
    (run.artifacts / "onnx-fp32" / "model.onnx").write_text("changed")
    with pytest.raises(Several) as caught:
        find_artifacts(run.id, RUNS, {})
    assert sorted(error.code for error in caught.value.errors) == ["OCT-E501", "OCT-E502"]


def test_half_written_folders_are_never_seen(here: Path) -> None:
    run = write_run(RUNS, "onnx-fp32", "onnx-int8")
    (run.artifacts / "onnx-int8").rename(run.artifacts / ".tmp-1-onnx-int8")
    assert names(find_artifacts(run.id, RUNS, {})[0]) == ["onnx-fp32"]


def test_the_teacher_that_the_lineage_names(here: Path) -> None:
    teacher = write_run(RUNS, "onnx-fp32", "torch-fp32", kind="teacher")
    student = write_run(RUNS, "onnx-int8", teacher_run=teacher.id)
    (found,) = find_artifacts(student.id, RUNS, {})[0]
    assert [one.folder.parent for one in read_teacher(found, RUNS)] == [teacher.artifacts] * 2
    assert read_teacher(found, here / "elsewhere") == []
    (teacher.artifacts / "torch-fp32" / "model.onnx").write_text("damaged")
    assert names(read_teacher(found, RUNS)) == ["onnx-fp32"]


@pytest.mark.parametrize("place", ["artifacts", "bundles/teacher", "other/r-0001-teacher"])
def test_a_teacher_that_was_copied_along(here: Path, place: str) -> None:
    mine = here / ("other/mine" if place.startswith("other") else "artifacts/mine")
    student = write_artifact(mine, "onnx-int8", run="r-0002", teacher_run="r-0001-teacher")
    write_artifact(here / place, "onnx-fp32", "teacher", run="r-0001-teacher")
    write_artifact(here / "artifacts" / "another", "onnx-fp32", "teacher", run="r-0005")
    (found,) = find_artifacts(str(student), RUNS, {})[0]
    assert [one.artifact.role for one in read_teacher(found, RUNS)] == ["teacher"]


@pytest.mark.parametrize("name", [None, "", 5, "r-0400"])
def test_no_teacher_is_no_error(here: Path, name: object) -> None:
    student = write_artifact(here / "artifacts", "onnx-int8", run="r-0002", teacher_run=name)
    assert read_teacher(find_artifacts(str(student), RUNS, {})[0][0], RUNS) == []
