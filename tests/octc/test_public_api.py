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
import onnx
import pytest
from PIL import Image

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
        assert any(not one.source.startswith(("import ", "from ")) and doctest.SKIP not in one.options for one in examples), (
            "no example that runs"
        )


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with the files that the examples name: an artifact, an ONNX file, an image, a volume."""
    weights = onnx.numpy_helper.from_array(np.eye(3, 2, dtype=np.float32), "weights")
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        onnx.helper.make_node("Flatten", ["means"], ["features"]),
        onnx.helper.make_node("MatMul", ["features", "weights"], ["logits"]),
    ]
    shapes = (("image", [1, 3, 64, 64]), ("logits", [1, 2]))
    image, logits = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes)
    graph = onnx.helper.make_graph(nodes, "net", [image], [logits], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "net.onnx")
    config = {"size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    net, pre = tmp_path / "net.onnx", tmp_path / "preprocessor_config.json"
    octc.import_model(net, pre, ["CNV", "NORMAL"], options=octc.ImportOptions(out=str(tmp_path / "artifacts")))
    eye = draw_eye_volume("CNV", 0, "R", frames=3)
    Image.fromarray(eye.frames[0]).save(tmp_path / "a.png")
    (tmp_path / "eye.vol").write_bytes(vol_bytes(eye))
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
