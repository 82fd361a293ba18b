"""`octc predict`: classify images with an artifact."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli.session import Session
from octc.errors import OctcError, shorten

if TYPE_CHECKING:
    from octc.find import Found
    from octc.runtimes.base import Runtime
    from octc.runtimes.classify import Record
    from octc.tree import Left

FORMATS = ("table", "json", "csv")
SHOWN = 3  # warnings of one kind that are shown one by one
WIDE = 8  # classes that a table has columns for


def predict(
    session: Session,
    inputs: Annotated[
        list[str], typer.Argument(metavar="[BUNDLE] INPUT...", help="Images or folders; before them, the artifact")
    ],
    tta: Annotated[str, typer.Option(help="Views that are averaged: none, hflip or 5")] = "none",
    format_: Annotated[str, typer.Option("--format", help="table, json or csv, on stdout")] = "table",
    on_bad: Annotated[str, typer.Option(help="A file that cannot be read: record it and go on, or stop")] = "record",
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime; the usable physical cores without it")] = None,
    batch: Annotated[int, typer.Option(help="Images that are run together, at most")] = 8,
) -> int:
    """Classify images: probabilities of every class, label, confidence."""
    from octc.image import VIEWS

    for name, value, known in (
        ("--tta", tta, tuple(VIEWS)),
        ("--format", format_, FORMATS),
        ("--on-bad", on_bad, ("record", "stop")),
    ):
        if value not in known:
            raise OctcError("OCT-E104", f"{name} {value!r} is not known", mend=f"one of: {', '.join(known)}", place=name)
    if not 1 <= batch <= 256:
        raise OctcError("OCT-E104", f"--batch {batch} is out of range", mend="--batch 1 to 256", place="--batch")
    place, words = split_inputs(inputs, session.run_dir)
    found = _choose(session, place)
    from octc.runtimes.table import choose_threads, open_runtime

    count = choose_threads(threads)
    paths, left_out = scan_inputs(words)
    if left_out:
        from octc.tree import words_left

        session.say(f"left out: {words_left(left_out)}")
    views = len(VIEWS[tta])
    runtime = open_runtime(found.folder, found.artifact, threads=count, batch=min(batch, len(paths) * views))
    try:
        _check(session, found, runtime)
        _log_test_images(session, found, paths)
        records = _classify(session, found, runtime, paths, (tta, batch, count), stop=on_bad == "stop")
    finally:
        runtime.close()
    _deliver(session, found, records, left_out, tta, format_)
    return _end(records, len(paths), stop=on_bad == "stop")


def _log_test_images(session: Session, found: Found, paths: Sequence[Path]) -> None:
    """A row of the run's test-set log where test images of it are among the inputs, and the run is here."""
    from octc.artifact import MANIFEST
    from octc.bench.verify_set import run_of
    from octc.files import sha256_file
    from octc.run import utc_now
    from octc.test_set_log import log_files

    try:
        if (run := run_of(found.folder, found.artifact, session.run_dir)) is not None:
            sums = {found.artifact.name: sha256_file(found.folder / MANIFEST)}
            if count := log_files(run.path, paths, sums, "predict", utc_now(), named=True):
                session.say(f"  {count} of these are test images of {run.id}: a reading in its test-set log")
    except (OctcError, OSError) as error:
        session.say(f"  ! whether test images are among these was not written down: {error}")


def split_inputs(words: Sequence[str], run_dir: Path) -> tuple[str | None, list[str]]:
    """The artifact's place, if the first word is one, and the inputs.

    A word is a place when it is a folder with artifact.json, a folder of such folders, a run folder, or, where nothing of that
    name is on disk, the id of a run (or its beginning).

    Raises:
        OctcError: E104 when no input is left.
    """
    from octc.artifact import MANIFEST
    from octc.find import artifact_folders
    from octc.run import ID, RUN, scan_runs

    first = Path(words[0])
    held = (first / MANIFEST).is_file() or (first / RUN).is_file() or bool(artifact_folders(first))
    named = not os.path.lexists(first) and ID.match(words[0]) and any(r.id.startswith(words[0]) for r in scan_runs(run_dir))
    if not (held or named):
        return None, list(words)
    if len(words) < 2:
        raise OctcError(
            "OCT-E104", "no input: only an artifact was given", mend=f"octc predict {words[0]} IMAGE... or a folder"
        )
    return words[0], list(words[1:])


def scan_inputs(words: Sequence[str]) -> tuple[list[Path], list[Left]]:
    """Files to classify, and what was left out of folders: other names than an image's, links to folders, debris.

    As `octc.tree.scan_words` (which raises E201), without the hidden entries, which nobody expects to be read.
    """
    from octc.tree import HIDDEN, scan_words

    paths, left = scan_words(words)
    return paths, [one for one in left if one.why != HIDDEN]


def _choose(session: Session, place: str | None) -> Found:
    from octc.find import find_artifacts
    from octc.runtimes.table import passed_over, prefer

    founds, words = find_artifacts(place, session.run_dir, os.environ)
    found = founds[0] if len(founds) == 1 else prefer(founds)
    session.say(words if len(founds) == 1 else f"{words}: {found.folder.name}, the smallest that runs here")
    if len(founds) > 1 and (others := passed_over(founds)):
        session.say(f"  passed over    {others}")
    session.run_id = str(found.artifact.lineage.get("run") or "") or None
    return found


