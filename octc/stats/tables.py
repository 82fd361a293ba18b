"""Compares two prediction tables from any source on the same labelled images: tests whether the second is non-inferior.

Nothing is read, run or stored. Rules, intervals and verdicts are those of `octc verify` (docs/parity.md), without golden
images, locked plan and test-set log. So a verdict is exploratory unless the caller fixed the margins before making the
predictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.cells import given, label_of, plain_values, same_names, whole_number
from octc.core.errors import OctcError, first_line, shorten
from octc.stats.comparison import ANSWERS, SCORES, Comparison, Known, compare_logits, nonfinite
from octc.stats.patients import KNOWN, patient_ids
from octc.stats.proportions import Interval, mcnemar_midp, wilson
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import Verdict, judge

SIDES = ("before", "after")
FORMS = "give probabilities in rows that sum to 1, or one class per image"
FLOOR = 1e-12  # lower bound of a probability before its logarithm
MOST_CLASSES = 4096  # inferred from indices, where no class names are given


@dataclass(frozen=True)
class ClassRow:
    """One class: number of images, sensitivities (None without images), regressed and improved images, Holm-adjusted mid-p."""

    name: str
    n: int
    before: float | None
    after: float | None
    lost: int
    gained: int
    p_holm: float | None
    interval: Interval | None


@dataclass(frozen=True)
class TableComparison:
    """Comparison of two prediction tables on the same images; proportions, differences and intervals are fractions.

    Attributes:
        n, patients: number of images and of known patients (None if no patient is known: intervals are then not clustered).
        accuracy, accuracy_interval: of "before" and "after", with Wilson's interval (which treats images as independent).
        lost: images that only "before" classifies correctly; gained: only "after". difference: after minus before.
        interval: paired interval of the difference that decides (Tango 1998, widened for patients); None for one patient.
        mcnemar_midp: McNemar's mid-p of lost against gained.
        agreement: share of images with the same prediction.
        verdict: word, reasons and parts; `verdict.word` is one of `octc.stats.verdict.WORDS`.
        scored: whether the tables held scores; without scores, calibration is not judged.
    """

    classes: tuple[str, ...]
    n: int
    patients: int | None
    accuracy: dict[str, float]
    accuracy_interval: dict[str, Interval | None]
    lost: int
    gained: int
    difference: float
    interval: Interval | None
    mcnemar_midp: float
    agreement: float
    per_class: tuple[ClassRow, ...]
    verdict: Verdict
    options: ParityOptions
    scored: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data for a JSON file."""
        return asdict(self)

    def __str__(self) -> str:
        margin, one = self.options.margin, self.accuracy
        limits = "no interval" if self.interval is None else "[{:+.2f}, {:+.2f}]".format(*(100 * x for x in self.interval))
        known = "patients unknown: the interval is not clustered" if self.patients is None else f"{self.patients} patients"
        lines = [
            f"{self.verdict.word} at a margin of {margin:g} points ({self.n} images, {known})",
            f"accuracy {100 * one['before']:.2f} -> {100 * one['after']:.2f} %",
            f"difference {100 * self.difference:+.2f} {limits} points",
            f"regressed {self.lost}, improved {self.gained}, McNemar mid-p {self.mcnemar_midp:.4f}",
        ]
        lines += [f"not shown: {part.name}: {part.detail}" for part in self.verdict.parts if not part.holds]
        return "\n".join(lines)


