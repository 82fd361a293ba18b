"""The artifact: a folder that is complete by itself. Model files, artifact.json with their sums, golden.npz.

`verify.json`, `bench-<host>.json` and `samples/` may be added later where they are measured; nothing else may lie there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from octc.errors import OctcError
from octc.files import read_json, sha256_file, write_json
from octc.image import Preprocess

SCHEMA = "1.0"
MANIFEST = "artifact.json"
GOLDEN = "golden.npz"
TARGETS = ("onnx", "openvino", "tensorrt", "torch")
PRECISIONS = ("fp32", "fp16", "int8")
LATER = re.compile(r"^(verify\.json|bench-[A-Za-z0-9._-]+\.json|samples/.+)$")


@dataclass(frozen=True)
class FileEntry:
    """A listed file: sum and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Artifact:
    """What artifact.json says.

    Attributes:
        role: "student" or "teacher".
        model: timm name of the network.
        preprocess: what `Preprocess.prepare` must be told; the graph takes uint8 [N, channels, size, size].
        output: logits float32 [N, classes].
        lineage: run, recipe, dataset, split_digest, data_digest, checkpoint sum, versions, licence of the weights.
        details: facts of the export (opset, placement, quantised convolutions, gate, fallback steps, size).
        files: every file but the manifest, by name.
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

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA, **asdict(self)}


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
    """List every file of `folder` with its sum and write artifact.json, last."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    files = {n: FileEntry(sha256_file(folder / n), (folder / n).stat().st_size) for n in names if not LATER.match(n)}
    listed = replace(artifact, files=files)
    write_json(folder / MANIFEST, listed.to_json())
    return listed


def write_golden(folder: Path, golden: Golden) -> None:
    """Write golden.npz (into a folder that is being published)."""
    np.savez_compressed(
        folder / GOLDEN,
        inputs=golden.inputs,
        logits=golden.logits,
        source_png=golden.source_png,
        source_input=golden.source_input,
    )


def read_golden(folder: Path) -> Golden:
    """Read golden.npz (plain arrays only, no pickle)."""
    try:
        with np.load(folder / GOLDEN, allow_pickle=False) as data:
            return Golden(data["inputs"], data["logits"], data["source_png"], data["source_input"])
    except (OSError, ValueError, KeyError) as error:
        raise _bad("OCT-E502", f"golden file cannot be read: {error}", folder) from error


def read_artifact(folder: Path) -> Artifact:
    """Read and check an artifact: manifest, list of files, sums.

    Raises:
        OctcError: E107 no manifest, E502 a file is missing, unlisted, a link or outside the folder, E501 a sum differs.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise OctcError("OCT-E107", f"no artifact at {folder}", mend="octc export makes one", place=str(folder))
    try:
        value = read_json(manifest)
        artifact = _from_json(value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _bad("OCT-E502", f"manifest is not valid: {error!r}", folder) from error
    _check_names(folder, artifact)
    for name, entry in artifact.files.items():
        path = folder / name
        if path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
            raise _bad("OCT-E501", f"{name} does not match its sha256", path)
    return artifact


def _bad(code: str, message: str, place: Path) -> OctcError:
    return OctcError(code, message, mend="do not use this artifact; copy it again from where it was made", place=str(place))


def _check_names(folder: Path, artifact: Artifact) -> None:
    for name in (*artifact.files, artifact.main_file):
        pure = PurePosixPath(name)
        if not name or pure.is_absolute() or ".." in pure.parts or "\\" in name or str(pure) != name or "\0" in name:
            raise _bad("OCT-E502", f"unsafe path in the manifest: {name!r}", folder)
    if artifact.main_file not in artifact.files:
        raise _bad("OCT-E502", f"main file {artifact.main_file!r} is not listed", folder)
    for name in artifact.files:
        path = folder / name
        if any(p.is_symlink() for p in (path, *path.parents) if p != folder and folder in p.parents):
            raise _bad("OCT-E502", f"{name} is a symbolic link", path)
        if not path.is_file():
            raise _bad("OCT-E502", f"{name} is listed but missing", path)
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or (path.is_file() and name not in artifact.files and name != MANIFEST and not LATER.match(name)):
            raise _bad("OCT-E502", f"{name} is not listed in the manifest", path)


def _from_json(value: dict[str, Any]) -> Artifact:
    if value["schema_version"] != SCHEMA:
        raise ValueError(f"schema_version {value['schema_version']!r}, this octc reads {SCHEMA}")
    if value["target"] not in TARGETS or value["precision"] not in PRECISIONS:
        raise ValueError(f"target {value['target']!r} with precision {value['precision']!r}")
    classes: Sequence[str] = value["classes"]
    if len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes must be at least two names")
    return Artifact(
        name=str(value["name"]), role=str(value["role"]), model=str(value["model"]), target=value["target"],
        precision=value["precision"], classes=tuple(classes), preprocess=Preprocess.from_json(value["preprocess"]),
        lineage=dict(value["lineage"]), details=dict(value["details"]),
        files={str(n): FileEntry(str(e["sha256"]), int(e["bytes"])) for n, e in value["files"].items()},
        main_file=str(value["main_file"]),
    )  # fmt: skip
