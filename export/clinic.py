"""What an artifact keeps of training images that are B-scans of volumes: how their grey was made, how an eye's answer is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.errors import OctcError
from octc.datasets.base import Sample
from octc.datasets.eyes import eyes_among
from octc.datasets.pictures import volume_of
from octc.export.source import RunSource, Select, read_select
from octc.stats.aggregation import Choice, choose_aggregation
from octc.stats.metrics import softmax
from octc.train.evaluation.outcome import newest_evaluation, read_predictions
from octc.volumes.likeness import PICTURE


def mapping_details(train: Sequence[Sample], root: Path) -> dict[str, Any]:
    """{"intensity": how the grey of the training images was made}: each mapping with its numbers, and of how many images."""
    counts = Counter(PICTURE if sample.scan is None else sample.scan.intensity for sample in train)
    first = {sample.scan.intensity: sample.scan for sample in reversed(train) if sample.scan is not None}
    mappings = [
        {**(volume_of(root, first[name]).intensity.to_json() if name in first else {"name": name}), "images": count}
        for name, count in sorted(counts.items())
    ]
    return {"intensity": {"mappings": mappings}}


def choose_for_eyes(source: RunSource, select: Select | None) -> Choice | None:
    """The way to make an eye's answer that fits the validation set best; None where no B-scan of a volume is in it.

    The answers are those of the float network: those at hand, else those that its training stored, else they are computed now.
    """
    samples = source.split.parts["val"]
    eyes, _ = eyes_among(samples)
    if not eyes or source.checkpoint.recipe.get("task") == "multilabel":
        return None
    logits = select.reference if select is not None else _stored(source, samples)
    if logits is None:
        logits = read_select(source).reference
    probabilities = softmax(logits)
    return choose_aggregation([eye.scores(probabilities) for eye in eyes])


def _stored(source: RunSource, samples: Sequence[Sample]) -> Any:
    """Logits [n, K] of the validation set as the training evaluated it, with these weights; None where that is not here."""
    try:
        found = read_predictions(newest_evaluation(source.run.path, "val", "none", source.checkpoint.sha256))
    except OctcError:
        return None
    where = {path: i for i, path in enumerate(found.paths)}
    if found.facts.get("checkpoint_sha256") != source.checkpoint.sha256 or any(s.path not in where for s in samples):
        return None
    return np.asarray(found.logits[[where[s.path] for s in samples], 0])


def clinic_details(source: RunSource, choice: Choice | None) -> dict[str, Any]:
    """For the manifest: mapping of grey; of volumes how an eye's answer is made, and what that was chosen among."""
    chosen = {} if choice is None else {"aggregation": choice.how.to_json(), "aggregation_choice": choice.to_json()}
    return {**mapping_details(source.split.parts["train"], source.root), **chosen}


def choice_words(choice: Choice) -> str:
    """In a line: what was chosen, on what, and how it compares with the plain mean."""
    if choice.reason:
        return f"{choice.how.words}, not chosen: {choice.reason}"
    own = next(one for one in choice.tried if (one.how.method, one.how.position) == (choice.how.method, choice.how.position))
    mean = choice.tried[0]
    beside = "" if own is mean else f" (mean of the logits: {mean.nll:.3f})"
    return (
        f"{choice.how.words}, chosen on {choice.eyes} validation eyes of {choice.patients} patients: {own.nll:.3f} nats{beside}"
    )
