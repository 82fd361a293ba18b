"""Compares two artifacts of a multi-label network on the same images: decisions per class, mAP, and a verdict.

Decisions are per image, at the thresholds stored in the artifact; mAP is over eyes, with a patient bootstrap interval (an eye
bootstrap without known patients).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from octc.stats.average_precision import RESAMPLES, SEED, map_difference
from octc.stats.metrics import Bool, Float64
from octc.stats.multilabel import by_eye, mean_ap, target_matrix, view_scores
from octc.stats.patients import PatientIds, patient_ids
from octc.stats.proportions import Interval, flip_rate_bound, wilson
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import SHOWN, GateResult, Part, Verdict, conclude, finite_part


class LabelledImage(Protocol):
    """The attributes of an image that a comparison uses, as in `octc.datasets.base.Sample`.

    Attributes:
        targets: class indices, or None if it has only `label`. patient, eye: ids, None if unknown.
    """

    @property
    def path(self) -> str: ...
    @property
    def label(self) -> int: ...
    @property
    def patient(self) -> str | None: ...
    @property
    def targets(self) -> tuple[int, ...] | None: ...
    @property
    def eye(self) -> str | None: ...


COLUMNS = ("class", "support", "flips", "to_positive", "to_negative", "lost", "gained", "ap_reference", "ap_candidate")


@dataclass(frozen=True)
class Decisions:
    """Comparison of reference and candidate, as fractions.

    Attributes:
        n, eyes: numbers of images and eyes; known: whether their patients are known.
        per_class: rows with the keys of COLUMNS; flips: different decisions; lost (regressed): correct only in the reference.
        agreement: share of equal decisions over images and classes; agreement_interval: Wilson interval over the decisions.
        map: mAP of reference and candidate over eyes; difference: candidate minus reference, with its paired interval.
        dlogit_max: largest absolute difference of a logit.
    """

    n: int
    eyes: int
    known: PatientIds
    per_class: tuple[dict[str, Any], ...]
    agreement: float
    agreement_interval: Interval | None
    map: dict[str, float | None]
    difference: float | None
    interval: Interval | None
    dlogit_max: float
    thresholds: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields for a manifest or a report; the mAP and its difference in percentage points."""
        drop = None if self.difference is None else 100 * self.difference
        interval = None if self.interval is None else [100 * limit for limit in self.interval]
        flips = sum(row["flips"] for row in self.per_class)
        return {
            "task": "multilabel",
            "n": self.n,
            "eyes": self.eyes,
            "patients": self.known.count,
            **self.known.to_json(),
            "drawn": "eyes" if self.known.count is None else "patients",
            "agreement": self.agreement,
            "agreement_wilson": self.agreement_interval,
            "flips": flips,
            "per_class": list(self.per_class),
            "map": {name: None if value is None else 100 * value for name, value in self.map.items()},
            "map_difference_pp": drop,
            "map_difference_interval_pp": interval,
            "dlogit_max": self.dlogit_max,
            "thresholds": list(self.thresholds),
            "resamples": RESAMPLES,
            "flip_rate_upper_95": flip_rate_bound(self.n * len(self.per_class)) if flips == 0 else None,
        }


def compare_decisions(
    samples: Sequence[LabelledImage],
    reference: Any,
    candidate: Any,
    classes: Sequence[str],
    thresholds: Sequence[float],
    *,
    truth: str = "union",
    alpha: float = 0.05,
    seed: int = SEED,
) -> Decisions:
    """Compare finite logits [n, views, K] of the same images in the same order."""
    labels = target_matrix([s.targets if s.targets is not None else (s.label,) for s in samples], len(classes))
    eyes, patients = [s.eye or s.path for s in samples], [s.patient for s in samples]
    scores = view_scores(reference), view_scores(candidate)
    cuts = np.asarray(thresholds, np.float64)
    predicted = scores[0] >= cuts, scores[1] >= cuts
    by = tuple(by_eye(values, labels, eyes, patients, label=truth) for values in scores)
    difference, interval = map_difference(*by, seed=seed, alpha=alpha)
    same = int((predicted[0] == predicted[1]).sum())
    return Decisions(
        n=len(samples),
        eyes=len(by[0].names),
        known=patient_ids(patients),
        per_class=tuple(_class(name, k, labels, predicted, scores) for k, name in enumerate(classes)),
        agreement=same / labels.size,
        agreement_interval=wilson(same, labels.size, alpha),
        map={"reference": mean_ap(by[0].scores, by[0].truth), "candidate": mean_ap(by[1].scores, by[1].truth)},
        difference=difference,
        interval=interval,
        dlogit_max=float(np.abs(np.asarray(reference) - np.asarray(candidate)).max()),
        thresholds=tuple(float(value) for value in thresholds),
    )


