"""The end of a search: who wins, its tuning and files, one look at the test set, the commands that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from octc.bench.parity.document import both
from octc.bench.parity.verify import verify_artifact
from octc.compress.jobs import new_job
from octc.core.data_options import DataOptions
from octc.core.errors import OctcError
from octc.core.faults import of_machine
from octc.core.files import write_json
from octc.core.options import keys_of
from octc.core.targets import TARGETS
from octc.export.run import ExportOptions, export_run, plan_export
from octc.export.search.measure import Target, timing_of
from octc.export.search.own import own_failure
from octc.export.search.rounds import Training, read_answers
from octc.export.search.select import Budget, Choice, Cost, choose, over_budget
from octc.export.search.state import Book
from octc.schemas.search import Candidate, Finalist, SearchOptions, Winner
from octc.schemas.training import StudentOptions
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import WORDS
from octc.store.artifacts import MANIFEST, artifact_sha256, file_bytes, read_artifact
from octc.store.find import Found
from octc.store.runs import Run, find_run
from octc.store.verdicts import read_verdict
from octc.train.jobs.request import make_requests
from octc.train.jobs.start import run_training
from octc.train.loop.checkpoint import is_checkpoint

RECIPE = "winner.json"
RUNS = Path("runs")  # where every command looks unasked
OVER = "the trained winner is over the budget"
GATE = "OCT-E405"
REFERENCE = ("onnx", "fp32")  # that a verification compares with
CORRECTION = (
    "Chosen on validation among {count} candidates, so the validation accuracy of the winner is optimistic, and {tests} "
    "comparisons with the best one are not corrected for their number. The test set took no part in the choice: it was read "
    "for one artifact and with margins that were fixed before, once, so its result needs no correction."
)


def choose_winner(book: Book, run_dir: Path, margin: float) -> Choice:
    """Compare the finalists on validation, and write down what came of it."""
    answers, patients, trials = read_answers(book, run_dir)
    found = choose(answers, patients, margin / 100)
    known = {trial.name: trial for trial in trials}
    rows = []
    for one, beside in zip(answers, found.rows, strict=True):
        trial, pair = known[one.score.name], beside.pair
        rows.append(
            Finalist(
                name=trial.name,
                run=str(trial.run),
                ms=one.score.ms,
                accuracy=one.score.accuracy,
                accuracy_ci95=trial.accuracy_ci95,
                difference_pp=0.0 if pair is None else 100 * pair.difference,
                difference_ci95_pp=None if pair is None else both(pair.deciding),
                non_inferior=beside.non_inferior,
                n=len(one.right),
                patients=len({p for p in patients if p is not None}) or None,
            )
        )
    book.document.finalists = rows
    counted = sum(one.state == "kept" for one in book.document.candidates)
    book.document.correction = CORRECTION.format(count=counted, tests=max(0, len(rows) - 1))
    book.save()
    return found


def finish(training: Training, book: Book, target: Target | None, options: SearchOptions, budget: Budget) -> None:
    """Tune, export and verify the winner; where the gate refuses its INT8, or it cannot be tuned or exported here, the next
    fastest takes its place, and it is said.

    target: where the candidates were measured; None: not here, and the winner's own file is not timed.

    Raises:
        OctcError: E405 the gate refused all of them; what the export of the teacher and the verification raise.
    """
    choice = choose_winner(book, training.job.run_dir, options.margin)
    for teacher in _teacher(training):
        _export_missing(training, teacher, REFERENCE, None)
    errors: list[OctcError] = []
    for name in choice.order:
        candidate = book.measured(name).candidate
        run = find_run(training.job.run_dir, next(one.run for one in book.document.finalists if one.name == name))
        try:
            folder = _export(training, book, candidate, _tuned(training, candidate, run), options)
        except Exception as error:
            if (why := own_failure(error)) is None:
                raise
            told = error if isinstance(error, OctcError) else of_machine(error)
            errors += [told] if told is not None else []
            gate = isinstance(error, OctcError) and error.code == GATE
            line = f"{name}: {'refused by the gate of' if gate else 'left out in its tuning or'} its export ({why})"
            book.document.refused += [] if line in book.document.refused else [line]
            training.job.reporter.say(f"! {line}")
            continue
        _write_winner(training, book, candidate, run, folder, target, options, budget)
        return
    raise errors[0]


def _tuned(training: Training, candidate: Candidate, run: Run) -> Run:
    """The run with its quantisation-aware stage, as `octc train student --resume RUN --qat --allow-change` makes it."""
    if candidate.precision != "int8" or (is_checkpoint(run.path / "qat") and run.read().get("status") == "done"):
        return run
    job = training.job
    begun = bool((run.read().get("request") or {}).get("qat"))  # this tuning was begun before, and goes on as it is
    origins = {"qat": "argument", "allow_change": "argument", "resume": "argument"}
    mine = new_job(job.run_dir, job.data, job.reporter, origins=origins)
    asked = training.asked.options
    options = StudentOptions(
        resume=str(run.path),
        qat=True,
        allow_change=not begun,
        device=asked.device,
        fetch_weights=asked.fetch_weights,
        any_teacher=bool(getattr(asked, "any_teacher", False)),
    )
    job.reporter.say(f"tuning {candidate.name} ({run.id}) for INT8")
    (request,) = make_requests(mine, "student", options)
    run_training(mine, request)
    return run


def _export(training: Training, book: Book, candidate: Candidate, run: Run, options: SearchOptions) -> Path:
    """The artifact of a run, and an FP32 one of it to compare with; those that are there are left."""
    name, gate = str(book.measured(candidate.name).chosen), margins(options)
    for pair in ((name, candidate.precision), REFERENCE):
        _export_missing(training, run, pair, gate if pair[1] == "int8" else None)
    return run.artifacts / f"{name}-{candidate.precision}"


def _export_missing(training: Training, run: Run, pair: tuple[str, str], gate: ParityOptions | None) -> None:
    if (run.artifacts / "-".join(pair) / MANIFEST).is_file():
        return
    how = ExportOptions(data=training.job.data)
    found = export_run(run, plan_export(run, [pair[0]], pair[1], how), how, gate, reporter=training.job.reporter)
    if (failure := found.failure) is not None:
        raise failure


def _teacher(training: Training) -> list[Run]:
    """The run of the teacher, where it is one."""
    name = training.asked.teacher
    return [find_run(training.job.run_dir, name)] if name is not None and (Path(name) / "run.json").is_file() else []


def _write_winner(
    training: Training,
    book: Book,
    candidate: Candidate,
    run: Run,
    folder: Path,
    target: Target | None,
    options: SearchOptions,
    budget: Budget,
) -> None:
    """Measure the file itself, look at the test set once, and write down the winner with its recipe."""
    found = Found(folder, read_artifact(folder))
    timing = None if target is None else timing_of(found, target)
    if timing is None:
        measured = book.document.device["on"] or book.document.device["host"]
        engines = ", ".join(f"{TARGETS[name].title} {version}" for name, version in book.document.device["engines"].items())
        why = f"no worker was on the device that was measured ({measured}, with {engines})"
        book.note(f"the winner's own file was not timed: {why}")
    recipe = book.folder / RECIPE
    write_json(recipe, run.read()["recipe"])
    trial = next(one for one in book.document.finalists if one.name == candidate.name)
    within = None
    if timing is not None and timing.ms is not None and timing.ms_ci95 is not None:
        low, high = timing.ms_ci95
        cost = Cost(candidate.name, timing.ms, low, high, timing.bytes, 0, timing.mj)
        why = over_budget(cost, budget)
        within = not why
        book.document.notes = [note for note in book.document.notes if not note.startswith(OVER)]  # of a time before this one
        if why:
            book.note(f"{OVER}: {why}")
    book.document.winner = Winner(
        name=candidate.name,
        run=run.id,
        artifact=str(folder),
        target=found.artifact.target,
        precision=candidate.precision,
        recipe=str(recipe),
        ms=None if timing is None else timing.ms,
        ms_ci95=None if timing is None else timing.ms_ci95,
        bytes=file_bytes(found.artifact),
        validation_accuracy=trial.accuracy,
        test=None,
        within_budget=within,
    )
    book.document.commands = commands(training, book, candidate, found.artifact.target, options)
    book.save()
    book.document.winner.test = _tested(training, folder, options)
    book.save()


def _tested(training: Training, folder: Path, options: SearchOptions) -> dict[str, Any] | None:
    """What `octc verify` says on test, planned; where it said so before, that (the set is looked at once)."""
    if (known := _verdict(folder)) is None:
        found = verify_artifact(
            folder,
            data=training.job.data,
            gate=margins(options),
            run_dir=training.job.run_dir,
            reporter=training.job.reporter,
        )
        found.write()
        known = _verdict(folder)
    return None if known is None else facts_of_test(known)


def _verdict(folder: Path) -> dict[str, Any] | None:
    """What was found first for this very artifact on test: as planned, else exploratory; None: nobody looked."""
    found = read_verdict(folder, artifact_sha256(folder)) or {}
    verdicts: list[dict[str, Any] | None] = [found.get("test"), *found.get("exploratory", ())]
    return next((one for one in verdicts if one is not None), None)


def margins(options: SearchOptions) -> ParityOptions:
    """Of the gate and of the verdict on test; that of each class's sensitivity is as wide beside `margin` as by default."""
    usual = ParityOptions()
    beside = min(99.0, max(usual.class_margin, usual.class_margin / usual.margin * options.margin))
    return ParityOptions(margin=options.margin, class_margin=beside)


