"""Chooses the images for timing: a given folder, the validation images of the run, or synthetic ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from octc.bench.timing.queries import INPUTS
from octc.core.errors import OctcError
from octc.datasets.base import Sample
from octc.datasets.pictures import is_here, read_picture
from octc.datasets.split import read_split
from octc.datasets.synthetic.bscans import CLASSES, QUALITY, draw_phantom
from octc.datasets.tree import Left, is_folder, open_tree, words_left
from octc.store.find import Found
from octc.store.locations import image_root, run_of

T = TypeVar("T")


def choose_pictures(
    folder: str | None, found: Found, run_dir: Path, data: str | None, environ: Mapping[str, str], scratch: Path
) -> tuple[list[str], str]:
    """64 different images as files, and their source as text.

    Raises:
        OctcError: E230 the folder does not exist; E231 a part of it cannot be read; E104 it has fewer than 64 images.
    """
    if folder is not None:
        paths, left = _of_folder(Path(folder))
        return paths, f"{folder} (left out: {words_left(left)})" if left else folder
    if (mine := _of_run(found, run_dir, data, environ, scratch / "scans")) is not None:
        return mine
    return _drawn(scratch), f"{INPUTS} synthetic images (the run's data set is not here)"


def _of_folder(folder: Path) -> tuple[list[str], tuple[Left, ...]]:
    if not is_folder(folder):
        raise OctcError("OCT-E230", f"no folder of images: {folder}", hint="--images DIR", place=str(folder))
    tree = open_tree(folder)
    paths = sorted(folder / path for path in tree.images)
    if len(paths) < INPUTS:
        text = f"{folder} holds {len(paths)} images, {INPUTS} different ones are needed"
        text += f"; left out: {words_left(tree.left)}" if tree.left else ""
        raise OctcError("OCT-E104", text, hint="give more images, or use synthetic ones without --images", place="--images")
    return [str(p.resolve()) for p in spread(paths)], tree.left


def _of_run(
    found: Found, run_dir: Path, data: str | None, environ: Mapping[str, str], scratch: Path
) -> tuple[list[str], str] | None:
    """Validation images of the run that made the artifact, then training images; None if they are not on this machine."""
    run = run_of(found.folder, found.artifact, run_dir)
    if run is None:
        return None
    try:
        split, root = read_split(run.split), image_root(run, data, environ)
    except OctcError:
        if data is not None:
            raise
        return None
    for parts in (("val",), ("val", "train")):
        samples = [s for part in parts for s in split.parts[part] if is_here(root, s)]
        if len(samples) >= INPUTS:
            words = f"{INPUTS} {' and '.join(parts)} images of {split.dataset}"
            return [_as_file(root, sample, scratch / f"{i:02d}.png") for i, sample in enumerate(spread(samples))], words
    return None


def _as_file(root: Path, sample: Sample, place: Path) -> str:
    """The file of an image; a B-scan of a volume is first written to a file."""
    if sample.scan is None:
        return str((root / sample.path).resolve())
    place.parent.mkdir(parents=True, exist_ok=True)
    read_picture(root, sample).image.save(place, "PNG")
    return str(place.resolve())


def spread(items: Sequence[T], count: int = INPUTS) -> list[T]:
    """`count` evenly spaced items, so that all classes and patients are represented."""
    return [items[i * len(items) // count] for i in range(count)]


def _drawn(scratch: Path) -> list[str]:
    folder = scratch / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(INPUTS):
        kind = CLASSES[number % len(CLASSES)]
        path = folder / f"{kind}-{number}.jpeg"
        draw_phantom(kind, number, number).save(path, "JPEG", quality=QUALITY)
        paths.append(os.fspath(path.resolve()))
    return paths
