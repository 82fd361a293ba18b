"""Applies the decision rules of an artifact to probabilities: label, prediction set, referral and reasons. Needs no scipy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.stats.decision_rules import Decision

Int64 = npt.NDArray[np.int64]
KEY = "decision"  # key in the details of a manifest: rules by unit
UNITS = ("image", "eye")
SEVERAL = "thresholds"  # key in the details of a multi-label manifest


@dataclass(frozen=True)
class Decided:
    """The decision for one image.

    Attributes:
        label: predicted class index; None without an answer.
        flagged: classes whose operating point is reached; None without operating points.
        members: classes of the prediction set, most likely first; None without prediction sets.
        refer: whether to refer the image to a person; why: the reasons.
    """

    label: int | None
    flagged: tuple[int, ...] | None
    members: tuple[int, ...] | None
    refer: bool
    why: tuple[str, ...]


def stated_decision(details: Mapping[str, Any], classes: Sequence[str], unit: str = "image") -> Decision | None:
    """The decision rules in a manifest for images (and B-scans), or for eyes; None without rules.

    Raises:
        OctcError: E502 the rules are invalid.
    """
    value = details.get(KEY)
    if value is None:
        return None
    try:
        rules = msgspec.convert(value, dict[Literal["image", "eye"], Decision])
        found = rules.get(unit)  # type: ignore[call-overload]
        if found is not None:
            _check(found, classes, exclusive=SEVERAL not in details)
    except (ValueError, msgspec.ValidationError) as error:
        text = f"decision rules in the manifest are not valid: {error}"
        raise OctcError("OCT-E502", text, hint="do not use this artifact", place="artifact.json") from error
    return found  # type: ignore[no-any-return]


def words_of(decision: Decision) -> list[str]:
    """One sentence per rule, with its guarantee."""
    found = []
    if decision.sets is not None:
        whose = "images of each class" if decision.sets.by == "class" else "images of all classes together"
        found.append(
            f"prediction sets ({decision.sets.method}) that hold the class of {100 * decision.sets.coverage:g} % of {whose}"
        )
    found += [
        f"{point.name} is answered from a probability of {point.threshold:.4f} on: {point.words}" for point in decision.points
    ]
    if decision.costs is not None:
        found.append(f"the answer of the lowest expected cost: {decision.costs.mean:.3f} an image on the {decision.chosen_on}")
    if decision.refer is not None:
        found.append(f"referred below a confidence of {decision.refer.confidence:.4f}: {decision.refer.words}")
    return found


def _check(found: Decision, classes: Sequence[str], *, exclusive: bool) -> None:
    count = len(classes)
    if not exclusive and (found.sets, found.refer, found.costs) != (None, None, None):
        raise ValueError("sets, referrals or costs of several findings")
    if found.sets is not None and len(found.sets.limits) != count:
        raise ValueError(f"{len(found.sets.limits)} limits for {count} classes")
    if found.sets is not None:
        known, own = (len(found.sets.images), len(found.sets.patients)), count if found.sets.by == "class" else 1
        if known != (own, own):
            raise ValueError(f"numbers of {known[0]} and {known[1]} classes, {own} are needed")
    names = [point.name for point in found.points]
    if len(set(names)) != len(names) or not set(names) <= set(classes):
        raise ValueError(f"operating points of {', '.join(names)[:200]}")
    if exclusive and names and len(names) >= count:
        raise ValueError("a class without an operating point must be left")
    if found.costs is not None:
        table = np.asarray(found.costs.costs, np.float64)
        if table.shape not in ((count, count), (count, count + 1)) or not np.isfinite(table).all() or (table < 0).any():
            raise ValueError("costs that are no table of the classes")
        if names:
            raise ValueError("costs and operating points at once")


def decide(probabilities: npt.ArrayLike, rules: Decision, classes: Sequence[str]) -> Decided:
    """Apply the rules to the probabilities of one image, float64 [K]."""
    values = np.asarray(probabilities, np.float64)
    why: list[str] = []
    label, flagged = _label(values, rules, classes, why)
    members = None
    if rules.sets is not None:
        from octc.stats.conformal import sets_of

        inside = sets_of(values[None], rules.sets)[0]
        members = tuple(int(k) for k in np.argsort(-values, kind="stable") if inside[k])
        if len(members) != 1:
            why.append(f"the set has {len(members)} classes")
    if rules.refer is not None and values.max() < rules.refer.confidence:
        why.append(f"confidence below {rules.refer.confidence:.3f}")
    return Decided(label, flagged, members, bool(why), tuple(why))


def labels_of(probabilities: npt.ArrayLike, rules: Decision, classes: Sequence[str]) -> Int64:
    """The class that the rules predict for each image [n], from probabilities [n, K]."""
    return np.array([_label(row, rules, classes, [])[0] for row in np.asarray(probabilities, np.float64)], np.int64)


def actions_of(probabilities: npt.ArrayLike, costs: Sequence[Sequence[float]]) -> Int64:
    """The action with the lowest expected cost for each image [n]; action K means to refer. Ties: the first."""
    found: Int64 = (np.atleast_2d(np.asarray(probabilities, np.float64)) @ np.asarray(costs, np.float64)).argmin(axis=1)
    return found


def _label(
    values: npt.NDArray[np.float64], rules: Decision, classes: Sequence[str], why: list[str]
) -> tuple[int, tuple[int, ...] | None]:
    """The predicted class: the one furthest above its operating point, else the most likely class without one."""
    if rules.costs is not None:
        action = int(actions_of(values[None], rules.costs.costs)[0])
        if action < len(classes):
            return action, None
        why.append("to refer costs least")
        return int(values.argmax()), None
    if not rules.points:
        return int(values.argmax()), None
    at = {classes.index(point.name): point.threshold for point in rules.points}
    flagged = tuple(k for k in sorted(at) if values[k] >= at[k])
    if flagged:
        return max(flagged, key=lambda k: float(values[k] / max(at[k], 1e-12))), flagged
    rest = [k for k in range(len(classes)) if k not in at]
    return max(rest, key=lambda k: float(values[k])), flagged
