"""The sensitivity of a run's quantised network, measured once for each network and kept in runs/<id>/analysis/."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from octc.compress.sensitivity import Cost, Sensitivity, Trial, analyse, work
from octc.core.files import canonical_json, publishing, read_json, sha256_bytes, write_bytes, write_json
from octc.core.progress import LogReporter, Reporter, absolute
from octc.export.source import Quantised, Source, calibration_work, quantise, read_source
from octc.figures.canvas import COLOURS, INK, Box, Figure, Line, Words, to_svg
from octc.imaging.preprocess import UInt8
from octc.runtimes.room import BATCH
from octc.store.locations import image_root
from octc.store.runs import Run, owning
from octc.train.batches.images import cached_images, eval_batches
from octc.train.loop.evaluate import network_input

FOLDER = "analysis"
FACTS, KEEP, PLOT = "sensitivity.json", "keep_float.json", "sensitivity.svg"
IMAGES = 64  # of the validation set, spread evenly over it
SHOWN = 40  # layers in the plot


def choose_images(images: UInt8, most: int = IMAGES) -> UInt8:
    """At most `most` of them, evenly spread."""
    if len(images) <= most:
        return images
    chosen: UInt8 = images[np.linspace(0, len(images) - 1, most).round().astype(int)]
    return chosen


def analyse_run(run: Run, *, data: str | None = None, reporter: Reporter | None = None) -> Sensitivity:
    """Rank the layers of a run's INT8 network by what each costs on the validation set. Writes runs/<id>/analysis/.

    Args:
        data: folder of the images; None: where the run had them, OCTC_DATA, the data set's own place.

    Raises:
        OctcError: E107, E307, E501 no checkpoint that can be used; E108 another process owns the run; E230 no images.
    """
    told = reporter or LogReporter()
    with owning(run) as recovered:
        if recovered:
            told.say(recovered)
        source = read_source(run, image_root(run, data, os.environ))
        with told.progress("calibration", calibration_work(source) or None) as step:
            quantised = quantise(source, progress=absolute(step), say=told.say)
        images = cached_images(source.cache, source.root, source.split.parts["val"], source.checkpoint.preprocess)
        with told.progress("layers", work(quantised.module, min(len(images), IMAGES), BATCH)) as step:
            return sensitivity_of(source, quantised, images, told.say, step)


def sensitivity_of(
    source: Source,
    quantised: Quantised,
    images: UInt8,
    say: Callable[[str], None],
    tick: Callable[[int], None] = lambda _: None,
) -> Sensitivity:
    """What is kept of an analysis of the same network on the same images, or a new one, which is kept.

    Args:
        images: prepared, of the validation set: uint8 [N, C, S, S].
    """
    chosen = choose_images(images)
    key = sha256_bytes(canonical_json([_digest(quantised), sha256_bytes(np.ascontiguousarray(chosen).tobytes())]))
    folder = source.home / FOLDER
    kept = _read(folder, key)
    if kept is not None:
        return kept
    say(f"  measuring what INT8 costs each of {len(quantised.names)} convolutions, on {len(chosen)} validation images")
    pre = source.checkpoint.preprocess

    def batches() -> Iterator[torch.Tensor]:
        for chunk in eval_batches(chosen, BATCH):
            yield network_input(chunk, pre)

    found = analyse(quantised.module, batches, tick)
    write_sensitivity(folder, found, key, f"{source.lineage.get('run') or source.home.name} · {source.checkpoint.model}")
    return found


def write_sensitivity(folder: Path, found: Sensitivity, key: str, title: str) -> None:
    """sensitivity.json (everything), keep_float.json (names of layers) and sensitivity.svg, whole or not at all."""
    with publishing(folder, force=True) as new:
        write_json(new / FACTS, {"key": key, **found.to_json()})
        write_json(new / KEEP, list(found.keep))
        write_bytes(new / PLOT, to_svg(sensitivity_figure(found, title)))


def sensitivity_figure(found: Sensitivity, title: str) -> Figure:
    """The KL of each layer alone in INT8 as bars, the most costly first; those to keep in float in another colour."""
    shown = found.costs[:SHOWN]
    row, left, top, width = 18, 230, 60, 460
    longest = max((cost.kl for cost in shown), default=0.0) or 1.0
    parts: list[Box | Line | Words] = [Words((left + width) / 2, 22, title, 15)]
    parts.append(Words(left, 44, "mean KL to the float network, nats, of one layer in INT8", 12, anchor="start"))
    for place, cost in enumerate(shown):
        middle = top + row * (place + 0.5)
        colour = COLOURS[1] if cost.layer in found.keep else COLOURS[0]
        length = width * max(cost.kl, 0.0) / longest
        parts += [
            Words(left - 8, middle, cost.layer, 11, anchor="end"),
            Box(left, middle - row * 0.35, max(length, 1.0), row * 0.7, colour),
            Words(left + length + 6, middle, f"{cost.kl:.2e}", 11, colour=INK, anchor="start"),
        ]
    return Figure(left + width + 90, top + row * len(shown) + 20, tuple(parts))


def _digest(quantised: Quantised) -> str:
    """Of the weights and of the calibrated scales."""
    state = quantised.module.state_dict()
    return sha256_bytes(b"".join(name.encode() + state[name].detach().cpu().numpy().tobytes() for name in sorted(state)))


def _read(folder: Path, key: str) -> Sensitivity | None:
    """A stored analysis of that key; one that is damaged or of another network is measured anew."""
    try:
        value = read_json(folder / FACTS)
        if value["key"] != key:
            return None
        costs = tuple(Cost(**one) for one in value["costs"])
        trials = tuple(Trial(**{**one, "kept": tuple(one["kept"])}) for one in value["trials"])
        return Sensitivity(int(value["images"]), costs, trials, tuple(value["keep"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
