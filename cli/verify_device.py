"""`octc verify --target tensorrt --on-device`: doctor, lint, build, layers, golden images, accuracy, latency, verdict."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.session import Session
from octc.core.errors import OctcError, Several

if TYPE_CHECKING:
    from octc.runtimes.tensorrt.device_report import Judgement
    from octc.runtimes.tensorrt.process import Backend
    from octc.store.artifacts import Artifact

REPORT = "verify-device.json"
LINTED = {"model.onnx": "tensorrt", "model.int8fp16.onnx": "tensorrt-strong", "model.fp16.onnx": "tensorrt-strong"}


def verify_device(
    session: Session,
    bundle: str | None,
    target: str,
    *,
    on_device: bool,
    images: Path | None,
    margin: float,
    allow_fallback: bool,
) -> int:
    """Build and judge a TensorRT artifact on this machine, or judge the report of another one (ARTIFACT ends in .json)."""
    from octc.core.files import write_json
    from octc.runtimes.tensorrt.device_report import judge
    from octc.store.artifacts import MANIFEST
    from octc.store.runs import RUN

    if target not in ("tensorrt", "tensorrt-rtx"):
        raise OctcError(
            "OCT-E104", f"--target {target} has no check of its own", hint="tensorrt or tensorrt-rtx", place="--target"
        )
    if bundle is not None and bundle.endswith(".json") and Path(bundle).name not in (MANIFEST, RUN):
        return _conclude(session, judge(_read_report(Path(bundle))), None)
    if not on_device:
        text = f"--target {target} builds engines: say --on-device, or name a report of a device"
        raise OctcError("OCT-E102", text, hint=f"octc verify ARTIFACT --target {target} --on-device")
    place, artifact = _find(session, bundle, target)
    record = _record(session, place, artifact, target, images, margin, allow_fallback)
    judgement = judge(record)
    if (place / REPORT).is_file():  # kept under the time of the new one
        kept = place / "samples" / f"{REPORT.removesuffix('.json')}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
        kept.parent.mkdir(exist_ok=True)
        names = (kept.with_name(f"{kept.name}{'' if k == 0 else f'-{k}'}.json") for k in range(1000))
        (place / REPORT).rename(next(name for name in names if not name.exists()))
    write_json(place / REPORT, {**record, "verdict": judgement.to_json()})
    return _conclude(session, judgement, place / REPORT)


def _read_report(path: Path) -> dict[str, Any]:
    from octc.core.files import read_json

    if not path.is_file():
        raise OctcError(
            "OCT-E107", f"no file {path}", hint="octc verify ARTIFACT --target tensorrt --on-device", place=str(path)
        )
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise OctcError("OCT-E502", f"{path.name} cannot be read: {error}", hint="copy it again", place=str(path)) from error
    return value if isinstance(value, dict) else {}


def _find(session: Session, bundle: str | None, target: str) -> tuple[Path, Artifact]:
    from octc.store.find import find_artifacts

    founds, words = find_artifacts(bundle, session.run_dir, os.environ)
    fitting = [
        f
        for f in founds
        if f.artifact.target == "tensorrt" and f.artifact.name.startswith("tensorrt-rtx") == (target != "tensorrt")
    ]
    chosen = next(iter(sorted(fitting, key=lambda f: f.artifact.precision != "int8")), None)
    if chosen is None:
        raise OctcError("OCT-E107", f"no artifact for {target} ({words})", hint=f"octc export --int8 --target {target}")
    session.say(f"using {chosen.folder}")
    return chosen.folder, chosen.artifact


def _record(
    session: Session, place: Path, artifact: Artifact, target: str, images: Path | None, margin: float, allow_fallback: bool
) -> dict[str, Any]:
    from octc.export.formats import libraries
    from octc.machine.host import versions
    from octc.runtimes.tensorrt.device_report import SCHEMA
    from octc.runtimes.tensorrt.doctor import check_tensorrt
    from octc.runtimes.tensorrt.process import find_backend
    from octc.runtimes.tensorrt.rebuild import rebuild_engines

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
    if target == "tensorrt":
        checks = check_tensorrt(os.environ, seconds=60)
        record["doctor"] = {
            "problems": [c.text for c in checks if c.state == "problem"],
            "lines": [f"{c.state}: {c.text}" for c in checks],
        }
    record["lint"] = _lint(place, artifact)
    pictures = None if images is None else _read_images(images, artifact)
    if images is not None:
        _log_images(session, place, artifact, images)
    try:
        backend = find_backend(libraries()[target], os.environ)
        if backend is None:
            record["doctor"]["problems"] += ["TensorRT or a GPU is not here: no engine can be built"]
            return record
        record["backend"] = {"module": backend.module, "version": backend.version, "kind": backend.kind}
        built = rebuild_engines(place, artifact, target, backend, session, allow_fallback=allow_fallback)
    except OctcError as error:
        record["error"] = {"code": error.code, "message": error.message}
        return record
    _add_engines(record, place, built)
    if pictures is not None:
        record["images"] = {
            **pictures,
            "margin": margin,
            "classes": list(artifact.classes),
            **_logits(place, pictures, record, backend),
        }
        del record["images"]["inputs"]
    return record


def _lint(place: Path, artifact: Artifact) -> dict[str, Any] | None:
    """Findings of the files, or what the export recorded of files that did not change since (their sums were checked)."""
    from octc.core.optional import have, need

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
    import numpy as np

    from octc.core.files import read_json
    from octc.runtimes.tensorrt.build import read_plans

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
    import numpy as np

    from octc.imaging.preprocess import read_image

    inputs, labels = [], []
    for label, name in enumerate(artifact.classes):
        if not (folder / name).is_dir():
            text = f"--images {folder}: no folder {name}"
            raise OctcError(
                "OCT-E206", text, hint=f"one folder for each class: {', '.join(artifact.classes)}", place=str(folder)
            )
        for path in sorted(p for p in (folder / name).iterdir() if p.is_file()):
            inputs.append(artifact.preprocess.prepare(read_image(path).image)[0])
            labels.append(label)
    if not inputs:
        raise OctcError("OCT-E206", f"--images {folder}: no pictures", hint="DIR/<class>/*.jpeg", place=str(folder))
    return {"inputs": np.stack(inputs), "labels": labels}


def _log_images(session: Session, place: Path, artifact: Artifact, images: Path) -> None:
    """A row of the test-set log where test images of the artifact's run are among them, and the run is here."""
    from octc.core.files import sha256_file
    from octc.store.artifacts import MANIFEST
    from octc.store.locations import run_of
    from octc.store.runs import utc_now
    from octc.store.test_set_log import log_files

    run = run_of(place, artifact, session.run_dir)
    if run is None:
        session.say("  ! whether these are test images of the artifact's run is not known here: its split and log are not here")
        return
    paths = [path for name in artifact.classes for path in sorted((images / name).iterdir())]
    sums = {artifact.name: sha256_file(place / MANIFEST)}
    if count := log_files(run.path, paths, sums, "verify --on-device", utc_now()):
        session.say(f"  {count} of these images are test images of {run.id}: written down in its test-set log")


