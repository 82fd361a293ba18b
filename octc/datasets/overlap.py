"""Images that two data sets share: the same bytes or pixels, and the same scan after re-encoding or scaling."""

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
    """What two sets share.

    Attributes:
        names, images: of the two sets. same: pairs of paths whose files have one SHA-256. near: pairs of paths of one scan in
            two files, with the signs (of 255) in which their perceptual hashes differ.
        unread: images that could not be read, of both. stated: what is known of the two by name.
    """

    names: tuple[str, str]
    images: tuple[int, int]
    same: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str, int], ...]
    unread: int
    stated: tuple[str, ...] = ()

    @property
    def shared(self) -> int:
        """Images of the first set that the second one has too."""
        return len({one for one, _ in self.same} | {one for one, _, _ in self.near})

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "shared": self.shared}


def find_overlap(names: tuple[str, str], one: Samples, other: Samples, reporter: Reporter) -> Overlap:
    """Compare two sets that were scanned: by checksum, then by perceptual hash of what is left."""
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
