"""octc on another machine: one ssh connection that carries octc and the artifacts there, runs, and brings results back.

The system's ssh with the user's own keys and known hosts; host key checking is never switched off and nothing is asked.
The far end removes its temporary folder whatever happens: when it is done, when it is stopped, when the connection is lost.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from octc.core.errors import OctcError
from octc.core.files import parse_json
from octc.core.telemetry import WORDS

PYTHON = "python3"  # of the other machine
ADDRESS = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9._:-]*")
SETTINGS = ("BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=3")
OPTIONS = ("-T", *(word for one in SETTINGS for word in ("-o", one)))
PARTIAL = "\x1epartial "  # begins a line of the far end that holds what is known so far
ENDED = re.compile(r"octc-exit (\d{1,3})")
BEGINS = b"\x1eoctc-answer\n"  # before the tar that comes back: the login shell there may have printed something
ERROR = re.compile(r"error\[(OCT-E\d{3})\]: (.*)")
HELP = "help: "
ROOM = 1.3  # times what is copied
NOTHING = ("-name", "/")
MOST_LINE = 1 << 20  # bytes of a line that is passed over at once
LOST = 255  # what ssh itself ends with
INTERRUPTED = 130
# what octc itself needs there -> the module of it; before Python 3.11 tomli too
PACKAGES = {"msgspec": "msgspec", "numpy": "numpy", "pillow": "PIL", "rich": "rich", "typer": "typer"}
# exit codes of the script at the far end -> what happened, and the hint
FAR = {
    91: ("no temporary folder can be made there", "free some space, or set TMPDIR there"),
    93: ("the disk there is full", "free some space there"),
    94: ("no engine runs on that processor", "x86_64 and aarch64 are known"),
    95: ("no Python of at least 3.10 there", "install it there, or OCTC_BENCH__REMOTE_PYTHON=/path/to/python there"),
    96: ("the copy broke off", "free some space there, and look at the network"),
    97: ("Python there lacks packages", f"there: pip install {' '.join(PACKAGES)}, and the engine"),
}  # fmt: skip
SCRIPT = """
d=$(mktemp -d "${TMPDIR:-/tmp}/octc-XXXXXX") || exit 91
work=; watch=
clean() {
  trap '' HUP TERM INT PIPE
  [ -n "$watch" ] && kill "$watch" 2>/dev/null
  [ -n "$work" ] && kill -TERM "$work" 2>/dev/null && wait "$work" 2>/dev/null
  cd /; rm -rf "$d"
}
trap clean EXIT
trap 'exit 92' HUP TERM INT PIPE
case $(uname -m) in x86_64|amd64|aarch64|arm64) ;; *) uname -m >&2; exit 94 ;; esac
command -v @PYTHON@ >/dev/null 2>&1 || exit 95
@PYTHON@ -c 'import sys; sys.exit(sys.version_info < (3, 10))' || exit 95
free=$(df -Pk "$d" | awk 'NR == 2 { print $4 }')
[ "$free" -ge @NEED@ ] || { echo "free: $free KiB, needed: @NEED@ KiB" >&2; exit 93; }
head -c @SIZE@ | tar -xf - -C "$d" || exit 96
cd "$d" || exit 96
@PYTHON@ -c 'import sys, @MODULES@; sys.version_info >= (3, 11) or __import__("tomli")' || exit 97
exec 5<&0
export @QUIET@
export OCTC_BENCH_PARTIAL=1 PYTHONDONTWRITEBYTECODE=1 TMPDIR="$d" PYTHONPATH="$d${PYTHONPATH:+:$PYTHONPATH}"
@PYTHON@ -m octc.cli._app.main @WORDS@ >out.txt </dev/null &
work=$!
( cat <&5; kill -TERM $$ ) >/dev/null 2>&1 &
watch=$!
wait "$work"; code=$?
work=
echo "octc-exit $code" >&2
printf '\\036octc-answer\\n'
tar -cf - out.txt $(find reports runs @BACK@) 2>/dev/null
exit 0
"""


@dataclass(frozen=True)
class Far:
    """What came back. exit_code: of the command there. partial: the last document that it told of, or None.
    interrupted: what ended it here before it was done there.
    """

    exit_code: int
    partial: dict[str, Any] | None
    errors: tuple[OctcError, ...]
    interrupted: KeyboardInterrupt | None = None


def host_of(address: str) -> str:
    """The host of user@host."""
    return address.rpartition("@")[2]


def check_address(address: str) -> str:
    """`user@host`, or a name of the user's ssh configuration (E104 for anything else)."""
    if not ADDRESS.fullmatch(address):
        raise OctcError("OCT-E104", f"--on {address!r} is not an address", hint="--on user@host", place="--on")
    return address


