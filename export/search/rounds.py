"""The rounds of a search: each trial is an ordinary run on the split that all share, begun or gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.datasets.split import Split
from octc.export.search.candidates import recipe_of
from octc.export.search.select import Answers, Rung, Score, promoted
from octc.export.search.state import Book
from octc.schemas.search import Candidate, Round, Trial
from octc.store.runs import Run, find_run, scan_runs
from octc.train.evaluation.outcome import FACTS, combined, newest_evaluation, read_predictions
from octc.train.jobs.job import Job
from octc.train.jobs.request import Request
from octc.train.jobs.run import Place, train_one
from octc.train.loop.checkpoint import META, read_checkpoint
from octc.train.recipes.config import Recipe
from octc.train.recipes.registry import stored_recipe

# a training that ends so is out, and the others go on: not finite, short of memory, no such network, no start weights
FATAL = ("OCT-E301", "OCT-E302", "OCT-E307", "OCT-E310")


@dataclass(frozen=True)
class Training:
    """What every trial shares: the job, the request without its recipe, the images, the split, the recipe they derive from."""

    job: Job
    asked: Request
    place: Place
    split: Split
    base: Recipe
    views: int


def trial_runs(run_dir: Path, search: str) -> dict[str, Run]:
    """Name of the recipe -> run of this search; a finished one where there is one, else the newest."""
    found: dict[str, tuple[bool, Run]] = {}
    for run in scan_runs(run_dir, "student"):
        known = run.read()
        if known.get("job") != search:
            continue
        name, done = str(known.get("recipe", {}).get("name")), known.get("status") == "done"
        if name not in found or (done and not found[name][0]):
            found[name] = (done, run)
    return {name: run for name, (_, run) in found.items()}


def run_rounds(training: Training, book: Book, candidates: Mapping[str, Candidate], seconds: float | None) -> None:
    """Train what is left of every round, and write down who goes on; seconds: when no further trial begins."""
    plan = book.document.plan
    assert plan is not None
    rungs = [Rung(*pair) for pair in plan.rounds]
    rounds = book.document.rounds
    names = [one.candidate.name for one in book.document.candidates if one.state == "kept"]
    for number, rung in enumerate(rungs):
        if number == len(rounds):
            rounds.append(Round(epochs=rung.epochs, trials=[_new(name, rung.epochs) for name in names]))
        mine = rounds[number]
        last = number + 1 == len(rungs)
        if any(trial.state == "running" for trial in mine.trials):
            _say_round(training, number, rungs, len(mine.trials))
            if not _train_all(training, book, mine, candidates, seconds):
                _cut_short(training, book, number)
                return
        if all(trial.accuracy is None for trial in mine.trials):
            why = "; ".join(f"{trial.name}: {trial.why}" for trial in mine.trials[:3])
            raise OctcError(
                "OCT-E301", "no candidate could be trained", hint="octc train student alone shows why", why=why[:500]
            )
        names = _judge(book, mine, 0 if last else rungs[number + 1].count)
        book.save()


def _new(name: str, epochs: int) -> Trial:
    return Trial(name=name, run=None, epochs=epochs, state="running", why="", accuracy=None, accuracy_ci95=None, loss=None)


def _say_round(training: Training, number: int, rungs: Sequence[Rung], count: int) -> None:
    epochs = rungs[number].epochs
    training.job.reporter.say(f"round {number + 1} of {len(rungs)}: {count} candidates, {epochs} epochs each")


def _train_all(training: Training, book: Book, mine: Round, candidates: Mapping[str, Candidate], seconds: float | None) -> bool:
    """Train the trials of a round that are not done; False where the time was up before."""
    for trial in (trial for trial in mine.trials if trial.state == "running"):
        if seconds is not None and book.seconds > seconds and book.last_trials():
            return False
        try:
            run = train_trial(training, book.document.search, candidates[trial.name], trial.epochs)
        except OctcError as error:
            if error.code not in FATAL:
                raise
            trial.state, trial.why = "failed", f"{error.code}: {error.message}"
            training.job.reporter.say(f"! {trial.name}: {trial.why}")
        else:
            _fill(trial, run)
        book.save()
    return True


def _cut_short(training: Training, book: Book, number: int) -> None:
    """--hours is over: the round that was not finished does not count, what it began stays as runs."""
    left = book.document.rounds.pop(number) if number else book.document.rounds[0]
    waiting = [trial.name for trial in left.trials if trial.state == "running"]
    if not number:
        left.trials[:] = [trial for trial in left.trials if trial.state != "running"]
        _judge(book, left, 0)
    else:
        for trial in book.document.rounds[-1].trials:
            trial.state = "finalist" if trial.state == "promoted" else trial.state
    what = "left out" if not number else f"round {number + 1} does not count"
    book.note(f"--hours was over in round {number + 1}: {', '.join(waiting)} not trained in it, {what}")
    training.job.reporter.say(f"! {book.document.notes[-1]}")
    book.save()


def _judge(book: Book, mine: Round, keep: int) -> list[str]:
    """Who of a round goes on; keep 0: it is the last one, and all are finalists."""
    scores = [Score(t.name, _ms(book, t.name), t.accuracy, t.loss or 0.0) for t in mine.trials if t.accuracy is not None]
    names = promoted(scores, keep or len(scores))
    for trial in (trial for trial in mine.trials if trial.accuracy is not None):
        trial.state = "finalist" if not keep else "promoted" if trial.name in names else "out"
    return names


def _ms(book: Book, name: str) -> float:
    """The time of a candidate on the engine that was chosen for it."""
    known = book.measured(name)
    ms = next(timing.ms for timing in known.timings if timing.target == known.chosen)
    assert ms is not None
    return ms


def train_trial(training: Training, search: str, candidate: Candidate, epochs: int) -> Run:
    """The finished run of a candidate with so many epochs: found, gone on with, or begun."""
    recipe = recipe_of(candidate, training.base, epochs, training.views)
    before = trial_runs(training.job.run_dir, search).get(recipe.name)
    if before is not None and before.read().get("status") == "done" and (before.path / "train" / META).is_file():
        training.job.reporter.say(f"✓ {candidate.name}   {before.id} is done")
        return before
    asked = replace(training.asked, recipe=recipe, job=search, member=True)
    if before is not None:
        asked = replace(asked, resume=before, recipe=stored_recipe(before.read()["recipe"]))
    return train_one(training.job, asked, training.place, split=training.split).runs[0]


def _fill(trial: Trial, run: Run) -> None:
    """What the evaluation of a run on validation says."""
    metrics: dict[str, Any] = read_json(_evaluation(run) / FACTS)["figures"]
    interval = metrics.get("accuracy_patient_bootstrap_95") or metrics.get("accuracy_wilson_95")
    trial.run, trial.accuracy, trial.loss = run.id, metrics["accuracy"], metrics["loss"]
    trial.accuracy_ci95 = None if interval is None else list(interval)


def _evaluation(run: Run) -> Path:
    sha256 = read_checkpoint(run.path / "train")[0].sha256
    return newest_evaluation(run.path, "val", sha256=sha256)


def read_answers(book: Book, run_dir: Path) -> tuple[list[Answers], list[str | None], list[Trial]]:
    """Right answers of the finalists on the validation images, in one order, with the patients; and their trials."""
    trials = [trial for trial in book.document.rounds[-1].trials if trial.state == "finalist" and trial.run is not None]
    answers: list[Answers] = []
    patients: list[str | None] = []
    order: list[tuple[str, str]] = []
    for trial in trials:
        found = read_predictions(_evaluation(find_run(run_dir, str(trial.run))))
        images = list(zip(found.sums, found.paths, strict=True))
        order = order or images
        where = {one: k for k, one in enumerate(images)}
        places = [where[one] for one in order]
        right: npt.NDArray[np.bool_] = (combined(found)[0].argmax(1) == np.asarray(found.labels))[places]
        patients = [found.patients[k] for k in places]
        answers.append(Answers(Score(trial.name, _ms(book, trial.name), float(right.mean()), trial.loss or 0.0), right))
    return answers, patients, trials
