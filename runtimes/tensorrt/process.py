"""TensorRT always runs in a process of its own: its parser can crash, its builder can fill the memory or never end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.core.optional import have
from octc.machine.cpu import read_text
from octc.machine.host import read_gpus
from octc.runtimes.tensorrt import worker as trt_worker
from octc.schemas.tensorrt_plan import RTX, BuildPlan, trtexec_argv

WORKER = Path(trt_worker.__file__)
STEP = 0.05  # seconds between two looks at a process
TAIL = 60  # lines of the log that go into an error
TEGRA = Path("/etc/nv_tegra_release")
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"  # where the apt package of JetPack puts it
SYSTEM_PYTHON = "/usr/bin/python3"  # JetPack 6 has TensorRT for its own Python alone
PYTHON_VARIABLE = "OCTC_TENSORRT_PYTHON"
FIRST_ON_JETSON = (11, 4, 1)  # of the 11 series
OUTCOMES = {
    trt_worker.OK: "ok", trt_worker.FAILED: "failed", trt_worker.BAD_PLAN: "bad plan", trt_worker.ENVIRONMENT: "environment",
}  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """What became of a process.

    Attributes:
        outcome: ok, failed, bad plan, environment, timed out, killed (by the system, mostly for memory) or crashed.
        error: one line of cause, "" when it went well. result: what it wrote.
    """

    outcome: str
    error: str
    seconds: float
    peak_rss_mib: int
    log: str
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Backend:
    """Who builds: run(folder, plan, command). kind: worker or trtexec; version of TensorRT, as text."""

    kind: str
    version: str
    module: str
    run: Callable[[Path, BuildPlan, str], Ran]


def run_process(command: Sequence[str], folder: Path, log: Path, seconds: float) -> tuple[int | None, float, int]:
    """Run in `folder`; stdout and stderr go to `log`. Returns (exit code, None when it ran out of time), seconds, peak MiB."""
    started, peak = time.monotonic(), 0
    with log.open("wb") as stream:
        process = subprocess.Popen(
            list(command), cwd=folder, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
        try:
            while True:
                peak = max(peak, _peak_mib(process.pid))
                pid, status = os.waitpid(process.pid, os.WNOHANG)
                late = time.monotonic() - started > seconds
                if pid == 0 and late:
                    os.killpg(process.pid, signal.SIGKILL)
                    _, status = os.waitpid(process.pid, 0)
                if pid or late:
                    break
                time.sleep(STEP)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    process.returncode = os.waitstatus_to_exitcode(status)
    code = None if pid == 0 else process.returncode
    return code, time.monotonic() - started, peak


def _peak_mib(pid: int) -> int:
    """Largest resident memory of a process so far (getrusage would count what this process had when it forked)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", read_text(Path(f"/proc/{pid}/status")), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0


def run_worker(folder: Path, plan: BuildPlan, command: str, python: str = sys.executable) -> Ran:
    """One command of the worker. The plan and its result lie in `folder`, the log beside them."""
    name = Path(plan.output).stem
    plan_file, log, result_file = folder / f"{name}.plan.json", folder / f"{name}.{command}.log", folder / plan.result
    result_file.unlink(missing_ok=True)
    plan_file.write_text(json.dumps(plan.to_json()))
    code, seconds, peak = run_process([python, str(WORKER), command, plan_file.name], folder, log, plan.timeout_s)
    plan_file.unlink()
    text = log.read_text(errors="replace")
    result = read_json(result_file) if result_file.is_file() else {}
    outcome = _outcome(code)
    error = "" if outcome == "ok" else str((result.get("error") or {}).get("text") or _cause(outcome, code, plan, peak))
    return Ran(outcome, error, seconds, max(peak, int(result.get("peak_rss_mib", 0))), text, result)


def _outcome(code: int | None) -> str:
    if code is None:
        return "timed out"
    if code == -signal.SIGKILL:
        return "killed"
    return OUTCOMES.get(code, "crashed")


def _cause(outcome: str, code: int | None, plan: BuildPlan, peak: int) -> str:
    if outcome == "timed out":
        return f"no engine within {plan.timeout_s} s"
    if outcome == "killed":
        return f"the process was killed at {peak} MiB, mostly a sign that memory ran out"
    return f"the process ended with {'signal ' + str(-code) if code is not None and code < 0 else f'code {code}'}"


