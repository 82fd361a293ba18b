"""What the machine did, read from a /sys and a /proc that the test writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from octc.bench.timing.conditions import (
    Conditions,
    Snapshot,
    cool_down,
    drifted,
    machine_warnings,
    read_snapshot,
    signs,
    steal_warning,
)
from octc.bench.timing.power.nvml import GpuLook
from octc.machine.host import read_machine
from octc.machine.jetson import read_jetson
from octc.machine.memory import rss_peak_mib

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
    assert found[0] == "CPU quota of 0.5 processors: throttling by the scheduler is part of the result"
    assert "running on battery" in found
    assert "ONEDNN_MAX_CPU_ISA=AVX2 limits the instruction set" in found
    write(tmp_path, "sys/class/power_supply/AC/type", "Mains")
    write(tmp_path, "sys/class/power_supply/AC/online", 1)
    assert "running on battery" not in machine_warnings(read_machine(tmp_path), tmp_path)


def test_largest_size_of_a_process(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/status", "Name:\tx\nVmHWM:\t  20480 kB")
    assert rss_peak_mib(tmp_path) == 20.0
    here = rss_peak_mib()
    assert here is not None
    assert 10 < here < 1e5


def stat(busy: tuple[int, int], idle: int = 0) -> str:
    rows = [f"cpu{k} {ticks} 0 0 {idle} 0 0 0 0 0 0" for k, ticks in enumerate(busy)]
    return "\n".join([f"cpu  {sum(busy)} 0 0 {2 * idle} 0 0 0 0 0 0", *rows])


def test_work_of_other_programs_is_told_from_the_bench_s_own(tmp_path: Path) -> None:
    write(tmp_path, "proc/stat", stat((100, 100), 1000))
    write(tmp_path, "proc/7/stat", "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 40 10 0 0")
    first = read_snapshot(tmp_path, (0, 1), (7,))
    assert first.work == (200, 2200, 50)
    write(tmp_path, "proc/stat", stat((190, 130), 1040))
    write(tmp_path, "proc/7/stat", "7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 110 30 0 0")
    conditions = Conditions((first, read_snapshot(tmp_path, (0, 1), (7,))))
    assert conditions.foreign == (30, 200)
    assert "foreign_load" in signs(conditions)
    mine = Conditions((first, replace(first, work=(310, 2400, 155))))
    assert "foreign_load" not in signs(mine), "its own 105 of 110 ticks"


def test_r03_what_holds_a_machine_back_now(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path).slowed is None
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50000")
    assert read_snapshot(tmp_path).slowed is False, "it was held back once, before the row"
    write(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50005")
    seen = read_snapshot(tmp_path)
    assert seen.slowed is True
    assert signs(Conditions((seen, seen))) == ["thermal_throttle"]


def test_r03_jetson_clock_below_the_value_it_is_locked_to(tmp_path: Path) -> None:
    for name, clock in (("min_freq", 900), ("max_freq", 900), ("cur_freq", 900)):
        write(tmp_path, f"sys/class/devfreq/17000000.gpu/{name}", clock)
    write(tmp_path, "sys/class/hwmon/hwmon4/oc1_event_cnt", 2)
    first = read_snapshot(tmp_path)
    assert (first.slowed, first.throttles) == (False, 2)
    write(tmp_path, "sys/class/devfreq/17000000.gpu/cur_freq", 600)
    assert read_snapshot(tmp_path).slowed is True
    write(tmp_path, "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic")
    found = read_jetson(tmp_path)
    assert (found["jetson_clocks"], found["jetpack"]) == (True, "L4T 36.4.3")
    assert read_machine(tmp_path, gpus=False).to_json()["jetpack"] == "L4T 36.4.3"


@pytest.mark.parametrize(
    ("bits", "reasons", "allowed"),
    [(0, [], []), (0x1, [], []), (0x40, ["thermal_throttle"], ["thermal_throttle"]),
     (0x80, ["power_throttle"], ["power_throttle"]), (0x4, ["power_throttle"], [])],
)  # fmt: skip
def test_r03_reasons_of_a_gpu(bits: int, reasons: list[str], allowed: list[str]) -> None:
    looks = (replace(LOOK, gpu=GpuLook(1000.0, 60.0, 0)), replace(LOOK, gpu=GpuLook(1000.0, 61.0, bits)))
    assert signs(Conditions(looks)) == reasons
    assert signs(Conditions(looks), allow_cap=True) == allowed
    assert Conditions(looks).power_capped is (bits == 0x4)


def test_stolen_time_of_one_to_five_percent_is_worth_a_warning() -> None:
    first = replace(LOOK, steal=(0, 0))
    found = [steal_warning(Conditions((first, replace(LOOK, steal=(ticks, 1000))))) for ticks in (5, 30, 80)]
    assert found == [None, 3.0, None]
