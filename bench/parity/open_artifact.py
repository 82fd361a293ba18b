"""Open an artifact for `octc verify`: decode the recorded picture, open the engine, replay the golden images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from octc.bench.parity.evaluation_set import check_artifact
from octc.bench.parity.job import Job
from octc.bench.parity.references import Roles
from octc.bench.parity.words import golden_words
from octc.core.errors import OctcError, combined
from octc.datasets.split import Split
from octc.imaging.preprocess import Float32, UInt8
from octc.runtimes.base import Runtime
from octc.runtimes.golden import check_golden
from octc.runtimes.registry import open_runtime
from octc.store.find import Found


@dataclass(frozen=True)
class Opened:
    """An artifact that was opened and has replayed its golden images.

    golden: `GoldenReport` as a dictionary; golden_logits: what its engine answered to them here [N, K].
    """

    found: Found
    sha256: str
    runtime: Runtime
    golden: dict[str, Any]
    golden_logits: Float32

    @property
    def name(self) -> str:
        return self.found.artifact.name


def open_candidates(founds: Sequence[Found], job: Job) -> tuple[list[Opened], list[tuple[Found, OctcError]]]:
    """Open every candidate; those that cannot be opened with the error, which is raised where none can."""
    opened: list[Opened] = []
    broken: list[tuple[Found, OctcError]] = []
    with job.reporter.progress("golden images", len(founds)) as step:
        for found in founds:
            try:
                opened.append(_open(found, job))
            except OctcError as error:
                broken.append((found, error))
            step(1)
    errors = [one for _, one in broken]
    if not opened:
        raise combined(errors)
    for found, one in broken:
        job.reporter.say(f"  ✗ {found.artifact.name}: {one.message} [{one.code}]")
    return opened, broken


def _open(found: Found, job: Job) -> Opened:
    """Check decoding, open the engine, replay the golden images."""
    artifact = found.artifact
    runtime = open_runtime(found.folder, artifact, threads=job.requested.threads)
    job.stack.callback(runtime.close)
    heard: list[Float32] = []

    def listened(images: UInt8) -> Float32:
        heard.append(runtime(images))
        return heard[-1]

    report = asdict(check_golden(found.folder, artifact, listened))
    mark = "✓" if report["ok"] else "✗"
    job.reporter.say(f"  {mark} golden   {artifact.name}: {golden_words(report)}, {report['tolerance_id']}")
    return Opened(found, artifact.sha256, runtime, report, np.asarray(heard[-1], np.float32))


def open_references(against: str | None, roles: Roles, split: Split, job: Job) -> tuple[dict[str, Opened], tuple[str, ...]]:
    """Claim -> reference, in the fixed order, and what must be said about a claim that is not made."""
    claims: dict[str, Opened] = {}
    notes: list[str] = []
    with job.reporter.progress("references", None):
        if against in (None, "fp32"):
            if roles.reference is None:
                raise roles.missing
            claims["fp32"] = _reference(roles.reference, split, job)
        if against == "teacher" or (against is None and roles.teacher is not None):
            assert roles.teacher is not None  # choose_roles sees to it
            try:
                claims["teacher"] = _reference(roles.teacher, split, job)
            except OctcError as error:
                if against == "teacher":
                    raise
                notes.append(f"no claim against the teacher: {error.message}: {error.hint}")
        elif against is None:
            notes.append(f"no claim against the teacher: {roles.without[0]}: {roles.without[1]}")
    return claims, tuple(notes)


def _reference(found: Found, split: Split, job: Job) -> Opened:
    check_artifact(found.artifact, split)
    one = _open(found, job)
    if not one.golden["ok"]:
        text = f"the reference {one.name} does not reproduce its golden images here"
        raise OctcError("OCT-E708", text, hint="export it again: octc export --fp32 --force", place=str(found.folder))
    return one
