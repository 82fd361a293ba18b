"""A process that does nothing but write training states, and says after each one which it was."""

from __future__ import annotations

from pathlib import Path

import torch

from octc.train.loop.state import Progress, write_state


def write_for_ever(folder: Path, log: Path) -> None:
    """Numbers of whole states, a line each, in `log`."""
    torch.set_num_threads(1)
    tensors = {f"t{i}": torch.randn(200_000) for i in range(8)}
    serial = 0
    with log.open("a") as stream:
        while True:
            serial += 1
            tensors["w"] = torch.full((50,), float(serial))
            progress = Progress(epoch=serial, history=[{"epoch": 1}] * 2000)
            write_state(folder, {"seed": 0}, serial, progress, tensors)
            stream.write(f"{serial}\n")
            stream.flush()
