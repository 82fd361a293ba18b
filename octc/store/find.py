"""Which artifacts a command works on when it is given a path, a run, or nothing; and the words that say what was taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from octc.core.deprecated import variable
from octc.core.errors import OctcError, combined, shorten
from octc.core.faults import of_machine
from octc.store.artifacts import MANIFEST, Artifact, read_artifact
from octc.store.runs import ID, RUN, Run, artifact_folders, find_run, folders_in, only_newest, read_runs

COPIED = (Path("artifacts"), Path("bundles"))  # where copied artifacts lie on a device; the second is the old name
VARIABLE = "OCTC_ARTIFACT"


@dataclass(frozen=True)
class Found:
    """An artifact that was read and checked, and where."""

    folder: Path
    artifact: Artifact


def path_of(one: object) -> str:
    """How a path, or a model of `octc.load` (its folder), is named to `find_artifacts`."""
    return str(getattr(one, "folder", one))


def find_artifacts(place: str | None, run_dir: Path, environ: Mapping[str, str]) -> tuple[list[Found], str]:
    """The valid artifacts that a command works on, and a line that says which and how to choose others.

    place: an artifact folder, or a file in it, gives that one; a folder of artifacts, a run folder, its run.json, a run's id or
    the beginning of it give all in it. None: $OCTC_ARTIFACT, else the current folder if it is an artifact, else the newest
    finished student run under `run_dir` that has artifacts, else the newest ones under ./artifacts. Newest is who has the
    highest run number: a clock may have gone back.

    A damaged artifact that was named itself is an error; among several it is passed over, and the line says so. Where every
    one is damaged, that is the error.

    Raises:
        OctcError: E107 nothing was found (with candidates and the command that makes one), or two equally new ones;
            E501, E502, E504 as `read_artifact`.
    """
    if place is not None:
        return _named(place, run_dir, f"using {place}")
    if chosen := variable(environ, VARIABLE):
        return _named(chosen, run_dir, f"using {chosen} (${VARIABLE}; choose with ARTIFACT)")
    here = Path()
    if (here / MANIFEST).is_file():
        return [Found(here, read_artifact(here))], "using the artifact in this folder (choose with ARTIFACT)"
    runs = read_runs(run_dir, "student")
    done = (run for run, value in runs if value.get("status") == "done" and artifact_folders(run.artifacts))
    if run := only_newest(done, run_dir, "student"):
        return _valid(artifact_folders(run.artifacts), f"using {run.artifacts} (newest valid; choose with ARTIFACT)")
    if newest := next((found for place in COPIED if (found := _newest_copied(place))), None):
        return newest
    raise _nothing(run_dir)


def read_teacher(found: Found, run_dir: Path) -> list[Found]:
    """Valid artifacts of the teacher run that an artifact's lineage names: under `run_dir`, beside it, or under ./artifacts.

    A damaged one is left out; [] when there is none here, or the artifact names no teacher.
    """
    name = found.artifact.lineage.get("teacher_run")
    if not isinstance(name, str) or not name:
        return []
    beside = found.folder.resolve().parent
    copied = (one for place in COPIED for one in (*folders_if_readable(place), place))
    nearby = [run_dir / name / "artifacts", beside, *folders_if_readable(beside), *copied]
    if found.folder.resolve().parents[1:]:
        nearby.append(beside.parent / name)
    for place in nearby:
        mine = [one for one in _readable(folders_if_readable(place, MANIFEST))[0] if one.artifact.lineage.get("run") == name]
        if mine:
            return mine
    return []


def folders_if_readable(place: Path, holding: str = "") -> list[Path]:
    """Folders in `place`, with a file of that name; none where it cannot be read, for what may as well not be there."""
    with contextlib.suppress(OctcError):
        return [path for path in folders_in(place) if not holding or (path / holding).is_file()]
    return []


def artifact_of(place: str | Path) -> Path | None:
    """The folder of the artifact that a path means: it is that folder, or a file in it; None where it is neither."""
    path = Path(place)
    if (path / MANIFEST).is_file():
        return path
    if not path.is_file():
        return None
    return next((p.parent for p in (path, path.resolve()) if (p.parent / MANIFEST).is_file()), None)


def _named(place: str, run_dir: Path, words: str) -> tuple[list[Found], str]:
    folder = Path(place)
    if (own := artifact_of(folder)) is not None:
        artifact = read_artifact(own)
        _check_file(folder, own, artifact)
        return [Found(own, artifact)], words if own == folder else f"using {own}, which {folder.name} belongs to"
    if folder.is_file() and folder.name == RUN:
        folder, place = folder.parent, str(folder.parent)
    elif folder.is_file():
        raise not_an_artifact(folder, "a file")
    if folder.is_dir() and not (folder / RUN).is_file():
        if folders := artifact_folders(folder) or artifact_folders(folder / "artifacts"):
            return _valid(folders, words)
        raise OctcError("OCT-E107", f"no artifact in {place}", hint="octc export makes one", place=place)
    run = _run(place, run_dir)
    if folders := artifact_folders(run.artifacts):
        return _valid(folders, words if Path(place) == run.path else f"using {run.artifacts}")
    raise OctcError("OCT-E107", f"run {run.id} has no artifacts", hint=f"octc export {run.id}", place=str(run.path))


def not_an_artifact(path: Path, what: str) -> OctcError:
    """E107 for a file that was given where an artifact is wanted. what: for example "an ONNX file"."""
    text = f"{path} is {what}, and no artifact lies around it"
    why = "an artifact is a folder: the model with its classes, its preprocessing and its checksums (artifact.json)"
    hint = "octc export makes one: name its folder; octc list runs shows what there is"
    return OctcError("OCT-E107", text, hint=hint, place=str(path), why=why)


def _check_file(path: Path, folder: Path, artifact: Artifact) -> None:
    """A model file that was named must be the one that answers: a TensorRT artifact holds several."""
    main, file = artifact.main_file, path.resolve()  # a link may have any name
    if file.is_file() and file.suffix == Path(main).suffix and file.name != main:
        text = f"{path} is one of the files of {artifact.name}, which answers with {main}"
        raise OctcError("OCT-E107", text, hint=f"name the folder: {folder}", place=str(path))


def _run(place: str, run_dir: Path) -> Run:
    try:
        return find_run(run_dir, place)
    except OctcError as error:
        if error.code != "OCT-E107" or not place or error.place is not None:  # a run that is there, and cannot be read
            raise
        why = f"candidates: {_candidates(run_dir)}"
        raise OctcError("OCT-E107", f"no artifact and no run: {place}", hint="octc list runs", why=why) from error


def _valid(folders: Sequence[Path], words: str) -> tuple[list[Found], str]:
    founds, errors = _readable(folders)
    if not founds:
        raise combined(errors)
    passed = "; ".join(f"{error.message} [{error.code}]" for error in errors)
    return founds, f"{words}; passed over: {passed}" if errors else words


def _readable(folders: Iterable[Path]) -> tuple[list[Found], list[OctcError]]:
    founds, errors = [], []
    for folder in folders:
        try:
            founds.append(Found(folder, read_artifact(folder)))
        except OctcError as error:
            if of_machine(error) is not None:
                raise
            named = f"{folder.name}: {error.message}"
            errors.append(OctcError(error.code, named, hint=error.hint, place=error.place, why=error.why))
    return founds, errors


def _newest_copied(place: Path) -> tuple[list[Found], str] | None:
    """The newest run's artifacts among those that were copied to `place` (or into folders of it), student runs first."""
    folders = [*artifact_folders(place)]
    for inner in folders_in(place):
        folders += artifact_folders(inner) or artifact_folders(inner / "artifacts")
    if not folders:
        return None
    founds, words = _valid(folders, "")
    runs: dict[tuple[str, str], list[Found]] = {}
    for one in founds:  # one run, one checkpoint: another machine may have given the same id to another run
        lineage = one.artifact.lineage
        runs.setdefault((str(lineage.get("run")), str(lineage.get("checkpoint"))), []).append(one)
    ages = sorted((_age(name, group), name, checkpoint) for (name, checkpoint), group in runs.items())
    if len(ages) > 1 and ages[-1][0] == ages[-2][0]:
        text = f"two equally new runs under {place}: {ages[-2][1]} and {ages[-1][1]}"
        why = "only the number of a run says which one is newer, and clocks may go back"
        raise OctcError("OCT-E107", text, hint=f"name the folder, for example {founds[0].folder}", place=str(place), why=why)
    _, name, checkpoint = ages[-1]
    newest = runs[name, checkpoint]
    where = shorten(sorted({str(one.folder if len(newest) == 1 else one.folder.parent) for one in newest}))
    peers = [(run, group) for (run, _), group in runs.items() if _age(run, group)[0] == ages[-1][0][0]]
    later = sorted({run for run, group in peers if _exported(group) > _exported(newest)})
    clock = f"; {shorten(later)} has a later date" if later else ""
    return newest, f"using {where} (run {name}, newest valid under {place} by its number{clock}; choose with ARTIFACT){words}"


def _exported(group: Sequence[Found]) -> str:
    """The newest date of export that a group claims."""
    return max(str(one.artifact.lineage.get("exported") or "") for one in group)


def _age(name: str, group: Sequence[Found]) -> tuple[bool, int]:
    """Students before teachers, then by the number of the run; without a number it is older than all that have one."""
    number = ID.match(name)
    return any(one.artifact.role == "student" for one in group), int(number[1]) if number else -1


def _nothing(run_dir: Path) -> OctcError:
    why = f"looked at ${VARIABLE}, this folder, {run_dir} and ./{COPIED[0]}; runs: {_candidates(run_dir)}"
    return OctcError("OCT-E107", "no artifact here", hint="octc export, or name one: ARTIFACT", place=str(run_dir), why=why)


def _candidates(run_dir: Path) -> str:
    rows = []
    for run, value in read_runs(run_dir):
        count = len(artifact_folders(run.artifacts))
        rows.append(f"{run.id} ({value.get('status')}, {count} artifacts)")
    return shorten(rows, more="octc list runs") if rows else "none"
