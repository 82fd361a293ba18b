"""Heidelberg's RAW export, `.vol`: a header of 2048 bytes, the SLO picture, then each B-scan with a header of its own.

Source: the layout that Heidelberg Engineering gives out with the export ("HSF-OCT-..." files), as eyepy 0.21 and
octSegmentation read it. All numbers are little-endian. B-scans stand in file order; float32 maximum marks what lies outside.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from octc.volumes.source import Source, corrupt, cut_short, filetime, stored_at, text_of
from octc.volumes.volume import (
    HEYEX_PATTERNS,
    LEFT,
    RIGHT,
    UNKNOWN,
    Curve,
    Fact,
    Raw,
    UInt8,
    Volume,
    are_sizes,
    check_numbers,
    heyex_grey,
    heyex_log,
    millimetres,
    patient_hash,
    to_grey,
)

NAME = "heidelberg-vol"
HEADER = 2048
SCAN_HEADER, MAX_SCAN_HEADER = 256, 1 << 24  # bytes before the numbers of a B-scan
VERSION = 12  # bytes at the beginning of that header: the name of its version
OUTSIDE = np.finfo(np.float32).max
MOST = 1000.0  # reflectivity is 0 to 1: what is so far beyond is of another version, or in another order of bytes
EYES = {"OD": RIGHT, "OS": LEFT}
UNSAID = 0  # of the pattern, as other programs write it


def grey(curve: Curve, raw: Raw, index: int) -> UInt8:
    """Reflectivity to grey; outside of the scan is black. ValueError for numbers that are none."""
    values = np.where(raw == OUTSIDE, 0, raw).astype(np.float32)
    check_numbers(values, index, MOST)
    share = heyex_grey(values, curve)
    share[raw == OUTSIDE] = 0
    return to_grey(share)


def is_vol(head: bytes) -> bool:
    """Whether a file begins with this header: Heidelberg's name, or a text, then sizes and scales that can be."""
    if head.startswith(b"HSF-OCT-"):
        return True
    if len(head) < HEADER or not all(32 <= byte < 127 for byte in head[:4]):
        return False
    sizes = [int(n) for n in np.frombuffer(head[12:24], "<i4")]
    scales = [float(head_scale) for head_scale in np.frombuffer(head[24:48], "<f8")]
    scan_header = int(np.frombuffer(head[100:104], "<i4")[0])
    return (
        all(0 < size <= 1 << 15 for size in sizes)
        and all(0 <= scale < 10 for scale in scales)
        and SCAN_HEADER <= scan_header <= MAX_SCAN_HEADER
        and text_of(head[84:88]) in (*EYES, "")
    )


def read(path: Path, key: bytes | None, allow_cut: bool) -> list[Volume]:
    """The one volume of a `.vol` file. Raises: OctcError E222 E226."""
    source = Source(path)
    columns, frames, rows = source.numbers("<3i", 12)
    scale_x, distance, scale_z = source.numbers("<3d", 24)
    slo = source.numbers("<2i", 48)
    eye = text_of(source.take(84, 4))
    (ticks,) = source.numbers("<Q", 88)
    pattern, scan_header = source.numbers("<2i", 96)
    source.take(0, HEADER)
    if not are_sizes(frames, rows, columns):
        raise corrupt(path, f"{frames} B-scans of {rows} x {columns}")
    if min(slo) < 0 or max(slo) > 1 << 15:
        raise corrupt(path, f"SLO picture of {slo[1]} x {slo[0]}")
    places = _places(source, HEADER + slo[0] * slo[1], frames, 4 * columns * rows, scan_header)
    versions = [any(source.take(header, VERSION)) for header, _ in places]
    if any(versions) and not all(versions):  # zeros in the place of what others begin with: a hole, or an end that never came
        places = places[: versions.index(False)]
    whole = len(places)
    if whole < frames and not (allow_cut and whole):
        raise cut_short(path, f"{whole} of {frames} B-scans are whole", whole)

    quality = [float(source.numbers("<f", header + 56)[0]) for header, _ in places]
    moment = filetime(ticks)
    notes = [] if whole == frames else [f"cut short: {whole} of {frames} B-scans"]
    if any(pixels - header != scan_header for header, pixels in places):
        notes.append(
            f"headers of B-scans are not of the {scan_header} bytes that the file's header says; their own word counts"
        )
    if eye not in EYES:
        notes.append(f"the eye is not named (ScanPosition {eye!r})")
    beside = pattern == UNSAID or HEYEX_PATTERNS.get(pattern) in ("volume", "line")
    between = distance if whole > 1 and beside else None
    return [
        Volume(
            path=path,
            format=NAME,
            frames=whole,
            rows=rows,
            columns=columns,
            dtype="float32",
            intensity=heyex_log(grey),
            remap=partial(heyex_log, grey),
            read=stored_at(source, "<f4", [pixels for _, pixels in places], (rows, columns)),
            laterality=Fact(EYES[eye], "ScanPosition") if eye in EYES else Fact(),
            spacing=millimetres((between, scale_z, scale_x), "Distance, ScaleZ, ScaleX"),
            pattern=Fact(HEYEX_PATTERNS[pattern], "ScanPattern") if pattern in HEYEX_PATTERNS else Fact(),
            device=Fact("Heidelberg Engineering", "file type"),
            acquired=Fact(moment, "ExamTime" if moment else UNKNOWN),
            order=Fact("file order", "order in the file"),
            complete=Fact(whole == frames, "NumBScans"),
            patient=patient_hash(key, text_of(source.take(140, 21))),
            quality=tuple(quality) if all(0 <= q < 1e30 for q in quality) else (),
            notes=tuple(notes),
            lossy=False,
            annotated=False,
        )
    ]


def _places(source: Source, at: int, frames: int, size: int, stated: int) -> list[tuple[int, int]]:
    """(header, numbers) of each B-scan that is whole. Each says itself how long its header is (0: as the file says)."""
    places: list[tuple[int, int]] = []
    for index in range(frames):
        if at + SCAN_HEADER > source.size:
            break
        header = source.numbers("<i", at + 12)[0] or stated
        if not SCAN_HEADER <= header <= MAX_SCAN_HEADER:
            raise corrupt(source.path, f"the header of B-scan {index} says that it has {header} bytes")
        if at + header + size > source.size:
            break
        places.append((at, at + header))
        at += header + size
    return places
