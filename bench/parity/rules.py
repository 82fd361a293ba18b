"""The rules of two artifacts on a labelled set: images, and eyes where the images are B-scans of volumes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from octc.bench.parity.decisions import Answered, DecisionVerdict, Findings, judge_decisions
from octc.bench.parity.evaluation_set import LabelledSet
from octc.bench.parity.inference import Records
from octc.datasets.eyes import eye_answers, eyes_among
from octc.stats.aggregation import stated_aggregation
from octc.stats.comparison import nonfinite
from octc.stats.deciding import UNITS, stated_decision
from octc.stats.metrics import combine_views
from octc.stats.multilabel import target_matrix, thresholds_of, view_scores
from octc.store.artifacts import Artifact
from octc.store.find import Found


def judge_rules(
    labelled: LabelledSet, records: tuple[Records, Records], founds: tuple[Found, Found], alpha: float
) -> Iterator[DecisionVerdict]:
    """What came of the rules of reference and candidate; nothing where neither has any, or outputs are not finite.

    records: of one view, in the order of the set.
    """
    classes, artifacts = labelled.classes, [one.artifact for one in founds]
    rules = {unit: tuple(stated_decision(one.details, classes, unit) for one in artifacts) for unit in UNITS}
    if not any(one for both in rules.values() for one in both) or any(nonfinite(one.ids, one.logits) for one in records):
        return
    reference, candidate = (answers_of(labelled, one, own) for one, own in zip(records, artifacts, strict=True))
    for unit, (first, second) in rules.items():
        if unit in reference:
            found = judge_decisions(unit, (reference[unit], candidate[unit]), (first, second), alpha)
            if found is not None:
                yield found


def answers_of(labelled: LabelledSet, records: Records, artifact: Artifact) -> dict[str, Answered]:
    """What an artifact answers on a set: its images ("image"), and its eyes ("eye") where it holds some with labels and classes
    exclude each other.

    Args:
        records: of one view, in the order of the set. artifact: its manifest says how B-scans become an eye.
    """
    classes = labelled.classes
    if artifact.task == "multilabel":
        targets = [one.targets if one.targets is not None else (one.label,) for one in labelled.samples]
        own = Findings(target_matrix(targets, len(classes)), thresholds_of(artifact.details, len(classes)))
        scores, labels = view_scores(records.logits), np.asarray(records.labels, np.int64)
        return {"image": Answered(scores, labels, records.patients, classes, own)}
    values = combine_views(records.logits)[0]
    found = {"image": Answered(values, np.asarray(records.labels, np.int64), records.patients, classes)}
    eyes, _ = eyes_among(labelled.samples)
    if eyes:
        patients = tuple(labelled.samples[eye.samples[0]].patient for eye in eyes)
        answers = eye_answers(eyes, values, stated_aggregation(artifact.details))
        found["eye"] = Answered(answers, np.array([eye.label for eye in eyes], np.int64), patients, classes)
    return found
