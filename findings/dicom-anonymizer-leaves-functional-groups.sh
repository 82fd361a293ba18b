#!/usr/bin/env bash
# dicom-anonymizer 2.1.0: of an OCT volume the date and time of the scan stay, and so do the UIDs that lead back to the original.
#
# Guess, written down before the run: what the tool replaces at the top of an object (it has the list of PS3.15 annex E) it replaces
# in sequences too, so that an anonymised OPT object names neither the day of the examination nor the object that it was.
#
# Seen on 2026-12-01: the acquisition date becomes the year 1 at the top, and stays in Frame Acquisition DateTime and Frame Reference
# DateTime of every B-scan; the SOP Instance UID is new, and the old one stays as Referenced SOP Instance UID below the derivation of the
# frames; so does the UID of the dimensions. All four are on the tool's own list, which is applied to the top level alone. Of a
# single-frame image that is nearly all there is; an OPT object keeps everything in functional groups. Nothing warns. Walk
# through the sequences yourself (Dataset.walk), or write a new object with what is needed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile pydicom==3.0.2 tqdm==4.70.1 dicom-anonymizer==2.1.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
from dicomanonymizer import anonymize_dicom_file
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicTomographyImageStorage, generate_uid


def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


uid, dimensions = generate_uid(), generate_uid()
scan = item(SOPClassUID=OphthalmicTomographyImageStorage, SOPInstanceUID=uid, StudyInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid())
scan.file_meta = FileMetaDataset()
scan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
scan.file_meta.MediaStorageSOPClassUID, scan.file_meta.MediaStorageSOPInstanceUID = OphthalmicTomographyImageStorage, uid
scan.PatientName, scan.PatientID, scan.PatientBirthDate, scan.Modality, scan.ImageLaterality = "A^B", "P1", "19500102", "OPT", "R"
scan.StudyDate, scan.AcquisitionDateTime = "20260304", "20260304101112"
scan.Rows, scan.Columns, scan.NumberOfFrames, scan.SamplesPerPixel, scan.PhotometricInterpretation = 4, 4, 2, 1, "MONOCHROME2"
scan.BitsAllocated, scan.BitsStored, scan.HighBit, scan.PixelRepresentation = 8, 8, 7, 0
scan.DimensionOrganizationSequence = [item(DimensionOrganizationUID=dimensions)]
source = item(ReferencedSOPClassUID=OphthalmicTomographyImageStorage, ReferencedSOPInstanceUID=uid)
scan.SharedFunctionalGroupsSequence = [item(DerivationImageSequence=[item(SourceImageSequence=[source])])]
scan.PerFrameFunctionalGroupsSequence = [
    item(FrameContentSequence=[item(FrameAcquisitionDateTime="20260304101112", FrameReferenceDateTime="20260304101112")])
    for _ in range(2)
]
scan.PixelData = bytes(32)
scan["PixelData"].VR = "OB"
scan.save_as("scan.dcm", enforce_file_format=True)

anonymize_dicom_file("scan.dcm", "out.dcm")
seen = dcmread("out.dcm")
times = [group.FrameContentSequence[0].FrameAcquisitionDateTime for group in seen.PerFrameFunctionalGroupsSequence]
named = seen.SharedFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
print("top:", repr(seen.PatientID), seen.StudyDate, seen.AcquisitionDateTime, "new UID:", seen.SOPInstanceUID != uid)
print("in sequences:", times, "old UID:", named == uid, seen.DimensionOrganizationSequence[0].DimensionOrganizationUID == dimensions)
assert seen.PatientID != "P1" and "2026" not in seen.StudyDate + seen.AcquisitionDateTime and seen.SOPInstanceUID != uid
assert times == ["20260304101112"] * 2, "the behaviour changed"
assert named == uid and seen.DimensionOrganizationSequence[0].DimensionOrganizationUID == dimensions, "the behaviour changed"
PY
