"""Results against labels, and against other results, with the statistics of `octc verify`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.archive.results import connect, shards, tables
from octc.archive.rows import P, shown
from octc.archive.store import read_manifest
from octc.core.cells import given
from octc.core.errors import OctcError
from octc.datasets.tables import read_columns
from octc.stats.cluster_bootstrap import (
    bootstrap_sums,
    cluster_index,
    mean_cluster_size,
    percentile_interval,
    planned_icc,
    pooled,
)
from octc.stats.metrics import confusion_matrix, find_normal, metrics_of
from octc.stats.patients import patient_ids
from octc.stats.proportions import Interval, wilson
from octc.stats.tables import TableComparison, compare_tables
from octc.stats.test_plan import ParityOptions

RESAMPLES, SEED, ALPHA = 10_000, 0, 0.05


@dataclass(frozen=True)
class Truth:
    """What is known of a file: its class and its patient."""

    label: str
    patient: str | None


@dataclass(frozen=True)
class Accuracy:
    """Answers against labels.

    Attributes:
        labels: lines of the table; answered: those with a label of ours; unlabelled: rows without one (unlike the training
            images, or an eye without an answer); absent: lines without a row. matrix: [true, predicted] of the answered.
        interval: 95 % of the accuracy; by patient where they are known (the wider one of a bootstrap of patients and a Wilson
            interval at the planned correlation), else Wilson. warning: what is not known of patients, else "".
    """

    classes: tuple[str, ...]
    labels: int
    answered: int
    unlabelled: int
    absent: int
    accuracy: float
    interval: Interval | None
    patients: int | None
    sensitivity: tuple[float | None, ...]
    specificity: tuple[float | None, ...]
    matrix: tuple[tuple[int, ...], ...]
    warning: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Paired:
    """Two folders of results on the same bytes.

    Attributes:
        n: B-scans that both have (the same file digest, volume and frame); only: those that one of them has.
        agreement: share with the same likeliest class, with its interval by patient where patients are known. matrix: [first,
            second]. largest, mean: difference of a probability. judged: with labels, `octc.compare` of the two.
    """

    classes: tuple[str, ...]
    n: int
    only: tuple[int, int]
    agreement: float
    interval: Interval | None
    patients: int | None
    matrix: tuple[tuple[int, ...], ...]
    largest: float
    mean: float
    judged: TableComparison | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_truth(path: Path, classes: Sequence[str]) -> dict[str, Truth]:
    """File -> truth, of a table with columns path, label and maybe patient (octc.datasets.tables).

    Raises:
        OctcError: E209 the table, E706 a label that is no class, or a file with two labels.
    """
    found: dict[str, Truth] = {}
    base = os.path.abspath(path.parent)  # noqa: PTH100 - keeps links, as a listing does
    for line, row in read_columns(path, ("path", "label"), ("patient",)):
        one = Truth(row["label"], given(row.get("patient")))
        file = shown(os.path.normpath(os.path.join(base, row["path"])))  # noqa: PTH118
        if one.label not in classes or found.setdefault(file, one) != one:
            text = f"label {one.label!r} of {row['path']} is no class of the artifact, or the file has two"
            hint = f"classes: {', '.join(classes)}; one line for each file"
            raise OctcError("OCT-E706", text, hint=hint, place=f"{path}:{line}")
    return found


def accuracy(folder: Path, labels: Path) -> Accuracy:
    """Answers against a table of labels: of pictures by their rows, of volumes by their eyes.

    Raises:
        OctcError: E107 E501 of the results, E209 E706 of the table; E706 no line of it has a row, or classes do not exclude
            each other.
    """
    classes = _exclusive(folder)
    truth = read_truth(labels, classes)
    seen: set[str] = set()
    pairs: list[tuple[int, int]] = []
    people: list[str | None] = []
    unlabelled = 0
    for kind in ("scans", "eyes"):
        for table in tables(folder, kind, ["file", "frame", "label", "patient"]):
            for row in table.to_pylist():
                known = truth.get(row["file"])
                if known is None or row.get("frame") is not None:
                    continue
                seen.add(row["file"])
                if row["label"] is None:
                    unlabelled += 1
                    continue
                pairs.append((classes.index(known.label), classes.index(row["label"])))
                people.append(known.patient or row["patient"])
    if not pairs:
        text = f"none of {len(truth)} lines of {labels.name} has an answer in {folder}"
        hint = "paths of the table are relative to it; they must be those of the column file"
        raise OctcError("OCT-E706", text, hint=hint, place=str(labels))
    true, said = np.asarray(pairs, np.int64).T
    matrix = confusion_matrix(true, said, len(classes))
    metrics = metrics_of(matrix, find_normal(classes))
    whose = patient_ids(people)
    return Accuracy(
        classes=classes,
        labels=len(truth),
        answered=len(pairs),
        unlabelled=unlabelled,
        absent=len(truth) - len(seen),
        accuracy=float((true == said).mean()),
        interval=share_interval(true == said, people),
        patients=whose.count,
        sensitivity=tuple(one.sensitivity for one in metrics.per_class),
        specificity=tuple(one.specificity for one in metrics.per_class),
        matrix=tuple(tuple(map(int, row)) for row in matrix),
        warning=whose.warning,
    )


def share_interval(hits: npt.NDArray[np.bool_], patients: Sequence[str | None]) -> Interval | None:
    """95 % interval of a share of images, by patient where any is known; None for a single patient.

    The wider of a bootstrap of patients (pooled where there are very many) and Wilson's interval at the design effect of the
    planned correlation, as docs/parity.md has it for differences.
    """
    n, right = len(hits), int(hits.sum())
    clusters = cluster_index(patients)
    if clusters is None:
        return wilson(right, n, ALPHA)
    if clusters.max() == 0:
        return None
    groups = pooled(clusters, SEED)
    sums = np.column_stack([np.bincount(groups, weights=hits), np.bincount(groups)]).astype(np.float64)
    drawn = percentile_interval(bootstrap_sums(sums, lambda total: total[:, 0] / total[:, 1], RESAMPLES, SEED), ALPHA)
    deff = 1 + (mean_cluster_size(clusters) - 1) * planned_icc(None)
    scaled = wilson(right / deff, n / deff, ALPHA)
    assert scaled is not None
    return min(drawn[0], scaled[0]), max(drawn[1], scaled[1])


def compare_results(first: Path, second: Path, labels: Path | None = None, gate: ParityOptions | None = None) -> Paired:
    """Two folders of results on the same images: another artifact, another machine.

    Args:
        labels: a table of labels (`read_truth`): the verdict of `octc.compare` on the images that it names.

    Raises:
        OctcError: E107 E501 of the results, E309 other classes, E706 nothing in common, E901 DuckDB is not installed; and
            what `octc.compare` raises.
    """
    classes = _exclusive(first)
    if classes != _exclusive(second):
        text = f"classes differ: {', '.join(classes)}; {', '.join(_exclusive(second))}"
        raise OctcError("OCT-E309", text, hint="compare results of artifacts with the same classes in the same order")
    sides = {"first": first, "second": second}
    base = connect({name: [path for _, path in shards(folder, "scans")] for name, folder in sides.items()})
    for name in sides:
        base.execute(f'CREATE VIEW "one_{name}" AS SELECT DISTINCT ON (sha256, volume, frame) * FROM "{name}"')
    same = "a.sha256 = b.sha256 AND a.volume IS NOT DISTINCT FROM b.volume AND a.frame IS NOT DISTINCT FROM b.frame"
    columns = ", ".join(f'{side}."{P}{name}"' for side in "ab" for name in classes)
    join = f'FROM "one_first" a JOIN "one_second" b ON {same}'
    values = base.execute(f"SELECT a.file, a.frame, a.patient, {columns} {join} ORDER BY a.file, a.volume, a.frame").fetchall()
    if not values:
        hint = "compare results of the same files (their bytes count, not their names)"
        raise OctcError("OCT-E706", f"{first} and {second} have no B-scan in common", hint=hint, place=str(second))
    counts = [base.execute(f'SELECT count(*) FROM "one_{name}"').fetchone()[0] for name in sides]
    numbers = np.asarray([row[3:] for row in values], np.float64)
    before, after = numbers[:, : len(classes)], numbers[:, len(classes) :]
    one, other = before.argmax(axis=1), after.argmax(axis=1)
    people = [row[2] for row in values]
    return Paired(
        classes=classes,
        n=len(values),
        only=(counts[0] - len(values), counts[1] - len(values)),
        agreement=float((one == other).mean()),
        interval=share_interval(one == other, people),
        patients=patient_ids(people).count,
        matrix=tuple(tuple(map(int, row)) for row in confusion_matrix(one, other, len(classes))),
        largest=float(np.abs(before - after).max()),
        mean=float(np.abs(before - after).mean()),
        judged=None if labels is None else _judged(read_truth(labels, classes), values, (before, after), classes, gate),
    )


def _judged(
    truth: Mapping[str, Truth],
    values: Sequence[tuple[Any, ...]],
    tables_of: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    classes: tuple[str, ...],
    gate: ParityOptions | None,
) -> TableComparison:
    """`octc.compare` on the pictures that have a label."""
    chosen = [i for i, row in enumerate(values) if row[1] is None and row[0] in truth]
    if not chosen:
        text = "no picture that both have is in the table of labels"
        raise OctcError("OCT-E706", text, hint="paths of the table are relative to it", place="--against")
    known = [truth[values[i][0]] for i in chosen]
    return compare_tables(
        [one.label for one in known],
        tables_of[0][chosen],
        tables_of[1][chosen],
        patients=[one.patient or values[i][2] for one, i in zip(known, chosen, strict=True)],
        ids=[values[i][0] for i in chosen],
        classes=classes,
        gate=gate,
    )


def _exclusive(folder: Path) -> tuple[str, ...]:
    """Classes of results (OctcError E706 where they do not exclude each other: one label cannot be right or wrong)."""
    artifact = read_manifest(folder)["artifact"]
    if artifact["task"] == "multilabel":
        text = f"classes of {folder} do not exclude each other"
        raise OctcError("OCT-E706", text, hint="octc verify judges such artifacts", place=str(folder))
    return tuple(artifact["classes"])
