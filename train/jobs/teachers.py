"""Which teacher a student learns from: a run, a checkpoint file, the newest fitting run, or none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError, shorten
from octc.core.files import read_json
from octc.datasets.layouts.paired import check_partners
from octc.datasets.split import Split, read_split
from octc.stats.proportions import wilson
from octc.store.runs import Run, find_run, read_runs, refuse_unread
from octc.train.evaluation.outcome import FACTS, newest_evaluation
from octc.train.jobs.foreign_teacher import adopt, remembered
from octc.train.jobs.hub_teacher import HUB, from_hub
from octc.train.jobs.job import Job
from octc.train.jobs.request import NONE, Request
from octc.train.loop.checkpoint import META, WEIGHTS, is_checkpoint, read_checkpoint
from octc.train.recipes.crossmodal import OTHER
from octc.train.recipes.registry import with_same_teacher


@dataclass(frozen=True)
class Teacher:
    """folder: of the checkpoint. run: the run that it lies in, or None for a file that was given."""

    folder: Path
    sha256: str
    run: Run | None

    @property
    def run_id(self) -> str | None:
        return None if self.run is None else self.run.id


def choose_teacher(
    job: Job, asked: Request, trained: Run | None, split: Split | None = None, classes: tuple[str, ...] = ()
) -> Teacher | None:
    """The teacher of a student; said, with how to choose another. split: of the fold that is trained. classes: of the data.

    Raises:
        OctcError: E107 none there, E308 a pickle that does more than hold tensors, E307 / E501 not a checkpoint, E309 another
            order of classes.
    """
    if asked.teacher == NONE:
        job.reporter.say("! teacher   none: the student learns from labels alone")
        return None
    if trained is not None:
        return _of_run(job, trained, "just trained")
    if asked.with_teacher and job.dry_run and not asked.has_folds:
        job.reporter.say(f"✓ teacher   {asked.recipe.teacher.model}, trained first")
        return None
    if asked.resume is not None and asked.teacher is None:
        return _of_resumed(job, asked, asked.resume)
    if asked.teacher is not None and asked.teacher.startswith(HUB):
        if not asked.task.exclusive:
            text = f"--teacher {asked.teacher}: a network of a hub has classes that exclude each other"
            raise OctcError("OCT-E102", text, hint="--teacher RUN of octc train retnet-teacher, or none", place="--teacher")
        weights, card = from_hub(asked.teacher, bool(getattr(asked.options, "fetch_weights", False)))
        return Teacher(*adopt(job, asked, weights, classes, card), None)
    if asked.teacher is not None:
        place = Path(asked.teacher)
        if asked.task.exclusive and (place.is_file() or is_checkpoint(place)):
            return _of_file(job, asked, place, classes)
        return _of_run(job, find_run(job.run_dir, asked.teacher), "as requested")
    return _newest(job, asked, split)


def choose_second(job: Job, asked: Request) -> Teacher | None:
    """The teacher of the student's own modality, for the second student of mutual learning."""
    if not asked.mutual:
        return None
    stored = {} if asked.resume is None else asked.resume.read()
    if stored.get("own_run"):
        return _of_run(job, find_run(job.run_dir, str(stored["own_run"])), "of the run that goes on")
    return _newest(job, asked, None, asked.modality)


def fitting(job: Job, asked: Request, split: Split | None, modality: str | None = None) -> Run | None:
    """The newest successful teacher of the recipe, or of one with the same teacher, on the data set: of no fold, or of the
    very split of one; of this modality, where there are two."""
    names = with_same_teacher(asked.recipe.name)
    found = next(_fitting(job, asked, split, modality, names), None)
    refuse_unread(job.run_dir, "teacher", asked.dataset, found)
    return found


