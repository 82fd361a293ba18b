"""How the networks of each task are trained: the stages by the task's name (`octc.stats.task`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from octc.stats.task import MULTICLASS, MULTILABEL
from octc.train.crossmodal.stages import train_eye_student, train_eye_teacher
from octc.train.loop.checkpoint import Checkpoint
from octc.train.stages import Context, train_student, train_teacher


@dataclass(frozen=True)
class Training:
    """The two float stages; each reads its context and writes train/ of its run."""

    teacher: Callable[[Context], Checkpoint]
    student: Callable[[Context], Checkpoint]


TRAININGS = {
    MULTICLASS.name: Training(train_teacher, train_student),
    MULTILABEL.name: Training(train_eye_teacher, train_eye_student),
}
