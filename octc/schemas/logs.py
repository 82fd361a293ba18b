"""Small files of a run and an artifact: the lines of test-set.jsonl, lock.json, artifact.sig.json."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from octc.schemas.common import Document, Table


class LogHead(Document, kw_only=True):
    """The first line of test-set.jsonl.

    Attributes:
        complete: it began with the run; else an older octc may have read test images before `since`.
        older: how many evaluations of run.json and uses of verify-plan.json were there when it began, in a log that is not
            complete; None in logs that were begun without it, whose `since` tells them by the clock.
    """

    schema_version: Literal["1.0"]
    since: str
    complete: bool = False
    older: tuple[int, int] | None = None


class Reading(Document, kw_only=False, forbid_unknown_fields=True):
    """Any other line of it: one reading of test images.

    Attributes:
        command: as it is typed, without `octc`. images: how many, None where an older octc did not note it.
        artifacts: name -> sum of the manifest, or of a run's weights. options: what else made this reading what it is.
        plan: None where nothing is judged.
    """

    time_utc: str
    command: str
    part: str
    images: int | None
    split_digest: str | None
    artifacts: dict[str, str]
    options: Table = field(default_factory=dict)
    plan: Literal["planned", "exploratory"] | None = None


class Owner(Document):
    """lock.json, and the claims of workers: the process that writes. start: when it was started, in ticks, so that a reused PID
    is not it. held: it holds the file locked as long as it lives, where locks reach other machines. boot: which start of the
    machine it lives in."""

    pid: int
    host: str
    since: str
    start: str | None = None
    held: bool = False
    boot: str | None = None


class SignatureFile(Document):
    """artifact.sig.json: Ed25519 over the checksum of the manifest. Bytes are base64 in the file."""

    schema_version: Literal["1.0"]
    algorithm: Literal["ed25519"]
    public_key: bytes
    manifest_sha256: str
    signature: bytes
