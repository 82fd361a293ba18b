"""Broken installations of TensorRT: real interpreters with modules that fail as the real ones do, and NVIDIA's own words."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from octc.core.errors import OctcError
from octc.machine.checks import Check
from octc.runtimes import doctor
from octc.runtimes.tensorrt import doctor as trt_doctor
from octc.runtimes.tensorrt import process as trt_process
from octc.runtimes.tensorrt.doctor import check_tensorrt, explain_log
from octc.runtimes.tensorrt.faults import FAULTS, diagnose, diagnose_all, explained
from tests.house.tree import ROOT

# what users and the bindings without libraries said (public reports; the third was reproduced) -> the fault, a word of its mend
SAID = {
    "wheel_stub.error.InstallFailedError: download failed\nerror: metadata-generation-failed": ("stubs", "package index"),
    "Could not find a version that satisfies the requirement tensorrt-cu12-libs==10.3.0": ("no wheel", "OCTC_TENSORRT_PYTHON"),
    "ImportError: libnvinfer.so.10: cannot open shared object file: No such file or directory": ("libraries", "apt install"),
    "ImportError: libnvonnxparser.so.11: cannot open shared object file: No such file": ("libraries", "apt install"),
    "ModuleNotFoundError: No module named 'tensorrt'": ("absent", "apt install"),
    "ModuleNotFoundError: No module named 'tensorrt_bindings'": ("parts", "pip uninstall"),
    "ImportError: libcuda.so.1: cannot open shared object file: No such file or directory": ("no driver", "--gpus all"),
    "ImportError: libcudart.so.12: cannot open shared object file": ("CUDA libraries", "nvidia-cuda-runtime-cu12"),
    "Unable to load library: libnvinfer_builder_resource.so.10.3.0": ("builder", "apt install"),
    "OSError: libnvinfer.so.10: wrong ELF class: ELFCLASS64": ("processor", "remove it"),
    "ImportError: /lib/libc.so.6: version `GLIBC_2.35' not found": ("C library", "container"),
    "ImportError: libgomp.so.1: cannot allocate memory in static TLS block": ("thread storage", "LD_PRELOAD"),
    "ImportError: tensorrt.so: undefined symbol: _ZN8nvinfer1": ("two versions", "remove one"),
    "A module that was compiled using NumPy 1.x cannot be run in NumPy 2.0": ("numpy", "numpy<2"),
    "AttributeError: module 'numpy' has no attribute 'bool'": ("numpy", "numpy<2"),
    "NvRmMemInitNvmap failed with Permission denied": ("permission", "usermod"),
    "[W] CUDA initialization failure with error: 35. Please check your CUDA installation": ("old driver", "update the driver"),
    "[TRT] [E] CUDA initialization failure with error: 100": ("no device", "CUDA_VISIBLE_DEVICES"),
    "Failed to initialize NVML: Driver/library version mismatch": ("driver", "restart"),
    "API Usage Error (Target GPU SM 120 is not supported by this TensorRT release.)": ("GPU", "release notes"),
    "Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)": ("memory", "workspace_mb"),
    "The engine plan file is generated on an incompatible device, expecting compute 8.7": ("other engine", "--force"),
    "AttributeError: type object 'BuilderFlag' has no attribute 'FP16'": ("old script", "trt_worker.py"),
    "AttributeError: module 'tensorrt' has no attribute 'Builder'": ("shadowed", "rename"),
    "TypeError: pybind11::init(): factory function returned nullptr": ("start", "nvidia-smi"),
    "sh: 1: trtexec: not found": ("no trtexec", "libnvinfer-bin"),
    "[E] Error[10]: Could not find any implementation for node /blocks.0/conv/Conv + /blocks.0/act/Mul.": (
        "no implementation", "--allow-fallback",
    ),
    "[E] [TRT] 3: getPluginCreator could not find plugin: LayerNormalization version: 1": ("operator", "opset 16"),
    "[E] ModelImporter.cpp:949: No importer registered for op: GroupNormalization. Attempting to import as plugin.": (
        "operator", "TensorRT 10",
    ),
    "[E] Error Code 9: API Usage Error (Networks with FP8 Q/DQ layers require hardware with FP8 support.)": ("FP8", "--int8"),
    "RuntimeError: FP8 is not supported on SM 8.7": ("FP8", "--int8"),
    "[E] In node 3 (QuantDequantLinearHelper): UNSUPPORTED_NODE: Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero "
    "point is not supported.": ("zero-point", "octc lint FILE --fix"),
    "OSError: libnvinfer.so.10.3.0: file too short": ("cut short", "install it again"),
    "ImportError: libnvinfer.so.10: ELF load command past end of file": ("cut short", "install it again"),
    "[E] Network has dynamic or shape inputs, but no optimization profile has been defined.": ("no profile", "--minShapes"),
    "[E] Failed to open file: model.onnx.data": ("weights elsewhere", "copy"),
    "[W] Skipping tactic 0x0 due to insufficient memory on requested size of 1075838976": ("workspace", "workspace_mb"),
    "[  812.1] Out of memory: Killed process 4711 (python3) total-vm": ("memory", "workspace_mb"),
    "[W] Default DLA is enabled but layer conv1 is not supported on DLA, falling back to GPU.": ("DLA", "--useDLACore"),
    "[W] Missing scale and zero-point for tensor input.1, expect fall back to non-int8 implementation": ("no scales", "Q/DQ"),
    "[E] Strongly typed networks: the flag kINT8 is not allowed": ("typing", "BUILD.txt"),
    "the builder timed out after 3600 s": ("timed out", "opt_level"),
    "&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec --onnx=model.onnx": ("old TensorRT", "JetPack 6.1"),
}  # fmt: skip


def test_every_known_text_has_its_fault_and_its_mend() -> None:
    for text, (kind, word) in SAID.items():
        fault = diagnose(text)
        assert fault is not None, text
        assert (fault.id, word in fault.hint) == (kind, True), (text, fault.id, fault.hint)
    assert diagnose("Successfully installed tensorrt") is None
    assert {kind for kind, _ in SAID.values()} >= {f.id for f in FAULTS} - {"metadata", "no numpy"}


def test_the_command_of_nvidias_message_is_repeated() -> None:
    log = "InstallFailedError\nPlease run\n\n  pip install --extra-index-url https://example.invalid tensorrt-cu12-libs\n\n"
    assert explain_log(log)[0].hint == "pip install --extra-index-url https://example.invalid tensorrt-cu12-libs"
    error = explained(OctcError("OCT-E407", "builder failed", hint="x"), "Requested: OutOfMemory")
    assert ("memory ran out" in error.message, "workspace_mb" in error.hint) == (True, True)


TRTEXEC = """&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec --onnx=model.onnx --int8
\x1b[33m[W] [TRT] Default DLA is enabled but layer stem is not supported on DLA, falling back to GPU.\x1b[0m
[E] [TRT] 3: getPluginCreator could not find plugin: LayerNormalization version: 1
[E] Error[10]: Could not find any implementation for node {ForeignNode[blocks.0]}.
&&&& FAILED TensorRT.trtexec [TensorRT v8601]
"""


def test_every_fault_of_a_log_is_told_the_verdict_first_with_its_line_and_where_to_report_the_rest() -> None:
    verdict, *others = explain_log(TRTEXEC)
    assert verdict.text.startswith("the log says, first of 4: this TensorRT has no such operator or plug-in")
    assert "LayerNormalization (line 3)" in verdict.text
    texts = " | ".join(one.text for one in others)
    for word in ("DLA was asked for", "(line 2)", "no kernel of this TensorRT", "(line 4)", "this is TensorRT 8", "(line 1)"):
        assert word in texts
    assert others[-1].state == "info"
    assert "https://github.com/NVIDIA/TensorRT/issues" in others[-1].hint


def test_what_follows_from_a_fault_is_not_told_beside_it() -> None:
    log = "error: wheel_stub\nerror: metadata-generation-failed\nERROR: No matching distribution found for tensorrt\n"
    assert [one.id for one in diagnose_all(log)] == ["stubs"]
    log = "[E] Error Code 2: OutOfMemory\n[E] Could not find any implementation for node conv1.\n"
    assert [one.id for one in diagnose_all(log)] == ["memory"]


def test_a_log_that_is_not_known_or_that_ends_well() -> None:
    (unknown,) = explain_log("hello\n[E] something new in /opt/a/build went wrong\n")
    assert (unknown.state, "something new in build went wrong" in unknown.text) == ("warning", True)
    assert "/TensorRT/issues" in unknown.hint
    (well,) = explain_log("[I] Engine built in 12.3 sec.\n&&&& PASSED TensorRT.trtexec [TensorRT v100300]\n")
    assert well.state == "ok"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_a_log_is_read_in_whatever_encoding_a_shell_wrote_it(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "build.log").write_bytes(TRTEXEC.encode(encoding) + ("\u00e4".encode(encoding)))
    assert "LayerNormalization (line 3)" in doctor.explained(tmp_path / "build.log")[0].text


def test_a_log_with_nothing_in_it_and_a_very_long_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.log").write_bytes(b"\xef\xbb\xbf"[:0] + b" \r\n")
    for name in ("empty.log", "absent.log"):
        with pytest.raises(OctcError) as caught:
            doctor.explained(tmp_path / name)
        assert caught.value.code == "OCT-E107"
    monkeypatch.setattr(doctor, "MOST_LOG", 2000)
    (tmp_path / "long.log").write_text("[I] timing\n" * 200_000 + TRTEXEC)
    assert "no such operator" in doctor.explained(tmp_path / "long.log")[0].text


def test_every_fault_that_the_page_names_is_known() -> None:
    """The table of docs/jetson.md, `When it fails`, and what stands before it."""
    page = (ROOT / "docs" / "jetson.md").read_text()
    kinds = {one.id for one in FAULTS}
    for word, kind in {
        "bindings without libraries": "libraries", "download stubs": "stubs", "container without the": "no driver",
        "driver that is too old": "old driver", "numpy 2": "numpy", "two versions at once": "two versions",
        "missing permissions": "permission", "a folder called tensorrt": "shadowed", "TensorRT 8.x": "old TensorRT",
        "Could not find any implementation": "no implementation", "timed out": "timed out", "killed": "memory",
        "another device or version": "other engine", "DLA is refused": "DLA", "LayerNormalization": "operator", "FP8": "FP8",
        "zero-point": "zero-point", "cut short": "cut short",
    }.items():  # fmt: skip
        assert word in page, word
        assert kind in kinds


GOOD = """
import sys
__version__ = {version!r}
float32 = 0
class Logger:
    ERROR = 1
    def __init__(self, *_): pass
class Builder:
    def __init__(self, *_): {builder}
class OnnxParser: pass
class Runtime: pass
def nptype(kind): pass
"""

OLD_DRIVER = "sys.stderr.write('CUDA initialization failure with error: 35'); raise TypeError('x')"


def site(folder: Path, module: str, *packages: tuple[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tensorrt.py").write_text(module)
    for name, version in packages:
        (folder / f"{name}-{version}.dist-info").mkdir()
        (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a GPU and no trtexec."""
    monkeypatch.setattr(trt_process, "has_gpu", lambda: True)
    monkeypatch.setattr(trt_process, "SYSTEM_PYTHON", str(tmp_path / "none"))
    monkeypatch.setattr(trt_process, "TRTEXEC", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    return tmp_path


def look(environ: Mapping[str, str] | None = None, **more: Any) -> list[Check]:
    return check_tensorrt(environ or {}, seconds=300, **more)  # a busy machine is no broken installation


def problems(checks: list[Check]) -> list[str]:
    return [f"{c.text} -> {c.hint}" for c in checks if c.state == "problem"]


def test_one_that_works_is_ok(here: Path) -> None:
    site(here / "site", GOOD.format(version="10.3.0", builder="pass"))
    checks = look()
    assert problems(checks) == []
    assert any(c.text.startswith("TensorRT 10.3.0 in this Python") and c.state == "ok" for c in checks)


@pytest.mark.parametrize(("module", "words"), [
    ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "libraries are not"),
    ("raise ImportError('/opt/secret/libgomp.so.1: cannot allocate memory in static TLS block')", "LD_PRELOAD"),
    (GOOD.format(version="8.6.1", builder="pass"), "8.6.1 is not supported"),
    (GOOD.format(version="10.3.0", builder=OLD_DRIVER),
     "driver is too old"),
    ("x = 1", "something else is called tensorrt"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "does not start"),
])  # fmt: skip
def test_a_broken_one_is_a_problem_with_its_mend(here: Path, module: str, words: str) -> None:
    site(here / "site", module)
    found = problems(look())
    assert any(words in text for text in found), found
    assert any("nothing here can build" in text for text in found)
    assert all(text.split(" -> ")[1] for text in found)
    assert not any("/opt/" in text or str(here) in text for text in found)  # it can be pasted anywhere


def test_absent_is_a_problem_only_where_nothing_else_builds(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any("nothing here can build" in text for text in problems(look()))
    trtexec = here / "bin" / "trtexec"
    trtexec.parent.mkdir()
    trtexec.write_text("#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v100300]'\n")
    trtexec.chmod(0o755)
    monkeypatch.setenv("PATH", f"{trtexec.parent}:/usr/bin:/bin")
    checks = look()
    assert problems(checks) == []
    assert any("trtexec of TensorRT 10.3.0" in c.text for c in checks)
    lost = "error while loading shared libraries: libnvinfer.so.10: cannot open shared object file"
    trtexec.write_text(f"#!/bin/sh\necho 'trtexec: {lost}' >&2\n")
    assert any("trtexec: the Python bindings are installed" in text for text in problems(look()))


def test_packages_that_do_not_belong_together(here: Path) -> None:
    site(
        here / "site",
        GOOD.format(version="10.13.3", builder="pass"),
        ("tensorrt_cu12_libs", "10.13.3"),
        ("tensorrt_cu13_libs", "10.13.3"),
    )
    assert any("overwrite each other" in text for text in problems(look()))
    other = site(here / "site2", "", ("tensorrt_cu12_libs", "10.16.1"), ("tensorrt_cu12_bindings", "10.13.3"))
    assert other
    found = trt_doctor._packages("this Python", {"tensorrt-cu12-libs": "10.16.1", "tensorrt-cu12-bindings": "10.13.3.post1"})
    assert "two versions" in found[0].text


@pytest.mark.parametrize(("release", "state"), [
    ("# R35 (release), REVISION: 4.1, GCID: 1", "problem"), ("# R36 (release), REVISION: 3.0, GCID: 1", "problem"),
    ("# R36 (release), REVISION: 4.3, GCID: 1", "ok"), ("# R38 (release), REVISION: 2.0, GCID: 1", "ok"),
])  # fmt: skip
def test_the_release_of_a_jetson(here: Path, release: str, state: str) -> None:
    site(here / "site", GOOD.format(version="10.3.0", builder="pass"))
    (here / "etc").mkdir()
    (here / "etc" / "nv_tegra_release").write_text(release)
    assert next(c.state for c in look(root=here) if "L4T" in c.text) == state


def test_another_python_is_asked_by_name(here: Path) -> None:
    site(here / "site", GOOD.format(version="10.3.0", builder="pass"))
    checks = look({"OCTC_TENSORRT_PYTHON": sys.executable})
    assert any("the Python of OCTC_TENSORRT_PYTHON" in c.text and c.state == "ok" for c in checks)
    checks = look({"OCTC_TENSORRT_PYTHON": str(here / "no-python")})
    assert any("cannot be started" in text for text in problems(checks))


def test_versions_that_do_not_exist_for_a_jetson(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "tegra").write_text("# R39 (release), REVISION: 1.0")
    monkeypatch.setattr(trt_process, "TEGRA", here / "tegra")
    assert "do not exist for a Jetson" in str(trt_process.why_unsupported("11.2.0"))
    assert trt_process.why_unsupported("11.4.1.5") is None
    assert trt_process.why_unsupported("10.16.2.10") is None


def test_no_answer_in_time_is_no_verdict(here: Path) -> None:
    site(here / "site", "import time; time.sleep(600)")
    checks = check_tensorrt({}, seconds=1)
    assert problems(checks) == []
    assert any("not known" in c.text and c.state == "warning" for c in checks)
