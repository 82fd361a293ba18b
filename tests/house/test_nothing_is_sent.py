"""Nothing is sent: every command in a network that records what is asked for, with a home folder that nobody has used before.

Onnxruntime from 1.29.0 and OpenVINO talk as soon as they are imported, from native code and from threads, where the audit hook
of `--offline` sees nothing; so each command is watched from outside its process (tests/recorder.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from octc.cli._app.commands import COMMANDS
from octc.core.telemetry import DEPENDENCIES, SWITCHES
from tests.house.tree import ROOT, files, imports
from tests.recorder import NOT_PERMITTED
from tests.tiny_run import trained_run

RECORDER = ROOT / "tests" / "recorder.py"
JUDGED = (0, 1)  # a verdict on so few images is no fault
# torch makes this folder when it is imported, and leaves it empty; a file in it would be seen
EMPTY = re.compile(r"/tmp/torchinductor_\w+/")

# octc's own cache of compiled networks (docs/usage.md)
COMPILED = re.compile(r"\.cache/(octc/(compiled/([0-9a-f]{64}\.compiled)?)?)?")

# commands in their order: what a later one needs, an earlier one wrote; the images are drawn, the networks are the smallest.
# RUN is a student that knows its images and takes a second to export, ARTIFACTS what is exported of it
RUN = "r-0001-student-folder"
ARTIFACTS = f"runs/{RUN}/artifacts"
SHORT = "--quick --max-duration 1s --duration 0.1s --min-queries 4"
STEPS: dict[str, tuple[int, ...]] = {
    "doctor": (0, 4),  # 4: this machine may be short of something
    "data synthetic --images 12": (0,),
    "data list": (0,),
    "data check phantom": (0,),
    "data audit phantom": (0,),
    "data split phantom": (0,),
    "data stats phantom": (0,),
    "data fetch ucsd --offline": (4,),
    "data synthetic-volumes clinic --patients 1 --frames 2": (0,),
    "data volume clinic/SYN-0000-R-0.dcm": (0,),
    "data convert clinic/SYN-0000-R-0.dcm -o pictures --to png": (0,),
    "train student --dataset phantom --recipe smoke --with-teacher --any-teacher --epochs 1": (0,),
    "eval": (0,),
    "eval --maps 2 --split test": (0,),
    "export --target all --no-gate --allow-fallback": (0,),
    "analyze": (0,),
    "ptq": JUDGED,
    "simplify --prune 0.3 --dry-run": (0,),
    "export RUN --target all": (0,),
    "analyze RUN": (0,),
    "ptq RUN": JUDGED,
    "lint ARTIFACTS/onnx-int8/model.onnx --target onnx": JUDGED,
    "verify RUN --set select --bootstrap 1000": JUDGED,
    f"bench ARTIFACTS/onnx-int8 ARTIFACTS/openvino-int8 ARTIFACTS/torch-fp32 --vs none --batch 1 {SHORT}": JUDGED,
    f"bench --scenario offline --batch 2 --vs none ARTIFACTS/onnx-int8 {SHORT}": JUDGED,
    "bench RUN --dry-run": (0,),
    "predict Dataset/phantom/CellData/OCT/test/CNV": (0,),
    "predict ARTIFACTS/onnx-int8 Dataset/phantom/CellData/OCT/test/CNV --offline --json": (0,),
    "predict ARTIFACTS/openvino-int8 Dataset/phantom/CellData/OCT/test/CNV": (0,),
    "predict ARTIFACTS/onnx-int8 Dataset/phantom/CellData/OCT/test/CNV --out rows --workers 1 --anyway": (0,),
    "predict ARTIFACTS/onnx-int8 Dataset/phantom/CellData/OCT/test/CNV --out ray --workers 1 --anyway --engine ray": (0,),
    "results rows --where confidence>0.5": (0,),
    "compare ARTIFACTS/onnx-fp32 ARTIFACTS/openvino-int8 --split select": JUDGED,
    "report RUN --sbom": (0,),
    "abstain ARTIFACTS/onnx-int8 --sets lac --coverage 90": JUDGED,
    "threshold ARTIFACTS/onnx-int8 --refer 20": JUDGED,
    "monitor ARTIFACTS/onnx-int8 --learn": (0,),
    "predict ARTIFACTS/onnx-int8 Dataset/phantom/CellData/OCT/test/CNV --monitor seen.sqlite": (0,),
    "monitor ARTIFACTS/onnx-int8 seen.sqlite": JUDGED,
    "dossier ARTIFACTS/onnx-fp32 ARTIFACTS/onnx-int8": (0,),
    "artifact licences ARTIFACTS/onnx-int8": (0,),
    "data overlap Dataset/phantom Dataset/phantom": (1,),
    (
        'import ARTIFACTS/onnx-fp32/model.onnx --preprocess {"size":64,"channels":1,"mean":[0,0,0],"std":[1,1,1]} '
        "--classes bright,dark,lying,upright --out theirs"
    ): (0,),
    "artifact sign ARTIFACTS/onnx-int8 --key key.pem": (0,),
    "artifact verify ARTIFACTS/onnx-int8 --key key.pub.pem": (0,),
    "serve ARTIFACTS/onnx-int8 --port 0 --grpc-port 0 --check": (0,),
    "weights convert runs/r-0003-student-phantom/train/model.safetensors -o theirs.safetensors": (0,),
    "serve-config triton ARTIFACTS/onnx-int8 -o served": (0,),
    "list": (0,),
    "runs list": (0,),
    "runs show r-0001": (0,),
    "runs prune": (0,),
    "choose RUN": JUDGED,
    "explain OCT-E990": (0,),
    "completion bash": (0,),
    "config init": (0,),
    "config show": (0,),
    "config validate": (0,),
    "data patients Dataset/phantom --patient-from name": (0,),
    "data paired-synthetic --patients 8": (0,),
    "train retnet-teacher --dataset paired-phantom --modality fundus --recipe retnet-smoke --epochs 1": (0,),
    "train retnet-student --any-teacher --dataset paired-phantom --modality oct --recipe retnet-smoke --epochs 1": (0,),
    "train teacher --dataset phantom --recipe smoke --epochs 1": (0,),
    "search --budget 9s --dataset phantom --recipe smoke --teacher none --dry-run": (0, 4),
}


@dataclass(frozen=True)
class Seen:
    """What a command asked for and left outside its folder. home: paths below its home folder; a folder ends with a slash."""

    code: int
    names: list[str]
    packets: list[str]
    left: list[str]
    home: list[str]
    said: str


Watch = Callable[..., Seen]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a user who set nothing: no switch of this test process."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    plain = {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
             "OMP_WAIT_POLICY": "PASSIVE"}  # fmt: skip
    return {**plain, **more}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands are watched: `cwd` with a pair of keys and a run in it, and their home folders."""
    scratch = tmp_path_factory.mktemp("watched")
    key = Ed25519PrivateKey.generate()
    (scratch / "cwd").mkdir()
    (scratch / "cwd" / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (scratch / "cwd" / "key.pub.pem").write_bytes(public)
    shutil.copytree(trained_run().path, scratch / "cwd" / "runs" / RUN)
    return scratch


def recorded(scratch: Path, command: list[str], given: dict[str, str]) -> tuple[Any, str]:
    """What the recorder reports of a command, and what that said."""
    report = scratch / f"report-{len(list(scratch.glob('report-*')))}.json"
    folders = (scratch, ROOT, Path(sys.prefix), Path(sys.base_prefix), *BASES)
    kept = [word for folder in folders for word in ("--keep", str(folder))]
    done = subprocess.run(
        [sys.executable, str(RECORDER), str(report), *kept, "--", *command],
        cwd=scratch / "cwd", env=given, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    if done.returncode == NOT_PERMITTED:
        pytest.skip(f"no network namespace on this machine: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return json.loads(report.read_text()), done.stdout + done.stderr


def fresh_home(scratch: Path) -> Path:
    home = scratch / f"home-{len(list(scratch.glob('home-*')))}"
    home.mkdir()
    return home


def seen_of(found: dict[str, Any], said: str, home: Path) -> Seen:
    below = sorted(f"{path.relative_to(home)}{'/' if path.is_dir() else ''}" for path in home.rglob("*"))
    return Seen(found["code"], found["names"], found["packets"], found["left"], below, said)


@pytest.fixture(scope="module")
def watched(scratch: Path) -> Watch:
    """Run a command in a fresh interpreter, with a fresh home folder, and say what it did."""

    def watch(command: list[str], **more: str) -> Seen:
        home = fresh_home(scratch)
        found, said = recorded(scratch, command, environment(home, **more))
        return seen_of(found, said, home)

    return watch


# folders outside the environment from which Python imports
BASES = tuple(Path(name) for name in sys.path if name and Path(name).is_dir() and not Path(name).is_relative_to(ROOT))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


# the key by which processes of a cluster of Ray know each other, which Ray makes in the home folder and sends nowhere
KEPT = {"--engine ray": [".ray/", ".ray/auth_token"]}


def silent(seen: Seen, kept: Sequence[str] = ()) -> None:
    assert seen.names == [], seen.said[-2000:]
    assert seen.packets == [], seen.said[-2000:]
    assert [name for name in seen.home if name not in kept and not COMPILED.fullmatch(name)] == []
    assert [name for name in seen.left if not EMPTY.fullmatch(name)] == []


TALK = """
import os, socket, tempfile
try:
    socket.getaddrinfo("octc.invalid", 443)
except OSError:
    pass
for family, address in ((socket.AF_INET, "192.0.2.7"), (socket.AF_INET6, "2001:db8::7")):
    talking = socket.socket(family)
    talking.settimeout(0.2)
    try:
        talking.connect((address, 443))
    except OSError:
        pass
open(os.path.expanduser("~/file"), "w")
open(os.path.join(tempfile.gettempdir(), "other"), "w")
"""


def test_the_recorder_sees_names_packets_and_files(watched: Watch) -> None:
    seen = watched(python(TALK))
    assert seen.names == ["octc.invalid"]
    assert "192.0.2.7" in seen.packets
    assert seen.home == ["file"]
    assert seen.left == ["/tmp/other"]


ENGINE = """
import time
from octc.runtimes.probe import smallest_onnx
import onnxruntime
onnxruntime.InferenceSession(smallest_onnx(8, 13))
time.sleep({seconds})
"""


@pytest.mark.slow
def test_onnxruntime_after_octc_is_silent_whatever_the_user_has_set(watched: Watch) -> None:
    silent(watched(python(ENGINE.format(seconds=8)), ORT_DISABLE_TELEMETRY="0"))


IMPORTING = """
import importlib, time
import octc
for name in {names!r}:
    try:
        importlib.import_module(name)
    except ImportError:
        print("absent", name)
time.sleep(4)
"""


@pytest.mark.slow
@pytest.mark.parametrize("sends", [True, False])
def test_dependencies_that_are_imported_after_octc_are_silent(sends: bool, watched: Watch) -> None:
    """Those that would talk, and those of which nothing was seen, each kind in a process; what they import is shared."""
    names = [one.module for one in DEPENDENCIES if bool(one.sends) == sends]
    seen = watched(python(IMPORTING.format(names=names)))
    assert seen.code == 0, seen.said[-2000:]
    silent(seen)
    absent = set(re.findall(r"^absent (\S+)$", seen.said, re.M))
    assert not [name for name in absent if find_spec(name)]


@pytest.mark.slow
def test_a_dependency_without_octc_does_talk(watched: Watch) -> None:
    """Else the tests here would prove nothing: what is switched off is really there in the versions that are tested."""
    seen = watched(python("import openvino"))
    assert seen.names or seen.home


@pytest.fixture(scope="module")
def seen(scratch: Path) -> dict[str, Seen]:
    """What each command did: one after the other in one folder, each with a home folder of its own.

    "" is the process from which they are forked (tests/warm.py): it imports every module of octc and every engine, and is
    watched as they are, with a home folder of its own until the last command has ended.
    """
    warm, line = str(ROOT / "tests" / "warm.py"), str(scratch / "line")
    commands = {"": [sys.executable, warm, "serve", line]}
    for words in STEPS:
        given = words.replace("ARTIFACTS", ARTIFACTS).replace("RUN", RUN).split()
        commands[words] = [sys.executable, "-SEs", warm, line, "-m", "octc.cli._app.main", *given]
    homes = {words: fresh_home(scratch) for words in commands}
    steps = [{"command": command, "env": environment(homes[words])} for words, command in commands.items()]
    (scratch / "steps.json").write_text(json.dumps(steps))
    found, _ = recorded(scratch, ["--each", str(scratch / "steps.json")], environment(fresh_home(scratch)))
    return {words: seen_of(one, one["said"], homes[words]) for words, one in zip(commands, found, strict=True)}


@pytest.mark.slow
def test_everything_that_octc_imports_is_silent(seen: dict[str, Seen]) -> None:
    silent(seen[""])
    assert seen[""].code == 0, seen[""].said[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(("words", "codes"), STEPS.items(), ids=STEPS)
def test_a_command_is_silent(words: str, codes: tuple[int, ...], seen: dict[str, Seen]) -> None:
    silent(seen[words], next((kept for option, kept in KEPT.items() if option in words), ()))
    assert seen[words].code in codes, seen[words].said[-3000:]


def test_every_command_is_watched() -> None:
    names = {command.name for command in COMMANDS}
    assert names == {name for name in names if any(f"{words} ".startswith(f"{name} ") for words in STEPS)}


def test_no_file_of_the_house_imports_a_talker_before_octc() -> None:
    """Files of the packages come after octc/__init__.py, tests after tests/conftest.py; a script has to see to it."""
    talkers = {one.module for one in DEPENDENCIES if one.sends}
    wrong = []
    for path in (path for path in files() if path.is_relative_to(ROOT / "benchmarks") and path.suffix == ".py"):
        ordered = sorted((line, module.split(".")[0]) for module, line, top, _ in imports(path) if top)
        first = next((line for line, module in ordered if module == "octc"), 0)
        wrong += [f"{path.name}:{line} {module}" for line, module in ordered if module in talkers and not 0 < first < line]
    assert not wrong


def test_the_versions_that_were_watched_are_those_that_are_tested() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==([^;\s]+)", (ROOT / "constraints.txt").read_text(), re.M))
    plain = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for one in DEPENDENCIES:
        assert plain[one.names[0]] in one.seen, one.names[0]
    text = (ROOT / "docs" / "privacy.md").read_text()
    for one in DEPENDENCIES:
        row = next(line for line in text.splitlines() if line.startswith(f"| {one.names[0]} "))
        assert all(version in row for version in one.seen), row
        assert all(f"`{name}={value}`" in row for name, value in one.switches.items()), row


CHILD = """
import subprocess, sys, octc
subprocess.run([sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"])
"""


def test_a_child_of_octc_has_the_switches_whatever_the_user_has_set(tmp_path: Path) -> None:
    given = environment(tmp_path, **dict.fromkeys(SWITCHES, "0"))
    done = subprocess.run(python(CHILD), env=given, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout).items() >= SWITCHES.items()


def test_a_dependency_that_was_there_first_is_named_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import onnxruntime; import octc"
    done = subprocess.run(python(code), env=environment(tmp_path), capture_output=True, text=True, check=True)
    assert "onnxruntime" in done.stderr
    assert "ORT_DISABLE_TELEMETRY=1" in done.stderr
