"""`import octc`: its public names, each imported on first use."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import octc
from tests.house.tree import ROOT, module_of, sources

HEAVY = ("numpy", "msgspec", "PIL", "scipy", "torch", "onnxruntime", "openvino", "typer", "rich")


def test_importing_octc_loads_no_library() -> None:
    code = f"import sys, octc; print(*[name for name in {HEAVY!r} if name in sys.modules]); dir(octc)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_every_public_name_is_there_and_no_other() -> None:
    assert dir(octc) == sorted(octc.__all__)
    for name in octc.__all__:
        assert getattr(octc, name) is not None
    with pytest.raises(AttributeError):
        _ = octc.no_such_name  # type: ignore[attr-defined]


def test_type_checkers_see_the_names_that_are_there() -> None:
    tree = ast.parse((ROOT / "octc" / "__init__.py").read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        name.asname: (node.module, name.name)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert set(seen) == set(octc._HOME) == set(octc.__all__)
    for name, (module, attribute) in octc._HOME.items():
        assert not attribute or seen[name] == (module, attribute)


@pytest.mark.parametrize(("package", "module"), [("export", "triton"), ("bench", "timing.plan"), ("train", "recipes.config")])
def test_a_package_that_is_a_public_function_stays_one(package: str, module: str) -> None:
    code = f"import octc; f = octc.{package}; import octc.{package}.{module}; assert callable(f) and octc.{package} is f"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "targets" in inspect.signature(octc.export).parameters
    assert "teacher" in inspect.signature(octc.train).parameters


@pytest.mark.parametrize("name", sorted(octc.__all__))
def test_every_public_function_says_what_it_takes(name: str) -> None:
    value = inspect.unwrap(getattr(octc, name))
    assert value.__doc__
    if inspect.isfunction(value):
        assert "Args:" in value.__doc__
        assert "Raises:" in value.__doc__
        assert ">>>" in value.__doc__
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for case in finder.find(value, name, module=inspect.getmodule(value)):
        runner.run(case)
    assert runner.failures == 0


def test_every_example_in_a_docstring_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for path in sources():
        if ">>>" in path.read_text(encoding="utf-8"):
            module = importlib.import_module(module_of(path))
            for case in doctest.DocTestFinder().find(module, module.__name__):
                runner.run(case)
    assert runner.failures == 0
    assert runner.tries > 50
