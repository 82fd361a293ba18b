"""The result documents (docs/measurement.md, section 17): one of the whole bench, one in each artifact's folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from octc.bench.timing.conditions import machine_warnings
from octc.bench.timing.findings import Finding
from octc.bench.timing.gates import Judgement
from octc.bench.timing.latency import Measure, median_of, missing
from octc.bench.timing.plan import Subject
from octc.bench.timing.power.sources import no_power
from octc.bench.timing.profiles import CANDIDATE
from octc.bench.timing.state import SAMPLES, Facts, State
from octc.bench.timing.verdicts import stored_verdict
from octc.core.errors import OctcError
from octc.core.files import publishing, read_json, write_bytes, write_json
from octc.core.targets import TARGETS
from octc.machine.host import host_name, versions
from octc.store.artifacts import file_mib

SCHEMA_VERSION = "1.0"


def document(state: State, verdict: Judgement, findings: list[Finding], only: Collection[str] | None = None) -> dict[str, Any]:
    """The result document; `only`: of these artifacts and those that they were compared with."""
    comparisons = state.comparisons
    kept = None
    if only is not None:
        mine = {row.plan.id for row in state.rows.values() if row.plan.subject in only}
        comparisons = [c for c in comparisons if c.candidate_row in mine]
        rows = mine | {c.reference_row for c in comparisons}
        others = {row.plan.subject for row in state.rows.values() if row.plan.id in rows}
        kept = {*only, *others}
    rows_shown = [row for row in _in_order(state) if kept is None or row["artifact"] in kept]
    ids = {row["id"] for row in rows_shown}
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "bench",
        "run_id": state.run_id,
        "octc_version": versions().get("octc", "unknown"),
        "started_utc": state.started,
        "status": verdict.status,
        "exit_code": verdict.exit_code,
        "machine": state.machine.to_json(),
        "settings": _settings(state),
        "artifacts": [_artifact(state, s) for s in state.plan.subjects if kept is None or s.id in kept],
        "rows": rows_shown,
        "comparisons": [c.to_json() for c in comparisons],
        "findings": [f.to_json() for f in findings if not f.rows or ids & set(f.rows)],
        "warnings": warnings(state),
        "error": _error(verdict.errors[0]) if verdict.errors else None,
    }


def warnings(state: State) -> list[str]:
    """Warnings about the machine, the profile and events during the bench."""
    return [*state.plan.notes, *machine_warnings(state.machine, state.root), *_power(state), *state.warnings]


def _power(state: State) -> list[str]:
    """The reason and hint if no power sensor is readable."""
    told = {row.energy.gross.reason for row in state.rows.values() if row.energy is not None}
    on_gpu = any(s.why_not is None and TARGETS[s.found.artifact.target].on_gpu for s in state.plan.subjects)
    reason, hint = no_power(state.machine, on_gpu, state.root)
    return [f"energy null ({reason}): {hint}"] if reason in told else []


def _in_order(state: State) -> list[dict[str, Any]]:
    return [state.rows[row.id].to_json() for row in state.plan.rows if row.id in state.rows]


def _settings(state: State) -> dict[str, Any]:
    options = state.options
    limits = options.limits(CANDIDATE)
    return {
        "profile": options.profile.name,
        "threads": options.threads,
        "threads_source": options.threads_source,
        "pinned": False,
        "duration_s": limits.duration_s,
        "min_queries": limits.min_queries,
        "max_duration_s": limits.max_duration_s,
        "warmup_min": options.profile.warm_least,
        "seed": options.seed,
        "power_reader": "off" if state.meter is None else "on",
        "gates": dict(options.gates),
        "origins": {**options.origins, "images": options.images_from},
    }


def _artifact(state: State, subject: Subject) -> dict[str, Any]:
    artifact, known = subject.found.artifact, state.facts.get(subject.id, Facts())
    engine = known.engine
    name = TARGETS[artifact.target].library
    runtime = {
        "name": str(engine.get("runtime", name)),
        "version": str(engine.get("version") or versions((name,)).get(name, "none")),
        "provider": engine.get("provider"),
        "precision_hint": engine.get("precision_hint"),
        "streams": engine.get("streams"),
        "cuda_graph": None,
    }
    stored = stored_verdict(subject.found)
    return {
        "id": subject.id,
        "role": subject.role,
        "model": artifact.model,
        "sha256": artifact.sha256,
        "target": artifact.target,
        "precision_requested": artifact.precision,
        "precision_found": dict(known.precision),
        "reformat_layers": None,
        "runtime": runtime,
        "input_px": artifact.preprocess.size,
        "verify": stored.word,
        "verify_exploratory": stored.exploratory,
        "file_mib": file_mib(artifact),
        "page_cache": "warm",
        **_times(known),
    }


def _times(known: Facts) -> dict[str, Any]:
    """Load time, first call and cold start over all processes."""
    count = len(known.load_ms)
    if count == 0:
        nothing = missing("not_loaded").to_json()
        return dict.fromkeys(("load_ms", "load_ms_max", "first_inference_ms", "cold_start_ms"), nothing)
    of = f"of {count} fresh processes"
    return {
        "load_ms": Measure(median_of(known.load_ms), None, f"median {of}").to_json(),
        "load_ms_max": Measure(max(known.load_ms), None, f"largest {of}").to_json(),
        "first_inference_ms": Measure(median_of(known.first_ms), None, f"median {of}").to_json(),
        "cold_start_ms": Measure(median_of(known.cold_ms), None, f"import, load and first call, median {of}").to_json(),
    }


def _error(error: OctcError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "help": error.hint, "path": error.place}


def write_results(state: State, verdict: Judgement, findings: list[Finding], reports: Path, markdown: str) -> list[Path]:
    """Write samples and bench-<host>.json into every measured artifact's folder, and the whole result under reports/; returns
    the latter.

    An existing result is renamed to its own run id. Where one place cannot be written, the others are; the first error is
    raised then. A result and its samples are there both, or neither.
    """
    measured = {row.plan.subject for row in state.rows.values() if row.latency is not None}
    whole, text = reports / f"bench-{state.run_id}.json", reports / f"bench-{state.run_id}.md"
    writes: list[Callable[[], None]] = [
        partial(_write_beside, state, verdict, findings, subject) for subject in state.plan.subjects if subject.id in measured
    ]
    writes.append(lambda: write_json(whole, document(state, verdict, findings)))
    writes.append(lambda: write_bytes(text, markdown.encode()))
    failed: list[OSError] = []
    for write in writes:
        try:
            write()
        except OSError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return [whole, text]


def _write_beside(state: State, verdict: Judgement, findings: list[Finding], subject: Subject) -> None:
    """Write the samples of an artifact, and the result if it is no reference; neither stays without the other."""
    rows = {row.plan.id for row in state.rows.values() if row.plan.subject == subject.id} & set(state.samples)
    folder = subject.found.folder / SAMPLES / state.run_id
    try:
        if rows:
            with publishing(folder, force=True) as new:
                for row in rows:
                    (new / f"{row}.csv").write_bytes(state.samples[row])
        if subject.role == CANDIDATE:
            place = subject.found.folder / f"bench-{host_name()}.json"
            keep_earlier(place)
            write_json(place, document(state, verdict, findings, [subject.id]))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()  # where it holds no other bench
        raise


def keep_earlier(place: Path) -> None:
    """Rename an earlier result to its own run id; an unreadable one is named by its time."""
    if not place.exists():
        return
    try:
        earlier = "".join(c for c in str(read_json(place)["run_id"]) if c.isalnum() or c in "._-")
    except (OSError, ValueError, KeyError, TypeError):
        earlier = f"unreadable-{place.stat().st_mtime_ns}"
    write_bytes(place.with_name(f"{place.stem}-{earlier}.json"), place.read_bytes())
