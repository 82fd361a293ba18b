"""Decoding: a file, or its compressed bytes, to a picture in mode L or RGB, within limits. Nobody else decodes an image.

How a file becomes mode L or RGB, whatever it holds: 16-bit grey is scaled by 255/65535, 12-bit grey by 255/4095 (32-bit and
float by their own range), never clipped at 255; in signed types the lowest value below zero is black; where a TIFF says that 0
is white, its grey is turned over; transparency is laid over black; palette, CMYK and 1-bit become RGB or L; an EXIF orientation
is applied, so that the picture stands as every viewer shows it; colour profiles are ignored. What cannot be read with certainty
(a TIFF that does not say whether 0 is white, CIELab, a picture that is transparent everywhere, ...) is refused with E202.

A stated value range (`octc.imaging.preprocess.Preprocess.value_range`) stands in the place of those scales: its ends become 0
and 255, what lies outside is cut off. It is about deep grey; about 8-bit pictures only where its upper end is 255 at most.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError, features

from octc.core.errors import OctcError
from octc.core.faults import fault_of, may_be_of_one_file
from octc.core.files import closed_folder, parse_json
from octc.imaging.clahe import UInt8
from octc.imaging.cut_off import jpeg_cut, png_cut, tiff_cut
from octc.imaging.kinds import HEAD, PICTURE, begun, foreign, jpeg_kind
from octc.imaging.zero_runs import webp_cut

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
READ = "PNG, JPEG, TIFF, BMP or WebP"
NOT_READ = f"not an image of a kind that is read ({READ}, judged by content)"
SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP",
    ".webp": "WEBP",
}  # fmt: skip
Values = tuple[float, float]  # stored grey values that become 0 and 255
DECODING = 9  # raised where a file is read otherwise than before, so that no cache holds pixels of the former reading
MAX_PIXELS = 64_000_000  # a wide volume montage fits, a decompression bomb does not
MIN_SIDE = 32  # pixels; smaller is no B-scan
MAX_ASPECT = 16.0
MAX_BYTES = 512 << 20
SIDES = f"sides of at least {MIN_SIDE} px and an aspect ratio up to {MAX_ASPECT:g}"

ORIENTATION = 0x0112  # EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
SIDEWAYS = (5, 6, 7, 8)  # of those, the ones that exchange width and height
# What Pillow's parsers were seen to raise on altered bytes (UnidentifiedImageError is an OSError).
DAMAGE = (OSError, SyntaxError, ValueError, IndexError, KeyError, TypeError, EOFError, OverflowError, struct.error, zlib.error)
# TIFF tags that decide what the numbers of a file mean
PHOTOMETRIC, COMPRESSION, PLANAR, FILL_ORDER, SAMPLE_FORMAT, EXTRA = 262, 259, 284, 266, 339, 338
RARE = (34676, 34677, 50001)  # compressions (SGI's, WebP) whose decoders the libtiff of a Pillow may lack
BITS, SAMPLES, COLOUR_MAP, INK_SET, COEFFICIENTS, SUBSAMPLING, BLACK_WHITE = 258, 277, 320, 332, 529, 530, 532
CUT_OFF: Mapping[str, Callable[[bytes, Image.Image], str | None]] = {
    "JPEG": jpeg_cut, "MPO": jpeg_cut, "PNG": png_cut, "TIFF": tiff_cut,
    "WEBP": lambda data, picture: webp_cut(data, picture.width * picture.height),
}  # fmt: skip
PREDICTOR, PREDICTED = 317, (5, 8, 32946, 34925, 50000)  # and the compressions that have one: LZW, deflate, LZMA, Zstandard
DESCRIPTION, DEPTH, NEW_SUBFILE, SUBFILE = 270, 32997, 254, 255
MOST_PAGES = 64  # of a TIFF that is looked at for pages that repeat another; more are a stack
# a TIFF of 64-bit places, the highest byte first: Pillow lists it, and takes its places for 32-bit ones
BIG_AND_TURNED = b"MM\0+"
BIG_AND_TURNED_TEXT = "BigTIFF whose numbers have their highest byte first"
METAMORPH = 33629  # a value for each image of a MetaMorph stack (.stk), which has one page
IMAGEJ = re.compile(r"^images=(\d{1,9})$", re.MULTILINE)  # in its description of the first page
WHITE_IS_0 = 0
PHOTOMETRICS = {
    0: "grey, 0 is white", 1: "grey, 0 is black", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab",
    9: "ICCLab", 10: "ITULab", 32803: "colour filter array", 34892: "linear raw",
}  # fmt: skip
# How Pillow names deep grey in a file -> the type of its numbers, and the largest one that is white in every file of the kind.
# In none of these does Pillow turn a "0 is white" over (in "L" and "1" it does).
DEEP = {
    "I;16": ("u2", 65535.0), "I;16N": ("u2", 65535.0), "I;16B": ("u2", 65535.0), "I;16R": ("u2", 65535.0),
    "I;12": ("u2", 4095.0), "I;16S": ("i4", 65535.0), "I;16BS": ("i4", 65535.0), "I;32N": ("u4", 65535.0),
    "I;32S": ("i4", 65535.0), "I;32BS": ("i4", 65535.0), "F;32F": ("f4", 1.0), "F;32BF": ("f4", 1.0),
}  # fmt: skip
# libtiff gives these in the order of this machine, and Pillow turns their bytes round as if it had not -> the type in the file
TURNED = {"I;16BS": "i2", "I;32BS": "i4", "F;32BF": "f4"}
TURNED_OVER = frozenset(("1;I", "1;IR", "L;I", "L;2I", "L;2IR", "L;4I", "L;4IR"))
_WARNINGS = threading.RLock()  # the warnings filter belongs to the process, and images are decoded in threads
_WHOLE = threading.Lock()  # so does what Pillow makes of half a picture
_decoding = {"now": 0, "before": False}  # how many are at it, and what the caller had set


@dataclass(frozen=True)
class Decoded:
    """A picture in mode L or RGB, and the warnings (code, text) that decoding it gave.

    stored: of deep grey, and of what a stated value range changed: what the file holds, its type ("uint16", "float32", ...),
        and the lowest and the largest value.
    """

    image: Image.Image
    notes: tuple[tuple[str, str], ...] = ()
    stored: tuple[str, float, float] | None = None


def read_image(path: Path, values: Values | None = None, admit: Admit | None = None) -> Decoded:
    """Decode a file within the limits.

    Args:
        values: the stored grey values that become 0 and 255, where they are stated. admit: is told how many pixels the header
            says before any is decoded, and raises where they are too many.

    Raises:
        OctcError: E201 empty or cut off, E202 not an image of an accepted format, E203 too many pixels (from the
            header, before decoding), E204 several frames, E208 outside the quality gate.
    """
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise _of_folder(path)
        size = info.st_size
        data = path.read_bytes() if 0 < size <= MAX_BYTES else b""
    except OSError as error:
        if not may_be_of_one_file(error) and (fault := fault_of(error, path)) is not None:
            raise fault from error
        raise OctcError("OCT-E201", f"cannot be read: {error.strerror}", hint="check the path", place=str(path)) from error
    if size > MAX_BYTES:
        raise OctcError(
            "OCT-E203",
            f"file of {size} bytes, the limit is {MAX_BYTES}",
            hint="export a smaller image",
            place=str(path),
        )
    return decode_file(data, path, values, admit)


def decode_file(data: bytes, path: Path, values: Values | None = None, admit: Admit | None = None) -> Decoded:
    """`decode_image` of what was read from a file; a name that says another format than the content is noted."""
    decoded = decode_image(data, str(path), values, admit)
    expected = SUFFIXES.get(path.suffix.lower())
    found = decoded.image.info.get("octc_format")
    if expected is not None and expected != found:
        note = ("OCT-W201", f"{path.name}: content is {found}, the name says {expected}")
        return replace(decoded, notes=(note, *decoded.notes))
    return decoded


def _of_folder(path: Path) -> OctcError:
    """A folder where an image should be: one that could not be entered is given as itself by whoever walked to it."""
    try:
        with os.scandir(path) as entries:
            list(entries)
    except OSError as error:
        return closed_folder(path, error.strerror)
    return OctcError("OCT-E201", "cannot be read: Is a directory", hint="check the path", place=str(path))


Refuse = Callable[[str, str, str], OctcError]  # code, message, hint
Admit = Callable[[int], None]


def decode_image(data: bytes, place: str, values: Values | None = None, admit: Admit | None = None) -> Decoded:
    """Decode compressed bytes; `place` is what errors name. Raises as `read_image` does."""

    def refuse(code: str, message: str, hint: str) -> OctcError:
        return OctcError(code, message, hint=hint, place=place)

    _check_webp(data, refuse, admit)
    picture = _checked(data, refuse, admit)
    kind = picture.format
    try:
        grey, doubt = grey_of(picture), _doubt(picture, data)
    except DAMAGE as error:
        raise _damaged(error, refuse) from error
    if values is not None and grey is None and ";16" in _raw(picture)[1]:
        doubt = "colour of 16 bits, of which 8 are read here: a value range cannot be applied to it"
    if doubt is not None:
        raise refuse("OCT-E202", doubt, PICTURE)
    try:
        _load(picture, data, refuse)
        _check_seen(picture, refuse)
        turn = _orientation(picture)
        converted, rule, stored = _by_rule(picture, grey, _see_through(picture, data), values)
    except DAMAGE as error:
        # Pillow knows a layout by its name and cannot unpack it, or a compression and has no decoder
        if str(error).startswith("unknown raw mode") or (kind == "TIFF" and _first(_tags(picture), COMPRESSION, 1) in RARE):
            text = f"{kind} of a kind that cannot be read here: {_tiff_words(data) or _raw(picture)[1]}"
            raise refuse("OCT-E202", text, PICTURE) from error
        if kind == "JPEG" and (known := jpeg_kind(data)):  # its header is read, its pictures are not
            raise refuse("OCT-E202", f"{NOT_READ}: it is {known[0]}", known[1]) from error
        raise _damaged(error, refuse) from error
    rules = [rule] if rule else []
    if turn in TURNS and kind != "TIFF":  # Pillow turns TIFF itself
        converted = converted.transpose(TURNS[turn])
        rules.append(f"turned by its EXIF orientation {turn}")
    converted.info = {"octc_format": kind}
    return Decoded(converted, tuple(("OCT-W208", f"{Path(place).name}: {text}") for text in rules), stored)


def _load(picture: Image.Image, data: bytes, refuse: Refuse) -> None:
    """Decode the pixels; E201 for a picture that came to its end, but not to that of its pixels."""
    kind = picture.format or ""
    if kind == "PNG":
        Image.open(io.BytesIO(data), formats=("PNG",)).verify()  # sums of the chunks, which loading does not look at
    with muted() if kind == "TIFF" else whole_only():  # the others are silent here and need not wait for each other
        picture.load()
    if kind in CUT_OFF and (why := CUT_OFF[kind](data, picture)) is not None:
        raise refuse("OCT-E201", f"image is damaged or cut off: {why}", "fetch the file again")


def _damaged(error: BaseException, refuse: Refuse) -> OctcError:
    return refuse("OCT-E201", f"image is damaged or cut off: {error}", "fetch the file again")


def _checked(data: bytes, refuse: Refuse, admit: Admit | None) -> Image.Image:
    """A picture whose header was read: one frame, within the limits on size and shape."""
    if not data:
        raise refuse("OCT-E201", "image is empty (0 bytes)", "fetch the file again")
    try:
        picture, frames = _open(data)
    except Image.DecompressionBombError as error:
        raise refuse("OCT-E203", f"image is too large: {error}", f"the limit is {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise _not_known(data, refuse) from error
    except DAMAGE as error:
        text = f"cannot be read as an image ({READ}, judged by content): {error}"
        if "nsupported" in str(error):  # Pillow names a kind that it does not know, of a file that may be whole
            raise refuse("OCT-E202", text, PICTURE) from error
        raise refuse("OCT-E201" if begun(data) else "OCT-E202", text, "fetch the file again") from error
    width, height = picture.size
    _check_pixels(width, height, refuse, admit)
    if frames != 1:
        raise refuse("OCT-E204", f"file with {frames} frames", "save the B-scan that is meant as a file of its own")
    if (fault := size_fault(width, height)) is not None:
        raise refuse("OCT-E208", fault, SIDES)
    return picture


def _not_known(data: bytes, refuse: Refuse) -> OctcError:
    """What to say of bytes of which Pillow knows no image."""
    if (at := first_page(data[:16])) is not None and at + 2 > len(data):
        return refuse("OCT-E201", "TIFF is cut off: its first page lies behind its end", "fetch the file again")
    if kind := BIG_AND_TURNED_TEXT if data.startswith(BIG_AND_TURNED) else _tiff_words(data):
        return refuse("OCT-E202", f"TIFF of a kind that cannot be read here: {kind}", PICTURE)
    name, hint = foreign(data[:HEAD]) or ("", "replace the file")
    if not name and (begins := begun(data)) is not None:
        return refuse(
            "OCT-E201", f"image is damaged or cut off: a {begins} whose header cannot be read", "fetch the file again"
        )
    return refuse("OCT-E202", f"{NOT_READ}: it is {name}" if name else NOT_READ, hint)


def _check_webp(data: bytes, refuse: Refuse, admit: Admit | None) -> None:
    """Refuse a WebP that is cut off (E201) or too large (E203), from its header: Pillow allocates the picture to open it.

    The sizes of the three kinds: RFC 9649, sections 2.5 to 2.7.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return
    if not features.check("webp"):
        raise refuse("OCT-E202", "WebP, which the Pillow of this machine cannot read", "pip install --upgrade pillow")
    whole = int.from_bytes(data[4:8], "little") + 8
    if len(data) < max(whole, 30):
        raise refuse("OCT-E201", f"image is damaged or cut off: {len(data)} of {whole} bytes", "fetch the file again")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    _check_pixels(width, height, refuse, admit)


