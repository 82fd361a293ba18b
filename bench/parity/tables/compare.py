"""Two prediction tables of any program, joined by key and judged as `octc verify` judges (docs/parity.md)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from octc.bench.parity.claim import Context, Image, ParityReport, SetInfo, Side, compare
from octc.bench.parity.inference import Records
from octc.bench.parity.render import brief_text, report_text
from octc.bench.parity.summary import failure_of
from octc.bench.parity.tables.columns import (
    SEVERAL,
    answer_columns,
    check_column,
    cluster_column,
    key_columns,
    names_in,
    truth_columns,
)
from octc.bench.parity.tables.join import (
    Answered,
    Float64,
    Int64,
    Keys,
    Truth,
    Unmatched,
    common_rows,
    findings_of,
    order_of,
    read_answers,
    read_truth,
)
from octc.bench.parity.tables.read import Source, open_table
from octc.bench.parity.tables.room import Room, read_room
from octc.core.errors import OctcError, shorten
from octc.core.progress import LogReporter, Reporter
from octc.datasets.patient_rules import alike
from octc.schemas.comparing import LEAVE_OUT, TableOptions
from octc.stats.comparison import ANSWERS, RIGHT, SCORES, Logits
from octc.stats.tables import answers_as_logits, are_indices, class_indices, logits_of, refuse_spellings
from octc.stats.task import MULTICLASS, MULTILABEL, Task
from octc.stats.test_plan import ParityOptions

TINY = 1e-12  # of a probability, before its logit
SLACK = 1e-9  # of a threshold: a score that equals it is at it
CLASSES_OF_RIGHT = ("wrong", "right")
HINTS = {
    "OCT-E701": "a score in every row of the candidate's table",
    "OCT-E702": "a candidate that has learned the classes; check that its columns are in the order of --classes",
    "OCT-E703": "a candidate that keeps more of the reference's right answers, or --tier 99",
    "OCT-E704": "a candidate that loses less; this one does not replace its reference",
    "OCT-E705": "more rows of other patients, with margins stated before they are looked at",
    "OCT-E707": "calibrate the candidate's scores, or --ece-slack stated before the rows are looked at",
    "self_comparison": "another table than the reference: these two are one",
    "one_cluster": "rows of several patients: an interval over one patient does not exist",
    "single_class": "rows of every class",
    "empty_class": "rows of the class {name}",
}


@dataclass(frozen=True)
class TablesCompared:
    """What `octc.compare_files` found; `str()` of it is the report.

    Attributes:
        report: the claim: word, parts, numbers (`report.to_json()` is the document that `octc verify` writes of a claim).
        unmatched: rows that not every table has, by name. key, cluster: the columns that were used.
        form: "scores", "answers" or "right"; classes: their names.
    """

    report: ParityReport
    unmatched: Unmatched
    key: tuple[str, ...]
    cluster: str | None
    form: str
    classes: tuple[str, ...]
    tables: tuple[Path, Path]

    @property
    def word(self) -> str:
        """equivalent, non_inferior, inconclusive, inferior or fail."""
        return self.report.word

    @property
    def exit_code(self) -> int:
        return self.report.exit_code

    def raise_if_failed(self) -> None:
        """Raise what did not hold (E701 to E707), with a hint; nothing where the claim was shown."""
        if self.exit_code:
            raise failure_of(self.report, str(self.tables[1]), HINTS)

    def to_json(self) -> dict[str, Any]:
        """Plain data: the claim, and how the tables were read."""
        several = None if self.report.task.exclusive else self.report.comparison
        claim = (self.report if several is None else replace(self.report, comparison=None)).to_json()
        return {
            **claim,
            "command": "compare",
            "task": self.report.task.name,
            "form": self.form,
            "class_names": list(self.classes),
            "key": list(self.key),
            "cluster": self.cluster,
            "unit": self.report.set.unit,
            "tables": [path.name for path in self.tables],
            "unmatched": {where: list(keys) for where, keys in self.unmatched.rows.items()},
            "decisions": None if several is None else several.to_json(),
        }

    def to_text(self) -> str:
        """Every number."""
        return report_text(self.report)

    def __str__(self) -> str:
        return brief_text(self.report)


def compare_files(
    reference: str | os.PathLike[str],
    candidate: str | os.PathLike[str],
    *,
    options: TableOptions | None = None,
    gate: ParityOptions | None = None,
    reporter: Reporter | None = None,
) -> TablesCompared:
    """Compare the predictions of two tables (CSV, JSON lines, Parquet) on the rows that they have in common.

    The statistics are those of `octc verify` and of `octc.compare`, which takes arrays.

    Args:
        reference, candidate: the tables; the candidate is to replace the reference.
        options: which columns mean what. gate: margins, claim, level, resamples (`octc.Gate`).
        reporter: is told what was chosen.

    Raises:
        OctcError: E209 a table or a column that cannot be read; E706 keys that stand twice, rows that only one table has
            (unless they are to be left out), classes that differ; E701 scores that are no probabilities; E708 no row, or a
            reference that is not finite or at chance; E904 more rows than memory has room for. A claim that is not shown does
            not raise: see `raise_if_failed`.

    >>> import octc
    >>> octc.compare_files("fp32.csv", "int8.csv")
    Traceback (most recent call last):
    octc.core.errors.OctcError: table cannot be read: No such file or directory
    """
    asked, settings, told = options or TableOptions(), gate or ParityOptions(), reporter or LogReporter()
    sources = open_table(Path(reference)), open_table(Path(candidate))
    room = read_room(sources)
    room.check(0)
    keys = Keys()
    stated = _stated(sources, asked, told, keys)
    truth = stated.truth
    sides, task, names, cuts = _answers(sources, stated, asked, keys, room)
    if truth is not None and task is MULTILABEL:  # an empty cell is a row without a finding, and is known
        cells = [findings_of(label) if isinstance(label, str) else label for label in truth.labels]
        truth = replace(truth, labels=cells)
    rows, unmatched = common_rows(*sides, truth if stated.columns else None, keys)
    if unmatched.count and asked.unmatched != LEAVE_OUT:
        text = "; ".join(unmatched.sentences())
        hint = f"complete the tables, or --unmatched {LEAVE_OUT}: the rows in common are compared"
        raise OctcError("OCT-E706", f"rows do not match: {text}", hint=hint, place=str(sources[1].path))
    for sentence in unmatched.sentences():
        told.warn("OCT-W707", f"left out: {sentence}")
    if not len(rows):
        raise OctcError("OCT-E708", "no row in common", hint="--key COLUMN that both tables write alike")
    form, records, images = _records(sides, (rows, keys), truth, names, task, cuts)
    key_of, tables = stated.key, (sources[0].path, sources[1].path)
    context_sides = _side(sides[0]), _side(sides[1])
    del sides, keys, truth, rows  # of a large table they are most of what is held
    context = Context(
        task,
        against="table",
        sides=context_sides,
        info=SetInfo("tables", "prediction tables as given", unit=asked.unit, exploratory=_exploratory(unmatched)),
        details={"thresholds": [(1 - SLACK) * cut for cut in cuts]} if not task.exclusive else {},
        images=images,
        form=form,
    )
    report = compare(*records, names, settings, context)
    return TablesCompared(report, unmatched, key_of, stated.cluster, form, names, tables)


def _exploratory(unmatched: Unmatched) -> str | None:
    return f"{unmatched.count:,} rows that not every table has were left out" if unmatched.count else None


def _side(one: Answered) -> Side:
    path = one.source.path
    return Side(path.name, one.source.sha256, "table", "table", runtime="table", source=f"read from {path.name}")


@dataclass(frozen=True)
class Stated:
    """What is known of the rows beside their answers.

    Attributes:
        key: columns that name a row. truth: None where neither classes nor patients are known.
        columns: of the reference's table that hold the truth, and so no answer; findings: a column for each, else ().
        cluster: the column of who a row belongs to.
    """

    key: tuple[str, ...]
    truth: Truth | None
    columns: tuple[str, ...]
    findings: tuple[str, ...]
    cluster: str | None
    here: bool = True

    @property
    def hidden(self) -> tuple[str, ...]:
        """Columns of the tables that are no answer."""
        return self.columns if self.here else ()


def _stated(sources: tuple[Source, Source], asked: TableOptions, told: Reporter, keys: Keys) -> Stated:
    apart = None
    stated = asked.labels
    if stated is not None and (Path(stated).is_file() or stated not in sources[0].names):
        apart, stated = open_table(Path(stated)), None
    tables = (*sources, *([] if apart is None else [apart]))
    key = key_columns(tables, asked)
    holder = apart or sources[0]
    columns, findings = truth_columns(holder, asked, stated)
    if apart is not None and not columns:
        text = f"no column of {apart.name} is the truth; it has {', '.join(apart.names[:40])}"
        raise OctcError("OCT-E209", text, hint="call it label, or truth", place=str(apart.path))
    found = cluster_column((holder, *(one for one in sources if one is not holder)), asked)
    cluster = None if found is None else found[1]
    eye = None if asked.eye is None else check_column(holder, asked.eye, "--eye")
    told.say(f"  rows       joined by {', '.join(key)}   (--key)")
    told.say(f"  clusters   {'none: rows count as independent' if cluster is None else f'column {cluster}'}   (--cluster)")
    if not columns and cluster is None:
        return Stated(key, None, (), (), None)
    aside = found is not None and found[0] is not holder
    truth = read_truth(holder, key, columns, findings, (None if aside else cluster, eye), keys)
    if found is not None and aside:
        other = read_truth(found[0], key, (), (), (cluster, None), keys)
        whose = dict(zip(other.keys.tolist(), other.patients, strict=True))
        truth = replace(truth, patients=[whose.get(one) for one in truth.keys.tolist()])
    if not len(truth.keys):
        text = f"{holder.name} has a header and no row"
        raise OctcError("OCT-E209", text, hint="a table with a row for each image", place=str(holder.path))
    for finding in alike("patients", sorted({one for one in truth.patients if one is not None})):
        told.warn(finding.code, finding.message, finding.place)
    if apart is None and columns:
        _same_truth(truth, sources[1], key, columns, findings, keys)
    if apart is None and cluster is not None and not aside:
        _same_patients(truth, sources, key, asked, keys)
    return Stated(key, truth, columns, findings, cluster, apart is None)


def _same_truth(
    truth: Truth, other: Source, key: Sequence[str], columns: Sequence[str], findings: Sequence[str], keys: Keys
) -> None:
    """Refuse a second table that states another truth."""
    if not all(name in other.names for name in columns):
        return
    again = read_truth(other, key, columns, findings, (None, None), keys)
    ours = dict(zip(truth.keys.tolist(), truth.labels, strict=True))
    rows = zip(again.keys.tolist(), again.labels, strict=True)
    if wrong := [one for one, label in rows if ours.get(one, label) != label]:
        names = keys.names()
        named = shorten(sorted(names[i] for i in wrong))
        text = f"the tables state another truth for {len(wrong):,} rows: {named}"
        raise OctcError("OCT-E706", text, hint="--labels TABLE with the truth", place=str(other.path))


def _same_patients(truth: Truth, sources: tuple[Source, Source], key: Sequence[str], asked: TableOptions, keys: Keys) -> None:
    """Refuse a second table that puts rows together by patient in another way; other names for the same patients are none."""
    if asked.cluster is not None and asked.cluster not in sources[1].names:
        return
    if (found := cluster_column(sources[1:], asked)) is None:
        return
    again = read_truth(sources[1], key, (), (), (found[1], None), keys)
    ours = dict(zip(truth.keys.tolist(), truth.patients, strict=True))
    first: dict[tuple[int, str], tuple[int, str | None]] = {}
    for one, theirs in zip(again.keys.tolist(), again.patients, strict=True):
        own = ours.get(one)
        if own is None or theirs is None:
            continue
        for side, name, other in ((0, own, theirs), (1, theirs, own)):
            before, same = first.setdefault((side, name), (one, other))
            if same != other:
                names = keys.names()
                a, b = (sources[side].name, sources[1 - side].name)
                text = f"the tables say otherwise who rows belong to: {names[before]} and {names[one]} are one patient's in {a}"
                hint = "--labels TABLE with the truth and the patients"
                raise OctcError("OCT-E706", f"{text}, two patients' in {b}", hint=hint, place=str(sources[1].path))


def _answers(
    sources: tuple[Source, Source], stated: Stated, asked: TableOptions, keys: Keys, room: Room
) -> tuple[tuple[Answered, Answered], Task, tuple[str, ...], tuple[float, ...]]:
    """What both tables say, the task, its classes, and the thresholds of findings (or of the second of two classes)."""
    labels = () if stated.truth is None else stated.truth.labels
    cells, findings = {label for label in labels if isinstance(label, str) and label}, stated.findings
    several = bool(findings) or asked.task == "multilabel"
    several = several or (asked.task is None and any(sign in cell for sign in SEVERAL for cell in cells))
    known = findings or tuple(sorted({one for cell in cells for one in (findings_of(cell) if several else (cell,))}))
    shapes = [answer_columns(source, asked, stated.hidden, known) for source in sources]
    if shapes[0].form != shapes[1].form:
        text = f"the tables answer in other forms: {shapes[0].form} and {shapes[1].form}"
        raise OctcError("OCT-E706", text, hint="--answers COLUMN that both have", place=str(sources[1].path))
    room.check(max(len(shapes[0].columns), len(known) if shapes[0].form == "answers" else 0))
    sides = read_answers(sources[0], stated.key, shapes[0], keys), read_answers(sources[1], stated.key, shapes[1], keys)
    form = shapes[0].form
    if form == "right":
        return sides, MULTICLASS, CLASSES_OF_RIGHT, ()
    if several and form not in ("probabilities", "chance"):
        text = "several findings a row are compared by their probabilities"
        raise OctcError("OCT-E706", text, hint="a column p_<finding> for each", place=str(sources[0].path))
    names = _classes(asked, shapes[0].classes, known, sides)
    return sides, MULTILABEL if several else MULTICLASS, names, _cuts(asked, names, several=several, form=form)


def _classes(
    asked: TableOptions, columns: tuple[str, ...], known: tuple[str, ...], sides: tuple[Answered, Answered]
) -> tuple[str, ...]:
    """Names in the order of their indices: as stated, as the columns of the reference, else as truth and answers have them."""
    if asked.classes is not None:
        names = names_in(asked.classes)
    elif columns:
        names = columns
    else:
        seen = {*known, *(text for side in sides for text in set(side.texts) if text)}
        names = tuple(sorted(seen, key=lambda name: (not _whole(name), int(name) if _whole(name) else 0, name)))
        refuse_spellings(names, str(sides[1].source.path))
    if len(set(names)) < len(names):
        raise OctcError("OCT-E706", f"a class occurs twice: {', '.join(names)}", hint="name each class once", place="--classes")
    return names


def _cuts(asked: TableOptions, names: tuple[str, ...], *, several: bool, form: str) -> tuple[float, ...]:
    stated = names_in(asked.threshold) or ("0.5",)
    count = len(names) if several else 1
    try:
        values = tuple(float(one) for one in stated)
    except ValueError:
        values = (math.nan,)
    values = values * count if len(values) == 1 else values
    if (
        len(values) != count
        or not all(0 <= one <= 1 for one in values)
        or (stated != ("0.5",) and not several and form != "chance")
    ):
        text = f"--threshold {asked.threshold} does not fit"
        hint = "a number from 0 to 1, for all findings or one for each, or for the probability of the second of two classes"
        raise OctcError("OCT-E104", text, hint=hint, place="--threshold")
    return values


def _records(
    sides: tuple[Answered, Answered],
    rows: tuple[Int64, Keys],
    truth: Truth | None,
    names: tuple[str, ...],
    task: Task,
    cuts: tuple[float, ...],
) -> tuple[str, tuple[Records, Records], Mapping[str, Image] | None]:
    """Both tables in one order, as `octc verify` has the logits of artifacts; what they stand for; findings by key."""
    shape, wanted, all_names = sides[0].answer.form, rows[0], rows[1].names()
    ids = tuple(all_names[i] for i in wanted.tolist())
    form = RIGHT if shape == "right" else SCORES if task is MULTILABEL else form_of(shape, cuts)
    patients: tuple[str | None, ...] = (None,) * len(ids)
    labels: tuple[int, ...] = (1,) * len(ids)
    images = None
    told = [text for side in sides for text in set(side.texts)]
    by_index = are_indices([*told, *({label for label in truth.labels if isinstance(label, str)} if truth else ())], names)
    if truth is not None:
        places = order_of(truth.keys, wanted).tolist()
        patients = tuple(truth.patients[i] for i in places)
        if task is MULTILABEL:
            images = _images(ids, places, truth, names)
        elif form != RIGHT:
            labels = tuple(class_indices([truth.labels[i] for i in places], names, "labels", by_index))
    found = [
        Records(
            ids,
            labels,
            patients,
            _logits(side, (order_of(side.keys, wanted), ids), names, task, cuts, by_index),
            ("identity",),
            side.source.sha256,
            {},
        )
        for side in sides
    ]
    return form, (found[0], found[1]), images


def form_of(shape: str, cuts: tuple[float, ...]) -> str:
    """Scores, or answers alone: another threshold than one half makes answers of a probability."""
    return SCORES if shape in ("logits", "probabilities") or (shape == "chance" and cuts == (0.5,)) else ANSWERS


def _whole(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _images(keys: Sequence[str], places: Sequence[int], truth: Truth, names: tuple[str, ...]) -> Mapping[str, Image]:
    where = {name: k for k, name in enumerate(names)}
    found: dict[str, Image] = {}
    unknown: set[str] = set()
    for key, i in zip(keys, places, strict=True):
        label = truth.labels[i]
        own = label
        unknown |= own - where.keys()
        targets = tuple(sorted(where[name] for name in own if name in where))
        found[key] = Image(key, targets[0] if targets else 0, truth.patients[i], targets, truth.eyes[i])
    if unknown:
        text = f"labels: not among the findings {', '.join(names)}: {shorten(sorted(unknown))}"
        raise OctcError("OCT-E706", text, hint="--classes with every finding", place="labels")
    return found


def _logits(
    side: Answered,
    rows: tuple[Int64, Sequence[str]],
    names: tuple[str, ...],
    task: Task,
    cuts: tuple[float, ...],
    by_index: bool,
) -> Logits:
    """[n, 1, K] in the order of the rows. rows: their places in the table, and their names."""
    where, shape, order = side.source.name, side.answer.form, rows[0]
    if side.values is None:
        return answers_as_logits([side.texts[i] for i in order.tolist()], names, where, by_index)
    values = _columns(side, names)[order]
    if shape == "right":
        return _two(values)
    if shape == "logits":
        logits: Logits = values.astype(np.float32)[:, None]
        return logits
    if task is MULTILABEL:
        return _logit(values, where)[:, None]  # type: ignore[return-value]
    if shape == "chance":
        if len(names) != 2:
            text = f"{where} gives one probability a row, and there are {len(names)} classes"
            raise OctcError("OCT-E706", text, hint="p_<class> for each class, or --classes NEGATIVE,POSITIVE", place=where)
        values = np.concatenate([1 - values, values], axis=1)
        if cuts != (0.5,):
            _check_range(values, where)
            hit = np.where(values[:, 1:] >= cuts[0], 1.0, 0.0)
            hit[np.isnan(values[:, 1:])] = np.nan
            return _two(hit)
    return logits_of(values, names, where, rows[1])


def _two(second: Float64) -> Logits:
    """One number a row as logits [n, 1, 2]: that of the second class, and what is left for the first."""
    out: Logits = np.concatenate([1 - second, second], axis=1).astype(np.float32)[:, None]
    return out


def _columns(side: Answered, names: tuple[str, ...]) -> Float64:
    """The columns in the order of the classes."""
    values, own = side.values, side.answer.classes
    assert values is not None
    if not own or own == names:
        return values
    if sorted(own) != sorted(names):
        if len(own) == len(names) and all(name.isdigit() for name in own):
            return values
        text = f"{side.source.name} answers the classes {', '.join(own)}; expected are {', '.join(names)}"
        raise OctcError("OCT-E309", text, hint="--classes NAMES, one for each column", place=str(side.source.path))
    return values[:, [own.index(name) for name in names]]


def _check_range(values: Float64, where: str) -> None:
    finite = values[np.isfinite(values)]
    if finite.size and (finite.min() < 0 or finite.max() > 1):
        raise OctcError("OCT-E701", f"scores of {where} are no probabilities", hint="numbers from 0 to 1", place=where)


def _logit(values: Float64, where: str) -> Float64:
    _check_range(values, where)
    held = np.clip(values, TINY, 1 - TINY)
    out: Float64 = np.log(held) - np.log1p(-held)
    return out
