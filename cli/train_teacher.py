"""Which teacher a student learns from: a run, a checkpoint file, the newest fitting run, or none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from octc.cli.session import Session
from octc.cli.train_request import Request
from octc.errors import OctcError, shorten

if TYPE_CHECKING:
    from octc.run import Run


@dataclass(frozen=True)
class Teacher:
    """folder: of the checkpoint. run: the run that it lies in, or None for a file that was given."""

    folder: Path
    sha256: str
    run: Run | None

    @property
    def run_id(self) -> str | None:
        return None if self.run is None else self.run.id


def choose_teacher(session: Session, asked: Request, trained: Run | None) -> Teacher | None:
    """The teacher of a student; said, with how to choose another.

    Raises:
        OctcError: E107 none there, E308 a pickle, E307 / E501 not a checkpoint of octc.
    """
    if asked.teacher == "none":
        session.say("! teacher   none: the student learns from labels alone")
        return None
    if trained is not None:
        return _of_run(session, trained, "just trained")
    if asked.resume is not None and asked.teacher is None:
        return _of_resumed(session, asked)
    if asked.teacher is not None:
        place = Path(asked.teacher)
        if place.is_file() or (place / "checkpoint.json").is_file():
            return _of_file(session, place)
        from octc.run import find_run

        return _of_run(session, find_run(session.run_dir, asked.teacher), "as asked")
    return _newest(session, asked)


def _newest(session: Session, asked: Request) -> Teacher:
    from octc.run import scan_runs

    runs = scan_runs(session.run_dir, "teacher", asked.dataset)
    for run in runs:
        known = run.read()
        if known.get("status") == "done" and known.get("recipe", {}).get("name") == asked.recipe.name:
            return _of_run(session, run, f"newest successful teacher of {asked.recipe.name} on {asked.dataset}")
    found = [f"{r.id} ({v.get('recipe', {}).get('name')}, {v.get('status')})" for r in runs for v in (r.read(),)]
    mend = f"octc train teacher --dataset {asked.dataset} --recipe {asked.recipe.name}; or --with-teacher; or --teacher none"
    why = f"candidates: {shorten(found)}" if found else f"no teacher run lies in {session.run_dir}"
    text = f"no successful teacher of recipe {asked.recipe.name} on {asked.dataset}"
    raise OctcError("OCT-E107", text, mend=mend, why=why)


def _of_resumed(session: Session, asked: Request) -> Teacher | None:
    """The teacher that an unfinished run began with."""
    from octc.cli.train_request import find_unfinished
    from octc.run import find_run

    stored = find_unfinished(session, "student", str(asked.resume)).read()
    name, sha256 = stored.get("teacher_run"), stored.get("teacher_sha256")
    if sha256 is None:
        return None
    if name is None:
        text = "this run began with a teacher file"
        raise OctcError("OCT-E107", text, mend=f"name it again: --teacher FILE (sha256 {sha256[:12]})")
    teacher = _of_run(session, find_run(session.run_dir, name), "of the run that goes on")
    if teacher.sha256 != sha256 and not asked.allow_change:
        text = f"teacher {name} has changed since this run began"
        raise OctcError("OCT-E110", text, mend="--allow-change, or train anew", place=str(teacher.folder))
    return teacher


def _of_run(session: Session, run: Run, how: str) -> Teacher:
    from octc.train.checkpoint import read_checkpoint

    folder = run.path / "train"
    checkpoint, _ = read_checkpoint(folder)
    session.say(f"✓ teacher   {run.id}, {checkpoint.model} ({how}; choose with --teacher)")
    return Teacher(folder, checkpoint.sha256, run)


def _of_file(session: Session, place: Path) -> Teacher:
    """A checkpoint folder, or the safetensors file in one. Anything else is looked at and refused, never executed."""
    from octc.train.checkpoint import META, read_checkpoint, read_weights

    folder = place if place.is_dir() else place.parent
    if place.is_file():
        read_weights(place)
        if not (folder / META).is_file():
            text = f"{place.name} has no {META} beside it: which network it is cannot be told"
            raise OctcError("OCT-E307", text, mend="give a run, or a checkpoint folder of octc", place=str(place))
    checkpoint, _ = read_checkpoint(folder)
    session.say(f"✓ teacher   {folder}, {checkpoint.model} (as asked)")
    return Teacher(folder, checkpoint.sha256, None)
