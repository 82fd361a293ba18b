"""The worker against the names of twelve TensorRT versions, under the oldest Pythons that are here."""

from __future__ import annotations

import ast
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octc.runtimes.tensorrt.process import WORKER
from octc.runtimes.tensorrt.worker import typing_for
from tests.packaging.interpreters import find_python
from tests.runtimes.trt_world import NAMES, VERSIONS, World

TREE = ast.parse(WORKER.read_text(), feature_version=(3, 8))
# the variables of the worker that hold objects of TensorRT
VARIABLES = {
    "builder": "Builder", "network": "INetworkDefinition", "parser": "OnnxParser", "config": "IBuilderConfig",
    "profile": "IOptimizationProfile", "looker": "EngineInspector", "context": "IExecutionContext", "layer": "ILayer",
    "back": "ILayer", "front": "ILayer", "e": "ParserError", "runtime": "Runtime", "engine": "ICudaEngine",
}  # fmt: skip
GUARDED = {
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
    ("module", "ComputeCapability"),
}
EXPECTED = {
    ("Builder", "build_serialized_network"), ("OnnxParser", "parse_from_file"), ("ParserError", "node_name"),
    ("IBuilderConfig", "set_memory_pool_limit"), ("ILayer", "set_input"), ("IExecutionContext", "execute_async_v3"),
}  # fmt: skip


