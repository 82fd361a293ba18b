"""Comparison of two classifiers on the same images: accuracy with paired intervals and tests, and size.

There is no verdict here (see octc/stats/verdict.py): any two classifiers can be compared. Values are fractions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError, shorten
from octc.stats.cluster_bootstrap import Paired, cluster_index, named_images, paired
from octc.stats.metrics import Float64, Metrics, confusion_matrix, find_normal, metrics_of, nll_scores
from octc.stats.patients import NOT_RECORDED, PatientIds, patient_ids
from octc.stats.proportions import holm, mcnemar_exact, mcnemar_midp, wilson

RESAMPLES, SEED = 10_000, 0
Ids = tuple[tuple[str, str], ...]  # sha256 and path of each image


@dataclass(frozen=True)
class Side:
    """Predictions of one classifier.

    Attributes:
        ids: ids of the images; labels: class indices; patients: ids or None; probabilities and their logarithms [n, K].
        size: "parameters", "macs", "file_mib", None if unknown. latency: one row per measured artifact.
        ensemble: accuracy of the ensemble of all folds on the official test part, for a cross-validation.
    """

    name: str
    role: str
    model: str
    classes: tuple[str, ...]
    ids: Ids
    labels: tuple[int, ...]
    patients: tuple[str | None, ...]
    probabilities: Float64
    logs: Float64
    size: dict[str, float | None]
    latency: tuple[dict[str, Any], ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    ensemble: float | None = None

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        predicted: npt.NDArray[np.int64] = self.probabilities.argmax(1).astype(np.int64)
        return predicted


@dataclass(frozen=True)
class ClassPair:
    """One class: both sensitivities and their paired difference; p: McNemar's mid-p, p_holm: adjusted over classes."""

    name: str
    n: int
    reference: float | None
    candidate: float | None
    pair: Paired | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class Versus:
    """Reference and candidate on n images. known: whether the patients are known."""

    sides: tuple[Side, Side]
    n: int
    known: PatientIds
    figures: tuple[Metrics, Metrics]
    losses: tuple[float, float]
    pair: Paired
    agreement: float
    mcnemar_midp: float
    mcnemar_exact: float
    per_class: tuple[ClassPair, ...]

    @property
    def patients(self) -> int | None:
        """Number of known patients; None if none is known."""
        return self.known.count

    @property
    def leakage(self) -> str:
        """ "none" if both splits state that, else why there may be leakage."""
        stated = [str(side.facts.get("leakage") or NOT_RECORDED) for side in self.sides]
        return "; ".join(dict.fromkeys(text for text in (*stated, self.known.leakage) if text not in ("", "none"))) or "none"

    @property
    def gap(self) -> float:
        """Accuracy of the reference minus that of the candidate."""
        return -self.pair.difference


def aligned(reference: Side, candidate: Side) -> Side:
    """Sort the candidate's predictions into the order of the reference's images.

    Raises:
        OctcError: E706 different images or labels; E309 different classes or another order of them.
    """
    if reference.classes != candidate.classes:
        text = f"classes differ: {', '.join(reference.classes)}; {', '.join(candidate.classes)}"
        raise OctcError("OCT-E309", text, hint="compare networks of the same classes in the same order")
    ours, theirs = set(reference.ids), set(candidate.ids)
    if ours != theirs:
        only = [shorten(sorted(path for _, path in part), 3) or "none" for part in (ours - theirs, theirs - ours)]
        text = f"the two were not judged on the same images: only {reference.name}: {only[0]}; only {candidate.name}: {only[1]}"
        hint = "--split test (or official): a part that both have; or train both with one seed and one protocol"
        raise OctcError("OCT-E706", text, hint=hint)
    where = {one: i for i, one in enumerate(candidate.ids)}
    order = [where[one] for one in reference.ids]
    moved = tuple(candidate.labels[i] for i in order)
    if moved != reference.labels:
        raise OctcError("OCT-E706", "the two have different labels for the same images", hint="evaluate both on one data set")
    return replace(
        candidate,
        ids=reference.ids,
        labels=moved,
        patients=tuple(candidate.patients[i] for i in order),
        probabilities=candidate.probabilities[order],
        logs=candidate.logs[order],
    )


