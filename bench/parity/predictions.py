"""Stored logits that can be reused, in runs/<id>/records/, by artifact, set and views.

They are read back only when everything is as it was: the artifact, the images and their labels, the preprocessing, the
runtime with its version and threads, and the machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.bench.parity.evaluation_set import LabelledSet
from octc.bench.parity.inference import Records, image_ids, read_records, write_records
from octc.core.errors import OctcError
from octc.core.files import canonical_json
from octc.imaging.preprocess import VIEWS, Preprocess

FOLDER = "records"
MEASURED = "measured"  # the one fact that may differ: when


def records_path(run: Path, set_name: str, name: str, sha256: str, views: Sequence[str]) -> Path:
    """The path of an artifact's records."""
    return run / FOLDER / f"{set_name}-{name}-{sha256[:16]}-{len(views)}.npz"


def store_records(run: Path, one: LabelledSet, name: str, records: Records) -> None:
    """Write records of a set."""
    write_records(records_path(run, one.name, name, records.artifact, records.views), records)


def stored_records(
    run: Path, one: LabelledSet, name: str, sha256: str, preprocess: Preprocess, views: Sequence[str], facts: Mapping[str, Any]
) -> Records | None:
    """Records that hold these views and match in everything, in the order of the set; else None.

    Records of more views hold those of fewer. What cannot be read is measured again.
    """
    for wider in sorted(VIEWS.values(), key=len):
        path = records_path(run, one.name, name, sha256, wider)
        if not set(views) <= set(wider) or not path.is_file():
            continue
        with contextlib.suppress(OctcError):
            found = read_records(path)
            if _matches(found, one, sha256, preprocess, facts):
                patients = tuple(sample.patient for sample in one.samples)
                return replace(found.in_order(image_ids(one.samples)), patients=patients).only(views)
    return None


def _matches(found: Records, one: LabelledSet, sha256: str, preprocess: Preprocess, facts: Mapping[str, Any]) -> bool:
    ids = image_ids(one.samples)
    labels = dict(zip(found.ids, found.labels, strict=True))
    before = {key: value for key, value in found.facts.items() if key != MEASURED}
    return (
        found.artifact == sha256
        and len(found.ids) == len(ids)
        and labels == {i: s.label for i, s in zip(ids, one.samples, strict=True)}
        and canonical_json(found.preprocess) == canonical_json(preprocess.to_json())
        and canonical_json(before) == canonical_json(dict(facts))
    )
