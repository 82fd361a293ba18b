"""Several workers of one search, as processes: they divide the trials, one is killed, and the answer is that of one worker."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from octc.machine.mounts import locks_reach
from octc.store.runs import scan_runs
from tests.export.search.test_search import begun, document, ended, one_processor, place
from tests.octc.test_claims import elsewhere

__all__ = ["one_processor", "place"]  # fixtures
pytestmark = pytest.mark.slow
OWN = ("created", "seconds", "run", "device")  # of a worker, a clock or the order in which runs were begun
STEPS = ("seconds", "full_seconds")  # of a plan: measured


def plain(value: Any) -> Any:
    """A document without what two searches may differ in."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if key not in (*OWN, *STEPS)}
    return value


def claims(runs: Path) -> dict[str, int]:
    """Name of a claim -> process that has it: `.lock` of the document, `.lock-...` of trials."""
    found = {}
    for path in runs.glob("search-*/.lock*"):
        try:
            found[path.name] = int(json.loads(path.read_text())["pid"])
        except (OSError, ValueError):
            continue  # just given back, or just taken
    return found


@pytest.fixture(scope="module")
def alone(place: Path, warm: tuple[str, ...]) -> dict[str, Any]:
    """What one worker finds."""
    ended(begun(place, "alone", "choose", warm, 3))
    return document(place, "alone")


@pytest.mark.parametrize("machine", ["here", "elsewhere"])
def test_workers_divide_the_trials_and_end_as_one_would(
    place: Path, warm: tuple[str, ...], alone: dict[str, Any], machine: str
) -> None:
    """The worker that is killed is on this machine, or on one of another name, whose processes nobody here looks for."""
    if machine == "elsewhere" and not locks_reach(place):
        pytest.skip("nobody knows whether locks of this file system reach other machines")
    name, runs = f"shared-{machine}", place / f"shared-{machine}"
    first = begun(place, name, "choose", warm if machine == "here" else (*elsewhere(), sys.executable), 3)
    deadline = time.monotonic() + 900
    while not (mine := claims(runs)):  # it measures
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    lost = next(iter(mine.values()))
    others = [begun(place, name, "choose", warm, 3) for _ in range(2)]
    at: set[int] = set()
    while len(at) < 3 or lost not in at:  # three trials at once
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
        at = {process for path, process in claims(runs).items() if path != ".lock"}
    first.send_signal(signal.SIGKILL)
    first.communicate()
    for one in others:
        ended(one)
    assert Counter((place / f"{name}.measured").read_text().split()) == dict.fromkeys("abcdef", 1) | {"slow": 1}
    found = document(place, name)
    assert found["status"] == "done"
    trained = [run.read() for run in scan_runs(runs)]
    assert Counter(run["recipe"]["name"] for run in trained) == Counter(
        f"{trial['name']}-e{trial['epochs']}" for one in found["rounds"] for trial in one["trials"]
    ), "each trial is one run: the lost one went on"
    assert {run["status"] for run in trained} == {"done"}
    folder = runs / found["search"]
    left = {
        path.name for path in folder.iterdir() if not path.name.startswith(".tmp-")
    }  # half a file of the killed one may stay
    assert left == {"search.json", "table.md", "pareto.svg"}, "no claim is left"
    assert plain(found) == plain(alone)
    assert [len(one["trials"]) for one in found["rounds"]] == [6, 3]
