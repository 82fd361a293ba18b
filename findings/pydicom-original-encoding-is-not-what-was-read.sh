#!/usr/bin/env bash
# pydicom 3.0.2: an object whose header states another encoding is read rightly, and `original_encoding` says the wrong one.
#
# Guess, written down before the run: dcmread notices that elements are explicit where the transfer syntax says implicit
# (it warns, and reads them as explicit), so the attribute that tells how the object was encoded says explicit.
#
# Seen on 2026-11-29: the values and pixel_array are right, and original_encoding is (True, True): implicit, little
# endian. Who computes from it where the pixels begin in the file is four bytes off, and gets shifted pictures without
# an error. Look at the two letters behind the tag of the pixel data instead.
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
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

logging.disable(logging.CRITICAL)
image = Dataset()
image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
image.Rows, image.Columns, image.SamplesPerPixel = 32, 32, 1
image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
pixels = np.arange(1024, dtype=np.uint16).astype(np.uint8).reshape(32, 32)
image.PixelData, image.file_meta = pixels.tobytes(), FileMetaDataset()
image["PixelData"].VR = "OB"
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
path = Path("object.dcm")
image.save_as(path, enforce_file_format=True)
stated, other = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"  # explicit; implicit, padded to the same length
data = path.read_bytes()
assert data.count(stated) == 1
path.write_bytes(data.replace(stated, other))

read = dcmread(path)
print("pixels right:", bool((read.pixel_array == pixels).all()), "original_encoding:", read.original_encoding)
assert (read.pixel_array == pixels).all(), "the behaviour changed"
assert read.original_encoding == (True, True), "the behaviour changed"
PY