def _class(name: str, k: int, labels: Bool, predicted: tuple[Bool, Bool], scores: tuple[Float64, Float64]) -> dict[str, Any]:
    one, other, true = predicted[0][:, k], predicted[1][:, k], labels[:, k]
    aps = [mean_ap(values[:, k : k + 1], labels[:, k : k + 1]) for values in scores]
    cells = (
        name,
        int(true.sum()),
        int((one != other).sum()),
        int((~one & other).sum()),
        int((one & ~other).sum()),
        int(((one == true) & (other != true)).sum()),
        int(((one != true) & (other == true)).sum()),
        *aps,
    )
    return dict(zip(COLUMNS, cells, strict=True))


def judge_decisions(found: Decisions, options: ParityOptions, extra: Sequence[Part] = (), exploratory: bool = False) -> Verdict:
    """The verdict on the claim that the mAP falls by less than the margin; the interval decides, as for multi-class."""
    delta, limits = options.delta, found.interval
    if limits is None or found.difference is None:
        few = f"no interval: fewer than two {'eyes' if found.known.count is None else 'patients'}"
        parts = (*extra, Part("mAP", False, "inconclusive", "one_cluster", few, "OCT-E705"))
    else:
        inferior, shown = limits[1] < -delta, limits[0] > -delta
        text = (
            f"mAP {_pp(found.map['reference'])} -> {_pp(found.map['candidate'])}, D {100 * found.difference:+.3f} "
            f"[{100 * limits[0]:+.3f}, {100 * limits[1]:+.3f}], margin {options.margin:g}"
        )
        word = "inferior" if inferior else "inconclusive"
        reason = "upper_limit_below_margin" if inferior else "interval_crosses_margin"
        parts = (*extra, Part("mAP", shown, word, reason, text, "OCT-E704" if inferior else "OCT-E705"))
    failed = [part for part in parts if not part.holds]
    order = ("fail", "inferior", "inconclusive")
    best = "equivalent" if limits is not None and limits[1] < delta else "non_inferior"
    word = min((part.word for part in failed), key=order.index, default=best)
    reasons = [part.reason for part in failed]
    return conclude(word, reasons, parts, limits=limits, claim=options.claim, exploratory=exploratory)


def _pp(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.2f}"


def all_finite(samples: Sequence[LabelledImage], logits: Any) -> Part:
    """The verdict's part about finite logits [n, views, K]."""
    good = np.isfinite(np.asarray(logits)).reshape(len(samples), -1).all(axis=1)
    return finite_part([s.path for s, fine in zip(samples, good.tolist(), strict=True) if not fine], len(samples))


@dataclass(frozen=True)
class EyeGate(GateResult):
    """The decision of the export gate for a multi-label network; `found` is stored in the manifest."""

    found: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), **self.found}


def gate_decisions(
    samples: Sequence[LabelledImage],
    reference: Any,
    candidate: Any,
    classes: Sequence[str],
    thresholds: Sequence[float],
    options: ParityOptions | None = None,
    truth: str = "union",
    extra: Sequence[Part] = (),
) -> EyeGate:
    """The export gate, from logits [n, K] on the validation set: the mAP may fall by at most the margin."""
    options = options or ParityOptions()
    r, c = (np.asarray(a)[:, None] if np.ndim(a) == 2 else np.asarray(a) for a in (reference, candidate))
    extra = [*extra, all_finite(samples, c)]
    if any(not part.holds for part in extra):
        reasons = tuple(part.reason for part in extra if not part.holds)
        verdict = conclude("fail", reasons, extra)
        return EyeGate(False, "rejected", reasons, None, verdict, None)
    found = compare_decisions(samples, r, c, classes, thresholds, truth=truth, alpha=options.alpha)
    verdict = judge_decisions(found, options, extra)
    worse = found.difference is not None and found.difference < -options.delta
    if worse or verdict.word in ("fail", "inferior"):
        reasons = ("point_difference", *verdict.reasons) if worse else verdict.reasons
        return EyeGate(False, "rejected", reasons, None, verdict, None, found.to_json())
    word = "non-inferior on select" if verdict.word in SHOWN else "parity not shown yet"
    return EyeGate(True, word, verdict.reasons, None, verdict, None, found.to_json())
