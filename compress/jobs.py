"""Trainings that end in quantisation-aware tuning: the jobs of `train` with the stage that lies here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from octc.compress.finetune import quantise_student
from octc.compress.finetune_crossmodal import quantise_eye_student
from octc.core.errors import OctcError
from octc.core.progress import LogReporter, Reporter
from octc.datasets.registry import guess_layout
from octc.schemas.training import StudentOptions, TrainOptions
from octc.stats.task import MULTICLASS, MULTILABEL, task_of
from octc.store.runs import Run
from octc.train.jobs.job import Job
from octc.train.jobs.request import NONE, make_requests
from octc.train.jobs.start import run_training
from octc.train.loop.checkpoint import Checkpoint
from octc.train.stages import Context

TUNE = {MULTICLASS.name: quantise_student, MULTILABEL.name: quantise_eye_student}


def tune(context: Context) -> Checkpoint:
    """The quantisation-aware stage of a student, as its task has it: reads train/ of its run, writes qat/."""
    return TUNE[task_of(getattr(context.recipe, "task", None)).name](context)


def new_job(
    run_dir: Path,
    data: str | None,
    reporter: Reporter,
    *,
    settings: Mapping[str, tuple[Any, str]] | None = None,
    origins: dict[str, str] | None = None,
) -> Job:
    """A training job whose students can be tuned."""
    return Job(run_dir, data, reporter, tune, settings or {}, origins or {})


def train_network(
    recipe: str | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
    dataset: str | None = None,
    teacher: bool | Run | str | os.PathLike[str] | None = None,
    role: str = "student",
    run_dir: str | os.PathLike[str] = "runs",
    reporter: Reporter | None = None,
    **options: Any,
) -> Run:
    """Train a network: a student from its teacher, then quantisation-aware; or (role "teacher") a teacher on labels.

    Args:
        recipe: a name of `octc list recipes`. None: "edge", or that of the run that goes on (`resume`).
        data: folder of the images. None: OCTC_DATA, then the data set's own place.
        dataset: a name of `octc data list`. None: told by the folders of `data`.
        teacher: of a student. True trains it first; a run (or its id), a checkpoint folder or file is taken as it is;
            None takes the newest run that fits; False: the student learns from labels alone.
        role: "student" or "teacher".
        run_dir: where runs lie and go.
        reporter: is told lines, warnings and progress. None: the log `octc`.
        options: the options of `octc train student` (or `teacher`) by their names, as `epochs=3`, `seed=1`, `qat=False`,
            `resume="r-0002"`. Folds and both modalities make several runs and are left to the command.

    Returns: the run: its folder is `run.path`, its facts are `run.read()`.

    Raises:
        OctcError: E102, E104 options; E107 no such run or teacher; E110 the run that goes on was asked for something else;
            E201, E213 images; E230 no images; E302 memory; E702 a teacher at chance; and whatever a stage raises.
        TypeError: no such option.

    >>> import octc
    >>> octc.train("edge", data="no-such-folder", dataset="ucsd")
    Traceback (most recent call last):
        ...
    octc.core.errors.OctcError: data set ucsd not found at no-such-folder
    >>> run = octc.train("edge", data="Dataset/UCSD", teacher=True)  # doctest: +SKIP
    >>> octc.export(run, targets=["onnx"], precision="int8")  # doctest: +SKIP
    """
    if role not in ("student", "teacher"):
        raise OctcError("OCT-E104", f"role {role!r}", hint="student or teacher", place="role")
    kind: type[TrainOptions] = StudentOptions if role == "student" else TrainOptions
    names = {one.name for one in fields(kind)} - {"recipe", "dataset", "teacher", "with_teacher"}
    if unknown := sorted(set(options) - names):
        raise TypeError(f"octc.train takes no option {', '.join(unknown)}; those of a {role}: {', '.join(sorted(names))}")
    if options.get("folds") or options.get("modality") == "both":
        option = "--folds" if options.get("folds") else "--modality both"
        raise OctcError("OCT-E102", "octc.train makes one run", hint=f"octc train {role} ... {option}", place=option)
    if dataset is None and data is not None and not options.get("resume"):
        dataset = guess_layout(Path(data))
    given: dict[str, Any] = {"recipe": recipe, "dataset": dataset, **options}
    if role == "student":
        given |= {"teacher": _teacher(teacher), "with_teacher": teacher is True}
    elif teacher is not None:
        raise OctcError("OCT-E102", "a teacher has no teacher", hint='leave teacher out, or role="student"', place="teacher")
    origins = {key: "argument" for key, value in given.items() if value is not None}
    job = new_job(Path(run_dir), None if data is None else str(data), reporter or LogReporter(), origins=origins)
    (asked,) = make_requests(job, role, kind(**given))
    return run_training(job, asked)[-1].runs[0]


def _teacher(teacher: bool | Run | str | os.PathLike[str] | None) -> str | None:
    """A teacher as the option has it."""
    if teacher is None or teacher is True:
        return None
    if teacher is False:
        return NONE
    return str(teacher.path) if isinstance(teacher, Run) else os.fspath(teacher)