def versus(reference: Side, candidate: Side, alpha: float = 0.05) -> Versus:
    """Compare two sides; intervals and tests as for `octc verify` (Tango's interval scaled for patients, McNemar)."""
    candidate = aligned(reference, candidate)
    labels = np.asarray(reference.labels, np.int64)
    clusters, named = cluster_index(reference.patients), named_images(reference.patients)
    normal = find_normal(reference.classes)
    matrices = [confusion_matrix(labels, side.predicted, len(reference.classes)) for side in (reference, candidate)]
    right = [side.predicted == labels for side in (reference, candidate)]
    lost, gained = right[0] & ~right[1], ~right[0] & right[1]

    def pair_of(chosen: npt.NDArray[np.bool_]) -> Paired:
        own = None if clusters is None else clusters[chosen]
        return paired(lost[chosen], gained[chosen], own, named=named[chosen], alpha=alpha, resamples=RESAMPLES, seed=SEED)

    whole = pair_of(np.ones(len(labels), np.bool_))
    rows = {k: pair_of(labels == k) for k in np.unique(labels).tolist()}
    midps = [mcnemar_midp(pair.lost, pair.gained) for pair in rows.values()]
    found = dict(zip(rows, zip(midps, holm(midps), strict=True), strict=True))
    figures = (metrics_of(matrices[0], normal), metrics_of(matrices[1], normal))
    per_class = []
    for k, name in enumerate(reference.classes):
        one, other = (part.per_class[k].sensitivity for part in figures)
        p, adjusted = found.get(k, (None, None))
        per_class.append(ClassPair(name, int((labels == k).sum()), one, other, rows.get(k), p, adjusted))
    return Versus(
        (reference, candidate),
        len(labels),
        patient_ids(reference.patients),
        figures,
        (float(nll_scores(reference.logs, labels).mean()), float(nll_scores(candidate.logs, labels).mean())),
        whole,
        float((reference.predicted == candidate.predicted).mean()),
        mcnemar_midp(whole.lost, whole.gained),
        mcnemar_exact(whole.lost, whole.gained),
        tuple(per_class),
    )


def share_saved(reference: float | None, candidate: float | None) -> float | None:
    """1 - candidate / reference."""
    return None if not reference or candidate is None else 1 - candidate / reference


def times_smaller(reference: float | None, candidate: float | None) -> float | None:
    """reference / candidate."""
    return None if reference is None or not candidate else reference / candidate


CSV_COLUMNS = (
    "teacher_params_M", "student_params_M", "teacher_accuracy", "student_accuracy", "student_ensemble_accuracy",
    "param_reduction_pct", "accuracy_gap_mean_pct", "accuracy_gap_ensemble_pct", "compression_ratio", "teacher", "student", "n",
    "gap_low_95_pct", "gap_high_95_pct", "mcnemar_midp", "teacher_macs_G", "student_macs_G", "teacher_file_MiB",
    "student_file_MiB",
)  # fmt: skip


def csv_row(found: Versus) -> tuple[Any, ...]:
    """A row of model_comparison.csv: KD-OCT's columns (accuracy in percent, gaps in points), then octc's additional ones."""
    one, other = found.sides
    limits = found.pair.deciding
    low, high = (None, None) if limits is None else (-100 * limits[1], -100 * limits[0])
    accuracy = [100 * (figures.accuracy or 0.0) for figures in found.figures]
    saved = share_saved(one.size.get("parameters"), other.size.get("parameters"))
    gap = None if one.ensemble is None or other.ensemble is None else 100 * (one.ensemble - other.ensemble)
    return (
        _scaled(one, "parameters", 1e6),
        _scaled(other, "parameters", 1e6),
        *accuracy,
        None if other.ensemble is None else 100 * other.ensemble,
        None if saved is None else 100 * saved,
        100 * found.gap,
        gap,
        times_smaller(one.size.get("parameters"), other.size.get("parameters")),
        one.name,
        other.name,
        found.n,
        low,
        high,
        found.mcnemar_midp,
        _scaled(one, "macs", 1e9),
        _scaled(other, "macs", 1e9),
        one.size.get("file_mib"),
        other.size.get("file_mib"),
    )


def _scaled(side: Side, name: str, unit: float) -> float | None:
    value = side.size.get(name)
    return None if value is None else value / unit


def versus_json(found: Versus) -> dict[str, Any]:
    """The comparison as a document; fractions, not percent."""
    sides = []
    for side, figures, loss in zip(found.sides, found.figures, found.losses, strict=True):
        hits = round((figures.accuracy or 0.0) * figures.n)
        sides.append(
            {
                "name": side.name,
                "role": side.role,
                "model": side.model,
                "facts": side.facts,
                "size": side.size,
                "latency": list(side.latency),
                "figures": asdict(figures),
                "loss": loss,
                "ensemble_accuracy": side.ensemble,
                "accuracy_wilson_95": wilson(hits, figures.n),
            }
        )
    one, other = (side.size for side in found.sides)
    names = ("parameters", "macs", "file_mib")
    return {
        "reference": sides[0],
        "candidate": sides[1],
        "classes": found.sides[0].classes,
        "n": found.n,
        "patients": found.patients,
        **found.known.to_json(),
        "leakage": found.leakage,
        "agreement": found.agreement,
        "gap": found.gap,
        "pair": asdict(found.pair),
        "difference": found.pair.difference,
        "mcnemar_midp": found.mcnemar_midp,
        "mcnemar_exact": found.mcnemar_exact,
        "per_class": [asdict(row) for row in found.per_class],
        "saved": {name: share_saved(one.get(name), other.get(name)) for name in names},
        "times_smaller": {name: times_smaller(one.get(name), other.get(name)) for name in names},
    }