def _check_pixels(width: int, height: int, refuse: Refuse, admit: Admit | None) -> None:
    if admit is not None:
        admit(width * height)
    if width * height > MAX_PIXELS:
        raise refuse("OCT-E203", f"{width} x {height} px, the limit is {MAX_PIXELS} pixels", "crop or downscale the image")


def size_fault(width: int, height: int) -> str | None:
    """Why sides, in pixels, are not those of a B-scan; None where they are."""
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        return f"{width} x {height} px is outside the quality gate"
    return None


@contextmanager
def whole_only() -> Iterator[None]:
    """Pillow refuses a picture whose data end too early, also where the caller (a notebook) has it fill in the rest:
    `ImageFile.LOAD_TRUNCATED_IMAGES`, which the last one to leave puts back."""
    with _WHOLE:
        if not _decoding["now"]:
            _decoding["before"], ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        _decoding["now"] += 1
    try:
        yield
    finally:
        with _WHOLE:
            _decoding["now"] -= 1
            if not _decoding["now"]:
                ImageFile.LOAD_TRUNCATED_IMAGES = bool(_decoding["before"])


@contextmanager
def muted() -> Iterator[None]:
    """Without the warnings of Pillow and pydicom about sizes and metadata: the limits here decide. `whole_only` too."""
    with _WARNINGS, whole_only(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture as it is decoded, from the header of its file.

    Raises:
        OSError, ValueError: the header cannot be read.
    """
    try:
        picture, _ = _open(path)
        with picture:
            width, height = picture.size
            turned = picture.format in ("JPEG", "MPO", "WEBP") or "exif" in picture.info  # else asking would load it
            turn = _orientation(picture) if turned and picture.format != "TIFF" else 1
    except (Image.DecompressionBombError, *DAMAGE) as error:
        raise error if isinstance(error, OSError) else ValueError(str(error)) from error
    return (height, width) if turn in SIDEWAYS else (width, height)


def _open(source: bytes | Path) -> tuple[Image.Image, int]:
    """Header only: the picture and how many frames. Of a TIFF, pages that only repeat another one are none."""
    with muted():
        picture = without_xmp(Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS))
        width, height = picture.size
        frames = _frames(picture) if width * height <= MAX_PIXELS else 1
        if picture.format != "TIFF" or not 1 < frames <= MOST_PAGES:
            return picture, frames
        own = [page for page in range(frames) if not _is_copy(picture, page)]
        picture.seek(own[0] if own else 0)
        return picture, len(own) or frames


def _frames(picture: Image.Image) -> int:
    """How many frames there are. Pillow knows no pixels that are a mask (TIFF 6.0, section 8), which it says where it comes to
    them; asked again, it goes on behind them."""
    for _ in range(MOST_PAGES):
        with suppress(SyntaxError):
            return int(getattr(picture, "n_frames", 1))
        if not _says_copy(picture):
            break
    return int(getattr(picture, "n_frames", 1))


def _is_copy(picture: Image.Image, page: int) -> bool:
    try:
        picture.seek(page)
    except SyntaxError:  # its tags are read by then
        if not _says_copy(picture):
            raise
    return _says_copy(picture)


def _says_copy(picture: Image.Image) -> bool:
    tags = getattr(picture, "tag_v2", {})
    return is_copy(_first(tags, NEW_SUBFILE, 0), _first(tags, SUBFILE, 1))


def is_copy(new_subfile: int, subfile: int) -> bool:
    """Whether a page of a TIFF is another one made smaller, or its mask (NewSubfileType, bits 0 and 2; SubfileType: 2)."""
    return bool(new_subfile & 5) or subfile == 2


def without_xmp(picture: Image.Image) -> Image.Image:
    """The same picture without its XMP: Pillow would turn it by an orientation that stands there, which viewers pass over."""
    for name in ("xmp", "XML:com.adobe.xmp"):
        picture.info.pop(name, None)
    return picture


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation of a loaded picture (for PNG, asking would load it); 1 where the metadata cannot be read."""
    with muted():
        try:
            return int(without_xmp(picture).getexif().get(ORIENTATION, 1))
        except DAMAGE:
            return 1


@dataclass(frozen=True)
class Grey:
    """How the numbers of deep grey are meant.

    kind: their type in the file. top: what becomes 255 at least. turned: the type whose bytes Pillow turned round, or None.
    """

    kind: str
    top: float
    turned: str | None = None
    white_is_0: bool = False

    def values(self, picture: Image.Image) -> npt.NDArray[np.float64]:
        """float64 [H, W], as the file means them."""
        found = np.asarray(picture)
        if self.turned is not None:
            found = found.astype(self.turned).byteswap()
        elif found.dtype.itemsize == np.dtype(self.kind).itemsize:
            found = found.view(np.dtype(self.kind).newbyteorder(found.dtype.byteorder))
        with np.errstate(invalid="ignore"):  # of NaN, which is refused below
            return found.astype(np.float64)


def _raw(picture: Image.Image) -> tuple[str, str]:
    """Of a picture that is not loaded: Pillow's decoder and its name for the layout of the pixels ("" where there is none)."""
    if not picture.tile:  # type: ignore[attr-defined]
        return "", ""
    codec, _, _, words = picture.tile[0]  # type: ignore[attr-defined]
    return str(codec), str(words[0] if isinstance(words, tuple) else words)


def grey_of(picture: Image.Image) -> Grey | None:
    """How a picture's deep grey is to be read (of a TIFF: before it is loaded); None for all other modes."""
    if picture.format != "TIFF":
        top = 1.0 if picture.mode == "F" else 65535.0
        deep = picture.mode in ("I", "F") or picture.mode.startswith("I;16")
        return Grey(np.asarray(Image.new(picture.mode, (1, 1))).dtype.str[1:], top) if deep else None
    tags, (codec, raw) = _tags(picture), _raw(picture)
    white = tags.get(PHOTOMETRIC) == WHITE_IS_0
    if raw in ("L", "L;R") and _first(tags, SAMPLE_FORMAT, 1) == 2:
        return Grey("i1", 255.0, white_is_0=white)
    if raw not in DEEP:
        return None
    swapped = codec == "libtiff" and sys.byteorder == "little"
    return Grey(*DEEP[raw], TURNED.get(raw) if swapped else None, white)


def _tags(picture: Image.Image) -> Mapping[int, Any]:
    found: Mapping[int, Any] = picture.tag_v2  # type: ignore[attr-defined]
    return found


def _first(tags: Mapping[int, Any], tag: int, default: Any) -> Any:
    value = tags.get(tag, default)
    return value[0] if isinstance(value, tuple) and value else value


def _doubt(picture: Image.Image, data: bytes) -> str | None:
    """Why a picture that Pillow would decode cannot be read with certainty, or None."""
    if picture.format == "TIFF":
        return tiff_doubt(picture)
    if picture.format == "JPEG" and picture.mode == "CMYK" and "adobe" not in picture.info:
        return "CMYK JPEG without Adobe's marker: programs differ in whether its ink is stored upside down"
    if picture.format == "PNG" and data[24:26] == b"\x10\x02" and "transparency" in picture.info:
        return "PNG with 16 bits a colour and a transparent colour"
    return None


def tiff_doubt(picture: Image.Image) -> str | None:
    """Why a page of a TIFF cannot be read with certainty, or None."""
    tags = _tags(picture)
    if _first(tags, PREDICTOR, 1) != 1 and _first(tags, COMPRESSION, 1) not in PREDICTED:
        return "TIFF with a predictor beside a compression that has none: programs differ in whether it is undone"
    return _behind_one_page(picture, tags) or _doubt_of_pixels(picture)


def _doubt_of_pixels(picture: Image.Image) -> str | None:
    """Why it is not certain what the numbers of a page mean, or None."""
    tags, (codec, raw), mode = _tags(picture), _raw(picture), picture.mode
    kind, samples = tags.get(PHOTOMETRIC), _first(tags, SAMPLES, 1)
    separate = _first(tags, PLANAR, 1) == 2 and samples > 1
    plain = codec == "raw"
    if kind is None:
        return "TIFF that does not say whether 0 is black or white (it has no PhotometricInterpretation)"
    if mode in ("I", "F") or mode.startswith("I;16"):
        return None if raw in DEEP else f"TIFF with grey of a kind that is not known here ({raw})"
    if kind == WHITE_IS_0 and raw not in TURNED_OVER:
        return f"TIFF in which 0 is white, of a kind that is not known here ({raw})"
    if mode == "LAB":
        return "TIFF in CIELab"
    if separate and plain and (_first(tags, BITS, 1) != 8 or _first(tags, FILL_ORDER, 1) != 1):
        return "TIFF with separate planes that are not plain bytes"
    if separate and (mode in ("LA", "La", "PA") or (mode == "RGBA" and EXTRA not in tags and not plain)):
        return "TIFF with separate planes, one of which is transparency"
    if kind == 5 and _first(tags, INK_SET, 1) != 1:
        return "TIFF with inks other than cyan, magenta, yellow and black"
    if kind == 6 and plain and (tuple(tags.get(SUBSAMPLING, (2, 2))) != (1, 1) or not _usual_colours(tags)):
        return "TIFF in YCbCr, neither compressed nor one colour a pixel in the usual scale"
    if kind == 3 and 0 < max(tags.get(COLOUR_MAP, (0,))) < 256:
        return "TIFF with a palette of 8-bit colours (TIFF has 16-bit ones): all would be black"
    return None


def _behind_one_page(picture: Image.Image, tags: Mapping[int, Any]) -> str | None:
    """Why a page is more than one image: a depth (tag ImageDepth), or the images that ImageJ says follow its only page."""
    if _first(tags, DEPTH, 1) > 1:
        return f"TIFF with a depth of {_first(tags, DEPTH, 1)} images in one page"
    text = str(tags.get(DESCRIPTION, ""))
    found = IMAGEJ.search(text) if text.startswith("ImageJ=") else None
    frames = int(getattr(picture, "n_frames", 1)) if found else 1
    if found is not None and int(found[1]) > frames:
        return f"TIFF of ImageJ with {found[1]} images, of which {frames} have a page"
    if isinstance(planes := tags.get(METAMORPH), tuple) and len(planes) > 1:
        return f"TIFF of MetaMorph with {len(planes)} images in one page"
    shape, truncated = shape_of(text)
    if truncated and int(np.prod(shape[:1])) > 1 and len(shape) > 2:
        return f"TIFF of tifffile with an array of {' x '.join(map(str, shape))} in one page"
    return None


def shape_of(description: str) -> tuple[tuple[int, ...], bool]:
    """The array that tifffile says it wrote, and whether one page stands for all of it; () where it says none."""
    if not description.startswith('{"shape":'):
        return (), False
    try:
        said = parse_json(description)
        return tuple(int(side) for side in said["shape"]), said.get("truncated") is True
    except (ValueError, TypeError, KeyError):
        return (), False


def _usual_colours(tags: Mapping[int, Any]) -> bool:
    """Whether YCbCr is JPEG's: the coefficients of ITU-R BT.601, all of 0 to 255."""
    wanted = ((COEFFICIENTS, (0.299, 0.587, 0.114)), (BLACK_WHITE, (0, 255, 128, 255, 128, 255)))
    return all(np.allclose([float(v) for v in tags.get(tag, values)], values, atol=1e-3) for tag, values in wanted)


def first_page(head: bytes) -> int | None:
    """Where the first page of a TIFF is described, from its first 16 bytes; None where they are no TIFF's."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or head[2:4] not in (b"*\0", b"\0*", b"+\0", b"\0+") or len(head) < 8:
        return None
    big = b"+" in head[2:4]
    if big and len(head) < 16:
        return None
    return int(struct.unpack(f"{order}Q", head[8:16])[0] if big else struct.unpack(f"{order}I", head[4:8])[0])


def _tiff_words(data: bytes) -> str | None:
    """What a TIFF says of its pixels; None where the bytes are no TIFF, or its directory cannot be read."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    try:
        with muted():
            stream = io.BytesIO(data)
            tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(16 if data[2:4] in (b"+\0", b"\0+") else 8))
            stream.seek(tags.next)
            tags.load(stream)
            kind, form = tags.get(PHOTOMETRIC), _first(tags, SAMPLE_FORMAT, 1)
            words = [
                PHOTOMETRICS.get(int(kind or 0), f"photometric interpretation {kind}"),
                f"{_first(tags, SAMPLES, 1)} samples of {_first(tags, BITS, 1)} bits",
                {1: "unsigned", 2: "signed", 3: "float"}.get(form, f"sample format {form}"),
                "little-endian" if data[:1] == b"I" else "big-endian",
                f"compression {_first(tags, COMPRESSION, 1)}",
            ]
    except DAMAGE:
        return None
    return ", ".join(words) if BITS in tags or PHOTOMETRIC in tags else None


