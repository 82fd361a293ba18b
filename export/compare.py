"""Two runs, cross-validations or artifacts on the same images: their answers, sizes and times, and what tells them apart.

It lies on this floor because a side may be a network (torch) or an exported file (an engine).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.core.clock import utc_now
from octc.core.csv_files import csv_bytes
from octc.core.errors import OctcError
from octc.core.files import at_free_name, publishing, read_json, stamped, write_bytes, write_json
from octc.core.optional import need, need_wing
from octc.core.progress import LogReporter, Reporter, absolute
from octc.datasets.split import SETS, read_split
from octc.imaging.preprocess import VIEWS
from octc.schemas.verification import SPELLED
from octc.stats.two_models import CSV_COLUMNS, Side, Versus, csv_row, versus, versus_json
from octc.store.artifacts import file_mib, read_artifact
from octc.store.find import artifact_of
from octc.store.locations import image_root, run_of
from octc.store.runs import RUN, Run, find_run
from octc.store.test_set_log import log_part

if TYPE_CHECKING:
    from octc.train.evaluation.outcome import Predictions

SUMMARY = "summary.json"
COMMAND = "compare"  # in the test-set log


@dataclass(frozen=True)
class Job:
    """One comparison.

    Attributes:
        split: name of the part ("val" is "select"); tta: views that are averaged.
        run_dir, data, environ: where runs and images lie.

    Raises:
        OctcError: E104 an unknown part or number of views.
    """

    split: str = "test"
    tta: str = "none"
    run_dir: Path = Path("runs")
    data: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    reporter: Reporter = field(default_factory=LogReporter)

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", SPELLED.get(self.split, self.split))
        for name, value, known in (("--split", self.split, tuple(SETS)), ("--tta", self.tta, tuple(VIEWS))):
            if value not in known:
                raise OctcError("OCT-E104", f"{name} {value!r} is not known", hint=f"one of: {', '.join(known)}", place=name)


def compare_runs(reference: str, candidate: str, job: Job) -> Versus:
    """Compare two sides; of a student and its teacher the teacher is the reference.

    Args:
        reference, candidate: runs, folders of cross-validations, or artifacts.

    Raises:
        OctcError: as `read_side`, and E706 sides that have other images or classes.
    """
    sides = [read_side(job, word) for word in (reference, candidate)]
    if [side.role for side in sides] == ["student", "teacher"]:
        job.reporter.say(f"  the teacher {sides[1].name} is the reference")
        sides.reverse()
    found = versus(sides[0], sides[1])
    for note in {str(side.facts["note"]) for side in sides if side.facts.get("note")}:
        job.reporter.warn("OCT-W219", note)
    if found.known.warning:
        job.reporter.warn("OCT-W212", found.known.warning)
    elif found.leakage != "none" and not any(side.facts.get("note") for side in found.sides):
        job.reporter.warn("OCT-W212", found.leakage)
    return found


def write_comparison(found: Versus, job: Job) -> tuple[Path, dict[str, Any]]:
    """reports/compare-<time>/ with compare.json and model_comparison.csv, never over an older one; and the document."""
    document = {"schema_version": "1.0", "time_utc": utc_now(), "split": job.split, "tta": job.tta, **versus_json(found)}

    def write(folder: Path) -> None:
        with publishing(folder) as new:
            write_json(new / "compare.json", document)
            write_bytes(new / "model_comparison.csv", csv_bytes(CSV_COLUMNS, [csv_row(found)]))

    folder, _ = at_free_name(lambda: stamped(job.run_dir.parent / "reports", "compare"), write)
    return folder, {**document, "folder": str(folder)}


def read_side(job: Job, word: str) -> Side:
    """One side by its name: a folder with artifact.json or summary.json, or a run.

    Raises:
        OctcError: E107 nothing of that name, E104 a part that it does not have, and what its evaluation raises.
    """
    for place in (Path(word), job.run_dir / word):
        if (own := artifact_of(place)) is not None:
            return _of_artifact(job, own)
        if (place / SUMMARY).is_file():
            return _of_folds(place, job.split, job.tta)
    return _of_run(job, find_run(job.run_dir, word))


def _side(name: str, role: str, model: str, answers: Predictions, combine: str = "probabilities", **more: Any) -> Side:
    from octc.train.evaluation.outcome import combined

    probabilities, logs = combined(answers, combine)
    ids = tuple(zip(answers.sums, answers.paths, strict=True))
    return Side(name, role, model, answers.classes, ids, answers.labels, answers.patients, probabilities, logs, **more)


def _of_run(job: Job, run: Run) -> Side:
    """Stored answers of these very weights, or new ones."""
    need_wing("train")
    from octc.train.evaluation.assess import is_evaluated
    from octc.train.evaluation.outcome import newest_evaluation, read_predictions
    from octc.train.loop.checkpoint import read_checkpoint

    checkpoint, _ = read_checkpoint(run.path / "train")
    part, tta = SETS[job.split], job.tta
    if not is_evaluated(run, part, checkpoint.sha256, tta):
        _evaluate(job, run, part)
        folder = newest_evaluation(run.path, part, tta, checkpoint.sha256)
    else:
        folder = newest_evaluation(run.path, part, tta, checkpoint.sha256)
        job.reporter.say(f"  {run.id}: stored answers of {folder}")
        weights = {"weights": checkpoint.sha256}
        log_part(run.path, read_split(run.split), part, weights, COMMAND, utc_now(), tta=tta, stored=True)
    answers = read_predictions(folder)
    size = {**_counted(checkpoint.metrics), "file_mib": _mib(run.path / "train" / "model.safetensors")}
    facts = {
        "run": run.id,
        "part": part,
        "tta": tta,
        "checkpoint_sha256": checkpoint.sha256,
        "weights": checkpoint.weights,
        "split_digest": checkpoint.split_digest,
        "note": answers.facts.get("warning"),
        "leakage": read_split(run.split).leakage,
    }
    return _side(run.id, checkpoint.role, checkpoint.model, answers, size=size, latency=tuple(_times(run)), facts=facts)


def _evaluate(job: Job, run: Run, part: str) -> None:
    for module in ("torch", "timm", "safetensors"):
        need(module)
    from octc.train.evaluation.assess import evaluate_run, part_of

    root = image_root(run, job.data, job.environ)
    with job.reporter.progress(f"evaluating {run.id}", len(part_of(run, part)[1])) as step:
        evaluate_run(run, root, part, tta=job.tta, progress=absolute(step), command=COMMAND)


def _of_folds(folder: Path, split: str, tta: str) -> Side:
    """A cross-validation: every image by the fold that did not see it; "official" are the folds together."""
    from octc.train.evaluation.outcome import read_predictions

    if split == "select" or tta != "none":
        text = f"{folder.name} is a cross-validation: it has answers on what its folds hold out, without views"
        raise OctcError("OCT-E104", text, hint="--split test (or official) --tta none", place="--split")
    try:
        summary = read_json(folder / SUMMARY)
    except (OSError, ValueError) as error:
        text = f"the summary of {folder.name} cannot be read: {error}"
        raise OctcError("OCT-E501", text, hint="give the same --folds command again", place=str(folder / SUMMARY)) from error
    place = folder / ("out-of-fold" if split == "test" else "ensemble")
    _log_folds(folder.parent, summary, SETS[split])
    answers = read_predictions(place)
    first = folder.parent / summary["folds"][0]["run"]
    metrics = _metrics(first)
    together = summary["ensemble"]
    facts = {
        "job": folder.name,
        "part": answers.facts.get("part"),
        "runs": [fold["run"] for fold in summary["folds"]],
        "weights": answers.facts.get("weights"),
        "note": summary["note"],
        "leakage": read_split(Run(first).split).leakage,
        "mean_accuracy": summary["spread"]["accuracy"]["mean"],
        "std_ddof0": summary["spread"]["accuracy"]["std_population"],
    }
    size = {**_counted(metrics), "file_mib": _mib(first / "train" / "model.safetensors")}
    ensemble = None if together is None else together["figures"]["accuracy"]
    return _side(folder.name, summary["kind"], summary["model"], answers, size=size, facts=facts, ensemble=ensemble)


def _log_folds(run_dir: Path, summary: dict[str, Any], part: str) -> None:
    """A row of the log of every fold that is here: its stored answers on what it holds out are looked at."""
    for fold in summary["folds"]:
        place = run_dir / fold["run"]
        if (place / RUN).is_file() and part in (parts := read_split(place / "split.json")).parts:
            weights = {"weights": str(fold.get("checkpoint_sha256"))}
            log_part(place, parts, part, weights, COMMAND, utc_now(), tta="none", stored=True)


def _of_artifact(job: Job, folder: Path) -> Side:
    """An exported file, run here on the images of its run's split."""
    from octc.bench.parity.evaluation_set import check_artifact, read_set
    from octc.bench.parity.inference import measure
    from octc.runtimes.registry import open_runtime
    from octc.train.evaluation.outcome import Predictions

    split, tta = job.split, job.tta
    artifact = read_artifact(folder)
    run = run_of(folder, artifact, job.run_dir)
    if run is None:
        text = f"the run of {artifact.name} is not here: its split says which images it never saw"
        raise OctcError("OCT-E107", text, hint="--run-dir DIR with the run", place=str(folder))
    if split == "official":
        raise OctcError(
            "OCT-E104", "an artifact is judged on the validation or the test set", hint="--split test", place="--split"
        )
    root = image_root(run, job.data, job.environ)
    chosen, whole = read_set(run, root, split), read_split(run.split)
    check_artifact(artifact, whole)
    runtime = open_runtime(folder, artifact)
    sums = {artifact.name: artifact.sha256}
    log_part(run.path, whole, SETS[split], sums, COMMAND, utc_now(), tta=tta)
    try:
        with job.reporter.progress(f"running {artifact.name}", len(chosen.samples)) as step:
            found = measure(runtime, artifact.preprocess, chosen.samples, root, VIEWS[tta], step)
    finally:
        runtime.close()
    answers = Predictions(
        tuple(s.path for s in chosen.samples),
        tuple(s.sha256 for s in chosen.samples),
        tuple(s.patient for s in chosen.samples),
        tuple(s.label for s in chosen.samples),
        found.logits,
        VIEWS[tta],
        artifact.classes,
    )
    metrics = _metrics(run.path)
    facts = {"artifact": artifact.name, "run": run.id, "part": SETS[split], "tta": tta, "note": whole.note or None}
    facts["leakage"] = whole.leakage
    facts |= {"weights": artifact.lineage.get("weights"), "target": artifact.target, "precision": artifact.precision}
    size = {**_counted(metrics), "file_mib": file_mib(artifact)}
    rows = tuple(row for row in _times(run) if row["artifact"] == folder.name)
    name = f"{run.id}/{folder.name}"
    return _side(name, artifact.role, artifact.name, answers, size=size, latency=rows, facts=facts)


def _metrics(run: Path) -> dict[str, Any]:
    """What a run's checkpoint says of itself, {} where it is not here."""
    try:
        found: dict[str, Any] = read_json(run / "train" / "checkpoint.json")["metrics"]
    except (OSError, ValueError, KeyError):
        return {}
    return found


def _counted(metrics: dict[str, Any]) -> dict[str, float | None]:
    return {name: metrics.get(name) for name in ("parameters", "macs")}


def _mib(path: Path) -> float | None:
    return path.stat().st_size / 2**20 if path.is_file() else None


def _times(run: Run) -> Iterator[dict[str, Any]]:
    """Valid times of a run's exported files, one picture at a time, from the bench-<host>.json beside them."""
    for path in sorted(run.artifacts.glob("*/bench-*.json")):
        try:
            found = read_json(path)
            for row in found["rows"]:
                single = (row["scenario"], row["scope"], row["batch"], row["status"]) == ("single_stream", "device", 1, "VALID")
                if single and row["artifact"] == path.parent.name:
                    yield {
                        "artifact": path.parent.name,
                        "host": found["machine"].get("name"),
                        "p50_ms": row["latency_ms"]["p50"],
                        "measured_utc": found.get("started_utc"),
                    }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
