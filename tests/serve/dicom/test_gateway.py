"""Volumes in by C-STORE or from a folder, reports out: what is acknowledged is answered once, whatever fails in between."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image
from pydicom.pixels.decoders.base import JPEGLosslessSV1Decoder
from pynetdicom import AE
from pynetdicom.presentation import build_context

from octc.core.errors import OctcError
from octc.core.progress import LogReporter
from octc.runtimes.registry import open_runtime
from octc.schemas.requests import GatewayOptions
from octc.serve import watch as watched
from octc.serve.dicom import gateway as module
from octc.serve.dicom.answers import Answering
from octc.serve.dicom.gateway import Answerer, Gateway, answers_for, open_gateway
from octc.serve.dicom.spool import MOST_TRIES, Spool, key_of
from octc.serve.dicom.structured_report import report_uid
from octc.serve.watch import Watch
from octc.store.artifacts import read_artifact
from octc.volumes import read_volumes
from tests.archive.world import write_volume
from tests.serve.dicom import peers, world
from tests.tiny_artifacts import artifact_folder

EXPLICIT, JPEG_LOSSLESS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"

Started = Callable[..., tuple[Gateway, Path]]
# pynetdicom 3.0.4 does not close the socket of a connection that was refused or broken
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")


@pytest.fixture(scope="module")
def engine() -> Iterator[Answerer]:
    folder = artifact_folder()
    artifact = read_artifact(folder)
    runtime = open_runtime(folder, artifact, threads=1)
    yield Answerer(Answering.of(artifact, "onnxruntime"), runtime)
    runtime.close()


@pytest.fixture
def started(engine: Answerer, tmp_path: Path) -> Iterator[Started]:
    """A gateway with the options that are given; closed at the end, or when the next one is started."""
    with ExitStack() as stack:

        def start(**options: Any) -> tuple[Gateway, Path]:
            stack.close()
            given = {"dicom": "OCTC@0", "spool": str(tmp_path / "spool"), **options}
            found = stack.enter_context(open_gateway(lambda: nullcontext(engine), GatewayOptions(**given), LogReporter(), {}))
            return found, Path(given["spool"])

        yield start


def states(spool: Path) -> dict[str, int]:
    """How many sources are in each state."""
    return {
        "queue": len(list((spool / "queue").glob("*.dcm"))),
        "outbox": len([one for one in (spool / "outbox").iterdir() if not one.name.startswith(".")]),
        "done": len(list((spool / "done").rglob("*.json"))),
        "dead": len([one for one in (spool / "dead").iterdir() if not one.name.startswith(".")]),
    }


def finished(spool: Path, count: int) -> Any:
    def is_so() -> bool:
        found = states(spool)
        return found["done"] + found["dead"] == count and not found["queue"] and not found["outbox"]

    return peers.until(is_so)


def reason(spool: Path) -> dict[str, Any]:
    (folder,) = (spool / "dead").iterdir()
    return dict(json.loads((folder / "reason.json").read_text()))


def test_volumes_of_both_eyes_come_back_as_reports(started: Started, engine: Answerer) -> None:
    sources = [world.eye_object(eye) for eye in "RL"]
    with peers.pacs() as (pacs, port):
        found, spool = started(report_to=f"PACS@127.0.0.1:{port}", heat_map=True)
        assert peers.send(found.port or 0, sources) == [0, 0]
        finished(spool, 2)
        reports = {uid: one for uid, one in pacs.objects.items() if one.SOPClassUID == peers.SR}
        assert set(reports) == {str(report_uid(one, engine.answering)) for one in sources}
        assert [str(one.PatientName) for one in reports.values()] == ["Müller^Jörg"] * 2
        maps = [one for one in pacs.objects.values() if one.SOPClassUID == peers.CAPTURE]
        assert sorted(one.ImageLaterality for one in maps) == ["L", "R"]
        assert {one.StudyInstanceUID for one in maps} == {one.StudyInstanceUID for one in sources}
        assert peers.send(found.port or 0, sources) == [0, 0]  # the same again: known, and nothing is sent twice
        peers.until(lambda: sum(one["event"] == "repeated" for one in peers.audit(spool)) == 2)
        time.sleep(0.3)
        assert set(pacs.times.values()) == {1}
    assert list((spool / "incoming").iterdir()) == []


def test_the_audit_log_tells_every_step_and_nobodys_name(started: Started) -> None:
    source = world.eye_object("R")
    with peers.web_pacs() as (pacs, address):
        found, spool = started(report_to=address)
        peers.send(found.port or 0, [source])
        finished(spool, 1)
        assert list(pacs.times.values()) == [1]
    text = (spool / "audit.jsonl").read_text()
    assert [one["event"] for one in peers.audit(spool)] == ["opened", "received", "answered", "sent"]
    for word in (*world.PATIENT.values(), source.SOPInstanceUID, source.StudyInstanceUID):
        assert str(word) not in text


def test_a_destination_that_is_away_gets_its_report_when_it_is_back(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found, spool = started(report_to=f"PACS@127.0.0.1:{port}")
    peers.send(found.port or 0, [world.eye_object("R")])
    peers.until(lambda: sum(one["event"] == "not-sent" for one in peers.audit(spool)) >= 2)
    found, spool = started(report_to=f"PACS@127.0.0.1:{port}")  # a restart keeps what waits
    with peers.pacs(port) as (pacs, _):
        finished(spool, 1)
        assert list(pacs.times.values()) == [1]


@pytest.mark.parametrize("status", [0xA900, 0xC123, 0x0122])
def test_what_the_pacs_refuses_for_good_is_a_dead_letter_with_its_report(status: int, started: Started) -> None:
    with peers.pacs() as (pacs, port):
        pacs.status = status
        found, spool = started(report_to=f"PACS@127.0.0.1:{port}")
        peers.send(found.port or 0, [world.eye_object("R")])
        finished(spool, 1)
        assert reason(spool) == {"code": "OCT-E920", "reason": f"C-STORE status 0x{status:04X}"}
        (folder,) = (spool / "dead").iterdir()
        assert pydicom.dcmread(folder / "report.dcm").SOPClassUID == peers.SR


@pytest.mark.parametrize("status", [0x0111, 0xB000])
def test_a_report_that_the_pacs_has_already_is_sent(status: int, started: Started) -> None:
    with peers.pacs() as (pacs, port):
        pacs.status = status
        found, spool = started(report_to=f"PACS@127.0.0.1:{port}")
        peers.send(found.port or 0, [world.eye_object("R")])
        finished(spool, 1)
        assert states(spool)["done"] == 1


def test_a_web_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.1)
    with peers.web_pacs() as (pacs, address):
        pacs.status = 503
        found, spool = started(report_to=address)
        peers.send(found.port or 0, [world.eye_object("R")])
        peers.until(lambda: sum(pacs.times.values()) >= 2)
        pacs.status = 0
        finished(spool, 1)
        pacs.status = 400
        peers.send(found.port or 0, [world.eye_object("L")])
        finished(spool, 2)
        assert reason(spool) == {"code": "OCT-E920", "reason": "STOW: HTTP 400"}


def test_attempts_end_after_the_hours_that_are_given(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.1)
    found, spool = started(report_to="PACS@127.0.0.1:1", retry_hours=0.5 / 3600)
    peers.send(found.port or 0, [world.eye_object("R")])
    finished(spool, 1)
    assert reason(spool) == {"code": "OCT-E920", "reason": "no association"}


def test_a_clock_that_jumps_neither_ends_nor_holds_up_the_attempts(tmp_path: Path) -> None:
    """A box without a clock of its own begins in 1970, and learns the time from the network; or is set back."""
    now = [100.0]
    with Spool(tmp_path / "spool", clock=lambda: now[0]) as spool:
        with spool.answering("0" * 32) as folder:
            (folder / "report.dcm").write_bytes(b"x")
        spool.failed(spool.waiting()[0], 4.0, "no association")
        (one,) = spool.waiting()
        assert [one.left(moment) for moment in (100.0, 103.0, 104.0, 1.8e9)] == [4.0, 1.0, 0.0, 0.0]
        now[0] = 1.8e9  # fifty years later: four seconds were waited
        spool.failed(one, 8.0, "no association")
        (one,) = spool.waiting()
        assert (one.attempts, one.waited) == (2, 12.0)
        assert one.left(1.8e9 - 3600) == 0.0  # set back by an hour: now, and not in an hour


def test_a_clock_that_is_set_back_changes_no_order(tmp_path: Path) -> None:
    """What arrived first is answered first, and sent first; also where many arrive in one moment, and after a start."""
    names = [f"{number:032x}" for number in (7, 3, 9, 1, 5, 2)]  # in no order of their own
    now = [1.8e9]

    def arrive(spool: Spool, key: str) -> None:
        (spool.incoming / key).write_bytes(b"x")
        assert spool.receive(spool.incoming / key, key)

    with Spool(tmp_path / "spool", clock=lambda: now[0]) as spool:
        for key in names[:3]:
            arrive(spool, key)
    now[0] = 100.0
    with Spool(tmp_path / "spool", clock=lambda: now[0]) as spool:
        for key in names[3:]:
            arrive(spool, key)
        assert spool.queued() == names
        now[0] = 1.8e9
        for key in names:
            with spool.answering(key) as folder:
                (folder / "report.dcm").write_bytes(b"x")
            now[0] -= 3600
        assert [one.key for one in spool.waiting()] == names


def test_answers_and_reports_that_are_sent_meanwhile_do_not_meet(tmp_path: Path) -> None:
    """One thread puts answers into the outbox while another takes away what it has sent."""
    keys = [f"{number:032x}" for number in range(300)]
    with Spool(tmp_path / "spool") as spool:
        sent: list[str] = []

        def send() -> None:
            while len(sent) < len(keys):
                for one in spool.waiting():
                    spool.sent(one)
                    sent.append(one.key)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        for key in keys:
            with spool.answering(key) as folder:
                (folder / "report.dcm").write_bytes(b"x")
        sender.join(60)
        assert sent == keys
        assert {spool.state_of(key) for key in keys} == {"done"}


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"due": "soon"}'])
def test_a_damaged_file_of_one_report_holds_up_no_other(damage: str, tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        for key in ("0" * 32, "1" * 32):
            with spool.answering(key) as folder:
                (folder / "report.dcm").write_bytes(b"x")
        (tmp_path / "spool" / "outbox" / ("0" * 32) / "state.json").write_text(damage)
        assert [(one.key, one.attempts) for one in spool.waiting()] == [("0" * 32, 0), ("1" * 32, 0)]
        spool.sent(spool.waiting()[0])
        (next((tmp_path / "spool" / "done").rglob("*.json"))).write_text(damage)
        assert spool.state_of("0" * 32) == "done"
        assert [one.key for one in spool.waiting()] == ["1" * 32]


def test_half_a_copy_of_a_watched_file_does_not_stay_on_a_full_disk(started: Started, tmp_path: Path) -> None:
    """It would take the room of the answers that wait for it; with room the file is taken."""
    drop = tmp_path / "drop"
    drop.mkdir()
    found, spool = started(dicom=None, watch=str(drop), report_to=str(tmp_path / "reports"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = world.stored(world.eye_object("L"), tmp_path / "made" / "eye.dcm")
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            found._take(path)
        assert list((spool / "incoming").iterdir()) == []
        assert states(spool)["queue"] == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    found._take(path)
    finished(spool, 1)


def test_a_folder_that_is_no_queue_is_left_as_it_is(tmp_path: Path) -> None:
    """A queue empties its `incoming`; a clinic's share may have a folder of that name, with scans in it."""
    scan = tmp_path / "share" / "incoming" / "eye.dcm"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(b"x")
    with pytest.raises(OctcError) as caught:
        Spool(tmp_path / "share")
    assert (caught.value.code, scan.read_bytes(), len(list((tmp_path / "share").iterdir()))) == ("OCT-E106", b"x", 1)
    for name in ("incoming", "queue"):  # killed while the first one was made
        (tmp_path / "begun" / name).mkdir(parents=True)
    for _ in range(2):
        with Spool(tmp_path / "begun") as spool:
            assert spool.queued() == []
    (tmp_path / "begun" / "queue" / "a.dcm").write_bytes(b"x")
    (tmp_path / "begun" / "audit.jsonl").rename(tmp_path / "begun" / "audit.jsonl.1")  # as programs that rotate logs do
    with Spool(tmp_path / "begun") as spool:
        assert spool.queued() == ["a"]


