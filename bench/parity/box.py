"""The results of one machine for an artifact's images, in a compact form that shows where machines differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from octc.bench.parity.inference import Records
from octc.bench.parity.open_artifact import Opened
from octc.core.errors import OctcError
from octc.core.files import canonical_json, sha256_bytes
from octc.core.progress import Reporter
from octc.runtimes.layers import Values, layer_values
from octc.stats.comparison import nonfinite
from octc.stats.deciding import decide, labels_of, stated_decision
from octc.stats.decision_rules import Decision
from octc.stats.metrics import Float64, combine_views
from octc.stats.multilabel import thresholds_of, view_scores
from octc.stats.outcome import outcome_of
from octc.store.artifacts import read_golden

DIGITS = 7  # significant ones of a float32


@dataclass(frozen=True)
class Box:
    """One machine.

    Attributes:
        engine: facts of the runtime. golden_logits: its answers to the golden images.
        labels: checksum of the ids of the labelled images, and the class of each in the order of the ids (where classes do not
            exclude each other, its findings; where rules decide, what they answer, plus the number of classes if they
            refer it); None without. gaps: of each, its largest logit less the next, where that alone is the answer.
            thresholds: of the findings; None where classes exclude each other.
        layers: names and a few values of every layer on the golden images; None with the reason.
    """

    engine: dict[str, Any]
    golden_logits: list[list[float]]
    labels: tuple[str, list[int] | list[list[int]]] | None = None
    gaps: list[float] | None = None
    thresholds: tuple[float, ...] | None = None
    layers: tuple[tuple[str, Values], ...] | None = None
    layers_reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        layers = None
        if self.layers is not None:
            layers = [{"name": name, "values": [rounded(one) for one in values.tolist()]} for name, values in self.layers]
        labels: dict[str, Any] | None = None
        if self.labels is not None:
            labels = {"sha256_of_ids": self.labels[0], "predictions": self.labels[1]}
            labels |= {} if self.gaps is None else {"gaps": self.gaps}
        return {
            "engine": self.engine,
            "golden_logits": self.golden_logits,
            "labels": labels,
            "thresholds": None if self.thresholds is None else list(self.thresholds),
            "layers": layers,
            "layers_reason": self.layers_reason,
        }


def rounded(value: float) -> float:
    """A float32 as it is written: no digit more than it has."""
    return float(f"{value:.{DIGITS}g}")


def box_of(one: Opened, records: Records | None, *, layers: bool, reporter: Reporter) -> Box:
    """What this machine answered; the layers only where they are asked for, or the reason why they are not there."""
    logits = [[rounded(value) for value in row] for row in one.golden_logits.tolist()]
    artifact, labels, gaps, thresholds = one.found.artifact, None, None, None
    if artifact.task == "multilabel":
        thresholds = thresholds_of(artifact.details, len(artifact.classes))
    if records is not None and not nonfinite(records.ids, records.logits):
        ordered = records.in_order(sorted(records.ids))
        ids = sha256_bytes(canonical_json(list(ordered.ids)))
        rules = None if thresholds is not None else stated_decision(artifact.details, artifact.classes)
        told = _answers(ordered, thresholds) if rules is None else _decided(ordered, rules, artifact.classes)
        labels = (ids, told)
        gaps = _gaps(ordered) if thresholds is None and rules is None else None
    head = Box(dict(one.runtime.facts), logits, labels, gaps, thresholds)
    if not layers:
        return Box(**{**vars(head), "layers_reason": "not recorded: octc verify --layers"})
    try:
        with reporter.progress("layers", None):
            found = layer_values(one.found.folder, artifact, read_golden(one.found.folder).inputs)
    except OctcError as error:
        return Box(**{**vars(head), "layers_reason": error.message})
    return Box(**{**vars(head), "layers": found})


def _gaps(records: Records) -> list[float]:
    """How far the answer to each image is from another one, in logits; views are one answer."""
    largest = float(np.finfo(np.float32).max)

    def gap(_: slice, __: Float64, logs: Float64) -> Float64:
        two = np.partition(logs, -2, axis=1)[:, -2:]
        return np.minimum(two[:, 1] - two[:, 0], largest)

    return [rounded(one) for one in outcome_of(records.logits).each(gap).tolist()]


def _decided(records: Records, rules: Decision, classes: Sequence[str]) -> list[int]:
    """What rules answer to each image; K more where they refer it: a machine that crosses a threshold alone differs."""
    scores = combine_views(records.logits)[0]
    labels = labels_of(scores, rules, classes).tolist()
    return [label + len(classes) * decide(row, rules, classes).refer for label, row in zip(labels, scores, strict=True)]


def _answers(records: Records, thresholds: tuple[float, ...] | None) -> list[int] | list[list[int]]:
    """The class of each image, or its findings."""
    if thresholds is None:
        return outcome_of(records.logits).predictions.tolist()  # type: ignore[no-any-return]
    return [np.flatnonzero(row).tolist() for row in view_scores(records.logits) >= np.asarray(thresholds)]
