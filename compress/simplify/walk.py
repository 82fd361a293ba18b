"""The steps of a run that is made simpler: each is distilled, judged on the validation set, and written when it is whole."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from octc.compress.finetune import calibration_indices, check_calibration
from octc.compress.simplify.distil import asked_once, both_ways, with_views
from octc.compress.simplify.network import sizes
from octc.compress.simplify.source import SourceRun
from octc.compress.simplify.steps import CHANNELS, Calibration, Latency, Wanted, lots, make_step, share_within, steps_wanted
from octc.core.errors import OctcError
from octc.core.files import read_json, write_json
from octc.core.progress import Reporter
from octc.datasets.base import sample_ids
from octc.imaging.preprocess import Preprocess
from octc.schemas.simplified import KEY, Step, read_steps, steps_json
from octc.schemas.simplifying import SimplifyOptions
from octc.stats.task import MULTICLASS, Answers
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import GateResult
from octc.store.runs import Run
from octc.train.jobs.progress import StageProgress
from octc.train.loop.checkpoint import Checkpoint, is_checkpoint, load_strictly, read_checkpoint, write_checkpoint
from octc.train.loop.evaluate import logits_of
from octc.train.loop.fit import fit
from octc.train.loop.training import Data, Fitted
from octc.train.loop.ways import Ways
from octc.train.networks.simplified import apply_steps
from octc.train.recipes.config import Stage
from octc.train.stages import Context, facts_of, fit_options, stage_data

FOLDER, START = "simplify", "start"
MEASURED = "measured.json"
DAMAGED = ("OCT-E307", "OCT-E310", "OCT-E501")  # of a checkpoint: not readable, without its weights, not of its sums
MakeLatency = Callable[[Preprocess], Latency]


@dataclass
class Walk:
    """A run that is made, and where it stands. current: the network so far, on the CPU; steps: those that made it,
    of the student that was given too, and those that were kept."""

    source: SourceRun
    options: SimplifyOptions
    ctx: Context
    shown: StageProgress
    reporter: Reporter
    stage: Stage
    current: nn.Module
    steps: list[Step]
    metrics: dict[str, Any]
    ways: Ways | None = None
    data: Data | None = None
    calibration: Calibration | None = None

    @property
    def run(self) -> Run:
        return self.ctx.run


def wanted_of(options: SimplifyOptions, share: float = 0.0) -> list[Wanted]:
    """The steps that are asked for. share: of the channels, where a budget has chosen it."""
    share = options.prune or share
    return steps_wanted(options.activation, options.no_se, lots(share) if share else [])


def take_steps(walk: Walk, latency: MakeLatency | None) -> dict[str, Any]:
    """Every step; a lot of channels that is not kept ends the pruning: more would cost more."""
    taken: list[dict[str, Any]] = []
    document: dict[str, Any] = {"source": walk.source.run.id, "steps": taken}
    for number, one in enumerate(wanted_of(walk.options), 1):
        _take(walk, number, one, taken)
    if walk.options.budget is not None and latency is not None:
        found = _measured(walk, latency)
        document["measured"] = found["rows"]
        for number, one in enumerate(wanted_of(walk.options, found["share"])[len(taken) :], len(taken) + 1):
            _take(walk, number, one, taken)
    if not any(one["kept"] for one in taken) and taken:
        text = f"no step of {walk.run.id} was accepted on the validation set: nothing was made simpler"
        hint = f"octc simplify {walk.source.run.id} with more --epochs, a smaller --prune or a larger --margin"
        raise OctcError("OCT-E405", text, hint=hint, place=str(walk.run.path))
    if not taken:
        rows = document["measured"]
        text = f"{walk.source.run.id} takes {rows[0]['ms']:.2f} ms: it is within the budget as it is"
        raise OctcError("OCT-E413", text, hint="octc export", place="--budget")
    if walk.options.budget is not None and latency is not None:
        document |= _against_budget(walk, latency, walk.options.budget)
    return document


def _against_budget(walk: Walk, latency: MakeLatency, budget: float) -> dict[str, Any]:
    """The time of what was kept: lots that the gate refused are in it still, and each lot rounds channels up."""
    found = latency(walk.source.checkpoint.preprocess)(walk.current)
    walk.reporter.say(f"{'✓' if found <= budget else '!'} {found:.2f} ms in INT8 with what was kept, {budget:g} ms are allowed")
    return {"budget_ms": budget, "ms": found, "within_budget": found <= budget}


def _take(walk: Walk, number: int, one: Wanted, taken: list[dict[str, Any]]) -> None:
    """A step, unless a lot before it was not kept."""
    if one.kind == CHANNELS and any(row["step"] == CHANNELS and not row["kept"] for row in taken):
        return
    folder = walk.run.path / FOLDER / f"{number:02d}-{one.kind}"
    row = _done(walk, folder) or _made(walk, folder, one)
    taken.append(row)
    accuracy = row["gate"].get("accuracy", {})
    change = " -> ".join(f"{accuracy[name]:.2f}" for name in ("reference", "candidate") if name in accuracy)
    why = "" if row["kept"] else f" ({', '.join(row['gate'].get('reasons', []))}): it is taken back"
    before, after = row["facts"]["macs"]
    text = f"{one.kind}: {_facts(row['facts'])}; {before / 1e6:.0f} -> {after / 1e6:.0f} million MACs; val accuracy {change}"
    walk.reporter.say(f"{'✓' if row['kept'] else '!'} {text}, {row['word']}{why}")


def _facts(facts: dict[str, Any]) -> str:
    if "replaced" in facts:
        return ", ".join(f"{count} {name}" for name, count in facts["replaced"].items()) + f" -> {facts['by']}"
    if "share" in facts:
        return f"{facts['removed']} of {facts['channels']} channels out"
    return f"{facts['removed']} squeeze-excite out" + (f", {len(facts['stay'])} stay" if facts["stay"] else "")


def _done(walk: Walk, folder: Path) -> dict[str, Any] | None:
    """A step that an earlier process finished; its network, where it was kept."""
    if (found := _whole(walk, folder)) is None:
        return None
    checkpoint, state = found
    row: dict[str, Any] = checkpoint.metrics["step"]
    _settle(walk, folder, checkpoint)
    if row["kept"]:
        _enter(walk, checkpoint, state)
    return row


def _whole(walk: Walk, folder: Path) -> tuple[Checkpoint, dict[str, torch.Tensor]] | None:
    """A checkpoint of this run; None where there is none, or a damaged one: it is made again, and is the same."""
    if not is_checkpoint(folder):
        return None
    try:
        return read_checkpoint(folder)
    except OctcError as error:
        if error.code not in DAMAGED:
            raise
        walk.reporter.warn("OCT-W306", f"{error.message}: it is made again", str(folder))
        return None


def _enter(walk: Walk, checkpoint: Checkpoint, state: dict[str, torch.Tensor]) -> None:
    """The network of a step that was kept is the current one."""
    steps = read_steps(checkpoint.model_kwargs[KEY])
    apply_steps(walk.current, steps[len(walk.steps) :])
    load_strictly(walk.current, state, "")
    walk.current.eval()
    walk.steps = steps
    walk.metrics = {key: value for key, value in checkpoint.metrics.items() if key != "step"}


def _changed(walk: Walk, checkpoint: Checkpoint, state: dict[str, torch.Tensor]) -> nn.Module:
    """A copy of the current network with the changes that a checkpoint has beyond it, and the checkpoint's weights."""
    network = copy.deepcopy(walk.current)
    apply_steps(network, read_steps(checkpoint.model_kwargs[KEY])[len(walk.steps) :])
    load_strictly(network, state, walk.run.id)
    return network.eval()


