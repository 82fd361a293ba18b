"""`octc eval`: a run's network on the select or the test part of its split, with every table and figure as a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError
from octc.datasets.split import SETS
from octc.imaging.preprocess import VIEWS

if TYPE_CHECKING:
    from octc.store.runs import Run
    from octc.train.evaluation.outcome import Evaluation

COMBINE = ("probabilities", "logits")


def evaluate(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run; the newest finished one without it")] = None,
    split: Annotated[str, typer.Option(help=f"Part: {', '.join(SETS)} (of folds); reading test is logged")] = "select",
    tta: Annotated[str, typer.Option(help="Views that are averaged: none, hflip or 5")] = "none",
    average: Annotated[str, typer.Option(help="What is averaged over views: probabilities, or logits (as KD-OCT)")] = COMBINE[
        0
    ],
    maps: Annotated[
        int, typer.Option(min=0, max=256, help="Draw where the network looks (Grad-CAM) on this many images, wrong ones first")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
) -> int:
    """Evaluate a run's network. Writes a new folder in runs/<id>/eval/, never over an older one."""
    for name, value, known in (("--split", split, tuple(SETS)), ("--tta", tta, tuple(VIEWS)), ("--average", average, COMBINE)):
        if value not in known:
            raise OctcError("OCT-E104", f"{name} {value!r} is not known", hint=f"one of: {', '.join(known)}", place=name)
    chosen = _chosen(session, run)
    stored = chosen.read()
    if maps and stored.get("task") == "multilabel":
        text = "--maps shows the evidence for one class, and this run has several for an eye"
        raise OctcError("OCT-E102", text, hint="leave --maps out", place="--maps")
    from octc.core.optional import need
    from octc.store.locations import image_root

    for module in ("torch", "timm", "safetensors"):
        need(module)
    root = image_root(chosen, session.data, os.environ)
    from octc.train.evaluation.assess import evaluate_run, part_of

    part = SETS[split]
    total = len(part_of(chosen, part)[1])
    done = 0
    with session.progress("evaluating", total) as step:

        def tell(now: int, _total: int) -> None:
            nonlocal done
            step(now - done)
            done = now

        if stored.get("task") == "multilabel":
            return _eyes(session, chosen, root, (part, tta), _device(device), tell)
        found = evaluate_run(chosen, root, part, tta=tta, combine=average, device=_device(device), progress=tell)
    _say(session, found, part, split)
    folder = found.folder
    drawn = None
    if maps:
        from octc.train.evaluation.maps import write_maps

        drawn = str(write_maps(chosen, root, part, tta, maps, _device(device), evaluation=folder))
        session.say(f"✓ maps      {drawn}")
    head = {"folder": str(folder), "maps": drawn, "part": split, "tta": tta, "combine": average}
    session.report({**head, **_document(found)})
    session.result(_report(found, chosen, folder))
    return 0


def _eyes(session: Session, run: Run, root: Path, what: tuple[str, str], device: Any, tell: Callable[[int, int], None]) -> int:
    """A run whose classes do not exclude each other: figures by eye, at thresholds of the validation set."""
    from octc.stats.patients import words_of
    from octc.train.crossmodal.evaluation import evaluate_eye_run, eye_report

    part, tta = what
    found = evaluate_eye_run(run, root, part, tta=tta, device=device, progress=tell)
    folder = found["folder"]
    if warning := found["facts"]["warning"]:
        session.warn("OCT-W219", warning)
    elif found["leakage"] != "none":
        session.warn("OCT-W212", words_of(found["patient_ids"]) or found["leakage"])
    if found["facts"]["chose_the_epoch"]:
        session.say("  it chose the epoch: no claim   (octc eval --split test reads the test part)")
    session.report(found)
    session.result(f"{eye_report(found)}{folder}")
    return 0


def _chosen(session: Session, name: str | None) -> Run:
    from octc.store.runs import find_run, newest_run

    if name is not None:
        chosen = find_run(session.run_dir, name)
    else:
        chosen = newest_run(session.run_dir)
        session.say(f"using run {chosen.id} (newest finished; choose with RUN)")
    session.run_id = chosen.id
    return chosen


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not (name == "cuda" or name.removeprefix("cuda:").isdigit()):
        raise OctcError("OCT-E104", f"--device {name}", hint="auto, cpu, cuda or cuda:N", place="--device")
    if name != "cpu" and not torch.cuda.is_available():
        raise OctcError("OCT-E903", f"device {name} is not available", hint="--device cpu")
    return name


def _say(session: Session, found: Evaluation, part: str, split: str) -> None:
    """Accuracy with its intervals, and what kind of number it is."""
    from octc.stats.patients import KNOWN

    figures = found.figures
    low, high = found.accuracy_wilson or (0.0, 1.0)
    patients = found.accuracy_patients
    how = "over patients" if found.known.state == KNOWN else "clustered where a patient is known"
    over = f"; {how} [{100 * patients[0]:.2f}, {100 * patients[1]:.2f}]" if patients else ""
    accuracy = 100 * (figures.accuracy or 0.0)
    session.say(f"✓ {split} accuracy {accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}], n={figures.n:,}{over}")
    if found.note:
        session.warn("OCT-W219", found.note)
    if found.known.warning or (found.leakage != "none" and not found.note):
        session.warn("OCT-W212", found.known.warning or found.leakage)
    if part == "val":
        session.say("  it chose the epoch: no claim   (octc eval --split test reads the test part)")


def _document(found: Evaluation) -> dict[str, Any]:
    from dataclasses import asdict

    figures = asdict(found.figures)
    whose = {"patients": found.known.count, **found.known.to_json(), "leakage": found.leakage}
    return {**figures, **whose, "loss": found.loss, "ece_mass_15": found.ece, "confusion": found.matrix.tolist()}


def _report(found: Evaluation, run: Run, folder: Any) -> str:
    from octc.datasets.split import read_split
    from octc.train.evaluation.files import report_text

    return f"{report_text(found, read_split(run.split).classes)}\n{folder}"
