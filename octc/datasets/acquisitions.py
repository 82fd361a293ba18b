"""Acquisitions: images that were taken alike, told apart by their size, or by the site or device that took them."""

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
    """Refuse what acquisitions cannot be told apart by (OctcError E104)."""
    if by not in KINDS:
        raise OctcError("OCT-E104", f"--leave-out {by}", hint=f"one of: {', '.join(KINDS)}", place="--leave-out")


def acquisitions_of(root: Path, items: Sequence[Sample], by: str) -> list[str]:
    """What each image was taken with or as: "512x496" (width x height, from the header of its file), or its site.

    by: "size"; "site", a column of the data set's table, or of a volume without one the device that its file names.

    Raises:
        OctcError: E104 another `by`, E209 images without a site, or one site in two spellings, E201 images whose size
            cannot be read.
    """
    check_kind(by)
    if by == SIZE:
        with reading_pool() as pool:
            return list(pool.map(partial(_size, root), items))
    if lacking := [sample.path for sample in items if sample.site is None]:
        text = f"{len(lacking)} of {len(items)} images have no site: they may be of the one that is left out"
        hint = "a column site in the table (or --column site=NAME) with a cell for each image, or --leave-out size"
        raise OctcError("OCT-E209", text, hint=hint, place=shorten(lacking))
    sites = [str(sample.site) for sample in items]
    if same := same_names(sites):
        text = f"{len(same)} sites are spelt in several ways: each would be trained on while it is left out"
        raise OctcError("OCT-E209", text, hint="spell each in one way in the table", place=shorten(same))
    return sites


def _size(root: Path, sample: Sample) -> str:
    try:
        width, height = picture_size(root, sample)
    except (OSError, ValueError) as error:
        text = f"{sample.path} cannot be read: {error}"
        raise OctcError("OCT-E201", text, hint="restore the file, or --skip-bad", place=sample.path) from error
    return f"{width}x{height}"
