"""Configuration files and environment, merged key by key, each value with its origin.

Highest first: OCTC_<SECTION>__<KEY>, `--config FILE` (or OCTC_CONFIG), ./octc.toml (else [tool.octc] in ./pyproject.toml),
~/.config/octc/config.toml. Command-line options stand above all of these (cli/_app/), recipes and defaults below.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from octc.core.data_options import DataOptions
from octc.core.deprecated import SECTION, VARIABLE, new_of, old_of
from octc.core.errors import OctcError
from octc.core.optional import need
from octc.core.options import Key, keys_of
from octc.core.variables import PREFIX, VARIABLES, misspelt
from octc.schemas.licences import USES
from octc.schemas.requests import BenchOptions, GatewayOptions, ServeOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Notes = list[tuple[str, str]]  # warnings: code and sentence
Settings = dict[str, dict[str, tuple[Any, str]]]  # section -> key -> (value, origin); the top level is section ""
PLAIN_ENVIRONMENT = {"OCTC_OFFLINE": ("", "offline")}


# A key that an options dataclass has is declared there, where the option is (`option(..., key=...)`).
KEYS: dict[str, dict[str, Key]] = {
    "": {"offline": Key(bool)},
    "data": {"root": Key(str), **keys_of(DataOptions)},
    "run": {"dir": Key(str)},
    "train": {
        "recipe": Key(str),
        "epochs": Key(int, low=1),
        "lr": Key(float, above=0),
        "batch": Key(int, low=1),
        "seed": Key(int, low=0),
        "size": Key(int, low=32),
        "val": Key(float, above=0, below=1),
        "distil": Key(str, choices=("kl", "dist", "dkd")),
        "standardise": Key(bool),
        "calibrate": Key(bool),
        "cached_views": Key(int, low=0),
        "teacher_precision": Key(str, choices=("fp32", "bf16")),
        "any_teacher": Key(bool),
        "use": Key(str, choices=USES),
    },
    "export": {
        "margin_pp": Key(float, above=0, option="margin"),
        "class_margin_pp": Key(float, above=0, option="class_margin"),
        "opset": Key(int, low=1),
    },
    "verify": {
        "margin_pp": Key(float, above=0, option="margin"),
        "class_margin_pp": Key(float, above=0, option="class_margin"),
        "alpha": Key(float, above=0, below=0.5),
    },
    "artifact": {
        "signature": Key(str, choices=("optional", "required")),
        "trusted": Key(str),
    },
    "serve": {**keys_of(ServeOptions), **keys_of(GatewayOptions)},
    "bench": {**keys_of(BenchOptions), "remote_python": Key(str)},
}


def config_option(section: str, parameter: str) -> str | None:
    """The key that feeds a command's parameter, or None."""
    for name, key in KEYS.get(section, {}).items():
        if (key.option or name) == parameter:
            return name
    return None


def bool_of(settings: Settings, name: str) -> bool:
    """A top-level switch; false where it is not set."""
    return bool(settings.get("", {}).get(name, (False, ""))[0])


def read_settings(file: str | None, environ: Mapping[str, str], folder: Path) -> tuple[Settings, Notes]:
    """Merge everything that configures octc in `folder`. Returns the settings, and warnings as (code, sentence).

    Raises:
        OctcError: E103 unknown key (with the nearest one), E104 wrong type or range, E105 a file that cannot be parsed.
    """
    notes: Notes = []
    merged: Settings = {}
    home = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else None)
    if home is not None and os.path.lexists(Path(home) / "octc" / "config.toml"):
        _merge(merged, _read_file(Path(home) / "octc" / "config.toml", "user", notes))
    project = folder / "octc.toml"
    embedded = _read_embedded(folder / "pyproject.toml", notes)
    if os.path.lexists(project):  # a link that leads nowhere is refused: what it said would not hold
        if embedded:
            notes.append(("OCT-W101", "octc.toml counts; [tool.octc] in pyproject.toml is passed over"))
        _merge(merged, _read_file(project, "project", notes, "octc.toml"))
    else:
        _merge(merged, embedded)
    chosen = file or environ.get("OCTC_CONFIG")
    if chosen:
        _merge(merged, _read_file(Path(chosen), "file", notes))
    _merge(merged, _read_environment(environ, notes))
    return merged, notes


