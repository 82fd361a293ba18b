"""`octc predict`: classify images with an artifact."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from octc.cli._app.session import Session
from octc.cli.predict_rows import Asked, View, deliver
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.runtimes.base import Runtime
    from octc.runtimes.inputs import Choice
    from octc.runtimes.predict import Input
    from octc.store.find import Found


def predict(  # noqa: PLR0913 - an option a parameter
    session: Session,
    inputs: Annotated[
        list[str], typer.Argument(metavar="[ARTIFACT] INPUT...", help="Images, volumes or folders; before them, the artifact")
    ],
    tta: Annotated[Literal["none", "hflip", "5"], typer.Option(help="Views that are averaged")] = "none",
    format_: Annotated[
        Literal["table", "json", "jsonl", "csv"], typer.Option("--format", help="On stdout; jsonl: a line each")
    ] = "table",
    on_bad: Annotated[
        Literal["record", "stop"], typer.Option(help="A file that cannot be read: record it and go on, or stop")
    ] = "record",
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime; the usable physical cores without it")] = None,
    batch: Annotated[int, typer.Option(help="Images that are run together, at most")] = 8,
    summary: Annotated[bool, typer.Option("--summary", help="How many images of each class, unlike and failed")] = False,
    least_certain: Annotated[
        int | None, typer.Option("--least-certain", metavar="N", help="Only the N images with the least certain answer")
    ] = None,
    aggregation: Annotated[
        str | None, typer.Option(help="How B-scans of a volume become an eye: mean, top, largest or noisy-or")
    ] = None,
    allow_cut: Annotated[
        bool, typer.Option("--allow-cut", help="Take the whole B-scans of a volume that is cut short")
    ] = False,
    maps: Annotated[
        Path | None,
        typer.Option("--maps", metavar="DIR", help="A heat map of each answer, of the file that answered, into a new folder"),
    ] = None,
) -> int:
    """Classify images and volumes: probabilities of every class, label, confidence; an answer for each B-scan and each eye."""
    from octc.imaging.preprocess import VIEWS

    if not 1 <= batch <= 256:
        raise OctcError("OCT-E104", f"--batch {batch} is out of range", hint="--batch 1 to 256", place="--batch")
    if least_certain is not None and least_certain < 1:
        hint = "--least-certain 10"
        raise OctcError("OCT-E104", f"--least-certain {least_certain} is out of range", hint=hint, place="--least-certain")
    if maps is not None and tta != "none":
        text = "a map is of one view, and --tta answers with the mean of several"
        raise OctcError("OCT-E102", text, hint="--maps DIR without --tta", place="--maps")
    from octc.runtimes.inputs import choose_artifact, log_test_images, scan_inputs, split_inputs

    place, words = split_inputs(inputs, session.run_dir)
    choice = choose_artifact(place, session.run_dir, os.environ)
    found = choice.found
    session.run_id = choice.run_id
    _say_choice(session, choice)
    from octc.runtimes.maps import MapOptions, calls_for, new_folder, write_maps
    from octc.runtimes.predict import classify
    from octc.runtimes.registry import choose_threads, open_runtime
    from octc.runtimes.scans import Reading, aggregation_of, opened, with_eyes

    count, squares = choose_threads(threads), MapOptions(batch=batch)
    paths, left_out = scan_inputs(words)
    if left_out:
        from octc.datasets.tree import words_left

        session.say(f"left out: {words_left(left_out)}")
    how = aggregation_of(found.artifact, aggregation)
    inputs_read = opened(paths, Reading(allow_cut))
    largest = batch if maps is not None else min(batch, len(inputs_read) * len(VIEWS[tta]))
    folder = None if maps is None else new_folder(maps)
    runtime = open_runtime(found.folder, found.artifact, threads=count, batch=largest)
    try:
        _check(session, found, runtime)
        log_test_images(found, paths, session.run_dir, session)
        asked = Asked(len(inputs_read), tta, format_, on_bad == "stop", tuple(left_out), View(summary, least_certain))
        records = classify(runtime, found.artifact, taken(inputs_read), views=tta, batch=batch, threads=count)
        if folder is not None:
            calls = calls_for(found.artifact.preprocess.size, squares)
            session.say(f"  maps           {folder}: occlusion, {calls} runs of the network for each image")
            records = write_maps(runtime, found.artifact, records, folder, squares)
        return deliver(session, found, with_eyes(records, found.artifact, how), asked)
    finally:
        runtime.close()


def _say_choice(session: Session, choice: Choice) -> None:
    from octc.store.artifacts import file_mib

    found, why = choice.found, f" ({choice.why})" if choice.why else ""
    session.say(f"{choice.words}: {found.folder}, {file_mib(found.artifact):.2f} MiB{why}")
    if choice.passed_over:
        session.say(f"  passed over    {choice.passed_over}")


def _check(session: Session, found: Found, runtime: Runtime) -> None:
    """Decoding, resizing and computing as where the artifact was made, before anything is said of a picture."""
    from octc.runtimes.golden import check_golden, require_golden

    report = check_golden(found.folder, found.artifact, runtime)
    require_golden(report, found.artifact)
    facts = runtime.facts
    session.say(
        f"  ✓ golden         {report.images} images, delta over s {report.delta_over_s:.1e} (limit {report.tolerance:g}); "
        f"{facts['runtime']} {facts['version']}, {facts['threads']} threads"
    )


def taken(inputs: list[Input]) -> Iterator[Input]:
    """The inputs in their order, each forgotten once it is taken: a million of them is memory too."""
    inputs.reverse()
    while inputs:
        yield inputs.pop()
