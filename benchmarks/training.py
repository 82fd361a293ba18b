"""Throughput of distillation: KD-OCT's loop as specified against octc's, teacher on line and teacher's logits cached.

    python benchmarks/training.py [--data DIR] [--rounds 3] [--steps 8] [--only cached bare] [--full] [--quick] [--json]

One process; the loops take turns (ABCD, DCBA, ...), so that a slow phase of the machine meets all of them. Same networks,
size and batch, random weights, no mixing of images (KD-OCT has none, and a mixed image has no cached view). The images are
drawn at the sizes of UCSD's JPEGs (512 x 496 and 768 x 496), or those in DIR.
A turn is timed from the making of its loader and optimiser to the end of its last step; validation is in none of them.

seed           KD-OCT's loop (benchmarks/seed_loop.py) with glibc's own memory thresholds, as it would run by itself
seed, kept     the same with the memory setting that octc uses (train/loop/memory.py)
online         octc.train.loop.fit.fit, the teacher asked at every step
online, bf16   the same with `--teacher-precision bf16`, where the device computes bfloat16
cached         octc.train.loop.fit.fit with cached views (`--cached-views`): without the time that filled the cache, which is
               printed beside it together with that of the image cache
bare           the student's step alone (forward, backward, AdamW; activations as octc's loop has them) on one batch that
               lies in memory: no loop that makes the same step can be faster than this. `bare, taught` asks the teacher too

--full: one step of ConvNeXtV2-Large and EfficientNet-B2 at 384 px a turn. --quick: 64 px and the smallest ConvNeXtV2 as the
teacher, to see that it works.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import seed_loop
import torch
from accelerate import Accelerator
from torch.nn import functional

from octc.core.files import sha256_file
from octc.datasets.base import Sample
from octc.datasets.synthetic.bscans import CLASSES, draw_phantom
from octc.imaging.preprocess import Preprocess
from octc.machine.cpu import usable_threads
from octc.machine.host import read_machine
from octc.train.batches.images import cached_images
from octc.train.distill.cached_logits import Drawn
from octc.train.distill.precision import BF16, has_bf16, in_precision
from octc.train.distill.teachers import Teacher, asked, cache_of, cached_ways, distilled_loss, fast
from octc.train.loop.fit import FitOptions, fit
from octc.train.loop.label_losses import label_loss
from octc.train.loop.memory import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_memory
from octc.train.loop.processes import make_accelerator
from octc.train.loop.training import Data
from octc.train.networks.in_place import without_copies
from octc.train.networks.models import build_model
from octc.train.recipes.config import Distillation, Mix, Objective, Stage
from octc.train.recipes.edge import edge
from octc.train.recipes.kd_oct import kd_oct_ucsd
from octc.train.stages import preprocess_of

SIZES = ((512, 496), (768, 496))
SUFFIXES = (".jpeg", ".jpg", ".png", ".tif", ".tiff", ".bmp")
VIEWS = 1
SMALL = "convnextv2_atto"  # the teacher of --quick
LOOPS = ("seed", "seed, kept", "online", "online, bf16", "cached", "bare, taught", "bare")
RATIOS = {
    "ratio_online_vs_seed": ("online", "seed"), "ratio_cached_vs_seed": ("cached", "seed"),
    "ratio_online_vs_seed_same_memory": ("online", "seed, kept"), "ratio_cached_vs_seed_same_memory": ("cached", "seed, kept"),
    "ratio_bf16_vs_online": ("online, bf16", "online"),
    "bound_online_vs_seed": ("bare, taught", "seed"), "bound_cached_vs_seed": ("bare", "seed"),
    "share_online_of_bound": ("online", "bare, taught"), "share_cached_of_bound": ("cached", "bare"),
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What all loops work on. files lie under root, at any depth."""

    teacher: Stage
    student: Stage
    files: list[Path]
    root: Path
    labels: list[int]
    folder: Path
    steps: int
    workers: int
    accelerator: Accelerator


def glibc_memory() -> None:
    """Where glibc's own thresholds end up in a process that uses large blocks: 32 MiB, and twice that."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 64 << 20)


def drawn_files(folder: Path, count: int) -> list[Path]:
    """Phantoms as JPEG, of both sizes."""
    files = []
    for i in range(count):
        path = folder / f"{i:04d}.jpeg"
        draw_phantom(CLASSES[i % len(CLASSES)], i, i, SIZES[i // len(CLASSES) % 2]).save(path, quality=92)
        files.append(path)
    return files


def seed_turn(work: Work) -> Callable[[], float]:
    """KD-OCT's loop."""
    device = work.accelerator.device
    teacher, student = _networks(work)
    pictures = seed_loop.Pictures(work.files, work.labels, work.student.size)
    return lambda: seed_loop.train(
        student.to(device), teacher.to(device), pictures, work.steps, work.student.batch, work.workers, device
    )  # fmt: skip


