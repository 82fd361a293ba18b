"""Stacks of pictures: a TIFF of several pages, and PNG or TIFF files with a manifest, `volume.json`."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from octc.core.errors import OctcError
from octc.core.files import read_json, sha256_file
from octc.imaging.cut_off import strips_cut
from octc.imaging.decode import (
    BIG_AND_TURNED,
    BIG_AND_TURNED_TEXT,
    DESCRIPTION,
    NEW_SUBFILE,
    SUBFILE,
    Grey,
    first_page,
    grey_of,
    is_copy,
    muted,
    read_image,
    shape_of,
    tiff_doubt,
    without_xmp,
)
from octc.volumes.source import Source, corrupt, cut_short, unsupported
from octc.volumes.volume import (
    LEFT,
    MAX_FRAME_PIXELS,
    MAX_FRAMES,
    RIGHT,
    Fact,
    Intensity,
    Raw,
    Volume,
    as_stored,
    linear,
    millimetres,
)

TIFF, MANIFEST = "tiff-stack", "manifest"
SCHEMA = "octc.volume/1"
STRIPS, TILES = (273, 279), (324, 325)  # TIFF tags: where they begin, how long they are
READ_TAGS = (*STRIPS, *TILES, NEW_SUBFILE, SUBFILE)
MAX_TAGS, MAX_STRIPS = 4096, 1 << 20
FILE = "volume.json"
# how many channels, slices and times the descriptions of ImageJ and OME state
IN_IMAGEJ = {name: re.compile(rf"^{name}=(\d{{1,9}})$", re.MULTILINE) for name in ("channels", "slices", "frames")}
IN_OME = {name: re.compile(rf"\b{name}=[\"'](\d{{1,9}})[\"']") for name in ("SizeC", "SizeZ", "SizeT")}
PIXELS = re.compile(r"<(?:\w+:)?Pixels\b")
HASH = re.compile(r"[0-9a-f]{32}")  # of `patient_hash`


@contextmanager
def _opened(path: Path, page: int = 0) -> Iterator[Image.Image]:
    """A page of a TIFF, not loaded. Pillow gets no path: it would misread a page without compression that lies on its side."""
    with muted(), path.open("rb") as file, Image.open(file, formats=("TIFF",)) as picture:
        picture.seek(page)
        yield without_xmp(picture)


@dataclass(frozen=True)
class Pages:
    """Pages of a TIFF: how many are described; how many of them, from the first, are whole; whether more were to follow.

    copies: those that only repeat another one, smaller or as its mask.
    """

    described: int
    whole: int
    cut: bool
    copies: frozenset[int] = frozenset()

    @property
    def several(self) -> bool:
        own = self.described - len(self.copies)
        return own > 1 or (self.cut and own == 1 and self.whole == self.described)


def pages(path: Path) -> Pages:
    """The chain of page directories of a TIFF (6.0, section 2; BigTIFF), and whether the strips of each lie in the file."""
    source = Source(path)
    at, order, big = first_page(source.head(16)), "<" if source.head(2) == b"II" else ">", b"+" in source.head(4)[2:]
    described, whole, seen = 0, 0, set()
    copies: set[int] = set()
    while at:
        if at in seen or described > MAX_FRAMES:
            break
        seen.add(at)
        try:
            ends, copy, at = _directory(source, at, order, big)
        except OctcError as error:
            return Pages(described, whole, error.code == "OCT-E226", frozenset(copies))
        whole += whole == described and max(ends, default=0) <= source.size
        copies |= {described} if copy else set()
        described += 1
    return Pages(described, whole, False, frozenset(copies))


def _directory(source: Source, at: int, order: str, big: bool) -> tuple[list[int], bool, int]:
    """Where the strips or tiles of a page end, whether it only repeats another one, and where the next is described (or 0)."""
    head, step, kind = (8, 20, "Q") if big else (2, 12, "I")
    (count,) = source.numbers(f"{order}{'Q' if big else 'H'}", at)
    table = source.take(at + head, min(count, MAX_TAGS) * step)
    found: dict[int, tuple[int, ...]] = {}
    for place in range(0, len(table), step):
        tag, form = struct.unpack(f"{order}2H", table[place : place + 4])
        if tag in READ_TAGS:
            found[tag] = _values(source, table[place + 4 : place + step], order, big, form)
    (following,) = source.numbers(f"{order}{kind}", at + head + count * step)
    starts, sizes = (found.get(STRIPS[k], found.get(TILES[k], ())) for k in (0, 1))
    marks = ((found.get(tag) or (otherwise,))[0] for tag, otherwise in ((NEW_SUBFILE, 0), (SUBFILE, 1)))
    return [start + size for start, size in zip(starts, sizes, strict=False)], is_copy(*marks), int(following)


def _values(source: Source, entry: bytes, order: str, big: bool, form: int) -> tuple[int, ...]:
    """The numbers of a directory entry, behind its tag and type: in it, or where it points to."""
    letter = {3: "H", 4: "I", 16: "Q"}.get(form)
    width = 8 if big else 4
    (count,) = struct.unpack(f"{order}{'Q' if big else 'I'}", entry[:width])
    if letter is None or count > MAX_STRIPS:
        return ()
    layout = f"{order}{count}{letter}"
    size = struct.calcsize(layout)
    data = entry[width : width + size]
    if size > width:
        data = source.take(struct.unpack(f"{order}{'Q' if big else 'I'}", entry[width:])[0], size)
    return struct.unpack(layout, data)


def read_tiff(path: Path, _key: bytes | None, allow_cut: bool) -> list[Volume]:
    """The pages of a TIFF as B-scans in their order. Raises: OctcError E222 E226 E229."""
    found = pages(path)
    count, cut = found.whole, found.cut or found.whole < found.described
    if cut and not (allow_cut and count):
        at_least = "at least " if found.cut else ""
        raise cut_short(path, f"{count} of {at_least}{found.described + found.cut} pages are whole", count)
    own = [page for page in range(count) if page not in found.copies] or list(range(count))
    left_out, count = count - len(own), len(own)
    if Source(path).head(4) == BIG_AND_TURNED:
        raise unsupported(path, BIG_AND_TURNED_TEXT)
    with _opened(path, own[0] if own else 0) as picture:
        (columns, rows), kind = picture.size, _kind(picture, path)
        several = _several_stacks(str(picture.tag_v2.get(DESCRIPTION, "")), rows, columns)  # type: ignore[attr-defined]
    if several is not None:
        hint = "save each stack as a file of its own: one channel, one time, one eye"
        raise unsupported(path, f"pages of several stacks: {several}", hint)
    if rows * columns > MAX_FRAME_PIXELS or count > MAX_FRAMES:
        raise corrupt(path, f"{count} pages of {rows} x {columns}")

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
            read=partial(_page, path, (rows, columns), kind, own),
            order=Fact("file order", "order of the pages"),
            complete=Fact(False, "pages") if cut else Fact(),
            notes=(
                "a TIFF says neither eye nor spacing",
                *((f"cut short: {count} pages are whole",) if cut else ()),
                *((f"{left_out} pages are others made smaller: left out",) if left_out else ()),
            ),
        )
    ]


def _page(path: Path, shape: tuple[int, int], kind: Grey | None, own: Sequence[int], index: int) -> Raw:
    with _opened(path, own[index]) as picture:
        if (picture.height, picture.width) != shape or _kind(picture, path) != kind:
            what = f"page {index} is {picture.height} x {picture.width} in mode {picture.mode}"
            raise unsupported(path, f"{what}, the first one is {shape[0]} x {shape[1]} of another kind of grey")
        found: Raw = np.asarray(picture) if kind is None else kind.values(picture).astype(np.uint16)
        tags = picture.tag_v2  # type: ignore[attr-defined]
        if (why := strips_cut(Source(path).take, tags, (shape[1], shape[0]))) is not None:
            raise corrupt(path, f"page {index}: {why}")
        return found


def _kind(picture: Image.Image, path: Path) -> Grey | None:
    """How the numbers of a page are meant, by the rules of pictures; None for plain 8 bits. E222 for what is not read."""
    kind, doubt = grey_of(picture), tiff_doubt(picture)
    if doubt is not None:
        raise unsupported(path, doubt)
    plain = picture.mode == "L" if kind is None else kind.kind == "u2"
    if not plain:
        raise unsupported(path, f"pages in mode {picture.mode}; 8 or 16 bits of grey are read")
    return kind


def _several_stacks(description: str, rows: int, columns: int) -> str | None:
    """What the program that wrote a TIFF says its pages are, where they are more than the B-scans of one stack; else None.

    Source: the descriptions of ImageJ, OME-XML (SizeC, SizeT, SizeZ of each Pixels) and tifffile (the array that was written).
    """
    if description.startswith("ImageJ="):
        channels, slices, times = (int((IN_IMAGEJ[name].search(description) or "01")[1]) for name in IN_IMAGEJ)
    elif "<OME" in description:
        images = len(PIXELS.findall(description))
        if images > 1:
            return f"{images} images of OME"
        channels, slices, times = (int((IN_OME[name].search(description) or "01")[1]) for name in IN_OME)
    else:
        shape, _ = shape_of(description)
        at = next((at for at in range(len(shape) - 1) if shape[at : at + 2] == (rows, columns)), 0)
        sides = [side for side in shape[:at] if side > 1]
        return f"an array of {' x '.join(map(str, shape))}" if len(sides) > 1 else None
    several = sum(count > 1 for count in (channels, slices, times)) > 1  # B-scans alone are called any of the three
    return f"{channels} channels, {times} times, {slices} slices" if several else None


def is_manifest(path: Path) -> bool:
    """Whether a file is the manifest of a stack."""
    if path.name != FILE and path.suffix != ".json":
        return False
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and value.get("schema") == SCHEMA


def pictures(path: Path) -> list[Path]:
    """The pictures that a manifest names, whether they are there or not."""
    return [_inside(path, str(entry["file"])) for entry in read_json(path)["frames"]]


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
            read=partial(grey_picture, path, tuple(file for file, _ in there), (rows, columns)),
            experimental=value.get("experimental") is True,
            laterality=Fact(eye, FILE) if eye in (RIGHT, LEFT) else Fact(),
            spacing=millimetres(spacing, FILE) if isinstance(spacing, list) and len(spacing) == 3 else Fact(),
            pattern=_said(path, value, "pattern"),
            device=_said(path, value, "device"),
            acquired=_said(path, value, "acquired"),
            order=Fact("manifest", FILE),
            complete=_whole(value.get("complete"), len(there) == len(entries)),
            patient=_hashed(path, value),
            notes=tuple(str(note) for note in value.get("notes", ())),
            others=tuple(file for file, _ in there),
        )
    ]


def grey_picture(path: Path, files: Sequence[Path], shape: tuple[int, int], index: int) -> Raw:
    """B-scan k of a volume whose B-scans are pictures of 8 bits, named by the file at `path`: uint8 of `shape`."""
    decoded = read_image(files[index])
    if decoded.stored is not None:  # scaled by a rule of pictures it would be another grey than its neighbours
        raise unsupported(path, f"{files[index].name} holds {decoded.stored[0]}, pictures of 8 bits are read")
    picture = decoded.image.convert("L")
    if (picture.height, picture.width) != shape:
        what = f"{files[index].name} is {picture.height} x {picture.width}"
        raise corrupt(path, f"{what}, others are {shape[0]} x {shape[1]}")
    return np.asarray(picture)


def _whole(said: Any, there: bool) -> Fact[bool]:
    """Whether a stack is complete: all pictures are there, and its manifest says that it was."""
    if not there or said is False:
        return Fact(False, FILE)
    return Fact(True, FILE) if said is True else Fact()


def _as_written(said: Any) -> Intensity:
    """Grey as it was mapped when the pictures were written, under that name; the pictures are not mapped again."""
    name = said.get("name") if isinstance(said, dict) else None
    return as_stored(name, said) if isinstance(name, str) else linear(0, 255)


def _said(path: Path, value: Mapping[str, Any], name: str) -> Fact[str]:
    """A text of a manifest. Raises: OctcError E222 for what is none."""
    word = value.get(name)
    if word is not None and not isinstance(word, str):
        raise corrupt(path, f"{name} is no text")
    return Fact() if word is None else Fact(word, FILE)


def _hashed(path: Path, value: Mapping[str, Any]) -> str | None:
    """The patient's hash as `write_pictures` wrote it; anything else may be a name, and goes nowhere (E222)."""
    word = value.get("patient")
    if word is not None and not (isinstance(word, str) and HASH.fullmatch(word)):
        raise corrupt(path, "its patient is no hash")
    return word


def _inside(path: Path, name: str) -> Path:
    """A picture beside the manifest; no other place."""
    if Path(name).name != name:
        raise corrupt(path, f"it names {name!r}, which is not a file beside it")
    return path.parent / name
