"""C11: the guard. Every way by which Python reaches another machine is tried, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from octc.core.offline import SWITCHES, is_local

ELSEWHERE = "192.0.2.1"  # RFC 5737: belongs to nobody
ATTEMPTS = {
    "connect": f"socket.create_connection(({ELSEWHERE!r}, 80), timeout=1)",
    "connect_ex": f"socket.socket().connect_ex(({ELSEWHERE!r}, 80))",
    "connect over IPv6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    "datagram": f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ({ELSEWHERE!r}, 53))",
    "datagram with flags": f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', 0, ({ELSEWHERE!r}, 53))",
    "message": f"socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ({ELSEWHERE!r}, 53))",
    "name": "socket.getaddrinfo('example.invalid', 80)",
    "name the old way": "socket.gethostbyname('example.invalid')",
    "name the longer old way": "socket.gethostbyname_ex('example.invalid')",
    "name of an address": f"socket.gethostbyaddr({ELSEWHERE!r})",
    "web": "urllib.request.urlopen('http://example.invalid/')",
    "web with TLS": "http.client.HTTPSConnection('example.invalid').request('GET', '/')",
    "asyncio": f"asyncio.run(asyncio.open_connection({ELSEWHERE!r}, 80))",
    "in a thread": f"concurrent.futures.ThreadPoolExecutor().submit(socket.create_connection, ({ELSEWHERE!r}, 80), 1).result()",
}
CODE = """
import asyncio, concurrent.futures, http.client, json, socket, urllib.request
from octc.core.errors import OctcError
from octc.core.offline import go_offline, refused_attempts
go_offline()
go_offline()
answers = {{}}
for name, attempt in {attempts!r}.items():
    before = refused_attempts()
    try:
        eval(attempt)
        answers[name] = "nothing was refused"
    except OctcError as error:
        answers[name] = [error.code, error.place, refused_attempts() - before]
    except Exception as error:
        answers[name] = repr(error)
print(json.dumps(answers))
"""


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_way_out_is_refused_and_the_caller_named() -> None:
    answers = json.loads(run(CODE.format(attempts=ATTEMPTS)))
    assert list(answers) == list(ATTEMPTS)
    for name, answer in answers.items():
        assert answer[0] == "OCT-E990", f"{name}: {answer}"
        assert answer[2] == 1, name
        assert answer[1].startswith("__main__") or name == "in a thread"


def test_this_machine_stays_reachable(tmp_path: Path) -> None:
    run(f"""
import asyncio, socket
from octc.core.offline import go_offline, refused_attempts
go_offline()
for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, {str(tmp_path / "s")!r})):
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind(address)
        server.listen()
        client.connect(server.getsockname())
        server.accept()[0].close()
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(("localhost", server.getsockname()[1])).close()
one, other = socket.socketpair()
one.sendall(b"x")
assert other.recv(1) == b"x"
asyncio.run(asyncio.sleep(0))
assert refused_attempts() == 0
""")


@pytest.mark.parametrize(
    ("address", "local"),
    [
        (("127.0.0.1", 1), True), (("127.1.2.3", 1), True), (("::1", 1, 0, 0), True), (("localhost", 1), True),
        (("LOCALHOST.", 1), True), ("localhost", True), (None, True), (("", 0), True), ("a/name", False),
        ("\0abstract", True), (("192.0.2.1", 1), False), (("0.0.0.0", 1), False), (("::", 1), False),
        (("fe80::1%eth0", 1), False),
        (("example.com", 1), False), ("localhost.example.com", False), (b"example.com", False), (("127.0.0.1.evil", 1), False),
        (("::ffff:192.0.2.1", 1), False), (("10.0.0.1", 1), False),
    ],
)  # fmt: skip
def test_what_counts_as_this_machine(address: object, local: bool) -> None:
    assert is_local(address) is local


def test_dependencies_and_children_get_their_switches() -> None:
    code = (
        "import subprocess, sys; from octc.core.offline import go_offline; go_offline();"
        "print(subprocess.run([sys.executable, '-c', 'import json, os; print(json.dumps(dict(os.environ)))'],"
        "capture_output=True, text=True).stdout)"
    )
    seen = json.loads(run(code, **dict.fromkeys(SWITCHES, "0")))
    assert {name: seen[name] for name in SWITCHES} == SWITCHES


def test_the_verbs_of_a_child_are_guarded_by_the_variable(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "octc.cli._app.main", "list", "recipes", "--json"]
    environment = {**os.environ, "OCTC_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["offline"] == {"requested": True, "refused_attempts": 0}
    environment["OCTC_OFFLINE"] = "0"
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "offline" not in json.loads(done.stdout)
