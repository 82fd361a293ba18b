"""What is shipped: the wheel holds the house, and on a machine with one engine and no torch it works."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.house.tree import FLOORS, MAKER, ROOT, files, pyproject, sources
from tests.packaging.interpreters import make_environment, outside, pip

pytestmark = pytest.mark.slow

VERSIONS = ("3.10", "3.11")
PATTERNS = ("bright", "dark", "lying", "upright")  # of tests/tiny_run.py
NOT_ON_AN_EDGE_BOX = ("scipy", "torch", "torchvision", "timm", "accelerate", "safetensors", "onnx", "openvino")


def copy_house(folder: Path) -> Path:
    """What a wheel is built of, in a folder of its own: building writes beside the source."""
    for path in files():
        name = path.relative_to(ROOT)
        if name.parts[0] in FLOORS or str(name) in ("pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    source = copy_house(tmp_path_factory.mktemp("source"))
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def shipped() -> set[str]:
    """Every file of the house, by its place in the package."""
    found = {path.relative_to(ROOT) for path in files() if path.relative_to(ROOT).parts[0] in FLOORS}
    return {str(name) if name.parts[0] == "octc" else f"octc/{name}" for name in found}


def test_the_wheel_holds_every_file_of_the_house_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    inside = {name for name in names if ".dist-info/" not in name}
    assert inside == shipped()
    assert {name.split("/")[0] for name in inside} == {"octc"}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    version = pyproject()["project"]["version"]
    assert wheel.name == f"octc-{version}-py3-none-any.whl"


def test_the_sdist_can_be_built_from(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {str(path.relative_to(ROOT)) for path in sources()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names


@dataclass(frozen=True)
class Box:
    """An edge box: a fresh environment with `octc[ort]` from the wheel and nothing else."""

    version: str
    bin: Path
    home: Path

    def run(self, *words: str | Path, code: int | None = 0) -> str:
        command = [str(self.bin / words[0]), *map(str, words[1:])]
        environment = {**outside(), "OCTC_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=self.home, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=VERSIONS)
def box(request: pytest.FixtureRequest, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Box:
    folder = tmp_path_factory.mktemp(f"box-{request.param}")
    environment = make_environment(folder / "venv", request.param)
    (wheel,) = built.glob("*.whl")
    pip(environment, "install", "-q", "--no-compile", f"{wheel}[ort]", "-c", str(ROOT / "constraints.txt"))
    (folder / "home").mkdir()
    return Box(request.param, environment, folder / "home")


def test_an_edge_box_gets_no_torch_and_the_pinned_versions(box: Box) -> None:
    listed = json.loads(box.run("python", "-m", "pip", "list", "--format", "json"))
    there = {one["name"].lower(): one["version"] for one in listed}
    assert not set(there) & set(NOT_ON_AN_EDGE_BOX)
    assert {"octc", "numpy", "pillow", "rich", "typer", "onnxruntime"} <= set(there)
    assert box.run("python", "-c", "import importlib.util as u; print(u.find_spec('torch'))").strip() == "None"
    box.run("python", "-m", "pip", "check")


def test_every_module_of_the_devices_wing_starts_there(box: Box) -> None:
    code = (
        "import importlib, pkgutil, octc\n"
        f"makers = {tuple(f'octc.{name}' for name in MAKER)!r}\n"
        "names = [found.name for found in pkgutil.walk_packages(octc.__path__, 'octc.')]\n"
        "print(*[importlib.import_module(name).__name__ for name in names if not name.startswith(makers)])"
    )
    started = box.run("python", "-c", code).split()
    assert {
        "octc.imaging.preprocess",
        "octc.datasets.audit",
        "octc.runtimes.onnxrt",
        "octc.bench.timing.load_generator",
        "octc.cli._app.main",
    } <= set(started)


def test_the_makers_wing_is_valid_for_that_python(box: Box) -> None:
    """Torch is too heavy to install here: the syntax is compiled, and what is imported from the standard library is there."""
    place = box.run("python", "-c", "import octc; print(octc.__path__[0])").strip()
    box.run("python", "-m", "compileall", "-q", "-f", *(Path(place) / name for name in MAKER))
    box.run("python", "-c", STANDARD.format(files=[str(path) for path in sources(*MAKER)]))


STANDARD = """
import ast, importlib, importlib.util, sys
for name in {files!r}:
    for node in ast.walk(ast.parse(open(name, encoding="utf-8").read())):
        pairs = []
        if isinstance(node, ast.Import):
            pairs = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            pairs = [(node.module, alias.name) for alias in node.names]
        for module, wanted in pairs:
            if module.split(".")[0] in sys.stdlib_module_names:
                found = importlib.import_module(module)
                assert wanted is None or hasattr(found, wanted), f"{{name}}: {{module}}.{{wanted}}"
    assert "tomllib" not in open(name, encoding="utf-8").read(), name
