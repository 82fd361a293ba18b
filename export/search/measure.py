"""What a candidate costs on the target: the method of `octc bench`, here or over ssh, kept by device, engine and file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from octc.bench.remote.package import write_package
from octc.bench.remote.ssh import check_address, host_of, run_far
from octc.bench.timing.gates import WRONG
from octc.bench.timing.job import Job, Subjects, prepare
from octc.bench.timing.job import measure as run_bench
from octc.bench.timing.power.energy import LEAST_S
from octc.bench.timing.power.sources import no_power, open_sources, tegrastats_command
from octc.bench.timing.profiles import QUICK, STANDARD
from octc.bench.timing.remote_job import bench_on
from octc.bench.timing.remote_results import take_results
from octc.bench.timing.request import threads_of
from octc.core.errors import OctcError
from octc.core.files import canonical_json, parse_json, read_json, sha256_bytes, write_json
from octc.core.optional import distribution_of
from octc.core.progress import LogReporter, Reporter, Warnings
from octc.core.scratch import scratch
from octc.core.targets import TARGETS
from octc.machine.host import read_machine, versions
from octc.schemas.common import builtins, convert
from octc.schemas.requests import BenchOptions
from octc.schemas.search import Timing
from octc.store.artifacts import NOT_MODEL, Artifact, file_bytes
from octc.store.find import Found

TRIES = 2  # of a row that was disturbed
EXPORT_S, PROCESS_S = 12.0, 4.0  # about what a file and a fresh process take, for a dry run


@dataclass(frozen=True)
class Target:
    """Where times are measured.

    Attributes:
        device: what a time hangs on beside engine and file, as it is kept. engines: target -> version of its engine there, None
            where it is not installed.
        on: user@host, or None for this machine. python: the interpreter there.
        cache: folder of times. energy: whether joules are read too.
    """

    device: dict[str, Any]
    engines: dict[str, str | None]
    requested: BenchOptions
    cache: Path
    run_dir: Path
    on: str | None = None
    python: str = "python3"
    energy: bool = False
    reporter: Reporter = field(default_factory=LogReporter)

    @property
    def seconds(self) -> float:
        """The least that a row takes."""
        least = (QUICK if self.requested.quick else STANDARD).duration_s
        return (max(least, LEAST_S + 1) if self.energy else least) + PROCESS_S


@dataclass(frozen=True)
class Where:
    """What is asked of `find_target`: the address, the threads, the profile, whether energy counts."""

    on: str | None
    threads: int | None
    standard: bool
    energy: bool
    python: str


def find_target(where: Where, targets: tuple[str, ...], run_dir: Path, reporter: Reporter) -> Target:
    """The device and its engines.

    Raises:
        OctcError: E104 no address or too many threads, E606 the other machine cannot be reached, E903 no energy is read here.
    """
    profile: dict[str, Any] = {"vs": "none", "batch": 1, "quick": not where.standard, "power": where.energy}
    if where.energy and not where.standard:
        profile["duration"] = f"{LEAST_S + 1:g}s"
    requested = BenchOptions(**profile, threads=where.threads)
    cache = run_dir / ".cache" / "search"
    if where.on is not None:
        check_address(where.on)
        found = _far_versions(where, run_dir, reporter)
        engines = {name: found["libraries"].get(distribution_of(TARGETS[name].library)) for name in targets}
        device = {"host": host_of(where.on), "python": found["python"], "threads": where.threads}
    else:
        machine = read_machine()
        if where.energy and not (open_sources() or tegrastats_command()):
            reason, hint = no_power(machine, on_gpu=False)
            text = f"--budget in mJ: no energy can be read on this machine ({reason})"
            hint = f"{hint.split(', or use a meter')[0]}; or a budget in ms or MB; octc bench --power-csv FILE reads a meter"
            raise OctcError("OCT-E903", text, hint=hint, place="--budget")
        here = versions(tuple(distribution_of(TARGETS[name].library) for name in targets))
        engines = {name: here.get(distribution_of(TARGETS[name].library)) for name in targets}
        threads, _ = threads_of(where.threads, machine.cpus)
        device = {
            "host": machine.name, "cpu": machine.cpu_model, "isa": machine.cpu_class, "limits": machine.isa_limits,
            "usable": len(machine.cpus.usable), "quota": machine.cpus.quota, "threads": threads,
        }  # fmt: skip
    more = {"profile": "standard" if where.standard else "quick", "energy": where.energy}
    return Target({**device, **more}, engines, requested, cache, run_dir, where.on, where.python, where.energy, reporter)


def _far_versions(where: Where, run_dir: Path, reporter: Reporter) -> dict[str, Any]:
    """`octc --version --json` of the other machine, with the octc of this one."""
    assert where.on is not None
    with scratch("search") as folder:
        package, answer = folder / "there.tar", folder / "back.tar"
        write_package(package, [])
        far = run_far(where.on, package, ["--version", "--json"], where.python, answer, reporter.say)
        if far.errors:
            raise far.errors[0]
        text, _ = take_results(answer, [], folder, where.on)
    try:
        found: dict[str, Any] = parse_json(text)["data"]
    except (ValueError, KeyError, TypeError) as error:
        text = f"{where.on} does not say which engines it has"
        raise OctcError(
            "OCT-E606", text, hint=f"ssh {where.on} true; then again", place=where.on, why=str(error)[:200]
        ) from error
    return found


def graph_digest(artifact: Artifact) -> str:
    """sha256 of the model's files: random weights come of one seed, so that one graph is one file."""
    named = {name: entry.sha256 for name, entry in artifact.files.items() if name not in NOT_MODEL}
    return sha256_bytes(canonical_json(named))


