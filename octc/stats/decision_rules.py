"""Decision rules stored in an artifact: prediction sets, referral, operating points, costs.

They are `details.decision` of artifact.json. Their numbers are fitted on the validation set; all runtimes apply them unchanged.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Limits = Annotated[list[float], Meta(min_length=2, max_length=2)]
Method = Literal["lac", "aps"]
Kind = Literal["sensitivity", "specificity"]
Level = Annotated[float, Meta(gt=0, lt=1)]


class SetRule(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Conformal prediction sets: a class is in the set if its score is at most its limit (1: always).

    coverage: target for an image of a new patient, each patient having the same weight; by "class": for the images of each
    class. images, patients: numbers in the validation set, per class, or (by "all") one number. short: classes with too few
    patients for this coverage; their limit is 1. patients_known: False if each image had to count as a patient.
    """

    method: Method
    coverage: Level
    by: Literal["class", "all"]
    limits: list[Share]
    images: list[Count]
    patients: list[Count]
    short: list[str]
    patients_known: bool


class ReferRule(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """An image is referred if its largest probability is below `confidence`.

    target: "risk": largest share of wrong predictions among images that are not referred; "share": largest share of referred
    images. value, limits: that share on the validation set, with its clustered interval; kept: share that is not referred.
    shown: whether the validation set shows the target at level 1 - alpha; words: the same as text.
    """

    target: Literal["risk", "share"]
    level: Share
    confidence: Share
    kept: Share
    value: Share | None
    limits: Limits | None
    images: Count
    patients: Count
    alpha: Level
    shown: bool
    words: str


class OperatingPoint(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A class is predicted if its probability reaches `threshold`.

    hits, n: validation images that count for `kind` (sensitivity or specificity). exact: Clopper-Pearson interval of the
    images; clustered: the same after division by the design effect. other: the other of sensitivity and specificity at this
    threshold, with its clustered interval. needed: images of different patients, all correct, that would show the level.
    """

    name: str
    kind: Kind
    level: Level
    threshold: Share
    hits: Count
    n: Count
    patients: Count
    exact: Limits
    clustered: Limits
    deff: float
    other: Share | None
    other_limits: Limits | None
    needed: Count
    alpha: Level
    shown: bool
    words: str


class CostRule(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The prediction is the action with the lowest expected cost. costs: cost of each true class (row) under each action
    (column): the classes in order, then optionally to refer. mean: mean cost per image on the validation set; plain: the same
    for the most likely class.
    """

    costs: list[list[float]]
    mean: float
    limits: Limits | None
    plain: float
    images: Count
    patients: Count


class Decision(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The decision rules of an artifact. chosen_on: the set; digest: of its split; time_utc: time of the last change."""

    chosen_on: str
    split_digest: str
    time_utc: str
    sets: SetRule | None = None
    refer: ReferRule | None = None
    points: list[OperatingPoint] = field(default_factory=list)
    costs: CostRule | None = None
