"""Workers of a search on a real Ray cluster: a worker and a machine are lost, and the answer is that of one worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octc.cli._app.main import main
from octc.core import optional
from octc.core.errors import MissingExtra, OctcError
from octc.export.search.job import search_student
from octc.export.search.on_ray import check_ray
from octc.schemas.search import SearchOptions
from octc.store.runs import scan_runs
from tests.export.search.test_search import PROGRAM, document, one_processor, place
from tests.export.search.test_workers import alone, plain

__all__ = ["alone", "one_processor", "place"]  # fixtures

# the search of `test_search.PROGRAM` on three machines of a processor each: a worker is killed, a machine lost
LOSING = """
import json, os, signal, threading, time
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
others = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()


def at():
    found = {}
    for path in Path(runs).glob("search-*/.lock-*"):
        try:
            found[path.name] = int(json.loads(path.read_text())["pid"])
        except (OSError, ValueError):
            continue
    return found


done = []


def whole():
    try:
        asked = job.replace(options, ray=cluster.address, workers=3)
        done.append(job.search_student("5ms", data=data, run_dir=runs, options=asked))
    except BaseException as error:
        done.append(error)


thread = threading.Thread(target=whole)
thread.start()
while len(held := at()) < 3:
    assert not done, done
    time.sleep(0.005)
assert os.getpid() not in held.values(), "it trains nothing itself"
second = others[0].all_processes["raylet"][0].process.pid  # the parent of the worker of the machine that is lost afterwards
trial, lost = next((name, pid) for name, pid in held.items() if Path(f"/proc/{pid}/stat").read_text().split()[3] != str(second))
os.kill(lost, signal.SIGKILL)
while at().get(trial, lost) == lost:
    assert not done, done
    time.sleep(0.005)
assert not done, done
cluster.remove_node(others[0], allow_graceful=False)
thread.join()
if isinstance(done[0], BaseException):
    raise done[0]
print("ended")
cluster.shutdown()
"""
BLIND = """
import subprocess
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
Path(runs).mkdir(exist_ok=True)
inside = f"mount -t tmpfs none {Path(runs).absolute()} && exec ray start --address {cluster.address} --num-cpus 1 --block"
other = subprocess.Popen(["unshare", "-rm", "sh", "-c", inside], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
import ray, time
from octc.core.errors import OctcError
from octc.machine.ray_cluster import joined

try:
    with joined(cluster.address, 1):
        until = time.monotonic() + 120
        while sum(node["Alive"] for node in ray.nodes()) < 2:
            assert time.monotonic() < until and other.poll() is None
            time.sleep(0.1)
    for asked in ({"workers": 2}, {"workers": 3}):
        try:
            job.search_student("5ms", data=data, run_dir=runs, options=job.replace(options, ray=cluster.address, **asked))
        except OctcError as error:
            print(error.code, error.message, error.hint, error.place)
finally:
    other.terminate()
    other.wait()
    cluster.shutdown()
"""


def run(place: Path, runs: str, how: str, home: Path) -> str:
    """The program of `test_search`, asked for in another way; what it printed."""
    text = PROGRAM.rsplit("\njob.search_student", 1)[0]
    (place / f"{runs}.py").write_text(text + how)
    environ = {**os.environ, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environ["RAY_worker_niceness"] = "0"  # 15 by default
    environ.pop("OCTC_OFFLINE", None)  # the machines of a cluster talk to each other, also where all of them are this one
    words = [sys.executable, "-W", "ignore", f"{runs}.py", "patterns", runs, "candidates.json", "choose", "3"]
    done = subprocess.run(words, cwd=place, env=environ, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_and_a_machine_ends_as_one_worker_would(
    place: Path, alone: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    assert run(place, "cluster", LOSING, tmp_path).split()[-1] == "ended"
    found = document(place, "cluster")
    assert (found["request"].pop("ray") is None, found["request"].pop("workers")) == (False, 3)
    expected = {**alone, "request": {key: one for key, one in alone["request"].items() if key not in ("ray", "workers")}}
    found["plan"].pop("workers")
    expected["plan"] = {key: one for key, one in alone["plan"].items() if key != "workers"}
    assert plain(found) == plain(expected)
    assert Counter((place / "cluster.measured").read_text().split()) == dict.fromkeys("abcdef", 1) | {"slow": 1}
    trained = [one.read() for one in scan_runs(place / "cluster")]
    assert Counter(one["recipe"]["name"] for one in trained) == Counter(
        f"{trial['name']}-e{trial['epochs']}" for one in found["rounds"] for trial in one["trials"]
    ), "each trial is one run: those that were lost went on"
    assert {one["status"] for one in trained} == {"done"}
    folder = place / "cluster" / found["search"]
    left = {
        path.name for path in folder.iterdir() if not path.name.startswith(".tmp-")
    }  # half a file of the killed one may stay
    assert left == {"search.json", "table.md", "pareto.svg"}, "no claim is left"


@pytest.mark.slow
def test_a_machine_that_does_not_see_the_run_folder_and_too_small_a_cluster_are_refused_before_any_work(
    place: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mount space of its own is allowed here")
    blind, small = run(place, "blind", BLIND, tmp_path).splitlines()[-2:]
    assert blind.startswith("OCT-E903")
    assert "does not see the run folder" in blind
    assert small.startswith("OCT-E903")
    assert "--workers 2" in small
    assert not (place / "blind.measured").exists()
    assert not list((place / "blind").glob("search-*/*")), "nothing is left"


def test_what_no_cluster_can_give_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = SearchOptions(ray="local")
    pytest.importorskip("ray")
    check_ray(options)
    with pytest.raises(OctcError) as caught:
        check_ray(replace(options, device="cuda:1"))
    assert caught.value.code == "OCT-E102"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtra, match="ray") as missing:
        search_student("5ms", options=options)
    assert "octc[ray]" in str(missing.value.hint)
    assert optional.EXTRAS["ray"] == "ray"
    assert main(["search", "--budget", "5ms", "--ray", "local"]) == 4
    assert not list(tmp_path.iterdir())
