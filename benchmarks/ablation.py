"""What each way of distilling is worth: the pair of `edge` at a reduced size, several seeds each, judged on validation alone.

    python benchmarks/ablation.py --data DIR --place DIR [--size 128] [--epochs 12] [--seeds 3] [--arms 'kl; dist']

No student mixes images (a mixed one has no cached view). One teacher, one split by patient; every arm starts from the same
weights and sees the same order of images for a seed. A run that is there is passed over, one that was cut off goes on. Test is
split off and never looked at. Validation chooses the epoch of every run, so accuracies are a little too good, for all arms
alike; what counts is the difference to `kl`, KD-OCT's loss: its interval is of 10,000 draws of patients and of seeds, both
with replacement.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from octc.core.files import read_json, write_bytes, write_json
from octc.datasets.base import ids_of
from octc.datasets.registry import scan_dataset
from octc.datasets.split import Split, make_split
from octc.machine.cpu import usable_threads
from octc.stats.cluster_bootstrap import clusters_of
from octc.store.runs import Run, create_run
from octc.train.evaluation.outcome import newest_evaluation, read_predictions
from octc.train.loop.checkpoint import META, is_checkpoint
from octc.train.loop.memory import keep_memory
from octc.train.loop.processes import make_accelerator
from octc.train.recipes.config import DISTILLATIONS, Distillation, Mix, Recipe, with_fields
from octc.train.recipes.registry import RECIPES
from octc.train.stages import Context, train_student, train_teacher

BASE = "kl"
DRAWS = 10_000
ARMS: dict[str, Distillation | None] = {
    "alone": None,
    "kl": Distillation(),
    "dist": replace(Distillation(), **DISTILLATIONS["dist"]),
    "dkd": replace(Distillation(), **DISTILLATIONS["dkd"]),
    "kl, standardised": Distillation(standardise=True, temperature=2.0, alpha=0.9),
    "kl, calibrated": Distillation(calibrate=True),
    "kl, 3 cached views": Distillation(views=3),
    "kl, 10 cached views": Distillation(views=10),
    "kl, 25 cached views": Distillation(views=25),
}
Correct = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """What all runs share."""

    root: Path
    folder: Path
    split: Split
    digest: str
    recipe: Recipe
    accelerator: Any

    def context(self, run: Run, recipe: Recipe, seed: int, resume: bool) -> Context:
        def report(row: dict[str, Any]) -> None:
            if "val_acc" in row:
                sys.stderr.write(f"  epoch {row['epoch']}: val {100 * row['val_acc']:.2f} ({row.get('seconds', 0)} s)\n")

        return Context(
            run=run, root=self.root, split=self.split, data_digest=self.digest, recipe=recipe, seed=seed,
            accelerator=self.accelerator, tick=lambda _: None, report=report, decoding=lambda _d, _t: None, resume=resume,
        )  # fmt: skip


def trained(place: Place, name: str, kind: str, recipe: Recipe, seed: int, teacher: Path | None) -> Path:
    """The finished run of a name, trained where it is not there yet."""
    log = place.folder / "runs.json"
    known: dict[str, str] = read_json(log) if log.is_file() else {}
    resume = name in known
    if not resume:
        run = create_run(
            place.folder / "runs", kind, place.split.dataset, data_root=str(place.root), data_digest=place.digest,
            split_digest=place.split.digest, recipe=asdict(recipe), seed=seed, arm=name,
            begin=lambda run: place.split.write(run.split),
        )  # fmt: skip
        write_json(log, {**known, name: run.id})
    else:
        run = Run(place.folder / "runs" / known[name])
    if not is_checkpoint(run.path / "train"):
        start = time.monotonic()
        context = replace(place.context(run, recipe, seed, resume), teachers=() if teacher is None else (teacher,))
        made = train_teacher(context) if kind == "teacher" else train_student(context)
        run.log_stage("train", sha256=made.sha256, metrics=made.metrics)
        run.update(status="done")
        sys.stderr.write(f"{name}: val accuracy {made.metrics['val_accuracy']:.4f} ({time.monotonic() - start:.0f} s)\n")
    return run.path


def right(run: Path) -> tuple[Correct, Correct, Sequence[str | None], npt.NDArray[np.int64]]:
    """Of a run on val: which images are right, each one's negative log likelihood, its patient and its label."""
    found = read_predictions(newest_evaluation(run, "val"))
    logits, labels = np.asarray(found.logits, np.float64)[:, 0], np.asarray(found.labels, np.int64)
    top = logits.max(1, keepdims=True)
    logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return (logits.argmax(1) == labels).astype(np.float64), -logs[np.arange(len(labels)), labels], found.patients, labels