def _see_through(picture: Image.Image, data: bytes) -> Any:
    """What a picture calls transparent: a grey value or a colour as it holds them, or a palette's; None for nothing."""
    found = picture.info.get("transparency")
    if picture.format != "PNG" or picture.mode not in ("L", "RGB") or found is None:
        return found
    bits = data[24] if data[24] in (1, 2, 4) else 8
    most = 2**bits - 1  # a PNG names the value before it is spread over 0 to 255; higher bits do not count
    return tuple(value & 255 for value in found) if isinstance(found, tuple) else (found & most) * (255 // most)


def _check_seen(picture: Image.Image, refuse: Refuse) -> None:
    """Refuse a loaded picture of which no pixel is to be seen, as in bitmaps whose fourth byte was never set (screenshots)."""
    if picture.mode == "P" and picture.info.get("transparency") is not None:
        picture = picture.convert("RGBA")
    if picture.getbands()[-1] in ("A", "a") and picture.getextrema()[-1][1] == 0:  # type: ignore[index]
        text = "transparent everywhere: some programs show what lies under it, others nothing"
        raise refuse("OCT-E202", text, "save it without transparency (grey or RGB) with the program that wrote it")


Ruled = tuple[Image.Image, "str | None", "tuple[str, float, float] | None"]


def _by_rule(picture: Image.Image, grey: Grey | None, see_through: Any, values: Values | None) -> Ruled:
    """Any mode -> L or RGB, with the rule that was applied (None: nothing to say), and what deep grey holds."""
    if grey is not None:
        return _scaled(picture, grey, see_through, values)
    stretched = values is not None and values[1] <= 255 and picture.mode not in ("1", "P", "PA", "CMYK")
    converted, rule = _as_8_bits(picture, see_through)
    if values is None or not stretched:
        return converted, rule, None
    low, high = values
    table = [min(255, max(0, round((level - low) * 255 / (high - low)))) for level in range(256)]
    text = f"{low:g} to {high:g} become 0 to 255"
    least, most = converted.convert("L").getextrema()
    stretched_to = converted.point(table * len(converted.getbands()))
    return stretched_to, f"{rule}, {text}" if rule else text, ("uint8", float(least), float(most))  # type: ignore[arg-type]


def _as_8_bits(picture: Image.Image, see_through: Any) -> tuple[Image.Image, str | None]:
    mode = picture.mode
    if mode in ("L", "RGB") and see_through is None:
        return picture.copy(), None
    if mode in ("L", "RGB"):
        return _without_colour(np.array(picture), see_through), f"{mode} laid over black"
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or see_through is not None:
        layer = (picture.convert("LA") if mode == "La" else picture).convert("RGBA")
        black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layer).convert("RGB"), f"{mode} laid over black"
    if mode == "1":
        return picture.convert("L"), "1-bit image as 0 and 255"
    return picture.convert("RGB"), f"{mode} converted to RGB"


