"""Heat maps of an exported file by its own engine: how much covering each region changes the probability of the answer.

Occlusion sensitivity, after Zeiler and Fergus 2014 (Visualizing and Understanding Convolutional Networks, section 4.2):
a square moves over the prepared image, and the engine answers for every place. It needs no gradients, so that any engine and
precision will do, and there is no chance in it: the same file and image give the same map.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.core.faults import writing_to
from octc.core.files import entries, write_bytes
from octc.imaging.preprocess import UInt8
from octc.runtimes.predict import Engine, Record, decoded
from octc.stats.metrics import combine_views
from octc.stats.multilabel import view_scores
from octc.store.artifacts import Artifact

Values = npt.NDArray[np.float32]
PATCHES = 8  # squares along a side, where no size is given
POINT = 0.01  # the colours are never stretched below a change of one percentage point: noise stays pale
NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class MapOptions:
    """The covering square, pixels of the network's input.

    Attributes:
        patch: its side; None: an eighth of the input's side. stride: its step; None: half of its side.
        batch: images in one call of the engine.
    """

    patch: int | None = None
    stride: int | None = None
    batch: int = 8

    def sizes(self, side: int) -> tuple[int, int]:
        """(patch, stride) for an input of that side (E104 where they do not fit into it)."""
        patch = max(1, side // PATCHES) if self.patch is None else self.patch
        stride = max(1, patch // 2) if self.stride is None else self.stride
        if not 1 <= patch <= side // 2 or not 1 <= stride <= patch:
            text = f"a patch of {patch} px in steps of {stride} px does not cover an input of {side} x {side} px"
            hint = f"patch 1 to {side // 2}, stride 1 to patch"
            raise OctcError("OCT-E104", text, hint=hint, place="patch")
        return patch, stride


@dataclass(frozen=True)
class HeatMap:
    """What one answer of one file depends on.

    Attributes:
        file: the image. label: the class that was answered; probability: of that class, of the image as it is.
        values: float32 [S, S], how much the probability falls (in units of probability, negative: rises) when a square
            around that pixel is covered by the image's mean: the mean over all squares that cover it.
        picture: the prepared image, uint8 [channels, S, S]. patch, stride: of the square, pixels.
        artifact: name of the network's artifact. model: of the network. model_file: that answered, sha256: of it.
    """

    file: str
    label: str
    probability: float
    values: Values
    picture: UInt8
    patch: int
    stride: int
    artifact: str
    model: str
    model_file: str
    sha256: str

    def caption(self) -> list[str]:
        """Lines that say what is shown, of which network, and how it was computed."""
        falls, rises = 100 * max(0.0, float(self.values.max())), 100 * max(0.0, -float(self.values.min()))
        weak = max(falls, rises) < 100 * POINT
        colours = f"Orange: covering lowers the probability, by at most {falls:.1f} points. Blue: raises it, by {rises:.1f}."
        size = f"{len(self.values)} x {len(self.values)} px"
        return [
            f"{Path(self.file).name}: {self.label}, probability {self.probability:.4f}",
            f"Network {self.artifact} ({self.model}), file {self.model_file}, SHA-256 {self.sha256[:16]}",
            f"Occlusion: squares of {self.patch} px, step {self.stride} px, of {size}, covered by the image's mean",
            "No square of this size changes the probability by one point." if weak else colours,
            "What the network reacts to, not where disease is.",
        ]

    def to_png(self) -> bytes:
        """The image, the same under its map, and the caption; full colour is the largest change, at least one point."""
        from octc.figures.heat import draw_heat

        return draw_heat(self.picture, self.values, max(float(np.abs(self.values).max()), POINT), self.caption())


def occlusion(
    runtime: Engine,
    image: UInt8,
    score: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]],
    patch: int,
    stride: int,
    batch: int = 8,
) -> tuple[float, Values]:
    """The score of an image, and by how much it falls where a square is covered.

    Args:
        runtime: uint8 [N, C, S, S] -> logits float32 [N, K]; called with `batch` images each time.
        image: uint8 [C, S, S]. score: logits [N, K] -> float64 [N].
        patch, stride: of the square, pixels; the last one of a row ends at the border.

    Returns: the score, and float32 [S, S]: the mean fall over all squares that cover a pixel.
    """
    side = image.shape[-1]
    starts = sorted({*range(0, side - patch + 1, stride), side - patch})
    places = [(y, x) for y in starts for x in starts]
    fill = np.rint(image.mean(axis=(1, 2), dtype=np.float64)).astype(np.uint8)[:, None, None]

    def covered(place: tuple[int, int] | None) -> UInt8:
        copy = image.copy()
        if place is not None:
            copy[:, place[0] : place[0] + patch, place[1] : place[1] + patch] = fill
        return copy

    queue: list[tuple[int, int] | None] = [None, *places]
    found = []
    for begin in range(0, len(queue), batch):
        part = queue[begin : begin + batch]
        filled = [*part, *[part[-1]] * (batch - len(part))]  # one size of batch: engines compile for each
        found.append(score(runtime(np.stack([covered(place) for place in filled])))[: len(part)])
    scores = np.concatenate(found)
    total, count = np.zeros((side, side)), np.zeros((side, side))
    for (y, x), value in zip(places, scores[1:], strict=True):
        total[y : y + patch, x : x + patch] += scores[0] - value
        count[y : y + patch, x : x + patch] += 1
    return float(scores[0]), (total / count).astype(np.float32)


def map_of(runtime: Engine, artifact: Artifact, record: Record, options: MapOptions = MapOptions()) -> HeatMap | None:
    """The map of an answer of `octc.runtimes.predict.classify` by the same runtime; None where no class was answered.

    Raises:
        OctcError: E104 a square that does not fit, E201... the file has gone or changed since it was answered.
    """
    label = record.label
    if label is None:
        return None
    patch, stride = options.sizes(artifact.preprocess.size)
    image = artifact.preprocess.prepare(decoded(record.scan or record.path, artifact.preprocess.value_range).image)[0]

    def score(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        views = logits[:, None]
        scores: npt.NDArray[np.float64] = view_scores(views) if artifact.task == "multilabel" else combine_views(views)[0]
        return scores[:, label]

    probability, values = occlusion(runtime, image, score, patch, stride, options.batch)
    return HeatMap(
        file=record.name,
        label=artifact.classes[label],
        probability=probability,
        values=values,
        picture=image,
        patch=patch,
        stride=stride,
        artifact=artifact.name,
        model=artifact.model,
        model_file=artifact.main_file,
        sha256=artifact.files[artifact.main_file].sha256,
    )


def new_folder(place: Path) -> Path:
    """A folder for maps that is empty or not there yet (E106 else: maps of two calls in one folder could be mixed up; E109 it
    cannot be made)."""
    if place.exists() and (not place.is_dir() or entries(place)):
        text = f"output exists: {place} is {'not empty' if place.is_dir() else 'a file'}"
        raise OctcError("OCT-E106", text, hint=f"name another folder, for example {place}-2", place=str(place))
    with writing_to(place):
        place.mkdir(parents=True, exist_ok=True)
    return place


def write_maps(
    runtime: Engine, artifact: Artifact, records: Iterator[Record], folder: Path, options: MapOptions = MapOptions()
) -> Iterator[Record]:
    """The records as they come, those with an answer with their map: a PNG file NUMBER-NAME.png in the folder.

    Args:
        folder: of `new_folder`. The number is that of the record, from 1.
    """
    for number, record in enumerate(records, 1):
        heat = map_of(runtime, artifact, record, options)
        if heat is None:
            yield record
            continue
        path = folder / f"{number:04d}-{NAME.sub('_', Path(record.name).stem)[:80] or '_'}.png"
        write_bytes(path, heat.to_png())
        yield replace(record, map=path)


def calls_for(side: int, options: MapOptions) -> int:
    """How many images the engine answers for one map."""
    patch, stride = options.sizes(side)
    return 1 + len({*range(0, side - patch + 1, stride), side - patch}) ** 2
