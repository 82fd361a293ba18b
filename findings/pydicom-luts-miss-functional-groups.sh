#!/usr/bin/env bash
# pydicom 3.0.2: rescale and window of a multi-frame image (OPT among them) are not applied, without a word.
#
# Guess, written down before the run (the project had already seen it miss elsewhere): apply_modality_lut and
# apply_voi_lut use the rescale and the window of an enhanced multi-frame object, which stand in its functional groups,
# as they use those of a single-frame image.
#
# Seen on 2026-11-29: both return the array as it came in (1000, 2000, 3000) though slope 2, intercept 7 and a window of
# centre 2000 and width 10 stand in the shared groups; the same numbers at the top level give 2007, 4007, 6007. No
# warning. OCT volumes are of this kind: read the groups yourself, frame by frame, or use a library that does
# (highdicom).
#
# Source: pydicom/pydicom issue 2353, open.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pydicom==3.0.2
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import warnings
from io import BytesIO
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicTomographyImageStorage, generate_uid

warnings.simplefilter("error")
rescale, window = Dataset(), Dataset()
rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 2, 7, "US"
window.WindowCenter, window.WindowWidth = 2000, 10


def read(groups):
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = OphthalmicTomographyImageStorage, generate_uid()
    image.Rows, image.Columns, image.NumberOfFrames, image.SamplesPerPixel = 2, 2, 3, 1
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.PixelData = np.repeat(np.array([1000, 2000, 3000], np.uint16), 4).tobytes()
    if groups:
        shared = Dataset()
        shared.PixelValueTransformationSequence, shared.FrameVOILUTSequence = [rescale], [window]
        image.SharedFunctionalGroupsSequence = [shared]
    else:
        image.update(rescale)
        image.update(window)
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    stored = BytesIO()
    image.save_as(stored, enforce_file_format=True)
    back = dcmread(BytesIO(stored.getvalue()))
    pixels = back.pixel_array
    return [f(pixels, back)[:, 0, 0].tolist() for f in (apply_modality_lut, apply_voi_lut)]


top, groups = read(False), read(True)
print("top level", top, "functional groups", groups)
assert top[0] == [2007, 4007, 6007] and top[1] != [1000, 2000, 3000]
assert groups == [[1000, 2000, 3000]] * 2, "the behaviour changed"
EOF
