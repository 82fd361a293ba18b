"""Which format a file is of, by its content and never by its ending; and the one door to all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

from octc.core.errors import OctcError, shorten
from octc.core.optional import have
from octc.imaging import kinds
from octc.volumes.source import Source, cut_short, reading
from octc.volumes.volume import RawShape, Volume

HEAD = 4096
COMMON = (b"\xff\xd8\xff", b"\x89PNG")  # pictures whose first bytes are no text
DICM, HEDX = b"DICM", b"<HEDX"
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ENDINGS = (".dcm", ".dicom", ".vol", ".e2e", ".sdb", ".fda", ".fds")  # of names that mean a volume, whatever the file holds
NAMELESS = "the file names no patient: there is no hash of one"
Read = Callable[[Path, bytes | None, bool], list[Volume]]


@dataclass(frozen=True)
class Format:
    """A format: what it is called, whether a file is of it (its first bytes, its size), how it is read."""

    title: str
    fits: Callable[[bytes, Path], bool]
    read: Read


@cache
def formats() -> Mapping[str, Format]:
    """The readers, imported where a file may be a volume: a picture needs none of them."""
    from octc.volumes import bioptigen, dicom, heyex_e2e, heyex_vol, heyex_xml, stacks, topcon

    def tiff(head: bytes, path: Path) -> bool:
        return head[:4] in TIFFS and stacks.pages(path).several

    return {
        dicom.NAME: Format("DICOM", lambda head, _: head[128:132] == DICM, dicom.read),
        heyex_vol.NAME: Format("Heidelberg RAW export (.vol)", lambda head, _: heyex_vol.is_vol(head), heyex_vol.read),
        heyex_xml.NAME: Format("Heidelberg XML export", lambda head, _: heyex_xml.is_xml(head), heyex_xml.read),
        heyex_e2e.NAME: Format(
            "Heidelberg .e2e, .sdb (experimental)", lambda h, _: h[:4] == b"CMDb" and h[36:43] == b"MDbMDir", heyex_e2e.read
        ),
        topcon.NAME: Format("Topcon .fda, .fds", lambda head, _: head[:4] == topcon.MAGIC, topcon.read),
        bioptigen.NAME: Format("Bioptigen .OCT", lambda head, _: bioptigen.is_bioptigen(head), bioptigen.read),
        stacks.TIFF: Format("TIFF of several pages", tiff, stacks.read_tiff),
        stacks.MANIFEST: Format(
            "pictures with a manifest (volume.json)", lambda _, path: stacks.is_manifest(path), stacks.read_manifest
        ),
    }


def _headerless() -> Mapping[str, str]:
    """Formats without a header: asked for by an ending, and never without the user's dimensions."""
    from octc.volumes import headerless

    return {".img": headerless.CIRRUS, ".oct": headerless.OPTOVUE}


def format_of(path: str | os.PathLike[str]) -> str | None:
    """The key of a file's format; None where it is no volume (it may be a picture).

    Raises:
        OctcError: E222 the file cannot be read at all.
    """
    place = Path(path)
    with reading(place):
        info = place.stat()
        return _format(os.fspath(place), info.st_mtime_ns, info.st_size)


@lru_cache(maxsize=4096)
def _format(path: str, _written: int, _size: int) -> str | None:
    """Told once for a file as long as it is not written to: every door asks."""
    place = Path(path)
    head = Source(place).head(HEAD)
    if head.startswith(COMMON) and head[128:132] != DICM and HEDX not in head and place.suffix != ".json":
        return None  # before any reader is imported: none of the others begins so
    found = next((name for name, one in formats().items() if one.fits(head, place)), None)
    if found is not None or not head:
        return found
    return None if _is_picture(head) or head[:2] == b"PK" else _headerless().get(place.suffix.lower())


def without_scans(path: Path) -> str | None:
    """What a DICOM object is whose class holds no B-scans (a report, a photograph, an index), else None: among the files of a
    folder it is passed over, as a text is.

    Raises:
        OctcError: E222 the file cannot be read at all.
    """
    from octc.volumes import dicom

    if format_of(path) != dicom.NAME or not have("pydicom"):
        return None
    with reading(path):
        info = path.stat()
        return _class(os.fspath(path), info.st_mtime_ns, info.st_size)


@lru_cache(maxsize=4096)
def _class(path: str, _written: int, _size: int) -> str | None:
    from octc.volumes import dicom

    return dicom.without_scans(Path(path))


