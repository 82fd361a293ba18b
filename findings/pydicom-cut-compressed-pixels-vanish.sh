#!/usr/bin/env bash
# pydicom 3.0.2: of a compressed object that is cut short inside its last frame, no pixel data are left at all.
#
# Guess, written down before the run: reading a file that ends inside the last of three RLE frames raises, or gives an
# element with the two frames that are whole, as reading an uncompressed file that ends early gives what is there.
#
# Seen on 2026-11-29: dcmread raises nothing and the object has no PixelData; every frame is gone, and a program that
# asks `"PixelData" in ds` takes the file for one without pictures. The uncompressed twin keeps the bytes that are there.
# So walk the items of the pixel data yourself before you call such a file empty.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pydicom==3.0.2
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import logging
from pathlib import Path
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, SecondaryCaptureImageStorage, generate_uid

logging.disable(logging.CRITICAL)

def written(path, compress):
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    image.Rows, image.Columns, image.SamplesPerPixel, image.NumberOfFrames = 32, 32, 1, 3
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelData = np.random.default_rng(1).integers(0, 255, (3, 32, 32), np.uint8).tobytes()
    image["PixelData"].VR = "OB"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if compress:
        image.compress(RLELossless)
    image.save_as(path, enforce_file_format=True)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 500])  # inside the last frame
    return dcmread(path)

native, rle = written(Path("native.dcm"), False), written(Path("rle.dcm"), True)
print("uncompressed:", len(native.get("PixelData", b"")), "bytes; RLE:", len(rle.get("PixelData", b"")), "bytes")
assert len(native.PixelData) > 2 * 32 * 32, "the behaviour changed"
assert "PixelData" not in rle, "the behaviour changed"
PY
