#!/usr/bin/env bash
# pydicom 3.0.2: compressed to RLE, an image of 8 bits stored in 16 allocated can be opened by nothing, pydicom included.
#
# Guess, written down before the run: what Dataset.compress writes without an error comes back with the same pixels, for every number
# of bits stored that the standard allows (the comparison went over RLE, JPEG-LS and JPEG 2000 at 5 to 16 bits).
#
# Seen on 2026-12-01: with 16 bits allocated and 9 to 16 stored all three come back; with 8 or fewer stored JPEG-LS and JPEG 2000 do, and
# RLE raises in pydicom's own decoder ("640 vs. 1280 bytes") and in SimpleITK's. The encoder drops the upper bytes first and then cuts the frame
# in two segments as if they were there, so that the odd pixels stand in one and the even ones in the other. compress() reports
# success. An archive that is compressed in place so loses these scans for every reader as soon as the originals are deleted (the
# greys can be put together again from the segments by hand). Read back before you delete.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 pydicom==3.0.2 SimpleITK==2.5.7
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import struct

import numpy as np
import SimpleITK
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.rle import _rle_decode_segment
from pydicom.uid import ExplicitVRLittleEndian, MultiFrameGrayscaleWordSecondaryCaptureImageStorage, RLELossless, generate_uid


def read_back(stored):
    """Whether pydicom and SimpleITK read what compress() wrote, and the file."""
    scans = np.random.default_rng(0).integers(0, 1 << stored, (3, 32, 40)).astype(np.uint16)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.NumberOfFrames, ds.Rows, ds.Columns = scans.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, stored, stored - 1
    ds.PixelData = scans.tobytes()
    ds["PixelData"].VR = "OW"
    ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    ds.save_as(file := f"rle{stored}.dcm", enforce_file_format=True)
    answers = []
    for reader in (lambda: dcmread(file).pixel_array, lambda: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(file))):
        try:
            answers.append(np.array_equal(reader(), scans))
        except Exception as error:
            answers.append(type(error).__name__)
    print("bits stored", stored, "read back by pydicom and SimpleITK:", answers)
    return answers, file, scans


for stored in (9, 12, 16):
    assert read_back(stored)[0] == [True, True]
answers, file, scans = read_back(8)
assert True not in answers, "the behaviour changed"
frame = next(generate_frames(dcmread(file).PixelData, number_of_frames=3))
starts = struct.unpack("<3L", frame[:12])
odd, even = bytes(_rle_decode_segment(frame[starts[1] : starts[2]])), bytes(_rle_decode_segment(frame[starts[2] :]))
print("segments", starts[0], "of", len(odd), "bytes for", scans[0].size, "pixels")
assert starts[0] == 2 and len(odd) == scans[0].size // 2
assert list(odd) == scans[0].ravel()[1::2].tolist() and list(even) == scans[0].ravel()[0::2].tolist()
PY
