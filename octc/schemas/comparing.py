"""Options for the comparison of two prediction tables, for the library and the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from octc.core.options import check_choices, option

TASKS = ("multiclass", "multilabel", "right")
NOBODY = "none"  # of --cluster
LEAVE_OUT = "leave-out"


@dataclass(frozen=True)
class TableOptions:
    """How to read two prediction tables. Separate several names by commas.

    Attributes:
        labels: a table with the labels, or their column in the first table; None: a column with a usual name.
        key: columns that identify a row; None: the first usual name that every table has.
        cluster: column with the patient (or other cluster) of a row; "none": rows are independent; None: a column with a usual
            name, if there is one.
        eye: column of the eye; with several findings per row, findings are pooled by eye.
        answers: column of the predictions (classes, right or wrong, or the probability of the second of two classes); None:
            columns with usual names.
        classes: class names in the order of their indices; None: taken from the tables.
        task: "multiclass" (also for two classes), "multilabel" (several findings per row), "right" (right or wrong only), or
            None: inferred from the tables.
        threshold: a finding is positive at or above this probability; one value, or one per class; None: 0.5.
        unmatched: "refuse" rows that the other table lacks, or "leave-out".
        unit: name of a row in the report.

    Raises:
        OctcError: E104 an unknown task.
    """

    labels: str | None = option(None, metavar="FILE|COLUMN", shown="Table with the labels, or their column in REFERENCE")
    key: str | None = option(None, metavar="COLUMNS", shown="Columns that identify a row (id, image, doc_id, ...)")
    cluster: str | None = option(
        None, metavar="COLUMN", shown="Column of the patient, whose rows are not independent; none: rows are independent"
    )
    eye: str | None = option(None, metavar="COLUMN", shown="Column of the eye; several findings per row are judged by eye")
    answers: str | None = option(None, metavar="COLUMN", shown="Column of the predictions (prediction, acc, ...)")
    classes: str | None = option(None, metavar="NAMES", shown="Class names in the order of their indices")
    task: str | None = option(
        None, choices=TASKS, shown="One class per row, several findings per row, or right and wrong only (inferred)"
    )
    threshold: str | None = option(
        None, metavar="NUMBERS", shown="Probability from which a finding, or the second of two classes, is positive (0.5)"
    )
    unmatched: str = option("refuse", choices=("refuse", LEAVE_OUT), shown="What to do with rows that the other table lacks")
    unit: str = option("rows", shown="Name of a row in the report: images, eyes, patients")

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True)
class TableFiles:
    """Files for continuous integration, written besides the report of two tables; existing files are replaced."""

    junit: Path | None = option(None, metavar="FILE", shown="For two tables: write JUnit XML, one test case per rule")
    markdown: Path | None = option(None, metavar="FILE", shown="For two tables: write a summary in Markdown")
