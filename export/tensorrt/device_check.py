"""`octc verify --target tensorrt --on-device`: doctor, lint, build, layers, golden images, accuracy, latency, verdict."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.clock import utc_now
from octc.core.errors import OctcError, combined
from octc.core.files import read_json, write_json
from octc.core.optional import have, need
from octc.core.progress import LogReporter, Reporter
from octc.core.scratch import scratch
from octc.export.formats import libraries
from octc.imaging.decode import read_image
from octc.machine.host import versions
from octc.runtimes.tensorrt.build import read_plans
from octc.runtimes.tensorrt.device_report import FAILED, OK, SCHEMA, SIGNS, SKIPPED, Judgement, judge
from octc.runtimes.tensorrt.doctor import check_tensorrt
from octc.runtimes.tensorrt.process import Backend, find_backend
from octc.runtimes.tensorrt.rebuild import rebuild_engines
from octc.schemas.tensorrt_plan import plan_from_json
from octc.store.artifacts import MANIFEST, Artifact
from octc.store.find import find_artifacts
from octc.store.locations import run_of
from octc.store.runs import RUN
from octc.store.test_set_log import log_files

REPORT = "verify-device.json"
LINTED = {"model.onnx": "tensorrt", "model.int8fp16.onnx": "tensorrt-strong", "model.fp16.onnx": "tensorrt-strong"}
TARGETS = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class DeviceJob:
    """A check on the machine that will run an artifact.

    Attributes:
        artifact: path or run (`find_artifacts`), or the report of another device (a JSON file).
        on_device: whether this is that machine; engines are built then.
        images: labelled pictures, DIR/<class>/*, for INT8 against FP16 at `margin` percentage points.
        allow_fallback: layers that cannot be INT8 go to float, and it is recorded.
    """

    artifact: str | None
    target: str = "tensorrt"
    on_device: bool = False
    images: Path | None = None
    margin: float = 1.0
    allow_fallback: bool = False
    run_dir: Path = Path("runs")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    reporter: Reporter = field(default_factory=LogReporter)


@dataclass(frozen=True)
class DeviceResult:
    """The judgement, and the report that was written (None for one that was read)."""

    judgement: Judgement
    report: Path | None

    @property
    def lines(self) -> list[str]:
        """A line for each step, and the verdict."""
        one = self.judgement
        found = [f"{SIGNS[s.state]} {s.name:9} {'' if s.state == OK else s.state + ': '}{s.text}" for s in one.steps]
        found += [f"quickest: {one.fastest}"] if one.fastest else []
        return [*found, f"verdict: {one.word}{' (by a fallback)' if one.fell_back else ''}"]

    def to_json(self) -> dict[str, Any]:
        return {**self.judgement.to_json(), "report": None if self.report is None else str(self.report)}

    def raise_if_failed(self) -> None:
        """Raise the steps that failed, or E903 for those that could not be done here."""
        steps = self.judgement.steps
        hint = "octc doctor --target tensorrt"
        errors = [OctcError(s.code, f"{s.name}: {s.text}", hint=hint) for s in steps if s.state == FAILED]
        skipped = [step.name for step in steps if step.state == SKIPPED]
        if skipped and not errors:
            text = f"not everything could be done here: {', '.join(skipped)}"
            errors = [OctcError("OCT-E903", text, hint="run it on the device, with TensorRT's Python bindings")]
        if errors:
            raise combined(errors)


def check_device(job: DeviceJob) -> DeviceResult:
    """Build and judge a TensorRT artifact on this machine, or judge the report of another one.

    Raises:
        OctcError: E104 another target, E102 neither a device nor a report, E107 no such artifact or report, E502 a report that
            cannot be read, E206 pictures without a folder for each class.
    """
    if job.target not in TARGETS:
        text = f"--target {job.target} has no check of its own"
        raise OctcError("OCT-E104", text, hint=" or ".join(TARGETS), place="--target")
    given = job.artifact
    if given is not None and given.endswith(".json") and Path(given).name not in (MANIFEST, RUN):
        return DeviceResult(judge(_read_report(Path(given))), None)
    if not job.on_device:
        text = f"--target {job.target} builds engines: say --on-device, or name a report of a device"
        raise OctcError("OCT-E102", text, hint=f"octc verify ARTIFACT --target {job.target} --on-device")
    place, artifact = _find(job)
    record = _record(job, place, artifact)
    judgement = judge(record)
    _keep_earlier(place)
    write_json(place / REPORT, {**record, "verdict": judgement.to_json()})
    return DeviceResult(judgement, place / REPORT)


def _keep_earlier(place: Path) -> None:
    """An earlier report is kept under the time of the new one."""
    if (place / REPORT).is_file():
        kept = place / "samples" / f"{REPORT.removesuffix('.json')}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        kept.parent.mkdir(exist_ok=True)
        names = (kept.with_name(f"{kept.name}{'' if k == 0 else f'-{k}'}.json") for k in range(1000))
        (place / REPORT).rename(next(name for name in names if not name.exists()))


def _read_report(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise OctcError(
            "OCT-E107", f"no file {path}", hint="octc verify ARTIFACT --target tensorrt --on-device", place=str(path)
        )
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise OctcError("OCT-E502", f"{path.name} cannot be read: {error}", hint="copy it again", place=str(path)) from error
    return value if isinstance(value, dict) else {}


def _find(job: DeviceJob) -> tuple[Path, Artifact]:
    founds, words = find_artifacts(job.artifact, job.run_dir, job.environ)
    fitting = [
        f
        for f in founds
        if f.artifact.target == "tensorrt" and f.artifact.name.startswith("tensorrt-rtx") == (job.target != "tensorrt")
    ]
    chosen = next(iter(sorted(fitting, key=lambda f: f.artifact.precision != "int8")), None)
    if chosen is None:
        raise OctcError("OCT-E107", f"no artifact for {job.target} ({words})", hint=f"octc export --int8 --target {job.target}")
    job.reporter.say(f"using {chosen.folder}")
    return chosen.folder, chosen.artifact


def _record(job: DeviceJob, place: Path, artifact: Artifact) -> dict[str, Any]:
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "versions": versions(("octc", "numpy")),
        "artifact": {"name": artifact.name, "model": artifact.model},
        "doctor": {"problems": [], "lines": []},
        "lint": None,
        "backend": None,
        "machine": {},
        "error": None,
        "engines": [],
        "golden": {},
        "images": None,
    }
    if job.target == "tensorrt":
        checks = check_tensorrt(job.environ, seconds=60)
        record["doctor"] = {
            "problems": [c.text for c in checks if c.state == "problem"],
            "lines": [f"{c.state}: {c.text}" for c in checks],
        }
    record["lint"] = _lint(place, artifact)
    pictures = None if job.images is None else _read_images(job.images, artifact)
    if job.images is not None:
        _log_images(job, place, artifact, job.images)
    try:
        backend = find_backend(libraries()[job.target], job.environ)
        if backend is None:
            record["doctor"]["problems"] += ["TensorRT or a GPU is not here: no engine can be built"]
            return record
        record["backend"] = {"module": backend.module, "version": backend.version, "kind": backend.kind}
        built = rebuild_engines(place, artifact, job.target, backend, job.reporter, allow_fallback=job.allow_fallback)
    except OctcError as error:
        record["error"] = {"code": error.code, "message": error.message}
        return record
    _add_engines(record, place, built)
    if pictures is not None:
        record["images"] = {
            **pictures,
            "margin": job.margin,
            "classes": list(artifact.classes),
            **_logits(place, pictures, record, backend),
        }
        del record["images"]["inputs"]
    return record


def _lint(place: Path, artifact: Artifact) -> dict[str, Any] | None:
    """Findings of the files, or what the export recorded of files that did not change since (their checksums were checked)."""
    if not have("onnx"):
        clean = artifact.details.get("variants") is not None
        return {"findings": [], "text": "linted when they were exported, unchanged since (sha256)"} if clean else None
    from octc.export.lint.check import require_clean

    floats, findings = frozenset(artifact.details.get("float_layers", [])), []
    names = [name for name in LINTED if name in artifact.files]
    for name in names:
        try:
            require_clean(need("onnx").load(str(place / name)), LINTED[name], floats, quantised=name != "model.fp16.onnx")
        except OctcError as error:
            findings.append(f"{name}: {error.message}")
    return {"findings": findings, "text": f"{len(names)} files are clean"}


def _add_engines(record: dict[str, Any], place: Path, artifact: Artifact) -> None:
    backend = record["backend"]
    plans = read_plans(place, backend["version"], backend["module"])
    for row in artifact.details["engine"]["built"]:
        side = read_json(place / f"{row['engine']}.json")
        plan = plans[row["precision"]]
        attempt = side["attempts"][-1]
        promised = [name for name in plan.promised if name not in attempt["dequantized"]]
        measured = side["measured"]
        record["machine"] = side["machine"]
        record["engines"].append(
            {
                "precision": row["precision"],
                "engine": row["engine"],
                "bytes": row["bytes"],
                "versions": side["versions"],
                "plan": {**plan.to_json(), "promised": promised, "dequantize": attempt["dequantized"]},
                "attempts": side["attempts"],
                "layers": (place / plan.layers).read_text(errors="replace"),
                "warnings": side["warnings"],
                "golden": (measured.get("golden") or {}).get("logits"),
                "measured": measured["value"],
                "reason": measured.get("reason"),
                "ran": "golden_ok" in measured,
            }
        )
        with np.load(place / str((plan.golden or {})["file"]), allow_pickle=False) as known:
            record["golden"][row["precision"]] = known["logits"].tolist()


def _read_images(folder: Path, artifact: Artifact) -> dict[str, Any]:
    """DIR/<class>/*: pictures as the engine takes them, and their labels (E206 where a class has no folder)."""
    inputs, labels = [], []
    for label, name in enumerate(artifact.classes):
        if not (folder / name).is_dir():
            text = f"--images {folder}: no folder {name}"
            raise OctcError(
                "OCT-E206", text, hint=f"one folder for each class: {', '.join(artifact.classes)}", place=str(folder)
            )
        for path in sorted(p for p in (folder / name).iterdir() if p.is_file()):
            inputs.append(artifact.preprocess.prepare(read_image(path, artifact.preprocess.value_range).image)[0])
            labels.append(label)
    if not inputs:
        raise OctcError("OCT-E206", f"--images {folder}: no pictures", hint="DIR/<class>/*.jpeg", place=str(folder))
    return {"inputs": np.stack(inputs), "labels": labels}


def _log_images(job: DeviceJob, place: Path, artifact: Artifact, images: Path) -> None:
    """A row of the test-set log where test images of the artifact's run are among them, and the run is here."""
    run = run_of(place, artifact, job.run_dir)
    if run is None:
        job.reporter.say(
            "  ! whether these are test images of the artifact's run is not known here: its split and log are not here"
        )
        return
    paths = [path for name in artifact.classes for path in sorted((images / name).iterdir())]
    sums = {artifact.name: artifact.sha256}
    if count := log_files(run.path, paths, sums, "verify --on-device", utc_now()):
        job.reporter.say(f"  {count} of these images are test images of {run.id}: written down in its test-set log")


CHUNK = 256  # pictures in one file for the worker


def _logits(place: Path, pictures: dict[str, Any], record: dict[str, Any], backend: Backend) -> dict[str, Any]:
    """Logits of every engine on the pictures, by the worker: it runs under the Python that has TensorRT."""
    found: dict[str, list[Any]] = {}
    for one in record["engines"]:
        if one["golden"] is None:
            return {"logits": {}, "reason": one["reason"]}
        rule = {"file": "pictures.npz", "delta_over_s": 1e30, "agreement": 0.0}  # to run them, not to compare
        plan = replace(plan_from_json(one["plan"]), output=str((place / one["engine"]).resolve()), golden=rule)
        rows: list[Any] = []
        for first in range(0, len(pictures["labels"]), CHUNK):
            part = pictures["inputs"][first : first + CHUNK]
            with scratch("pictures") as folder:
                blank = np.zeros((len(part), len(record["golden"][one["precision"]][0])), np.float32)
                np.savez(folder / "pictures.npz", inputs=part, logits=blank)
                ran = backend.run(folder, plan, "verify")
            if ran.outcome != "ok":
                return {"logits": {}, "reason": ran.error}
            rows += ran.result["logits"]
        found[one["precision"]] = rows
    return {"logits": found, "reason": None}
