"""What a comparison of two prediction tables is requested to do: arguments of the library and options of the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from octc.core.options import check_choices, option

TASKS = ("multiclass", "multilabel", "right")
NOBODY = "none"  # of --cluster
LEAVE_OUT = "leave-out"


@dataclass(frozen=True)
class TableOptions:
    """How two prediction tables are read. Several names are separated by commas.

    Attributes:
        labels: a table with the truth, or the column of it; None: a usual column of the first table.
        key: columns that name a row; None: the first usual name that every table has.
        cluster: column of who a row belongs to; "none": rows are independent; None: a usual column of patients, if there is
            one.
        eye: column of the eye, over which findings are pooled where there are several a row.
        answers: column of the answers (classes, right or wrong, or the probability of the second of two classes); None: usual
            ones.
        classes: in the order of their indices; None: as the tables have them.
        task: "multiclass" (two classes too), "multilabel" (several findings a row), "right" (right or wrong alone), or None:
            as the tables are.
        threshold: at or above it a probability is a finding, one for all or one for each class; None: 0.5.
        unmatched: "refuse" rows that another table lacks, or "leave-out".
        unit: what a row is, in words.

    Raises:
        OctcError: E104 an unknown task.
    """

    labels: str | None = option(None, metavar="FILE|COLUMN", shown="Table with the truth, or its column in REFERENCE")
    key: str | None = option(None, metavar="COLUMNS", shown="Columns that name a row (id, image, doc_id, ...)")
    cluster: str | None = option(
        None, metavar="COLUMN", shown="Who a row belongs to: rows of one patient are not independent; none: rows are"
    )
    eye: str | None = option(None, metavar="COLUMN", shown="Eye of a row: several findings are judged by eye")
    answers: str | None = option(None, metavar="COLUMN", shown="Column of the answers (prediction, acc, ...)")
    classes: str | None = option(None, metavar="NAMES", shown="Classes in the order of their indices")
    task: str | None = option(
        None, choices=TASKS, shown="One class a row, several findings, or only right and wrong (as the tables are)"
    )
    threshold: str | None = option(
        None, metavar="NUMBERS", shown="From which probability on a finding is one, or the second of two classes (0.5)"
    )
    unmatched: str = option("refuse", choices=("refuse", LEAVE_OUT), shown="Rows that another table lacks")
    unit: str = option("rows", shown="What a row is, for the report: images, eyes, patients")

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True)
class TableFiles:
    """What is written beside the report of two tables, for a continuous integration; what was there is replaced."""

    junit: Path | None = option(None, metavar="FILE", shown="Of tables: every rule as a test case")
    markdown: Path | None = option(None, metavar="FILE", shown="Of tables: a summary")
