"""What a training says before and after the work: every default that was chosen, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.core.progress import Reporter
from octc.datasets.base import ids_of
from octc.datasets.calibration import calibration_counts, words_of_counts
from octc.datasets.split import Split
from octc.stats.proportions import wilson
from octc.stats.task import Task
from octc.train.jobs.request import Request
from octc.train.loop.checkpoint import Checkpoint
from octc.train.networks import lent
from octc.train.networks.weight_matching import words

if TYPE_CHECKING:
    from accelerate import Accelerator


def say_plan(reporter: Reporter, asked: Request, split: Split, root: Path, accelerator: Accelerator) -> None:
    """Every default that was chosen."""
    stage = asked.stage
    total = sum(len(items) for items in split.parts.values())
    looks = f" · {asked.modality}" if asked.modality else ""
    fold = f" · fold {split.fold[0]} of {split.fold[1]}" if split.fold else ""
    fold += f" · leaves out {split.left_out}" if split.left_out else ""
    kind = f"{asked.modality} images" if asked.modality else "images"
    reporter.say(f"{asked.command}{looks} · recipe {asked.recipe.name} · seed {asked.seed}{fold}")
    reporter.say(f"✓ dataset {asked.dataset}   {total:,} {kind} in {root} (choose with --data DIR)")
    say_split(reporter, split, " over both modalities" if asked.modality else "")
    if asked.modality and split.note:
        reporter.say(f"  the epoch is chosen on the {getattr(asked.recipe, 'select', 'val')} part")
    if asked.kind == "student" and asked.task.exclusive:
        wanted = asked.recipe.quantisation.calibration
        counts = calibration_counts(split.parts["train"], split.classes, wanted)
        few = [name for name, count in counts.items() if count < wanted // len(counts)]
        less = f" (fewer than an equal share of {wanted}: {', '.join(few)})" if few else ""
        reporter.say(f"{'!' if few else '✓'} INT8      calibrates on {words_of_counts(counts)} of train{less}")
    precision = {"no": "fp32"}.get(str(accelerator.mixed_precision), str(accelerator.mixed_precision))
    several = f" · {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    qat = f" + {asked.recipe.quantisation.epochs} of QAT" if asked.kind == "student" and asked.qat else ""
    more = f" x {stage.accumulate} = {stage.batch * stage.accumulate} an update" if stage.accumulate > 1 else ""
    reporter.say(
        f"✓ plan      {stage.model} at {stage.size} px · {stage.epochs} epochs{qat} · batch {stage.batch}{more} · "
        f"{precision} on {accelerator.device}{several}"
    )


def say_split(reporter: Reporter, split: Split, over: str = "") -> None:
    """Images of each part, its patients where they are known, and whether anything is on two sides."""
    counts = {part: len(items) for part, items in split.parts.items()}
    known = split.patient_ids
    people = {part: f" ({count:,} patients)" if count is not None else "" for part, count in split.people().items()}
    shown = f"{'/'.join(counts)} {'/'.join(f'{counts[part]:,}{people[part]}' for part in counts)}"
    if known.warning:
        reporter.warn("OCT-W212", known.warning)
    if split.note:
        reporter.warn("OCT-W219", split.note)
        reporter.say(f"! split     {split.protocol}{over} · {shown} · leakage: see the warning")
        return
    left = f" · {split.dropped_words}" if split.dropped else ""
    if known.leakage:
        how = "by image" if known.count is None else "by patient where one is known"
        reporter.say(f"! split     {how}{over} · {shown} · {known.leakage}{left}")
    else:
        reporter.say(f"✓ split     patient-level{over} · {shown} · leakage: none{left}")


def say_outcome(reporter: Reporter, asked: Request, made: Checkpoint, split: Split) -> None:
    """The metric on the validation set; it chose the epoch, so it is no claim. Then the licences of the weights."""
    metrics = made.metrics
    people = ids_of(split.parts["val"]).words
    by = "mAP" if not asked.task.exclusive else metrics["select"]
    smoothing = made.recipe.get(made.role, {}).get("smoothing", 0.0)
    if by == "loss" and smoothing:  # the loss in the lines of the epochs is the plain one
        by = f"loss with labels smoothed by {smoothing:g}, as in training,"
    reporter.say(f"✓ best epoch {metrics['epoch']} of {metrics['epochs']} by {by} (sha256 {made.sha256[:8]})")
    reporter.say(f"  val {_value(asked, metrics)}, {people}; it chose the epoch: no claim")
    source, licence = made.weights.get("source", "unknown"), made.weights.get("licence", "unknown")
    changed = f" ({made.weights['changed']} before training)" if "changed" in made.weights else ""
    reporter.say(f"  start weights: {source}{changed}; licence: {licence}")
    say_fit(reporter, made.weights)
    taught = (made.parent or {}).get("weights") or {}
    if taught:
        reporter.say(f"  its teacher's: {taught.get('source', 'unknown')}; licence: {taught.get('licence', 'unknown')}")


def _value(asked: Request, metrics: Mapping[str, Any]) -> str:
    """The metric that leads, with its interval where it is a share of images."""
    if not asked.task.exclusive:
        return f"mAP {100 * metrics['val_map']:.2f}"
    n = int(metrics["val_n"])
    hits = round(float(metrics["val_accuracy"]) * n)
    low, high = wilson(hits, n) or (0.0, 1.0)
    return f"accuracy {100 * hits / n:.2f} [{100 * low:.2f}, {100 * high:.2f}] ({hits}/{n})"


def say_tuned(reporter: Reporter, task: Task, tuned: Checkpoint) -> None:
    """PTQ and QAT on the validation set, and which was kept."""
    metric, agrees = ("val_accuracy", "agreement with the float student")
    if not task.exclusive:
        metric, agrees = "val_map", "decisions as the float student's"
    name_of = {"val_accuracy": "accuracy", "val_map": "mAP"}
    gain = tuned.metrics.get("gain")
    if gain is not None:
        reporter.say(
            f"  calibration costs {gain['difference']:+.5f} nats of the float student's val loss {gain['float_loss']:.4f} "
            f"(at most {gain['upper']:.5f}; from {gain['limit']:.4f} on it is worth tuning)"
        )
    if "qat" not in tuned.metrics and gain is not None and not gain["tune"]:
        reporter.say("  QAT was not begun: calibration left nothing to gain")
    for name in ("ptq", "qat"):
        found = tuned.metrics.get(name)
        if found:
            mark = "✓" if tuned.metrics["chosen"] == name else " "
            reporter.say(
                f"{mark} {name.upper()}   val {name_of[metric]} {100 * found[metric]:.2f}, {agrees} "
                f"{100 * found['agreement']:.2f} %, KL {found['kl']:.5f}{_decision(found)}"
            )


def _decision(found: Mapping[str, Any]) -> str:
    """What decided: the loss, and the word of the gate."""
    return f", val loss {found['val_loss']:.4f}, gate: {found['word']}" if "val_loss" in found else ""


def say_fit(reporter: Reporter, weights: Mapping[str, Any]) -> None:
    """What of start weights was not one for one that of the network, a line each."""
    fit = weights.get("fit") or {}
    for line in (*words(fit), *lent.words(fit)):
        reporter.say(f"  {line}")
