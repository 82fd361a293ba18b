"""split.json: which image is used for what."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from octc.schemas.common import Count, Document, PatientIds, Positive

Protocol = Literal["clean", "as-released", "as-released-teacher", "imported"]
Fold = Annotated[list[Positive], Meta(min_length=2, max_length=2)]


class SplitScan(Document, kw_only=True, forbid_unknown_fields=True):
    """A B-scan of a volume, as `octc.datasets.base.ScanOf` has it."""

    file: str
    part: Count
    index: Count
    volume: str
    frames: Count
    label: Count | None
    shape: Annotated[list[Positive], Meta(min_length=3, max_length=3)] | None
    laterality: Literal["R", "L"] | None
    intensity: str
    spatial: bool = False


class SplitImage(Document, kw_only=True, forbid_unknown_fields=True):
    """One image, as `octc.datasets.base.Sample` has it."""

    path: str
    label: Count
    patient: str | None
    part: str | None
    sha256: str
    targets: list[Count] | UnsetType | None = UNSET
    eye: str | UnsetType | None = UNSET
    modality: Literal["oct", "fundus"] | UnsetType = UNSET
    scan: SplitScan | UnsetType = UNSET
    site: str | UnsetType = UNSET


class SplitParts(Document, kw_only=True):
    """`official`: of folds only."""

    train: list[SplitImage]
    val: list[SplitImage]
    test: list[SplitImage]
    official: list[SplitImage] | UnsetType = UNSET


class SplitFile(Document, kw_only=True):
    """A split of an older octc lacks `protocol`, `fold` and what is known of the patients.

    left_out: of a fold by acquisition, what it holds out.
    """

    dataset: str
    classes: list[str]
    seed: int
    dropped: Count
    protocol: Protocol = "clean"
    fold: Fold | None = None
    left_out: str = ""
    patient_ids: PatientIds | UnsetType = UNSET
    images_without_patient: Count | UnsetType = UNSET
    allow_empty: tuple[str, ...] = ()
    digest: str
    parts: SplitParts

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"a class that stands twice: {', '.join(self.classes)}"[:300])
