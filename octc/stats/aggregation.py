"""One answer for an eye from the answers for its B-scans. The way is data: a name and numbers, as an artifact keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError

Floats = npt.NDArray[np.float64]
PLAIN = ("mean", "top", "largest", "noisy-or")  # those that need no numbers of their own
LEARNED = "learned"
METHODS = (*PLAIN, LEARNED)
POSITIONED = ("mean", "noisy-or")  # those that B-scans can be weighted in by their place
LEAST = 1e-12
MOST_WEIGHTS = 64
WIDTH = 0.25  # of the bell that weights places, as a share of the volume: B-scans at its ends count 0.14 of those in the middle
QUANTILES = 5  # places in the sorted scores that weights are learned for: largest, upper quartile, median, ... smallest
RIDGE = 0.02  # pulls learned weights towards the mean
LEAST_EYES, LEAST_PATIENTS = 10, 5  # below these nothing is chosen
FOLDS, STEPS = 10, 300
CRITERION = (
    "lowest mean negative log-likelihood of the eyes' labels; of those within one standard error of it (paired, clustered by "
    "patient) the first in the order of this list; learned weights are scored on patients that they were not learned on"
)


@dataclass(frozen=True)
class Aggregation:
    """How B-scans become an eye.

    Attributes:
        method: "mean" of the logits, "top": mean of the `top` largest probabilities of a class, "largest", "noisy-or":
            1 - product of (1 - p), for a finding that one B-scan is enough for; or "learned": `weights` times the quantiles
            of the log-probabilities of a class, from the largest to the smallest.
        top: B-scans that "top" takes.
        chosen_on: what the method was chosen on ("validation set"), or "" where it is the default.
        position: width of the bell that weights B-scans by their place in the volume, as a share of it, for "mean" and
            "noisy-or"; 0: all count alike.
        weights: of "learned", each at least 0.
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
        """In words, for a table."""
        said = {"mean": "mean of the logits", "top": f"mean of the {self.top} largest", "largest": "largest"}
        text = said.get(self.method, "learned weights" if self.method == LEARNED else self.method)
        return f"{text}, weighted by place" if self.position else text

    def to_json(self) -> dict[str, Any]:
        more = {"position": self.position} if self.position else {}
        learned = {"weights": list(self.weights)} if self.weights else {}
        return {"method": self.method, "top": self.top, "chosen_on": self.chosen_on, **more, **learned}

    @staticmethod
    def from_json(value: Any) -> Aggregation:
        """Raises OctcError E502 for what is none."""
        try:
            weights = tuple(float(weight) for weight in value.get("weights", ()))
            given = str(value["method"]), int(value["top"]), str(value["chosen_on"])
            return Aggregation(*given, position=float(value.get("position", 0.0)), weights=weights)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, OctcError) as error:
            text = f"aggregation in the manifest is not valid: {error}"
            raise OctcError("OCT-E502", text, hint="do not use this artifact", place="artifact.json") from error


def stated_aggregation(details: Mapping[str, Any]) -> Aggregation:
    """How an artifact makes an eye's answer: as the details of its manifest state it, else the mean of the logits."""
    value = details.get("aggregation")
    return Aggregation() if value is None else Aggregation.from_json(value)


def aggregate(
    probabilities: npt.ArrayLike, how: Aggregation, *, exclusive: bool = True, places: Sequence[float] | None = None
) -> Floats:
    """Probabilities of B-scans -> of the eye.

    Args:
        probabilities: float64 [B-scans, K], at least one B-scan.
        exclusive: classes exclude each other: the result adds up to 1. Else each class is a finding of its own.
        places: of the B-scans in the volume, 0 to 1; None where they are no places along the eye: then all count alike.

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
    """What each B-scan counts, together 1."""
    if not width or places is None:
        return np.full(count, 1 / count)
    bell = np.exp(-0.5 * ((np.asarray(places, np.float64) - 0.5) / width) ** 2)
    found: Floats = bell / bell.sum()
    return found


def _quantiles(scores: Floats, count: int) -> Floats:
    """Scores [B-scans, K] -> [count, K]: of each class from its largest to its smallest, evenly spaced."""
    found: Floats = np.quantile(scores, np.linspace(1, 0, count), axis=0)
    return found


def places_of(frames: int, chosen: Sequence[int] | None = None) -> list[float]:
    """Where B-scans lie in a volume of so many, 0 to 1; of all, or of those that are chosen."""
    return [(index + 0.5) / frames for index in (range(frames) if chosen is None else chosen)]


@dataclass(frozen=True)
class EyeScores:
    """An eye with a label. probabilities: float64 [B-scans, K]; places: as `aggregate` takes them."""

    probabilities: Floats
    label: int
    patient: str | None
    places: Sequence[float] | None = None


@dataclass(frozen=True)
class Tried:
    """A way that was tried: nats an eye (of "learned" on patients that it was not learned on), and the share that is right."""

    how: Aggregation
    nll: float
    accuracy: float

    def to_json(self) -> dict[str, Any]:
        return {"method": self.how.words, "nll": self.nll, "accuracy": self.accuracy}


@dataclass(frozen=True)
class Choice:
    """The way that was chosen, and what it was chosen among; `reason`: why nothing was chosen, else ""."""

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
    """The way to make one answer of an eye's B-scans that explains the labels of these eyes best, by CRITERION.

    Classes exclude each other. With fewer than LEAST_EYES eyes or LEAST_PATIENTS patients (an eye without patient is one of its
    own) it stays with the default, and says so.
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
    """Weights of the quantiles of the log-probabilities, at least 0: the most likely ones, with a pull towards equal ones.

    They are 1 together: they weigh B-scans, and scale nothing. The likelihood of a softmax is concave in its weights:
    exponentiated gradients (Kivinen and Warmuth 1997), with steps that are halved until they help.
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
    """Answers [n, K] with weights that were learned on the eyes of other patients."""
    found = np.zeros((len(eyes), eyes[0].probabilities.shape[1]))
    fold = groups % min(FOLDS, len(np.unique(groups)))
    for one in np.unique(fold):
        how = learn([eye for eye, own in zip(eyes, fold, strict=True) if own != one])
        for i in np.flatnonzero(fold == one).tolist():
            found[i] = aggregate(eyes[i].probabilities, how)
    return found
