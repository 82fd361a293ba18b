"""The server log: JSON lines on stderr with requests and their outcome, without addresses, file names or identities."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import msgspec

LOG = logging.getLogger("octc.serve")
HANDLER = "octc-serve"


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        value: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            value["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(value).decode()


def start_log(stream: TextIO | None = None) -> None:
    """Write the log to a stream (default: stderr)."""
    for handler in [one for one in LOG.handlers if one.get_name() == HANDLER]:
        LOG.removeHandler(handler)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.set_name(HANDLER)
    handler.setFormatter(_Lines())
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def log(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **facts: Any) -> None:
    """Write a log line. facts: values of this server, never text from a client."""
    LOG.log(level, event, extra={"facts": facts}, exc_info=error)
