"""`octc train teacher | student --folds K`: a cross-validation as one job that goes on when the same command is given again.

Every fold is a run of its own, known by what it was asked for, not by where or when it was made: another machine may do one
(`--fold I`), and its folder is copied beside the others. The summary is made from the runs' stored answers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.session import Session
from octc.cli.train_request import Request
from octc.cli.train_resume import check_again
from octc.cli.train_run import Place, as_teacher, told, train_one
from octc.core.errors import OctcError, shorten
from octc.core.files import canonical_json, sha256_bytes, sha256_file

if TYPE_CHECKING:
    from octc.datasets.split import Split
    from octc.store.runs import Run

KEY = 8  # digits of a job's name
HELD_OUT = ("test", "official")


def run_folds(session: Session, asked: Request, place: Place, dry_run: bool) -> int:
    """All folds that are not done, or the one that is asked for; the summary where all are there.

    Raises:
        OctcError: E107 a fold has no teacher (all such folds are named, before any work), E108 another process does one.
    """
    from octc.cli.train_data import new_splits

    splits = new_splits(asked, place.samples)
    if asked.kind == "student" and asked.with_teacher:
        _job(session, as_teacher(asked), place, splits, dry_run)
    _job(session, asked, place, splits, dry_run)
    return 0


def job_of(asked: Request, data_digest: str) -> str:
    """The name of a job: all that decides its results, and not which machine does which fold."""
    weights = None if asked.weights is None else _sum(asked.weights)
    facts = {
        "kind": asked.kind, "dataset": asked.dataset, "data": data_digest, "recipe": asdict(asked.recipe), "seed": asked.seed,
        "folds": asked.folds, "protocol": asked.protocol, "taught": asked.teacher != "none", "weights": weights,
    }  # fmt: skip
    return f"cv-{asked.kind}-{asked.dataset}-{sha256_bytes(canonical_json(facts))[:KEY]}"


def _sum(weights: Path) -> str:
    return sha256_file(weights) if weights.is_file() else str(weights)


def _job(session: Session, asked: Request, place: Place, splits: Sequence[Split], dry_run: bool) -> None:
    job = job_of(asked, place.samples.digest)
    wanted = [asked.fold] if asked.fold is not None else list(range(1, len(splits) + 1))
    main = place.accelerator.is_main_process
    known: dict[int, Run] = told(place.accelerator, members(session.run_dir, job) if main else None)
    for fold in (fold for fold in wanted if fold in known):
        check_again(known[fold], asked.request, allow_change=asked.allow_change)
    ready = {fold: run for fold, run in known.items() if is_done(run, asked)}
    todo = [fold for fold in wanted if fold not in ready]
    session.say(f"octc train {asked.kind} · {len(splits)} folds · job {session.run_dir / job}")
    for fold in wanted:
        if fold in ready:
            session.say(f"✓ fold {fold}    {ready[fold].id} is done")
        elif fold in known:
            session.say(f"  fold {fold}    {known[fold].id} goes on ({known[fold].read().get('status')})")
    _check_teachers(session, asked, splits, [fold for fold in todo if fold not in known], dry_run)
    if dry_run:
        _say_dry(session, asked, splits, todo, place)
        return
    for fold in todo:
        one = replace(asked, fold=fold, job=job, member=True)
        ready[fold] = _fold(session, one, place, splits[fold - 1], known.get(fold))
    for fold in wanted:
        _judge(session, ready[fold], place)
    if main:
        _summarise(session, asked, job, len(splits), place)
    place.accelerator.wait_for_everyone()


def members(run_dir: Path, job: str) -> dict[int, Run]:
    """The run of each fold of a job: a finished one where there is one, else the newest."""
    from octc.store.runs import scan_runs

    found: dict[int, tuple[bool, Run]] = {}
    for run in scan_runs(run_dir):
        known = run.read()
        if known.get("job") != job or not known.get("fold"):
            continue
        fold, done = int(known["fold"][0]), known.get("status") == "done"
        if fold not in found or (done and not found[fold][0]):
            found[fold] = (done, run)
    return {fold: run for fold, (_, run) in sorted(found.items())}


def is_done(run: Run, asked: Request) -> bool:
    """Whether nothing of the run is left to do (a tuning that is asked for now may be)."""
    from octc.train.loop.checkpoint import META

    tuned = asked.kind != "student" or not asked.qat or (run.path / "qat" / META).is_file()
    return bool(run.read().get("status") == "done" and (run.path / "train" / META).is_file() and tuned)


def _check_teachers(session: Session, asked: Request, splits: Sequence[Split], folds: Sequence[int], dry_run: bool) -> None:
    """F05: every fold that is to be begun has its teacher, before the first one is trained."""
    from octc.cli.train_teacher import fitting

    if asked.kind == "teacher" or asked.teacher is not None or (dry_run and asked.with_teacher):
        return
    lacking = [str(fold) for fold in folds if fitting(session, asked, splits[fold - 1]) is None]
    if lacking:
        text = f"no successful teacher of recipe {asked.recipe.name} for fold {shorten(lacking)} of {len(splits)}"
        words = f"--dataset {asked.dataset} --recipe {asked.recipe.name} --folds {len(splits)}"
        hint = f"octc train teacher {words}; or --with-teacher; or --teacher none"
        raise OctcError("OCT-E107", text, hint=hint, place=str(session.run_dir))


def _fold(session: Session, asked: Request, place: Place, split: Split, before: Run | None) -> Run:
    """Begin a fold, or go on with it: with its own recipe, whose batch may have been halved."""
    from octc.train.recipes.config import recipe_from_json

    if before is not None:
        asked = replace(asked, resume=before, recipe=recipe_from_json(before.read()["recipe"]))
    run = train_one(session, asked, place, split=split)
    assert run is not None  # only a dry run makes none
    return run


def _judge(session: Session, run: Run, place: Place) -> None:
    """The answers of a fold's network on what it never saw, once for each network."""
    from octc.datasets.split import read_split
    from octc.train.evaluation.assess import evaluate_run, is_evaluated
    from octc.train.loop.checkpoint import read_checkpoint

    if place.accelerator.is_main_process:
        sha256 = read_checkpoint(run.path / "train")[0].sha256
        for part in (part for part in HELD_OUT if part in read_split(run.split).parts):
            if not is_evaluated(run, part, sha256):
                evaluate_run(run, place.root, part, device=place.accelerator.device, command="train --folds")
    place.accelerator.wait_for_everyone()


