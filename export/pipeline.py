"""Make one artifact folder: write the files, open them again, replay the golden images, pass the gate, publish."""

from __future__ import annotations

import logging
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from octc.compress.placement import convolutions
from octc.core.clock import utc_now
from octc.core.errors import OctcError
from octc.core.faults import filling
from octc.core.files import publishing
from octc.core.targets import processors_of
from octc.datasets.base import sample_ids
from octc.datasets.licences import shared_json, terms_of
from octc.export.formats import FORMATS
from octc.export.golden import make_golden
from octc.export.int8_speed import measure_int8
from octc.export.ptq.engines import OWN, make_foreign
from octc.export.reference import Validation, exported_details
from octc.export.sensitivity import sensitivity_of
from octc.export.source import Quantised, Select
from octc.export.targets import Job, Made, Workshop, maker_of
from octc.export.temperature import temperature_facts
from octc.export.usage import write_usage
from octc.imaging.preprocess import Float32, UInt8
from octc.machine.cpu import EVERY
from octc.machine.host import versions as installed
from octc.runtimes.golden import replay
from octc.runtimes.registry import open_runtime
from octc.runtimes.room import BATCH
from octc.stats.task import Answers, task_of
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import GateResult, golden_part
from octc.store.artifacts import Artifact, Golden, write_golden, write_manifest
from octc.store.int8_speed import KEY
from octc.train.batches.images import eval_batches

log = logging.getLogger(__name__)
REJECTED = "rejected"
REFUSALS = ("OCT-E405", "OCT-E506")  # of the gate and of the golden images: the next step of the fallback may pass


@dataclass(frozen=True)
class Device:
    """How an export opens and checks what it wrote; the defaults are those of every user of an artifact.

    Attributes:
        open: artifact folder -> a runtime that maps uint8 [N, C, S, S] to logits float32 [N, K] and has `close`.
        replay: (runtime, golden record, artifact) -> report with `ok` and numbers.
        build: (folder of a TensorRT artifact, artifact, target) -> facts of the engine that was built there, or None.
    """

    open: Callable[[Path, Artifact], Any] = open_runtime
    replay: Callable[[Any, Golden, Artifact], dict[str, Any]] = lambda *given: asdict(replay(*given))
    build: Callable[[Path, Artifact, str], dict[str, Any] | None] = lambda _folder, _artifact, _target: None


@dataclass(frozen=True)
class Published:
    """A published artifact, with the gate's result and the steps of the mixed-precision fallback that were tried."""

    folder: Path
    artifact: Artifact
    gate: GateResult | None
    steps: tuple[dict[str, Any], ...]


def fallback_steps(quantised: Quantised, sensitive: Callable[[], frozenset[str]]) -> Iterator[tuple[str, frozenset[str]]]:
    """Steps of the mixed-precision fallback, as (name, convolutions in float): each keeps more convolutions in float.

    Args:
        sensitive: gives the most sensitive layers; called only if the first step was rejected.
    """
    yield "every convolution in INT8", frozenset()
    names, known = quantised.names, convolutions(quantised.module)
    kept = sensitive()
    yield f"{len(kept)} sensitive of {len(names)} convolutions in float", kept
    wider = kept | {names[0], names[-1]} | {name for name in names if known[name].conv.groups > 1}
    if kept < wider < frozenset(names):
        yield "depthwise, first and last convolution in float too", frozenset(wider)


