"""Every script under benchmarks/ runs, with every option that it has, at its smallest size. Its numbers are not looked at."""

from __future__ import annotations

import ast
import importlib
import json
import os
import shutil
import subprocess
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.store.runs import Run
from octc.train.loop.checkpoint import read_checkpoint
from octc.train.recipes.registry import smoke
from tests.house.tree import ROOT
from tests.tiny_artifacts import shared_run

FOLDER = ROOT / "benchmarks"
# imported by the others; what needs atheris; a browser and a network of drawn eyes; the demo and the picture of the README
# (tests/house/test_readme.py); emulators, by Debian's archive (.ci/run, tests/bench/test_emulate.py)
NO_SCRIPTS = {"results.py", "seed_loop.py", "demo.sh", "pipeline.py", "fuzz_volumes.py", "page_pictures.py"}
NO_SCRIPTS |= {"arm64_root.sh", "emulation.py"}
# what a script gives itself, or what needs an interpreter with programs of others
BY_ITSELF = {"volumes.py": {"--peak-of", "--others"}, "serving.py": {"--others"}, "cold_start.py": {"--against"}}
CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")
ABLATION = "--recipe smoke --size 32 --epochs 1 --teacher-epochs 1 --batch 8 --seeds 1 --val 0.4 --device cpu --arms alone;kl"
# script -> words of each run; {images}: a tree of several depths, {ucsd}: laid out as UCSD, {run}: a finished student
CASES: dict[str, tuple[str, ...]] = {
    "ablation.py": (f"--data {{ucsd}} --dataset ucsd --place ablation {ABLATION}",),
    "activations.py": ("--rounds 1 --threads 1 --json",),
    "archive.py": (
        "{run}/artifacts/onnx-int8 {images} --fp32 {run}/artifacts/onnx-fp32 --count 32 --rounds 1 --rows 0 --no-ray",
        "{run}/artifacts/onnx-int8 {images} --count 32 --rounds 1 --workers 1 --no-ray --rows 100",
        "{run}/artifacts/onnx-int8 --million --rows 300 --links 0.5 --workers 1",
    ),
    "cold_start.py": ("{images}/0.jpeg {run}/artifacts/onnx-int8 {run}/artifacts/openvino-int8 --rounds 1",),
    "compare_tables.py": (
        "--rows 300 --patients 60 --classes 2 --seed 1",
        "--rows 300 --patients 60 --answers",
    ),
    "damage.py": ("{run}/artifacts/openvino-int8 damaged",),
    "full_size.py": ("--place full --quick --tiny",),
    "gate_simulation.py": ("--quick --sets 1 --seed 1",),
    "int8.py": (
        "--place p --quick --tiny --few --rounds 1 --threads 1 --simplified {run} --also old={run}/artifacts/onnx-int8 --json",
    ),
    "lint_oracle.py": ("70000 2",),
    "monitor.py": ("--boxes 4 --changed 2 --eyes 30 --pool 8 --seed 1",),
    "memory.py": ("--rounds 1 --steps 1 --size 32", "--work plain", "--work keep"),
    "one_file.py": ("{run} --data {patterns} --target onnx",),
    "real.py": ("--data {ucsd} --place real --tiny",),
    "retnet.py": (
        "--place eyes --patients 24 --images 1 --seeds 1 --first-seed 1 --epochs 1 --recipe retnet-smoke --int8 --tiny",
        "--place large --full --tiny",
    ),
    "serving.py": ("{run}/artifacts/onnx-int8 {images}/0.jpeg --alone --rounds 1 --seconds 0.3 --overload 1 --soak 4",),
    "pruning.py": ("test_efficientnet 32 --seeds 1 --epochs 1 --images 64",),
    "simplified.py": ("test_efficientnet 64 --rounds 2 --threads 1",),
    "stand_in.py": ("{ucsd} stand-ins",),
    "tensorrt_rtx.py": ("test_resnet 64",),
    "tuning.py": (
        "{run} --run-dir {run}/.. --data {patterns} --bits 4 --seeds 1 --epochs 1 --rate 1e-4 --placement acl --learned-steps",
    ),
    "volumes.py": ("{run}/artifacts/onnx-int8 --frames 3 --size 64x48 --rounds 1",),
    "training.py": (
        "--data {images} --rounds 1 --steps 1 --batch 2 --workers 1 --device cpu --quick --json",
        "--full --quick --steps 1 --batch 2 --workers 0 --only cached bare",
    ),
}
# these look at the memory of their processes, or ask them for modules that are imported first
FRESH = ("archive.py", "memory.py", "volumes.py", "serving.py", "compare_tables.py")
VERDICTS = {"gate_simulation.py": (0, 1)}  # of one simulated test set, nothing follows
# lists a script's options instead of running it
LISTING = """
import argparse, json, runpy, sys
def listed(parser, *_args, **_more):
    print(json.dumps([word for action in parser._actions for word in action.option_strings[-1:] or [action.dest]]))
    raise SystemExit
argparse.ArgumentParser.parse_args = listed
sys.argv = [sys.argv[1]]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def write_trees(folder: Path) -> tuple[Path, Path]:
    """A tree laid out as UCSD, of four patterns that a network learns at once; and one of images at several depths."""
    ucsd, images = folder / "ucsd", folder / "images"
    rng, stripes = np.random.default_rng(3), np.where(np.arange(96) // 8 % 2, 190.0, 60.0)
    bases = (np.full((96, 96), 200.0), np.full((96, 96), 40.0), np.tile(stripes[:, None], (1, 96)), np.tile(stripes, (96, 1)))
    for place, (name, base) in enumerate(zip(CLASSES, bases, strict=True)):
        for part, patients in (("train", range(10)), ("test", range(10, 14))):
            where = ucsd / "CellData" / "OCT" / part / name
            where.mkdir(parents=True)
            for number in patients:
                for index in range(3):
                    pixels = np.clip(base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(where / f"{name}-{1000 * (place + 1) + number}-{index}.jpeg")
    for depth, source in enumerate(sorted((ucsd / "CellData" / "OCT" / "train").rglob("*-0.jpeg"))[::9]):
        target = images.joinpath(*("deep",) * (depth % 3), f"{depth}.jpeg")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return ucsd, images


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_trees(tmp_path_factory.mktemp("trees"))


def copied(made: Run, folder: Path) -> Path:
    """The run, as if `octc train` had made it."""
    path = Path(shutil.copytree(made.path, folder / made.id))
    pre, recipe = read_checkpoint(path / "train")[0].preprocess, smoke()
    student = replace(recipe.student, size=pre.size, resize=pre.resize, mean=pre.mean, std=pre.std)
    Run(path).update(recipe=asdict(replace(recipe, student=student)))
    return path


def ran(python: tuple[str, ...], words: list[str], place: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*python, *words], cwd=place, stdin=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_every_script_has_a_case() -> None:
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == {*CASES, *NO_SCRIPTS}


@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("*.py")))
def test_what_it_imports_of_octc_is_there(script: str) -> None:
    """Of those without a case too."""
    tree = ast.parse((FOLDER / script).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "octc":
            found = importlib.import_module(str(node.module))
            for one in node.names:
                assert hasattr(found, one.name) or find_spec(f"{node.module}.{one.name}"), (node.module, one.name)


@pytest.mark.slow
@pytest.mark.parametrize("script", [name for name in CASES if "ArgumentParser" in (FOLDER / name).read_text()])
def test_every_option_stands_in_a_case(script: str, warm: tuple[str, ...], tmp_path: Path) -> None:
    done = ran(warm, ["-c", LISTING, str(FOLDER / script)], tmp_path)
    assert done.returncode == 0, done.stderr
    options = {word for word in json.loads(done.stdout) if word.startswith("--")} - {"--help"}
    used = {word for case in CASES[script] for word in case.split() if word.startswith("--")}
    assert options == used | BY_ITSELF.get(script, set())


@pytest.mark.slow
@pytest.mark.parametrize(("script", "words"), [(name, case) for name, cases in CASES.items() for case in cases])
def test_it_runs(
    script: str, words: str, made: Run, trees: tuple[Path, Path], warm: tuple[str, ...], shared: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The processes that a script starts are forked too, but for those that it measures."""
    ucsd, images = trees
    if script not in FRESH:
        monkeypatch.setenv("WARM_PYTHON", str(shared / "bin" / "python"))
    run = copied(made, tmp_path) if "{run}" in words else made.path
    patterns = made.path.parent.parent / "patterns"
    given = [word.format(images=images, ucsd=ucsd, run=run, patterns=patterns) for word in words.split()]
    done = ran(warm, [str(FOLDER / script), *given], tmp_path)
    assert done.returncode in VERDICTS.get(script, (0,)), done.stdout[-2000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert done.stdout or "--work" in words


def test_training_takes_images_at_any_depth(trees: tuple[Path, Path], warm: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import sys, argparse\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\nimport training\n"
        "from accelerate import Accelerator\nfrom octc.imaging.preprocess import Preprocess\n"
        "root = Path(sys.argv[2])\nfiles = training.files_of(argparse.Namespace(data=root), root, 4)\n"
        "assert len({file.parent for file in files}) > 1\n"
        "work = training.Work(None, None, files, root, [0, 1, 2, 3], Path('.'), 1, 0, None)\n"
        "data, _ = training._data(work, Preprocess(32))\nprint(len(data.images), data.images.shape[-1])\n"
    )
    done = ran(warm, ["-c", code, str(FOLDER), str(trees[1])], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["4", "32"]