def _check(session: Session, found: Found, runtime: Runtime) -> None:
    """Decoding, resizing and computing as where the artifact was made, before anything is said of a picture."""
    from octc.artifact import read_golden
    from octc.runtimes.golden import check_input, replay, require_golden

    golden = read_golden(found.folder)
    check_input(golden, found.artifact.preprocess)
    report = replay(runtime, golden, found.artifact)
    require_golden(report, found.artifact)
    facts = runtime.facts
    session.say(
        f"  ✓ golden         {report.images} images, delta over s {report.delta_over_s:.1e} (limit {report.tolerance:g}); "
        f"{facts['runtime']} {facts['version']}, {facts['threads']} threads"
    )


def _classify(
    session: Session, found: Found, runtime: Runtime, paths: Sequence[Path], how: tuple[str, int, int], *, stop: bool
) -> list[Record]:
    from octc.runtimes.classify import classify

    tta, batch, threads = how
    records: list[Record] = []
    with session.progress("images", len(paths)) as step:
        for record in classify(runtime, found.artifact, paths, views=tta, batch=batch, threads=threads):
            records.append(record)
            step(1)
            if stop and record.error is not None:
                break
    return records


def _deliver(
    session: Session, found: Found, records: Sequence[Record], left_out: Sequence[Left], tta: str, format_: str
) -> None:
    import json
    from dataclasses import asdict

    artifact = found.artifact
    classes = artifact.classes
    checked = artifact.details.get("input_statistics") is not None
    document: dict[str, Any] = {
        "artifact": {"name": artifact.name, "folder": str(found.folder), "model": artifact.model, "classes": list(classes)},
        "tta": tta, "likeness_checked": checked,
        "records": [record.to_json(classes) for record in records], "left_out": [asdict(one) for one in left_out],
    }  # fmt: skip
    session.report(document)
    writers: dict[str, Callable[[], Any]] = {
        "table": lambda: _table(records, classes),
        "json": lambda: json.dumps(document, indent=1, allow_nan=False),
        "csv": lambda: _csv(records, classes),
    }
    session.result(writers[format_]())
    if not checked:
        session.warn("OCT-W803", "likeness to the training images not checked: this artifact does not know them")
    _warn(session, records)


def _warn(session: Session, records: Sequence[Record]) -> None:
    """Warnings by kind; many of one kind become one line."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for record in records:
        for code, text in record.notes:
            kinds.setdefault(code, []).append((text, str(record.path)))
    for code, rows in kinds.items():
        if len(rows) <= SHOWN:
            for text, path in rows:
                session.warn(code, text, path)
        else:
            session.warn(code, f"{len(rows)} inputs, the first: {rows[0][0]}; {shorten([path for _, path in rows])}")


def _table(records: Sequence[Record], classes: Sequence[str]) -> Any:
    from octc.cli.tables import Rows

    columns = ("file", "label", "confidence", *(classes if len(classes) <= WIDE else ("likeliest",)), "remarks")
    return Rows(columns, [_row(record, classes) for record in records])


def _row(record: Record, classes: Sequence[str]) -> list[str]:
    if record.probabilities is None:
        cells = ["-"] * (min(len(classes), WIDE) if len(classes) <= WIDE else 1)
        error = record.error
        return [_shown(record), "-", "-", *cells, "" if error is None else f"{error.code}: {error.message}"]
    if len(classes) <= WIDE:
        cells = [f"{value:.4f}" for value in record.probabilities]
    else:
        order = sorted(range(len(classes)), key=lambda k: -(record.probabilities or ())[k])[:3]
        cells = [", ".join(f"{classes[k]} {record.probabilities[k]:.4f}" for k in order)]
    label = "unlike" if record.unlike else classes[record.label or 0]
    if record.labels is not None and not record.unlike:
        label = " ".join(classes[k] for k in record.labels) or "none"
    return [_shown(record), label, f"{record.confidence:.4f}", *cells, "; ".join(code for code, _ in record.notes)]


def _shown(record: Record) -> str:
    """A path on one line, whatever its name holds."""
    return "".join(
        sign if sign.isprintable() or "\ud800" <= sign <= "\udfff" else repr(sign)[1:-1] for sign in str(record.path)
    )


def _csv(records: Sequence[Record], classes: Sequence[str]) -> str:
    import csv
    import io

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", "status", "label", "confidence", *(f"p_{name}" for name in classes), "distance", "notes", "error"])
    for record in records:
        value = record.to_json(classes)
        numbers = record.probabilities or [""] * len(classes)
        notes = "; ".join(f"{code} {text}" for code, text in record.notes)
        error = "" if record.error is None else f"{record.error.code} {record.error.message}"
        first = [value["file"], value["status"], value["label"] or "", "" if record.confidence is None else record.confidence]
        writer.writerow([*first, *numbers, "" if value["distance"] is None else value["distance"], notes, error])
    return stream.getvalue()


def _end(records: Sequence[Record], total: int, *, stop: bool) -> int:
    failed = [(record.path, record.error) for record in records if record.error is not None]
    if not failed:
        return 0
    path, error = failed[0]
    if stop and error is not None:
        raise error
    named = shorten([f"{path} ({error.code})" for path, error in failed if error is not None])
    raise OctcError(
        "OCT-E801", f"{len(failed)} of {total} inputs failed: {named}",
        mend="see the error records; the other results are complete", place=str(path),
    )  # fmt: skip
