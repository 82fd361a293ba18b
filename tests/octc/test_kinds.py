"""Files that are no picture of a kind that is read: named as what they are, with what to do."""

from __future__ import annotations

import base64
import gzip
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin, TiffTags

from octc.core.errors import OctcError
from octc.imaging.decode import decode_image
from octc.volumes import read_volume
from tests.octc.pictures import encoded, refused
from tests.octc.tiffs import bmp, tiff

GREY = Image.fromarray((np.arange(48 * 64).reshape(48, 64) % 251).astype(np.uint8))
TURNED = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(GREY))
    return stream.getvalue()


def of_12_bits(lossless: bool) -> bytes:
    """The header of a JPEG behind a text of 600 bytes."""
    frame = (b"\xff\xc3" if lossless else b"\xff\xc1") + b"\0\x0b\x0c\0\x30\0\x40\1\1\x11\0"
    return b"\xff\xd8\xff\xfe\x02\x5a" + bytes(600) + frame + b"\xff\xd9"


def of_frame(marker: int) -> bytes:
    """A JPEG whose header says another kind of frame."""
    data = bytearray(encoded(GREY, "JPEG"))
    data[data.index(b"\xff\xc0") + 1] = marker
    return bytes(data)


FOREIGN = {
    "a lossless JPEG of 8 bits": of_frame(0xC3), "a hierarchical JPEG of 8 bits": of_frame(0xC5),
    "a JPEG of 8 bits, arithmetic-coded": of_frame(0xCA),
    "GIF": encoded(GREY, "GIF"), "AVIF": encoded(GREY.convert("RGB"), "AVIF"), "JPEG 2000": encoded(GREY, "JPEG2000"),
    "PGM": encoded(GREY, "PPM"), "PCX": encoded(GREY, "PCX"), "PDF": b"%PDF-1.7\n" + bytes(200),
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(200), "JPEG XL": b"\xff\x0a" + bytes(200), "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(200),
    "JPEG-LS": b"\xff\xd8\xff\xf7\0\x0b\x08\0\x30\0\x40\1\1\x11\0" + bytes(90), "a NumPy array": npy(),
    "nothing but zeros": bytes(300), "a PNG whose ends of lines were changed": encoded(GREY, "PNG").replace(b"\r\n", b"\n"),
    "an image that was written as text": encoded(GREY, "JPEG").decode(errors="replace").encode(), "JSON": b' {"error": 404}',
    "a PNG in base64": base64.b64encode(encoded(GREY, "PNG")), "an image in a data URI": b"data:image/png;base64,iVBORw0KGgo",
    "what macOS keeps beside a file (AppleDouble)": b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(90),
    "gzip": gzip.compress(b"x", mtime=0),
    "a web page": b"\n<!DOCTYPE HTML><html>404</html>", "SVG": b'<?xml version="1.0"?>\n<svg/>',
    "a JPEG of 12 bits": of_12_bits(False), "a lossless JPEG of 12 bits": of_12_bits(True),
    "DICOM": bytes(128) + b"DICM" + bytes(9),
    "NIfTI": b"\x1c\x02\0\0n+2\0\r\n\x1a\n" + bytes(540), "an Analyze header": b"\x5c\x01\0\0" + bytes(344),
    "MetaImage": b"ObjectType = Image\r\nNDims = 3\r\nDimSize = 64 48 9\r\n", "VTK": b"# vtk DataFile Version 3.0\n",
    "NetCDF": b"CDF\x01" + bytes(60), "FITS": b"SIMPLE  =                    T" + bytes(60),
    "MRC": bytes(208) + b"MAP " + bytes(60),
    "a MATLAB file": b"MATLAB 7.3 MAT-file" + bytes(60), "PAM": b"P7\nWIDTH 64\n", "PFM": b"Pf\n64 48\n-1.0\n",
    "PBM": b"P4\r\n64 48\n" + bytes(384), "PPM": b"P6\t# by hand\n 64 48\n255\n" + bytes(9216),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_kinds_are_named(name: str, tmp_path: Path) -> None:
    error = refused(FOREIGN[name])
    assert error.code == "OCT-E202"
    assert error.message.endswith(f"it is {name}")
    assert error.hint != "replace the file"
    path = tmp_path / "scan.bin"
    path.write_bytes(FOREIGN[name])
    if name != "DICOM":
        with pytest.raises(OctcError) as caught:
            read_volume(path)
        assert (caught.value.code, name in caught.value.message) == ("OCT-E202", True)


def test_a_nifti_of_the_first_version_is_no_analyze_header() -> None:
    for word in (b"n+1\0", b"ni1\0"):
        assert refused(b"\x5c\x01\0\0" + bytes(340) + word + bytes(200)).message.endswith("it is NIfTI")


@pytest.mark.parametrize("data", [b"x" * 300, b"P5 of the study", b"\x08\x00\x05\x00" + b"\xff" * 60, bytes(599) + b"\1"])
def test_what_is_not_known_is_not_named(data: bytes) -> None:
    assert "it is" not in refused(data).message or data.startswith(b"P5 ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_in_xmp_alone_turns_nothing(kind: str) -> None:
    """Browsers and other readers follow EXIF; Pillow would follow XMP too."""
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", TURNED.decode())
    how = {"PNG": {"pnginfo": text}, "TIFF": {"tiffinfo": {700: TURNED}}, "WEBP": {"xmp": TURNED, "lossless": True}}
    data = encoded(GREY, kind, **how.get(kind, {"xmp": TURNED, "quality": 95}))
    decoded = decode_image(data, f"scan.{kind}")
    assert decoded.image.size == GREY.size
    assert not any("turned" in text for _, text in decoded.notes)
    if kind != "JPEG":
        assert np.array_equal(np.asarray(decoded.image.convert("L")), np.asarray(GREY))


def test_an_orientation_in_xmp_turns_no_page(tmp_path: Path) -> None:
    GREY.save(tmp_path / "a.tif", save_all=True, append_images=[GREY], tiffinfo={700: TURNED})
    volume = read_volume(tmp_path / "a.tif")
    assert np.array_equal(volume.frame(1), np.asarray(GREY))


@pytest.mark.parametrize(
    ("tag", "value", "what"),
    [(270, "ImageJ=1.54f\nimages=10\nslices=10\n", "10 images"), (32997, 5, "depth of 5")],
    ids=["ImageJ above 4 GB", "ImageDepth"],
)
def test_images_behind_the_only_page_are_not_dropped(tag: int, value: str | int, what: str, tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[tag] = TiffTags.ASCII if isinstance(value, str) else TiffTags.LONG
    tags[tag] = value
    error = refused(encoded(GREY, "TIFF", tiffinfo=tags))
    assert (error.code, what in error.message) == ("OCT-E202", True)


def test_a_stack_of_imagej_with_all_its_pages_is_read(tmp_path: Path) -> None:
    said = {270: "ImageJ=1.54f\nimages=3\nslices=3\n"}
    GREY.save(tmp_path / "a.tif", save_all=True, append_images=[GREY, GREY], tiffinfo=said)
    assert read_volume(tmp_path / "a.tif").frames == 3
    assert decode_image(encoded(GREY, "TIFF", tiffinfo={270: "ImageJ=1.54f\n"}), "scan").image.size == GREY.size


@pytest.mark.parametrize(("kind", "keep"), [("PNG", 8), ("PNG", 20), ("JPEG", 20), ("TIFF", 6), ("BMP", 12)])
def test_an_image_whose_header_is_cut_off_is_called_damaged(kind: str, keep: int) -> None:
    assert refused(encoded(GREY, kind)[:keep]).code == "OCT-E201"


def test_a_png_with_a_wrong_sum_in_its_header_is_called_damaged() -> None:
    data = bytearray(encoded(GREY, "PNG"))
    data[20] ^= 1
    assert refused(bytes(data)).code == "OCT-E201"


def test_whole_files_of_layouts_that_are_not_read_are_not_called_damaged() -> None:
    """A bitmap with masks in a rare order, and a TIFF whose strips are WebP."""
    grey = np.full((40, 48), 90)
    masked = bmp(grey.astype("u4"), 32, masks=(0x0000FF00, 0x00FF0000, 0xFF000000))
    strips = bytearray(tiff(grey.astype("u1"), 1))
    at = strips.index(struct.pack("<2HI", 259, 3, 1)) + 8
    struct.pack_into("<H", strips, at, 50001)
    for data in (masked, bytes(strips)):
        error = refused(data)
        assert (error.code, "save it as PNG" in str(error.hint)) == ("OCT-E202", True)
