"""Every command where one extra alone is installed: its result, or the pip line that it needs; never an internal error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from octc.cli._app.commands import COMMANDS
from octc.store.runs import Run
from tests.house.tree import ROOT, pyproject
from tests.packaging.extras_probe import absent, brought
from tests.paired_set import write_pairs
from tests.tiny_artifacts import shared_run

PROBE = Path(__file__).with_name("extras_probe.py")
ARTIFACTS = "runs/r-0001-student-folder/artifacts"
# what has torch in it takes longer to import than all other tests of a file together
HEAVY = ("all", "baselines", "export", "litert-export", "octmnist", "prune", "ptq", "train")
ELSEWHERE = ("dev", "weights", "tensorrt", "trt-oracle")  # they bring no module that a command asks for by itself
# (extra that suffices, "" for none; words; exit codes of a result there)
Line = tuple[str, str, tuple[int, ...]]
RETNET = "--dataset paired-phantom --data eyes --modality oct --recipe retnet-smoke --dry-run"
LINES: tuple[Line, ...] = (
    ("", "data list", (0,)),
    ("", "data check folder --data patterns", (0,)),
    ("", "data audit folder --data patterns --near-duplicates warn", (0,)),
    ("octmnist", "data fetch octmnist --offline", (4,)),
    ("", "data fetch neh --offline", (4,)),
    ("", "data fetch ucsd --from nothing.zip", (3,)),
    ("", "data synthetic drawn --images 4", (0,)),
    ("", "data paired-synthetic eyes --patients 8", (0,)),
    ("", "data patients folder --data patterns --patient-from folder", (0,)),
    ("export", "import nowhere.onnx --preprocess {} --classes a,b", (2,)),
    ("", "data synthetic-volumes clinic --format vol,fda --patients 1 --frames 2", (0,)),
    ("", "data volume clinic/SYN-0000-R-0.vol", (0,)),
    ("clinic", "data convert clinic/SYN-0000-R-0.vol -o out.dcm", (0,)),
    ("", "data split folder --data patterns --folds 3 -o folds", (0,)),
    ("", "data stats folder --data patterns", (0,)),
    ("train", "train teacher --dataset folder --data patterns --recipe smoke --dry-run", (0,)),
    ("train", "train student --dataset folder --data patterns --recipe smoke --teacher none --dry-run", (0,)),
    ("train", "train student --dataset folder --data patterns --recipe smoke --teacher none --folds 3 --dry-run", (0,)),
    ("train", f"train retnet-teacher {RETNET}", (0,)),
    (
        "train",
        f"train retnet-student {RETNET} --teacher none",
        (0,),
    ),
    ("export", "search --budget 9s --dataset folder --data patterns --recipe smoke --teacher none --dry-run", (0, 4)),
    ("train", "eval --maps 1", (0,)),
    ("train", "eval --split test --tta hflip --average logits", (0,)),
    ("train", "compare r-0001 r-0001", (0,)),
    ("ort", f"compare {ARTIFACTS}/onnx-fp32 {ARTIFACTS}/onnx-fp16", (0,)),
    ("openvino", f"compare {ARTIFACTS}/openvino-int8 {ARTIFACTS}/openvino-fp16", (0,)),
    ("train", f"compare r-0001 {ARTIFACTS}/torch-fp32", (0,)),
    ("export", "export --target onnx --fp32 --dry-run --force", (0,)),
    ("export", "export --target onnx --fp32 --force", (0,)),
    ("export", "export --target torch --force", (0,)),
    ("litert-export", "export --target litert --fp32 --force", (0,)),
    ("export", "export --target onnx --int8 --ptq onnxruntime --dry-run --force", (0,)),
    ("ptq", "export --target onnx --int8 --ptq nncf --dry-run --force", (0,)),
    ("ptq", "export --target onnx --int8 --ptq modelopt --dry-run --force", (0,)),
    ("export", "export --target tensorrt --int8 --dry-run --force", (0,)),
    ("export", "export --target onnx --int8 --temperature --dry-run --force", (0,)),
    ("train", "analyze", (0, 3)),
    ("prune", "simplify r-0001 --prune 0.5 --dry-run", (2,)),  # the run keeps no recipe
    ("export", "ptq --target onnx", (0,)),
    ("export", f"lint {ARTIFACTS}/onnx-int8/model.onnx --target onnx", (0, 1)),
    ("export", f"lint {ARTIFACTS}/onnx-fp32/model.onnx --fix --force", (0, 1)),
    ("export", f"verify {ARTIFACTS}/onnx-int8 --data patterns --bootstrap 1000", (0, 1)),
    ("export", f"verify {ARTIFACTS}/onnx-fp32 --data patterns --bootstrap 1000 --robustness", (0, 1)),
    ("all", f"verify {ARTIFACTS}/openvino-fp16 --data patterns --bootstrap 1000", (0, 1)),
    ("train", f"verify {ARTIFACTS}/torch-fp32 --data patterns --bootstrap 1000", (0, 1)),
    ("", f"verify {ARTIFACTS}/tensorrt-int8 --on-device", (4, 5)),  # 5: the linter is there too, and finds something
    ("ort", f"bench {ARTIFACTS}/onnx-fp32 --dry-run --vs none", (0,)),
    ("openvino", f"bench {ARTIFACTS}/openvino-fp16 --dry-run --vs none", (0,)),
    ("train", f"bench {ARTIFACTS}/torch-fp32 --dry-run --vs none", (0,)),
    ("", "bench --compare one.json other.json", (2,)),
    ("", "data overlap patterns patterns", (1,)),
    ("", f"artifact licences {ARTIFACTS}/onnx-fp32", (0,)),
    ("", f"dossier {ARTIFACTS}/onnx-fp32 {ARTIFACTS}/onnx-fp16", (0,)),
    ("ort", f"abstain {ARTIFACTS}/onnx-int8 --sets lac --coverage 90 --data patterns --force", (0, 1)),
    ("export", f"threshold {ARTIFACTS}/onnx-int8 --refer 20 --data patterns --force", (0, 1)),
    ("ort", f"monitor {ARTIFACTS}/onnx-int8 --learn --data patterns", (0,)),
    ("", f"report {ARTIFACTS}/onnx-fp32", (0,)),
    ("", f"report {ARTIFACTS}/onnx-fp32 --md --redact-ids", (0,)),
    ("", f"report {ARTIFACTS}/openvino-int8 --html --sbom --checklist claim", (0,)),
    ("sign", f"artifact sign {ARTIFACTS}/onnx-fp16 --key nothing.pem", (2, 3)),
    ("sign", f"artifact verify {ARTIFACTS}/onnx-fp16", (0, 2, 3)),
    ("all", f"serve {ARTIFACTS}/onnx-int8 --port 0 --grpc-port 0 --check", (0,)),
    ("", f"serve-config triton {ARTIFACTS}/onnx-fp32 -o served", (0,)),
    ("ort", f"predict {ARTIFACTS}/onnx-int8 patterns/bright --tta hflip", (0,)),
    ("openvino", f"predict {ARTIFACTS}/openvino-int8 patterns/bright --format csv", (0,)),
    ("train", f"predict {ARTIFACTS}/torch-fp32 patterns/bright", (0,)),
    ("", "results nowhere", (2,)),  # only what is there needs a reader of Parquet
    ("train", "weights convert nowhere.pth", (4,)),
    ("", "list", (0,)),
    ("", "list recipes", (0,)),
    ("", "doctor --target jetson", (0, 4)),
    ("", "runs list", (0,)),
    ("", "runs show r-0001", (0,)),
    ("", "runs prune", (0,)),
    ("", "choose", (0, 1)),  # 1: nothing that is here runs there
    ("", "explain OCT-E901", (0,)),
    ("", "completion bash", (0,)),
    ("", "config show --origins", (0,)),
    ("yaml", "config show --config a.yaml", (0,)),
    ("", "config init new.toml", (0,)),
    ("", "config validate", (0,)),
)
# for every extra: what others read, and some of every kind, since another package that is installed may change what is found
EVERYWHERE = (
    "data synthetic-volumes",
    "list",
    "doctor",
    "data check",
    f"report {ARTIFACTS}/onnx-fp32",
    "choose",
)
EXTRAS = [name for name in ("", *pyproject()["project"]["optional-dependencies"]) if name not in ELSEWHERE]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the extras for which `data paired-synthetic` is not called."""
    return write_pairs(tmp_path_factory.mktemp("drawn") / "eyes")


