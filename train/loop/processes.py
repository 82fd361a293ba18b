"""The processes of a training: their device, and what they must agree on (free of cost where there is one alone)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DataLoaderConfiguration
from torch import distributed, nn

from octc.core.errors import OctcError, first_line
from octc.core.faults import out_of_memory
from octc.imaging.preprocess import Preprocess
from octc.machine.cpu import usable_threads
from octc.train.loop.evaluate import logits_of

# how torch's backends say that another process is gone
LOST = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "timed out",
    "remote process",
    "gloo",
    "nccl",
)
WORKER = ("dataloader worker", "out of shared memory")
GONE = (
    "unspecified launch failure",
    "device is lost",
    "no longer available",
    "fallen off the bus",
    "devices are busy or un",
    "uncorrectable ecc",
    "driver shutting down",
)


def make_accelerator(device: str = "auto", precision: str = "auto") -> Accelerator:
    """The device and precision of this process: bf16 or fp16 on a GPU, fp32 on a CPU (where bf16 is slower).

    Raises:
        OctcError: E903 the device is not there, cannot compute in that precision, or torchrun's processes cannot join.
    """
    if device not in ("auto", "cpu"):
        _take_gpu(device)
    on_gpu = device != "cpu" and torch.cuda.is_available()
    gpu_precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "fp16"
    chosen = (gpu_precision if on_gpu else "no") if precision == "auto" else {"fp32": "no"}.get(precision, precision)
    if chosen == "fp16" and not on_gpu:
        raise OctcError("OCT-E903", "fp16 trains on a GPU only", hint="--precision auto")
    other = device == "auto" and torch.backends.mps.is_available()
    # told to use the CPU, several processes join through gloo; without a GPU and untold, each would train alone
    loading = DataLoaderConfiguration(non_blocking=on_gpu)
    accelerator = Accelerator(cpu=not (on_gpu or other), mixed_precision=chosen, dataloader_config=loading)
    wanted = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != wanted:
        text = f"{wanted} processes were started, and this one sees {accelerator.num_processes}"
        raise OctcError("OCT-E903", text, hint="--device cpu, or torchrun with one process a GPU")
    return accelerator


@contextmanager
def accelerate_apart() -> Iterator[None]:
    """Accelerate's state is the process's: one device and one precision for all that comes after. A job has its own, and then
    the state is as it was: that of the caller (a notebook with an `Accelerator` of its own) or none, so that the next job may
    have another device. Processes that train one network together (torchrun) have one job, and one state."""
    states: tuple[Any, ...] = (PartialState, AcceleratorState, GradientState)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield
        return
    before = [one._shared_state for one in states]
    try:
        for one in states:
            one._shared_state = {}  # its own: an Accelerator that is there keeps the dictionary that it has
        yield
    finally:
        for one, kept in zip(states, before, strict=True):
            one._shared_state = kept


@contextmanager
def torch_lent(accelerator: Accelerator) -> Iterator[None]:
    """torch as a job uses it, and then as it was, for whoever called the job in this process (a notebook): its threads, on a
    CPU all usable ones, shared out among the processes; its random numbers, which a training seeds at every step."""
    device, threads = accelerator.device, torch.get_num_threads()
    gpus = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        if device.type == "cpu":
            torch.set_num_threads(max(1, usable_threads()[0] // accelerator.num_processes))
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _take_gpu(device: str) -> None:
    """Make "cuda:N" this process's GPU; of "cuda", Accelerate takes the one of its rank."""
    index = torch.device(device).index
    if not torch.cuda.is_available() or (index or 0) >= torch.cuda.device_count():
        raise OctcError("OCT-E903", f"device {device} is not available", hint="--device cpu   (octc doctor)")
    if index is not None:
        torch.cuda.set_device(index)


def agreed(accelerator: Accelerator, number: int) -> int:
    """The largest of all processes' numbers: all leave at the same step when one of them got a signal."""
    if accelerator.num_processes == 1:
        return number
    tensor = torch.tensor([number], device=accelerator.device)
    distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
    return int(tensor)


def shared_logits(
    model: nn.Module, images: npt.NDArray[np.uint8], pre: Preprocess, accelerator: Accelerator, stop: Callable[[], object]
) -> torch.Tensor:
    """`logits_of` the main process's network: every process takes its share of the images, all get the same rows."""
    count, rank = accelerator.num_processes, accelerator.process_index
    if count == 1:
        return logits_of(model, images, pre, accelerator.device, stop=stop)
    for tensor in model.state_dict().values():  # BatchNorm's statistics are each process's own
        distributed.broadcast(tensor, 0)
    share = images[rank::count]
    mine = logits_of(model, share, pre, accelerator.device).numpy() if len(share) else None
    parts: list[Any] = [None] * count
    distributed.all_gather_object(parts, mine)
    rows = np.empty((len(images), parts[0].shape[1]), np.float32)
    for place, part in enumerate(parts):
        if part is not None:
            rows[place::count] = part
    return torch.from_numpy(rows)


@contextmanager
def named_failures(accelerator: Accelerator, batch: int) -> Iterator[None]:
    """What torch says as RuntimeError, by name: memory that is too small E302, with a batch to try; a data worker that was
    killed E303, a GPU that is gone E304, a broken connection to another process E305."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _too_small(f"GPU memory is exhausted with {batch} images a step", batch, error) from error
    except (RuntimeError, OSError, MemoryError) as error:
        named = _named(str(error).lower(), accelerator, batch, error)
        if named is None:
            raise
        raise named from error


def _too_small(text: str, batch: int, error: BaseException) -> OctcError:
    hint = f"--batch {max(1, batch // 2)}   (a resumed run: with --allow-change)"
    return OctcError("OCT-E302", text, hint=hint, why=first_line(error))


def _named(said: str, accelerator: Accelerator, batch: int, error: BaseException) -> OctcError | None:
    """The error that it is, by what it says; None for one that octc does not know."""
    if out_of_memory(error):
        return _too_small(f"memory is exhausted with {batch} images a step", batch, error)
    if any(words in said for words in WORKER):
        text = f"a data-loading worker was killed: {_short_of()}"
        hint = "a smaller --batch, more memory, or a larger /dev/shm (a container: --shm-size=1g); then --resume"
        return OctcError("OCT-E303", text, hint=hint, why=first_line(error))
    if any(words in said for words in GONE):
        text = "the GPU is lost: its driver took it away in the middle of a step"
        hint = "look for its Xid line (dmesg, nvidia-smi); then --resume goes on from the last state"
        return OctcError("OCT-E304", text, hint=hint, why=first_line(error))
    if accelerator.num_processes > 1 and any(word in said for word in LOST):
        text = f"process {accelerator.process_index} lost another one of {accelerator.num_processes}"
        hint = "look at the first error of the other processes' logs; --resume continues from the last state"
        return OctcError("OCT-E305", text, hint=hint, why=first_line(error))
    return None


def _short_of() -> str:
    """How much is left of what workers are killed for: shared memory, and RAM."""
    parts = []
    with suppress(OSError):
        shared = os.statvfs("/dev/shm")
        parts.append(f"/dev/shm has {shared.f_bavail * shared.f_frsize >> 20:,} MiB free")
    with suppress(OSError, StopIteration, ValueError, IndexError):
        line = next(row for row in Path("/proc/meminfo").read_text().splitlines() if row.startswith("MemAvailable"))
        parts.append(f"RAM {int(line.split()[1]) >> 10:,} MiB")
    return " and ".join(parts) or "shared memory or RAM is short"