def compare_tables(
    labels: Sequence[Any],
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    *,
    patients: Sequence[Any] | None = None,
    ids: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    margin: float | None = None,
    gate: ParityOptions | None = None,
) -> TableComparison:
    """Compare two prediction tables of the same images in the same order.

    Args:
        labels: the truth of each of n images: class names, or indices into `classes`.
        before, after: predictions of the two classifiers: probabilities [n, K] (rows that sum to 1) in the order of `classes`,
            or one class name or index per image [n]. Both in the same form.
        patients: the patient of each image, None where unknown. Images of one patient are not independent; without patients the
            intervals are too narrow.
        ids: unique names of the images, for a result that does not depend on their order; None: their positions.
        classes: names in the order of the columns; None: the names found in labels and answers, sorted, or "0", "1", ...
        margin: largest acceptable loss of accuracy, percentage points; None: that of `gate`. The margin of each class's
            sensitivity stays that of `gate` (3 points without one).
        gate: margins, claim, level, resamples and seed (`octc.Gate`); None: its defaults.

    Raises:
        OctcError: E706 different lengths, unknown names or duplicate ids; E701 a score that is not a finite probability; E708
            no image, or "before" is at chance level; E104 an option out of range.

    >>> import octc
    >>> truth = ["CNV"] * 400 + ["NORMAL"] * 400
    >>> big = truth[:395] + ["NORMAL"] * 5 + truth[400:]
    >>> small = truth[:394] + ["NORMAL"] * 6 + truth[400:]
    >>> eyes = [f"p{i // 2}" for i in range(800)]
    >>> found = octc.compare(truth, big, small, patients=eyes, gate=octc.Gate(margin=5, class_margin=10))
    >>> found.lost, found.gained, found.patients
    (1, 0, 400)
    >>> found.verdict.word
    'equivalent'
    """
    options = gate or ParityOptions()
    if margin is not None:
        options = replace(options, margin=margin)
    labels = [_cell(one) for one in plain_values(labels)]
    patients, ids = (None if one is None else plain_values(one) for one in (patients, ids))
    if bare := [str(i) for i, label in enumerate(labels) if label == ""]:
        text = f"{len(bare)} labels are empty: rows {shorten(bare)}"
        raise OctcError("OCT-E706", text, hint="leave out rows without a label", place="labels")
    tables = [_table(table, side) for table, side in zip((before, after), SIDES, strict=True)]
    scored = tables[0].ndim == 2
    _check_lengths(labels, tables, patients, ids)
    names = _class_names(labels, tables, classes, scored)
    seen = {*labels, *(() if scored else (one for table in tables for one in table.tolist()))}
    by_index = are_indices(seen, names)
    truth = class_indices(labels, names, "labels", by_index)
    names_of = [str(i) for i in range(len(truth))] if ids is None else [str(one) for one in ids]
    known = [given(one) for one in ([None] * len(truth) if patients is None else patients)]
    scores = [
        logits_of(table, names, side, names_of) if scored else answers_as_logits(table.tolist(), names, side, by_index)
        for table, side in zip(tables, SIDES, strict=True)
    ]
    for side, table in zip(SIDES, scores, strict=True):
        if bad := nonfinite(names_of, table):
            text = f"{len(bad)} rows of {side!r} are not finite: {shorten(bad)}"
            raise OctcError("OCT-E701", text, hint=FORMS, place=side)
    form = Known(form=SCORES if scored else ANSWERS)
    found = compare_logits(names_of, truth, known, scores[0], scores[1], names, options, form)
    verdict = judge(found, options)
    return _document(found, verdict, options, known, scored)


def _cell(value: Any) -> int | str:
    """A class in normalised form: whole numbers as int, whatever their type; "" if missing."""
    whole = None if isinstance(value, str) else whole_number(value)
    return label_of(value) if whole is None else whole


def _table(values: npt.ArrayLike, side: str) -> npt.NDArray[Any]:
    """Scores as floats [n, K], or predicted classes [n] in the form of `_cell`."""
    try:
        table = np.asarray(values)
        if table.ndim == 1:
            return np.array([_cell(one) for one in table.tolist()], dtype=object)
        if np.iscomplexobj(table):
            raise ValueError("complex numbers")
        return np.asarray(table, np.float64)
    except (TypeError, ValueError) as error:
        raise OctcError("OCT-E706", f"{side!r} is not a table: {first_line(error)}", hint=FORMS, place=side) from error


