"""What reading a volume costs beside the engine: `octc predict` of an OPT volume, time and memory.

    python benchmarks/volumes.py ARTIFACT [--frames N] [--size COLUMNSxROWS] [--rounds N]

Prints the ratio of B-scan to label with reading, decoding, preparing and the engine (overlapped, as `octc predict` does it)
to the engine alone on prepared images; both are taken in turn in one run: the median of the rounds with its range.
Then the peak of allocations of Python while the volume is read, in frames: it does not grow with the number of frames.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

import octc
from octc.datasets.synthetic.volumes import DrawnEye, draw_eye_volume, write_dicom
from octc.runtimes.predict import Scan, decoded
from octc.runtimes.registry import choose_threads, open_runtime
from octc.runtimes.scans import Reading, opened
from octc.volumes import read_volume


def peak(path: Path) -> float:
    """Peak of allocations while all frames are read one by one, in bytes of a frame."""
    tracemalloc.start()
    volume = read_volume(path)
    for index in range(volume.frames):
        volume.frame(index)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / (volume.rows * volume.columns)


def written(folder: Path, frames: int, size: tuple[int, int]) -> Path:
    """A volume of so many frames (of seven drawn ones, in turn)."""
    seven = draw_eye_volume("CNV", 1, "L", frames=7, size=size)
    many = np.concatenate([seven.frames] * (-(-frames // 7)))[:frames]
    path = folder / f"{frames}.dcm"
    write_dicom(DrawnEye(many, "L", "SYN", seven.moment, "CNV"), path)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--size", default="512x496")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    columns, rows = (int(number) for number in asked.size.split("x"))
    with tempfile.TemporaryDirectory() as temporary, octc.load(asked.artifact) as model:
        path = written(Path(temporary), asked.frames, (columns, rows))
        scans = [one for one in opened([path], Reading()) if isinstance(one, Scan)]
        runtime = open_runtime(asked.artifact, model.artifact, threads=choose_threads(None), batch=8)
        images = np.concatenate([model.preprocess.prepare(decoded(one).image) for one in scans])
        whole, alone = [], []
        for _ in range(asked.rounds + 1):
            start = time.perf_counter()
            model.predict([path])
            middle = time.perf_counter()
            for first in range(0, len(images), 8):
                runtime(images[first : first + 8])
            whole.append(middle - start)
            alone.append(time.perf_counter() - middle)
        ratios = sorted(a / b for a, b in zip(whole[1:], alone[1:], strict=True))
        sys.stdout.write(
            f"{asked.frames} B-scans of {rows} x {columns}: volume to labels {statistics.median(whole[1:]) * 1000:.0f} ms, "
            f"engine {statistics.median(alone[1:]) * 1000:.0f} ms, ratio {statistics.median(ratios):.2f} "
            f"[{ratios[0]:.2f}, {ratios[-1]:.2f}] of {asked.rounds} rounds\n"
        )
        for frames in (asked.frames, 4 * asked.frames):
            place = written(Path(temporary), frames, (columns, rows))
            sys.stdout.write(f"{frames} B-scans: peak of allocations while reading {peak(place):.1f} frames\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
