"""The C-STORE provider: receives OPT objects from known peers into the queue; it reports success once a volume is on disk."""

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
SYNTAXES = (  # those without a decoder on this machine are not offered, since their objects could not be classified
    "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",
)  # fmt: skip
# PS3.4 B.2.3
SUCCESS, PROCESSING_FAILURE, OUT_OF_RESOURCES, MISMATCH, NOT_UNDERSTOOD = 0x0000, 0x0110, 0xA700, 0xA900, 0xC000
TRANSIENT = 0x02  # transient rejection: too many associations (PS3.8 9.3.4)
MAX_PDU = 1 << 20  # bytes; larger PDUs than offered are an attack or error, and would be read into memory
FREE = 1 << 30  # minimum free disk space to accept objects, bytes
SECONDS = 60  # timeout of a silent peer
WHOLE = ".whole"  # ends the name of an object that pynetdicom has written and does not remove any more


@dataclass(frozen=True)
class Peer:
    """A permitted sender: AE title, optionally its address, and the port on which it accepts associations."""

    title: str
    address: str | None = None
    port: int | None = None

    @staticmethod
    def of(text: str) -> Peer:
        """Parse AET, AET@ADDRESS or AET@ADDRESS:PORT (OctcError E104: invalid)."""
        title, _, place = text.partition("@")
        found = re.fullmatch(r"(\[[^\]]+\]|[^:]*)(?::(\d{1,5}))?", place) or re.fullmatch(r"([0-9A-Fa-f:]+)()", place)
        if found is None:
            raise OctcError(
                "OCT-E104", f"{text[:60]!r} is not a peer", hint="AET, AET@ADDRESS or AET@ADDRESS:PORT", place="--peers"
            )
        port = int(found[2]) if found[2] else None
        return Peer(checked_title(title, "--peers"), found[1].strip("[]") or None, port)


