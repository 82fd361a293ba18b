#!/usr/bin/env bash
# dicomweb-client 0.61.2: the client for a folder answers a search for one eye with both eyes.
#
# Guess, written down before the run (the project had already seen it miss elsewhere):
# DICOMfileClient.search_for_instances with ImageLaterality=L finds the left images only, or refuses a filter that it
# cannot apply.
#
# Seen on 2026-11-29: all three objects (R, L, R) come back, for ImageLaterality and for Laterality; a filter that the
# client knows (Rows) does filter. The only sign is a line of the package's logger, which a program without logging does
# not keep. So check the eye of every answer. (A server may ignore filters too: the standard asks it to say so in a
# warning header.)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pydicom==3.0.2 dicomweb-client==0.61.2
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import logging
from pathlib import Path
import numpy as np
from dicomweb_client import DICOMfileClient
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicPhotography8BitImageStorage, generate_uid

logging.disable(logging.CRITICAL)
study, series = generate_uid(), generate_uid()
folder = Path("images").absolute()
folder.mkdir()
for number, eye in enumerate("RLR", 1):
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = OphthalmicPhotography8BitImageStorage, generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID = study, series
    image.PatientID, image.PatientName, image.PatientBirthDate, image.PatientSex = "test", "test", "", ""
    image.StudyDate, image.StudyTime, image.StudyID, image.AccessionNumber = "", "", "1", ""
    image.ReferringPhysicianName, image.Modality, image.SeriesNumber, image.InstanceNumber = "", "OP", 1, number
    image.ImageLaterality = eye
    image.Rows, image.Columns, image.SamplesPerPixel, image.NumberOfFrames = 2, 2, 1, 1
    image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelData = np.zeros((2, 2), np.uint8).tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.save_as(folder / f"{number}.dcm", enforce_file_format=True)

client = DICOMfileClient(f"file://{folder}", in_memory=True, update_db=True)
found = {str(f): len(client.search_for_instances(search_filters=f))
         for f in ({"Rows": 2}, {"Rows": 3}, {"ImageLaterality": "L"}, {"Laterality": "L"})}
print(found)
assert list(found.values())[:2] == [3, 0]
assert list(found.values())[2:] == [3, 3], "the behaviour changed"
EOF
