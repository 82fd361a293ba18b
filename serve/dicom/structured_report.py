"""DICOM structured reports of predictions: TID 1500 Measurement Report (PS3.16) with a TID 1501 group per eye.

The report belongs to the patient and study of its source, whose attributes are copied unchanged. Everything else is determined
by source and artifact: the same two give the same SOP instance UID, so a report that is sent twice remains one object.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.optional import need
from octc.core.version import own_version
from octc.imaging.decode import muted
from octc.runtimes.answers import has_rules
from octc.runtimes.predict import Record
from octc.serve.dicom.answers import Answering, EyeAnswer, gathered
from octc.volumes import dicom
from octc.volumes.formats import format_of
from octc.volumes.source import reading
from octc.volumes.writing import save, uid_of

SCHEME, SCHEME_NAME = "99OCTC", "octc: answers of classifiers of retinal OCT"
KIND = "octc structured report 1"  # part of the UIDs: a new content format gives new objects
RULED_KIND = "octc structured report 2"  # for artifacts with decision rules
SERIES_NUMBER = 9900
# Class names of known data sets with a standard code; other classes use the private scheme
STANDARD = {"NORMAL": ("17621005", "SCT", "Normal"), "DME": ("312912001", "SCT", "Diabetic macular edema")}
NO_ANSWER = ("no-answer", SCHEME, "No answer")
NONE_REACHED = ("none", SCHEME, "No finding reaches its threshold")
CLASSIFICATION = ("classification", SCHEME, "Classification of the eye")
REFERRAL = ("referral", SCHEME, "To be decided by a person")
MEMBER, FLAGGED = ("set-member", SCHEME, "Class of the prediction set"), ("flagged", SCHEME, "Operating point is reached")
EMPTY_SET = ("empty-set", SCHEME, "No class")
FRAMES, USED = ("frames", SCHEME, "B-scans of the volume"), ("frames-used", SCHEME, "B-scans that the answer rests on")
CAVEAT = "Made by software, not verified by a person. Not a medical device: not for diagnosis or treatment."
# Attributes of the Patient, General Study and Patient Study modules that identify patient and study of the report
CARRIED = (
    "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence",
    "PatientBirthDate", "PatientBirthTime", "PatientSex", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "TypeOfPatientID", "PatientSpeciesDescription", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName", "PatientAge", "PatientSize", "PatientWeight", "TimezoneOffsetFromUTC",
)  # fmt: skip
EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
    "ReferringPhysicianName",
)  # fmt: skip
ZONE = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")  # TimezoneOffsetFromUTC
REQUIRED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


def source_of(path: Path) -> Any:
    """Read the attributes of a DICOM object without its pixels, and check the required ones.

    Raises:
        OctcError: E228 a UID that a report refers to is missing; E901 pydicom is not installed.
    """
    need("pydicom")
    from octc.volumes.dicom import head_of

    found = head_of(path)
    with muted():  # values are parsed on access
        missing = [name for name in REQUIRED if not found.get(name)]
    if missing:
        text = f"{path.name} has no {', '.join(missing)}, and a report refers to its source by them"
        raise OctcError("OCT-E228", text, hint="export the object again", place=str(path))
    return found


def source_key(source: Any) -> str:
    """The identity of a report's source: the object, or its concatenation."""
    return str(source.get("ConcatenationUID") or source.SOPInstanceUID)


def report_uid(source: Any, answering: Answering) -> Any:
    """The SOP instance UID of the report for a source and an artifact; it is deterministic."""
    kind = RULED_KIND if has_rules(answering.artifact) else KIND
    return uid_of(kind, source_key(source), answering.digest)


@muted()
def structured_report(eyes: Sequence[EyeAnswer], answering: Answering, written: datetime) -> Any:
    """Make the report on the eyes of one DICOM object (or one concatenation).

    Args:
        eyes: all eyes of the file, from `octc.serve.dicom.answers.gathered`. written: time of the report.

    Raises:
        OctcError: E228 the source lacks UIDs that a report refers to; E901 highdicom is not installed.
    """
    need("highdicom")
    paths = list(dict.fromkeys(path for eye in eyes for path in (eye.volume.path, *eye.volume.others)))
    sources = {path: source_of(path) for path in paths}
    first = sources[eyes[0].volume.path]
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import ComprehensiveSR

    artifact, moment = answering.artifact, moment_in(first, written)
    uid = report_uid(first, answering)
    made = ComprehensiveSR(
        evidence=[evidence(source) for source in sources.values()],
        content=_content(eyes, sources, answering)[0],
        series_instance_uid=uid_of(KIND, "series", str(first.StudyInstanceUID), answering.digest),
        series_number=SERIES_NUMBER,
        series_description=f"{artifact.name}: answers for eyes"[:64],
        sop_instance_uid=uid,
        instance_number=int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4], "big") % (1 << 30) + 1,
        manufacturer="octc",
        manufacturer_model_name=artifact.model[:64],
        device_serial_number=answering.digest,
        software_versions=f"octc {own_version()}",
        is_complete=True,
        is_final=False,
        is_verified=False,
        content_date=moment.date(),
        content_time=moment.time(),
        coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name=SCHEME_NAME)],
        specific_character_set=None,
    )
    carry(first, made, moment)
    return made


