"""Python in real processes that start at once: forked from one that has imported torch, the engines and octc, and done no more.

    python tests/warm.py serve SOCKET [OWNER]   # returns when it can be asked; serves until its parent or OWNER has ended
    python -SEs tests/warm.py SOCKET ARGUMENTS  # as `python ARGUMENTS`: -m MODULE, -c CODE or a FILE, and what follows

Such a process has the folder, the environment, the streams, the processors and the umask of who asks. Signals reach it, it dies
with who asks, and how it ended is how who asked ends. It is for tests of what programs do. What depends on how an interpreter
starts (which modules it imports, variables that a library reads when it is imported, the encoding of the streams) takes a fresh
one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

# torch.onnx's exporter and OpenVINO's converter are imported by what octc imports when it exports
IMPORTED = (
    "torch", "torchvision", "timm", "accelerate", "safetensors.torch", "onnx", "onnxscript", "onnxruntime", "openvino",
    "scipy.stats", "PIL.Image", "rich.console", "rich.progress", "torch.onnx", "torch.export",
    "onnxscript.optimizer", "onnxconverter_common", "networkx", "pandas", "pyarrow.parquet", "pydantic.type_adapter",
)  # fmt: skip


# a variable: what is Python to a process that is asked for, so that those which it starts itself are of this kind too
PYTHON = "WARM_PYTHON"
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ask(path: str, words: list[str]) -> int:
    """Have the server run `python WORDS...` with what this process has; its exit code. A signal ends both."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until it is known to whom
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        wanted = {
            "words": words, "cwd": str(Path.cwd()), "env": dict(os.environ), "processors": sorted(os.sched_getaffinity(0)),
            "umask": _umask(),
        }  # fmt: skip
        text = json.dumps(wanted).encode()
        socket.send_fds(line, [struct.pack("!I", len(text))], [0, 1, 2])
        line.sendall(text)
        with line.makefile("r") as answers:
            child = int(answers.readline())
            for number in FORWARDED:
                signal.signal(number, lambda got, _: os.kill(child, got))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            code = int(answers.readline())
    if code < 0:
        with suppress(OSError):  # SIGKILL has no other handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def serve(path: str, owner: int) -> None:
    """Import, then fork a process for each that asks, until the owner has ended. Returns in those processes alone."""
    import gc
    from importlib import import_module

    sys.path.remove(str(Path(__file__).resolve().parent))  # this folder has another `octc`
    os.fsync = lambda _: None  # as in tests/conftest.py
    modules = _modules_of_octc()
    for name in ("octc", *IMPORTED, *modules):
        import_module(name)
    for name in [name for name, program in modules.items() if program]:
        del sys.modules[name]  # Python warns of a program that is imported before it is run
    _install_exporter()
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen(16)
        if os.fork() > 0:
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        if not _accept(door, owner):
            os._exit(0)


def _install_exporter() -> None:
    """As tests/conftest.py does it, and torch's library of operators is read before anything is forked."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("tests_exporter", Path(__file__).with_name("exporter.py"))
    assert spec is not None
    assert spec.loader is not None
    exporter = module_from_spec(spec)
    spec.loader.exec_module(exporter)
    exporter.install()
    exporter.read_operators()


def _accept(door: socket.socket, owner: int) -> bool:
    """True in a fork, which is the process that was asked for; False when the owner has ended.

    A line to who asks is kept for each child: its end of file kills the child, the end of the child is said on it.
    """
    children: dict[int, socket.socket] = {}
    ended, wake = socket.socketpair()
    for one in (ended, wake):
        one.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # else nothing is written to `wake`
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    while _alive(owner):
        ready, _, _ = select.select([door, ended, *children.values()], [], [], 1)
        if ended in ready:
            ended.recv(4096)
            _reap(children)
        for child, line in children.items():
            if line in ready and _gone(line):
                os.kill(child, signal.SIGKILL)
        if door in ready and _forked(door, children, (door, ended, wake)):
            return True
    for child in children:
        os.kill(child, signal.SIGKILL)
    return False


def _forked(door: socket.socket, children: dict[int, socket.socket], own: tuple[socket.socket, ...]) -> bool:
    """Fork for one that asks; True in the fork, where what the server has open is closed."""
    line, _ = door.accept()
    wanted, streams = _asked(line)
    child = os.fork() if wanted else -1
    if child == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in (*own, line, *children.values()):
            one.close()
        _become(wanted, streams)
        return True
    for stream in streams:
        os.close(stream)
    if child > 0:
        children[child] = line
        _tell(line, child)
    return False


def _reap(children: dict[int, socket.socket]) -> None:
    """Say how those ended that have."""
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child == 0:
            return
        with children.pop(child) as line:
            _tell(line, os.waitstatus_to_exitcode(status))


def _gone(line: socket.socket) -> bool:
    """Whoever asked has ended (killed at a timeout), and says no more."""
    try:
        return line.recv(1) == b""
    except OSError:
        return True


def _tell(line: socket.socket, number: int) -> None:
    with suppress(OSError):  # who asked may have been killed meanwhile
        line.sendall(f"{number}\n".encode())


def _asked(line: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """What is wanted, and the streams for it; nothing is, where whoever asked was killed meanwhile."""
    head, streams, _, _ = socket.recv_fds(line, 4, 3)
    with line.makefile("rb") as asked:
        size = struct.unpack("!I", head)[0] if len(head) == 4 else 0
        text = asked.read(size)
    wanted: dict[str, Any] = json.loads(text) if 0 < len(text) == size else {}
    return wanted, list(streams)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _modules_of_octc() -> dict[str, bool]:
    """Of every folder of the house; True: it is a program too."""
    import pkgutil
    from importlib.util import find_spec

    top, found = Path(__file__).resolve().parents[1], []
    for folder in sorted(path.parent for path in top.glob("*/__init__.py")):
        prefix = "octc." if folder.name == "octc" else f"octc.{folder.name}."
        found += [prefix[:-1], *(one.name for one in pkgutil.walk_packages([str(folder)], prefix))]
    files = {name: getattr(find_spec(name), "origin", None) for name in found}
    return {name: file is not None and '__name__ == "__main__"' in Path(file).read_text() for name, file in files.items()}


def _become(wanted: dict[str, Any], streams: list[int]) -> None:
    """The process that was asked for, up to the point where its program begins."""
    import tempfile
    import time

    from octc.core.telemetry import SWITCHES  # what `import octc` does, and has done here

    for place, stream in enumerate(streams):
        os.dup2(stream, place, inheritable=True)
        os.close(stream)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    os.environ.update(SWITCHES)
    sys.executable = os.environ.pop(PYTHON, sys.executable)
    os.sched_setaffinity(0, wanted["processors"])
    os.umask(wanted["umask"])
    time.tzset()
    tempfile.tempdir = None
    sys.argv = wanted["words"]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115


def _run() -> object:
    """`python ARGUMENTS` of sys.argv; what it ended with."""
    import runpy
    from types import ModuleType

    kind, *rest = sys.argv
    try:
        if kind == "-m":
            sys.argv = rest
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            sys.path.insert(0, "")
            sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
        else:
            sys.path.insert(0, str(Path(kind).resolve().parent))
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as ended:
        return ended.code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _end(code: object) -> NoReturn:
    """What is to be done at the end, and away: to take torch apart costs more than most programs here."""
    import atexit
    import threading

    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]) if sys.argv[3:] else os.getppid())
        _end(_run())
    else:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
