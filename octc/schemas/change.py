"""The document of `octc dossier`."""

from __future__ import annotations

from typing import Literal

from octc.schemas.common import Document, Sha256


class Judged(Document):
    name: str
    manifest_sha256: Sha256


class Changed(Document):
    group: Literal["data", "training", "weights", "graph", "engine", "interface"]
    what: str
    old: str
    new: str


class TestedThing(Document):
    """A stored result of the old or the new artifact."""

    __test__ = False

    artifact: Literal["old", "new"]
    what: str
    result: str
    conditions: str


class Materials(Document):
    """Components that one of the two bills of materials lacks, or that differ."""

    added: list[str]
    removed: list[str]
    changed: list[str]


class ChangeDossier(Document):
    """What changed, what was tested, what is not known."""

    old: Judged
    new: Judged
    changes: list[Changed]
    tested: list[TestedThing]
    unknown: list[str]
    materials: Materials
    folder: str
