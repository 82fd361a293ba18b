"""Two prediction tables of any program, joined by key and judged as `octc verify` judges (docs/parity.md)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from octc.bench.parity.claim import Context, Image, Joined, ParityReport, SetInfo, Side, compare_joined
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
    Codes,
    Float64,
    Int64,
    Table,
    Truth,
    Unmatched,
    check_same_patients,
    check_same_truth,
    common_rows,
    findings_of,
    numbers_of_keys,
    patient_numbers,
    read_answers,
    read_truth,
    same_patients,
)
from octc.bench.parity.tables.read import Source, open_table
from octc.bench.parity.tables.room import Room, read_room
from octc.bench.parity.tables.spool import Spool, workspace
from octc.bench.parity.tables.texts import Int32, Names
from octc.core.errors import OctcError, shorten
from octc.core.files import canonical_json, sha256_bytes
from octc.core.progress import LogReporter, Reporter
from octc.datasets.patient_rules import alike
from octc.schemas.comparing import LEAVE_OUT, TableOptions
from octc.stats.comparison import ANSWERS, RIGHT, SCORES, Logits
from octc.stats.sorted_ids import SortedIds
from octc.stats.tables import (
    are_indices,
    class_indices,
    log_probabilities,
    no_probabilities,
    refuse_spellings,
    refused_scores,
)
from octc.stats.task import MULTICLASS, MULTILABEL, Task
from octc.stats.test_plan import ParityOptions

TINY = 1e-12  # of a probability, before its logit
SLACK = 1e-9  # of a threshold: a score that equals it is at it
NOTHING = sha256_bytes(canonical_json({}))  # checksum of a preprocessing that tables do not state
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
    """The result of `octc.compare_files`; `str()` gives the report.

    Attributes:
        report: the claim: word, parts, numbers (`report.to_json()` is the document that `octc verify` writes for a claim).
        unmatched: rows that are missing in a table, by name. key, cluster: the columns that were used.
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
    """Compare two tables of predictions (CSV, JSON lines, Parquet) on the rows that they have in common.

    The statistics are those of `octc verify` and of `octc.compare`, which takes arrays.

    Args:
        reference, candidate: the tables; the candidate is meant to replace the reference.
        options: the meaning of the columns. gate: margins, claim, level, resamples (`octc.Gate`).
        reporter: receives what was chosen; None: the log `octc`.

    Returns: the verdict with all numbers, and the rows that only one table has.

    Raises:
        OctcError: E209 a table or a column cannot be read; E706 duplicate keys, rows that only one table has (unless they are
            to be left out), or different classes; E701 scores that are not probabilities; E708 no row, or a reference that is
            not finite or at chance level; E904 more rows than fit into memory. A claim that is not shown does not raise: see
            `raise_if_failed`.

    >>> import octc
    >>> octc.compare_files("fp32.csv", "int8.csv")
    Traceback (most recent call last):
    octc.core.errors.OctcError: table cannot be read: No such file or directory
    """
    asked, settings, told = options or TableOptions(), gate or ParityOptions(), reporter or LogReporter()
    sources = open_table(Path(reference)), open_table(Path(candidate))
    room = read_room(sources)
    room.check(0)
    with workspace() as spool:
        return _compared(sources, asked, settings, told, room, spool)


