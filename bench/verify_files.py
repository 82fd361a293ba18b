"""verify.json: what `octc verify` found, written beside the artifact that it is about.

{"schema_version", "artifact", "artifact_sha256", "test": document or null, "select": ..., "golden": ...}; a document is that
of section 16 of the parity contract. Results on test and on select stand under different keys and are never merged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octc.errors import OctcError
from octc.files import read_json, write_json
from octc.run import Run

FILE = "verify.json"
SCHEMA = "1.0"
KEYS = ("test", "select", "golden")
KEPT = "verify"  # runs/<id>/verify/: results that were replaced


def read_verdict(folder: Path, sha256: str) -> dict[str, Any] | None:
    """What verify.json of an artifact says, or None: there is none, it is not readable, or it is about another manifest."""
    try:
        value: dict[str, Any] = read_json(folder / FILE)
        if value["schema_version"] != SCHEMA or value["artifact_sha256"] != sha256:
            return None
        known = all(value[key] is None or isinstance(value[key]["verdict"]["word"], str) for key in KEYS)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return value if known else None


def write_verdict(folder: Path, name: str, sha256: str, key: str, document: dict[str, Any], run: Run | None) -> None:
    """Write a result under its key; the others stay. The one that it replaces is kept under the run, where that is here.

    Raises:
        OctcError: E109 the folder cannot be written.
    """
    before = read_verdict(folder, sha256)
    value: dict[str, Any] = before or dict.fromkeys(KEYS)
    replaced = value[key]
    try:
        if replaced is not None:
            stamp = "".join(sign for sign in str(replaced.get("time_utc")) if sign.isalnum())
            kept = folder / "samples" if run is None else run.path / KEPT
            write_json(_free(kept, f"{FILE.removesuffix('.json')}-{name}-{key}-{stamp}"), replaced)
        head = {"schema_version": SCHEMA, "artifact": name, "artifact_sha256": sha256}
        write_json(folder / FILE, {**head, **{k: value[k] for k in KEYS}, key: document})
    except OSError as error:
        text = f"verify.json cannot be written: {error.strerror}"
        raise OctcError("OCT-E109", text, mend="make the folder writable, or copy the artifact", place=str(folder)) from error


def _free(folder: Path, stem: str) -> Path:
    """A name that nothing has yet."""
    names = (folder / f"{stem}{'' if number == 0 else f'-{number}'}.json" for number in range(10_000))
    return next(path for path in names if not path.exists())
