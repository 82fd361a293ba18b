"""The rules of two artifacts on a labelled set: images, and eyes where the images are B-scans of volumes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from octc.bench.parity.decisions import Answered, DecisionVerdict, judge_decisions
from octc.bench.parity.evaluation_set import LabelledSet
from octc.bench.parity.inference import Records
from octc.datasets.eyes import eye_answers, eyes_among
from octc.stats.aggregation import stated_aggregation
from octc.stats.comparison import nonfinite
from octc.stats.deciding import UNITS, stated_decision
from octc.stats.metrics import combine_views
from octc.store.find import Found


def judge_rules(
    labelled: LabelledSet, records: tuple[Records, Records], founds: tuple[Found, Found], alpha: float
) -> Iterator[DecisionVerdict]:
    """What came of the rules of reference and candidate; nothing where neither has any, or outputs are not finite.

    records: of one view, in the order of the set.
    """
    classes, details = labelled.classes, [one.artifact.details for one in founds]
    rules = {unit: tuple(stated_decision(one, classes, unit) for one in details) for unit in UNITS}
    if not any(one for both in rules.values() for one in both) or any(nonfinite(one.ids, one.logits) for one in records):
        return
    reference, candidate = (answers_of(labelled, one, own) for one, own in zip(records, details, strict=True))
    for unit, (first, second) in rules.items():
        if unit in reference:
            found = judge_decisions(unit, (reference[unit], candidate[unit]), (first, second), alpha)
            if found is not None:
                yield found


def answers_of(labelled: LabelledSet, records: Records, details: Mapping[str, Any]) -> dict[str, Answered]:
    """What an artifact answers on a set: its images ("image"), and its eyes ("eye") where it holds some with labels.

    Args:
        records: of one view, in the order of the set. details: of its manifest, with how B-scans become an eye.
    """
    values, classes = combine_views(records.logits)[0], labelled.classes
    found = {"image": Answered(values, np.asarray(records.labels, np.int64), records.patients, classes)}
    eyes, _ = eyes_among(labelled.samples)
    if eyes:
        patients = tuple(labelled.samples[eye.samples[0]].patient for eye in eyes)
        answers = eye_answers(eyes, values, stated_aggregation(details))
        found["eye"] = Answered(answers, np.array([eye.label for eye in eyes], np.int64), patients, classes)
    return found
