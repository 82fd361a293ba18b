"""Destinations of reports: a PACS by C-STORE or STOW-RS, or a folder. Distinguishes temporary from permanent failures."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import write_bytes
from octc.core.optional import need
from octc.imaging.decode import muted
from octc.serve.dicom.provider import checked_title

TOKEN = "OCTC_STOW_TOKEN"
SECONDS = 60  # of silence
WHOLE = 300.0  # seconds of a request with its answer: a peer that says a little now and then would hold the only sender
MOST_ANSWER = 1 << 20  # bytes of an answer that are read
DUPLICATE = 0x0111  # PS3.7 C.5.1: the peer already has this object
# PS3.4 B.2.3 and PS3.7: permanent failures
FOR_EVER = (
    0x0105,
    0x0106,
    0x0117,
    0x0118,
    0x0122,
    0x0124,
    0x0210,
    0x0211,
    0x0212,
    *range(0xA900, 0xAA00),
    *range(0xC000, 0xD000),
)
DEFINITE_HTTP = (400, 401, 403, 404, 405, 406, 413, 415)


class NotSent(Exception):
    """Raised if an object could not be sent. final: the failure is permanent."""

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.final = reason, final


Send = Callable[[Sequence[Path]], None]  # raises NotSent unless all were accepted


@dataclass(frozen=True)
class Credentials:
    """Credentials for sending.

    Attributes:
        title: own AE title. tls: TLS context for `tls:` destinations. ca: PEM file for https; None: the system's CAs.
        token: a bearer token, or "user:password".
    """

    title: str = "OCTC"
    tls: ssl.SSLContext | None = None
    ca: str | None = None
    token: str | None = None


def folder_of(words: str) -> Path | None:
    """The folder in --report-to; None for other destinations."""
    return None if "@" in words or not words or re.match(r"https?://", words) else Path(words)


def destination(words: str, own: Credentials) -> Send:
    """The send function for AET@HOST:PORT, tls:AET@HOST:PORT, http(s)://.../studies, or a folder.

    Raises:
        OctcError: E104 an invalid destination; E901 a library for it is not installed.
    """
    if re.match(r"https?://", words):
        need("requests")
        if words.startswith("http://") and own.token and not re.match(r"http://(localhost|127\.|\[::1\])", words):
            text = "a token is never sent without TLS to another machine"
            raise OctcError("OCT-E104", text, hint="https://, or unset " + TOKEN, place="--report-to")
        return lambda objects: _stow(words.rstrip("/"), objects, own)
    if (folder := folder_of(words)) is not None:
        return lambda objects: _file(folder, objects)
    found = re.fullmatch(r"(tls:)?([^@/]+)@(.+):(\d+)", words)
    if found is None:
        hint = "AET@HOST:PORT, tls:AET@HOST:PORT, https://HOST/dicom-web/studies, or a folder"
        raise OctcError("OCT-E104", f"{words!r} is not a destination", hint=hint, place="--report-to")
    need("pynetdicom")
    secure, title, host, port = found.groups()
    if secure and own.tls is None:
        raise OctcError("OCT-E104", "tls: needs certificates", hint="--dicom-ca FILE", place="--report-to")
    checked_title(title, "--report-to")
    if not 0 < int(port) < 65536:
        raise OctcError("OCT-E104", f"port {port}", hint="1 to 65535", place="--report-to")
    tls = own.tls if secure else None
    return lambda objects: _store(title, (host.strip("[]"), int(port)), objects, own.title, tls)


def token_of(environ: Mapping[str, str] = os.environ) -> str | None:
    return environ.get(TOKEN) or None


def _file(folder: Path, objects: Sequence[Path]) -> None:
    """Copy objects atomically into the folder, named by their UID."""
    try:
        for path in objects:
            write_bytes(folder / f"{_uid(path)[0]}.dcm", path.read_bytes())
    except OSError as error:
        raise NotSent(f"{type(error).__name__}: {error.strerror}") from error
    except OctcError as error:
        raise NotSent(f"{error.code} {error.message}") from error


def _uid(path: Path) -> tuple[str, str]:
    from pydicom import dcmread

    with muted():
        found = dcmread(path, stop_before_pixels=True, specific_tags=["SOPInstanceUID", "SOPClassUID"])
    return str(found.SOPInstanceUID), str(found.SOPClassUID)


def _store(title: str, address: tuple[str, int], objects: Sequence[Path], own: str, tls: ssl.SSLContext | None) -> None:
    """Send all objects by C-STORE in one association."""
    sockets: list[socket.socket] = []
    with _in_time(sockets):
        _associated(title, address, objects, own, tls, sockets)


def _associated(
    title: str,
    address: tuple[str, int],
    objects: Sequence[Path],
    own: str,
    tls: ssl.SSLContext | None,
    sockets: list[socket.socket],
) -> None:
    from pynetdicom import AE, evt
    from pynetdicom.presentation import build_context

    entity = AE(ae_title=own)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = SECONDS
    kinds = sorted({_uid(path)[1] for path in objects})
    contexts = [build_context(kind, ["1.2.840.10008.1.2.1"]) for kind in kinds]
    association = entity.associate(
        *address,
        contexts=contexts,
        ae_title=title,
        tls_args=(tls, address[0]) if tls else None,
        evt_handlers=[(evt.EVT_CONN_OPEN, lambda event: sockets.append(event.assoc.dul.socket.socket))],
    )
    if not association.is_established:
        raise NotSent("association rejected" if association.is_rejected else "no association")
    try:
        accepted = {str(one.abstract_syntax) for one in association.accepted_contexts}
        if missing := [kind for kind in kinds if kind not in accepted]:
            raise NotSent(f"the peer does not accept {', '.join(missing)}", final=True)
        for path in objects:
            status = association.send_c_store(path).get("Status")
            _judge(None if status is None else int(status))
    finally:
        if association.is_established:
            association.release()


def _judge(status: int | None) -> None:
    """Raise NotSent for a C-STORE status other than success and warnings (PS3.4 B.2.3)."""
    if status is None:
        raise NotSent("the connection broke")
    if status in (0x0000, DUPLICATE, 0xB000, 0xB006, 0xB007):
        return
    raise NotSent(f"C-STORE status 0x{status:04X}", final=status in FOR_EVER)


def _stow(url: str, objects: Sequence[Path], own: Credentials) -> None:
    """Send all objects in one STOW-RS request (PS3.18 10.5)."""
    import requests

    mark = os.urandom(16).hex()
    parts = [f"--{mark}\r\nContent-Type: application/dicom\r\n\r\n".encode() + path.read_bytes() + b"\r\n" for path in objects]
    body = b"".join([*parts, f"--{mark}--\r\n".encode()])
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={mark}',
        "Accept": "application/dicom+json",
    }
    user, colon, password = (own.token or "").partition(":")
    basic = (user, password) if colon else None
    if own.token and basic is None:
        headers["Authorization"] = f"Bearer {own.token}"
    content, sockets = b"", list[socket.socket]()
    try:
        with (
            _in_time(sockets),
            _session(sockets) as session,
            session.post(
                url, data=body, headers=headers, auth=basic, timeout=SECONDS, allow_redirects=False, verify=own.ca or True,
                stream=True,
            ) as answer,
        ):  # fmt: skip
            for piece in answer.iter_content(1 << 16):
                content += piece
                if len(content) > MOST_ANSWER:
                    raise NotSent(f"STOW: HTTP {answer.status_code}, an answer of more than {MOST_ANSWER} bytes")
    except requests.RequestException as error:
        raise NotSent(f"STOW: {type(error).__name__}") from error
    _judge_stow(answer.status_code, content, {_uid(path)[0] for path in objects})


@contextmanager
def _in_time(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """A peer's connections are cut after WHOLE seconds; NotSent then, however a library puts it. sockets: may still grow."""
    late, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=_cut_late, args=(sockets, late, done), name="octc-in-time", daemon=True)
    thread.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise NotSent(f"no whole answer within {WHOLE:g} s") from error
        raise
    finally:
        done.set()
        thread.join()
    if late.is_set():
        raise NotSent(f"no whole answer within {WHOLE:g} s")


