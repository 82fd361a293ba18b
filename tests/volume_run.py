"""A small run on volumes that really learned something: four patterns, both eyes of many patients, four formats."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np

from octc.datasets.registry import scan_dataset
from octc.datasets.split import make_split
from octc.datasets.synthetic import volumes as synthetic
from octc.datasets.synthetic.volumes import DrawnEye
from octc.export.run import ExportOptions, export_run, plan_export
from octc.store.runs import Run
from tests.integration.made_once import made_once
from tests.tiny_run import PATTERNS, make_run_of

FORMATS = ("dicom", "vol", "fda", "e2e")
SCANS = 5


def pattern_eye(name: str, patient: int, side: str, scans: int = SCANS) -> DrawnEye:
    """B-scans of one pattern with noise of their own, some of them weak: 80 x 80."""
    rng = np.random.default_rng([PATTERNS.index(name), patient, side == "L"])
    stripes = np.where(np.arange(80) // 8 % 2, 190.0, 60.0)
    bases = {"bright": np.full((80, 80), 200.0), "dark": np.full((80, 80), 40.0)}
    bases |= {"lying": np.tile(stripes[:, None], (1, 80)), "upright": np.tile(stripes, (80, 1))}
    plain = 125.0
    shares = rng.uniform(0.15, 1.0, scans)
    frames = [plain + share * (bases[name] - plain) + rng.normal(0, 12, (80, 80)) for share in shares]
    moment = datetime(2026, 1 + patient % 12, 1 + patient % 28, 9, 30)
    return DrawnEye(np.clip(frames, 0, 255).astype(np.uint8), side, f"SYN-{patient:04d}", moment, name)


def write_clinic(root: Path, patients: int = 14) -> None:
    """Files of `patients` of each pattern, both eyes, and volumes.csv."""
    root.mkdir(parents=True)
    rows = ["path,label,patient,eye"]
    for place, name in enumerate(PATTERNS):
        for number in range(patients):
            patient = 100 * place + number
            for side in "RL":
                ending, write = synthetic.WRITERS[FORMATS[(number + (side == "L")) % len(FORMATS)]]
                file = f"{patient}{side}{ending}"
                write(pattern_eye(name, patient, side), root / file)
                rows.append(f"{file},{name},P{patient},{side}")
    (root / "volumes.csv").write_text("\n".join(rows) + "\n")


def volume_run() -> Run:
    """The run with onnx-fp32 and onnx-int8; `clinic` lies beside its run folder. Whoever changes it takes a copy."""
    return Run(next((made_once("volume-run", _make) / "runs").glob("r-*")))


def _make(base: Path) -> None:
    write_clinic(base / "clinic")
    split = make_split(scan_dataset("volumes", base / "clinic"), "volumes", 0)
    run = make_run_of(base / "runs", split, base / "clinic")
    jobs = [*plan_export(run, ["onnx"], "fp32", ExportOptions()), *plan_export(run, ["onnx"], "int8", ExportOptions())]
    failure = export_run(run, jobs).failure
    assert failure is None, failure
