#!/usr/bin/env bash
# pydicom 3.0.2: a float assigned to a DS element is written with more than the 16 characters that DICOM allows.
#
# Guess, written down before the run: the axial spacing of an OCT device, 0.003871669992804527 mm, is shortened to 16
# characters when it is written as Pixel Spacing (or refused).
#
# Seen on 2026-11-29: 20 characters are written and read back, with every Python warning turned into an error; the very
# same value is refused by the public class DSfloat under the strict setting, and shortened only with auto_format=True.
# A strict receiver may reject the object, and a database column for DS may cut it. Spacing of OCT is nearly always such
# a float: format it first (DS(value, auto_format=True)).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import warnings
from io import BytesIO
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicTomographyImageStorage, generate_uid
from pydicom.valuerep import DSfloat

warnings.simplefilter("error")
spacing = 0.003871669992804527
image = Dataset()
image.SOPClassUID, image.SOPInstanceUID = OphthalmicTomographyImageStorage, generate_uid()
image.PixelSpacing = [spacing, spacing]
image.file_meta = FileMetaDataset()
image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
stored = BytesIO()
pydicom.dcmwrite(stored, image, enforce_file_format=True)
print(str(spacing), "in the file:", str(spacing).encode() in stored.getvalue(), "characters:", len(str(spacing)))
print("auto_format:", str(DSfloat(spacing, auto_format=True)))
try:
    DSfloat(spacing, validation_mode=pydicom.config.RAISE)
except OverflowError as error:
    print("strict:", str(error)[:80])
else:
    raise SystemExit("the behaviour changed")
assert len(str(DSfloat(spacing, auto_format=True))) <= 16
assert str(spacing).encode() in stored.getvalue(), "the behaviour changed"
EOF
