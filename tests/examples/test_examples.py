"""The examples run as they stand, use `import octc` alone, and say what they promise."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from octc.store.artifacts import read_artifact
from tests.house.tree import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(python: tuple[str, ...], name: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [*python, str(ROOT / "examples" / name), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_imports_the_public_names_only(path: Path) -> None:
    tree = ast.walk(ast.parse(path.read_text()))
    statements = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
    named = [one.name for node in statements if isinstance(node, ast.Import) for one in node.names]
    named += [node.module or "" for node in statements if isinstance(node, ast.ImportFrom)]
    assert "octc" in named
    assert not [name for name in named if name.startswith("octc.")]


def test_an_own_network_passes_its_gate(warm: tuple[str, ...], tmp_path: Path) -> None:
    done = run(warm, "own_network.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("onnx-int8", "openvino-int8"):
        artifact = read_artifact(tmp_path / "artifacts" / name)
        assert artifact.details["gate"]["accepted"]
        assert artifact.details["gate"]["n"] == 96
        assert artifact.classes == ("bright", "dark")


def test_two_tables_are_compared(warm: tuple[str, ...], tmp_path: Path) -> None:
    done = run(warm, "two_tables.py", folder=tmp_path)
    assert done.returncode in (0, 1), done.stderr
    assert "600 images, 300 patients" in done.stdout
    strict = run(warm, "two_tables.py", "--margin", "0.1", folder=tmp_path)
    assert strict.returncode == 1


def test_own_data_from_a_table_to_a_file_that_is_compared_on_new_patients(warm: tuple[str, ...], tmp_path: Path) -> None:
    done = run(warm, "own_data_table.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "174 images, 58 patients" in done.stdout
    assert read_artifact(tmp_path / "artifacts" / "onnx-int8").details["gate"]["accepted"]
    rows = (tmp_path / "drawn" / "images.csv").read_text().splitlines()
    assert len(rows) == 721
