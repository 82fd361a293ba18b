"""Whether a teacher can lend its weights to its student (`--weights teacher`), asked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from octc.train.jobs.job import Job
from octc.train.jobs.lines import say_fit
from octc.train.jobs.request import Request
from octc.train.jobs.teachers import Teacher
from octc.train.loop.checkpoint import Checkpoint, read_checkpoint
from octc.train.networks.lent import check_lenders, is_lent
from octc.train.networks.models import build_model
from octc.train.networks.starting import check_lending
from octc.train.networks.weights import stated_source
from octc.train.stages import built_with, preprocess_of


def check_pair(asked: Request, classes: int) -> dict[str, Any] | None:
    """What start weights of a teacher that will be trained first will be for its student; None where it is not trained.

    Raises:
        OctcError: E307 too little in common.
    """
    if not asked.with_teacher:
        return None
    stage: Any = asked.recipe.teacher
    with torch.random.fork_rng(devices=[]):
        state = build_model(stage.model, classes, **stage.model_kwargs).state_dict()
    weights = stated_source(stage, None)
    made = Checkpoint("teacher", stage.model, built_with(stage), (), preprocess_of(stage), {}, "", "", "", weights=weights)
    found = check_lending(asked.stage, classes, made, state, stage.model)
    return {key: found[key] for key in ("source", "licence", "fit")}


def check_lender(asked: Request, folder: Path, classes: int) -> dict[str, Any]:
    """What the weights of the teacher in this folder will be for the student (E307 with too little in common)."""
    return check_lending(asked.stage, classes, *read_checkpoint(folder), str(folder))


def say_lent(job: Job, asked: Request, teachers: Sequence[Teacher], classes: int) -> dict[str, Any] | None:
    """What start weights of its teacher will be for a student, and a line of it; None where others were asked for, or the
    teacher is not trained yet (`check_pair`).

    Raises:
        OctcError: E102 no teacher, or several; E307 too little in common; of `read_checkpoint`.
    """
    if not is_lent(asked.options.weights) or (job.dry_run and asked.with_teacher and not teachers):
        return None
    check_lenders(len(teachers))
    found = check_lender(asked, teachers[0].folder, classes)
    job.reporter.say(f"✓ weights   {asked.stage.model} begins from {found['source']}, sha256 {found['sha256'][:8]}")
    say_fit(job.reporter, found)
    return found
