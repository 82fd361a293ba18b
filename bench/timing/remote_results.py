"""Stores the results, samples and reports of a bench on another machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from octc.bench.remote.package import place_of
from octc.bench.remote.ssh import host_of, opened_answer
from octc.bench.timing.result import keep_earlier
from octc.core.files import parse_json, write_bytes, write_json
from octc.store.find import Found

LARGEST = 1 << 30
FILE = r"(?P<file>bench-[\w.-]+\.json|samples/[\w.-]+/[\w.-]+\.csv)"
BACK = re.compile(rf"runs/(?P<run>[\w.-]+)/artifacts/(?P<name>[\w.-]+)/{FILE}")
REPORT = re.compile(r"reports/(?P<file>bench-[\w.-]+)")
FETCHED = ("(", "-name", "bench-*", "-type", "f", ")", "-o", "(", "-name", "samples", "-type", "d", ")")  # arguments of find(1)


def take_results(answer: Path, founds: Iterable[Found], reports: Path, address: str) -> tuple[str, list[Path]]:
    """Store the received files; returns the terminal output of the other machine, and the files of its report.

    Only results, samples and reports with plain names are extracted from the tar.

    Raises:
        OctcError: E606 as `opened_answer`.
    """
    folders = {place_of(found): found.folder for found in founds}
    text, files = "", []
    with opened_answer(answer, address) as tar:
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


def _from(address: str, data: bytes) -> bytes:
    """The result with the names of both machines."""
    try:
        value = parse_json(data)
        value["machine"]["remote_host"] = host_of(address)
    except (ValueError, KeyError, TypeError):
        return data
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


def write_partial(document: dict[str, Any], founds: Sequence[Found], reports: Path) -> Path:
    """Save the result up to the loss of the connection; its samples are not available."""
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