def interval(values: Correct, clusters: npt.NDArray[np.int64]) -> tuple[float, float]:
    """95 % of the mean of values [seeds, images] over draws of seeds and of patients, both with replacement."""
    rng, seeds, count = np.random.default_rng(0), len(values), int(clusters.max()) + 1
    sums = np.stack([np.bincount(clusters, row, count) for row in values])
    sizes = np.bincount(clusters, minlength=count).astype(np.float64)
    means = []
    for _ in range(DRAWS):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)
        rows = sums[rng.integers(0, seeds, seeds)]
        means.append(float((rows @ weights).mean() / (sizes @ weights)))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def table(runs: dict[str, list[Path]]) -> tuple[str, list[dict[str, Any]]]:
    """Markdown, and the same as rows: accuracy, least sensitivity of a class, likelihood, differences to the base."""
    looked = {arm: [right(path) for path in paths] for arm, paths in runs.items()}
    patients = next(iter(looked.values()))[0][2]
    clusters = clusters_of(patients)
    rows = []
    for arm, seen in looked.items():
        hits, nll, labels = np.stack([s[0] for s in seen]), np.stack([s[1] for s in seen]), seen[0][3]
        row: dict[str, Any] = {"arm": arm, "seeds": len(seen), "accuracy": float(hits.mean()), "nll": float(nll.mean())}
        row["std"] = float(hits.mean(1).std(ddof=1)) if len(seen) > 1 else None
        row["least_sensitivity"] = min(float(hits[:, labels == k].mean()) for k in np.unique(labels))
        if arm != BASE and BASE in looked:
            both = min(len(seen), len(looked[BASE]))
            more = hits[:both] - np.stack([s[0] for s in looked[BASE]])[:both]
            less = nll[:both] - np.stack([s[1] for s in looked[BASE]])[:both]
            row |= {"difference": float(more.mean()), "interval": interval(more, clusters)}
            row |= {"nll_difference": float(less.mean()), "nll_interval": interval(less, clusters)}
        rows.append(row)
    lines = [
        (
            f"| arm | seeds | val accuracy, % (std) | least sensitivity, % | NLL | accuracy - {BASE}, points [95 %] | "
            f"NLL - {BASE} [95 %] |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        spread = "" if row["std"] is None else f" ({100 * row['std']:.2f})"
        more, nll_more = "", ""
        if "interval" in row:
            (low, high), (least, most) = row["interval"], row["nll_interval"]
            more = f"{100 * row['difference']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
            nll_more = f"{row['nll_difference']:+.4f} [{least:+.4f}, {most:+.4f}]"
        lines.append(
            f"| {row['arm']} | {row['seeds']} | {100 * row['accuracy']:.2f}{spread} | {100 * row['least_sensitivity']:.2f} | "
            f"{row['nll']:.4f} | {more} | {nll_more} |"
        )
    return "\n".join(lines) + "\n", rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="root of the data set")
    parser.add_argument("--dataset", default="ucsd", help="its name (octc data list)")
    parser.add_argument("--place", type=Path, required=True, help="where runs, table.md and table.json go")
    parser.add_argument("--recipe", default="edge")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=12, help="of every student")
    parser.add_argument("--teacher-epochs", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", default="; ".join(ARMS), help="names with a semicolon between them (all)")
    parser.add_argument("--val", type=float, default=0.2)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda:0 (in bf16)")
    chosen = parser.parse_args()
    arms = [name.strip() for name in chosen.arms.split(";")]
    if unknown := [name for name in arms if name not in ARMS]:
        parser.error(f"unknown arms {unknown}; known: {'; '.join(ARMS)}")
    os.environ.setdefault("OCTC_OFFLINE", "1")
    keep_memory()
    torch.set_num_threads(usable_threads()[0])
    samples = scan_dataset(chosen.dataset, chosen.data)
    split = make_split(samples, chosen.dataset, 0, val=chosen.val)
    recipe = with_fields(RECIPES[chosen.recipe](), size=chosen.size, batch=chosen.batch)
    recipe = replace(
        recipe, teacher=replace(recipe.teacher, epochs=chosen.teacher_epochs),
        student=replace(recipe.student, epochs=chosen.epochs, mix=Mix()), val=chosen.val,
    )  # fmt: skip
    chosen.place.mkdir(parents=True, exist_ok=True)
    place = Place(chosen.data, chosen.place, split, samples.digest, recipe, make_accelerator(chosen.device))
    teacher = trained(place, "teacher", "teacher", recipe, 0, None) / "train"
    runs: dict[str, list[Path]] = {arm: [] for arm in arms}
    for seed in range(chosen.seeds):
        for arm in arms:
            how = ARMS[arm]
            own = recipe if how is None else replace(recipe, distillation=how)
            runs[arm].append(trained(place, f"{arm} #{seed}", "student", own, seed, None if how is None else teacher))
    text, rows = table(runs)
    counts = {part: len(items) for part, items in split.parts.items()}
    head = (
        f"{chosen.recipe} at {chosen.size} px, {chosen.epochs} epochs, {counts['train']} training and {counts['val']} "
        f"validation images ({ids_of(split.parts['val']).words}); teacher on val "
        f"{100 * read_json(teacher / META)['metrics']['val_accuracy']:.2f} %\n\n"
    )
    write_bytes(chosen.place / "table.md", (head + text).encode())
    write_json(chosen.place / "table.json", rows)
    sys.stdout.write(head + text + json.dumps({"rows": rows}) + "\n")


if __name__ == "__main__":
    main()