def octc_turns(work: Work) -> tuple[dict[str, Callable[[], float]], dict[str, float]]:
    """octc's loop on line (in both precisions of the teacher) and with cached logits, and the seconds of what is done once."""
    device, pre = work.accelerator.device, preprocess_of(work.student)
    data, once = _data(work, pre)
    net, student = _networks(work)
    teacher = Teacher(fast(net.to(device).to(memory_format=torch.channels_last), pre.size, device), "b" * 64)
    on_labels = label_loss(Objective(), 0.0, work.labels, len(CLASSES))
    how = Distillation(views=VIEWS)
    start = time.perf_counter()
    drawn = Drawn(work.student, VIEWS, 0, device.type, str(work.accelerator.mixed_precision))
    cache = cache_of(teacher, "b" * 64, data, drawn, work.folder / "cache", work.accelerator)
    once["fill one view"] = time.perf_counter() - start
    losses = {"online": distilled_loss(asked([teacher], work.accelerator.autocast), Distillation(), on_labels)}
    if has_bf16(device):
        other = Teacher(in_precision(copy.deepcopy(teacher.net), BF16), teacher.sha256)
        losses["online, bf16"] = distilled_loss(asked([other], work.accelerator.autocast), Distillation(), on_labels)
    losses["cached"] = cached_ways([cache], [1.0], how, on_labels)

    def turn(loss: Any) -> float:
        return _fit_seconds(work, copy.deepcopy(student), data, loss)

    return {name: partial(turn, loss) for name, loss in losses.items()}, once


def bare_turn(work: Work, taught: bool) -> Callable[[], float]:
    """Nothing but the arithmetic of a step: the bound of what a loop can reach."""
    device, size = work.accelerator.device, work.student.size
    teacher, student = (without_copies(net).to(device, memory_format=torch.channels_last) for net in _networks(work))
    optimizer = torch.optim.AdamW(student.train().parameters(), lr=1e-6)
    images = torch.randn(work.student.batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(work.student.batch, device=device) % len(CLASSES)

    def turn() -> float:
        start = time.perf_counter()
        for _ in range(work.steps):
            optimizer.zero_grad()
            logits = student(images)
            loss = functional.cross_entropy(logits, labels)
            if taught:
                with torch.no_grad():
                    targets = teacher(images).softmax(1)
                loss = loss + functional.cross_entropy(logits, targets)
            loss.backward()
            optimizer.step()
        float(loss)
        return time.perf_counter() - start

    return turn


def _networks(work: Work) -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    teacher = build_model(work.teacher.model, len(CLASSES)).eval().requires_grad_(False)
    return teacher, build_model(work.student.model, len(CLASSES), **work.student.model_kwargs)


def _data(work: Work, pre: Preprocess) -> tuple[Data, dict[str, float]]:
    root = work.root
    samples = [
        Sample(path=str(file.relative_to(root)), label=label, patient=str(i), part=None, sha256=sha256_file(file))
        for i, (file, label) in enumerate(zip(work.files, work.labels, strict=True))
    ]
    start = time.perf_counter()
    images = cached_images(work.folder / "cache", root, samples, pre)
    once = {"decode every image": time.perf_counter() - start}
    return Data(images, work.labels, images[:1], work.labels[:1], pre), once


def _fit_seconds(work: Work, student: torch.nn.Module, data: Data, loss: Any) -> float:
    """One epoch of `fit`, which has as many steps as a turn; the time to the end of the last one."""
    stage = replace(work.student, epochs=1)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        options = FitOptions(Path(folder), {}, 0, work.accelerator, lambda _: ends.append(time.perf_counter()), lambda _: None)
        fit(student, stage, data, loss, options)
    return ends[work.steps - 1] - start


def measure(work: Work, rounds: int, only: Sequence[str]) -> dict[str, Any]:
    """Images/s of each loop (of those in `only`) in every round, medians, and the medians of the rounds' ratios."""
    seed = seed_turn(work)
    ours, once = octc_turns(work)
    turns: dict[str, tuple[Callable[[], float], Callable[[], object]]] = {
        "seed": (seed, glibc_memory), "seed, kept": (seed, keep_memory),
        **{name: (turn, keep_memory) for name, turn in ours.items()}, "bare, taught": (bare_turn(work, True), keep_memory),
        "bare": (bare_turn(work, False), keep_memory),
    }  # fmt: skip
    turns = {name: turn for name, turn in turns.items() if not only or name in only}
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds + 1):  # the first one warms up
        order = list(turns) if number % 2 else list(turns)[::-1]
        for name in order:
            run, memory = turns[name]
            memory()
            rate = work.steps * work.student.batch / run()
            if number:
                found[name].append(rate)
            sys.stderr.write(f"{'round ' + str(number) if number else 'warm-up'} {name}: {rate:.2f} images/s\n")
    rates = {name: round(statistics.median(values), 3) for name, values in found.items()}

    return {
        "images_per_s": rates,
        "rounds": {name: [round(rate, 3) for rate in values] for name, values in found.items()},
        **{
            name: round(statistics.median(a / b for a, b in zip(found[above], found[below], strict=True)), 3)
            for name, (above, below) in RATIOS.items()
            if above in found and below in found
        },
        "once_s": {name: round(seconds, 2) for name, seconds in once.items()},
    }


