"""Artifacts as they are served: checked, opened once for each lane, golden images replayed, every batch size tried."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from octc.core.errors import OctcError, shorten
from octc.core.targets import TARGETS
from octc.imaging.preprocess import Float32, UInt8
from octc.machine.cpu import usable_threads
from octc.runtimes.base import Runtime
from octc.runtimes.golden import GoldenReport, check_golden, require_golden
from octc.runtimes.model import located
from octc.runtimes.registry import open_runtime
from octc.schemas.requests import ServeOptions
from octc.store.artifacts import Artifact, artifact_sha256, read_golden
from octc.store.find import Found

DIGITS = 12  # of the manifest's sha256: the version of a model
LANES = 4  # engines at once before one gets a second thread: images beside each other lose less than one image on many threads
THREADS = 4  # of one engine, where nothing else is requested: small networks gain little from more


@dataclass(frozen=True, eq=False)
class Opened:
    """An artifact that answers.

    Attributes:
        name: of the artifact. version: the first digits of the SHA-256 of its manifest; sha256: all of them.
        runtimes: one for each lane, or one alone where threads are seen in the bits. sizes: batches that are run, ascending,
            from 1.
        exact: whether an image has the same logits, bit for bit, in every batch size (tried with the golden images): only then
            images of several clients are run together.
        alone: an engine with more threads, for a request that is alone; None: there is none.
    """

    name: str
    version: str
    sha256: str
    folder: Path
    artifact: Artifact
    golden: GoldenReport
    runtimes: tuple[Runtime, ...]
    sizes: tuple[int, ...]
    exact: bool
    alone: Runtime | None = None

    @property
    def quickest(self) -> Runtime:
        """The engine that answers a request that is alone."""
        return self.alone or self.runtimes[0]

    def close(self) -> None:
        """Free what the engines hold."""
        for runtime in (*self.runtimes, *([] if self.alone is None else [self.alone])):
            runtime.close()


@dataclass(frozen=True)
class Share:
    """Of the processors: engines of each artifact that run at once, threads of each, threads for a request that is alone, and
    those of `octc predict`."""

    lanes: int
    threads: int
    alone: int
    whole: int


def share_of(options: ServeOptions) -> Share:
    """As requested, else what the processor quota gives.

    Raises:
        OctcError: E104 more than this process may use.
    """
    usable = usable_threads()[0]
    threads = options.threads or min(THREADS, max(1, usable // (options.instances or LANES)))
    lanes = options.instances or max(1, usable // threads)
    if threads > usable or lanes > usable or lanes * threads > max(usable, lanes):
        text = f"{lanes} engines of {threads} threads, {usable} processors may be used"
        raise OctcError("OCT-E104", text, hint="leave --instances and --threads out, or lower them", place="--instances")
    return Share(lanes, threads, options.threads or min(THREADS, usable), options.threads or usable)


def open_models(places: Sequence[str | Path], options: ServeOptions) -> tuple[Opened, ...]:
    """All artifacts, ready to answer; where one cannot be, none is left open.

    Raises:
        OctcError: E104 one is named twice, or cannot have so many engines with the bits of `octc predict`; what `octc.load`
            raises.
    """
    opened: list[Opened] = []
    try:
        for place in places:
            opened.append(_open(place, options))
        names = [(one.name, one.version) for one in opened]
        if twice := sorted({f"{name} {version}" for name, version in names if names.count((name, version)) > 1}):
            text = f"the same artifact is named twice: {shorten(twice)}"
            raise OctcError("OCT-E104", text, hint="name each artifact once", place=twice[0])
    except BaseException:
        for one in opened:
            one.close()
        raise
    return tuple(opened)


def _open(place: str | Path, options: ServeOptions) -> Opened:
    found = located(place)
    folder, artifact, golden = found.folder, found.artifact, read_golden(found.folder)
    lanes, alone = _engines(found, golden.inputs, options)
    runtimes = (*lanes, *([] if alone is None else [alone]))
    try:
        reports = [check_golden(folder, artifact, runtime, golden) for runtime in runtimes]
        for report in reports:
            require_golden(report, artifact)
        sizes = tuple(itertools.takewhile(lambda size: size <= options.max_batch, (1, 2, 4, 8, 16, 32)))
        exact = min([_is_exact(golden.inputs, runtime, sizes) for runtime in runtimes])  # each of them, for all are to be warm
    except BaseException:
        _close(runtimes)
        raise
    digest, kept = artifact_sha256(folder), sizes if exact else (1,)
    return Opened(artifact.name, digest[:DIGITS], digest, folder, artifact, reports[0], lanes, kept, exact, alone)


def _engines(found: Found, images: UInt8, options: ServeOptions) -> tuple[tuple[Runtime, ...], Runtime | None]:
    """Engines of an artifact for the lanes, and one for a request that is alone, all with the bits of `octc predict`.

    Where their threads are seen in the last bits of the images, there is one engine, with the threads of `octc predict`.
    """
    share, on_gpu = share_of(options), TARGETS[found.artifact.target].on_gpu
    counts = [share.threads] * share.lanes
    if not on_gpu:
        counts += [count for count in dict.fromkeys((share.alone, share.whole)) if count not in counts]
    runtimes: list[Runtime] = []
    try:
        runtimes += (open_runtime(found.folder, found.artifact, threads=count) for count in counts)
        kinds = dict(zip(counts, runtimes, strict=True))
        answers = [_singly(images, runtime) for runtime in kinds.values()] if len(kinds) > 1 else []
        if not all(np.array_equal(one, answers[0]) for one in answers):
            if (options.instances or 1) > 1:
                raise _no_room(found.artifact, options, share.whole)
            one = kinds[share.whole]
            _close([runtime for runtime in runtimes if runtime is not one])
            return (one,), None
        lanes, alone = runtimes[: share.lanes], None if on_gpu or share.alone == share.threads else kinds[share.alone]
        _close([runtime for runtime in runtimes[share.lanes :] if runtime is not alone])
        return tuple(lanes), alone
    except BaseException:
        _close(runtimes)
        raise


def _no_room(artifact: Artifact, options: ServeOptions, whole: int) -> OctcError:
    text = f"{artifact.name} has other last bits with other threads: {options.instances} engines of the {whole} of octc predict"
    hint = "leave --instances out, or state --threads too: the bits are then those of octc predict --threads"
    return OctcError("OCT-E104", text, hint=hint, place="--instances")


def _close(runtimes: Sequence[Runtime]) -> None:
    for runtime in runtimes:
        with suppress(Exception):
            runtime.close()


def _singly(images: UInt8, runtime: Runtime) -> Float32:
    """Logits of images, each by itself."""
    return np.concatenate([runtime(images[k : k + 1]) for k in range(len(images))])


def _is_exact(images: UInt8, runtime: Runtime, sizes: Sequence[int]) -> bool:
    """Whether golden images have the same logits in every batch size; each is run, so that none is compiled for a client."""
    alone, same = _singly(images, runtime), True
    for size in sizes[1:]:
        chosen = np.arange(size) % len(images)
        same &= bool(np.array_equal(runtime(images[chosen]), alone[chosen]))
    return same
