"""The time format of all documents."""

from __future__ import annotations

import time


def utc_now() -> str:
    """Now, as 2026-11-24T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
