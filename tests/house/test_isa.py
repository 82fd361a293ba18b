"""`make test-isa`: which settings a machine is given, that none is dropped in silence, and that each does something."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.house.tree import ROOT
from tests.isa import SETTINGS, TESTS, Setting, absent, flags_of, ignored, kernels_of, probe, read_flags

NEW = "processor\t: 0\nflags\t\t: fpu sse4_1 sse4_2 avx fma avx2 avx512f avx512dq avx512bw avx512vl avx512_vnni\nbugs : x\n"
OLD = "processor\t: 0\nflags\t\t: fpu sse4_1 sse4_2 avx fma avx2\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("cpuinfo", "runs"),
    [
        (NEW, ["as-it-is", "default", "avx2", "avx512", "onednn-avx2", "all-avx2", "all-sse"]),
        (OLD, ["as-it-is", "default", "avx2", "onednn-avx2", "all-avx2", "all-sse"]),
        (ARM, ["as-it-is", "default"]),
        ("", ["as-it-is", "default"]),
    ],
)
def test_a_machine_is_given_what_it_has(cpuinfo: str, runs: list[str]) -> None:
    flags = flags_of(cpuinfo)
    assert [setting.name for setting in SETTINGS if not absent(setting, flags)] == runs
    assert all(absent(setting, flags) == () for setting in SETTINGS if not setting.needs)


def test_every_listed_test_is_there() -> None:
    assert len(set(TESTS)) == len(TESTS)
    assert not [name for name in TESTS if not (ROOT / name).is_file()]


def test_what_a_library_took_is_read_and_a_setting_that_it_ignored_is_seen() -> None:
    said = "onednn_verbose,v1,info,cpu,isa:Intel AVX2\nonednn_verbose,v1,primitive,exec,cpu\naten AVX2\n"
    assert kernels_of(said, {}) == ("AVX2", "Intel AVX2", "its own")
    assert kernels_of("", {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}) == ("unknown", "unknown", "AVX2")
    assert not ignored(SETTINGS[0], ("AVX2", "Intel AVX2", ""))
    assert ignored(Setting("x", {"ATEN_CPU_CAPABILITY": "default"}), ("AVX2", "", ""))


def test_the_oldest_kernels_are_really_taken() -> None:
    """Torch is asked in a process: names of variables change."""
    torch = pytest.importorskip("torch")
    oldest = SETTINGS[-1]
    if absent(oldest, read_flags()):
        pytest.skip("not an x86 processor")
    found = probe(oldest)
    assert found[0] == "DEFAULT"
    assert not ignored(oldest, found)
    assert not torch.backends.mkldnn.is_available() or "SSE4.1" in found[1]


@pytest.mark.slow
def test_every_setting_is_run_or_named_and_one_failure_is_the_result() -> None:
    """The command is a real process: one that fails under one setting alone."""
    code = "import os, sys; sys.exit(os.environ.get('ATEN_CPU_CAPABILITY') == 'default')"
    done = subprocess.run(
        [sys.executable, "tests/isa.py", sys.executable, "-c", code],
        cwd=ROOT, env={**os.environ, "ISA": ""}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    rows = dict(re.findall(r"^(?:FAILED|passed|same|NOT RUN) +([\w-]+): (.+)$", done.stdout, re.M))
    assert set(rows) == {setting.name for setting in SETTINGS}
    assert re.search(r"^FAILED +default:", done.stdout, re.M)
    assert re.search(r"^passed +as-it-is:", done.stdout, re.M)


def test_chosen_settings_are_known_and_the_others_are_named_as_left_out() -> None:
    command = [sys.executable, "tests/isa.py", sys.executable, "-c", "pass"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "ISA": "as-it-is"}, capture_output=True, text=True, check=True)
    assert re.search(r"^passed +as-it-is:", done.stdout, re.M)
    left = re.findall(r"^left out ([\w-]+)$", done.stdout, re.M)
    assert left == [setting.name for setting in SETTINGS[1:]]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "ISA": "avx3"}, capture_output=True, text=True, check=False)
    assert (done.returncode, "avx3" in done.stdout) == (2, True)
