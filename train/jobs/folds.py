"""A cross-validation as one job that goes on when the same request is made again.

Every fold is a run of its own, known by what it was asked for, not by where or when it was made: another machine may do one
(`--fold I`), and its folder is copied beside the others. The summary is made from the runs' stored answers alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from octc.core.errors import OctcError, combined, shorten
from octc.core.faults import of_machine, out_of_memory
from octc.core.files import canonical_json, sha256_bytes, sha256_file
from octc.datasets.base import Samples
from octc.datasets.split import Split, read_split
from octc.store.runs import Run, read_runs
from octc.store.test_set_log import PARTS
from octc.train.crossval.combine import read_fold
from octc.train.crossval.files import write_summary
from octc.train.evaluation.assess import evaluate_run, is_evaluated
from octc.train.jobs.data import check_calibration, new_splits
from octc.train.jobs.job import Job, Trained
from octc.train.jobs.lending import check_lender
from octc.train.jobs.lines import say_split
from octc.train.jobs.memory import free_memory
from octc.train.jobs.request import NONE, Request, as_teacher
from octc.train.jobs.resume import check_again
from octc.train.jobs.run import Place, told, train_one
from octc.train.jobs.teachers import fitting
from octc.train.loop.checkpoint import is_checkpoint, read_checkpoint
from octc.train.networks.lent import is_lent
from octc.train.recipes.config import told as facts_of_recipe
from octc.train.recipes.registry import stored_recipe

KEY = 8  # digits of a job's name
OWN = ("OCT-E301", "OCT-E302", "OCT-E303")  # not finite, memory: what one fold alone may meet


def train_folds(job: Job, asked: Request, place: Place, dry_run: bool = False) -> list[Trained]:
    """All folds that are not done, or the one that is asked for; the summary where all are there.

    Raises:
        OctcError: E107 a fold has no teacher (all such folds are named, before any work), E108 another process does one; E301,
            E302, E303 folds that failed, when the others are done.
    """
    splits = new_splits(asked, place.samples)
    if asked.fold is not None and asked.fold > len(splits):
        raise OctcError("OCT-E104", f"--fold {asked.fold} of {len(splits)}", hint=f"1 to {len(splits)}", place="--fold")
    asked = replace(asked, folds=len(splits))
    check_calibration(asked, *splits)
    requests = [as_teacher(asked)] if asked.kind == "student" and asked.with_teacher else []
    return [_train_job(job, one, place, splits, dry_run) for one in (*requests, asked)]


def job_of(asked: Request, samples: Samples) -> str:
    """The name of a job: all that decides its results, and not which machine does which fold."""
    file = asked.options.weights
    weights = None if file is None else sha256_file(file) if file.is_file() else str(file)
    facts = {
        "kind": asked.kind,
        "dataset": asked.dataset,
        "data": samples.digest,
        "recipe": facts_of_recipe(asked.recipe),
        "seed": asked.seed,
        "folds": asked.folds,
        "protocol": asked.protocol,
        "taught": asked.teacher != NONE,
        "weights": weights,
        **({"patients": samples.rule} if samples.rule else {}),
        **({"allow_empty": samples.may_lack} if samples.may_lack else {}),
        **({"leave_out": asked.leave_out} if asked.leave_out else {}),
    }
    return f"cv-{asked.kind}-{asked.dataset}-{sha256_bytes(canonical_json(facts))[:KEY]}"


def _train_job(job: Job, asked: Request, place: Place, splits: Sequence[Split], dry_run: bool) -> Trained:
    name = job_of(asked, place.samples)
    wanted = [asked.fold] if asked.fold is not None else list(range(1, len(splits) + 1))
    main = place.accelerator.is_main_process
    known: dict[int, Run] = told(place.accelerator, members(job.run_dir, name) if main else None)
    for fold in (fold for fold in wanted if fold in known):
        check_again(known[fold], asked.request, allow_change=asked.options.allow_change)
    ready = {fold: run for fold, run in known.items() if is_done(run, asked)}
    todo = [fold for fold in wanted if fold not in ready]
    job.reporter.say(f"octc train {asked.kind} · {len(splits)} folds · job {job.run_dir / name}")
    for fold in wanted:
        if fold in ready:
            job.reporter.say(f"✓ fold {fold}    {ready[fold].id} is done")
        elif fold in known:
            job.reporter.say(f"  fold {fold}    {known[fold].id} goes on ({known[fold].read().get('status')})")
    _check_teachers(job, asked, splits, [fold for fold in todo if fold not in known], dry_run, len(place.samples.classes))
    if dry_run:
        return _plan(job, asked, splits, todo, place)
    failed = []
    for fold in todo:
        done = _fold(job, replace(asked, fold=fold, job=name, member=True), place, splits[fold - 1], known.get(fold))
        if isinstance(done, Run):
            ready[fold] = done
        else:
            failed.append(done)
    for fold in (fold for fold in wanted if fold in ready):
        _judge(ready[fold], place)
    if failed:
        raise combined(failed)
    found = _summarise(job, asked, name, len(splits), place) if main else Trained()
    place.accelerator.wait_for_everyone()
    return found


def members(run_dir: Path, name: str) -> dict[int, Run]:
    """The run of each fold of a job: a finished one where there is one, else the newest."""
    found: dict[int, tuple[bool, Run]] = {}
    for run, known in read_runs(run_dir):
        if known.get("job") != name or not known.get("fold"):
            continue
        fold, done = int(known["fold"][0]), known.get("status") == "done"
        if fold not in found or (done and not found[fold][0]):
            found[fold] = (done, run)
    return {fold: run for fold, (_, run) in sorted(found.items())}


def is_done(run: Run, asked: Request) -> bool:
    """Whether nothing of the run is left to do (a tuning that is asked for now may be)."""
    tuned = asked.kind != "student" or not asked.qat or is_checkpoint(run.path / "qat")
    return bool(run.read().get("status") == "done" and is_checkpoint(run.path / "train") and tuned)


def _check_teachers(
    job: Job, asked: Request, splits: Sequence[Split], folds: Sequence[int], dry_run: bool, classes: int
) -> None:
    """F05: every fold that is to be begun has its teacher, which can lend where that is asked for, before the first one is
    trained."""
    if asked.kind == "teacher" or asked.teacher is not None or (dry_run and asked.with_teacher):
        return
    found = {fold: fitting(job, asked, splits[fold - 1]) for fold in folds}
    lacking = [str(fold) for fold, run in found.items() if run is None]
    if lacking:
        text = f"no successful teacher of recipe {asked.recipe.name} for fold {shorten(lacking)} of {len(splits)}"
        words = f"--dataset {asked.dataset} --recipe {asked.recipe.name} {asked.folds_option}"
        hint = f"octc train teacher {words}; or --with-teacher; or --teacher none"
        raise OctcError("OCT-E107", text, hint=hint, place=str(job.run_dir))
    if is_lent(asked.options.weights):
        for run in (run for run in found.values() if run is not None):
            check_lender(asked, run.path / "train", classes)


def _fold(job: Job, asked: Request, place: Place, split: Split, before: Run | None) -> Run | OctcError:
    """Begin a fold, or go on with it: with its own recipe, whose batch may have been halved.

    Returns: its run; or why it failed by itself, after which the others are trained all the same: a loss that is not finite,
        memory that is short. Anything else is raised: the others would meet it too.
    """
    if before is not None:
        asked = replace(asked, resume=before, recipe=stored_recipe(before.read()["recipe"]))
    try:
        return train_one(job, asked, place, split=split).runs[0]
    except Exception as error:
        told = error if isinstance(error, OctcError) else of_machine(error)
        own = told is not None and (told.code in OWN or out_of_memory(told))
        if told is None or not own or place.accelerator.num_processes > 1:
            raise
        text = f"fold {asked.fold} of {asked.folds}: {told.message}"
        failed = OctcError(told.code, text, hint=f"{told.hint}; the same command goes on", place=told.place, why=told.why)
    job.reporter.say(f"! {failed.code}: {failed.message}")
    free_memory()
    return failed


def _judge(run: Run, place: Place) -> None:
    """The answers of a fold's network on what it never saw, once for each network."""
    if place.accelerator.is_main_process:
        sha256 = read_checkpoint(run.path / "train")[0].sha256
        for part in (part for part in PARTS if part in read_split(run.split).parts):
            if not is_evaluated(run, part, sha256):
                evaluate_run(run, place.samples.root, part, device=place.accelerator.device, command="train --folds")
    place.accelerator.wait_for_everyone()


