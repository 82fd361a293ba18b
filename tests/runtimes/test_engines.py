"""Real engines on real artifacts: what they say, what they were set to, what they refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.core.errors import MissingExtra, OctcError
from octc.core.optional import openvino_core
from octc.machine.cpu import read_cpus
from octc.runtimes import openvino as ov
from octc.runtimes.onnxrt import OrtRuntime, require_providers
from octc.runtimes.registry import choose_threads, open_runtime, prefer, why_not
from octc.runtimes.room import shape
from octc.store.artifacts import read_artifact, read_golden
from octc.store.find import Found
from octc.store.runs import Run
from tests.stand_ins import FakeRuntime
from tests.tiny_artifacts import copied, folder_of, resign

RUNNABLE = ("torch-fp32", "onnx-fp32", "onnx-fp16", "onnx-int8", "openvino-fp16", "openvino-int8", "litert-fp32", "litert-int8")
PRECISION = {"torch": "fp32", "onnx": "fp32", "openvino": "fp32", "litert": "fp32"}  # a CPU computes FP16 files in FP32


def images(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 64, 64), dtype=np.uint8)


@pytest.mark.parametrize("name", RUNNABLE)
def test_any_batch_gives_the_rows_of_the_single_images(run: Run, name: str) -> None:
    folder = folder_of(run, name)
    artifact = read_artifact(folder)
    runtime = open_runtime(folder, artifact, threads=1)
    batch = images(11)
    rows = np.concatenate([runtime(batch[i : i + 1]) for i in range(11)])
    assert rows.dtype == np.float32
    assert rows.shape == (11, 4)
    for size in (11, 3, 1):
        np.testing.assert_allclose(runtime(batch[:size]), rows[:size], atol=1e-4 * np.ptp(rows))
    first = runtime(batch[:1])
    kept = first.copy()
    runtime(batch[5:6])
    np.testing.assert_array_equal(first, kept)  # the answer is the caller's, not the engine's buffer
    runtime.close()
    with pytest.raises(RuntimeError, match="closed"):
        runtime(batch[:1])


@pytest.mark.parametrize("name", RUNNABLE)
def test_settings_are_read_back(run: Run, name: str) -> None:
    folder = folder_of(run, name)
    artifact = read_artifact(folder)
    runtime = open_runtime(folder, artifact, threads=1)
    facts = runtime.facts
    assert facts["threads"] == 1
    assert facts["version"]
    expected = {"onnx": ("onnxruntime", "CPUExecutionProvider"), "openvino": ("openvino", None), "torch": ("torch", None)}
    expected["litert"] = ("litert", "XNNPACK")
    assert (facts["runtime"], facts["provider"]) == expected[artifact.target]
    if artifact.target == "openvino":
        assert (facts["precision_hint"], facts["streams"], facts["device"]) == ("f32", 1, "CPU")
    quantised = artifact.details.get("int8_convolutions", 0)
    wanted = {"int8": quantised} if artifact.precision == "int8" else {PRECISION[artifact.target]: 15}
    assert runtime.precision_found() == wanted
    runtime.close()


@pytest.mark.parametrize("name", RUNNABLE)
def test_what_is_no_batch_of_this_artifact_is_refused(run: Run, name: str) -> None:
    folder = folder_of(run, name)
    runtime = open_runtime(folder, read_artifact(folder), threads=1)
    for wrong in (images(1)[:, :, :32], images(1).astype(np.float32), images(0), np.repeat(images(1), 3, axis=1), images(1)[0]):
        with pytest.raises(OctcError, match="takes uint8"):
            runtime(wrong)
    runtime.close()


OTHERS = {"onnx-fp32": "onnx-int8", "onnx-int8": "onnx-fp32", "openvino-fp16": "openvino-int8"}
OTHERS |= {"openvino-int8": "openvino-fp16", "litert-fp32": "litert-int8", "litert-int8": "litert-fp32"}


def put_other(run: Run, name: str, folder: Path, way: str) -> None:
    """Put another network into an artifact's place: "renamed" over it as an export does, or "written" over as `scp -r` does."""
    for path in sorted(folder_of(run, OTHERS[name]).iterdir()):
        if way == "written":
            (folder / path.name).write_bytes(path.read_bytes())
        else:
            shutil.copyfile(path, folder / ".new")
            (folder / ".new").replace(folder / path.name)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("way", ["written", "renamed"])
