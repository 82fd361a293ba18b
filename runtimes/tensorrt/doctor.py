"""TensorRT as this machine has it: every Python that may hold it, trtexec, the release of a Jetson. Lines for `octc doctor`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from octc.core.files import parse_json
from octc.machine.checks import Check
from octc.machine.cpu import ROOT
from octc.machine.jetson import read_jetson
from octc.runtimes.tensorrt import process as trt_process
from octc.runtimes.tensorrt.faults import APT, Fault, diagnose, diagnose_all
from octc.runtimes.tensorrt.process import dotted, trtexec_version, why_unsupported

GROUP, LOG, SECONDS = "Runtimes", "Log", 10.0
WELL = r"&&&& PASSED|^Successfully installed |Engine built in .* sec|^\[I\] Throughput"
REPORT = (
    "what TensorRT itself says wrongly: https://github.com/NVIDIA/TensorRT/issues (of a Jetson: "
    "https://forums.developer.nvidia.com); what octc does: whoever maintains your copy of it; with this log and "
    "`octc doctor --target tensorrt --json`"
)
NEEDED = ("tensorrt", "jetson")
NEWER = "JetPack 6.1 or later, or TensorRT 10 or later"
FIRST_L4T = (36, 4)  # JetPack 6.1; 6.0 and older have TensorRT 8
# runs under any Python 3.8 or later; one JSON document on the last line
PROBE = """
import ctypes, json, sys
said = {"python": "%d.%d" % sys.version_info[:2], "packages": {}}
try:
    from importlib.metadata import distributions
    for one in distributions():
        name = str(one.metadata["Name"]).lower().replace("_", "-")
        if name.startswith("tensorrt"):
            said["packages"][name] = one.version
    import tensorrt as trt
    said["version"] = str(trt.__version__)
    for name in ("Logger", "Builder", "OnnxParser", "Runtime"):
        getattr(trt, name)
    if sys.argv[1] == "gpu":
        trt.Builder(trt.Logger())
    import numpy
except BaseException as error:
    said["error"] = "%s: %s" % (type(error).__name__, error)
sys.stdout.write("\\n" + json.dumps(said) + "\\n")
"""


def check_tensorrt(environ: Mapping[str, str], root: Path = ROOT, seconds: float = SECONDS) -> list[Check]:
    """What can build and run engines here. A broken installation next to one that works is a warning, else a problem."""
    found = _release(read_jetson(root)["jetpack"])
    named = environ.get(trt_process.PYTHON_VARIABLE)
    places = {f"the Python of {trt_process.PYTHON_VARIABLE}": named} if named else {"this Python": sys.executable}
    if not named and Path(trt_process.SYSTEM_PYTHON).is_file():
        places["the system's Python"] = trt_process.SYSTEM_PYTHON
    with ThreadPoolExecutor(len(places)) as pool:
        said = dict(zip(places, pool.map(lambda p: ask(str(p), seconds), places.values()), strict=True))
    lines = [_line(place, one) for place, one in said.items()] + _trtexec(seconds)
    works = any(line.state == "ok" for line in lines)
    found += [line if line.state == "ok" or not works else _lesser(line) for line in lines]
    for place, one in said.items():
        found += _packages(place, one.get("packages", {}))
    if not works and any(one.get("slow") for one in said.values()):
        again = "octc doctor again when this machine is less busy"
        found.append(Check(GROUP, "warning", "whether TensorRT works here is not known: no answer in time", again, "OCT-E903"))
    elif not works:
        fault = next((f for one in said.values() if (f := diagnose(one.get("error", ""))) and f.id != "absent"), None)
        hint = fault.hint if fault else APT
        found.append(Check(GROUP, "problem", "nothing here can build an engine of TensorRT", hint, "OCT-E410", NEEDED))
    return found


def ask(python: str, seconds: float = SECONDS) -> dict[str, Any]:
    """What an interpreter says of its TensorRT: python, packages, version, and "error" where it is broken or absent."""
    command = [python, "-c", PROBE, "gpu" if trt_process.has_gpu() else "none"]
    try:
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=seconds, check=False, errors="replace")
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {seconds:g} s", "slow": True}
    except OSError as error:
        return {"error": f"{type(error).__name__}: it cannot be started ({error.strerror})"}
    try:
        said: dict[str, Any] = parse_json(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": f"the process ended with {done.returncode}\n{done.stderr}"}
    if "error" in said:
        said["error"] += f"\n{done.stderr}"  # TensorRT's own words stand on stderr
    return said


def explain_log(text: str) -> list[Check]:
    """Lines for the log of a failed installation, import or build: the verdict first, then whatever else it tells of."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    faults = diagnose_all(plain)
    if not faults and re.search(WELL, plain, re.MULTILINE):
        return [Check(LOG, "ok", "the log ends well: no failure is in it")]
    if not faults:
        first = next((line for line in plain.splitlines() if re.search(r"\[E\]|\b(ERROR|Error|error|FAILED)\b", line)), None)
        shown = "" if first is None else f"; its first error: {_first(first)}"
        return [Check(LOG, "warning", f"the log shows no failure that is known here{shown}", REPORT, "OCT-E903")]
    verdict, *more = [Check(LOG, "problem", _told(fault), fault.hint, "OCT-E410") for fault in faults]
    head = f"the log says: {verdict.text}" if not more else f"the log says, first of {len(faults)}: {verdict.text}"
    return [Check(LOG, "problem", head, verdict.hint, "OCT-E410"), *more, Check(LOG, "info", "anything else in it", REPORT)]


