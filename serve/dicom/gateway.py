"""From volumes to reports: incoming volumes are queued, classified by one thread, and reported by another; crash-safe."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from octc.core.cells import digits_of
from octc.core.errors import OctcError
from octc.core.faults import NO_MEMORY, fault_of
from octc.core.optional import need
from octc.core.progress import Reporter
from octc.runtimes.predict import Engine, Record, Unread, classify
from octc.runtimes.scans import LACKING, Reading, aggregation_of, opened, with_eyes
from octc.schemas.requests import GatewayOptions
from octc.serve.dicom.answers import Answering, EyeAnswer, gathered
from octc.serve.dicom.destinations import Credentials, NotSent, Send, destination, folder_of, token_of
from octc.serve.dicom.provider import Door, Peer, Provider, checked_title
from octc.serve.dicom.secondary_capture import heat_map
from octc.serve.dicom.spool import LONGEST, MOST_TRIES, Spool, Waiting, key_of
from octc.serve.dicom.structured_report import require_dicom, source_of, structured_report
from octc.serve.logs import LOG
from octc.serve.watch import HIDDEN, Watch, facts_of
from octc.volumes.formats import read_volumes
from octc.volumes.source import reading
from octc.volumes.writing import save

PAUSE = 30.0  # seconds to pause after a failure of the machine (full disk, no memory)
LOOK = 0.5  # polling interval of a watched folder, seconds


def ignore_records(_records: Sequence[Record]) -> None:
    """Used without a monitor store."""


@dataclass(frozen=True)
class Answerer:
    """The artifact for classification. engine: callable from any thread. watch: callback with the records of each object."""

    answering: Answering
    engine: Engine
    watch: Callable[[Sequence[Record]], None] = ignore_records


Current = Callable[[], AbstractContextManager[Answerer]]  # the current artifact; it stays open during the context


def answers_for(path: Path, answerer: Answerer) -> tuple[EyeAnswer, ...]:
    """The predictions for all eyes of a DICOM object.

    Raises:
        OctcError: errors of the object or of the machine.
    """
    artifact = answerer.answering.artifact
    inputs = opened([path], Reading())
    if isinstance(inputs[0], Unread):
        raise inputs[0].error
    records = list(with_eyes(classify(answerer.engine, artifact, inputs), artifact, aggregation_of(artifact)))
    answerer.watch(records)
    eyes = [found for _, found in gathered(records) if found]
    if not eyes:
        raise OctcError("OCT-E227", "no B-scans in the object", hint="send the OPT object", place=path.name)
    return eyes[-1]


def _of_this_machine(error: Exception) -> OctcError | None:
    """The error, if the machine and not the volume caused it: full disk, no memory, an unwritable folder or monitor store."""
    if (fault := fault_of(error)) is not None:
        return fault
    if isinstance(error, PermissionError):
        return OctcError("OCT-E109", f"no permission: {error.strerror}", hint="check the permissions of the spool")
    waits = isinstance(error, OctcError) and (error.code == "OCT-E109" or (error.exit_code == 4 and error.code not in LACKING))
    return error if isinstance(error, OctcError) and waits else None


class Gateway:
    """Threads that receive, classify and send; a context manager. Each volume is reported once, even after a crash.

    Attributes:
        port: port of the C-STORE provider, None without one.
    """

    def __init__(
        self, spool: Spool, current: Current, send: Send, *, retry: float = 72 * 3600, maps: bool = False,
        door: Door | None = None, watch: Path | None = None,
    ) -> None:  # fmt: skip
        self._spool, self._current, self._send, self._retry, self._maps = spool, current, send, retry, maps
        self._stop = threading.Event()
        self._watch = None if watch is None else Watch(watch, self._take)
        loops = [("octc-answer", self._answer_all), ("octc-send", self._send_all)]
        if self._watch is not None:
            loops.append(("octc-watch", self._look))
        self._threads = [threading.Thread(target=self._loop, args=(one,), name=name, daemon=True) for name, one in loops]
        self._provider = None if door is None else Provider(door, spool)
        self.port = None if self._provider is None else self._provider.port
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop receiving, finish the current volume and report; waiting ones stay in the queue."""
        if self._provider is not None:
            self._provider.close()
        self._stop.set()
        self._spool.arrived.set()
        self._spool.answered.set()
        for thread in self._threads:
            thread.join()

    def _loop(self, work: Callable[[], float]) -> None:
        """Repeat `work`, which returns the maximum time to wait, seconds; an unexpected exception does not end the service."""
        while not self._stop.is_set():
            try:
                pause = work()
            except Exception as error:
                LOG.error("gateway: %s in %s", type(error).__name__, work.__name__)
                with contextlib.suppress(OSError):  # on a full disk the log cannot be written either
                    self._spool.audit("fault", where=work.__name__, what=type(error).__name__)
                pause = PAUSE
            self._stop.wait(pause)

    def _answer_all(self) -> float:
        self._spool.arrived.clear()
        for key in self._spool.queued():
            if self._stop.is_set():
                return 0
            if not self._answered(key):
                return PAUSE
        if not self._stop.is_set():
            self._spool.arrived.wait(PAUSE)
        return 0

    def _answered(self, key: str) -> bool:
        """Classify one source; False if the machine failed and the source must wait."""
        if self._spool.settle(key):
            return True
        if self._spool.begin(key) > MOST_TRIES:
            self._spool.give_up(key, "OCT-E999", f"the service ended {MOST_TRIES} times while it answered this")
            return True
        try:
            self._write_answer(key)
        except Exception as error:  # exceptions of libraries may quote values of the object that identify patients
            if (fault := _of_this_machine(error)) is not None:
                if fault.message != NO_MEMORY:  # lack of memory may be due to the volume: limit the number of attempts
                    self._spool.put_off(key)
                self._spool.audit("waits", key, code=fault.code)
                return False
            if isinstance(error, OctcError):
                self._spool.give_up(key, error.code, error.message)
                return True
            LOG.error("gateway: %s while a volume was answered", type(error).__name__)
            self._spool.give_up(key, "OCT-E999", f"internal error: {type(error).__name__}")
        return True

    def _write_answer(self, key: str) -> None:
        path, written = self._spool.source(key), datetime.now()
        source = source_of(path)
        if source.get("ConcatenationUID") and int(source.get("InConcatenationTotalNumber") or 2) > 1:
            text = "a part of a concatenation: this IOD has none (PS3.3 C.8.17.16.3), and a part is no volume"
            raise OctcError("OCT-E228", text, hint="send the volume as one object")
        with self._current() as now:
            eyes = answers_for(path, now)
            report = structured_report(eyes, now.answering, written)
            maps = [heat_map(eye, now.answering, now.engine, written) for eye in eyes] if self._maps else []
        labelled, uid = sum(eye.record.label is not None for eye in eyes), str(report.SOPInstanceUID)
        with self._spool.answering(key, report=uid, eyes=len(eyes), labelled=labelled) as folder:
            save(report, folder / "report.dcm")
            for number, one in enumerate(maps):
                if one is not None:
                    save(one, folder / f"map-{number}.dcm")

    def _send_all(self) -> float:
        self._spool.answered.clear()
        soonest = PAUSE
        for one in self._spool.waiting():
            if self._stop.is_set():
                return 0
            if left := one.left(time.time()):
                soonest = min(soonest, left)
                continue
            soonest = min(soonest, self._attempt(one))
        if not self._stop.is_set():
            self._spool.answered.wait(max(0.05, soonest))
        return 0

    def _attempt(self, one: Waiting) -> float:
        """Try to send a report; returns the seconds until the next attempt."""
        try:
            self._deliver(one)
        except NotSent as error:
            pause = min(LONGEST, 2.0 ** min(one.attempts, 10))  # of thousands of attempts no float has the power
            if error.final or one.waited > self._retry:
                self._spool.give_up(one.key, "OCT-E920", error.reason)
            else:
                self._spool.failed(one, pause, error.reason)
            return pause
        self._spool.sent(one)
        return PAUSE

    def _deliver(self, one: Waiting) -> None:
        try:
            self._send(one.objects)
        except NotSent:
            raise
        except Exception as error:  # exceptions of libraries, or no network: the report stays and is retried
            raise NotSent(type(error).__name__) from error

    def _look(self) -> float:
        if self._watch is not None:
            before = self._watch.away
            self._watch.look(time.monotonic())
            self._tell_away(before, self._watch.away)
        return LOOK

    def _tell_away(self, before: str | None, now: str | None) -> None:
        """Say that the watched folder went, or that it is there again."""
        if now == before:
            return
        if now is None:
            LOG.info("watch: the folder is there again")
            self._spool.audit("watch-back")
        else:
            LOG.error("watch: the folder cannot be looked into: %s", now)
            self._spool.audit("watch-away", why=now)

    def faults(self) -> list[str]:
        """What keeps volumes from coming in at the moment, without names or places."""
        away = None if self._watch is None else self._watch.away
        return [] if away is None else [f"watched folder: {away}"]

    def _take(self, path: Path) -> None:
        """Copy a file of the watched folder into the queue; one that is written to meanwhile is left for the next look."""
        before = facts_of(path)
        read_volumes(path)  # refuse it now, so that the reason appears in the watched folder
        require_dicom([path])
        with reading(path):
            source = source_of(path)
        copy = self._spool.incoming / f"watched-{path.stat().st_ino}"
        try:
            shutil.copyfile(path, copy)
            if facts_of(path) != before:
                text = "changed while it was read"
                raise OctcError("OCT-E239", text, hint="when it is no longer written to", place=str(path))
            self._spool.receive(copy, key_of(str(source.SOPInstanceUID)), peer="folder")
        finally:
            copy.unlink(missing_ok=True)  # half a copy would keep a full disk full


