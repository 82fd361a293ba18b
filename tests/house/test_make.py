"""The one door for a developer: `make` knows its targets, and each says what it is for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.house.tree import FLOORS, ROOT, files

TARGETS = ("dev", "links", "check", "test", "slow", "test-isa", "coverage", "demo", "real", "wheel", "clean")


def make(folder: Path, *words: str) -> str:
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, timeout=60, check=True).stdout


def test_help_lists_every_target() -> None:
    listed = re.findall(r"^  make ([\w-]+) +\S", make(ROOT, "help"), re.M)
    assert set(TARGETS) <= set(listed)
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony is not None
    assert set(phony[1].split()) == set(listed)


def test_check_and_test_are_the_commands_that_ci_counts_on() -> None:
    plan = make(ROOT, "-n", "check", "test", "test-isa", "ARGS=-k cli")
    assert "ruff format --check ." in plan
    assert "ruff check ." in plan
    assert "mypy -p octc" in plan
    assert re.search(r"-m pytest .*-k cli", plan)
    assert re.search(r"tests/isa.py .*-m pytest .*-k cli", plan)
    ci = (ROOT / ".ci" / "run").read_text()
    assert all(re.search(rf"^make {name}\b", ci, re.M) for name in ("check", "test", "slow", "test-isa"))


def test_links_make_one_package_of_the_house(tmp_path: Path) -> None:
    for path in files():
        name = path.relative_to(ROOT)
        if name.parts[0] in FLOORS or str(name) == "Makefile":
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / name)
    make(tmp_path, "links")
    (tmp_path / "octc" / "gone.py").write_text("")
    make(tmp_path, "links")
    (tmp_path / "octc" / "gone.py").unlink()
    make(tmp_path, "links")
    found = {path.name for path in (tmp_path / ".links" / "octc").iterdir()}
    folders = {path.parent.name for path in (tmp_path / "octc").glob("*/__init__.py")} | (set(FLOORS) - {"octc"})
    modules = {path.name for path in (tmp_path / "octc").glob("*.py")}
    assert found == folders | modules | {"py.typed"}
    assert all((tmp_path / ".links" / "octc" / name).exists() for name in found)
