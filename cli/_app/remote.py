"""Commands that work on another machine (`--on`)."""

from __future__ import annotations

from octc.cli._app.session import Session
from octc.core.errors import OctcError


def remote_python(session: Session) -> str:
    """Python command on the other machine, from the setting `bench.remote_python` (OctcError E102 with --offline)."""
    from octc.bench.remote.ssh import PYTHON

    if session.offline:
        text = "--offline and --on: another machine is reached over the network"
        raise OctcError("OCT-E102", text, hint="leave one of them out")
    return str(session.settings.get("bench", {}).get("remote_python", (PYTHON, ""))[0])
