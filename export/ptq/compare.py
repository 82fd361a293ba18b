"""One checkpoint through every PTQ engine: the files, what they answer on a set of images, and how far that is from float."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.clock import utc_now
from octc.core.errors import OctcError
from octc.core.faults import of_machine
from octc.core.progress import LogReporter, Reporter, absolute
from octc.core.targets import processors_of
from octc.datasets.split import SETS
from octc.export.formats import choose_opset, foreign_targets
from octc.export.pipeline import write_files
from octc.export.ptq.engines import ENGINES, missing_of, nncf_default
from octc.export.source import Quantised, RunSource, calibration_set, calibration_work, of_run, quantise, read_source
from octc.export.targets import Job, Workshop
from octc.imaging.preprocess import Float32, UInt8
from octc.machine.cpu import why_other_family
from octc.runtimes.base import Runtime
from octc.runtimes.registry import open_runtime
from octc.schemas.verification import SPELLED
from octc.store.artifacts import Artifact, write_manifest
from octc.store.locations import image_root
from octc.store.runs import Run, owning
from octc.store.test_set_log import log_part
from octc.train.batches.images import cached_images

TRAINED = "qat"
PARTS = ("select", "test")
Timer = Callable[[Sequence[Runtime], UInt8, Reporter], list[float]]  # median time of one image of each, ms


@dataclass(frozen=True)
class Entry:
    """A file to be compared: `engine` made it; `folder` holds a whole artifact."""

    engine: str
    target: str
    folder: Path
    artifact: Artifact
    bytes: int


@dataclass(frozen=True)
class Score:
    """Against the float network on the same images: agreement and accuracy (shares), images lost and gained, noise in dB."""

    agreement: float
    accuracy: float
    lost: int
    gained: int
    snr_db: float


def write_entries(
    shop: Workshop, trained: Quantised | None, place: Path, targets: Sequence[str], say: Callable[[str], None]
) -> tuple[list[Entry], dict[str, str]]:
    """FP32, the run's own quantised network where it was trained, and every engine that is installed, for each target.

    Args:
        shop: with octc's own calibration as its quantised network. trained: of the qat stage.

    Returns: the entries (FP32 first), and why an engine is absent or failed.
    """
    entries: list[Entry] = []
    absent = {name: f"{missing} is not installed" for name, engine in ENGINES.items() if (missing := missing_of(engine))}
    for target in targets:
        opset = choose_opset(target, None)
        shop.float_onnx(opset)
        jobs = {"fp32": Job(target, "fp32", opset)}
        jobs |= {TRAINED: Job(target, "int8", opset)} if trained is not None else {}
        jobs |= {
            name: Job(target, "int8", opset, engine=name)
            for name, engine in ENGINES.items()
            if name not in absent and target in engine.targets
        }
        for name, job in jobs.items():
            say(f"  {target}: {name}")
            mine = _with(shop, trained, place / f"{target}-work") if name == TRAINED and trained is not None else shop
            try:
                entries.append(_entry(mine, name, job, place / f"{target}-{name}"))
            except OctcError as error:
                if of_machine(error) is not None:
                    raise
                absent[f"{name} ({target})"] = error.message
    return entries, absent


def _with(shop: Workshop, quantised: Quantised, folder: Path) -> Workshop:
    """A workshop for another quantised network; only float files are shared."""
    folder.mkdir(exist_ok=True)
    floats = {key: made for key, made in shop.made.items() if key[0] == "float"}
    return Workshop(shop.source, folder, quantised, floats)


def _entry(shop: Workshop, name: str, job: Job, folder: Path) -> Entry:
    folder.mkdir()
    if name == "nncf-default":
        _, artifact = write_files(shop, replace(job, precision="fp32", engine=""), folder)
        _, images = calibration_set(of_run(shop.source))
        nncf_default(Path(shop.float_onnx(job.opset or 0).main_file), folder / artifact.main_file, images)
        artifact = write_manifest(folder, replace(artifact, precision="int8"))
    else:
        _, artifact = write_files(shop, job, folder)
    size = sum(path.stat().st_size for path in folder.glob("model.*"))
    return Entry(name, job.target, folder, artifact, size)


def score(reference: Float32, logits: Float32, labels: Sequence[int]) -> Score:
    """Scores of logits float32 [N, K]."""
    truth = np.asarray(labels)
    before, after = reference.argmax(1) == truth, logits.argmax(1) == truth
    noise = float(((reference - logits) ** 2).sum())
    snr = float(10 * np.log10(float((reference**2).sum()) / noise)) if noise else float("inf")
    agreement = float((reference.argmax(1) == logits.argmax(1)).mean())
    return Score(agreement, float(after.mean()), int((before & ~after).sum()), int((~before & after).sum()), snr)


@dataclass(frozen=True)
class Row:
    """One file against the float one, as `octc ptq --json` has it. median_ms: None where nothing was timed."""

    engine: str
    target: str
    agreement: float
    accuracy: float
    lost: int
    gained: int
    snr_db: float
    bytes: int
    median_ms: float | None


@dataclass(frozen=True)
class PtqComparison:
    """Engines on one checkpoint. images: that were judged; absent: engine -> why it is not among the rows."""

    run: str
    part: str
    images: int
    rows: tuple[Row, ...]
    absent: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The document of `octc ptq --json`."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows]}


def compare_engines(
    run: Run,
    targets: Sequence[str] | None = None,
    part: str = "select",
    *,
    data: str | None = None,
    timer: Timer | None = None,
    reporter: Reporter | None = None,
) -> PtqComparison:
    """Every PTQ engine that is installed on a run's network, beside FP32 and the trained INT8. Publishes nothing.

    Args:
        targets: of `octc.export.formats.foreign_targets`; None: all of them. part: "val" or "select" (validation) or "test",
            which is written into the run's test-set log.
        data: root of the images; None: where the run's images are found.
        timer: measures one image of each file, for example `octc.bench.timing.turns.medians`; None: nothing is timed.

    Raises:
        OctcError: E104 no such target or part, E903 files of a target do not run on this processor, and what
            `octc.export.source.read_source` and `quantise` raise.
    """
    reporter = reporter or LogReporter()
    part = SPELLED.get(part, part)
    wanted = check_request(targets, part)
    with owning(run) as recovered, tempfile.TemporaryDirectory(dir=run.path, prefix=".tmp-ptq-") as folder:
        if recovered:
            reporter.say(recovered)
        source = read_source(run, image_root(run, data, os.environ))
        own, trained = _networks(source, reporter)
        work = Path(folder) / "work"
        work.mkdir()
        entries, absent = write_entries(Workshop(source, work, own), trained, Path(folder), wanted, reporter.say)
        if part == "test":
            _log_test(run, source, entries)
        images = cached_images(source.cache, source.root, source.split.parts[SETS[part]], source.checkpoint.preprocess)
        logits, times = _measured(entries, images, timer, reporter)
    labels = [s.label for s in source.split.parts[SETS[part]]]
    reference = {entry.target: row for entry, row in zip(entries, logits, strict=True) if entry.engine == "fp32"}
    rows = (
        Row(
            entry.engine, entry.target, **asdict(score(reference[entry.target], row, labels)), bytes=entry.bytes, median_ms=time
        )
        for entry, row, time in zip(entries, logits, times, strict=True)
    )
    return PtqComparison(run.id, part, len(labels), tuple(rows), absent)


def check_request(targets: Sequence[str] | None, part: str) -> tuple[str, ...]:
    """The targets of a comparison; refuse what is not known or cannot be measured here, before anything is quantised.

    Raises:
        OctcError: E104 no such target or part, E903 files of a target do not run on this processor.
    """
    known = foreign_targets()
    wanted = known if targets is None else tuple(targets)
    if unknown := [target for target in wanted if target not in known]:
        hint = f"{', '.join(known)} or all"
        raise OctcError("OCT-E104", f"--target {unknown[0]!r} is not known", hint=hint, place="--target")
    if part not in PARTS:
        raise OctcError("OCT-E104", f"--split {part!r} is not known", hint="select or test", place="--split")
    for target in wanted:
        if (why := why_other_family(processors_of(target, "int8"))) is not None:
            text = f"{target}-int8 cannot be measured here: {why}"
            raise OctcError("OCT-E903", text, hint="octc ptq --target onnx", place="--target")
    return wanted


def _networks(source: RunSource, reporter: Reporter) -> tuple[Quantised, Quantised | None]:
    """Octc's own calibration, and the trained network where the run has one."""
    with reporter.progress("calibration", calibration_work(source, after=True)) as step:
        own = quantise(source, progress=absolute(step), after=True)
    return own, quantise(source) if (source.run.path / "qat").is_dir() else None


def _log_test(run: Run, source: RunSource, entries: Sequence[Entry]) -> None:
    run.log_stage("ptq", part="test", sha256=source.checkpoint.sha256)
    sums = {f"{one.target} {one.engine}": one.artifact.files[one.artifact.main_file].sha256 for one in entries}
    log_part(run.path, source.split, "test", sums, "ptq", utc_now())


def _measured(
    entries: Sequence[Entry], images: UInt8, timer: Timer | None, reporter: Reporter
) -> tuple[list[Float32], list[float | None]]:
    """Logits of the images by every file, and the median time of one image, ms."""
    runtimes = [open_runtime(entry.folder, entry.artifact, batch=1) for entry in entries]
    try:
        logits = []
        with reporter.progress("images", len(images) * len(entries)) as step:
            for runtime in runtimes:
                rows = []
                for start in range(len(images)):
                    rows.append(runtime(np.array(images[start : start + 1])))
                    step(1)
                logits.append(np.concatenate(rows))
        times = [None] * len(runtimes) if timer is None else timer(runtimes, images, reporter)
    finally:
        for runtime in runtimes:
            runtime.close()
    return logits, list(times)
