"""Which artifacts a verb works on when it is given a path, a run, or nothing; and the words that say what was taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from octc.artifact import MANIFEST, Artifact, read_artifact
from octc.errors import OctcError, Several, shorten
from octc.files import TEMPORARY
from octc.run import RUN, Run, find_run, scan_runs

BUNDLES = Path("bundles")  # where copied artifacts lie on a device
VARIABLE = "OCTC_BUNDLE"


@dataclass(frozen=True)
class Found:
    """An artifact that was read and checked, and where."""

    folder: Path
    artifact: Artifact


def find_artifacts(place: str | None, run_dir: Path, environ: Mapping[str, str]) -> tuple[list[Found], str]:
    """The valid artifacts that a verb works on, and a line that says which and how to choose others.

    place: an artifact folder gives that one; a folder of artifacts, a run folder, a run's id or the beginning of it give all
    in it. None: $OCTC_BUNDLE, else the current folder if it is an artifact, else the newest finished student run under
    `run_dir` that has artifacts, else the newest ones under ./bundles.

    A damaged artifact that was named itself is an error; among several it is passed over, and the line says so. Where every
    one is damaged, that is the error.

    Raises:
        OctcError: E107 nothing was found (with candidates and the command that makes one), or two equally new ones;
            E501, E502, E504 as `read_artifact`.
    """
    if place is not None:
        return _named(place, run_dir, f"using {place}")
    if environ.get(VARIABLE):
        return _named(environ[VARIABLE], run_dir, f"using {environ[VARIABLE]} (${VARIABLE}; choose with BUNDLE)")
    here = Path()
    if (here / MANIFEST).is_file():
        return [Found(here, read_artifact(here))], "using the artifact in this folder (choose with BUNDLE)"
    for run in scan_runs(run_dir, "student"):
        folders = artifact_folders(run.artifacts)
        if folders and run.read().get("status") == "done":
            return _valid(folders, f"using {run.artifacts} (newest valid; choose with BUNDLE)")
    if newest := _newest_bundles(BUNDLES):
        return newest
    raise _nothing(run_dir)


def read_teacher(found: Found, run_dir: Path) -> list[Found]:
    """Valid artifacts of the teacher run that an artifact's lineage names: under `run_dir`, beside it, or under ./bundles.

    A damaged one is left out; [] when there is none here, or the artifact names no teacher.
    """
    name = found.artifact.lineage.get("teacher_run")
    if not isinstance(name, str) or not name:
        return []
    beside = found.folder.resolve().parent
    nearby = [run_dir / name / "artifacts", beside, *_folders(beside), *_folders(BUNDLES), BUNDLES]
    if found.folder.resolve().parents[1:]:
        nearby.append(beside.parent / name)
    for place in nearby:
        mine = [one for one in _readable(artifact_folders(place))[0] if one.artifact.lineage.get("run") == name]
        if mine:
            return mine
    return []


def artifact_folders(place: Path) -> list[Path]:
    """Folders directly in `place` that hold a manifest, by name; half-written ones are passed over."""
    return [path for path in _folders(place) if (path / MANIFEST).is_file()]


def _folders(place: Path) -> list[Path]:
    try:
        return sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith((TEMPORARY, ".")))
    except OSError:
        return []


def _named(place: str, run_dir: Path, words: str) -> tuple[list[Found], str]:
    folder = Path(place)
    if (folder / MANIFEST).is_file():
        return [Found(folder, read_artifact(folder))], words
    if folder.is_dir() and not (folder / RUN).is_file():
        if folders := artifact_folders(folder) or artifact_folders(folder / "artifacts"):
            return _valid(folders, words)
        raise OctcError("OCT-E107", f"no artifact in {place}", mend="octc export makes one", place=place)
    run = _run(place, run_dir)
    if folders := artifact_folders(run.artifacts):
        return _valid(folders, words if Path(place) == run.path else f"using {run.artifacts}")
    raise OctcError("OCT-E107", f"run {run.id} has no artifacts", mend=f"octc export {run.id}", place=str(run.path))


def _run(place: str, run_dir: Path) -> Run:
    try:
        return find_run(run_dir, place)
    except OctcError as error:
        if error.code != "OCT-E107" or not place:
            raise
        why = f"candidates: {_candidates(run_dir)}"
        raise OctcError("OCT-E107", f"no artifact and no run: {place}", mend="octc list runs", why=why) from error


def _valid(folders: Sequence[Path], words: str) -> tuple[list[Found], str]:
    founds, errors = _readable(folders)
    if not founds:
        raise errors[0] if len(errors) == 1 else Several(errors)
    passed = "; ".join(f"{error.message} [{error.code}]" for error in errors)
    return founds, f"{words}; passed over: {passed}" if errors else words


def _readable(folders: Iterable[Path]) -> tuple[list[Found], list[OctcError]]:
    founds, errors = [], []
    for folder in folders:
        try:
            founds.append(Found(folder, read_artifact(folder)))
        except OctcError as error:
            named = f"{folder.name}: {error.message}"
            errors.append(OctcError(error.code, named, mend=error.mend, place=error.place, why=error.why))
    return founds, errors


def _newest_bundles(place: Path) -> tuple[list[Found], str] | None:
    """The newest run's artifacts among those that were copied to `place` (or into folders of it), student runs first."""
    folders = [*artifact_folders(place)]
    for inner in _folders(place):
        folders += artifact_folders(inner) or artifact_folders(inner / "artifacts")
    if not folders:
        return None
    founds, words = _valid(folders, f"using {place} (newest valid; choose with BUNDLE)")
    groups: dict[str, list[Found]] = {}
    for one in founds:
        groups.setdefault(str(one.artifact.lineage.get("run")), []).append(one)
    ages = sorted((_age(group), name) for name, group in groups.items())
    if len(ages) > 1 and ages[-1][0] == ages[-2][0]:
        text = f"two equally new runs under {place}: {ages[-2][1]} and {ages[-1][1]}"
        raise OctcError("OCT-E107", text, mend=f"name the folder, for example {founds[0].folder}", place=str(place))
    return groups[ages[-1][1]], words


def _age(group: Sequence[Found]) -> tuple[bool, str]:
    """Students before teachers, then by the newest export."""
    return any(one.artifact.role == "student" for one in group), max(str(f.artifact.lineage.get("exported")) for f in group)


def _nothing(run_dir: Path) -> OctcError:
    why = f"looked at ${VARIABLE}, this folder, {run_dir} and ./{BUNDLES}; runs: {_candidates(run_dir)}"
    return OctcError("OCT-E107", "no artifact here", mend="octc export, or name one: BUNDLE", place=str(run_dir), why=why)


def _candidates(run_dir: Path) -> str:
    rows = []
    for run in scan_runs(run_dir):
        count = len(artifact_folders(run.artifacts))
        rows.append(f"{run.id} ({run.read().get('status')}, {count} artifacts)")
    return shorten(rows, more="octc list runs") if rows else "none"
