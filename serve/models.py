"""Opens artifacts for serving: checks them, opens engines, replays golden images, tries every batch size."""

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
from octc.store.artifacts import Artifact, read_golden
from octc.store.find import Found

DIGITS = 12  # digits of the manifest's SHA-256 in the version of a model
LANES = 4  # parallel engines before an engine gets a second thread: parallel images scale better than threads
THREADS = 4  # default maximum threads of an engine: small networks gain little from more


@dataclass(frozen=True, eq=False)
class Opened:
    """An artifact that is ready to serve.

    Attributes:
        name: name of the artifact. version: first digits of the SHA-256 of its manifest; sha256: the whole digest.
        runtimes: one engine per lane, or a single one if the number of threads changes the outputs. sizes: batch sizes in
            ascending order, from 1.
        exact: whether the logits of an image are bit-identical in all batch sizes (tested with the golden images); only then
            are images of several clients batched together.
        alone: an engine with more threads for a single request; None: there is none.
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
        """The engine for a single request."""
        return self.alone or self.runtimes[0]

    def close(self) -> None:
        """Release the engines."""
        for runtime in (*self.runtimes, *([] if self.alone is None else [self.alone])):
            runtime.close()


@dataclass(frozen=True)
class Share:
    """Use of the processors: parallel engines per artifact, threads per engine, threads for a single request, and the threads
    of `octc predict`."""

    lanes: int
    threads: int
    alone: int
    whole: int


def share_of(options: ServeOptions) -> Share:
    """Engines and threads as requested, else derived from the CPU quota.

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
    """Open all artifacts for serving; if one fails, all are closed.

    Raises:
        OctcError: E104 an artifact is given twice, or its outputs would differ from `octc predict` with so many engines; and
            the errors of `octc.load`.
    """
    opened: list[Opened] = []
    try:
        for place in places:
            opened.append(_open(place, options))
        names = [(one.name, one.version) for one in opened]
        if twice := sorted({f"{name} {version}" for name, version in names if names.count((name, version)) > 1}):
            text = f"the same artifact is given twice: {shorten(twice)}"
            raise OctcError("OCT-E104", text, hint="give each artifact once", place=twice[0])
    except BaseException:
        for one in opened:
            one.close()
        raise
    return tuple(opened)


def _open(place: str | Path, options: ServeOptions) -> Opened:
    found = located(place)
    folder, artifact, golden = found.folder, found.artifact, read_golden(found.folder, found.artifact)
    lanes, alone = _engines(found, golden.inputs, options)
    runtimes = (*lanes, *([] if alone is None else [alone]))
    try:
        reports = [check_golden(folder, artifact, runtime, golden) for runtime in runtimes]
        for report in reports:
            require_golden(report, artifact)
        sizes = tuple(itertools.takewhile(lambda size: size <= options.max_batch, (1, 2, 4, 8, 16, 32)))
        exact = min([_is_exact(golden.inputs, runtime, sizes) for runtime in runtimes])  # also warms up every engine
    except BaseException:
        _close(runtimes)
        raise
    digest, kept = artifact.sha256, sizes if exact else (1,)
    return Opened(artifact.name, digest[:DIGITS], digest, folder, artifact, reports[0], lanes, kept, exact, alone)


def _engines(found: Found, images: UInt8, options: ServeOptions) -> tuple[tuple[Runtime, ...], Runtime | None]:
    """Engines of an artifact for the lanes, and one for a single request, all with outputs bit-identical to `octc predict`.

    If the number of threads changes the last bits of the outputs, there is one engine with the threads of `octc predict`.
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
    text = f"{artifact.name}: outputs depend on the threads; no room for {options.instances} engines of {whole} (octc predict)"
    hint = "leave --instances out, or give --threads too: results are then those of octc predict --threads"
    return OctcError("OCT-E104", text, hint=hint, place="--instances")


def _close(runtimes: Sequence[Runtime]) -> None:
    for runtime in runtimes:
        with suppress(Exception):
            runtime.close()


def _singly(images: UInt8, runtime: Runtime) -> Float32:
    """Logits of images, run one by one."""
    return np.concatenate([runtime(images[k : k + 1]) for k in range(len(images))])


def _is_exact(images: UInt8, runtime: Runtime, sizes: Sequence[int]) -> bool:
    """Whether golden images have identical logits in all batch sizes; this also compiles all sizes before the first request."""
    alone, same = _singly(images, runtime), True
    for size in sizes[1:]:
        chosen = np.arange(size) % len(images)
        same &= bool(np.array_equal(runtime(images[chosen]), alone[chosen]))
    return same
