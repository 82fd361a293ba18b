"""`octc train teacher | student | retnet-teacher | retnet-student`: reads the options, runs one job, prints its result.

The retnet commands run the same jobs with recipes for two modalities; their default recipe and fine-tuning differ.
"""

from __future__ import annotations

from typing import Annotated

import typer

from octc.cli._app.session import Session
from octc.schemas.training import EyeStudentOptions, StudentOptions, TrainOptions

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and stop")]


def teacher(session: Session, options: TrainOptions, dry_run: DryRun = False) -> int:
    """Train the large network (teacher) of a recipe on labels. Writes runs/<id>/."""
    return _train(session, "teacher", options, "multiclass", dry_run)


def student(session: Session, options: StudentOptions, dry_run: DryRun = False) -> int:
    """Distil a frozen teacher into the small network, then run quantisation-aware training. Writes runs/<id>/."""
    return _train(session, "student", options, "multiclass", dry_run)


def eye_teacher(session: Session, options: TrainOptions, dry_run: DryRun = False) -> int:
    """Train a teacher on images of one modality with several labels per image. Writes runs/<id>/."""
    return _train(session, "teacher", options, "multilabel", dry_run)


def eye_student(session: Session, options: EyeStudentOptions, dry_run: DryRun = False) -> int:
    """Distil a teacher of one modality into a student for the other: FDDM (oct), ODDM (fundus), or both. Writes runs/<id>/."""
    return _train(session, "student", options, "multilabel", dry_run)


def _train(session: Session, kind: str, options: TrainOptions, task: str, dry_run: bool) -> int:
    from octc.core.optional import need

    for module in ("torch", "timm", "safetensors", "accelerate"):
        need(module)
    from octc.cli.train_folds import say_summary
    from octc.cli.whose import asker
    from octc.compress.jobs import new_job
    from octc.stats.task import task_of
    from octc.train.jobs.request import make_requests
    from octc.train.jobs.start import run_training

    origins = {key.removeprefix("train."): origin for key, origin in session.origins.items()}
    settings = session.settings.get("train", {})
    job = new_job(session.run_dir, session.data, session, settings=settings, origins=origins)
    job.ask = asker(session)
    try:
        done = [one for asked in make_requests(job, kind, options, task_of(task)) for one in run_training(job, asked, dry_run)]
    finally:
        session.run_id = job.run_id
        session.report(job.document)
    for one in done:
        if not one.speaks:
            continue
        if one.dry:
            session.result("dry run: nothing was written")
        elif one.summary is not None and one.folder is not None:
            say_summary(session, one.summary, one.folder)
        elif one.runs:
            session.result("\n".join(str(run.path) for run in one.runs))
        if one.lacking:
            lacking = ", ".join(map(str, one.lacking))
            session.say(f"! no summary yet: fold {lacking} of {one.folds} to be done here or copied here")
        if one.next:
            session.say(f"next: {one.next}")
    return 0
