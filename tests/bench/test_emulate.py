"""`octc verify --emulate`: golden images under other processors; a stand-in emulator runs as this machine, or crashes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octc.bench.parity.emulate import NATIVE, emulate, names_of
from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.compress.calibrate import observe, set_ranges
from octc.compress.placement import ACL, prepare, set_mode
from octc.core.errors import OctcError
from octc.core.progress import LogReporter
from octc.export.onnx.encoding import ENCODINGS, encode
from octc.export.onnx.float import write_onnx
from octc.export.openvino import MAIN, write_openvino
from octc.imaging.preprocess import Preprocess
from octc.machine.cpu import family_of
from octc.machine.emulated import HINT, PROCESSORS, emulated_flags, emulated_python
from octc.schemas.verification import VerifyOptions
from octc.store.artifacts import read_artifact
from octc.store.runs import Run
from octc.train.networks.models import normalise
from tests.compress.test_placement import random_network
from tests.schema_checks import validate
from tests.tiny_artifacts import shared_run

ROOT = Path(__file__).resolve().parents[2]


STAND_IN = 'exec -a "$4" "${@:5}"'  # runs Python as this machine does
IN_FOLDER = os.environ.get("EMULATION_FOLDER")
WANTED = "sh benchmarks/arm64_root.sh DIR, then EMULATION_FOLDER=DIR"


def put_emulator(folder: Path, text: str, version: str = "10.0.2") -> None:
    """A program called as qemu's, in front of all others."""
    folder.mkdir(exist_ok=True)
    for name in ("qemu-x86_64", "qemu-aarch64"):
        head = f'#!/bin/bash\nif [ "$1" = --version ]; then echo "{name} version {version} (Debian)"; exit; fi\n'
        (folder / name).write_text(f"{head}{text}\n")
        (folder / name).chmod(0o755)


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real qemu-user in PATH, and an arm64 root; there too octc is this checkout."""
    if IN_FOLDER is None:
        pytest.skip(f"no emulators here: {WANTED}")
    subprocess.run(["make", "-s", "links"], cwd=ROOT, check=True)
    monkeypatch.setenv("PATH", f"{IN_FOLDER}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / ".links"))
    return Path(IN_FOLDER) / "arm64"


def test_names_are_known_ones() -> None:
    assert names_of("x86-64-v3, aarch64,x86-64-v3") == ["x86-64-v3", "aarch64"]
    for text in ("x86-64-v9", "", ","):
        with pytest.raises(OctcError) as error:
            names_of(text)
        assert error.value.code == "OCT-E104"


@pytest.mark.parametrize("name", ["sample", "emulate_root"])
def test_what_belongs_to_an_emulation_is_refused_without_one(name: str) -> None:
    with pytest.raises(OctcError) as error:
        VerifyOptions(**{name: Path("somewhere")})
    assert (error.value.code, error.value.place) == ("OCT-E102", f"--{name.replace('_', '-')}")
    VerifyOptions(emulate="aarch64", **{name: Path("somewhere")})


def test_what_is_missing_is_said_with_how_to_get_it(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = made.artifacts / "onnx-int8"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(OctcError) as error:
        emulate(artifact, ["x86-64-v3"], None, LogReporter())
    assert (error.value.code, error.value.hint) == ("OCT-E903", HINT)
    put_emulator(tmp_path / "bin", "exit 139")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/bin")
    other = "aarch64" if family_of() == "x86" else "x86-64-v3"
    for root in (None, tmp_path):
        with pytest.raises(OctcError, match="no Python for"):
            emulate(artifact, [other], root, LogReporter())
    for version in ("7.2.22", "unknown"):
        put_emulator(tmp_path / "bin", "exit 139", version)
        with pytest.raises(OctcError, match=r"too old|its version") as error:
            emulate(artifact, [other], None, LogReporter())
        assert (error.value.code, error.value.hint) == ("OCT-E903", HINT)


def test_an_emulated_python_starts_itself_and_is_told_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sys.executable` of an emulated process is its emulator's script, the packages are this environment's, and no variable
    forces the kernels of the machine below."""
    put_emulator(tmp_path / "bin", STAND_IN)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    name = next(name for name, one in PROCESSORS.items() if one.family == family_of())
    python = emulated_python(name, None, tmp_path / "it")
    code = (
        "import json, os, subprocess, sys, numpy, octc\n"
        "words = [sys.executable, '-c', 'import os; print(os.environ[\"OCTC_EMULATED\"])']\n"
        "child = subprocess.run(words, capture_output=True)\n"
        "print(json.dumps([sys.executable, child.stdout.decode(), 'OPENBLAS_CORETYPE' in os.environ]))"
    )
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [str(python), f"{name} (qemu-user 10.0.2)\n", False]


