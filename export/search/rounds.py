"""The rounds of a search: each trial is an ordinary run on the split that all share, begun or gone on with.

Several workers may share a search: each claims a trial before it trains it (`octc.store.claims`), and a claim ends with its
process, so that another worker goes on with the run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.core.faults import of_machine
from octc.core.files import read_json
from octc.datasets.split import Split
from octc.export.search.candidates import recipe_of
from octc.export.search.own import own_failure
from octc.export.search.select import Answers, Rung, Score, promoted
from octc.export.search.state import Book
from octc.schemas.logs import Owner
from octc.schemas.search import Candidate, Round, Trial
from octc.store.claims import PAUSE, claiming, divided
from octc.store.runs import Run, find_run, read_runs
from octc.train.evaluation.assess import complete
from octc.train.evaluation.outcome import FACTS, combined, newest_evaluation, read_predictions
from octc.train.jobs.job import Job
from octc.train.jobs.request import Request
from octc.train.jobs.run import Place, train_one
from octc.train.loop.checkpoint import is_checkpoint, read_checkpoint
from octc.train.recipes.config import Recipe
from octc.train.recipes.registry import stored_recipe


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
    for run, known in read_runs(run_dir, "student"):
        if known.get("job") != search:
            continue
        name, done = str(known.get("recipe", {}).get("name")), known.get("status") == "done"
        if name not in found or (done and not found[name][0]):
            found[name] = (done, run)
    return {name: run for name, (_, run) in found.items()}


def run_rounds(training: Training, book: Book, candidates: Mapping[str, Candidate], seconds: float | None) -> None:
    """Train what is left of every round together with the other workers of the search, until it is known who the finalists are;
    seconds: of the search, when no further trial begins."""
    plan = book.document.plan
    assert plan is not None
    rungs = [Rung(*pair) for pair in plan.rounds]
    while (number := _open_round(book, rungs)) is not None:
        _say_round(training, number, rungs, len(book.document.rounds[number].trials))
        if not _train_all(training, book, number, candidates, seconds):
            _cut_short(training, book, number)


def _open_round(book: Book, rungs: Sequence[Rung]) -> int | None:
    """The number of the round that has trials left. A round that is done is judged, by whoever comes first: who goes on follows
    from its trials alone. None: there are finalists."""
    with book.changing():
        rounds = book.document.rounds
        if rounds and any(trial.state == "finalist" for trial in rounds[-1].trials):
            return None
        names = [one.candidate.name for one in book.document.candidates if one.state == "kept"]
        if rounds:
            if _open_trials(book, len(rounds) - 1):
                return len(rounds) - 1
            mine, last = rounds[-1], len(rounds) == len(rungs)
            if all(trial.accuracy is None for trial in mine.trials):
                rounds.pop()  # given again it is tried again: memory may be free then
                book.save()
                raise _nothing_trained(mine)
            names = _judge(book, mine, 0 if last else rungs[len(rounds)].count)
            if last:
                return None
        epochs = rungs[len(rounds)].epochs
        rounds.append(Round(epochs=epochs, trials=[_new(name, epochs) for name in names]))
        return len(rounds) - 1


def _nothing_trained(mine: Round) -> OctcError:
    why = "; ".join(f"{trial.name}: {trial.why}" for trial in mine.trials[:3])
    return OctcError("OCT-E301", "no candidate could be trained", hint="octc train student alone shows why", why=why[:500])


def _open_trials(book: Book, number: int) -> list[str]:
    """Trials of a round that are not done; none where the round does not count any more."""
    rounds = book.document.rounds
    trials = rounds[number].trials if number < len(rounds) else []
    return [trial.name for trial in trials if trial.state == "running" and trial.accuracy is None]


def _new(name: str, epochs: int) -> Trial:
    return Trial(name=name, run=None, epochs=epochs, state="running", why="", accuracy=None, accuracy_ci95=None, loss=None)


def _say_round(training: Training, number: int, rungs: Sequence[Rung], count: int) -> None:
    epochs = rungs[number].epochs
    training.job.reporter.say(f"round {number + 1} of {len(rungs)}: {count} candidates, {epochs} epochs each")


def _train_all(training: Training, book: Book, number: int, candidates: Mapping[str, Candidate], seconds: float | None) -> bool:
    """Train trials of a round that nobody else is at until none is left to anybody; False where the time was up before."""
    epochs, said = book.document.rounds[number].epochs, set[str]()

    def left() -> list[str]:
        with book.looking():
            return _open_trials(book, number)

    def waits(others: Sequence[Owner]) -> None:
        words = ", ".join(f"process {one.pid} on {one.host}" for one in others)
        if words not in said:
            said.add(words)
            training.job.reporter.say(f"  waiting for trials of other workers: {words}")

    with closing(divided(left, lambda name: book.trial_claim(name, epochs), waits)) as names:
        for name in names:
            if seconds is not None and book.seconds > seconds and book.last_trials():
                return False
            with book.changing():
                pass  # who joins now knows how long the search has taken
            _train(training, book, number, candidates[name])
    return True


def _train(training: Training, book: Book, number: int, candidate: Candidate) -> None:
    """Train a trial that this worker has claimed, and write down what came of it."""
    epochs, run, failure = book.document.rounds[number].epochs, None, ""
    try:
        run = train_trial(training, book.document.search, candidate, epochs)
    except Exception as error:
        if (why := own_failure(error)) is None:
            raise
        failure = why
        training.job.reporter.say(f"! {candidate.name}: {failure}")
    with book.changing():
        trial = next(one for one in book.document.rounds[number].trials if one.name == candidate.name)
        if run is None:
            trial.state, trial.why = "failed", failure
        else:
            with _telling_what_to_do(book, trial):
                _fill(trial, run)


def _cut_short(training: Training, book: Book, number: int) -> None:
    """--hours is over: the round that was not finished does not count, what it began stays as runs. Trials of other workers are
    waited for: they may be all that was left of the round."""
    pause = PAUSE[0]
    while True:
        with book.changing():
            waiting = _open_trials(book, number)
            if not waiting:
                return
            epochs = book.document.rounds[number].epochs
            if not any(_is_claimed(book.trial_claim(name, epochs)) for name in waiting):
                _cut(training, book, number, waiting)
                return
        time.sleep(pause)
        pause = min(2 * pause, PAUSE[1])


def _is_claimed(path: Path) -> bool:
    with claiming(path) as claim:
        return isinstance(claim, Owner)


def _cut(training: Training, book: Book, number: int, waiting: Sequence[str]) -> None:
    left = book.document.rounds.pop(number) if number else book.document.rounds[0]
    if not number:
        left.trials[:] = [trial for trial in left.trials if trial.state != "running" or trial.accuracy is not None]
        _judge(book, left, 0)
    else:
        for trial in book.document.rounds[-1].trials:
            trial.state = "finalist" if trial.state == "promoted" else trial.state
    what = "left out" if not number else f"round {number + 1} does not count"
    book.note(f"--hours was over in round {number + 1}: {', '.join(waiting)} not trained in it, {what}")
    training.job.reporter.say(f"! {book.document.notes[-1]}")


def _judge(book: Book, mine: Round, keep: int) -> list[str]:
    """Who of a round goes on; keep 0: it is the last one, and all are finalists."""
    scores = [Score(t.name, _ms(book, t.name), t.accuracy, _loss(t)) for t in mine.trials if t.accuracy is not None]
    names = promoted(scores, keep or len(scores))
    for trial in (trial for trial in mine.trials if trial.accuracy is not None):
        trial.state = "finalist" if not keep else "promoted" if trial.name in names else "out"
    return names


def _loss(trial: Trial) -> float:
    return math.inf if trial.loss is None else trial.loss


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
    if before is not None and before.read().get("status") == "done" and is_checkpoint(before.path / "train"):
        training.job.reporter.say(f"✓ {candidate.name}   {before.id} is done")
        complete(before, training.place.samples.root, training.place.accelerator.device)
        return before
    asked = replace(training.asked, recipe=recipe, job=search, member=True)
    if before is not None:
        asked = replace(asked, resume=before, recipe=stored_recipe(before.read()["recipe"]))
    return train_one(training.job, asked, training.place, split=training.split).runs[0]


@contextmanager
def _telling_what_to_do(book: Book, trial: Trial) -> Iterator[None]:
    """The run of a trial that is gone or damaged is found so every time: its error says how the search goes on."""
    try:
        yield
    except OctcError as error:
        if of_machine(error) is not None:
            raise
        text = f"the run of {trial.name}, a candidate of this search, cannot be used: {error.message}"
        hint = f"restore it; or move it and {book.path} elsewhere, and give the command again: it alone is trained anew"
        raise OctcError(error.code, text, hint=hint, place=error.place, why=error.why) from error


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
        with _telling_what_to_do(book, trial):
            found = read_predictions(_evaluation(find_run(run_dir, str(trial.run))))
        images = list(zip(found.sums, found.paths, strict=True))
        order = order or images
        where = {one: k for k, one in enumerate(images)}
        places = [where[one] for one in order]
        right: npt.NDArray[np.bool_] = (combined(found)[0].argmax(1) == np.asarray(found.labels))[places]
        patients = [found.patients[k] for k in places]
        answers.append(Answers(Score(trial.name, _ms(book, trial.name), float(right.mean()), _loss(trial)), right))
    return answers, patients, trials
