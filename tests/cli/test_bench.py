"""`octc bench`: the command as it is typed, with short profiles; and as a process that is interrupted or killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.bench.timing.request import quantity, threads_of
from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.machine.cpu import read_cpus
from octc.machine.host import host_name
from octc.store.runs import Run
from tests.bench_tools import SHORT, TEACHER, check_schema, pretend_quiet, short_profiles, with_teacher
from tests.tiny_artifacts import shared_run

Said = Callable[..., tuple[int, str, str]]
Octc = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Run:
    return with_teacher(shared_run(tmp_path_factory), tmp_path)


@pytest.fixture
def bench(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run `octc bench WORDS...` in tmp_path with short profiles: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("OCTC_BENCH__THREADS", "1")
    short_profiles(monkeypatch)

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main(["bench", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def only(run: Run, *names: str) -> None:
    """Leave these artifacts of the run."""
    for folder in run.artifacts.iterdir():
        if folder.name not in names:
            shutil.rmtree(folder)


def test_the_command_as_it_stands_in_the_readme(run: Run, bench: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_quiet(monkeypatch)
    only(run, "onnx-int8", "onnx-fp32", "tensorrt-int8")
    only(Run(run.path.parent / TEACHER), "onnx-fp32")  # as on a box without torch
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    code, out, err = bench()
    assert code == 0, err
    assert err.startswith(f"using {Path('runs') / run.id / 'artifacts'} (newest valid; choose with ARTIFACT)")
    assert re.search(r"plan: 8 rows, 6 comparisons, at least \d+ s", err)
    assert out.startswith("machine ")
    for word in ("onnx-int8", "device, batch 8", "end to end", "teacher-onnx-fp32", "reference", "not verified here"):
        assert word in out
    assert re.search(r"ratio +as shipped: onnx-int8 and teacher-onnx-fp32, device: .*the teacher takes", out)
    assert re.search(r"NA +tensorrt-int8, device: no TensorRT engine", out)
    assert re.search(r"RESULT: PASS · no gate set · reports/bench-b-\S+\.{json,md,html} · exit 0\n$", out)
    for name in ("onnx-int8", "onnx-fp32"):
        check_schema(json.loads((run.artifacts / name / f"bench-{host_name()}.json").read_text()))
    assert not (run.artifacts / "tensorrt-int8" / f"bench-{host_name()}.json").exists()
    report = next((tmp_path / "reports").glob("*.md")).read_text()
    assert "teacher-onnx-fp32" in report
    assert str(tmp_path) not in report, "no path of this machine"
    assert not list(scratch.iterdir())


def test_quick_says_so_first_and_json_is_one_document(run: Run, bench: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_quiet(monkeypatch)
    only(run, "onnx-int8", "onnx-fp32", "onnx-fp16")
    code, out, err = bench("--quick", "--json", "--vs", "none")
    value = json.loads(out)
    assert (code, value["status"], value["error"]) == (0, "ok", None)
    assert err.startswith("quick profile: not comparable, not for publication\n")
    check_schema(value["data"])
    assert value["run_id"] == value["data"]["run_id"]
    assert value["data"]["warnings"][0] == "quick profile: not comparable, not for publication"
    settings = value["data"]["settings"]
    assert (settings["profile"], settings["origins"]["bench.threads"]) == ("quick", "env:OCTC_BENCH__THREADS")
    na = {row["id"]: row["reasons"] for row in value["data"]["rows"] if row["status"] == "NA"}
    assert "name its folder" in na["onnx-fp16-device-1"][0]
    kinds = [c["kind"] for c in value["data"]["comparisons"]]
    assert kinds == ["int8_vs_other"]
    text = next(Path("reports").glob("*.md")).read_text()
    assert text.startswith("**quick profile: not comparable, not for publication**\n")


def test_r09_teacher_that_is_not_here_is_na_and_no_failure(run: Run, bench: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_quiet(monkeypatch)
    only(run, "onnx-fp32")
    shutil.rmtree(run.path.parent / TEACHER / "artifacts")
    code, out, err = bench("--batch", "1")
    assert code == 0, err
    reason = f"no artifact of its teacher {TEACHER} is here; where that run is: octc export {TEACHER} --target all"
    assert f"NA        teacher, device: {reason}" in out
    assert f"no ratio: {reason}" in out
    shutil.rmtree(run.path.parent / TEACHER)
    assert bench("--dry-run")[0] == 0


def test_gates_decide_the_exit_code(run: Run, bench: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_quiet(monkeypatch)
    folder = run.artifacts / "onnx-fp32"
    words = (folder, "--vs", "none", "--batch", "1", "--max-p50")
    code, out, err = bench(*words, "60s")
    assert code == 0, err
    assert "--max-p50 60000ms on onnx-fp32-end_to_end-1: p50 " in out
    assert "RESULT: PASS · 2 of 2 gates met" in out
    code, out, err = bench(*words, "0.000001ms")
    assert code == 1
    assert "error[OCT-E604]: gate missed: --max-p50 1e-06ms on onnx-fp32-device-1" in err
    assert "RESULT: FAIL · 0 of 2 gates met" in out
    assert len(list(folder.glob(f"bench-{host_name()}*.json"))) == 2, "the earlier result is kept"


REFUSED: tuple[tuple[tuple[str, ...], str, int], ...] = (
    (("--quick", "--max-p90", "30ms"), "OCT-E102", 2),
    (("--min-throughput", "10"), "OCT-E102", 2),
    (("--scenario", "offline", "--max-p50", "3ms"), "OCT-E102", 2),
    (("--max-p90", "30 parsecs"), "OCT-E104", 2),
    (("--duration", "-1"), "OCT-E104", 2),
    (("--duration", "nan"), "OCT-E104", 2),
    (("--batch", "0"), "OCT-E104", 2),
    (("--min-queries", "0"), "OCT-E104", 2),
    (("--scenario", "server"), "OCT-E104", 2),
    (("--vs", "nobody"), "OCT-E104", 2),
    (("--threads", "4096"), "OCT-E104", 2),
    (("--images", "nowhere"), "OCT-E230", 3),
    (("nowhere",), "OCT-E107", 2),
)


def test_requests_that_are_refused(bench: Said) -> None:
    for words, code, ends in REFUSED:
        found, out, err = bench(*words)
        assert (found, out) == (ends, ""), words
        assert f"error[{code}]" in err
        assert "help:" in err
    assert not Path("reports").exists()


def test_no_artifact_is_an_error_of_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench"]) == 2


def test_artifact_that_no_engine_here_opens_is_an_error_of_the_environment(run: Run, bench: Said) -> None:
    code, _, err = bench(run.artifacts / "tensorrt-int8")
    assert code == 4
    assert "error[OCT-E903]" in err


def test_folder_that_cannot_be_written_is_said_first(run: Run, bench: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octc.bench.timing.job.os.access", lambda path, mode: False)
    code, _, err = bench(run.artifacts / "onnx-fp32", "--vs", "none")
    assert code == 2
    assert "error[OCT-E109]" in err
    assert not (run.artifacts / "onnx-fp32" / "samples").exists()


def test_dry_run_prints_the_plan_and_writes_nothing(run: Run, octc: Octc, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = octc("bench", "--dry-run", env={"COLUMNS": "160"})
    assert done.returncode == 0, done.stderr
    for word in ("openvino-int8", "end to end", "1024", "as shipped, device, against teacher-torch-fp32", "10 pairs of blocks"):
        assert word in done.stdout
    assert "at least" in done.stderr
    done = octc("bench", "--dry-run", "--json", "--quick")
    value = json.loads(done.stdout)
    assert value["data"]["profile"] == "quick"
    assert any(row["row"] == "device, batch 8" for row in value["data"]["plan"])
    assert sorted(tmp_path.rglob("*")) == before


def test_r05_restricted_affinity_of_a_real_process(run: Run, octc: Octc) -> None:
    first = min(os.sched_getaffinity(0))
    done = octc("bench", "--dry-run", "--json", preexec_fn=lambda: os.sched_setaffinity(0, {first}))
    value = json.loads(done.stdout)["data"]
    assert value["threads"] == 1
    assert value["threads_source"] == ("affinity" if read_cpus().physical > 1 else "physical_cores")


def test_r02_lowered_minimum_of_a_real_process(run: Run, octc: Octc) -> None:
    words = ("--vs", "none", "--batch", "1", "--duration", "0.1s", "--min-queries", "20", "--quick", "--json")
    done = octc("bench", run.artifacts / "onnx-fp32", *words, process=True)
    value = json.loads(done.stdout)
    assert (done.returncode, value["status"], value["data"]["status"]) == (1, "gate_failed", "INVALID")
    assert value["error"]["code"] == "OCT-E602"
    check_schema(value["data"])
    assert value["data"]["settings"]["origins"]["bench.duration"] == "flag"


def test_units_are_written_out() -> None:
    for text, ms in (("30ms", 30), ("30", 30), ("0.5s", 500), ("250us", 0.25), ("1.5", 1.5)):
        assert quantity(text, {"us": 1e-3, "ms": 1.0, "s": 1e3}, "ms", "--x") == pytest.approx(ms)
    for text in ("", "ms", "1h", "-3ms", "1e3", "0", "inf"):
        with pytest.raises(OctcError, match="is not a time"):
            quantity(text, {"ms": 1.0}, "ms", "--x")


def test_threads_beyond_what_this_process_may_use_are_refused(tmp_path: Path) -> None:
    cpus = read_cpus(tmp_path, {0, 1})
    assert threads_of(2, cpus) == (2, "option")
    for asked in (0, 3):
        with pytest.raises(OctcError, match="may use 2"):
            threads_of(asked, cpus)


START = """
import sys
from dataclasses import replace
from octc.bench.timing import profiles
profiles.STANDARD = replace(profiles.STANDARD, **{short!r})
profiles.STANDARD = replace(profiles.STANDARD, duration_s=3.0)
sys.argv = ["octc", "bench", *{words!r}]
from octc.cli._app.main import run
run()
"""


def started(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    """`octc bench` with rows of three seconds, as a process."""
    code = START.format(short=dict(SHORT), words=[*words, "--threads", "1"])
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"{word!r} was not said")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_bench_saves_its_finished_rows(run: Run, tmp_path: Path, number: int, code: int) -> None:
    process = started(tmp_path, str(run.artifacts / "onnx-fp32"), "--json")
    wait_for(process, "onnx-fp32-device-1")
    time.sleep(0.3)
    process.send_signal(number)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == code
    value = json.loads(out)
    check_schema(value["data"])
    assert (value["status"], value["data"]["status"], value["data"]["exit_code"]) == ("interrupted", "INTERRUPTED", code)
    rows = {row["id"]: row for row in value["data"]["rows"]}
    assert rows["onnx-fp32-device-1"]["n"] > 0
    assert rows["onnx-fp32-device-8"]["reasons"] == ["incomplete"]
    assert rows["teacher-torch-fp32-device-1"]["reasons"] == ["incomplete"]
    assert all(c["status"] == "INVALID" for c in value["data"]["comparisons"])
    saved: dict[str, Any] = json.loads((run.artifacts / "onnx-fp32" / f"bench-{host_name()}.json").read_text())
    assert saved["status"] == "INTERRUPTED"
    assert not workers_of(process.pid)


def workers_of(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent:
                found.append(int(path.name))
        except (OSError, IndexError):
            continue
    return found


def test_worker_dies_with_a_bench_that_was_killed(run: Run, tmp_path: Path) -> None:
    process = started(tmp_path, str(run.artifacts / "onnx-fp32"), "--vs", "none")
    wait_for(process, "onnx-fp32-device-1")
    workers = workers_of(process.pid)
    assert workers
    process.kill()
    process.communicate(timeout=300)
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{pid}/stat").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text() for pid in workers):
        assert time.monotonic() < deadline, "a worker outlived the bench"
        time.sleep(0.1)
    assert not (run.artifacts / "onnx-fp32" / f"bench-{host_name()}.json").exists()
    assert main(["bench", str(run.artifacts / "onnx-fp32"), "--dry-run"]) == 0, "the folder is still a valid artifact"
