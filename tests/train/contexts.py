"""What a stage is given, for tests: no bars, no reports unless asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octc.datasets.split import Split
from octc.store.runs import Run, create_run
from octc.train.loop.processes import make_accelerator
from octc.train.recipes.config import Recipe
from octc.train.stages import Context


def make_context(run: Run, root: Path, split: Split, recipe: Recipe, **more: Any) -> Context:
    """A context on the CPU, seed 3."""
    fields: dict[str, Any] = {
        "data_digest": "d" * 64, "seed": 3, "accelerator": make_accelerator("cpu"), "tick": lambda _: None,
        "report": lambda _: None, "decoding": lambda _done, _total: None, **more,
    }  # fmt: skip
    return Context(run=run, root=root, split=split, recipe=recipe, **fields)


def new_context(folder: Path, root: Path, split: Split, recipe: Recipe, kind: str = "teacher", **more: Any) -> Context:
    """The same with a run of its own."""
    return make_context(create_run(folder, kind, "folder", data_root=str(root)), root, split, recipe, **more)
