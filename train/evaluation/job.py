"""`octc eval` as a function: a run's network on a part of its split, its tables and figures as files, and what must be said."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from octc.core.errors import OctcError
from octc.core.options import check_choices
from octc.core.progress import LogReporter, Reporter, absolute
from octc.datasets.split import SETS, Split
from octc.schemas.verification import EvalOptions
from octc.stats.patients import KNOWN, words_of
from octc.stats.task import task_of
from octc.store.locations import image_root
from octc.store.runs import Run
from octc.train.crossmodal.evaluation import evaluate_eyes, eye_report
from octc.train.evaluation.assess import Reading, assess, part_of, trained
from octc.train.evaluation.files import report_text
from octc.train.evaluation.maps import write_maps
from octc.train.evaluation.outcome import Evaluation

CHOSE = "  it chose the epoch: no claim   (octc eval --split test reads the test part)"


@dataclass(frozen=True)
class Evaluated:
    """folder: of the evaluation. document: what `octc eval --json` has. report: the tables as text. maps: their folder."""

    folder: Path
    document: dict[str, Any]
    report: str
    maps: Path | None = None


def evaluate(
    run: Run, options: EvalOptions | None = None, *, data: str | None = None, reporter: Reporter | None = None
) -> Evaluated:
    """Evaluate a run's network on a part of its split. Writes a new folder in runs/<id>/eval/, never over an older one.

    Args:
        data: folder of the images; None: where the run had them, OCTC_DATA, the data set's own place.

    Raises:
        OctcError: E102, E104 options; E107, E307, E501 no checkpoint that can be used; E109 a reading of test cannot be
            logged; E201... a picture; E216 other images than those of the split; E230 no images; E903 no such device.
    """
    how, told = options or EvalOptions(), reporter or LogReporter()
    exclusive = task_of(run.read().get("task")).exclusive
    check_choices(how)
    if how.maps and not exclusive:
        text = "--maps shows the evidence for one class, and this run has several for an eye"
        raise OctcError("OCT-E102", text, hint="leave --maps out", place="--maps")
    root = image_root(run, data, os.environ)
    part, device = SETS[how.split], _device(how.device)
    with told.progress("evaluating", len(part_of(run, part)[1])) as step:
        reading = Reading(part, how.tta, how.average, device=device, progress=absolute(step))
        model, checkpoint, split = trained(run, root, part)
        assessed = assess if exclusive else evaluate_eyes
        found = assessed(model, checkpoint, split, run, root, reading)
    if not isinstance(found, Evaluation):
        return _told_eyes(told, found)
    _tell(told, found, how.split)
    maps = write_maps(run, root, part, how.tta, how.maps, device, evaluation=found.folder) if how.maps else None
    if maps is not None:
        told.say(f"✓ maps      {maps}")
    return _evaluated(found, how, split, maps)


def _evaluated(found: Evaluation, how: EvalOptions, split: Split, maps: Path | None) -> Evaluated:
    assert found.folder is not None
    shown = None if maps is None else str(maps)
    document: dict[str, Any] = {
        "folder": str(found.folder),
        "maps": shown,
        "part": how.split,
        "tta": how.tta,
        "combine": how.average,
    }
    document |= {**asdict(found.figures), "patients": found.known.count, **found.known.to_json(), "leakage": found.leakage}
    document |= {"loss": found.loss, "ece_mass_15": found.ece, "confusion": found.matrix.tolist()}
    return Evaluated(found.folder, document, f"{report_text(found, split.classes)}\n", maps)


def _told_eyes(reporter: Reporter, found: dict[str, Any]) -> Evaluated:
    """A network whose classes do not exclude each other: metrics by eye, at thresholds of the validation set."""
    if warning := found["facts"]["warning"]:
        reporter.warn("OCT-W219", warning)
    elif found["leakage"] != "none":
        reporter.warn("OCT-W212", words_of(found["patient_ids"]) or found["leakage"])
    if found["facts"]["chose_the_epoch"]:
        reporter.say(CHOSE)
    return Evaluated(Path(found["folder"]), found, eye_report(found))


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not (name == "cuda" or name.removeprefix("cuda:").isdigit()):
        raise OctcError("OCT-E104", f"--device {name}", hint="auto, cpu, cuda or cuda:N", place="--device")
    if name != "cpu" and not torch.cuda.is_available():
        raise OctcError("OCT-E903", f"device {name} is not available", hint="--device cpu")
    return name


def _tell(reporter: Reporter, found: Evaluation, name: str) -> None:
    """Accuracy with its intervals, and what kind of number it is."""
    figures, patients = found.figures, found.accuracy_patients
    low, high = found.accuracy_wilson or (0.0, 1.0)
    how = "over patients" if found.known.state == KNOWN else "clustered where a patient is known"
    over = f"; {how} [{100 * patients[0]:.2f}, {100 * patients[1]:.2f}]" if patients else ""
    accuracy = 100 * (figures.accuracy or 0.0)
    reporter.say(f"✓ {name} accuracy {accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}], n={figures.n:,}{over}")
    if found.note:
        reporter.warn("OCT-W219", found.note)
    if found.known.warning or (found.leakage != "none" and not found.note):
        reporter.warn("OCT-W212", found.known.warning or found.leakage)
    if SETS[name] == "val":
        reporter.say(CHOSE)
