"""Orthanc and dcmtk as they are in Debian: volumes by storescu, reports into Orthanc, found by QIDO; and twenty kills."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from octc.serve.dicom.answers import Answering
from octc.serve.dicom.structured_report import report_uid
from octc.store.artifacts import artifact_sha256, read_artifact
from tests.serve.dicom import peers, world
from tests.tiny_artifacts import artifact_folder

pytestmark = pytest.mark.slow
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
KILLS, EACH = 20, 3


@dataclass(frozen=True)
class Orthanc:
    http: str
    dicom: int

    def reports(self, **query: str) -> list[dict[str, Any]]:
        """Structured reports by QIDO-RS."""
        found = requests.get(f"{self.http}/dicom-web/instances", params={"Modality": "SR", **query}, timeout=30)
        found.raise_for_status()
        return list(found.json()) if found.content else []

    def uids(self) -> list[str]:
        return sorted(one["00080018"]["Value"][0] for one in self.reports())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """An Orthanc of its own, at loopback."""
    if shutil.which("Orthanc") is None or shutil.which("storescu") is None or not PLUGIN.exists():
        pytest.skip("Orthanc, its DICOMweb plugin or dcmtk is not installed (Debian: orthanc orthanc-dicomweb dcmtk)")
    folder, http, dicom = tmp_path / "orthanc", free_port(), free_port()
    folder.mkdir()
    settings = {
        "Name": "test", "StorageDirectory": str(folder / "store"), "IndexDirectory": str(folder / "store"), "HttpPort": http,
        "DicomPort": dicom, "DicomAet": "ORTHANC", "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log, cwd=folder)
    try:
        peers.until(lambda: answers(f"http://127.0.0.1:{http}/system"), 60)
        yield Orthanc(f"http://127.0.0.1:{http}", dicom)
    finally:
        process.terminate()
        process.wait(30)


def answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.RequestException:
        return False


@contextmanager
def service(tmp_path: Path, report_to: str, port: int, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`octc serve --dicom`, when it listens; ended by SIGTERM unless it was killed."""
    words = [
        "serve", str(artifact_folder()), "--http-only", "--port", "0", "--dicom", f"OCTC@{port}", "--spool",
        str(tmp_path / "spool"), "--report-to", report_to, "--threads", "1", *more,
    ]  # fmt: skip
    with (tmp_path / "serve.log").open("ab") as log:
        command = [sys.executable, "-c", "from octc.cli._app.main import run; run()", *words]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        peers.until(lambda: process.poll() is not None or listens(port), 60)
        assert process.poll() is None, (tmp_path / "serve.log").read_text()[-3000:]
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def storescu(port: int, *files: Path) -> bool:
    """Whether dcmtk was told that all files are stored."""
    words = ["storescu", "-aet", "DEVICE", "-aec", "OCTC", "-ta", "20", "-td", "20", "127.0.0.1", str(port), *map(str, files)]
    return subprocess.run(words, capture_output=True, check=False, timeout=120).returncode == 0


def expected(sources: list[Any]) -> list[str]:
    folder = artifact_folder()
    answering = Answering(read_artifact(folder), artifact_sha256(folder), "")
    return sorted(str(report_uid(one, answering)) for one in sources)


@pytest.mark.parametrize("way", ["c-store", "stow"])
def test_volumes_of_both_eyes_come_back_into_orthanc(way: str, orthanc: Orthanc, tmp_path: Path) -> None:
    sources = [world.eye_object(eye, seed=way) for eye in "RL"]
    files = [world.stored(one, tmp_path / f"{one.ImageLaterality}.dcm") for one in sources]
    to = f"ORTHANC@127.0.0.1:{orthanc.dicom}" if way == "c-store" else f"{orthanc.http}/dicom-web/studies"
    port = free_port()
    with service(tmp_path, to, port, "--heat-map"):
        assert subprocess.run(["echoscu", "-aec", "OCTC", "127.0.0.1", str(port)], check=False).returncode == 0
        assert storescu(orthanc.dicom, *files)  # the images are in the PACS too; it takes any called title
        assert storescu(port, *files)
        peers.until(lambda: orthanc.uids() == expected(sources), 60)
        for one in sources:
            (found,) = orthanc.reports(StudyInstanceUID=str(one.StudyInstanceUID), includefield="PatientName")
            assert found["0020000D"]["Value"] == [str(one.StudyInstanceUID)]
            series = requests.get(f"{orthanc.http}/dicom-web/studies/{one.StudyInstanceUID}/series", timeout=30).json()
            assert sorted(each["00080060"]["Value"][0] for each in series) == ["OPT", "OT", "SR"]
            patients = requests.get(f"{orthanc.http}/patients?expand", timeout=30).json()
            assert len(patients) == 1  # images and reports are of the same patient, in Orthanc's eyes too
        assert storescu(port, *files)
        time.sleep(1)
        assert orthanc.uids() == expected(sources)
    events = [one["event"] for one in peers.audit(tmp_path / "spool")]
    assert events.count("received") == events.count("answered") == events.count("sent") == 2
    assert events.count("repeated") == 2


