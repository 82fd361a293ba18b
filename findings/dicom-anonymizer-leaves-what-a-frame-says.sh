#!/usr/bin/env bash
# dicom-anonymizer 2.1.0: the comments, labels and dates of the frames of a volume stay as they were.
#
# Guess, written down before the run: anonymize_dataset treats an attribute by its rule wherever it stands, also in the functional groups of a
# multi-frame object (an OPT volume), or takes these apart from an unknown sequence.
#
# Seen on 2026-12-01: Frame Comments, which is removed or emptied at the top level, stays with the name of the patient when it stands in the Frame
# Content Sequence of a frame, and so do the date and time of the frame, while the dates of the study become 00010101. No
# warning. A frame's date with the clinic and the eye is enough to find a patient again. It is a fault of objects that have functional
# groups, so a test with photographs (single-frame) never shows it. Walk all nested data sets after it, and look for the
# name and the dates that were taken from the top level.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 dicom-anonymizer==2.1.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import warnings

from dicomanonymizer import anonymize_dataset
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import OphthalmicTomographyImageStorage, generate_uid

warnings.simplefilter("error")
SAID = {"FrameComments": "Mrs Doe moved", "FrameAcquisitionDateTime": "20260102030405", "FrameReferenceDateTime": "20260102030405"}


def frame():
    made = Dataset()
    for name, value in SAID.items():
        setattr(made, name, value)
    return made


volume = frame()
volume.SOPClassUID, volume.SOPInstanceUID, volume.Modality = OphthalmicTomographyImageStorage, generate_uid(), "OPT"
volume.PatientName, volume.PatientID, volume.StudyDate, volume.NumberOfFrames = "Doe^Jane", "A1", "20260102", 1
groups = Dataset()
groups.FrameContentSequence = [frame()]
volume.PerFrameFunctionalGroupsSequence = [groups]
volume.file_meta = FileMetaDataset()
volume.file_meta.MediaStorageSOPInstanceUID = volume.SOPInstanceUID
anonymize_dataset(volume)
inside = volume.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0]
for name in ("PatientName", "PatientID", "StudyDate", *SAID):
    print(f"{name}: top level {volume.get(name)!r}, in the frame {inside.get(name)!r}")
assert "Doe" not in str(volume.get("PatientName")) and volume.StudyDate != "20260102"
assert "Doe" not in str(volume.get("FrameComments", ""))
assert inside.FrameComments == SAID["FrameComments"], "the behaviour changed"
assert str(inside.FrameAcquisitionDateTime).startswith("20260102"), "the behaviour changed"
PY
