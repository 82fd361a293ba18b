"""The paired comparison in subgroups of a set: by device, image size, or any column (docs/parity.md, section 7).

Subgroups do not decide the verdict: they are small, and many are tested. They can reveal a loss that the whole set hides, so
each has its interval and a p-value adjusted for their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from octc.core.errors import OctcError, shorten
from octc.stats.cluster_bootstrap import paired
from octc.stats.metrics import Bool, Int64
from octc.stats.proportions import Interval, holm, mcnemar_midp, wilson
from octc.stats.test_plan import ParityOptions

MOST_GROUPS = 12  # maximum groups of a column; a numeric column with more values is cut at its quartiles
UNKNOWN = "(not given)"


@dataclass(frozen=True)
class Subgroup:
    """One value of one column; differences and intervals as fractions.

    deciding: interval that decides, None for a single patient; p: McNemar mid-p; p_holm: adjusted over all subgroups of the
    report; loss: more images regressed than improved, and p_holm below the level.
    """

    column: str
    value: str
    n: int
    patients: int | None
    hits_reference: int
    hits_candidate: int
    lost: int
    gained: int
    difference: float
    deciding: Interval | None
    agreement: float
    p: float
    p_holm: float = 1.0
    loss: bool = False

    def accuracy(self, model: str, alpha: float) -> tuple[float, Interval | None]:
        """Accuracy of "reference" or "candidate" with its Wilson interval."""
        hits = self.hits_reference if model == "reference" else self.hits_candidate
        return hits / self.n, wilson(hits, self.n, alpha)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def binned(column: str, values: Sequence[str | None]) -> list[str]:
    """Values as groups: unchanged, or the quartiles of a numeric column with more than 12 different values.

    Raises:
        OctcError: E209 a text column with more than 12 different values.
    """
    known = sorted({value for value in values if value not in (None, "")}, key=str)
    if len(known) <= MOST_GROUPS:
        return [value or UNKNOWN for value in values]
    try:
        numbers = [_number(value) for value in values]
    except ValueError:
        text = f"column {column} has {len(known)} different values ({shorten([str(v) for v in known], 3, 'more')})"
        hint = f"leave it out, or give it at most {MOST_GROUPS} values"
        raise OctcError("OCT-E209", text, hint=hint, place=column) from None
    whole = np.array([number for number in numbers if number is not None])
    edges = np.unique(np.quantile(whole, [0.25, 0.5, 0.75], method="inverted_cdf"))
    tops = [*edges.tolist(), float(whole.max())]
    names = [
        f"{'' if i == 0 else f'above {tops[i - 1]:g} '}up to {top:g}" if top > (tops[i - 1] if i else -np.inf) else ""
        for i, top in enumerate(tops)
    ]
    return [UNKNOWN if one is None else names[int(np.searchsorted(edges, one, side="left"))] for one in numbers]


def _number(value: str | None) -> float | None:
    """A cell of a column of numbers; None where it says nothing ("nan" of other programs too)."""
    if not value or math.isnan(number := float(value)):
        return None
    return number


def subgroups(
    labels: Int64,
    predicted: tuple[Int64, Int64],
    clusters: Int64 | None,
    columns: Mapping[str, Sequence[str | None]],
    options: ParityOptions,
    named: Bool | None = None,
) -> tuple[Subgroup, ...]:
    """A subgroup for every value of every column, sorted; `predicted`: predictions [n] of reference and candidate.

    named: mask of images with a known patient (None: all).
    """
    right = tuple(one == labels for one in predicted)
    lost, gained = right[0] & ~right[1], ~right[0] & right[1]
    found: list[Subgroup] = []
    for column, values in columns.items():
        groups = np.array(binned(column, values))
        for value in sorted(set(groups.tolist())):
            own = groups == value
            pair = paired(
                lost[own],
                gained[own],
                None if clusters is None else clusters[own],
                named=None if named is None else named[own],
                alpha=options.alpha,
                icc=0.5 if options.plan_icc is None else options.plan_icc,
                resamples=options.bootstrap,
                seed=options.seed,
            )
            hits = (int(right[0][own].sum()), int(right[1][own].sum()))
            same = float((predicted[0] == predicted[1])[own].mean())
            found.append(
                Subgroup(
                    column,
                    value,
                    pair.n,
                    pair.patients,
                    *hits,
                    pair.lost,
                    pair.gained,
                    pair.difference,
                    pair.deciding,
                    same,
                    mcnemar_midp(pair.lost, pair.gained),
                )
            )
    adjusted = holm([one.p for one in found])
    return tuple(
        replace(one, p_holm=p, loss=p < options.alpha and one.lost > one.gained) for one, p in zip(found, adjusted, strict=True)
    )
