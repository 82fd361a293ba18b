"""The roles in a verification: candidates that run here, their FP32 reference, their teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from octc.core.errors import OctcError, shorten
from octc.core.targets import references
from octc.runtimes.registry import TORCH, missing_extra, prefer, why_not
from octc.store.artifacts import Artifact
from octc.store.find import Found, find_artifacts, read_teacher
from octc.store.runs import artifact_folders


@dataclass(frozen=True)
class Roles:
    """The artifacts of a verification, by role.

    Attributes:
        candidates: artifacts that run here; absent: the others, with the reason.
        reference: FP32 artifact of the same run, or None; missing: what to raise then.
        teacher: FP32 artifact of the teacher's run, or None; without: then why, and the hint.
    """

    candidates: tuple[Found, ...]
    absent: tuple[tuple[Found, str], ...]
    reference: Found | None
    missing: OctcError
    teacher: Found | None
    without: tuple[str, str]


def choose_roles(founds: Sequence[Found], run_dir: Path, against: str | None, *, named: bool = False) -> Roles:
    """Sort the artifacts that a call was given (at least one).

    An artifact that was named is a candidate whatever it is; of a run's, the FP32 reference is not compared with itself.

    Raises:
        OctcError: E107 artifacts of several runs, nothing but the reference, or no teacher where `against` asks for it;
            E901 or E903 none of them runs here.
    """
    mine = [f for f in founds if f.artifact.role == "student"] or list(founds)
    runs = sorted({str(f.artifact.lineage.get("run")) for f in mine})
    if len(runs) > 1:
        raise OctcError(
            "OCT-E107", f"artifacts of several runs: {shorten(runs)}", hint=f"name one: octc verify {mine[0].folder}"
        )
    alone = named and len(mine) == 1
    family = _siblings(mine[0], run_dir) if alone else mine
    floats = _floats(family)
    reference = next((f for f in floats if not alone or not _same(f, mine[0])), floats[0] if floats else None)
    rest = [f for f in mine if alone or against == "teacher" or reference is None or not _same(f, reference)]
    if not rest:
        text = f"only the FP32 reference of run {runs[0]} is exported: there is nothing to compare with it"
        raise OctcError("OCT-E107", text, hint=_other_files(mine[0], runs[0]), place=str(mine[0].folder))
    absent = tuple((f, why) for f in rest if (why := why_not(f.artifact)) is not None)
    candidates = tuple(f for f in rest if why_not(f.artifact) is None)
    if not candidates:
        prefer(rest)  # says why not, with a hint
    teacher, without = _teacher(mine[0], run_dir)
    if against == "teacher" and teacher is None:
        raise OctcError("OCT-E107", f"--against teacher: {without[0]}", hint=without[1])
    return Roles(candidates, absent, reference, _no_reference(family, runs[0]), teacher, without)


def companions(found: Found, run_dir: Path) -> dict[str, Found]:
    """Claim -> FP32 artifact that an artifact is compared with where there is no torch, whatever runs here: "fp32" that of its
    run, "teacher" that of its teacher. What is not here is left out."""
    known = {"fp32": _siblings(found, run_dir), "teacher": read_teacher(found, run_dir)}
    able = {
        claim: _by_preference([one for one in _references(ones) if (one.artifact.target, one.artifact.precision) != TORCH])
        for claim, ones in known.items()
    }
    return {claim: min(ones, key=lambda one: _same(one, found)) for claim, ones in able.items() if ones}


def _other_files(found: Found, run: str) -> str:
    """The command that makes a file to compare an FP32 reference with."""
    if found.artifact.lineage.get("recipe") != "imported":
        return f"octc export {run} --int8"
    if found.artifact.target == "onnx":
        return f"octc export {run} --int8 --target onnx --ptq onnxruntime, or octc import INT8-FILE ... --run {run}"
    return f"octc import INT8-FILE ... --run {run}"


def _no_reference(family: Sequence[Found], run: str) -> OctcError:
    """What to say where no FP32 artifact runs here: the engine of one that is here is not installed, or there is none."""
    order = references()
    for found in sorted(_references(family), key=lambda f: order.index(f.artifact.target)):
        if (absent := missing_extra(found.artifact)) is not None:
            text = f"the FP32 reference {found.artifact.name} cannot run here: {absent.message}"
            return OctcError(absent.code, text, hint=absent.hint, place=str(found.folder))
    text = f"no FP32 artifact of run {run} is here that this machine can run"
    return OctcError("OCT-E708", text, hint=f"octc export {run} --target onnx --fp32")


def _references(founds: Sequence[Found]) -> list[Found]:
    return [f for f in founds if f.artifact.precision == "fp32" and f.artifact.target in references()]


def _same(one: Found, other: Found) -> bool:
    return one.folder.resolve() == other.folder.resolve()


def _siblings(found: Found, run_dir: Path) -> list[Found]:
    """The valid artifacts beside one that belong to its run, itself among them; where no float file of the run lies there,
    those of the run itself too: a copy is compared with what it was copied from."""
    around = found.folder.parent if found.folder.name else found.folder.resolve().parent
    mine = found.artifact
    beside = [one for one in find_artifacts(str(around), run_dir, {})[0] if _same(one, found) or _kin(one.artifact, mine)]
    home = run_dir / str(mine.lineage.get("run")) / "artifacts"
    if _floats(beside) or not artifact_folders(home):
        return beside
    try:
        of_run = find_artifacts(str(home), run_dir, {})[0]
    except OctcError:  # none of them is valid
        return beside
    checkpoint = mine.lineage.get("checkpoint")  # another machine may have given the same id to another run
    return [
        *beside,
        *(one for one in of_run if _kin(one.artifact, mine) and one.artifact.lineage.get("checkpoint") == checkpoint),
    ]


def _kin(one: Artifact, other: Artifact) -> bool:
    return (one.role, one.lineage.get("run")) == (other.role, other.lineage.get("run"))


def _floats(founds: Sequence[Found]) -> list[Found]:
    """FP32 artifacts that run here, the preferred one first."""
    return _by_preference([f for f in _references(founds) if why_not(f.artifact) is None])


def _by_preference(founds: Sequence[Found]) -> list[Found]:
    order = references()
    return sorted(founds, key=lambda f: order.index(f.artifact.target))


def _teacher(found: Found, run_dir: Path) -> tuple[Found | None, tuple[str, str]]:
    """The teacher, or why there is none, with a hint."""
    name = found.artifact.lineage.get("teacher_run")
    if not isinstance(name, str) or not name:
        return None, ("it was trained without a teacher", "octc verify --against fp32")
    known = read_teacher(found, run_dir)
    floats = _floats(known)
    if floats:
        return floats[0], ("", "")
    return None, (
        f"no FP32 artifact of its teacher {name} is here that this machine can run",
        f"octc export {name} --target torch",
    )
