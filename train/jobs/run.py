"""Run a training request: data, split, teachers, run folder, stages."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from octc.core.errors import OctcError, shorten
from octc.core.files import parse_json
from octc.core.progress import Warnings
from octc.datasets.base import Samples
from octc.datasets.registry import find_root
from octc.datasets.split import Split
from octc.datasets.tree import has_file, has_folder
from octc.schemas.training import SEED
from octc.store.locations import image_root
from octc.store.runs import Run, create_run, owning
from octc.train.evaluation.assess import complete
from octc.train.jobs.data import check_calibration, eye_split, scan_and_check, split_for, write_lock
from octc.train.jobs.foreign_teacher import is_foreign, judge
from octc.train.jobs.job import Job, Trained
from octc.train.jobs.lending import check_pair, say_lent
from octc.train.jobs.lines import say_fit, say_outcome, say_plan, say_tuned
from octc.train.jobs.memory import LEAST, halved, too_large
from octc.train.jobs.progress import StageProgress
from octc.train.jobs.request import Request
from octc.train.jobs.resume import REQUEST
from octc.train.jobs.teachers import (
    Teacher,
    check_eye_teacher,
    check_teachers,
    choose_second,
    choose_teacher,
    more_teachers,
)
from octc.train.jobs.use import check_start, check_taught
from octc.train.loop.checkpoint import Checkpoint, is_checkpoint
from octc.train.loop.memory import keep_memory
from octc.train.loop.processes import make_accelerator, torch_lent
from octc.train.networks.lent import is_lent
from octc.train.networks.weights import RANDOM, check_weights
from octc.train.recipes.crossmodal import OTHER
from octc.train.recipes.registry import stored_recipe
from octc.train.stages import Context
from octc.train.tasks import TRAININGS

EXPORTS = "octc export && octc verify && octc bench"


@dataclass(frozen=True)
class Place:
    """The surroundings of a training: scanned images, their folder, the processes, and facts about `--weights FILE`."""

    samples: Samples
    root: Path
    accelerator: Accelerator
    weights: dict[str, Any] | None = None


@dataclass(frozen=True)
class Prepared:
    """A request with everything that it depends on.

    Attributes:
        teachers: the first one, and those beside it. second: that of the second student of mutual learning.
        whole: digest of the split over both modalities, where there are two.
        lent: what was found of weights that the teacher lends.
        changes: of a run that goes on, which were allowed and are not written down yet.
    """

    asked: Request
    split: Split
    teachers: tuple[Teacher, ...] = ()
    second: Teacher | None = None
    whole: str | None = None
    lent: dict[str, Any] | None = None
    changes: tuple[str, ...] = ()


def open_place(job: Job, asked: Request, *, keep: bool = True) -> Place:
    """Find, scan and check the images, choose the device, check start weights: everything that can be refused before any work.

    keep: store a patient rule that was given or asked for, for later commands on these images.
    """
    check_start(asked)
    keep_memory()
    accelerator = make_accelerator(asked.options.device, asked.options.precision)
    if not accelerator.is_main_process:
        job.reporter = Warnings(job.reporter)
    if accelerator.num_processes > 1 and not asked.task.exclusive:
        text = f"{accelerator.num_processes} processes: cross-modal distillation trains in one"
        raise OctcError("OCT-E104", text, hint="start octc train retnet-... without torchrun")
    if asked.resume is None:
        root = find_root(asked.dataset, job.data, os.environ)
    else:
        root = image_root(asked.resume, job.data, os.environ)
        table = Path(job.data or str(asked.resume.read().get("data_place")))
        root = table if has_file(table) or (asked.options.image_root and has_folder(table)) else root
    samples = scan_and_check(job, asked, root, keep=keep)
    stages = [asked.recipe.teacher] if asked.kind == "teacher" or asked.with_teacher else []
    stages += [asked.recipe.student] if asked.kind == "student" else []
    weights = None
    if is_lent(asked.options.weights):
        weights = check_pair(asked, len(samples.classes))
        stages = []
    for stage in stages:  # all of them before the first one is trained
        weights = _checked_weights(job, asked, stage, len(samples.classes))
    return Place(samples, root, accelerator, weights)


def _checked_weights(job: Job, asked: Request, stage: Any, classes: int) -> dict[str, Any] | None:
    """Read the file of `--weights` completely, as the training will, and report how it fits; None if no file is given.

    Raises:
        OctcError: of `octc.train.networks.weights.start_weights`.
    """
    file = asked.options.weights
    if file is None or str(file) == RANDOM:
        return None
    found = check_weights(stage, classes, file)
    job.reporter.say(f"✓ weights   {file} fits {stage.model} (sha256 {found['sha256'][:8]})")
    say_fit(job.reporter, found)
    return found


def train_one(
    job: Job,
    asked: Request,
    place: Place,
    *,
    split: Split | None = None,
    teacher: Run | None = None,
    dry_run: bool = False,
) -> Trained:
    """Train one run, new or resumed. split: of a fold. teacher: a run that was just trained."""
    job.dry_run = dry_run
    with job:
        return _train_one(job, asked, place, split=split, teacher=teacher, dry_run=dry_run)


def _train_one(job: Job, asked: Request, place: Place, *, split: Split | None, teacher: Run | None, dry_run: bool) -> Trained:
    ready = _prepare_eyes(job, asked, place, teacher) if asked.modality else _prepare(job, asked, place, split, teacher)
    if asked.resume is not None:
        if is_finished(ready, asked.resume, place):
            job.reporter.say(f"✓ {asked.resume.id} is finished: nothing {'would be' if dry_run else 'was'} changed")
            if not dry_run:
                job.run_id = asked.resume.id
                return Trained(runs=(asked.resume,), next=_next(asked), speaks=place.accelerator.is_main_process)
        ready = check_resumed(job, ready, asked.resume)
    asked = ready.asked
    if asked.resume is None:
        check_calibration(asked, ready.split)
    say_plan(job.reporter, asked, ready.split, place.root, place.accelerator)
    if dry_run:
        document = {"dry_run": True, "recipe": asdict(asked.recipe), "split": ready.split.digest}
        job.document |= {**document, "counts": ready.split.counts(), "weights": ready.lent or place.weights}
        return Trained(dry=True, speaks=place.accelerator.is_main_process)
    run = asked.resume or _create(job, ready, place)
    job.run_id = run.id
    try:
        _stages(job, ready, run, place)
    except OctcError:
        if asked.resume is None and place.accelerator.is_main_process and is_empty(run):
            shutil.rmtree(run.path, ignore_errors=True)  # a refusal is no run: nothing of it can be gone on with
            job.run_id = None
        raise
    return Trained(runs=(run,), next="" if asked.member else _next(asked), speaks=place.accelerator.is_main_process)


def _next(asked: Request) -> str:
    """The command to suggest next."""
    if asked.kind == "student":
        return EXPORTS
    if asked.modality:
        more = f"--modality {OTHER[asked.modality]} --recipe {asked.recipe.name}"
        return f"octc train retnet-student --dataset {asked.dataset} {more}"
    return f"octc train student --dataset {asked.dataset}"


def _prepare(job: Job, asked: Request, place: Place, split: Split | None, trained: Run | None) -> Prepared:
    classes = tuple(place.samples.classes)
    chosen = choose_teacher(job, asked, trained, split, classes) if asked.kind == "student" else None
    teachers = () if chosen is None else (chosen, *more_teachers(job, asked, classes))
    check_taught(asked, teachers)
    lent = say_lent(job, asked, teachers, len(classes))
    whole = split or split_for(job, asked, place.samples, chosen)
    for one in teachers:
        _judge_foreign(job, one, whole, place)
    check_teachers(job, asked, whole, teachers)
    return Prepared(asked, whole, teachers, lent=lent)


def _judge_foreign(job: Job, teacher: Teacher, split: Split, place: Place) -> None:
    """Evaluate a teacher of another program on the validation images before it teaches."""
    if teacher.run is None and is_foreign(teacher.folder):
        judge(job, teacher.folder, split, place.samples.root, place.accelerator.device)


def _prepare_eyes(job: Job, asked: Request, place: Place, trained: Run | None) -> Prepared:
    modality = str(asked.modality)
    chosen = choose_teacher(job, asked, trained) if asked.kind == "student" else None
    second = choose_second(job, asked)
    check_taught(asked, [chosen, second])
    if asked.seed is None:
        known = {} if chosen is None or chosen.run is None else chosen.run.read()
        asked = replace(asked, seed=int(known.get("seed", SEED)))
    split, whole = eye_split(asked, place.samples)
    if chosen is not None:
        check_eye_teacher(chosen, split, OTHER[modality])
    if second is not None:
        check_eye_teacher(second, split, modality)
    check_teachers(job, asked, split, [one for one in (chosen, second) if one is not None])
    return Prepared(asked, split, () if chosen is None else (chosen,), second, whole)


def is_finished(ready: Prepared, run: Run, place: Place) -> bool:
    """Whether a resumed run is complete for this request, on the images that it was trained on."""
    asked, stored = ready.asked, run.read()
    stages = ("train", "qat") if asked.kind == "student" and asked.qat else ("train",)
    whole = stored.get("status") == "done" and all(is_checkpoint(run.path / name) for name in stages)
    same = not asked.changed and not _other_values(ready, stored) and stored.get("data_digest") == place.samples.digest
    return whole and same and not is_begun_anew(run)


def _other_values(ready: Prepared, stored: dict[str, Any]) -> list[str]:
    """Differences between the request and the resumed run (recipe, seed, data set, teachers), one text each."""
    asked = ready.asked
    before = _plain(asdict(stored_recipe(stored["recipe"])))  # with the fields that recipes were given since
    changes = [*differences("recipe", before, _plain(asdict(asked.recipe)))]
    if stored.get("seed") != asked.seed:
        changes.append(f"seed {stored.get('seed')} -> {asked.seed}")
    if stored.get("dataset") != asked.dataset:
        changes.append(f"dataset {stored.get('dataset')} -> {asked.dataset}")
    if asked.kind == "student":
        changes += _other_teachers(stored, ready.teachers)
    return changes


def is_empty(run: Run) -> bool:
    """Whether a run holds nothing of a training: no stage, no state, no note of a bad batch."""
    kept = any(path.is_file() for name in ("train", "qat") for path in (run.path / name).rglob("*"))
    return not kept and not run.read().get("stages")


def is_begun_anew(run: Run) -> bool:
    """Whether a first stage goes on with changes that were allowed, and has not come to its end since."""
    for one in reversed(run.read()["stages"]):
        if one.get("stage") == "train":
            return False
        if one.get("stage") == "changed" and one.get("retrain"):
            return True
    return False


def check_resumed(job: Job, ready: Prepared, run: Run) -> Prepared:
    """Resume a run only with its original options (E110 lists differences); `--allow-change` accepts new ones.

    Nothing is written: another process may own the run. Returns what is ready with the changes, and `retrain` set in its
    request if a finished first stage continues with them, now or since a process that was killed.
    """
    asked = ready.asked
    stored = run.read()
    changes = _other_values(ready, stored)
    retrain = bool(changes) or any(not text.startswith(("--qat", "--no-qat", "--use")) for text in asked.changed)
    changes += asked.changed
    if not changes:
        return replace(ready, asked=replace(asked, retrain=asked.options.allow_change or is_begun_anew(run)))
    if stored.get("simplify") and retrain:
        text = f"{run.id} was made by octc simplify: its network is not trained again ({shorten(changes)})"
        hint = f"leave these options out, or octc simplify {stored['simplify'].get('source')}"
        raise OctcError("OCT-E110", text, hint=hint, place=str(run.path))
    if not asked.options.allow_change:
        text = f"{run.id} began with other values: {shorten(changes)}"
        raise OctcError("OCT-E110", text, hint="leave these options out, or --allow-change", place=str(run.path))
    job.reporter.warn("OCT-W306", f"--allow-change: {shorten(changes)}", str(run.path))
    return replace(ready, asked=replace(asked, retrain=retrain or is_begun_anew(run)), changes=tuple(changes))


def _write_changes(ready: Prepared, run: Run) -> None:
    """What a run that goes on is asked for now, by the process that owns it."""
    asked = ready.asked
    if ready.changes:
        run.log_stage("changed", changes=list(ready.changes), retrain=asked.retrain)
        run.update(seed=asked.seed, recipe=asdict(asked.recipe), **{REQUEST: asked.request}, **_teacher_facts(ready))
    elif asked.resume is not None and run.read().get(REQUEST) != asked.request:
        run.update(**{REQUEST: asked.request})


def _teacher_facts(ready: Prepared) -> dict[str, Any]:
    """The fields of run.json about teachers and modalities."""
    asked, first = ready.asked, ready.teachers[0] if ready.teachers else None
    facts: dict[str, Any] = {"teacher_run": first and first.run_id, "teacher_sha256": first and first.sha256}
    if asked.kind == "teacher":
        facts = {}
    elif len(ready.teachers) > 1 or asked.resume is not None:
        facts["more_teachers"] = [str(one.folder.resolve()) for one in ready.teachers[1:]]
    if asked.modality:
        facts |= {"mutual": asked.mutual, "qat": asked.qat, "own_run": ready.second and ready.second.run_id}
    return facts


def _other_teachers(stored: dict[str, Any], teachers: Sequence[Teacher]) -> Iterator[str]:
    """Teachers that differ from those of the resumed run; the same weights in another place count as the same."""
    first, more = (teachers[0] if teachers else None), teachers[1:]
    before, now = stored.get("teacher_sha256"), None if first is None else first.sha256
    if before is None and first is not None and first.run_id is not None and first.run_id == stored.get("teacher_run"):
        before = now  # of a run that was begun when the run alone was written down
    if before != now or (first is None and stored.get("teacher_run")):
        was = stored.get("teacher_run") or ("none" if before is None else f"sha256 {before[:12]}")
        yield f"--teacher {was} -> {'none' if first is None else first.run_id or first.folder}"
    one, other = list(stored.get("more_teachers", ())), [str(teacher.folder.resolve()) for teacher in more]
    if one != other:
        yield f"--teacher ...,{','.join(one) or 'no more'} -> ...,{','.join(other) or 'no more'}"


def _plain(value: Any) -> Any:
    """As JSON would give it back."""
    return parse_json(json.dumps(value))


def differences(path: str, one: Any, other: Any) -> Iterator[str]:
    """Each value of two trees of JSON that is not the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(set(one) | set(other)):
            yield from differences(f"{path}.{key}", one.get(key), other.get(key))
    elif one != other:
        yield f"{path} {one} -> {other}"