def _check_lengths(
    labels: Sequence[Any], tables: Sequence[npt.NDArray[Any]], patients: Sequence[Any] | None, ids: Sequence[str] | None
) -> None:
    lengths = {"labels": len(labels), "before": len(tables[0]), "after": len(tables[1])}
    lengths |= {name: len(values) for name, values in (("patients", patients), ("ids", ids)) if values is not None}
    if len(set(lengths.values())) > 1:
        text = "tables of different lengths: " + ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise OctcError("OCT-E706", text, hint="give one row per image, in the same order in all tables")
    if not len(labels):
        raise OctcError("OCT-E708", "no image to compare", hint="give at least one row")
    if tables[0].ndim != tables[1].ndim or tables[0].ndim not in (1, 2):
        shapes = " and ".join(str(list(table.shape)) for table in tables)
        hint = "give both as probabilities [n, K], or both as predicted classes [n]"
        raise OctcError("OCT-E706", f"tables of different forms: {shapes}", hint=hint)
    if ids is not None and len(set(map(str, ids))) < len(ids):
        raise OctcError("OCT-E706", "ids are not unique", hint="give each image a unique id", place="ids")


def _class_names(
    labels: Sequence[Any], tables: Sequence[npt.NDArray[Any]], classes: Sequence[str] | None, scored: bool
) -> tuple[str, ...]:
    if classes is not None:
        names = tuple(str(name) for name in classes)
    else:
        seen = [*labels] + ([] if scored else [value for table in tables for value in table.tolist() if value != ""])
        if all(isinstance(value, int) for value in seen):
            count = tables[0].shape[1] if scored else max((int(value) for value in seen), default=-1) + 1
            if count > MOST_CLASSES and not scored:
                text = f"the largest class index is {count - 1:,}; without names at most {MOST_CLASSES:,} classes are inferred"
                raise OctcError("OCT-E706", text, hint="give classes=[...], or correct that row", place="classes")
            names = tuple(str(i) for i in range(count))
        elif scored:
            text = "labels are names, but the classes of the score columns are not given"
            raise OctcError("OCT-E706", text, hint="give classes=[...] in the order of the columns", place="classes")
        else:
            names = tuple(sorted({str(value) for value in seen}))
            refuse_spellings(names, "classes")
    if len(set(names)) < len(names):
        raise OctcError("OCT-E706", f"a class occurs twice: {', '.join(names)}", hint="name each class once", place="classes")
    for side, table in zip(SIDES, tables, strict=True):
        if scored and table.shape[1] != len(names):
            text = f"{side!r} has {table.shape[1]} columns, there are {len(names)} classes"
            raise OctcError("OCT-E706", text, hint="give classes=[...] in the order of the columns", place=side)
    return names


def refuse_spellings(names: Sequence[str], where: str) -> None:
    """Refuse a class with several spellings (OctcError E706), which would make correct predictions count as wrong."""
    if same := same_names(names):
        text = f"classes that differ only in letter case, blanks, or as 1 and 1.0 do: {shorten(same)}"
        raise OctcError("OCT-E706", text, hint="use one spelling for each class", place=where)


def are_indices(values: Iterable[Any], names: Sequence[str]) -> bool:
    """Whether whole numbers among labels and predictions are class indices; they are, unless all values are class names.

    >>> are_indices([0, 1, "1"], ("1", "2")), are_indices(["1", "2", "none"], ("1", "2", "none"))
    (True, False)
    """
    numbers = {str(value) for value in values if (k := whole_number(value)) is not None and k >= 0}
    return not numbers <= set(names)