def _compared(
    sources: tuple[Source, Source],
    asked: TableOptions,
    settings: ParityOptions,
    told: Reporter,
    room: Room,
    spool: Callable[[], Spool],
) -> TablesCompared:
    stated = _stated(sources, asked, told, spool)
    sides, task, names, cuts = _answers(stated, asked, room)
    numbers = numbers_of_keys(stated.tables)
    truth = stated.truth
    if truth is not None and stated.other is not None:
        check_same_truth(truth, stated.other, numbers)
        check_same_patients(truth, stated.other, numbers)
    if (
        truth is not None and task is MULTILABEL and not stated.findings
    ):  # an empty list is a row without a finding, and is known
        truth = replace(truth, kinds=[findings_of(label) if isinstance(label, str) else label for label in truth.kinds])
    common = common_rows((sides[0].table, sides[1].table), truth if stated.columns else None, numbers)
    del numbers
    unmatched = common.unmatched
    if unmatched.count and asked.unmatched != LEAVE_OUT:
        text = "; ".join(unmatched.sentences())
        hint = f"complete the tables, or --unmatched {LEAVE_OUT}: the rows in common are compared"
        raise OctcError("OCT-E706", f"rows do not match: {text}", hint=hint, place=str(sources[1].path))
    for sentence in unmatched.sentences():
        told.warn("OCT-W707", f"left out: {sentence}")
    if not len(common.rows[sides[0].table]):
        raise OctcError("OCT-E708", "no row in common", hint="--key COLUMN that both tables write alike")
    joined, images = _joined(sides, common.rows, replace(stated, truth=truth), names, task, cuts)
    form = _form(sides[0].answer.form, task, cuts)
    unmatched = unmatched.held()
    stated, truth = replace(stated, truth=None, other=None), None  # what only the join needed
    del common
    context = Context(
        task,
        against="table",
        sides=(_side(sides[0]), _side(sides[1])),
        info=SetInfo("tables", "prediction tables as given", unit=asked.unit, exploratory=_exploratory(unmatched)),
        details={"thresholds": [(1 - SLACK) * cut for cut in cuts]} if not task.exclusive else {},
        images=images,
        form=form,
    )
    same = sources[0].sha256 == sources[1].sha256
    report = compare_joined(joined, names, settings, context, same=same)
    return TablesCompared(report, unmatched, stated.key, stated.cluster, form, names, (sources[0].path, sources[1].path))


def _exploratory(unmatched: Unmatched) -> str | None:
    return f"{unmatched.count:,} rows that not every table has were left out" if unmatched.count else None


def _side(one: Answered) -> Side:
    path = one.source.path
    return Side(
        path.name,
        one.source.sha256,
        "table",
        "table",
        runtime="table",
        source=f"read from {path.name}",
        preprocess_sha256=NOTHING,
    )


@dataclass(frozen=True)
class Stated:
    """What is known of the rows beside their answers.

    Attributes:
        key: columns that name a row. tables: that of the truth, where it is one of its own, the reference's, the candidate's.
        truth: None where neither classes nor patients are known. other: what the candidate's table says of it, if it does.
        columns: of the reference's table that hold the truth, and so no answer; findings: a column for each, else ().
        cluster: the column of who a row belongs to; whose: where it was read.
    """

    key: tuple[str, ...]
    tables: tuple[Table, ...]
    truth: Truth | None
    columns: tuple[str, ...]
    findings: tuple[str, ...]
    cluster: str | None
    here: bool = True
    other: Truth | None = None
    whose: Truth | None = None

    @property
    def hidden(self) -> tuple[str, ...]:
        """Columns of the tables that are no answer."""
        return self.columns if self.here else ()


def _stated(sources: tuple[Source, Source], asked: TableOptions, told: Reporter, spool: Callable[[], Spool]) -> Stated:
    apart = None
    stated = asked.labels
    if stated is not None and (Path(stated).is_file() or stated not in sources[0].names):
        apart, stated = open_table(Path(stated)), None
    given = (*([] if apart is None else [apart]), *sources)
    key = key_columns((*sources, *given[:-2]), asked)
    tables = tuple(Table(source, key, spool) for source in given)
    holder = tables[0].source
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
        return Stated(key, tables, None, (), (), None)
    aside, codes = found is not None and found[0] is not holder, Codes()
    truth = read_truth(tables[0], columns, findings, (None if aside else cluster, eye), codes)
    if not len(tables[0].keys):
        text = f"{holder.name} has a header and no row"
        raise OctcError("OCT-E209", text, hint="a table with a row for each image", place=str(holder.path))
    whose = truth
    if aside and found is not None:
        whose = read_truth(next(one for one in tables if one.source is found[0]), (), (), (cluster, None), Codes())
    if whose.patients is not None:
        for finding in alike("patients", same_patients(whose.patients, spool)):
            told.warn(finding.code, finding.message, finding.place)
    other = None
    if apart is None:
        theirs = columns if all(name in sources[1].names for name in columns) else ()
        people = None if cluster is None or aside else _cluster_of(sources[1], asked)
        if theirs or people is not None:
            other = read_truth(tables[-1], theirs, findings if theirs else (), (people, None), codes if theirs else Codes())
    return Stated(key, tables, truth, columns, findings, cluster, apart is None, other, whose)


