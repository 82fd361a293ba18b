"""One eye at one time: its B-scans in order, and what is known about them, each with where that comes from."""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from octc.core.cells import NO_PATIENT
from octc.volumes.source import reading

UInt8 = npt.NDArray[np.uint8]
Raw = npt.NDArray[Any]
T = TypeVar("T")
UNKNOWN = "unknown"
RIGHT, LEFT = "R", "L"
SIDES = {"R": RIGHT, "L": LEFT}  # as DICOM and Heidelberg's XML write an eye: another letter is of no one eye

Curve = tuple[float, float, float]  # offset, shift, scale of (ln(x + offset) + shift) / scale
HEYEX: Curve = (2.44e-4, 8.3, 8.285)
HEYEX_PATTERNS = {
    1: "line",
    2: "circle",
    3: "volume",
    4: "volume",
    5: "radial",
    6: "radial",
}  # its kinds of scans; 6 has circles too
HEYEX_LOG, HEYEX_EXPORT = "heyex-log", "heyex-export"  # by octc from reflectivity, by the maker before it was written

AROUND = string.whitespace + "\0"  # what pads a text in a file
# what stands in the place of an id that was taken out: such words, and one sign again and again (0000, XXXX, ---)
NOBODY = NO_PATIENT | {
    "anon", "anonym", "anonymous", "anonymized", "anonymised", "anonymisiert", "deidentified", "de-identified", "removed",
    "redacted", "deleted", "no id",
}  # fmt: skip
BLOTTED = re.compile(r"([0x*?#._-])\1*", re.IGNORECASE)
MAX_FRAMES = 10_000  # B-scans of one volume
MAX_FRAME_PIXELS = 64_000_000
MAX_VOLUMES = 1_000  # of one file


def are_sizes(frames: int, rows: int, columns: int) -> bool:
    """Whether a volume may have so many B-scans, each of so many pixels."""
    return rows > 0 and columns > 0 and rows * columns <= MAX_FRAME_PIXELS and 0 < frames <= MAX_FRAMES


@dataclass(frozen=True)
class Fact(Generic[T]):
    """A value and where it comes from: the name of a field, "the user", or "unknown" where there is no value."""

    value: T | None = None
    source: str = UNKNOWN

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "source": self.source}


Spacing = tuple[float | None, float | None, float | None]  # mm: between B-scans, in depth, between A-scans


def millimetres(values: Sequence[Any], source: str) -> Fact[Spacing]:
    """Spacing as a file states it; what is no number above 0 (0, NaN, infinity, a text) is not known."""
    between, depth, across = (
        float(value) if isinstance(value, (int, float)) and 0 < value < math.inf else None for value in values
    )
    return Fact() if between is None and depth is None and across is None else Fact((between, depth, across), source)


@dataclass(frozen=True)
class Intensity:
    """How stored numbers become grey 0 to 255, as data: two volumes of the same name and numbers are comparable.

    Attributes:
        name: of the mapping, for example "heyex-log" or "linear". numbers: what it was done with.
        apply: (stored numbers of one B-scan, its index) -> uint8 of the same shape.
    """

    name: str
    apply: Callable[[Raw, int], UInt8]
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {**self.numbers, "name": self.name}


@dataclass(frozen=True)
class RawShape:
    """What only the user knows of a file without a header.

    Attributes:
        frames, rows, columns: B-scans, depth samples and A-scans. laterality: "R", "L" or None.
    """

    frames: int
    rows: int
    columns: int
    laterality: str | None = None


