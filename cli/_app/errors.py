"""How a failure is shown: text on stderr, JSON, exit code. Other exceptions become an OctcError here."""

from __future__ import annotations

import errno
import os
import platform
import sys
import tempfile
import traceback
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from octc.cli._app.terminal import COLOURS, PLAIN, shown, shown_line
from octc.core.errors import OctcError, Several, first_line
from octc.core.faults import fault_of
from octc.core.optional import absent_extra

HUNG_UP, INTERRUPTED, TERMINATED, BROKEN_PIPE = 129, 130, 143, 141
FORBIDDEN = (errno.EACCES, errno.EPERM)
IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM; like KeyboardInterrupt, it lets jobs save their state."""

    exit_code = TERMINATED


class HungUp(Terminated):
    """Raised on SIGHUP: the terminal or its connection is gone."""

    exit_code = HUNG_UP


def sort_error(error: BaseException, command: str) -> OctcError:
    """Convert any exception to an OctcError: a lack of memory, disk or permission by its name (also if it was first reported as
    a damaged file), a missing package with its pip command, anything else as OCT-E999 with a trace file."""
    if isinstance(error, Several):
        return Several([sort_error(one, command) for one in error.errors])
    if (fault := fault_of(error, error.place if isinstance(error, OctcError) else None)) is not None:
        return fault
    if isinstance(error, OctcError):
        return error
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno in FORBIDDEN):
        text = f"no permission: {error.strerror}"
        return OctcError("OCT-E109", text, hint="check the permissions, or give --run-dir DIR", place=_file(error))
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return OctcError("OCT-E104", "a name is too long for this file system", hint="a shorter path", place=_file(error))
    if isinstance(error, OSError) and error.errno in IN_THE_WAY:
        text = f"a file is where a folder is meant, or a folder where a file is: {error.strerror}"
        return OctcError("OCT-E109", text, hint="name another place", place=_file(error))
    if isinstance(error, FileNotFoundError) and (moved := _moved(error)) is not None:
        return moved
    if isinstance(error, ImportError) and (absent := absent_extra(error)) is not None:
        return absent
    path = write_trace(error, command)
    text = f"internal error: {type(error).__name__}: {first_line(error, 300)}"
    hint = "report this with the trace file; -vv shows the trace here"
    if path is None:
        hint = "report this with what -vv shows (no trace file could be written)"
    return OctcError("OCT-E999", text, hint=hint, place=path)


def _file(error: OSError) -> str | None:
    return None if error.filename is None else str(error.filename)


def _moved(error: FileNotFoundError) -> OctcError | None:
    """The error about a folder that went: the working folder, or one that octc worked in; None if only the file is missing."""
    try:
        Path.cwd()
    except FileNotFoundError:
        text = "the folder that octc was called in is not there any more"
        return OctcError("OCT-E109", text, hint="cd to a folder that is there, then give the command again", place=_file(error))
    if (gone := _gone(error)) is None:
        return None
    text = f"{gone} is not there any more: it was moved or removed while octc worked in it"
    return OctcError("OCT-E109", text, hint="give the command again, with the place where it is now", place=_file(error))


def _gone(error: FileNotFoundError) -> Path | None:
    """The uppermost missing folder of a file's path; None if only the file is missing."""
    if error.filename is None:
        return None
    lacking = [folder for folder in Path(str(error.filename)).absolute().parents if not folder.is_dir()]
    return lacking[-1] if lacking else None


def write_trace(error: BaseException, command: str) -> str | None:
    """Write the traceback (without local variables) to a new file; return its path, or None if it cannot be written."""
    head = [
        f"octc {command}\n",
        f"python {platform.python_version()} on {platform.platform()}\n",
        f"packages {', '.join(loaded_versions())}\n\n",
    ]
    try:
        handle, path = tempfile.mkstemp(prefix="octc-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.writelines([*head, *traceback.format_exception(type(error), error, error.__traceback__)])
    except OSError:
        return None
    return path


def loaded_versions() -> list[str]:
    """Name and version of the relevant libraries that are loaded."""
    names = ("numpy", "scipy", "PIL", "torch", "timm", "onnx", "onnxruntime", "openvino")
    return [f"{name} {getattr(sys.modules[name], '__version__', '?')}" for name in names if name in sys.modules]


def error_text(error: OctcError, colour: bool) -> str:
    """The text of a failure: message, place, cause, help. Several problems are listed one after the other."""
    if isinstance(error, Several):
        return "".join(error_text(one, colour) for one in error.errors)
    head = f"error[{error.code}]"
    message = shown_line(error.message)
    lines = [f"{COLOURS['error']}{head}{PLAIN}: {message}" if colour else f"{head}: {message}"]
    place = None if error.place is None else shown_line(error.place)
    for mark, text in (("-->", place), ("why:", error.why), ("help:", error.hint)):
        if text:
            lines.append(f"  {mark} {shown(text)}")
    return "\n".join(lines) + "\n"


def error_json(error: OctcError) -> dict[str, Any]:
    """`error` of the JSON envelope. A place of two parts ("file  field") is split into path and field."""
    path, _, named = (error.place or "").partition("  ")
    if path.startswith("--"):
        path, named = "", path
    value: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "why": error.why,
        "help": error.hint,
        "path": path or None,
        "field": named.strip() or None,
    }
    if isinstance(error, Several):
        value["all"] = [error_json(one) for one in error.errors]
    return value


def usage_error(error: Any, command: str) -> OctcError:
    """Convert a usage error of the option parser to OCT-E101 (unknown name) or OCT-E104 (value), with the nearest valid name.

    `error` is the parser's exception: it has `format_message()`, and if they apply `option_name`, `param` and `ctx`.
    """
    text = str(error.format_message()).strip().rstrip(".").replace("Value error, ", "")  # prefix of the parser
    option = getattr(error, "option_name", None)
    context = getattr(error, "ctx", None)
    shown = f"octc {command} --help".replace("  ", " ")
    if type(error).__name__ == "NoSuchOption" and option:
        known = [o for p in context.command.get_params(context) for o in (*p.opts, *p.secondary_opts)] if context else []
        return unknown_word("option", str(option), [word for word in known if word.startswith("--")], shown)
    code = "OCT-E104" if type(error).__name__ == "BadParameter" else "OCT-E101"
    param = getattr(error, "param", None)
    place = None if param is None else next((word for word in param.opts if word.startswith("--")), None)
    return OctcError(code, text[:1].lower() + text[1:], hint=shown, place=place)


def unknown_word(kind: str, word: str, known: list[str], hint: str) -> OctcError:
    """OCT-E101 with the nearest valid name."""
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    help_text = f"did you mean `{near[0]}`?   (all: {hint})" if near else hint
    return OctcError("OCT-E101", f"unknown {kind} {word!r}", hint=help_text, place=word if kind == "option" else None)