CHUNK = 256  # pictures in one file for the worker


def _logits(place: Path, pictures: dict[str, Any], record: dict[str, Any], backend: Backend) -> dict[str, Any]:
    """Logits of every engine on the pictures, by the worker: it runs under the Python that has TensorRT."""
    import tempfile
    from dataclasses import replace

    import numpy as np

    from octc.schemas.tensorrt_plan import plan_from_json

    found: dict[str, list[Any]] = {}
    for one in record["engines"]:
        if one["golden"] is None:
            return {"logits": {}, "reason": one["reason"]}
        rule = {"file": "pictures.npz", "delta_over_s": 1e30, "agreement": 0.0}  # to run them, not to compare
        plan = replace(plan_from_json(one["plan"]), output=str((place / one["engine"]).resolve()), golden=rule)
        rows: list[Any] = []
        for first in range(0, len(pictures["labels"]), CHUNK):
            part = pictures["inputs"][first : first + CHUNK]
            with tempfile.TemporaryDirectory() as folder:
                blank = np.zeros((len(part), len(record["golden"][one["precision"]][0])), np.float32)
                np.savez(Path(folder) / "pictures.npz", inputs=part, logits=blank)
                ran = backend.run(Path(folder), plan, "verify")
            if ran.outcome != "ok":
                return {"logits": {}, "reason": ran.error}
            rows += ran.result["logits"]
        found[one["precision"]] = rows
    return {"logits": found, "reason": None}


def _conclude(session: Session, judgement: Judgement, written: Path | None) -> int:
    from octc.runtimes.tensorrt.device_report import FAILED, OK, SIGNS, SKIPPED

    lines = [
        f"{SIGNS[step.state]} {step.name:9} {'' if step.state == OK else step.state + ': '}{step.text}"
        for step in judgement.steps
    ]
    if judgement.fastest:
        lines.append(f"quickest: {judgement.fastest}")
    session.report({**judgement.to_json(), "report": None if written is None else str(written)})
    session.result("\n".join([*lines, f"verdict: {judgement.word}{' (by a fallback)' if judgement.fell_back else ''}"]))
    if written is not None:
        session.say(f"report: {written} (no path, host name or image in it: it can be sent)")
    if judgement.fell_back:
        session.warn("OCT-W406", "an engine is not what was asked for: the report lists the steps of the fallback")
    errors = [
        OctcError(s.code, f"{s.name}: {s.text}", hint="octc doctor --target tensorrt")
        for s in judgement.steps
        if s.state == FAILED
    ]
    skipped = [step.name for step in judgement.steps if step.state == SKIPPED]
    if skipped and not errors:
        text = f"not everything could be done here: {', '.join(skipped)}"
        errors = [OctcError("OCT-E903", text, hint="run it on the device, with TensorRT's Python bindings")]
    if errors:
        raise errors[0] if len(errors) == 1 else Several(errors)
    return 0
