"""The planned power of a comparison and its assumptions, before the candidate is run (docs/parity.md, section 11)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octc.stats.cluster_bootstrap import planned_icc
from octc.stats.power import exact_power, needed_n, planned_discordance, smallest_n
from octc.stats.test_plan import ParityOptions


@dataclass(frozen=True)
class Plan:
    """Power of the comparison for a true difference of 0, before the candidate is run (fractions).

    `needed_60` and `needed_80`: numbers of images, multiples of 100, from which the power stays above 0.60 and 0.80 with this
    design effect; `smallest`: the n below which the margin can never be shown.
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
    """The planned intra-patient correlation: from the option, else the validation set, else 0.5."""
    return planned_icc(facts) if options.plan_icc is None else options.plan_icc


def discordance_of(options: ParityOptions, select: Mapping[str, Any] | None) -> tuple[float, str]:
    """The planned share of discordant pairs and its source: option, validation set, or assumed."""
    if options.plan_discordance is not None:
        return options.plan_discordance, "option"
    if select is None:
        return planned_discordance(None), "assumed"
    discordant, n = int(select["lost"]) + int(select["gained"]), int(select["n"])
    return planned_discordance(discordant, n), f"validation set, {discordant} discordant of {n}"


def make_plan(n: int, mean_size: float | None, options: ParityOptions, select: Mapping[str, Any] | None) -> Plan:
    """The plan for n images with `mean_size` images per patient (None: no patients); `select`: facts of the validation set."""
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
