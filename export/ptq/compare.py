"""One checkpoint through every PTQ engine: the files, what they answer on a set of images, and how far that is from float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.errors import OctcError
from octc.export.formats import choose_opset
from octc.export.pipeline import write_files
from octc.export.ptq.engines import ENGINES, missing_of, nncf_default
from octc.export.source import Quantised, calibration_set, of_run
from octc.export.targets import Job, Workshop
from octc.imaging.preprocess import Float32
from octc.store.artifacts import Artifact, write_manifest

TRAINED = "qat"


@dataclass(frozen=True)
class Entry:
    """A file to be compared: `engine` made it; `folder` holds a whole artifact."""

    engine: str
    target: str
    folder: Path
    artifact: Artifact
    bytes: int


@dataclass(frozen=True)
class Score:
    """Against the float network on the same images: agreement and accuracy (shares), images lost and gained, noise in dB."""

    agreement: float
    accuracy: float
    lost: int
    gained: int
    snr_db: float


def write_entries(
    shop: Workshop, trained: Quantised | None, place: Path, targets: Sequence[str], say: Callable[[str], None]
) -> tuple[list[Entry], dict[str, str]]:
    """FP32, the run's own quantised network where it was trained, and every engine that is installed, for each target.

    Args:
        shop: with octc's own calibration as its quantised network. trained: of the qat stage.

    Returns: the entries (FP32 first), and why an engine is absent or failed.
    """
    entries: list[Entry] = []
    absent = {name: f"{missing} is not installed" for name, engine in ENGINES.items() if (missing := missing_of(engine))}
    for target in targets:
        opset = choose_opset(target, None)
        shop.float_onnx(opset)
        jobs = {"fp32": Job(target, "fp32", opset)}
        jobs |= {TRAINED: Job(target, "int8", opset)} if trained is not None else {}
        jobs |= {
            name: Job(target, "int8", opset, engine=name)
            for name, engine in ENGINES.items()
            if name not in absent and target in engine.targets
        }
        for name, job in jobs.items():
            say(f"  {target}: {name}")
            mine = _with(shop, trained, place / f"{target}-work") if name == TRAINED and trained is not None else shop
            try:
                entries.append(_entry(mine, name, job, place / f"{target}-{name}"))
            except OctcError as error:
                absent[f"{name} ({target})"] = error.message
    return entries, absent


def _with(shop: Workshop, quantised: Quantised, folder: Path) -> Workshop:
    """A workshop for another quantised network; only float files are shared."""
    folder.mkdir(exist_ok=True)
    floats = {key: made for key, made in shop.made.items() if key[0] == "float"}
    return Workshop(shop.source, folder, quantised, floats)


def _entry(shop: Workshop, name: str, job: Job, folder: Path) -> Entry:
    folder.mkdir()
    if name == "nncf-default":
        _, artifact = write_files(shop, replace(job, precision="fp32", engine=""), folder)
        _, images = calibration_set(of_run(shop.source))
        nncf_default(Path(shop.float_onnx(job.opset or 0).main_file), folder / artifact.main_file, images)
        artifact = write_manifest(folder, replace(artifact, precision="int8"))
    else:
        _, artifact = write_files(shop, job, folder)
    size = sum(path.stat().st_size for path in folder.glob("model.*"))
    return Entry(name, job.target, folder, artifact, size)


def score(reference: Float32, logits: Float32, labels: Sequence[int]) -> Score:
    """Scores of logits float32 [N, K]."""
    truth = np.asarray(labels)
    before, after = reference.argmax(1) == truth, logits.argmax(1) == truth
    noise = float(((reference - logits) ** 2).sum())
    snr = float(10 * np.log10(float((reference**2).sum()) / noise)) if noise else float("inf")
    agreement = float((reference.argmax(1) == logits.argmax(1)).mean())
    return Score(agreement, float(after.mean()), int((before & ~after).sum()), int((~before & after).sum()), snr)


def rows_json(entries: Sequence[Entry], scores: Sequence[Score], medians: Sequence[float]) -> list[dict[str, Any]]:
    """One dictionary for each entry."""
    return [
        {
            "engine": entry.engine, "target": entry.target, "agreement": one.agreement, "accuracy": one.accuracy,
            "lost": one.lost, "gained": one.gained, "snr_db": one.snr_db, "bytes": entry.bytes, "median_ms": median,
        }
        for entry, one, median in zip(entries, scores, medians, strict=True)
    ]  # fmt: skip