def _fitting(job: Job, asked: Request, split: Split | None, modality: str | None, names: Collection[str]) -> Iterator[Run]:
    """All of them, the newest first."""
    for run, known in read_runs(job.run_dir, "teacher", asked.dataset):
        if split is not None:
            same = known.get("split_digest") == split.digest
        elif modality is not None:
            same = True  # the protocol is the recipe's
        else:
            same = known.get("fold") is None and known.get("protocol", asked.protocol) == asked.protocol
        done = known.get("status") == "done" and known.get("recipe", {}).get("name") in names
        if same and done and known.get("modality") == modality:
            yield run


def _newest(job: Job, asked: Request, split: Split | None, modality: str | None = None) -> Teacher:
    if asked.modality is not None:
        modality = modality or OTHER[asked.modality]
    run = fitting(job, asked, split, modality)
    looks = f"{modality} " if modality else ""
    if run is not None:
        of = "" if split is None or split.fold is None else f", fold {split.fold[0]} of {split.fold[1]}"
        return _of_run(job, run, f"newest successful {looks}teacher of {asked.recipe.name} on {asked.dataset}{of}")
    runs = read_runs(job.run_dir, "teacher", asked.dataset)
    found = [f"{run.id} ({value.get('recipe', {}).get('name')}, {value.get('status')})" for run, value in runs]
    more = f"--dataset {asked.dataset} --recipe {asked.recipe.name}"
    hint = f"octc train teacher {more}; or --with-teacher; or --teacher none"
    if modality:
        hint = f"octc train retnet-teacher --dataset {asked.dataset} --modality {modality} --recipe {asked.recipe.name}"
        hint += "; or --teacher none"
    why = f"candidates: {shorten(found)}" if found else f"no teacher run lies in {job.run_dir}"
    text = f"no successful {looks}teacher of recipe {asked.recipe.name} on {asked.dataset}"
    raise OctcError("OCT-E107", text, hint=hint, why=why)


def _of_resumed(job: Job, asked: Request, resumed: Run) -> Teacher | None:
    """The teacher that an unfinished run began with."""
    stored = resumed.read()
    name, sha256 = stored.get("teacher_run"), stored.get("teacher_sha256")
    if name is None and sha256 is None:
        return None
    if name is None and (folder := remembered(job.run_dir, str(sha256))) is not None:
        job.reporter.say(f"✓ teacher   {folder} (of the run that goes on)")
        return Teacher(folder, str(sha256), None)
    if name is None:
        text = "this run began with a teacher file"
        raise OctcError("OCT-E107", text, hint=f"name it again: --teacher FILE (sha256 {str(sha256)[:12]})")
    teacher = _of_run(job, find_run(job.run_dir, name), "of the run that goes on")
    if sha256 is not None and teacher.sha256 != sha256 and not asked.options.allow_change:
        text = f"teacher {name} has changed since this run began"
        raise OctcError("OCT-E110", text, hint="--allow-change, or train anew", place=str(teacher.folder))
    return teacher


def _of_run(job: Job, run: Run, how: str) -> Teacher:
    folder = run.path / "train"
    checkpoint, _ = read_checkpoint(folder)
    job.reporter.say(f"✓ teacher   {run.id}, {checkpoint.model} ({how}; choose with --teacher)")
    return Teacher(folder, checkpoint.sha256, run)


def _of_file(job: Job, asked: Request, place: Path, classes: tuple[str, ...]) -> Teacher:
    """A checkpoint folder of octc or the safetensors file in one; any other file is of another program."""
    folder = place if place.is_dir() else place.parent
    if place.is_file() and (place.name not in (WEIGHTS, META) or not is_checkpoint(folder)):
        return Teacher(*adopt(job, asked, place, classes), None)
    checkpoint, _ = read_checkpoint(folder)
    job.reporter.say(f"✓ teacher   {folder}, {checkpoint.model} (as requested)")
    return Teacher(folder, checkpoint.sha256, None)


