"""The words of `octc predict`: which of them is the artifact, which are images, and which artifact of several answers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from octc.core.clock import utc_now
from octc.core.errors import OctcError, shorten
from octc.core.files import entries
from octc.core.progress import Reporter
from octc.datasets.tree import HIDDEN, Left, scan_words
from octc.imaging.decode import SUFFIXES
from octc.runtimes.model_kind import is_picture, model_kind
from octc.runtimes.registry import passed_over, prefer, why_preferred
from octc.store.artifacts import MANIFEST
from octc.store.find import Found, artifact_of, find_artifacts, folders_if_readable, not_an_artifact
from octc.store.locations import run_of
from octc.store.runs import ID, RUN, scan_runs
from octc.store.test_set_log import log_files
from octc.volumes.formats import ENDINGS, format_of, without_scans


@dataclass(frozen=True)
class Choice:
    """The artifact that answers.

    Attributes:
        words: where it was looked for. why: it was taken among several, else "". passed_over: which are not for this
            processor, and why, else "".
    """

    found: Found
    words: str
    why: str
    passed_over: str

    @property
    def run_id(self) -> str | None:
        """The run that it came from."""
        return str(self.found.artifact.lineage.get("run") or "") or None


def choose_artifact(place: str | None, run_dir: Path, environ: Mapping[str, str]) -> Choice:
    """The artifact at a place (None: of the newest run), of several the one that runs best here.

    Raises:
        OctcError: E107 nothing there, or artifacts of several runs; what `find_artifacts` and `prefer` raise.
    """
    founds, words = find_artifacts(place, run_dir, environ)
    students = [one for one in founds if one.artifact.role == "student"] or founds
    runs = sorted({str(one.artifact.lineage.get("run")) for one in students})
    if len(runs) > 1:
        text = f"artifacts of several runs: {shorten(runs)}"
        raise OctcError("OCT-E107", text, hint=f"name one: octc predict {students[0].folder} IMAGE...", place=place)
    if len(founds) == 1:
        return Choice(founds[0], words, "", "")
    found = prefer(founds)
    return Choice(found, words, why_preferred(found, founds), passed_over(founds))


def log_test_images(found: Found, paths: Iterable[Path], run_dir: Path, reporter: Reporter) -> None:
    """A row of the run's test-set log where test images of it are among the inputs, and the run is here."""
    try:
        if (run := run_of(found.folder, found.artifact, run_dir)) is not None:
            sums = {found.artifact.name: found.artifact.sha256}
            if count := log_files(run.path, paths, sums, "predict", utc_now(), named=True):
                reporter.say(f"  {count} of these are test images of {run.id}: a reading in its test-set log")
    except (OctcError, OSError) as error:
        reporter.say(f"  ! whether test images are among these was not written down: {error}")


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


def is_one_picture(words: Sequence[str]) -> bool:
    """Whether the inputs are a single file that begins as an image and is no volume."""
    return len(words) == 1 and is_picture(path := Path(words[0])) and not is_volume(path)


def _is_place(word: str, run_dir: Path) -> bool:
    """Whether a word says which network answers; what may not be looked at does not."""
    try:
        return _names_a_network(word, run_dir)
    except PermissionError:
        return False


def _names_a_network(word: str, run_dir: Path) -> bool:
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
    elif rest and path.suffix.lower() not in SUFFIXES and not is_picture(path) and not is_volume(path):
        what = "neither an artifact nor an image" if path.exists() else "not here, neither as an artifact nor as an image"
        raise OctcError("OCT-E107", f"{first} is {what}", hint="octc list runs shows what there is", place=first)


def _is_network(word: str, run_dir: Path, *, alone: bool) -> bool:
    """Whether a word behind the first one is an artifact or a run; where no other was named (`alone`), also any model."""
    path = Path(word)
    with contextlib.suppress(PermissionError):
        if path.is_dir():
            return _is_place(word, run_dir) or bool(_runs_in(path))
        if is_volume(path):
            return False
        if path.suffix.lower() in SUFFIXES:  # what is wrong with it is said in its record
            return False
        return _is_place(word, run_dir) or (alone and model_kind(path) is not None)
    return False


def _runs_in(folder: Path) -> list[str]:
    """Names of the run folders directly in a folder, the newest first."""
    try:
        return sorted((one.name for one in folder.iterdir() if (one / RUN).is_file()), reverse=True)
    except OSError:
        return []


def scan_inputs(words: Sequence[str]) -> tuple[list[Path], list[Left]]:
    """Files to classify, and what was left out of folders: other names than an image's, links to folders, debris.

    As `octc.datasets.tree.scan_words` (which raises E201), without the hidden entries, which nobody expects to be read. A file
    that is called a volume is one, whatever it holds: what is wrong with it is said in its record. A DICOM object of a class
    that holds no B-scans (`no_scans`) is left out of a folder as a text is: every disc of a clinic has an index.
    """
    paths, left = scan_words(words, lambda path: may_be_volume(path) and no_scans(path) is None)
    return paths, [replace(one, why=no_scans(Path(one.path)) or one.why) for one in left if one.why != HIDDEN]


def is_volume(path: Path) -> bool:
    """Whether a file holds a volume, by its content; what cannot be looked at does not."""
    with contextlib.suppress(OSError, ValueError, OctcError):
        return path.is_file() and format_of(path) is not None
    return False


def no_scans(path: Path) -> str | None:
    """What a DICOM object of a folder is whose class holds no B-scans: a report, a photograph, an index; None for all else."""
    with contextlib.suppress(OSError, ValueError, OctcError):
        if path.is_file() and (what := without_scans(path)) is not None:
            return f"DICOM, {what}"
    return None


def may_be_volume(path: Path) -> bool:
    """Whether a file of a folder is to be read as a volume: it holds one, or its name says so (and reading says why not)."""
    if is_volume(path):
        return True
    if path.suffix.lower() not in ENDINGS:
        return False
    with contextlib.suppress(OSError, ValueError):
        return not is_picture(path) if path.is_file() else not path.exists()  # a link that leads nowhere; no pipe, no folder
    return False
