"""DICOM: OPT objects (PS3.3 A.52, C.8.17) and other grey frames, one eye at one time, frames in their order.

What a viewer would do is done here explicitly and once: rescale (C.11.1, C.7.6.16.2.9), window or VOI LUT (C.11.2,
C.7.6.16.2.10), MONOCHROME1 and a presentation LUT shape of INVERSE, padding; from the functional groups of each frame, of all
frames, or of the object. Pixels are decoded by pydicom frame by frame; its `pixel_array` does none of these steps.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from octc.core.errors import OctcError
from octc.core.optional import need
from octc.imaging.cut_off import jpeg_cut, rle_cut
from octc.imaging.decode import muted
from octc.imaging.zero_runs import jpeg_2000_cut
from octc.volumes.source import Source, corrupt, cut_short, moment_of, unsupported
from octc.volumes.volume import (
    AROUND,
    MAX_FRAMES,
    SIDES,
    UNKNOWN,
    Fact,
    Intensity,
    Raw,
    Spacing,
    UInt8,
    Volume,
    are_sizes,
    as_stored,
    linear,
    millimetres,
    patient_hash,
    to_grey,
)

NAME = "dicom"
OPT = "1.2.840.10008.5.1.4.1.1.77.1.5.4"
DICOMDIR = "1.2.840.10008.1.3.10"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
EXTENDED = "1.2.840.10008.1.2.4.51"
LOSSY = ("1.2.840.10008.1.2.4.50", EXTENDED)  # sequential JPEG
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")  # lossless, and of any kind
ROUNDED = (*LOSSY, "1.2.840.10008.1.2.4.81", JPEG_2000[1])  # and those that may have losses
RLE = "1.2.840.10008.1.2.5"
EIGHT_BITS_ONLY = {"pillow", "gdcm"}  # of the decoders of JPEG Extended: the others have 12
# how compressed pictures begin: JPEG and JPEG-LS, JPEG 2000, and its boxes (RLE has one fragment a frame: PS3.5 A.4.2)
STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")
# attributes in which the parts of a concatenation cannot differ (C.7.6.16.2.2.4), of those that change what is shown of them
OF_ALL_PARTS = (
    "SOPClassUID", "PatientID", "IssuerOfPatientID", "ImageLaterality", "Laterality", "PhotometricInterpretation",
    "PresentationLUTShape", "BitsStored", "PixelPaddingValue", "PixelPaddingRangeLimit",
)  # fmt: skip
PIXELS, GROUPS = (0x7FE0, 0x0010), 0x52009229  # from here on there are functional groups
UNDEFINED = 0xFFFFFFFF  # the length of compressed pixels
# kinds of values whose length has four bytes (PS3.5 7.1.2)
LONG_KINDS = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
MAX_READS = 1_000_000
NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)
NOT_SCANS = {
    "1.2.840.10008.5.1.4.1.1.77.1.5.1": "a fundus photograph",
    "1.2.840.10008.5.1.4.1.1.77.1.5.2": "a fundus photograph",
    "1.2.840.10008.5.1.4.1.1.77.1.5.5": "a wide-field photograph",
    "1.2.840.10008.5.1.4.1.1.77.1.5.6": "a wide-field photograph",
    "1.2.840.10008.5.1.4.1.1.77.1.5.7": "an en-face picture",
    "1.2.840.10008.5.1.4.1.1.77.1.5.8": "a segmentation of B-scans (B-scan volume analysis)",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a segmentation (label map)",
    "1.2.840.10008.5.1.4.1.1.66.8": "a segmentation (height map)",
    "1.2.840.10008.5.1.4.1.1.30": "a map of computed values (parametric map)",
    "1.2.840.10008.5.1.4.1.1.81.1": "a map of thickness",
    "1.2.840.10008.5.1.4.1.1.82.1": "a map of the cornea",
    "1.2.840.10008.5.1.4.1.1.104.1": "a PDF",
    "1.2.840.10008.5.1.4.1.1.77.1.1": "an endoscope's picture",
    "1.2.840.10008.5.1.4.1.1.77.1.1.1": "a video",
    "1.2.840.10008.5.1.4.1.1.77.1.2.1": "a video",
    "1.2.840.10008.5.1.4.1.1.77.1.4": "a photograph",
    "1.2.840.10008.5.1.4.1.1.77.1.4.1": "a video",
}
WITHOUT_PIXELS = {  # objects without pixels of the classes whose UID begins so
    "1.2.840.10008.5.1.4.1.1.9.": "waveforms",
    "1.2.840.10008.5.1.4.1.1.11.": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.66": "raw data, surfaces or registrations",
    "1.2.840.10008.5.1.4.1.1.67": "a mapping of values",
    "1.2.840.10008.5.1.4.1.1.68.": "surfaces",
    "1.2.840.10008.5.1.4.1.1.78.": "measurements of an eye",
    "1.2.840.10008.5.1.4.1.1.79.": "a report of measurements",
    "1.2.840.10008.5.1.4.1.1.80.": "a report of measurements",
    "1.2.840.10008.5.1.4.1.1.88.": "a structured report",
    "1.2.840.10008.5.1.4.1.1.90.": "an assessment",
    "1.2.840.10008.5.1.4.1.1.91.": "annotations",
    "1.2.840.10008.5.1.4.1.1.104.": "a document",
    "1.2.840.10008.5.1.4.1.1.200.": "a protocol",
    "1.2.840.10008.5.1.4.1.1.201.": "an inventory",
    "1.2.840.10008.5.1.4.34.": "instructions of a treatment",
    "1.2.840.10008.5.1.4.38.": "a hanging protocol",
    "1.2.840.10008.5.1.4.39.": "a palette",
    "1.2.840.10008.5.1.4.43.": "a template of an implant",
    "1.2.840.10008.5.1.4.44.": "a template of an implant",
    "1.2.840.10008.5.1.4.45.": "a template of an implant",
    # of radiotherapy, but for its images (.1) and doses (.2), which have pixels
    **{f"1.2.840.10008.5.1.4.1.1.481.{number}": "an object of radiotherapy" for number in range(3, 10)},
}
ELSEWHERE = {  # where pixels are that are no PixelData -> what is said of them, and what to do
    "FloatPixelData": ("pixels that are float32", "export it with 8 or 16 bits a pixel"),
    "DoubleFloatPixelData": ("pixels that are float64", "export it with 8 or 16 bits a pixel"),
    "PixelDataProviderURL": ("its pixels lie on a server", "have the archive send the object with its pixels"),
}
FLOATS = {(0x7FE0, 0x0008): "FloatPixelData", (0x7FE0, 0x0009): "DoubleFloatPixelData"}
SCRAMBLED_GROUP = 0x0407  # private group in which Zeiss keeps the pixels of `EX.DCM` (OCT-Converter#57, #121)
DERIVED, INCOMPLETE = "octc: ", "incomplete"  # how octc describes what it converted
DERIVED_GREY = re.compile(rf"^{DERIVED}[^;]*; grey ([a-z0-9-]+)")  # and by which mapping its grey was made
DEFER = 4096  # bytes: larger values stay in the file until they are asked for
MAX_INFLATED = 1 << 30
MAX_SIBLINGS = 100_000  # files of a folder in which other parts are looked for
NUMBER_OF_PART = 0x00209162
CONTRADICTING = "contradicting"
EYES = ("R", "L", "B")


@dataclass(frozen=True)
class Look:
    """How the stored numbers of a frame are shown."""

    slope: float = 1.0
    intercept: float = 0.0
    window: tuple[float, float, str] | None = None
    modality: tuple[int, npt.NDArray[np.float64]] | None = None  # first number, table
    voi: tuple[int, npt.NDArray[np.float64]] | None = None  # first number, table of shares 0 to 1

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"slope": self.slope, "intercept": self.intercept}
        if self.window is not None:
            shown["window"] = list(self.window)
        return shown | {name: "table" for name in ("modality", "voi") if getattr(self, name) is not None}


PLAIN = Look()


@dataclass(frozen=True)
class Frame:
    """A B-scan of an object: which file, which frame of it, and what its functional groups say."""

    part: int
    index: int
    eye: str | None
    eye_source: str
    look: Look
    stack: str = ""
    time: int | None = None  # TemporalPositionIndex
    in_stack: int | None = None
    indices: tuple[int, ...] = ()
    position: tuple[float, float, float] | None = None
    across: tuple[float, ...] | None = None  # ImageOrientationPatient
    pixel: tuple[float, float] | None = None  # mm: between rows, between columns
    between: float | None = None


@dataclass(frozen=True)
class Pixels:
    """Where and how the pixels of one file lie, and how many frames of them are whole."""

    source: Source
    syntax: str
    rows: int
    columns: int
    allocated: int
    stored: int
    signed: bool
    start: int
    step: int  # bytes of a native frame; 0 where frames are encapsulated
    fragments: tuple[tuple[tuple[int, int], ...], ...]  # of each encapsulated frame: (offset, length)
    inflated: bytes | None
    declared: int
    whole: int
    turned: bool = False  # bytes of 8 bits that stand in words of the other order (PS3.5 8.1.2, big endian)
    below: int = 0  # bits below the stored ones (PS3.5 8.1.1, retired): HighBit + 1 - BitsStored

    @property
    def ends(self) -> tuple[int, int]:
        """The lowest and the largest number that a pixel can be."""
        half = 1 << (self.stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    def read(self, index: int) -> Raw:
        """Stored numbers of a frame; bits above and below them do not count (PS3.5 8.1.1)."""
        return self._native(index) if self.step else self._decoded(index)

    def _native(self, index: int) -> Raw:
        order = ">" if self.syntax == BIG_ENDIAN else "<"
        kind = np.dtype(f"{order}u{self.allocated // 8}")
        if self.inflated is not None:
            count, begin = self.rows * self.columns, self.start + index * self.step
            found = np.frombuffer(self.inflated, kind, count, begin).reshape(self.rows, self.columns)
        else:
            found = self.source.array(kind.str, self.start + index * self.step, (self.rows, self.columns))
        if self.turned:
            found = found.reshape(-1).view("u2").byteswap().view("u1").reshape(self.rows, self.columns)
        return self._masked(found.astype(kind.newbyteorder("=")))

    def _masked(self, found: Raw) -> Raw:
        spare = self.allocated - self.stored
        if self.signed:
            wide = found.view(f"i{self.allocated // 8}")
            return (wide << (spare - self.below)) >> spare if spare else wide
        return (found >> self.below) & ((1 << self.stored) - 1) if spare else found

    def _decoded(self, index: int) -> Raw:
        from pydicom.encaps import encapsulate
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID

        data = b"".join(self.source.take(offset, size) for offset, size in self.fragments[index])
        self._same_size(data, index)
        options: dict[str, Any] = {
            "rows": self.rows,
            "columns": self.columns,
            "samples_per_pixel": 1,
            "photometric_interpretation": "MONOCHROME2",
            "pixel_representation": int(self.signed),
            "bits_allocated": self.allocated,
            "bits_stored": self.allocated
            if self.syntax == RLE
            else self.stored,  # RLE packs whole bytes: `_masked` does the rest
            "number_of_frames": 1,
            "pixel_keyword": "PixelData",
        }
        try:
            with muted():
                found, _ = get_decoder(UID(self.syntax)).as_array(encapsulate([data]), index=0, **options)
            kind = f"{'i' if self.signed else 'u'}{self.allocated // 8}"
            decoded = np.asarray(found).reshape(self.rows, self.columns)
        except (RuntimeError, ValueError) as error:
            why = str(error).strip().splitlines()[-1].strip() if str(error) else type(error).__name__
            raise corrupt(self.source.path, f"frame {index} cannot be decoded: {why}") from error
        cut = None
        if self.syntax == RLE:
            cut = rle_cut(data, self.rows * self.columns)
        elif self.syntax in LOSSY and decoded.dtype.itemsize == 1:
            cut = jpeg_cut(data, Image.fromarray(decoded.view("u1")))
        elif self.syntax in JPEG_2000:
            cut = jpeg_2000_cut(data)
        if cut is not None:
            raise corrupt(self.source.path, f"frame {index} is damaged or cut off: {cut}")
        if self.syntax in ROUNDED and (not self.signed or decoded.dtype.kind == "i"):
            low = -(1 << (self.stored - 1)) if self.signed else 0  # what losses carried beyond the ends is held there
            decoded = np.clip(decoded, low, low + (1 << self.stored) - 1)
        return self._masked(decoded.astype(kind))  # JPEG-LS knows no sign: its numbers have BitsStored bits

    def _same_size(self, data: bytes, index: int) -> None:
        """A compressed picture of another size, or kind, than declared is refused before it is decoded."""
        try:
            with muted():
                picture = Image.open(io.BytesIO(data), formats=("JPEG", "JPEG2000"))
        except (OSError, SyntaxError, ValueError):
            return  # RLE and JPEG-LS are no pictures to Pillow; their decoders know the size
        said = "JPEG" if self.syntax in LOSSY else "JPEG2000" if self.syntax in JPEG_2000 else picture.format
        if picture.format != said:
            raise corrupt(self.source.path, f"frame {index} is {picture.format}, and its transfer syntax says {said}")
        if picture.size != (self.columns, self.rows):
            text = f"frame {index} is {picture.height} x {picture.width}, {self.rows} x {self.columns} is declared"
            raise corrupt(self.source.path, text)


@dataclass(frozen=True)
class Opened:
    """An object without its pixels, and where those begin: byte, the length that is declared, whether they are words (OW)."""

    value: Any
    start: int
    length: int
    words: bool = False
    inflated: bytes | None = None  # the whole object where its file is deflated: that is where `start` counts

    def get(self, name: str, default: Any = None) -> Any:
        return self.value.get(name, default)


def read(path: Path, key: bytes | None, allow_cut: bool) -> list[Volume]:
    """The volumes of an object, with the other parts of its concatenation in the same folder: one for each eye.

    Raises:
        OctcError: E220 without pixels, E221 no decoder for its transfer syntax, E222 damaged, E223 scrambled by its maker,
            E226 cut short, E227 no B-scans, E901 pydicom is not installed.
    """
    need("pydicom")
    logging.getLogger("pydicom").addHandler(logging.NullHandler())  # it speaks to stderr where nobody listens
    with muted():  # values are parsed when they are asked for, anywhere below
        return _volumes(path, key, allow_cut)


def _volumes(path: Path, key: bytes | None, allow_cut: bool) -> list[Volume]:
    first = _opened(path)
    parts = _concatenation(path, first)
    objects = [first if part == path else _opened(part) for part in parts]
    first = objects[0]
    _same_in_all(path, objects)
    pixels = [_pixels(part, opened) for part, opened in zip(parts, objects, strict=True)]
    whole, declared = sum(one.whole for one in pixels), sum(one.declared for one in pixels)
    if whole < declared and not (allow_cut and whole):
        raise cut_short(path, f"{whole} of {declared} frames are whole", whole)
    if declared > MAX_FRAMES:
        raise corrupt(path, f"{declared} frames")
    if len({(one.rows, one.columns, one.signed, one.allocated) for one in pixels}) > 1:
        raise corrupt(path, "the parts of the concatenation have several sizes")
    frames = [
        frame for part, (opened, one) in enumerate(zip(objects, pixels, strict=True)) for frame in _frames(opened, part, one)
    ]
    common, missing = _notes(first, pixels), True if whole < declared else _missing_parts(objects)
    groups = _groups(frames)
    return [
        replace(
            _volume(path, first, pixels, group, (number, len(groups)), key, common, missing),
            others=tuple(part for part in parts if part != path),
        )
        for number, group in enumerate(groups)
    ]


def without_scans(path: Path) -> str | None:
    """What an object is by the class in its header, where no object of that class holds B-scans: an index, a report, a
    photograph. None for all others, and where that cannot be told: reading it says what it is."""
    try:
        with muted():
            kind = str(_meta(path).get("MediaStorageSOPClassUID", ""))
    except Exception:  # pydicom raises classes of its own on altered bytes
        return None
    if kind == DICOMDIR:
        return "an index of other files"
    return NOT_SCANS.get(kind) or next((what for start, what in WITHOUT_PIXELS.items() if kind.startswith(start)), None)


def _opened(path: Path) -> Opened:
    """The object without its pixels, once it is known to be one with B-scans."""
    with muted():
        meta = _meta(path)
        if str(meta.get("MediaStorageSOPClassUID", "")) == DICOMDIR:
            raise _none(
                path, "it is a DICOMDIR, an index of other files", "give the files that it names; octc predict takes the folder"
            )
        syntax = str(meta.get("TransferSyntaxUID", ""))
        inflated = _inflated(path) if syntax == DEFLATED else None
        opened, pixels = _parsed(path, inflated)
        scrambled = _scrambled(opened)
    if scrambled:
        text = f"{path.name} is scrambled by its maker (Zeiss, private group 0407): its pixels cannot be read"
        hint = "export it from FORUM or the device as unprotected DICOM (no EX.DCM), or as pictures"
        raise OctcError("OCT-E223", text, hint=hint, place=str(path))
    kind = str(opened.get("SOPClassUID", ""))
    _of_another_kind(path, opened, kind, pixels is not None)
    if pixels is None:
        raise _without_pixels(path)
    if _integer(opened, "SamplesPerPixel", 1) != 1:
        what = "a colour picture under the OPT class" if kind == OPT else "a colour picture"
        raise _none(path, f"it is {what}", "give the OPT object with the B-scans")
    meant = _word(opened, "PhotometricInterpretation")
    if meant not in ("MONOCHROME1", "MONOCHROME2"):
        if meant == "PALETTE COLOR":
            hint = "convert it to grey: dcmdump shows what it is, dcm2img (DCMTK) or the device writes pictures"
            raise unsupported(path, "colours of a palette (PALETTE COLOR)", hint)
        raise corrupt(path, f"photometric interpretation {meant!r} of one sample")
    return Opened(opened, *pixels, inflated)


def head_of(path: Path, names: Sequence[str] | None = None) -> Any:
    """The elements of an object before its pixels (those of these names), bounded and inflated as the readers do it.

    Raises:
        OctcError: E222 E226, and whatever pydicom raises on altered bytes.
    """
    from pydicom import dcmread

    with muted():
        deflated = str(_meta(path).get("TransferSyntaxUID", "")) == DEFLATED
        with Counted(path, _inflated(path) if deflated else None) as stream:
            return dcmread(stream, stop_before_pixels=True, specific_tags=None if names is None else list(names))


def _scrambled(opened: Any) -> bool:
    """Whether an object has the private group in which Zeiss keeps scrambled pixels, and no other maker's name."""
    elements = [tag for tag in list(opened.keys()) if tag.group == SCRAMBLED_GROUP]  # iterating would parse all values
    owners = [str(opened[tag].value) for tag in elements if 0x10 <= tag.element <= 0xFF]
    maker = str(opened.get("Manufacturer", "") or "")
    of_zeiss = any(word in " ".join((maker, *owners)).lower() for word in ("zeiss", "czm"))
    return bool(elements) and (of_zeiss or not maker or not owners)