def _cluster_of(source: Source, asked: TableOptions) -> str | None:
    """The column of who a row belongs to; None where this table does not say it."""
    if asked.cluster is not None and asked.cluster not in source.names:
        return None
    found = cluster_column((source,), asked)
    return None if found is None else found[1]


def _answers(
    stated: Stated, asked: TableOptions, room: Room
) -> tuple[tuple[Answered, Answered], Task, tuple[str, ...], tuple[float, ...]]:
    """What both tables say, the task, its classes, and the thresholds of findings (or of the second of two classes)."""
    tables = stated.tables[-2], stated.tables[-1]
    sources = tables[0].source, tables[1].source
    labels = () if stated.truth is None else stated.truth.kinds
    cells, findings = {label for label in labels if isinstance(label, str) and label}, stated.findings
    several = bool(findings) or asked.task == "multilabel"
    several = several or (asked.task is None and any(sign in cell for sign in SEVERAL for cell in cells))
    known = findings or tuple(sorted({one for cell in cells for one in (findings_of(cell) if several else (cell,))}))
    shapes = [answer_columns(source, asked, stated.hidden, known) for source in sources]
    if shapes[0].form != shapes[1].form:
        text = f"the tables answer in other forms: {shapes[0].form} and {shapes[1].form}"
        raise OctcError("OCT-E706", text, hint="--answers COLUMN that both have", place=str(sources[1].path))
    room.check(max(len(shapes[0].columns), len(known) if shapes[0].form == "answers" else 0), several=several)
    sides = read_answers(tables[0], shapes[0]), read_answers(tables[1], shapes[1])
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
        seen = {*known, *(text for side in sides for text in side.kinds if text)}
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


def _joined(
    sides: tuple[Answered, Answered],
    rows: Mapping[Table, Int32],
    stated: Stated,
    names: tuple[str, ...],
    task: Task,
    cuts: tuple[float, ...],
) -> tuple[Joined, Mapping[str, Image] | None]:
    """Both tables in one order, as `octc verify` has the logits of artifacts; findings by key."""
    first, truth = sides[0].table, stated.truth
    ids = SortedIds(Names(first.keys, rows[first]))
    patients, labels = np.full(len(ids), -1, np.int32), np.ones(len(ids), np.int64)
    images = None
    told = [text for side in sides for text in side.kinds]
    kinds = () if truth is None else truth.kinds
    by_index = are_indices([*told, *(label for label in kinds if isinstance(label, str))], names)
    if truth is not None:
        places, whose = rows[truth.table], stated.whose
        known = None if whose is None else whose.patients
        if task is MULTILABEL:
            people = [None] * len(ids) if known is None or whose is None else Names(known, rows[whose.table])
            images = _images(ids, places, truth, people, names)
        elif sides[0].answer.form != "right":
            labels = _class_codes(truth.codes[places], truth.kinds, names, "labels", by_index)
        if known is not None and whose is not None:
            patients = patient_numbers(known)[rows[whose.table]]
    logits = [_logits(side, rows[side.table], ids, names, task, cuts, by_index) for side in sides]
    return Joined(ids, labels, patients, logits[0], logits[1]), images


def _class_codes(codes: Int32, kinds: Sequence[str], names: tuple[str, ...], where: str, by_index: bool) -> Int64:
    """Classes as indices [n] of codes [n] of their names; 0 where there is none ("")."""
    used = [i for i in np.flatnonzero(np.bincount(codes)).tolist() if kinds[i]]
    found = np.zeros(len(kinds), np.int64)
    found[used] = class_indices([kinds[i] for i in used], names, where, by_index)
    out: Int64 = found[codes]
    return out


def _form(shape: str, task: Task, cuts: tuple[float, ...]) -> str:
    """What the answers stand for."""
    return RIGHT if shape == "right" else SCORES if task is MULTILABEL else form_of(shape, cuts)


def form_of(shape: str, cuts: tuple[float, ...]) -> str:
    """Scores, or answers alone: another threshold than one half makes answers of a probability."""
    return SCORES if shape in ("logits", "probabilities") or (shape == "chance" and cuts == (0.5,)) else ANSWERS


