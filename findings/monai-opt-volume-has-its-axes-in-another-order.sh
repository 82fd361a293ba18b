#!/usr/bin/env bash
# MONAI 1.6.1: PydicomReader gives an ophthalmic tomography volume as rows, frames, columns; every other reader of it as columns, rows, frames.
#
# Guess, written down before the run: LoadImage(reader="PydicomReader") of a multi-frame object has the axes of MONAI's other readers (columns, rows, B-scans).
#
# Seen on 2026-12-01: the reader swaps the first two axes, which is right for one picture, and here swaps B-scan and row: image[..., i] is no B-scan but
# one column of all of them, and a network for B-scans cuts the volume across. It warns that the affine matrix is the identity and
# names ITKReader for orientation and spacing, and says nothing of the axes. Take image[:, i, :], or ITKReader.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile monai==1.6.1 torch==2.14.1 numpy==2.4.6 pydicom==3.0.2 itk==5.4.7
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import numpy as np
from monai.transforms import LoadImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicTomographyImageStorage, generate_uid

volume = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4)  # B-scans, rows, columns
image = Dataset()
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
image.SOPClassUID, image.SOPInstanceUID = OphthalmicTomographyImageStorage, generate_uid()
image.set_pixel_data(volume, "MONOCHROME2", 12)
measures, orientation, shared = Dataset(), Dataset(), Dataset()
measures.PixelSpacing, measures.SliceThickness = [0.0039, 0.0117], 0.12
orientation.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
image.SharedFunctionalGroupsSequence, image.PerFrameFunctionalGroupsSequence = [shared], []
for i in range(2):
    frame, position = Dataset(), Dataset()
    position.ImagePositionPatient = [0, i * 0.12, 0]
    frame.PlanePositionSequence = [position]
    image.PerFrameFunctionalGroupsSequence.append(frame)
image.save_as("opt.dcm", enforce_file_format=True)

seen = {reader: np.asarray(LoadImage(reader=reader)("opt.dcm")) for reader in ("PydicomReader", "ITKReader")}
print({reader: found.shape for reader, found in seen.items()})
assert np.array_equal(seen["ITKReader"], volume.transpose(2, 1, 0))
assert np.array_equal(seen["PydicomReader"], volume.transpose(1, 0, 2)), "the behaviour changed"
PY