def test_tries_of_a_volume_that_went_go_too(tmp_path: Path) -> None:
    """A kill between the two: sent again, the volume would begin with the tries of the one that is gone."""
    queue = tmp_path / "spool" / "queue"
    with Spool(tmp_path / "spool"):
        (queue / "waits.dcm").write_bytes(b"x")
        for name in ("waits", "gone"):
            (queue / f"{name}.tries").write_bytes(b"..")
    with Spool(tmp_path / "spool") as spool:
        assert {path.name for path in queue.iterdir()} == {"waits.dcm", "waits.tries"}
        assert (spool.tries("waits"), spool.tries("gone")) == (2, 0)


def test_an_audit_log_that_was_moved_away_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "spool" / "audit.jsonl"
    with Spool(tmp_path / "spool") as spool:
        spool.audit("one")
        log.rename(log.with_suffix(".old"))
        spool.audit("two")
        spool.audit("three")
    kept, new = (path.read_text().splitlines() for path in (log.with_suffix(".old"), log))
    assert [json.loads(line)["event"] for line in kept] == ["opened", "one"]
    assert [json.loads(line)["event"] for line in new] == ["two", "three"]


def test_a_queue_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OctcError) as caught:
            Spool(place)
        assert caught.value.code == "OCT-E109"


def test_a_queue_of_an_older_version_goes_on(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        with spool.answering("0" * 32) as folder:
            (folder / "report.dcm").write_bytes(b"x")
            (folder / "state.json").write_text(json.dumps({"attempts": 3, "since": 1.0, "due": 5.0}))
        (one,) = spool.waiting()
        assert (one.attempts, one.waited, one.due) == (3, 0.0, 5.0)


def test_volumes_that_cannot_be_answered_are_dead_letters_and_the_others_go_on(started: Started, tmp_path: Path) -> None:
    cut, colour, part = (world.eye_object("R", seed=name) for name in ("cut", "colour", "part"))
    cut.PixelData = cut.PixelData[: len(cut.PixelData) // 2]
    colour.SamplesPerPixel, colour.PhotometricInterpretation, colour.PlanarConfiguration = 3, "RGB", 0
    part.ConcatenationUID, part.InConcatenationTotalNumber = "1.2.3", 2
    found, spool = started(report_to=str(tmp_path / "reports"))
    assert peers.send(found.port or 0, [cut, colour, part, world.eye_object("L")]) == [0, 0, 0, 0]
    finished(spool, 4)
    reasons = {
        json.loads(path.read_text())["code"]: path.parent / "source.dcm" for path in (spool / "dead").rglob("reason.json")
    }
    assert set(reasons) == {"OCT-E222", "OCT-E227", "OCT-E228"}
    assert all(path.is_file() for path in reasons.values())
    assert len(list((tmp_path / "reports").glob("*.dcm"))) == 1
    assert peers.send(found.port or 0, [cut]) == [0]  # sent once more: tried once more
    peers.until(lambda: sum(one["event"] == "gave-up" for one in peers.audit(spool)) == 4)
    assert states(spool)["dead"] == 3


def test_strangers_are_refused(started: Started, tmp_path: Path) -> None:
    found, spool = started(report_to=str(tmp_path / "reports"), peers="DEVICE, OTHER@192.0.2.1")
    port = found.port or 0
    assert peers.send(port, [world.eye_object("R")], title="STRANGER") == []
    assert peers.send(port, [world.eye_object("R")], title="OTHER") == []
    assert peers.send(port, [world.eye_object("R")], called="ELSE") == []
    assert peers.send(port, [world.eye_object("R")]) == [0]
    finished(spool, 1)
    assert [one.get("why") for one in peers.audit(spool) if one["event"] == "refused"] == ["title", "address", "title"]


@pytest.mark.parametrize("there", [False, True])
def test_a_device_may_send_what_this_machine_can_decode(
    there: bool, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lossless JPEG has no decoder without python-gdcm: taken, it would be a dead letter that its sender takes for answered."""
    monkeypatch.setattr(JPEGLosslessSV1Decoder, "_available", {"gdcm": print} if there else {})
    found, _ = started(report_to=str(tmp_path / "reports"))
    sender = AE(ae_title="DEVICE")
    for offered in ([JPEG_LOSSLESS, EXPLICIT], [JPEG_LOSSLESS]):
        line = sender.associate("127.0.0.1", found.port or 0, contexts=[build_context(peers.OPT, offered)], ae_title="OCTC")
        assert [str(one.transfer_syntax[0]) for one in line.accepted_contexts] == (offered if there else offered[1:])[-1:]
        if line.is_established:
            line.release()


def test_connections_that_say_nothing_leave_room_when_they_have_gone(started: Started, tmp_path: Path) -> None:
    """Balancers and scanners of a network connect and close: each kept a place for a minute, and eight of them all places."""
    found, spool = started(report_to=str(tmp_path / "reports"), associations=2)
    port = found.port or 0
    for sent in (b"", b"\x01\x00\x00\x00\x00\xff", b"", b""):
        with socket.create_connection(("127.0.0.1", port), 10) as line:
            line.sendall(sent)
    peers.until(lambda: peers.send(port, [world.eye_object("R")]) == [0])
    held = [
        AE(ae_title="DEVICE").associate("127.0.0.1", port, contexts=[build_context(peers.OPT)], ae_title="OCTC")
        for _ in range(2)
    ]
    assert peers.send(port, [world.eye_object("L")]) == []
    assert [one["why"] for one in peers.audit(spool) if one["event"] == "refused"][-1] == "associations"
    for one in held:
        one.release()
    peers.until(lambda: peers.send(port, [world.eye_object("L")]) == [0])


def test_what_is_no_opt_object_or_too_large_is_not_taken(started: Started, tmp_path: Path) -> None:
    found, spool = started(report_to=str(tmp_path / "reports"), max_object=1)
    port = found.port or 0
    large = world.eye_object("R", seed="large", frames=[frame.repeat(8, 0).repeat(8, 1) for frame in world.known()])
    assert peers.send(port, [large]) == [None]
    other = world.eye_object("R")
    other.SOPClassUID = peers.CAPTURE
    assert peers.send(port, [other]) == [None]  # no presentation context was accepted for it
    peers.until(lambda: not list((spool / "incoming").iterdir()))
    assert peers.send(port, [world.eye_object("L")]) == [0]
    finished(spool, 1)
    assert [one.name for one in (spool / "incoming").iterdir()] == []


def test_a_peer_cannot_make_the_service_read_a_message_larger_than_was_offered(started: Started, tmp_path: Path) -> None:
    found, _ = started(report_to=str(tmp_path / "reports"))
    with socket.create_connection(("127.0.0.1", found.port or 0), timeout=10) as line:
        line.sendall(struct.pack(">BBI", 1, 0, 0xFFFFFFF0) + b"x" * 1000)
        assert _closed(line)
    assert peers.send(found.port or 0, [world.eye_object("L")]) == [0]


def _closed(line: socket.socket) -> bool:
    try:
        return line.recv(100) == b""
    except ConnectionError:
        return True


def test_without_room_nothing_is_taken(started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from octc.serve.dicom import provider

    found, spool = started(report_to=str(tmp_path / "reports"))
    monkeypatch.setattr(provider, "FREE", 1 << 60)
    assert peers.send(found.port or 0, [world.eye_object("R")]) == [0xA700]
    assert states(spool) == {"queue": 0, "outbox": 0, "done": 0, "dead": 0}


def test_a_volume_that_is_answered_while_another_comes_in_hinders_nobody(started: Started, tmp_path: Path) -> None:
    found, spool = started(report_to=str(tmp_path / "reports"))
    (spool / "queue" / "gone.dcm").symlink_to(tmp_path / "nowhere")  # listed, and not there any more when its size is asked for
    assert peers.send(found.port or 0, [world.eye_object("R", seed="beside")]) == [0]
    (spool / "queue" / "gone.dcm").unlink()
    finished(spool, 1)


@pytest.mark.parametrize(("fault", "status"), [(OSError(28, "no space"), 0xA700), (RuntimeError("a fault"), 0x0110)])
def test_a_fault_while_a_volume_is_taken_is_told_and_noted(
    fault: Exception, status: int, started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, spool = started(report_to=str(tmp_path / "reports"))

    def fails(*_: Any, **__: Any) -> bool:
        raise fault

    monkeypatch.setattr(Spool, "receive", fails)
    assert peers.send(found.port or 0, [world.eye_object("R")]) == [status]
    assert [one["what"] for one in peers.audit(spool) if one["event"] == "fault"] == [type(fault).__name__]
    assert states(spool) == {"queue": 0, "outbox": 0, "done": 0, "dead": 0}


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate of this machine that is its own authority, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(timezone.utc)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=9))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
    made = made.add_extension(x509.BasicConstraints(True, 0), True)
    folder = tmp_path_factory.mktemp("pem")
    encoding = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(encoding))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    cert = str(folder / "cert.pem")
    return {"dicom_cert": cert, "dicom_key": str(folder / "key.pem"), "dicom_ca": cert}


def test_with_certificates_only_peers_that_show_one_are_heard(started: Started, pem: dict[str, str]) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.create_default_context(cafile=pem["dicom_ca"])
    for one in (server, client):
        one.load_cert_chain(pem["dicom_cert"], pem["dicom_key"])
    stranger = ssl.create_default_context(cafile=pem["dicom_ca"])
    with peers.pacs(ssl_context=server) as (pacs, port):
        found, spool = started(report_to=f"tls:PACS@127.0.0.1:{port}", **pem)
        assert peers.send(found.port or 0, [world.eye_object("R")]) == []
        assert peers.send(found.port or 0, [world.eye_object("R")], tls_args=(stranger, "127.0.0.1")) == []
        assert peers.send(found.port or 0, [world.eye_object("R")], tls_args=(client, "127.0.0.1")) == [0]
        finished(spool, 1)
        assert list(pacs.times.values()) == [1]


def test_a_web_server_is_believed_by_the_named_certificates_alone(
    started: Started, pem: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST", 0.1)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem["dicom_cert"], pem["dicom_key"])
    with peers.web_pacs(server) as (pacs, address):
        found, spool = started(report_to=address)
        assert peers.send(found.port or 0, [world.eye_object("R")]) == [0]
        errors = peers.until(lambda: [one for one in peers.audit(spool) if one["event"] == "not-sent"])
        assert "SSLError" in str(errors[0])
        assert pacs.times == {}
        found, spool = started(report_to=address, dicom_ca=pem["dicom_ca"])
        finished(spool, 1)
        assert list(pacs.times.values()) == [1]


@pytest.mark.parametrize("called_back", [True, False])
def test_commitment_is_given_for_what_is_kept_and_for_nothing_else(called_back: bool, started: Started, tmp_path: Path) -> None:
    """Over a new association to the peer's own port (as Orthanc and many devices expect), or over that of the request."""
    source, other = world.eye_object("R"), world.eye_object("L")
    with peers.committer() as (answers, ask, port):
        named = f"DEVICE@127.0.0.1:{port}" if called_back else "DEVICE"
        found, spool = started(report_to=str(tmp_path / "reports"), keep=True, peers=named)
        assert peers.send(found.port or 0, [source]) == [0]
        finished(spool, 1)
        assert ask(found.port or 0, [source, other], wait=not called_back) == 0
        kind, report = peers.until(lambda: answers and answers[0])
        assert kind == 2
        assert [one.ReferencedSOPInstanceUID for one in report.ReferencedSOPSequence] == [source.SOPInstanceUID]
        assert [(one.ReferencedSOPInstanceUID, one.FailureReason) for one in report.FailedSOPSequence] == [
            (other.SOPInstanceUID, 0x0112)
        ]
        assert len(list((spool / "kept").iterdir())) == 1
        peers.until(lambda: peers.audit(spool)[-1]["event"] == "commitment-reported")
        found, spool = started(report_to=str(tmp_path / "reports"), keep=False)
        assert ask(found.port or 0, [source], wait=False) is None  # not offered: no presentation context is accepted


def test_a_step_that_a_kill_cut_in_two_is_finished_once(started: Started, engine: Answerer, tmp_path: Path) -> None:
    """Every state that a killed process can leave: the same source in two places, half-written folders, a torn log."""
    sources = [world.eye_object("R", seed=str(number)) for number in range(4)]
    keys = [key_of(str(one.SOPInstanceUID)) for one in sources]
    found, spool = started(report_to=str(tmp_path / "reports"))
    peers.send(found.port or 0, sources[:1])
    finished(spool, 1)
    found.close()
    answered, twice, dead, begun = keys
    world.stored(sources[0], spool / "queue" / f"{answered}.dcm")  # sent, and not yet forgotten
    (spool / "outbox" / answered).mkdir()
    world.stored(sources[1], spool / "queue" / f"{twice}.dcm")  # answered, and the source not yet forgotten
    (spool / "outbox" / twice).mkdir()
    (report,) = (tmp_path / "reports").glob("*.dcm")
    (spool / "outbox" / twice / "report.dcm").write_bytes(report.read_bytes())
    world.stored(sources[2], spool / "queue" / f"{dead}.dcm")  # given up, and sent anew
    (spool / "dead" / dead).mkdir()
    world.stored(sources[3], spool / "queue" / f"{begun}.dcm")  # being answered
    (spool / "queue" / f"{begun}.tries").write_bytes(b"..")
    (spool / "outbox" / f".tmp-999999-{begun}").mkdir()
    (spool / "incoming" / "half.dcm").write_bytes(b"x")
    with (spool / "audit.jsonl").open("a") as log:
        log.write('{"time": "20')
    found, spool = started(report_to=str(tmp_path / "again"))
    finished(spool, 4)
    assert states(spool)["dead"] == 0
    uids = {str(report_uid(one, engine.answering)) for one in sources[2:]}
    assert {path.stem for path in (tmp_path / "again").glob("*.dcm")} == {*uids, report.stem}
    assert list((spool / "incoming").iterdir()) == []
    peers.until(lambda: not list((spool / "outbox").iterdir()))
    lines = (spool / "audit.jsonl").read_text().splitlines()
    assert sum(not line.endswith("}") for line in lines) == 1


def test_a_volume_that_ends_the_process_does_not_do_so_for_ever(started: Started, tmp_path: Path) -> None:
    found, spool = started(report_to=str(tmp_path / "reports"))
    found.close()
    bad, good = world.eye_object("R", seed="bad"), world.eye_object("R", seed="good")
    key = key_of(str(bad.SOPInstanceUID))
    for one in (bad, good):
        world.stored(one, spool / "queue" / f"{key_of(str(one.SOPInstanceUID))}.dcm")
    (spool / "queue" / f"{key}.tries").write_bytes(b"." * 25)
    found, spool = started(report_to=str(tmp_path / "reports"))
    finished(spool, 2)
    assert [one["key"] for one in peers.audit(spool) if one["event"] == "gave-up"] == [key]
    assert states(spool)["done"] == 1


def test_one_queue_has_one_process(started: Started, engine: Answerer, tmp_path: Path) -> None:
    _, spool = started(report_to=str(tmp_path / "reports"))
    with pytest.raises(OctcError) as caught:
        Spool(spool)
    assert caught.value.code == "OCT-E108"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"spool": None}, "OCT-E104"),
        ({"report_to": None}, "OCT-E104"),
        ({"report_to": "PACS@nowhere"}, "OCT-E104"),
        ({"report_to": "tls:PACS@127.0.0.1:1"}, "OCT-E104"),
        ({"dicom": "OCTC"}, "OCT-E104"),
        ({"dicom": "A TITLE THAT IS TOO LONG@0"}, "OCT-E104"),
        ({"dicom": "OCTC@0.0.0.0:0"}, "OCT-E104"),
        ({"dicom_cert": "missing.pem", "dicom_key": "missing.pem"}, "OCT-E104"),
        ({"watch": "missing"}, "OCT-E104"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], code: str, started: Started, tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        started(**{"report_to": str(tmp_path / "reports"), **options})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("spool", "report_to", "refused"),
    [
        ("spool", "reports", False), ("drop/spool", "reports", True), ("drop", "reports", True), (".", "reports", True),
        ("drop/../drop/spool", "reports", True), ("spool", "drop", True), ("spool", "drop/reports", True),
        ("drop/.spool", "drop/.reports", False), ("drop-spool", "PACS@127.0.0.1:1", False),
    ],
)  # fmt: skip
def test_a_watched_folder_never_takes_what_is_octcs_own(
    spool: str, report_to: str, refused: bool, started: Started, tmp_path: Path
) -> None:
    """It would take volumes out of the queue, and refuse reports as no volumes."""
    (tmp_path / "drop").mkdir()
    where = report_to if "@" in report_to else str(tmp_path / report_to)
    given = {"dicom": None, "watch": str(tmp_path / "drop"), "spool": str(tmp_path / spool), "report_to": where}
    if not refused:
        started(**given)
        return
    with pytest.raises(OctcError) as caught:
        started(**given)
    assert caught.value.code == "OCT-E104"
    assert list((tmp_path / "drop").iterdir()) == []