def surface(version: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for known, changes in json.loads(NAMES.read_text())["versions"].items():
        for key, change in changes.items():
            found[key] = (found.get(key, set()) - set(change.get("gone", []))) | set(change.get("new", []))
        if known == version:
            break
    return found


def dotted(node: ast.AST) -> list[str]:
    """a.b.c as ["a", "b", "c"]; self.a as ["a"]."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    if isinstance(node, ast.Name) and node.id != "self":
        parts.insert(0, node.id)
    return parts


def uses() -> set[tuple[str, str]]:
    """(class, attribute) of everything that the worker touches on TensorRT's side."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(TREE):
        if isinstance(node, ast.Attribute):
            first, *rest = dotted(node) or [""]
            if first == "trt" and rest:
                found.add(("module", rest[0]))
                found |= {(rest[0], name) for name in rest[1:2]}
            elif first in VARIABLES and rest:
                found.add((VARIABLES[first], rest[0]))
    return {(owner, name) for owner, name in found if not name.startswith("__")}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_attribute_that_the_worker_uses_exists_in_every_version(version: str) -> None:
    names = surface(version)
    used = uses()
    assert used >= EXPECTED
    for owner, name in used - GUARDED:
        known = names["module"] if owner == "module" else names.get(f"class {owner}", set()) | names.get(f"enum {owner}", set())
        assert name in known, f"{owner}.{name} is not in {version}"
    if version.startswith("rtx"):
        assert all(name in names["module"] | names["class IBuilderConfig"] for _, name in GUARDED)


def test_the_worker_is_one_file_for_old_pythons() -> None:
    modules = {alias.name for node in ast.walk(TREE) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {str(node.module) for node in ast.walk(TREE) if isinstance(node, ast.ImportFrom)}
    assert modules <= set(sys.stdlib_module_names)


def integers_for_enums() -> list[str]:
    """Shifts by a literal: 1 << 19 means another flag in every major version."""
    shifts = [n for n in ast.walk(TREE) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.LShift)]
    return [ast.unparse(n) for n in shifts if isinstance(n.right, ast.Constant) and n.right.value != 20]


def test_flags_are_never_integers() -> None:
    assert integers_for_enums() == []


@pytest.mark.parametrize(("version", "expected"), [
    ("8.6.1", None), ("10.0.1", "weak"), ("10.3.0", "weak"), ("10.11.0.33", "weak"), ("10.12.0", "strong"),
    ("10.16.2.10", "strong"), ("11.4.0.106", "strong"), ("12.0", "strong"),
])  # fmt: skip
def test_typing_follows_the_version(version: str, expected: str | None) -> None:
    assert typing_for(version) == expected
    assert typing_for(version, is_rtx=True) == "strong"


def flags_set(calls: list[list[Any]]) -> list[str]:
    return [call[2].rsplit(".", 1)[-1] for call in calls if call[:2] == ["IBuilderConfig", "set_flag"]]


@pytest.mark.parametrize(("version", "typing"), [
    ("10.3.0", "weak"), ("10.13.3.9.post1", "strong"), ("10.16.1.11", "strong"), ("11.4.0.106", "strong"),
    ("rtx-1.7.1.116", "strong"),
])  # fmt: skip
def test_x09_the_whole_build_path(version: str, typing: str, tmp_path: Path) -> None:
    """One plan file with both plans where the version decides; the calls are those that this version knows."""
    world = World(tmp_path, version)
    plans = {
        name: world.plan(typing=name).to_json() for name in (("strong",) if version.startswith("rtx") else ("weak", "strong"))
    }
    world.settings["says"] = [["WARNING", "a warning"]]
    code, result, log = world.work("build", plans)
    assert code == 0, log
    assert result["ok"]
    assert (result["typing"], result["environment"]["version"]) == (typing, version.rsplit("-", maxsplit=1)[-1])
    calls = world.calls()
    assert flags_set(calls) == (["INT8", "FP16"] if typing == "weak" else [])
    created = next(call for call in calls if call[1] == "create_network")
    strongly = sorted(surface(version)["enum NetworkDefinitionCreationFlag"]).index("STRONGLY_TYPED")
    assert created[2] == (0 if typing == "weak" else 1 << strongly)
    assert ["IOptimizationProfile", "set_shape", "image", [1, 1, 4, 4], [1, 1, 4, 4], [8, 1, 4, 4]] in calls
    capabilities = [call for call in calls if call[1] == "set_compute_capability"]
    assert [c[2].rsplit(".", 1)[-1] for c in capabilities] == (["SM86"] if version.startswith("rtx") else [])
    assert (tmp_path / result["engine"]).stat().st_size == 4000
    assert (tmp_path / result["layers"]).read_text() == '{"Layers": []}'
    assert result["warnings"] == ["a warning"]
    if not version.startswith("rtx"):
        assert (tmp_path / f"int8-{typing}.timing.cache").read_bytes() == b"timings"
        assert world.work("build", plans)[1]["timing_cache"] == "read"


def test_x11_nothing_from_the_builder_is_an_error_with_its_words(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        "10.3.0",
        settings={"builds": False, "says": [["ERROR", "Could not find any implementation for node conv_2."]]},
    )
    plan = world.plan()
    code, result, log = world.work("build", plan)
    assert code == 2
    assert result["error"]["text"] == "Could not find any implementation for node conv_2."
    assert result["error"]["stage"] == "build"
    assert "Could not find any implementation" in log
    assert not list(tmp_path.glob("*.engine*"))


def test_a_rejected_graph_names_the_node_in_the_parsers_words(tmp_path: Path) -> None:
    world = World(
        tmp_path, "11.4.0.106", settings={"parser_errors": [["Non-zero zero point is not supported", "q7", "QuantizeLinear"]]}
    )
    code, result, _ = world.work("build", world.plan(typing="strong"))
    assert code == 2
    assert result["error"]["text"] == "q7 (QuantizeLinear): Non-zero zero point is not supported"
    assert result["error"]["details"][0]["line"] == 7


def test_x09_a_plan_that_does_not_fit_the_version_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path, "11.4.0.106")
    code, result, _ = world.work("build", world.plan())
    assert (code, result["error"]["stage"]) == (3, "plan")
    assert "11.4.0.106 needs a strong-typed plan" in result["error"]["text"]
    forced = {**world.plan().to_json(), "typing": "strong"}
    code, result, _ = world.work("build", forced)
    assert (code, "has no builder flag INT8, FP16" in result["error"]["text"]) == (3, True)


def test_dla_is_refused_with_the_reason(tmp_path: Path) -> None:
    world = World(tmp_path, "10.3.0")
    code, result, _ = world.work("build", replace(world.plan(), device="DLA"))
    assert (code, "DLA has no explicit INT8" in result["error"]["text"]) == (3, True)


def test_another_onnx_file_than_the_plan_was_made_for_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path, "10.3.0")
    plan = world.plan()
    (tmp_path / plan.onnx).write_bytes(b"other")
    code, result, _ = world.work("build", plan)
    assert (code, "not the file that the plan was made for" in result["error"]["text"]) == (3, True)