def _merge(into: Settings, values: Settings) -> None:
    for section, keys in values.items():
        into.setdefault(section, {}).update(keys)


def _read_file(path: Path, kind: str, notes: Notes, shown: str | None = None) -> Settings:
    try:
        if path.exists() and not path.is_file():  # a named pipe would never end
            raise IsADirectoryError(0, "not a file")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise OctcError(
            "OCT-E105", f"configuration cannot be read: {reason}", hint="check the path", place=str(path)
        ) from error
    tree = _parse_yaml(text, path) if path.suffix in (".yaml", ".yml") else _parse_toml(text, path)
    return _checked(tree, text, f"{kind}:{shown or path}", notes)


def _read_embedded(path: Path, notes: Notes) -> Settings:
    """[tool.octc] of a pyproject.toml; a file that is not ours to judge is passed over when it has no such table."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if "octc" not in text:
        return {}
    try:
        tree = _parse_toml(text, path).get("tool", {}).get("octc", {})
    except OctcError:
        if re.search(r"^\s*\[tool\.octc", text, re.MULTILINE):
            raise
        return {}
    if not isinstance(tree, dict):
        raise OctcError("OCT-E104", "tool.octc must be a table", hint="[tool.octc]", place="project:pyproject.toml  tool.octc")
    return _checked(tree, text, "project:pyproject.toml", notes, "tool.octc")


def _parse_toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise OctcError("OCT-E105", "not TOML: nested too deep", hint="write plain sections", place=f"{path}:1:1") from error
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"line (\d+), column (\d+)", str(error))
        place = f"{path}:{where[1]}:{where[2]}" if where else f"{path}:{len(text.splitlines()) or 1}:1"
        raise OctcError(
            "OCT-E105", f"not TOML: {error}".lower().replace("toml", "TOML"), hint="correct this line", place=place
        ) from error


def _parse_yaml(text: str, path: Path) -> dict[str, Any]:
    yaml = need("yaml")
    try:
        tree = yaml.load(text, Loader=_yaml_loader(yaml))
    except RecursionError as error:
        raise OctcError("OCT-E105", "not YAML: nested too deep", hint="write plain sections", place=f"{path}:1:1") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise OctcError("OCT-E105", f"not YAML: {problem}", hint="correct this line", place=place) from error
    if not isinstance(tree, (dict, type(None))):
        raise OctcError("OCT-E105", "not a table of keys", hint="write `section:` and keys under it", place=f"{path}:1:1")
    return tree or {}


def _yaml_loader(yaml: Any) -> Any:
    """PyYAML's safe loader, which takes the last of two keys of one name; here the second one is refused, as TOML does."""

    class Once(yaml.SafeLoader):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[Any] = set()
            for key, _ in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else None
                if name is not None and name in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {name} stands twice", key.start_mark)
                seen.add(name)
            return super().construct_mapping(node, deep)

    return Once


def _checked(tree: Mapping[str, Any], text: str, origin: str, notes: Notes, prefix: str = "") -> Settings:
    """Known keys of the right type, each with origin:line."""
    found: Settings = {}
    for name, value in tree.items():
        section = new_of(SECTION, name)
        section, entries = (section, value) if section in KEYS else ("", {name: value})
        if section and not isinstance(entries, Mapping):
            line = _line_of(text, prefix, name)
            raise OctcError("OCT-E104", f"{section} must be a table", hint=f"[{section}]", place=f"{origin}:{line}  {section}")
        if section not in ("", name):
            notes.append(("OCT-W102", f"[{name}] in {origin} is now [{section}]"))
        for key, item in entries.items():
            line = _line_of(text, ".".join(part for part in (prefix, name if section else "") if part), str(key))
            if str(key) in found.get(section, {}):
                other = old_of(SECTION, section)
                raise OctcError("OCT-E102", f"[{section}] and [{other}] set {key}", hint=f"leave [{other}] out", place=origin)
            found.setdefault(section, {})[str(key)] = (_check(section, str(key), item, f"{origin}:{line}"), f"{origin}:{line}")
    return found