@dataclass(frozen=True)
class Door:
    """Settings and limits of the provider.

    Attributes:
        title: own AE title. host, port: address to listen on. peers: permitted senders; empty: any.
        associations: maximum number at the same time. most: maximum bytes of an object. most_queued: maximum bytes of all
            waiting objects. tls: TLS context or None.
        commit: whether to offer storage commitment (for a queue that keeps objects).
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
    """Check an AE title: 1 to 16 printable ASCII characters without backslash (PS3.5 6.2; OctcError E104: invalid)."""
    if not (0 < len(title.strip()) == len(title) <= 16 and title.isascii() and title.isprintable() and "\\" not in title):
        raise OctcError("OCT-E104", f"{title[:40]!r} is not an AE title", hint="1 to 16 letters and digits", place=place)
    return title


class Provider:
    """A running provider; `close` first finishes the objects that are being received."""

    def __init__(self, door: Door, spool: Spool) -> None:
        """Start to listen.

        Raises:
            OctcError: E901 pynetdicom is not installed; E906 the address or port is not available.
        """
        need("pynetdicom")
        from pynetdicom import AE, _config, evt

        from octc.volumes.dicom import decodable

        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it would log addresses and titles; octc has its audit log
        self._door, self._spool = door, spool
        self._before = tempfile.tempdir, _config.STORE_RECV_CHUNKED_DATASET
        # objects are written to the queue's folder as they arrive, so leftovers of a killed process are removed with it
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
        """On a new connection: limit the size of messages and objects."""
        socket = event.assoc.dul.socket
        event.assoc.octc_taken = 0
        if socket.socket is not None:
            socket.socket.settimeout(SECONDS)  # for a peer that stops in the middle of a message
        socket.recv = _bounded(socket.recv, event.assoc, self._door.most)
        event.assoc.dimse.receive_primitive = self._written(event.assoc)

    def _written(self, association: Any) -> Callable[[Any], None]:
        """Wrap writing of what comes in: on a full disk pynetdicom's thread would die and leave the file where it is, so that
        the disk stays full."""
        receive = association.dimse.receive_primitive

        def written(primitive: Any) -> None:
            try:
                receive(primitive)
            except OSError as error:
                with contextlib.suppress(OSError):  # the audit log lies on the same disk
                    self._spool.audit("fault", where="receive", what=type(error).__name__)
                _discard(association)
                association.dul.socket.close()

        return written

    def _requested(self, event: Any) -> None:
        """On an association request: check the peer's title and, if configured, its address."""
        title = str(event.assoc.requestor.primitive.calling_ae_title or "").strip()  # ae_title is not set before the response
        address = str(event.assoc.requestor.address)
        named = [peer.address for peer in self._door.peers if peer.title == title]
        if named and None not in named and address not in named:
            self._spool.audit("refused", peer=_plain(title), why="address")
            event.assoc.acse.send_reject(0x01, 0x01, 0x03)  # calling AE title not recognised (PS3.8 9.3.4)

    def _commit(self, event: Any) -> tuple[int, None]:
        """On a storage commitment request."""
        title = str(event.assoc.requestor.ae_title or "").strip()
        known = [peer for peer in self._door.peers if peer.title == title and peer.address and peer.port]
        place = (known[0].address or "", known[0].port or 0) if known else None
        return answer_request(event, self._spool, OPT, Reply(event.assoc, _plain(title), self._door.title, place))

    def _rejected(self, event: Any) -> None:
        answer = event.assoc.acceptor.primitive
        why = "associations" if answer is not None and answer.result == TRANSIENT else "title"
        self._spool.audit("refused", peer=_plain(str(event.assoc.requestor.ae_title or "")), why=why)

    def _store(self, event: Any) -> int:
        """A complete object is in `incoming`; returns the status for the sender."""
        event.assoc.octc_taken = 0
        title = _plain(str(event.assoc.requestor.ae_title or ""))
        try:
            return self._taken(event, title)
        except Exception as error:  # pynetdicom would respond without a log entry
            for left in (event.dataset_path, event.dataset_path.with_suffix(WHOLE)):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # on a full disk the audit log may not be writable
                self._spool.audit("fault", where="store", what=type(error).__name__, peer=title)
            return OUT_OF_RESOURCES if isinstance(error, OSError) else PROCESSING_FAILURE

    def _taken(self, event: Any, title: str) -> int:
        waiting, free = self._spool.queued_bytes(), shutil.disk_usage(self._spool.folder).free
        if waiting > self._door.most_queued or free < FREE:
            self._spool.audit("refused", peer=title, why="no room", queued=waiting, free=free)
            return OUT_OF_RESOURCES
        try:
            uid, kind = _identified(event.dataset_path)
        except Exception as error:  # an invalid object may raise anything
            self._spool.audit("refused", peer=title, why=f"not understood: {type(error).__name__}")
            return NOT_UNDERSTOOD
        if kind != OPT or uid != str(event.request.AffectedSOPInstanceUID):
            self._spool.audit("refused", peer=title, why="object and command differ")
            return MISMATCH
        whole = event.dataset_path.with_suffix(WHOLE)
        event.request._dataset_file.close()
        event.dataset_path.rename(whole)
        self._spool.receive(whole, key_of(uid), peer=title)
        return SUCCESS


def _closed(event: Any) -> None:
    """On the end of a connection: remove an incomplete object, and release the association. A silent connection (a probe of a
    load balancer or scanner) would otherwise occupy it for SECONDS."""
    if not event.assoc.is_established:
        event.assoc.dul.to_user_queue.put(None)  # wakes its thread
    _discard(event.assoc)


def _discard(association: Any) -> None:
    """Remove the object that is being received; on a full disk its last bytes cannot be written when it is closed."""
    file = getattr(association.dimse.message, "_data_set_file", None)
    if file is not None:
        with contextlib.suppress(OSError):
            file.close()
        Path(file.name).unlink(missing_ok=True)


def _bounded(receive: Callable[[int], bytearray], association: Any, most: int) -> Callable[[int], bytearray]:
    """Wrap reading from a peer: too large messages and objects end the connection."""

    def bounded(count: int) -> bytearray:
        association.octc_taken += count
        if count > MAX_PDU + 1024 or association.octc_taken > most:
            raise OSError("larger than the limits")
        return receive(count)

    return bounded


def _identified(path: Path) -> tuple[str, str]:
    """SOP instance UID and class of an object (any exception if its header cannot be read)."""
    from octc.volumes.dicom import head_of

    found = head_of(path, ("SOPInstanceUID", "SOPClassUID"))
    return str(found.SOPInstanceUID), str(found.SOPClassUID)


def _plain(title: str) -> str:
    """A peer's title, safe for a log."""
    return "".join(sign for sign in title.strip()[:16] if sign.isascii() and sign.isprintable())
