"""The repository as a whole: nothing is left out of the wheel, versions are pinned, guards refuse."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.house.tree import FLOORS, ROOT, files, pictures, pyproject, sources

BINARY = re.compile(
    r"\.(jpe?g|png|tiff?|bmp|gif|pth?|pkl|onnx|engine|plan|safetensors|bin|npz?|zip|gz|whl|so|pyc|dcm|e2e|fda)$", re.I
)
PYTHONS = ("3.10", "3.11", "3.12")
# extras that only some machines can have, so that `all` leaves them out; the version of tensorrt is that of the device
SPECIAL = ("tensorrt", "trt-oracle", "ptq")
UNPINNED = ("tensorrt",)


def test_every_folder_with_code_is_in_the_wheel() -> None:
    tables = pyproject()["tool"]["setuptools"]
    where = {"octc": "octc", **{f"octc.{name}": name for name in FLOORS if name != "octc"}}
    assert tables["package-dir"] == where
    found = set()
    for path in sources():
        folder = path.parent.relative_to(ROOT)
        assert (path.parent / "__init__.py").is_file(), f"{folder} has code and no __init__.py"
        found.add(".".join(folder.parts if folder.parts[0] == "octc" else ("octc", *folder.parts)))
    assert set(tables["packages"]) == found


def test_every_folder_with_code_is_known() -> None:
    known = {*FLOORS, "tests", "benchmarks", "examples"}
    folders = {path.relative_to(ROOT).parts[0] for path in files() if path.suffix == ".py" and path.parent != ROOT}
    assert folders <= known, "a new folder: pyproject.toml, Makefile, CONTRIBUTING.md and tests/house/tree.py name them"


def test_the_makefile_and_contributing_name_the_same_folders() -> None:
    makefile = (ROOT / "Makefile").read_text()
    line = re.search(r"^FOLDERS := (.+)$", makefile, re.M)
    assert line is not None
    assert set(line[1].split()) == set(FLOORS)
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    table = {name: tuple(re.findall(r"`([\w.]+)`", cell)) for name, cell in rows}
    assert table.pop("cli") == ()
    assert table == {name: below for name, below in FLOORS.items() if name != "cli"}


def test_no_file_is_binary_or_large() -> None:
    for path in files():
        assert not BINARY.search(path.name), path
        data = path.read_bytes()
        assert b"\0" not in data, path
        assert len(data) < 1 << 20, path
        data.decode("utf-8")


def test_photographs_are_few_and_small_and_shown() -> None:
    page = (ROOT / "docs" / "serving.md").read_text()
    assert len(pictures()) == 4
    for path in pictures():
        assert path.stat().st_size < 160 << 10, path
        assert f"]({path.name})" in page
        assert path.read_bytes()[8:12] == b"WEBP"


def test_no_link_is_kept() -> None:
    """A link leads somewhere else on the next machine, and out of an archive of the sources."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git here: what it keeps cannot be asked")
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modes = {line.partition("\t")[2]: line.partition(" ")[0] for line in listed.splitlines()}
    assert modes["README.md"] == "100644"
    assert not [name for name, mode in modes.items() if mode == "120000"]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    places = re.compile("|".join(f"(?<![\\w.])/{name}/" for name in ("home", "root", "work", "Users")))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if places.search(line)
    ]
    assert not found


def test_git_ignores_what_runs_and_builds_write(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, capture_output=True)
    written = [
        "runs/r-0001-student-ucsd/run.json", "runs/r-0001-student-ucsd/artifacts/onnx-int8/model.onnx", "bundles/b/model.onnx",
        "reports/bench-1/bench.json", "Dataset/UCSD/CellData/OCT/test/CNV/CNV-1-1.jpeg", "dist/octc.whl", "build/lib/octc/a.py",
        ".venv/bin/python", ".links/octc/image.py", "octc.egg-info/PKG-INFO", "octc/__pycache__/image.pyc", ".mypy_cache/a",
        ".ruff_cache/a", ".pytest_cache/a",
    ]  # fmt: skip
    kept = [
        "octc/store/runs.py",
        "export/targets.py",
        "tests/packaging/test_wheel.py",
        "README.md",
        ".ci/run",
        "benchmarks/demo.sh",
    ]
    command = ["git", "-C", str(tmp_path), "check-ignore", *written, *kept]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.split() == written


def test_licence_and_oldest_python() -> None:
    project = pyproject()["project"]
    assert project["license"] == "MIT"
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License")
    assert "WITHOUT WARRANTY OF ANY KIND" in text
    assert project["requires-python"] == ">=3.10"
    assert pyproject()["tool"]["ruff"]["target-version"] == "py310"