def _summarise(job: Job, asked: Request, name: str, count: int, place: Place) -> Trained:
    runs = {fold: run for fold, run in members(job.run_dir, name).items() if is_done(run, replace(asked, qat=False))}
    job.run_id = name
    scan = job.document.get("scan")
    if lacking := [fold for fold in range(1, count + 1) if fold not in runs]:
        done = {fold: run.id for fold, run in runs.items()}
        job.document = {"job": name, "done": done, "lacking": lacking, "scan": scan}
        return Trained(runs=tuple(runs.values()), lacking=tuple(lacking), folds=count, speaks=place.accelerator.is_main_process)
    for run in runs.values():  # one that was copied here may have been trained alone
        _judge(run, place)
    folder = job.run_dir / name
    found = write_summary(folder, [read_fold(run) for _, run in sorted(runs.items())])
    job.document = {"job": name, "folder": str(folder), "scan": scan, **found}
    return Trained(
        runs=tuple(runs.values()), folder=folder, summary=found, folds=count, speaks=place.accelerator.is_main_process
    )


def _plan(job: Job, asked: Request, splits: Sequence[Split], todo: Sequence[int], place: Place) -> Trained:
    for fold in todo:
        job.reporter.say(f"  fold {fold}")
        say_split(job.reporter, splits[fold - 1])
    job.document = {
        "dry_run": True,
        "recipe": asdict(asked.recipe),
        "splits": [split.digest for split in splits],
        "todo": list(todo),
        "weights": place.weights,
        "scan": job.document.get("scan"),
    }
    return Trained(dry=True)