def run_far(
    address: str,
    package: Path,
    words: Sequence[str],
    python: str,
    answer: Path,
    say: Callable[[str], None],
    back: Sequence[str] = (),
) -> Far:
    """Send `package` (a tar), run `octc WORDS` in it, and write what comes back to `answer`
    (`opened_answer`).

    Args:
        back: what of the folders `reports` and `runs` comes back beside the text of the screen, as words of find(1).

    Raises:
        OctcError: E901 no ssh here; E606 with one line of cause when it could not begin. What is lost later is in the result.
        KeyboardInterrupt: it was ended here, and nothing is known of what was done there.
    """
    tool = shutil.which("ssh")
    if tool is None:
        raise OctcError("OCT-E606", "no ssh on this machine", hint="install the OpenSSH client")
    size = package.stat().st_size
    values = {
        "PYTHON": shlex.quote(python),
        "NEED": str(int(size * ROOM) // 1024 + 1024),
        "SIZE": str(size),
        "WORDS": shlex.join(words),
        "QUIET": WORDS,
        "MODULES": ", ".join(PACKAGES.values()),
        "BACK": shlex.join(back or NOTHING),
    }
    script = SCRIPT
    for name, value in values.items():
        script = script.replace(f"@{name}@", value)
    command = [tool, *OPTIONS, "--", address, f"sh -c {shlex.quote(script)}"]
    with answer.open("wb") as out:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE, start_new_session=True)
    sender = threading.Thread(target=_send, args=(child, package), daemon=True)
    sender.start()
    heard, interrupted = _Heard(), None
    try:
        _listen(child, say, heard)
        child.wait()
    except KeyboardInterrupt as stopped:  # SIGTERM comes as one too
        if heard.partial is None:
            raise
        interrupted = stopped
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        sender.join(5.0)
        for stream in (child.stdin, child.stderr):
            if stream is not None:
                _quietly(stream.close)
    if interrupted is not None:
        return Far(getattr(interrupted, "exit_code", INTERRUPTED), heard.partial, tuple(heard.errors), interrupted)
    return _judged(address, child.returncode, heard)


@dataclass
class _Heard:
    code: int | None = None
    partial: dict[str, Any] | None = None
    errors: list[OctcError] = field(default_factory=list)
    last: str = ""


def _send(child: subprocess.Popen[bytes], package: Path) -> None:
    """Write the tar; stdin stays open after it, and its end tells the far side that nobody is there any more."""
    assert child.stdin is not None
    try:
        with package.open("rb") as stream:
            shutil.copyfileobj(stream, child.stdin)
        child.stdin.flush()
    except (BrokenPipeError, OSError):
        return  # ssh says why


def _quietly(close: Callable[[], None]) -> None:
    try:
        close()
    except OSError:
        return


def _listen(child: subprocess.Popen[bytes], say: Callable[[str], None], heard: _Heard) -> None:
    """Lines of the far end's stderr: what is known so far, its exit code, its errors, and the rest for people."""
    assert child.stderr is not None
    waiting: tuple[str, str] | None = None
    for raw in child.stderr:
        line = raw.decode(errors="replace").rstrip("\r\n")
        if line.startswith(PARTIAL):
            with contextlib.suppress(ValueError):  # cut off with the connection: what was heard before it stays
                heard.partial = parse_json(line[len(PARTIAL) :])
            continue
        if found := ENDED.fullmatch(line):
            heard.code = int(found[1])
            continue
        found = ERROR.search(line)
        if found:
            waiting = (found[1], found[2])
        elif waiting is not None and line.strip().startswith(HELP):
            heard.errors.append(OctcError(waiting[0], waiting[1], hint=line.strip()[len(HELP) :]))
            waiting = None
        else:
            say(line)
        heard.last = line.strip() or heard.last


@contextlib.contextmanager
def opened_answer(answer: Path, address: str) -> Iterator[tarfile.TarFile]:
    """The tar that came back, behind whatever the login shell there printed before it.

    Raises:
        OctcError: E606 there is none, or it is cut off: nothing of it is used then.
    """
    try:
        with answer.open("rb") as stream:
            _pass_over(stream)
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                tar.getmembers()
                stream.seek(tar.offset)
                if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:  # to the library a torn head is an end
                    raise tarfile.ReadError("it ends before its end")
                yield tar
    except tarfile.TarError as error:
        text = f"{address}: the results did not come back whole"
        hint = f"the same command again; what ssh {address} true prints is passed over"
        raise OctcError("OCT-E606", text, hint=hint, place=address, why=str(error)[:200]) from error


def _pass_over(stream: IO[bytes]) -> None:
    """Go to what stands behind BEGINS."""
    while line := stream.readline(MOST_LINE):
        if line.endswith(BEGINS):
            return
    raise tarfile.ReadError("nothing came back")


def _judged(address: str, code: int, heard: _Heard) -> Far:
    errors = tuple(heard.errors)
    if code == 0 and heard.code is not None:
        return Far(heard.code, heard.partial, errors)
    if code in FAR:
        what, hint = FAR[code]
        raise OctcError("OCT-E606", f"{address}: {what}", hint=hint, place=address, why=heard.last[:200] or None)
    cause = heard.last if code == LOST else f"the far end ended with {code}: {heard.last}"
    error = lost(address, cause, "; what was finished before is saved" if heard.partial is not None else "")
    if heard.partial is None:
        raise error
    return Far(error.exit_code, heard.partial, (error,))


def lost(address: str, cause: str, kept: str = "") -> OctcError:
    """The connection could not be made, or broke: one line of cause, as ssh gave it. kept: what is not lost with it."""
    known = {
        "Host key verification failed": (
            "its host key is not the one that is known, or not known yet",
            f"ask who runs it, then: ssh {address}",
        ),
        "Permission denied": ("login refused", f"ssh-copy-id {address}, or ssh-add"),
        "Connection refused": ("connection refused", "is sshd running there, and on that port?"),
        "Could not resolve hostname": ("no such host", "check the name"),
    }
    for sign, (what, hint) in known.items():
        if sign in cause:
            return OctcError("OCT-E606", f"{address}: {what}", hint=hint, place=address, why=cause[:200])
    hint = f"ssh {address} true{kept}"
    return OctcError("OCT-E606", f"{address}: connection lost", hint=hint, place=address, why=cause[:200] or None)