def _of_another_kind(path: Path, opened: Any, kind: str, pixels: bool) -> None:
    """Refuse an object of a class that holds no B-scans (E227), and one whose pixels are no PixelData (E229)."""
    named = NOT_SCANS.get(kind)
    if not pixels:
        named = named or next((what for start, what in WITHOUT_PIXELS.items() if kind.startswith(start)), None)
    if named is not None:
        raise _none(path, f"it is {named}", "give the OPT object of the same study")
    for name, (what, hint) in () if pixels else ELSEWHERE.items():
        if name in opened:
            raise unsupported(path, what, hint)


def _integer(opened: Any, name: str, default: int = 0) -> int:
    """A number of an object; the default where the attribute is absent or empty (as some programs leave what they clear)."""
    value = opened.get(name)
    return default if value is None or value == "" else int(value)


class InMemory(io.BytesIO):
    """Bytes in place of a file, of which pydicom asks the name."""

    name = ""


class Counted(io.BufferedReader):
    """A file of which no more than MAX_READS pieces are read: pydicom takes two for each element, and an element of 8 bytes is
    a hundred times as many in memory."""

    def __init__(self, path: Path, data: bytes | None = None) -> None:
        """data: what is read in place of the file."""
        super().__init__(io.FileIO(str(path)) if data is None else InMemory(data))  # pydicom adds text to its name
        self.path, self.pieces = path, 0

    def read(self, size: int | None = -1) -> bytes:
        self.pieces += 1
        if self.pieces > MAX_READS:
            raise corrupt(self.path, f"it has more than {MAX_READS // 2} elements before its pixels")
        return super().read(size)


