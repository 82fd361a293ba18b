"""`octc runs prune`: lists unfinished runs and leftovers of exports, and deletes them with --yes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.errors import OctcError
from octc.core.files import TEMPORARY, entries, read_json
from octc.store.find import COPIED
from octc.store.runs import LOCK, RUN, Run, artifact_folders, owning, read_runs, unread_runs

LINKS = ("run", "teacher_run")  # fields of an artifact's lineage that name runs
LEFT = ("rejected",)
GONE = f"{TEMPORARY}gone-"


def prune(
    session: Session,
    yes: Annotated[bool, typer.Option("--yes", help="Delete what is listed (without it nothing is deleted)")] = False,
) -> int:
    """List (with --yes: delete) unfinished runs that nothing refers to, and leftovers of interrupted or rejected exports.

    These runs stay: finished ones, those in use, those with an artifact, teachers of other runs, and those that an artifact in
    the run folder or under ./artifacts was made from.
    """
    for _, error in unread_runs(session.run_dir):  # an unreadable run may refer to any other run
        raise error
    runs = read_runs(session.run_dir)
    needed = _needed(runs)
    found: list[dict[str, Any]] = []
    for run, value in runs:
        if value.get("status") != "done" and run.id not in needed and not _in_use(run):
            found.append({"path": str(run.path), "what": f"run, {value.get('status')}", "bytes": _size(run.path)})
        elif not _in_use(run):
            found += [{"path": str(path), "what": "left by an export", "bytes": _size(path)} for path in _leftovers(run)]
    for path in [one for one in entries(session.run_dir) if one.name.startswith(GONE)]:  # left by an interrupted prune
        found.append({"path": str(path), "what": "left by octc runs prune", "bytes": _size(path)})
    for row in found if yes else ():
        _delete(Path(row["path"]))
    total = sum(row["bytes"] for row in found)
    session.report({"deleted": yes, "bytes": total, "found": found})
    session.result(Rows(("path", "what", "MiB"), [(r["path"], r["what"], f"{r['bytes'] / (1 << 20):.1f}") for r in found]))
    if not found:
        session.say("nothing to delete")
    elif yes:
        session.say(f"deleted {total / (1 << 20):.1f} MiB")
    else:
        session.say(f"{total / (1 << 20):.1f} MiB could go: octc runs prune --yes")
    return 0


def _needed(runs: list[tuple[Run, dict[str, Any]]]) -> set[str]:
    """Ids of runs that another run or an artifact refers to, or that contain an artifact."""
    named = {name for _, value in runs for name in _named(value)}
    places = [run.artifacts for run, _ in runs] + [one for place in COPIED for one in (place, *entries(place)) if one.is_dir()]
    for place in places:
        for folder in artifact_folders(place):
            try:
                lineage = read_json(folder / "artifact.json").get("lineage") or {}
            except (OSError, ValueError, AttributeError):
                lineage = {}  # damaged manifest: its lineage is unknown, but the run that contains it stays
            named |= {str(lineage.get(key)) for key in LINKS}
    return named | {run.id for run, _ in runs if artifact_folders(run.artifacts)}


def _named(stored: dict[str, Any]) -> Iterator[str]:
    """Runs that a run depends on (teachers, sources); it cannot resume without them."""
    yield str(stored.get("teacher_run"))
    yield from (Path(str(folder)).parent.name for folder in stored.get("more_teachers") or ())
    if isinstance(made := stored.get("simplify"), dict):
        yield str(made.get("source"))


def _in_use(run: Run) -> bool:
    """Whether a live process holds the run's lock."""
    if not (run.path / LOCK).exists():
        return False
    try:
        with owning(run, tidy=False):
            return False
    except OctcError:
        return True


def _leftovers(run: Run) -> list[Path]:
    inside = [path for place in (run.path, run.artifacts) for path in entries(place)]
    hidden = [path for path in inside if path.name.startswith(TEMPORARY) and path.is_dir()]
    return sorted(hidden + [run.path / name for name in LEFT if (run.path / name).is_dir()])


def _size(path: Path) -> int:
    """Bytes of all files in a folder; somebody else may take them away meanwhile."""
    size = 0
    for place, folders, files in os.walk(path):
        for one in (Path(place) / name for name in (*folders, *files)):
            with suppress(FileNotFoundError):
                size += one.lstat().st_size if one.is_symlink() or not one.is_dir() else 0
    return size


def _delete(path: Path) -> None:
    """Delete a run. It is renamed first, under its lock: a half-deleted run is never listed, a resumed one never deleted."""
    gone = path if path.name.startswith(GONE) else path.with_name(f"{GONE}{path.name}")
    try:
        with owning(Run(path), tidy=False) if (path / RUN).is_file() else nullcontext():
            path.rename(gone)
        shutil.rmtree(gone)
    except OSError as error:
        text = f"{path} cannot be deleted: {error.strerror}"
        raise OctcError("OCT-E109", text, hint="check who owns it", place=str(path)) from error
