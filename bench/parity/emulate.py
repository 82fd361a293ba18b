"""An artifact's golden images, and pictures of a sample, under emulated processors (qemu-user), beside this machine as a fleet.

Emulation shows answers, precisions and refusals of an instruction set. It shows nothing of its speed.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.bench.parity.box import rounded
from octc.bench.parity.fleet import Fleet, no_answers, read_fleet
from octc.core.errors import OctcError
from octc.core.files import parse_json, sha256_bytes, write_json
from octc.core.progress import Reporter
from octc.core.scratch import scratch
from octc.machine.cpu import usable_threads
from octc.machine.emulated import PROCESSORS, ROOT_HINT, emulated_python
from octc.schemas.verify import FleetRow

NATIVE = "this machine"
SECONDS = 3600.0


def names_of(text: str) -> list[str]:
    """`--emulate NAME,NAME` as names (E104 for one that is not known)."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PROCESSORS] or ([] if names else [text]):
        raise OctcError("OCT-E104", f"--emulate {unknown[0]}", hint=f"of: {', '.join(PROCESSORS)}", place="--emulate")
    return list(dict.fromkeys(names))


def emulate(
    artifact: Path, names: Sequence[str], root: Path | None, reporter: Reporter, *, sample: Path | None = None
) -> Fleet:
    """Replay the golden images here and under each processor; the machines side by side, this one as the reference.

    Args:
        root: folder with the programs of another processor, for those that this machine's Python is not made for.
        sample: an input of `octc predict`, a folder of pictures say, that every processor answers too; labels are not read.

    Raises:
        OctcError: E903 no emulator, no such root, or Python does not run in it; E104 an unknown processor; E107 no such sample.
    """
    if sample is not None and not sample.exists():
        raise OctcError(
            "OCT-E107", f"no folder or file {sample}", hint="pictures or volumes, as for octc predict", place="--sample"
        )
    asked = None if sample is None else sample.resolve()
    with scratch("emulate") as place:
        pythons = {name: emulated_python(name, root, place / "pythons" / name) for name in names}
        folder = place / "fleet"
        folder.mkdir()
        # away from its run: labelled images would be a use of the test set; below a folder of its own, whatever it is called
        copied = place / "artifact" / artifact.resolve().name
        shutil.copytree(artifact, copied, ignore=shutil.ignore_patterns("verify.json", "samples", "bench-*.json"))
        machines = {NATIVE: Path(sys.executable), **pythons}
        refused = {}
        with (
            reporter.progress("golden images, emulated processors", len(machines)) as step,
            ThreadPoolExecutor(usable_threads()[0]) as pool,
        ):
            for name, document in zip(
                machines, pool.map(lambda one: _verify(one[0], one[1], copied, place, asked), machines.items()), strict=True
            ):
                if (error := _answered(name, document, folder)) is not None:
                    refused[name] = error
                step(1)
        if NATIVE in refused:
            raise refused[NATIVE]
        fleet = read_fleet(folder, NATIVE)
    rows = {row.box: row for row in fleet.rows} | {name: _refused(name, error) for name, error in refused.items()}
    return replace(fleet, rows=tuple(rows[name] for name in (NATIVE, *names)))


def _verify(name: str, python: Path, artifact: Path, place: Path, sample: Path | None = None) -> dict[str, Any]:
    """What `octc verify --json` of one processor printed, with what it answers to the sample as its labels."""
    words = ["verify", str(artifact), "--layers", "--json", "--run-dir", str(place / "no-runs")]
    document = _said(name, python, words, place)
    found = document["data"].get("artifacts") or []
    if sample is not None and found:
        labels = _labels(_said(name, python, ["predict", str(artifact), str(sample), "--json"], place))
        for one in found:
            one["box"] = {**(one.get("box") or {}), "labels": labels}
    return document


def _labels(document: Mapping[str, Any]) -> dict[str, Any]:
    """The answers of `octc predict --json` in the form of labels of a fleet: a picture that failed has its error's code.

    Raises:
        OctcError: what the command said, where it answered nothing.
    """
    records = document["data"].get("records") or []
    if not records:
        said = document.get("error") or {"code": "OCT-E230", "message": "nothing to answer in the sample"}
        raise OctcError(said["code"], said["message"], hint=said.get("help") or "give another --sample", place="--sample")
    files = [f"{record['file']} {record.get('frame')}" for record in records]
    answers = [record.get("labels") or [record["label"], (record.get("error") or {}).get("code")] for record in records]
    gaps = [_gap(record.get("probabilities") or {}) for record in records]
    known = {} if None in gaps or any(record.get("labels") for record in records) else {"gaps": gaps}
    return {"sha256_of_ids": sha256_bytes("\n".join(files).encode()), "predictions": answers, **known}


def _gap(probabilities: Mapping[str, float]) -> float | None:
    """The largest logit less the next, of a picture's probabilities; None where there are none."""
    largest = sorted(probabilities.values(), reverse=True)[:2]
    return None if len(largest) < 2 or largest[1] <= 0 else rounded(math.log(largest[0] / largest[1]))


def _said(name: str, python: Path, command: Sequence[str], place: Path) -> dict[str, Any]:
    """The document that a command printed on one processor; its last words on stderr where that is none (E903)."""
    words = ["-m", "octc.cli._app.main", *command]
    try:
        done = subprocess.run([str(python), *words], cwd=place, capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise OctcError(
            "OCT-E903", f"{name} took more than {SECONDS:g} seconds", hint="fewer processors", place=name
        ) from error
    try:
        document: dict[str, Any] = parse_json(done.stdout)
        if document["data"].get("artifacts") or document["data"].get("records") or document["error"]["code"]:
            return document
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    why = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1][:300]
    raise OctcError("OCT-E903", f"octc does not run on {name}", hint=ROOT_HINT, place="--emulate", why=why)


def _answered(name: str, document: dict[str, Any], folder: Path) -> OctcError | None:
    """Keep a processor's document under its name; the error where it opened no artifact."""
    found = document["data"].get("artifacts")
    if not found:
        said = document["error"]
        return OctcError(said["code"], said["message"], hint=said["help"] or "octc doctor", place=name, why=said["why"])
    for one in found:
        one["machine"] = {**(one.get("machine") or {}), "host": name}
    write_json(folder / f"{name.replace(' ', '-')}.json", {"command": "verify", "data": {"artifacts": found}})
    return None


def _refused(name: str, error: OctcError) -> FleetRow:
    """A processor on which the artifact does not open."""
    text = f"it does not open there: {error.message} [{error.code}]"
    return no_answers(name, "", "refused", text)
