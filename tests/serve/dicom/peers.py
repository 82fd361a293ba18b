"""Peers in this process: a device that sends, a PACS that takes reports by C-STORE, one that takes them by STOW-RS."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pynetdicom import AE, evt

from octc.volumes.dicom import OPT

SR = "1.2.840.10008.5.1.4.1.1.88.33"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def send(port: int, objects: list[Any], *, title: str = "DEVICE", called: str = "OCTC", **arguments: Any) -> list[int | None]:
    """C-STORE of OPT objects; the status of each, None where there was no answer, [] where there was no association."""
    entity = AE(ae_title=title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    syntaxes = sorted({str(one.file_meta.TransferSyntaxUID) for one in objects})
    for syntax in syntaxes:
        entity.add_requested_context(OPT, syntax)
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", port, ae_title=called, **arguments)
    if not association.is_established:
        return []
    found = []
    for one in objects:
        try:
            status = association.send_c_store(one).get("Status")
        except (RuntimeError, ValueError):
            status = None
        found.append(None if status is None else int(status))
    if association.is_established:
        association.release()
    return found


class Pacs:
    """What arrived, by UID: how often each object came. status: what is answered, a number or a function of the UID."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.times: dict[str, int] = {}
        self.status: int = 0

    def take(self, made: Any) -> None:
        uid = str(made.SOPInstanceUID)
        self.times[uid] = self.times.get(uid, 0) + 1
        if self.status == 0:
            self.objects[uid] = made


@contextmanager
def pacs(port: int = 0, **arguments: Any) -> Iterator[tuple[Pacs, int]]:
    """A C-STORE provider for reports, and its port."""
    found = Pacs()

    def store(event: Any) -> int:
        found.take(event.dataset)
        return found.status

    entity = AE(ae_title="PACS")
    entity.add_supported_context(SR)
    entity.add_supported_context(CAPTURE)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)], **arguments)
    assert server is not None
    try:
        yield found, server.server_address[1]
    finally:
        entity.shutdown()


@contextmanager
def web_pacs(tls: ssl.SSLContext | None = None) -> Iterator[tuple[Pacs, str]]:
    """A STOW-RS server, and its address; `status` is the HTTP status, 0: 200. tls: https."""
    found = Pacs()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            mark = self.headers["Content-Type"].rpartition("boundary=")[2].encode()
            parts = [part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for part in body.split(b"--" + mark)[1:-1]]
            made = [pydicom.dcmread(BytesIO(part)) for part in parts]
            for one in made:
                found.take(one)
            items = [{"00081155": {"vr": "UI", "Value": [str(one.SOPInstanceUID)]}} for one in made]
            answer = json.dumps({"00081199": {"vr": "SQ", "Value": items}} if found.status == 0 else {}).encode()
            self.send_response(found.status or 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:  # a client that does not trust the certificate goes away
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield found, f"http{'' if tls is None else 's'}://127.0.0.1:{server.server_port}/dicom-web/studies"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def until(what: Callable[[], Any], seconds: float = 120.0) -> Any:
    """Wait for something that becomes true; long, since nobody waits for it but where it never comes."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


def audit(spool: Path) -> list[dict[str, Any]]:
    """The lines that are whole: the next one may just be written."""
    text = (spool / "audit.jsonl").read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@contextmanager
def committer() -> Iterator[tuple[list[tuple[int, Any]], Callable[..., int | None], int]]:
    """A device that asks for storage commitment: the reports that it got, how it asks, and the port that it listens at."""
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    model, known = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
    answers: list[tuple[int, Any]] = []

    def report(event: Any) -> tuple[int, None]:
        answers.append((int(event.event_type), event.event_information))
        return 0, None

    handlers = [(evt.EVT_N_EVENT_REPORT, report)]
    entity = AE(ae_title="DEVICE")
    entity.add_supported_context(model, scu_role=False, scp_role=True)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None

    def ask(port: int, objects: list[Any], *, wait: bool) -> int | None:
        """The status of N-ACTION, None where the context was not accepted. wait: for the report, on the same association."""
        client = AE(ae_title="DEVICE")
        client.add_requested_context(model)
        client.add_requested_context("1.2.840.10008.1.1")
        association = client.associate("127.0.0.1", port, ae_title="OCTC", evt_handlers=handlers)
        assert association.is_established
        wanted = Dataset()
        wanted.TransactionUID = generate_uid()
        wanted.ReferencedSOPSequence = []
        for one in objects:
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
            wanted.ReferencedSOPSequence.append(reference)
        try:
            status, _ = association.send_n_action(wanted, 1, model, known)
        except ValueError:
            association.release()
            return None
        if wait:
            until(lambda: answers)
        association.release()
        return int(status.Status)

    try:
        yield answers, ask, server.server_address[1]
    finally:
        entity.shutdown()
