"""What `octc train` says before and after the work: every default that was chosen, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from octc.cli._app.session import Session
from octc.cli.train_request import Request
from octc.cli.train_weights import weights_words

if TYPE_CHECKING:
    from accelerate import Accelerator

    from octc.datasets.split import Split
    from octc.train.loop.checkpoint import Checkpoint


def say_plan(session: Session, asked: Request, split: Split, root: Path, accelerator: Accelerator) -> None:
    """Every default that was chosen."""
    stage = asked.recipe.teacher if asked.kind == "teacher" else asked.recipe.student
    total = sum(sum(row.values()) for row in split.counts().values())
    fold = f" · fold {split.fold[0]} of {split.fold[1]}" if split.fold else ""
    session.say(f"octc train {asked.kind} · recipe {asked.recipe.name} · seed {asked.seed}{fold}")
    session.say(f"✓ dataset {asked.dataset}   {total:,} images in {root} (choose with --data DIR)")
    say_split(session, split)
    precision = {"no": "fp32"}.get(str(accelerator.mixed_precision), str(accelerator.mixed_precision))
    several = f" · {accelerator.num_processes} processes" if accelerator.num_processes > 1 else ""
    qat = f" + {asked.recipe.quantisation.epochs} of QAT" if asked.kind == "student" and asked.qat else ""
    more = f" x {stage.accumulate} = {stage.batch * stage.accumulate} an update" if stage.accumulate > 1 else ""
    session.say(
        f"✓ plan      {stage.model} at {stage.size} px · {stage.epochs} epochs{qat} · batch {stage.batch}{more} · "
        f"{precision} on {accelerator.device}{several}"
    )


def say_split(session: Session, split: Split) -> None:
    """Images of each part, its patients where they are known, and whether anything is on two sides."""
    from octc.cli.data_split import dropped_words

    counts = {part: sum(row.values()) for part, row in split.counts().items()}
    known = split.patient_ids
    people = {part: f" ({count:,} patients)" if count is not None else "" for part, count in split.people().items()}
    shown = f"{'/'.join(counts)} {'/'.join(f'{counts[part]:,}{people[part]}' for part in counts)}"
    if known.warning:
        session.warn("OCT-W212", known.warning)
    if split.note:
        session.warn("OCT-W219", split.note)
        session.say(f"! split     {split.protocol} · {shown} · leakage: see the warning")
        return
    left = f" · {dropped_words(split)}" if split.dropped else ""
    if known.leakage:
        how = "by image" if known.count is None else "by patient where one is known"
        session.say(f"! split     {how} · {shown} · {known.leakage}{left}")
    else:
        session.say(f"✓ split     patient-level · {shown} · leakage: none{left}")


def say_outcome(session: Session, made: Checkpoint, split: Split) -> None:
    """Accuracy on the validation set with its interval (it chose the epoch: no claim), and the licences of the weights."""
    from octc.datasets.base import ids_of
    from octc.stats.proportions import wilson

    metrics = made.metrics
    n = int(metrics["val_n"])
    hits = round(float(metrics["val_accuracy"]) * n)
    low, high = wilson(hits, n) or (0.0, 1.0)
    people = ids_of(split.parts["val"]).words
    session.say(
        f"✓ best epoch {metrics['epoch']} of {metrics['epochs']} by {metrics['select']} (sha256 {made.sha256[:8]})\n"
        f"  val accuracy {100 * hits / n:.2f} [{100 * low:.2f}, {100 * high:.2f}] ({hits}/{n}), {people}; "
        f"it chose the epoch: no claim"
    )
    source, licence = made.weights.get("source", "unknown"), made.weights.get("licence", "unknown")
    session.say(f"  start weights: {source}; licence: {licence}")
    weights_words(session, made.weights)
    taught = (made.parent or {}).get("weights") or {}
    if taught:
        session.say(f"  its teacher's: {taught.get('source', 'unknown')}; licence: {taught.get('licence', 'unknown')}")


def say_tuned(session: Session, tuned: Checkpoint) -> None:
    """PTQ and QAT on the validation set, and which was kept."""
    for name in ("ptq", "qat"):
        found = tuned.metrics.get(name)
        if found:
            mark = "✓" if tuned.metrics["chosen"] == name else " "
            session.say(
                f"{mark} {name.upper()}   val accuracy {100 * found['val_accuracy']:.2f}, agreement with the float student "
                f"{100 * found['agreement']:.2f} %, KL {found['kl']:.5f}"
            )
