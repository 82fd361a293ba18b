"""Files without a header: Zeiss' `.img` (uint8) and Optovue's `.OCT` (float32). Their dimensions and eye are the user's word.

A 512 x 128 cube and a 200 x 200 cube cannot be told from the size alone, so nothing is guessed: without `shape` a file is
refused, and with one it has to fit to the byte. Source of the orders: OCT-Converter 0.7 (img.py, poct.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np

from octc.core.errors import OctcError
from octc.volumes.source import Source, cut_short, stored_at
from octc.volumes.volume import (
    Fact,
    Intensity,
    Raw,
    RawShape,
    UInt8,
    Volume,
    are_sizes,
    check_numbers,
    linear,
    to_grey,
)

CIRRUS, OPTOVUE = "zeiss-img", "optovue-oct"


def _upright(raw: Raw) -> Raw:
    """Zeiss: rows of A-scans, from the lowest depth up."""
    return raw[::-1]


def _turned(raw: Raw) -> Raw:
    """Optovue: A-scans one after the other, from the bottom up."""
    return raw.T[::-1]


def _optovue_grey(raw: Raw, index: int) -> UInt8:
    """Values of one B-scan from its lowest (black) to its largest (white): the file has no scale."""
    check_numbers(raw, index)
    low, high = float(np.min(raw)), float(np.max(raw))
    return to_grey((raw.astype(np.float64) - low) / (high - low or 1.0))


def read_raw(path: Path, kind: str, shape: RawShape | None, allow_cut: bool) -> list[Volume]:
    """The volume that the user says it is. Raises: OctcError E225 without or with another shape, E226 cut short."""
    source = Source(path)
    if shape is None:
        named = shlex.quote(str(path))
        hint = (
            f"octc data convert {named} --shape FRAMESxROWSxCOLUMNS --eye R -o FILE.dcm makes a file of it that every command "
            "takes; octc data volume takes --shape too, a table of volumes a column shape, Python shape=RawShape(...)"
        )
        text = f"{path.name} has no header: its dimensions and eye stand nowhere in it ({source.size} bytes)"
        raise OctcError("OCT-E225", text, hint=hint, place=str(path))
    rows, columns, frames = shape.rows, shape.columns, shape.frames
    if not are_sizes(frames, rows, columns):
        text = f"{frames} B-scans of {rows} x {columns} cannot be"
        raise OctcError("OCT-E104", text, hint="FRAMESxROWSxCOLUMNS, each from 1", place="--shape")
    item, stored_shape, turn, intensity = _layout(kind, rows, columns)
    step = rows * columns * item
    if source.size > frames * step or source.size % step:
        text = f"{path.name} has {source.size} bytes; {frames} B-scans of {rows} x {columns} have {frames * step}"
        if source.size > frames * step or not allow_cut:
            raise OctcError("OCT-E225", text, hint="give the dimensions that the device used", place=str(path))
    whole = source.size // step
    if whole < frames and not (allow_cut and whole):
        raise cut_short(path, f"{whole} of {frames} B-scans are whole", whole)

    return [
        Volume(
            path=path,
            format=kind,
            frames=whole,
            rows=rows,
            columns=columns,
            dtype="uint8" if item == 1 else "float32",
            intensity=intensity,
            read=stored_at(source, "u1" if item == 1 else "<f4", range(0, whole * step, step), stored_shape, turn),
            laterality=Fact(shape.laterality, "the user") if shape.laterality else Fact(),
            device=Fact("Zeiss" if kind == CIRRUS else "Optovue", "the user"),
            order=Fact("file order", "order in the file"),
            complete=Fact(whole == frames, "the user"),
            notes=("no header: dimensions and eye are the user's word",),
            lossy=False,
            annotated=False,
        )
    ]


def _layout(kind: str, rows: int, columns: int) -> tuple[int, tuple[int, int], Callable[[Raw], Raw], Intensity]:
    """Bytes a number, shape as stored, how a B-scan is set upright, grey."""
    if kind == CIRRUS:
        return 1, (rows, columns), _upright, linear(0, 255)
    return 4, (columns, rows), _turned, Intensity("optovue-range", _optovue_grey, {"per": "B-scan"})
