"""One input opened: what it is, its digest, and its pictures ready for the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from octc.archive.listing import GONE, state_of
from octc.archive.rows import shown
from octc.core.errors import OctcError
from octc.core.faults import fault_of, may_be_of_one_file
from octc.core.files import closed_folder, sha256_bytes, sha256_file
from octc.datasets.tree import has_file, has_folder, scan_folder
from octc.imaging.decode import MAX_BYTES, SUFFIXES, decode_file, read_image
from octc.imaging.input_statistics import InputStatistics
from octc.runtimes.predict import Prepared, Record, Scan, prepare_input
from octc.runtimes.scans import LACKING, Reading, volumes_in
from octc.store.artifacts import Artifact
from octc.volumes import dicom
from octc.volumes.volume import Volume

Rows = tuple[list[dict[str, Any]], list[dict[str, Any]]]  # of scans, of eyes
PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM")  # no volume begins so


@dataclass(frozen=True)
class Opener:
    """How inputs are opened.

    Attributes:
        names: of the views. known: statistics of the training images. kept: (file, sha256) -> rows that are there already.
        planned: which of some paths are inputs that were listed with these. has_inputs: whether any lies in a folder.
    """

    artifact: Artifact
    names: Sequence[str]
    known: InputStatistics | None
    how: Reading
    kept: Mapping[tuple[str, str], Rows] = field(default_factory=dict)
    planned: Callable[[Sequence[str]], set[str]] = lambda _: set()
    has_inputs: Callable[[str], bool] = lambda _: False

    def open(self, numbered: tuple[int, str]) -> File:
        """An input by its place in the unit and its path. Raises OctcError: what the machine lacks."""
        place, name = numbered
        begun = time.perf_counter()
        state = state_of(name)
        try:
            found = self._opened(place, name, state)
        except Exception as error:
            return File(place, name, state, error=of_input(error, name))
        now = state_of(name)
        if found.kept is None and now != state and not found.volumes:
            return File(place, name, state, error=changed(name))
        spent = (time.perf_counter() - begun - found.hashing) * 1000
        return replace(found, milliseconds=spent)

    def _opened(self, place: int, name: str, state: tuple[int, int]) -> File:
        path = Path(name)
        if has_folder(path):
            return self._folder(place, name)
        if state == GONE:
            rows = next((rows for (file, _), rows in self.kept.items() if file == shown(name)), None)
            if rows is not None:  # it was done, and is no longer there
                return File(place, name, state, kept=rows)
        data = _bytes(path) if path.suffix.lower() in SUFFIXES else b""
        volumes = None if data.startswith(PICTURES) else volumes_in(path, self.how)
        if isinstance(volumes, OctcError):
            raise volumes
        if volumes is not None:
            return self._volumes(place, name, state, volumes)
        data = data or _bytes(path)
        if not data:
            read_image(path)  # says what is wrong
        begun = time.thread_time()
        sha256 = sha256_bytes(data)
        hashing = time.thread_time() - begun
        if (rows := self.kept.get((shown(name), sha256))) is not None:
            return File(place, name, state, sha256, kept=rows, hashing=hashing)
        values = self.artifact.preprocess.value_range
        prepared = prepare_input(self.artifact, path, self.names, self.known, lambda _: decode_file(data, path, values))
        return File(place, name, state, sha256, prepared=prepared, hashing=hashing)

    def _folder(self, place: int, name: str) -> File:
        """A folder that could not be read when the inputs were listed. Where it can be read, and what is in it is planned, it
        is no input any more. Raises: OctcError E231 it cannot be read, E201 what is in it is in no plan."""
        images, others, folders, why = scan_folder(Path(name))
        if why:
            raise closed_folder(name, why)
        if not self.has_inputs(name):
            text = "is a folder" if not (images or others or folders) else "is a folder whose files are not in the plan"
            hint = "name files in a table; a folder that can be read again: the same command without --shard once"
            raise OctcError("OCT-E201", text, hint=hint, place=name)
        return File(place, name, GONE, is_folder=True)

    def _volumes(self, place: int, name: str, state: tuple[int, int], volumes: list[Volume]) -> File:
        """A volume of several files has the digest of all of them, and belongs to the first of its parts."""
        begun = time.perf_counter()
        others = sorted({str(other) for one in volumes for other in one.others})
        sums = sorted(sha256_file(Path(one)) for one in (name, *others))
        sha256 = sums[0] if len(sums) == 1 else sha256_bytes("".join(sums).encode())
        hashing = time.perf_counter() - begun
        before = [one for one in others if one < name] if volumes[0].format == dicom.NAME else []
        parts = self.planned(before) if before else set()
        if (rows := self.kept.get((shown(name), sha256))) is not None:
            return File(place, name, state, sha256, kept=rows, hashing=hashing)
        return File(place, name, state, sha256, volumes=[] if parts else volumes, hashing=hashing)

    def frame(self, scan: Scan) -> tuple[Prepared, float]:
        """A B-scan of a volume, and the milliseconds that it took. Raises OctcError: what the machine lacks."""
        begun = time.perf_counter()
        try:
            found = prepare_input(self.artifact, scan, self.names, self.known)
        except Exception as error:
            found = unread_frame(scan, of_input(error, scan.volume.name))
        return found, (time.perf_counter() - begun) * 1000


def _bytes(path: Path) -> bytes:
    """What a picture may hold; nothing of what is no file, empty, or too large for one."""
    return path.read_bytes() if has_file(path) and 0 < path.stat().st_size <= MAX_BYTES else b""


@dataclass(frozen=True)
class File:
    """An input that was opened: a picture (`prepared`), volumes, rows of before, or an error; or none any more (`is_folder`:
    what is in it are inputs of their own). hashing: seconds of that (of a
    processor for a picture, whose bytes are in memory by then)."""

    place: int
    name: str
    state: tuple[int, int]
    sha256: str | None = None
    prepared: Prepared | None = None
    volumes: list[Volume] = field(default_factory=list)
    kept: Rows | None = None
    error: OctcError | None = None
    hashing: float = 0.0
    milliseconds: float = 0.0
    is_folder: bool = False


def unread_frame(scan: Scan, error: OctcError) -> Prepared:
    """A B-scan without an answer."""
    return Prepared(Record(Path(scan.volume.name), scan=scan, error=error), None)


def changed(name: str) -> OctcError:
    """E239 of an input that was written to while it was read."""
    hint = "when it is no longer written to: the same command again"
    return OctcError("OCT-E239", "changed while it was read", hint=hint, place=name)


def of_input(error: Exception, name: str) -> OctcError:
    """What is wrong with an input; what the machine lacks is raised."""
    if isinstance(error, OctcError) and (error.exit_code != 4 or error.code in LACKING):
        return error
    if isinstance(error, OSError) and (may_be_of_one_file(error) or fault_of(error) is None):
        text = f"cannot be read: {error.strerror or type(error).__name__}"
        return OctcError("OCT-E201", text, hint="check the path", place=name)
    if (fault := fault_of(error, name)) is not None:
        raise fault from error
    if isinstance(error, OctcError):
        raise error
    text = f"internal error: {type(error).__name__}: {error}"[:300]
    return OctcError("OCT-E999", text, hint="report this with the file, or one like it", place=name)
