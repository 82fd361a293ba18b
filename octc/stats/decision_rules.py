"""What an artifact keeps of rules that decide from its probabilities: prediction sets, when to refer, operating points, costs.

`details.decision` of artifact.json. Numbers were chosen on the validation set; every runtime applies them as they stand here.
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
    """Conformal prediction sets: a class is in the set where its score is at most its limit (1: always).

    coverage: promised for an image of a new patient, each patient counting once; `by` "class": for images of each class.
    images, patients: of the validation set, of each class, or (by "all") of all in one number. short: classes with too few
    patients for this coverage: their limit is 1. patients_known: False where each image had to count as a patient.
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
    """An image is referred where its largest probability is below `confidence`.

    target: "risk": at most this share of the answers that are kept is wrong; "share": at most this share of images is referred.
    value, limits: what the validation set shows: share wrong among kept, or referred, and its clustered interval; kept: share.
    shown: whether the validation set shows the target at 1 - alpha; words: the same in plain words.
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
    """A class is answered where its probability reaches `threshold`.

    hits, n: of the validation images that `kind` is about. exact: Clopper-Pearson of images; clustered: of images divided by
    the design effect. other: the other one of sensitivity and specificity at this threshold, with its clustered interval.
    needed: images of different patients without any miss that would show the level.
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
    """The answer is the action of the lowest expected cost. costs: of each true class (row) under each action (column): the
    classes in their order, then, where there is one column more, to refer. mean: on the validation set; plain: of the
    likeliest class there.
    """

    costs: list[list[float]]
    mean: float
    limits: Limits | None
    plain: float
    images: Count
    patients: Count


class Decision(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The rules of an artifact. chosen_on: the set; digest: of the split; time_utc: when it was last changed."""

    chosen_on: str
    split_digest: str
    time_utc: str
    sets: SetRule | None = None
    refer: ReferRule | None = None
    points: list[OperatingPoint] = field(default_factory=list)
    costs: CostRule | None = None