def facts_of_test(document: Mapping[str, Any]) -> dict[str, Any]:
    """Word, images, accuracies and the interval of each claim of a verdict."""
    claims = []
    for one in (document, *document.get("claims", ())):  # the document is its first claim, with the others in it
        known, verdict = one.get("accuracy") or {}, one.get("verdict") or {}
        accuracy = {name: known.get(name) for name in ("reference", "candidate", "difference_pp", "deciding")}
        code = _code_of(verdict) if verdict.get("exit_code") else None
        claims.append({"against": one.get("against"), "word": verdict.get("word"), "code": code, "accuracy": accuracy})
    return {"word": document["verdict"]["word"], "exploratory": document["verdict"]["exploratory"], "claims": claims}


def _code_of(verdict: Mapping[str, Any]) -> str:
    """The code of the worst part of a verdict that does not hold."""
    worst = sorted((WORDS.index(part["word"]), str(part["code"])) for part in verdict.get("parts", ()) if not part["holds"])
    return worst[0][1] if worst else "OCT-E705"


def failures(document: Mapping[str, Any]) -> Iterator[OctcError]:
    """What of an answer does not hold: the winner's own file over the budget (E604), its verdict on test (as `octc verify`)."""
    winner = document.get("winner")
    if winner is None:
        return
    if winner["within_budget"] is False:
        text = next((note for note in document["notes"] if note.startswith(OVER)), OVER)
        hint = "octc bench on a quiet machine; or a larger --budget, which is another search and finds what was measured"
        yield OctcError("OCT-E604", text, hint=hint, place=str(winner["artifact"]))
    for claim in (winner["test"] or {}).get("claims", ()):
        if claim.get("code"):
            text = f"the winner, {winner['name']}, on test: {str(claim['word']).replace('_', ' ')} against {claim['against']}"
            hint = f"octc report, or octc verify {winner['artifact']}: what was shown; octc explain {claim['code']}"
            yield OctcError(claim["code"], text, hint=hint, place=str(winner["artifact"]))
            return  # those after it were not tested


