"""The C-STORE provider: takes OPT objects of known peers into the queue. It says success when a volume is on the disk."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.optional import need
from octc.serve.dicom.commitment import PUSH_MODEL, Reply, answer_request
from octc.serve.dicom.spool import Spool, key_of
from octc.volumes.dicom import OPT

VERIFICATION = "1.2.840.10008.1.1"
SYNTAXES = (  # of those, a peer may send what this machine has a decoder for: others would be taken and never answered
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",
)  # fmt: skip
# PS3.4 B.2.3
SUCCESS, PROCESSING_FAILURE, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0x0110, 0xA700, 0xA900, 0xC000
TRANSIENT = 0x02  # a rejection that may be tried again: too many associations (PS3.8 9.3.4)
MAX_PDU = 1 << 20  # bytes: larger ones than were offered are an attack or a fault, and would be read into memory whole
FREE = 1 << 30  # bytes: with less free space on the disk nothing is taken
SECONDS = 60  # that a peer may be silent


@dataclass(frozen=True)
class Peer:
    """Who may send: an AE title, the address it comes from where one is named, the port where it takes associations itself."""

    title: str
    address: str | None = None
    port: int | None = None

    @staticmethod
    def of(text: str) -> Peer:
        """AET, AET@ADDRESS or AET@ADDRESS:PORT (E104 otherwise)."""
        title, _, place = text.partition("@")
        found = re.fullmatch(r"(\[[^\]]+\]|[^:]*)(?::(\d{1,5}))?", place) or re.fullmatch(r"([0-9A-Fa-f:]+)()", place)
        if found is None:
            raise OctcError(
                "OCT-E104", f"{text[:60]!r} is no peer", hint="AET, AET@ADDRESS or AET@ADDRESS:PORT", place="--peers"
            )
        port = int(found[2]) if found[2] else None
        return Peer(checked_title(title, "--peers"), found[1].strip("[]") or None, port)


@dataclass(frozen=True)
class Door:
    """Where volumes come in, and within which limits.

    Attributes:
        title: of this AE. host, port: to listen at. peers: who may send; empty: anybody who reaches the address.
        associations: at once. most: bytes of one object. most_queued: bytes of all that wait. tls: None without it.
        commit: whether storage commitment is offered (for a queue that keeps).
    """

    title: str
    host: str
    port: int
    peers: tuple[Peer, ...] = ()
    associations: int = 8
    most: int = 1 << 30
    most_queued: int = 1 << 35
    tls: ssl.SSLContext | None = None
    commit: bool = False


def checked_title(title: str, place: str) -> str:
    """An AE title: 1 to 16 printable characters of ASCII without a backslash (PS3.5 6.2); E104 otherwise."""
    if not (0 < len(title.strip()) == len(title) <= 16 and title.isascii() and title.isprintable() and "\\" not in title):
        raise OctcError("OCT-E104", f"{title[:40]!r} is no AE title", hint="1 to 16 letters and digits", place=place)
    return title


class Provider:
    """A running provider; `close` ends it when the objects that are being received are in the queue."""

    def __init__(self, door: Door, spool: Spool) -> None:
        """Listen.

        Raises:
            OctcError: E901 pynetdicom is not installed, E906 the address or port cannot be had.
        """
        need("pynetdicom")
        from pynetdicom import AE, _config, evt

        from octc.volumes.dicom import decodable

        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it writes addresses and titles; the audit log has ours
        self._door, self._spool = door, spool
        self._before = tempfile.tempdir, _config.STORE_RECV_CHUNKED_DATASET
        # objects go to the disk as they come, and to the queue's: what a killed process leaves is emptied with it
        tempfile.tempdir, _config.STORE_RECV_CHUNKED_DATASET = str(spool.incoming), True
        entity = AE(ae_title=door.title)
        entity.maximum_associations = door.associations
        entity.maximum_pdu_size = MAX_PDU
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = SECONDS
        entity.require_called_aet = True
        entity.require_calling_aet = sorted({peer.title for peer in door.peers})
        entity.add_supported_context(VERIFICATION)
        entity.add_supported_context(OPT, [one for one in SYNTAXES if decodable(one)])
        if door.commit:
            entity.add_supported_context(PUSH_MODEL)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._connected),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_CONN_CLOSE, _closed),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_ACTION, self._commit),
            (evt.EVT_C_ECHO, lambda _event: SUCCESS),
        ]
        try:
            self._server = entity.start_server((door.host, door.port), block=False, evt_handlers=handlers, ssl_context=door.tls)
        except OSError as error:
            self._restore()
            text = f"cannot listen at {door.host}, port {door.port}: {error.strerror}"
            raise OctcError("OCT-E906", text, hint="--dicom AET@PORT with a free one", place="--dicom") from error
        self.port: int = self._server.server_address[1] if self._server else 0
        self._entity = entity

    def _restore(self) -> None:
        from pynetdicom import _config

        tempfile.tempdir, _config.STORE_RECV_CHUNKED_DATASET = self._before

    def close(self) -> None:
        self._entity.shutdown()
        self._restore()

    def _connected(self, event: Any) -> None:
        """A peer connects: bound what may be read of it at once, and of one object."""
        socket = event.assoc.dul.socket
        event.assoc.octc_taken = 0
        if socket.socket is not None:
            socket.socket.settimeout(SECONDS)  # a peer that stops in the middle of a message
        socket.recv = _bounded(socket.recv, event.assoc, self._door.most)

    def _requested(self, event: Any) -> None:
        """A peer asks for an association: by its title it is known, by its address it has to be where one is named."""
        title = str(event.assoc.requestor.primitive.calling_ae_title or "").strip()  # its ae_title is not set before the answer
        address = str(event.assoc.requestor.address)
        named = [peer.address for peer in self._door.peers if peer.title == title]
        if named and None not in named and address not in named:
            self._spool.audit("refused", peer=_plain(title), why="address")
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)  # calling AE title not recognised (PS3.8 9.3.4)

    def _commit(self, event: Any) -> tuple[int, None]:
        """A peer asks whether it may rely on us for what it sent."""
        title = str(event.assoc.requestor.ae_title or "").strip()
        known = [peer for peer in self._door.peers if peer.title == title and peer.address and peer.port]
        place = (known[0].address or "", known[0].port or 0) if known else None
        return answer_request(event, self._spool, OPT, Reply(event.assoc, _plain(title), self._door.title, place))

    def _rejected(self, event: Any) -> None:
        answer = event.assoc.acceptor.primitive
        why = "associations" if answer is not None and answer.result == TRANSIENT else "title"
        self._spool.audit("refused", peer=_plain(str(event.assoc.requestor.ae_title or "")), why=why)

    def _store(self, event: Any) -> int:
        """A whole object lies in `incoming`; the status that its sender is told."""
        event.assoc.octc_taken = 0
        title = _plain(str(event.assoc.requestor.ae_title or ""))
        try:
            return self._taken(event, title)
        except Exception as error:  # pynetdicom would answer without a word in the log
            with contextlib.suppress(OSError):  # the disk is full: the audit log may be what cannot be written
                self._spool.audit("fault", where="store", what=type(error).__name__, peer=title)
            return OUT_OF_RESOURCES if isinstance(error, OSError) else PROCESSING_FAILURE

    def _taken(self, event: Any, title: str) -> int:
        waiting, free = self._spool.queued_bytes(), shutil.disk_usage(self._spool.folder).free
        if waiting > self._door.most_queued or free < FREE:
            self._spool.audit("refused", peer=title, why="no room", queued=waiting, free=free)
            return OUT_OF_RESOURCES
        try:
            uid, kind = _identified(event.dataset_path)
        except Exception as error:  # what a peer calls an object may be anything
            self._spool.audit("refused", peer=title, why=f"not understood: {type(error).__name__}")
            return NOT_UNDERSTOOD
        if kind != OPT or uid != str(event.request.AffectedSOPInstanceUID):
            self._spool.audit("refused", peer=title, why="object and command differ")
            return MISMATCH
        whole = event.dataset_path.with_suffix(".whole")
        event.request._dataset_file.close()
        event.dataset_path.rename(whole)
        self._spool.receive(whole, key_of(uid), peer=title)
        return SUCCESS


def _closed(event: Any) -> None:
    """A connection has ended: what was received of an object that never became whole goes, and so does its place among the
    associations. One that never said anything (a probe of a balancer or a scanner) would keep it for SECONDS."""
    if not event.assoc.is_established:
        event.assoc.dul.to_user_queue.put(None)  # what its thread would have waited for
    file = getattr(event.assoc.dimse.message, "_data_set_file", None)
    if file is not None:
        file.close()
        Path(file.name).unlink(missing_ok=True)


def _bounded(receive: Callable[[int], bytearray], association: Any, most: int) -> Callable[[int], bytearray]:
    """Reading from a peer, which ends the connection where a message or an object is larger than it may be."""

    def bounded(count: int) -> bytearray:
        association.octc_taken += count
        if count > MAX_PDU + 1024 or association.octc_taken > most:
            raise OSError("larger than the limits")
        return receive(count)

    return bounded


def _identified(path: Path) -> tuple[str, str]:
    """SOP instance UID and class of an object whose header can be read (any exception otherwise)."""
    from octc.volumes.dicom import head_of

    found = head_of(path, ("SOPInstanceUID", "SOPClassUID"))
    return str(found.SOPInstanceUID), str(found.SOPClassUID)


def _plain(title: str) -> str:
    """A title of a peer as it may stand in a log."""
    return "".join(sign for sign in title.strip()[:16] if sign.isascii() and sign.isprintable())
