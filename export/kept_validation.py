"""The validation set of a run as its artifacts keep it: read where the run is, with torch; `reference` needs none."""

from __future__ import annotations

from dataclasses import replace

from octc.bench.parity.evaluation_set import read_set
from octc.datasets.base import Progress
from octc.export.reference import Validation, exchangeable, looks_of, whole_patients
from octc.export.source import RunSource
from octc.export.validation import SET
from octc.stats.cluster_bootstrap import clusters_of
from octc.train.batches.images import cached_images


def read_validation(source: RunSource, progress: Progress) -> Validation:
    """The validation set of a run, whole patients in the order of their checksums.

    Raises:
        OctcError: of `read_set`, and of a picture that is not there or cannot be read.
    """
    labelled = read_set(source.run, source.root, SET)
    places = whole_patients(labelled.samples)
    samples, pre = tuple(labelled.samples[k] for k in places), source.checkpoint.preprocess
    images = cached_images(source.cache, source.root, samples, pre, progress)
    chosen = [samples[k] for k in exchangeable(samples, clusters_of([one.patient for one in samples]))]
    looks = None if source.statistics is None else looks_of(source.root, chosen, pre, source.statistics)
    return Validation(replace(labelled, samples=samples), places, images, looks)