def export_artifact(
    shop: Workshop,
    job: Job,
    device: Device,
    *,
    select: Select | None = None,
    options: ParityOptions | None = None,
    force: bool = False,
    say: Callable[[str], None] = log.info,
) -> Published:
    """Write runs/<id>/artifacts/<target>-<precision>/ (and -<engine>), or nothing.

    Args:
        select: for INT8, the set that the gate decides on; None: no gate, which the manifest records.
        options: margins of the gate. force: replace an existing artifact.
        say: receives a line for every step of the mixed-precision fallback that was rejected.

    Raises:
        OctcError: E106 the artifact exists; E405 no step passed the gate (files under rejected/); E506 golden images differ;
            and what the makers raise (E401 to E408).
    """
    name, folder = job.name, shop.source.artifacts / job.name
    tried: list[dict[str, Any]] = []
    refusal = None
    for label, floats in _steps(shop, job, select, say):
        try:
            with publishing(folder, force=force) as temporary:
                golden, artifact = write_files(shop, replace(job, floats=floats), temporary)
                judged_on = select if job.precision == "int8" else None
                report, result, logits = _judge(temporary, artifact, golden, device, judged_on, options, shop.validation)
                passed = result.accepted if result is not None else bool(report["ok"])
                reasons = [] if passed else list(result.reasons if result is not None else ["golden"])
                tried.append({"step": label, "accepted": passed, "reasons": reasons, "float_layers": sorted(floats)})
                facts = {"golden": report, "gate": None if result is None else result.to_json(), "ladder": list(tried)}
                if passed and FORMATS[job.target].library:
                    facts["engine"] = device.build(temporary, artifact, job.target)
                if passed and shop.validation is not None and logits is not None:
                    facts |= exported_details(shop.validation, artifact, logits)
                if passed and job.precision == "int8":
                    facts |= _speed(shop, job, (temporary, artifact), device)
                artifact = write_manifest(temporary, replace(artifact, details={**artifact.details, **facts}))
                if not passed:
                    rejected = shop.source.home / REJECTED / name
                    _keep(temporary, rejected)
                    raise _refusal(name, rejected, report, result)
            return Published(folder, artifact, result, tuple(tried))
        except OctcError as error:
            if error.code not in REFUSALS:
                raise
            refusal = error
            say(f"{name}: rejected ({label}): {', '.join(reasons)}")
    assert refusal is not None  # there is always a step
    raise refusal


def write_files(shop: Workshop, job: Job, folder: Path) -> tuple[Golden, Artifact]:
    """Write model files, golden record, USE.md and manifest of a job into an empty folder, without judging them."""
    make = make_foreign if job.engine not in ("", OWN) else maker_of(job.target, job.precision)
    with filling(folder):
        made = make(shop, job, folder)
    golden = make_golden(made.reference, shop.source.checkpoint.preprocess, shop.source.golden, made.golden)
    write_golden(folder, golden)
    artifact = _artifact(shop, job, made)
    write_usage(folder, artifact)
    return golden, write_manifest(folder, artifact)


def _speed(shop: Workshop, job: Job, made: tuple[Path, Artifact], device: Device) -> dict[str, Any]:
    """The time of INT8 relative to FP32 on the same engine, for the manifest; empty if that engine runs no FP32 file."""
    if "fp32" not in FORMATS[job.target].makers:
        return {}
    if job.target not in shop.plain:
        beside = Path(tempfile.mkdtemp(prefix=f"beside-{job.target}-", dir=shop.folder))
        shop.plain[job.target] = beside, write_files(shop, Job(job.target, "fp32", job.opset), beside)[1]
    return {KEY: measure_int8(made, shop.plain[job.target], device.open)}


def _steps(shop: Workshop, job: Job, select: Select | None, say: Callable[[str], None]) -> Iterator[tuple[str, frozenset[str]]]:
    if job.precision != "int8":
        return iter([("as trained", job.floats)])
    if job.engine not in ("", OWN):
        return iter([(f"as {job.engine} quantised it", job.floats)])
    quantised = shop.quantised
    if quantised is None:
        raise OctcError("OCT-E404", "INT8 needs a quantised network", hint="octc export --int8")

    def sensitive() -> frozenset[str]:
        images = shop.source.golden if select is None else select.images
        return frozenset(sensitivity_of(shop.source, quantised, images, say).keep)

    return fallback_steps(quantised, sensitive)


