"""The door of the training jobs: one request, and what came of it."""

from __future__ import annotations

from octc.train.jobs.data import check_calibration, new_splits
from octc.train.jobs.folds import train_folds
from octc.train.jobs.job import Job, Trained
from octc.train.jobs.request import Request, as_teacher
from octc.train.jobs.run import open_place, train_one
from octc.train.loop.processes import accelerate_apart


def run_training(job: Job, asked: Request, dry_run: bool = False) -> list[Trained]:
    """Resolve a request, say the plan, train: one run, with its teacher before it where that is asked for, or folds.

    Raises:
        OctcError: whatever a training can be refused for, most of it before any work.
    """
    with accelerate_apart():
        return _run(job, asked, dry_run)


def _run(job: Job, asked: Request, dry_run: bool) -> list[Trained]:
    place = open_place(job, asked, keep=not dry_run)
    if asked.has_folds and asked.resume is None:
        return train_folds(job, asked, place, dry_run)
    if asked.with_teacher and asked.resume is None and not asked.modality:  # before the teacher is trained
        check_calibration(asked, new_splits(asked, place.samples)[0])
    done: list[Trained] = []
    if asked.kind == "student" and asked.with_teacher:
        first = train_one(job, as_teacher(asked), place, dry_run=dry_run)
        done += [] if dry_run else [first]
    teacher = done[0].runs[0] if done else None
    return [*done, train_one(job, asked, place, teacher=teacher, dry_run=dry_run)]
