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
)  # fmt: skip


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
    for name in ("octc", *IMPORTED, *_modules_of_octc()):
        import_module(name)
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path)
        door.listen(16)
        door.settimeout(1)
        if os.fork() > 0:
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while _alive(owner):
            with suppress(TimeoutError):
                line, _ = door.accept()
                if os.fork() == 0:
                    door.close()
                    _watch(line)
                    return
                line.close()
    os._exit(0)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _modules_of_octc() -> list[str]:
    import pkgutil

    import octc

    found = [one.name for one in pkgutil.walk_packages(octc.__path__, "octc.")]
    return [name for name in found if name != "octc.cli._app.main"]  # run as __main__


def _watch(line: socket.socket) -> None:
    """In a fork: returns in a fork of it, which becomes the process that was asked for; says how that one ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(line, 4, 3)
    size = struct.unpack("!I", head)[0]
    text = b""
    while len(text) < size:
        text += line.recv(size - len(text))
    child = os.fork()
    if child == 0:
        line.close()
        _become(json.loads(text), streams)
        return
    for stream in streams:
        os.close(stream)
    with suppress(OSError):  # who asked may have been killed meanwhile
        line.sendall(f"{child}\n".encode())
    _kill_with(line, child)
    _, status = os.waitpid(child, 0)
    with suppress(OSError):
        line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _kill_with(line: socket.socket, child: int) -> None:
    """A thread that kills the process if whoever asked for it has gone (killed at a timeout)."""
    import threading

    def wait() -> None:
        with suppress(OSError):
            if line.recv(1) == b"":
                os.kill(child, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


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