def kept_timing(found: Found, target: Target) -> Timing | None:
    """The time of an earlier search on this device, of this engine's version and this file; None where there is none."""
    place = _place(found, target)
    if not place.is_file():
        return None
    try:
        kept = read_json(place)
        timing = convert(kept["timing"], Timing) if kept["key"] == _key(found, target) else None
    except (ValueError, KeyError, TypeError):
        return None  # it is measured anew, and written over
    return None if timing is None else convert({**builtins(timing), "cached": True}, Timing)


def timing_of(found: Found, target: Target) -> Timing:
    """The time of an artifact: kept, or measured, again where something disturbs it.

    A disturbed time is too long if it is wrong. Where every try was disturbed the shortest stands, as INVALID with its reasons,
    and is not kept.

    Raises:
        OctcError: E606 the other machine was lost.
    """
    if (kept := kept_timing(found, target)) is not None:
        return kept
    name = found.artifact.target
    if target.engines[name] is None:
        return _timing(found, target, {"status": "NA", "reasons": [f"{TARGETS[name].title} is not installed there"]})
    best: Timing | None = None
    for left in range(TRIES, 0, -1):
        one = _timing(found, target, _row(found, target))
        if one.status == "VALID":
            write_json(_place(found, target), {"key": _key(found, target), "timing": builtins(one)})
            return one
        if one.ms is None:
            return one
        what = "again" if left > 1 else "the shortest of the tries stands"
        target.reporter.say(f"  {found.artifact.name}: disturbed ({', '.join(one.why)}), {what}")
        best = one if best is None or (best.ms or 0.0) > one.ms else best
    assert best is not None
    return best


def _row(found: Found, target: Target) -> Mapping[str, Any]:
    """The device row of batch 1, as a result of `octc bench` has it."""
    job = Job((str(found.folder),), target.requested, None, target.run_dir, None, os.environ, {}, Warnings(target.reporter))
    subjects = Subjects((found,), (True,), (), None)
    if target.on is not None:
        answer = bench_on(target.on, job, subjects, target.python)
        document = answer.document
        if document is None or answer.partial is not None:
            answer.raise_if_failed()
    else:
        ready = prepare(job, subjects)
        rows = tuple(row for row in ready.plan.rows if row.scope == "device")
        result = run_bench(job, replace(ready, plan=replace(ready.plan, rows=rows)))
        if result.state.interrupted is not None:
            raise result.state.interrupted
        document = result.document
    found_rows = [row for row in (document or {}).get("rows", ()) if row["scope"] == "device" and row["batch"] == 1]
    return found_rows[0] if found_rows else {"status": "NA", "reasons": ["no row came back"]}


def _timing(found: Found, target: Target, row: Mapping[str, Any]) -> Timing:
    artifact = found.artifact
    p50 = row.get("latency_ms", {}).get("p50", {})
    wrong = set(row["reasons"]) & set(WRONG)  # outputs or precision are not those of the file: it has no time
    known = p50.get("value") is not None and not wrong
    energy = row.get("energy", {}).get("gross_mj", {}).get("value")
    return Timing(
        target=artifact.target,
        status=row["status"] if known else "NA",
        why=list(row["reasons"]),
        ms=p50["value"] if known else None,
        ms_ci95=(p50.get("ci95") or [p50["value"], p50["value"]]) if known else None,
        mj=energy if known else None,
        bytes=file_bytes(artifact),
        engine=TARGETS[artifact.target].title,
        version=target.engines[artifact.target],
        sha256=graph_digest(artifact),
        cached=False,
    )


def _key(found: Found, target: Target) -> dict[str, Any]:
    name = found.artifact.target
    return {"device": target.device, "engine": name, "version": target.engines[name], "graph": graph_digest(found.artifact)}


def _place(found: Found, target: Target) -> Path:
    return target.cache / "times" / f"{sha256_bytes(canonical_json(_key(found, target)))[:24]}.json"