def pictures_of(path: Path) -> tuple[Path, ...]:
    """Pictures that an export in XML or a manifest names, B-scans or not, whether they are there or not; none of others.

    Raises:
        OctcError: E222 the file cannot be read.
    """
    from octc.volumes import heyex_xml, stacks

    named = {heyex_xml.NAME: heyex_xml.pictures, stacks.MANIFEST: stacks.pictures}.get(format_of(path) or "")
    if named is None:
        return ()
    with reading(path):
        return tuple(named(path))


def _is_picture(head: bytes) -> bool:
    starts = (*COMMON, *TIFFS, b"BM", b"GIF8", b"RIFF")
    return head.startswith(starts)


def read_volumes(
    path: str | os.PathLike[str],
    *,
    key: bytes | None = None,
    shape: RawShape | None = None,
    allow_cut: bool = False,
) -> list[Volume]:
    """All volumes of a file: one eye at one time each, B-scans in order. Pixels are read when they are asked for.

    Args:
        path: a file, in any format of `formats`; what it is decides its content.
        key: the site's secret, for `Volume.patient`; without one there is no hash.
        shape: dimensions and eye of a file that has no header (Zeiss `.img`, Optovue `.OCT`).
        allow_cut: take the B-scans of a file that is cut short which are whole; `Volume.complete` says so.

    Raises:
        OctcError: E220 to E229 (what is wrong with the file), E901 a library for its format is not installed.

    >>> read_volumes("eye.vol")[0].laterality
    Fact(value='R', source='ScanPosition')
    """
    place = Path(path)
    if shape is not None and shape.laterality not in (None, "R", "L"):
        raise OctcError("OCT-E104", f"eye {shape.laterality!r}", hint="R or L", place="--eye")
    name = format_of(place)
    if name is None:
        raise _unknown(place)
    from octc.volumes import headerless

    known = formats()
    with reading(place):
        if name in known and shape is not None:
            text = f"{place.name} says its dimensions itself ({known[name].title})"
            raise OctcError("OCT-E102", text, hint="leave --shape out", place="--shape")
        found = known[name].read(place, key, allow_cut) if name in known else headerless.read_raw(place, name, shape, allow_cut)
    nameless = (NAMELESS,) if key is not None else ()
    return [replace(one, notes=(*one.notes, *nameless)) if nameless and one.patient is None else one for one in found]


def read_volume(
    path: str | os.PathLike[str],
    *,
    index: int | None = None,
    key: bytes | None = None,
    shape: RawShape | None = None,
    allow_cut: bool = False,
) -> Volume:
    """The volume of a file, or one of several.

    Args:
        index: which volume of the file (from 0); needed where it holds several. The others: `read_volumes`.

    Raises:
        OctcError: as `read_volumes`; E224 the file holds several volumes and none, or one that is not there, is named.

    >>> read_volume("eye.vol").frame(0).dtype
    dtype('uint8')
    """
    found = read_volumes(path, key=key, shape=shape, allow_cut=allow_cut)
    if index is None and len(found) == 1:
        return found[0]
    if index is not None and 0 <= index < len(found):
        return found[index]
    listed = shorten([f"{one.part}: {one.frames} B-scans, eye {one.laterality.value or 'unknown'}" for one in found], 10, "")
    hint = f"--index 0 to {len(found) - 1} (index=...), or all of them: read_volumes"
    raise OctcError("OCT-E224", f"{Path(path).name} holds {len(found)} volumes ({listed})", hint=hint, place=str(path))


def _unknown(path: Path) -> OctcError:
    from octc.volumes import stacks

    with reading(path):
        whole = Source(path).head(kinds.HEAD)
    head, other = whole[:4], kinds.foreign(whole)
    if not head:
        text, hint = f"{path.name} is empty", "copy or export it again"
    elif head in TIFFS and stacks.pages(path).cut:
        return cut_short(path, "its first page lies behind its end")
    elif _is_picture(head):
        text, hint = f"{path.name} is a single picture, not a volume", f"octc predict ARTIFACT {path}"
        if other is not None:
            text, hint = f"{text}, of a kind that is not read: {other[0]}", other[1]
    elif other is not None and other[1] == kinds.VOLUME:
        return cut_short(path, f"it begins as {other[0]}, and its header is not whole")
    elif other is not None:
        text, hint = f"{path.name} is {other[0]}, no volume of a known format", other[1]
        if head[:2] == b"PK":
            hint += " (Thorlabs .OCT: export the images)"
    else:
        text, hint = (
            f"{path.name} is no volume of a known format",
            "known: " + ", ".join(one.title for one in formats().values()),
        )
    return OctcError("OCT-E202", text, hint=hint, place=str(path))
