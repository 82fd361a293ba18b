"""The machine as data: what is written into results, and what a missing tool or file turns into."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from octc.machine.host import ISA_LIMITS, Gpu, cpu_times, host_name, parse_gpu, read_gpus, read_machine, versions
from octc.machine.memory import free_mib, memory_mib

SECTION_17 = {
    "name", "os", "cpu_model", "cpu_class", "isa", "cores_logical", "cores_physical", "affinity", "cgroup_quota", "smt",
    "governor", "ram_mib", "virtual", "gpus", "power_mode", "jetson_clocks", "jetpack", "load_before", "remote_host",
}  # fmt: skip


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_this_machine_in_the_shape_of_a_result() -> None:
    value = read_machine().to_json()
    assert set(value) == SECTION_17
    assert json.loads(json.dumps(value)) == value
    assert value["cores_logical"] >= value["cores_physical"] >= 1
    assert value["ram_mib"] > 100
    assert value["load_before"]["value"] >= 0


def test_a_machine_of_which_nothing_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "getloadavg")
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ISA_LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    machine = read_machine(tmp_path)
    value = machine.to_json()
    assert (value["isa"], value["cpu_class"], value["governor"], value["gpus"]) == (["unknown"], "unknown", None, [])
    assert value["load_before"] == {"value": None, "reason": "not_readable"}
    assert value["virtual"] is None
    assert value["ram_mib"] > 0
    assert machine.isa_limits == {"ONEDNN_MAX_CPU_ISA": "AVX2"}


def test_a_virtual_machine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    put(tmp_path, "proc/cpuinfo", "flags : avx2 hypervisor\n")
    assert read_machine(tmp_path).virtual is True
    put(tmp_path, "proc/cpuinfo", "flags : avx2\n")
    assert read_machine(tmp_path).virtual is False


def test_files_of_the_kernel(tmp_path: Path) -> None:
    put(tmp_path, "proc/meminfo", "MemTotal:       16384000 kB\nMemAvailable:    2048000 kB\n")
    assert memory_mib("MemTotal", tmp_path) == 16000
    assert memory_mib("MemAvailable", tmp_path) == 2000
    assert memory_mib("SwapFree", tmp_path) is None
    put(tmp_path, "proc/stat", "cpu  10 1 5 100 2 0 3 7 4 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert cpu_times(tmp_path) == (7, 128)
    put(tmp_path, "proc/stat", "intr 5\n")
    assert cpu_times(tmp_path) is None
    put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    assert read_machine(tmp_path, gpus=False).governor == "powersave"


@pytest.mark.parametrize(
    ("line", "gpu"),
    [
        ("NVIDIA H100 80GB HBM3, 9.0, 570.86.15, 81559", Gpu("NVIDIA H100 80GB HBM3", "9.0", "570.86.15", 81559)),
        ("Orin (nvgpu), 8.7, 540.3.0, [N/A]", Gpu("Orin (nvgpu)", "8.7", "540.3.0", None)),
        ("No devices were found", None), ("", None), ("a, b", None), ("[N/A], 8.7, 1, 2", None),
    ],
)  # fmt: skip
def test_lines_of_nvidia_smi(line: str, gpu: Gpu | None) -> None:
    assert parse_gpu(line) == gpu


@pytest.mark.parametrize(
    ("script", "count"),
    [
        ("echo 'NVIDIA A, 8.6, 550.1, 24564'; echo 'NVIDIA B, 9.0, 550.1, 81559'", 2),
        ("echo 'NVIDIA-SMI has failed'; exit 9", 0),
        ("echo 'No devices were found'", 0),
    ],
)  # fmt: skip
def test_nvidia_smi_as_a_program(script: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert len(read_gpus()) == count


def test_an_nvidia_smi_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("octc.machine.host.SMI_SECONDS", 0.5)
    assert read_gpus() == ()


@pytest.mark.parametrize(
    ("name", "shown"), [("box-1.lan", "box-1.lan"), ("a/b c:d", "a-b-c-d"), ("--", "unknown"), ("日本", "unknown")]
)
def test_a_host_name_can_be_part_of_a_file_name(name: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)
    assert host_name() == shown


def test_versions_without_importing() -> None:
    found = versions(("numpy", "no-such-library"))
    assert list(found) == ["numpy"]
    assert found["numpy"][0].isdigit()


def test_free_memory_is_what_the_machine_and_its_control_group_leave(tmp_path: Path) -> None:
    """What the group holds for files counts as free: the kernel takes it back."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    assert free_mib(tmp_path) is None
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 16384000 kB\nMemAvailable: 8192000 kB\n")
    assert free_mib(tmp_path) == 8000
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/box\n")
    group = tmp_path / "sys/fs/cgroup/box"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{2048 << 20}\n")
    (group / "memory.stat").write_text(f"anon {512 << 20}\nfile {1024 << 20}\n")
    assert free_mib(tmp_path) == 1536
