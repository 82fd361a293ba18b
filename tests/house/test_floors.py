"""Who may import whom, read from the source; and the device's wing really starts without the maker's libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import (
    BENCH,
    DEVICE,
    FLOORS,
    HEIGHTS,
    MAKER,
    ROOT,
    WINGS,
    all_modules,
    folder_of,
    imports,
    module_of,
    room_of,
    sources,
    tree,
)

MAKERS_LIBRARIES = ("torch", "torchvision", "timm", "safetensors", "accelerate", "onnx", "onnxscript", "onnxconverter_common")
PUBLIC = ROOT / "octc" / "__init__.py"  # the public names, each imported when it is asked for
ENGINES = ("onnxruntime", "openvino", "ai_edge_litert", "tensorrt")


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def house_imports(*folders: str) -> list[tuple[Path, int, str, str]]:
    """(file, line, its module, what it imports of the house); an import for types only counts."""
    return [
        (path, line, module_of(path), module)
        for path in sources(*folders)
        for module, line, _, _ in imports(path)
        if module.split(".")[0] == "octc" and path != PUBLIC
    ]


@pytest.mark.parametrize("folder", FLOORS)
def test_a_folder_imports_only_what_its_floor_may(folder: str) -> None:
    def allowed(module: str) -> bool:
        there = folder_of(module)
        return there == folder or there in FLOORS[folder] or f"{there}.{room_of(module)}" in FLOORS[folder]

    found = house_imports(folder)
    assert found  # the reader of imports sees something
    assert not [f"{where(path, line)} imports {module}" for path, line, _, module in found if not allowed(module)]


def test_the_rooms_of_the_ground_floor_stand_on_lower_ones() -> None:
    found = [
        (path, line, room_of(mine), room_of(module))
        for path, line, mine, module in house_imports("octc")
        if folder_of(module) == "octc"
    ]
    assert {"core", "datasets", "store"} <= {mine for _, _, mine, _ in found} <= set(HEIGHTS)
    wrong = [
        f"{where(path, line)}: {mine} imports {other}"
        for path, line, mine, other in found
        if mine != other and HEIGHTS[other] >= HEIGHTS[mine]
    ]
    assert not wrong


def test_timing_and_parity_do_not_know_each_other() -> None:
    wrong = [
        f"{where(path, line)} imports {module}"
        for path, line, mine, module in house_imports("bench")
        if folder_of(module) == "bench" and room_of(module) not in BENCH[room_of(mine)]
    ]
    assert not wrong


def test_no_folder_of_the_device_names_a_makers_library() -> None:
    """At no level, not for types either (but for the public names, which type checkers must know)."""
    wrong = [
        f"{where(path, line)} imports {module}"
        for path in sources("octc", *DEVICE)
        for module, line, _, types in imports(path)
        if (module.split(".")[0] in MAKERS_LIBRARIES or folder_of(module) in MAKER) and not (path == PUBLIC and types)
    ]
    assert not wrong


def test_the_door_imports_a_wing_inside_functions_only() -> None:
    wrong = [
        f"{where(path, line)} imports {module}"
        for path in sources("cli")
        for module, line, top, types in imports(path)
        if top and not types and folder_of(module) in WINGS and module.startswith("octc.")
    ]
    assert not wrong


def test_an_import_of_the_house_names_a_module_that_exists() -> None:
    known = all_modules()
    unknown = [
        f"{where(path, line)} imports {module}"
        for path in sources()
        for module, line, _, _ in imports(path)
        if module.split(".")[0] == "octc" and module not in known
    ]
    assert not unknown


def test_no_import_is_relative() -> None:
    assert not [where(p, line) for p in sources() for module, line, _, _ in imports(p) if module.startswith(".")]


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports inside functions count too; those for types only do not."""
    graph = {
        module_of(path): {m for m, _, _, types in imports(path) if m in all_modules() and m != module_of(path) and not types}
        for path in sources()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"a circle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if module not in done:
            for follower in sorted(graph[module]):
                visit(follower, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())
    assert done == set(graph)


def test_nothing_below_the_door_prints() -> None:
    found = [
        where(path, node.lineno)
        for path in sources(*(name for name in FLOORS if name != "cli"))
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not found


def test_a_folder_itself_has_no_logic() -> None:
    for path in sources():
        if path.name == "__init__.py" and path != PUBLIC:
            kinds = {type(node) for node in ast.parse(path.read_text()).body}
            assert kinds <= {ast.Expr, ast.ImportFrom}, path  # a docstring, and that the package can be called


def test_the_switches_cost_nothing() -> None:
    """Every program that imports anything of octc imports them first."""
    allowed = {"__future__", "collections", "dataclasses", "logging", "os", "sys", "types"}
    found = {module.split(".")[0] for module, *_ in imports(ROOT / "octc" / "core" / "telemetry.py")}
    assert found <= allowed


BLOCK = """
import importlib, sys
sys.modules.update(dict.fromkeys({blocked!r}))  # None: importing it fails as if it were not installed
for name in {modules!r}:
    importlib.import_module(name)
"""


def start(folders: tuple[str, ...], blocked: tuple[str, ...]) -> None:
    modules = [module_of(path) for path in sources(*folders)]
    assert len(modules) > len(folders)
    code = BLOCK.format(blocked=blocked, modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_every_module_of_the_devices_wing_starts_without_any_heavy_library() -> None:
    start(("octc", *DEVICE, "cli"), (*MAKERS_LIBRARIES, *ENGINES, "yaml"))


def test_every_module_of_the_makers_wing_starts_without_an_engine() -> None:
    start(MAKER, ("openvino", "tensorrt"))