def _whole(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _images(
    keys: Sequence[str], places: Int32, truth: Truth, people: Sequence[str | None], names: tuple[str, ...]
) -> Mapping[str, Image]:
    where = {name: k for k, name in enumerate(names)}
    codes = truth.codes[places]
    unknown = {name for i in np.flatnonzero(np.bincount(codes)) for name in truth.kinds[i] if name not in where}
    if unknown:
        text = f"labels: not among the findings {', '.join(names)}: {shorten(sorted(unknown))}"
        raise OctcError("OCT-E706", text, hint="--classes with every finding", place="labels")
    targets = [tuple(sorted(where[name] for name in kind if name in where)) for kind in truth.kinds]
    eyes: Sequence[str | None] = [None] * len(places)
    if truth.eyes is not None:
        of_code = [eye or None for eye in truth.eyes[1]]
        eyes = [of_code[i] for i in truth.eyes[0][places].tolist()]
    rows = zip(keys, codes.tolist(), people, eyes, strict=True)
    return {key: Image(key, (targets[i] or (0,))[0], who or None, targets[i], eye) for key, i, who, eye in rows}


def _logits(
    side: Answered,
    rows: Int32,
    ids: Sequence[str],
    names: tuple[str, ...],
    task: Task,
    cuts: tuple[float, ...],
    by_index: bool,
) -> Logits:
    """[n, 1, K] of these rows, which are called `ids`, in their order."""
    if side.codes is not None:
        own = side.codes[rows]
        chosen = _class_codes(own, side.kinds, names, side.source.name, by_index)
        answers: Logits = np.eye(len(names), dtype=np.float32)[chosen][:, None]
        answers[np.isin(own, [code for code, text in enumerate(side.kinds) if not text])] = np.nan
        return answers
    place = np.full(len(side.table.keys), -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    out: Logits | None = None
    count, first, told = 0, len(rows), np.empty(0)
    for part, values in side.blocks():
        to = place[part]
        wanted = to >= 0
        made, probabilities = _made(side, values[wanted], names, task, cuts)
        if out is None:
            out = np.empty((len(rows), *made.shape[1:]), made.dtype)
        out[to[wanted]] = made
        if probabilities is not None and (wrong := no_probabilities(probabilities)).any():
            count, places = count + int(wrong.sum()), np.where(wrong, to[wanted], len(rows))
            here = int(places.argmin())
            if places[here] < first:
                first, told = int(places[here]), probabilities[here]
    if count:
        raise refused_scores(count, len(rows), ids[first], told, names, side.source.name)
    assert out is not None  # there is a row
    return out


def _made(
    side: Answered, given: Float64, names: tuple[str, ...], task: Task, cuts: tuple[float, ...]
) -> tuple[Logits, Float64 | None]:
    """The numbers of some rows as logits [n, 1, K], and the probabilities that they were made of, to be checked."""
    where, shape = side.source.name, side.answer.form
    values = _columns(side, given, names)
    if shape == "right":
        return _two(values), None
    if shape == "logits":
        return values.astype(np.float32)[:, None], None
    if task is MULTILABEL:
        return _logit(values, where)[:, None], None  # type: ignore[return-value]
    if shape == "chance":
        if len(names) != 2:
            text = f"{where} gives one probability a row, and there are {len(names)} classes"
            raise OctcError("OCT-E706", text, hint="p_<class> for each class, or --classes NEGATIVE,POSITIVE", place=where)
        values = np.concatenate([1 - values, values], axis=1)
        if cuts != (0.5,):
            _check_range(values, where)
            hit = np.where(values[:, 1:] >= cuts[0], 1.0, 0.0)
            hit[np.isnan(values[:, 1:])] = np.nan
            return _two(hit), None
    return log_probabilities(values), values


def _two(second: Float64) -> Logits:
    """One number a row as logits [n, 1, 2]: that of the second class, and what is left for the first."""
    out: Logits = np.concatenate([1 - second, second], axis=1).astype(np.float32)[:, None]
    return out


def _columns(side: Answered, values: Float64, names: tuple[str, ...]) -> Float64:
    """The columns in the order of the classes."""
    own = side.answer.classes
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