def more_teachers(job: Job, asked: Request, classes: tuple[str, ...]) -> tuple[Teacher, ...]:
    """The teachers besides the first: as requested, or those that a resumed run began with. classes: of the data."""
    names = asked.more
    if not names and asked.teacher is None and asked.resume is not None:
        names = tuple(asked.resume.read().get("more_teachers", ()))
    found = (choose_teacher(job, replace(asked, teacher=name), None, None, classes) for name in names)
    return tuple(one for one in found if one is not None)


def check_teachers(job: Job, asked: Request, split: Split, teachers: Sequence[Teacher]) -> None:
    """Refuse teachers that are at chance (E702); where any was asked for, say that one is. A run that goes on keeps its own."""
    for teacher in () if asked.resume is not None and asked.teacher is None else teachers:
        try:
            (_check_taught if asked.task.exclusive else _check_ranks)(teacher, split)
        except OctcError as error:
            if error.code != "OCT-E702" or not getattr(asked.options, "any_teacher", False):
                raise
            job.reporter.say(f"! teacher   {error.message}; it teaches because --any-teacher asks for it")


def check_eye_teacher(teacher: Teacher, split: Split, modality: str) -> None:
    """Refuse a teacher of another modality (E104), and one that has seen who this student is judged on (E212)."""
    assert teacher.run is not None
    found = teacher.run.read().get("modality")
    if found != modality:
        text = f"{teacher.run.id} looks at {found or 'OCT'} images, a teacher of {modality} images is needed"
        raise OctcError("OCT-E104", text, hint=f"octc train retnet-teacher --modality {modality}", place="--teacher")
    check_partners(split, read_split(teacher.run.split))


def _check_taught(teacher: Teacher, split: Split) -> None:
    """Refuse a teacher that knows no more than the largest class (E702, with its answers on val where they are stored)."""
    metrics: dict[str, Any] = read_json(teacher.folder / META)["metrics"]
    n, accuracy = metrics.get("val_n"), metrics.get("val_accuracy")
    counts = split.counts()["val"]
    if not n or accuracy is None:
        return
    hits = round(n * accuracy)
    low, _ = wilson(hits, n) or (0.0, 1.0)
    name, largest = max(counts.items(), key=lambda row: row[1])
    if low > largest / sum(counts.values()):
        return
    text = f"the teacher is at chance: {hits} of {n} right on val, where {largest} are {name}"
    hint = "train it longer (octc train teacher --epochs N), name another (--teacher RUN), --teacher none, or --any-teacher"
    raise OctcError("OCT-E702", text, hint=hint, place=str(teacher.folder), why=_answers(teacher, tuple(counts)))


def _check_ranks(teacher: Teacher, split: Split) -> None:
    """Refuse a teacher of several labels that ranks no better than guessing, whose mean average precision is the mean share of
    the labels (E702)."""
    found = read_json(teacher.folder / META)["metrics"].get("val_map")
    targets = [sample.targets for sample in split.parts["val"] if sample.targets is not None]
    if found is None or not targets:
        return
    guess = sum(map(len, targets)) / (len(targets) * len(split.classes))  # targets are the numbers of an image's labels
    if found > guess:
        return
    text = f"the teacher is at chance: val mAP {100 * found:.2f} %, and guessing has {100 * guess:.2f} %"
    hint = "train it longer (octc train retnet-teacher --epochs N), name another (--teacher RUN), or --any-teacher"
    raise OctcError("OCT-E702", text, hint=hint, place=str(teacher.folder))


def _answers(teacher: Teacher, classes: tuple[str, ...]) -> str | None:
    """How often it gave each class on val, from the evaluation of its run."""
    path = newest_evaluation(teacher.folder.parent, "val") / FACTS
    if teacher.run is None or not path.is_file():
        return None
    matrix = read_json(path)["confusion"]
    predicted = [sum(row[k] for row in matrix) for k in range(len(classes))]
    return "it answered " + ", ".join(f"{name} {count}" for name, count in zip(classes, predicted, strict=True))
