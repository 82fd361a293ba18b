"""`octc runs list | show`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from octc.store.artifacts import MANIFEST
from octc.store.runs import create_run

Octc = Callable[..., "subprocess.CompletedProcess[str]"]
HERE = True  # commands in this process (tests/conftest.py)


def test_a_run_with_its_stages_and_artifacts(tmp_path: Path, octc: Octc) -> None:
    run = create_run(tmp_path / "runs", "student", "phantom", seed=3, recipe={"name": "smoke"}, split_digest="abc")
    run.log_stage("train", epochs=2, best={"epoch": 1})
    (run.artifacts / "onnx-int8").mkdir(parents=True)
    (run.artifacts / "onnx-int8" / MANIFEST).write_text("{}")
    done = octc("runs", "show", "r-0001")
    assert done.returncode == 0
    words = [line.split() for line in done.stdout.splitlines()]
    assert ["id", run.id] in words
    assert ["recipe", "smoke"] in words
    assert ["artifact", "onnx-int8"] in words
    assert any(line[1:] == ["train:", "epochs", "2"] for line in words)
    value = json.loads(octc("runs", "show", run.id, "--json").stdout)
    assert value["run_id"] == run.id
    assert value["data"]["artifacts"] == ["onnx-int8"]
    assert value["data"]["stages"][0]["best"] == {"epoch": 1}


def test_x01_a_run_that_is_not_there_lists_candidates(tmp_path: Path, octc: Octc) -> None:
    run = create_run(tmp_path / "runs", "teacher", "phantom")
    done = octc("runs", "show", "r-0009")
    assert done.returncode == 2
    assert "error[OCT-E107]" in done.stderr
    assert run.id in done.stderr


def test_the_list_is_that_of_octc_list(tmp_path: Path, octc: Octc) -> None:
    create_run(tmp_path / "runs", "teacher", "phantom")
    assert octc("runs", "list").stdout == octc("list", "runs").stdout


def test_nothing_is_deleted_while_nobody_knows_what_a_run_refers_to(tmp_path: Path, octc: Octc) -> None:
    runs = [create_run(tmp_path / "runs", kind, "phantom") for kind in ("teacher", "student")]
    (runs[1].path / "run.json").write_text("{")
    for words in ((), ("--yes",)):
        made = octc("runs", "prune", *words)
        assert (made.returncode, "OCT-E107" in made.stderr, runs[1].id in made.stderr) == (2, True, True)
    assert all(run.path.is_dir() for run in runs)
    listed = octc("list", "runs")
    assert (listed.returncode, runs[1].id in listed.stdout) == (0, True)
