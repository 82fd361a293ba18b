"""Which channels `octc simplify --prune` should take: Taylor expansion, magnitude or chance, on networks trained here.

    python benchmarks/pruning.py [MODEL] [SIZE] [--seeds N] [--epochs N] [--images N]

Pictures of stripes in four directions under noise. Each seed trains a network of its own; each rule then takes shares of its
channels: over all layers together, by the score or by the score for each multiply-accumulate that a channel takes (as `octc
simplify` does with Taylor's), or of each layer alike, in which case all rules leave the same structure. Magnitude is how `octc
search` cuts candidates: squared scales of the norms times squared weights that read them. The statistics of the batch norms
are estimated anew, and other pictures are looked at before and after a short distillation from the network as it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import timm
import torch
from torch import nn
from torch.nn import functional

from octc.compress.simplify.pruning import (
    channel_macs,
    channel_step,
    choose_channels,
    choose_evenly,
    find_groups,
    importance,
    removed_share,
)
from octc.compress.simplify.steps import Calibration
from octc.compress.simplify.untrained import weight_importance
from octc.imaging.preprocess import Preprocess
from octc.train.loop.averaging import refresh_norms
from octc.train.loop.evaluate import network_input
from octc.train.networks.macs import count_macs
from octc.train.networks.simplified import apply_steps

Scores = list[torch.Tensor]
SHARES = (0.25, 0.5)
CHOICES: dict[str, Callable[[Scores, Scores, float], list[list[int]]]] = {
    "all layers": lambda scores, _, share: choose_channels(scores, share),
    "all layers, each MAC": lambda scores, macs, share: choose_channels(
        [a / b for a, b in zip(scores, macs, strict=True)], share
    ),
    "each layer": lambda scores, _, share: choose_evenly(scores, share),
}
DIRECTIONS, CALIBRATION, BATCH, RATE = 4, 128, 32, 4e-3


def drawn(count: int, seed: int, size: int) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """So many pictures of stripes in four directions under noise, uint8 [N, 1, S, S], and their directions."""
    rng = np.random.default_rng(seed)
    labels = [k % DIRECTIONS for k in range(count)]
    y, x = np.mgrid[:size, :size]
    pictures = []
    for label in labels:
        angle, period, phase = np.pi * label / DIRECTIONS, rng.uniform(7, 12), rng.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + phase)
        pictures.append(np.clip(128 + 40 * wave + rng.normal(0, 40, wave.shape), 0, 255).astype(np.uint8))
    return np.stack(pictures)[:, None], labels


def trained(
    model: nn.Module, inputs: torch.Tensor, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], epochs: int, rate: float
) -> nn.Module:
    """The network after so many epochs. loss: of logits and the rows that they are of."""
    rng = np.random.default_rng(0)
    steps = epochs * (len(inputs) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        order = torch.from_numpy(rng.permutation(len(inputs)))
        for k in range(len(inputs) // BATCH):
            rows = order[k * BATCH : (k + 1) * BATCH]
            optimizer.zero_grad()
            loss(model(inputs[rows]), rows).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def judged(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Accuracy in percent and cross-entropy."""
    logits = torch.cat([model(one) for one in inputs.split(64)])
    return 100 * float((logits.argmax(1) == labels).double().mean()), float(functional.cross_entropy(logits, labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?", default="test_efficientnet")
    parser.add_argument("size", nargs="?", type=int, default=48)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--images", type=int, default=256)
    words = parser.parse_args()
    pre = Preprocess(words.size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    images, labels = drawn(words.images, 0, words.size)
    val_images, val_labels = drawn(words.images, 1, words.size)
    x, y = network_input(torch.from_numpy(images), pre), torch.tensor(labels)
    val, val_y = network_input(torch.from_numpy(val_images), pre), torch.tensor(val_labels)
    known = Calibration(images[:CALIBRATION], labels[:CALIBRATION], pre)
    rows: dict[tuple[str, float, str], list[tuple[float, ...]]] = {}
    whole = []
    for seed in range(words.seeds):
        torch.manual_seed(seed)
        model = timm.create_model(words.model, num_classes=DIRECTIONS)
        trained(model, x, lambda logits, at: functional.cross_entropy(logits, y[at]), words.epochs, RATE)
        whole.append((*judged(model, val, val_y), count_macs(model, words.size) / 1e6))
        sys.stderr.write(f"seed {seed}: {whole[-1][0]:.1f} % right\n")
        with torch.no_grad():
            soft = torch.cat([model(one) for one in x.split(64)]).softmax(1)
        groups = find_groups(copy.deepcopy(model), words.size)
        costs = channel_macs(copy.deepcopy(model), groups, words.size)
        drawing = torch.Generator().manual_seed(seed)
        rules = {
            "Taylor": importance(copy.deepcopy(model), groups, known.labelled()),
            "magnitude": weight_importance(model, groups),
            "chance": [torch.rand(group.count, generator=drawing, dtype=torch.float64) for group in groups],
        }
        for rule, scores in rules.items():
            for share in SHARES:
                for choice, choose in CHOICES.items():
                    chosen = choose(scores, costs, share)
                    cut = channel_step(groups, chosen)
                    small = copy.deepcopy(model)
                    apply_steps(small, [] if cut is None else [cut])
                    refresh_norms(small, known.mixed())
                    before = judged(small.eval(), val, val_y)
                    small.requires_grad_(True)
                    short = max(1, words.epochs // 4)
                    trained(
                        small, x, lambda logits, at, soft=soft: functional.cross_entropy(logits, soft[at]), short, 0.3 * RATE
                    )  # type: ignore[misc]
                    after, macs = judged(small, val, val_y), count_macs(small, words.size) / 1e6
                    found = (100 * removed_share(groups, chosen), macs, *before, *after)
                    rows.setdefault((rule, share, choice), []).append(found)
    sys.stdout.write(f"{words.model} at {words.size} px, {words.seeds} seeds; whole: {_spread(whole)}\n")
    sys.stdout.write("rule | asked | over | channels out, % | million MACs | accuracy, loss before tuning | after\n")
    for (rule, share, choice), found in rows.items():
        sys.stdout.write(f"{rule} | {100 * share:g} % | {choice} | {_spread(found)}\n")
    plain = [{"rule": rule, "share": share, "over": choice, "seeds": found} for (rule, share, choice), found in rows.items()]
    sys.stdout.write(json.dumps({"model": words.model, "size": words.size, "whole": whole, "rows": plain}) + "\n")


def _spread(rows: Sequence[tuple[float, ...]]) -> str:
    """Mean and the least and the most over seeds, of each column."""
    return " | ".join(f"{statistics.mean(one):.3g} [{min(one):.3g}, {max(one):.3g}]" for one in zip(*rows, strict=True))


if __name__ == "__main__":
    main()
