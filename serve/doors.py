"""Access control: addresses, tokens, host names of this server, certificates."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.progress import Reporter
from octc.schemas.requests import ServeOptions

TOKEN = "OCTC_SERVE_TOKEN"
LEAST = 16  # minimum length of a token, characters
MOST = 4096
LOCAL = ("localhost", "127.0.0.1", "[::1]")
MAKE = "openssl rand -hex 32 > token && chmod 600 token"


@dataclass(frozen=True)
class Doors:
    """Access settings. token: token of all clients, None if none is required.

    cert, key: PEM files, None without TLS.
    """

    token: str | None
    cert: bytes | None = None
    key: bytes | None = None


def open_doors(options: ServeOptions, environ: Mapping[str, str], reporter: Reporter) -> Doors:
    """Check address, token and certificate before anything is opened.

    Raises:
        OctcError: E910 a required token is missing or weak; E104 a file cannot be read, or only one of certificate and key.
    """
    local = is_loopback(options.host)
    token = _token(options, environ)
    if token is None and not local:
        text = f"{options.host} can be reached from other machines, and there is no token"
        raise OctcError("OCT-E910", text, hint=f"{MAKE}; --token-file token (or {TOKEN})", place="--host")
    if (options.tls_cert is None) != (options.tls_key is None):
        raise OctcError(
            "OCT-E104", "TLS needs a certificate and its key", hint="--tls-cert FILE --tls-key FILE", place="--tls-cert"
        )
    if options.tls_cert is None and not local:
        reporter.say("  ! without TLS the token and the images can be read on the network: --tls-cert FILE --tls-key FILE")
    if options.tls_cert is None or options.tls_key is None:
        return Doors(token)
    return Doors(token, _read(options.tls_cert, "--tls-cert"), _read(options.tls_key, "--tls-key"))


def is_loopback(host: str) -> bool:
    """Whether an address is reachable only from this machine. Names other than localhost do not count: they may change."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(options: ServeOptions, environ: Mapping[str, str]) -> str | None:
    if options.token_file is not None:
        data = _read(options.token_file, "--token-file")
        if Path(options.token_file).stat().st_mode & stat.S_IWOTH:
            text = "the token file is writable by everybody"
            raise OctcError("OCT-E910", text, hint=f"chmod 600 {options.token_file}", place="--token-file")
        token, place = data.decode("ascii", "replace").strip(), "--token-file"
    elif TOKEN in environ:
        token, place = environ[TOKEN].strip(), TOKEN
    else:
        return None
    if not LEAST <= len(token) <= MOST or not token.isascii() or not token.isprintable() or " " in token:
        text = f"a token has {LEAST} to {MOST} printable characters without a space"
        raise OctcError("OCT-E910", text, hint=MAKE, place=place)
    return token


def _read(name: str, place: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise OctcError(
            "OCT-E104", f"{name} cannot be read: {os.strerror(error.errno or 0)}", hint="check the path", place=place
        ) from error


def allowed(doors: Doors, header: str | None) -> bool:
    """Whether an Authorization header has the token: `Bearer TOKEN`, or `Basic` with the token as password (for browsers)."""
    if doors.token is None:
        return True
    kind, _, rest = (header or "").partition(" ")
    given = rest.strip()
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode("latin-1").partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode("latin-1", "replace"), doors.token.encode())


def no_token() -> OctcError:
    return OctcError("OCT-E910", "the token is missing or wrong", hint="Authorization: Bearer TOKEN")


def host_known(doors: Doors, host: str | None) -> bool:
    """Whether the Host header of a request without a token names this machine; this prevents DNS rebinding, where another
    site's name resolves to 127.0.0.1."""
    if doors.token is not None or host is None:
        return True
    name = host.lower()
    head, _, port = name.rpartition(":")
    return (head if head and port.isdigit() else name) in LOCAL or is_loopback(head.strip("[]") or name)


def same_origin(origin: str | None, host: str | None, site: str | None) -> bool:
    """Whether a browser's request comes from a page of this server, or from no page."""
    if site is not None and site not in ("same-origin", "none"):
        return False
    return origin is None or origin.partition("://")[2] == (host or "")
