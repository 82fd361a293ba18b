"""Comparison of two models on the same labelled images: all numbers of docs/parity.md. The verdict is made in verdict.py.

All proportions, differences and intervals here are fractions; reports convert them to percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.stats.auc import AucRow, compare_areas
from octc.stats.cluster_bootstrap import Paired, cluster_index, mean_cluster_size, named_images, paired
from octc.stats.metric_intervals import BINS, metric_intervals
from octc.stats.metrics import (
    Bool,
    Int64,
    Metrics,
    confidence_order,
    confusion_matrix,
    ece_mass,
    ece_width,
    find_normal,
    logit_distances,
    metrics_of,
    present_classes,
    top_two_margin,
)
from octc.stats.outcome import AnyLogits, Outcome, kl_of, outcome_of
from octc.stats.patients import Patients
from octc.stats.planned_power import Plan, discordance_of, icc_of, make_plan
from octc.stats.power import needed_n, smallest_n
from octc.stats.proportions import Interval, holm, mcnemar_midp, p_non_inferior, wilson
from octc.stats.sorted_ids import sorted_ids
from octc.stats.temperature import Temperature
from octc.stats.test_plan import ParityOptions

SCORES, ANSWERS, RIGHT = "scores", "answers", "right"  # known of a model: scores, predicted classes only, or right/wrong only
MOST_FLIPS = 10_000  # maximum number of flips that a comparison lists
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClassResult:
    """One class: the paired sensitivity on its images, the harm screen and the guard.

    `pair` and all later fields are None for a class without images. `guard_reason` is the reason why the guard fails; `needed`
    is then the number of images of this class, rounded up to 100, for a planned power of 0.80.
    """

    name: str
    n: int
    pair: Paired | None = None
    p: float | None = None
    p_holm: float | None = None
    p_ni: float | None = None
    p_ni_holm: float | None = None
    harm: bool = False
    guard: bool = False
    guard_reason: str | None = "empty_class"
    needed: int | None = None


@dataclass(frozen=True)
class Comparison:
    """Reference and candidate on n images. `figures` (metrics) and `calibration` have the keys "reference" and "candidate".

    temperatures: fitted on the validation set, if given; after_temperature: calibration after each model's own temperature
    (equal to `calibration`, which is as shipped, if that is 1).
    form: SCORES, ANSWERS (without scores: calibration and AUCs are empty) or RIGHT (without classes too).
    """

    classes: tuple[str, ...]
    n: int
    both_right: int
    both_wrong: int
    ties: dict[str, int]
    predicted_classes: dict[str, int]
    pair: Paired
    per_class: tuple[ClassResult, ...]
    matrices: dict[str, list[list[int]]]
    figures: dict[str, Metrics]
    calibration: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, Interval | None]]
    agreement: dict[str, Any]
    plan: Plan
    auc: tuple[AucRow, ...]
    temperatures: dict[str, Temperature]
    after_temperature: dict[str, dict[str, float]]
    form: str = SCORES

    def hits(self, model: str) -> int:
        """Number of images that "reference" or "candidate" classifies correctly."""
        return self.both_right + (self.pair.lost if model == "reference" else self.pair.gained)

    @property
    def largest_share(self) -> float:
        """Share of the largest class: the accuracy of a constant prediction."""
        return max(result.n for result in self.per_class) / self.n

    def facts(self) -> dict[str, Any]:
        """The facts of this result, overall and per class, that the plan for another set uses."""
        return {**self.pair.facts(), "classes": {r.name: r.pair.facts() for r in self.per_class if r.pair is not None}}


def nonfinite(ids: Sequence[str], logits: Logits) -> list[str]:
    """Ids of the images with NaN or infinity in any logit [n, views, K]."""
    good = np.isfinite(logits).reshape(len(ids), -1).all(axis=1)
    return [ids[i] for i in np.flatnonzero(~good).tolist()]


def _calibration(outcome: Outcome, labels: Int64, ids: Sequence[str]) -> dict[str, float]:
    order = confidence_order(outcome.confidence, ids)
    confidence, right = outcome.confidence[order], (outcome.predictions == labels)[order]
    return {
        "ece_mass": ece_mass(confidence, right, BINS),
        "ece_width": ece_width(confidence, right, BINS),
        "brier": float(outcome.brier(labels).mean()),
        "nll": float(outcome.nll(labels).mean()),
    }


def _with_temperature(logits: Logits, temperature: float, labels: Int64, ids: Sequence[str]) -> dict[str, float] | None:
    """Calibration metrics of logits [n, views, K] / T; None for T = 1."""
    if temperature == 1:
        return None
    return _calibration(outcome_of(np.asarray(logits, np.float64) / temperature), labels, ids)


def _unfolded(reference: Logits, candidate: Logits, folded: tuple[float, float]) -> tuple[AnyLogits, AnyLogits]:
    r, c = (np.asarray(a, np.float64) * t if t != 1 else a for a, t in zip((reference, candidate), folded, strict=True))
    return r, c


def _agreement(
    ids: Sequence[str],
    labels: Int64,
    r: Outcome,
    c: Outcome,
    raw: tuple[AnyLogits, AnyLogits],
    near: float | None,
    alpha: float,
    classes: Sequence[str],
) -> dict[str, Any]:
    same = r.predictions == c.predictions
    kl = kl_of(r, c)
    distances = logit_distances(*raw)
    flipped = np.flatnonzero(~same)
    shown = flipped[:MOST_FLIPS]
    margins = [top_two_margin(one.scores(shown)).tolist() for one in (r, c)]
    flips: list[dict[str, Any]] = [
        {
            "id": ids[i],
            "label": classes[int(labels[i])],
            "reference": classes[int(r.predictions[i])],
            "candidate": classes[int(c.predictions[i])],
            "margin_reference": before,
            "margin_candidate": after,
        }
        for i, before, after in zip(shown.tolist(), *margins, strict=True)
    ]
    limit = None if near is None or raw[0].shape[1] > 1 else 2 * near * distances["s"]
    return {
        "count": int(same.sum()),
        "rate": float(same.mean()),
        "wilson": wilson(int(same.sum()), len(same), alpha),
        "flips": flips,
        "near_tie_limit": limit,
        "near_tie_flips": None if limit is None else int((top_two_margin(r.scores(flipped)) < limit).sum()),
        "kl_mean": float(kl.mean()),
        "kl_p95": float(np.quantile(kl, 0.95)),
        "kl_max": float(kl.max()),
        **distances,
    }


def _classes(
    labels: Int64,
    r: Outcome,
    c: Outcome,
    clusters: Int64 | None,
    named: Bool,
    names: Sequence[str],
    options: ParityOptions,
    select: Mapping[str, Any] | None,
) -> tuple[ClassResult, ...]:
    lost = (r.predictions == labels) & (c.predictions != labels)
    gained = (r.predictions != labels) & (c.predictions == labels)
    pairs: dict[int, Paired] = {}
    for k in present_classes(labels).tolist():
        own = labels == k
        facts = None if select is None else select.get("classes", {}).get(names[k])
        pairs[k] = paired(
            lost[own],
            gained[own],
            None if clusters is None else clusters[own],
            named=named[own],
            alpha=options.alpha,
            icc=icc_of(options, facts),
            resamples=options.bootstrap,
            seed=options.seed,
        )
    p = [mcnemar_midp(pair.lost, pair.gained) for pair in pairs.values()]
    p_ni = [p_non_inferior(*pair.effective, options.class_delta) for pair in pairs.values()]
    rows = dict(zip(pairs, zip(p, holm(p), p_ni, holm(p_ni), strict=True), strict=True))
    discordance = discordance_of(options, select)[0]
    return tuple(
        _class_result(name, pairs[k], rows[k], options, discordance) if k in pairs else ClassResult(name, 0)
        for k, name in enumerate(names)
    )


def _class_result(
    name: str, pair: Paired, row: tuple[float, float, float, float], options: ParityOptions, discordance: float
) -> ClassResult:
    if pair.deciding is None:
        why: str | None = "one_cluster"
    elif pair.n < smallest_n(options.class_delta, options.alpha):
        why = "too_few_images"
    else:
        why = None if pair.deciding[0] > -options.class_delta else "interval_crosses_margin"
    harm = row[1] < options.alpha and pair.lost > pair.gained
    level = (discordance, options.class_delta, options.alpha)
    needed = None if why is None else needed_n(0.80, *level, max(1.0, pair.deff_plan or 1.0))
    return ClassResult(name, pair.n, pair, *row, harm=harm, guard=why is None, guard_reason=why, needed=needed)


@dataclass(frozen=True)
class Known:
    """Additional facts about the two models besides their logits.

    Attributes:
        select: `Comparison.facts` of the validation set, for the plan.
        near: tolerance (docs/parity.md, section 13) as a share of `s`; flips with a margin below twice that are near ties.
        temperatures: of "reference" and "candidate", fitted on the validation set for these artifacts.
        folded: temperatures already folded into the last layers (reference, candidate); logits are compared without them.
        form: whether the logits are SCORES, or encode ANSWERS or RIGHT (right or wrong).
    """

    select: Mapping[str, Any] | None = None
    near: float | None = None
    temperatures: Mapping[str, Temperature] = field(default_factory=dict)
    folded: tuple[float, float] = (1.0, 1.0)
    form: str = SCORES


def compare_logits(
    ids: Sequence[str],
    labels: Sequence[int] | Int64,
    patients: Patients,
    reference: Logits,
    candidate: Logits,
    classes: Sequence[str],
    options: ParityOptions,
    known: Known | None = None,
) -> Comparison:
    """Compare finite logits [n, views, K] of the same images in the same order. The result does not depend on the order.

    Args:
        ids: unique, one per image; ties of confidence are ordered by it.
        patients: cluster of each image, or None (numbers: -1).

    Raises:
        OctcError: E708 there is no image, or the reference is at chance level.
    """
    known = known or Known()
    select = known.select
    if not len(ids):
        raise OctcError("OCT-E708", "no image to compare", hint="a set with images")
    ids, order = sorted_ids(ids)  # resampling numbers patients in order of appearance
    true = np.asarray(labels, np.int64)
    if order is not None:
        true, reference, candidate = true[order], reference[order], candidate[order]
        patients = patients[order] if isinstance(patients, np.ndarray) else [patients[i] for i in order.tolist()]
    scored = known.form == SCORES
    r, c = (replace(outcome_of(logits), scored=scored) for logits in (reference, candidate))
    clusters, named = cluster_index(patients), named_images(patients)
    size = None if clusters is None else mean_cluster_size(clusters)
    right_r, right_c = r.predictions == true, c.predictions == true
    _check_reference(true, r, options.alpha)
    pair = paired(
        right_r & ~right_c,
        ~right_r & right_c,
        clusters,
        named=named,
        alpha=options.alpha,
        icc=icc_of(options, select),
        resamples=options.bootstrap,
        seed=options.seed,
    )
    models = {"reference": r, "candidate": c}
    fitted = {name: known.temperatures.get(name, Temperature(reason="not_given")) for name in models}
    calibration = {name: _calibration(model, true, ids) for name, model in models.items()}
    matrices = {name: confusion_matrix(true, model.predictions, len(classes)) for name, model in models.items()}
    return Comparison(
        classes=tuple(classes),
        n=len(true),
        both_right=int((right_r & right_c).sum()),
        both_wrong=int((~right_r & ~right_c).sum()),
        ties={name: model.ties for name, model in models.items()},
        predicted_classes={name: len(present_classes(model.predictions)) for name, model in models.items()},
        pair=pair,
        per_class=_classes(true, r, c, clusters, named, classes, options, select),
        matrices={name: table.tolist() for name, table in matrices.items()},
        figures={name: metrics_of(table, find_normal(classes)) for name, table in matrices.items()},
        calibration=calibration if scored else {},
        intervals=metric_intervals(
            ids,
            true,
            clusters,
            models,
            len(classes),
            alpha=options.alpha,
            resamples=options.bootstrap,
            seed=options.seed,
        ),
        agreement=_agreement(ids, true, r, c, _unfolded(reference, candidate, known.folded), known.near, options.alpha, classes)
        | ({} if scored else dict.fromkeys(OF_SCORES)),
        plan=make_plan(len(true), size, options, select),
        auc=compare_areas(true, clusters, (r, c), classes, alpha=options.alpha, resamples=options.bootstrap, seed=options.seed)
        if scored
        else (),
        temperatures=fitted,
        after_temperature={
            name: _with_temperature(logits, fitted[name].value, true, ids) or calibration[name]
            for name, logits in (("reference", reference), ("candidate", candidate))
        },
        form=known.form,
    )


# keys of an agreement that need scores
OF_SCORES = (
    "near_tie_limit", "near_tie_flips", "kl_mean", "kl_p95", "kl_max",
    "dlogit_max", "dlogit_p99", "dlogit_mean", "dlogit_centred_max", "s",
)  # fmt: skip


def _check_reference(labels: Int64, reference: Outcome, alpha: float) -> None:
    share = float(np.bincount(labels).max() / len(labels))
    hits = int((reference.predictions == labels).sum())
    lower = (wilson(hits, len(labels), alpha) or (0.0, 0.0))[0]
    if hits == 0 or (share < 1 and (lower <= share or len(present_classes(reference.predictions)) < 2)):
        text = f"the reference is at chance: {hits} of {len(labels)} right, the largest class has {round(share * len(labels))}"
        raise OctcError("OCT-E708", text, hint="train the reference longer, or choose another run")
