"""Previews of uploaded images, because browsers do not show TIFF and DICOM."""

from __future__ import annotations

import base64
import io

from octc.core.errors import OctcError
from octc.runtimes.predict import Record, decoded
from octc.serve.predict import Predicted

WIDE = 512  # maximum side length, pixels
QUALITY = 85  # JPEG quality


def with_previews(found: Predicted) -> None:
    """Add `preview` (a data URL) to each record of a readable image or B-scan."""
    for record, own in zip(found.records, found.document["records"], strict=True):
        if record.error is None and record.eye is None:
            own["preview"] = _preview(record)


def _preview(record: Record) -> str | None:
    try:
        picture = decoded(record.scan or record.path).image
    except OctcError:
        return None
    picture.thumbnail((WIDE, WIDE))
    data = io.BytesIO()
    picture.convert("RGB" if picture.mode != "L" else "L").save(data, "JPEG", quality=QUALITY)
    return data_url(data.getvalue(), "image/jpeg")


def data_url(data: bytes, kind: str) -> str:
    """A data URL for a file."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
