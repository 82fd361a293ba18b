"""Activations in place and out of place in training: forward and backward, in turns.

    python benchmarks/activations.py [--rounds 8] [--threads 2] [--json]

One map [16, 96, 112, 112], channels last, with the memory setting that octc trains with. Whether both ways give the same
values and gradients to the bit stands in the last column.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch
from torch import nn

from octc.machine.cpu import usable_threads
from octc.train.loop.memory import keep_memory

SHAPE = (16, 96, 112, 112)
KINDS: tuple[type[nn.Module], ...] = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Mish)


def turn(activation: nn.Module, x: torch.Tensor) -> tuple[float, torch.Tensor, torch.Tensor]:
    """Seconds of forward and backward, the values, and the gradient of x."""
    x.grad = None
    y = x * 1.5
    gradient = torch.ones_like(y)
    start = time.perf_counter()
    out = activation(y)
    out.backward(gradient)
    seconds = time.perf_counter() - start
    assert x.grad is not None
    return seconds, out.detach(), x.grad


def measure(kind: type[nn.Module], x: torch.Tensor, rounds: int) -> dict[str, object]:
    """Medians in ms of both ways, the median of the rounds' ratios, and whether they agree to the bit."""
    ways = {"in place": kind(inplace=True), "out of place": kind(inplace=False)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    same = True
    for number in range(rounds + 1):  # the first one warms up
        results = []
        for name in list(ways) if number % 2 else list(ways)[::-1]:
            took, *tensors = turn(ways[name], x)
            results.append(tensors)
            if number:
                seconds[name].append(took)
        same = same and all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    ratio = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
    return {
        **{name: round(1e3 * statistics.median(s), 2) for name, s in seconds.items()},
        "ratio": round(ratio, 3),
        "same": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--threads", type=int, default=usable_threads()[0])
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    keep_memory()
    torch.manual_seed(0)
    x = torch.randn(SHAPE).contiguous(memory_format=torch.channels_last).requires_grad_()
    found = {kind.__name__: measure(kind, x, chosen.rounds) for kind in KINDS}
    for name, row in found.items():
        sys.stdout.write(f"{name:<12} in place {row['in place']:>7} ms   out of place {row['out of place']:>7} ms   ")
        sys.stdout.write(f"{row['ratio']} times, the same to the bit: {row['same']}\n")
    if chosen.json:
        sys.stdout.write(json.dumps({"shape": SHAPE, "threads": chosen.threads, "torch": torch.__version__, **found}) + "\n")


if __name__ == "__main__":
    main()
