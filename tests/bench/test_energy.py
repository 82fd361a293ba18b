"""Power and energy: counters and sensors in a /sys that the test writes and moves, a real reader process, a meter's file."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from octc.bench.timing.gates import judge
from octc.bench.timing.power.energy import Series, clock_shift, energy_of, joules, metering, no_energy, read_power_csv
from octc.bench.timing.power.nvml import open_nvml
from octc.bench.timing.power.sources import Rapl, no_power, open_sources, parse_tegrastats
from octc.bench.timing.result import document
from octc.bench.timing.rows import Row
from octc.bench.timing.runner import run_bench
from octc.core.errors import OctcError
from octc.machine.host import read_machine
from octc.store.runs import Run
from tests.bench.test_conditions import write
from tests.bench_tools import TINY, benched, check_schema, new_state, pretend_quiet, tiny_options
from tests.tiny_artifacts import shared_run

S = 1_000_000_000
ZONE = "sys/class/powercap/intel-rapl:0"


def rapl(root: Path, microjoules: int, most: int = 262_143_328_850) -> None:
    for name, text in (("name", "package-0"), ("energy_uj", microjoules), ("max_energy_range_uj", most)):
        write(root, f"{ZONE}/{name}", text)


def test_energy_is_the_integral_of_power_and_net_of_what_it_draws_when_it_waits() -> None:
    times = [k * S // 10 for k in range(-110, 411)]
    watts = [5.0 if t < 0 else 9.0 for t in times]
    found = energy_of("tegra", Series(times, watts), 0, 40 * S, 10.0, 2000)
    assert found.idle_w.value == pytest.approx(5.0, abs=0.05)
    assert found.gross.value == pytest.approx(40 * 9.0 / 2000 * 1e3, rel=1e-3)
    assert found.net.value == pytest.approx(40 * 4.0 / 2000 * 1e3, rel=0.02)
    assert (found.source, found.scope, found.to_json()["readings"]) == ("tegra", "jetson_module", 401)


@pytest.mark.parametrize(
    ("name", "step_s", "end_s", "reason"),
    [("rapl", 0.1, 20.0, "too_short"), ("tegra", 1.0, 40.0, "too_short"), ("rapl", 0.1, 60.0, "too_short")],
)
def test_r06_no_number_without_enough_readings(name: str, step_s: float, end_s: float, reason: str) -> None:
    times = [int(t * S) for t in np.arange(0.0, 45.0, step_s)]
    found = energy_of(name, Series(times, [float(k) for k in range(len(times))]), 0, int(end_s * S), 0.0, 100)
    assert (found.gross.value, found.gross.reason, found.net.value) == (None, reason, None)


def test_counter_that_falls_is_no_energy() -> None:
    assert joules(Series([0, S, 2 * S], [5.0, 6.0, 1.0]), True, 0, 2 * S) is None
    assert joules(Series([0, S, 2 * S], [5.0, 6.0, 9.0]), True, 0, 2 * S) == 4.0
    times = [k * S for k in range(61)]
    fallen = energy_of("rapl", Series(times, [100.0 - k for k in range(61)]), 0, 60 * S, 0.0, 10)
    assert (fallen.gross.value, fallen.gross.reason) == (None, "counter_reset")


def test_rapl_counts_over_its_wrap(tmp_path: Path) -> None:
    rapl(tmp_path, 900, most=1000)
    read = Rapl([tmp_path / ZONE])
    assert read() == 0.0
    rapl(tmp_path, 100, most=1000)
    assert read() == pytest.approx(200 / 1e6)


def test_sensor_of_a_jetson_and_its_tool(tmp_path: Path) -> None:
    for name, text in (("in1_label", "VDD_IN"), ("in1_input", 5000), ("curr1_input", 1200), ("in2_label", "VDD_SOC")):
        write(tmp_path, f"sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/{name}", text)
    (found,) = open_sources(tmp_path)
    assert (found.name, found.scope, found.read()) == ("tegra", "jetson_module", pytest.approx(6.0))
    line = "RAM 2345/7620MB CPU [5%@1510] GR3D_FREQ 0% VDD_IN 4012mW/4010mW VDD_CPU_GPU_CV 501mW/500mW"
    assert parse_tegrastats(line) == pytest.approx(4.012)
    assert parse_tegrastats("RAM 1/2MB") is None


def test_reader_process_follows_a_counter_that_moves(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    rapl(tmp_path, 1_000_000)
    with metering(tmp_path / "scratch", root=tmp_path) as meter:
        assert meter.names == ("rapl",)
        start, count = time.monotonic(), 1_000_000
        while time.monotonic() - start < 1.2:  # 2 W
            count = 1_000_000 + int((time.monotonic() - start) * 2e6)
            (tmp_path / ZONE / "energy_uj").write_text(f"{count}\n")
            time.sleep(0.01)
        series = meter.series("rapl")
    assert len(series.times) >= 5
    rate = (series.values[-1] - series.values[0]) / (series.times[-1] - series.times[0]) * S
    assert rate == pytest.approx(2.0, rel=0.3)


def test_r06_why_there_is_no_energy(tmp_path: Path) -> None:
    machine = read_machine(tmp_path)
    assert open_sources(tmp_path) == []
    assert no_power(replace(machine, virtual=False), False, tmp_path)[0] == "no_sensor"
    assert no_power(replace(machine, virtual=True), False, tmp_path)[0] == "virtual_machine"
    rapl(tmp_path, 1)
    reason, hint = no_power(machine, False, tmp_path)
    assert reason == "no_permission"
    assert hint.startswith("sudo chmod")
    assert no_energy("no_sensor").to_json()["gross_mj"] == {"value": None, "reason": "no_sensor"}


def test_r06_a_machine_without_gpu_has_no_nvml() -> None:
    found = open_nvml()
    if found is not None:
        assert found.power_w() is None or found.power_w() > 0
        pytest.skip("there is a GPU here")
    assert found is None


def test_meter_file_gives_energy_of_a_real_row_and_the_gate_looks_at_it(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_quiet(monkeypatch)
    monkeypatch.setattr("octc.bench.timing.power.energy.LEAST_S", 0.1)
    monkeypatch.setattr("octc.bench.timing.power.energy.LEAST_READINGS", 5)
    shared = shared_run(tmp_path_factory)
    run = Run(Path(shutil.copytree(shared.path, tmp_path / "runs" / shared.id)))
    log, now = tmp_path / "meter.csv", time.time()
    rows = [f"{now - 5 + 0.05 * k:.3f},{7.5}" for k in range(4000)]
    log.write_text("# offset 0.0\ntime,watts\n" + "\n".join(rows) + "\n")
    profile = replace(TINY, idle_s=0.05, duration_s=0.5)
    options = tiny_options(run, profile, vs="none", batch=1, power_csv=str(log), gates={"max_mj": 1e9})
    state = benched(run, ("onnx-fp32",), tmp_path / "s", options=options)
    row = state.rows["onnx-fp32-device-1"]
    assert row.energy is not None
    per_image = 7.5 * row.wall_s / row.n * 1e3
    assert row.energy.gross.value == pytest.approx(per_image, rel=0.3)
    assert row.energy.net.value == pytest.approx(0.0, abs=per_image / 10)
    found = document(state, judge(state), [])
    check_schema(found)
    assert found["rows"][0]["energy"]["scope"] == "wall"
    assert [gate.holds for gate in judge(state).gates] == [True]
    low = replace(state, options=replace(options, gates={"max_mj": per_image / 100}))
    assert [error.code for error in judge(low).errors] == ["OCT-E604"]
    dark = {name: replace(r, energy=no_energy("no_sensor")) for name, r in state.rows.items() if isinstance(r, Row)}
    assert "not shown (no_sensor)" in judge(replace(low, rows=dark)).gates[0].text


def meter(path: Path, start: float, count: int = 4000) -> Path:
    """Readings of 7.5 W, twenty in a second."""
    path.write_text("time,watts\n" + "".join(f"{start + 0.05 * k:.3f},7.5\n" for k in range(count)))
    return path


@pytest.mark.parametrize(
    ("step_s", "readings", "reason", "errors"),
    [
        (0.3, 4000, None, []),
        (-3600.0, 4000, "clock_set", []),
        (5.0, 4000, "clock_set", []),
        (0.0, 1, "no_readings", ["OCT-E104"]),
    ],
)
def test_a_clock_that_is_set_or_a_meter_that_fails_costs_no_latency(
    step_s: float, readings: int, reason: str | None, errors: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock jumps while the row runs. Its energy is not known; the row is, and the bench ends with what is wrong."""
    pretend_quiet(monkeypatch)
    monkeypatch.setattr("octc.bench.timing.power.energy.LEAST_S", 0.1)
    monkeypatch.setattr("octc.bench.timing.power.energy.LEAST_READINGS", 2)
    run = shared_run()
    shifts = iter([clock_shift(), clock_shift() + int(step_s * S)])
    monkeypatch.setattr("octc.bench.timing.measure.clock_shift", lambda: next(shifts))
    log = meter(tmp_path / "meter.csv", time.time() - 5, readings)
    profile = replace(TINY, idle_s=0.0, duration_s=0.2)
    options = tiny_options(run, profile, vs="none", batch=1, power_csv=str(log))
    state = new_state(run, ("onnx-fp32",), tmp_path / "s", options=options)
    rows = [row for row in state.plan.rows if row.id == "onnx-fp32-device-1"]
    state = replace(state, plan=replace(state.plan, rows=tuple(rows)))
    run_bench(state)
    row = state.rows["onnx-fp32-device-1"]
    assert (row.status, row.latency is None) == ("VALID", False)
    assert row.energy is not None
    assert row.energy.gross.reason == reason
    assert (row.energy.gross.value is None) == (reason is not None)
    assert [error.code for error in state.errors] == errors
    assert state.failed == {}


def test_a_row_of_a_meter_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    log = meter(tmp_path / "m.csv", 1000.0, 3)
    for half in ("1", "1000.15", "1000.15,", "1000.15,7", "9,1e400"):
        log.write_text(meter(log, 1000.0, 3).read_text() + half)
        assert read_power_csv(log, 0).values == [7.5] * 3


def test_meter_file_that_cannot_be_used(tmp_path: Path) -> None:
    for text in ("time,watts\n1,2\n", "a,b\nc,d\n", "2,1\n1,1\n", "1,1\n2,nan\n", "1,1\n2,inf\n", "1,1\ninf,2\n"):
        (tmp_path / "m.csv").write_text(text)
        with pytest.raises(OctcError, match="power readings") as caught:
            read_power_csv(tmp_path / "m.csv")
        assert caught.value.code == "OCT-E104"
