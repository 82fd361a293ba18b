"""The picture of a sample, wherever it lies: a file of its own, or a B-scan of a volume. Every reader of samples asks here."""

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

KEPT = 4  # opened volumes that are remembered: samples of one stand together, and opening reads every header of a volume

_opened: OrderedDict[tuple[object, ...], list[Volume]] = OrderedDict()
_lock = threading.Lock()


def read_picture(root: Path, sample: Sample, values: Values | None = None) -> Decoded:
    """The picture of a sample in mode L or RGB, decoded within the limits.

    values: the stored grey values that become 0 and 255 (`Preprocess.value_range`). A volume states its own.

    Raises:
        OctcError: as `read_image`, or of a B-scan E208 and what the reader of its volume raises (E220 to E227, E201).
    """
    if sample.scan is None:
        return read_image(root / sample.path, values)
    return scan_picture(volume_of(root, sample.scan), sample.scan.index)


def scan_picture(volume: Volume, index: int) -> Decoded:
    """A B-scan as a picture, within the quality gate of pictures (E208)."""
    if (text := size_fault(volume.columns, volume.rows)) is not None:
        raise OctcError("OCT-E208", text, hint=SIDES, place=volume.name)
    return Decoded(Image.fromarray(volume.frame(index)))


def picture_size(root: Path, sample: Sample) -> tuple[int, int]:
    """Width and height as it is decoded, from the header of the file (`read_size`)."""
    if sample.scan is not None:
        volume = volume_of(root, sample.scan)
        return volume.columns, volume.rows
    return read_size(root / sample.path)


def is_here(root: Path, sample: Sample) -> bool:
    """Whether the file of a sample is there; what may not be looked at is not."""
    try:
        return (root / sample.file).is_file()
    except OSError:
        return False


def content_of(root: Path, sample: Sample) -> str:
    """What `Sample.sha256` has to be: of the file, or of the grey of a B-scan.

    Raises:
        OSError: a file that cannot be read. OctcError: a volume that cannot.
    """
    if sample.scan is None:
        return sha256_file(root / sample.path)
    if not (root / sample.scan.file).exists():
        raise FileNotFoundError(sample.scan.file)
    volume = volume_of(root, sample.scan)
    grey = volume.frame(sample.scan.index)
    return _flat(sample.scan.volume, sample.scan.index) if is_flat(grey) else grey_digest(grey)


def grey_digest(grey: UInt8) -> str:
    """sha256 of a B-scan as it is shown, with its shape: one scan has one, whatever file and format it lies in."""
    value = hashlib.sha256(f"{grey.shape[0]} {grey.shape[1]}".encode())
    value.update(np.ascontiguousarray(grey).data)
    return value.hexdigest()


def scan_digests(volume: Volume) -> tuple[str, list[str]]:
    """(digest of a volume, identity of each of its B-scans). A B-scan of one grey value is told from those of other volumes."""
    greys, flat = [], []
    for grey in volume:
        greys.append(grey_digest(grey))
        flat.append(is_flat(grey))
    whole = hashlib.sha256(" ".join(greys).encode()).hexdigest()
    return whole, [_flat(whole, i) if flat[i] else one for i, one in enumerate(greys)]


def is_flat(grey: UInt8) -> bool:
    """Whether a B-scan holds one grey value: what lies outside of a scan is black in every eye, and is no copy of another."""
    return bool((grey == grey.flat[0]).all())


def _flat(volume: str, index: int) -> str:
    return hashlib.sha256(f"{volume}[{index}]".encode()).hexdigest()


def volume_of(root: Path, scan: ScanOf) -> Volume:
    """The volume that a B-scan is of; opened once for those that follow each other.

    Raises:
        OctcError: what reading raises, E222 where the file holds fewer volumes or B-scans than when it was listed.
    """
    path = root / scan.file
    found = opened(path, None if scan.shape is None else RawShape(*scan.shape, laterality=scan.laterality))
    if scan.part >= len(found) or scan.index >= found[scan.part].frames:
        text = f"{path.name} holds no B-scan {scan.index} of volume {scan.part} any more"
        raise OctcError("OCT-E222", text, hint="restore the file", place=str(path))
    return found[scan.part]


def opened(path: Path, shape: RawShape | None = None) -> list[Volume]:
    """`read_volumes`, remembered for the last few files as long as they are not written to."""
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
    """Places of the B-scans of each volume, in their order; pictures are none. Volumes in the order of their first B-scan."""
    found: dict[tuple[str, int], list[int]] = {}
    for place, sample in enumerate(samples):
        if sample.scan is not None:
            found.setdefault((sample.scan.file, sample.scan.part), []).append(place)
    for places in found.values():
        yield sorted(places, key=lambda place: samples[place].scan.index)  # type: ignore[union-attr]
