"""Robustness to image corruption of a candidate relative to its reference: paired, clustered by patient, Holm-adjusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from octc.stats.cluster_bootstrap import paired, standard_error
from octc.stats.metrics import Bool, Float64, Int64
from octc.stats.proportions import Interval, holm, normal_cdf
from octc.stats.test_plan import ParityOptions

Level = tuple[str, float]  # kind of corruption, its level


@dataclass(frozen=True)
class Cell:
    """Result of one corruption at one level; fractions.

    difference, deciding: accuracy of candidate minus reference on these images, with the interval of docs/parity.md.
    excess: change of the candidate's accuracy from clean images minus that of the reference (negative: the candidate loses
    more); p: two-sided test of no excess, clustered by patient; p_holm: adjusted over all cells.
    """

    kind: str
    level: float
    n: int
    reference: float
    candidate: float
    difference: float
    deciding: Interval | None
    agreement: float
    excess: float
    p: float
    p_holm: float = 1.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Robustness:
    """All cells, the accuracies on clean images, and per kind the first level at which each model lost more than the margin.

    earlier: kinds for which the candidate fails at a milder level than the reference, with a significantly larger loss there.
    """

    clean_reference: float
    clean_candidate: float
    cells: tuple[Cell, ...]
    breaks: dict[str, tuple[float | None, float | None]]
    earlier: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "clean": {"reference": self.clean_reference, "candidate": self.clean_candidate},
            "cells": [one.to_json() for one in self.cells],
            "breaks_at": {kind: {"reference": r, "candidate": c} for kind, (r, c) in self.breaks.items()},
            "earlier": list(self.earlier),
        }


def clustered_p(values: Float64, clusters: Int64 | None) -> float:
    """Two-sided p-value for a mean of 0 of values [n], with cluster-robust variance; 1 without variation."""
    error = standard_error(values, np.arange(len(values)) if clusters is None else clusters)
    return 2 * normal_cdf(-abs(float(values.mean())) / error) if error else 1.0


def robustness(
    labels: Int64,
    clean: tuple[Int64, Int64],
    worse: Mapping[Level, tuple[Int64, Int64]],
    clusters: Int64 | None,
    options: ParityOptions,
) -> Robustness:
    """Compare predictions [n] of (reference, candidate) on clean images and at every level, mild before severe."""
    before = tuple(one == labels for one in clean)
    cells = [
        _cell(level, before, (r == labels, c == labels), float((r == c).mean()), clusters, options)
        for level, (r, c) in worse.items()
    ]
    adjusted = holm([one.p for one in cells])
    done = tuple(replace(one, p_holm=p) for one, p in zip(cells, adjusted, strict=True))
    start = (float(before[0].mean()), float(before[1].mean()))
    kinds = dict.fromkeys(one.kind for one in done)
    breaks = {kind: _breaks([one for one in done if one.kind == kind], start, options.delta) for kind in kinds}
    earlier = tuple(kind for kind in kinds if _earlier([one for one in done if one.kind == kind], breaks[kind], options.alpha))
    return Robustness(*start, done, breaks, earlier)


def _cell(
    level: Level,
    before: tuple[Bool, ...],
    now: tuple[Bool, Bool],
    agreement: float,
    clusters: Int64 | None,
    options: ParityOptions,
) -> Cell:
    pair = paired(
        now[0] & ~now[1],
        ~now[0] & now[1],
        clusters,
        alpha=options.alpha,
        resamples=options.bootstrap,
        seed=options.seed,
    )
    steps = (now[1].astype(np.float64) - before[1]) - (now[0].astype(np.float64) - before[0])
    return Cell(
        *level,
        pair.n,
        float(now[0].mean()),
        float(now[1].mean()),
        pair.difference,
        pair.deciding,
        agreement,
        float(steps.mean()),
        clustered_p(steps, clusters),
    )


def _breaks(cells: Sequence[Cell], start: tuple[float, float], margin: float) -> tuple[float | None, float | None]:
    first = [
        next((one.level for one in cells if getattr(one, model) < clean - margin), None)
        for model, clean in (("reference", start[0]), ("candidate", start[1]))
    ]
    return first[0], first[1]


def _earlier(cells: Sequence[Cell], breaks: tuple[float | None, float | None], alpha: float) -> bool:
    levels = [one.level for one in cells]
    r, c = (len(levels) if level is None else levels.index(level) for level in breaks)
    return c < r and any(one.excess < 0 and one.p_holm < alpha for one in cells[c:r])