def _meta(path: Path) -> Any:
    """The elements of a file's header (group 0002)."""
    from pydicom.filereader import _read_file_meta_info, read_preamble

    with Counted(path) as stream, _ending(path, stream):
        read_preamble(stream, False)
        return _read_file_meta_info(stream)


def _bounded(path: Path, inflated: bytes | None) -> None:
    """Refuse an object that declares too much before its functional groups are parsed, which lie behind these numbers."""
    from pydicom.filereader import read_partial

    with Counted(path, inflated) as stream, _ending(path, stream):
        head = read_partial(stream, stop_when=lambda tag, _vr, _length: tag >= GROUPS)
    declared = _integer(head, "NumberOfFrames") or 1
    if declared > MAX_FRAMES:
        raise corrupt(path, f"{declared} frames are declared, {MAX_FRAMES} are the limit")


def _parsed(path: Path, inflated: bytes | None) -> tuple[Any, tuple[int, int, bool] | None]:
    """An object up to its pixels, and where those begin and how long they say that they are; None where there are none."""
    from pydicom import dcmread

    _bounded(path, inflated)
    with Counted(path, inflated) as stream:
        with _ending(path, stream):
            opened = dcmread(stream, defer_size=DEFER if inflated is None else None, stop_before_pixels=True)
        at, head = stream.tell(), stream.read(12)
    for tag, what in FLOATS.items():
        if head[:4] in (struct.pack("<2H", *tag), struct.pack(">2H", *tag)):
            raise unsupported(path, *ELSEWHERE[what])
    little = head[:4] == struct.pack("<2H", *PIXELS)  # the encoding as it is, which need not be what the header says
    if len(head) < 12 or not (little or head[:4] == struct.pack(">2H", *PIXELS)):
        return opened, None
    explicit = head[4:6] in (b"OB", b"OW", b"UN")  # as a length these would be odd, and no length is
    length = head[8:12] if explicit else head[4:8]
    return opened, (at + (12 if explicit else 8), struct.unpack("<I" if little else ">I", length)[0], head[4:6] == b"OW")


