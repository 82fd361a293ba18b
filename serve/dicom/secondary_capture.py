"""A heat map as a DICOM object: a Secondary Capture with the image of `octc predict --maps`."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import numpy as np
from PIL import Image

from octc.core.optional import need
from octc.core.version import own_version
from octc.imaging.decode import muted
from octc.runtimes.maps import MapOptions, map_of
from octc.runtimes.predict import Engine
from octc.serve.dicom.answers import Answering, EyeAnswer
from octc.serve.dicom.structured_report import SERIES_NUMBER, carry, evidence, moment_in, source_of
from octc.volumes.writing import uid_of

KIND = "octc heat map 1"


def heat_map(eye: EyeAnswer, answering: Answering, engine: Engine, written: datetime) -> Any | None:
    """The heat map of the B-scan with the largest probability of the eye's predicted class; None without a prediction."""
    label = eye.record.label
    answered = [one for one in eye.scans if one.probabilities is not None and not one.unlike]
    if label is None or not answered:
        return None
    best = max(answered, key=lambda one: one.probabilities[label] if one.probabilities else 0.0)
    found = map_of(engine, answering.artifact, best, MapOptions())
    if found is None:
        return None
    with Image.open(io.BytesIO(found.to_png())) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    index = best.scan.index if best.scan else 0
    return capture(pixels, eye, answering, index, written)


@muted()
def capture(pixels: Any, eye: EyeAnswer, answering: Answering, index: int, written: datetime) -> Any:
    """Make a Secondary Capture in the study of the eye's volume.

    Args:
        pixels: uint8 [rows, columns, 3]. index: index of the explained B-scan.
    """
    need("highdicom")
    from highdicom.sc import SCImage

    source, artifact = source_of(eye.volume.path), answering.artifact
    plain, moment = evidence(source), moment_in(source, written)
    made = SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=source.StudyInstanceUID,
        series_instance_uid=uid_of(KIND, "series", str(source.StudyInstanceUID), answering.digest),
        series_number=SERIES_NUMBER + 1,
        sop_instance_uid=uid_of(KIND, str(source.SOPInstanceUID), str(eye.volume.part), answering.digest),
        instance_number=eye.volume.part + 1,
        manufacturer="octc",
        manufacturer_model_name=artifact.model[:64],
        device_serial_number=answering.digest,
        software_versions=f"octc {own_version()}",
        series_description=f"{artifact.name}: what it reacts to"[:64],
        patient_id=plain.PatientID,
        patient_name=plain.PatientName,
        patient_birth_date=plain.PatientBirthDate,
        patient_sex=plain.PatientSex,
        accession_number=plain.AccessionNumber,
        study_id=plain.StudyID,
        study_date=None,
        study_time=None,
        referring_physician_name=plain.ReferringPhysicianName,
        patient_orientation=("L", "F"),  # required by highdicom; unknown for a heat map, so it is emptied below (type 2C)
        content_date=moment.date(),
        content_time=moment.time(),
    )
    made.DerivationDescription = f"octc: occlusion map of B-scan {index + 1}, not where disease is"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made["PatientOrientation"].value = None
    made.BurnedInAnnotation = "NO"
    made.ImageLaterality = eye.volume.laterality.value or ""
    carry(source, made, moment)
    return made
