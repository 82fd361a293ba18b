"""`octc ptq`: every PTQ engine that is installed on one checkpoint, side by side with FP32 and with the trained INT8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.cli._app.tables import Rows
from octc.core.errors import OctcError
from octc.datasets.split import SETS

if TYPE_CHECKING:
    from octc.export.ptq.compare import Entry
    from octc.export.source import Quantised, RunSource

PARTS = ("select", "test")
COLUMNS = ("engine", "target", "agreement, %", "accuracy, %", "lost", "gained", "noise, dB", "MB", "ms")
ROUNDS, SECONDS = 7, 0.3  # interleaved rounds, and the time that each visits each file


def ptq(
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Student run; the newest finished one without it")] = None,
    target: Annotated[str, typer.Option(help="onnx, openvino or all")] = "all",
    split: Annotated[str, typer.Option(help="Images that are judged: select, or test (logged)")] = "select",
) -> int:
    """Compare PTQ engines: agreement with FP32, accuracy, size and latency. Publishes nothing."""
    import tempfile
    from pathlib import Path

    from octc.core.optional import need_wing

    need_wing("export")
    from octc.cli.export import find_student
    from octc.cli.export_run import find_data
    from octc.export.formats import foreign_targets
    from octc.export.ptq.compare import rows_json, score, write_entries
    from octc.export.source import read_source
    from octc.export.targets import Workshop
    from octc.store.runs import owning, utc_now
    from octc.store.test_set_log import log_part

    known = foreign_targets()
    if target not in (*known, "all"):
        hint = f"{', '.join(known)} or all"
        raise OctcError("OCT-E104", f"--target {target!r} is not known", hint=hint, place="--target")
    if split not in PARTS:
        raise OctcError("OCT-E104", f"--split {split!r} is not known", hint="select or test", place="--split")
    wanted = known if target == "all" else (target,)
    _check_processor(wanted)
    chosen = find_student(session, run)
    session.run_id = chosen.id
    with owning(chosen) as recovered, tempfile.TemporaryDirectory(dir=chosen.path, prefix=".tmp-ptq-") as folder:
        if recovered:
            session.say(recovered)
        source = read_source(chosen, find_data(session, chosen))
        own, trained = _networks(session, source)
        work = Path(folder) / "work"
        work.mkdir()
        entries, absent = write_entries(Workshop(source, work, own), trained, Path(folder), wanted, session.say)
        if split == "test":
            chosen.log_stage("ptq", part="test", sha256=source.checkpoint.sha256)
            sums = {
                f"{entry.target} {entry.engine}": entry.artifact.files[entry.artifact.main_file].sha256 for entry in entries
            }
            log_part(chosen.path, source.split, "test", sums, "ptq", utc_now())
        logits, medians = _measured(session, source, entries, SETS[split])
    labels = [s.label for s in source.split.parts[SETS[split]]]
    reference = {entry.target: row for entry, row in zip(entries, logits, strict=True) if entry.engine == "fp32"}
    scores = [score(reference[entry.target], row, labels) for entry, row in zip(entries, logits, strict=True)]
    rows = rows_json(entries, scores, medians)
    session.report({"run": chosen.id, "part": split, "images": len(labels), "rows": rows, "absent": absent})
    for name, why in absent.items():
        session.say(f"  ! {name}: {why}")
    title = f"{chosen.id}: {len(labels)} images of {split}; ms: median, batch 1, {ROUNDS} interleaved rounds"
    session.result(Rows(COLUMNS, [_cells(row) for row in rows], title))
    return 0


def _check_processor(targets: Sequence[str]) -> None:
    """Refuse what cannot be measured here, before anything is quantised (E903)."""
    from octc.core.targets import processors_of
    from octc.machine.cpu import why_other_family

    for target in targets:
        if (why := why_other_family(processors_of(target, "int8"))) is not None:
            text = f"{target}-int8 cannot be measured here: {why}"
            raise OctcError("OCT-E903", text, hint="octc ptq --target onnx", place="--target")


def _networks(session: Session, source: RunSource) -> tuple[Quantised, Quantised | None]:
    """Octc's own calibration, and the trained network where the run has one."""
    from octc.cli.export_run import absolute
    from octc.export.source import calibration_work, quantise

    with session.progress("calibration", calibration_work(source, after=True)) as step:
        own = quantise(source, progress=absolute(step), after=True)
    return own, quantise(source) if (source.run.path / "qat").is_dir() else None


def _measured(session: Session, source: RunSource, entries: list[Entry], part: str) -> tuple[list[Any], list[float]]:
    """Logits of the part's images by every file, and the median time of one image, ms, interleaved."""
    import numpy as np

    from octc.bench.timing.latency import median_of
    from octc.bench.timing.load_generator import block
    from octc.runtimes.registry import open_runtime
    from octc.train.batches.images import cached_images

    images = cached_images(source.cache, source.root, source.split.parts[part], source.checkpoint.preprocess)
    runtimes = [open_runtime(entry.folder, entry.artifact, batch=1) for entry in entries]
    try:
        logits = []
        with session.progress("images", len(images) * len(entries)) as step:
            for runtime in runtimes:
                rows = []
                for start in range(len(images)):
                    rows.append(runtime(np.array(images[start : start + 1])))
                    step(1)
                logits.append(np.concatenate(rows))
        times: list[list[float]] = [[] for _ in runtimes]
        few = [np.array(images[i : i + 1]) for i in range(min(8, len(images)))]
        with session.progress("latency", ROUNDS * len(entries)) as step:
            for _ in range(ROUNDS):
                for runtime, kept in zip(runtimes, times, strict=True):
                    found = block(lambda i, call=runtime: call(few[i % len(few)]), seconds=SECONDS, calls=5)  # type: ignore[misc]
                    kept += [ns / 1e6 for ns in found[1:]]  # the first call finds the caches of the one before
                    step(1)
    finally:
        for runtime in runtimes:
            runtime.close()
    return logits, [median_of(kept) for kept in times]


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["engine"], row["target"], f"{100 * row['agreement']:.2f}", f"{100 * row['accuracy']:.2f}", str(row["lost"]),
        str(row["gained"]), f"{row['snr_db']:.1f}", f"{row['bytes'] / 1e6:.2f}", f"{row['median_ms']:.2f}",
    ]  # fmt: skip
