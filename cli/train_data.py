"""The data of a training: scanned and checked, split by patient, and the same as before when a run goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.session import Session
from octc.cli.train_request import Request
from octc.cli.train_resume import REQUEST
from octc.core.errors import OctcError, shorten

if TYPE_CHECKING:
    from octc.cli.train_teacher import Teacher
    from octc.datasets.base import Samples
    from octc.datasets.split import Split
    from octc.store.runs import Run

LOCK = "config.lock.toml"


def scan_and_check(session: Session, asked: Request, root: Path) -> Samples:
    """Scan, and refuse what may not be trained on: one image under two classes (E213). Unreadable images are refused when
    they are decoded, all of them at once, unless `--skip-bad` leaves them out."""
    from octc.cli.data import stated_patients, tell_scan, ticking
    from octc.datasets.registry import scan_dataset, spec_of

    if len(spec_of(asked.dataset).modalities) > 1:
        text = f"{asked.dataset} holds OCT and fundus images"
        raise OctcError("OCT-E104", text, hint="octc train retnet-teacher, then octc train retnet-student", place="--dataset")
    with ticking(session, "images" if asked.skip_bad else "sums") as step:
        samples = scan_dataset(asked.dataset, root, progress=step, skip_bad=asked.skip_bad)
    samples = stated_patients(session, samples)
    tell_scan(session, samples)
    by_sum: dict[str, list[Any]] = defaultdict(list)
    for sample in samples.items:
        if sample.sha256:
            by_sum[sample.sha256].append(sample)
    torn = [same for same in by_sum.values() if len({s.label for s in same}) > 1]
    if torn:
        place = shorten([" = ".join(s.path for s in same) for same in torn])
        text = f"{len(torn)} images lie under two classes"
        hint = f"keep each under its true class   (octc data check {asked.dataset} lists all)"
        raise OctcError("OCT-E213", text, hint=hint, place=place)
    if samples.skipped:
        named = shorten([path for path, _ in samples.skipped])
        session.warn("OCT-W201", f"--skip-bad: {len(samples.skipped)} images cannot be read and are left out: {named}")
        session.document["skipped"] = [{"path": path, "why": why} for path, why in samples.skipped]
    return samples


def new_splits(asked: Request, samples: Samples) -> list[Split]:
    """The split that is asked for, or all folds of it (E102 where a protocol has folds and none were asked for)."""
    from octc.datasets.released_splits import make_splits

    made = make_splits(samples, asked.dataset, asked.protocol, asked.folds, asked.seed, asked.recipe.val)
    if asked.folds is None and len(made) > 1:
        text = f"the {asked.protocol} split of {asked.dataset} has {len(made)} folds"
        raise OctcError("OCT-E102", text, hint=f"--folds {len(made)}", place="--protocol")
    return made


def split_for(session: Session, asked: Request, samples: Samples, teacher: Teacher | None) -> Split:
    """A resumed run's split, else that of the teacher's run (both were made from these very images), else a new one.

    Raises:
        OctcError: E216 the images are not those that the split was made from, E102 the teacher's split is of another protocol.
    """
    from octc.datasets.split import CLEAN, read_split

    resumed = asked.resume
    before = resumed or (None if teacher is None else teacher.run)
    if before is None:
        return new_splits(asked, samples)[0]
    stored = before.read()
    if stored.get("dataset") == asked.dataset and stored.get("data_digest") == samples.digest:
        if resumed is None:
            session.say(f"  the split is that of {before.id}")
        found = read_split(before.split)
        if asked.protocol not in (CLEAN, found.protocol):
            text = f"--protocol {asked.protocol}, and the teacher {before.id} was trained on a {found.protocol} split"
            raise OctcError("OCT-E102", text, hint=f"octc train teacher --protocol {asked.protocol} first")
        return found
    split = read_split(before.split)
    changes = list(drift(split, samples))
    text = f"the images changed since {before.id} was split: {shorten(changes, 5) if changes else 'another data set'}"
    hint = "restore the images, or train the teacher again" if resumed is None else "restore the images, or train anew"
    raise OctcError("OCT-E216", text, hint=hint, place=str(samples.root))


def drift(split: Split, samples: Samples) -> Iterator[str]:
    """What was added, removed or changed since a split was made."""
    before = {s.path: s.sha256 for items in split.parts.values() for s in items}
    now = {s.path: s.sha256 for s in samples.items}
    yield from (f"removed {path}" for path in sorted(set(before) - set(now)))
    yield from (f"changed {path}" for path in sorted(set(before) & set(now)) if before[path] != now[path])
    yield from (f"added {path}" for path in sorted(set(now) - set(before)))


def check_resumed(
    session: Session, asked: Request, run: Run, samples: Samples, teacher: Teacher | None, more: Sequence[Path], dry_run: bool
) -> Request:
    """A run goes on as it began (E110 with every difference), or with `--allow-change` as it is now, which is recorded.

    Returns the request, which says whether a first stage that is done goes on with what was changed.
    """
    from octc.train.recipes.config import recipe_from_json

    stored = run.read()
    before = _plain(asdict(recipe_from_json(stored["recipe"])))  # with the fields that recipes were given since
    changes = [*differences("recipe", before, _plain(asdict(asked.recipe)))]
    if stored.get("seed") != asked.seed:
        changes.append(f"seed {stored.get('seed')} -> {asked.seed}")
    if stored.get("dataset") != asked.dataset:
        changes.append(f"dataset {stored.get('dataset')} -> {asked.dataset}")
    if asked.kind == "student":
        changes += _other_teachers(stored, teacher, more)
    retrain = bool(changes) or any(not text.startswith(("--qat", "--no-qat")) for text in asked.changed)
    changes += asked.changed
    if not changes:
        if stored.get(REQUEST) != asked.request and not dry_run:
            run.update(**{REQUEST: asked.request})
        return replace(asked, retrain=asked.allow_change)
    if not asked.allow_change:
        text = f"{run.id} began with other values: {shorten(changes)}"
        raise OctcError("OCT-E110", text, hint="leave these options out, or --allow-change", place=str(run.path))
    session.warn("OCT-W306", f"--allow-change: {shorten(changes)}", str(run.path))
    if dry_run:
        return asked
    facts: dict[str, Any] = {"recipe": asdict(asked.recipe), "seed": asked.seed, REQUEST: asked.request}
    if asked.kind == "student":
        facts |= {"teacher_run": teacher and teacher.run_id, "teacher_sha256": teacher and teacher.sha256}
        facts["more_teachers"] = [str(folder.resolve()) for folder in more]
    run.update(**facts)
    run.log_stage("changed", changes=changes)
    return replace(asked, retrain=retrain)


def _other_teachers(stored: dict[str, Any], teacher: Teacher | None, more: Sequence[Path]) -> Iterator[str]:
    """Teachers that are not those that the run began with; the same weights at another place are the same."""
    before = stored.get("teacher_sha256")
    now = None if teacher is None else teacher.sha256
    if before != now:
        was = "none" if before is None else stored.get("teacher_run") or f"sha256 {before[:12]}"
        yield f"--teacher {was} -> {'none' if teacher is None else teacher.run_id or teacher.folder}"
    one, other = list(stored.get("more_teachers", ())), [str(folder.resolve()) for folder in more]
    if one != other:
        yield f"--teacher ...,{','.join(one) or 'no more'} -> ...,{','.join(other) or 'no more'}"


def _plain(value: Any) -> Any:
    """As JSON would give it back."""
    import json

    from octc.core.files import parse_json

    return parse_json(json.dumps(value))


def differences(path: str, one: Any, other: Any) -> Iterator[str]:
    """Each value of two trees of JSON that is not the same."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(set(one) | set(other)):
            yield from differences(f"{path}.{key}", one.get(key), other.get(key))
    elif one != other:
        yield f"{path} {one} -> {other}"


def write_lock(run: Run, asked: Request) -> None:
    """config.lock.toml: the values that repeat this run (`--config`), and env.json: what it was made with."""
    import json
    import platform

    from octc.core.files import write_bytes, write_json
    from octc.machine.host import read_machine, versions

    values: dict[str, Any] = {"recipe": asked.recipe.name, "seed": asked.seed, **asked.changes}
    lines = [f"# octc train {asked.kind} --dataset {asked.dataset} --config {LOCK}", "[train]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    write_bytes(run.path / LOCK, ("\n".join(lines) + "\n").encode())
    facts = {"python": platform.python_version(), "versions": versions(), "machine": read_machine().to_json()}
    write_json(run.path / "env.json", facts)
