from __future__ import annotations

from octc.cli.session import Session


def list_(session: Session) -> int:
    """List."""
    session.result("hello [red]x")
    return 0