def _check(section: str, name: str, value: Any, origin: str) -> Any:
    path = f"{section}.{name}" if section else name
    key = KEYS.get(section, {}).get(name)
    if key is None:
        known = [f"{s}.{k}" if s else k for s, keys in KEYS.items() for k in keys]
        near = get_close_matches(path, known, n=1, cutoff=0.5) or get_close_matches(name, known, n=1, cutoff=0.3)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(known)}"
        raise OctcError("OCT-E103", f"unknown key {path}", hint=hint, place=f"{origin}  {path}")
    if not key.fits(value):
        text = f"{path} = {value!r} is not allowed"
        raise OctcError("OCT-E104", text, hint=f"{path} must be {key.allowed()}", place=f"{origin}  {path}")
    return float(value) if key.kind is float else value


def _line_of(text: str, section: str, key: str) -> int:
    """The line on which a key stands (TOML headers, dotted keys, or YAML indentation); 1 when it cannot be told."""
    table = ""
    first = 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            table = header[1].replace('"', "").replace(" ", "")
        elif block := re.match(r"([\w-]+)\s*:\s*(#.*)?$", line):
            table = block[1]
        if pair := re.match(r"\s*([\w.\"'-]+)\s*[=:]", line):
            name = re.sub(r"[\"']", "", pair[1])
            if ".".join(part for part in (table, name) if part) == ".".join(part for part in (section, key) if part):
                return number
            if name.split(".")[-1] == key:
                first = first or number
    return first or 1


def _known_variables() -> set[str]:
    """Every variable that octc reads, those of today and the old names that still work."""
    keys = {f"{PREFIX}{section}__{key}".upper() for section, inner in KEYS.items() if section for key in inner}
    names = {*VARIABLES, *keys}
    return names | {old for name in names if (old := old_of(VARIABLE, name)) is not None}


def _check_spelling(environ: Mapping[str, str], notes: Notes) -> None:
    """Name variables that nothing reads: refused where it is clear what was meant (E103), else a warning."""
    for name, meant in misspelt(environ, _known_variables()):
        if meant is None and "__" in name and name.startswith(PREFIX):
            continue  # a section or key that there is not, which is refused with its place
        if meant is not None and name.upper().startswith(PREFIX):
            hint = f"did you mean {meant}? unset {name}, export {meant}=..."
            raise OctcError("OCT-E103", f"unknown variable {name}", hint=hint, place=f"env:{name}")
        more = f"; {meant} is one" if meant is not None else ""
        notes.append(("OCT-W103", f"{name} is no variable of octc, nothing reads it{more}"))


def _read_environment(environ: Mapping[str, str], notes: Notes) -> Settings:
    found: Settings = {}
    _check_spelling(environ, notes)
    for variable, text in sorted(environ.items()):
        if variable in PLAIN_ENVIRONMENT:
            section, name = PLAIN_ENVIRONMENT[variable]
        elif variable.startswith("OCTC_") and "__" in variable:
            today = new_of(VARIABLE, variable)
            section, _, name = today.removeprefix("OCTC_").lower().partition("__")
            if today != variable:
                notes.append(("OCT-W102", f"{variable} is now {today}"))
        else:
            continue
        origin = f"env:{variable}"
        if name in found.get(section, {}):
            other = found[section][name][1].removeprefix("env:")
            raise OctcError("OCT-E102", f"{other} and {variable} set the same key", hint=f"unset {variable}", place=variable)
        key = KEYS.get(section, {}).get(name)
        value = text if key is None else _from_text(text, key.kind)
        found.setdefault(section, {})[name] = (_check(section, name, value, origin), origin)
    return found


def _from_text(text: str, kind: type) -> Any:
    """A variable's text as the key's type; what does not convert stays text and is refused by the check."""
    if kind is bool:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}.get(
            text.lower(), text
        )
    if kind is str:
        return text
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        return text
