"""The command line is a promise: its commands, arguments and options are frozen in options.json.

`python tests/house/test_options.py` writes that file anew; the difference belongs into the commit that changes an option.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import MISSING, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from octc.cli._app.commands import COMMANDS, COMMON, Command, _stored, hints_of, load, plain_hint
from octc.cli._app.main import _app, _chosen
from octc.core.options import described

FROZEN = Path(__file__).with_name("options.json")


def parsed(name: str) -> tuple[Any, Command]:
    """A command as the parser's command, and its entry in the table."""
    chosen = _chosen(name.split())
    assert chosen is not None
    command: Any = typer.main.get_command(_app(chosen))
    for word in name.split():
        command = command.commands[word]
    return command, chosen


def spelled(annotation: Any) -> str:
    """Annotated[str | None, ...] -> "str"; a list is told by its items, a text with choices by them."""
    inner = get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
    kinds = [kind for kind in get_args(inner) if kind is not type(None)] or [inner]
    words = get_args(kinds[0]) if get_origin(kinds[0]) is Literal else kinds
    return "|".join(str(getattr(word, "__name__", word)) for word in (words if isinstance(words[0], str) else words[:1]))


def parameters(name: str) -> dict[str, Any]:
    """Arguments and options of a command as the parser has them: "--int8": "flag", "--target": "str = all"."""
    command, chosen = parsed(name)
    types = load(chosen).__annotations__
    arguments, options = [], {}
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            arguments.append(f"{parameter.name}{'...' if parameter.nargs == -1 else ''}{'' if parameter.required else '?'}")
            continue
        words = "/".join((*parameter.opts, *parameter.secondary_opts))
        kind = "count" if parameter.count else "flag" if parameter.is_flag else spelled(types[parameter.name])
        many = " (repeated)" if parameter.multiple else ""
        off = parameter.is_flag and parameter.default is False
        silent = off or parameter.count or parameter.default in (None, (), []) or callable(parameter.default)
        default = "" if silent else f" = {parameter.default}"
        options[words] = f"{kind}{many}{default}"
    return {"arguments": arguments, "options": dict(sorted(options.items()))}


def current() -> dict[str, Any]:
    """The command line as it is: the common options once, and of each command its own."""
    found = {entry.name: parameters(entry.name) for entry in COMMANDS}
    common: dict[str, str] = {}
    for key in COMMON:
        word = f"--{key.replace('_', '-')}"
        written = {name: next(o for o in command["options"] if word in o.split("/")) for name, command in found.items()}
        common |= {written[name]: found[name]["options"].pop(written[name]) for name in found}
    return {"common": common, "commands": found}


def test_the_options_are_frozen() -> None:
    assert current() == json.loads(FROZEN.read_text()), "python tests/house/test_options.py writes options.json anew"


def test_an_option_that_is_left_out_is_the_default_of_the_library() -> None:
    """Also where it is typed in percent and stored as a share (`octc abstain --sets lac` once promised 0.95 percent)."""
    seen = 0
    for entry in COMMANDS:
        module, _, function = entry.where.partition(":")
        own = getattr(importlib.import_module(module), function)
        command, _ = parsed(entry.name)
        values = {one.name: one.default for one in command.params}
        for name, kind in hints_of(own).items():
            if name == "session" or not is_dataclass(plain_hint(kind)):
                continue
            for field in described(plain_hint(kind)):
                if field.default is not MISSING:
                    seen += 1
                    assert _stored(values[field.name], field) == field.default, f"octc {entry.name}: {field.name}"
    assert seen > 100


def test_every_option_and_argument_has_help() -> None:
    for entry in COMMANDS:
        command, _ = parsed(entry.name)
        assert command.help, entry.name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"octc {entry.name}: {parameter.name} has no help"


def test_only_four_options_are_short() -> None:
    words = [word for command in current()["commands"].values() for option in command["options"] for word in option.split("/")]
    words += [word for option in current()["common"] for word in option.split("/")]
    assert {word for word in words if not word.startswith("--")} <= {"-o", "-q", "-v", "-h"}


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(current(), indent=1, ensure_ascii=False) + "\n")