def _made(walk: Walk, folder: Path, one: Wanted) -> dict[str, Any]:
    """Change, distil, judge; written when it is whole."""
    start, state = _started(walk, folder, one)
    facts = start.metrics["facts"]
    data, ways = _lesson(walk)
    walk.shown.begin(one.kind, walk.stage.epochs, walk.stage.batch, len(data.labels))
    ctx = with_views(walk.ctx, walk.stage)
    options = fit_options(ctx, folder, facts_of(ctx, walk.stage, FOLDER, start.sha256))
    fitted = fit(_changed(walk, start, state).requires_grad_(True), walk.stage, data, ways, options)
    kept, metrics = _better(walk, (_changed(walk, start, state), state), fitted, data)
    tuned = _changed(walk, start, kept)
    result = _gate(walk, tuned, data)
    row = {"step": one.kind, "kept": result.accepted, "word": result.word, "gate": result.to_json()}
    row["facts"] = {**facts, **sizes(walk.current, tuned, walk.stage.size)}
    made = write_checkpoint(folder, kept, replace(start, metrics={**metrics, "step": row}))
    _settle(walk, folder, made)
    if result.accepted:
        _enter(walk, made, kept)
    return row


def _settle(walk: Walk, folder: Path, made: Checkpoint) -> None:
    """What follows the checkpoint of a step, also where a kill came between: its line in the stage log, and an end to its
    beginning."""
    row, which = made.metrics["step"], {"step": folder.name, "sha256": made.sha256}
    if not walk.run.has_stage(FOLDER, **which):
        walk.run.log_stage(FOLDER, **which, **{name: row[name] for name in ("kept", "word", "facts")})
    shutil.rmtree(folder / START, ignore_errors=True)


