"""What is decided before a candidate is looked at: margins, level, claim, power (docs/parity.md, sections 1, 4 and 11)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from octc.core.errors import OctcError
from octc.stats.cluster_bootstrap import planned_icc
from octc.stats.power import exact_power, needed_n, planned_discordance, smallest_n
from octc.stats.proportions import TIERS

CLAIMS = ("ni", "tost")


@dataclass(frozen=True)
class ParityOptions:
    """The settings of a verdict.

    Attributes:
        alpha: two-sided level.
        margin, class_margin: largest acceptable loss of accuracy and of one class's sensitivity, percentage points.
        claim: "ni" (non-inferiority decides) or "tost" (only equivalence ends with 0).
        tier: "99" or "99.9", the accuracy floor.
        ece_slack: how far the ECE may rise, as a fraction.
        bootstrap, seed: patient resamples and their seed.
        plan_discordance: planned share of discordant pairs as a fraction; None takes it from the validation set, else 2 %.
        plan_icc: planned intra-patient correlation; None as above, else 0.5.
        auc_margin: largest acceptable loss of the mean area under the ROC curves, percentage points; None: it does not decide.
    """

    alpha: float = 0.05
    margin: float = 1.0
    class_margin: float = 3.0
    claim: str = "ni"
    tier: str = "99"
    ece_slack: float = 0.005
    bootstrap: int = 10_000
    seed: int = 0
    plan_discordance: float | None = None
    plan_icc: float | None = None
    auc_margin: float | None = None

    def __post_init__(self) -> None:
        rules = (
            ("--alpha", self.alpha, 0 < self.alpha < 0.5, "above 0 and below 0.5"),
            ("--margin", self.margin, 0 < self.margin < 100, "percentage points above 0 and below 100"),
            ("--class-margin", self.class_margin, 0 < self.class_margin < 100, "percentage points above 0 and below 100"),
            ("--test", self.claim, self.claim in CLAIMS, "ni or tost"),
            ("--tier", self.tier, self.tier in TIERS, "99 or 99.9"),
            ("--ece-slack", self.ece_slack, 0 <= self.ece_slack < 1, "a fraction from 0 to below 1"),
            ("--bootstrap", self.bootstrap, 1000 <= self.bootstrap <= 1_000_000, "1000 to 1000000 resamples"),
            ("--seed", self.seed, self.seed >= 0, "0 or above"),
            ("--plan-discordance", self.plan_discordance, _share(self.plan_discordance), "percent above 0 and below 100"),
            ("--auc-margin", self.auc_margin, _margin(self.auc_margin), "percentage points above 0 and below 100"),
            ("--plan-icc", self.plan_icc, self.plan_icc is None or 0 <= self.plan_icc <= 1, "0 to 1"),
        )
        for name, value, holds, allowed in rules:
            if not holds:
                raise OctcError("OCT-E104", f"{name} {value} is out of range", hint=f"{name}: {allowed}")

    @property
    def delta(self) -> float:
        """The margin as a fraction."""
        return self.margin / 100

    @property
    def class_delta(self) -> float:
        """The class margin as a fraction."""
        return self.class_margin / 100

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def locked(self) -> dict[str, Any]:
        """What decides, and may therefore not change between looks at the test set."""
        return {name: value for name, value in asdict(self).items() if name not in self.resamples()}

    def resamples(self) -> dict[str, int]:
        """How resamples are drawn: it decides nothing by intent."""
        return {"bootstrap": self.bootstrap, "seed": self.seed}


def _margin(value: float | None) -> bool:
    return value is None or 0 < value < 100


def _share(value: float | None) -> bool:
    return value is None or 0 < value < 1


@dataclass(frozen=True)
class Plan:
    """Power of the comparison for a true difference of 0, known before the candidate was run (fractions).

    `needed_60` and `needed_80` are images, on a grid of 100, from which on the power stays above 0.60 and 0.80 with this
    design effect; `smallest` the n below which the margin cannot be shown at all.
    """

    discordance: float
    discordance_source: str
    icc: float
    icc_source: str
    deff: float
    n_eff: int
    power: float
    needed_60: int | None
    needed_80: int | None
    smallest: int


def icc_of(options: ParityOptions, facts: Mapping[str, Any] | None) -> float:
    """The planned intra-patient correlation: option, validation set, or 0.5."""
    return planned_icc(facts) if options.plan_icc is None else options.plan_icc


def discordance_of(options: ParityOptions, select: Mapping[str, Any] | None) -> tuple[float, str]:
    """The planned share of discordant pairs and where it comes from: option, validation set, or assumed."""
    if options.plan_discordance is not None:
        return options.plan_discordance, "option"
    if select is None:
        return planned_discordance(None), "assumed"
    discordant, n = int(select["lost"]) + int(select["gained"]), int(select["n"])
    return planned_discordance(discordant, n), f"validation set, {discordant} discordant of {n}"


def make_plan(n: int, mean_size: float | None, options: ParityOptions, select: Mapping[str, Any] | None) -> Plan:
    """The plan for n images whose patients have `mean_size` images (None without patients); `select`: facts of that set."""
    icc = icc_of(options, select)
    deff = 1.0 if mean_size is None else 1 + (mean_size - 1) * icc
    discordance, source = discordance_of(options, select)
    told = "option" if options.plan_icc is not None else "validation set" if select and icc != planned_icc(None) else "assumed"
    n_eff = math.floor(n / deff)
    level = (discordance, options.delta, options.alpha)
    return Plan(
        discordance,
        source,
        icc,
        told,
        deff,
        n_eff,
        exact_power(n_eff, *level),
        needed_n(0.60, *level, deff),
        needed_n(0.80, *level, deff),
        smallest_n(options.delta, options.alpha),
    )
