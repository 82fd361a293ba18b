"""`octc list`: models, data sets, recipes and runs, with what is missing for each. Imports no heavy library."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.options import OneOf
from octc.schemas.commands import DatasetRow, ModelRow, RecipeRow, RunRow
from octc.schemas.common import Document, builtins

KINDS: dict[str, type[Document]] = {"models": ModelRow, "datasets": DatasetRow, "recipes": RecipeRow, "runs": RunRow}


def list_(
    session: Session,
    what: Annotated[str | None, OneOf(KINDS), typer.Argument(help="What to list (all four)")] = None,
) -> int:
    """List models, data sets, recipes and runs, with what is missing for each."""
    from octc.store.listing import list_datasets, list_runs
    from octc.train.recipes.listing import list_models, list_recipes

    makers: dict[str, Callable[[], Sequence[Document]]] = {
        "models": list_models,
        "datasets": lambda: list_datasets(session.data, os.environ),
        "recipes": list_recipes,
        "runs": lambda: list_runs(session.run_dir),
    }
    found = {kind: [builtins(row) for row in makers[kind]()] for kind in ((what,) if what else KINDS)}
    session.report(found)
    for kind, rows in found.items():
        names = KINDS[kind].__struct_encode_fields__
        cells = [[_cell(row[name], name) for name in names] for row in rows]
        session.result(Rows(names, cells, kind) if rows else f"{kind}: none")
    return 0


def _cell(value: Any, name: str) -> str:
    if isinstance(value, list):
        return "; ".join(value) if value else ("nothing" if name == "missing" else "none")
    return "-" if value is None else str(value)
