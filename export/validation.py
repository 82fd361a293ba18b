"""What artifacts answer on the validation set of their run, by the engines of this machine: what rules are chosen on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.bench.parity.decisions import Answered
from octc.bench.parity.evaluation_set import LabelledSet, check_artifact, check_images, find_set, spoken
from octc.bench.parity.inference import Records
from octc.bench.parity.job import Job
from octc.bench.parity.measure import measure_everyone
from octc.bench.parity.open_artifact import open_candidates
from octc.bench.parity.rules import answers_of
from octc.bench.parity.verify import place_of
from octc.core.errors import OctcError, shorten
from octc.core.progress import Reporter
from octc.imaging.preprocess import VIEWS
from octc.runtimes.registry import prefer, why_not
from octc.schemas.verification import VerifyOptions
from octc.stats.comparison import nonfinite
from octc.store.find import Found, find_artifacts, path_of
from octc.store.locations import run_of

SET = "select"


@dataclass(frozen=True)
class Measured:
    """An artifact on the validation set. answers: of "image", and of "eye" where it holds eyes with labels."""

    found: Found
    answers: dict[str, Answered]
    labelled: LabelledSet


def measured(artifact: Any, data: str | Path | None, run_dir: str | Path, reporter: Reporter) -> list[Measured]:
    """Every student artifact of a place that runs here, on the validation set of its run.

    Args:
        artifact: an artifact, a folder of artifacts, or a run; None: the newest student run. data: root of the data set.

    Raises:
        OctcError: E107 nothing there or artifacts of several runs, E230 the run or its images are not here, E506 golden images
            differ, E701 outputs are not finite, E216, E309, E214 another split.
    """
    place = place_of(Path(run_dir), None if data is None else str(data))
    founds, words = find_artifacts(None if artifact is None else path_of(artifact), place.run_dir, place.environ)
    reporter.say(words)
    mine = [one for one in founds if one.artifact.role == "student"] or founds
    _check(mine)
    able = [one for one in mine if why_not(one.artifact) is None] or [prefer(mine)]
    for one in mine:
        if one not in able:
            reporter.say(f"  ! NA       {one.artifact.name}: {why_not(one.artifact)}")
    run = run_of(able[0].folder, able[0].artifact, place.run_dir)
    labelled, split, why = find_set(run, SET, place.data, place.environ)
    if run is None or labelled is None or split is None:
        raise OctcError("OCT-E230", f"rules are chosen on the validation set: {why}", hint="--data DIR and --run-dir DIR")
    with ExitStack() as stack:
        job = Job(VerifyOptions(set_name=SET), place, reporter, stack)
        opened, _ = open_candidates(able, job)
        for each in opened:
            check_artifact(each.found.artifact, split)
            if not each.golden["ok"]:
                text = f"{each.name}: golden outputs differ on this machine"
                raise OctcError("OCT-E506", text, hint="choose rules where they hold", place=str(each.found.folder))
        with reporter.progress(f"checksums of the {spoken(SET)}", len(labelled.samples)) as step:
            check_images(labelled, split, step)
        records = measure_everyone(VIEWS["none"], run, labelled, opened, job)
        return [Measured(each.found, _answers(labelled, records[each.sha256], each.found), labelled) for each in opened]


def _check(founds: list[Found]) -> None:
    runs = sorted({str(one.artifact.lineage.get("run")) for one in founds})
    if len(runs) > 1:
        raise OctcError("OCT-E107", f"artifacts of several runs: {shorten(runs)}", hint="name one of them")


def _answers(labelled: LabelledSet, records: Records, found: Found) -> dict[str, Answered]:
    """`answers_of`, where outputs are finite (else E701)."""
    if nonfinite(records.ids, records.logits):
        text = f"{found.artifact.name}: outputs are not finite"
        raise OctcError("OCT-E701", text, hint="octc verify this artifact", place=str(found.folder))
    return answers_of(labelled, records, found.artifact)
