"""Model cards of served artifacts."""

from __future__ import annotations

from typing import Any

from octc.serve.models import Opened
from octc.stats.deciding import UNITS, stated_decision, words_of
from octc.store.verdicts import headline, read_verdict, word_of

LINEAGE = ("run", "recipe", "dataset", "split_digest", "data_digest", "license")
NOT_A_DEVICE = "Not a medical device. Not for diagnosis."


def card_of(model: Opened) -> dict[str, Any]:
    """Name, version, classes, preprocessing, origin, verdict and calibration of an artifact, as far as known."""
    artifact = model.artifact
    verdict = headline(read_verdict(model.folder, model.sha256))
    return {
        "name": model.name,
        "version": model.version,
        "sha256": model.sha256,
        "model": artifact.model,
        "role": artifact.role,
        "target": artifact.target,
        "precision": artifact.precision,
        "task": artifact.task,
        "classes": list(artifact.classes),
        "input": artifact.preprocess.to_json(),
        "lineage": {key: artifact.lineage[key] for key in LINEAGE if key in artifact.lineage},
        "verdict": _verdict(verdict),
        "calibration": _calibration(model, verdict),
        "likeness_checked": artifact.details.get("input_statistics") is not None,
        "rules": _rules(model),
        "engine": {key: model.runtimes[0].facts.get(key) for key in ("runtime", "version", "threads", "device")},
        "engines": len(model.runtimes),
        "threads_alone": model.quickest.facts.get("threads"),
        "batches": list(model.sizes),
        "exact_in_batches": model.exact,
        "golden": {"images": model.golden.images, "delta_over_s": model.golden.delta_over_s, "limit": model.golden.tolerance},
        "notice": NOT_A_DEVICE,
    }


def _rules(model: Opened) -> dict[str, list[str]]:
    """The decision rules of the artifact as text, for images and eyes; empty if the most likely class is predicted."""
    artifact, found = model.artifact, {}
    for unit in UNITS:
        if (rules := stated_decision(artifact.details, artifact.classes, unit)) is not None:
            found[unit] = words_of(rules)
    return found


def _verdict(found: dict[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    images = found.get("set") or {}
    return {"word": word_of(found), "set": images.get("name"), "images": images.get("n"), "time": found.get("time_utc")}


def _calibration(model: Opened, verdict: dict[str, Any] | None) -> dict[str, Any]:
    """Calibration. temperature: the one folded into the last layer. error: ECE of the last verification; None if unknown."""
    measured = None if verdict is None else verdict.get("calibration")
    images = None if verdict is None else verdict.get("set")
    error = None
    if isinstance(measured, dict) and isinstance(images, dict):
        error = {"ece": measured["candidate"]["ece_mass"], "images": images.get("n"), "set": images.get("name")}
    return {"temperature": model.artifact.details.get("temperature"), "error": error}
