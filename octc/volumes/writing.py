"""Volumes to files that others read: OPT DICOM, or PNG pictures with a manifest. Identity never goes along."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from octc.core.errors import OctcError
from octc.core.files import publishing, replacing, sha256_file, write_json
from octc.core.optional import need
from octc.imaging.decode import muted
from octc.volumes.dicom import DERIVED, INCOMPLETE, OPT
from octc.volumes.stacks import FILE, SCHEMA
from octc.volumes.volume import UInt8, Volume

UNCOMPRESSED, RLE, JPEG_2000, JPEG_LS = (
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.80",
)
ROOT = "2.25"  # UIDs are made of digests under this root (PS3.5 B.2)


@dataclass(frozen=True)
class Scan:
    """What an OPT object is made of: stored numbers of the B-scans in their order, and what is known of them.

    Attributes:
        frames: uint8 or uint16 [rows, columns] each. bits: stored. laterality: "R", "L" or None (then neither is claimed).
        spacing: mm (between B-scans, in depth, between A-scans), each None where it is not known.
        patient: the id that is written; "" for none. acquired: ISO 8601, or "". seed: of the UIDs; the same gives the same.
        written: ISO 8601, when the object is made. lossy, annotated: what is not known to be otherwise is said to be so.
        derived: what it was made of, for DerivationDescription.
    """

    frames: Sequence[npt.NDArray[Any]]
    bits: int = 8
    laterality: str | None = None
    spacing: tuple[float | None, float | None, float | None] = (None, None, None)
    patient: str = ""
    acquired: str = ""
    device: str = ""
    seed: str = ""
    written: str = ""
    lossy: bool = False
    annotated: bool = False
    derived: str = ""


def write_opt(volume: Volume, path: Path, *, syntax: str = UNCOMPRESSED) -> None:
    """A volume as an OPT object, its grey as it is shown (8 bits), without any identity that the file held.

    Args:
        syntax: transfer syntax: uncompressed, RLE, JPEG 2000 or JPEG-LS (lossless).

    Raises:
        OctcError: E104 the eye is not known (OPT needs it), E901 pydicom is not installed.
    """
    if volume.laterality.value is None:
        hint = "name it: --eye R|L; or write pictures with a manifest: --to png"
        raise OctcError("OCT-E104", "OPT has to name the eye, and it is not known", hint=hint, place=volume.name)
    frames = list(volume)
    scan = Scan(
        frames=frames,
        lossy=volume.lossy is not False,
        annotated=volume.annotated is not False,
        derived=_derived(volume),
        laterality=volume.laterality.value,
        spacing=volume.spacing.value or (None, None, None),
        patient="",
        acquired=volume.acquired.value or "",
        device=volume.device.value or "",
        seed=_seed(volume, frames),
        written=datetime.now().isoformat(timespec="seconds"),
    )
    save(opt_object(scan, syntax), path)


def _seed(volume: Volume, frames: Sequence[UInt8]) -> str:
    """What makes an object another one: its pictures, and what is said of them."""
    value = hashlib.sha256()
    for frame in frames:
        value.update(frame.tobytes())
    facts = (volume.frames, volume.rows, volume.columns, volume.laterality.value, volume.spacing.value, volume.acquired.value)
    return f"{value.hexdigest()} {facts} "


def _derived(volume: Volume) -> str:
    """What was converted, in 1024 letters at most."""
    words = [f"{DERIVED}{volume.format}", f"grey {volume.intensity.name}", *(["experimental"] if volume.experimental else [])]
    if volume.complete.value is False:
        words.append(f"{INCOMPLETE}: {volume.frames} B-scans")
    return "; ".join([*words, *volume.notes]).replace("\\", "/")[:1024]


def save(made: Any, path: Path) -> None:
    """A DICOM object as a whole file."""
    with replacing(path) as part, muted():
        made.save_as(part, enforce_file_format=True)


def opt_object(scan: Scan, syntax: str = UNCOMPRESSED) -> Any:
    """An OPT object (PS3.3 A.52) with every attribute that its modules require.

    Raises:
        OctcError: E901 pydicom is not installed.
    """
    need("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(OPT)
    meta.MediaStorageSOPInstanceUID = uid_of(scan.seed, "instance")
    meta.TransferSyntaxUID = UID(UNCOMPRESSED)
    meta.ImplementationClassUID = uid_of("octc", "implementation")
    made = Dataset()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = UID(OPT), meta.MediaStorageSOPInstanceUID
    _patient_and_study(made, scan)
    _series_and_device(made, scan)
    _image(made, scan)
    _region(made, scan)
    _groups(made, scan)
    made.PixelData = b"".join(np.ascontiguousarray(frame).tobytes() for frame in scan.frames)
    if len(made.PixelData) % 2:
        made.PixelData += b"\0"
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    if syntax != UNCOMPRESSED:
        _compress(made, scan, syntax)
    return made


def uid_of(*words: str) -> Any:
    """A UID that depends on words only: 2.25 and a number of 128 bits."""
    from pydicom.uid import UID

    digest = hashlib.sha256("\x1f".join(words).encode()).digest()[:16]
    return UID(f"{ROOT}.{int.from_bytes(digest, 'big')}")


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _code(value: str, scheme: str, meaning: str) -> Any:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _patient_and_study(made: Any, scan: Scan) -> None:
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "", scan.patient, "", ""
    made.StudyInstanceUID = uid_of(scan.seed, "study")
    made.StudyDate, made.StudyTime = _date(scan.acquired)
    made.AccessionNumber = made.ReferringPhysicianName = made.StudyID = ""


def _date(moment: str) -> tuple[str, str]:
    """ISO 8601 as DICOM's date and time; empty where there is none."""
    digits = "".join(letter for letter in moment if letter.isdigit())
    return (digits[:8], digits[8:14]) if len(digits) >= 14 else ("", "")


