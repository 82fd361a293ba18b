"""The entry point: finds the command, imports only its module, and reports usage errors."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NoReturn

import typer

from octc.cli._app.commands import COMMANDS, GROUPS, Command, bounded, call_plainly, load
from octc.cli._app.ending import end_at_once
from octc.cli._app.errors import BROKEN_PIPE, INTERRUPTED, error_text, sort_error, unknown_word, usage_error
from octc.cli._app.session import Session
from octc.cli._app.shorthand import recipe_names, spelt_out
from octc.cli._app.terminal import ClosedPipe, answer, check_stdout, drop_pipes, prepare_streams, tell
from octc.core.deprecated import COMMAND, OLD_NAMES, OPTION, OldName
from octc.core.errors import OctcError
from octc.machine.memory import spare_space

# common options without a value may also come before the command
MOVABLE = ("--json", "--quiet", "-q", "--verbose", "-v", "-vv", "--no-color", "--offline")
ALIASES = {"split": "data split"}
BARE = {"--resume": "newest"}  # options whose value may be omitted -> the default
ABOUT = """Compress a retinal OCT classifier for edge devices, and test that the small network is not inferior to the large one.

Help for a command: octc COMMAND --help"""
SETTINGS = {"help_option_names": ["-h", "--help"]}


def run() -> None:
    """The entry point of the `octc` command."""
    prepare_streams()
    spare_space(os.environ)
    quick = sys.argv[1:2] == ["predict"]
    if quick:  # the garbage collector would otherwise scan all imports hundreds of times in vain
        gc.set_threshold(20_000, 50, 100)
    try:
        check_stdout()
        code = main(sys.argv[1:])
    except (ClosedPipe, BrokenPipeError):
        code = BROKEN_PIPE
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as caught:  # outside any command, for example if the disk behind stdout is full
        error = sort_error(caught, "octc")
        tell(error_text(error, colour=False))
        code = error.exit_code
    drop_pipes()
    if quick:
        end_at_once(code)
    sys.exit(code)


def main(words: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
    if "_OCTC_COMPLETE" in os.environ:  # a completion request of the shell; another variable contains the words typed so far
        words = os.environ.get("_TYPER_COMPLETE_ARGS", os.environ.get("COMP_WORDS", "")).split()[1:]
        return _parse(_app(_chosen(list(words))), [], list(words))
    arguments, old_names = _renamed(_arranged(list(words)))
    chosen = _chosen(arguments)
    if chosen is None and (error := _unknown_command(arguments)) is not None:
        return _refuse(error, arguments)
    if chosen is None:
        return _parse(_app(None), arguments, arguments)
    try:
        if chosen.words and (rest := arguments[len(chosen.name.split()) :]) and not any(w.startswith("-") for w in rest):
            return call_plainly(chosen, rest, old_names)
        app = _app(chosen)
    except Exception as error:  # a failed import is shown like any other failure
        return _refuse(error, arguments)
    return _parse(app, arguments, arguments, old_names)


def _arranged(words: list[str]) -> list[str]:
    """Normalise a command line: `octc --json list` becomes `octc list --json`, `octc split` becomes `octc data split`,
    `octc train RECIPE` becomes the full command, `--resume` without a value means the newest run."""
    follows = [*words[1:], "-"]  # "-" follows the last word
    words = [f"{w}={BARE[w]}" if w in BARE and n.startswith("-") else w for w, n in zip(words, follows, strict=False)]
    first = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    leading = words[:first]
    rest = words[first:]
    if rest and rest[0] in ALIASES:
        rest = [*ALIASES[rest[0]].split(), *rest[1:]]
    rest = spelt_out(rest)
    if not rest or any(word not in MOVABLE for word in leading):
        return [*leading, *rest]
    command = _chosen(rest)
    count = 1 if command is None else len(command.name.split())
    return [*rest[:count], *leading, *rest[count:]]


def _renamed(words: list[str]) -> tuple[list[str], list[OldName]]:
    """The words with deprecated names replaced, and those names."""
    used = []
    for one in (one for one in OLD_NAMES if one.kind == COMMAND):
        old = one.old.split()
        if words[: len(old)] == old:
            words, used = [*one.new.split(), *words[len(old) :]], [one]
    if len(words) == 2 and words[0] == "bundle":  # help of the renamed group
        words = ["artifact", *words[1:]]
    for one in (one for one in OLD_NAMES if one.kind == OPTION and words[:1] == [one.where]):
        if any(word == one.old or word.startswith(f"{one.old}=") for word in words):
            words = [word.replace(one.old, one.new, 1) if word.startswith(one.old) else word for word in words]
            used.append(one)
    return words, used


def _chosen(words: list[str]) -> Command | None:
    """The command at the beginning of the words."""
    for entry in COMMANDS:
        name = entry.name.split()
        if words[: len(name)] == name:
            return entry
    return None


def _unknown_command(words: list[str]) -> OctcError | None:
    """OCT-E101 for an unknown command; None if help or the version is requested."""
    plain = [word for word in words[:2] if not word.startswith("-")]
    if not plain:
        return None
    if plain[0] in GROUPS:
        known = [entry.name.split()[1] for entry in COMMANDS if entry.name.startswith(plain[0] + " ")]
        if len(plain) < 2 or plain[1] in known:
            return None
        known += recipe_names() if plain[0] == "train" else []
        return unknown_word(f"word after `octc {plain[0]}`", plain[1], known, f"octc {plain[0]} --help")
    if plain[0] != words[0]:
        return None
    known = sorted({entry.name.split()[0] for entry in COMMANDS} | set(ALIASES))
    return unknown_word("command", plain[0], known, "octc --help")


def _app(chosen: Command | None) -> typer.Typer:
    """The parser: every command with its line of help, but only the chosen one with its code."""
    app = typer.Typer(
        name="octc",
        help=ABOUT,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings=SETTINGS,
    )
    app.callback(invoke_without_command=True)(_root)
    groups = {}
    text: str | None
    for name, text in GROUPS.items():
        groups[name] = typer.Typer(help=text, rich_markup_mode=None, no_args_is_help=True, context_settings=SETTINGS)
        app.add_typer(groups[name], name=name)
    for entry in COMMANDS:
        first, _, second = entry.name.partition(" ")
        function: Callable[..., Any] = load(entry) if entry is chosen else _placeholder
        owner = groups[first] if second else app
        text = None if entry is chosen else entry.help
        owner.command(second or first, help=text, short_help=entry.help, context_settings=SETTINGS)(function)
    return app


def _placeholder() -> None:
    """A placeholder for a command that is not run."""


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version (with --json also of all libraries)")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout")] = False,
) -> None:
    if context.invoked_subcommand is not None or not version:
        return
    from octc.cli.version import version_json
    from octc.core.version import own_version

    if as_json:

        def versions(session: Session) -> int:
            session.report(version_json())
            return 0

        bounded("version", _plain(json_wanted=True), versions)
    else:
        answer(f"octc {own_version()}\n")


def _plain(*, json_wanted: bool) -> dict[str, Any]:
    """Default values of the common options."""
    from octc.cli._app.commands import COMMON

    return {**{key: default for key, (_, default) in COMMON.items()}, "json": json_wanted}


def _parse(app: typer.Typer, arguments: list[str], words: list[str], old_names: Sequence[OldName] = ()) -> int:
    """Let the parser call the command; return its exit code, or that of a usage error."""
    try:
        root: Any = typer.main.get_command(app)
        root.commands = {name: root.commands[name] for name in dict.fromkeys(one.name.split()[0] for one in COMMANDS)}
        result = root.main(args=arguments, prog_name="octc", standalone_mode=False, obj=old_names)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except typer.Exit as error:
        return error.exit_code
    except SystemExit as error:  # raised by the parser after completion, or if the reader of the help is gone
        return BROKEN_PIPE if error.code == 1 and "_OCTC_COMPLETE" not in os.environ else int(error.code or 0)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            answer(error.format_message() + "\n")
            return 0 if not words else 2
        return _refuse(usage_error(error, _name(words)), words)
    return result if isinstance(result, int) else 0


def _name(words: list[str]) -> str:
    chosen = _chosen(words)
    return "" if chosen is None else chosen.name


def _refuse(error: Exception, words: list[str]) -> int:
    """Report an error before a session exists, in the same style, with the JSON envelope if `--json` is among the words."""

    def fail(_session: Session) -> NoReturn:
        raise error

    end = words.index("--") if "--" in words else len(words)
    shared = _plain(json_wanted="--json" in words[:end])
    shared["no_color"] = "--no-color" in words[:end]
    return bounded(_name(words) or "octc", shared, fail)


if __name__ == "__main__":
    run()
