#!/usr/bin/env bash
# SimpleITK 2.5.7: of an ophthalmic tomography object it reads spacing and origin, and makes the orientation up.
#
# Guess, written down before the run: a multi-frame OPT object is placed by its functional groups (Pixel Measures, Plane
# Position, Plane Orientation), as an Enhanced MR object with the very same groups is.
#
# Seen on 2026-11-30: spacing 0.01171, 0.00387, 0.12 and the first position are right for both. The directions are right for MR,
# and for OPT they are the identity with the third axis reversed: the B-scans, which lie one behind the other along y, are
# said to lie along -z (along +z when they are stored backwards). No warning. A lesion 5.88 mm into the cube is put 5.88 mm
# below the first scan, so a resampling onto the fundus image, another visit or the other reader's volume takes other
# tissue. Set the directions from the functional groups yourself (SetDirection), or read with highdicom.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pydicom==3.0.2 SimpleITK==2.5.7
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, OphthalmicTomographyImageStorage, generate_uid

START, STEP, FRAMES = (3.0, 5.0, 7.0), 0.12, 50


def group(**sequences):
    made = Dataset()
    for name, values in sequences.items():
        item = Dataset()
        for keyword, value in values.items():
            setattr(item, keyword, value)
        setattr(made, name, [item])
    return made


def write(path, kind, modality, step):
    """A cube of horizontal B-scans: columns along x, rows along z, one scan behind the other along y."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = kind, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = generate_uid(), generate_uid(), generate_uid()
    made.PatientID, made.PatientName, made.Modality, made.SeriesNumber, made.InstanceNumber = "test", "test", modality, 1, 1
    made.Rows, made.Columns, made.NumberOfFrames = 6, 8, FRAMES
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.PixelData = np.arange(FRAMES * 48, dtype=np.uint16).tobytes()
    made["PixelData"].VR = "OW"
    made.SharedFunctionalGroupsSequence = [
        group(
            PixelMeasuresSequence={"PixelSpacing": ["0.00387", "0.01171"], "SliceThickness": "0.12"},
            PlaneOrientationSequence={"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]},
        )
    ]
    made.PerFrameFunctionalGroupsSequence = [
        group(
            PlanePositionSequence={"ImagePositionPatient": [START[0], round(START[1] + step * k, 2), START[2]]},
            FrameContentSequence={"DimensionIndexValues": [1, k + 1], "StackID": "1", "InStackPositionNumber": k + 1},
        )
        for k in range(FRAMES)
    ]
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.save_as(path, enforce_file_format=True)


def last_frame(kind, modality, step):
    """Where the first pixel of the last frame lies, in mm."""
    write("object.dcm", kind, modality, step)
    image = sitk.ReadImage("object.dcm")
    assert np.allclose(image.GetSpacing(), (0.01171, 0.00387, 0.12)) and np.allclose(image.GetOrigin(), START)
    pixels = sitk.GetArrayFromImage(image)
    assert (pixels[:, 0, 0] == np.arange(FRAMES) * 48).all()
    return [round(value, 2) for value in image.TransformIndexToPhysicalPoint((0, 0, FRAMES - 1))]


for step in (STEP, -STEP):
    true = [START[0], round(START[1] + step * (FRAMES - 1), 2), START[2]]
    opt, mr = last_frame(OphthalmicTomographyImageStorage, "OPT", step), last_frame(EnhancedMRImageStorage, "MR", step)
    print("last frame in the file:", true, "read as MR:", mr, "read as OPT:", opt)
    assert np.allclose(mr, true)
    assert np.allclose(opt, [START[0], START[1], START[2] - step * (FRAMES - 1)]), "the behaviour changed"
PY
