"""The tests that compute, under each instruction set that this machine offers: make test-isa.

python tests/isa.py COMMAND...: run COMMAND and the tests below, once a setting; exit code 1 if one of them failed.
ISA="NAME NAME" in the environment chooses settings; the others are named as left out.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Setting:
    """variables: what chooses the kernels of a library. needs: flags of /proc/cpuinfo without which it would do nothing."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


WIDE = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
SETTINGS = (
    Setting("as-it-is"),
    Setting("default", {"ATEN_CPU_CAPABILITY": "default"}),
    Setting("avx2", {"ATEN_CPU_CAPABILITY": "avx2"}, ("avx2", "fma")),
    Setting("avx512", {"ATEN_CPU_CAPABILITY": "avx512"}, WIDE),
    Setting("onednn-avx2", {"ONEDNN_MAX_CPU_ISA": "AVX2"}, ("avx2", "fma")),
    Setting(
        "all-avx2",
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
        ("avx2", "fma"),
    ),
    Setting(
        "all-sse",
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
        ("sse4_1", "sse4_2"),
    ),
)
# What trains, calibrates, quantises or compares engines, and then asserts something of the numbers. Parsers, refusals, files
# and words come out alike everywhere; `make test` has those.
TESTS = (
    "tests/compress/test_calibrate.py",
    "tests/compress/test_fake_quant.py",
    "tests/compress/test_learned_steps.py",
    "tests/compress/test_placement_xnnpack.py",
    "tests/compress/test_qat.py",
    "tests/compress/test_rounding.py",
    "tests/compress/test_sensitivity.py",
    "tests/compress/test_trace.py",
    "tests/export/test_attention.py",
    "tests/export/test_encoding.py",
    "tests/export/test_fp16.py",
    "tests/export/test_pack.py",
    "tests/export/test_pipeline.py",
    "tests/export/test_temperature.py",
    "tests/export/test_to_openvino.py",
    "tests/runtimes/test_engines.py",
    "tests/runtimes/test_golden.py",
    "tests/runtimes/test_litert.py",
    "tests/train/test_assess.py",
    "tests/train/test_augment.py",
    "tests/train/test_averaging.py",
    "tests/train/test_cached.py",
    "tests/train/test_loop.py",
    "tests/train/test_stages.py",
    "tests/train/test_svm.py",
    "tests/cli/test_verify.py",
    "tests/runtimes/test_compiled.py",
    "tests/train/test_precision.py",
)
# Asks torch what it took: a variable that a library does not know would be passed over in silence.
PROBE = """
import torch
with torch.no_grad():
    torch.nn.functional.conv2d(torch.ones(8, 16, 32, 32), torch.ones(16, 16, 3, 3))
print("aten", torch.backends.cpu.get_cpu_capability())
"""


def flags_of(cpuinfo: str) -> frozenset[str]:
    """The flags of the first processor in the text of /proc/cpuinfo (x86 `flags`, ARM `Features`); none where it has none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def read_flags() -> frozenset[str]:
    """Those of this machine; none where the system does not say (a Mac)."""
    try:
        return flags_of(Path("/proc/cpuinfo").read_text())
    except OSError:
        return frozenset()


def absent(setting: Setting, flags: Collection[str]) -> tuple[str, ...]:
    """What this machine lacks for a setting; nothing where it can be run."""
    return tuple(flag for flag in setting.needs if flag not in flags)


def kernels_of(probed: str, variables: Mapping[str, str]) -> tuple[str, str, str]:
    """From what the probe said: ATen's capability, oneDNN's instruction set, MKL's (that one cannot be asked)."""
    aten = next((line.split()[1] for line in probed.splitlines() if line.startswith("aten ")), "unknown")
    told = (line.split("cpu,isa:", 1)[1] for line in probed.splitlines() if line.startswith("onednn") and "cpu,isa:" in line)
    return aten, next(told, "unknown"), variables.get("MKL_ENABLE_INSTRUCTIONS", "its own")


def ignored(setting: Setting, kernels: tuple[str, str, str]) -> bool:
    """ATen was told another capability than it says that it has."""
    wanted = setting.variables.get("ATEN_CPU_CAPABILITY")
    return wanted is not None and wanted.upper() != kernels[0].upper()


def probe(setting: Setting) -> tuple[str, str, str]:
    env = {**os.environ, **setting.variables, "ONEDNN_VERBOSE": "1"}
    done = subprocess.run([sys.executable, "-c", PROBE], env=env, capture_output=True, text=True, check=True)
    return kernels_of(done.stdout, setting.variables)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(command: list[str], chosen: Collection[str]) -> int:
    """Run `command` with the tests under each setting, or those that were chosen by name; 2 if a name is unknown."""
    if unknown := sorted(set(chosen) - {setting.name for setting in SETTINGS}):
        say(f"unknown setting {', '.join(unknown)}: choose from {', '.join(setting.name for setting in SETTINGS)}")
        return 2
    flags = read_flags()
    known: dict[tuple[str, str, str], str] = {}
    rows, failed = [], False
    for setting in SETTINGS:
        if chosen and setting.name not in chosen:
            rows.append(f"left out {setting.name}")
            continue
        if lacks := absent(setting, flags):
            rows.append(f"NOT RUN  {setting.name}: this processor ({platform.machine()}) has no {', '.join(lacks)}")
            continue
        kernels = probe(setting)
        told = f"ATen {kernels[0]}, oneDNN {kernels[1]}, MKL {kernels[2]}"
        if kernels in known:
            rows.append(f"same     {setting.name}: the kernels of {known[kernels]} ({told})")
            continue
        known[kernels] = setting.name
        say(f"== {setting.name}: {told}")
        begun = time.monotonic()
        code = subprocess.run([*command, *TESTS], env={**os.environ, **setting.variables}, cwd=ROOT, check=False).returncode
        wrong = code != 0 or ignored(setting, kernels)
        failed |= wrong
        rows.append(f"{'FAILED' if wrong else 'passed':8} {setting.name}: {told}, {time.monotonic() - begun:.0f} s")
    say("\n".join(rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ.get("ISA", "").split()))
