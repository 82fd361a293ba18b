"""A bench on another machine: copies the artifacts there, runs the same bench, and copies the results back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from octc.bench.remote.package import place_of, write_package
from octc.bench.remote.ssh import PYTHON, Far, check_address, host_of, run_far
from octc.bench.timing.images import choose_pictures
from octc.bench.timing.job import Job, Subjects, check_writable
from octc.bench.timing.remote_results import FETCHED, take_results, write_partial
from octc.core.errors import OctcError, combined
from octc.core.files import read_json
from octc.core.options import typed
from octc.core.scratch import scratch


@dataclass(frozen=True)
class FarResult:
    """The result from the other machine. text: its terminal output; files: of its report; document: its result, or the partial
    result of an interrupted bench (`partial`: file of it); errors: errors there; interrupted: the interruption here.
    """

    text: str
    files: tuple[Path, ...]
    document: dict[str, Any] | None
    partial: Path | None
    exit_code: int
    errors: tuple[OctcError, ...]
    interrupted: KeyboardInterrupt | None = None

    def raise_if_failed(self) -> None:
        """Raise the interruption here, or the errors of the other machine."""
        if self.interrupted is not None:
            raise self.interrupted
        if self.errors:
            raise combined(self.errors)


def bench_on(address: str, job: Job, subjects: Subjects, python: str = PYTHON) -> FarResult:
    """Copy the artifacts, run the bench there, copy the results back. python: Python command on the other machine.

    Raises:
        OctcError: E102 with readings of a power meter; E104 an invalid address; E606 the other machine failed before the bench.
    """
    if job.requested.power_csv is not None:
        raise OctcError("OCT-E102", "--power-csv and --on: the clocks differ", hint="leave one of them out")
    check_address(address)
    check_writable([found.folder for found in subjects.founds])
    everything = [*subjects.founds, *subjects.teachers]
    with scratch("bench") as folder:
        package, answer = folder / "there.tar", folder / "back.tar"
        pictures: list[str] = []
        if job.images:
            pictures = choose_pictures(job.images, subjects.founds[0], job.run_dir, None, job.environ, folder)[0]
        named = {f"images/{number:03d}{Path(name).suffix}": Path(name) for number, name in enumerate(pictures)}
        write_package(package, everything, named)
        job.reporter.say(f"on {address}: {package.stat().st_size / 2**20:.1f} MiB to copy, over your own ssh")
        far = run_far(address, package, list(_words(job, subjects)), python, answer, job.reporter.say, FETCHED)
        if far.interrupted is not None or any(error.code == "OCT-E606" for error in far.errors):
            return _broken_off(address, far, job, subjects)
        try:
            text, files = take_results(answer, everything, job.reports, address)
        except OctcError as error:
            if error.code != "OCT-E606" or far.partial is None:
                raise
            return _broken_off(address, replace(far, exit_code=error.exit_code, errors=(error,)), job, subjects)
    document = _document(address, files)
    return FarResult(text, tuple(files), document, None, far.exit_code, far.errors)


def _words(job: Job, subjects: Subjects) -> Iterator[str]:
    """The command to run on the other machine."""
    founds = subjects.founds
    yield "bench"
    yield from [place_of(found) for found in founds] if any(subjects.named) else [place_of(founds[0]).rpartition("/")[0]]
    yield from ("--run-dir", "runs")
    yield from typed(job.requested)
    yield from ["--images", "images"] if job.images else []


def _broken_off(address: str, far: Far, job: Job, subjects: Subjects) -> FarResult:
    """Write the partial result after the connection was lost, or the bench was interrupted here."""
    document, written = far.partial, None
    if document is not None:
        document["machine"]["remote_host"] = host_of(address)
        document.update(status="INVALID", exit_code=far.exit_code)
        written = write_partial(document, subjects.founds, job.reports)
    return FarResult("", (), document, written, far.exit_code, far.errors, far.interrupted)


def _document(address: str, files: list[Path]) -> dict[str, Any] | None:
    file = next((file for file in files if file.suffix == ".json"), None)
    if file is None:
        return None
    try:
        found: dict[str, Any] = read_json(file)
    except ValueError as error:
        text = f"{address} sent a result that cannot be read: {error}"
        raise OctcError("OCT-E606", text, hint="octc bench --on again", place=str(file)) from error
    return found
