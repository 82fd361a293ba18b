"""What each task says of a claim: one table, so that every report of `octc verify` has the same lines in the same order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from octc.bench.parity.tasks import multiclass, multilabel
from octc.stats.task import MULTICLASS, MULTILABEL, Task
from octc.stats.test_plan import ParityOptions

if TYPE_CHECKING:
    from octc.bench.parity.claim import ParityReport


@dataclass(frozen=True)
class Wording:
    """How the claims of one task are told.

    Attributes:
        columns: of the table: the metric, the changes. cells: reference, candidate, changes, difference, agreement.
        margins: those of a verdict. warnings: what must be said of the comparison.
        deciding: the interval that decided; brief: the numbers beside it; details: every number. All of a claim with numbers.
    """

    columns: tuple[str, str]
    cells: Callable[[ParityReport], tuple[str, str, str, str, str]]
    margins: Callable[[ParityOptions], str]
    warnings: Callable[[ParityReport], list[str]]
    deciding: Callable[[ParityReport], Iterator[str]]
    brief: Callable[[ParityReport], Iterator[str]]
    details: Callable[[ParityReport], Iterator[str]]


WORDINGS = {
    MULTICLASS.name: Wording(
        multiclass.COLUMNS,
        multiclass.cells,
        multiclass.margins,
        multiclass.warnings,
        multiclass.deciding,
        multiclass.brief,
        multiclass.details,
    ),
    MULTILABEL.name: Wording(
        multilabel.COLUMNS,
        multilabel.cells,
        multilabel.margins,
        multilabel.warnings,
        multilabel.deciding,
        multilabel.brief,
        multilabel.details,
    ),
}


def wording_of(task: Task) -> Wording:
    """How the claims of a task are told."""
    return WORDINGS[task.name]
