"""What a training was asked for is stored in its run.json, and counts when the run goes on: another request is refused.

`recipe`, `seed`, `dataset` and the teacher are fields of run.json by themselves; here is the rest of the request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.core.data_options import DataOptions
from octc.core.errors import OctcError, shorten
from octc.core.files import sha256_file
from octc.core.options import keys_of
from octc.schemas.training import TrainOptions
from octc.store.runs import Run
from octc.train.jobs.job import DEFAULT, Job
from octc.train.networks.lent import TEACHER
from octc.train.networks.weights import RANDOM

REQUEST = "request"
OF_DATA = tuple(keys_of(DataOptions))  # how the data set is read: the split hangs on all of them
HELD = ("batch", "mutual", "precision", "qat", "skip_bad", "use", "weights", *OF_DATA)  # in `request`, beside `settings`
FIXED = ("dataset", "modality", "protocol")  # fields of run.json that the split hangs on: never another one
WORDS = (RANDOM, TEACHER)  # start weights that are no file
NOTHING = {"batch": "auto"}  # what an option is where it was not given; the others: None


def held(options: TrainOptions) -> Iterator[str]:
    """The options that are kept; one of recipes of two modalities alone is kept where it is used."""
    return (key for key in HELD if hasattr(options, key) and (key != "mutual" or options.modality is not None))


def request_of(job: Job, options: TrainOptions) -> dict[str, Any]:
    """The request as run.json keeps it: the held options, and the configuration that stood behind what was not asked for."""
    kept = {key: getattr(options, key) for key in held(options)}
    kept["weights"] = _weights(options.weights)
    if isinstance(kept["batch"], str) and kept["batch"].isdigit():
        kept["batch"] = int(kept["batch"])
    return {**kept, "settings": {key: value for key, (value, _) in job.settings.items()}}


def _weights(file: Path | None) -> dict[str, Any] | None:
    """Start weights by their content; "none" has none, that of "teacher" is kept as the teacher is."""
    if file is None or str(file) in WORDS:
        return None if file is None else {"file": str(file), "sha256": None}
    inner = file / "model.safetensors" if file.is_dir() else file
    return {"file": str(file.resolve()), "sha256": sha256_file(inner) if inner.is_file() else None}


def settle(job: Job, run: Run, stored: Mapping[str, Any], options: TrainOptions) -> tuple[TrainOptions, list[str]]:
    """The options of a run that goes on: as it was asked for, with every explicit option that differs.

    A value of the configuration that stood there when the run began is no new request: the run's own values count.

    Returns:
        The options, and what differs (none without --allow-change).

    Raises:
        OctcError: E110 with every difference.
    """
    kept: dict[str, Any] = dict(stored.get(REQUEST) or {key: stored[key] for key in HELD if key in stored})
    options = _without_old_settings(job, kept.get("settings", {}), options)
    _check_fixed(job, run, stored, options)
    if stored.get("modality") is not None:
        options = replace(options, modality=stored["modality"])
    changes: list[str] = []
    unknown: list[str] = []
    asked = request_of(job, options)
    for key in held(options):
        explicit = job.is_explicit(key)
        if key not in kept:
            unknown += [key] if explicit or key not in OF_DATA else []
        elif key == "weights":
            options, changed = _settle_weights(options, kept[key], asked[key], explicit)
            changes += changed
        elif not explicit:
            options = _with(options, key, NOTHING.get(key) if kept[key] is None else kept[key])
        elif key == "batch":  # a number is compared as the recipe that it makes
            changes += [f"--batch {kept[key]} -> auto"] if asked[key] == "auto" != kept[key] else []
        elif asked[key] != kept[key]:
            changes.append(_spelt(key, kept[key], asked[key]))
    if unknown:
        words = ", ".join(f"--{key.replace('_', '-')}" for key in unknown)
        job.reporter.say(f"! {run.id} was begun by an octc that stored less of the request: {words} as in this command")
    if changes and not options.allow_change:
        text = f"{run.id} began with other values: {shorten(changes)}"
        hint = f"octc train {stored.get('kind')} --resume {run.id}   (goes on as it began), or --allow-change"
        raise OctcError("OCT-E110", text, hint=hint, place=str(run.path))
    return options, changes


def _check_fixed(job: Job, run: Run, stored: Mapping[str, Any], options: TrainOptions) -> None:
    """Refuse another data set, protocol or modality, or another reading of the data: the split hangs on them (E110)."""
    fixed = [
        f"--{key} {stored[key]} -> {getattr(options, key)}"
        for key in FIXED
        if key in stored and job.is_explicit(key) and getattr(options, key) != stored[key]
    ]
    kept = stored.get(REQUEST) or {}
    fixed += [
        _spelt(key, kept[key], getattr(options, key))
        for key in OF_DATA
        if key in kept and job.is_explicit(key) and getattr(options, key) != kept[key]
    ]
    if fixed:
        text = f"{run.id} began with other values: {shorten(fixed)}"
        raise OctcError("OCT-E110", text, hint="leave these options out, or train anew without --resume", place=str(run.path))


def _without_old_settings(job: Job, settings: Mapping[str, Any], options: TrainOptions) -> TrainOptions:
    """The options without those values of the configuration that stood there when the run began."""
    for key, value in settings.items():
        if job.origins.get(key, "") != "flag" and job.settings.get(key, (None,))[0] == value:
            job.origins[key] = DEFAULT
            if hasattr(options, key):
                options = _with(options, key, NOTHING.get(key))
    return options


def _with(options: TrainOptions, key: str, value: Any) -> TrainOptions:
    fields: dict[str, Any] = {key: value}
    return replace(options, **fields)


def _settle_weights(options: TrainOptions, kept: Any, asked: Any, explicit: bool) -> tuple[TrainOptions, list[str]]:
    """Files are the same by their content, wherever they lie now; one that is not named again is the one that was."""
    if not explicit:
        options = replace(options, weights=None if kept is None else Path(kept["file"]))
        now = _weights(options.weights)
        changed = now is not None and now["sha256"] is not None and now["sha256"] != kept["sha256"]
        return options, [f"--weights: {kept['file']} has another content"] if changed else []
    same = kept is not None and asked is not None and kept["sha256"] == asked["sha256"]
    if same and (asked["sha256"] is not None or kept["file"] == asked["file"]):
        return options, []
    return options, [f"--weights {'the recipe' if kept is None else kept['file']} -> {asked['file']}"]


def check_again(run: Run, asked: Mapping[str, Any], *, allow_change: bool) -> None:
    """A command that is given again as a whole (the folds of a job) must ask for what the run was asked for (E110).

    Start weights are in the name of the job, by their content.
    """
    kept = run.read().get(REQUEST)
    changes = [
        _spelt(key, kept[key], asked[key]) for key in HELD if kept and key in kept and key in asked and kept[key] != asked[key]
    ]
    if changes and not allow_change:
        text = f"{run.id} began with other values: {shorten(changes)}"
        raise OctcError(
            "OCT-E110", text, hint="give the options of the first time again, or --allow-change", place=str(run.path)
        )


def _spelt(key: str, before: Any, now: Any) -> str:
    name = key.replace("_", "-")
    if isinstance(before, bool) and isinstance(now, bool):
        return f"{_switch(name, before)} -> {_switch(name, now)}"
    return f"--{name} {before} -> {now}"


def _switch(name: str, value: bool) -> str:
    return f"--{name}" if value else f"--no-{name}" if name == "qat" else f"no --{name}"
