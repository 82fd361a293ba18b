"""Where quantisation-aware training beats calibration: a trained student whose weights get few bits.

    python benchmarks/tuning.py RUN [--run-dir DIR] [--data DIR] [--bits 6 4] [--seeds N] [--epochs N] [--learned-steps]

Each seed draws the calibration images and the order of the tuning. The same calibrated network is kept as it is (with rounding
by compensation, where that is nearer on validation) and tuned; both answer the test images, which choose nothing. Losses are
negative log-likelihoods of the labels; intervals are bootstrapped over patients. Engines have
no convolutions of 6 or 4 bits: the networks are fake-quantised, and what is shown is what tuning can mend, no file to deploy.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from octc.compress import finetune, placement
from octc.compress.finetune import load_quantised, quantise_student
from octc.compress.simplify.source import SourceRun, read_student
from octc.stats.cluster_bootstrap import cluster_index, paired
from octc.store.runs import Run, find_run
from octc.train.batches.images import cached_images
from octc.train.loop.evaluate import logits_of
from octc.train.loop.processes import make_accelerator
from octc.train.recipes.config import Quantisation
from octc.train.stages import Context


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run")
    parser.add_argument("--run-dir", type=Path, default=Path("runs"))
    parser.add_argument("--data")
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 4])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rate", type=float, default=Quantisation.lr)
    parser.add_argument("--learned-steps", action="store_true", help="the scales are trained too (LSQ)")
    parser.add_argument("--placement", default=placement.ENGINES, choices=placement.PLACEMENTS)
    words = parser.parse_args()
    source = read_student(find_run(words.run_dir, words.run), words.run_dir, words.data)
    how = Quantisation(
        epochs=words.epochs, lr=words.rate, placement=words.placement, learned_steps=words.learned_steps, start="always"
    )
    finetune.calibrated = _once(finetune.calibrated)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tests = _tests(source, Path(folder))
        plain = logits_of(source.model, tests, source.checkpoint.preprocess, "cpu")
        for bits in words.bits:
            placement.WIDEST = placement.WIDEST_OF_8_BITS = 2 ** (bits - 1) - 1
            for seed in range(words.seeds):
                calibrated = _network(source, replace(how, epochs=0), seed, Path(folder), tests)
                tuned = _network(source, how, seed, Path(folder), tests)
                rows.append({"bits": bits, "seed": seed, **_row(source, plain, calibrated, tuned)})
                sys.stderr.write(f"{json.dumps(rows[-1])}\n")
    sys.stdout.write(json.dumps({"run": source.run.id, "model": source.checkpoint.model, "rows": rows}) + "\n")


def _once(calibrated: Callable[..., Any]) -> Callable[..., Any]:
    """One calibration for both arms of a seed."""
    found: dict[tuple[int, int], Any] = {}

    def again(student: Any, how: Quantisation, data: Any, seed: int, *more: Any, **others: Any) -> Any:
        key = (placement.WIDEST, seed)
        if key not in found:
            found.clear()
            found[key] = calibrated(student, how, data, seed, *more, **others)
        network, facts = found[key]
        return copy.deepcopy(network), dict(facts)

    return again


def _tests(source: SourceRun, folder: Path) -> Any:
    return cached_images(folder / ".cache", source.root, source.split.parts["test"], source.checkpoint.preprocess)


def _network(source: SourceRun, how: Quantisation, seed: int, folder: Path, tests: Any) -> tuple[dict[str, Any], torch.Tensor]:
    """Metrics of the qat stage of a copy of the run, and what its network answers to the test images."""
    path = folder / f"r-0001-student-{seed}-{how.epochs}-{placement.WIDEST}"
    shutil.copytree(source.run.path, path, ignore=shutil.ignore_patterns("qat", "artifacts", "eval*"))
    context = Context(
        run=Run(path),
        root=source.root,
        split=source.split,
        data_digest=source.checkpoint.data_digest,
        recipe=replace(source.recipe, quantisation=how),
        seed=seed,
        accelerator=make_accelerator("cpu", "fp32"),
        tick=lambda _: None,
        report=lambda _: None,
        decoding=lambda *_: None,
        teachers=() if source.teacher is None else (source.teacher,),
    )
    metrics = quantise_student(context).metrics
    _, network = load_quantised(path / "qat")
    return metrics, logits_of(network, tests, source.checkpoint.preprocess, "cpu")


def _row(
    source: SourceRun,
    plain: torch.Tensor,
    calibrated: tuple[dict[str, Any], torch.Tensor],
    tuned: tuple[dict[str, Any], torch.Tensor],
) -> dict[str, Any]:
    """On validation the loss of both; on test loss and accuracy of each, and what tuning changed (percentage points, nats)."""
    samples = source.split.parts["test"]
    truth, patients = torch.tensor([s.label for s in samples]), [s.patient for s in samples]
    right = [(one.argmax(1) == truth).numpy() for one in (plain, calibrated[1], tuned[1])]
    lost, gained = right[1] & ~right[2], right[2] & ~right[1]
    found = paired(lost, gained, cluster_index(patients))
    losses = [functional.cross_entropy(one, truth, reduction="none").numpy() for one in (plain, calibrated[1], tuned[1])]
    return {
        "val_loss": {name: tuned[0][name]["val_loss"] for name in ("ptq", "qat")},
        "kept": tuned[0]["chosen"],
        "accuracy": dict(zip(("float", "calibrated", "kept"), (100 * float(one.mean()) for one in right), strict=True)),
        "loss": dict(zip(("float", "calibrated", "kept"), (float(one.mean()) for one in losses), strict=True)),
        "loss_change": _change(losses[2] - losses[1], patients),
        "agrees": [100 * float((one.argmax(1) == plain.argmax(1)).double().mean()) for one in (calibrated[1], tuned[1])],
        "lost": found.lost,
        "gained": found.gained,
        "tuning": 100 * found.difference,
        "interval": None if found.deciding is None else [100 * one for one in found.deciding],
    }


def _change(by_image: Any, patients: list[Any]) -> list[float]:
    """Mean change of the loss, and its 95 % interval: patients drawn 2000 times."""
    index = cluster_index(patients)
    index = np.arange(len(by_image)) if index is None else index
    sums, counts = np.bincount(index, by_image), np.bincount(index)
    drawn = np.random.default_rng(0).integers(0, len(sums), (2000, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return [float(by_image.mean()), *(float(one) for one in np.quantile(means, (0.025, 0.975)))]


if __name__ == "__main__":
    main()
