"""OCTMNIST: converts MedMNIST's .npz file (arrays {train,val,test}_{images,labels}) to PNG files in class folders.

The arrays are read image by image, because the 224-pixel file would not fit into the memory of a small machine.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from octc.core.errors import OctcError
from octc.core.files import write_json
from octc.datasets.base import Progress
from octc.datasets.split import PARTS

CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")  # MedMNIST's labels 0 to 3
MARK = "octmnist.json"
MOST_IMAGES, SIDES = 1_000_000, (32, 1024)
UInt8 = npt.NDArray[np.uint8]


def write_octmnist(archive: Path, folder: Path, progress: Progress | None = None) -> int:
    """Write {train,val,test}/CLASS/NUMBER.png below `folder`, and a record of the source; returns the number of images.

    Raises:
        OctcError: E217 not a file of MedMNIST (another array, shape, type or label), or damaged. Nothing is unpickled.
    """
    hint = "fetch it again: octc data fetch octmnist"
    try:
        with zipfile.ZipFile(archive) as opened:
            labels = {part: _labels(opened, part) for part in PARTS}
            total = sum(len(found) for found in labels.values())
            done, sides = 0, set()
            for part in PARTS:
                for name in CLASSES:
                    (folder / part / name).mkdir(parents=True)
                for number, image in enumerate(_images(opened, part, len(labels[part]))):
                    sides.add(image.shape)
                    path = folder / part / CLASSES[labels[part][number]] / f"{number:06d}.png"
                    Image.fromarray(image).save(path, "PNG")
                    done += 1
                    if progress is not None:
                        progress(done, total)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, NotImplementedError) as error:
        text = f"not the .npz file of OCTMNIST, or damaged: {error}".rstrip(".")
        raise OctcError("OCT-E217", text, hint=hint, place=str(archive)) from error
    except OSError as error:
        raise OctcError(
            "OCT-E904", f"images cannot be written: {error.strerror}", hint="free disk space, or --data DIR elsewhere",
            place=str(folder),
        ) from error  # fmt: skip
    write_json(folder / MARK, {"file": archive.name, "size": list(max(sides)), "images": total})
    return total


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array (ValueError: not as MedMNIST writes it)."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"array format {version}")
    shape, fortran, kind = read(stream)
    if fortran or kind.hasobject or kind.kind not in "ui" or not 0 < len(shape) <= 3 or not 0 < shape[0] <= MOST_IMAGES:
        raise ValueError(f"an array {kind} {shape}")
    return tuple(shape), kind


def _labels(opened: zipfile.ZipFile, part: str) -> list[int]:
    with opened.open(f"{part}_labels.npy") as stream:
        shape, kind = _header(stream)
        if shape[1:] not in ((), (1,)):
            raise ValueError(f"labels of shape {shape}")
        data = stream.read(shape[0] * kind.itemsize)
    found: list[int] = np.frombuffer(data, kind).tolist()
    if len(found) != shape[0] or not set(found) <= set(range(len(CLASSES))):
        raise ValueError(f"{part} labels that are not 0 to {len(CLASSES) - 1}")
    return found


def _images(opened: zipfile.ZipFile, part: str, count: int) -> Iterator[UInt8]:
    with opened.open(f"{part}_images.npy") as raw:
        stream = io.BufferedReader(raw)  # type: ignore[type-var]
        shape, kind = _header(stream)
        if kind != np.uint8 or len(shape) != 3 or shape[0] != count:
            raise ValueError(f"{part} images {kind} {shape} for {count} labels")
        height, width = shape[1:]
        if not all(SIDES[0] <= side <= SIDES[1] for side in (height, width)):
            raise ValueError(f"images of {width} x {height} pixels, octc takes {SIDES[0]} to {SIDES[1]}")
        for _ in range(count):
            data = stream.read(height * width)
            if len(data) != height * width:
                raise ValueError(f"{part} images end early")
            yield np.frombuffer(data, np.uint8).reshape(height, width)
