"""Storage commitment (PS3.4 annex J): only permanently kept objects are committed, none by default."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from octc.serve.dicom.spool import Spool, key_of

PUSH_MODEL, WELL_KNOWN = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
ALL_HELD, SOME_FAILED = 1, 2  # event types (PS3.4 J.3.3.1)
NO_SUCH_OBJECT, CLASS_CONFLICT = 0x0112, 0x0119  # failure reasons (PS3.3 C.14.1.1)
INVALID, NO_SUCH_ACTION = 0x0115, 0x0123
WAIT = 1.0  # seconds before the report, so that the response to the request arrives first
SECONDS = 30


@dataclass(frozen=True)
class Reply:
    """Destination of a commitment report: a new association to (address, port) if known, else that of the request."""

    association: Any
    title: str
    own: str
    place: tuple[str, int] | None


def answer_request(event: Any, spool: Spool, kind: str, reply: Reply) -> tuple[int, None]:
    """Accept an N-ACTION request; a thread sends the report later. kind: SOP class of all accepted objects."""
    if event.action_type != 1:
        return NO_SUCH_ACTION, None
    try:
        asked = event.action_information
        transaction = str(asked.TransactionUID)
        wanted = [(str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID)) for one in asked.ReferencedSOPSequence]
    except Exception:  # invalid data from a peer may raise anything
        return INVALID, None
    report, failed = _report(transaction, wanted, spool, kind)
    spool.audit("commitment", peer=reply.title, held=len(wanted) - failed, failed=failed)
    timer = threading.Timer(WAIT, _delivered, (report, SOME_FAILED if failed else ALL_HELD, reply, spool.audit))
    timer.daemon = True
    timer.start()
    return 0x0000, None


def _report(transaction: str, wanted: list[tuple[str, str]], spool: Spool, kind: str) -> tuple[Any, int]:
    """The report on stored and missing objects, and the number of missing ones."""
    from pydicom.dataset import Dataset

    held: list[Any] = []
    failed: list[Any] = []
    for sop_class, uid in wanted:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, uid
        if not spool.keeps(key_of(uid)):
            one.FailureReason = NO_SUCH_OBJECT
        elif sop_class != kind:
            one.FailureReason = CLASS_CONFLICT
        (failed if "FailureReason" in one else held).append(one)
    made = Dataset()
    made.TransactionUID = transaction
    if held:
        made.ReferencedSOPSequence = held
    if failed:
        made.FailedSOPSequence = failed
    return made, len(failed)


def _delivered(report: Any, kind: int, reply: Reply, audit: Callable[..., None]) -> None:
    """Send a report. If it does not arrive, the peer will repeat its request."""
    from pynetdicom import AE, build_role

    association, own = reply.association, False
    if reply.place is not None:
        entity = AE(ae_title=reply.own)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = SECONDS
        entity.add_requested_context(PUSH_MODEL)
        role = build_role(PUSH_MODEL, scp_role=True)
        association, own = entity.associate(*reply.place, ae_title=reply.title, ext_neg=[role]), True
    reached = False
    if association.is_established:
        try:
            status, _ = association.send_n_event_report(report, kind, PUSH_MODEL, WELL_KNOWN)
            reached = status.get("Status") == 0
        except (RuntimeError, ValueError):
            reached = False
        if own and association.is_established:
            association.release()
    audit("commitment-reported" if reached else "commitment-not-reported", peer=reply.title)
