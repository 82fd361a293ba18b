"""verify.json: what `octc verify` found, written beside the artifact that it is about.

{"schema_version", "artifact", "artifact_sha256", "test": document or null, "repeated": ..., "exploratory": [documents],
"select": ..., "golden": ..., "last": the key that was written last}; a document is that of docs/parity.md, section 16. "test"
is the first verdict as planned, and nothing takes its place; "repeated" the newest one of the same plan after it (another
machine, another version); "exploratory" the newest of every other plan. Results on test and on select stand under different
keys and are never merged.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.files import canonical_json, read_json, write_json
from octc.schemas.common import convert
from octc.schemas.verify import VerifyFile
from octc.store.artifacts import MANIFEST, artifact_sha256
from octc.store.runs import Run, alone

FILE = "verify.json"
SCHEMA = "1.0"
KEYS = ("test", "select", "golden")
KEPT = "verify"  # runs/<id>/verify/: results that were replaced
MARK = " (exploratory)"
DECIDES = ("alpha", "margin_pp", "class_margin_pp", "claim", "tier", "ece_slack", "auc_margin_points")  # of a document's plan


def read_verdict(folder: Path, sha256: str) -> dict[str, Any] | None:
    """What verify.json of an artifact says, or None: there is none, it is not readable, or it is about another manifest.

    An exploratory result that an older octc wrote under "test" is given under "exploratory".

    Raises:
        OctcError: E509 a newer octc wrote it.
    """
    try:
        value: dict[str, Any] = read_json(folder / FILE)
        found = convert(value, VerifyFile, folder / FILE)
    except (OSError, ValueError):
        return None
    if found.artifact_sha256 != sha256:
        return None
    value = {"repeated": None, "exploratory": [], **value}
    if found.test is not None and found.test.verdict.exploratory:
        value = {**value, "test": None, "exploratory": [*value["exploratory"], value["test"]]}
    return value


def is_exploratory(document: Mapping[str, Any]) -> bool:
    """Whether a verdict is none that was planned."""
    return document["verdict"].get("exploratory") is True


def word_of(document: Mapping[str, Any]) -> str:
    """The word of a verdict for people, with the mark of one that was not planned."""
    return str(document["verdict"]["word"]).replace("_", " ") + (MARK if is_exploratory(document) else "")


def on_test(value: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The results on the test set that count now: as planned (the newest), then exploratory ones."""
    if value is None:
        return []
    planned = value["repeated"] or value["test"]
    return [*([] if planned is None else [planned]), *value["exploratory"]]


def headline(value: Mapping[str, Any] | None, keys: tuple[str, ...] = ("test", "select", "golden")) -> dict[str, Any] | None:
    """The result that stands for an artifact: golden images that failed after everything else, else the first of `keys`."""
    if value is None:
        return None
    shown = {"test": next(iter(on_test(value)), None), "select": value["select"], "golden": value["golden"]}
    golden = value["golden"]
    if golden is not None and golden["verdict"]["word"] == "fail" and _golden_is_last(value):
        return dict(golden)
    return next((dict(shown[key]) for key in keys if shown[key] is not None), None)


def _golden_is_last(value: Mapping[str, Any]) -> bool:
    """Whether golden images were replayed after everything else: as it was written down, for the clock of a box may be years
    behind; by the times in what an older octc wrote."""
    if value.get("last") is not None:
        return bool(value["last"] == "golden")
    times = [str(one.get("time_utc")) for one in (*on_test(value), value["select"]) if one]
    return str(value["golden"].get("time_utc")) > max(times, default="")


def reference_sum(document: Mapping[str, Any]) -> str | None:
    """The sum of what a claim compares with, or None where it does not say."""
    known = document.get("reference")
    found = known.get("artifact_sha256") if isinstance(known, dict) else document.get("reference_sha256")
    return None if found is None else str(found)


def claims_of(document: Mapping[str, Any]) -> Iterator[Any]:
    """A result's first claim, then its others, of those that have numbers."""
    yield from (one for one in (document, *document.get("claims", ())) if one.get("accuracy"))


def write_verdict(folder: Path, name: str, sha256: str, key: str, document: dict[str, Any], run: Run | None) -> None:
    """Write a result under its key; the others stay. The one that it replaces is kept under the run, where that is here.

    Raises:
        OctcError: E108 another artifact lies there by now, whose results stay; E109 the folder cannot be written.
    """
    try:
        with alone(folder):  # of two that verify at once, neither result is lost
            if (folder / MANIFEST).is_file() and artifact_sha256(folder) != sha256:
                text = f"{name} was replaced by another artifact while it was verified: its result is not stored there"
                hint = f"octc verify {shlex.quote(str(folder))} verifies what lies there now"
                raise OctcError("OCT-E108", text, hint=hint, place=str(folder))
            _write(folder, name, sha256, key, document, run)
    except OSError as error:
        text = f"verify.json cannot be written: {error.strerror}"
        raise OctcError("OCT-E109", text, hint="make the folder writable, or copy the artifact", place=str(folder)) from error


def _write(folder: Path, name: str, sha256: str, key: str, document: dict[str, Any], run: Run | None) -> None:
    before, written = read_verdict(folder, sha256), key
    value: dict[str, Any] = before or {**dict.fromkeys((*KEYS, "repeated")), "exploratory": []}
    replaced: dict[str, Any] | None
    if key == "test" and is_exploratory(document):
        known = value["exploratory"]
        replaced = next((one for one in known if _plan(one) == _plan(document)), None)
        value = {**value, "exploratory": [*(one for one in known if one is not replaced), document]}
    else:
        key = "repeated" if key == "test" and value["test"] is not None else key
        replaced = value[key]
        value = {**value, key: document}
    if replaced is not None:
        stamp = "".join(sign for sign in str(replaced.get("time_utc")) if sign.isalnum())
        kept = folder / "samples" if run is None else run.path / KEPT
        write_json(_free(kept, f"{FILE.removesuffix('.json')}-{name}-{key}-{stamp}"), replaced)
    head = {"schema_version": SCHEMA, "artifact": name, "artifact_sha256": sha256}
    shown = {k: value[k] for k in ("test", "repeated", "exploratory", "select", "golden")}
    write_json(folder / FILE, {**head, **shown, "last": written})


def _plan(document: Mapping[str, Any]) -> bytes:
    """What tells one exploratory result from another: margins and level, references in their order, views."""
    stored = document.get("plan") or {}
    plan: dict[str, Any] = {name: stored.get(name) for name in DECIDES}
    plan |= {name: stored.get(name) for name in ("d_plan", "icc") if stored.get(f"{name}_source") == "option"}
    rows = [(one.get("against"), reference_sum(one)) for one in _claims(document)]
    views = [(one.get("set") or {}).get("tta") for one in document.get("tta", ())]
    return canonical_json([plan, rows, views, document.get("robustness") is not None])


def _claims(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [document, *document.get("claims", ())]


def _free(folder: Path, stem: str) -> Path:
    """A name that nothing has yet."""
    names = (folder / f"{stem}{'' if number == 0 else f'-{number}'}.json" for number in range(10_000))
    return next(path for path in names if not path.exists())
