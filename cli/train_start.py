"""What `octc train` does first: resolve the request, then one run, or the folds of a cross-validation."""

from __future__ import annotations

import os

from octc.cli._app.session import Session
from octc.cli.train_request import Request


def run_training(session: Session, asked: Request, dry_run: bool) -> int:
    """Resolve, say the plan, train. `--with-teacher` trains the teacher in the same command first."""
    from octc.cli.train_data import scan_and_check
    from octc.cli.train_run import Place, as_teacher, train_one
    from octc.cli.train_weights import checked_weights
    from octc.core.optional import need
    from octc.datasets.registry import find_root, spec_of
    from octc.store.locations import image_root

    spec_of(asked.dataset)
    for module in ("torch", "timm", "safetensors", "accelerate"):
        need(module)
    from octc.train.loop.memory import keep_memory
    from octc.train.loop.processes import make_accelerator

    keep_memory()
    accelerator = make_accelerator(asked.device, asked.precision)
    session.quiet = session.quiet or not accelerator.is_main_process
    if asked.resume is None:
        root = find_root(asked.dataset, session.data, os.environ)
    else:
        root = image_root(asked.resume, session.data, os.environ)
    samples = scan_and_check(session, asked, root)
    stages = [asked.recipe.teacher] if asked.kind == "teacher" or asked.with_teacher else []
    stages += [asked.recipe.student] if asked.kind == "student" else []
    weights = None
    for stage in stages:  # all of them before the first one is trained
        weights = checked_weights(session, asked, stage, len(samples.classes))
    place = Place(samples, root, accelerator, weights)
    if asked.folds is not None and asked.resume is None:
        from octc.cli.train_folds import run_folds

        return run_folds(session, asked, place, dry_run)
    teacher = None
    if asked.kind == "student" and asked.with_teacher and not dry_run:
        teacher = train_one(session, as_teacher(asked), place)
    train_one(session, asked, place, teacher=teacher, dry_run=dry_run)
    return 0
