"""`import octc`: its public names, each imported on first use."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import octc
from octc.datasets.synthetic.volumes import draw_eye_volume, vol_bytes
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
        examples = doctest.DocTestParser().get_examples(value.__doc__)
        assert any("import" not in one.source and doctest.SKIP not in one.options for one in examples), "no example that runs"


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with the files that the examples name: an artifact, an ONNX file, an image, a volume."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)).eval()
    images = [Image.fromarray(np.full((64, 64), 15 * i, np.uint8)) for i in range(16)]
    pre, options = octc.Preprocess(size=64), octc.QuantizeOptions(rounding=False, observers=["max"])
    quantized = octc.quantize(network, images, pre, classes=["CNV", "NORMAL"], options=options)
    octc.export(quantized, ["onnx"], out=tmp_path / "artifacts")
    example = (torch.zeros(1, 3, 64, 64),)
    torch.onnx.export(network, example, str(tmp_path / "net.onnx"), dynamo=True, external_data=False, verbose=False)
    config = {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    images[9].save(tmp_path / "a.png")
    (tmp_path / "eye.vol").write_bytes(vol_bytes(draw_eye_volume("CNV", 0, "R", frames=3)))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("examples")
def test_every_example_in_a_docstring_prints_what_it_shows() -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for path in sources():
        if ">>>" in path.read_text(encoding="utf-8"):
            module = importlib.import_module(module_of(path))
            for case in doctest.DocTestFinder().find(module, module.__name__):
                runner.run(case)
    assert runner.failures == 0
    assert runner.tries > 50
