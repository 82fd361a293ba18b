"""A teacher that another program trained: its file becomes a checkpoint folder of octc beside the runs, judged on val.

What such a file does not say is stated: the network (by `--teacher-model`, by the file or a config.json beside it, else it is
the recipe's teacher), the preprocessing (that of the config.json, else the recipe's), the order of the classes (the data
set's). What it was trained on is not known; that is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.errors import OctcError
from octc.core.files import read_json
from octc.core.scratch import scratch
from octc.datasets.pictures import read_picture
from octc.datasets.split import Split
from octc.train.distill.loading import load_teacher
from octc.train.jobs.hub_teacher import Card, beside
from octc.train.jobs.job import Job
from octc.train.jobs.request import Request
from octc.train.loop.checkpoint import META, Checkpoint, read_checkpoint, write_checkpoint
from octc.train.loop.evaluate import logits_of
from octc.train.networks.checkpoint_files import read_checkpoint_file
from octc.train.networks.fitting import fitted_state
from octc.train.networks.weight_matching import words
from octc.train.stages import preprocess_of

HOME = ".teachers"  # beside the runs
UNKNOWN = ""  # digest of the split that nobody knows
MOST = 256  # validation images that a foreign teacher is asked about
CLEAR = 0.5  # share of right answers from which on another order of the classes is told


def adopt(job: Job, asked: Request, file: Path, classes: tuple[str, ...], card: Card | None = None) -> tuple[Path, str]:
    """Write a foreign checkpoint as a folder of octc; the folder, and the SHA-256 of its weights.

    card: what is stated of it (`octc.train.jobs.hub_teacher`): network, classes, normalisation, licence.

    Raises:
        OctcError: E307 the tensors are not those of the network that it is said to be, or of another number of classes; E309
            the file names its classes in another order; E308, E504 a file that is not read.
    """
    stage: Any = asked.recipe.teacher
    taken = read_checkpoint_file(file)
    named = getattr(asked.options, "teacher_model", None)
    card = card or beside(file) or Card(f"file {file.name}")
    told = taken.architecture or card.architecture
    model = str(named or told or stage.model)
    by = "--teacher-model" if named else card.source if told else f"recipe {asked.recipe.name}"
    stated = taken.classes or card.classes
    if stated is not None and stated != classes:
        text = f"class order differs: teacher {', '.join(stated)}; data {', '.join(classes)}"
        raise OctcError("OCT-E309", text, hint="a teacher of this data set's classes, in their order", place=str(file))
    more = dict(stage.model_kwargs) if model == stage.model else {}
    state, fit = fitted_state(taken, model, str(file), len(classes), **more)
    licence = card.licence or "unknown: see where the file came from"
    source = {"source": card.source, "sha256": taken.sha256, "licence": licence}
    made = Checkpoint(
        role="teacher", model=model, model_kwargs=more, classes=classes, preprocess=card.prepared(preprocess_of(stage)),
        recipe=asdict(asked.recipe), dataset=asked.dataset, split_digest=UNKNOWN, data_digest=UNKNOWN,
        weights={**source, **taken.to_json(), "trained_on": "unknown", **({"fit": fit} if fit else {})},
    )  # fmt: skip
    folder = _home(job) / f"{taken.sha256[:16]}-{model}"
    written = write_checkpoint(folder, state, made)
    say = job.reporter.say
    say(f"✓ teacher   {file.name}: {model} (named by {by}), {len(state)} tensors, sha256 {taken.sha256[:8]}")
    for line in words(fit):
        say(f"            {line}")
    if stated is None:
        say(f"! teacher   the file names no classes: taken in the order of the data set, {', '.join(classes)}")
    say("! teacher   what it was trained on is not known: it may have seen images that this student is judged on")
    return folder, written.sha256


def _home(job: Job) -> Path:
    """Where such folders lie; of a dry run in a folder that goes away."""
    if not job.dry_run:
        return job.run_dir / HOME
    if job.scratch is None:
        job.scratch = job.leaving.enter_context(scratch("teacher"))
    return job.scratch


def is_foreign(folder: Path) -> bool:
    """Whether a teacher's folder was made by `adopt`."""
    return bool(read_json(folder / META).get("split_digest") == UNKNOWN)


def judge(job: Job, folder: Path, split: Split, root: Path, device: Any) -> None:
    """Ask a foreign teacher about validation images, and keep how many it knew in its checkpoint.json.

    Raises:
        OctcError: E309 its answers are right in another order of the classes.
    """
    samples = _chosen(split)
    known, state = read_checkpoint(folder)
    net, _ = load_teacher(folder, split, known.preprocess, device)
    with job.reporter.progress("teacher on val", len(samples)) as step:
        images = []
        for sample in samples:
            picture = read_picture(root, sample, known.preprocess.value_range)
            images.append(known.preprocess.prepare(picture.image)[0])
            step(1)
    found = logits_of(net, np.stack(images), known.preprocess, device, batch=8).argmax(1).tolist()
    labels = [sample.label for sample in samples]
    right = sum(one == other for one, other in zip(found, labels, strict=True))
    job.reporter.say(f"            {right} of {len(labels)} validation images right ({100 * right / len(labels):.1f} %)")
    _check_order(labels, found, split.classes, str(folder))
    metrics = {"val_n": len(labels), "val_accuracy": right / len(labels), "sampled": len(labels) < len(split.parts["val"])}
    write_checkpoint(folder, state, replace(known, metrics=metrics))


def _chosen(split: Split) -> list[Any]:
    """Validation images, equal shares a class as far as they reach; the same ones every time."""
    rng = np.random.default_rng(0)
    rows: dict[int, list[Any]] = {}
    for sample in split.parts["val"]:
        rows.setdefault(sample.label, []).append(sample)
    mixed = [[own[i] for i in rng.permutation(len(own))] for own in rows.values()]
    longest = max(map(len, mixed), default=0)
    return [own[k] for k in range(longest) for own in mixed if k < len(own)][:MOST]


def _check_order(labels: Sequence[int], found: Sequence[int], classes: tuple[str, ...], place: str) -> None:
    """Refuse a teacher whose answers are right once its classes are renamed (E309, with both orders)."""
    table = np.zeros((len(classes), len(classes)), int)
    np.add.at(table, (list(labels), list(found)), 1)
    usual = [int(row.argmax()) for row in table]
    renamed = int(table[np.arange(len(classes)), usual].sum())
    other_order = sorted(usual) == list(range(len(classes))) and usual != list(range(len(classes)))
    if other_order and renamed >= CLEAR * len(labels) and renamed > np.trace(table):
        theirs = [classes[usual.index(k)] for k in range(len(classes))]
        text = f"class order differs: by its answers the teacher's is {', '.join(theirs)}; data {', '.join(classes)}"
        why = f"{renamed} of {len(labels)} right in its own order, {int(np.trace(table))} in that of the data"
        raise OctcError(
            "OCT-E309", text, hint="reorder the rows of its classifier, or name another teacher", place=place, why=why
        )


def remembered(run_dir: Path, sha256: str) -> Path | None:
    """The folder of a foreign teacher whose weights have this SHA-256."""
    for folder in sorted((run_dir / HOME).glob("*/")):
        try:
            if read_json(folder / META).get("sha256") == sha256:
                return folder
        except (OSError, ValueError):
            continue
    return None
