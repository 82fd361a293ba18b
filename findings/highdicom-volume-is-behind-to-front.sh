#!/usr/bin/env bash
# highdicom 0.28.2: get_volume() of an ordinary macular cube has its B-scans in the reverse of the order of the file.
#
# Guess, written down before the run: for an OPT object whose B-scans are stored one behind the other along y, equally spaced and numbered,
# get_volume().array[i] is frame i, as in pixel_array; one that is stored backwards is refused or turned.
#
# Seen on 2026-12-01 (columns along x, rows along -z, B-scans at y = 0, 0.1, 0.2, 0.3): the array holds frames 4, 3, 2, 1; where the B-scans are
# stored from 0.3 down to 0 it holds 1, 2, 3, 4, and one whose frames are out of order is put in order. The frames are sorted against
# the normal of their plane (so that the axes are right-handed), and the affine matrix is right; the index is another one. No warning. What
# a classifier says for array[1] belongs to frame 3 of the object: the heat map, the reference in a structured report and the
# viewer show another B-scan, mirrored at the fovea, where two look much alike. Find the frame by its position, not by its index.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pydicom==3.0.2 highdicom==0.28.2
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import warnings

import highdicom
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, OphthalmicTomographyImageStorage, generate_uid

warnings.simplefilter("error")


def dataset(**elements):
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def orders(places):
    names = dict.fromkeys(["PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"], "")
    more = dict.fromkeys(["AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator"], "")
    uids = {name: generate_uid() for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    cube = dataset(SOPClassUID=OphthalmicTomographyImageStorage, Modality="OPT", PatientID="1", Manufacturer="x", **names, **more, **uids)
    cube.SeriesNumber = cube.InstanceNumber = cube.SamplesPerPixel = 1
    cube.Rows, cube.Columns, cube.NumberOfFrames, cube.PixelRepresentation = 4, 6, len(places), 0
    cube.PhotometricInterpretation, cube.BitsAllocated, cube.BitsStored, cube.HighBit = "MONOCHROME2", 8, 8, 7
    cube.PixelData = np.repeat(np.arange(1, len(places) + 1, dtype=np.uint8), 24).tobytes()
    measures = dataset(PixelSpacing=[0.004, 0.012], SliceThickness=0.1)
    plane = dataset(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    cube.SharedFunctionalGroupsSequence = [dataset(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[plane])]
    cube.PerFrameFunctionalGroupsSequence = [
        dataset(
            PlanePositionSequence=[dataset(ImagePositionPatient=[0, y, 0])],
            FrameContentSequence=[dataset(StackID="1", InStackPositionNumber=n, DimensionIndexValues=[1, n])],
        )
        for n, y in enumerate(places, 1)
    ]
    uid = generate_uid()
    cube.DimensionOrganizationSequence = [dataset(DimensionOrganizationUID=uid)]
    cube.DimensionIndexSequence = [
        dataset(DimensionOrganizationUID=uid, DimensionIndexPointer=tag, FunctionalGroupPointer=0x00209111)
        for tag in (0x00209056, 0x00209057)
    ]
    cube.file_meta = FileMetaDataset()
    cube.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    cube.save_as("cube.dcm", enforce_file_format=True)
    image = highdicom.imread("cube.dcm")
    volume = image.get_volume()
    print("y", places, "pixel_array", image.pixel_array[:, 0, 0].tolist(), "volume", volume.array[:, 0, 0].astype(int).tolist())
    for index, frame in enumerate(volume.array[:, 0, 0].astype(int)):
        assert abs((volume.affine @ [index, 0, 0, 1])[1] - places[frame - 1]) < 1e-9
    return volume.array[:, 0, 0].astype(int).tolist()


assert orders([0.3, 0.2, 0.1, 0.0]) == [1, 2, 3, 4]
assert orders([0.0, 0.1, 0.2, 0.3]) == [4, 3, 2, 1], "the behaviour changed"
assert orders([0.0, 0.2, 0.1, 0.3]) == [4, 2, 3, 1], "the behaviour changed"
PY
