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
    """Train a student by distillation and quantisation-aware tuning, or (role "teacher") a teacher on labels.

    Args:
        recipe: a name from `octc list recipes`. None: "edge", or the recipe of the run that is resumed.
        data: folder of the images. None: OCTC_DATA, then the data set's default folder.
        dataset: a name from `octc data list`. None: recognised from the folders below `data`.
        teacher: of a student. True trains one first; a run (or its id), a checkpoint folder or file is used as it is; None uses
            the newest run that fits; False trains the student on labels alone.
        role: "student" or "teacher".
        run_dir: folder of the runs.
        reporter: receives messages, warnings and progress. None: the log `octc`.
        options: options of `octc train student` (or `teacher`) by name: `epochs=3`, `seed=1`, `qat=False`, `resume="r-0002"`.
            Folds and `modality="both"` make several runs; only the command takes them.

    Returns: the run: `run.path` is its folder, `run.read()` its facts.

    Raises:
        OctcError: E102, E104 options; E107 no such run or teacher; E110 the resumed run began with other options; E201, E213
            images; E230 no images; E302 out of memory; E702 a teacher at chance level; and what a stage raises.
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
