"""The student that is made simpler, with its teacher, its images and its recipe, as its run stores them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from octc.core.errors import OctcError
from octc.datasets.split import Split
from octc.stats.task import task_of
from octc.store.locations import image_root
from octc.store.runs import Run, find_run
from octc.train.evaluation.assess import network_of
from octc.train.jobs.foreign_teacher import remembered
from octc.train.loop.checkpoint import Checkpoint, is_checkpoint, read_checkpoint
from octc.train.recipes.config import Recipe
from octc.train.recipes.registry import stored_recipe


@dataclass(frozen=True)
class SourceRun:
    """A finished student. model: with its weights, on the CPU. teacher: folder of its teacher's checkpoint, or None."""

    run: Run
    stored: dict[str, Any]
    model: nn.Module
    checkpoint: Checkpoint
    split: Split
    recipe: Recipe
    root: Path
    teacher: Path | None

    @property
    def folder(self) -> Path:
        return self.run.path / "train"


def read_student(run: Run, run_dir: Path, data: str | None) -> SourceRun:
    """Read a finished student.

    Raises:
        OctcError: E102 a teacher, or classes that do not exclude each other; E107 not finished, or no recipe or teacher of it;
            E110 another teacher; E216, E230, E307, E501 as `network_of` and `image_root`.
    """
    stored = run.read()
    if stored["kind"] != "student" or not task_of(stored.get("task")).exclusive:
        text = f"{run.id} is no student of octc train student"
        raise OctcError("OCT-E102", text, hint="octc list runs names the students", place=str(run.path))
    if not is_checkpoint(run.path / "train") or stored["status"] == "running":
        text = f"{run.id} is not finished"
        raise OctcError("OCT-E107", text, hint=f"octc train student --resume {run.id}", place=str(run.path))
    if not isinstance(stored.get("recipe"), dict):
        text = f"run {run.id} keeps no recipe: octc train did not make it, and it cannot be tuned"
        raise OctcError("OCT-E107", text, hint="octc.simplify(module, ...) takes a network without a run", place=str(run.path))
    model, checkpoint, split = network_of(run)
    root = image_root(run, data, os.environ)
    recipe = stored_recipe(stored["recipe"])
    return SourceRun(run, stored, model, checkpoint, split, recipe, root, _teacher(run, stored, run_dir))


def _teacher(run: Run, stored: dict[str, Any], run_dir: Path) -> Path | None:
    """The folder of the teacher that the student learned from first (E107 where it is not here, E110 where it changed)."""
    name, sha256 = stored.get("teacher_run"), stored.get("teacher_sha256")
    if name is None and sha256 is None:
        return None
    folder = remembered(run_dir, str(sha256)) if name is None else find_run(run_dir, str(name)).path / "train"
    if folder is None:
        text = f"the teacher of {run.id} (sha256 {str(sha256)[:12]}) is not here"
        raise OctcError("OCT-E107", text, hint="copy its run to where this one lies", place=str(run_dir))
    if sha256 is not None and read_checkpoint(folder)[0].sha256 != sha256:
        text = f"teacher {name} has changed since {run.id} learned from it"
        raise OctcError("OCT-E110", text, hint="train the student anew", place=str(folder))
    return folder