def write_reports(records: Iterable[Record], answering: Answering, folder: Path) -> Iterator[Record]:
    """Write a report UID.dcm for each DICOM object; yields the same records, those of eyes with the name of their report.

    Args:
        records: from `octc.runtimes.scans.with_eyes`, all of DICOM objects (`require_dicom`). folder: output folder.
    """
    waiting: list[Record] = []  # records of eyes until the last one of their file
    for record, eyes in gathered(records):
        if record.eye is None:
            yield record
            continue
        waiting.append(record)
        if eyes:
            made = structured_report(eyes, answering, datetime.now())
            path = folder / f"{made.SOPInstanceUID}.dcm"
            save(made, path)
            yield from (replace(one, report=path) for one in waiting)
            waiting = []


def require_dicom(paths: Iterable[Path]) -> None:
    """Refuse inputs without a possible report before any of them is classified.

    Raises:
        OctcError: E228 a file is not a DICOM object, so it has no patient and study for a report; or the object lacks UIDs that
            a report refers to.
    """
    for path in paths:
        try:
            found = format_of(path)
        except OctcError:
            continue  # it becomes a record with its error
        if found != dicom.NAME:
            text = f"{path.name} is not a DICOM object, but a structured report needs a patient and a study"
            hint = f"octc data convert {path} -o {path.stem}.dcm (volumes; without identity), or leave --dicom-sr out"
            raise OctcError("OCT-E228", text, hint=hint, place=str(path))
        try:
            with reading(path):
                source_of(path)
        except OctcError as error:  # all others: it becomes a record with its error
            if error.code == "OCT-E228":
                raise


def evidence(source: Any) -> Any:
    """The attributes of a source for highdicom, without identity, which `carry` copies."""
    from pydicom.dataset import Dataset

    found = Dataset()
    for name in (
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "StudyInstanceUID",
        "Modality",
        "Rows",
        "Columns",
        "NumberOfFrames",
    ):
        if name in source:
            found[name] = source[name]
    for name in EMPTY:
        setattr(found, name, "")
    return found


def moment_in(source: Any, written: datetime) -> datetime:
    """A local time of this machine in the time zone that an object states for all its times (PS3.3 C.12.1.1.8), which is copied
    from it; unchanged where it states none."""
    found = ZONE.fullmatch(str(source.get("TimezoneOffsetFromUTC") or "").strip())
    if found is None:
        return written
    sign = -1 if found[1] == "-" else 1
    return written.astimezone(timezone(sign * timedelta(hours=int(found[2]), minutes=int(found[3]))))


def carry(source: Any, made: Any, moment: datetime) -> None:
    """Copy patient and study attributes of the source unchanged, in its character set if that can encode the report's text.

    moment: when it is made, in the time zone of the source (`moment_in`).
    """
    made.InstanceCreationDate, made.InstanceCreationTime = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")
    for name in CARRIED:
        if name in source:
            made[name] = source[name]
    words = "".join(str(one.value) for one in made.iterall() if one.VR in ("LO", "SH", "UT", "LT", "ST", "UC"))
    charset = source.get("SpecificCharacterSet")
    if not words.isascii():
        charset = "ISO_IR 192"
    if charset:
        made.SpecificCharacterSet = charset


def _content(eyes: Sequence[EyeAnswer], sources: dict[Path, Any], answering: Answering) -> Any:
    """The content tree of TID 1500."""
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    artifact = answering.artifact
    device = DeviceObserverIdentifyingAttributes(
        uid=uid_of("octc device", answering.digest),
        name=artifact.name,
        manufacturer_name="octc",
        model_name=artifact.model,
        serial_number=answering.digest,
    )
    observer = ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=codes.cid100.ImagingProcedure,
        imaging_measurements=[_group(eye, sources, answering) for eye in eyes],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=[evidence(source) for source in sources.values()],
    )


