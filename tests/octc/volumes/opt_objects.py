"""OPT objects as clinics have them, and what each shows: the expected grey is computed here, step by step, from the numbers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from octc.volumes.writing import JPEG_2000, Scan, opt_object, save

SHAPE = (40, 48)


def frames(count: int = 3, *, top: int = 255, kind: str = "u1") -> list[npt.NDArray[Any]]:
    """Pictures that differ from each other in every pixel: a ramp, shifted by the frame's number."""
    ramp = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    return [((ramp * 7 + 31 * index) % (top + 1)).astype(kind) for index in range(count)]


def made(pictures: list[npt.NDArray[Any]] | None = None, *, bits: int = 8, syntax: str = "1.2.840.10008.1.2.1") -> Any:
    """A right eye, evenly spaced."""
    scan = Scan(
        frames=pictures or frames(), bits=bits, laterality="R", spacing=(0.25, 0.004, 0.012), patient="P-1",
        acquired="2026-02-03T04:05:06", device="Maker", seed="object", written="2026-02-03T04:05:06",
    )  # fmt: skip
    return opt_object(scan, syntax)


def stored(value: Any, folder: Path, name: str = "object.dcm") -> Path:
    path = folder / name
    save(value, path)
    return path


def item(**values: Any) -> Dataset:
    one = Dataset()
    for name, value in values.items():
        setattr(one, name, value)
    return one


def as_implicit(value: Any) -> Any:
    value.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return value


def as_big_endian(value: Any) -> Any:
    """The retired syntax: words the other way round."""
    value.PixelData = np.frombuffer(value.PixelData, "<u2").astype(">u2").tobytes()
    value.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    return value


def encapsulated(value: Any, fragments: list[bytes], table: bytes = b"", syntax: str = JPEG_2000) -> Any:
    """Pixels item by item, as they are given."""
    items = [table, *fragments]
    value.PixelData = b"".join(struct.pack("<2HI", 0xFFFE, 0xE000, len(one)) + one for one in items)
    value["PixelData"].VR, value["PixelData"].is_undefined_length = "OB", True
    value.file_meta.TransferSyntaxUID = UID(syntax)
    return value


def parts(folder: Path, total: int | None = 3, counts: tuple[int, ...] = (2, 1, 3), **changed: Any) -> list[Path]:
    """A concatenation of so many frames each; changed: attributes of its second part."""
    found, at, pictures = [], 0, frames(sum(counts))
    for number, count in enumerate(counts, start=1):
        value = made(pictures[at : at + count])
        value.SOPInstanceUID = UID(f"2.25.{number}")
        value.ConcatenationUID, value.InConcatenationNumber = UID("2.25.99"), number
        value.ConcatenationFrameOffsetNumber = at
        value.InConcatenationTotalNumber = total
        for groups in value.PerFrameFunctionalGroupsSequence:
            del groups.FrameContentSequence[0].InStackPositionNumber
            del groups.PlanePositionSequence
        for name, what in changed.items() if number == 2 else ():
            setattr(value, name, what)
        found.append(stored(value, folder, f"part-{number}.dcm"))
        at += count
    return found
