"""Checks of this machine, each a line with its hint: processor, memory, disk, GPU, sensors, network. Nothing is changed.

No line holds a host name, a user name or an absolute path: it can be pasted anywhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from octc.core.faults import fault_of
from octc.core.targets import TARGETS as ENGINES
from octc.core.telemetry import DEPENDENCIES, Dependency, is_quiet
from octc.machine.cpu import FAST_INT8, ROOT, SYSTEM_CPUS, read_text, why_other_family
from octc.machine.emulated import emulated
from octc.machine.host import FPMATH, ISA_LIMITS, Gpu, Machine
from octc.machine.memory import group_limit_mib, limit_words, memory_mib, space_limit_mib

TARGETS = ("x86", "jetson", "gpu", "tensorrt")
X86 = ("x86_64", "amd64", "i686", "i386")
GIB = 1 << 30
SHM_MIB, RAM_MIB = 256, 1024  # less than these is likely to be too little
DISK_PROBLEM, DISK_WARNING = 1, 5  # GiB
RAPL = "sys/class/powercap/intel-rapl:0/energy_uj"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
SMI_SECONDS = 2.0


@dataclass(frozen=True)
class Check:
    """One line.

    Attributes:
        state: "ok", "info" (neither good nor bad), "warning" or "problem".
        code: of the error that this would be elsewhere.
        needed: targets for which it is a problem unless it is "ok". matters: targets for which it is more than information.
    """

    group: str
    state: str
    text: str
    hint: str = ""
    code: str | None = None
    needed: tuple[str, ...] = ()
    matters: tuple[str, ...] = TARGETS


def seen_from(check: Check, target: str | None) -> Check:
    """A check as it looks to somebody who wants that kind of machine."""
    if target is None or check.state == "ok":
        return check
    if target in check.needed:
        return replace(check, state="problem")
    return check if target in check.matters else replace(check, state="info")


def check_kind(kind: str, target: str | None, root: Path = ROOT) -> list[Check]:
    """Whether this is the machine that `--target` names. kind: `platform.machine()`."""
    board = read_text(root / "proc/device-tree/model").strip("\0\n ")
    here = {"x86": kind.lower() in X86, "jetson": any(word in board for word in ("Jetson", "Orin"))}
    if target is None or here.get(target, True):
        return [Check("CPU", "ok", board)] if board else []
    names = {"x86": "an x86 processor", "jetson": "a Jetson"}
    text = f"this is {board or kind}, not {names[target]}"
    return [Check("CPU", "problem", text, "leave out --target, or name another one", "OCT-E903")]


def check_cpu(machine: Machine, environ: Mapping[str, str], threads: tuple[int, str]) -> list[Check]:
    """Instruction set, class, cores, quota, governor, and limits that the environment sets on libraries."""
    group, cpus = "CPU", machine.cpus
    isa = " ".join(machine.isa) or "nothing beyond the baseline"
    known = any(token in FAST_INT8 for token in machine.isa)
    text = f"{machine.cpu_model}: {isa} ({machine.cpu_class})"
    slow = "INT8 may be no faster than FP32 here: octc bench measures it"
    found = [Check(group, "ok", text) if known else Check(group, "warning", text, slow)]
    if (name := emulated()) is not None:
        found.insert(0, Check(group, "info", f"emulated: {name}; answers are the processor's own, times say nothing"))
    quota = "none" if cpus.quota is None else f"{cpus.quota:g}"
    cores = f"{len(cpus.logical)} processors on {cpus.physical} cores, {len(cpus.usable)} for this process, quota {quota}"
    found.append(Check(group, "ok", f"{cores}; runtimes get {threads[0]} threads ({threads[1]})"))
    if machine.governor is None:
        found.append(Check(group, "info", "governor not readable (a virtual machine, or no frequency scaling)"))
    elif machine.governor == "performance":
        found.append(Check(group, "ok", "governor performance"))
    else:
        hint = "for steady clocks: sudo cpupower frequency-set -g performance"
        found.append(Check(group, "warning", f"governor {machine.governor}: clocks may move while measuring", hint))
    for name in ISA_LIMITS:
        if name in environ:
            what = "float32 may be computed in fewer bits" if name in FPMATH else "libraries may not use the whole processor"
            found.append(Check(group, "warning", f"{name} is set: {what}", f"unset {name}"))
    return found


def check_engines(kind: str, installed: Container[str]) -> list[Check]:
    """What this processor means for artifacts that are made for another. kind: `platform.machine()`; installed: modules."""
    others = [
        f"{t}-{p}"
        for t, one in ENGINES.items()
        for p, made_for in one.processors.items()
        if why_other_family(made_for, kind) is not None
    ]
    if not others:
        return []
    text = f"artifacts {', '.join(others)} do not run on this processor ({kind}); ONNX artifacts do, and octc takes them"
    if "onnxruntime" in installed:
        return [Check("Runtimes", "info", text, "octc export --int8 --target onnx, where the run is")]
    return [Check("Runtimes", "warning", f"{text}: onnxruntime is not installed", "pip install 'octc[ort]'", "OCT-E901")]


def check_memory(run_dir: Path, environ: Mapping[str, str], *, trains: bool, root: Path = ROOT) -> list[Check]:
    """RAM, /dev/shm, free space where runs, artifacts and temporary files go, and whether HOME can be written."""
    group = "Memory and disk"
    found = []
    total, free = memory_mib("MemTotal", root), memory_mib("MemAvailable", root)
    if total is None or free is None:
        found.append(Check(group, "info", "memory not readable"))
    else:
        short = free < RAM_MIB
        text = f"memory {total / 1024:.1f} GiB, {free / 1024:.1f} GiB available"
        hint = "close other programs" if short else ""
        found.append(Check(group, "warning" if short else "ok", text, hint, "OCT-E904" if short else None))
    if limits := limit_words(root):
        low = min(one for one in (group_limit_mib(root), space_limit_mib()) if one is not None)
        hint = "predict and bench take fewer images at once where memory is short" if low < RAM_MIB else ""
        found.append(Check(group, "warning" if hint else "info", limits, hint, "OCT-E904" if hint else None))
    shm = root / "dev/shm"
    if shm.is_dir():
        mib = shutil.disk_usage(shm).free >> 20
        short = mib < SHM_MIB
        state = "ok" if not short else "warning" if trains else "info"
        text = f"/dev/shm {mib} MiB free{': several GPUs share memory through it' if short else ''}"
        hint = "start the container with --shm-size=1g" if short else ""
        found.append(Check(group, state, text, hint, "OCT-E303" if short else None, matters=("gpu",)))
    places = [("run folder", run_dir), ("artifact folder", Path("artifacts"))]
    try:
        places.append(("temporary folder", Path(tempfile.gettempdir())))
    except OSError as error:
        fault = fault_of(error)
        found.append(Check(group, "problem", "no usable temporary folder", fault.hint if fault else "TMPDIR=DIR", "OCT-E906"))
    found += [_check_folder(name, place) for name, place in places]
    home = environ.get("HOME")
    if home is None or not os.access(home, os.W_OK):
        text = "HOME is not set" if home is None else "HOME cannot be written: libraries keep caches there"
        found.append(Check(group, "warning", text, "HOME=DIR with a writable folder"))
    return found


def _check_folder(name: str, place: Path) -> Check:
    group = "Memory and disk"
    existing = next(path for path in (place.absolute(), *place.absolute().parents) if path.is_dir())
    if not os.access(existing, os.W_OK):
        hint = "--run-dir DIR" if name == "run folder" else "check the permissions"
        return Check(group, "problem" if name == "run folder" else "warning", f"{name} cannot be written", hint, "OCT-E109")
    free = shutil.disk_usage(existing).free / GIB
    text = f"{name}: {free:.1f} GiB free"
    if free < DISK_WARNING:
        return Check(group, "problem" if free < DISK_PROBLEM else "warning", text, "free some space", "OCT-E904")
    return Check(group, "ok", text)


def check_gpu(gpus: tuple[Gpu, ...], torch: str | None, others: int | None, jetpack: str | None = None) -> list[Check]:
    """NVIDIA GPUs, other programs on them, and a torch that cannot use them. torch: its version; others: processes.

    jetpack: release of a Jetson, whose GPU nvidia-smi may not name.
    """
    group = "GPU"
    if not gpus and jetpack is not None:
        return [Check(group, "ok", "the GPU of this Jetson (nvidia-smi does not name it)")]
    if not gpus:
        hint = "a machine with an NVIDIA GPU and its driver"
        return [Check(group, "info", "no NVIDIA GPU: training takes the CPU", hint, "OCT-E903", needed=("gpu", "tensorrt"))]
    found = [
        Check(group, "ok", f"{gpu.name}, sm {gpu.sm or '?'}, driver {gpu.driver or '?'}, {gpu.memory_mib or '?'} MiB")
        for gpu in gpus
    ]
    if others:
        found.append(Check(group, "warning", f"{others} other processes use it", "wait for them before measuring"))
    if torch is not None and "+cpu" in torch:
        text = f"torch {torch} was built without CUDA"
        found.append(Check(group, "warning", text, "install torch for CUDA", "OCT-E903", needed=("gpu",), matters=("gpu",)))
    return found


def gpu_users() -> int | None:
    """How many processes compute on the GPUs; None where nvidia-smi does not say."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-compute-apps=pid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return sum(line.strip().isdigit() for line in done.stdout.splitlines())


