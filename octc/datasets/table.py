"""The data sets octc knows, and where they are looked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from octc.datasets.base import DatasetSpec, Progress, Sample, Samples
from octc.datasets.layout import scan_folder, scan_ucsd
from octc.errors import OctcError
from octc.image import read_image

UCSD = ("CNV", "DME", "DRUSEN", "NORMAL")

DATASETS: dict[str, DatasetSpec] = {
    "ucsd": DatasetSpec(
        name="ucsd",
        title="UCSD (Kermany) OCT B-scans: CNV, DME, drusen, normal",
        classes=UCSD,
        scan=scan_ucsd,
        default_root="./Dataset/UCSD",
        layout="CellData/OCT/{train,test}/CLASS/CLASS-PATIENT-INDEX.jpeg",
        licence="CC BY 4.0",
        source="Kermany, Zhang, Goldbaum 2018, Mendeley Data, doi:10.17632/rscbjbr9sj",
        note="a subset of the published data set: not comparable with published numbers",
        published={
            "train": {"CNV": 37206, "DME": 11349, "DRUSEN": 8617, "NORMAL": 51140},
            "test": {"CNV": 250, "DME": 250, "DRUSEN": 250, "NORMAL": 250},
        },
    ),
    "folder": DatasetSpec(
        name="folder",
        title="any class tree",
        classes=None,
        scan=scan_folder,
        default_root=None,
        layout="CLASS/IMAGE or {train,test}/CLASS/IMAGE; CLASS-PATIENT-INDEX names give patients",
        licence="yours",
        source="yours",
    ),
    "phantom": DatasetSpec(
        name="phantom",
        title="synthetic B-scans that octc draws (octc data phantom)",
        classes=UCSD,
        scan=scan_ucsd,
        default_root="./Dataset/phantom",
        layout="as ucsd",
        licence="MIT",
        source="octc",
        note="synthetic images: says nothing about patients",
    ),
}


def spec_of(name: str) -> DatasetSpec:
    """A data set by name (OctcError E104 with the names there are)."""
    if name not in DATASETS:
        raise OctcError("OCT-E104", f"unknown data set {name!r}", mend=f"one of: {', '.join(DATASETS)}", place="--dataset")
    return DATASETS[name]


def find_root(name: str, data: str | None, environ: Mapping[str, str]) -> Path:
    """Where the data set lies: `--data`, else OCTC_DATA, else its default (OctcError E230 when nothing is there)."""
    spec = spec_of(name)
    default = spec.default_root
    chosen = data or (None if name == "phantom" else environ.get("OCTC_DATA")) or default
    if chosen is None:
        raise OctcError("OCT-E230", f"data set {name} needs a place", mend="--data DIR, or set OCTC_DATA")
    root = Path(chosen)
    if not root.is_dir():
        get = "octc data phantom draws it" if name == "phantom" else f"download it ({spec.source}) and give --data DIR"
        raise OctcError("OCT-E230", f"data set {name} not found at {root}", mend=get, place=str(root))
    return root


def scan_dataset(
    name: str, root: Path, classes: Sequence[str] | None = None, progress: Progress | None = None, *, skip_bad: bool = False
) -> Samples:
    """Scan a data set by name. With `skip_bad` every image is decoded, and those that cannot be are left out and listed.

    Raises:
        OctcError: what the layout raises (E205, E206, E207, E230), E206 when `skip_bad` leaves a class without images.
    """
    spec = spec_of(name)
    samples = spec.scan(root, classes or spec.classes, progress)
    return without_bad(samples, progress) if skip_bad else samples


def without_bad(samples: Samples, progress: Progress | None = None) -> Samples:
    """The samples that can be decoded; the others are in `skipped`."""
    good: list[Sample] = []
    bad: list[tuple[str, str]] = []
    with ThreadPoolExecutor(max_workers=4) as pool:  # decoding lets go of the interpreter
        found = pool.map(partial(_why_bad, samples.root), samples.items)
        for done, (sample, why) in enumerate(zip(samples.items, found, strict=True), 1):
            if why is None:
                good.append(sample)
            else:
                bad.append((sample.path, why))
            if progress is not None:
                progress(done, len(samples.items))
    kept = {s.label for s in good}
    if empty := [name for label, name in enumerate(samples.classes) if label not in kept]:
        text = f"no readable image is left of {', '.join(empty)}"
        raise OctcError("OCT-E206", text, mend="fetch the files again", place=str(samples.root))
    return replace(samples, items=tuple(good), skipped=tuple(bad))


def _why_bad(root: Path, sample: Sample) -> str | None:
    try:
        read_image(root / sample.path)
    except OctcError as error:
        return f"{error.code}: {error.message}"
    return None