def _group(eye: EyeAnswer, sources: dict[Path, Any], answering: Answering) -> Any:
    """TID 1501 for an eye: laterality, network, probabilities, class (or why there is none), decision rules, source frames."""
    from highdicom.sr import (
        AlgorithmIdentification,
        FindingSite,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        RelationshipTypeValues,
        TextContentItem,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    volume, artifact = eye.volume, answering.artifact
    side = volume.laterality.value
    assert eye.record.eye is not None
    how = eye.record.eye.aggregation
    first = sources[volume.path]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=uid_of(KIND, "eye", source_key(first), str(volume.part), answering.digest),
            identifier=f"eye {side or 'unknown'}, volume {volume.part + 1} of {volume.parts}",
        ),
        algorithm_id=AlgorithmIdentification(
            name=f"{artifact.name} ({artifact.model})",
            version=answering.digest[:16],
            parameters=[
                f"SHA-256 of artifact.json: {answering.digest}",
                f"{artifact.target} {artifact.precision}, run by {answering.engine}, octc {own_version()}",
                f"views that are averaged: {answering.views}",
                f"aggregation of B-scans: {how.method}, chosen on: {how.chosen_on or 'nothing (the default)'}",
            ],
        ),
        finding_sites=[FindingSite(codes.SCT.Retina, laterality={"R": codes.SCT.Right, "L": codes.SCT.Left}.get(side or ""))],
        measurements=_measurements(eye, artifact.classes),
        qualitative_evaluations=[
            *(QualitativeEvaluation(_code(CLASSIFICATION), value) for value in _classes(eye, artifact.classes)),
            *(QualitativeEvaluation(_code(what), value) for what, value in _ruled(eye.record, artifact.classes)),
        ],
        source_images=_references(eye, sources),
    )
    remarks = [CAVEAT, *(f"No answer for this eye: {reason}" for reason in eye.record.eye.reasons)]
    remarks += [f"To be decided by a person: {why}" for why in _why(eye.record)]
    remarks += [f"{code}: {text}" for code, text in eye.record.notes if code != "OCT-W804"]
    group[0].ContentSequence.extend(
        TextContentItem(codes.DCM.Comment, remark, relationship_type=RelationshipTypeValues.CONTAINS) for remark in remarks
    )
    return group


def _code(parts: tuple[str, str, str]) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(*parts)


def class_code(name: str) -> tuple[str, str, str]:
    """The code (value, scheme, meaning) of a class: a standard code for classes of known data sets, else a private one."""
    if name in STANDARD:
        return STANDARD[name]
    plain = name.isascii() and name.isprintable() and "\\" not in name and 0 < len(name) <= 16 and name == name.strip()
    value = name if plain else "C-" + hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:14]
    meaning = "".join(sign if sign.isprintable() and sign != "\\" else "_" for sign in name)[:64].strip()
    return value, SCHEME, meaning or value


def _classes(eye: EyeAnswer, classes: Sequence[str]) -> list[Any]:
    """The codes of the predicted classes; a special code without a prediction, or if no finding reaches its threshold."""
    record = eye.record
    assert record.eye is not None
    if record.eye.reasons or record.probabilities is None:
        return [_code(NO_ANSWER)]
    if record.labels is not None:
        return [_code(class_code(classes[k])) for k in record.labels] or [_code(NONE_REACHED)]
    return [_code(NO_ANSWER if record.label is None else class_code(classes[record.label]))]


def _ruled(record: Record, classes: Sequence[str]) -> Iterator[tuple[tuple[str, str, str], Any]]:
    """Results of the decision rules for an eye: referral, prediction set, operating points reached."""
    from pydicom.sr.codedict import codes

    rules = record.decided
    if rules is None:
        return
    yield REFERRAL, codes.SCT.Yes if rules.refer else codes.SCT.No
    if rules.members is not None:
        yield from ((MEMBER, one) for one in [_code(class_code(classes[k])) for k in rules.members] or [_code(EMPTY_SET)])
    yield from ((FLAGGED, _code(class_code(classes[k]))) for k in rules.flagged or ())


def _why(record: Record) -> tuple[str, ...]:
    return record.decided.why if record.decided is not None and record.decided.refer else ()


def _measurements(eye: EyeAnswer, classes: Sequence[str]) -> list[Any]:
    """A probability per class (DCM 122157, with the class as modifier), and the number of B-scans used."""
    from highdicom.sr import CodeContentItem, ContentSequence, Measurement, RelationshipTypeValues
    from pydicom.sr.codedict import codes

    found = []
    for name, value in zip(classes, eye.record.probabilities or (), strict=False):
        one = Measurement(codes.DCM.Probability, _decimal(value), codes.UCUM.NoUnits)
        modifier = CodeContentItem(
            codes.DCM.Finding, _code(class_code(name)), relationship_type=RelationshipTypeValues.HAS_CONCEPT_MOD
        )
        content = [modifier, *(one[0].get("ContentSequence") or [])]
        one[0].ContentSequence = ContentSequence(content)
        found.append(one)
    assert eye.record.eye is not None
    counts = ((FRAMES, eye.record.eye.frames), (USED, eye.record.eye.usable))
    return [*found, *(Measurement(_code(code), count, codes.UCUM.NoUnits) for code, count in counts)]


def _decimal(value: float) -> float:
    """A probability rounded to six significant digits, for a decimal string."""
    return float(f"{value:.6g}")


def _references(eye: EyeAnswer, sources: dict[Path, Any]) -> list[Any]:
    """References to the objects that contain the eye's volume, with frame numbers (from 1) unless it is all frames."""
    from highdicom.sr import SourceImageForMeasurementGroup

    frames: dict[Path, list[int]] = {}
    for path, index in eye.volume.origins:
        frames.setdefault(path, []).append(index + 1)
    found = []
    for path, numbers in frames.items():
        source = sources[path]
        total = int(source.get("NumberOfFrames") or 1)
        part = None if len(set(numbers)) == total else sorted(numbers)
        found.append(SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID, part))
    return found