def _series_and_device(made: Any, scan: Scan) -> None:
    made.Modality, made.SeriesNumber = "OPT", 1
    made.SeriesInstanceUID = uid_of(scan.seed, "series")
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = uid_of(scan.seed, "frame of reference"), ""
    made.SynchronizationFrameOfReferenceUID = uid_of(scan.seed, "synchronisation")
    made.SynchronizationTrigger, made.AcquisitionTimeSynchronized = "NO TRIGGER", "N"
    made.Manufacturer = scan.device or "unknown"
    made.ManufacturerModelName, made.DeviceSerialNumber, made.SoftwareVersions = "unknown", "unknown", "octc"


def _image(made: Any, scan: Scan) -> None:
    rows, columns = scan.frames[0].shape
    made.ImageType, made.InstanceNumber = ["DERIVED", "PRIMARY"], 1
    made.ContentDate, made.ContentTime = _date(scan.written)
    if made.StudyDate:
        made.AcquisitionDateTime = made.StudyDate + made.StudyTime
    made.AcquisitionNumber = 1
    # of type 1 in this IOD (PS3.3 C.8.17.7): an object that is whole is the first of one part
    made.InConcatenationNumber, made.InConcatenationTotalNumber, made.ConcatenationFrameOffsetNumber = 1, 1, 0
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.Rows, made.Columns, made.NumberOfFrames = rows, columns, len(scan.frames)
    made.BitsAllocated = 8 * scan.frames[0].dtype.itemsize
    made.BitsStored, made.HighBit = scan.bits, scan.bits - 1
    made.PresentationLUTShape, made.LossyImageCompression = "IDENTITY", "01" if scan.lossy else "00"
    made.BurnedInAnnotation = "YES" if scan.annotated else "NO"
    if scan.derived:
        made.DerivationDescription = scan.derived
    made.AcquisitionContextSequence = []


