#!/usr/bin/env bash
# oct-converter 0.7.0: the DICOM object that it writes has 101 grey levels, and for Zeiss a size that is made up.
#
# Guess, written down before the run: create_dicom_from_oct keeps the grey values of the scan, or scales the whole volume to the 16
# bits that the object states; the size of a pixel, which a Zeiss .img file does not hold, is left out or asked for.
#
# Seen on 2026-12-01: a .img volume with all 256 greys becomes an object of 16 bits with the values 0 to 100: the volume is scaled to
# 0..100 and the fraction is cut off, for every maker (a Heidelberg volume has thousands of greys before). Window and bits
# stored say nothing of it, so a viewer that goes by the bits shows black, and a network that divides by 65,535 sees black.
# The pixel spacing is 0.002 and 0.002 mm and the distance of B-scans 0.004 mm, whatever was scanned: a cube of 6 x 6 x 2
# mm with 512 x 128 x 1024 samples is said to be 1 x 0.5 x 2 mm. Nothing in the object marks these as placeholders.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 pydicom==3.0.2 oct-converter==0.7.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import numpy as np
import pydicom
from oct_converter.dicom import create_dicom_from_oct

volume = np.broadcast_to(np.arange(256, dtype=np.uint8).repeat(2), (4, 1024, 512))
name = "P1_Macular Cube 512x128_10-11-2025_10-11-12_OD_sn1_cube_z.img"
volume.transpose(1, 2, 0).reshape(-1, order="F").tofile(name)
written = pydicom.dcmread(create_dicom_from_oct(name, output_dir="out")[0])
greys = np.unique(written.pixel_array)
measures = written.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
print("bits stored", written.BitsStored, "shape", written.pixel_array.shape, "greys", len(greys), int(greys[0]), int(greys[-1]))
print("pixel spacing", list(measures.PixelSpacing), "slice thickness", measures.SliceThickness, "window", written.get("WindowCenter"))
assert written.BitsStored == 16 and written.pixel_array.shape == volume.shape
assert greys.tolist() == list(range(101)), "the behaviour changed"
assert [float(value) for value in (*measures.PixelSpacing, measures.SliceThickness)] == [0.002, 0.002, 0.004], "the behaviour changed"
PY
