"""`octc monitor`: replay the golden images, take labels that arrived, judge what the store holds, write the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from octc.bench.monitor.judge import Limits, judge
from octc.bench.monitor.page import write_report
from octc.core.cells import given
from octc.core.clock import utc_now
from octc.core.errors import OctcError, shorten
from octc.core.faults import writing_to
from octc.core.progress import LogReporter, Reporter
from octc.datasets.tables import read_columns, refuse_lines
from octc.runtimes.golden import check_golden
from octc.runtimes.model import located
from octc.runtimes.monitored import content_of, picture_key, today
from octc.runtimes.registry import choose_threads, open_runtime
from octc.schemas.monitor import MonitorReport
from octc.stats.reference_sketch import stated_sketch
from octc.store.find import Found
from octc.store.monitor_store import MonitorStore, Replay, Seen, Truth, open_store

IMAGE, LABEL, PATIENT, EYE = "path", "label", "patient", "eye"


@dataclass(frozen=True)
class MonitorOptions:
    """Options of `octc.monitor`.

    Attributes:
        labels: table of labels that arrived later. replay: whether golden images are replayed. limits: of the tests.
    """

    labels: Path | None = None
    replay: bool = True
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Taken:
    """Of a table of labels: new patients (and images of whom it names none), new images of those who count already, lines of no
    prediction."""

    groups: int
    late: int
    unknown: int


def monitor_box(
    artifact: str | Path,
    store: str | Path,
    *,
    out: str | Path | None = None,
    options: MonitorOptions | None = None,
    reporter: Reporter | None = None,
) -> MonitorReport:
    """Test whether a deployed artifact's inputs, answers and computations still match its validation set.

    The probability of ever reporting drift where there is none stays below `limits.alpha`, however often this is called.

    Args:
        artifact: the artifact's folder, or a run's.
        store: file that `octc predict --monitor`, the server and archives wrote to.
        out: folder for monitor.html, monitor.json and monitor.prom; None: nothing is written.

        options: a table of labels that arrived, whether golden images are replayed, limits.
        reporter: receives messages; None: the log `octc`.

    Returns: the report; `alarms` is empty if nothing is wrong.

    Raises:
        OctcError: E107 no store or artifact; E712 the store is damaged; E209 the table of labels does not fit; E102 labels were
            given for a multi-label artifact.

    >>> import octc
    >>> octc.monitor("no-such-artifact", "store.sqlite")
    Traceback (most recent call last):
    octc.core.errors.OctcError: no artifact and no run: no-such-artifact
    """
    asked, tell = options or MonitorOptions(), reporter or LogReporter()
    found = located(artifact)
    digest = found.artifact.sha256
    with open_store(Path(store)) as kept:
        if asked.replay:
            row = replayed(found, digest)
            kept.add([row])
            tell.say(f"  {'✓' if row.ok else '✗'} golden   {found.artifact.name}")
        if asked.labels is not None:
            _check_task(found, asked.labels)
            taken = take_labels(kept, digest, found.artifact.classes, asked.labels)
            late = f"{taken.late} new images of those who count already, left out; " if taken.late else ""
            new = f"{taken.groups} new patients (or images without one)"
            tell.say(f"  labels       {new}; {late}{taken.unknown} lines are of no prediction here")
        named = {"name": found.artifact.name, "digest": digest}
        report = judge(named, kept, stated_sketch(found.artifact.details), asked.limits, utc_now())
    if out is not None:
        with writing_to(out):
            write_report(Path(out), report)
    return report


def _check_task(found: Found, labels: Path) -> None:
    """Labels are of one class an image: of several findings a store keeps the likeliest alone, which tells nothing."""
    if found.artifact.task == "multilabel":
        text = f"{found.artifact.name} answers several findings an image, and a store keeps the likeliest of them alone"
        hint = "octc compare, with tables of what was answered and of the labels that arrived"
        raise OctcError("OCT-E102", text, hint=hint, place=str(labels))


def replayed(found: Found, digest: str) -> Replay:
    """The golden images on this machine, now; decoding that differs is a failure too."""
    runtime = open_runtime(found.folder, found.artifact, threads=choose_threads(None))
    try:
        report = check_golden(found.folder, found.artifact, runtime)
        return Replay(today(), digest, bool(report.ok), report.delta_over_s)
    except OctcError as error:
        if error.code not in ("OCT-E506", "OCT-E508"):
            raise
        return Replay(today(), digest, False, None)
    finally:
        runtime.close()


def take_labels(store: MonitorStore, artifact: str, classes: Sequence[str], table: Path) -> Taken:
    """Add labels of a table: path of the picture (it has to be here), label, and maybe patient and eye, in columns of any usual
    name. Images of one patient in one table count once, by the share of right answers.

    A patient is known by the images: of whom one counts already, whatever table it came with, nothing is added, because a value
    that changes after others were bet on would not hold at every look. Whoever shares an image counts as one patient.

    Patients of a table come in the order of their keyed hashes: a table that is sorted by class is none in which they came.

    Raises:
        OctcError: E209 the table does not fit, a label is no class of the artifact, or an image has two labels.
    """
    lines = read_columns(table, (IMAGE, LABEL), (PATIENT, EYE))
    if strange := sorted({line[LABEL] for _, line in lines if line[LABEL] not in classes}):
        text = f"labels that are no class of the artifact: {shorten(strange)}"
        raise OctcError("OCT-E209", text, hint=f"one of: {', '.join(classes)}", place=str(table))
    seen = {row.key: row for row in store.seen(artifact)}
    groups: dict[str, dict[str, bool]] = defaultdict(dict)
    labels: dict[str, str] = {}
    unknown, torn = 0, []
    for number, line in lines:
        row = _prediction(store, seen, table, line)
        if row is None or row.label is None:
            unknown += 1
            continue
        if labels.setdefault(row.key, line[LABEL]) != line[LABEL]:
            torn.append(f"line {number}: {line[LABEL]}, before {labels[row.key]}")
        groups[given(line.get(PATIENT)) or f"line {number}"][row.key] = row.label == line[LABEL]
    refuse_lines(table, torn, "one label for each image (and eye); of a label that was corrected, leave the right one")
    day = today()
    rows = [
        Truth(day, artifact, tuple(sorted(keys)), sum(keys.values()) / len(keys), len(keys))
        for keys in _patients(groups.values())
    ]
    rows.sort(key=lambda row: store.key_of(" ".join(row.keys)))
    counted = {key for row in store.truth(artifact) for key in row.keys}
    late = sum(len({*row.keys} - counted) for row in rows if counted & {*row.keys})
    return Taken(store.add(rows), late, unknown)


def _patients(groups: Iterable[Mapping[str, bool]]) -> list[dict[str, bool]]:
    """Groups of images without an image in common: those that share one are one."""
    home: dict[str, dict[str, bool]] = {}
    for group in groups:
        whole = dict(group)
        for other in [home[key] for key in group if key in home]:
            whole.update(other)
        home.update(dict.fromkeys(whole, whole))
    return list({id(one): one for one in home.values()}.values())


def _prediction(store: MonitorStore, seen: Mapping[str, Seen], table: Path, line: Mapping[str, str]) -> Seen | None:
    """What was answered to the picture of a line: of a file beside the table, else as it is named there."""
    for path in (table.parent / line[IMAGE], Path(line[IMAGE])):
        content = content_of(path)
        if content is not None and (row := seen.get(picture_key(store, content, line.get(EYE)))) is not None:
            return row
    return None
