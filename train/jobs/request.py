"""A training request: options and configuration, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.datasets.acquisitions import check_kind
from octc.datasets.base import MODALITIES
from octc.datasets.registry import spec_of
from octc.datasets.released_splits import SEED as RELEASED_SEED
from octc.datasets.split import CLEAN, PROTOCOLS
from octc.imaging.value_range import value_range_of
from octc.schemas.training import SEED, StudentOptions, TrainOptions, batch_of, check_options
from octc.stats.task import MULTICLASS, Task, task_of
from octc.store.runs import Run, find_run, read_runs, refuse_unread
from octc.train.jobs.job import Job
from octc.train.jobs.resume import REQUEST, WORDS, request_of, settle
from octc.train.loop.checkpoint import WEIGHTS, is_checkpoint
from octc.train.networks.lent import TEACHER, check_lenders, is_lent
from octc.train.recipes.config import DISTILLATIONS, Recipe, with_fields
from octc.train.recipes.crossmodal import EYE_DEFAULT, EYE_RECIPES, OTHER, EyeRecipe
from octc.train.recipes.registry import DEFAULT, EVERY, recipe_file, stored_recipe

FIELDS = ("epochs", "lr", "batch", "size", "value_range")  # of both stages of a recipe, from options or the configuration
BOTH = "both"
NONE = "none"  # no teacher
# option -> field
DISTILLATION = {
    "standardise": "standardise", "calibrate": "calibrate", "cached_views": "views", "teacher_precision": "teacher_precision",
}  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A training that was requested.

    Attributes:
        seed: None: the teacher's, else 0. resume: the unfinished run to continue. auto_batch: the batch may be halved.
        teacher: a run, a file or "none"; None: the newest run that fits. more: further teachers.
        modality: for a recipe with two, else None. mutual: a second student learns beside this one.
        folds: number of folds of a cross-validation, or None. fold: the one to train (from 1); None: all. protocol: of the
            split.
        leave_out: for folds that each leave out one acquisition: by what acquisitions differ ("size", "site"). `folds` is then
            known only once the images are read.
        job: name of the cross-validation that a fold belongs to. member: the fold is trained by that job's own command.
        request: as stored in run.json. changed: differences from the resumed run that were allowed.
        retrain: continue the first stage although it is finished.
    """

    kind: str
    dataset: str
    recipe: Recipe
    seed: int | None
    options: TrainOptions
    changes: dict[str, Any] = field(default_factory=dict)
    resume: Run | None = None
    skip_bad: bool = False
    auto_batch: bool = False
    teacher: str | None = None
    more: tuple[str, ...] = ()
    with_teacher: bool = False
    qat: bool = True
    modality: str | None = None
    mutual: bool = False
    folds: int | None = None
    fold: int | None = None
    leave_out: str | None = None
    protocol: str = CLEAN
    job: str | None = None
    member: bool = False
    request: dict[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    retrain: bool = False

    @property
    def task(self) -> Task:
        return task_of(getattr(self.recipe, "task", None))

    @property
    def stage(self) -> Any:
        """The stage of the recipe to train."""
        return self.recipe.teacher if self.kind == "teacher" else self.recipe.student

    @property
    def command(self) -> str:
        return command_of(self.kind, self.task)

    @property
    def has_folds(self) -> bool:
        """Whether this is a cross-validation."""
        return self.folds is not None or self.leave_out is not None

    @property
    def folds_option(self) -> str:
        """The option that requests its folds."""
        return f"--leave-out {self.leave_out}" if self.leave_out is not None else f"--folds {self.folds}"

    @property
    def place(self) -> tuple[int, int] | None:
        """(fold, number of folds) if one fold is trained."""
        return None if self.folds is None or self.fold is None else (self.fold, self.folds)

    def again(self, run: str) -> str:
        """The command that continues this training after an interruption."""
        return "the same command" if self.member else f"{self.command} --resume {run}"


def command_of(kind: str, task: Task) -> str:
    """The command that trains a network of this kind and task."""
    return f"octc train {'' if task.exclusive else 'retnet-'}{kind}"


def as_teacher(asked: Request) -> Request:
    """The same request for the recipe's teacher; a teacher that lends its weights to the student starts from the recipe's."""
    request = {key: value for key, value in asked.request.items() if key not in ("qat", "mutual")}
    options = asked.options
    if is_lent(options.weights):
        options, request = replace(options, weights=None), {**request, "weights": None}
    recipe, modality = asked.recipe, None
    if isinstance(recipe, EyeRecipe) and asked.modality is not None:
        modality = OTHER[asked.modality]
        recipe = replace(recipe, modality=modality)
    return replace(
        asked,
        kind="teacher",
        options=options,
        resume=None,
        request=request,
        recipe=recipe,
        modality=modality,
        mutual=False,
        teacher=None,
        qat=False,
    )


def make_requests(job: Job, kind: str, options: TrainOptions, task: Task = MULTICLASS) -> list[Request]:
    """Requests from options and configuration: one, or one per modality (`modality` "both").

    Args:
        kind: "teacher" or "student". task: its default recipe is used if none is named.

    Raises:
        OctcError: before any work: E104 out of range; E102 options that contradict each other; E107 no such run; E110 the
            resumed run was requested with other options.
    """
    check_options(options)
    options = _with_start_file(options)
    if isinstance(options, StudentOptions):
        _check_student(options)
    if options.modality == BOTH and kind == "student":
        if options.resume is not None or getattr(options, "teacher", None) not in (None, NONE):
            text = "--modality both makes two runs: --resume and --teacher name one"
            raise OctcError("OCT-E102", text, hint="--modality oct, then --modality fundus")
        return [_request(job, kind, replace(options, modality=one), task) for one in ("oct", "fundus")]
    return [_request(job, kind, options, task)]


def _with_start_file(options: TrainOptions) -> TrainOptions:
    """The options with start weights as a path (E104 if the value is both a keyword and a file in this folder)."""
    if options.weights is None:
        return options
    file = Path(options.weights)
    if str(file) in WORDS and (file.is_file() or (file / WEIGHTS).is_file()):
        text = f"--weights {file} is a word, and there are weights of that name in this folder"
        raise OctcError("OCT-E104", text, hint=f"--weights {file.resolve()}, or start in another folder", place="--weights")
    return replace(options, weights=file)


def _check_student(options: StudentOptions) -> None:
    """Refuse options of a student that contradict each other (E102)."""
    teacher, with_teacher = options.teacher, options.with_teacher
    if with_teacher and teacher is not None:
        raise OctcError("OCT-E102", "--with-teacher and --teacher contradict each other", hint="leave out one of them")
    if teacher not in (None, NONE) and _folds_option(options) is not None and options.fold is None:
        text = "--teacher gives one teacher to all folds: it has seen what the other folds hold out"
        more = "--folds K" if options.leave_out is None else f"--leave-out {options.leave_out}"
        raise OctcError("OCT-E102", text, hint=f"leave --teacher out (octc train teacher {more} makes one for each fold)")
    if with_teacher and options.resume is not None:
        text = "--resume and --with-teacher contradict each other: a run goes on with the teacher that it has"
        raise OctcError("OCT-E102", text, hint="leave --with-teacher out")
    if options.mutual and teacher == NONE:
        raise OctcError("OCT-E102", "--mutual and --teacher none contradict each other", hint="leave out one of them")


def _check_lent(kind: str, options: TrainOptions, task: Task) -> None:
    """Refuse (E102) `--weights teacher` where no teacher can lend, as far as the options show it."""
    if not is_lent(options.weights):
        return
    if kind == "teacher" or not task.exclusive:
        lacking = "a teacher has none" if kind == "teacher" else "its teacher has learnt from images of the other modality"
        text = f"--weights {TEACHER} is not for {command_of(kind, task)}: {lacking}"
        raise OctcError("OCT-E102", text, hint="--weights FILE or none, or leave --weights out", place="--weights")
    first, more = split_teachers(getattr(options, "teacher", None))
    if first is not None:
        check_lenders(0 if first == NONE else 1 + len(more))


def _request(job: Job, kind: str, options: TrainOptions, task: Task) -> Request:
    resume = None if options.resume is None else find_unfinished(job, kind, options.resume, task)
    stored = {} if resume is None else _stored(resume, kind, task)
    changed: list[str] = []
    if resume is not None:
        options, changed = settle(job, resume, stored, options)
    _check_lent(kind, options, task)
    dataset = options.dataset or stored.get("dataset")
    if dataset is None:
        raise OctcError("OCT-E104", "no data set named", hint="--dataset NAME   (octc data list)", place="--dataset")
    batch = batch_of(options)
    configured = {key: value for key in ("lr", "size", "val") if (value := job.configured(key)) is not None}
    values = value_range_of(options.value_range)
    changes = {"epochs": options.epochs, "batch": batch, "value_range": values, **configured}
    changes = {key: value for key, value in changes.items() if value is not None}
    split = _split(options, stored)
    one_modality = options.recipe in EVERY and options.recipe not in EYE_RECIPES
    if not task.exclusive and one_modality and job.is_configured("recipe"):
        job.left_out("recipe", f"{options.recipe} is a recipe of one modality, {command_of(kind, task)} takes its own")
        options = replace(options, recipe=None)
    recipe = _recipe(options.recipe, stored, changes, task)
    modality = _modality(options, stored, recipe, dataset)
    seed = options.seed if options.seed is not None else stored.get("seed")
    if isinstance(recipe, EyeRecipe):
        recipe = replace(recipe, modality=str(modality))
    elif seed is None:
        seed = SEED if split["protocol"] == CLEAN else RELEASED_SEED
    asked = Request(
        kind=kind,
        dataset=dataset,
        recipe=recipe,
        seed=seed,
        options=options,
        changes=changes,
        resume=resume,
        skip_bad=options.skip_bad or bool(stored.get("skip_bad")),
        auto_batch=batch is None,
        qat=getattr(options, "qat", False),
        modality=modality,
        mutual=getattr(options, "mutual", False),
        request=request_of(job, options) if resume is None or changed or REQUEST not in stored else stored[REQUEST],
        changed=tuple(changed),
        **split,
    )
    return _of_student(job, asked, options, stored) if isinstance(options, StudentOptions) else asked


def _of_this_task(job: Job, asked: Request, options: StudentOptions) -> StudentOptions:
    """The options without configured distillation settings that only apply to students of one modality.

    Values given with the command stay, and are refused later.
    """
    for key in () if asked.task.exclusive else ("distil", "cached_views_on", *DISTILLATION):
        if getattr(options, key) is not None and job.is_configured(key):
            job.left_out(key, f"recipe {asked.recipe.name} has a loss of its own, that of two modalities")
            nothing: dict[str, Any] = {key: None}
            options = replace(options, **nothing)
    return options


def _of_student(job: Job, asked: Request, options: StudentOptions, stored: Mapping[str, Any]) -> Request:
    """The request with its teachers and its distillation."""
    asked = with_distillation(asked, _of_this_task(job, asked, options))
    first, more = split_teachers(options.teacher)
    if not asked.task.exclusive:
        if more:
            text = "a student of another modality has one teacher"
            raise OctcError("OCT-E102", text, hint=f"--teacher {first}", place="--teacher")
        if stored and stored.get("teacher_run") is None and first is None:
            first = NONE
        recipe = asked.recipe
        if asked.mutual and isinstance(recipe, EyeRecipe):
            recipe = replace(recipe, cross=replace(recipe.cross, mutual=recipe.cross.mutual or 1.0))
            asked = replace(asked, recipe=recipe)
    return replace(asked, teacher=first, more=more, with_teacher=options.with_teacher)


def find_unfinished(job: Job, kind: str, name: str, task: Task) -> Run:
    """The run that `--resume` names, or the newest unfinished one of this kind."""
    if name != "newest":
        return find_run(job.run_dir, name)
    runs = [(run, stored) for run, stored in read_runs(job.run_dir, kind) if task_of(stored.get("task")) is task]
    for run, stored in runs:
        begun = stored.get("simplify") and not is_checkpoint(run.path / "train")  # octc simplify goes on with it
        if stored.get("status") != "done" and not begun:
            refuse_unread(job.run_dir, kind, None, run)
            job.reporter.say(f"using run {run.id} (newest unfinished {kind}; choose with --resume RUN)")
            return run
    refuse_unread(job.run_dir, kind, None, None)
    listed = ", ".join(run.id for run, _ in runs[:10]) or "none"
    text = f"no unfinished {kind} run"
    raise OctcError("OCT-E107", text, hint=f"{command_of(kind, task)} --dataset NAME", why=f"finished: {listed}")


def _folds_option(options: TrainOptions) -> str | None:
    """The option that requests a cross-validation, or None."""
    if options.leave_out is not None:
        return "--leave-out"
    return None if options.folds is None else "--folds"


def _split(options: TrainOptions, stored: Mapping[str, Any]) -> dict[str, Any]:
    """folds, fold and protocol: as requested, or those of the resumed run."""
    folds, fold, protocol = options.folds, options.fold, options.protocol
    option = _folds_option(options)
    if stored:
        if option is not None or fold is not None:
            option = option or "--folds"
            hint = f"leave --resume out (the same {option} command goes on where it stopped), or leave {option} out"
            raise OctcError("OCT-E102", f"--resume and {option} contradict each other", hint=hint)
        fold, folds = stored.get("fold") or (None, None)
        return {"folds": folds, "fold": fold, "protocol": stored.get("protocol", PROTOCOLS[0]), "job": stored.get("job")}
    if protocol not in PROTOCOLS:
        hint = f"one of: {', '.join(PROTOCOLS)}"
        raise OctcError("OCT-E104", f"unknown protocol {protocol!r}", hint=hint, place="--protocol")
    if options.leave_out is not None:
        check_kind(options.leave_out)
    if fold is not None and option is None:
        raise OctcError("OCT-E102", "--fold without --folds", hint=f"--folds 5 --fold {fold}", place="--fold")
    if fold is not None and folds is not None and fold > folds:
        raise OctcError("OCT-E104", f"--fold {fold} of {folds}", hint=f"1 to {folds}", place="--fold")
    return {"folds": folds, "fold": fold, "protocol": protocol, "leave_out": options.leave_out}


def _stored(run: Run, kind: str, task: Task) -> dict[str, Any]:
    """run.json of the run to resume (E107 if another command made it)."""
    stored: dict[str, Any] = run.read()
    found = task_of(stored.get("task"))
    if stored.get("kind") != kind or (found is not task and found.exclusive):
        command = command_of(str(stored.get("kind")), found)
        text = f"run {run.id} is one of {command}"
        raise OctcError("OCT-E107", text, hint=f"{command} --resume {run.id}", place=str(run.path))
    if stored.get("simplify") and not is_checkpoint(run.path / "train"):
        text = f"run {run.id} is one of octc simplify, and not finished"
        raise OctcError("OCT-E107", text, hint=f"octc simplify --resume {run.id}", place=str(run.path))
    if not isinstance(stored.get("recipe"), dict):
        text = f"run {run.id} keeps no recipe: octc train did not make it, and cannot go on with it"
        raise OctcError("OCT-E107", text, hint=f"{command_of(kind, found)} --dataset NAME", place=str(run.path))
    return stored


def _recipe(name: str | None, stored: Mapping[str, Any], changes: Mapping[str, Any], task: Task) -> Recipe:
    """The recipe with the requested fields; for a resumed run, its own recipe if none is named."""
    known = EVERY if task.exclusive else EYE_RECIPES
    if name is not None and name.endswith(".json"):
        stages = {key: value for key, value in changes.items() if key in FIELDS}
        found = recipe_file(Path(name))
        return replace(with_fields(found, **stages), val=changes.get("val", found.val))
    if name is not None and name not in known:
        near = get_close_matches(name, list(known), n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"one of: {', '.join(known)}"
        raise OctcError("OCT-E104", f"unknown recipe {name!r}", hint=hint, place="--recipe")
    own = stored_recipe(stored["recipe"]) if stored else None
    same = own is not None and name in (None, own.name)  # the same name again is no other recipe
    recipe = own if own is not None and same else known[name or (DEFAULT if task.exclusive else EYE_DEFAULT)]()
    stages = {key: value for key, value in changes.items() if key in FIELDS}
    return replace(with_fields(recipe, **stages), val=changes.get("val", recipe.val))


def _modality(options: TrainOptions, stored: Mapping[str, Any], recipe: Recipe, dataset: str) -> str | None:
    """The modality of the network (E104 if recipe and data set differ in their number of modalities)."""
    here = spec_of(dataset).modalities
    modality = options.modality or stored.get("modality")
    if isinstance(recipe, EyeRecipe):
        if len(here) < 2:
            text = f"data set {dataset} has no fundus images"
            raise OctcError("OCT-E104", text, hint="a data set of both modalities: octc data list", place="--dataset")
        if modality not in MODALITIES:
            text = "no modality named" if modality is None else f"--modality {modality}"
            raise OctcError("OCT-E104", text, hint=f"--modality {' or '.join(MODALITIES)}", place="--modality")
        if (option := _folds_option(options)) is not None:
            text = f"recipe {recipe.name} has no cross-validation"
            raise OctcError("OCT-E102", text, hint=f"leave {option} out", place=option)
        return str(modality)
    if len(here) > 1:
        text = f"{dataset} holds OCT and fundus images"
        raise OctcError("OCT-E104", text, hint="octc train retnet-teacher, then octc train retnet-student", place="--dataset")
    if options.modality is not None or getattr(options, "mutual", False):
        option = "--mutual" if options.modality is None else "--modality"
        text = f"{option} belongs to recipes of two modalities: {', '.join(EYE_RECIPES)}"
        raise OctcError("OCT-E102", text, hint=f"leave {option} out", place=option)
    return None


def with_distillation(asked: Request, options: StudentOptions) -> Request:
    """The request with the distillation settings of the options (E102 where they do not apply)."""
    name = options.distil
    how = asked.recipe.distillation
    if name is not None:
        how = replace(how, kind=name)
        how = replace(how, **DISTILLATIONS[name])
    given = {key: getattr(options, key) for key in ("distil", *DISTILLATION) if getattr(options, key) is not None}
    if given and not asked.task.exclusive:
        text = f"--{next(iter(given)).replace('_', '-')} is not for recipe {asked.recipe.name}"
        raise OctcError("OCT-E102", text, hint="leave it out: its loss is that of two modalities")
    how = replace(how, **{DISTILLATION[key]: value for key, value in given.items() if key in DISTILLATION})
    if options.cached_views_on is not None and not getattr(how, "views", 0):
        text = f"--cached-views-on {options.cached_views_on}, and no view is cached"
        raise OctcError("OCT-E102", text, hint="--cached-views N", place="--cached-views-on")
    return replace(asked, recipe=replace(asked.recipe, distillation=how), changes={**asked.changes, **given})


def split_teachers(teacher: str | None) -> tuple[str | None, tuple[str, ...]]:
    """The first teacher of a list A,B,..., and the rest. An existing path that contains a comma is one teacher."""
    if teacher is None or "," not in teacher or Path(teacher).exists():
        return teacher, ()
    names = [name.strip() for name in teacher.split(",")]
    if len(set(names)) < len(names) or not all(names) or NONE in names:
        raise OctcError("OCT-E104", f"--teacher {teacher}", hint="different runs with a comma between them", place="--teacher")
    return names[0], tuple(names[1:])
