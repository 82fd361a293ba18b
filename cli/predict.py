"""`octc predict`: classify images with an artifact."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.cli.predict_rows import FORMATS, View, deliver
from octc.core.errors import OctcError, shorten

if TYPE_CHECKING:
    from octc.datasets.tree import Left
    from octc.runtimes.base import Runtime
    from octc.store.find import Found


def predict(
    session: Session,
    inputs: Annotated[
        list[str], typer.Argument(metavar="[ARTIFACT] INPUT...", help="Images or folders; before them, the artifact")
    ],
    tta: Annotated[str, typer.Option(help="Views that are averaged: none, hflip or 5")] = "none",
    format_: Annotated[str, typer.Option("--format", help="table, json, jsonl (a line each) or csv, on stdout")] = "table",
    on_bad: Annotated[str, typer.Option(help="A file that cannot be read: record it and go on, or stop")] = "record",
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime; the usable physical cores without it")] = None,
    batch: Annotated[int, typer.Option(help="Images that are run together, at most")] = 8,
    summary: Annotated[bool, typer.Option("--summary", help="How many images of each class, unlike and failed")] = False,
    least_certain: Annotated[
        int | None, typer.Option("--least-certain", metavar="N", help="Only the N images with the least certain answer")
    ] = None,
) -> int:
    """Classify images: probabilities of every class, label, confidence."""
    from octc.imaging.preprocess import VIEWS

    for name, value, known in (
        ("--tta", tta, tuple(VIEWS)),
        ("--format", format_, FORMATS),
        ("--on-bad", on_bad, ("record", "stop")),
    ):
        if value not in known:
            raise OctcError("OCT-E104", f"{name} {value!r} is not known", hint=f"one of: {', '.join(known)}", place=name)
    if not 1 <= batch <= 256:
        raise OctcError("OCT-E104", f"--batch {batch} is out of range", hint="--batch 1 to 256", place="--batch")
    if least_certain is not None and least_certain < 1:
        hint = "--least-certain 10"
        raise OctcError("OCT-E104", f"--least-certain {least_certain} is out of range", hint=hint, place="--least-certain")
    place, words = split_inputs(inputs, session.run_dir)
    found = _choose(session, place)
    from octc.runtimes.predict import classify
    from octc.runtimes.registry import choose_threads, open_runtime

    count = choose_threads(threads)
    paths, left_out = scan_inputs(words)
    if left_out:
        from octc.datasets.tree import words_left

        session.say(f"left out: {words_left(left_out)}")
    views = len(VIEWS[tta])
    runtime = open_runtime(found.folder, found.artifact, threads=count, batch=min(batch, len(paths) * views))
    try:
        _check(session, found, runtime)
        _log_test_images(session, found, paths)
        total, view = len(paths), View(summary, least_certain)
        records = classify(runtime, found.artifact, taken(paths), views=tta, batch=batch, threads=count)
        stop = on_bad == "stop"
        return deliver(session, found, records, total, tta, format_, stop=stop, left_out=left_out, view=view)
    finally:
        runtime.close()


def _log_test_images(session: Session, found: Found, paths: Sequence[Path]) -> None:
    """A row of the run's test-set log where test images of it are among the inputs, and the run is here."""
    from octc.core.files import sha256_file
    from octc.store.artifacts import MANIFEST
    from octc.store.locations import run_of
    from octc.store.runs import utc_now
    from octc.store.test_set_log import log_files

    try:
        if (run := run_of(found.folder, found.artifact, session.run_dir)) is not None:
            sums = {found.artifact.name: sha256_file(found.folder / MANIFEST)}
            if count := log_files(run.path, paths, sums, "predict", utc_now(), named=True):
                session.say(f"  {count} of these are test images of {run.id}: a reading in its test-set log")
    except (OctcError, OSError) as error:
        session.say(f"  ! whether test images are among these was not written down: {error}")


def split_inputs(words: Sequence[str], run_dir: Path) -> tuple[str | None, list[str]]:
    """The artifact's place, if the first word is one, and the inputs.

    A word is a place when it is an artifact folder or a file in one, a folder of artifacts, a run folder or its run.json, or,
    where nothing of that name is on disk, the id of a run (or its beginning). Content decides what a file is, not its name.

    Raises:
        OctcError: E104 no input is left, or an artifact stands behind the first word; E107 the first word is a model without
            an artifact, a folder of runs, or neither an artifact nor an image. Else another network than was meant would
            answer.
    """
    first, rest = words[0], list(words[1:])
    place = first if _is_place(first, run_dir) else None
    if place is None:
        with contextlib.suppress(PermissionError):  # what may not be looked at is an input, and its record says so
            _check_first(first, rest)
    elif not rest:
        raise OctcError("OCT-E104", "no input: only an artifact was given", hint=f"octc predict {first} IMAGE... or a folder")
    other = next((word for word in rest if _is_network(word, run_dir, alone=place is None)), None)
    if other is not None and place is None:
        text = f"{other} is no image: an artifact is the first word"
        raise OctcError("OCT-E104", text, hint=f"octc predict {other} {first}", place=other)
    if other is not None:
        text = f"two artifacts were named: {first} and {other}"
        raise OctcError("OCT-E104", text, hint="a command for each", place=other)
    return place, rest if place is not None else list(words)


