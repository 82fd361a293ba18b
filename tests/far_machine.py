"""Another machine that is this one: a real sshd on the loopback address, with keys and settings of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if Path("/usr/sbin/sshd").is_file() else None)
TOOLS = ("sh", "mktemp", "rm", "df", "awk", "head", "tar", "cat", "find", "uname", "kill", "env")


@dataclass
class Far:
    """A machine that is this one: its address, its folder for temporary files, and the settings that the test may change."""

    place: Path
    port: int
    temporary: Path
    server: subprocess.Popen[bytes]
    environment: dict[str, str]

    @property
    def address(self) -> str:
        return f"{getpass.getuser()}@box"

    def left(self) -> list[str]:
        """What lies there still."""
        return sorted(path.name for path in self.temporary.iterdir())


def started(place: Path, path: str | None = None, shell: dict[str, str] | None = None) -> Far:
    """sshd on a free port of the loopback address, with keys of its own, and an `ssh` that knows only those."""
    if SSHD is None:
        pytest.skip("no sshd here (Debian: apt-get install openssh-server)")
    place.mkdir(parents=True)
    temporary = place / "far-tmp"
    temporary.mkdir()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    (place / "authorized").write_text((place / "user.pub").read_text())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shown = {"TMPDIR": str(temporary), **({} if path is None else {"PATH": path}), **(shell or {})}
    settings = [
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {place / 'host'}", f"AuthorizedKeysFile {place / 'authorized'}",
        "StrictModes no", "UsePAM no", "PasswordAuthentication no", "PermitRootLogin prohibit-password",
        f"PidFile {place / 'pid'}",
        "SetEnv " + " ".join(f"{name}={value}" for name, value in shown.items()),
    ]  # fmt: skip
    (place / "sshd").write_text("\n".join(settings) + "\n")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (place / "log").open("wb") as log:
        server = subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(place / "sshd")], stderr=log)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    assert server.poll() is None, (place / "log").read_text()
    known = (place / "host.pub").read_text().split()
    (place / "known").write_text(f"[127.0.0.1]:{port} {known[0]} {known[1]}\n")
    config = [
        "Host box", "HostName 127.0.0.1", f"Port {port}", f"IdentityFile {place / 'user'}", "IdentitiesOnly yes",
        f"UserKnownHostsFile {place / 'known'}", "GlobalKnownHostsFile /dev/null", "StrictHostKeyChecking yes",
    ]  # fmt: skip
    (place / "config").write_text("\n".join(config) + "\n")
    wrapper = place / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {place / "config"} "$@"\n')
    wrapper.chmod(0o755)
    environment = {"PATH": f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}", "OCTC_OFFLINE": "0",
                   "OCTC_BENCH__REMOTE_PYTHON": sys.executable}  # fmt: skip
    return Far(place, port, temporary, server, environment)


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    far = started(tmp_path_factory.mktemp("ssh") / "box")
    yield far
    far.server.terminate()
    far.server.wait()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[..., Far]]:
    """Start another one, with fewer tools or another environment."""
    made: list[Far] = []

    def start(**more: object) -> Far:
        made.append(started(tmp_path / f"other-{len(made)}", **more))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for far in made:
        far.server.terminate()
        far.server.wait()


def tools(place: Path, **scripts: str) -> str:
    """A PATH with the few tools that the far end needs, and none of its Pythons."""
    folder = place / "tools"
    folder.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        if found is not None and name not in scripts:
            (folder / name).symlink_to(found)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)
