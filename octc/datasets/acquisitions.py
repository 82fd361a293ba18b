"""Acquisitions: groups of images of one size, or of one site or device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from octc.core.cells import same_names
from octc.core.errors import OctcError, shorten
from octc.datasets.base import Sample
from octc.datasets.pictures import picture_size
from octc.machine.cpu import reading_pool

SIZE, SITE = "size", "site"
KINDS = (SIZE, SITE)


def check_kind(by: str) -> None:
    """Check that acquisitions can be grouped by `by` (OctcError E104)."""
    if by not in KINDS:
        raise OctcError("OCT-E104", f"--leave-out {by}", hint=f"one of: {', '.join(KINDS)}", place="--leave-out")


def acquisitions_of(root: Path, items: Sequence[Sample], by: str) -> list[str]:
    """The acquisition of each image: its size "512x496" (width x height, from the file header), or its site.

    by: "size", or "site": the site column of the data set's table; for a volume without it the device stated in the file.

    Raises:
        OctcError: E104 another `by`; E201 the size of an image cannot be read; E209 images without a site, or a site in two
            spellings.
    """
    check_kind(by)
    if by == SIZE:
        with reading_pool() as pool:
            return list(pool.map(partial(_size, root), items))
    if lacking := [sample.path for sample in items if sample.site is None]:
        text = f"{len(lacking)} of {len(items)} images have no site: they may belong to the site that is left out"
        hint = "give each image a site in the column site of the table (or --column site=NAME), or use --leave-out size"
        raise OctcError("OCT-E209", text, hint=hint, place=shorten(lacking))
    sites = [str(sample.site) for sample in items]
    if same := same_names(sites):
        text = f"{len(same)} sites have several spellings: a site would be in train while it is left out"
        raise OctcError("OCT-E209", text, hint="use one spelling for each site in the table", place=shorten(same))
    return sites


def _size(root: Path, sample: Sample) -> str:
    try:
        width, height = picture_size(root, sample)
    except (OSError, ValueError) as error:
        text = f"{sample.path} cannot be read: {error}"
        raise OctcError("OCT-E201", text, hint="restore the file, or --skip-bad", place=sample.path) from error
    return f"{width}x{height}"