def _judge(
    folder: Path,
    artifact: Artifact,
    golden: Golden,
    device: Device,
    select: Select | None,
    options: ParityOptions | None,
    validation: Validation | None,
) -> tuple[dict[str, Any], GateResult | None, Float32 | None]:
    """The golden replay, the gate's result (None without a gate), and the logits of the validation images."""
    runs_as = replace(artifact, target="onnx") if artifact.target == "tensorrt" else artifact  # the Q/DQ file runs anywhere
    try:
        runtime = device.open(folder, runs_as)
    except OctcError as error:
        if error.code == "OCT-E502":  # it was just made: making it again does not help
            hint = "another --target or precision: this engine has no way to compute the network in this one"
            raise OctcError("OCT-E407", error.message, hint=hint, place=artifact.model) from error
        if error.code != "OCT-E504":
            raise
        hint = "write the network without them: an artifact holds the operators of runtimes/safety.py, and no others"
        raise OctcError("OCT-E404", f"{artifact.name}: {error.message}", hint=hint, place=artifact.model) from error
    try:
        report = device.replay(runtime, golden, runs_as)
        asked = select or validation
        logits = None if asked is None else _logits(runtime, asked.images)
    finally:
        runtime.close()
    if select is None or logits is None:
        return report, None, logits
    samples = select.samples
    answers = Answers(sample_ids(samples), samples, select.reference, logits, artifact.classes, artifact.details)
    golden_words = f"delta over s {report.get('delta_over_s')}"
    return report, task_of(artifact.task).gate(answers, options, golden_part(bool(report["ok"]), golden_words)), logits


def _logits(runtime: Callable[[UInt8], Float32], images: UInt8) -> Float32:
    return np.concatenate([runtime(chunk.numpy()) for chunk in eval_batches(images, BATCH)])


def _keep(temporary: Path, rejected: Path) -> None:
    with publishing(rejected, force=True) as new:
        shutil.copytree(temporary, new, dirs_exist_ok=True)


def _refusal(name: str, rejected: Path, report: dict[str, Any], result: GateResult | None) -> OctcError:
    if result is None:
        text = (
            f"{name}: golden images differ (delta over s {report.get('delta_over_s')}, tolerance {report.get('tolerance_id')})"
        )
        return OctcError("OCT-E506", text, hint="octc export --fp32", place=str(rejected))
    text = f"{name}: rejected by the gate on select: {', '.join(result.reasons)}"
    why = "; ".join(part.detail for part in result.verdict.parts if not part.holds and part.word in ("fail", "inferior"))
    hint = f"octc export --target {name.split('-', maxsplit=1)[0]} --fp16, or train the student longer"
    return OctcError("OCT-E405", text, hint=hint, place=str(rejected), why=why or None)


def _artifact(shop: Workshop, job: Job, made: Made) -> Artifact:
    known = shop.source.checkpoint
    own = job.precision == "int8" and job.engine in ("", OWN)
    tuned = shop.quantised.sha256 if own and shop.quantised is not None else None
    lineage = {
        **shop.source.lineage,
        "checkpoint": known.sha256,
        "quantised_checkpoint": tuned,
        "parent": known.parent,
        "weights": known.weights,
        "versions": versions(),
        "exported": utc_now(),
    }
    lineage["licences"] = [term.to_json() for term in terms_of(lineage, known.model)]
    lineage["shared_images"] = shared_json(str(lineage.get("dataset") or ""))
    known_inputs = shop.source.statistics
    task = str(known.recipe.get("task", "multiclass"))
    details = {**made.facts, **eye_details(known.recipe, known.metrics), **temperature_facts(shop, own), **shop.more}
    if (made_for := EVERY if FORMATS[job.target].everywhere else processors_of(job.target, job.precision)) is not None:
        details["processors"] = made_for
    details["input_statistics"] = None if known_inputs is None else known_inputs.to_json()
    return Artifact(
        name=job.name,
        role=known.role,
        model=known.model,
        precision=job.precision,
        target=FORMATS[job.target].artifact,
        classes=known.classes,
        preprocess=known.preprocess,
        lineage=lineage,
        details=details,
        main_file=made.main_file,
        task=task,
    )


def eye_details(recipe: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """For a multi-label network, what a device needs to decide: modality, thresholds, how an eye is labelled."""
    if recipe.get("task") != "multilabel":
        return {}
    thresholds = metrics.get("thresholds")
    return {"modality": recipe["modality"], "thresholds": thresholds, "thresholds_from": "val", "truth": recipe["truth"]}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries of this export."""
    return {"python": platform.python_version(), **installed()}
