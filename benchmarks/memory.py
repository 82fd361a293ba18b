"""What keeping freed memory in the process is worth: training steps with glibc's own thresholds, and with `keep_memory`.

    python benchmarks/memory.py [--rounds 3] [--steps 8] [--size 224]

Two processes, one of each kind, take turns (ABBA): a slow phase of the machine meets both. Prints images/s and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import IO

BATCH, MODEL = 16, "tf_efficientnet_lite0"


def work(keep: bool, size: int) -> None:
    """A process that trains `steps` steps whenever a line asks for them, and answers with the seconds."""
    from octc.train.loop.memory import keep_memory

    if keep and not keep_memory():
        sys.exit("no glibc here")
    import torch
    from torch.nn import functional

    from octc.train.networks.models import build_model

    torch.manual_seed(0)
    model = build_model(MODEL, 4).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = torch.randn(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % 4
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        sys.stdout.write(f"{time.perf_counter() - start}\n")
        sys.stdout.flush()


def ask(process: subprocess.Popen[str], steps: int) -> float:
    """Images per second of one turn."""
    pipe_in, pipe_out = _pipe(process.stdin), _pipe(process.stdout)
    pipe_in.write(f"{steps}\n")
    pipe_in.flush()
    return steps * BATCH / float(pipe_out.readline())


def _pipe(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the process has no pipe")
    return stream


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="px")
    parser.add_argument("--work", choices=("keep", "plain"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.work:
        work(chosen.work == "keep", chosen.size)
        return
    pipes = {"text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    kinds = ("plain", "keep")
    words = [sys.executable, __file__, "--size", str(chosen.size), "--work"]
    running = {k: subprocess.Popen([*words, k], **pipes) for k in kinds}  # type: ignore[call-overload]
    for kind in kinds:
        ask(running[kind], 3)  # the first steps prepare kernels
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(chosen.rounds):
        for kind in kinds if number % 2 == 0 else kinds[::-1]:
            rates[kind].append(ask(running[kind], chosen.steps))
    for process in running.values():
        _pipe(process.stdin).close()
        process.wait()
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    ratio = medians["keep"] / medians["plain"]
    sys.stdout.write(
        json.dumps({**{f"{k}_images_s": round(v, 1) for k, v in medians.items()}, "ratio": round(ratio, 2)}) + "\n"
    )


if __name__ == "__main__":
    main()