@contextmanager
def _ending(path: Path, stream: Counted) -> Iterator[None]:
    """What a parser raises where a file ends within an element is said of the file: E220."""
    try:
        yield
    except OctcError:
        raise
    except Exception as error:  # struct.error, EOFError and classes of pydicom's own
        if stream.peek(1):
            raise
        raise _without_pixels(path) from error


def _without_pixels(path: Path) -> OctcError:
    text = f"{path.name}: DICOM without pixel data, or cut short before them"
    return OctcError("OCT-E220", text, hint="copy it again, or export the images too", place=str(path))


def _none(path: Path, what: str, hint: str) -> OctcError:
    return OctcError("OCT-E227", f"{path.name} holds no B-scans: {what}", hint=hint, place=str(path))


def _inflated(path: Path) -> bytes:
    """A deflated object as one that is not, of at most 1 GiB. Its elements are then counted like those of any other: pydicom
    inflates and parses as many as there are, and a file of a megabyte can hold a hundred million."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import _read_file_meta_info, read_preamble
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import UID

    inflater, whole, meta = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO(), FileMetaDataset()
    meta.TransferSyntaxUID = UID(EXPLICIT)
    whole.write(bytes(128) + b"DICM")
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=False)
    whole.write(head.getvalue())
    with path.open("rb") as stream:
        read_preamble(stream, False)
        _read_file_meta_info(stream)
        while block := stream.read(1 << 16):
            while block and not inflater.eof:
                whole.write(inflater.decompress(block, 1 << 20))
                block = inflater.unconsumed_tail
                if whole.tell() > MAX_INFLATED:
                    text = f"deflated elements of more than {MAX_INFLATED >> 30} GiB"
                    raise unsupported(path, text, "store it uncompressed (explicit VR little endian): dcmconv +te IN OUT")
    if not inflater.eof:
        raise cut_short(path, "its deflated elements do not end")
    return whole.getvalue()


def _pixels(path: Path, opened: Opened) -> Pixels:
    """Sizes, and the frames that are whole."""
    source = Source(path)
    syntax = str(opened.value.file_meta.get("TransferSyntaxUID", "") or IMPLICIT)
    rows, columns = _integer(opened, "Rows"), _integer(opened, "Columns")
    allocated, stored = _integer(opened, "BitsAllocated"), _integer(opened, "BitsStored")
    declared = _integer(opened, "NumberOfFrames") or 1
    if not are_sizes(declared, rows, columns):
        raise corrupt(path, f"{declared} frames of {rows} x {columns}")
    high = _integer(opened, "HighBit", stored - 1)
    words = f"{allocated} bits allocated, {stored} stored, high bit {high}"
    below = high + 1 - stored
    if allocated in (1, 12, 32, 64) or (below > 0 and syntax not in (*NATIVE, RLE)):
        raise unsupported(path, words, "export it with 8 or 16 bits a pixel, from the device or with gdcmconv")
    if allocated not in (8, 16) or not 0 < stored <= high + 1 <= allocated:
        raise corrupt(path, words)
    signed = _integer(opened, "PixelRepresentation") == 1
    given = (source, syntax, rows, columns, allocated, stored, signed)
    step = rows * columns * allocated // 8
    start, length = opened.start, opened.length
    if syntax in NATIVE:
        if length == UNDEFINED:
            raise corrupt(path, "its pixels are compressed, and its transfer syntax says that they are not")
        there = min(length, (source.size if opened.inflated is None else len(opened.inflated)) - start)
        if opened.inflated is not None and not _ends_behind(opened.inflated, start + length):
            raise corrupt(path, "what it inflates to does not end behind its pixels: there may be a hole in it")
        if length < declared * step:
            raise corrupt(path, f"{declared} frames of {rows} x {columns} are declared, the pixels have {length} bytes")
        turned = opened.words and syntax == BIG_ENDIAN and allocated == 8
        if turned and step % 2:
            text = "frames of an odd number of bytes in words of the other order"
            raise unsupported(path, text, "store it as explicit VR little endian: dcmconv +te IN OUT")
        whole = max(0, min(declared, there // step))
        return Pixels(*given, start, step, (), opened.inflated, declared, whole, turned, below)
    _decodable(path, syntax, stored)
    fragments = _fragments(source, start, declared, opened)
    return Pixels(*given, start, 0, fragments, None, declared, len(fragments), below=below)


def _ends_behind(inflated: bytes, at: int) -> bool:
    """Whether whole elements, or none, lie between the end of the pixels and that of an inflated object: a deflated object has
    no sum (PS3.5 A.5), and where codes of it are lost, more comes of it, or less."""
    while at + 8 <= len(inflated):
        group, kind, short = struct.unpack("<H2x2sH", inflated[at : at + 8])
        if group < PIXELS[0] or not (kind.isalpha() and kind.isupper()):
            return False
        if kind in LONG_KINDS:
            if at + 12 > len(inflated):
                return False
            (length,) = struct.unpack("<I", inflated[at + 8 : at + 12])
            if length == UNDEFINED:
                return True
            at += 12 + length
        else:
            at += 8 + short
    return at >= len(inflated)


def decodable(syntax: str) -> bool:
    """Whether this machine can read pixels of a transfer syntax (of JPEG Extended those of 8 bits)."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    try:
        return syntax in NATIVE or get_decoder(UID(syntax)).is_available
    except NotImplementedError:
        return False


