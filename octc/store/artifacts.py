"""The artifact: a folder that is complete by itself. Model files, artifact.json with their sums, golden.npz,
USE.md (how to run it without octc).

`verify.json`, `bench-<host>.json` and `samples/` may be added later where they are measured, and `artifact.sig.json` or
`artifact.oms.sig` where it is signed; nothing else may lie there.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import struct
import tokenize
import zipfile
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.core.errors import OctcError
from octc.core.faults import fault_of
from octc.core.files import WRITER, parse_json, sha256_bytes, sha256_file, write_json
from octc.core.targets import TARGETS
from octc.datasets.tree import DEBRIS, litter
from octc.imaging.preprocess import Preprocess
from octc.schemas.artifact import VERSION, Manifest
from octc.schemas.common import convert
from octc.store.signature import check_signature

MANIFEST = "artifact.json"
GOLDEN = "golden.npz"
USAGE = "USE.md"
LARGEST = 2_000_000_000  # bytes of one file; protobuf ends at 2 GiB
MOST_MANIFEST = 16 << 20
MOST_GOLDEN = 256 << 20  # bytes, unpacked
# what numpy, zipfile and zlib were seen to raise on altered bytes
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    EOFError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
DROPPED = (".DS_Store", "._")  # by macOS in every folder, and beside every file
NOT_MODEL = (GOLDEN, USAGE)  # travel with the model, and are not loaded to run it
# what may be added, also while it is being written, or left half-written where the writer was killed
LATER = re.compile(
    rf"^((?:{WRITER.pattern})?(verify(-device)?\.json|artifact\.sig\.json|artifact\.oms\.sig|bench-[A-Za-z0-9._-]+\.json)"
    rf"|{WRITER.pattern}{re.escape(MANIFEST)}|samples/.+)$"
)


@dataclass(frozen=True)
class FileEntry:
    """A listed file: checksum and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Artifact:
    """What artifact.json says.

    Attributes:
        role: "student" or "teacher".
        model: timm name of the network.
        preprocess: what `Preprocess.prepare` must be told; the graph takes uint8 [N, channels, size, size].
        output: logits float32 [N, classes]. task: a `TaskName`: what they are turned into probabilities by (softmax, sigmoid).
        lineage: run, recipe, dataset, split_digest, data_digest, checkpoint sum, versions, licence of the weights.
        details: facts of the export (opset, placement, quantised convolutions, gate, fallback steps, size).
        files: every file but the manifest, by name.
        sha256: of artifact.json as it was read or written, the artifact's identity; "" of one that no folder holds. Whoever
            tells what was run takes it from here: the folder may hold another artifact by then.
    """

    name: str
    role: str
    model: str
    target: str
    precision: str
    classes: tuple[str, ...]
    preprocess: Preprocess
    lineage: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)
    main_file: str = ""
    task: str = "multiclass"
    sha256: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        value = {"schema_version": VERSION, **asdict(self)}
        del value["sha256"]
        if self.preprocess.value_range is None:  # as it was before there were any
            del value["preprocess"]["value_range"]
        return value


@dataclass(frozen=True)
class Golden:
    """Reference inputs and logits.

    inputs uint8 [N, channels, size, size]; logits float32 [N, classes] (of the torch model the file was made from: the float
    model, or the fake-quantised one for INT8); source_png a picture as PNG bytes, source_input what `prepare` made of it.
    """

    inputs: npt.NDArray[np.uint8]
    logits: npt.NDArray[np.float32]
    source_png: npt.NDArray[np.uint8]
    source_input: npt.NDArray[np.uint8]