def _is_place(word: str, run_dir: Path) -> bool:
    """Whether a word says which network answers; what may not be looked at does not."""
    try:
        return _names_a_network(word, run_dir)
    except PermissionError:
        return False


def _names_a_network(word: str, run_dir: Path) -> bool:
    from octc.imaging.preprocess import SUFFIXES
    from octc.runtimes.model_kind import is_picture
    from octc.store.artifacts import MANIFEST
    from octc.store.find import artifact_of, folders_if_readable
    from octc.store.runs import ID, RUN, scan_runs

    path = Path(word)
    if path.is_dir():
        return any((path / name).is_file() for name in (MANIFEST, RUN)) or any(
            folders_if_readable(place, MANIFEST) for place in (path, path / "artifacts")
        )
    if path.is_file():
        return (artifact_of(path) is not None or path.name == RUN) and not is_picture(path)
    if os.path.lexists(path) or not ID.match(word):
        return False
    return path.suffix.lower() not in SUFFIXES or any(run.id.startswith(word) for run in scan_runs(run_dir))


def _check_first(first: str, rest: Sequence[str]) -> None:
    """Refuse a first word that was meant as a network and is none that octc can run (E107)."""
    from octc.core.files import entries
    from octc.imaging.preprocess import SUFFIXES
    from octc.runtimes.model_kind import is_picture, model_kind
    from octc.store.find import not_an_artifact

    path = Path(first)
    if path.is_dir():
        if runs := _runs_in(path):
            text = f"{first} is a folder of runs"
            raise OctcError("OCT-E107", text, hint=f"name one: octc predict {path / runs[0]} IMAGE...", place=first)
        inside: list[Path] = []
        with contextlib.suppress(OctcError):  # a folder that cannot be read is an input, whose record says so
            inside = entries(path) if rest else []
        for one in inside:
            if kind := model_kind(one):
                raise not_an_artifact(one, f"a model ({kind})")
    elif kind := model_kind(path):
        raise not_an_artifact(path, f"a model ({kind})")
    elif rest and path.suffix.lower() not in SUFFIXES and not is_picture(path):
        what = "neither an artifact nor an image" if path.exists() else "not here, neither as an artifact nor as an image"
        raise OctcError("OCT-E107", f"{first} is {what}", hint="octc list runs shows what there is", place=first)


def _is_network(word: str, run_dir: Path, *, alone: bool) -> bool:
    """Whether a word behind the first one is an artifact or a run; where no other was named (`alone`), also any model."""
    from octc.imaging.preprocess import SUFFIXES
    from octc.runtimes.model_kind import model_kind

    path = Path(word)
    with contextlib.suppress(PermissionError):
        if path.is_dir():
            return _is_place(word, run_dir) or bool(_runs_in(path))
        if path.suffix.lower() in SUFFIXES:  # what is wrong with it is said in its record
            return False
        return _is_place(word, run_dir) or (alone and model_kind(path) is not None)
    return False


def _runs_in(folder: Path) -> list[str]:
    """Names of the run folders directly in a folder, the newest first."""
    from octc.store.runs import RUN

    try:
        return sorted((one.name for one in folder.iterdir() if (one / RUN).is_file()), reverse=True)
    except OSError:
        return []


def scan_inputs(words: Sequence[str]) -> tuple[list[Path], list[Left]]:
    """Files to classify, and what was left out of folders: other names than an image's, links to folders, debris.

    As `octc.datasets.tree.scan_words` (which raises E201), without the hidden entries, which nobody expects to be read.
    """
    from octc.datasets.tree import HIDDEN, scan_words

    paths, left = scan_words(words)
    return paths, [one for one in left if one.why != HIDDEN]


def _choose(session: Session, place: str | None) -> Found:
    from octc.bench.timing.footprint import file_mib
    from octc.runtimes.registry import passed_over, prefer, why_preferred
    from octc.store.find import find_artifacts

    founds, words = find_artifacts(place, session.run_dir, os.environ)
    students = [one for one in founds if one.artifact.role == "student"] or founds
    runs = sorted({str(one.artifact.lineage.get("run")) for one in students})
    if len(runs) > 1:
        text = f"artifacts of several runs: {shorten(runs)}"
        raise OctcError("OCT-E107", text, hint=f"name one: octc predict {students[0].folder} IMAGE...", place=place)
    found = founds[0] if len(founds) == 1 else prefer(founds)
    why = f" ({why_preferred(found, founds)})" if len(founds) > 1 else ""
    session.say(f"{words}: {found.folder}, {file_mib(found.artifact):.2f} MiB{why}")
    if len(founds) > 1 and (others := passed_over(founds)):
        session.say(f"  passed over    {others}")
    session.run_id = str(found.artifact.lineage.get("run") or "") or None
    return found


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


def taken(paths: list[Path]) -> Iterator[Path]:
    """The paths in their order, each forgotten once it is taken: a million of them is memory too."""
    paths.reverse()
    while paths:
        yield paths.pop()
