"""What a student learns from: one frozen teacher or several, as they are or calibrated, asked at every step or once a view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from octc.core.errors import OctcError
from octc.stats.temperature import fit_temperature
from octc.store.claims import divided
from octc.train.batches.mix import mix_targets
from octc.train.distill.cached_logits import Drawn, Logits, claim_of, folder_of, missing_views, read_logits, write_view
from octc.train.distill.losses import teacher_loss
from octc.train.loop.evaluate import logits_of
from octc.train.loop.label_losses import Loss
from octc.train.loop.training import Data
from octc.train.loop.ways import Batch, Forward, Ways, plain_ways
from octc.train.networks.folded import folded
from octc.train.recipes.config import Distillation, Stage

Tensor = torch.Tensor
Told = Callable[[int, int], None]
Step = Callable[[Forward, Batch], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True)
class Teacher:
    """A frozen network that takes the student's input, the sum of its weights, and what its logits are divided by."""

    net: nn.Module
    sha256: str
    temperature: float = 1.0


def fast(net: nn.Module, size: int, device: Any) -> nn.Module:
    """The network with its norms folded, where that changes nothing but the time."""
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    return folded(net, x.contiguous(memory_format=torch.channels_last))


def calibrated(teacher: Teacher, data: Data, device: Any) -> tuple[Teacher, dict[str, Any]]:
    """The teacher with the temperature that fits val best (Guo et al. 2017), and how it was fitted; 1 with a reason where val
    cannot tell (too few images, no error). val chooses epochs too; test is not looked at."""
    found = fit_temperature(logits_of(teacher.net, data.val_images, data.preprocess, device).numpy(), data.val_labels)
    return Teacher(teacher.net, teacher.sha256, found.value), found.to_json()


def mean_logits(each: Sequence[Tensor], temperatures: Sequence[float]) -> Tensor:
    """Mean of the teachers' logits over their temperatures: at every T the normalised geometric mean of their softmaxes, which
    is one of the two ensembles of Hinton et al. 2015. One teacher of temperature 1 is left as it is."""
    if len(each) == 1 and temperatures[0] == 1.0:
        return each[0]
    return torch.stack([z / t for z, t in zip(each, temperatures, strict=True)]).mean(0)


def asked(teachers: Sequence[Teacher], autocast: Callable[[], Any]) -> Callable[[Tensor], Tensor]:
    """The teachers as a function of the student's input: logits float32 [N, K], without gradients."""

    def ask(x: Tensor) -> Tensor:
        with torch.no_grad(), autocast():
            return mean_logits([t.net(x).detach().float() for t in teachers], [t.temperature for t in teachers])

    return ask


def check_distillation(how: Distillation, stage: Stage) -> None:
    """Refuse (E104) what cannot be had: cached views or DKD of mixed images."""
    if stage.mix.on and (how.views or how.kind == "dkd"):
        what = "cached views" if how.views else "DKD"
        text = f"{what} and MixUp or CutMix: a mixed image has no view of its own, and no one true class"
        raise OctcError("OCT-E104", text, hint="a recipe without mixing, or --cached-views 0 and --distil kl or dist")


def distilled_loss(ask: Callable[[Tensor], Tensor], how: Distillation, on_labels: Loss) -> Loss:
    """Distillation from teachers that are asked at every step, about the student's very input."""

    def loss(logits: Tensor, x: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return total(logits, ask(x), x, labels, how, on_labels)

    return loss


def total(
    logits: Tensor, target: Tensor, x: Tensor, labels: Tensor, how: Distillation, on_labels: Loss
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a student's logits against a teacher's, and its two parts."""
    soft, (hard, _) = teacher_loss(logits, target, labels, how), on_labels(logits, x, labels)
    value = how.alpha * soft + (1 - how.alpha) * hard if how.kind == "kl" else hard + soft
    return value, {"soft": soft, "hard": hard}


def cached_ways(caches: Sequence[Logits], temperatures: Sequence[float], how: Distillation, on_labels: Loss) -> Ways:
    """Distillation from cached logits; epoch e shows view e mod `how.views`, drawn from `how.view_seed`."""

    def step(forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        target = cached_target(caches, temperatures, how, batch)
        logits = forward(batch.inputs)
        labels = mix_targets(batch.labels, batch.mixing, logits.shape[1])
        value, parts = total(logits, target, batch.inputs, labels, how, on_labels)
        return value, {**parts, "acc": (logits.argmax(1) == batch.labels).float().mean()}

    return cached_views(plain_ways(on_labels), how, step)


def cached_views(ways: Ways, how: Distillation, step: Step) -> Ways:
    """`ways` with another step, on the views that are cached."""
    return Ways(ways.optimizer, step, ways.judge, lambda _seed, epoch: (how.view_seed, epoch % how.views))


def cached_target(caches: Sequence[Logits], temperatures: Sequence[float], how: Distillation, batch: Batch) -> Tensor:
    """What the teachers said of a batch's pictures (E311 where a sampled one is another picture)."""
    view = batch.epoch % how.views
    caches[0].check(view, batch.indices, batch.inputs)  # all of them were shown the same pictures
    each = [cache.of(view, batch.indices).to(batch.inputs.device, non_blocking=True) for cache in caches]
    return mean_logits(each, temperatures)


def cache_of(
    teacher: Teacher, split: str, data: Data, drawn: Drawn, cache: Path, accelerator: Any, told: Told = lambda _d, _t: None
) -> Logits:
    """A teacher's logits of all views: read, or computed where they are missing: each process takes its share of the views, and
    trainings of the same teacher at the same time divide them.

    Raises:
        OctcError: E301, E311, E501, E904 as `write_view` and `read_logits`.
    """
    key = drawn.key(teacher.sha256, split)
    folder = folder_of(cache, key)
    missing = missing_views(folder, drawn.views)
    accelerator.wait_for_everyone()  # all have looked before the first one writes
    mine = missing[accelerator.process_index :: accelerator.num_processes]
    done = 0

    def tell(images: int) -> None:
        nonlocal done
        done += images
        told(done, len(mine) * len(data.labels))

    def ask(x: Tensor) -> Tensor:
        with torch.inference_mode(), accelerator.autocast():
            logits: Tensor = teacher.net(x)
        return logits

    def left() -> list[int]:
        return [view for view in missing_views(folder, drawn.views) if view in mine]

    for view in divided(left, lambda view: claim_of(folder, view)):  # other trainings that share the folder want the same
        write_view(folder, key, view, ask, data, drawn, accelerator.device, tell)
    accelerator.wait_for_everyone()
    return read_logits(folder, key, drawn.views, len(data.labels))