"""


def test_version_help_list_and_doctor(box: Box) -> None:
    version = pyproject()["project"]["version"]
    assert box.run("octc", "--version").strip() == f"octc {version}"
    assert "predict" in box.run("octc", "--help")
    data = json.loads(box.run("octc", "list", "--json"))["data"]
    assert all("pip install 'octc[train]'" in row["missing"] for row in data["recipes"])
    doctor = json.loads(box.run("octc", "doctor", "--json"))["data"]
    texts = [check["text"] for check in doctor["checks"]]
    assert f"Python {box.version}" in " ".join(texts)
    assert any("torch" in text and "not installed (no training here; bench works)" in text for text in texts)
    assert any(text.startswith("onnxruntime") for text in texts)  # with its version, unless the machine is busy
    assert doctor["counts"]["problem"] == 0


@pytest.fixture(scope="module")
def shipped_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Made here, with torch: the images of a run that learned four patterns, and its artifacts."""
    from tests.tiny_artifacts import shared_run

    run = shared_run(tmp_path_factory)
    return run.path.parent.parent / "patterns", run.artifacts


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_artifact_that_was_copied_there_predicts(box: Box, shipped_run: tuple[Path, Path], precision: str) -> None:
    images, artifacts = shipped_run
    place = box.home / f"copied-{precision}"
    shutil.copytree(artifacts / f"onnx-{precision}", place)
    chosen = [sorted((images / name).iterdir())[-1] for name in PATTERNS]
    done = json.loads(box.run("octc", "predict", place, *chosen, "--json"))
    records = done["data"]["records"]
    assert [record["label"] for record in records] == list(PATTERNS)
    assert all(0.99 < sum(record["probabilities"].values()) < 1.01 for record in records)


NOTEBOOK = """
import sys, octc
place, *images = sys.argv[1:]
found = octc.load(place).predict(images)
print(*[one.label for one in found])
labels, table = [one.label for one in found] * 10, [list(one.probabilities.values()) for one in found] * 10
try:
    octc.compare(labels, table, table, patients=range(len(labels)), classes=list(found[0].probabilities))
except octc.OctcError as error:
    print(error.code, error.hint)
print(octc.train.__doc__)
"""


def test_a_notebook_there_loads_and_predicts_and_is_told_what_statistics_need(box: Box, shipped_run: tuple[Path, Path]) -> None:
    images, artifacts = shipped_run
    place = box.home / "copied-notebook"
    shutil.copytree(artifacts / "onnx-int8", place)
    chosen = [sorted((images / name).iterdir())[-1] for name in PATTERNS]
    labels, compared, *help_text = box.run("python", "-c", NOTEBOOK, place, *chosen).splitlines()
    assert labels.split() == list(PATTERNS)
    assert compared == "OCT-E901 pip install 'octc[stats]'"
    assert help_text[0].startswith("Training. As a function")


def test_what_needs_torch_says_the_pip_line(box: Box) -> None:
    box.run("octc", "data", "phantom", "--images", "4")
    words = ("octc", "train", "teacher", "--dataset", "phantom", "--recipe", "smoke", "--json")
    error = json.loads(box.run(*words, code=4))["error"]
    assert error["code"] == "OCT-E901"
    assert error["help"] == "pip install 'octc[train]'"


@pytest.mark.parametrize(
    ("words", "extra"),
    [("lint {onnx}/model.onnx", "export"), ("lint {onnx}/model.onnx --fix --target onnx", "export"), ("export {run}", "export"),
     ("export {run} --int8 --target onnx --ptq onnxruntime", "export"), ("ptq {run}", "export"), ("analyze {run}", "train"),
     ("compare {run} {run}", "train"), ("eval {run} --maps 2", "train"), ("config show --config a.yaml", "yaml"),
     ("artifact verify {onnx}", "sign"), ("data fetch octmnist", "octmnist")],
)  # fmt: skip
def test_every_command_that_needs_more_says_which_extra(
    box: Box, shipped_run: tuple[Path, Path], words: str, extra: str
) -> None:
    run = box.home / "runs" / shipped_run[1].parent.name
    if not run.exists():
        shutil.copytree(shipped_run[1].parent, run)
    (box.home / "a.yaml").write_text("train:\n  epochs: 2\n")
    said = words.format(run=run, onnx=run / "artifacts" / "onnx-int8").split()
    error = json.loads(box.run("octc", *said, "--json", code=4))["error"]
    assert (error["code"], error["help"]) == ("OCT-E901", f"pip install 'octc[{extra}]'")


def test_an_editable_install_from_a_copy_follows_its_source(tmp_path: Path) -> None:
    source = copy_house(tmp_path / "copy")
    environment = make_environment(tmp_path / "venv", f"{sys.version_info.major}.{sys.version_info.minor}")
    pip(environment, "install", "-q", "--no-deps", "-e", str(source))
    (source / "bench" / "added.py").write_text("VALUE = 7\n")
    code = "import octc.bench.added as a, octc.cli; print(a.VALUE, a.__file__)"
    done = subprocess.run(
        [str(environment / "python"), "-c", code],
        cwd=tmp_path,
        env=outside(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["7", str(source / "bench" / "added.py")]
