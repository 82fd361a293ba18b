"""Documents about licences and shared images."""

from __future__ import annotations

from typing import Literal, get_args

from octc.schemas.common import Count, Document

Use = Literal["commercial"]
USES: tuple[str, ...] = get_args(Use)  # that --use knows


class LicenceTerm(Document):
    """One part of an artifact's making: the licence that counts, what its copy says, whether it allows a commercial use."""

    what: str
    name: str
    licence: str
    stated: str
    use: Literal["allowed", "refused", "unclear"]
    why: str
    source: str


class SharedSet(Document):
    """A public data set that shares images with the one that an artifact learned from, and where that is stated."""

    data_set: str
    how: str
    source: str


class ArtifactTerms(Document):
    artifact: str
    terms: list[LicenceTerm]
    shared_images: list[SharedSet]


class ArtifactLicences(Document):
    """What `octc artifact licences` prints."""

    artifacts: list[ArtifactTerms]


class SharedImages(Document):
    """What `octc data overlap` prints: pairs of paths with one SHA-256, and pairs that show one scan."""

    names: list[str]
    images: list[Count]
    same: list[list[str]]
    near: list[tuple[str, str, int]]
    unread: Count
    stated: list[str]
    shared: Count
