"""`octc explain CODE|RULE|WORD`: meaning, relevance, usual causes and remedy. Works offline from texts in the package."""

from __future__ import annotations

import json
import sys
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.core.codes import CODES
from octc.core.errors import OctcError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXTS = "explain.toml"
TOLERANCE = "tolerance"  # the entry of K1, K2, ...; runtimes/golden.py defines their values


def explain(
    session: Session,
    word: Annotated[
        str | None,
        typer.Argument(metavar="CODE|WORD", help="Error code (OCT-E705 or E705), lint rule (W26), or term of a verdict"),
    ] = None,
    every: Annotated[bool, typer.Option("--list", help="List all codes and terms")] = False,
    schema: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print the JSON Schema of a command's --json output, or of a file"),
    ] = None,
) -> int:
    """Explain an error or warning code, a lint rule, a term of a verdict or measurement, or the JSON of a command."""
    asked = [every, word is not None, schema is not None]
    if sum(asked) != 1:
        text = "give one code or word, --list or --schema NAME" + (", not several of them" if any(asked) else "")
        raise OctcError("OCT-E102" if any(asked) else "OCT-E104", text, hint="octc explain OCT-E705, or octc explain --list")
    if schema is not None:
        from octc.cli.json_schema import schema_of

        document = schema_of(schema)
        session.report({"schema": document})
        session.result(json.dumps(document, indent=1))
        return 0
    if word is None:
        return _all(session)
    entry = entry_of(word)
    session.report(entry)
    session.result("\n".join(lines(entry)))
    return 0


@cache
def texts() -> dict[str, dict[str, Any]]:
    """All entries by code or term."""
    known: dict[str, dict[str, Any]] = tomllib.loads((files("octc.cli") / TEXTS).read_text(encoding="utf-8"))
    return known


def entry_of(word: str) -> dict[str, Any]:
    """The entry of a code (with or without OCT-) or a term, in any letter case (OctcError E101: unknown)."""
    names = spellings()
    spelled = _plain(word)
    name = names.get(spelled) or names.get(f"oct_{spelled}") or names.get(spelled.partition(":")[0]) or _tolerance(word)
    if name is None:
        near = get_close_matches(spelled, names, 1) or get_close_matches(f"oct_{spelled}", names, 1)
        hint = f"did you mean {names[near[0]]}? octc explain {names[near[0]]}" if near else "octc explain --list"
        raise OctcError("OCT-E101", f"no such code or word: {word}", hint=hint, place="CODE|WORD")
    text = texts().get(name, {})
    exit_code, means = CODES.get(name, (None, text.get("means", name.replace("_", " "))))
    row = _row_of(word) if name == TOLERANCE else ""
    return {
        "name": name,
        "exit_code": exit_code,
        "means": means,
        "why": f"{text['why']}{row}" if "why" in text else None,
        "causes": text.get("causes", []),
        "hint": text.get("hint", []),
        "mend": text.get("hint", []),
        "related": text.get("related", []),
    }


@cache
def spellings() -> dict[str, str]:
    """All known spellings, normalised -> name of the entry; the name of an entry precedes an alternative spelling."""
    also = {_plain(other): name for name, entry in texts().items() for other in entry.get("also", ())}
    return {**also, **{_plain(name): name for name in (*CODES, *texts())}}


def _plain(word: str) -> str:
    """A term normalised for lookup: lower case, one underscore between words, no brackets, no commas."""
    kept = "".join(sign if sign.isalnum() or sign in ":.%/" else " " for sign in word.lower())
    return "_".join(kept.split())


def _tolerance(word: str) -> str | None:
    from octc.runtimes.golden import TOLERANCES

    return TOLERANCE if word.strip().upper() in TOLERANCES else None


def _row_of(word: str) -> str:
    """The values of the requested row of the tolerance table."""
    from octc.runtimes.golden import TOLERANCES

    row = TOLERANCES.get(word.strip().upper())
    if row is None:
        return ""
    ties = ", flips between near ties excused" if row.near_ties else ""
    limits = f"delta over s {row.delta_over_s:g}, mean KL {row.kl_mean:g} nats, agreement {100 * row.agreement:g} %{ties}"
    return f" {row.id}: {limits}."


def lines(entry: dict[str, Any]) -> list[str]:
    """An entry as lines of text."""
    kind = (
        "" if entry["exit_code"] is None else "  (a warning)" if entry["exit_code"] == 0 else f"  (exit {entry['exit_code']})"
    )
    out = [f"{entry['name']}{kind}: {entry['means']}"]
    out += [f"  why      {entry['why']}"] if entry["why"] else []
    for head, items in (("causes", entry["causes"]), ("hint", entry["hint"])):
        out += [f"  {head if i == 0 else '':<8} {'- ' if len(items) > 1 else ''}{item}" for i, item in enumerate(items)]
    return out + ([f"  related  {', '.join(entry['related'])}"] if entry["related"] else [])


def _all(session: Session) -> int:
    from octc.cli._app.tables import Rows

    words = [name for name in texts() if name not in CODES]
    rows = [(name, str(code), means) for name, (code, means) in CODES.items()] + [
        (name, "", texts()[name]["why"]) for name in words
    ]
    session.report({"entries": [entry_of(name) for name in (*CODES, *words)]})
    session.result(Rows(("name", "exit", "meaning"), rows))
    return 0
