"""Everything that is known about a run and its artifacts, read from the files that train, eval, verify and bench wrote.

Nothing is measured and nothing is judged anew: a number of the report is in one of these files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.bench.parity.inference import Records, read_records
from octc.bench.parity.predictions import FOLDER
from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.datasets.base import Sample
from octc.datasets.split import read_split
from octc.schemas.bench import BenchResult
from octc.schemas.common import convert
from octc.stats.outcome import Outcome, outcome_of
from octc.store.artifacts import file_mib
from octc.store.find import Found, read_teacher
from octc.store.locations import run_of
from octc.store.runs import Run
from octc.store.test_set_log import ReadingLog, read_log
from octc.store.verdicts import claims_of, headline, on_test, read_verdict


@dataclass(frozen=True)
class Timing:
    """What bench stored beside one artifact: the document, its own rows, the folder that its samples lie in."""

    document: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    folder: Path


@dataclass(frozen=True)
class RunSummary:
    """What is known of a run.

    Attributes:
    found: artifacts in the order of the report; checksums: name -> that of the manifest. teachers: those of the teacher.
    run, facts: the run and its run.json, None and {} where it is not here.
    verdicts: name -> document of `octc verify` on the test set, else on select, else on the golden images.
    stored: name -> every document that counts: as planned, then exploratory ones. records: sum -> logits of one view.
    log: readings of the test images, None where the run is not here or its log cannot be read.
    images: checksum of an image -> what the split says of it. timings: name -> what bench stored.
    patient_ids: of the split: "known", "partial", "unknown", or None where that is not recorded.
    """

    found: tuple[Found, ...]
    checksums: dict[str, str]
    teachers: tuple[Found, ...]
    run: Run | None
    facts: dict[str, Any]
    verdicts: dict[str, dict[str, Any]]
    records: dict[str, Records]
    images: dict[str, Sample] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    stored: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    log: ReadingLog | None = None
    patient_ids: str | None = None

    @property
    def first(self) -> Found:
        return self.found[0]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.first.artifact.classes

    def claims(self, name: str) -> Iterator[dict[str, Any]]:
        """Documents of every claim about an artifact that has numbers, the headline first, exploratory ones last."""
        for document in self.stored.get(name, ()):
            yield from claims_of(document)

    def decisions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, document) of every verdict on several labels an image: it is about decisions, and has no accuracy."""
        for name, documents in self.stored.items():
            yield from ((name, one) for one in documents if one.get("decisions") is not None)

    def as_reference(self, name: str) -> dict[str, Any] | None:
        """The first claim that another artifact was compared with this one in, or None."""
        claims = (one for other in self.stored if other != name for one in self.claims(other))
        return next((one for one in claims if one["reference"].get("artifact_sha256") == self.checksums[name]), None)

    def mib(self, found: Found) -> float:
        return file_mib(found.artifact)


@dataclass(frozen=True)
class ModelAnswers:
    """Answers of one model on the labelled images, in the order of `ids`."""

    ids: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    outcome: Outcome

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        out: npt.NDArray[np.bool_] = self.outcome.predictions == self.labels
        return out


def read_run_summary(founds: Sequence[Found], run_dir: Path) -> RunSummary:
    """Read all there is; what is not there is left out (of an artifact that was copied to a device, most).

    Raises:
        OctcError: E708 records of the run cannot be read.
    """
    order = {"int8": 0, "fp16": 1, "fp32": 2}
    found = tuple(sorted(founds, key=lambda f: (order[f.artifact.precision], f.artifact.name)))
    checksums = {one.artifact.name: one.artifact.sha256 for one in found}
    run = run_of(found[0].folder, found[0].artifact, run_dir)
    facts: dict[str, Any] = {}
    with contextlib.suppress(OctcError):
        facts = run.read() if run is not None else {}
    values = {one.artifact.name: read_verdict(one.folder, checksums[one.artifact.name]) for one in found}
    verdicts = {name: document for name, value in values.items() if (document := headline(value)) is not None}
    set_name = next((doc["set"]["name"] for doc in verdicts.values() if doc.get("set")), "test")
    teachers = tuple(read_teacher(found[0], run_dir)) if found[0].artifact.role == "student" else ()
    return RunSummary(
        found,
        checksums,
        teachers,
        run,
        facts,
        verdicts,
        _records(run, set_name),
        _images(run),
        {one.artifact.name: timing for one in found if (timing := read_timing(one)) is not None},
        {name: on_test(values[name]) or [document] for name, document in verdicts.items()},
        _log(run),
        _patient_ids(found[0], run),
    )


def _log(run: Run | None) -> ReadingLog | None:
    with contextlib.suppress(OctcError):
        return None if run is None else read_log(run.path)
    return None


def _records(run: Run | None, set_name: str) -> dict[str, Records]:
    """Stored logits of a set, of one view, by the checksum of the artifact that gave them; the newest of each."""
    if run is None:
        return {}
    paths = sorted((run.path / FOLDER).glob(f"{set_name}-*.npz"), key=lambda p: p.stat().st_mtime)
    found = {}
    for path in paths:
        one = read_records(path)
        if "identity" in one.views:
            found[one.artifact] = one.only(("identity",))
    return found


def _images(run: Run | None) -> dict[str, Sample]:
    if run is None or not run.split.is_file():
        return {}
    split = read_split(run.split)
    return {sample.sha256: sample for part in split.parts.values() for sample in part}


def _patient_ids(found: Found, run: Run | None) -> str | None:
    """As the artifact states it, else as its run's split is read today."""
    stated = found.artifact.lineage.get("patient_ids")
    if stated is None and run is not None and run.split.is_file():
        return read_split(run.split).patient_ids.state
    return None if stated is None else str(stated)


def read_timing(found: Found) -> Timing | None:
    """The newest result of bench beside an artifact that is about these very files.

    An earlier one of a machine bears its run id in its name (`keep_earlier`) and counts where none else does, whatever their
    times say: the clock of a box may be years behind.
    """
    sha256 = found.artifact.sha256
    known: dict[tuple[bool, str], Timing] = {}
    for path in found.folder.glob("bench-*.json"):
        with contextlib.suppress(OSError, ValueError):
            value = read_json(path)
            result = convert(value, BenchResult, path)
            mine = next((one.id for one in result.artifacts if one.sha256 == sha256), None)
            if mine is not None:
                rows = tuple(row for row in value["rows"] if row["artifact"] == mine)
                age = (not path.stem.endswith(f"-{result.run_id}"), result.started_utc)
                known[age] = Timing(value, rows, found.folder)
    return known[max(known)] if known else None


def answers_of(summary: RunSummary, sha256: str) -> ModelAnswers | None:
    """Answers of the model of this checksum, in the order of the ids; None where its logits are not here."""
    records = summary.records.get(sha256)
    if records is None or not np.isfinite(records.logits).all():
        return None
    ordered = records.in_order(sorted(records.ids))
    return ModelAnswers(ordered.ids, np.asarray(ordered.labels, np.int64), outcome_of(ordered.logits))


def samples_ms(timing: Timing, row: Mapping[str, Any]) -> npt.NDArray[np.float64] | None:
    """Raw samples of a row in milliseconds, or None where its file is not here."""
    if not row.get("samples_file"):
        return None
    path = timing.folder / row["samples_file"]
    try:
        values = np.loadtxt(path, delimiter=",", skiprows=1, usecols=2, dtype=np.float64, ndmin=1)
    except (OSError, ValueError):
        return None
    return values / 1e6 if len(values) else None
