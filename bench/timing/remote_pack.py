"""What travels to another machine and back: octc's own files and artifacts there; results and samples back."""

from __future__ import annotations

import importlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from octc.bench.timing.result import keep_earlier
from octc.core.files import parse_json, write_bytes, write_json
from octc.store.artifacts import MANIFEST
from octc.store.find import Found

PACKAGES = ("octc", "octc.runtimes", "octc.bench", "octc.cli")  # the device side, with all that lies below them
ELSEWHERE = {"runtimes", "bench", "cli", "train", "compress", "export"}  # folders that a wheel lays inside octc/
KINDS = {".py", ".json", ".typed"}
LARGEST = 1 << 30
FILE = r"(?P<file>bench-[\w.-]+\.json|samples/[\w.-]+/[\w.-]+\.csv)"
BACK = re.compile(rf"runs/(?P<run>[\w.-]+)/artifacts/(?P<name>[\w.-]+)/{FILE}")
REPORT = re.compile(r"reports/(?P<file>bench-[\w.-]+)")


def write_package(path: Path, founds: Iterable[Found], pictures: Sequence[str] = ()) -> None:
    """A tar of octc, of these artifacts under runs/<run>/artifacts/<name>/, and of pictures under images/."""
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
        for number, name in enumerate(pictures):
            _add(tar, f"images/{number:03d}{Path(name).suffix}", Path(name).read_bytes())


def place_of(found: Found) -> str:
    """Where an artifact lies at the far end."""
    run = re.sub(r"[^\w.-]", "-", str(found.artifact.lineage.get("run") or "run"))
    return f"runs/{run}/artifacts/{found.artifact.name}"


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


def take_results(answer: Path, founds: Iterable[Found], reports: Path, address: str) -> tuple[str, list[Path]]:
    """Put what came back where it belongs: the text of the far end's screen, and the files of its report.

    Only results, samples and reports under plain names are taken; everything else in the tar is left.
    """
    folders = {place_of(found): found.folder for found in founds}
    text, files = "", []
    with tarfile.open(answer) as tar:
        for entry in tar:
            if not entry.isfile() or entry.size > LARGEST:
                continue
            stream = tar.extractfile(entry)
            data = b"" if stream is None else stream.read()
            data = _from(address, data) if entry.name.endswith(".json") else data
            back, report = BACK.fullmatch(entry.name), REPORT.fullmatch(entry.name)
            if entry.name == "out.txt":
                text = data.decode(errors="replace")
            elif back and (folder := folders.get(f"runs/{back['run']}/artifacts/{back['name']}")) is not None:
                keep_earlier(folder / back["file"])
                write_bytes(folder / back["file"], data)
            elif report:
                write_bytes(reports / report["file"], data)
                files.append(reports / report["file"])
    return text, files


def host_of(address: str) -> str:
    """The host of user@host."""
    return address.rpartition("@")[2]


def _from(address: str, data: bytes) -> bytes:
    """A result that names both machines."""
    try:
        value = parse_json(data)
        value["machine"]["remote_host"] = host_of(address)
    except (ValueError, KeyError, TypeError):
        return data
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def write_partial(document: dict[str, Any], founds: Sequence[Found], reports: Path) -> Path:
    """Save what was finished before the connection was lost; its samples stayed behind."""
    for row in document["rows"]:
        if row.get("samples_file"):
            row.update(samples_file=None, samples_sha256=None)
    path = reports / f"bench-{document['run_id']}.json"
    write_json(path, document)
    for found in founds:
        place = found.folder / f"bench-{document['machine']['name']}.json"
        keep_earlier(place)
        write_json(place, document)
    return path