def place_of(run: Run, folder: Path, eyes: Path | None) -> Path:
    """A copy of the images and of the run, to write to."""
    base = run.path.parent.parent
    if eyes is not None:
        shutil.copytree(eyes, folder / "eyes")
    shutil.copytree(base / "patterns", folder / "patterns")
    shutil.copytree(base / "runs", folder / "runs")
    (folder / "a.yaml").write_text("train:\n  epochs: 3\n")
    return folder


def lines_of(extra: str) -> list[Line]:
    """What is asked where one extra is installed: what suffices there alone, and what lacks something.

    A command whose own extra is a part of this one has its result there, and again where everything is installed: in the
    tests of that command.
    """
    there = brought(extra)
    return [line for line in LINES if line[0] == extra or not brought(line[0]) <= there or line[1].startswith(EVERYWHERE)]


def judge(line: Line, suffices: bool, code: int, error: dict[str, Any] | None, said: str) -> str | None:
    """What is wrong with an answer; None where nothing is."""
    _, words, results = line
    if code == 70:
        return f"octc {words}: {error}"
    if suffices:
        missing = (error or {}).get("code") == "OCT-E901"
        return None if code in results and not missing else f"octc {words}: {code}, {results} expected\n{said}"
    line_is_there = error is not None and error["code"] == "OCT-E901" and error["help"].startswith("pip install 'octc[")
    return None if code == 4 and line_is_there else f"octc {words}: {code} without the pip line\n{said}"