def class_indices(values: Sequence[Any], names: tuple[str, ...], where: str, by_index: bool) -> list[int]:
    """Convert class names or indices to indices (OctcError E706: neither)."""
    known = {name: k for k, name in enumerate(names)}
    if by_index:
        known |= {str(k): k for k in range(len(names))}
    found, unknown = [], set()
    for value in values:
        k = known.get(str(value), known.get(str(whole_number(value))) if by_index else None)
        if k is None:
            unknown.add(str(value))
        else:
            found.append(k)
    if unknown:
        text = f"{where}: not among the classes {', '.join(names)}: {shorten(sorted(unknown))}"
        raise OctcError("OCT-E706", text, hint="give classes=[...] with every class", place=where)
    return found


def answers_as_logits(answers: Sequence[Any], names: tuple[str, ...], side: str, by_index: bool) -> npt.NDArray[np.float32]:
    """Predicted classes as one-hot logits [n, 1, K]; NaN if there is no prediction ("")."""
    lacking = np.array([answer == "" for answer in answers], bool)
    chosen = np.zeros(len(answers), np.int64)
    chosen[~lacking] = class_indices([one for one in answers if one != ""], names, side, by_index)
    out = np.eye(len(names), dtype=np.float32)[chosen][:, None]
    out[lacking] = np.nan
    return out


def logits_of(
    values: npt.NDArray[np.float64], names: tuple[str, ...], side: str, ids: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Check probabilities [n, K] and return their logarithms as logits [n, 1, K]. ids: names of the rows."""
    wrong = np.flatnonzero(no_probabilities(values))
    if len(wrong):
        raise refused_scores(len(wrong), len(values), ids[int(wrong[0])], values[wrong[0]], names, side)
    return log_probabilities(values)


def no_probabilities(values: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Mask [n] of the rows of finite scores [n, K] that are not probabilities."""
    finite = np.isfinite(values).all(axis=1)
    with np.errstate(invalid="ignore"):
        wrong: npt.NDArray[np.bool_] = finite & ((values < -1e-6).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > 1e-3))
    return wrong


def refused_scores(
    count: int, total: int, row: str, scores: npt.NDArray[np.float64], names: tuple[str, ...], side: str
) -> OctcError:
    """OctcError E701 for rows that are not probabilities, with one of them as an example."""
    said = ", ".join(f"{name} {value:.6g}" for name, value in zip(names, scores.tolist(), strict=True))
    text = f"{count:,} of {total:,} rows of {side!r} are not probabilities: {row} has {said}"
    return OctcError("OCT-E701", text, hint=FORMS, place=side)


def log_probabilities(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Logarithms of probabilities [n, K] as logits [n, 1, K]."""
    with np.errstate(invalid="ignore"):
        return np.log(np.maximum(values, FLOOR)).astype(np.float32)[:, None]


def _document(
    found: Comparison, verdict: Verdict, options: ParityOptions, patients: Sequence[str | None], scored: bool
) -> TableComparison:
    hits = {"before": found.hits("reference"), "after": found.hits("candidate")}
    rows = []
    for result in found.per_class:
        pair = result.pair
        if pair is None:
            rows.append(ClassRow(result.name, 0, None, None, 0, 0, None, None))
            continue
        k = found.classes.index(result.name)
        before, after = (found.matrices[side][k][k] / result.n for side in ("reference", "candidate"))
        rows.append(ClassRow(result.name, result.n, before, after, pair.lost, pair.gained, result.p_holm, pair.deciding))
    whose = patient_ids(patients)
    return TableComparison(
        classes=found.classes,
        n=found.n,
        patients=whose.patients if whose.state == KNOWN else None,
        accuracy={side: count / found.n for side, count in hits.items()},
        accuracy_interval={side: wilson(count, found.n, options.alpha) for side, count in hits.items()},
        lost=found.pair.lost,
        gained=found.pair.gained,
        difference=found.pair.difference,
        interval=found.pair.deciding,
        mcnemar_midp=mcnemar_midp(found.pair.lost, found.pair.gained),
        agreement=float(found.agreement["rate"]),
        per_class=tuple(rows),
        verdict=verdict,
        options=options,
        scored=scored,
    )
