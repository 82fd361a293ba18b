"""Pictures as bytes, and what the decoder makes of them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from octc.core.errors import OctcError
from octc.imaging.decode import decode_image


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def refused(data: bytes) -> OctcError:
    with pytest.raises(OctcError) as caught:
        decode_image(data, "scan")
    assert caught.value.hint
    assert caught.value.place == "scan"
    return caught.value


def outcome(data: bytes) -> tuple[str | None, np.ndarray | None]:
    """The code it was refused with, or its pixels."""
    try:
        return None, np.asarray(decode_image(data, "scan").image)
    except OctcError as error:
        return error.code, None


def codes(data: bytes, name: str = "scan.png") -> list[str]:
    return [code for code, _ in decode_image(data, name).notes]


def png_of(width: int, height: int, bits: int, packed: bytes, colour: int = 0, interlaced: int = 0) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))
    return head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