@pytest.mark.parametrize("name", OTHERS)
def test_an_open_engine_stays_the_network_that_was_checked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str, kept: bool
) -> None:
    """OpenVINO compiled a new count of images from the files that lay there by then, and kept it under the old key."""
    monkeypatch.setenv("OCTC_COMPILED", str(tmp_path / "compiled"))
    folder = copied(run, name, tmp_path)
    artifact = read_artifact(folder)
    with closing(open_runtime(folder, artifact, threads=1)) as whole:
        expected = {count: whole(images(count)) for count in (1, 5)}
    with closing(open_runtime(folder, artifact, threads=1, kept=kept)) as runtime:
        np.testing.assert_array_equal(runtime(images(1)), expected[1])
        put_other(run, name, folder, way)
        for count in (5, 1):
            np.testing.assert_array_equal(runtime(images(count)), expected[count])
    again = copied(run, name, tmp_path / "again")
    with closing(open_runtime(again, artifact, threads=1, kept=kept)) as runtime:
        np.testing.assert_array_equal(runtime(images(5)), expected[5])


@pytest.mark.parametrize("name", ["openvino-int8", "litert-int8"])
def test_a_file_that_is_cut_while_it_is_open_ends_no_process(run: Run, tmp_path: Path, name: str) -> None:
    """Both were mapped: a signal (SIGBUS) ended whoever had them open as soon as a copy over them began."""
    folder = copied(run, name, tmp_path)
    with closing(open_runtime(folder, read_artifact(folder), threads=1)) as runtime:
        expected = runtime(images(5))
        for path in folder.glob("model.*"):
            os.truncate(path, 0)
        np.testing.assert_array_equal(runtime(images(5)), expected)


@pytest.mark.parametrize("name", [*OTHERS, "torch-fp32"])
def test_another_file_than_was_checked_is_not_opened(run: Run, tmp_path: Path, name: str) -> None:
    folder = copied(run, name, tmp_path)
    artifact = read_artifact(folder)
    if name in OTHERS:
        put_other(run, name, folder, "renamed")
    else:
        data = (folder / artifact.main_file).read_bytes()
        (folder / artifact.main_file).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(OctcError) as caught:
        open_runtime(folder, artifact, threads=1)
    assert (caught.value.code, Path(str(caught.value.place)).parent) == ("OCT-E501", folder)


def test_a_static_openvino_shape_takes_any_count(run: Run) -> None:
    folder = run.artifacts / "openvino-fp16"
    artifact = read_artifact(folder)
    fixed = open_runtime(folder, artifact, threads=1, batch=4)
    free = open_runtime(folder, artifact, threads=1)
    np.testing.assert_allclose(fixed(images(10)), free(images(10)), rtol=1e-4, atol=1e-5)
    assert fixed.facts["batch"] == 4
    assert list(fixed._compiled) == [4]  # type: ignore[attr-defined]  # 10 images were run as 4 + 4 + 2 in one shape
    for count in range(1, 8):
        free(images(count))
    assert len(free._compiled) <= ov.KEPT  # type: ignore[attr-defined]


def test_r01_a_provider_that_is_absent_is_an_error(run: Run) -> None:
    folder = run.artifacts / "onnx-fp32"
    with pytest.raises(OctcError, match="CUDAExecutionProvider") as caught:
        OrtRuntime(folder, read_artifact(folder), 1, ("CUDAExecutionProvider", "CPUExecutionProvider"))
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E601", 4)
    assert "CPUExecutionProvider" in caught.value.hint


@pytest.mark.parametrize("found", [(), ("CPUExecutionProvider",), ("CPUExecutionProvider", "CUDAExecutionProvider")])
def test_r01_a_provider_that_fell_back_is_an_error(found: tuple[str, ...]) -> None:
    with pytest.raises(OctcError, match="fell back"):
        require_providers(("CUDAExecutionProvider", "CPUExecutionProvider"), found)
    require_providers(("CPUExecutionProvider",), ("CPUExecutionProvider",))


@pytest.mark.parametrize("name", ["openvino-int8", "litert-int8"])
def test_a_static_shape_can_be_made_smaller(run: Run, name: str) -> None:
    folder = folder_of(run, name)
    artifact, batch = read_artifact(folder), images(5)
    runtime = open_runtime(folder, artifact, threads=1, batch=4)
    before = runtime(batch)
    shape(runtime, 2)
    np.testing.assert_allclose(runtime(batch), before, atol=1e-4 * np.ptp(before))
    assert runtime.facts["batch"] == 2
    assert runtime.precision_found()["int8"] > 0
    shapes = [list(runtime._compiled)] if name.startswith("openvino") else [[runtime._size]]  # type: ignore[attr-defined]
    assert shapes == [[2]]
    loose = open_runtime(folder, artifact, threads=1)
    shape(loose, 2)  # it was opened for any number
    assert loose.facts["batch"] is None