def _cut_late(sockets: Sequence[socket.socket], late: threading.Event, done: threading.Event) -> None:
    """Cut connections that are not done in time, again and again: one may only be in the making."""
    if done.wait(WHOLE):
        return
    late.set()
    while not done.wait(0.1):
        for one in sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)


def _session(sockets: list[socket.socket]) -> Any:
    """A session of requests whose sockets are kept in a list, since a response may take one from its connection."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool

    pools = {"http": _remembering(HTTPConnectionPool, sockets), "https": _remembering(HTTPSConnectionPool, sockets)}

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *words: Any, **more: Any) -> None:
            super().init_poolmanager(*words, **more)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, *words: Any, **more: Any) -> Any:
            found = super().proxy_manager_for(*words, **more)
            found.pool_classes_by_scheme = pools
            return found

    session = requests.Session()
    session.mount("http://", Adapter())
    session.mount("https://", Adapter())
    return session


def _remembering(kind: Any, sockets: list[socket.socket]) -> Any:
    """A kind of pool that keeps the sockets of its connections."""

    class Remembering(kind):  # type: ignore[misc]
        def _new_conn(self) -> Any:
            made = super()._new_conn()
            connect = made.connect

            def connected() -> None:
                connect()
                sockets.append(made.sock)

            made.connect = connected
            return made

    return Remembering


def _judge_stow(code: int, content: bytes, sent: set[str]) -> None:
    """Raise NotSent unless the STOW-RS response lists every object as stored, now or before."""
    stored, failed = _named(content)
    left = sent - stored - {uid for uid, reason in failed.items() if reason == DUPLICATE}
    if code in (200, 202, 409) and not left:
        return
    if left and (reasons := [failed[uid] for uid in sorted(left) if uid in failed]):
        final = all(reason in FOR_EVER for reason in reasons)
        raise NotSent(f"STOW: HTTP {code}, failure reason 0x{reasons[0]:04X}", final=final)
    raise NotSent(f"STOW: HTTP {code}", final=code in DEFINITE_HTTP)


def _named(content: bytes) -> tuple[set[str], dict[str, int]]:
    """UIDs that a response lists as stored, and those that failed with the reason (PS3.18 annex I, JSON)."""
    from octc.core.files import parse_json

    try:
        found = parse_json(content, 1 << 20)
    except ValueError:
        return set(), {}
    found = found if isinstance(found, dict) else {}

    def values(tag: str) -> list[dict[str, Any]]:
        items = found.get(tag, {}).get("Value") if isinstance(found.get(tag), dict) else None
        return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    def value(item: dict[str, Any], tag: str) -> Any:
        inner = item.get(tag, {})
        inner = inner.get("Value") if isinstance(inner, dict) else None
        return inner[0] if isinstance(inner, list) and inner else None

    stored = {str(value(item, "00081155")) for item in values("00081199")}
    failed = {str(value(item, "00081155")): value(item, "00081197") for item in values("00081198")}
    return stored, {uid: int(reason) for uid, reason in failed.items() if isinstance(reason, int)}