@contextmanager
def open_gateway(
    current: Current, options: GatewayOptions, reporter: Reporter, environ: Mapping[str, str] = os.environ
) -> Iterator[Gateway]:
    """Check the options, then open the queue and the provider for the duration of the context.

    Raises:
        OctcError: E104 inconsistent options; E109 the watched folder is not writable; E906 the address or port is not
            available; E108 another process uses the queue; E901 the extra is not installed.
    """
    need("highdicom")
    if options.spool is None or options.report_to is None:
        text = "a queue and a destination are needed"
        raise OctcError("OCT-E104", text, hint="--spool DIR --report-to AET@HOST:PORT", place="--dicom")
    title, door = "OCTC", None
    client = _client_tls(options)
    if options.dicom is not None:
        need("pynetdicom")
        door = _door(options, reporter)
        title = door.title
    send = destination(options.report_to, Credentials(title, client, options.dicom_ca, token_of(environ)))
    watch = None
    if options.watch is not None:
        watch = Path(options.watch)
        if not watch.is_dir():
            raise OctcError("OCT-E104", f"{watch} is not a folder", hint=f"mkdir {watch}", place="--watch")
        if not os.access(watch, os.R_OK | os.W_OK | os.X_OK):
            text = f"{watch} is not writable, but received files must be removed from it"
            raise OctcError("OCT-E109", text, hint=f"chmod u+rwx {watch}   (or have its owner do it)", place="--watch")
        _apart(watch, options.spool, options.report_to)
    with (
        Spool(Path(options.spool), keep=options.keep) as spool,
        Gateway(
            spool, current, send, retry=options.retry_hours * 3600, maps=options.heat_map, door=door, watch=watch
        ) as gateway,
    ):
        if door is not None:
            reporter.say(f"DICOM: {door.title} at {door.host}, port {gateway.port}{' (TLS)' if door.tls else ''}")
        if watch is not None:
            reporter.say(f"watching {watch}")
        reporter.say(f"reports go to {options.report_to}; queue, dead letters and audit log: {options.spool}")
        yield gateway