def test_openvino_in_another_precision_than_asked_is_refused(run: Run) -> None:
    """Compiled for bf16 for real: where the processor has it, the network says so and is refused."""
    model = openvino_core().read_model(str(run.artifacts / "openvino-fp16" / "model.xml"))
    model.reshape([1, 1, 64, 64])
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    try:
        found = ov.read_back(openvino_core().compile_model(model, "CPU", settings))
    except RuntimeError:  # the plugin asks the processor whether it has bf16, and oneDNN was told to know older ones only
        if "ONEDNN_MAX_CPU_ISA" not in os.environ:
            raise
        found = ov.read_back(openvino_core().compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": "f32"}))
    ov.require_settings({**found, "precision_hint": "f32"}, 1)
    for hint in {found["precision_hint"], "bf16", "f16"} - {"f32"}:
        with pytest.raises(OctcError) as caught:
            ov.require_settings({**found, "precision_hint": hint}, 1)
        assert caught.value.code == "OCT-E406"
    with pytest.raises(OctcError, match="asked for CPU with 2"):
        ov.require_settings({**found, "precision_hint": "f32"}, 2)


def test_a_tensorrt_artifact_is_never_run_by_another_engine(run: Run) -> None:
    folder = run.artifacts / "tensorrt-int8"
    artifact = read_artifact(folder)
    assert "no TensorRT engine was built" in str(why_not(artifact))
    with pytest.raises(OctcError, match="no TensorRT engine") as caught:
        open_runtime(folder, artifact)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E903", 4)
    assert "trtexec --onnx=" in caught.value.hint
    assert "BUILD.txt" in caught.value.hint


@pytest.mark.parametrize("change", [
    {"model": "hf-hub:someone/something"}, {"model": "test_nothing"}, {"model": "test_efficientnet"},
    {"details": {"model_kwargs": {"checkpoint_path": "/etc/passwd"}}}, {"details": {"model_kwargs": {"pretrained": True}}},
    {"details": {"model_kwargs": ["a"]}}, {"classes": ("a", "b")},
])  # fmt: skip
def test_a_torch_artifact_builds_nothing_but_the_network_that_fits(run: Run, change: dict[str, Any]) -> None:
    folder = run.artifacts / "torch-fp32"
    with pytest.raises(OctcError) as caught:
        open_runtime(folder, replace(read_artifact(folder), **change), threads=1)
    assert caught.value.code == "OCT-E502"


@pytest.mark.parametrize("name", ["onnx-fp32", "openvino-fp16", "torch-fp32", "litert-fp32"])
def test_a_model_file_that_is_none_is_an_error_and_no_crash(run: Run, tmp_path: Path, name: str) -> None:
    folder = copied(run, name, tmp_path)
    artifact = read_artifact(folder)
    (folder / artifact.main_file).write_bytes(b"something else\n" * 50)
    resign(folder)
    with pytest.raises(OctcError) as caught:
        open_runtime(folder, read_artifact(folder), threads=1)
    assert caught.value.exit_code == 3


def test_the_smallest_precision_whose_engine_is_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    founds = [Found(p, read_artifact(p)) for p in sorted(run.artifacts.iterdir())]
    assert prefer(founds).artifact.name == "openvino-int8"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert prefer(founds).artifact.name == "onnx-int8"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert prefer(founds).artifact.name == "torch-fp32"
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(OctcError, match="no artifact can run") as caught:
        prefer(founds)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E901", 4)
    assert "pip install 'octc[" in caught.value.hint
    assert "pip install 'octc[ort]'" in str(why_not(founds[0].artifact))
    with pytest.raises(OctcError, match="onnxruntime is not installed"):
        open_runtime(founds[0].folder, founds[0].artifact)
    with pytest.raises(OctcError) as only_tensorrt:
        prefer([found for found in founds if found.artifact.target == "tensorrt"])
    assert only_tensorrt.value.code == "OCT-E903"
    assert isinstance(MissingExtra("onnxruntime", "ort"), OctcError)


def test_a_student_is_preferred_to_its_teacher(run: Run) -> None:
    student, half = (Found(run.artifacts / n, read_artifact(run.artifacts / n)) for n in ("onnx-fp32", "openvino-fp16"))
    teacher = Found(half.folder, replace(half.artifact, role="teacher"))
    assert prefer([teacher, student]) is student
    assert prefer([teacher]) is teacher


def test_threads_beyond_what_may_be_used_are_refused() -> None:
    usable = len(read_cpus().usable)
    assert choose_threads(usable) == usable
    assert 1 <= choose_threads(None) <= usable
    for wrong in (0, -1, usable + 1):
        with pytest.raises(OctcError, match="out of range"):
            choose_threads(wrong)


BOUND = """
import os, sys, threading
import numpy as np
from octc.runtimes.registry import open_runtime
from octc.store.artifacts import read_artifact
from pathlib import Path

def narrow():
    found = set()
    for task in os.listdir("/proc/self/task"):
        try:
            found.add(frozenset(os.sched_getaffinity(int(task))))
        except ProcessLookupError:
            pass
    return found - {frozenset(os.sched_getaffinity(0))}

folder = Path(sys.argv[1])
engines = [open_runtime(folder, read_artifact(folder), threads=1) for _ in range(2)]
batch = np.zeros((8, 1, 64, 64), np.uint8)
def work(engine):
    for _ in range(60):
        engine(batch)
threads = [threading.Thread(target=work, args=(engine,)) for engine in engines]
for thread in threads:
    thread.start()
seen = set()
while any(thread.is_alive() for thread in threads):
    seen |= narrow()
print([sorted(one) for one in seen])
"""


@pytest.mark.skipif(len(read_cpus().usable) < 2, reason="one processor: there is nothing to be bound to")
@pytest.mark.parametrize("name", ["onnx-int8", "openvino-int8", "litert-int8"])
def test_engines_of_one_thread_do_not_share_a_processor(run: Run, name: str) -> None:
    """OpenVINO binds the first thread of every network to the first processor, where all of them wait for each other."""
    command = [sys.executable, "-W", "ignore", "-c", BOUND, str(folder_of(run, name))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_openvino_talks_to_nobody(run: Run) -> None:
    code = f"""
import sys
from pathlib import Path
from octc.store.artifacts import read_artifact
from octc.runtimes.registry import open_runtime
folder = Path({str(run.artifacts / "openvino-fp16")!r})
open_runtime(folder, read_artifact(folder), threads=1).close()
assert not [name for name, module in sys.modules.items() if "openvino_telemetry" in name and module is not None]
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_fake_is_a_runtime_too() -> None:
    fake = FakeRuntime(lambda batch: np.tile([0.0, 1.0], (len(batch), 1)), "fake-fp32", device="CPU")
    assert fake(images(3)).shape == (3, 2)
    assert (fake.calls, fake.facts["device"], fake.precision_found()) == ([3], "CPU", {"fp32": 1})
    fake.close()
    with pytest.raises(RuntimeError):
        fake(images(1))


def test_golden_images_agree_on_every_engine(run: Run) -> None:
    from octc.runtimes.golden import check_input, replay

    for name, row in zip(RUNNABLE, ("K1", "K1", "K4", "K7", "K4", "K7", "K2", "K7"), strict=True):
        folder = folder_of(run, name)
        artifact, golden = read_artifact(folder), read_golden(folder)
        check_input(golden, artifact.preprocess)
        runtime = open_runtime(folder, artifact, threads=1, batch=1)
        report = replay(runtime, golden, artifact)
        assert (report.ok, report.tolerance_id, report.images) == (True, row, 8), report
        runtime.close()


ENDED_IN_ORDER = """
import faulthandler, gc, signal, sys
from pathlib import Path
faulthandler.enable()  # as pytest does: handlers run on a stack of their own
from octc.store.artifacts import read_artifact
from octc.core.optional import need, signal_stack_kept
from octc.runtimes.registry import open_runtime
folder = Path(sys.argv[2])
def ours():
    return open_runtime(folder, read_artifact(folder), threads=1, batch=1)
def others():
    core = need("openvino").Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    return core
ours()
if sys.argv[1] == "ours":
    first, second = ours(), ours()
else:
    with signal_stack_kept():
        first, second = others(), others()
del first
gc.collect()
del second
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("whose", ["ours", "others"])
def test_a_signal_after_openvino_ended_is_heard(run: Run, whose: str) -> None:
    """Of two Cores that end in the order in which they were made, the second leaves a stack for signals that is gone."""
    words = [sys.executable, "-c", ENDED_IN_ORDER, whose, str(run.artifacts / "openvino-fp16")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