def told(accelerator: Accelerator, value: Any) -> Any:
    """The first process's value, in every process."""
    box = [value]
    if accelerator.num_processes > 1:
        broadcast_object_list(box)
    return box[0]


def _create(job: Job, ready: Prepared, place: Place) -> Run:
    """The run folder, made by the first process and named to the others."""
    asked, split = ready.asked, ready.split
    path = None

    def begin(run: Run) -> None:
        split.write(run.split)
        write_lock(run, asked)

    if place.accelerator.is_main_process:
        looks = {"task": asked.task.name, "modality": asked.modality, "paired_split_digest": ready.whole}
        run = create_run(
            job.run_dir,
            asked.kind,
            asked.dataset,
            suffix="" if split.fold is None else f"-f{split.fold[0]}",
            begin=begin,
            data_root=str(place.samples.root.resolve()),
            data_place=str(place.root.resolve()),
            data_digest=place.samples.digest,
            patients_by=place.samples.rule,
            split_digest=split.digest,
            recipe=asdict(asked.recipe),
            seed=asked.seed,
            skip_bad=asked.skip_bad,
            fold=split.fold,
            protocol=split.protocol,
            job=asked.job,
            request=asked.request,
            **{"teacher_run": None, "teacher_sha256": None, **_teacher_facts(ready)},
            **(looks if asked.modality else {}),
            **split.patient_ids.to_json(),
        )
        path = str(run.path)
    return Run(Path(told(place.accelerator, path)))


