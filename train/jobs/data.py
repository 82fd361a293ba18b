"""The data of a training: scanned and checked, split by patient, and the same as before when a run goes on."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError, shorten
from octc.core.files import write_bytes, write_json
from octc.core.progress import counting
from octc.datasets.base import Samples, scan_json
from octc.datasets.calibration import calibration_counts, check_counts
from octc.datasets.image_facts import look_at_values
from octc.datasets.layouts.paired import only
from octc.datasets.patient_rules import by_rule, read_rule, rule_of, write_rule
from octc.datasets.reading import ask_whose, is_unanswered, read_data, refuse_contradictions, say_scan
from octc.datasets.released_splits import make_splits
from octc.datasets.split import CLEAN, RELEASED, Split, make_split, read_split
from octc.imaging.value_range import value_range_of
from octc.machine.host import read_machine, versions
from octc.store.runs import Run
from octc.train.jobs.job import Job
from octc.train.jobs.request import Request
from octc.train.jobs.resume import OF_DATA
from octc.train.jobs.teachers import Teacher
from octc.train.recipes.crossmodal import EyeRecipe

LOCK = "config.lock.toml"


def scan_and_check(job: Job, asked: Request, root: Path, *, keep: bool = True) -> Samples:
    """Scan, and refuse what may not be trained on: one image with two labels (E213). Unreadable images are refused when
    they are decoded, all of them at once, unless `--skip-bad` leaves them out."""
    with counting(job.reporter, "images" if asked.skip_bad else "checksums") as step:
        where, say, new = (asked.dataset, root), job.reporter.say, asked.resume is None
        samples = read_data(where, asked.options, job.run_dir, say, step, skip_bad=asked.skip_bad, whose=new)
    samples = _whose(job, asked, root, samples, keep=keep)
    job.document["scan"] = scan_json(samples)
    say_scan(samples, job.reporter, look_at_values(samples, value_range_of(asked.options.value_range)))
    refuse_contradictions(samples, asked.dataset, root, asked.options)
    if samples.skipped:
        named = shorten([path for path, _ in samples.skipped])
        text = f"--skip-bad: {len(samples.skipped)} images cannot be read and are left out: {named}"
        job.reporter.warn("OCT-W201", text)
        job.document["skipped"] = [{"path": path, "why": why} for path, why in samples.skipped]
    return samples


def _whose(job: Job, asked: Request, root: Path, samples: Samples, *, keep: bool) -> Samples:
    """Ask once whose the images are, where nobody said so; the answer is kept for these images (`keep`). A run that goes on
    has its split already.

    Raises:
        OctcError: E232 nobody can be asked, or nobody answered.
    """
    options = asked.options
    if asked.resume is not None:
        return samples
    stated = rule_of(options.patients, options.patient_pattern, options.patient_from)
    if stated is None and is_unanswered(asked.dataset, samples):
        stated = None if job.ask is None else job.ask(samples)
        if stated is None:
            raise ask_whose(root, job.run_dir, options)
        samples = by_rule(samples, stated, job.run_dir, job.reporter.say)
    if keep and stated is not None and read_rule(job.run_dir, samples.known_as) is None:
        write_rule(job.run_dir, samples.known_as, stated)
    return samples


def new_splits(asked: Request, samples: Samples) -> list[Split]:
    """The split that is asked for, or all folds of it (E102 where a protocol has folds and none were asked for)."""
    seed = 0 if asked.seed is None else asked.seed
    made = make_splits(samples, asked.dataset, asked.protocol, asked.folds, seed, asked.recipe.val, asked.leave_out)
    if not asked.has_folds and len(made) > 1:
        text = f"the {asked.protocol} split of {asked.dataset} has {len(made)} folds"
        raise OctcError("OCT-E102", text, hint=f"--folds {len(made)}", place="--protocol")
    return made


def check_calibration(asked: Request, *splits: Split) -> None:
    """Refuse, before anything is trained, a training part that gives too few calibration images for the tuning that is asked
    for (OctcError E214, with the images of each class)."""
    if asked.kind == "student" and asked.qat:
        for split in splits:
            check_counts(calibration_counts(split.parts["train"], split.classes, asked.recipe.quantisation.calibration))


def split_for(job: Job, asked: Request, samples: Samples, teacher: Teacher | None) -> Split:
    """A resumed run's split, else that of the teacher's run (both were made from these very images), else a new one.

    Raises:
        OctcError: E216 the images are not those that the split was made from, E102 the teacher's split is of another protocol.
    """
    resumed = asked.resume
    before = resumed or (None if teacher is None else teacher.run)
    if before is None:
        return new_splits(asked, samples)[0]
    stored = before.read()
    if stored.get("dataset") == asked.dataset and stored.get("data_digest") == samples.digest:
        if resumed is None:
            job.reporter.say(f"  the split is that of {before.id}")
        found = read_split(before.split)
        if asked.protocol not in (CLEAN, found.protocol):
            text = f"--protocol {asked.protocol}, and the teacher {before.id} was trained on a {found.protocol} split"
            raise OctcError("OCT-E102", text, hint=f"octc train teacher --protocol {asked.protocol} first")
        if resumed is None:
            _same_people(found, samples, before)
        return found
    split = read_split(before.split)
    changes = list(drift(split, samples))
    text = f"the images changed since {before.id} was split: {shorten(changes, 5) if changes else 'another data set'}"
    hint = "restore the images, or train the teacher again" if resumed is None else "restore the images, or train anew"
    raise OctcError("OCT-E216", text, hint=hint, place=str(samples.root))


def _same_people(split: Split, samples: Samples, teacher: Run) -> None:
    """Refuse patients other than those that the teacher's split was made with (OctcError E212)."""
    now = {s.path: s.patient for s in samples.items}
    other = [s.path for items in split.parts.values() for s in items if now.get(s.path, s.patient) != s.patient]
    if other:
        text = f"{len(other)} images have other patients than in the split of {teacher.id}: {shorten(other)}"
        rule = teacher.read().get("patients_by") or "no rule"
        hint = f"the rule of {teacher.id} ({rule}), or octc train teacher with this one"
        raise OctcError("OCT-E212", text, hint=hint, place=str(teacher.path))


