"""`octc predict`: classify images with an artifact."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from octc.cli._app.session import Session
from octc.cli.predict_archive import NO_ARCHIVE, ArchiveFlags, predict_archive
from octc.cli.predict_rows import Asked, View, deliver, expect
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.datasets.tree import Left
    from octc.runtimes.base import Runtime
    from octc.runtimes.inputs import Choice
    from octc.runtimes.predict import Engine, Input, Record
    from octc.runtimes.room import Batch
    from octc.runtimes.starting import Checked
    from octc.stats.aggregation import Aggregation
    from octc.store.find import Found


def predict(  # noqa: PLR0913 - an option a parameter
    session: Session,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="[ARTIFACT] INPUT", help="Images, volumes, folders, or -: stdin; the artifact may come first"),
    ],
    tta: Annotated[Literal["none", "hflip", "5"], typer.Option(help="Test-time augmentation: views to average")] = "none",
    format_: Annotated[
        Literal["table", "json", "jsonl", "csv"],
        typer.Option("--format", help="Output format on stdout; jsonl: one line per image"),
    ] = "table",
    on_bad: Annotated[
        Literal["record", "stop"], typer.Option(help="If a file cannot be read: record the error and go on, or stop")
    ] = "record",
    threads: Annotated[int | None, typer.Option(help="Threads of the inference engine (usable physical cores)")] = None,
    batch: Annotated[int | None, typer.Option(help="Largest batch size (8, halved where memory is short)")] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Print counts only: images per class, unlike the training images, failed")
    ] = False,
    least_certain: Annotated[
        int | None, typer.Option("--least-certain", metavar="N", help="Only the N images with the lowest confidence")
    ] = None,
    aggregation: Annotated[
        str | None, typer.Option(help="How to aggregate the B-scans of an eye: mean, top, largest, noisy-or (the artifact's)")
    ] = None,
    allow_cut: Annotated[bool, typer.Option("--allow-cut", help="Read the complete B-scans of a truncated volume")] = False,
    maps: Annotated[
        Path | None,
        typer.Option("--maps", metavar="DIR", help="Write an occlusion heat map for each prediction into a new folder"),
    ] = None,
    dicom_sr: Annotated[
        Path | None,
        typer.Option(
            "--dicom-sr", metavar="DIR", help="Write a structured report (TID 1500) for each DICOM object into a new folder"
        ),
    ] = None,
    monitor: Annotated[
        Path | None,
        typer.Option("--monitor", metavar="STORE", help="Add a summary of each prediction to this file, for octc monitor"),
    ] = None,
    archive: ArchiveFlags = NO_ARCHIVE,
) -> int:
    """Classify images and volumes: label, confidence and probability of every class, for each image, B-scan and eye."""
    _check_options(batch, least_certain, maps, tta)
    from octc.core.standard_input import piped
    from octc.machine.memory import check_space

    check_space()

    with piped(inputs) as (given, kept):
        from octc.runtimes.inputs import choose_artifact, split_inputs
        from octc.runtimes.piped import with_names
        from octc.runtimes.room import BATCH

        if archive != NO_ARCHIVE:
            shown = {
                "--format": format_ != "table", "--on-bad": on_bad != "record", "--summary": summary,
                "--least-certain": least_certain is not None, "--maps": maps is not None, "--dicom-sr": dicom_sr is not None,
            }  # fmt: skip
            common = {
                "views": tta, "batch": batch or BATCH, "threads": threads or 1, "aggregation": aggregation,
                "allow_cut": allow_cut, "monitor": monitor,
            }  # fmt: skip
            named = [name for name, is_given in shown.items() if is_given]
            return predict_archive(session, with_names(given, kept), archive, common, named)
        place, words = split_inputs(given, session.run_dir)
        wanted = _Wanted(
            tta,
            format_,
            on_bad == "stop",
            threads,
            batch,
            View(summary, least_certain),
            aggregation,
            allow_cut,
            maps,
            dicom_sr,
            monitor,
        )
        choice = choose_artifact(place, session.run_dir, os.environ)
        session.run_id = choice.run_id
        _say_choice(session, choice)
        return _answered(session, choice.found, with_names(words, kept), wanted, kept)


@dataclass(frozen=True)
class _Wanted:
    """Options of the command."""

    tta: str
    format: str
    stop: bool
    threads: int | None
    batch: int | None
    view: View
    aggregation: str | None
    allow_cut: bool
    maps: Path | None
    dicom_sr: Path | None
    monitor: Path | None


def _answered(session: Session, found: Found, words: list[str], wanted: _Wanted, kept: Path | None) -> int:
    """Open the artifact, classify, write the records; return the exit code. kept: temporary file with standard input."""
    from octc.machine.memory import limit_words
    from octc.runtimes.inputs import is_one_picture, log_test_images
    from octc.runtimes.registry import choose_threads
    from octc.runtimes.room import BATCH, Batch
    from octc.runtimes.starting import Starting

    count = choose_threads(wanted.threads)
    if room := limit_words():
        session.say(f"  memory         {room}")
    batch = Batch(wanted.batch or BATCH, wanted.batch is not None, session.warn)
    with ExitStack() as opened:
        start = None
        if is_one_picture(words):  # for one picture the start of the engine dominates the time
            start = opened.enter_context(Starting(found, count, _narrowed(batch, 1, wanted)))
        from octc.runtimes.predict import classify
        from octc.runtimes.scans import shown_as, with_eyes

        inputs = _inputs(session, found, words, wanted)
        if start is None:
            start = opened.enter_context(Starting(found, count, _narrowed(batch, len(inputs.items), wanted)))
        expect(session, wanted.format)
        asked = Asked(len(inputs.items), wanted.tta, wanted.format, wanted.stop, inputs.left_out, wanted.view, batch)
        items, monitored = taken(inputs.items), wanted.monitor is not None
        records = classify(start, found.artifact, items, views=wanted.tta, batch=batch, threads=count, monitored=monitored)
        checked, records = start.with_first(records)
        _say_checked(session, found, checked)
        log_test_images(found, inputs.paths, session.run_dir, session)
        if inputs.maps is not None:
            records = _mapped(session, found, records, inputs.maps, partial(batch.run, checked.runtime), wanted)
        answered = with_eyes(records, found.artifact, inputs.how)
        if wanted.dicom_sr is not None:
            from octc.runtimes.maps import new_folder

            answered = _reported(found, checked.runtime, answered, (new_folder(wanted.dicom_sr), wanted.tta))
        with _watching(found, answered, wanted.monitor) as seen:
            return deliver(session, found, shown_as(seen, kept), asked)


@dataclass(frozen=True)
class _Inputs:
    """The inputs. paths: files; items: files and B-scans of volumes. how: aggregation of B-scans to an eye. maps: a new folder
    for heat maps."""

    paths: list[Path]
    items: list[Input]
    left_out: tuple[Left, ...]
    how: Aggregation
    maps: Path | None


def _inputs(session: Session, found: Found, words: list[str], wanted: _Wanted) -> _Inputs:
    """List the inputs, and open the volumes among them."""
    from octc.runtimes.inputs import scan_inputs
    from octc.runtimes.predict import mappings_of
    from octc.runtimes.scans import Reading, aggregation_of, opened

    paths, left_out = scan_inputs(words)
    if left_out:
        from octc.datasets.tree import words_left

        session.say(f"left out: {words_left(left_out)}")
    how = aggregation_of(found.artifact, wanted.aggregation)
    if wanted.dicom_sr is not None:
        from octc.serve.dicom.structured_report import require_dicom

        require_dicom(paths)
    items = opened(paths, Reading(wanted.allow_cut, mappings=mappings_of(found.artifact)))
    folder = None
    if wanted.maps is not None:
        from octc.runtimes.maps import new_folder

        folder = new_folder(wanted.maps)
    return _Inputs(paths, items, tuple(left_out), how, folder)


def _narrowed(batch: Batch, inputs: int, wanted: _Wanted) -> Batch:
    """Limit the batch to the number of inputs; heat maps run many copies of one image and keep the full batch."""
    from octc.imaging.preprocess import VIEWS

    if wanted.maps is None:
        batch.size = min(batch.size, inputs * len(VIEWS[wanted.tta]))
    return batch


def _mapped(
    session: Session, found: Found, records: Iterator[Record], folder: Path, run: Engine, wanted: _Wanted
) -> Iterator[Record]:
    """The same records; those with a prediction get a heat map."""
    from octc.runtimes.maps import MapOptions, calls_for, write_maps
    from octc.runtimes.room import BATCH

    squares = MapOptions(batch=wanted.batch or BATCH)
    calls = calls_for(found.artifact.preprocess.size, squares)
    session.say(f"  maps           {folder}: occlusion, {calls} runs of the network for each image")
    return write_maps(run, found.artifact, records, folder, squares)


@contextmanager
def _watching(found: Found, records: Iterator[Record], store: Path | None) -> Iterator[Iterator[Record]]:
    """The same records, also added to the monitor's store if one is given."""
    if store is None:
        yield records
        return
    from octc.runtimes.monitored import watched
    from octc.store.monitor_store import open_store

    with open_store(store, make=True) as kept, closing(watched(records, found, kept)) as seen:
        yield seen