def _better(
    walk: Walk, start: tuple[nn.Module, dict[str, torch.Tensor]], fitted: Fitted, data: Data
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights after the distillation, or those before it where these have the smaller loss on val; and their metrics."""
    logits = logits_of(start[0], data.val_images, data.preprocess, "cpu")
    labels = torch.tensor(list(data.val_labels))
    loss = float(functional.cross_entropy(logits, labels))
    if fitted.metrics["val_loss"] <= loss:
        return fitted.state, {**fitted.metrics, "start_val_loss": loss}
    walk.reporter.say(f"  as it began: val loss {loss:.4f}, {fitted.metrics['val_loss']:.4f} after the distillation")
    accuracy = float((logits.argmax(1) == labels).double().mean())
    return start[1], {**fitted.metrics, "epoch": 0, "val_accuracy": accuracy, "val_loss": loss, "start_val_loss": loss}


def _started(walk: Walk, folder: Path, one: Wanted) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    """The network right after a change, before it is tuned: made once, and read by whoever goes on."""
    if (found := _whole(walk, folder / START)) is not None:
        return found
    network = copy.deepcopy(walk.current)
    made = make_step(network, one, _calibration(walk))
    checkpoint = replace(stated(walk, [*walk.steps, made.step]), metrics={"facts": made.facts})
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return write_checkpoint(folder / START, state, checkpoint), state


def stated(walk: Walk, steps: list[Step]) -> Checkpoint:
    """The checkpoint of the student that was given, with another structure and where it comes from."""
    known = walk.source.checkpoint
    parent = {**(known.parent or {}), "simplified": {"run": walk.source.run.id, "sha256": known.sha256}}
    return replace(known, model_kwargs={**known.model_kwargs, KEY: steps_json(steps)}, parent=parent, quantisation=None)


def _lesson(walk: Walk) -> tuple[Data, Ways]:
    """The images, and how each step is tuned: the same for all of them."""
    if walk.data is None or walk.ways is None:
        ctx = with_views(walk.ctx, walk.stage)
        walk.data = stage_data(ctx, walk.stage)
        own = (copy.deepcopy(walk.source.model).requires_grad_(False), walk.source.checkpoint.sha256, walk.source.folder)
        caches = asked_once(ctx, walk.stage, walk.data, own)
        walk.ways = both_ways(caches, ctx.recipe.distillation, ctx.recipe.quantisation)
    return walk.data, walk.ways


def _calibration(walk: Walk) -> Calibration:
    """The calibration images of the training part, as INT8 calibrates on them too (OctcError E214)."""
    if walk.calibration is None:
        data, _ = _lesson(walk)
        train, split = walk.source.split.parts["train"], walk.source.split
        rows = calibration_indices([s.label for s in train], walk.source.recipe.quantisation.calibration, walk.ctx.seed)
        check_calibration([train[int(i)] for i in rows], {part: split.parts[part] for part in ("val", "test")})
        plain = stage_data(walk.ctx, replace(walk.stage, views="", canvas=1.0)) if walk.stage.views else data
        images = np.array(plain.images[rows])
        walk.calibration = Calibration(images, [train[int(i)].label for i in rows], walk.source.checkpoint.preprocess)
    return walk.calibration


def _gate(walk: Walk, network: nn.Module, data: Data) -> GateResult:
    """The export gate on the validation set, against the student that was given."""
    device, pre, samples = walk.ctx.accelerator.device, walk.source.checkpoint.preprocess, walk.source.split.parts["val"]
    reference = logits_of(copy.deepcopy(walk.source.model).to(device), data.val_images, pre, device).numpy()
    candidate = logits_of(copy.deepcopy(network).to(device), data.val_images, pre, device).numpy()
    answers = Answers(sample_ids(samples), samples, reference, candidate, walk.source.checkpoint.classes)
    return MULTICLASS.gate(answers, ParityOptions(margin=walk.options.margin), ())


def _measured(walk: Walk, latency: MakeLatency) -> dict[str, Any]:
    """The share of channels that the budget needs, measured once: who goes on takes the same."""
    path = walk.run.path / FOLDER / MEASURED
    if path.is_file():
        try:
            return dict(read_json(path))
        except ValueError as error:  # another time could choose another share than that of the steps that are done
            text, hint = f"{MEASURED} cannot be read: {error}", f"restore it, or octc simplify {walk.source.run.id} anew"
            raise OctcError("OCT-E501", text, hint=hint, place=str(path)) from error
    measure = latency(walk.source.checkpoint.preprocess)
    budget = float(walk.options.budget or 0.0)
    share, rows = share_within(copy.deepcopy(walk.current), _calibration(walk), budget, measure)
    found = {"share": share, "rows": rows, "budget_ms": budget}
    write_json(path, found)
    for row in rows:
        walk.reporter.say(f"  measured  {100 * row['share']:.1f} % of the channels out: {row['ms']:.2f} ms in INT8")
    return found
