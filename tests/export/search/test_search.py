"""A search as a whole: killed and given again it ends with the same winner; what it leaves; times on another machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.errors import OctcError
from octc.core.files import write_json
from octc.core.progress import LogReporter
from octc.export.search import job
from octc.export.search.candidates import base_recipe, recipe_of
from octc.export.search.finish import OVER, facts_of_test
from octc.export.search.job import search_student
from octc.export.search.measure import Where, find_target, graph_digest, kept_timing, timing_of
from octc.export.search.random_network import export_random, found_artifacts
from octc.schemas.common import builtins
from octc.schemas.requests import BenchOptions
from octc.schemas.search import Candidate, SearchOptions, Winner
from octc.store.runs import scan_runs
from tests.schema_checks import validate
from tests.tiny_run import write_patterns

# as a search of its own process, with made-up times; "choose" ends before the winner is tuned
PROGRAM = """
import sys
from pathlib import Path
from octc.export.search import finish, job
from octc.schemas.search import Measured, SearchOptions, Timing

data, runs, table, until, epochs = sys.argv[1:]
TIMES = {"a": 4.5, "b": 4.0, "c": 3.5, "d": 3.0, "e": 2.0, "f": 1.0, "slow": 9.0}


def timing(name, sha256="0" * 64, size=1000):
    ms = TIMES[name]
    return Timing(target="onnx", status="VALID", why=[], ms=ms, ms_ci95=[ms, ms], mj=None, bytes=size, engine="ONNX Runtime",
                  version="1", sha256=sha256, cached=False)


def measured(ready, candidate):
    with open(f"{runs}.measured", "a") as stream:
        print(candidate.name, file=stream)
    return Measured(candidate=candidate, state="kept", why="", macs=10, parameters=10, timings=[timing(candidate.name)],
                    chosen="onnx")


job._measure_one = measured
finish.timing_of = lambda found, target: timing("b")
if until == "choose":
    job.finish = lambda training, book, *_: finish.choose_winner(book, training.job.run_dir, 20.0)
options = SearchOptions(candidates=Path(table), recipe="smoke", epochs=int(epochs), margin=20.0, teacher="none",
                        target="onnx", dataset="folder")
job.search_student("5ms", data=data, run_dir=runs, options=options)
"""
SMALL = {"model": "test_resnet", "weights": "none"}
CANDIDATES = [
    {"name": name, "size": size, **SMALL}
    for name, size in (("a", 64), ("b", 56), ("c", 48), ("d", 40), ("e", 36), ("f", 32), ("slow", 72))
]


@pytest.fixture(scope="module", autouse=True)
def one_processor() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [max(before)])
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and candidates."""
    folder = tmp_path_factory.mktemp("search")
    write_patterns(folder / "patterns", patients=12, images=4)
    (folder / "candidates.json").write_text(json.dumps({"candidates": CANDIDATES}))
    (folder / "program.py").write_text(PROGRAM)
    return folder


