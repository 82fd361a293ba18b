#!/usr/bin/env bash
# dicom-anonymizer 2.1.0: the dates and comments of the frames of an OPT volume stay, though its tables name them.
#
# Guess, written down before the run: of a multi-frame object the dates, comments and UIDs in the functional groups are treated as those at the top.
#
# Seen on 2026-12-02: only the attributes at the top are looked at (with the tables of 2023, 2024b and 2026c). The study date becomes 00010101 and the patient is
# empty, and each B-scan still has FrameAcquisitionDateTime and FrameReferenceDateTime with the day and the second of the exam, FrameComments word for
# word, and the DimensionOrganizationUID of the original. All four are in the package's own tables, and in an OPT object they stand nowhere but in
# sequences. No warning. A set that was made so has the exam date in every volume, by which two visits (and the hospital's list) can be joined again.
# The PatientID is empty or ANONYMIZED, so that all patients are one. dicognito 0.19.0 shifts the dates of frames by as many days as those at the top.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile pydicom==3.0.2 dicom-anonymizer==2.1.0 dicognito==0.19.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import pydicom
from dicognito.anonymizer import Anonymizer
from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file, initialize_actions
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def having(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def frame(number):
    time = f"20260103101112.{number}"
    content = having(FrameAcquisitionDateTime=time, FrameReferenceDateTime=time, FrameAcquisitionDuration=10.0, FrameComments="Jane Doe, repeated")
    return having(FrameContentSequence=[content])


organization = generate_uid()
volume = having(
    SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.5.4",
    SOPInstanceUID=generate_uid(),
    StudyInstanceUID=generate_uid(),
    SeriesInstanceUID=generate_uid(),
    Modality="OPT",
    PatientName="Doe^Jane",
    PatientID="4711",
    StudyDate="20260103",
    ContentDate="20260103",
    AcquisitionDateTime="20260103101112",
    DimensionOrganizationSequence=[having(DimensionOrganizationUID=organization)],
    NumberOfFrames=2,
    Rows=4,
    Columns=4,
    SamplesPerPixel=1,
    PhotometricInterpretation="MONOCHROME2",
    BitsAllocated=8,
    BitsStored=8,
    HighBit=7,
    PixelRepresentation=0,
    PerFrameFunctionalGroupsSequence=[frame(0), frame(1)],
    PixelData=bytes(32),
)
volume.file_meta = FileMetaDataset()
volume.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
volume.save_as("in.dcm", enforce_file_format=True)
before = volume.PerFrameFunctionalGroupsSequence[1].FrameContentSequence[0]
for edition in ("dicomfields_2023", "dicomfields_2024b", "dicomfields_2026c"):
    rules = initialize_actions(edition)
    anonymize_dicom_file("in.dcm", "out.dcm", base_rules_gen=lambda: rules)
    made = pydicom.dcmread("out.dcm")
    content = made.PerFrameFunctionalGroupsSequence[1].FrameContentSequence[0]
    print(edition, "top:", made.StudyDate, made.AcquisitionDateTime, repr(str(made.PatientName)), repr(made.PatientID))
    print("  frame:", content.FrameAcquisitionDateTime, content.FrameReferenceDateTime, content.FrameComments)
    assert "2026" not in made.StudyDate + made.ContentDate + made.AcquisitionDateTime and "4711" not in made.PatientID
    assert made.SOPInstanceUID != volume.SOPInstanceUID
    assert content == before, "the behaviour changed"
    assert made.DimensionOrganizationSequence[0].DimensionOrganizationUID == organization, "the behaviour changed"
    for name in ("FrameAcquisitionDateTime", "FrameReferenceDateTime", "FrameComments", "DimensionOrganizationUID"):
        tag = pydicom.tag.Tag(name)
        assert (tag.group, tag.element) in rules
made = pydicom.dcmread("in.dcm")
Anonymizer().anonymize(made)
content = made.PerFrameFunctionalGroupsSequence[1].FrameContentSequence[0]
print("dicognito, top:", made.StudyDate, "frame:", content.FrameAcquisitionDateTime, content.FrameReferenceDateTime)
assert content.FrameAcquisitionDateTime[:8] == content.FrameReferenceDateTime[:8] == made.StudyDate != "20260103"
PY
