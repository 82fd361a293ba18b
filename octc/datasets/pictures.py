"""Reads the image of a sample, from an image file or from a B-scan of a volume. All readers of samples use this module."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.datasets.base import Sample, ScanOf
from octc.imaging.decode import SIDES, Decoded, Values, read_image, read_size, size_fault
from octc.imaging.preprocess import UInt8
from octc.volumes.formats import read_volumes
from octc.volumes.volume import RawShape, Volume

KEPT = 4  # cached open volumes: samples of a volume are consecutive, and opening one reads all its headers

_opened: OrderedDict[tuple[object, ...], list[Volume]] = OrderedDict()
_lock = threading.Lock()


def read_picture(root: Path, sample: Sample, values: Values | None = None) -> Decoded:
    """Decode the image of a sample, in mode L or RGB, within the limits.

    values: stored grey values that are mapped to 0 and 255 (`Preprocess.value_range`); a volume has its own mapping.

    Raises:
        OctcError: as `read_image`; for a B-scan E208 and the errors of the volume's reader (E220 to E227, E201).
    """
    if sample.scan is None:
        return read_image(root / sample.path, values)
    return scan_picture(volume_of(root, sample.scan), sample.scan.index)


def scan_picture(volume: Volume, index: int) -> Decoded:
    """A B-scan as an image that passed the quality check (OctcError E208)."""
    if (text := size_fault(volume.columns, volume.rows)) is not None:
        raise OctcError("OCT-E208", text, hint=SIDES, place=volume.name)
    return Decoded(Image.fromarray(volume.frame(index)))


def picture_size(root: Path, sample: Sample) -> tuple[int, int]:
    """Width and height in pixels as decoded (`read_size`), from the file header."""
    if sample.scan is not None:
        volume = volume_of(root, sample.scan)
        return volume.columns, volume.rows
    return read_size(root / sample.path)


def is_here(root: Path, sample: Sample) -> bool:
    """Whether the file of a sample exists and is accessible."""
    try:
        return (root / sample.file).is_file()
    except OSError:
        return False


def content_of(root: Path, sample: Sample) -> str:
    """The SHA-256 for `Sample.sha256`: of the file, or of the grey values of a B-scan.

    Raises:
        OSError: the file cannot be read. OctcError: the volume cannot be read.
    """
    if sample.scan is None:
        return sha256_file(root / sample.path)
    if not (root / sample.scan.file).exists():
        raise FileNotFoundError(sample.scan.file)
    volume = volume_of(root, sample.scan)
    grey = volume.frame(sample.scan.index)
    return _flat(sample.scan.volume, sample.scan.index) if is_flat(grey) else grey_digest(grey)


def grey_digest(grey: UInt8) -> str:
    """SHA-256 of the shape and displayed grey values of a B-scan, independent of file and format."""
    value = hashlib.sha256(f"{grey.shape[0]} {grey.shape[1]}".encode())
    value.update(np.ascontiguousarray(grey).data)
    return value.hexdigest()


def scan_digests(volume: Volume) -> tuple[str, list[str]]:
    """(digest of a volume, identity of each of its B-scans). Uniform B-scans get an identity that depends on the volume."""
    greys, flat = [], []
    for grey in volume:
        greys.append(grey_digest(grey))
        flat.append(is_flat(grey))
    whole = hashlib.sha256(" ".join(greys).encode()).hexdigest()
    return whole, [_flat(whole, i) if flat[i] else one for i, one in enumerate(greys)]


def is_flat(grey: UInt8) -> bool:
    """Whether a B-scan is uniform. Frames outside the scan are black in every eye; they are not copies of each other."""
    return bool((grey == grey.flat[0]).all())


def _flat(volume: str, index: int) -> str:
    return hashlib.sha256(f"{volume}[{index}]".encode()).hexdigest()


def volume_of(root: Path, scan: ScanOf) -> Volume:
    """Open the volume of a B-scan; it is cached for the next B-scans.

    Raises:
        OctcError: E222 the file contains fewer volumes or B-scans than when it was scanned, and the errors of reading.
    """
    path = root / scan.file
    found = opened(path, None if scan.shape is None else RawShape(*scan.shape, laterality=scan.laterality))
    if scan.part >= len(found) or scan.index >= found[scan.part].frames:
        text = f"{path.name} no longer contains B-scan {scan.index} of volume {scan.part}"
        raise OctcError("OCT-E222", text, hint="restore the file", place=str(path))
    return found[scan.part]


def opened(path: Path, shape: RawShape | None = None) -> list[Volume]:
    """`read_volumes`, with a cache of the last few files; a changed file is read again."""
    try:
        info = path.stat()
        key: tuple[object, ...] = (os.fspath(path), info.st_mtime_ns, info.st_size, shape)
    except OSError:
        key = (os.fspath(path), shape)
    with _lock:
        if key in _opened:
            _opened.move_to_end(key)
            return _opened[key]
        found = read_volumes(path, shape=shape)
        _opened[key] = found
        while len(_opened) > KEPT:
            _opened.popitem(last=False)
        return found


def volumes_among(samples: Sequence[Sample]) -> Iterator[list[int]]:
    """Indices of the B-scans of each volume, in order. Volumes come in the order of their first B-scan; images are skipped."""
    found: dict[tuple[str, int], list[int]] = {}
    for place, sample in enumerate(samples):
        if sample.scan is not None:
            found.setdefault((sample.scan.file, sample.scan.part), []).append(place)
    for places in found.values():
        yield sorted(places, key=lambda place: samples[place].scan.index)  # type: ignore[union-attr]