def check_sensors(root: Path = ROOT) -> list[Check]:
    """What can be read while measuring. What cannot is null with a reason in results, never 0."""
    group = "Sensors"
    nvml = shutil.which("nvidia-smi") is not None
    clocks = bool(read_text(root / SYSTEM_CPUS / "cpu0/cpufreq/scaling_cur_freq").strip())
    zones = [*(root / "sys/class/thermal").glob("thermal_zone*/temp"), *(root / "sys/class/hwmon").glob("*/temp*_input")]
    warm = any(read_text(path).strip() for path in zones)
    tegra = shutil.which("tegrastats") is not None
    found = [
        Check(group, "ok" if clocks else "info", f"clocks {'readable' if clocks else 'not readable'}"),
        Check(group, "ok" if warm else "info", f"temperatures {'readable' if warm else 'not readable'}"),
        Check(group, "ok" if nvml else "info", f"NVML {'answers through nvidia-smi' if nvml else 'absent'}", matters=("gpu",)),
    ]
    rapl = root / RAPL
    if not rapl.exists():
        found.append(Check(group, "info", "RAPL absent: no energy of the processor", matters=("x86",)))
    elif read_text(rapl).strip():
        found.append(Check(group, "ok", "RAPL readable"))
    else:
        hint = f"sudo chmod a+r /{RAPL}"
        found.append(Check(group, "warning", "RAPL not permitted: no energy of the processor", hint, matters=("x86",)))
    if tegra:
        found.append(Check(group, "ok", "tegrastats present"))
    else:
        found.append(Check(group, "info", "tegrastats absent (it is part of JetPack)", "", "OCT-E903", needed=("jetson",)))
    return found


