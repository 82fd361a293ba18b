"""Real artifacts of the tiny run, made once for all tests by the export code. Whoever changes one takes a copy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.core.files import sha256_file
from octc.export.formats import choose_opset
from octc.export.pipeline import Device, export_artifact
from octc.export.source import quantise, read_source
from octc.export.targets import Job, Workshop
from octc.store.artifacts import MANIFEST
from octc.store.runs import Run
from tests.integration.made_once import made_once
from tests.tiny_run import make_run, write_patterns

PAIRS = (
    ("torch", "fp32"), ("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8"), ("openvino", "fp16"), ("openvino", "int8"),
)  # fmt: skip
LITERT = ("litert-fp32", "litert-int8")  # they lie beside the run: an export of all targets does not make them
DEVICE = Device()


def shared_run(factory: object = None) -> Run:
    """The finished student run with one artifact of every pair; its pictures lie under `patterns` beside its run folder."""
    return Run(next((made_once("tiny-artifacts", _make) / "runs").glob("r-*")))


def artifact_folder(name: str = "onnx-int8") -> Path:
    """An artifact of the shared run."""
    return shared_run().artifacts / name


def _make(base: Path) -> None:
    write_patterns(base / "patterns", patients=6, images=8)
    run = make_run(base / "runs", base / "patterns")
    source = read_source(run, base / "patterns")
    shop = Workshop(source, base, quantise(source))
    for target, precision in PAIRS:
        opset = None if target == "torch" else choose_opset(target, None)
        export_artifact(shop, Job(target, precision, opset), DEVICE)
    beside = replace(shop, source=replace(source, artifacts=base / "litert"))
    for name in LITERT:
        export_artifact(beside, Job(*name.split("-"), choose_opset("litert", None)), DEVICE)
    tensorrt = shutil.copytree(run.artifacts / "onnx-int8", run.artifacts / "tensorrt-int8")
    resign(Path(tensorrt), _as_tensorrt)  # what export writes there, but for the encoding: Q/DQ, and no engine


def _as_tensorrt(value: dict[str, Any]) -> None:
    value.update(name="tensorrt-int8", target="tensorrt")
    value["details"].update(engine=None, engine_recipe="BUILD.txt")


def resign(folder: Path, change: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Write sums of what lies in an artifact folder into its manifest, after `change` of the manifest: a careful attacker."""
    value = json.loads((folder / MANIFEST).read_text())
    value["files"] = {
        path.relative_to(folder).as_posix(): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    if change is not None:
        change(value)
    (folder / MANIFEST).write_text(json.dumps(value))


def folder_of(run: Run, name: str) -> Path:
    """Where an artifact lies."""
    return run.path.parent.parent / "litert" / name if name in LITERT else run.artifacts / name


def copied(run: Run, name: str, place: Path) -> Path:
    """A copy of one artifact that a test may spoil."""
    return Path(shutil.copytree(folder_of(run, name), place / name))


def ruled_artifact(place: Path, *units: str, name: str = "onnx-int8") -> Path:
    """A copy of an artifact that decides images or eyes by rules: `lying` is answered from 5 % on, a set holds `lying` and
    `upright` always and no other class, so that every answer is to be referred."""
    folder = Path(shutil.copytree(artifact_folder(name), place))
    point = {
        "name": "lying", "kind": "sensitivity", "level": 0.9, "threshold": 0.05, "hits": 9, "n": 10, "patients": 10,
        "exact": [0.5, 1.0], "clustered": [0.5, 1.0], "deff": 1.0, "other": 0.9, "other_limits": [0.8, 1.0], "needed": 36,
        "alpha": 0.05, "shown": False, "words": "not shown",
    }  # fmt: skip
    sets = {
        "method": "lac", "coverage": 0.9, "by": "class", "limits": [0.0, 0.0, 1.0, 1.0], "images": [9] * 4,
        "patients": [9] * 4, "short": [], "patients_known": True,
    }  # fmt: skip
    rules = {"chosen_on": "validation set", "split_digest": "x", "time_utc": "now", "sets": sets, "points": [point]}
    resign(folder, lambda value: value["details"].update(decision=dict.fromkeys(units, rules)))
    return folder
