"""What travels to another machine: octc's own files, artifacts, and other files that they need there."""

from __future__ import annotations

import importlib
import io
import re
import tarfile
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from octc.store.artifacts import MANIFEST
from octc.store.find import Found

PACKAGES = ("octc", "octc.runtimes", "octc.bench", "octc.cli")  # the device side, with all that lies below them
ELSEWHERE = {"runtimes", "bench", "archive", "serve", "cli", "train", "compress", "export"}  # what a wheel lays inside octc/
KINDS = {".py", ".json", ".typed"}


def write_package(path: Path, founds: Iterable[Found], files: Mapping[str, Path | bytes] | None = None) -> None:
    """A tar of octc, of these artifacts under runs/<run>/artifacts/<name>/, and of files (name there -> place or bytes)."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in PACKAGES:
            module = importlib.import_module(name)
            folder = Path(str(module.__file__)).parent
            for file in sorted(p for p in folder.rglob("*") if p.suffix in KINDS and p.is_file()):
                inside = file.relative_to(folder)
                if name != "octc" or inside.parts[0] not in ELSEWHERE:
                    _add(tar, f"{name.replace('.', '/')}/{inside.as_posix()}", file.read_bytes())
        facts = f"Metadata-Version: 2.1\nName: octc\nVersion: {_version()}\n"
        _add(tar, f"octc-{_version()}.dist-info/METADATA", facts.encode())
        for found in founds:
            base = place_of(found)
            _add(tar, f"{base}/{MANIFEST}", (found.folder / MANIFEST).read_bytes())
            for name in found.artifact.files:
                tar.add(found.folder / name, f"{base}/{name}", recursive=False, filter=_plain)
        for name, held in (files or {}).items():
            if isinstance(held, bytes):
                _add(tar, name, held)
            else:
                tar.add(held.resolve(), name, recursive=False, filter=_plain)


def place_of(found: Found) -> str:
    """Where an artifact lies at the far end."""
    return f"{run_place(found)}/artifacts/{found.artifact.name}"


def run_place(found: Found) -> str:
    """Where the run of an artifact lies at the far end."""
    run = re.sub(r"[^\w.-]", "-", str(found.artifact.lineage.get("run") or "run"))
    return f"runs/{run}"


def _version() -> str:
    try:
        return version("octc")
    except PackageNotFoundError:
        return "0"


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))