def test_every_line_has_its_result_somewhere() -> None:
    assert {line for extra in EXTRAS for line in lines_of(extra) if line[0] == extra} == set(LINES)
    assert all(any(words.startswith(one) for _, words, _ in LINES) for one in EVERYWHERE)


def test_every_command_stands_in_the_list() -> None:
    absent = [
        command.name for command in COMMANDS if not any(f"{words} ".startswith(f"{command.name} ") for _, words, _ in LINES)
    ]
    assert not absent


@pytest.mark.parametrize(
    "extra", [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else [], id=name or "base") for name in EXTRAS]
)
def test_with_one_extra_alone_it_is_the_result_or_the_pip_line(
    extra: str, made: Run, eyes: Path, tmp_path: Path
) -> None:  # fmt: skip
    lines = lines_of(extra)
    drawn = any(words.startswith("data paired-synthetic") for _, words, _ in lines)
    folder = place_of(made, tmp_path, None if drawn else eyes)
    given = {"hidden": sorted(absent(extra)), "commands": [words.split() for _, words, _ in lines]}
    done = subprocess.run(
        [sys.executable, str(PROBE)], cwd=folder, input=json.dumps(given),
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    answers = [json.loads(row) for row in done.stdout.splitlines()]
    assert len(answers) == len(lines), done.stderr
    there = brought(extra)
    wrong = [
        judge(line, brought(line[0]) <= there, *answer) for line, answer in zip(lines, answers, strict=True)
    ]  # fmt: skip
    assert not [text for text in wrong if text], "\n".join(text for text in wrong if text)
