"""Groups prediction records of B-scans and eyes by file, as the input of a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from octc.runtimes.predict import Record
from octc.store.artifacts import Artifact
from octc.volumes.volume import Volume


@dataclass(frozen=True)
class Answering:
    """The artifact that made the predictions.

    Attributes:
        digest: SHA-256 of its manifest, which lists the checksums of all its files. engine: engine and version.
        views: test-time augmentation, a key of `octc.imaging.preprocess.VIEWS`.
    """

    artifact: Artifact
    digest: str
    engine: str
    views: str = "none"

    @staticmethod
    def of(artifact: Artifact, engine: str, views: str = "none") -> Answering:
        return Answering(artifact, artifact.sha256, engine, views)


@dataclass(frozen=True)
class EyeAnswer:
    """The prediction for an eye: its volume, the records of its B-scans, and its own record."""

    volume: Volume
    scans: tuple[Record, ...]
    record: Record

    @property
    def used(self) -> tuple[int, ...]:
        """Indices of the B-scans used for the prediction."""
        return tuple(one.scan.index for one in self.scans if one.scan and one.probabilities is not None and not one.unlike)


def gathered(records: Iterable[Record]) -> Iterator[tuple[Record, tuple[EyeAnswer, ...]]]:
    """The same records, each with (); the last record of a file comes with the predictions for all its eyes.

    Args:
        records: from `octc.runtimes.scans.with_eyes`.
    """
    scans: list[Record] = []
    eyes: list[EyeAnswer] = []
    for record in records:
        if record.scan is not None:
            scans.append(record)
        if record.eye is None or not scans:
            yield record, ()
            continue
        volume = scans[0].scan.volume if scans[0].scan else None
        assert volume is not None
        eyes.append(EyeAnswer(volume, tuple(scans), record))
        scans = []
        whole = volume.part == volume.parts - 1
        yield record, tuple(eyes) if whole else ()
        eyes = [] if whole else eyes
