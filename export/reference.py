"""What an artifact is to know of its validation set, for the monitor of a box: stored with its rules, or by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from octc.core.progress import LogReporter, Reporter
from octc.datasets.pictures import read_picture
from octc.export.validation import Measured, measured
from octc.imaging.input_statistics import compare_picture
from octc.runtimes.monitored import PICTURE
from octc.runtimes.predict import known_inputs
from octc.stats.reference_sketch import KEY, MOST, sketch, sketch_json
from octc.store.rewriting import rewrite_details

ALPHA = 0.025  # of the interval of right - confidence: half of what an accuracy without labels has


def sketch_details(one: Measured) -> dict[str, Any]:
    """{"monitor": the sketch} for the manifest of an artifact that was measured on its validation set.

    One image of each patient goes in, the one whose checksum comes first, so that values are exchangeable.
    """
    answers, samples = one.answers["image"], one.labelled.samples
    first: dict[int, int] = {}
    for k in sorted(range(len(samples)), key=lambda k: samples[k].sha256):
        first.setdefault(int(answers.clusters[k]), k)
    chosen = list(first.values())[:MOST]
    values, artifact = answers.probabilities, one.found.artifact
    top, predicted = values.max(axis=1), values.argmax(axis=1)
    streams: dict[str, list[float]] = {
        "confidence": top[chosen].tolist(),
        "label": predicted[chosen].astype(float).tolist(),
        "unread": [0.0] * len(chosen),
    }
    known = known_inputs(artifact)
    if known is not None:
        looks = [
            compare_picture(read_picture(one.labelled.root, samples[k], artifact.preprocess.value_range).image, known)
            for k in chosen
        ]
        streams["distance"] = [look.distance for look in looks if look.distance is not None]
        whole = np.array([look.values for look in looks if look.values])
        streams |= {name: whole[:, i].tolist() for i, name in enumerate(PICTURE)} if len(whole) else {}
    right = predicted == answers.labels
    return {KEY: sketch_json(sketch(streams, top, right, answers.clusters, ALPHA))}


def fit_reference(
    artifact: Any,
    *,
    data: str | Path | None = None,
    run_dir: str | Path = "runs",
    force: bool = False,
    reporter: Reporter | None = None,
) -> list[Path]:
    """Store in artifacts what their validation set looks like, for `octc monitor`. Their folders.

    Args:
        artifact: an artifact, a folder of artifacts, or a run; None: the newest student run. force: also signed ones.

    Raises:
        OctcError: as `octc.fit_rules`.

    >>> import octc
    >>> octc.fit_reference("no-such-artifact")
    Traceback (most recent call last):
    octc.core.errors.OctcError: no artifact and no run: no-such-artifact
    """
    new = [(one.found.folder, sketch_details(one)) for one in measured(artifact, data, run_dir, reporter or LogReporter())]
    for folder, details in new:
        rewrite_details(folder, details, force=force)
    return [folder for folder, _ in new]
