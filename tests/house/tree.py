"""The repository as these tests read it: its folders, its files, its source as syntax trees."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
# folder -> what it may import; the table of CONTRIBUTING.md
FLOORS: dict[str, tuple[str, ...]] = {
    "octc": (),
    "runtimes": ("octc",),
    "bench": ("octc", "runtimes"),
    "archive": ("octc", "runtimes", "bench.report"),
    "serve": ("octc", "runtimes"),
    "train": ("octc",),
    "compress": ("octc", "train"),
    "export": ("octc", "train", "compress", "runtimes", "bench.parity", "bench.timing", "bench.remote"),
    "cli": ("octc", "runtimes", "bench", "archive", "serve", "train", "compress", "export"),
}
DEVICE, MAKER = ("runtimes", "bench", "archive", "serve"), ("train", "compress", "export")
WINGS = (*DEVICE, *MAKER)
# inside octc: each room with its height; one may import only from lower ones
HEIGHTS = {
    "core": 0,
    "machine": 1,
    "imaging": 1,
    "stats": 1,
    "figures": 2,
    "volumes": 2,
    "schemas": 3,
    "datasets": 4,
    "store": 5,
}
# inside bench: timing and parity know nothing of each other, both go to other machines by `remote`, a report reads both, and a
# monitor writes its page as one does
BENCH = {
    "monitor": ("monitor", "report"),
    "remote": ("remote",),
    "parity": ("parity", "remote"),
    "timing": ("timing", "remote"),
    "report": ("parity", "timing", "report"),
}
# what a checkout may hold beside the repository; none of it is ours to judge
NOT_OURS = {"build", "dist", "runs", "bundles", "reports", "Dataset", "__pycache__"}


@functools.cache
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def files() -> list[Path]:
    """Files of the repository that are text: all of them but the photographs of the page."""
    shown = set(pictures())
    return [path for path in everything() if path not in shown]


def pictures() -> list[Path]:
    """The photographs of the page of `octc serve`, which cannot be drawn as text is (benchmarks/page_pictures.py)."""
    return sorted((ROOT / "docs").glob("page-*.webp"))


def everything() -> list[Path]:
    """What git would keep, or all but the known ignored folders where there is no git."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        return sorted(path for name in listed if name and (path := ROOT / name).is_file())
    return sorted(_walk(ROOT))


def _walk(folder: Path) -> Iterator[Path]:
    for entry in os.scandir(folder):
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            hidden = entry.name.startswith(".") and entry.name != ".ci"
            if not hidden and entry.name not in NOT_OURS and not entry.name.endswith(".egg-info"):
                yield from _walk(path)
        elif path.is_file():
            yield path


def sources(*folders: str) -> list[Path]:
    """Python files of the house (or of some of its folders)."""
    return [path for name in folders or tuple(FLOORS) for path in sorted((ROOT / name).rglob("*.py"))]


def module_of(path: Path) -> str:
    """octc/imaging/preprocess.py -> octc.imaging.preprocess; train/__init__.py -> octc.train."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "octc" else ("octc", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def folder_of(module: str) -> str:
    """The floor on which a module lives: octc.train.loop.fit -> train; octc.imaging.preprocess -> octc."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOORS and parts[1] != "octc" else "octc"


def room_of(module: str) -> str:
    """The room inside a folder: octc.train.loop.fit -> loop, octc.core.files -> core; "" for a module without one."""
    parts = module.split(".")[1 if folder_of(module) == "octc" else 2 :]
    return parts[0] if parts and (len(parts) > 1 or module in packages()) else ""


@functools.cache
def packages() -> frozenset[str]:
    return frozenset(module_of(path) for path in sources() if path.name == "__init__.py")


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def imports(path: Path) -> tuple[tuple[str, int, bool, bool], ...]:
    """(module, line, at module level, for types only) of every import, and of import_module("octc...") with a literal name."""
    return tuple(_imports(tree(path), True, False))


def _imports(node: ast.AST, top: bool, types: bool) -> Iterator[tuple[str, int, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((name.name, child.lineno, top, types) for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = "." * child.level + (child.module or "")
            known = all_modules()
            for name in child.names:
                longer = f"{module}.{name.name}"
                yield longer if longer in known else module, child.lineno, top, types
        elif isinstance(child, ast.Call) and getattr(child.func, "attr", getattr(child.func, "id", "")) == "import_module":
            named = child.args[0] if child.args else None
            if isinstance(named, ast.Constant) and isinstance(named.value, str):
                yield named.value, child.lineno, False, types
        guarded = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _imports(child, top and not inside, types or guarded)


@functools.cache
def all_modules() -> frozenset[str]:
    return frozenset(module_of(path) for path in sources())
