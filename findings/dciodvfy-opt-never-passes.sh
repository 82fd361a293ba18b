#!/usr/bin/env bash
# dciodvfy of dicom3tools 1.00~20220618: no ophthalmic tomography object passes it, whatever stands in three attributes.
#
# Guess, written down before the run: an OPT object whose In-concatenation Number, In-concatenation Total Number and
# Concatenation Frame Offset Number are 1, 1 and 0, as PS3.3 C.8.17.7 requires of this IOD (type 1, to exclude
# concatenations), has no error about them; without the three it has.
#
# Seen on 2026-11-30: three errors either way. Without them "Missing attribute Type 1" (module OphthalmicTomographyImage),
# with them "present when condition unsatisfied" (module MultiFrameFunctionalGroupsCommon) and "Cannot be less than or equal
# to one". PS3.3 C.7.6.16 lets an IOD override that rule and names C.8.17.7 as one that does. So a test that wants no error
# at all cannot be had: write the three attributes, and expect exactly these lines.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get download dicom3tools=1.00~20220618093127-2 >/dev/null
dpkg -x dicom3tools_*.deb tools
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pydicom==3.0.2
HOME="$dir" venv/bin/python - <<'PY'
import subprocess
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

def about(three):
    """What dciodvfy says of the three attributes of an object that has them, or not (it lacks others, which do not count)."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.77.1.5.4", generate_uid()
    made.Modality, made.NumberOfFrames = "OPT", 1
    if three:
        made.InConcatenationNumber, made.InConcatenationTotalNumber, made.ConcatenationFrameOffsetNumber = 1, 1, 0
    made.save_as("object.dcm", enforce_file_format=True)
    done = subprocess.run(["tools/usr/bin/dciodvfy", "object.dcm"], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith("Error") and "oncatenation" in line and "UID" not in line]

without, having = about(False), about(True)
print("without:", *without, "with:", *having, sep="\n  ")
assert len(without) == 3 and all("Missing attribute Type 1" in line for line in without), "the behaviour changed"
assert len(having) == 3 and any("Cannot be less than or equal to one" in line for line in having), "the behaviour changed"
PY