def run_trtexec(folder: Path, plan: BuildPlan, command: str, program: str, version: tuple[int, ...]) -> Ran:
    """Build with trtexec; it passed only with exit code 0, its PASSED line and an engine of a plausible size."""
    if command != "build" or plan.dequantize:
        return Ran(
            "failed", f"trtexec cannot {command if command != 'build' else 'take convolutions off their Q/DQ'}", 0.0, 0, ""
        )
    log, engine = folder / f"{Path(plan.output).stem}.build.log", folder / plan.output
    code, seconds, peak = run_process(trtexec_argv(plan, version, program), folder, log, plan.timeout_s)
    text = log.read_text(errors="replace")
    size = engine.stat().st_size if engine.is_file() else 0
    if code == 0 and "&&&& PASSED" in text and size * 10 > (folder / plan.onnx).stat().st_size:
        facts = {"engine": plan.output, "bytes": size, "environment": {"module": plan.module, "version": dotted(version)}}
        return Ran("ok", "", seconds, peak, text, {**facts, "dequantized": [], "peak_rss_mib": peak, "typing": plan.typing})
    engine.unlink(missing_ok=True)
    outcome = "failed" if code is not None and code >= 0 else _outcome(code)
    errors = [line for line in text.splitlines() if "[E]" in line]
    return Ran(outcome, errors[-1] if errors else _cause(outcome, code, plan, peak), seconds, peak, text)


def trtexec_version(banner: str) -> tuple[int, int, int] | None:
    """(10, 3, 0) of "[TensorRT v100300]", (8, 6, 1) of "[TensorRT v8601]"; a trailing build number is ignored."""
    found = re.search(r"\[TensorRT v(\d+)\]", banner)
    if not found:
        return None
    number = int(found[1])
    if number < 10_000:
        return number // 1000, number // 100 % 10, number % 100
    return number // 10_000, number // 100 % 100, number % 100


def dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def find_backend(module: str, environ: Mapping[str, str]) -> Backend | None:
    """Who could build here: this Python, the system's, or trtexec; None where TensorRT (or a GPU for it) is missing.

    Raises:
        OctcError: E409 TensorRT is here in a version that octc does not support.
    """
    if module != RTX and not has_gpu():
        return None
    for python in _pythons(module, environ):
        version = _module_version(python, module)
        if version is not None:
            _require_supported(version, module == RTX)
            return Backend("worker", version, module, partial(run_worker, python=python))
    program = shutil.which("trtexec") or (TRTEXEC if Path(TRTEXEC).is_file() else None)
    if module == RTX or program is None:
        return None
    banner = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=60, check=False)
    found = trtexec_version(banner.stdout + banner.stderr)
    if found is None:
        raise OctcError(
            "OCT-E409", f"{program} does not say its version", hint=f"set {PYTHON_VARIABLE} to a Python with tensorrt"
        )
    _require_supported(dotted(found), False)
    run = partial(run_trtexec, program=program, version=found)
    return Backend("trtexec", dotted(found), module, run)


def has_gpu() -> bool:
    """A GPU that TensorRT could use: nvidia-smi names one, or this is a Jetson."""
    return TEGRA.is_file() or bool(read_gpus())


def _pythons(module: str, environ: Mapping[str, str]) -> list[str]:
    named = environ.get(PYTHON_VARIABLE)
    if named:
        return [named]
    here = [sys.executable] if have(module) else []
    return here + ([SYSTEM_PYTHON] if module != RTX and Path(SYSTEM_PYTHON).is_file() else [])


def _module_version(python: str, module: str) -> str | None:
    """Version of TensorRT as another interpreter imports it (None when it does not)."""
    command = [python, "-c", f"import {module}; print({module}.__version__)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else None


def why_unsupported(version: str, is_rtx: bool = False) -> str | None:
    """Why octc does not build with this version, in one sentence; None where it does."""
    if trt_worker.typing_for(version, is_rtx) is None:
        return f"TensorRT {version} is not supported: octc builds with 10.0 and later (JetPack 6.1 and later)"
    numbers = tuple(int(part) for part in version.split(".")[:3])
    if TEGRA.is_file() and (11,) <= numbers < FIRST_ON_JETSON:
        return f"TensorRT {version} is not supported: 11.0 to 11.4.0 do not exist for a Jetson, 11.4.1 is the first"
    return None


def _require_supported(version: str, is_rtx: bool) -> None:
    reason = why_unsupported(version, is_rtx)
    if reason is not None:
        raise OctcError("OCT-E409", reason, hint="move this machine to JetPack 6.1 or later, or to TensorRT 10 or later")
