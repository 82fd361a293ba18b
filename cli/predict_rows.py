"""What `octc predict` says of every picture: rows of CSV and JSON lines as soon as they are known, tables and documents at the
end. Whatever stops it, what is done is written and marked as not complete."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from octc.cli._app.errors import Terminated
from octc.cli._app.session import Session
from octc.cli._app.terminal import ClosedPipe
from octc.core.csv_files import csv_line
from octc.core.errors import OctcError, shorten
from octc.core.progress import Step

if TYPE_CHECKING:
    from octc.datasets.tree import Left
    from octc.runtimes.predict import Record
    from octc.store.artifacts import Artifact
    from octc.store.find import Found

FORMATS = ("table", "json", "jsonl", "csv")
SHOWN = 3  # warnings of one kind that are shown one by one
NAMED = 11  # paths that are remembered of one kind: one more than a line shows
WIDE = 8  # classes that a table has columns for
INCOMPLETE = "incomplete"  # status of the row that says so


@dataclass
class Kind:
    """Notes of one code: how many, and the first of them (text, path)."""

    count: int = 0
    first: list[tuple[str, str]] = field(default_factory=list)

    def add(self, text: str, path: str) -> None:
        self.count += 1
        if self.count <= NAMED:
            self.first.append((text, path))

    def named(self) -> str:
        """The paths for one line."""
        shown = shorten([path for _, path in self.first[: NAMED - 1]])
        left = self.count - (NAMED - 1)
        return f"{shown} … and {left} more (--json for all)" if left > 0 else shown


@dataclass
class Tally:
    """What is remembered of all records, however many there are."""

    total: int
    done: int = 0
    notes: dict[str, Kind] = field(default_factory=dict)
    failed: Kind = field(default_factory=Kind)
    error: OctcError | None = None  # the first one
    unlike: int = 0
    none: int = 0  # where classes do not exclude each other: images in which no class reaches its threshold
    classes: dict[int, int] = field(default_factory=dict)  # images of each class

    def add(self, record: Record) -> None:
        self.done += 1
        if record.error is None and record.unlike:
            self.unlike += 1
        elif record.error is None:
            found = record.labels if record.labels is not None else () if record.label is None else (record.label,)
            self.none += not found
            for k in found:
                self.classes[k] = self.classes.get(k, 0) + 1
        for code, text in record.notes:
            self.notes.setdefault(code, Kind()).add(text, str(record.path))
        if record.error is not None:
            self.error = self.error or record.error
            self.failed.add(record.error.message, f"{record.path} ({record.error.code})")


@dataclass(frozen=True)
class View:
    """Which records are shown. summary: how many of each class, in place of the table; least_certain: only so many of them."""

    summary: bool = False
    least_certain: int | None = None


class LeastCertain:
    """The records whose answer is least certain, as many as asked for; pictures without an answer are none of them."""

    def __init__(self, count: int, thresholds: Sequence[float] | None) -> None:
        self.count, self.thresholds = count, thresholds
        self._heap: list[tuple[float, int, Record]] = []
        self._number = itertools.count()

    def add(self, record: Record) -> None:
        if record.probabilities is None or record.unlike:
            return
        entry = (-certainty(record, self.thresholds), -next(self._number), record)
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def records(self) -> list[Record]:
        """The least certain first; of equals the earlier."""
        return [record for *_, record in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def certainty(record: Record, thresholds: Sequence[float] | None = None) -> float:
    """The largest probability; where classes do not exclude each other, the distance of the closest score to its threshold."""
    scores = record.probabilities or ()
    if thresholds is None or record.labels is None:
        return max(scores)
    return min(abs(score - at) for score, at in zip(scores, thresholds, strict=True))


@dataclass(frozen=True)
class Lines:
    """A format that is written line by line: its head, a record, and the mark of what is not complete."""

    head: Callable[[Sequence[str]], str]
    row: Callable[[Record, Sequence[str]], str]
    mark: Callable[[str, int, Sequence[str]], str]


def deliver(
    session: Session, found: Found, records: Iterator[Record], total: int, tta: str, format_: str, *, stop: bool,
    left_out: Sequence[Left] = (), view: View = View(),
) -> int:  # fmt: skip
    """Write the records of `total` inputs; the exit code. Of CSV and JSON lines nothing is kept in memory, nor for a summary.

    Raises:
        OctcError: E801 some inputs failed; with `stop` the error of the first one that did; and what `records` raises.
    """
    artifact, tally = found.artifact, Tally(total)
    kept: list[Record] = []
    least = None if view.least_certain is None else LeastCertain(view.least_certain, _thresholds(artifact))
    counted = view.summary and format_ == "table" and not session.json  # nothing but the counts is shown
    lines = None if session.json else LINES.get(format_)
    checked = artifact.details.get("input_statistics") is not None
    if not checked:
        session.warn("OCT-W803", "likeness to the training images not checked: this artifact does not know them")

    def finish(why: str | None) -> None:
        shown = kept if least is None else least.records()
        if counted:
            session.result(_counts(tally, artifact.classes, why))
        if lines is None and (not counted or least is not None):
            facts = {
                "tta": tta, "likeness_checked": checked, "left_out": [asdict(one) for one in left_out],
                "summary": summary_of(tally, artifact.classes),
            }  # fmt: skip
            _whole(session, found, shown, facts, (tally, why), format_)
        elif lines is not None:
            if least is not None:
                session.rows("".join(lines.row(record, artifact.classes) for record in shown))
            if why is not None:
                session.rows(lines.mark(why, total, artifact.classes))
            if view.summary:
                session.say(", ".join(f"{name} {count}" for name, count in _count_rows(tally, artifact.classes)))
        _warn(session, tally)

    try:
        if lines is not None:
            session.rows(lines.head(artifact.classes))
        with _progress(session, total, streamed=lines is not None) as step:
            for record in records:
                tally.add(record)
                if least is not None:
                    least.add(record)
                elif lines is not None:
                    session.rows(lines.row(record, artifact.classes))
                elif not counted:
                    kept.append(record)
                step(1)
                if stop and record.error is not None:
                    break
    except BaseException as error:
        with contextlib.suppress(OctcError, ClosedPipe):  # where stdout is lost, its mark is too
            finish(_reason(error))
        raise
    finish(None)
    return _end(tally, stop=stop)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "terminated" if isinstance(error, Terminated) else "interrupted"
    return f"{error.code} {error.message}" if isinstance(error, OctcError) else type(error).__name__


@contextlib.contextmanager
def _progress(session: Session, total: int, *, streamed: bool) -> Iterator[Step]:
    """A bar, but not between rows that appear on the same terminal."""
    if streamed and sys.stdout is not None and sys.stdout.isatty():
        yield lambda _count: None
    else:
        with session.progress("images", total) as step:
            yield step


def _whole(
    session: Session,
    found: Found,
    records: Sequence[Record],
    facts: dict[str, Any],
    end: tuple[Tally, str | None],
    format_: str,
) -> None:
    """The document of `--json` and `--format json`, or the table."""
    tally, why = end
    total = tally.total
    artifact = found.artifact
    classes = artifact.classes
    document: dict[str, Any] = {
        "artifact": {"name": artifact.name, "folder": str(found.folder), "model": artifact.model, "classes": list(classes)},
        **facts, "inputs": total, "complete": tally.done == total, "stopped_by": why,
        "records": [record.to_json(classes) for record in records],
    }  # fmt: skip
    session.report(document)
    if not session.json:
        session.result(
            json.dumps(document, indent=1, allow_nan=False) if format_ == "json" else _table(records, classes, (total, why))
        )


def _thresholds(artifact: Artifact) -> Sequence[float] | None:
    from octc.stats.multilabel import thresholds_of

    return thresholds_of(artifact.details, len(artifact.classes)) if artifact.task == "multilabel" else None


def summary_of(tally: Tally, classes: Sequence[str]) -> dict[str, Any]:
    """How many images got each class, are unlike the training images, or failed."""
    return {
        "classes": {name: tally.classes.get(k, 0) for k, name in enumerate(classes)}, "no_class": tally.none,
        "unlike": tally.unlike, "failed": tally.failed.count, "done": tally.done,
    }  # fmt: skip


def _count_rows(tally: Tally, classes: Sequence[str]) -> list[tuple[str, int]]:
    found = summary_of(tally, classes)
    none = [("no class", found["no_class"])] if found["no_class"] else []
    return [*found["classes"].items(), *none, ("unlike", found["unlike"]), ("failed", found["failed"])]


def _counts(tally: Tally, classes: Sequence[str], why: str | None) -> Any:
    from octc.cli._app.tables import Rows

    rows = [(name, str(count), f"{100 * count / max(tally.done, 1):.1f}") for name, count in _count_rows(tally, classes)]
    if why is not None:
        rows.append((INCOMPLETE, "-", _unfinished(why, tally.total)))
    return Rows(("answer", "images", "% of all"), rows)


def _warn(session: Session, tally: Tally) -> None:
    """Warnings by kind; many of one kind become one line."""
    for code, kind in tally.notes.items():
        if kind.count <= SHOWN:
            for text, path in kind.first:
                session.warn(code, text, path)
        else:
            session.warn(code, f"{kind.count} inputs, the first: {kind.first[0][0]}; {kind.named()}")


def _end(tally: Tally, *, stop: bool) -> int:
    if tally.error is None:
        return 0
    if stop:
        raise tally.error
    raise OctcError(
        "OCT-E801", f"{tally.failed.count} of {tally.total} inputs failed: {tally.failed.named()}",
        hint="see the error records; the other results are complete", place=tally.failed.first[0][1].rpartition(" (")[0],
    )  # fmt: skip


def _table(records: Sequence[Record], classes: Sequence[str], end: tuple[int, str | None]) -> Any:
    from octc.cli._app.tables import Rows

    columns = ("file", "label", "confidence", *(classes if len(classes) <= WIDE else ("likeliest",)), "remarks")
    rows = [_cells(record, classes) for record in records]
    total, why = end
    if why is not None:
        rows.append([INCOMPLETE, *["-"] * (len(columns) - 2), _unfinished(why, total)])
    return Rows(columns, rows)


def _cells(record: Record, classes: Sequence[str]) -> list[str]:
    if record.probabilities is None:
        cells = ["-"] * (min(len(classes), WIDE) if len(classes) <= WIDE else 1)
        error = record.error
        return [_shown(record), "-", "-", *cells, "" if error is None else f"{error.code}: {error.message}"]
    if len(classes) <= WIDE:
        cells = [f"{value:.4f}" for value in record.probabilities]
    else:
        order = sorted(range(len(classes)), key=lambda k: -(record.probabilities or ())[k])[:3]
        cells = [", ".join(f"{classes[k]} {record.probabilities[k]:.4f}" for k in order)]
    label = "unlike" if record.unlike else classes[record.label or 0]
    if record.labels is not None and not record.unlike:
        label = " ".join(classes[k] for k in record.labels) or "none"
    return [_shown(record), label, f"{record.confidence:.4f}", *cells, "; ".join(code for code, _ in record.notes)]


def _shown(record: Record) -> str:
    """A path on one line, whatever its name holds."""
    return "".join(
        sign if sign.isprintable() or "\ud800" <= sign <= "\udfff" else repr(sign)[1:-1] for sign in str(record.path)
    )


def _unfinished(why: str, total: int) -> str:
    return f"{why}: not all of {total} inputs are here"


def _csv_head(classes: Sequence[str]) -> str:
    return csv_line(["file", "status", "label", "confidence", *(f"p_{name}" for name in classes), "distance", "notes", "error"])


def _csv_row(record: Record, classes: Sequence[str]) -> str:
    value = record.to_json(classes)
    numbers = record.probabilities or [None] * len(classes)
    notes = "; ".join(f"{code} {text}" for code, text in record.notes)
    error = None if record.error is None else f"{record.error.code} {record.error.message}"
    first = [value["file"], value["status"], value["label"], record.confidence]
    return csv_line([*first, *numbers, value["distance"], notes, error])


def _csv_mark(why: str, total: int, classes: Sequence[str]) -> str:
    return csv_line([None, INCOMPLETE, *[None] * (len(classes) + 4), _unfinished(why, total)])


def _json_row(record: Record, classes: Sequence[str]) -> str:
    return json.dumps(record.to_json(classes), allow_nan=False) + "\n"


def _json_mark(why: str, total: int, _classes: Sequence[str]) -> str:
    return json.dumps({"file": None, "status": INCOMPLETE, "stopped_by": why, "inputs": total}) + "\n"


LINES = {"csv": Lines(_csv_head, _csv_row, _csv_mark), "jsonl": Lines(lambda _classes: "", _json_row, _json_mark)}