def _reported(found: Found, runtime: Runtime, records: Iterator[Record], where: tuple[Path, str]) -> Iterator[Record]:
    """The same records; for those of eyes a report is written. where: the folder, and the views to average."""
    from octc.serve.dicom.answers import Answering
    from octc.serve.dicom.structured_report import write_reports

    engine = f"{runtime.facts['runtime']} {runtime.facts['version']}"
    return write_reports(records, Answering.of(found.artifact, engine, where[1]), where[0])


def _check_options(batch: int | None, least_certain: int | None, maps: Path | None, tta: str) -> None:
    if batch is not None and not 1 <= batch <= 256:
        raise OctcError("OCT-E104", f"--batch {batch} is out of range", hint="--batch 1 to 256", place="--batch")
    if least_certain is not None and least_certain < 1:
        hint = "--least-certain 10"
        raise OctcError("OCT-E104", f"--least-certain {least_certain} is out of range", hint=hint, place="--least-certain")
    if maps is not None and tta != "none":
        text = "a map is of one view, and --tta answers with the mean of several"
        raise OctcError("OCT-E102", text, hint="--maps DIR without --tta", place="--maps")


def _say_choice(session: Session, choice: Choice) -> None:
    from octc.store.artifacts import file_mib

    found, why = choice.found, f" ({choice.why})" if choice.why else ""
    session.say(f"{choice.words}: {found.folder}, {file_mib(found.artifact):.2f} MiB{why}")
    if choice.passed_over:
        session.say(f"  passed over    {choice.passed_over}")


def _say_checked(session: Session, found: Found, checked: Checked) -> None:
    """Print the result of replaying the golden images: decoding, resizing and inference match those of the export."""
    from octc.runtimes.golden import same_answer, words_of_same

    report, facts = checked.report, checked.runtime.facts
    if why := getattr(checked.runtime, "not_kept", ""):
        session.warn("OCT-W905", why)
    if (answer := same_answer(checked.golden, found.artifact)) is not None:
        session.warn("OCT-W809", words_of_same(answer, report.images), str(found.folder))
    session.say(
        f"  ✓ golden         {report.images} images, delta over s {report.delta_over_s:.1e} (limit {report.tolerance:g}); "
        f"{facts['runtime']} {facts['version']}, {facts['threads']} threads"
    )


def taken(inputs: list[Input]) -> Iterator[Input]:
    """The inputs in order; each is released after use, because a million of them need memory."""
    inputs.reverse()
    while inputs:
        yield inputs.pop()