def stages(chosen: argparse.Namespace) -> tuple[Stage, Stage, int]:
    """Teacher, student and steps a turn."""
    recipe = kd_oct_ucsd() if chosen.full else edge()
    batch = chosen.batch or (4 if chosen.full or chosen.quick else recipe.student.batch)
    steps = chosen.steps or (1 if chosen.full else 2 if chosen.quick else 8)
    size = 64 if chosen.quick else recipe.student.size
    teacher = replace(recipe.teacher, model=SMALL) if chosen.quick else recipe.teacher
    return teacher, replace(recipe.student, batch=batch, size=size, accumulate=1, mix=Mix()), steps


def files_of(chosen: argparse.Namespace, folder: Path, count: int) -> list[Path]:
    """Enough images for the steps of a turn."""
    if chosen.data is None:
        return drawn_files(folder, count)
    found: Sequence[Path] = sorted(path for path in chosen.data.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found or len(found) < count:
        sys.exit(f"{len(found)} images in {chosen.data}, {count} are needed")
    return list(found[:: len(found) // count][:count])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with images, at any depth")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="steps a turn (8)")
    parser.add_argument("--only", nargs="+", choices=LOOPS, default=(), help="these loops alone")
    parser.add_argument("--batch", type=int, help="images a step (the recipe's; 4 with --full)")
    parser.add_argument("--workers", type=int, default=usable_threads()[0], help="data-loading workers of the seed's loop")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--full", action="store_true", help="the full-size pair")
    parser.add_argument("--quick", action="store_true", help="64 px, to see that it works")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    chosen = parser.parse_args()
    accelerator = make_accelerator(chosen.device)
    if accelerator.device.type == "cpu":
        torch.set_num_threads(usable_threads()[0])
    teacher, student, steps = stages(chosen)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = files_of(chosen, folder, steps * student.batch)
        labels = [i % len(CLASSES) for i in range(len(files))]
        work = Work(teacher, student, files, chosen.data or folder, labels, folder, steps, chosen.workers, accelerator)
        found = measure(work, max(1, 1 if chosen.quick else chosen.rounds), chosen.only)
    machine = read_machine()
    facts = {
        "teacher": teacher.model, "student": student.model, "size": student.size, "batch": student.batch, "steps": steps,
        "workers_of_seed": chosen.workers, "threads": torch.get_num_threads(), "torch": torch.__version__,
        "device": str(accelerator.device), "cpu": machine.cpu_model, "isa": list(machine.isa), "load_before": machine.load,
    }  # fmt: skip
    for name, rate in found["images_per_s"].items():
        sys.stdout.write(f"{name:<12} {rate:8.2f} images/s\n")
    for name in ("online", "cached"):
        if f"bound_{name}_vs_seed" in found and f"ratio_{name}_vs_seed_same_memory" in found:
            same = found[f"ratio_{name}_vs_seed_same_memory"]
            bound = found[f"bound_{name}_vs_seed"]
            more = f"same memory setting: {same:.2f}; a step without any loop: {bound:.2f}"
            sys.stdout.write(f"{name} / seed: {found[f'ratio_{name}_vs_seed']:.2f}   ({more})\n")
        if f"share_{name}_of_bound" in found:
            sys.stdout.write(f"{name} / a step without any loop: {found[f'share_{name}_of_bound']:.3f}\n")
    if chosen.json:
        sys.stdout.write(json.dumps({**found, **facts}) + "\n")


if __name__ == "__main__":
    main()