def test_a_report_that_orthanc_has_already_is_sent(orthanc: Orthanc, tmp_path: Path) -> None:
    """A kill between Orthanc's answer and the note of it: the same report goes there twice, and is there once."""
    source = world.eye_object("R", seed="twice")
    file = world.stored(source, tmp_path / "a.dcm")
    for way in (f"ORTHANC@127.0.0.1:{orthanc.dicom}", f"{orthanc.http}/dicom-web/studies"):
        shutil.rmtree(tmp_path / "spool", ignore_errors=True)  # nothing is known of the first time
        port = free_port()
        with service(tmp_path, way, port):
            assert storescu(port, file)
            peers.until(lambda: any(one["event"] == "sent" for one in peers.audit(tmp_path / "spool")), 60)
        assert orthanc.uids() == expected([source])


@pytest.mark.parametrize("way", ["c-store", "stow"])
def test_twenty_kills_under_load_leave_one_report_for_each_volume(way: str, orthanc: Orthanc, tmp_path: Path) -> None:
    rng = random.Random(20)
    sources = [world.eye_object("RL"[k % 2], seed=f"{way} {k}") for k in range(KILLS * EACH)]
    files = [world.stored(one, tmp_path / "sent" / f"{k:03}.dcm") for k, one in enumerate(sources)]
    to = f"ORTHANC@127.0.0.1:{orthanc.dicom}" if way == "c-store" else f"{orthanc.http}/dicom-web/studies"
    port, refused, waiting = free_port(), set(files), list(files)
    for kill in range(KILLS):
        with service(tmp_path, to, port) as process:
            load = waiting[kill * EACH : (kill + 1) * EACH]
            words = ["storescu", "-aet", "DEVICE", "-aec", "OCTC", "-v", "127.0.0.1", str(port), *map(str, load)]
            sender = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            time.sleep(rng.uniform(0, 0.6))
            process.kill()
            process.wait(30)
            said = sender.communicate(timeout=60)[0]
        acknowledged = len(re.findall(r"Received Store Response \(Success\)", said))
        refused -= set(load[:acknowledged])
    acknowledged_then = len(files) - len(refused)
    assert 0 < acknowledged_then < len(files), "the kills have to fall into the work for this to show anything"
    with service(tmp_path, to, port):
        for file in sorted(refused):  # what was not acknowledged, a device sends again, and again
            assert any(storescu(port, file) for _ in range(3)), peers.audit(tmp_path / "spool")[-9:]
        peers.until(lambda: len(orthanc.uids()) == len(sources), 120)
        peers.until(lambda: not [one for name in ("queue", "outbox") for one in (tmp_path / "spool" / name).iterdir()], 60)
        assert orthanc.uids() == expected(sources)
        studies = [one["0020000D"]["Value"][0] for one in orthanc.reports()]
        assert sorted(studies) == sorted(str(one.StudyInstanceUID) for one in sources)
    spool = tmp_path / "spool"
    assert [len(list((spool / name).iterdir())) for name in ("queue", "outbox", "dead", "incoming")] == [0, 0, 0, 0]
    events = [one["event"] for one in peers.audit(spool)]
    assert events.count("opened") == KILLS + 1
    assert not {"fault", "refused"} & set(events)