def write_manifest(folder: Path, artifact: Artifact) -> Artifact:
    """List every file of `folder` with its checksum and write artifact.json, last."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {n: FileEntry(sha256_file(folder / n), (folder / n).stat().st_size) for n in names if not LATER.match(n)}
    listed = replace(artifact, files=files)
    write_json(folder / MANIFEST, listed.to_json())
    return replace(listed, sha256=artifact_sha256(folder))


def write_golden(folder: Path, golden: Golden) -> None:
    """Write golden.npz (into a folder that is being published)."""
    np.savez_compressed(
        folder / GOLDEN,
        inputs=golden.inputs,
        logits=golden.logits,
        source_png=golden.source_png,
        source_input=golden.source_input,
    )


def read_golden(folder: Path, artifact: Artifact | None = None) -> Golden:
    """Read golden.npz: plain arrays of the types and shapes that `Golden` names, no pickle (E502). artifact: whose golden
    images they must be (E501 those of another one that took its place)."""
    try:
        data = (folder / GOLDEN).read_bytes() if artifact is None else read_listed(folder, artifact, GOLDEN)
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            size = sum(entry.file_size for entry in packed.infolist())
            if len(set(packed.namelist())) != len(packed.namelist()):
                raise ValueError("an array that stands twice")
        if size > MOST_GOLDEN:
            raise ValueError(f"{size} bytes unpacked, the limit is {MOST_GOLDEN}")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            golden = Golden(arrays["inputs"], arrays["logits"], arrays["source_png"], arrays["source_input"])
        _check_golden(golden)
    except DAMAGE as error:
        raise _bad("OCT-E502", f"golden file cannot be read: {error}", folder / GOLDEN) from error
    return golden


def _check_golden(golden: Golden) -> None:
    kinds = [(a.dtype.str[1:], a.ndim) for a in (golden.inputs, golden.logits, golden.source_png, golden.source_input)]
    if kinds != [("u1", 4), ("f4", 2), ("u1", 1), ("u1", 4)] or not 0 < len(golden.inputs) == len(golden.logits):
        raise ValueError(f"arrays of other types or shapes than expected: {kinds}")
    if not np.isfinite(golden.logits).all():
        raise ValueError("reference logits that are not finite")


def read_artifact(folder: Path) -> Artifact:
    """Read and check an artifact: manifest, list of files, checksums.

    Raises:
        OctcError: E107 no manifest, E502 the manifest is not valid, or a file is missing, unlisted, a link, not readable or
            outside the folder, E504 a file is too large, E501 a checksum differs, E507 the signature does not hold.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise OctcError("OCT-E107", f"no artifact at {folder}", hint="octc export makes one", place=str(folder))
    try:
        if manifest.stat().st_size > MOST_MANIFEST:
            raise ValueError(f"{manifest.stat().st_size} bytes, the limit is {MOST_MANIFEST}")
        data = manifest.read_bytes()
        artifact = _from_json(parse_json(data, MOST_MANIFEST), manifest)
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        if (fault := fault_of(error, manifest)) is not None:
            raise fault from error
        raise _bad("OCT-E502", f"manifest is not valid: {str(error)[:300]}", manifest) from error
    try:
        _check_names(folder, artifact)
        _check_sums(folder, artifact)
    except OSError as error:
        if (fault := fault_of(error, folder)) is not None:
            raise fault from error
        raise _bad("OCT-E502", f"{error.filename} cannot be read: {error.strerror}", folder) from error
    artifact = replace(artifact, sha256=sha256_bytes(data))
    check_signature(folder, artifact.sha256)
    return artifact


def read_same(folder: Path, sha256: str) -> Artifact:
    """`read_artifact` of the artifact with this identity.

    Raises:
        OctcError: E110 another artifact lies there now; and what `read_artifact` raises.
    """
    artifact = read_artifact(folder)
    if artifact.sha256 != sha256:
        text = f"{folder} holds another artifact than at the beginning"
        hint = "give the command again, when whoever copies or exports this artifact has ended (results: another --out)"
        raise OctcError("OCT-E110", text, hint=hint, place=str(folder))
    return artifact


def read_listed(folder: Path, artifact: Artifact, name: str) -> bytes:
    """A file of an artifact that `read_artifact` has read, with the checksum that stands in its manifest.

    Engines are given these bytes, not the path: somebody may replace or write over the file (`scp -r` does) at any moment, also
    while an engine has it open, which then answers with another network, or ends with its process where the file is mapped.

    Raises:
        OctcError: E501 it is another file by now. OSError: it cannot be read.
    """
    data = (folder / name).read_bytes()
    listed = artifact.files.get(name)
    if listed is not None and sha256_bytes(data) != listed.sha256:
        text = f"{name} was replaced or written over since {artifact.name} was checked"
        hint = "give the command again, when whoever copies or exports this artifact has ended"
        raise OctcError("OCT-E501", text, hint=hint, place=str(folder / name))
    return data


