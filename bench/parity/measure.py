"""Logits of every artifact on a labelled set, read back or measured, and what temperature scaling would do to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from octc.bench.parity.evaluation_set import LabelledSet, check_images, read_set, spoken
from octc.bench.parity.inference import Records, measure_all, records_of
from octc.bench.parity.job import Job, Place
from octc.bench.parity.open_artifact import Opened
from octc.bench.parity.predictions import MEASURED, store_records, stored_records
from octc.bench.parity.robustness import LEVELS, measure_worse
from octc.core.errors import OctcError
from octc.core.faults import of_machine
from octc.core.files import canonical_json
from octc.datasets.split import Split
from octc.imaging.preprocess import VIEWS
from octc.stats.cluster_bootstrap import cluster_index
from octc.stats.comparison import nonfinite
from octc.stats.outcome import outcome_of
from octc.stats.robustness import Robustness, robustness
from octc.stats.temperature import LEAST_IMAGES, Temperature, fit_temperature
from octc.store.runs import Run


def measure_everyone(
    views: tuple[str, ...], run: Run, labelled: LabelledSet, everyone: Sequence[Opened], job: Job
) -> dict[str, Records]:
    """Records of everyone by manifest sum, with these views: read back, else measured and stored.

    Every picture is decoded once for all that share a preprocessing.
    """
    place, reporter = job.place, job.reporter
    records: dict[str, Records] = {}
    groups: dict[bytes, dict[str, Opened]] = {}
    for one in everyone:
        artifact = one.found.artifact
        found = stored_records(run.path, labelled, one.name, one.sha256, artifact.preprocess, views, _facts(one, place))
        if found is not None:
            records[one.sha256] = found
        else:
            groups.setdefault(canonical_json(artifact.preprocess.to_json()), {})[one.sha256] = one
    if read := sorted({one.name for one in everyone if one.sha256 in records}):
        reporter.say(f"  ✓ records  of {', '.join(read)} are read back: artifact, images, runtime and machine are as they were")
    for group in groups.values():
        preprocess = next(iter(group.values())).found.artifact.preprocess
        label = f"{spoken(labelled.name)}, {len(group)} artifacts" if len(group) > 1 else spoken(labelled.name)
        with reporter.progress(label, len(labelled.samples)) as step:
            models = {sha: one.runtime for sha, one in group.items()}
            logits = measure_all(models, preprocess, labelled.samples, labelled.root, views, step)
        for sha, one in group.items():
            facts = {**_facts(one, place), MEASURED: place.now}
            records[sha] = records_of(labelled.samples, logits[sha], views, sha, preprocess, facts)
            store_records(run.path, labelled, one.name, records[sha])
    return records


def _facts(one: Opened, place: Place) -> dict[str, Any]:
    """What the logits depend on besides the artifact: runtime with version and threads, and the machine."""
    return {**one.runtime.facts, **place.machine}


def temperatures_of(
    run: Run, labelled: LabelledSet, split: Split, everyone: Sequence[Opened], job: Job
) -> dict[str, Temperature]:
    """Temperatures by manifest checksum, fitted on the validation set; 1 with the reason where that cannot be done."""

    def none(reason: str) -> dict[str, Temperature]:
        return {one.sha256: Temperature(reason=reason) for one in everyone}

    if labelled.name == "select":
        return none("this_is_the_set_that_it_would_be_fitted_on")
    try:
        select = read_set(run, labelled.root, "select")
        if len(select.samples) < LEAST_IMAGES:
            return none("too_few_images")
        with job.reporter.progress("checksums of the validation set", len(select.samples)) as step:
            check_images(select, split, step)
        records = measure_everyone(VIEWS["none"], run, select, everyone, job)
    except OctcError as error:
        if of_machine(error) is not None:
            raise
        job.reporter.say(f"  ! temperature: the validation set cannot be used: {error.message} [{error.code}]")
        return none("select_set_not_usable")
    return {sha: fit_temperature(one.logits, one.labels) for sha, one in records.items()}


def measure_robustness(
    reference: Opened,
    candidates: Sequence[Opened],
    records: Mapping[str, Records],
    labelled: LabelledSet,
    job: Job,
) -> dict[str, Robustness]:
    """How the candidates with the reference's preprocessing fare on worse pictures, by manifest sum; without further views."""
    pre = reference.found.artifact.preprocess
    clean = {one.sha256: records[one.sha256].only(VIEWS["none"]).logits for one in (reference, *candidates)}
    able = [
        one
        for one in candidates
        if one.found.artifact.preprocess == pre and not nonfinite(records[one.sha256].ids, clean[one.sha256])
    ]
    models = {one.sha256: one.runtime for one in (reference, *able)}
    with job.reporter.progress(f"{LEVELS} levels of disturbance", LEVELS * len(labelled.samples)) as step:
        worse = measure_worse(models, pre, labelled.samples, labelled.root, step)
    first = records[reference.sha256]
    labels = np.asarray(first.labels, np.int64)
    predicted = {sha: outcome_of(logits).predictions for sha, logits in clean.items()}
    levels = {
        level: {sha: outcome_of(logits[:, None]).predictions for sha, logits in rows.items()} for level, rows in worse.items()
    }
    return {
        one.sha256: robustness(
            labels,
            (predicted[reference.sha256], predicted[one.sha256]),
            {level: (rows[reference.sha256], rows[one.sha256]) for level, rows in levels.items()},
            cluster_index(first.patients),
            job.options,
        )
        for one in able
    }