def _decodable(path: Path, syntax: str, stored: int) -> None:
    """E221 where this machine has no decoder for a transfer syntax, and as many bits."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    if not decodable(syntax):
        raise _no_decoder(path, UID(syntax).name)
    if syntax == EXTENDED and stored > 8 and set(get_decoder(UID(syntax)).available_plugins) <= EIGHT_BITS_ONLY:
        raise _no_decoder(path, f"{UID(syntax).name} of {stored} bits")


def _no_decoder(path: Path, name: str) -> OctcError:
    hint = "have the archive send it uncompressed (explicit VR little endian), or export the B-scans as pictures"
    if "JPEG-LS" in name:
        hint = "pip install 'octc[clinic]'"
    elif name.startswith("JPEG Lossless"):
        hint = "pip install python-gdcm, or store it uncompressed: dcmdjpeg IN OUT, or gdcmconv --raw IN OUT"
    elif name.startswith("JPEG Extended"):
        hint = "store it uncompressed: dcmdjpeg IN OUT, or gdcmconv --raw IN OUT"
    return OctcError("OCT-E221", f"{path.name}: no decoder for {name}", hint=hint, place=str(path))


def _fragments(source: Source, start: int, declared: int, opened: Opened) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Fragments of each frame that is whole: by the offset tables, or one a frame (PS3.5 A.4)."""
    items, ended, end = _items(source, start)
    table, found = items[0], items[1:]
    base = found[0][0] - 8 if found else 0
    offsets: list[int] = []
    if opened.get("ExtendedOffsetTable"):
        data = bytes(opened.get("ExtendedOffsetTable"))
        offsets = [int(n) for n in np.frombuffer(data[: len(data) // 8 * 8], "<u8")]
    elif table[1]:
        data = source.take(*table)
        offsets = [int(n) for n in np.frombuffer(data[: len(data) // 4 * 4], "<u4")]
    if offsets:
        if len(offsets) != declared or offsets != sorted(set(offsets)) or offsets[0] != 0:
            raise corrupt(source.path, f"an offset table that is not one of {declared} frames in their order")
        begins = {item[0] - 8 - base for item in found}
        if any(offset not in begins for offset in offsets if ended or offset < end - base):
            raise corrupt(source.path, "an offset table that names a place where no fragment begins")
        groups = [
            tuple(item for item in found if low <= item[0] - 8 - base < high) for low, high in pairwise([*offsets, 1 << 62])
        ]
        last = 1 << 62 if ended else end - base  # a frame is whole where the next one begins before the end
        return tuple(group for group, high in zip(groups, [*offsets[1:], 1 << 61], strict=True) if group and high <= last)
    found = [item for item in found if item[1]]  # an empty one is nobody's
    if declared == 1:
        return (tuple(found),) if ended and found else ()
    if len(found) == declared and ended:
        return tuple((item,) for item in found)
    return _by_their_starts(source, found, declared, ended)


def _by_their_starts(
    source: Source, found: Sequence[tuple[int, int]], declared: int, ended: bool
) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Fragments of each whole frame where no table says which is whose: a frame begins where a compressed picture does."""
    heads = [source.take(offset, min(size, 8)) for offset, size in found]
    begins = [b"".join(heads[k : k + 4])[:8].startswith(STARTS) for k in range(len(heads))]  # of at least 2 bytes each
    if not any(begins) and not ended and len(found) <= declared:
        return tuple((item,) for item in found)  # RLE, cut off
    firsts = [index for index, begin in enumerate(begins) if begin]
    if (ended and len(firsts) != declared) or len(firsts) > declared or firsts[:1] not in ([], [0]):
        raise corrupt(source.path, f"{len(found)} fragments for {declared} frames, and nothing says which is whose")
    groups = [tuple(found[low:high]) for low, high in pairwise([*firsts, len(found)])]
    several = len(found) > len(firsts)  # then the last frame may lack fragments
    return tuple(groups if ended or not several else groups[:-1])


def _items(source: Source, start: int) -> tuple[list[tuple[int, int]], bool, int]:
    """(offset, length) of each whole item of encapsulated pixels, the offset table first; whether it is closed; its end."""
    items: list[tuple[int, int]] = []
    at, closed = start, False
    while at + 8 <= source.size:
        group, element, length = source.numbers("<HHI", at)
        if (group, element) == (0xFFFE, 0xE0DD):
            closed = True
            break
        if (group, element) != (0xFFFE, 0xE000) or length == UNDEFINED or len(items) > 16 * MAX_FRAMES:
            raise corrupt(source.path, f"no item of pixels begins at byte {at}")
        if at + 8 + length > source.size:
            break
        items.append((at + 8, length))
        at += 8 + length
    return items or [(at, 0)], closed, at


def _concatenation(path: Path, opened: Opened) -> list[Path]:
    """All parts of a concatenation that lie in this folder, in their order; the file alone where it is none."""
    uid = str(opened.get("ConcatenationUID", ""))
    if not uid:
        return [path]
    found = {_integer(opened, "InConcatenationNumber", 1): path}
    with os.scandir(path.parent) as entries:
        siblings = sorted(entry.name for entry in entries if entry.name != path.name)
    for name in siblings[:MAX_SIBLINGS]:
        sibling = path.parent / name
        with suppress(OSError):
            facts = sibling.stat()
            if stat.S_ISREG(facts.st_mode) and facts.st_size > 132:
                other, number = _part_of(str(sibling), facts.st_mtime_ns, facts.st_size)
                if other == uid:
                    found.setdefault(number, sibling)
    return [found[number] for number in sorted(found)]


@lru_cache(maxsize=MAX_SIBLINGS)
def _part_of(path: str, _written: int, _size: int) -> tuple[str, int]:
    """Of which concatenation a file is, and which part; ("", 0) for any other. Told once for a file as long as it is not
    written to: every part looks for all others, and of large files the beginning is read alone."""
    from pydicom.filereader import read_partial

    place = Path(path)
    with place.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return "", 0
    names = ("ConcatenationUID", "InConcatenationNumber")
    try:
        with muted():
            if str(_meta(place).get("TransferSyntaxUID", "")) == DEFLATED:
                found = head_of(place, names)
            else:
                with Counted(place) as stream:
                    found = read_partial(stream, stop_when=lambda tag, _vr, _length: tag > NUMBER_OF_PART)
            return str(found.get(names[0], "")), _integer(found, names[1])
    except Exception:  # pydicom raises classes of its own on altered bytes
        return "", 0


def _same_in_all(path: Path, objects: Sequence[Opened]) -> None:
    """Parts that contradict each other are not one volume: E222."""
    for name in OF_ALL_PARTS:
        if len({str(opened.get(name) or "") for opened in objects}) > 1:
            raise corrupt(path, f"the parts of the concatenation differ in {name}")


def _missing_parts(objects: Sequence[Opened]) -> bool | None:
    """Whether parts of a concatenation are not there; None where nothing says how many it has."""
    if not objects[0].get("ConcatenationUID"):
        return False
    numbers = [_integer(opened, "InConcatenationNumber", 1) for opened in objects]
    totals = {total for opened in objects if (total := _integer(opened, "InConcatenationTotalNumber"))}
    if totals - {len(objects)} or numbers != list(range(1, len(objects) + 1)):
        return True
    return False if totals else None


def _frames(opened: Opened, part: int, pixels: Pixels) -> list[Frame]:
    """What the functional groups say of each whole frame."""
    shared = _first(opened.get("SharedFunctionalGroupsSequence"))
    each = opened.get("PerFrameFunctionalGroupsSequence") or []
    if each and len(each) < pixels.declared:
        raise corrupt(pixels.source.path, f"functional groups of {len(each)} frames for {pixels.declared}")
    objects = _Levels(opened, shared, None)
    eye_of_object = _eye(objects)
    return [
        _frame(_Levels(opened, shared, each[index] if each else None), part, index, eye_of_object)
        for index in range(pixels.whole)
    ]


@dataclass(frozen=True)
class _Levels:
    """An object, what holds for all its frames, and what holds for one."""

    top: Any
    shared: Any
    own: Any

    def group(self, name: str) -> Any:
        """The first item of a functional group: of the frame, or of all frames; None where there is none."""
        for level in (self.own, self.shared):
            item = None if level is None else _first(level.get(name))
            if item is not None:
                return item
        return None


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None


def _frame(levels: _Levels, part: int, index: int, eye_of_object: tuple[str | None, str]) -> Frame:
    content, measures = levels.group("FrameContentSequence"), levels.group("PixelMeasuresSequence")
    position = _numbers(levels.group("PlanePositionSequence"), "ImagePositionPatient", 3)
    pixel = _numbers(measures, "PixelSpacing", 2) or _numbers(levels.top, "PixelSpacing", 2)
    between = _numbers(measures, "SpacingBetweenSlices", 1) or _numbers(levels.top, "SpacingBetweenSlices", 1)
    eye, source = _frame_eye(_own_eyes(levels), eye_of_object)
    number, time = (
        None if content is None else content.get(name) for name in ("InStackPositionNumber", "TemporalPositionIndex")
    )
    return Frame(
        part=part,
        index=index,
        eye=eye,
        eye_source=source,
        look=_look(levels),
        stack="" if content is None else _word(content, "StackID"),
        time=None if time is None else int(time),
        in_stack=None if number is None else int(number),
        indices=() if content is None else tuple(int(n) for n in _values(content.get("DimensionIndexValues"))),
        position=None if position is None else (position[0], position[1], position[2]),
        across=_numbers(levels.group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        pixel=None if pixel is None else (pixel[0], pixel[1]),
        between=between[0] if between else None,
    )


def _eye(levels: _Levels) -> tuple[str | None, str]:
    """R, L, or B for both: ImageLaterality, or Laterality of the series; None where they contradict each other."""
    named = [(name, eye) for name in ("ImageLaterality", "Laterality") for eye in _eyes_in(levels.top, name)]
    if len({eye for _, eye in named}) != 1:
        return None, CONTRADICTING if named else UNKNOWN
    name, eye = named[0]
    return eye, name


def _eyes_in(item: Any, name: str) -> list[str]:
    """The letters of an attribute that are one of EYES: one that is written with several values has all of them."""
    return [eye for value in _values(item.get(name)) if (eye := str(value).strip(AROUND)) in EYES]


def _own_eyes(levels: _Levels) -> set[str]:
    """What the functional groups of a frame, and those of all frames, call its eye."""
    found = set()
    for level in (levels.own, levels.shared):
        anatomy = None if level is None else _first(level.get("FrameAnatomySequence"))
        if anatomy is not None:
            found.update(_eyes_in(anatomy, "FrameLaterality"))
    return found


def _frame_eye(words: set[str], of_object: tuple[str | None, str]) -> tuple[str | None, str]:
    """The eye of a frame: its own word where the object does not say another one, else the object's; B is no eye."""
    eye, source = of_object
    if len(words) > 1:
        return None, CONTRADICTING
    own = next(iter(words), "")
    if own in SIDES:
        agree = source != CONTRADICTING and eye in (None, "B", own)
        return (SIDES[own], "FrameLaterality") if agree else (None, CONTRADICTING)
    if own == "B" and eye in SIDES:
        return None, CONTRADICTING
    return (SIDES[eye], source) if eye in SIDES and own != "B" else (None, source if source == CONTRADICTING else UNKNOWN)


def _word(item: Any, name: str) -> str:
    """A code without what pads it: blanks before it are no part of it either (PS3.5 6.2), nor are zeros."""
    return str(item.get(name, "") or "").strip(AROUND)


def _values(value: Any) -> list[Any]:
    """The values of an attribute: none, one or several."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]


def _numbers(item: Any, name: str, count: int) -> tuple[float, ...] | None:
    values = _values(None if item is None else item.get(name))
    numbers = () if "" in values else tuple(float(n) for n in values)
    return numbers if numbers and len(numbers) == count and all(np.isfinite(numbers)) else None


def _look(levels: _Levels) -> Look:
    """Rescale and window of a frame: its functional groups, those of all frames, or the object's own attributes."""
    rescale, voi = levels.group("PixelValueTransformationSequence") or levels.top, levels.group("FrameVOILUTSequence")
    slope, intercept = _one(rescale.get("RescaleSlope")), _one(rescale.get("RescaleIntercept")) or 0.0
    slope = 1.0 if slope is None else slope
    if slope == 0:
        raise ValueError("a rescale slope of 0, by which all frames are one grey")
    shown = voi if voi is not None else levels.top
    centre, width = _one(shown.get("WindowCenter")), _one(shown.get("WindowWidth"))
    window = None
    if centre is not None and width is not None:
        window = (centre, width, _word(shown, "VOILUTFunction") or "LINEAR")
        windowed(np.zeros(1), *window)  # refused now, not at the first frame
    if not np.isfinite((slope, intercept, *(window or ())[:2])).all():
        raise ValueError("a rescale or a window with a number that is not finite")
    modality = _first(levels.top.get("ModalityLUTSequence"))
    table = _first(shown.get("VOILUTSequence")) if window is None else None
    signed = levels.top.get("PixelRepresentation", 0) == 1
    below_0 = modality is None and (signed or intercept < 0 or slope < 0)  # a table's numbers have no sign
    return Look(
        slope,
        intercept,
        window,
        None if modality is None else _table(modality, signed)[:2],
        None if table is None else _voi(table, below_0),
    )


def _one(value: Any) -> float | None:
    """The first of one or several numbers."""
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)


def _table(item: Any, negative: bool) -> tuple[int, npt.NDArray[np.float64], int]:
    """A LUT: the first number that it maps, its entries, their bits (PS3.3 C.11.1.1.1). The first number is signed where the
    numbers that are mapped can be, and their count never is, whatever kind of value the descriptor is written as."""
    count, first, bits = (int(n) for n in item.LUTDescriptor)
    count = count % (1 << 16) or 1 << 16
    first = first - (1 << 16) if negative and first >= 1 << 15 else first
    data = item.LUTData
    big = item.original_encoding[1] is False
    values = np.frombuffer(data, ">u2" if big else "<u2") if isinstance(data, bytes) else np.atleast_1d(data)
    if isinstance(data, bytes) and bits <= 8 and len(values) == (count + 1) // 2:  # 8 bits allocated to an entry
        values = values.astype("<u2").view("u1")[:count]
    if len(values) != count:
        raise ValueError(f"a LUT of {len(values)} entries says that it has {count}")
    return first, values.astype(np.float64), bits


def _voi(item: Any, negative: bool) -> tuple[int, npt.NDArray[np.float64]]:
    """A VOI LUT as shares (C.11.2.1.1)."""
    first, values, bits = _table(item, negative)
    return first, values / ((1 << bits) - 1)


def _groups(frames: list[Frame]) -> list[list[Frame]]:
    """One group for each eye; for each stack, or time, too, where those of one eye number their frames alike, and for each
    stack where stacks lie across each other."""
    eyes: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        eyes[frame.eye or ""].append(frame)
    groups = []
    for eye in eyes.values():
        numbers = [frame.in_stack for frame in eye if frame.in_stack is not None]
        stacks = [[frame for frame in eye if frame.stack == stack] for stack in sorted({frame.stack for frame in eye})]
        several = len(stacks) > 1 and (len(set(numbers)) < len(numbers) or _crossed(eye, stacks))
        for stack in stacks if several else [eye]:
            groups += _times(stack)
    return groups


def _times(frames: list[Frame]) -> list[list[Frame]]:
    """Frames of each time at which a stack was taken, where their numbers in it begin again; all of them elsewhere."""
    times = sorted({frame.time for frame in frames if frame.time is not None})
    numbers = {frame.in_stack for frame in frames}
    if len(times) < 2 or len(numbers) == len(frames) or None in numbers or any(frame.time is None for frame in frames):
        return [frames]
    return [[frame for frame in frames if frame.time == time] for time in times]


def _crossed(frames: Sequence[Frame], stacks: Sequence[Sequence[Frame]]) -> bool:
    """Whether the planes of each stack are parallel, and not to those of the others."""
    return _turned(frames) and all(len(stack) > 1 and _normal(stack) is not None for stack in stacks)


def _turned(frames: Sequence[Frame]) -> bool:
    """Whether all planes are known, and not parallel."""
    known = all(frame.across is not None and frame.position is not None for frame in frames)
    return known and _normal(frames) is None


def _normal(frames: Sequence[Frame]) -> npt.NDArray[np.float64] | None:
    """The normal of parallel planes; None where planes are not known or not parallel."""
    if any(frame.across is None or frame.position is None for frame in frames):
        return None
    normals = np.asarray([np.cross(frame.across[:3], frame.across[3:]) for frame in frames if frame.across is not None])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    if not (lengths > 1e-6).all():
        return None
    normals = normals / lengths
    return normals[0] if np.allclose(normals @ normals[0], 1, atol=1e-3) else None


def _sorted(frames: list[Frame]) -> tuple[list[Frame], Fact[str], list[str]]:
    """Frames by their number in the stack, else by position along the normal, else as they are."""
    numbers = [frame.in_stack for frame in frames]
    if all(number is not None for number in numbers) and len(set(numbers)) == len(numbers):
        ordered = sorted(frames, key=lambda frame: frame.in_stack or 0)
        return ordered, Fact("InStackPositionNumber", "FrameContentSequence"), _numbered_oddly(frames)
    notes = _numbered_oddly(frames)
    normal = _normal(frames)
    if normal is not None:
        places = [float(np.dot(normal, frame.position or (0, 0, 0))) for frame in frames]
        if len(set(places)) == len(places):
            ordered = [frame for _, frame in sorted(zip(places, frames, strict=True), key=lambda pair: pair[0])]
            return ordered, Fact("position along the normal", "ImagePositionPatient"), notes
    indices = [frame.indices for frame in frames]
    if all(indices) and len(set(indices)) == len(indices) and indices != sorted(indices):
        notes.append("their dimension indices name another order than that of the file, which is not used")
    return frames, Fact("file order", "order in the file"), notes


def _numbered_oddly(frames: Sequence[Frame]) -> list[str]:
    """What is unusual in the numbers and stacks of the frames of a volume."""
    numbers = [frame.in_stack for frame in frames if frame.in_stack is not None]
    stacks, notes = {frame.stack for frame in frames}, []
    if len(set(numbers)) < len(numbers):
        notes.append("two frames have the same number in the stack")
    if 0 < len(numbers) < len(frames):
        notes.append(f"{len(frames) - len(numbers)} frames have no number in the stack")
    if len(stacks) > 1:
        notes.append(f"frames of {len(stacks)} stacks (StackID) are read as one volume")
    if _turned(frames):
        notes.append("the planes of the frames are not parallel: no distance lies between them")
    return notes


def _volume(
    path: Path, opened: Opened, pixels: list[Pixels], group: list[Frame], place: tuple[int, int], key: bytes | None,
    common: list[str], lacking: bool | None,
) -> Volume:  # fmt: skip
    ordered, order, notes = _sorted(group)
    one = pixels[0]
    complete, gaps = _complete(opened, pixels, ordered, lacking)
    eye = ordered[0].eye
    if eye is None:
        how = "named in contradicting ways" if ordered[0].eye_source == CONTRADICTING else "not named"
        notes = [*notes, f"the eye is {how}"]
    notes = [*common, *notes, *gaps]

    return Volume(
        path=path,
        format=NAME,
        frames=len(ordered),
        rows=one.rows,
        columns=one.columns,
        dtype=("int" if one.signed else "uint") + str(one.allocated),
        intensity=_intensity(opened, one, [frame.look for frame in ordered]),
        read=partial(_stored, tuple(pixels), tuple((frame.part, frame.index) for frame in ordered)),
        part=place[0],
        parts=place[1],
        laterality=Fact(eye, ordered[0].eye_source) if eye else Fact(),
        spacing=_spacing(ordered),
        pattern=Fact("volume", "ImagePositionPatient") if len(ordered) > 1 and _normal(ordered) is not None else Fact(),
        device=_device(opened),
        acquired=_acquired(opened),
        order=order,
        complete=complete,
        lossy=_lossy(opened, one.syntax),
        annotated={"YES": True, "NO": False}.get(_word(opened, "BurnedInAnnotation")),
        patient=patient_hash(key, _text(opened, "PatientID"), _text(opened, "IssuerOfPatientID")),
        notes=tuple(notes),
        origins=tuple((pixels[frame.part].source.path, frame.index) for frame in ordered),
    )


def _stored(pixels: Sequence[Pixels], places: Sequence[tuple[int, int]], index: int) -> Raw:
    part, frame = places[index]
    return pixels[part].read(frame)


def _complete(
    opened: Opened, pixels: Sequence[Pixels], ordered: Sequence[Frame], lacking: bool | None
) -> tuple[Fact[bool], list[str]]:
    """Whether frames are missing: parts or bytes that are not there, or gaps in their numbers."""
    if lacking:
        return Fact(False, "parts or frames of the object are missing"), ["parts or frames of the object are missing"]
    numbers = sorted(frame.in_stack for frame in ordered if frame.in_stack is not None)
    if len(numbers) == len(ordered) and len(set(numbers)) == len(numbers) and numbers[-1] - numbers[0] + 1 != len(numbers):
        absent = numbers[-1] - numbers[0] + 1 - len(numbers)
        return Fact(False, "InStackPositionNumber"), [f"{absent} numbers are missing in the stack"]
    derived = str(opened.get("DerivationDescription", ""))
    if derived.startswith(DERIVED) and INCOMPLETE in derived:
        return Fact(False, "DerivationDescription"), []
    if lacking is None:
        return Fact(), ["nothing says how many parts the concatenation has"]
    if _more_than_declared(opened, pixels[0]):
        return Fact(), ["there is more than the frames that it declares: some may have been left out"]
    if not opened.get("NumberOfFrames"):
        return Fact(True, "one frame"), []
    return Fact(True, "NumberOfFrames"), []


def _more_than_declared(opened: Opened, pixels: Pixels) -> bool:
    """Whether there are pixels, or functional groups, of more frames than an object declares."""
    groups = len(opened.get("PerFrameFunctionalGroupsSequence") or ())
    return groups > pixels.declared or (pixels.step > 0 and opened.length >= (pixels.declared + 1) * pixels.step)


def _spacing(ordered: Sequence[Frame]) -> Fact[Spacing]:
    """mm: between B-scans from their positions (even ones), else as the object says; in depth and across from PixelSpacing."""
    pixel = ordered[0].pixel if len({frame.pixel for frame in ordered}) == 1 else None
    between, source = ordered[0].between if len(ordered) > 1 else None, "SpacingBetweenSlices"
    normal = _normal(ordered)
    if normal is not None and len(ordered) > 1:
        steps = np.diff([float(np.dot(normal, frame.position or (0, 0, 0))) for frame in ordered])
        if np.allclose(steps, steps[0], rtol=0.01, atol=1e-6) and abs(steps[0]) > 1e-6:
            between, source = round(abs(float(np.mean(steps))), 6), "ImagePositionPatient"
    pixel = pixel if pixel is not None and min(pixel) > 0 else None
    between = between if between is not None and between > 0 and not _turned(ordered) else None
    names = ", ".join(name for name, there in ((source, between), ("PixelSpacing", pixel)) if there)
    return millimetres((between, *(pixel or (None, None))), names)


def _lossy(opened: Opened, syntax: str) -> bool | None:
    """Whether losses are stated, or the syntax has them; None where nothing says so."""
    stated = _word(opened, "LossyImageCompression")
    if syntax in LOSSY or stated == "01":
        return True
    return False if stated == "00" else None


def _device(opened: Opened) -> Fact[str]:
    words = [_text(opened, name) for name in ("Manufacturer", "ManufacturerModelName")]
    text = " ".join(word for word in words if word and word != UNKNOWN)
    return Fact(text, "Manufacturer, ManufacturerModelName") if text else Fact()


def _text(opened: Opened, name: str) -> str:
    """A text as it is stored: one with a backslash is several values to pydicom."""
    return "\\".join(map(str, _values(opened.get(name))))


def _acquired(opened: Opened) -> Fact[str]:
    """When it was acquired: one attribute in OPT, date and time apart in other classes (in old ones with points and colons)."""
    if (moment := _iso(_text(opened, "AcquisitionDateTime"))) is not None:
        return Fact(moment, "AcquisitionDateTime")
    apart = _text(opened, "AcquisitionDate").replace(".", "") + _text(opened, "AcquisitionTime").replace(":", "")
    moment = _iso(apart)
    return Fact(moment, "AcquisitionDate, AcquisitionTime") if moment is not None else Fact()


def _iso(moment: str) -> str | None:
    """A DICOM date and time as ISO 8601 to the second; None where there is none, or none that can be."""
    digits = moment[:14]
    if len(digits) != 14 or not (digits.isascii() and digits.isdigit()):
        return None
    return moment_of((int(digits[:4]), *(int(digits[at : at + 2]) for at in range(4, 14, 2))))


def _notes(opened: Opened, pixels: list[Pixels]) -> list[str]:
    """What is unusual in an object."""
    notes = []
    if str(opened.get("DerivationDescription", "")).startswith(DERIVED):
        notes.append(str(opened.get("DerivationDescription")))
    if str(opened.get("SOPClassUID", "")) != OPT:
        notes.append("not an OPT object: what it shows is the user's word")
    for one in pixels:
        if not one.step or one.inflated is not None or not one.whole:
            continue
        length = opened.length if one is pixels[0] else 0
        if length > one.declared * one.step + 1:
            notes.append(f"{length - one.declared * one.step} bytes follow the last frame and are not read")
        if one.stored < one.allocated:
            order = ">" if one.syntax == BIG_ENDIAN else "<"
            first = one.source.array(f"{order}u{one.allocated // 8}", one.start, (one.rows, one.columns))
            if not one.signed and int(first.max()) >> (one.stored + one.below):
                notes.append(f"bits above BitsStored ({one.stored}) are set; they do not count")
    return notes


def _intensity(opened: Opened, pixels: Pixels, looks: list[Look]) -> Intensity:
    """The grey of an object's frames, as data."""
    turned = _word(opened, "PhotometricInterpretation") == "MONOCHROME1" or _word(opened, "PresentationLUTShape") == "INVERSE"
    padding = _padding(opened, pixels)
    low, high = pixels.ends
    plain = all(look == PLAIN for look in looks)
    if not turned and padding is None and (low, high) == (0, 255) and plain:
        derived = DERIVED_GREY.search(str(opened.get("DerivationDescription", "")))
        return linear(0, 255) if derived is None else as_stored(derived[1])
    shown = Shown(tuple(looks), low, high, turned, padding)
    alike = all(look.to_json() == looks[0].to_json() for look in looks)
    numbers = {**(looks[0].to_json() if alike else {"per": "frame"}), "bits": pixels.stored, "turned": turned}
    return Intensity("dicom", shown, numbers)


@dataclass(frozen=True)
class Shown:
    """The grey of frames. low, high: of the stored numbers; turned: the lowest is white; padding: what is no picture, black."""

    looks: tuple[Look, ...]
    low: int
    high: int
    turned: bool
    padding: tuple[int, int] | None

    def __call__(self, raw: Raw, index: int) -> UInt8:
        grey = _shown(raw, self.looks[index], self.low, self.high)
        grey = 255 - grey if self.turned else grey
        if self.padding is not None:
            grey = np.where((raw >= self.padding[0]) & (raw <= self.padding[1]), 0, grey).astype(np.uint8)
        return grey


def _shown(raw: Raw, look: Look, low: int, high: int) -> UInt8:
    """Stored numbers -> rescaled -> window, table or whole range -> grey."""
    if raw.dtype == np.uint8 and look == PLAIN and (low, high) == (0, 255):
        return raw
    if look.modality is not None:
        first, table = look.modality
        values = table[np.clip(raw.astype(np.int64) - first, 0, len(table) - 1)]
        ends = (float(table.min()), float(table.max()))
    else:
        values = raw.astype(np.float64) * look.slope + look.intercept
        ends = (low * look.slope + look.intercept, high * look.slope + look.intercept)
    if look.voi is not None:
        first, table = look.voi
        return to_grey(table[np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)])
    if look.window is not None:
        return to_grey(windowed(values, *look.window))
    bottom, top = min(ends), max(ends)
    return to_grey((values - bottom) / ((top - bottom) or 1.0))


def windowed(values: npt.NDArray[np.float64], centre: float, width: float, function: str) -> npt.NDArray[np.float64]:
    """Shares 0 to 1 (PS3.3 C.11.2.1.2 and C.11.2.1.3). function: LINEAR, LINEAR_EXACT or SIGMOID. ValueError for others."""
    if function == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function == "LINEAR" and width >= 1:
        if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    raise ValueError(f"window of width {width} and function {function!r}")


def _padding(opened: Opened, pixels: Pixels) -> tuple[int, int] | None:
    """Stored numbers that lie outside of the picture (C.7.5.1.1.2): from, to."""
    value, limit = (_as_pixel(opened.get(name), pixels) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return None
    limit = value if limit is None else limit
    return min(value, limit), max(value, limit)


def _as_pixel(value: Any, pixels: Pixels) -> int | None:
    """A number as pixels hold it: some programs write those of signed pixels without their sign, those of pixels without one
    with it, or as bytes, and mean the same bits."""
    if isinstance(value, bytes) and len(value) == 2:
        value = int.from_bytes(value, "big" if pixels.syntax == BIG_ENDIAN else "little")
    if not isinstance(value, int):
        return None
    low, high = pixels.ends
    if low <= value <= high:
        return value
    number = value % (1 << pixels.allocated)
    bits = pixels.allocated if number >> pixels.stored else pixels.stored
    return number - (1 << bits) if pixels.signed and number >> (bits - 1) else number
