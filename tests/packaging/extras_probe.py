"""A child of test_extras.py: this environment as if only `octc[EXTRA]` was installed, and what `octc` says there.

    python extras_probe.py < {"hidden": ["torch", ...], "commands": [["list"], ...]}

One JSON line a command: [exit code, error of the --json document or null, stderr]. `hidden`: the modules of `absent`, which
cannot be found. What an extra brings is read from the metadata of the installed packages, by the tests, once.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

from packaging.requirements import Requirement


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def installed() -> dict[str, metadata.Distribution]:
    return {plain(one.metadata["Name"]): one for one in metadata.distributions()}


@cache
def brought(extra: str) -> set[str]:
    """Names of the distributions that `pip install octc[extra]` brings."""
    todo, seen = [("octc", ""), ("octc", extra)], set()
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in seen or name not in installed():
            continue
        seen.add((name, wanted))
        for line in installed()[name].requires or []:
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate({"extra": wanted}):
                todo += [(plain(one.name), ""), *((plain(one.name), more) for more in one.extras)]
    return {name for name, _ in seen}


@cache
def modules() -> dict[str, set[str]]:
    """Modules at the top, and the distributions that bring them."""
    return {module: {plain(name) for name in names} for module, names in metadata.packages_distributions().items()}


def absent(extra: str) -> set[str]:
    """Modules at the top that are not there with `octc[extra]` alone."""
    there = brought(extra)
    return {module for module, names in modules().items() if not names & there}


class Finder(PathFinder):
    """The path, without what is absent."""

    hidden: frozenset[str] = frozenset()

    @classmethod
    def find_spec(  # type: ignore[override]
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if fullname.split(".", maxsplit=1)[0] in cls.hidden else PathFinder.find_spec(fullname, path, target)


def main() -> None:
    given = json.load(sys.stdin)
    Finder.hidden = frozenset(given["hidden"])
    sys.meta_path[:] = [Finder if one is PathFinder else one for one in sys.meta_path]
    for name in [name for name in sys.modules if name.split(".")[0] in Finder.hidden]:
        del sys.modules[name]
    from octc.cli._app.main import main as octc

    for words in given["commands"]:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = octc([*words, "--json"])
        try:
            error = json.loads(out.getvalue())["error"]
        except ValueError:  # help and completion are no documents
            error = None
        sys.__stdout__.write(json.dumps([code, error, err.getvalue()[-3000:]]) + "\n")


if __name__ == "__main__":
    main()
