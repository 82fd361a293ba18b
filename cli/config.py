"""`octc config show | init | validate`: the configuration, the origin of each value, and a template file."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.data_options import DataOptions
from octc.core.errors import OctcError
from octc.core.files import write_bytes
from octc.core.options import Key, keys_of
from octc.schemas.configuration import KEYS

FILE = "octc.toml"
OF_DATA = keys_of(DataOptions)  # no default fits every data set
# defaults of keys without a command-line option
PLAIN = {"offline": False, "data.root": None, "run.dir": "runs"}
HEAD = """# Configuration of octc for this folder. Overridden by: --config FILE, OCTC_<SECTION>__<KEY>, options. Overrides:
# ~/.config/octc/config.toml, the recipe, the defaults. `octc config show --origins` shows the effective values.
"""


def show(
    session: Session,
    origins: Annotated[bool, typer.Option("--origins", help="Show also where each value comes from")] = False,
) -> int:
    """Show every configuration key with its effective value; `-`: the recipe or the command decides."""
    rows = []
    for path, key in _keys():
        section, _, name = path.rpartition(".")
        value, origin = session.settings.get(section, {}).get(name, (_default(path, key), _source(path)))
        rows.append({"key": path, "value": value, "origin": origin})
    session.report({"settings": rows})
    columns = ("key", "value", "origin") if origins else ("key", "value")
    session.result(Rows(columns, [[_spelled(row[name]) for name in columns] for row in rows]))
    return 0


def init(
    session: Session,
    file: Annotated[str, typer.Argument(metavar="FILE", help="File to write (./octc.toml)")] = FILE,
) -> int:
    """Write a configuration file with every key as a comment. An existing file is never overwritten."""
    path = Path(file)
    if path.exists():
        text = f"output exists: {path}"
        raise OctcError("OCT-E106", text, hint="edit it, or name another file: octc config init FILE", place=str(path))
    write_bytes(path, template().encode())
    session.report({"file": str(path)})
    session.result(str(path))
    return 0


def validate(session: Session) -> int:
    """Check configuration files and environment variables. Each problem is printed with its line; the exit code is then 2."""
    found = [
        (origin, f"{section}.{name}".lstrip("."))
        for section, keys in session.settings.items()
        for name, (_, origin) in keys.items()
    ]
    session.report({"values": [{"key": key, "origin": origin} for origin, key in sorted(found)]})
    session.result(f"valid: {len(found)} values configured")
    return 0


def examples() -> dict[str, Any]:
    """Example values for options without a default: what the code uses then. A file with all of them is valid."""
    from octc.bench.remote.ssh import PYTHON
    from octc.bench.timing.profiles import STANDARD
    from octc.datasets.registry import DATASETS
    from octc.export.formats import opsets
    from octc.machine.cpu import usable_threads
    from octc.schemas.licences import USES
    from octc.schemas.training import SEED
    from octc.train.recipes.registry import DEFAULT, RECIPES

    recipe = RECIPES[DEFAULT]()
    stage, taught = recipe.student, recipe.distillation
    return {
        "data.root": DATASETS["ucsd"].default_root,
        "train.recipe": DEFAULT,
        "train.epochs": stage.epochs,
        "train.lr": stage.lr,
        "train.batch": stage.batch,
        "train.seed": SEED,
        "train.size": stage.size,
        "train.val": recipe.val,
        "train.distil": taught.kind,
        "train.standardise": taught.standardise,
        "train.calibrate": taught.calibrate,
        "train.cached_views": taught.views,
        "train.teacher_precision": taught.teacher_precision,
        "train.any_teacher": False,
        "train.use": USES[0],
        "export.opset": opsets()[-1],
        "bench.duration": STANDARD.duration_s,
        "bench.min_queries": STANDARD.min_queries,
        "bench.threads": usable_threads()[0],
        "bench.remote_python": PYTHON,
        "serve.token_file": "token",
        "serve.tls_cert": "cert.pem",
        "serve.tls_key": "key.pem",
        "serve.instances": 1,
        "serve.threads": usable_threads()[0],
        "serve.monitor": "box.sqlite",
        "serve.uploads": "/dev/shm",
        "serve.dicom": "OCTC@11112",
        "serve.watch": "incoming",
        "serve.spool": "spool",
        "serve.report_to": "reports",
        "serve.peers": "ORTHANC@127.0.0.1",
        "serve.dicom_cert": "cert.pem",
        "serve.dicom_key": "key.pem",
        "serve.dicom_ca": "ca.pem",
        "artifact.signature": KEYS["artifact"]["signature"].choices[0],
        "artifact.trusted": "maker.pub",
    }


def template() -> str:
    """Every key with its allowed values, as comments in TOML."""
    lines, shown = [HEAD.rstrip()], examples()
    for section, keys in KEYS.items():
        lines += ["", f"[{section}]"] if section else [""]
        for name, key in keys.items():
            path = f"{section}.{name}".lstrip(".")
            if section == "data" and name in OF_DATA:
                lines.append(f"# {name}: as --{name.replace('_', '-')} of octc data split, where your data set needs it")
                continue
            default = _default(path, key)
            value = json.dumps(shown[path] if default is None else default)
            lines.append(f"# {name} = {value}   # {_allowed(path, key)}")
    return "\n".join(lines) + "\n"


def _allowed(path: str, key: Key) -> str:
    """The allowed values of a key; where export targets differ, the range that fits all."""
    if path != "export.opset":
        return key.allowed()
    from octc.export.formats import opsets

    fit = opsets()
    return f"{key.allowed()}; {fit[0]} to {fit[-1]} for every target"


def _keys() -> list[tuple[str, Key]]:
    return [(f"{section}.{name}".lstrip("."), key) for section, keys in KEYS.items() for name, key in keys.items()]


def _default(path: str, key: Key) -> Any:
    """The value if nothing is configured: the option's own default, or None."""
    if path in PLAIN:
        return PLAIN[path]
    section, _, name = path.partition(".")
    from octc.cli._app.commands import COMMANDS, load

    for entry in COMMANDS:
        if entry.name.split()[0] != section:
            continue
        options = inspect.signature(load(entry)).parameters
        if (key.option or name) in options:
            default = options[key.option or name].default
            return None if default == "auto" else default
    return None


def _source(path: str) -> str:
    return "recipe" if path.startswith("train.") and path not in ("train.recipe", "train.seed") else "default"


def _spelled(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)
