"""Aggregates the predictions of B-scans to one prediction per eye. The method is data, stored in the artifact's manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError

Floats = npt.NDArray[np.float64]
PLAIN = ("mean", "top", "largest", "noisy-or")  # methods without fitted weights
LEARNED = "learned"
METHODS = (*PLAIN, LEARNED)
POSITIONED = ("mean", "noisy-or")  # methods that can weight B-scans by position
LEAST = 1e-12
MOST_WEIGHTS = 64
WIDTH = 0.25  # std of the Gaussian position weights, as a share of the volume: weight 0.14 at its ends, 1 in the middle
QUANTILES = 5  # quantiles of the scores with learned weights: largest, upper quartile, median, lower quartile, smallest
RIDGE = 0.02  # regularisation of learned weights towards equal weights
LEAST_EYES, LEAST_PATIENTS = 10, 5  # minimum numbers for choosing a method
FOLDS, STEPS = 10, 300
CRITERION = (
    "lowest mean negative log-likelihood of the eyes' labels; of those within one standard error of it (paired, clustered by "
    "patient) the first in the order of this list; learned weights are scored on patients that they were not learned on"
)


@dataclass(frozen=True)
class Aggregation:
    """Method to aggregate the B-scans of an eye.

    Attributes:
        method: "mean": mean of the logits; "top": mean of the `top` largest probabilities of a class; "largest"; "noisy-or":
            1 - product of (1 - p), for findings that one B-scan is sufficient for; "learned": `weights` times the quantiles
            of the log-probabilities of a class, from the largest to the smallest.
        top: number of B-scans for "top".
        chosen_on: set that the method was chosen on ("validation set"), or "" for the default.
        position: std of the Gaussian weights by position in the volume, as a share of the volume, for "mean" and "noisy-or";
            0: equal weights.
        weights: weights for "learned", each at least 0.
    """

    method: str = "mean"
    top: int = 3
    chosen_on: str = ""
    position: float = 0.0
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        learned = self.method == LEARNED
        numbers = np.asarray([self.position, *self.weights], np.float64)
        fits = (
            self.method in METHODS
            and self.top >= 1
            and (not learned or 2 <= len(self.weights) <= MOST_WEIGHTS)
            and (learned or not self.weights)
            and bool(np.isfinite(numbers).all() and (numbers >= 0).all())
            and (not self.position or self.method in POSITIONED)
        )
        if not fits:
            hint = f"one of: {', '.join(PLAIN)}"
            raise OctcError("OCT-E104", f"aggregation {self.method!r} ({self.top})", hint=hint, place="--aggregation")

    @property
    def words(self) -> str:
        """The method as text, for a table."""
        said = {"mean": "mean of the logits", "top": f"mean of the {self.top} largest", "largest": "largest"}
        text = said.get(self.method, "learned weights" if self.method == LEARNED else self.method)
        return f"{text}, weighted by place" if self.position else text

    def to_json(self) -> dict[str, Any]:
        more = {"position": self.position} if self.position else {}
        learned = {"weights": list(self.weights)} if self.weights else {}
        return {"method": self.method, "top": self.top, "chosen_on": self.chosen_on, **more, **learned}

    @staticmethod
    def from_json(value: Any) -> Aggregation:
        """Read the method from a manifest (OctcError E502: invalid)."""
        try:
            weights = tuple(float(weight) for weight in value.get("weights", ()))
            given = str(value["method"]), int(value["top"]), str(value["chosen_on"])
            return Aggregation(*given, position=float(value.get("position", 0.0)), weights=weights)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OctcError) as error:
            text = f"aggregation in the manifest is not valid: {error}"
            raise OctcError("OCT-E502", text, hint="do not use this artifact", place="artifact.json") from error


def stated_aggregation(details: Mapping[str, Any]) -> Aggregation:
    """The aggregation method in the details of a manifest; without one the mean of the logits."""
    value = details.get("aggregation")
    return Aggregation() if value is None else Aggregation.from_json(value)


def aggregate(
    probabilities: npt.ArrayLike, how: Aggregation, *, exclusive: bool = True, places: Sequence[float] | None = None
) -> Floats:
    """Aggregate the probabilities of an eye's B-scans.

    Args:
        probabilities: float64 [B-scans, K], at least one B-scan.
        exclusive: True for mutually exclusive classes, whose result sums to 1; False for independent findings.
        places: positions of the B-scans in the volume, 0 to 1; None if they are not neighbours in space: equal weights.

    Returns:
        float64 [K].

    >>> scans = np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> aggregate(scans, Aggregation("largest")).round(3).tolist()
    [0.529, 0.471]
    >>> aggregate(scans, Aggregation("mean")).round(3).tolist()
    [0.6, 0.4]
    """
    values = np.clip(np.asarray(probabilities, np.float64), LEAST, 1 - LEAST)
    share = _shares(len(values), how.position, places)
    if how.method in ("mean", LEARNED):
        scores = np.log(values) if exclusive else np.log(values / (1 - values))
        logits = share @ scores if how.method == "mean" else np.asarray(how.weights) @ _quantiles(scores, len(how.weights))
        found = np.exp(logits - logits.max()) if exclusive else 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    elif how.method == "top":
        found = np.sort(values, axis=0)[-how.top :].mean(axis=0)
    elif how.method == "largest":
        found = values.max(axis=0)
    else:
        found = 1 - np.exp(len(values) * (share @ np.log1p(-values)))
    result: Floats = found / found.sum() if exclusive else found
    return result


def _shares(count: int, width: float, places: Sequence[float] | None) -> Floats:
    """Weights of the B-scans, which sum to 1."""
    if not width or places is None:
        return np.full(count, 1 / count)
    bell = np.exp(-0.5 * ((np.asarray(places, np.float64) - 0.5) / width) ** 2)
    found: Floats = bell / bell.sum()
    return found


def _quantiles(scores: Floats, count: int) -> Floats:
    """Scores [B-scans, K] -> evenly spaced quantiles [count, K] of each class, from the largest to the smallest."""
    found: Floats = np.quantile(scores, np.linspace(1, 0, count), axis=0)
    return found


def places_of(frames: int, chosen: Sequence[int] | None = None) -> list[float]:
    """Positions (0 to 1) of the B-scans in a volume of `frames`; of all, or of the chosen indices."""
    return [(index + 0.5) / frames for index in (range(frames) if chosen is None else chosen)]


@dataclass(frozen=True)
class EyeScores:
    """An eye with a label. probabilities: float64 [B-scans, K]; places: positions as in `aggregate`."""

    probabilities: Floats
    label: int
    patient: str | None
    places: Sequence[float] | None = None


@dataclass(frozen=True)
class Tried:
    """A method that was evaluated: mean negative log-likelihood per eye, nats ("learned": cross-validated), and accuracy."""

    how: Aggregation
    nll: float
    accuracy: float

    def to_json(self) -> dict[str, Any]:
        return {"method": self.how.words, "nll": self.nll, "accuracy": self.accuracy}


@dataclass(frozen=True)
class Choice:
    """The chosen method and the methods evaluated. reason: why the default stays, else ""."""

    how: Aggregation
    eyes: int
    patients: int
    tried: tuple[Tried, ...] = ()
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "criterion": CRITERION, "eyes": self.eyes, "patients": self.patients, "reason": self.reason,
            "tried": [one.to_json() for one in self.tried],
        }  # fmt: skip


def choose_aggregation(eyes: Sequence[EyeScores], chosen_on: str = "validation set") -> Choice:
    """Choose the aggregation method that fits the labels of these eyes best, by CRITERION, for mutually exclusive classes.

    With fewer than LEAST_EYES eyes or LEAST_PATIENTS patients (an eye without a patient counts as one), the default stays, with
    the reason.
    """
    from octc.stats.cluster_bootstrap import clusters_of, standard_error

    groups = clusters_of([eye.patient for eye in eyes])
    patients = len(np.unique(groups))
    if len(eyes) < LEAST_EYES or patients < LEAST_PATIENTS:
        reason = f"{len(eyes)} eyes of {patients} patients: at least {LEAST_EYES} of {LEAST_PATIENTS} are needed"
        return Choice(Aggregation(), len(eyes), patients, reason=reason)
    ways = [Aggregation("mean"), Aggregation("top"), Aggregation("largest"), Aggregation("noisy-or")]
    if any(eye.places is not None for eye in eyes):
        ways += [Aggregation(method, position=WIDTH) for method in POSITIONED]
    answers = [np.stack([aggregate(eye.probabilities, how, places=eye.places) for eye in eyes]) for how in ways]
    ways.append(learn(eyes))
    answers.append(_held_out(eyes, groups))
    labels = np.asarray([eye.label for eye in eyes])
    losses = [-np.log(np.maximum(rows[np.arange(len(eyes)), labels], LEAST)) for rows in answers]
    rights = [float((rows.argmax(axis=1) == labels).mean()) for rows in answers]
    tried = tuple(Tried(how, float(loss.mean()), right) for how, loss, right in zip(ways, losses, rights, strict=True))
    best = min(losses, key=lambda loss: float(loss.mean()))
    first = next(k for k, loss in enumerate(losses) if float((loss - best).mean()) <= standard_error(loss - best, groups))
    return Choice(replace(ways[first], chosen_on=chosen_on), len(eyes), patients, tried)


def learn(eyes: Sequence[EyeScores]) -> Aggregation:
    """Fit weights (at least 0, sum 1) for the quantiles of the log-probabilities by maximum likelihood, with a ridge penalty
    towards equal weights.

    The log-likelihood of a softmax is concave in the weights. Method: exponentiated gradient (Kivinen and Warmuth 1997) with
    step halving.
    """
    features = np.stack([_quantiles(np.log(np.clip(eye.probabilities, LEAST, 1)), QUANTILES) for eye in eyes])  # [n, Q, K]
    labels = np.asarray([eye.label for eye in eyes])
    own = features[np.arange(len(eyes)), :, labels]
    even = np.full(QUANTILES, 1 / QUANTILES)

    def loss_of(weights: Floats) -> tuple[float, Floats]:
        scores = np.einsum("q,nqk->nk", weights, features)
        peak = scores.max(axis=1, keepdims=True)
        total = np.exp(scores - peak).sum(axis=1, keepdims=True)
        loss = float((peak[:, 0] + np.log(total[:, 0]) - own @ weights).mean() + RIDGE * ((weights - even) ** 2).sum())
        return loss, np.exp(scores - peak) / total

    weights, size = even, 1.0
    loss, shares = loss_of(weights)
    for _ in range(STEPS):
        slope = (np.einsum("nk,nqk->nq", shares, features) - own).mean(axis=0) + 2 * RIDGE * (weights - even)
        before = loss
        for _halving in range(30):
            held = weights * np.exp(-size * (slope - slope.min()))
            held /= held.sum()
            after, shares_after = loss_of(held)
            if after < loss:
                weights, loss, shares, size = held, after, shares_after, 2 * size
                break
            size /= 2
        if before - loss < 1e-9:
            break
    return Aggregation(LEARNED, weights=tuple(float(round(weight, 6)) for weight in weights))


def _held_out(eyes: Sequence[EyeScores], groups: npt.NDArray[np.int64]) -> Floats:
    """Cross-validated predictions [n, K]: the weights are fitted on the eyes of other patients."""
    found = np.zeros((len(eyes), eyes[0].probabilities.shape[1]))
    fold = groups % min(FOLDS, len(np.unique(groups)))
    for one in np.unique(fold):
        how = learn([eye for eye, own in zip(eyes, fold, strict=True) if own != one])
        for i in np.flatnonzero(fold == one).tolist():
            found[i] = aggregate(eyes[i].probabilities, how)
    return found
