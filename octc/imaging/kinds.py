"""What a file is that octc does not read, by its first bytes: its name, and what to do with it. Nothing is decoded here."""

from __future__ import annotations

import re
import struct

HEAD = 1 << 16  # bytes that are enough to tell
PICTURE = "save it as PNG or as a plain TIFF (grey or RGB, 8 or 16 bits) with the program that wrote it"
ARCHIVE = "unpack it, and give its files; octc predict takes the folder"
ARRAY = "write its pictures as PNG files, or as a TIFF of pages (uint8 or uint16)"
VIDEO = "write the B-scan that is meant as a PNG file"
DOCUMENT = "replace it with the image that was meant"
VOLUME = "it is a volume: octc data volume says what it holds, and a table of volumes takes it (docs/data.md)"
BASE64 = "decode it: base64 -d IN > OUT"
BESIDE = "leave it out: the image is the file of this name without `._`"
LINES, TEXT = "a PNG whose ends of lines were changed", "an image that was written as text"
BINARY = "transfer it again as binary data (of git: `*.png -text` in .gitattributes)"
PARQUET = "Parquet"
HEADLESS = "write its header: dcmconv IN OUT (DCMTK)"
# (byte, what stands there, name, what to do); the first that fits
STARTS = (
    (0, b"GIF8", "GIF", PICTURE), (0, b"\0\0\0\x0cjP  ", "JPEG 2000", PICTURE), (0, b"\xff\x4f\xff\x51", "JPEG 2000", PICTURE),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL", PICTURE), (0, b"\xff\x0a", "JPEG XL", PICTURE),
    (0, b"II\xbc\x01", "JPEG XR", PICTURE), (4, b"ftypavi", "AVIF", PICTURE), (4, b"ftyphei", "HEIC", PICTURE),
    (4, b"ftyphev", "HEIC", PICTURE), (4, b"ftypmif1", "HEIC or AVIF", PICTURE), (4, b"ftypmsf1", "HEIC or AVIF", PICTURE),
    (0, b"8BPS", "Photoshop", PICTURE), (0, b"qoif", "QOI", PICTURE), (0, b"v/1\x01", "OpenEXR", PICTURE),
    (0, b"\0\0\1\0", "a Windows icon", PICTURE), (0, b"\x0a\x05\x01", "PCX", PICTURE),
    (0, b"P7\nWIDTH", "PAM", PICTURE), (0, b"Pf\n", "PFM", PICTURE), (0, b"PF\n", "PFM", PICTURE),
    (0, b"%!PS", "PostScript", PICTURE), (0, b"%PDF", "PDF", PICTURE), (4, b"ftyp", "a video (MP4)", VIDEO),
    (8, b"AVI ", "a video (AVI)", VIDEO), (0, b"\x1a\x45\xdf\xa3", "a video (Matroska)", VIDEO),
    (0, b"\x89HDF", "HDF5", ARRAY), (0, b"\x93NUMPY", "a NumPy array", ARRAY), (0, b"MATLAB 5", "a MATLAB file", ARRAY),
    (344, b"n+1\0", "NIfTI", ARRAY), (344, b"ni1\0", "NIfTI", ARRAY), (4, b"n+2\0", "NIfTI", ARRAY),
    (4, b"ni2\0", "NIfTI", ARRAY), (0, b"\x5c\x01\0\0", "an Analyze header", ARRAY),
    (0, b"\0\0\x01\x5c", "an Analyze header", ARRAY), (0, b"NRRD", "NRRD", ARRAY), (0, b"ObjectType", "MetaImage", ARRAY),
    (0, b"NDims", "MetaImage", ARRAY), (0, b"CDF\x01", "NetCDF", ARRAY), (0, b"CDF\x02", "NetCDF", ARRAY),
    (0, b"# vtk", "VTK", ARRAY), (0, b"SIMPLE  =", "FITS", ARRAY), (208, b"MAP ", "MRC", ARRAY),
    (0, b"MATLAB 7", "a MATLAB file", ARRAY), (0, b"PAR1", PARQUET, ARRAY),
    (0, b"PK", "a zip archive", ARCHIVE), (0, b"\x1f\x8b", "gzip", ARCHIVE), (257, b"ustar", "a tar archive", ARCHIVE),
    (0, b"7z\xbc\xaf", "a 7z archive", ARCHIVE), (0, b"Rar!", "a rar archive", ARCHIVE), (0, b"\xfd7zXZ", "xz", ARCHIVE),
    (0, b"BZh", "bzip2", ARCHIVE), (0, b"\x28\xb5\x2f\xfd", "zstd", ARCHIVE), (128, b"DICM", "DICOM", VOLUME),
    (0, b"HSF-OCT-", "a Heidelberg .vol", VOLUME), (0, b"CMDb", "a Heidelberg .e2e", VOLUME),
    (0, b"FOCT", "a Topcon file", VOLUME),
    (0, b"\x89PNG\n", LINES, BINARY), (0, b"\x89PNG\r\r\n", LINES, BINARY), (0, b"\tPNG\r\n", "a PNG of 7 bits a byte", BINARY),
    (0, b"\xc2\x89PNG", TEXT, BINARY), (0, b"\xef\xbf\xbdPNG", TEXT, BINARY), (0, b"\xc3\xbf\xc3\x98", TEXT, BINARY),
    (0, b"\xef\xbf\xbd\xef\xbf\xbd", TEXT, BINARY), (0, b"iVBORw0KGgo", "a PNG in base64", BASE64),
    (0, b"/9j/", "a JPEG in base64", BASE64), (0, b"data:image/", "an image in a data URI", BASE64),
    (0, b"\0\x05\x16\x07", "what macOS keeps beside a file (AppleDouble)", BESIDE),
)  # fmt: skip
# how images of the kinds that are read begin, though nothing more of them can be read
BEGUN = ((b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"BM", "bitmap"))
TEXTS = (
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<svg", "SVG"),
    (b"version https://git-lfs", "a pointer"),
    (b"{", "JSON"),
)
NETPBM = re.compile(rb"P([1-6])(?:\s|#[^\n]*\n)+\d+\s")  # PBM, PGM, PPM as text and as bytes
POINTER = "fetch what it points to: git lfs pull"
LOSSLESS, HIERARCHICAL = (0xC3, 0xC7, 0xCB, 0xCF), (0xC5, 0xC6, 0xCD, 0xCE)  # markers of frames of a JPEG
IDENTIFYING = (0x0002, 0x0008)  # groups of elements that a DICOM object begins with