def _apart(watch: Path, spool: str, report_to: str) -> None:
    """Refuse a queue or report folder inside the watched folder, and a watched folder inside the queue (OctcError E104): one
    would move or remove the files of the other."""
    watched = watch.resolve()
    for name, place in (("--spool", Path(spool)), ("--report-to", folder_of(report_to))):
        if place is None:
            continue
        own = place.resolve()
        seen = own.is_relative_to(watched) and not any(part.startswith(HIDDEN) for part in own.relative_to(watched).parts)
        if seen or (name == "--spool" and watched.is_relative_to(own)):
            text = f"one of {place} and the watched folder {watch} contains the other"
            raise OctcError("OCT-E104", text, hint=f"give a separate folder: {name} DIR", place=name)


def _door(options: GatewayOptions, reporter: Reporter) -> Door:
    title, _, place = (options.dicom or "").partition("@")
    host, _, port = place.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if (number := digits_of(port)) is None or number > 65535:
        raise OctcError("OCT-E104", f"{options.dicom!r} has no port", hint="--dicom OCTC@11112", place="--dicom")
    peers = tuple(Peer.of(word.strip()) for word in (options.peers or "").split(",") if word.strip())
    local = host == "localhost" or _is_loopback(host)
    if not local and not peers:
        text = f"{host} can be reached from other machines, and no peer is given"
        raise OctcError("OCT-E104", text, hint="--peers AET@ADDRESS,...", place="--peers")
    tls = _server_tls(options)
    if not local and (tls is None or options.dicom_ca is None):
        reporter.say(
            "  ! an AE title is not a password: anyone who reaches this port can use a listed one, and read along without TLS: "
            "--dicom-cert FILE --dicom-key FILE --dicom-ca FILE"
        )
    return Door(
        checked_title(title, "--dicom"), host, number, peers, options.associations, options.max_object << 20,
        options.max_queued << 30, tls, options.keep,
    )  # fmt: skip


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _server_tls(options: GatewayOptions) -> ssl.SSLContext | None:
    """TLS context of the provider; with a CA file peers need a certificate issued by it (OctcError E104: unusable files)."""
    if options.dicom_cert is None and options.dicom_key is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(made, options)
    if options.dicom_ca is not None:
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def _client_tls(options: GatewayOptions) -> ssl.SSLContext | None:
    """TLS context for sending by C-STORE; the peer's certificate is verified with the CA file."""
    if options.dicom_ca is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(made, options)
    return made


def _load(context: Any, options: GatewayOptions) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if options.dicom_ca is not None:
            context.load_verify_locations(options.dicom_ca)
        if options.dicom_cert is not None or options.dicom_key is not None:
            context.load_cert_chain(options.dicom_cert or "", options.dicom_key)
    except (OSError, ssl.SSLError) as error:
        text = f"certificate, key or CA file cannot be used: {type(error).__name__}"
        raise OctcError("OCT-E104", text, hint="three PEM files, the key without a password", place="--dicom-cert") from error
