"""`--offline`: an audit hook that refuses name resolution, connecting and sending to anything but this machine.

It also sets the switches by which dependencies stay off the network, for this process and for its children.
The hook sees Python's sockets. Native code that would talk is switched off by `octc.core.telemetry`, with or without
`--offline`, and watched from outside (tests/house/test_nothing_is_sent.py).
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from typing import Any

from octc.core.errors import OctcError

SWITCHES = {
    "OCTC_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
# audit event -> where in its arguments the address stands
EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
    "socket.getnameinfo": 0,
}
PLUMBING = (
    "socket",
    "ssl",
    "http",
    "urllib",
    "urllib3",
    "httpx",
    "httpcore",
    "requests",
    "asyncio",
    "anyio",
    "octc.core.offline",
    "ftplib",
)

_state = {"installed": 0, "on": 0, "refused": 0}


def go_offline() -> None:
    """Refuse the network from now on, here and in child processes."""
    os.environ.update(SWITCHES)
    _state["on"] = 1
    if not _state["installed"]:
        _state["installed"] = 1
        sys.addaudithook(_guard)


def refused_attempts() -> int:
    """Number of refused network calls."""
    return _state["refused"]


def is_local(address: Any) -> bool:
    """Whether an IP address, host name or (host, port) is this machine: loopback, or nothing at all."""
    host = address[0] if isinstance(address, tuple) and address else address
    if host is None or host in ("", b"", 0):
        return True
    text = os.fsdecode(host) if isinstance(host, (str, bytes)) else str(host)
    if text.startswith("\0") or text.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(text.split("%")[0]).is_loopback
    except ValueError:
        return False


def _caller() -> str:
    """The first frame that is not plumbing: who wanted the network."""
    frame = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "?"))
        if not any(module == name or module.startswith(name + ".") for name in PLUMBING):
            return f"{module}.{frame.f_code.co_name}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "unknown"


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    place = EVENTS.get(event)
    if place is None or not _state["on"]:
        return
    address = arguments[place] if len(arguments) > place else None
    if is_local(address) or getattr(arguments[0], "family", None) == getattr(socket, "AF_UNIX", -1):
        return
    _state["refused"] += 1
    caller = _caller()
    shown = address[0] if isinstance(address, tuple) else address
    raise OctcError(
        "OCT-E990",
        f"network use refused by --offline: {caller} wanted {shown!r}",
        hint="bring what is missing to this machine first, or run without --offline",
        place=caller,
    )