def commands(training: Training, book: Book, candidate: Candidate, target: str, options: SearchOptions) -> list[str]:
    """The three commands that make the winner again: the last run with its tuning, the file, the verdict."""
    asked = training.asked
    runs = "" if training.job.run_dir == RUNS else f" --run-dir {shlex.quote(str(training.job.run_dir))}"
    where = f" --data {shlex.quote(training.job.data)}" if training.job.data else ""
    read = {name: value for name in keys_of(DataOptions) if (value := getattr(options, name)) is not None}
    where += "".join(f" --{name.replace('_', '-')} {shlex.quote(value)}" for name, value in read.items()) + runs
    rest = " --any-teacher" if options.any_teacher else ""
    rest += " --fetch-weights" if options.fetch_weights else ""
    rest += "" if candidate.precision == "int8" else " --no-qat"
    rest += "" if options.device == "auto" else f" --device {options.device}"
    recipe = shlex.quote(str(book.folder / RECIPE))
    gate = margins(options)
    stated = f" --margin {gate.margin:g} --class-margin {gate.class_margin:g}"
    train = f"octc train student --dataset {asked.dataset}{where} --recipe {recipe} --teacher {shlex.quote(str(asked.teacher))}"
    return [
        f"{train} --seed {options.seed}{rest}",
        f"octc export --target {target} --{candidate.precision}{stated if candidate.precision == 'int8' else ''}{runs}",
        f"octc verify{stated}{runs}",
    ]
