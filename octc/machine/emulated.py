"""A Python that runs as another processor, by qemu-user: an environment whose `python` is a script that starts the emulator.

Processes that such a Python starts by `sys.executable` are emulated too; without it they would leave the emulation (x86 on
x86) or not start at all. Emulation shows answers, precisions and refusals of an instruction set, and nothing of its speed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.files import write_bytes
from octc.machine.cpu import X86, family_of

VARIABLE = "OCTC_EMULATED"  # in an emulated process: processor and emulator
# what forces kernels of libraries, and would force those of the machine below
KERNELS = (
    "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES",
)  # fmt: skip
LEAST = 10  # version of qemu-user: 7.2 ends with signal 11 when onnxruntime is imported
HINT = (
    "qemu-user of version 10 or newer: apt-get install qemu-user (Debian 13), apt-get install -t bookworm-backports qemu-user"
)
ROOT_HINT = "on Debian: sh benchmarks/arm64_root.sh DIR, then --emulate-root DIR/arm64 (docs/edge-cpus.md)"


@dataclass(frozen=True)
class Emulated:
    """A processor. family: that of `octc.machine.cpu.family_of`; cpu: its name for qemu.

    tokens: of the instruction set, where the kernel's list under emulation is that of the machine below (x86); None: it is
        right (Arm).
    """

    family: str
    cpu: str
    tokens: frozenset[str] | None = None


PROGRAMS = {"arm": "qemu-aarch64", "x86": "qemu-x86_64"}
PROCESSORS = {
    "aarch64": Emulated("arm", "cortex-a72"),
    "cortex-a72": Emulated("arm", "cortex-a72"),
    "cortex-a76": Emulated("arm", "cortex-a76"),
    "neoverse-n1": Emulated("arm", "neoverse-n1"),
    "neoverse-v1": Emulated("arm", "neoverse-v1"),
    "x86-64-v2": Emulated("x86", "Nehalem", frozenset()),
    "x86-64-v3": Emulated("x86", "Haswell-noTSX", frozenset({"avx2"})),
}


def emulated() -> str | None:
    """Processor and emulator of this process, as `emulated_python` writes them; None on a real one."""
    return os.environ.get(VARIABLE) or None


def emulated_flags(flags: Iterable[str]) -> tuple[str, ...]:
    """Flags of /proc/cpuinfo without those that the emulated processor lacks; on a real one, all of them."""
    words = (emulated() or "").split()
    tokens = PROCESSORS[words[0]].tokens if words and words[0] in PROCESSORS else None
    if tokens is None:
        return tuple(flags)
    beyond = {flag for token, ways in X86.items() if token not in tokens for way in ways for flag in way}
    return tuple(flag for flag in flags if flag not in beyond)


def emulator(name: str) -> tuple[str, str]:
    """(path of the emulator of a processor, its version).

    Raises:
        OctcError: E903 it is not installed, or older than `LEAST`.
    """
    program = PROGRAMS[PROCESSORS[name].family]
    path = shutil.which(program) or shutil.which(f"{program}-static")
    if path is None:
        raise OctcError("OCT-E903", f"no {program} on this machine", hint=HINT, place="--emulate")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=60).stdout
    version = next((word for word in said.split() if word[:1].isdigit()), "")
    major = version.partition(".")[0]
    if not major.isdigit():
        raise OctcError("OCT-E903", f"{program} does not tell its version", hint=HINT, place="--emulate")
    if int(major) < LEAST:
        raise OctcError("OCT-E903", f"{program} {version} is too old: it crashes in onnxruntime", hint=HINT, place="--emulate")
    return path, version


def emulated_python(name: str, root: Path | None, place: Path) -> Path:
    """Make an environment below `place` whose Python runs as a processor.

    Args:
        name: a key of `PROCESSORS`. root: folder with the programs of that processor's family, Python and octc among them;
            not needed where this machine is of the family: then its own Python and packages are taken.

    Returns: the path of its `python`, for `subprocess` and for `sys.executable` of what runs in it.

    Raises:
        OctcError: E903 no emulator, one that is too old, or no Python of that family.
    """
    path, version = emulator(name)
    one = PROCESSORS[name]
    own = family_of() == one.family
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve() if own else _python_of(root, one.family)
    python = place / "bin" / "python"
    packages = place / "lib" / _library(program, own=own) / "site-packages"
    for folder in (python.parent, packages):
        folder.mkdir(parents=True)
    everything = str(not own or sys.prefix == sys.base_prefix).lower()
    write_bytes(place / "pyvenv.cfg", f"home = {program.parent}\ninclude-system-site-packages = {everything}\n".encode())
    if own:  # the packages of this environment, with those that are installed by a link to their sources
        folders = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        lines = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in folders)
        write_bytes(packages / "host.pth", lines.encode())
    words = [path, "-cpu", one.cpu, "-0", str(python), *([] if own else ["-L", str(root)]), str(program)]
    script = f"#!/bin/sh\nunset {' '.join(KERNELS)}\nexport {VARIABLE}={shlex.quote(f'{name} (qemu-user {version})')}\n"
    write_bytes(python, f'{script}exec {shlex.join(words)} "$@"\n'.encode())
    python.chmod(0o755)
    return python


def _python_of(root: Path | None, family: str) -> Path:
    found = () if root is None else sorted(root.glob("usr/bin/python3.[0-9]*"))
    names = [one for one in found if one.name.removeprefix("python3.").isdigit()]
    if not names:
        where = "" if root is None else f" in {root}"
        raise OctcError("OCT-E903", f"no Python for {family}{where}", hint=ROOT_HINT, place="--emulate-root")
    return names[0].absolute()


def _library(program: Path, *, own: bool) -> str:
    return f"python{sys.version_info[0]}.{sys.version_info[1]}" if own else program.name