def test_without_tensorrt_the_environment_is_to_blame(tmp_path: Path) -> None:
    world = World(tmp_path, "10.3.0")
    plan = replace(world.plan(), module="tensorrt_that_is_not_here")
    code, result, _ = world.work("build", plan)
    assert (code, result["error"]["stage"]) == (4, "environment")


def test_named_convolutions_are_taken_off_their_pairs(tmp_path: Path) -> None:
    world = World(tmp_path, "10.3.0")
    world.settings["layers"] = [
        {"name": "q", "type": "QUANTIZE", "in": ["x"], "out": ["codes"]},
        {"name": "dq", "type": "DEQUANTIZE", "in": ["codes"], "out": ["values"]},
        {"name": "conv_1", "type": "CONVOLUTION", "in": ["values"], "out": ["y"]},
        {"name": "conv_2", "type": "CONVOLUTION", "in": ["y"], "out": ["z"]},
    ]
    code, result, log = world.work("build", replace(world.plan(), dequantize=("conv_1", "conv_2")))
    assert code == 0, log
    assert result["dequantized"] == ["conv_1"]  # conv_2 has no pair: whoever asked must see that
    assert [call[1] for call in world.calls() if call[0] == "ILayer"].count("set_input") == 1


needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for a libcudart of our own")


@needs_cc
def test_golden_images_are_replayed_through_libcudart(tmp_path: Path) -> None:
    world = World(tmp_path, "10.3.0")
    world.make_cudart()
    plan = replace(world.plan(), golden=world.write_golden())
    (tmp_path / plan.output).write_bytes(b"engine")
    code, result, log = world.work("verify", plan)
    assert code == 0, log
    assert (result["images"], result["agreement"]) == (3, 1.0)
    assert result["delta_over_s"] < 1e-6
    world.write_golden(wrong=40.0)
    code, result, _ = world.work("verify", plan)
    assert (code, "golden outputs differ" in result["error"]["text"]) == (2, True)


@needs_cc
@pytest.mark.parametrize("graph", [False, True])
def test_latencies_come_in_three_rows(tmp_path: Path, graph: bool) -> None:
    world = World(tmp_path, "10.16.1.11")
    world.make_cudart()
    bench = {"batch": 2, "graph": graph, "warmup_s": 0.0, "seconds": 0.0, "queries": 5}
    plan = replace(world.plan(typing="strong"), bench=bench)
    (tmp_path / plan.output).write_bytes(b"engine")
    code, result, log = world.work("bench", plan)
    assert code == 0, log
    assert {kind: len(values) for kind, values in result["samples_ns"].items()} == {"device": 5, "host": 5, "end_to_end": 5}
    assert set(result["samples_ns"]["device"]) == {250_000}  # what the events of the stand-in say
    assert all(value > 0 for values in result["samples_ns"].values() for value in values)
    runs = [call for call in world.calls() if call[1] == "execute_async_v3"]
    assert len(runs) == (2 if graph else 16)
    code, result, _ = world.work("bench", replace(plan, bench={**bench, "batch": 9}))
    assert (code, "outside the profile" in result["error"]["text"]) == (3, True)


def test_without_libcudart_nothing_runs(tmp_path: Path) -> None:
    world = World(tmp_path, "10.3.0")
    plan = replace(world.plan(), golden=world.write_golden())
    (tmp_path / plan.output).write_bytes(b"engine")
    code, result, _ = world.work("verify", plan)
    assert (code, result["error"]["stage"]) in ((4, "environment"), (4, "run"))  # none, or one that finds no GPU


@pytest.mark.parametrize("python", ["3.8", "3.10"])
@pytest.mark.parametrize("version", ["10.3.0", "11.4.0.106"])
def test_the_worker_runs_under_old_pythons(version: str, python: str, tmp_path: Path) -> None:
    """JetPack 6 has 3.10."""
    world = World(tmp_path, version, python=find_python(python))
    code, result, log = world.work("build", {name: world.plan(typing=name).to_json() for name in ("weak", "strong")})
    assert code == 0, log
    assert result["environment"]["python"].startswith(f"{python}.")
