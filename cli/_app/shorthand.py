"""`octc train RECIPE`: the name of a recipe instead of `teacher` or `student`."""

from __future__ import annotations

from collections.abc import Sequence

from octc.cli._app.commands import COMMANDS

ROLES = ("teacher", "student")


def recipe_names() -> list[str]:
    """Names that `octc train` accepts besides its commands: recipes, and networks of KD-OCT for a data set."""
    from octc.train.recipes.registry import RECIPES

    return [*RECIPES, *_of_kd_oct()]


def _of_kd_oct() -> dict[str, tuple[str, str, str]]:
    """ "kdoct-teacher-neh" -> ("teacher", "kd-oct-neh", "neh")."""
    presets = ("", "-as-released")
    return {
        f"kdoct-{role}-{data}{preset}": (role, f"kd-oct-{data}{preset}", data)
        for role in ROLES
        for data in ("neh", "ucsd")
        for preset in presets
    }


def spelt_out(words: Sequence[str]) -> list[str]:
    """Expand `train RECIPE ...` to the full command: the network of a baseline, or the student of a recipe with its teacher.

    Other command lines are returned unchanged.
    """
    commands = [entry.name.split()[1] for entry in COMMANDS if entry.name.startswith("train ")]
    if len(words) < 2 or words[0] != "train" or words[1].startswith("-") or words[1] in commands:
        return list(words)
    from octc.train.recipes.registry import BASELINES, RECIPES

    name, rest = words[1], list(words[2:])
    if name in (known := _of_kd_oct()):
        role, recipe, data = known[name]
        return ["train", role, "--recipe", recipe, *([] if _has(rest, "--dataset") else ["--dataset", data]), *rest]
    if name in BASELINES:
        return ["train", "teacher", "--recipe", name, *rest]
    if name in RECIPES:
        taught = _has(rest, "--teacher") or _has(rest, "--with-teacher") or _has(rest, "--resume")
        return ["train", "student", "--recipe", name, *([] if taught else ["--with-teacher"]), *rest]
    return list(words)


def _has(words: Sequence[str], option: str) -> bool:
    return any(word == option or word.startswith(f"{option}=") for word in words)
