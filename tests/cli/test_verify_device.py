"""`octc verify --target tensorrt --on-device` on a machine that seems to have a GPU, and its report judged again elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from octc.core.files import sha256_file
from octc.export.tensorrt.variants import convolution_macs, promises
from octc.imaging.preprocess import Preprocess
from octc.runtimes.tensorrt.device_report import judge
from octc.schemas.tensorrt_plan import PlannedFiles, both_typings, plans_text
from octc.store.artifacts import Artifact, Golden, read_artifact, write_golden, write_manifest
from tests.export.qdq_graphs import Knobs, model
from tests.runtimes.trt_world import World

Said = Callable[..., tuple[int, str, str]]
PRE = Preprocess(8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), channels=1)
CLASSES = ("a", "b", "c", "d")
BENCH = {"batch": 1, "graph": True, "warmup_s": 0.0, "seconds": 0.0, "queries": 5}
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for a libcudart of our own")
SMI = "#!/bin/sh\ncase $1 in --query-gpu*) echo 'Orin (nvgpu), 8.7, 540.4.0, 62841';; *) echo;; esac\n"


def write_bundle(folder: Path) -> list[str]:
    """An artifact as export writes it, of two convolutions; the names of those that are promised in INT8."""
    folder.mkdir(parents=True)
    wide, half, bare = model([Knobs(), Knobs()]), model([Knobs(), Knobs()], opset=19, dtype=np.float16), Knobs(pairs="none")
    files = {
        "model.onnx": wide,
        "model.int8fp16.onnx": half,
        "model.fp16.onnx": model([bare, bare], opset=19, dtype=np.float16),
    }
    for name, proto in files.items():
        onnx.save(proto, str(folder / name))
    inputs = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    logits = inputs.reshape(4, -1)[:, :4].astype(np.float32) * np.float32(0.5)  # what the stand-in's engine gives
    write_golden(folder, Golden(inputs, logits, np.zeros(1, np.uint8), inputs[:1]))
    np.savez(folder / "golden-fp16.npz", inputs=inputs, logits=logits)
    names = promises(half)[0]
    sums, macs = {name: sha256_file(folder / name) for name in files}, convolution_macs(half)
    for precision, golden, limit in (("int8", "golden.npz", 0.05), ("fp16", "golden-fp16.npz", 0.01)):
        rule = {"file": golden, "delta_over_s": limit, "agreement": 0.999}
        plans = both_typings(precision, PlannedFiles(sums, [1, 8, 8], macs, promised=names, golden=rule))
        text = plans_text({key: replace(plan, bench=BENCH) for key, plan in plans.items()})
        (folder / f"build-{precision}.json").write_text(text)
    details: dict[str, Any] = {"engine": None, "engine_recipe": "BUILD.txt", "variants": {}}
    write_manifest(folder, Artifact(
        name="tensorrt-int8", role="student", model="m", target="tensorrt", precision="int8", classes=CLASSES, preprocess=PRE,
        lineage={}, details=details, main_file="model.onnx",
    ))  # fmt: skip
    return names


def information(names: list[str], kind: str = "Int8") -> str:
    rows = [
        {"Name": name, "LayerType": "CaskConvolution", "Inputs": [{"Name": "x", "Format/Datatype": kind}], "Metadata": ""}
        for name in names
    ]
    return json.dumps({"Layers": rows})


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Environment of an Orin: nvidia-smi, TensorRT for one Python, libcudart."""
    world = World(tmp_path, "10.3.0", settings={"shape": [-1, 1, 8, 8]})
    if shutil.which("cc"):
        world.make_cudart()
    world.settings["information"] = information(write_bundle(tmp_path / "bundle"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-smi").write_text(SMI)
    (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("OCTC_TENSORRT_PYTHON", sys.executable)
    monkeypatch.chdir(tmp_path)
    set_world(world, monkeypatch)
    return world


def set_world(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "FAKE_TRT", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, world.environ()[name])


@needs_cc
@pytest.mark.parametrize("version", ["10.3.0", "11.4.0.106"])
def test_everything_holds_and_the_report_can_be_judged_again(
    device: World, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    device.version = version
    set_world(device, monkeypatch)
    pictures = tmp_path / "pictures"
    for name in CLASSES:
        (pictures / name).mkdir(parents=True)
        for place in range(3):
            pixels = np.zeros((8, 8), np.uint8)
            pixels[0, CLASSES.index(name)] = 200 + place
            Image.fromarray(np.kron(pixels, np.ones((16, 16), np.uint8))).save(pictures / name / f"{place}.png")
    code, out, err = said("verify", "bundle", "--target", "tensorrt", "--on-device", "--images", "pictures")
    assert code == 0, err + out
    assert "verdict: pass" in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("✓")] == [
        "doctor", "lint", "build", "layers", "golden", "accuracy", "latency",
    ]  # fmt: skip
    assert "Orin (nvgpu), sm 8.7" in out
    assert "device p50 0.250" in out
    report = tmp_path / "bundle" / "verify-device.json"
    text = report.read_text()
    assert str(tmp_path) not in text  # no path, no host: it can be sent
    record = json.loads(text)
    assert {one["precision"] for one in record["engines"]} == {"int8", "fp16"}
    assert len(record["images"]["labels"]) == 12
    read_artifact(tmp_path / "bundle")  # the folder is still an artifact
    shutil.copyfile(report, tmp_path / "sent.json")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # another machine
    assert said("verify", "sent.json", "--target", "tensorrt")[0] == 0
    for key, change, wanted in (
        ("layers", lambda one: one.update(layers=information(one["plan"]["promised"], "Half")), "layers"),
        ("golden", lambda one: one.update(golden=[[0.0, 0.0, 0.0, 9.0]] * 4), "golden"),
        ("golden", lambda one: one.update(golden=None, ran=False, reason="not run"), "golden"),
        ("measured", lambda one: one.update(measured=None, reason="not run"), "latency"),
    ):
        spoilt = json.loads(text)
        change(spoilt["engines"][0])
        judged = judge(spoilt)
        assert judged.word in ("fail", "incomplete"), key
        assert next(s.name for s in judged.steps if s.state != "ok") == wanted
    for name in [one for one in sys.modules if one.partition(".")[0] == "scipy"]:
        monkeypatch.setitem(sys.modules, name, None)  # a device without octc[stats]
    judged = judge(record)
    assert judged.word == "incomplete"
    assert [(s.name, "octc[stats]" in s.text) for s in judged.steps if s.state != "ok"] == [("accuracy", True)]


@needs_cc
def test_what_does_not_hold_is_said_with_its_code(device: World, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [one["Name"] for one in json.loads(device.settings["information"])["Layers"]]
    device.settings["information"] = information(names, "Half")
    set_world(device, monkeypatch)
    code, out, err = said("verify", "bundle", "--target", "tensorrt", "--on-device")
    assert (code, "OCT-E406" in err, "✗ build" in out) == (1, True, True)
    device.settings |= {"information": information(names), "executes": False}
    set_world(device, monkeypatch)
    code, out, err = said("verify", "bundle", "--target", "tensorrt", "--on-device")
    assert (code, "✗ golden" in out, "! latency" in out, "verdict: fail" in out) == (1, True, True, True)
    assert "OCT-E506" in err


def test_without_a_gpu_nothing_passes(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    write_bundle(tmp_path / "bundle")
    code, out, err = said("verify", "bundle", "--target", "tensorrt", "--on-device")
    assert (code, "✗ doctor" in out, "✓ lint" in out, "verdict: fail" in out) == (4, True, True, True)
    assert "OCT-E905" in err
    assert said("verify", "bundle", "--target", "tensorrt")[0] == 2
    assert said("verify", "bundle", "--target", "onnx", "--on-device")[0] == 2
    (tmp_path / "none.json").write_text("{}")
    assert said("verify", "none.json", "--target", "tensorrt")[0] == 3
    assert said("verify", "absent.json", "--target", "tensorrt")[0] == 2