def begun(place: Path, runs: str, until: str, python: tuple[str, ...], epochs: int = 9) -> subprocess.Popen[str]:
    words = [*python, "program.py", "patterns", runs, "candidates.json", until, str(epochs)]
    return subprocess.Popen(words, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out
    return out


def document(place: Path, runs: str) -> dict[str, Any]:
    (path,) = (place / runs).glob("search-*/search.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_a_search_that_is_killed_ends_with_the_same_winner(place: Path, warm: tuple[str, ...]) -> None:
    process = begun(place, "killed", "end", warm)
    deadline = time.monotonic() + 600
    while len(scan_runs(place / "killed")) < 3:  # the third training has begun
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = document(place, "killed")
    assert left["status"] == "running"
    assert left["plan"]["rounds"] == [[6, 3], [3, 9]]
    ended(begun(place, "killed", "end", warm))
    ended(begun(place, "whole", "choose", warm))
    one, other = document(place, "killed"), document(place, "whole")
    assert one["search"] == other["search"]
    plain = ("name", "accuracy", "difference_pp", "non_inferior")
    assert [[row[key] for key in plain] for row in one["finalists"]] == [
        [row[key] for key in plain] for row in other["finalists"]
    ]
    assert (
        one["winner"]["name"]
        == min((row for row in one["finalists"] if row["non_inferior"]), key=lambda row: row["ms"])["name"]
    )
    assert {row["candidate"]["name"]: row["state"] for row in one["candidates"]}["slow"] == "over_budget"
    assert len(scan_runs(place / "killed")) == 6 + 3, "nothing was trained twice"
    check_left(place, one)


def check_left(place: Path, found: dict[str, Any]) -> None:
    """The winner's run, file and verdict; the pages; the same search again changes nothing; its recipe is one of octc train."""
    validate(found, schema_of("search.json"))
    winner = found["winner"]
    assert found["status"] == "done"
    assert (place / winner["artifact"] / "verify.json").is_file()
    assert winner["test"]["claims"][0]["accuracy"]["candidate"] > 0
    assert winner["within_budget"] is True
    assert "optimistic" in found["correction"]
    folder = place / "killed" / found["search"]
    assert {path.name for path in folder.iterdir()} == {"search.json", "table.md", "pareto.svg", "winner.json"}
    assert "| WINNER |" in (folder / "table.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in (place / "killed").rglob("*") if path.is_file()}
    options = SearchOptions(
        candidates=place / "candidates.json", recipe="smoke", epochs=9, margin=20.0, teacher="none", target="onnx",
        dataset="folder",
    )  # fmt: skip
    again = search_student("5ms", data=place / "patterns", run_dir=place / "killed", options=options)
    assert again.winner == winner
    assert before == {path: path.stat().st_mtime_ns for path in (place / "killed").rglob("*") if path.is_file()}
    train = found["commands"][0].split()
    assert train[:3] == ["octc", "train", "student"]
    words = ["train", "student", "--dataset", "folder", "--data", str(place / "patterns"), "--teacher", "none"]
    assert main([*words, "--recipe", str(folder / "winner.json"), "--run-dir", str(place / "other"), "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("within", "verdict", "codes"),
    [
        (True, ("equivalent", 0, []), []),
        (None, ("non_inferior", 0, []), []),
        (False, ("equivalent", 0, []), ["OCT-E604"]),
        (True, ("inconclusive", 1, []), ["OCT-E705"]),
        (False, ("fail", 1, [("inferior", "OCT-E704"), ("fail", "OCT-E702")]), ["OCT-E604", "OCT-E702"]),
    ],
)
def test_a_search_whose_answer_does_not_hold_ends_with_1(
    place: Path, capsys: pytest.CaptureFixture[str], within: bool | None, verdict: tuple[str, int, Any], codes: list[str]
) -> None:
    """The winner over the budget, or not shown on test: the search is done, and the command asked for again says it again."""
    table, runs = place / "candidates.json", place / f"codes-{within}-{verdict[0]}"
    options = SearchOptions(budget=["5ms"], candidates=table, recipe="smoke", teacher="none", target="onnx", dataset="folder")
    ready = job.prepare(job.SearchJob(options, runs, str(place / "patterns")))
    word, code, parts = verdict
    stated = {"word": word, "exit_code": code, "exploratory": False}
    stated["parts"] = [{"holds": False, "word": one, "code": its} for one, its in parts]
    test = facts_of_test({"against": "FP32", "verdict": stated, "accuracy": {"reference": 90.0, "candidate": 89.0}})
    ms = 6.0 if within is False else None if within is None else 4.0
    winner = Winner(
        name="a", run="r-0001", artifact="a", target="onnx", precision="int8", recipe="winner.json", ms=ms,
        ms_ci95=None if ms is None else [ms, ms], bytes=1000, validation_accuracy=0.9, test=test, within_budget=within,
    )  # fmt: skip
    found = structs.replace(job._fresh(ready), status="done", winner=winner, notes=[f"{OVER}: 6 ms"] if within is False else [])
    (runs / ready.name).mkdir(parents=True)
    write_json(runs / ready.name / "search.json", builtins(found))
    words = ["search", "--budget", "5ms", "--candidates", str(table), "--recipe", "smoke", "--teacher", "none", "--json"]
    words += ["--target", "onnx", "--dataset", "folder", "--data", str(place / "patterns"), "--run-dir", str(runs)]
    assert main(words) == int(bool(codes))
    told = json.loads(capsys.readouterr().out)
    error = told["error"]
    assert ([one["code"] for one in error.get("all", [error])] if error else []) == codes
    assert told["data"]["winner"]["name"] == "a"
    assert "# search-" in (runs / ready.name / "table.md").read_text(), "made where a kill came before it"


@pytest.mark.slow
def test_a_candidate_is_timed_as_octc_bench_does(tmp_path: Path) -> None:
    candidate = Candidate(name="a", model="test_resnet", size=32, weights="none")
    recipe = recipe_of(candidate, base_recipe("smoke"), 1, 1)
    built = export_random(candidate, recipe, ("x", "y"), ("onnx",), tmp_path)
    assert built.macs > 0
    assert list(found_artifacts(candidate, recipe, ("x", "y"), ("onnx", "openvino"), tmp_path)) == ["onnx"]
    stamp = built.founds["onnx"].folder.stat().st_mtime_ns
    again = export_random(candidate, recipe, ("x", "y"), ("onnx",), tmp_path)
    assert again.founds["onnx"].folder.stat().st_mtime_ns == stamp, "made once"
    graph = graph_digest(again.founds["onnx"].artifact)
    model = again.founds["onnx"].folder / again.founds["onnx"].artifact.main_file
    model.write_bytes(model.read_bytes()[:-1])  # a damaged cache: made again, and the same file
    assert found_artifacts(candidate, recipe, ("x", "y"), ("onnx",), tmp_path) == {}
    again = export_random(candidate, recipe, ("x", "y"), ("onnx",), tmp_path)
    assert graph_digest(again.founds["onnx"].artifact) == graph
    target = find_target(Where(None, 1, False, False, "python3"), ("onnx",), tmp_path, LogReporter())
    found = timing_of(again.founds["onnx"], target)
    assert found.ms is not None
    assert 0 < found.ms < 1000
    assert found.status == "VALID" or found.why, "what disturbed it is said"
    assert (kept_timing(again.founds["onnx"], target) is not None) == (found.status == "VALID")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the other machine has its temporary files: it is this one, behind an `ssh` that runs its last word here."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text('#!/bin/sh\nfor word; do :; done\nexec sh -c "$word"\n')
    (tmp_path / "bin" / "ssh").chmod(0o755)
    place = tmp_path / "far"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(place))
    return place


@pytest.mark.slow
def test_times_of_another_machine_come_over_ssh(tmp_path: Path, temporary: Path) -> None:
    candidate = Candidate(name="a", model="test_resnet", size=32, weights="none")
    recipe = recipe_of(candidate, base_recipe("smoke"), 1, 1)
    built = export_random(candidate, recipe, ("x", "y"), ("onnx",), tmp_path / "cache")
    target = find_target(Where("user@box", 1, False, False, sys.executable), ("onnx",), tmp_path, LogReporter())
    assert target.engines["onnx"]
    assert target.device["host"] == "box"
    short = BenchOptions(quick=True, duration="0.2s", min_queries=30, batch=1, vs="none", threads=1, power=False)
    found = timing_of(built.founds["onnx"], replace(target, requested=short))
    assert found.ms is not None
    assert "below_minimum" in found.why
    assert not [path for path in temporary.iterdir() if path.is_dir() and not path.name.startswith("octc-search")]


def test_a_search_without_a_budget_or_on_no_address_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search"]) == 2
    assert main(["search", "--budget", "5 apples"]) == 2
    assert main(["search", "--budget", "5ms", "--margin", "0"]) == 2
    assert main(["search", "--budget", "5ms", "--hours", "-1"]) == 2
    assert main(["search", "--budget", "5ms", "--on", "user@host", "--offline"]) == 2
    with pytest.raises(OctcError) as caught:
        search_student("5ms", options=SearchOptions(hours=0.0))
    assert caught.value.code == "OCT-E104"
    assert not list(tmp_path.iterdir())