def _region(made: Any, scan: Scan) -> None:
    made.ImageLaterality = scan.laterality or ""
    made.AnatomicRegionSequence = [_code("5665001", "SCT", "Retina")]
    made.AcquisitionDeviceTypeCodeSequence = [_code("392012008", "SCT", "Optical Coherence Tomography Scanner")]
    made.LightPathFilterTypeStackCodeSequence = []
    made.DetectorType = "CCD"
    made.RefractiveStateSequence = []
    made.EmmetropicMagnification = made.IntraOcularPressure = made.HorizontalFieldOfView = made.AxialLengthOfTheEye = None
    made.PupilDilated = ""


def _groups(made: Any, scan: Scan) -> None:
    """Functional groups: what all frames share, and number and place of each."""
    from pydicom.tag import Tag

    between, depth, across = scan.spacing
    organisation = uid_of(scan.seed, "dimensions")
    made.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organisation)]
    content = Tag("FrameContentSequence")
    made.DimensionIndexSequence = [
        _item(DimensionOrganizationUID=organisation, DimensionIndexPointer=Tag(name), FunctionalGroupPointer=content)
        for name in ("StackID", "InStackPositionNumber")
    ]
    shared = _item(
        FrameAnatomySequence=[
            _item(FrameLaterality=scan.laterality or "U", AnatomicRegionSequence=[_code("5665001", "SCT", "Retina")])
        ],
    )
    measures = _item()
    if depth is not None and across is not None:
        measures.PixelSpacing = [round(depth, 8), round(across, 8)]
    if between is not None:
        measures.SpacingBetweenSlices = round(between, 8)
        shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=[1, 0, 0, 0, 0, -1])]
    if len(measures):
        shared.PixelMeasuresSequence = [measures]
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = [_frame_groups(made, index, between) for index in range(len(scan.frames))]


def _frame_groups(made: Any, index: int, between: float | None) -> Any:
    """Number, time and place of a frame; what is not known is left out."""
    content = _item(StackID="1", InStackPositionNumber=index + 1, DimensionIndexValues=[1, index + 1])
    if "AcquisitionDateTime" in made:
        content.FrameAcquisitionDateTime = content.FrameReferenceDateTime = made.AcquisitionDateTime
    groups = _item(FrameContentSequence=[content])
    if between is not None:
        groups.PlanePositionSequence = [_item(ImagePositionPatient=[0, round(between * index, 6), 0])]
    return groups


def _compress(made: Any, scan: Scan, syntax: str) -> None:
    """The pixels of an object in a lossless transfer syntax."""
    import io

    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    if syntax == JPEG_2000:
        frames = []
        for frame in scan.frames:
            stream = io.BytesIO()
            Image.fromarray(frame).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
            frames.append(stream.getvalue())
        made.PixelData = encapsulate(frames)
        made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
        made.file_meta.TransferSyntaxUID = UID(syntax)
        return
    made.compress(UID(syntax), generate_instance_uid=False)


def write_pictures(volume: Volume, folder: Path, *, force: bool = False) -> None:
    """PNG pictures of the B-scans as they are shown, and `volume.json`: order, eye, spacing, checksums; no identity.

    Raises:
        OctcError: E106 the folder exists and `force` is not given.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / FILE).is_file():
        text = f"{folder} holds other files than a stack of octc"
        raise OctcError("OCT-E106", text, hint="name another folder; nothing of it was changed", place=str(folder))
    with publishing(folder, force=force) as place:
        entries = []
        for index, frame in enumerate(volume):
            file = place / f"{index:05d}.png"
            Image.fromarray(frame).save(file)
            entries.append({"file": file.name, "sha256": sha256_file(file)})
        facts = ("pattern", "device", "acquired", "laterality")
        write_json(
            place / FILE,
            {
                "schema": SCHEMA,
                "frames": entries,
                **{name: getattr(volume, name).value for name in facts},
                "spacing_mm": None if volume.spacing.value is None else list(volume.spacing.value),
                "complete": volume.complete.value,
                "experimental": volume.experimental,
                "intensity": volume.intensity.to_json(),
                "patient": volume.patient,
                "notes": list(volume.notes),
                "source_format": volume.format,
            },
        )
