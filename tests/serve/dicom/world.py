"""Eyes as OPT objects that the tiny network knows, as clinics send them: of a patient, in a study."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from octc.datasets.synthetic.volumes import draw_eye_volume
from octc.volumes.writing import Scan, opt_object, save
from tests.tiny_artifacts import shared_run

PATIENT = {
    "PatientName": "Müller^Jörg",
    "PatientID": "KH-4711",
    "IssuerOfPatientID": "CLINIC",
    "PatientBirthDate": "19500102",
    "PatientSex": "M",
    "AccessionNumber": "A-9",
    "StudyID": "S-3",
    "StudyDescription": "OCT Makula",
    "ReferringPhysicianName": "Weiß^Anna",
}


@cache
def known(count: int = 5) -> tuple[npt.NDArray[np.uint8], ...]:
    """B-scans that are like the training images: all of one class but the last one."""
    root = shared_run().path.parent.parent / "patterns"
    files = sorted(root.rglob("*.png"))
    lying = [file for file in files if file.parent.name == "lying"][: count - 1]
    upright = [file for file in files if file.parent.name == "upright"][:1]
    return tuple(np.asarray(Image.open(file).convert("L").resize((64, 64))) for file in (*lying, *upright))


def strange() -> list[npt.NDArray[np.uint8]]:
    """B-scans that are unlike the training images of the tiny network."""
    return list(draw_eye_volume("CNV", 1, "R", frames=5).frames)


def eye_object(eye: str | None = "R", *, seed: str = "eye", frames: Any = None, **values: Any) -> Any:
    """An OPT object of a named patient; values: attributes that are set or, where None, removed."""
    pictures = list(known() if frames is None else frames)
    scan = Scan(
        frames=pictures, laterality=eye, spacing=(0.25, 0.004, 0.012), acquired="2026-02-03T04:05:06", device="Maker",
        seed=f"{seed} {eye}", written="2026-02-03T04:05:06",
    )  # fmt: skip
    made = opt_object(scan)
    made.SpecificCharacterSet = "ISO_IR 100"
    for name, value in {**PATIENT, **values}.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def stored(made: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save(made, path)
    return path


def both_eyes(**values: Any) -> Any:
    """One object with frames of both eyes, in turns: R L R L R."""
    from pydicom.dataset import Dataset

    made = eye_object(seed="both", **values)
    made.ImageLaterality = "B"
    del made.SharedFunctionalGroupsSequence[0].FrameAnatomySequence
    for index, groups in enumerate(made.PerFrameFunctionalGroupsSequence):
        anatomy = Dataset()
        anatomy.FrameLaterality = "RL"[index % 2]
        groups.FrameAnatomySequence = [anatomy]
        groups.FrameContentSequence[0].InStackPositionNumber = index // 2 + 1
        groups.FrameContentSequence[0].StackID = "12"[index % 2]
    return made
