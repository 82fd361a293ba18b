"""The data of a training: scanned and checked, split by patient, and the same as before when a run goes on."""

from __future__ import annotations

import json
import platform
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError, shorten
from octc.core.files import write_bytes, write_json
from octc.core.progress import counting
from octc.datasets.base import Sample, Samples, scan_json, words_of_scan
from octc.datasets.layouts.paired import only
from octc.datasets.patient_rules import by_saved_rule
from octc.datasets.registry import scan_dataset
from octc.datasets.released_splits import make_splits
from octc.datasets.split import CLEAN, RELEASED, Split, make_split, read_split
from octc.machine.host import read_machine, versions
from octc.store.runs import Run
from octc.train.jobs.job import Job
from octc.train.jobs.request import Request
from octc.train.jobs.teachers import Teacher
from octc.train.recipes.crossmodal import EyeRecipe

LOCK = "config.lock.toml"


def scan_and_check(job: Job, asked: Request, root: Path) -> Samples:
    """Scan, and refuse what may not be trained on: one image with two labels (E213). Unreadable images are refused when
    they are decoded, all of them at once, unless `--skip-bad` leaves them out."""
    with counting(job.reporter, "images" if asked.skip_bad else "checksums") as step:
        samples = scan_dataset(asked.dataset, root, progress=step, skip_bad=asked.skip_bad)
    samples = by_saved_rule(samples, job.run_dir, job.reporter.say)
    job.document["scan"] = scan_json(samples)
    for line in words_of_scan(samples.items, samples.parts, samples.unread):
        job.reporter.say(line)
    for note in samples.notes:
        job.reporter.warn(note.code, note.message, note.place)
    by_sum: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples.items:
        if sample.sha256:
            by_sum[sample.sha256].append(sample)
    torn = [same for same in by_sum.values() if len({(s.label, s.targets) for s in same}) > 1]
    if torn:
        place = shorten([" = ".join(s.path for s in same) for same in torn])
        text = f"{len(torn)} images lie under two classes" if asked.task.exclusive else f"{len(torn)} images have two labels"
        hint = f"keep each under its true class   (octc data check {asked.dataset} lists all)"
        raise OctcError("OCT-E213", text, hint=hint, place=place)
    if samples.skipped:
        named = shorten([path for path, _ in samples.skipped])
        text = f"--skip-bad: {len(samples.skipped)} images cannot be read and are left out: {named}"
        job.reporter.warn("OCT-W201", text)
        job.document["skipped"] = [{"path": path, "why": why} for path, why in samples.skipped]
    return samples


def new_splits(asked: Request, samples: Samples) -> list[Split]:
    """The split that is asked for, or all folds of it (E102 where a protocol has folds and none were asked for)."""
    seed = 0 if asked.seed is None else asked.seed
    made = make_splits(samples, asked.dataset, asked.protocol, asked.folds, seed, asked.recipe.val)
    if asked.folds is None and len(made) > 1:
        text = f"the {asked.protocol} split of {asked.dataset} has {len(made)} folds"
        raise OctcError("OCT-E102", text, hint=f"--folds {len(made)}", place="--protocol")
    return made


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
        return found
    split = read_split(before.split)
    changes = list(drift(split, samples))
    text = f"the images changed since {before.id} was split: {shorten(changes, 5) if changes else 'another data set'}"
    hint = "restore the images, or train the teacher again" if resumed is None else "restore the images, or train anew"
    raise OctcError("OCT-E216", text, hint=hint, place=str(samples.root))


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
    values: dict[str, Any] = {"recipe": asked.recipe.name, "seed": asked.seed, **asked.changes}
    modality = f" --modality {asked.modality}" if asked.modality else ""
    lines = [f"# {asked.command} --dataset {asked.dataset}{modality} --config {LOCK}", "[train]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    write_bytes(run.path / LOCK, ("\n".join(lines) + "\n").encode())
    facts = {"python": platform.python_version(), "versions": versions(), "machine": read_machine().to_json()}
    write_json(run.path / "env.json", facts)