def _stages(job: Job, ready: Prepared, run: Run, place: Place) -> None:
    """Train (and tune) while holding the run's lock, and store the outcome as the run's status."""
    accelerator = place.accelerator
    with _owned(job, run, accelerator):
        if accelerator.is_main_process:
            _write_changes(ready, run)
        try:
            _work(job, ready, run, place)
        except KeyboardInterrupt:
            _ended(run, accelerator, "interrupted")
            job.reporter.say(f"state is saved; go on with: {ready.asked.again(run.id)}")
            raise
        except BaseException:
            _ended(run, accelerator, "failed")
            raise
        _status(run, accelerator, "done")


def _status(run: Run, accelerator: Accelerator, word: str) -> None:
    if accelerator.is_main_process:
        run.update(status=word)


def _ended(run: Run, accelerator: Accelerator, word: str) -> None:
    if accelerator.is_main_process:
        run.note_end(word)


@contextmanager
def _owned(job: Job, run: Run, accelerator: Accelerator) -> Iterator[None]:
    if not accelerator.is_main_process:
        yield
        return
    with owning(run) as recovered:
        if recovered:
            job.reporter.warn("OCT-W306", recovered, str(run.path))
        yield


def _work(job: Job, ready: Prepared, run: Run, place: Place) -> None:
    asked, options, accelerator = ready.asked, ready.asked.options, place.accelerator
    _status(run, accelerator, "running")
    with torch_lent(accelerator), StageProgress(job, run, accelerator) as shown:
        context = Context(
            run=run,
            root=place.samples.root,
            split=ready.split,
            data_digest=place.samples.digest,
            recipe=asked.recipe,
            seed=asked.seed or 0,
            accelerator=accelerator,
            tick=shown.tick,
            report=shown.row,
            decoding=shown.decoding,
            resume=asked.resume is not None,
            weights=options.weights,
            fetch=options.fetch_weights,
            allow_change=options.allow_change or asked.retrain,
            teachers=tuple(one.folder for one in ready.teachers),
            second=None if ready.second is None else ready.second.folder,
            cached_views_on=getattr(options, "cached_views_on", None),
        )
        context = _train(job, asked, context, shown)
        if asked.kind == "student" and asked.qat:
            how = context.recipe.quantisation
            shown.begin("QAT", how.epochs, how.batch, len(ready.split.parts["train"]))
            tuned = job.tune(context)
            shown.stage("qat", tuned)
            say_tuned(job.reporter, asked.task, tuned)