def _told(fault: Fault) -> str:
    return f"{fault.words}{f': {fault.found}' if fault.found else ''} (line {fault.line})"


def _release(jetpack: str | None) -> list[Check]:
    numbers = re.search(r"L4T (\d+)\.(\d+)", jetpack or "")
    if jetpack is None:
        return []
    if numbers and (int(numbers[1]), int(numbers[2])) < FIRST_L4T:
        text = f"{jetpack}: JetPack 6.0 and older have TensorRT 8, octc builds with 10.0 and later"
        return [Check(GROUP, "problem", text, "move this Jetson to JetPack 6.1 or later", "OCT-E409", NEEDED)]
    return [Check(GROUP, "ok", f"release {jetpack}")]


def _line(place: str, said: Mapping[str, Any]) -> Check:
    where = f"{place} ({said['python']})" if "python" in said else place
    error, version = said.get("error"), said.get("version")
    reason = why_unsupported(version) if version else None
    if reason is not None:
        return Check(GROUP, "problem", f"{where}: {reason}", NEWER, "OCT-E409", NEEDED)
    if error is None:
        return Check(GROUP, "ok", f"TensorRT {version} in {where}")
    fault = diagnose(error) or Fault("", (), "TensorRT does not start", APT)
    state = "info" if fault.id == "absent" else "warning" if said.get("slow") else "problem"
    words = fault.words if fault.id == "absent" else f"{fault.words} ({_first(error)})"
    return Check(GROUP, state, f"{where}: {words}", fault.hint, "OCT-E903")


def _first(text: str) -> str:
    """The first line without paths: they name this machine."""
    line = text.strip().splitlines()[0]
    return re.sub(r"(?<![\w.])/[^\s:'\"]+/", "", line)[:160]


def _lesser(line: Check) -> Check:
    """Something else works: no problem."""
    state = "warning" if line.state == "problem" else line.state
    return Check(line.group, state, line.text, line.hint, line.code)


def _trtexec(seconds: float) -> list[Check]:
    program = shutil.which("trtexec") or (trt_process.TRTEXEC if Path(trt_process.TRTEXEC).is_file() else None)
    if program is None:
        return [Check(GROUP, "info", "trtexec is not here", "on a Jetson: sudo apt install libnvinfer-bin")]
    try:
        done = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return [Check(GROUP, "problem", f"trtexec does not start: {_first(str(error))}", APT, "OCT-E903")]
    version = trtexec_version(done.stdout + done.stderr)
    if version is None:
        fault = diagnose(done.stdout + done.stderr) or Fault("", (), "it does not say its version", APT)
        return [Check(GROUP, "problem", f"trtexec: {fault.words}", fault.hint, "OCT-E903")]
    reason = why_unsupported(dotted(version))
    if reason is not None:
        return [Check(GROUP, "problem", f"trtexec: {reason}", NEWER, "OCT-E409")]
    return [Check(GROUP, "ok", f"trtexec of TensorRT {dotted(version)}")]


def _packages(place: str, packages: Mapping[str, str]) -> list[Check]:
    """Parts that do not belong together: two CUDA lines, bindings and libraries of two versions, bindings alone."""
    kinds = sorted({m[1] for name in packages if (m := re.match(r"tensorrt-(cu\d+)", name))})
    if len(kinds) > 1:
        text = f"{place}: TensorRT for {' and '.join(kinds)} overwrite each other"
        return [Check(GROUP, "problem", text, f"pip uninstall {_names(packages, kinds[0])}", "OCT-E902", NEEDED)]
    parts = {name: number for name, number in packages.items() if re.fullmatch(r"tensorrt(-cu\d+)?-(bindings|libs)", name)}
    if len({number.split(".post")[0] for number in parts.values()}) > 1:
        text = f"{place}: {', '.join(f'{name} {number}' for name, number in parts.items())} are of two versions"
        return [Check(GROUP, "problem", text, f"pip uninstall {' '.join(parts)}, then install one version", "OCT-E902", NEEDED)]
    return []


def _names(packages: Sequence[str] | Mapping[str, str], kind: str) -> str:
    return " ".join(name for name in packages if kind in name)