def test_a_file_that_may_not_be_removed_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """As on a share without the right to delete: it is tried again after ten minutes, not twice a second."""
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"x")
    came: list[str] = []

    def take(path: Path) -> None:
        came.append(path.name)
        if path.name == "a":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    watch = Watch(tmp_path, take)
    looks = [0.0, 3.0, 3.5, 60.0, 300.0]
    assert [watch.look(moment) for moment in looks] == [0, 2, 0, 0, 0]
    assert came == ["a", "b", "c"]
    watch.look(700.0)
    assert (came, [path.name for path in tmp_path.iterdir()]) == (["a", "b", "c", "a"], ["a"])

    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    watch = Watch(tmp_path, full)
    watch.look(0.0)
    with pytest.raises(OSError, match="No space"):  # of the machine: the gateway waits with all of them
        watch.look(3.0)


def test_what_is_no_dicom_is_refused_and_does_not_hold_up_the_others(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume of a maker can be read, and has neither patient nor study that a report could belong to."""
    monkeypatch.setattr(watched, "QUIET", 0.1)
    drop = tmp_path / "drop"
    drop.mkdir()
    started(dicom=None, watch=str(drop), report_to=str(tmp_path / "reports"))
    write_volume(drop / "a")
    picture = drop / "b.png"
    Image.fromarray(world.known()[0]).save(picture)
    world.stored(world.eye_object("R"), drop / "c.dcm")
    peers.until(lambda: (tmp_path / "reports").is_dir() and list((tmp_path / "reports").glob("*.dcm")))
    assert (drop / ".refused" / "a.vol.txt").read_text().startswith("OCT-E228")
    assert (drop / ".refused" / "b.png.txt").read_text().startswith("OCT-E202")
    peers.until(lambda: [path.name for path in drop.iterdir()] == [".refused"])


def test_a_file_that_has_only_begun_is_not_refused(tmp_path: Path) -> None:
    """Who copies it goes on writing, wherever it was moved to: it waits as one that is cut short does."""
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "begun.dcm").write_bytes(bytes(100))
    for number, text in enumerate(("a text", "a text " * 100)):
        (tmp_path / f"text-{number}.dcm").write_text(text)

    def take(path: Path) -> None:
        read_volumes(path)

    watch = Watch(tmp_path, take)
    watch.look(0.0)
    watch.look(3.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".refused", "begun.dcm", "empty.dcm"]
    watch.look(1000.0)
    assert [path.name for path in tmp_path.iterdir()] == [".refused"]


def test_a_file_that_is_written_to_while_it_is_copied_is_taken_when_it_is_done(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else half of the old and half of the new would be in the queue, and the whole one a repetition that goes."""
    monkeypatch.setattr(watched, "QUIET", 0.1)
    drop, copied, copy = tmp_path / "drop", [], shutil.copyfile
    drop.mkdir()
    old = world.eye_object("R", frames=[*world.known()[:4], *world.known()[:1]])
    new = world.stored(world.eye_object("R"), tmp_path / "new.dcm").read_bytes()
    path = world.stored(old, drop / "eye.dcm")

    def slowly(source: Any, target: Any) -> Any:
        done = copy(source, target)
        if Path(source) == path and not copied:
            path.write_bytes(new)
        copied.append(Path(target).read_bytes())
        return done

    monkeypatch.setattr(shutil, "copyfile", slowly)
    _, spool = started(dicom=None, watch=str(drop), report_to=str(tmp_path / "reports"), keep=True)
    finished(spool, 1)
    assert (len(copied), copied[1] == new) == (2, True)
    (kept,) = (spool / "kept").iterdir()
    assert kept.read_bytes() == new
    assert not path.exists()
    assert list((spool / "incoming").iterdir()) == []


def test_thousands_of_attempts_are_no_end(started: Started, tmp_path: Path) -> None:
    """Hours of attempts may be a year: after 1024 of them no float was the pause."""
    with peers.pacs() as (pacs, port):
        pacs.status = 0xA700
        there = {"report_to": f"PACS@127.0.0.1:{port}", "retry_hours": 8760.0}
        found, spool = started(**there)
        peers.send(found.port or 0, [world.eye_object("R")])
        state = peers.until(lambda: next(iter((spool / "outbox").glob("[!.]*/state.json")), None))
        found.close()
        state.write_text(json.dumps({"attempts": 5000, "waited": 60.0, "due": 0.0}))
        started(**there)
        peers.until(lambda: json.loads(state.read_text())["attempts"] > 5000)
        assert json.loads(state.read_text())["waited"] == 660.0
        assert not [one for one in peers.audit(spool) if one["event"] == "fault"]


def test_a_volume_is_given_up_where_files_have_one_name_only(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and many shares have no hard links; the volume would be tried for ever, and all behind it wait."""

    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    found, spool = started(report_to=str(tmp_path / "reports"))
    part = world.eye_object("R", ConcatenationUID="2.25.7", InConcatenationTotalNumber=2)
    peers.send(found.port or 0, [part, world.eye_object("L")])
    finished(spool, 2)
    assert (states(spool)["dead"], reason(spool)["code"]) == (1, "OCT-E228")
    (folder,) = (spool / "dead").iterdir()
    assert pydicom.dcmread(folder / "source.dcm").SOPInstanceUID == part.SOPInstanceUID


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("error", [
    FULL, OctcError("OCT-E109", "the store cannot be used", hint="its folder"), PermissionError(errno.EACCES, "denied"),
    sqlite3.OperationalError("database or disk is full"), OctcError("OCT-E906", "too many open files", hint="ulimit -n 4096"),
], ids=["full", "monitor", "forbidden", "sqlite", "files"])  # fmt: skip
def test_a_volume_waits_as_long_as_the_machine_cannot_keep_its_answer(
    error: Exception, started: Started, engine: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More often than a volume may be begun, and it is answered when the machine can again."""
    failures = [error] * (MOST_TRIES + 5)

    def watch(_records: object) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setattr(module, "answers_for", lambda path, answerer: answers_for(path, replace(answerer, watch=watch)))
    found, spool = started(report_to=str(tmp_path / "reports"))
    peers.send(found.port or 0, [world.eye_object("R")])
    finished(spool, 1)
    assert (failures, states(spool)["dead"]) == ([], 0)
    assert len(list((tmp_path / "reports").glob("*.dcm"))) == 1


def test_a_volume_that_takes_all_memory_is_given_up(started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "PAUSE", 0.01)
    monkeypatch.setattr(module, "answers_for", begun)
    found, spool = started(report_to=str(tmp_path / "reports"))
    peers.send(found.port or 0, [world.eye_object("R")])
    finished(spool, 1)
    assert states(spool)["dead"] == 1


def test_a_log_that_cannot_be_written_for_a_while_ends_no_thread(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is acknowledged before and after the disk was full is answered; the log has whole lines."""
    monkeypatch.setattr(module, "PAUSE", 0.01)
    found, spool = started(report_to=str(tmp_path / "reports"))
    whole, full = Spool.audit, [True]
    refused = []

    def audit(self: Spool, event: str, key: str = "", **facts: Any) -> None:
        if full and event != "received":
            refused.append(event)
            raise FULL
        whole(self, event, key, **facts)

    monkeypatch.setattr(Spool, "audit", audit)
    peers.send(found.port or 0, [world.eye_object("R")])
    peers.until(lambda: len(refused) > 5)
    full.clear()
    peers.send(found.port or 0, [world.eye_object("L")])
    finished(spool, 2)
    assert states(spool)["dead"] == 0
    assert len(list((tmp_path / "reports").glob("*.dcm"))) == 2


def test_half_a_line_of_the_log_does_not_stay(tmp_path: Path) -> None:
    """A disk that is full in the middle of a line: the limit of a file's size has the same effect."""
    with Spool(tmp_path / "spool") as spool:
        spool.audit("first")
        size = (tmp_path / "spool" / "audit.jsonl").stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        try:
            with pytest.raises(OSError, match=r"No space|too large"):
                spool.audit("second")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        spool.audit("third")
    assert [one["event"] for one in peers.audit(tmp_path / "spool")][-2:] == ["first", "third"]


def test_a_dropped_file_becomes_a_report_when_it_is_whole(
    started: Started, engine: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from octc.serve import watch

    monkeypatch.setattr(watch, "QUIET", 0.1)
    drop = tmp_path / "drop"
    (drop / "deep").mkdir(parents=True)
    found, spool = started(dicom=None, watch=str(drop), report_to=str(tmp_path / "reports"))
    assert found.port is None
    source = world.eye_object("R")
    whole = world.stored(source, tmp_path / "whole.dcm").read_bytes()
    (drop / "deep" / "half.dcm").write_bytes(whole[: len(whole) // 2])
    (drop / "text.txt").write_text("a text")
    (drop / "copy.dcm.part").write_bytes(whole)
    peers.until((drop / ".refused" / "text.txt.txt").is_file)
    time.sleep(1.0)
    assert (drop / "deep" / "half.dcm").is_file()  # cut short: it waits
    with (drop / "deep" / "half.dcm").open("ab") as stream:
        stream.write(whole[len(whole) // 2 :])
    finished(spool, 1)
    assert {path.stem for path in (tmp_path / "reports").glob("*.dcm")} == {str(report_uid(source, engine.answering))}
    peers.until(lambda: not (drop / "deep" / "half.dcm").exists())
    assert (drop / "copy.dcm.part").is_file()
    (drop / "again.dcm").write_bytes(whole)
    peers.until(lambda: not (drop / "again.dcm").exists())
    assert states(spool)["done"] == 1
