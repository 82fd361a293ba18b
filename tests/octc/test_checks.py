"""Checks of the machine, on machines that are written down as the kernel's files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from octc.core.telemetry import DEPENDENCIES, Dependency
from octc.machine.checks import (
    RAPL,
    Check,
    check_cpu,
    check_gpu,
    check_kind,
    check_memory,
    check_network,
    check_sensors,
    check_telemetry,
    gpu_users,
    seen_from,
)  # fmt: skip
from octc.machine.cpu import Cpus
from octc.machine.host import Gpu, Machine


def machine(*isa: str, governor: str | None = None) -> Machine:
    cpus = Cpus((0, 1), (0, 1), None, {0: "0", 1: "1"}, None, 1.5)
    return Machine("host", "Linux", "A processor", isa, "x86-avx2", cpus, governor, 8000, False, (), 0.0, {})


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def states(checks: list[Check]) -> dict[str, str]:
    return {check.text.split()[0].rstrip(":"): check.state for check in checks}


def test_a_target_turns_what_it_needs_into_problems_and_the_rest_into_information() -> None:
    lack = Check("GPU", "info", "none", needed=("gpu",))
    slow = Check("Memory", "warning", "small", matters=("gpu",))
    assert [seen_from(lack, target).state for target in (None, "gpu", "x86")] == ["info", "problem", "info"]
    assert [seen_from(slow, target).state for target in (None, "gpu", "x86")] == ["warning", "warning", "info"]
    fine = Check("GPU", "ok", "there", needed=("gpu",))
    assert seen_from(fine, "gpu") == fine


def test_processor() -> None:
    slow = check_cpu(machine("avx2"), {}, (1, "quota"))
    assert slow[0].state == "warning"
    assert "octc bench" in slow[0].hint
    assert "quota 1.5; runtimes get 1 threads (quota)" in slow[1].text
    quick = check_cpu(machine("avx2", "vnni", governor="performance"), {}, (2, "physical_cores"))
    assert [check.state for check in quick] == ["ok", "ok", "ok"]
    moving = check_cpu(machine("vnni", governor="powersave"), {"ONEDNN_MAX_CPU_ISA": "AVX2"}, (2, "physical_cores"))
    assert [check.state for check in moving] == ["ok", "ok", "warning", "warning"]
    assert moving[-1].hint == "unset ONEDNN_MAX_CPU_ISA"
    fewer = check_cpu(machine("vnni"), {"DNNL_DEFAULT_FPMATH_MODE": "BF16"}, (2, "physical_cores"))[-1]
    assert (fewer.state, fewer.hint) == ("warning", "unset DNNL_DEFAULT_FPMATH_MODE")
    assert "float32" in fewer.text


@pytest.mark.parametrize(
    ("kind", "board", "target", "problem"),
    [
        ("x86_64", "", "x86", False), ("aarch64", "", "x86", True), ("x86_64", "", "jetson", True),
        ("aarch64", "NVIDIA Jetson Orin NX\0", "jetson", False), ("aarch64", "Raspberry Pi 5\0", "jetson", True),
        ("aarch64", "", "gpu", False), ("x86_64", "", None, False),
    ],
)  # fmt: skip
def test_kind_of_machine(kind: str, board: str, target: str | None, problem: bool, tmp_path: Path) -> None:
    if board:
        put(tmp_path, "proc/device-tree/model", board)
    found = check_kind(kind, target, tmp_path)
    assert [check.state for check in found] == (["problem"] if problem else ["ok"] if board else [])


def test_memory_and_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "proc/meminfo", "MemTotal: 4194304 kB\nMemAvailable: 524288 kB\n")
    (tmp_path / "dev/shm").mkdir(parents=True)
    small = os.statvfs(tmp_path)
    monkeypatch.setattr("octc.machine.checks.SHM_MIB", (small.f_bavail * small.f_frsize >> 20) + 10_000)
    found = check_memory(tmp_path / "runs", {"HOME": str(tmp_path)}, trains=True, root=tmp_path)
    assert found[0].state == "warning"
    assert found[0].text == "memory 4.0 GiB, 0.5 GiB available"
    assert found[1].state == "warning"
    assert found[1].code == "OCT-E303"
    assert "--shm-size=1g" in found[1].hint
    assert check_memory(tmp_path, {}, trains=False, root=tmp_path)[1].state == "info"
    assert check_memory(tmp_path, {}, trains=False, root=tmp_path)[-1].text == "HOME is not set"


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octc.machine.checks.DISK_PROBLEM", 1e9)
    monkeypatch.setattr("octc.machine.checks.DISK_WARNING", 1e9)
    found = states(check_memory(tmp_path / "not" / "there", {"HOME": str(tmp_path)}, trains=False))
    assert found["run"] == "problem"
    assert not (tmp_path / "not").exists()


def test_a_run_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere, so the kernel's answer is given here
    found = [check for check in check_memory(tmp_path / "runs", {}, trains=False) if check.text.startswith("run folder")]
    assert [check.state for check in found] == ["problem"]


def test_gpu() -> None:
    none = check_gpu((), "2.9", None)
    assert [seen_from(none[0], target).state for target in (None, "gpu", "x86")] == ["info", "problem", "info"]
    found = check_gpu((Gpu("NVIDIA H100", "9.0", "570.1", 81559),), "2.9.0+cpu", 3)
    assert [check.state for check in found] == ["ok", "warning", "warning"]
    assert "H100, sm 9.0, driver 570.1, 81559 MiB" in found[0].text
    assert seen_from(found[2], "gpu").state == "problem"


def test_other_users_of_a_gpu_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 4711\necho 4712\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpu_users() == 2
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_users() is None


def test_sensors(tmp_path: Path) -> None:
    bare = states(check_sensors(tmp_path))
    assert (bare["clocks"], bare["temperatures"], bare["RAPL"]) == ("info", "info", "info")
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2400000\n")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "41000\n")
    put(tmp_path, RAPL, "123\n")
    full = states(check_sensors(tmp_path))
    assert (full["clocks"], full["temperatures"], full["RAPL"]) == ("ok", "ok", "ok")
    put(tmp_path, RAPL, "")  # as a file that may not be read looks
    denied = [check for check in check_sensors(tmp_path) if check.text.startswith("RAPL")]
    assert denied[0].state == "warning"
    assert denied[0].hint == f"sudo chmod a+r /{RAPL}"


def test_network() -> None:
    assert states(check_network({}, offline=True))["--offline"] == "ok"
    proxied = check_network({"https_proxy": "http://me:secret@there"}, offline=False)[1].text
    assert "https_proxy" in proxied
    assert "secret" not in proxied


def telemetry(name: str, version: str, environ: dict[str, str], modules: dict[str, Any]) -> Check:
    (own, line) = check_telemetry({name: version}, environ, modules, Path("nowhere"))
    assert own.state == "ok"
    assert line.text.startswith(f"{name} {version}")
    return line


@pytest.mark.parametrize("one", DEPENDENCIES, ids=lambda one: one.names[0])
def test_each_dependency_is_named_with_its_switch_and_its_state(one: Dependency) -> None:
    """Every dependency is quiet with its switches, a problem without, and a version that nobody watched is said to be one."""
    name, blocked = one.names[0], {one.hidden: None} if one.hidden else {}
    quiet = telemetry(name, one.seen[-1] + "+cpu", dict(one.switches), blocked)
    assert quiet.state == "ok"
    assert all(f"{variable}={value}" in quiet.text for variable, value in one.switches.items())
    assert telemetry(name, "99.0", dict(one.switches), blocked).state == "info"
    if not one.sends:
        assert telemetry(name, one.seen[0], {}, {}).state == "ok"
        return
    against = {variable: "1" if value == "0" else "0" for variable, value in one.switches.items()}
    for environ, modules in ((against, {one.hidden: os} if one.hidden else {}), ({}, {})):
        loud = telemetry(name, one.seen[-1], environ, modules)
        assert loud.state == "problem"
        assert all(f"{variable}={value}" in loud.hint for variable, value in one.switches.items())


def test_what_a_dependency_left_in_the_home_folder_is_named(tmp_path: Path) -> None:
    put(tmp_path, "intel/stats", "{}")
    put(tmp_path, ".cache/Microsoft/DeveloperTools/.onnxruntime/deviceid", "x")
    found = [check for check in check_telemetry({}, {}, {}, tmp_path) if check.state == "info"]
    assert [check.hint for check in found] == ["rm -r ~/.cache/Microsoft/DeveloperTools/.onnxruntime", "rm -r ~/intel/stats"]
    assert not any(str(tmp_path) in check.text for check in found)
