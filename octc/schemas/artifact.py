"""artifact.json: what an artifact is, and every file of it with its checksum."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from octc.schemas.common import Count, Document, Sha256, Table

VERSION = "1.0"
INPUT, OUTPUT = "image", "logits"  # tensors of a network, as servers name them
MOST_SIDE = 4096
MOST_CLIP, MOST_TILES = 256.0, 64  # of CLAHE
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
TaskName = Literal["multiclass", "multilabel"]
Three = Annotated[list[float], Meta(min_length=3, max_length=3)]
Tiles = Annotated[int, Meta(ge=1, le=MOST_TILES)]
Deviation = Annotated[float, Meta(gt=0)]


class FileEntry(Document):
    """Checksum and size in bytes."""

    sha256: Sha256
    bytes: Count


class StoredPreprocess(Document, kw_only=True):
    """`octc.Preprocess`, within what it can do; the fields of CLAHE stand there together or not at all."""

    size: Annotated[int, Meta(ge=8, le=MOST_SIDE)]
    channels: Literal[1, 3]
    resize: Literal["bilinear", "bicubic"]
    mean: Three
    std: Annotated[list[Deviation], Meta(min_length=3, max_length=3)]
    clahe: Annotated[float, Meta(ge=0, le=MOST_CLIP)] | UnsetType = UNSET
    clahe_grid: Annotated[list[Tiles], Meta(min_length=2, max_length=2)] | UnsetType = UNSET
    value_range: Annotated[list[float], Meta(min_length=2, max_length=2)] | UnsetType = UNSET


class Manifest(Document, kw_only=True):
    """What every reader of an artifact relies on; `lineage` and `details` are facts of the training and the export."""

    schema_version: Literal["1.0"]
    name: Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    role: Literal["student", "teacher"]
    model: Text
    target: str
    precision: str
    classes: Annotated[list[Text], Meta(min_length=2, max_length=1000)]
    preprocess: StoredPreprocess
    lineage: Table
    details: Table
    files: dict[str, FileEntry]
    main_file: Text
    task: TaskName = "multiclass"

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must be different from each other")
        for text in (self.name, self.model, self.main_file, *self.classes):
            if not text.isprintable():
                raise ValueError(f"{text[:200]!r} is not printable")
