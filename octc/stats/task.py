"""The two classification tasks, multi-class and multi-label, as instances of `Task`.

A task has a name, converts logits to probabilities, and defines the primary metric and how two networks are compared, judged
and gated. Training losses and the texts of verifications are selected by the same names, in their own modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from octc.stats.comparison import Comparison, Known, Logits, compare_logits
from octc.stats.metrics import Float64, Int64, softmax
from octc.stats.multilabel import sigmoid, thresholds_of
from octc.stats.multilabel_comparison import Decisions, LabelledImage, compare_decisions, gate_decisions, judge_decisions
from octc.stats.patients import Patients
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import GateResult, Part, Verdict, gate, judge


@dataclass(frozen=True)
class Answers:
    """Logits of a reference and a candidate on the same labelled images in the same order: the input of a comparison.

    Attributes:
        ids: unique names of the images; images: their labels, patients and eyes.
        reference, candidate: float32 [n, views, K]. classes: the K names.
        details: details of the candidate's manifest (for multi-label: thresholds and `truth`).
        known: additional facts about the two models.
        columns: labels and patients as arrays instead of `images`, which is then empty.
    """

    ids: Sequence[str]
    images: Sequence[LabelledImage]
    reference: Logits
    candidate: Logits
    classes: Sequence[str]
    details: Mapping[str, Any] = field(default_factory=dict)
    known: Known | None = None
    columns: tuple[Sequence[int] | Int64, Patients] | None = None

    @property
    def labels(self) -> Sequence[int] | Int64:
        return [image.label for image in self.images] if self.columns is None else self.columns[0]

    @property
    def patients(self) -> Patients:
        return [image.patient for image in self.images] if self.columns is None else self.columns[1]

    @property
    def thresholds(self) -> tuple[float, ...]:
        return thresholds_of(dict(self.details), len(self.classes))

    @property
    def truth(self) -> str:
        return str(self.details.get("truth", "union"))


@dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        name: name in manifests, recipes and run.json.
        exclusive: whether an image has exactly one class.
        metric: the primary metric: it chooses the epoch and is printed first.
        probabilities: logits [..., K] -> float64 of the same shape.
        compare: (answers with finite logits, options) -> comparison. judge: (comparison, options, preceding parts, exploratory)
            -> verdict.
        gate: function that makes the decision of the export gate, on the validation set.
    """

    name: str
    exclusive: bool
    metric: str
    probabilities: Callable[[npt.ArrayLike], Float64]
    compare: Callable[[Answers, ParityOptions], Any]
    judge: Callable[[Any, ParityOptions, Sequence[Part], bool], Verdict]
    gate: Callable[[Answers, ParityOptions | None, Sequence[Part]], GateResult]


def _compare_classes(given: Answers, options: ParityOptions) -> Comparison:
    sides = given.reference, given.candidate
    return compare_logits(given.ids, given.labels, given.patients, *sides, given.classes, options, given.known)


def _gate_classes(given: Answers, options: ParityOptions | None, extra: Sequence[Part]) -> GateResult:
    sides = given.reference, given.candidate
    return gate(given.ids, given.labels, given.patients, *sides, given.classes, options, extra)


def _compare_decisions(given: Answers, options: ParityOptions) -> Decisions:
    return compare_decisions(
        given.images,
        given.reference,
        given.candidate,
        given.classes,
        given.thresholds,
        truth=given.truth,
        alpha=options.alpha,
        seed=options.seed,
    )


def _gate_decisions(given: Answers, options: ParityOptions | None, extra: Sequence[Part]) -> GateResult:
    sides = given.reference, given.candidate
    return gate_decisions(given.images, *sides, given.classes, given.thresholds, options, given.truth, extra)


MULTICLASS = Task("multiclass", True, "accuracy", softmax, _compare_classes, judge, _gate_classes)
MULTILABEL = Task("multilabel", False, "map", sigmoid, _compare_decisions, judge_decisions, _gate_decisions)
TASKS = {task.name: task for task in (MULTICLASS, MULTILABEL)}


def task_of(name: object) -> Task:
    """The task with this name; None (not recorded): multi-class."""
    return TASKS[str(name or MULTICLASS.name)]
