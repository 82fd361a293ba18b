"""Stacks of pictures: a TIFF of several pages, and PNG or TIFF files with a manifest, `volume.json`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from octc.core.errors import OctcError
from octc.core.files import read_json, sha256_file
from octc.imaging.preprocess import DAMAGE, Grey, grey_of, muted, read_image, tiff_doubt
from octc.volumes.source import corrupt, cut_short
from octc.volumes.volume import LEFT, MAX_FRAME_PIXELS, MAX_FRAMES, RIGHT, Fact, Intensity, Raw, Volume, linear

TIFF, MANIFEST = "tiff-stack", "manifest"
SCHEMA = "octc.volume/1"
FILE = "volume.json"


@contextmanager
def _opened(path: Path, page: int = 0) -> Iterator[Image.Image]:
    """A page of a TIFF, not loaded."""
    with muted(), Image.open(path, formats=("TIFF",)) as picture:
        picture.seek(page)
        yield picture


def pages(path: Path) -> int:
    """Pages of a TIFF; 0 for what cannot be read."""
    try:
        with _opened(path) as picture:
            return int(getattr(picture, "n_frames", 1))
    except DAMAGE:
        return 0


def read_tiff(path: Path, _key: bytes | None, _allow_cut: bool) -> list[Volume]:
    """The pages of a TIFF as B-scans in their order. Raises: OctcError E222."""
    with _opened(path) as picture:
        count, (columns, rows), kind = int(getattr(picture, "n_frames", 1)), picture.size, _kind(picture, path)
    if rows * columns > MAX_FRAME_PIXELS or count > MAX_FRAMES:
        raise corrupt(path, f"{count} pages of {rows} x {columns}")

    def stored(index: int) -> Raw:
        with _opened(path, index) as picture:
            if picture.size != (columns, rows) or _kind(picture, path) != kind:
                what = f"page {index} is {picture.height} x {picture.width} in mode {picture.mode}"
                raise corrupt(path, f"{what}, the first one is {rows} x {columns} of another kind of grey")
            return np.asarray(picture) if kind is None else kind.values(picture).astype(np.uint16)

    top = 255.0 if kind is None else kind.top
    return [
        Volume(
            path=path,
            format=TIFF,
            frames=count,
            rows=rows,
            columns=columns,
            dtype="uint8" if kind is None else "uint16",
            intensity=linear(top, 0) if kind is not None and kind.white_is_0 else linear(0, top),
            read=stored,
            order=Fact("file order", "order of the pages"),
            notes=("a TIFF says neither eye nor spacing",),
        )
    ]


def _kind(picture: Image.Image, path: Path) -> Grey | None:
    """How the numbers of a page are meant, by the rules of pictures; None for plain 8 bits. E222 for what is not read."""
    kind, doubt = grey_of(picture), tiff_doubt(picture)
    if doubt is not None:
        raise corrupt(path, doubt)
    plain = picture.mode == "L" if kind is None else kind.kind == "u2"
    if not plain:
        raise corrupt(path, f"pages in mode {picture.mode}; 8 or 16 bits of grey are read")
    return kind


def is_manifest(path: Path) -> bool:
    """Whether a file is the manifest of a stack."""
    if path.name != FILE and path.suffix != ".json":
        return False
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and value.get("schema") == SCHEMA


def read_manifest(path: Path, _key: bytes | None, allow_cut: bool) -> list[Volume]:
    """The pictures that a manifest names, checked against its checksums. Raises: OctcError E222 E226 E501."""
    value = read_json(path)
    entries = [(_inside(path, str(entry["file"])), str(entry["sha256"])) for entry in value["frames"]]
    there = [(file, digest) for file, digest in entries if file.is_file()]
    if len(there) < len(entries) and not (allow_cut and there):
        raise cut_short(path, f"{len(there)} of {len(entries)} pictures are there", len(there))
    if not there or len(there) > MAX_FRAMES:
        raise corrupt(path, f"{len(there)} pictures")
    for file, digest in there:
        if sha256_file(file) != digest:
            hint = "copy the stack again, or write it anew: octc data convert"
            raise OctcError("OCT-E501", f"{file.name} does not match its checksum", hint=hint, place=str(path))
    first = read_image(there[0][0]).image
    columns, rows = first.size

    def stored(index: int) -> Raw:
        picture = read_image(there[index][0]).image.convert("L")
        if picture.size != (columns, rows):
            raise corrupt(path, f"{there[index][0].name} has another size")
        return np.asarray(picture)

    eye = value.get("laterality")
    spacing = value.get("spacing_mm")
    return [
        Volume(
            path=path,
            format=MANIFEST,
            frames=len(there),
            rows=rows,
            columns=columns,
            dtype="uint8",
            intensity=_as_written(value.get("intensity")),
            read=stored,
            experimental=value.get("experimental") is True,
            laterality=_said(eye if eye in (RIGHT, LEFT) else None),
            spacing=_said((spacing[0], spacing[1], spacing[2]) if isinstance(spacing, list) and len(spacing) == 3 else None),
            pattern=_said(value.get("pattern")),
            device=_said(value.get("device")),
            acquired=_said(value.get("acquired")),
            order=Fact("manifest", FILE),
            complete=_whole(value.get("complete"), len(there) == len(entries)),
            patient=value.get("patient"),
            notes=tuple(str(note) for note in value.get("notes", ())),
            others=tuple(file for file, _ in there),
        )
    ]


def _whole(said: Any, there: bool) -> Fact[bool]:
    """Whether a stack is complete: all pictures are there, and its manifest says that it was."""
    if not there or said is False:
        return Fact(False, FILE)
    return Fact(True, FILE) if said is True else Fact()


def _as_written(said: Any) -> Intensity:
    """Grey as it was mapped when the pictures were written, under that name; the pictures are not mapped again."""
    name = said.get("name") if isinstance(said, dict) else None
    return Intensity(name, lambda raw, _index: raw, said) if isinstance(name, str) else linear(0, 255)


def _said(value: Any) -> Fact[Any]:
    return Fact() if value is None else Fact(value, FILE)


def _inside(path: Path, name: str) -> Path:
    """A picture beside the manifest; no other place."""
    if Path(name).name != name:
        raise corrupt(path, f"it names {name!r}, which is not a file beside it")
    return path.parent / name