def test_flags_are_those_of_the_emulated_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("sse4_2", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "amx_int8")
    assert emulated_flags(flags) == flags
    for name, kept in (("x86-64-v3", ("sse4_2", "avx2")), ("x86-64-v2", ("sse4_2",)), ("neoverse-n1", flags)):
        monkeypatch.setenv("OCTC_EMULATED", f"{name} (qemu-user 10.0.2)")
        assert emulated_flags(flags) == kept


@pytest.mark.parametrize("name", ["fleet", "pythons", "no-runs", "artifact", "."])
def test_an_artifact_may_have_any_name(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Those of the folders beside the copy too; the answers are made up, the copy, the documents and the matrix are real."""
    folder = tmp_path / "own" / name
    shutil.copytree(made.artifacts / "onnx-fp32", folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)

    def answered(_name: str, _python: Path, artifact: Path, place: Path, _sample: Path | None) -> dict[str, Any]:
        assert read_artifact(artifact).name == "onnx-fp32"
        assert sorted(path.name for path in place.iterdir()) == ["artifact", "fleet"]
        assert list((place / "fleet").iterdir()) == []
        return {"data": {"artifacts": []}, "error": {"code": "OCT-E901", "message": "seen", "help": None, "why": None}}

    monkeypatch.setattr("octc.bench.parity.emulate._verify", answered)
    with pytest.raises(OctcError, match="seen"):
        emulate(Path(name if name == "." else folder), [], None, LogReporter())


@pytest.mark.slow
def test_the_matrix_of_processors(
    made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stand-in passes its words on, and so answers as this machine does; one that crashes is an error with its cause."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    put_emulator(tmp_path / "bin", STAND_IN)
    artifact, log = str(made.artifacts / "onnx-int8"), made.path / "test-set.jsonl"
    read_before = log.read_bytes() if log.exists() else b""
    assert main(["verify", artifact, "--emulate", "x86-64-v2,x86-64-v3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    validate(document, schema_of("verify"))
    rows = {row["box"]: row for row in document["data"]["rows"]}
    assert set(rows) == {NATIVE, "x86-64-v2", "x86-64-v3"}
    assert {row["delta_over_s"] for row in rows.values()} == {0.0}
    assert {row["word"] for row in rows.values()} == {"golden_only"}  # no labelled image was read: the test set is not used
    assert (log.read_bytes() if log.exists() else b"") == read_before
    assert {row["labels"] for row in rows.values()} == {None}
    put_emulator(tmp_path / "bin", "echo 'qemu: uncaught target signal 11' >&2; exit 139")
    assert main(["verify", artifact, "--emulate", "x86-64-v3"]) == 4
    assert "signal 11" in capsys.readouterr().err


def sample_of(folder: Path, count: int = 24) -> Path:
    """Pictures of every class in a folder, and a file that is none."""
    folder.mkdir()
    pictures = sorted((shared_run().path.parent.parent / "patterns").rglob("*.png"))
    for path in pictures[:: len(pictures) // count][:count]:
        shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
    (folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.mark.slow
def test_a_sample_is_answered_by_every_processor(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures whose answers differ are counted beside the golden images; so is one that cannot be read there alone."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    put_emulator(tmp_path / "bin", STAND_IN)
    artifact, sample = made.artifacts / "onnx-fp32", sample_of(tmp_path / "sample", 6)
    found = emulate(artifact, ["x86-64-v3"], None, LogReporter(), sample=sample)
    assert {(row.labels, row.images) for row in found.rows} == {(0, 7)}
    otherwise = """'s/"label": "[a-z]*"/"label": "other"/'"""  # to every picture that it can read
    put_emulator(tmp_path / "bin", f'(exec -a "$4" "${{@:5}}") | sed {otherwise}; exit ${{PIPESTATUS[0]}}')
    found = emulate(artifact, ["x86-64-v3"], None, LogReporter(), sample=sample)
    assert [(row.labels, row.images, row.golden_labels) for row in found.rows] == [(0, 7, 0), (6, 7, 0)]
    (tmp_path / "nothing").mkdir()
    for place, code in ((tmp_path / "nothing", "OCT-E2"), (tmp_path / "absent", "OCT-E107")):
        with pytest.raises(OctcError) as error:
            emulate(artifact, ["x86-64-v3"], None, LogReporter(), sample=place)
        assert error.value.code.startswith(code)


@pytest.mark.slow
def test_the_farm_answers_as_this_machine(farm: Path, tmp_path: Path) -> None:
    """The real emulators: FP32, FP16 and INT8 in ONNX on an Arm core without f16 arithmetic and on x86 without VNNI."""
    run, sample = shared_run(), sample_of(tmp_path / "sample")
    for precision, most in (("fp32", 1e-5), ("fp16", 5e-3), ("int8", 0.05)):
        asked = sample if precision == "int8" else None
        found = emulate(run.artifacts / f"onnx-{precision}", ["aarch64", "x86-64-v3"], farm, LogReporter(), sample=asked)
        assert {(row.labels, row.images) for row in found.rows} == {(None, None) if asked is None else (0, 25)}
        rows = {row.box: row for row in found.rows}
        assert {row.short for row in found.rows} == {None}
        assert rows["aarch64"].engine["cpu_isa"] == "arm-neon"
        assert rows["x86-64-v3"].engine["cpu_isa"] == "x86-avx2"
        assert max(row.delta_over_s or 0.0 for row in found.rows) <= most
        assert {row.golden_labels for row in found.rows} == {0}


@pytest.mark.slow
def test_doctor_and_predict_on_an_emulated_core(farm: Path, tmp_path: Path) -> None:
    python = emulated_python("neoverse-n1", farm, tmp_path / "it")
    words = [str(python), "-m", "octc.cli._app.main"]
    done = subprocess.run([*words, "doctor", "--json"], capture_output=True, text=True, check=False, cwd=tmp_path)
    checks = json.loads(done.stdout)["data"]["checks"]
    texts = " ".join(one["text"] for one in checks)
    assert "emulated: neoverse-n1 (qemu-user" in texts
    assert "Arm with f16 and dot product" in texts
    assert "onnxruntime" in texts
    artifact = shared_run().artifacts / "onnx-int8"
    pictures = sorted((shared_run().path.parent.parent / "patterns").rglob("*.png"))[:3]
    asked = ["predict", str(artifact), *map(str, pictures), "--json"]
    answers = []
    for command in ([sys.executable, *words[1:]], words):
        done = subprocess.run([*command, *asked], capture_output=True, text=True, check=True, cwd=tmp_path)
        answers.append([one["label"] for one in json.loads(done.stdout)["data"]["records"]])
    assert answers[0] == answers[1]


DENSE = {"tf_efficientnet_lite0": (33, 16), "mobilenetv4_conv_small": (30, 16)}  # dense on maps, and all others


@pytest.mark.slow
@pytest.mark.parametrize("name", DENSE)
def test_every_dense_convolution_of_openvino_is_int8_on_arm(farm: Path, tmp_path: Path, name: str) -> None:
    """The network of `--cpu arm` compiles with and without f16 arithmetic, and its kernels are those that are promised.

    Its weights are random, so its answers are no measure: one code more or less grows from layer to layer.
    """
    module = prepare(random_network(name), 64, placement=ACL)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 1, 64, 64), dtype=np.uint8))
    observe(module, lambda: [normalise(images, Preprocess(64))])
    set_ranges(module, "max")
    set_mode(module, "on")
    write_onnx(encode(module, ENCODINGS["acl"], opset=20), Preprocess(64), tmp_path / "m.onnx", 20)
    write_openvino(tmp_path / "m.onnx", tmp_path, half=False)
    code = (
        "import json, sys; import openvino; from octc.runtimes.openvino import layer_precisions\n"
        "core = openvino.Core(); model = core.read_model(sys.argv[1]); model.reshape([1, 1, 64, 64])\n"
        "compiled = core.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
        "print(json.dumps(layer_precisions(compiled.get_runtime_model())))"
    )
    for core in ("cortex-a72", "neoverse-n1"):
        python = emulated_python(core, farm, tmp_path / core)
        words = [str(python), "-c", code, str(tmp_path / MAIN)]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert json.loads(done.stdout) == {"int8": DENSE[name][0], "fp32": DENSE[name][1]}


@pytest.mark.slow
def test_an_artifact_that_does_not_open_there_is_a_row(farm: Path) -> None:
    """onnxruntime has no f16 AveragePool in the layout that it takes on an Arm core with f16 arithmetic."""
    found = emulate(shared_run().artifacts / "onnx-fp16", ["neoverse-n1"], farm, LogReporter())
    assert [row.box for row in found.rows] == [NATIVE, "neoverse-n1"]
    assert found.rows[1].word == "refused"
    assert "OCT-E" in str(found.rows[1].short)
    assert [error.code for error in found.errors] == ["OCT-E506"]
