"""The images of a run are found by every command in the same way: `--data`, where they were, OCTC_DATA or `data.root`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from octc.core.errors import OctcError
from octc.datasets.layouts.folders import scan_folder
from octc.datasets.split import make_split
from octc.store.locations import image_root
from octc.store.runs import Run, create_run, scan_runs
from tests.cli.conftest import Said
from tests.cli.train_words import one_processor
from tests.cli.verify_runs import DECIDABLE, made_pair
from tests.tiny_run import write_patterns

__all__ = ["one_processor"]
GONE, HERE = "set", "moved"
WAYS = ("variable", "option", "configuration")
COMMANDS = (
    "eval {student} --split test", "compare {student} {teacher} --split select", "compare {fp32} {int8} --split select",
    "verify {int8} --require-set {loose}", "predict {int8} {picture}", "report {student} --photos",
    "bench {int8} --quick --duration 0.5s --min-queries 8 --vs none --no-power",
)  # fmt: skip
LONG = ("export {student} --target onnx --fp16", "analyze {student}")  # in one way only; ptq asks as these two do


def moved(place: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Say in one way that the images lie in ./moved now; the options that it takes."""
    monkeypatch.setenv("OCTC_DATA", "to be restored")  # a configuration writes into the environment, for child processes
    monkeypatch.delenv("OCTC_DATA")
    monkeypatch.chdir(place)
    if way == "variable":
        monkeypatch.setenv("OCTC_DATA", HERE)
    elif way == "configuration":
        (place / "octc.toml").write_text(f'[data]\nroot = "{HERE}"\n')
    return ("--data", HERE) if way == "option" else ()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A teacher, its student and the student's artifacts, whose images were moved from ./set to ./moved."""
    place = tmp_path / "copy"
    shutil.copytree(made_pair().path.parent.parent, place)
    (place / "patterns").rename(place / HERE)
    for run in scan_runs(place / "runs"):
        run.update(data_root=str(place / GONE))
    return place


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_command_finds_images_that_were_moved(way: str, made: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    more = moved(made, way, monkeypatch)
    student, teacher = scan_runs(made / "runs")
    words = {
        "student": student.id, "teacher": teacher.id, "fp32": str(student.artifacts / "onnx-fp32"),
        "int8": str(student.artifacts / "onnx-int8"), "picture": str(next((made / HERE).rglob("*.png"))),
        "loose": " ".join(DECIDABLE),
    }  # fmt: skip
    for command in (*COMMANDS, *(LONG if way == WAYS[0] else ())):
        code, out, err = said(*command.format(**words).split(), *more)
        assert code == 0 or (command.startswith("bench") and code in (1, 6)), (command, err)  # 6: a busy machine
        assert "not on this machine" not in err, (command, err)
        assert "synthetic images (" not in out + err, (command, err)


@pytest.mark.slow
def test_a_training_goes_on_with_images_that_were_moved(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    write_patterns(tmp_path / GONE, patients=6, images=2)
    code, _, err = said("train", "teacher", "--dataset", "folder", "--recipe", "smoke", "--data", GONE)
    assert code == 0, err
    (tmp_path / GONE).rename(tmp_path / HERE)
    assert said("train", "teacher", "--resume", "r-0001")[0] == 3  # nobody said where they are
    for way in WAYS:
        with monkeypatch.context() as patch:
            code, _, err = said("train", "teacher", "--resume", "r-0001", *moved(tmp_path, way, patch))
            assert code == 0, err
        (tmp_path / "octc.toml").unlink(missing_ok=True)


def test_without_images_every_place_that_was_looked_at_is_named(tmp_path: Path) -> None:
    run = _run(tmp_path)
    (tmp_path / GONE).rename(tmp_path / HERE)
    with pytest.raises(OctcError) as caught:
        image_root(run, None, {})
    assert caught.value.code == "OCT-E230"
    assert str(tmp_path / GONE) in str(caught.value.why)
    assert "--data" in caught.value.hint
    with pytest.raises(OctcError, match="OCTC_DATA names a folder that is not here"):  # a variable that leads nowhere
        image_root(run, None, {"OCTC_DATA": str(tmp_path / "wrong")})
    with pytest.raises(OctcError, match="not found"):  # the option is taken as it is
        image_root(run, str(tmp_path / "wrong"), {"OCTC_DATA": str(tmp_path / HERE)})


def test_the_order_of_places(tmp_path: Path) -> None:
    run = _run(tmp_path)
    shutil.copytree(tmp_path / GONE, tmp_path / HERE)
    environ = {"OCTC_DATA": str(tmp_path / HERE)}
    assert image_root(run, None, environ) == tmp_path / GONE  # where it was trained
    assert image_root(run, str(tmp_path / HERE), {}) == tmp_path / HERE
    shutil.rmtree(tmp_path / GONE)
    (tmp_path / GONE).mkdir()  # a mount point without its disk
    assert image_root(run, None, environ) == tmp_path / HERE
    shutil.rmtree(tmp_path / HERE)
    assert image_root(run, None, {}) == tmp_path / GONE  # the missing images are then named one by one


@pytest.mark.parametrize("name", ["phantom", "of-a-later-release"])
def test_a_drawn_or_unknown_data_set_may_be_moved_too(tmp_path: Path, name: str) -> None:
    run = _run(tmp_path)
    run.update(dataset=name)
    (tmp_path / GONE).rename(tmp_path / HERE)
    assert image_root(run, None, {"OCTC_DATA": str(tmp_path / HERE)}) == tmp_path / HERE


def _run(place: Path) -> Run:
    write_patterns(place / GONE, patients=4, images=1)
    run = create_run(place / "runs", "student", "folder", data_root=str(place / GONE))
    make_split(scan_folder(place / GONE, None), "folder", 0).write(run.split)
    assert json.loads((run.path / "run.json").read_text())["data_root"] == str(place / GONE)
    return run