def requirements() -> dict[str, list[Requirement]]:
    """Extra (or "" for the base) -> what it asks for, octc's own extras followed."""
    project = pyproject()["project"]
    return {
        extra: [Requirement(text) for text in texts]
        for extra, texts in {"": project["dependencies"], **project["optional-dependencies"]}.items()
    }


def resolved(extra: str) -> set[str]:
    names = set()
    for requirement in requirements()[extra]:
        if requirement.name == "octc":
            names |= {name for inner in requirement.extras for name in resolved(inner)}
        else:
            names.add(requirement.name.lower())
    return names


def test_the_base_brings_no_torch_and_an_edge_box_needs_no_maker() -> None:
    makers = {"torch", "torchvision", "timm", "accelerate", "safetensors", "onnx", "onnxscript", "onnxconverter-common"}
    for extra in ("", "ort", "openvino", "yaml"):
        assert not resolved(extra) & makers
    assert {"torch", "timm", "safetensors"} <= resolved("train")
    assert {"onnx", "onnxscript", "torch"} <= resolved("export")
    every = set(requirements()) - {"", "all", "dev", *SPECIAL}
    assert resolved("all") == {name for extra in every for name in resolved(extra)}
    assert {"", "train", "export", "ort", "openvino", "yaml", "all", "dev"} <= set(requirements())


def test_what_optional_says_is_what_the_extras_bring() -> None:
    from octc.core.optional import EXTRAS, modules_of
    from octc.core.targets import extras

    names = {
        "grpc": "grpcio",
        "modelopt": "nvidia-modelopt",
        "sklearn": "scikit-learn",
        "pynvml": "nvidia-ml-py",
        "tensorrt_rtx": "tensorrt-rtx-cu12",
        "yaml": "pyyaml",
    }
    for module, extra in EXTRAS.items():
        assert names.get(module, module.replace("_", "-")) in resolved(extra), module
    for extra in extras():
        assert {names.get(module, module.replace("_", "-")) for module in modules_of(extra)} <= resolved(extra)


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_what_pyproject_names(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins: dict[str, str] = {}
    for line in lines:
        pin = Requirement(line)
        assert re.fullmatch(r"==[^*]+", str(pin.specifier)), f"{line} is no pin"
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name.lower() not in pins, f"{pin.name} is pinned twice for Python {python}"
            pins[pin.name.lower()] = str(pin.specifier).removeprefix("==")
    for needs in requirements().values():
        for need in needs:
            if need.name == "octc" or (need.marker is not None and not need.marker.evaluate({**environment, "extra": ""})):
                continue
            if need.name in UNPINNED:
                continue
            assert need.name.lower() in pins, f"{need.name} has no pin for Python {python}"
            assert SpecifierSet(str(need.specifier)).contains(pins[need.name.lower()]), need


REFUSED = {
    "TID251": ("cli/x.py", "from train import loop\n"),
    "TID252": ("octc/x.py", "from .image import Preprocess\n"),
    "TID253": ("runtimes/x.py", "import torch\n"),
    "TID253 of an engine": ("bench/x.py", "import onnxruntime\n"),
    "TID253 in the ground floor": ("octc/x.py", "import scipy\n"),
    "T201": ("octc/x.py", 'print("a")\n'),
    "C901": ("octc/x.py", "def f(x: int) -> None:\n" + "".join(f"    if x == {n}:\n        f({n})\n" for n in range(11))),
    "PLR0913": ("octc/x.py", f"def f({', '.join(f'{name}: int' for name in 'abcdefghi')}) -> None: ...\n"),
    "PLR0915": ("octc/x.py", "def f() -> None:\n" + "    f()\n" * 51),
}
ALLOWED = {
    "torch in the maker's wing": ("train/x.py", "import torch\n\nTENSOR = torch.Tensor\n"),
    "an engine inside a function": ("runtimes/x.py", "def f() -> object:\n    import onnxruntime\n\n    return onnxruntime\n"),
    "the house by its name": ("cli/x.py", "from octc.train import loop\n\nLOOP = loop\n"),
}


def lint(name: str, text: str) -> str:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", "--stdin-filename", name, "-"]
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("rule", REFUSED)
def test_the_linter_refuses(rule: str) -> None:
    assert rule.split(maxsplit=1)[0] in lint(*REFUSED[rule])


@pytest.mark.parametrize("case", ALLOWED)
def test_the_linter_allows(case: str) -> None:
    assert "All checks passed" in lint(*ALLOWED[case])


def test_ci_runs_what_a_developer_runs() -> None:
    text = (ROOT / ".ci/run").read_text()
    assert re.search(r"^make test\b", text, re.M)
    assert re.search(r"^make slow\b", text, re.M)  # what `make test` leaves out
    assert re.search(r"^make check$", text, re.M)
    assert "set -euo pipefail" in text