def eye_split(asked: Request, samples: Samples) -> tuple[Split, str]:
    """The images of the modality in the split of the whole data set, and the digest of that whole split.

    Raises:
        OctcError: E216 a run goes on, and its split was another one.
    """
    recipe = asked.recipe
    assert isinstance(recipe, EyeRecipe)
    whole = make_split(samples, asked.dataset, asked.seed or 0, val=recipe.val)
    if recipe.select != "val":
        whole = replace(whole, protocol=RELEASED)
    split = only(whole, recipe.modality)
    if asked.resume is not None and asked.resume.read().get("split_digest") != split.digest:
        text = f"the images, or how they are split, changed since {asked.resume.id} began"
        raise OctcError("OCT-E216", text, hint="restore the images, or train anew", place=str(asked.resume.path))
    return split, whole.digest


def drift(split: Split, samples: Samples) -> Iterator[str]:
    """What was added, removed or changed since a split was made."""
    before = {s.path: s.sha256 for items in split.parts.values() for s in items}
    now = {s.path: s.sha256 for s in samples.items}
    yield from (f"removed {path}" for path in sorted(set(before) - set(now)))
    yield from (f"changed {path}" for path in sorted(set(before) & set(now)) if before[path] != now[path])
    yield from (f"added {path}" for path in sorted(set(now) - set(before)))


def write_lock(run: Run, asked: Request) -> None:
    """config.lock.toml: the values that repeat this run (`--config`), and env.json: what it was made with."""
    changes = {key: value for key, value in asked.changes.items() if key not in OF_DATA}
    values: dict[str, Any] = {"recipe": asked.recipe.name, "seed": asked.seed, **changes}
    read = {key: value for key in OF_DATA if (value := getattr(asked.options, key)) is not None}
    modality = f" --modality {asked.modality}" if asked.modality else ""
    lines = [f"# {asked.command} --dataset {asked.dataset}{modality} --config {LOCK}", "[train]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    lines += ["[data]", *(f"{key} = {json.dumps(value)}" for key, value in read.items())] if read else []
    write_bytes(run.path / LOCK, ("\n".join(lines) + "\n").encode())
    write_environment(run)


def write_environment(run: Run) -> None:
    """env.json: what a run was made with."""
    facts = {"python": platform.python_version(), "versions": versions(), "machine": read_machine().to_json()}
    write_json(run.path / "env.json", facts)