def check_network(environ: Mapping[str, str], *, offline: bool) -> list[Check]:
    """The switch and the proxies (their names only: values may hold passwords). Nothing is contacted."""
    group = "Network"
    text = (
        "--offline is on: connections are refused"
        if offline
        else "--offline is off: octc asks the network for nothing unless told"
    )
    found = [Check(group, "ok" if offline else "info", text)]
    proxies = [name for name in PROXIES if environ.get(name)]
    return [*found, Check(group, "info", f"proxies set: {', '.join(proxies)}" if proxies else "no proxy is set")]


def check_telemetry(
    installed: Mapping[str, str], environ: Mapping[str, str], modules: Mapping[str, ModuleType | None], home: Path
) -> list[Check]:
    """None in octc; what dependencies would send, and whether it is prevented. installed: distribution -> version.

    modules: `sys.modules` of a process that imported octc. home: where earlier programs may have left files.
    """
    group = "Telemetry"
    found = [Check(group, "ok", "octc sends nothing and has no switch to send anything")]
    left: dict[str, Check] = {}
    for one in DEPENDENCIES:
        for name in one.names:
            if name in installed:
                found.append(_telemetry_of(one, name, installed[name], is_quiet(one, environ, modules)))
        for leaf in one.leaves:
            if (home / leaf).exists():
                text = f"~/{leaf}: written by {one.names[0]} when another program, or an older octc, started it"
                left.setdefault(leaf, Check(group, "info", text, f"rm -r ~/{leaf}"))
    return [*found, *left.values()]


def _telemetry_of(one: Dependency, name: str, version: str, quiet: bool) -> Check:
    group, seen = "Telemetry", ", ".join(one.seen)
    ways = [f"{variable}={value}" for variable, value in one.switches.items()]
    ways += [f"{one.hidden} cannot be imported"] if one.hidden else []
    if one.sends and not quiet:
        hint = f"export {' '.join(word for word in ways if '=' in word)}" if one.switches else "import octc before it"
        return Check(group, "problem", f"{name} {version}: {one.sends}: not switched off", hint)
    state = f"{one.sends}: switched off ({', '.join(ways)})" if one.sends else "sends nothing of itself"
    if version.partition("+")[0] in one.seen:
        return Check(group, "ok", f"{name} {version}: {state}")
    text = f"{name} {version}: {state}, as was seen with {seen}; nobody looked at this version"
    return Check(group, "info", text, "docs/privacy.md says how to look")
