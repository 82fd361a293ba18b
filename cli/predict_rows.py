"""The output of `octc predict`: CSV rows and JSON lines as soon as they are known, tables and documents at the end. If it is
stopped, the finished records are written and marked as incomplete."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from octc.cli._app.errors import Terminated
from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.cli._app.terminal import ClosedPipe
from octc.core.errors import OctcError
from octc.core.progress import Step

if TYPE_CHECKING:
    from octc.datasets.tree import Left
    from octc.runtimes.answers import LeastCertain, Lines, Tally
    from octc.runtimes.predict import Record
    from octc.runtimes.room import Batch
    from octc.store.find import Found

SHOWN = 3  # warnings of one kind that are shown individually
WIDE = 8  # largest number of classes with a column each


@dataclass(frozen=True)
class View:
    """Which records are shown. summary: counts per class instead of records; least_certain: only the N least confident ones."""

    summary: bool = False
    least_certain: int | None = None


@dataclass(frozen=True)
class Asked:
    """The request. total: number of inputs. stop: at the first that cannot be read. batch: images per inference."""

    total: int
    tta: str = "none"
    format: str = "table"
    stop: bool = False
    left_out: tuple[Left, ...] = ()
    view: View = field(default_factory=View)
    batch: Batch | None = None


@dataclass
class _Answer:
    """The output so far: what was written, counted and kept."""

    session: Session
    found: Found
    asked: Asked
    tally: Tally
    lines: Lines | None
    least: LeastCertain | None
    kept: list[Record] = field(default_factory=list)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.found.artifact.classes

    @property
    def counted(self) -> bool:
        """Whether only counts are shown."""
        return self.asked.view.summary and self.asked.format == "table" and not self.session.json

    def take(self, record: Record) -> None:
        """Count a record; write it now, or keep it if the output comes at the end."""
        self.tally.add(record)
        if self.least is not None:
            self.least.add(record)
        elif self.lines is not None:
            self.session.rows(self.lines.row(record, self.classes))
        elif not self.counted:
            self.kept.append(record)

    def finish(self, why: str | None) -> None:
        """Write the rest of the output. why: what stopped the command; None: it is complete."""
        if self.counted:
            self.session.result(_counts(self.tally, self.classes, why))
        if self.lines is not None:
            self._end_of_lines(self.lines, why)
        elif not self.counted or self.least is not None:
            self._whole(why)
        _warn(self.session, self.tally)

    def _end_of_lines(self, lines: Lines, why: str | None) -> None:
        if self.least is not None:
            self.session.rows("".join(lines.row(record, self.classes) for record in self.least.records()))
        if why is not None:
            self.session.rows(lines.mark(why, self.asked.total, self.classes))
        if self.asked.view.summary:
            self.session.say(", ".join(f"{name} {count}" for name, count in _count_rows(self.tally, self.classes)))

    def _whole(self, why: str | None) -> None:
        """Write the document of `--json` and `--format json`, or the table."""
        from octc.runtimes.answers import predictions

        artifact, total = self.found.artifact, self.asked.total
        records = self.kept if self.least is None else self.least.records()
        document = {
            **predictions(artifact, str(self.found.folder), self.asked.tta, self.tally, records),
            "batch": None if self.asked.batch is None else self.asked.batch.to_json(),
            "left_out": [asdict(one) for one in self.asked.left_out],
            "stopped_by": why,
        }
        self.session.report(document)
        if self.session.json:
            return
        text = json.dumps(document, indent=1, allow_nan=False) if self.asked.format == "json" else None
        self.session.result(_table(records, self.classes, (total, why)) if text is None else text)


def expect(session: Session, form: str) -> None:
    """Import the modules for this output format while the engine is opened."""
    import_module("octc.runtimes.answers")
    if form == "table":
        session.expect_table()


def deliver(session: Session, found: Found, records: Iterator[Record], asked: Asked) -> int:
    """Write the records of the inputs; return the exit code. CSV, JSON lines and summaries keep no records in memory.

    Raises:
        OctcError: E801 some inputs failed; with `asked.stop` the error of the first one that did; and what `records` raises.
    """
    from octc.runtimes.answers import LeastCertain, Tally, decision_thresholds, lines_of

    count = asked.view.least_certain
    least = None if count is None else LeastCertain(count, decision_thresholds(found.artifact))
    lines = None if session.json else lines_of(asked.format, found.artifact)
    answer = _Answer(session, found, asked, Tally(asked.total), lines, least)
    if not _checked(found):
        session.warn("OCT-W803", "likeness to the training images not checked: this artifact does not know them")
    try:
        if lines is not None:
            session.rows(lines.head(answer.classes))
        with _progress(session, asked.total, streamed=lines is not None) as step:
            for record in records:
                answer.take(record)
                if record.eye is None:
                    step(1)
                if asked.stop and record.error is not None:
                    break
    except BaseException as error:
        with contextlib.suppress(OctcError, ClosedPipe):  # without stdout the mark cannot be written
            answer.finish(_reason(error))
        raise
    answer.finish(None)
    return _end(answer.tally, stop=asked.stop)


def _checked(found: Found) -> bool:
    """Whether the artifact can tell inputs that are unlike its training images."""
    return found.artifact.details.get("input_statistics") is not None


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "terminated" if isinstance(error, Terminated) else "interrupted"
    return f"{error.code} {error.message}" if isinstance(error, OctcError) else type(error).__name__


@contextlib.contextmanager
def _progress(session: Session, total: int, *, streamed: bool) -> Iterator[Step]:
    """A progress bar, unless rows appear on the same terminal."""
    if streamed and sys.stdout is not None and sys.stdout.isatty():
        yield lambda _count: None
    else:
        with session.progress("images", total) as step:
            yield step


def _count_rows(tally: Tally, classes: Sequence[str]) -> list[tuple[str, int]]:
    from octc.runtimes.answers import summary_of

    found = summary_of(tally, classes)
    none = [("no class", found["no_class"])] if found["no_class"] else []
    refer = [("to be referred", found["referred"])] if "referred" in found else []
    return [*found["classes"].items(), *none, ("unlike", found["unlike"]), ("failed", found["failed"]), *refer]


def _counts(tally: Tally, classes: Sequence[str], why: str | None) -> Any:
    from octc.runtimes.answers import INCOMPLETE, unfinished

    rows = [(name, str(count), f"{100 * count / max(tally.done, 1):.1f}") for name, count in _count_rows(tally, classes)]
    if why is not None:
        rows.append((INCOMPLETE, "-", unfinished(why, tally.total)))
    return Rows(("answer", "images", "% of all"), rows)


def _warn(session: Session, tally: Tally) -> None:
    """Print warnings by code; many of one code become one line."""
    if (alike := tally.all_alike()) is not None:
        session.warn("OCT-W809", alike)
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
        "OCT-E801",
        f"{tally.failed.count} of {tally.total} inputs failed: {tally.failed.named()}",
        hint="see the error records; the other results are complete",
        place=tally.failed.first[0][1].rpartition(" (")[0],
    )


def _table(records: Sequence[Record], classes: Sequence[str], end: tuple[int, str | None]) -> Any:
    from octc.runtimes.answers import INCOMPLETE, unfinished

    columns = ("file", "label", "confidence", *(classes if len(classes) <= WIDE else ("likeliest",)), "remarks")
    rows = [_cells(record, classes) for record in records]
    total, why = end
    if why is not None:
        rows.append([INCOMPLETE, *["-"] * (len(columns) - 2), unfinished(why, total)])
    return Rows(columns, rows)


def _cells(record: Record, classes: Sequence[str]) -> list[str]:
    if record.probabilities is None:
        cells = ["-"] * (min(len(classes), WIDE) if len(classes) <= WIDE else 1)
        error = record.error
        if record.eye is not None:
            return [_shown(record), "no answer", "-", *cells, "; ".join(record.eye.reasons)]
        return [_shown(record), "-", "-", *cells, "" if error is None else f"{error.code}: {error.message}"]
    if len(classes) <= WIDE:
        cells = [f"{value:.4f}" for value in record.probabilities]
    else:
        order = sorted(range(len(classes)), key=lambda k: -(record.probabilities or ())[k])[:3]
        cells = [", ".join(f"{classes[k]} {record.probabilities[k]:.4f}" for k in order)]
    label = "unlike" if record.unlike else "no answer" if record.eye and record.eye.reasons else classes[record.label or 0]
    if record.labels is not None and not record.unlike:
        label = " ".join(classes[k] for k in record.labels) or "none"
    remarks = [code for code, _ in record.notes]
    if record.decided is not None:
        remarks += _remarks(record, classes)
    return [_shown(record), label, f"{record.confidence:.4f}", *cells, "; ".join(remarks)]


def _remarks(record: Record, classes: Sequence[str]) -> list[str]:
    """Results of the artifact's decision rules, for the last column."""
    rules = record.decided
    assert rules is not None
    members = [] if rules.members is None else [f"set: {', '.join(classes[k] for k in rules.members) or 'empty'}"]
    flagged = [f"flagged: {', '.join(classes[k] for k in rules.flagged)}"] if rules.flagged else []
    return [*members, *flagged, *([f"refer: {', '.join(rules.why)}"] if rules.refer else [])]


def _shown(record: Record) -> str:
    """A path on one line; control characters are escaped."""
    return "".join(sign if sign.isprintable() or "\ud800" <= sign <= "\udfff" else repr(sign)[1:-1] for sign in record.name)
