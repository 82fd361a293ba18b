"""Images that two data sets share: identical files, and the same scan after re-encoding or scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from octc.core.progress import Reporter, absolute
from octc.datasets.base import Sample, Samples
from octc.datasets.image_facts import read_facts
from octc.datasets.licences import overlaps_of
from octc.datasets.near_duplicates import near_pairs


@dataclass(frozen=True)
class Overlap:
    """Images that two data sets share.

    Attributes:
        names, images: names of the two sets, and their numbers of images. same: pairs of paths with the same SHA-256. near:
            pairs of paths of near-duplicates, with the Hamming distance of their perceptual hashes (of 255 bits).
        unread: number of unreadable images in both. stated: overlaps that are known from the names of the sets.
    """

    names: tuple[str, str]
    images: tuple[int, int]
    same: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str, int], ...]
    unread: int
    stated: tuple[str, ...] = ()

    @property
    def shared(self) -> int:
        """Number of images of the first set that are also in the second."""
        return len({one for one, _ in self.same} | {one for one, _, _ in self.near})

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "shared": self.shared}


def find_overlap(names: tuple[str, str], one: Samples, other: Samples, reporter: Reporter) -> Overlap:
    """Compare two scanned data sets: by checksum, then the remaining images by perceptual hash."""
    by_sum: dict[str, list[Sample]] = {}
    for sample in other.items:
        by_sum.setdefault(sample.sha256, []).append(sample)
    same = [(a.path, b.path) for a in one.items for b in by_sum.get(a.sha256, ())]
    taken = {a for a, _ in same}, {b for _, b in same}
    left = [s for s in one.items if s.path not in taken[0]], [s for s in other.items if s.path not in taken[1]]
    facts = []
    for samples, own in zip((one, other), left, strict=True):
        with reporter.progress(f"images of {samples.root.name}", len(own)) as step:
            facts.append(read_facts(samples.root, own, absolute(step)))
    hashed = [
        [(s, f.signs) for s, f in zip(own, told, strict=True) if f.signs is not None]
        for own, told in zip(left, facts, strict=True)
    ]
    pairs = near_pairs([signs for _, signs in hashed[0]], [signs for _, signs in hashed[1]])
    near = tuple((hashed[0][i][0].path, hashed[1][j][0].path, apart) for i, j, apart in pairs)
    unread = sum(fact.failure is not None for told in facts for fact in told)
    return Overlap(names, (len(one.items), len(other.items)), tuple(same), near, unread, _stated(names))


def _stated(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"{names[0]} and {other}: {how} ({where})"
        for other, how, where in overlaps_of(names[0])
        if other == names[1].casefold()
    )
