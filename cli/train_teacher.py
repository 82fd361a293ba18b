"""Which teacher a student learns from: a run, a checkpoint file, the newest fitting run, or none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from octc.cli._app.session import Session
from octc.cli.train_request import Request
from octc.core.errors import OctcError, shorten

if TYPE_CHECKING:
    from octc.datasets.split import Split
    from octc.store.runs import Run


@dataclass(frozen=True)
class Teacher:
    """folder: of the checkpoint. run: the run that it lies in, or None for a file that was given."""

    folder: Path
    sha256: str
    run: Run | None

    @property
    def run_id(self) -> str | None:
        return None if self.run is None else self.run.id


def choose_teacher(session: Session, asked: Request, trained: Run | None, split: Split | None = None) -> Teacher | None:
    """The teacher of a student; said, with how to choose another. split: of the fold that is trained.

    Raises:
        OctcError: E107 none there, E308 a pickle, E307 / E501 not a checkpoint of octc.
    """
    if asked.teacher == "none":
        session.say("! teacher   none: the student learns from labels alone")
        return None
    if trained is not None:
        return _of_run(session, trained, "just trained")
    if asked.resume is not None and asked.teacher is None:
        return _of_resumed(session, asked, asked.resume)
    if asked.teacher is not None:
        place = Path(asked.teacher)
        if place.is_file() or (place / "checkpoint.json").is_file():
            return _of_file(session, place)
        from octc.store.runs import find_run

        return _of_run(session, find_run(session.run_dir, asked.teacher), "as asked")
    return _newest(session, asked, split)


def fitting(session: Session, asked: Request, split: Split | None) -> Run | None:
    """The newest successful teacher of the recipe, or of one with the same teacher, on the data set: of no fold, or of the
    very split of one."""
    from octc.store.runs import scan_runs
    from octc.train.recipes.registry import with_same_teacher

    names = with_same_teacher(asked.recipe.name)
    for run in scan_runs(session.run_dir, "teacher", asked.dataset):
        known = run.read()
        same = known.get("fold") is None and known.get("protocol", asked.protocol) == asked.protocol
        if split is not None:
            same = known.get("split_digest") == split.digest
        if same and known.get("status") == "done" and known.get("recipe", {}).get("name") in names:
            return run
    return None


def _newest(session: Session, asked: Request, split: Split | None) -> Teacher:
    from octc.store.runs import scan_runs

    run = fitting(session, asked, split)
    if run is not None:
        of = "" if split is None or split.fold is None else f", fold {split.fold[0]} of {split.fold[1]}"
        return _of_run(session, run, f"newest successful teacher of {asked.recipe.name} on {asked.dataset}{of}")
    runs = scan_runs(session.run_dir, "teacher", asked.dataset)
    found = [f"{r.id} ({v.get('recipe', {}).get('name')}, {v.get('status')})" for r in runs for v in (r.read(),)]
    hint = f"octc train teacher --dataset {asked.dataset} --recipe {asked.recipe.name}; or --with-teacher; or --teacher none"
    why = f"candidates: {shorten(found)}" if found else f"no teacher run lies in {session.run_dir}"
    text = f"no successful teacher of recipe {asked.recipe.name} on {asked.dataset}"
    raise OctcError("OCT-E107", text, hint=hint, why=why)


def _of_resumed(session: Session, asked: Request, resumed: Run) -> Teacher | None:
    """The teacher that an unfinished run began with."""
    from octc.store.runs import find_run

    stored = resumed.read()
    name, sha256 = stored.get("teacher_run"), stored.get("teacher_sha256")
    if sha256 is None:
        return None
    if name is None:
        text = "this run began with a teacher file"
        raise OctcError("OCT-E107", text, hint=f"name it again: --teacher FILE (sha256 {sha256[:12]})")
    teacher = _of_run(session, find_run(session.run_dir, name), "of the run that goes on")
    if teacher.sha256 != sha256 and not asked.allow_change:
        text = f"teacher {name} has changed since this run began"
        raise OctcError("OCT-E110", text, hint="--allow-change, or train anew", place=str(teacher.folder))
    return teacher


def _of_run(session: Session, run: Run, how: str) -> Teacher:
    from octc.train.loop.checkpoint import read_checkpoint

    folder = run.path / "train"
    checkpoint, _ = read_checkpoint(folder)
    session.say(f"✓ teacher   {run.id}, {checkpoint.model} ({how}; choose with --teacher)")
    return Teacher(folder, checkpoint.sha256, run)


def _of_file(session: Session, place: Path) -> Teacher:
    """A checkpoint folder, or the safetensors file in one. Anything else is looked at and refused, never executed."""
    from octc.train.loop.checkpoint import META, WEIGHTS, read_checkpoint, read_weights

    folder = place if place.is_dir() else place.parent
    if place.is_file():
        read_weights(place)
        if not (folder / META).is_file():
            text = f"{place.name} has no {META} beside it: which network it is cannot be told"
            raise OctcError("OCT-E307", text, hint="give a run, or a checkpoint folder of octc", place=str(place))
        if place.name != WEIGHTS:
            text = f"{META} beside {place.name} describes {WEIGHTS}, which is another file"
            raise OctcError("OCT-E307", text, hint=f"--teacher {folder}", place=str(place))
    checkpoint, _ = read_checkpoint(folder)
    session.say(f"✓ teacher   {folder}, {checkpoint.model} (as asked)")
    return Teacher(folder, checkpoint.sha256, None)


def check_taught(teacher: Teacher, split: Split) -> None:
    """Refuse a teacher that knows no more than the largest class (E702, with its answers on val where they are stored)."""
    from octc.core.files import read_json
    from octc.stats.proportions import wilson
    from octc.train.loop.checkpoint import META

    metrics = read_json(teacher.folder / META)["metrics"]
    n, accuracy = metrics.get("val_n"), metrics.get("val_accuracy")
    counts = split.counts()["val"]
    if not n or accuracy is None:
        return
    hits = round(n * accuracy)
    low, _ = wilson(hits, n) or (0.0, 1.0)
    name, largest = max(counts.items(), key=lambda row: row[1])
    if low > largest / sum(counts.values()):
        return
    text = f"the teacher is at chance: {hits} of {n} right on val, where {largest} are {name}"
    hint = "train it longer (octc train teacher --epochs N), name another (--teacher RUN), or --teacher none"
    raise OctcError("OCT-E702", text, hint=hint, place=str(teacher.folder), why=_answers(teacher, tuple(counts)))


def _answers(teacher: Teacher, classes: tuple[str, ...]) -> str | None:
    """How often it said each class on val, from the evaluation of its run."""
    from octc.core.files import read_json
    from octc.train.evaluation.outcome import FACTS, newest_evaluation

    path = newest_evaluation(teacher.folder.parent, "val") / FACTS
    if teacher.run is None or not path.is_file():
        return None
    matrix = read_json(path)["confusion"]
    said = [sum(row[k] for row in matrix) for k in range(len(classes))]
    return "it said " + ", ".join(f"{name} {count}" for name, count in zip(classes, said, strict=True))