@dataclass(frozen=True)
class Volume:
    """B-scans of one eye at one time. Frames are read when they are asked for; nothing of them is kept.

    Attributes:
        path: the file. format: a key of `octc.volumes.formats.formats()`. part: which volume of the file (from 0); parts: of
        how many.
        frames: number of B-scans. rows, columns: depth samples and A-scans of each, pixels. dtype: of the stored numbers.
        intensity: how they become grey. laterality: "R" or "L". spacing: mm (between B-scans, in depth, between A-scans),
        each None where it is not known. pattern: "volume", "line", "circle", "radial" or "cross". device: maker and model.
        acquired: ISO 8601, as the device says it (no time zone is added). order: how the B-scans are sorted.
        complete: whether all B-scans are there. patient: keyed hash of the patient's identity in the file, None without a key
        or an identity. quality: the maker's number for each B-scan, empty where there is none.
        notes: what a reader must know. read: stored numbers of a B-scan. others: files besides `path` that it is made of.
        lossy: whether grey was compressed with losses; annotated: whether text may be burnt into it. None: not known.
        remap: another curve of Heidelberg's kind -> the mapping by it, where the stored numbers are reflectivity.
        origins: of each B-scan its file and its frame in that file (from 0), where the format numbers frames; else empty.
    """

    path: Path
    format: str
    frames: int
    rows: int
    columns: int
    dtype: str
    intensity: Intensity
    read: Callable[[int], Raw]
    part: int = 0
    parts: int = 1
    laterality: Fact[str] = Fact()
    spacing: Fact[Spacing] = Fact()
    pattern: Fact[str] = Fact()
    device: Fact[str] = Fact()
    acquired: Fact[str] = Fact()
    order: Fact[str] = Fact()
    complete: Fact[bool] = Fact()
    patient: str | None = None
    quality: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    experimental: bool = False
    lossy: bool | None = None
    annotated: bool | None = None
    others: tuple[Path, ...] = ()
    origins: tuple[tuple[Path, int], ...] = ()
    remap: Callable[[Curve], Intensity] | None = None

    @property
    def spatial(self) -> bool:
        """Whether the order of the B-scans is one of places along the eye: not so of radial and circle scans, or one line."""
        between = None if self.spacing.value is None else self.spacing.value[0]
        return self.frames > 1 and (self.pattern.value == "volume" or (self.pattern.value is None and between is not None))

    @property
    def name(self) -> str:
        """The file, and which volume of it where it holds several."""
        return str(self.path) if self.parts == 1 else f"{self.path}#{self.part}"

    def raw(self, index: int) -> Raw:
        """Stored numbers of a B-scan: [rows, columns], of `dtype`.

        Raises:
            IndexError: there is no such B-scan. OctcError: E222 E226 the file is damaged there.
        """
        if not 0 <= index < self.frames:
            raise IndexError(f"B-scan {index} of {self.frames}")
        with reading(self.path):
            return self.read(index)

    def frame(self, index: int) -> UInt8:
        """A B-scan as grey: uint8 [rows, columns]."""
        stored = self.raw(index)
        with reading(self.path):
            return self.intensity.apply(stored, index)

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[UInt8]:
        return (self.frame(index) for index in range(self.frames))

    def digest(self) -> str:
        """sha256 of the stored numbers of all B-scans in order, with their shape: the same under any file name."""
        value = hashlib.sha256(f"{self.frames} {self.rows} {self.columns} {self.dtype}".encode())
        for index in range(self.frames):
            value.update(np.ascontiguousarray(self.raw(index)).tobytes())
        return value.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """All but the pixels."""
        names = ("laterality", "spacing", "pattern", "device", "acquired", "order", "complete")
        return {
            "file": str(self.path),
            "part": self.part,
            "parts": self.parts,
            "format": self.format,
            "experimental": self.experimental,
            "frames": self.frames,
            "rows": self.rows,
            "columns": self.columns,
            "dtype": self.dtype,
            "intensity": self.intensity.to_json(),
            **{name: getattr(self, name).to_json() for name in names},
            "patient": self.patient,
            "notes": list(self.notes),
        }


def patient_hash(key: bytes | None, patient: str, issuer: str = "") -> str | None:
    """HMAC-SHA256 of a patient's id under the site's key, 32 hexadecimal digits; None without a key or an id.

    The same id gives the same hash whatever the format of the file; issuer: who gave it out, where a file says so.
    """
    word, of = (text.strip(AROUND) for text in (patient, issuer))
    if not key or word.casefold() in NOBODY or BLOTTED.fullmatch(word):
        return None
    return hmac.new(key, f"{of}\x1f{word}".encode(), hashlib.sha256).hexdigest()[:32]


def linear(low: float, high: float) -> Intensity:
    """Grey that rises from `low` (0) to `high` (255) and is held there outside."""
    return Intensity("linear", partial(_between, low, high), {"low": low, "high": high})


def _between(low: float, high: float, raw: Raw, _index: int) -> UInt8:
    if raw.dtype == np.uint8 and (low, high) == (0, 255):
        return raw
    return to_grey((raw.astype(np.float64) - low) / (high - low))


def as_stored(name: str, numbers: Mapping[str, Any] | None = None) -> Intensity:
    """Grey of 8 bits that was mapped before it was written, by the mapping of this name: it is not mapped again."""
    return Intensity(name, _stored, numbers or {})


def _stored(raw: Raw, _index: int) -> UInt8:
    return raw


def heyex_log(apply: Callable[[Curve, Raw, int], UInt8], curve: Curve = HEYEX) -> Intensity:
    """Heidelberg's display curve on the stored numbers of a format, whose `apply` knows what they mean."""
    offset, shift, scale = curve
    numbers = {"offset": offset, "shift": shift, "scale": scale, "outside": "black"}
    return Intensity(HEYEX_LOG, partial(apply, curve), numbers)


def heyex_grey(values: npt.NDArray[np.float32], curve: Curve = HEYEX) -> npt.NDArray[np.float64]:
    """Heidelberg's display curve for reflectivity 0 to 1: (ln(x + 2.44e-4) + 8.3) / 8.285, 0 to 1.

    Source: the fit of OCT-Converter#21, within about 3 grey values of the maker's own 8-bit export.
    """
    offset, shift, scale = curve
    return (np.log(np.maximum(values, 0).astype(np.float64) + offset) + shift) / scale


def check_numbers(raw: Raw, index: int, most: float | None = None) -> None:
    """Refuse numbers of a B-scan that no device has measured: not finite, or beyond `most` either way (ValueError)."""
    if not bool(np.isfinite(raw).all()):
        raise ValueError(f"B-scan {index} holds numbers that are not finite")
    if most is not None and not bool((np.abs(raw) <= most).all()):
        raise ValueError(f"B-scan {index} holds numbers beyond {most:g}")


def to_grey(share: npt.NDArray[np.float64]) -> UInt8:
    """Shares 0 to 1 as 0 to 255, rounded; what lies outside is held at the ends, what is no number is black."""
    return (np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)
