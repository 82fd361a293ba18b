"""What an artifact knows of its validation set, for the monitor of a box: kept at the export, with its rules, or by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from octc.bench.parity.decisions import Answered
from octc.bench.parity.evaluation_set import LabelledSet
from octc.bench.parity.inference import records_of
from octc.bench.parity.rules import answers_of
from octc.core.errors import OctcError
from octc.core.progress import LogReporter, Reporter
from octc.datasets.base import Sample
from octc.datasets.pictures import read_picture
from octc.export.validation import Measured, measured
from octc.imaging.input_statistics import InputStatistics, Likeness, compare_picture
from octc.imaging.preprocess import VIEWS, Float32, Preprocess, UInt8
from octc.runtimes.monitored import PICTURE
from octc.runtimes.predict import known_inputs
from octc.schemas.common import builtins
from octc.stats.cluster_bootstrap import clusters_of
from octc.stats.deciding import labels_of, stated_decision
from octc.stats.decision_rules import Decision
from octc.stats.metrics import Int64
from octc.stats.reference_sketch import KEY, MOST, sketch
from octc.store.artifacts import Artifact
from octc.store.rewriting import rewrite_details

ALPHA = 0.025  # of the interval of right - confidence: half of what an accuracy without labels has
MOST_IMAGES = 2048  # of whole patients, that an export looks at for it


@dataclass(frozen=True)
class Validation:
    """The validation set as an export keeps it in its artifacts.

    Attributes:
        labelled: whole patients, at most MOST_IMAGES images. places: of its images in the split's part.
        images: prepared, uint8 [N, C, S, S]. looks: of those of `exchangeable`; None where training images are not described.
    """

    labelled: LabelledSet
    places: list[int]
    images: UInt8
    looks: list[Likeness] | None


def whole_patients(samples: Sequence[Sample]) -> list[int]:
    """Places of the images of those patients that come first by their checksums: at most MOST_IMAGES, or one patient."""
    mine: dict[int, list[int]] = {}
    clusters = clusters_of([one.patient for one in samples])
    for k in sorted(range(len(samples)), key=lambda k: samples[k].sha256):
        mine.setdefault(int(clusters[k]), []).append(k)
    taken: list[int] = []
    for places in mine.values():
        if taken and len(taken) + len(places) > MOST_IMAGES:
            break
        taken += places
    return sorted(taken)


def exchangeable(samples: Sequence[Sample], clusters: Int64) -> list[int]:
    """One image of each patient, the one whose checksum comes first; at most MOST."""
    first: dict[int, int] = {}
    for k in sorted(range(len(samples)), key=lambda k: samples[k].sha256):
        first.setdefault(int(clusters[k]), k)
    return list(first.values())[:MOST]


def looks_of(root: Path, samples: Sequence[Sample], pre: Preprocess, known: InputStatistics) -> list[Likeness]:
    """How like the training images (`known`) each of the pictures is."""
    return [compare_picture(read_picture(root, sample, pre.value_range).image, known) for sample in samples]


def exported_details(one: Validation, artifact: Artifact, logits: Float32) -> dict[str, Any]:
    """{"monitor": the sketch} of an artifact that answered the whole part of the split, or `one.images`, with these logits
    [n, K]; nothing where they are not finite."""
    mine = logits if len(logits) == len(one.places) else logits[one.places]
    if not np.isfinite(mine).all():
        return {}
    records = records_of(one.labelled.samples, mine[:, None], VIEWS["none"], "", artifact.preprocess)
    answers = answers_of(one.labelled, records, artifact)["image"]
    return _details(answers, exchangeable(one.labelled.samples, answers.clusters), one.looks, None)


def sketch_details(one: Measured, rules: Decision | None) -> dict[str, Any]:
    """{"monitor": the sketch} for the manifest of an artifact that was measured on its validation set.

    One image of each patient goes in, the one whose checksum comes first, so that values are exchangeable.

    Args:
        rules: that the artifact decides images by from now on: a box answers with their labels, and so its labels and its
            accuracy are held against those.
    """
    answers, samples, artifact = one.answers["image"], one.labelled.samples, one.found.artifact
    chosen, known = exchangeable(samples, answers.clusters), known_inputs(artifact)
    pictures = [samples[k] for k in chosen]
    looks = None if known is None else looks_of(one.labelled.root, pictures, artifact.preprocess, known)
    return _details(answers, chosen, looks, rules)


def _details(
    answers: Answered, chosen: Sequence[int], looks: Sequence[Likeness] | None, rules: Decision | None
) -> dict[str, Any]:
    values = answers.probabilities
    top = values.max(axis=1)
    predicted = values.argmax(axis=1) if rules is None else labels_of(values, rules, answers.classes)
    labelled = [k for i, k in enumerate(chosen) if looks is None or not looks[i].unlike]  # of an unlike picture none is said
    streams: dict[str, list[float]] = {
        "confidence": top[chosen].tolist(),
        "label": predicted[labelled].astype(float).tolist(),
        "unread": [0.0] * len(chosen),
    }
    if looks is not None:
        streams["distance"] = [look.distance for look in looks if look.distance is not None]
        whole = np.array([look.values for look in looks if look.values])
        streams |= {name: whole[:, i].tolist() for i, name in enumerate(PICTURE)} if len(whole) else {}
    right = predicted == answers.labels
    return {KEY: builtins(sketch(streams, top, right, answers.patients, ALPHA))}


def fit_reference(
    artifact: Any,
    *,
    data: str | Path | None = None,
    run_dir: str | Path = "runs",
    force: bool = False,
    reporter: Reporter | None = None,
) -> list[Path]:
    """Store a sketch of the validation set in artifacts, for `octc monitor`.

    Args:
        artifact: an artifact, a folder of artifacts, or a run; None: the newest student run.
        data: root of the data set. run_dir: folder of the runs. reporter: receives messages; None: the log `octc`.
        force: change signed artifacts too; this removes the signature.

    Returns: the folders of the artifacts.

    Raises:
        OctcError: as `octc.fit_rules`; E102 a multi-label artifact.

    >>> import octc
    >>> octc.fit_reference("no-such-artifact")
    Traceback (most recent call last):
    octc.core.errors.OctcError: no artifact and no run: no-such-artifact
    """
    new = []
    for one in measured(artifact, data, run_dir, reporter or LogReporter()):
        known = one.found.artifact
        if known.task == "multilabel":
            text = f"{known.name} answers several findings an image: what a box sees is compared with its own past"
            raise OctcError("OCT-E102", text, hint="octc monitor ARTIFACT STORE, without --learn", place=str(one.found.folder))
        new.append((one.found, sketch_details(one, stated_decision(known.details, known.classes))))
    for found, details in new:
        rewrite_details(found.folder, details, found.artifact, force=force)
    return [found.folder for found, _ in new]
