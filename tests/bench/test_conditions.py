"""What the machine did, read from a /sys and a /proc that the test writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from octc.bench.conditions import (
    Conditions,
    Snapshot,
    cool_down,
    drifted,
    machine_warnings,
    power_reason,
    read_snapshot,
    signs,
)
from octc.bench.footprint import rss_peak_mib
from octc.host import read_machine

LOOK = Snapshot(None, None, None, None, None)


def write(root: Path, name: str, text: str | int) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_a_look_reads_clock_temperature_counters_and_stolen_time(tmp_path: Path) -> None:
    for cpu, clock in enumerate((3_000_000, 2_000_000)):
        write(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", clock)
        write(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/core_throttle_count", cpu + 1)
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", 41_500)
    write(tmp_path, "sys/class/thermal/thermal_zone1/temp", 52_000)
    write(tmp_path, "proc/stat", "cpu  10 0 5 80 1 0 0 4 0 0\ncpu0 1")
    write(tmp_path, "proc/self/cgroup", "0::/box")
    write(tmp_path, "sys/fs/cgroup/box/cpu.stat", "nr_periods 9\nnr_throttled 7")
    assert read_snapshot(tmp_path) == Snapshot(2500.0, 52.0, 3, (4, 100), 7)


def test_a_machine_without_sensors_says_none(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path) == LOOK
    shown = Conditions((LOOK, LOOK)).to_json()
    assert shown["throttled"] is None
    assert shown["temp_start_c"] == {"value": None, "reason": "no_sensor"}
    assert signs(Conditions((LOOK, LOOK))) == []


def test_clock_is_judged_by_tenths_only_where_there_are_enough_readings() -> None:
    few = Conditions(tuple(replace(LOOK, clock_mhz=c) for c in (3000.0, 1000.0)))
    assert few.clocks() is None
    many = Conditions(tuple(replace(LOOK, clock_mhz=c) for c in (3000.0, *[2900.0] * 8, 2849.0)))
    assert many.clocks() == (3000.0, 2849.0)
    assert signs(many) == ["clock_drop"]


def test_drift_needs_ten_samples_and_no_clock() -> None:
    rising = [100] * 10 + [106] * 2
    assert not drifted([100, 200], Conditions((LOOK, LOOK)))
    assert drifted([*rising[:9], 106], Conditions((LOOK, LOOK)))


@pytest.mark.parametrize(
    ("readings", "waited"), [([60.0, 58.0, 54.0], 2.0), ([44.0], 0.0), ([90.0] * 200, 120.0), ([None], 0.0)]
)
def test_a_row_waits_until_the_machine_has_cooled_down_but_not_for_ever(readings: list[float | None], waited: float) -> None:
    slept: list[float] = []
    left = iter(readings)
    assert cool_down(50.0, lambda: next(left), slept.append) == waited
    assert sum(slept) == waited
    assert cool_down(None, lambda: 99.0, slept.append) == 0.0


def test_r05_quota_battery_and_limits_on_the_instruction_set_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/box")
    write(tmp_path, "sys/fs/cgroup/box/cpu.max", "50000 100000")
    write(tmp_path, "sys/class/power_supply/BAT0/type", "Battery")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = machine_warnings(read_machine(tmp_path), tmp_path)
    assert found[0] == "quota of 0.5 processors: throttling by the scheduler is part of the result"
    assert "running on battery" in found
    assert "ONEDNN_MAX_CPU_ISA=AVX2 limits the instruction set" in found
    write(tmp_path, "sys/class/power_supply/AC/type", "Mains")
    write(tmp_path, "sys/class/power_supply/AC/online", 1)
    assert "running on battery" not in machine_warnings(read_machine(tmp_path), tmp_path)


def test_r06_why_there_is_no_energy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = read_machine(tmp_path)
    assert power_reason(replace(machine, virtual=False), tmp_path)[0] == "no_sensor"
    assert power_reason(replace(machine, virtual=True), tmp_path)[0] == "virtual_machine"
    write(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", 1)
    monkeypatch.setattr("octc.bench.conditions.os.access", lambda path, mode: False)
    reason, mend = power_reason(machine, tmp_path)
    assert reason == "no_permission"
    assert mend.startswith("sudo chmod")
    monkeypatch.setattr("octc.bench.conditions.os.access", lambda path, mode: True)
    assert power_reason(machine, tmp_path)[0] == "not_requested"


def test_largest_size_of_a_process(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/status", "Name:\tx\nVmHWM:\t  20480 kB")
    assert rss_peak_mib(tmp_path) == 20.0
    here = rss_peak_mib()
    assert here is not None
    assert 10 < here < 1e5
