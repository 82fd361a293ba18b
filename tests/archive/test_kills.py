"""Processes that are killed at random, a full disk, a cluster that loses a node: in the end the rows of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from octc.archive.store import read_journals
from tests.archive.world import rows, write_pictures, write_volume
from tests.tiny_artifacts import artifact_folder

pytestmark = pytest.mark.slow
SLOW_ENGINE = """
import time
from octc.runtimes import onnxrt
call = onnxrt.OrtRuntime.__call__
def slow(self, batch):
    time.sleep(0.1)
    return call(self, batch)
onnxrt.OrtRuntime.__call__ = slow
"""
SMALL = "from octc.archive import plan\nplan.FIRST, plan.MOST = 4, 8\n"
JOB = f"""
import sys
{SMALL}
from octc.cli._app.main import main
sys.exit(main(sys.argv[1:]))
"""
KILLS = 20


def words(archive: Path, results: Path, *more: str) -> list[str]:
    job = [sys.executable, "-c", JOB, "predict", str(artifact_folder()), str(archive), "--out", str(results)]
    return [*job, "--anyway", "-q", *more]


def environment(tmp_path: Path, *, slow: bool) -> dict[str, str]:
    (tmp_path / "hook").mkdir(exist_ok=True)
    (tmp_path / "hook" / "sitecustomize.py").write_text(SLOW_ENGINE if slow else "")
    return {**os.environ, "PYTHONPATH": str(tmp_path / "hook")}


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(path.parent.name))
        except (OSError, IndexError):
            continue
    return found


def undisturbed(archive: Path, tmp_path: Path) -> Path:
    results = tmp_path / "undisturbed"
    done = subprocess.run(
        words(archive, results), env=environment(tmp_path, slow=False), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return results


def same(results: Path, expected: Path) -> None:
    for kind in ("scans", "eyes", "failed"):
        assert rows(results, kind) == rows(expected, kind), kind
    assert (results / "_SUCCESS").exists()
    assert not list(results.rglob(".tmp-*"))


def test_twenty_kills_at_random_change_nothing(tmp_path: Path) -> None:
    archive, results = tmp_path / "archive", tmp_path / "results"
    write_pictures(archive, 400)
    write_volume(archive / "site-1" / "eye", frames=12)
    environ, chance = environment(tmp_path, slow=True), random.Random(21)
    killed = {"parent": 0, "worker": 0}
    process = None
    while sum(killed.values()) < KILLS:
        if process is None:
            process = subprocess.Popen(words(archive, results, "--workers", "2"), env=environ, stderr=subprocess.DEVNULL)
        wanted = len(read_journals(results)) + chance.randint(0, 1)
        until = time.monotonic() + 60
        while len(read_journals(results)) < wanted or not children(process.pid):
            assert process.poll() is None, "it ended before the last kill"
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(chance.random() * 0.3)
        if chance.random() < 0.5:
            process.kill()
            process.wait()
            process = None
            killed["parent"] += 1
        elif workers := children(process.pid):
            os.kill(chance.choice(workers), signal.SIGKILL)
            killed["worker"] += 1
    assert min(killed.values()) > 4
    if process is not None:
        process.kill()
        process.wait()
    last = subprocess.run(words(archive, results), env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert last.returncode == 0, last.stderr
    same(results, undisturbed(archive, tmp_path))


ON_A_SMALL_DISK = """
mkdir -p results && mount -t tmpfs -o size=300k none results || exit 99
"$@"; echo "full: $?"
ls -R results | grep tmp
mount -o remount,size=100m results
"$@"; echo "room: $?"
cp -r results kept
"""


def test_a_full_disk_ends_with_4_and_with_room_it_goes_on(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("no mount space of its own is allowed here")
    archive = tmp_path / "archive"
    write_pictures(archive, 400)
    script = ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK, "sh", *words(archive, Path("results"))]
    environ = environment(tmp_path, slow=False)
    made = subprocess.run(script, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert "full: 4" in made.stdout, made.stdout + made.stderr
    assert "OCT-E904" in made.stderr
    assert ".tmp-" not in made.stdout
    assert "room: 0" in made.stdout, made.stderr
    same(tmp_path / "kept", undisturbed(archive, tmp_path))


ON_A_CLUSTER = f"""
import sys, threading, time
from pathlib import Path
{SMALL}
import octc
from octc.archive.store import read_journals
from ray.cluster_utils import Cluster
artifact, archive, results = sys.argv[1:]
head = {{"num_cpus": 1, "include_dashboard": False}}
cluster = Cluster(initialize_head=True, head_node_args=head)
other = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
options = octc.ArchiveOptions(engine="ray", address=cluster.address, workers=2, anyway=True)
done = []
job = threading.Thread(target=lambda: done.append(octc.predict_archive(artifact, [archive], results, options=options)))
job.start()
while len(read_journals(Path(results))) < 6:
    assert job.is_alive()
    time.sleep(0.05)
cluster.remove_node(other, allow_graceful=False)
before = len(read_journals(Path(results)))
job.join()
print(before, done[0].units, done[0].complete)
cluster.shutdown()
"""


def test_a_cluster_that_loses_a_node_gives_the_same_rows(tmp_path: Path) -> None:
    archive, results = tmp_path / "archive", tmp_path / "results"
    write_pictures(archive, 150)
    write_volume(archive / "site-1" / "eye", frames=12)
    environ = environment(tmp_path, slow=True) | {"HOME": str(tmp_path)}
    del environ["OCTC_OFFLINE"]  # the machines of a cluster talk to each other, also where all of them are this one
    script = [sys.executable, "-W", "ignore", "-c", ON_A_CLUSTER, str(artifact_folder()), str(archive), str(results)]
    made = subprocess.run(script, env=environ, capture_output=True, text=True, timeout=500, check=False)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-3000:]
    before, units, complete = made.stdout.split()[-3:]
    assert int(before) < int(units)
    assert complete == "True"
    same(results, undisturbed(archive, tmp_path))