def _summarise(session: Session, asked: Request, job: str, count: int, place: Place) -> None:
    from octc.cli.train_folds_say import say_summary
    from octc.train.crossval.combine import read_fold
    from octc.train.crossval.files import write_summary

    runs = {fold: run for fold, run in members(session.run_dir, job).items() if is_done(run, replace(asked, qat=False))}
    session.run_id = job
    if lacking := [fold for fold in range(1, count + 1) if fold not in runs]:
        done = {fold: run.id for fold, run in runs.items()}
        session.report({"job": job, "done": done, "lacking": lacking, "scan": session.document.get("scan")})
        session.result("\n".join(str(run.path) for run in runs.values()))
        session.say(f"! no summary yet: fold {', '.join(map(str, lacking))} of {count} to be done here or copied here")
        return
    for run in runs.values():  # one that was copied here may have been trained alone
        _judge(session, run, place)
    folder = session.run_dir / job
    found = write_summary(folder, [read_fold(run) for _, run in sorted(runs.items())])
    session.report({"job": job, "folder": str(folder), "scan": session.document.get("scan"), **found})
    say_summary(session, found, folder)


def _say_dry(session: Session, asked: Request, splits: Sequence[Split], todo: Sequence[int], place: Place) -> None:
    from octc.cli.train_say import say_split

    for fold in todo:
        session.say(f"  fold {fold}")
        say_split(session, splits[fold - 1])
    document: dict[str, Any] = {
        "dry_run": True, "recipe": asdict(asked.recipe), "splits": [split.digest for split in splits], "todo": list(todo),
        "weights": place.weights,
        "scan": session.document.get("scan"),
    }  # fmt: skip
    session.report(document)
    session.result("dry run: nothing was written")
