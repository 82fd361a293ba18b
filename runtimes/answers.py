"""Records of many images: counted, the least certain kept, and as lines of CSV and JSON, in constant memory."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from octc.core.csv_files import csv_line
from octc.core.errors import OctcError, shorten
from octc.runtimes.predict import Record
from octc.stats.deciding import KEY
from octc.stats.multilabel import thresholds_of
from octc.store.artifacts import Artifact

NAMED = 11  # paths that are remembered of one kind: one more than a line shows
MANY, ALIKE = 8, 1e-3  # answers from so many images on that differ by no more than this are no answers
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
    eyes: int = 0  # answers for eyes, which are counted for themselves
    ruled: int = 0  # images that the artifact's rules decided, and those of them that a person is to decide
    referred: int = 0
    lowest: list[float] = field(default_factory=list)  # smallest and largest probability of each class
    highest: list[float] = field(default_factory=list)
    answered: int = 0  # images with probabilities

    def add(self, record: Record) -> None:
        if record.eye is not None:
            self.eyes += 1
            self._note(record)
            return
        self.done += 1
        self._spread(record.probabilities)
        self.ruled += record.decided is not None
        self.referred += record.decided is not None and record.decided.refer
        if record.error is None and record.unlike:
            self.unlike += 1
        elif record.error is None:
            found = record.labels if record.labels is not None else () if record.label is None else (record.label,)
            self.none += not found
            for k in found:
                self.classes[k] = self.classes.get(k, 0) + 1
        self._note(record)
        if record.error is not None:
            self.error = self.error or record.error
            self.failed.add(record.error.message, f"{record.name} ({record.error.code})")

    def _spread(self, probabilities: Sequence[float] | None) -> None:
        if probabilities is not None:
            self.answered += 1
            self.lowest = list(map(min, probabilities, self.lowest or probabilities))
            self.highest = list(map(max, probabilities, self.highest or probabilities))

    def all_alike(self) -> str | None:
        """That the network does not tell these images apart, in words (OCT-W809); None where it does, or there are few."""
        apart = max((high - low for low, high in zip(self.lowest, self.highest, strict=True)), default=1.0)
        if self.answered < MANY or apart > ALIKE:
            return None
        return (
            f"{self.answered} images, and their probabilities differ by at most {apart:.1g}: this network does not look at them"
        )

    def _note(self, record: Record) -> None:
        for code, text in record.notes:
            self.notes.setdefault(code, Kind()).add(text, record.name)


class LeastCertain:
    """The records whose answer is least certain, as many as asked for; pictures without an answer are none of them."""

    def __init__(self, count: int, thresholds: Sequence[float] | None) -> None:
        self.count, self.thresholds = count, thresholds
        self._heap: list[tuple[float, int, Record]] = []
        self._number = itertools.count()

    def add(self, record: Record) -> None:
        if record.probabilities is None or record.unlike or record.eye is not None:
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


def decision_thresholds(artifact: Artifact) -> Sequence[float] | None:
    """From which score on each class is present; None where classes exclude each other."""
    return thresholds_of(artifact.details, len(artifact.classes)) if artifact.task == "multilabel" else None


def has_rules(artifact: Artifact) -> bool:
    """Whether records have a set and whether to refer: the artifact has decision rules. Points of several findings are none:
    they are its thresholds."""
    return KEY in artifact.details and artifact.task != "multilabel"


def summary_of(tally: Tally, classes: Sequence[str]) -> dict[str, Any]:
    """How many images got each class, are unlike the training images, or failed; where rules decided, how many are referred."""
    return {
        **({"referred": tally.referred} if tally.ruled else {}),
        "classes": {name: tally.classes.get(k, 0) for k, name in enumerate(classes)},
        "no_class": tally.none,
        "unlike": tally.unlike,
        "failed": tally.failed.count,
        "done": tally.done,
    }


def predictions(artifact: Artifact, folder: str, tta: str, tally: Tally, records: Iterable[Record]) -> dict[str, Any]:
    """The document of `octc predict` (`octc.schemas.predict.Predictions`), of all inputs; folder: as it is to be named."""
    return {
        "artifact": {"name": artifact.name, "folder": folder, "model": artifact.model, "classes": list(artifact.classes)},
        "tta": tta,
        "likeness_checked": artifact.details.get("input_statistics") is not None,
        "left_out": [],
        "summary": summary_of(tally, artifact.classes),
        "inputs": tally.total,
        "complete": tally.done == tally.total,
        "stopped_by": None,
        "records": [record.to_json(artifact.classes) for record in records],
    }


def unfinished(why: str, total: int) -> str:
    return f"{why}: not all of {total} inputs are here"


RULED = ("set", "flagged", "refer")  # columns of an artifact with decision rules, the last ones
SEVERAL = ("labels",)  # of one whose classes do not exclude each other: all that reach their threshold
BETWEEN = "|"  # classes of one cell, as tables of several findings have them


def _csv_head(classes: Sequence[str], more: Sequence[str] = ()) -> str:
    columns = ["file", "status", "label", "confidence", *(f"p_{name}" for name in classes), "distance", "notes", "error"]
    return csv_line([*columns, *more])


def _csv_row(record: Record, classes: Sequence[str], more: Sequence[str] = ()) -> str:
    value = record.to_json(classes)
    numbers = record.probabilities or [None] * len(classes)
    notes = "; ".join(f"{code} {text}" for code, text in record.notes)
    error = None if record.error is None else f"{record.error.code} {record.error.message}"
    first = [record.name, value["status"], value["label"], record.confidence]
    return csv_line([*first, *numbers, value["distance"], notes, error, *(_cell(value.get(name)) for name in more)])


def _cell(value: Any) -> Any:
    """Several classes with a bar between them, whether to refer as true or false."""
    return BETWEEN.join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else value


def _csv_mark(why: str, total: int, classes: Sequence[str], more: Sequence[str] = ()) -> str:
    return csv_line([None, INCOMPLETE, *[None] * (len(classes) + 4), unfinished(why, total), *[None] * len(more)])


def _json_row(record: Record, classes: Sequence[str]) -> str:
    return json.dumps(record.to_json(classes), allow_nan=False) + "\n"


def _json_mark(why: str, total: int, _classes: Sequence[str]) -> str:
    return json.dumps({"file": None, "status": INCOMPLETE, "stopped_by": why, "inputs": total}) + "\n"


LINES = {"csv": Lines(_csv_head, _csv_row, _csv_mark), "jsonl": Lines(lambda _classes: "", _json_row, _json_mark)}


def lines_of(name: str, artifact: Artifact) -> Lines | None:
    """A format of lines by its name, for what an artifact answers; None for one that is written as a whole."""
    more = (*(SEVERAL if artifact.task == "multilabel" else ()), *(RULED if has_rules(artifact) else ()))
    if name != "csv" or not more:
        return LINES.get(name)
    return Lines(*(partial(one, more=more) for one in (_csv_head, _csv_row, _csv_mark)))
