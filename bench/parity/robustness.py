"""Run models on pictures that were made worse in the ways of `octc.imaging.corruptions` (`octc verify --robustness`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from octc.bench.parity.inference import CHUNK, Model, image_ids
from octc.datasets.base import Sample
from octc.datasets.pictures import read_picture
from octc.imaging.corruptions import KINDS, Kind, seed_of
from octc.imaging.preprocess import Float32, Preprocess, UInt8
from octc.machine.cpu import reading_pool
from octc.stats.robustness import Level

LEVELS = sum(len(kind.levels) for kind in KINDS)


def measure_worse(
    models: Mapping[str, Model],
    preprocess: Preprocess,
    samples: Sequence[Sample],
    root: Path,
    progress: Callable[[int], None],
) -> dict[Level, dict[str, Float32]]:
    """Logits [n, K] of several models that share a preprocessing, by kind and level; every picture is decoded once.

    progress: told pictures times levels.
    """
    levels: list[tuple[Kind, float]] = [(kind, level) for kind in KINDS for level in kind.levels]
    found: dict[Level, dict[str, list[Float32]]] = {(kind.name, level): {name: [] for name in models} for kind, level in levels}
    known = list(zip(image_ids(samples), samples, strict=True))

    def one(item: tuple[str, Sample]) -> UInt8:
        picture = read_picture(root, item[1], preprocess.value_range).image
        worse = (kind.apply(picture, level, seed_of(item[0], kind.name, level)) for kind, level in levels)
        return np.concatenate([preprocess.prepare(each) for each in worse])

    with reading_pool() as pool:
        for start in range(0, len(known), CHUNK):
            batch = np.stack(list(pool.map(one, known[start : start + CHUNK])))
            for i, (kind, level) in enumerate(levels):
                for name, model in models.items():
                    found[kind.name, level][name].append(np.asarray(model(batch[:, i]), np.float32))
                progress(len(batch))
    return {level: {name: np.concatenate(parts) for name, parts in rows.items()} for level, rows in found.items()}
