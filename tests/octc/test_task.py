"""The two tasks: names, probabilities, and that each compares, judges and gates by its own rules."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from octc.datasets.base import Sample
from octc.schemas.artifact import TaskName
from octc.stats.comparison import Comparison
from octc.stats.multilabel_comparison import Decisions, EyeGate
from octc.stats.task import MULTICLASS, MULTILABEL, TASKS, Answers, task_of
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import golden_part

CLASSES = ("a", "b", "c")
QUICK = ParityOptions(margin=30, class_margin=60, bootstrap=1000)


def answers(several: bool) -> Answers:
    """90 images of 45 patients; the candidate is the reference with a little noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    samples = [
        Sample(f"{i}.png", int(k), f"p{i // 2}", None, f"{i:064x}", targets=(int(k),) if several else None, eye=f"e{i // 2}")
        for i, k in enumerate(labels)
    ]
    logits = (6 * np.eye(3)[labels] - 3 + rng.normal(0, 1, (90, 3))).astype(np.float32)[:, None]
    other = logits + rng.normal(0, 0.01, logits.shape).astype(np.float32)
    return Answers([s.sha256 for s in samples], samples, logits, other, CLASSES)


def test_manifests_know_the_same_tasks() -> None:
    assert tuple(TASKS) == get_args(TaskName)
    assert task_of(None) is MULTICLASS
    assert task_of("multilabel") is MULTILABEL


def test_probabilities_of_a_task() -> None:
    logits = np.array([[0.0, 2.0, -1.0], [4.0, 4.0, 4.0]])
    assert MULTICLASS.probabilities(logits).sum(axis=1) == pytest.approx([1, 1])
    assert MULTILABEL.probabilities(logits)[1] == pytest.approx(1 / (1 + np.exp(-4.0)))


@pytest.mark.parametrize(("task", "kind"), [(MULTICLASS, Comparison), (MULTILABEL, Decisions)])
def test_a_task_compares_and_judges_by_its_own_rules(task: object, kind: type) -> None:
    assert task in TASKS.values()
    known = next(one for one in TASKS.values() if one is task)
    given = answers(several=not known.exclusive)
    found = known.compare(given, QUICK)
    assert isinstance(found, kind)
    verdict = known.judge(found, QUICK, golden_part(False, "far"), True)
    assert (verdict.word, verdict.reasons[0], verdict.exploratory, verdict.exit_code) == ("fail", "golden", True, 1)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_gate_accepts_the_same_answers_and_rejects_golden_images_that_differ(task: object) -> None:
    known = next(one for one in TASKS.values() if one is task)
    given = answers(several=not known.exclusive)
    accepted, refused = (known.gate(given, QUICK, golden_part(ok)) for ok in (True, False))
    assert (accepted.accepted, refused.accepted) == (True, False)
    assert "golden" in refused.reasons
    assert isinstance(accepted, EyeGate) is not known.exclusive