def foreign(head: bytes) -> tuple[str, str] | None:
    """(name, what to do) of a file of another kind, from its first HEAD bytes; None for one that is not known.

    >>> foreign(b"GIF89a")[0]
    'GIF'
    """
    for at, word, name, hint in STARTS:
        if head[at : at + len(word)] == word:
            return name, hint
    if (found := NETPBM.match(head)) is not None:
        return ("PBM", "PGM", "PPM")[(int(found[1]) - 1) % 3], PICTURE
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for word, name in TEXTS:
        if text.startswith(word):
            return (name, POINTER) if name == "a pointer" else (name, DOCUMENT)
    if text.startswith(b"<?xml") and b"<svg" in text:
        return "SVG", PICTURE
    if head and not any(head):
        return "nothing but zeros", "fetch the file again"
    if is_headless(head):
        return "DICOM without its header (128 bytes and DICM)", HEADLESS
    return jpeg_kind(head)


def begun(head: bytes) -> str | None:
    """The kind of image that a file begins as; None of any other."""
    return next((name for word, name in BEGUN if head.startswith(word)), None)


def is_headless(head: bytes) -> bool:
    """Whether bytes begin as the elements of a DICOM object do, which has lost its preamble."""
    if len(head) < 16:
        return False
    group, element, explicit, length = *struct.unpack("<2H", head[:4]), head[4:6], struct.unpack("<I", head[4:8])[0]
    if group not in IDENTIFYING or element > 0x0020:
        return False
    return (explicit.isalpha() and explicit.isupper()) or 0 < length <= 256


def jpeg_kind(data: bytes) -> tuple[str, str] | None:
    """A JPEG of a kind that decoders do not know, by its frame header (ITU-T T.81, table B.1); None of 8 bits that they do."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 5 <= len(data) and data[at] == 0xFF:
        marker, bits = data[at + 1], data[at + 4]
        if marker == 0xF7:
            return "JPEG-LS", PICTURE
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            kind = "lossless " if marker in LOSSLESS else "hierarchical " if marker in HIERARCHICAL else ""
            coded = ", arithmetic-coded" if marker > 0xC8 else ""
            return (f"a {kind}JPEG of {bits} bits{coded}", PICTURE) if kind or coded or bits != 8 else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