def _train(job: Job, asked: Request, context: Context, shown: StageProgress) -> Context:
    """Train the first stage, or complete it after a kill; returns the context with the recipe that was used in the end."""
    run = context.run
    if asked.resume is not None and not asked.retrain and is_checkpoint(run.path / "train"):
        if context.accelerator.is_main_process:
            made = complete(run, context.root, context.accelerator.device)
            if not run.has_stage("train", sha256=made.sha256):
                shown.stage("train", made)
        context.accelerator.wait_for_everyone()
        return context
    anew = is_begun_anew(context.run)
    context, made = _fitted(job, asked, context, shown)
    shown.stage("train", made, again=anew)
    say_outcome(job.reporter, asked, made, context.split)
    return context


def _fitted(job: Job, asked: Request, context: Context, shown: StageProgress) -> tuple[Context, Checkpoint]:
    """Train; where memory is short and the batch is `auto`, it is halved until it fits, with as many images an update.

    Raises:
        OctcError: E302 with every batch that was tried, when that one was asked for, or when two images do not fit.
    """
    training = TRAININGS[asked.task.name]
    fit = training.teacher if asked.kind == "teacher" else training.student
    tried: list[int] = []
    while True:
        stage = context.recipe.teacher if asked.kind == "teacher" else context.recipe.student
        shown.begin(stage.model, stage.epochs, stage.batch, len(context.split.parts["train"]))
        try:
            made = fit(context)
        except OctcError as error:
            if error.code != "OCT-E302":
                raise
            tried.append(stage.batch)
            why = error.why  # the error itself holds the frames that hold the memory
        else:
            return context, made
        if not asked.auto_batch or stage.batch <= LEAST or context.accelerator.num_processes > 1:
            raise too_large(why, tried, auto=asked.auto_batch)
        context = halved(job.reporter, asked, context)