def _scaled(picture: Image.Image, grey: Grey, see_through: int | None, stated: Values | None) -> Ruled:
    """Deep grey to 8 bits, by a stated range or the rule of its kind. A transparent value is black."""
    values, mode = grey.values(picture), picture.mode
    if not np.isfinite(values).all():
        raise ValueError("pixel values that are not finite")
    least, most = float(values.min()), float(values.max())
    low, top = stated or (min(0.0, least), max(most, grey.top))
    if stated is None:
        scaled = np.rint((values - low) * (255.0 / (top - low))).astype(np.uint8)
    else:  # one rounding, so that every program that is told the range makes the same levels
        scaled = np.rint((values.clip(low, top) - low) * 255.0 / (top - low)).astype(np.uint8)
    if grey.white_is_0:
        scaled = 255 - scaled
    if see_through is not None:
        scaled[values == see_through] = 0
    ends = "255 to 0: 0 is white" if grey.white_is_0 else "0 to 255"
    over = ", laid over black" if see_through is not None else ""
    rule = f"{mode} scaled to 8 bits ({low:g} to {top:g} become {ends}){over}"
    return Image.fromarray(scaled), rule, (_type_name(grey), least, most)


def _type_name(grey: Grey) -> str:
    """ "uint16", "float32", ...; "uint12" of a TIFF that packs 12 bits."""
    return "uint12" if grey.top == DEEP["I;12"][1] else np.dtype(grey.kind).name


def _without_colour(pixels: UInt8, colour: Any) -> Image.Image:
    """Pixels [H, W] or [H, W, 3] of exactly the colour that a PNG calls transparent become black."""
    hit = pixels == np.asarray(colour)
    pixels[hit if pixels.ndim == 2 else hit.all(axis=2)] = 0
    return Image.fromarray(pixels)