def _check_sums(folder: Path, artifact: Artifact) -> None:
    for name, entry in artifact.files.items():
        path = folder / name
        if max(entry.bytes, path.stat().st_size) > LARGEST:
            text = f"{name} has {max(entry.bytes, path.stat().st_size)} bytes, the limit is {LARGEST}"
            raise _bad("OCT-E504", text, path)
        if path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
            raise _bad("OCT-E501", f"{name} does not match its sha256", path)


def _bad(code: str, message: str, place: Path) -> OctcError:
    return OctcError(code, message, hint="do not use this artifact; copy it again from where it was made", place=str(place))


def _unlisted(path: Path, name: str) -> OctcError:
    """E502 of a file that the manifest does not list; what a file manager leaves in every folder has a hint of its own."""
    hint = "take it out if you put it there; else do not use this artifact, and copy it again from where it was made"
    if any(litter(part) == DEBRIS or part.startswith(DROPPED) for part in PurePosixPath(name).parts):
        hint = f"rm {shlex.quote(str(path))}   (a file manager, or a program that copies, left it; scp -r leaves none)"
    return OctcError("OCT-E502", f"{name} is not listed in the manifest", hint=hint, place=str(path))


def _check_names(folder: Path, artifact: Artifact) -> None:
    for name in (*artifact.files, artifact.main_file):
        pure = PurePosixPath(name)
        if (
            not name.isprintable()
            or pure.is_absolute()
            or ".." in pure.parts
            or "\\" in name
            or str(pure) != name
            or name == "."
        ):
            raise _bad("OCT-E502", f"unsafe path in the manifest: {name!r}", folder)
    if artifact.main_file not in artifact.files:
        raise _bad("OCT-E502", f"main file {artifact.main_file!r} is not listed", folder)
    for name in artifact.files:
        path = folder / name
        if any(p.is_symlink() for p in (path, *path.parents) if p != folder and folder in p.parents):
            raise _bad("OCT-E502", f"{name} is a symbolic link", path)
        if not path.is_file():
            raise _bad("OCT-E502", f"{name} is listed but missing", path)
    for place, folders, files in os.walk(folder):  # not rglob: samples of a bench get their name meanwhile
        for path in (Path(place) / one for one in (*folders, *files)):
            name = path.relative_to(folder).as_posix()
            known = path.name in folders or name in artifact.files or name == MANIFEST or LATER.match(name)
            if not known or path.is_symlink():
                raise _unlisted(path, name)


def _from_json(value: Any, place: Path) -> Artifact:
    """The manifest as an artifact (ValueError where it is not one)."""
    found = convert(value, Manifest, place)
    if found.target not in TARGETS:
        raise ValueError(f"target {found.target[:50]!r}, known are {', '.join(TARGETS)}")
    if found.precision not in TARGETS[found.target].golden:
        known = ", ".join(TARGETS[found.target].golden)
        raise ValueError(f"target {found.target} with precision {found.precision[:50]!r}, known are {known}")
    return Artifact(
        name=found.name,
        role=found.role,
        model=found.model,
        target=found.target,
        precision=found.precision,
        classes=tuple(found.classes),
        preprocess=Preprocess.from_json(value["preprocess"]),
        lineage=found.lineage,
        details=found.details,
        files={name: FileEntry(entry.sha256, entry.bytes) for name, entry in found.files.items()},
        main_file=found.main_file,
        task=found.task,
    )


def artifact_sha256(folder: Path) -> str:
    """The identity of an artifact: the checksum of its manifest, which holds the checksums of all its files."""
    return sha256_file(folder / MANIFEST)


def file_bytes(artifact: Artifact) -> int:
    """Size of the model files."""
    return sum(entry.bytes for name, entry in artifact.files.items() if name not in NOT_MODEL)


def file_mib(artifact: Artifact) -> float:
    """Size of the model files, MiB."""
    return file_bytes(artifact) / 2**20
