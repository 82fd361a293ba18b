"""Build in a process, what can go wrong with it, the fallback, and who builds: real processes, a stand-in of TensorRT."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octc.core.errors import OctcError
from octc.runtimes.tensorrt import process as trt_process
from octc.runtimes.tensorrt.build import build_engine, read_plans
from octc.runtimes.tensorrt.process import Backend, Ran, find_backend, run_process, run_trtexec, run_worker
from octc.schemas.tensorrt_plan import BuildPlan, PlannedFiles, both_typings, plans_text
from tests.runtimes.trt_world import World

NO_KERNEL = "Error Code 10: Could not find any implementation for node {name} + PWN(PWN(gate), silu)."


def layers(**precisions: str) -> str:
    rows = [
        {"Name": name, "LayerType": "CaskConvolution", "Inputs": [{"Name": "x", "Format/Datatype": kind}], "Metadata": ""}
        for name, kind in precisions.items()
    ]
    return json.dumps({"Layers": rows})


def scripted(*steps: Any) -> Backend:
    """A backend that does what each step says: an error text, an outcome, or the layers of an engine."""
    left = list(steps)

    def run(folder: Path, plan: BuildPlan, command: str) -> Ran:
        assert command == "build"
        said = left.pop(0)
        if isinstance(said, tuple):
            return Ran(said[0], said[1], 1.0, 100, said[1])
        (folder / plan.output).write_bytes(b"engine")
        (folder / plan.layers).write_text(said)
        return Ran("ok", "", 1.0, 100, "", {"dequantized": list(plan.dequantize)})

    return Backend("worker", "10.3.0", "tensorrt", run)


GOOD = layers(conv_1="Int8", conv_2="Int8")


def test_what_was_promised_is_there(tmp_path: Path) -> None:
    built = build_engine(tmp_path, World(tmp_path, "10.3.0").plan(), scripted(GOOD))
    assert not built.fell_back
    assert built.layers.counts() == {"int8": 2}


def test_x10_silent_float_is_a_failure_without_allowed_fallback(tmp_path: Path) -> None:
    plan = World(tmp_path, "10.3.0").plan()
    with pytest.raises(OctcError, match="1 convolutions do not run in INT8: conv_2") as caught:
        build_engine(tmp_path, plan, scripted(layers(conv_1="Int8", conv_2="Half")))
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E406", 1)
    assert not list(tmp_path.glob("*.engine"))


def test_the_fallback_is_walked_and_recorded_only_where_it_is_allowed(tmp_path: Path) -> None:
    world = World(tmp_path, "10.3.0")
    plan, fp16 = replace(world.plan(), depthwise=("conv_2",)), world.plan("fp16")
    failed = ("failed", NO_KERNEL.format(name="conv_1"))
    with pytest.raises(OctcError, match="Could not find any implementation") as caught:
        build_engine(tmp_path, plan, scripted(failed))
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E407", 5)
    said: list[str] = []
    built = build_engine(
        tmp_path, plan, scripted(failed, layers(conv_1="Half", conv_2="Int8")), allow_fallback=True, say=said.append
    )
    assert built.fell_back
    assert [a.rung for a in built.attempts] == ["as planned", "conv_1 in float"]
    assert (built.plan.dequantize, built.plan.promised) == (("conv_1",), ("conv_2",))
    assert len(said) == 1
    again = build_engine(
        tmp_path, plan, scripted(failed, ("failed", "something else"), ("failed", "still"), layers(conv_1="Half")), fp16=fp16,
        allow_fallback=True,
    )  # fmt: skip
    assert [a.rung for a in again.attempts] == [
        "as planned", "conv_1 in float", "1 depthwise convolutions in float", "FP16 engine",
    ]  # fmt: skip
    assert again.plan.precision == "fp16"


def test_the_fallback_ends(tmp_path: Path) -> None:
    world = World(tmp_path, "10.3.0")
    nothing = ("failed", "no reason")
    with pytest.raises(OctcError, match="no reason"):
        build_engine(tmp_path, world.plan(), scripted(nothing, nothing), fp16=world.plan("fp16"), allow_fallback=True)


@pytest.mark.parametrize(("outcome", "code", "word"), [
    ("timed out", "OCT-E407", "workspace_mb"), ("killed", "OCT-E407", "workspace_mb"), ("crashed", "OCT-E407", "octc lint"),
    ("environment", "OCT-E903", "octc doctor"), ("bad plan", "OCT-E409", "octc export"),
])  # fmt: skip
def test_x11_every_outcome_has_its_own_words(tmp_path: Path, outcome: str, code: str, word: str) -> None:
    with pytest.raises(OctcError) as caught:
        build_engine(tmp_path, World(tmp_path, "10.3.0").plan(), scripted((outcome, "cause"), (outcome, "cause")))
    assert caught.value.code == code
    assert word in caught.value.hint
    assert "cause" in caught.value.message


def test_x11_real_processes_time_out_crash_and_are_killed(tmp_path: Path) -> None:
    def run(code: str, seconds: float = 60) -> int | None:
        return run_process([sys.executable, "-c", code], tmp_path, tmp_path / "log", seconds)[0]

    started = time.monotonic()
    assert run("import time; print('alive', flush=True); time.sleep(600)", 1) is None
    assert time.monotonic() - started < 60
    assert (tmp_path / "log").read_text().strip() in ("", "alive")
    assert run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)") == -9
    assert run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)") == -11
    assert run("raise SystemExit(2)") == 2
    heavy = "import time; x = bytearray(b'1' * (60 << 20)); time.sleep(1)"
    assert run_process([sys.executable, "-c", heavy], tmp_path, tmp_path / "log", 60)[2] > 50


def test_the_worker_as_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, "10.3.0", settings={"information": GOOD})
    for name, value in world.environ().items():
        monkeypatch.setenv(name, value)
    built = build_engine(tmp_path, world.plan(), Backend("worker", "10.3.0", "tensorrt", run_worker))
    assert built.layers.counts() == {"int8": 2}
    assert built.attempts[0].peak_rss_mib > 5
    assert not list(tmp_path.glob("*.plan.json"))
    monkeypatch.setenv("FAKE_TRT", json.dumps({**json.loads(os.environ["FAKE_TRT"]), "builds": False}))
    with pytest.raises(OctcError, match="returned nothing and said nothing") as caught:
        build_engine(tmp_path, world.plan(), Backend("worker", "10.3.0", "tensorrt", run_worker))
    assert caught.value.code == "OCT-E407"
    assert not list(tmp_path.glob("*.engine*"))


TRTEXEC = """#!/bin/sh
echo '&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec'
for word in "$@"; do case $word in --saveEngine=*) head -c {size} /dev/zero > "${{word#*=}}";; esac; done
echo '[E] {error}'
echo '&&&& {verdict} TensorRT.trtexec'
exit {code}
"""


def write_trtexec(path: Path, version: str = "100300", size: int = 4000, verdict: str = "PASSED", code: int = 0) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(TRTEXEC.format(version=version, size=size, error="a cause", verdict=verdict, code=code))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("change", "outcome"), [
    ({}, "ok"), ({"verdict": "FAILED"}, "failed"), ({"code": 1}, "failed"), ({"size": 0}, "failed"),
])  # fmt: skip
def test_trtexec_passes_only_with_code_verdict_and_engine(tmp_path: Path, change: dict[str, Any], outcome: str) -> None:
    plan = World(tmp_path, "10.3.0").plan()
    ran = run_trtexec(tmp_path, plan, "build", str(write_trtexec(tmp_path / "bin" / "trtexec", **change)), (10, 3, 0))
    assert ran.outcome == outcome
    assert (tmp_path / plan.output).exists() == (outcome == "ok")
    if outcome != "ok":
        assert ran.error == "[E] a cause"
    assert run_trtexec(tmp_path, replace(plan, dequantize=("conv_1",)), "build", "none", (10, 3, 0)).outcome == "failed"


def test_who_builds_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_backend("tensorrt", {}) is None  # no GPU
    monkeypatch.setattr(trt_process, "has_gpu", lambda: True)
    monkeypatch.setattr(trt_process, "SYSTEM_PYTHON", str(tmp_path / "none"))
    monkeypatch.setattr(trt_process, "TRTEXEC", str(tmp_path / "none"))
    monkeypatch.setattr(trt_process, "have", lambda module: False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + ":/usr/bin:/bin")
    assert find_backend("tensorrt", {}) is None
    write_trtexec(tmp_path / "bin" / "trtexec")
    found = find_backend("tensorrt", {})
    assert found is not None
    assert (found.kind, found.version) == ("trtexec", "10.3.0")
    write_trtexec(tmp_path / "bin" / "trtexec", version="8601")
    with pytest.raises(OctcError, match=r"TensorRT 8\.6\.1 is not supported: octc builds with 10\.0 and later") as caught:
        find_backend("tensorrt", {})
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E409", 4)  # X09
    world = World(tmp_path, "10.16.1.11")
    for name, value in world.environ().items():
        monkeypatch.setenv(name, value)
    named = find_backend("tensorrt", {"OCTC_TENSORRT_PYTHON": sys.executable})
    assert named is not None
    assert (named.kind, named.version) == ("worker", "10.16.1.11")


def test_plans_are_chosen_by_version(tmp_path: Path) -> None:
    sums = dict.fromkeys(("model.onnx", "model.int8fp16.onnx", "model.fp16.onnx"), "0" * 64)
    for precision in ("int8", "fp16"):
        text = plans_text(both_typings(precision, PlannedFiles(sums, [1, 8, 8], {"conv_1": 1})))
        (tmp_path / f"build-{precision}.json").write_text(text)
    assert {p.typing for p in read_plans(tmp_path, "10.3.0", "tensorrt").values()} == {"weak"}
    assert {p.typing for p in read_plans(tmp_path, "11.4.0", "tensorrt").values()} == {"strong"}
    for version, module in (("8.6.1", "tensorrt"), ("1.7.1.116", "tensorrt_rtx")):
        with pytest.raises(OctcError, match="found is") as caught:
            read_plans(tmp_path, version, module)
        assert caught.value.code == "OCT-E409"
    (tmp_path / "build-int8.json").write_text("{}")
    with pytest.raises(OctcError) as broken:
        read_plans(tmp_path, "10.3.0", "tensorrt")
    assert broken.value.code in ("OCT-E409", "OCT-E502")
