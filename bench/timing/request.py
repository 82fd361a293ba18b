"""Parses and checks the options of a bench: units, ranges, profile, threads, gates."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octc.bench.timing import profiles
from octc.bench.timing.plan import check_gates, check_power
from octc.core.errors import OctcError
from octc.core.options import check_choices
from octc.machine.cpu import Cpus, usable_threads
from octc.schemas.requests import BenchOptions

SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([a-z]*)")
SCENARIOS = {"single": "single_stream", "offline": "offline"}


def quantity(value: Any, units: Mapping[str, float], plain: str, option: str) -> float | None:
    """Parse a number with a unit ("30ms", "60s"); without one the unit is `plain`. None stays None.

    Raises:
        OctcError: E104 not a positive number, or an unknown unit.
    """
    if value is None:
        return None
    found = QUANTITY.fullmatch(str(value).strip().lower())
    unit = (found[2] or plain) if found else ""
    number = float(found[1]) * units[unit] if found and unit in units else math.nan
    if not number > 0:
        hint = f"{option} with a positive number and one of {', '.join(units)} (plain: {plain})"
        raise OctcError("OCT-E104", f"{option} {value} is not a time", hint=hint, place=option)
    return number


def positive(value: float | None, option: str) -> float | None:
    """Check that a number is positive and finite, or None (OctcError E104)."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise OctcError("OCT-E104", f"{option} {value} is out of range", hint=f"{option}: above 0", place=option)
    return value


def threads_of(requested: int | None, cpus: Cpus) -> tuple[int, str]:
    """Threads of every engine, and the origin of the number (OctcError E104: more than this process may use)."""
    if requested is None:
        return usable_threads(cpus)
    usable = len(cpus.usable)
    if not 1 <= requested <= usable:
        text = f"--threads {requested}: this process may use {usable}"
        raise OctcError("OCT-E104", text, hint=f"--threads 1 to {usable}", place="--threads")
    return requested, "option"


def checked_options(requested: BenchOptions, cpus: Cpus, origins: Mapping[str, str]) -> profiles.Options:
    """Check the options of a bench. origins: option -> origin of its value ("default" is left out).

    Raises:
        OctcError: E104 a value out of range; E102 gates that cannot be judged.
    """
    one = requested
    check_choices(one)
    positive(one.batch, "--batch")
    positive(one.min_queries, "--min-queries")
    gates = {
        "max_p50_ms": quantity(one.max_p50, MILLISECONDS, "ms", "--max-p50"),
        "max_p90_ms": quantity(one.max_p90, MILLISECONDS, "ms", "--max-p90"),
        "max_p99_ms": quantity(one.max_p99, MILLISECONDS, "ms", "--max-p99"),
        "min_images_per_s": positive(one.min_throughput, "--min-throughput"),
        "max_mj": positive(one.max_mj, "--max-mj"),
        "require_speedup": positive(one.require_speedup, "--require-speedup"),
    }
    threads, source = threads_of(one.threads, cpus)
    options = profiles.Options(
        profile=profiles.QUICK if one.quick else profiles.STANDARD,
        threads=threads,
        threads_source=source,
        scenario=SCENARIOS[one.scenario],
        batch=one.batch,
        duration_s=quantity(one.duration, SECONDS, "s", "--duration"),
        min_queries=one.min_queries,
        max_duration_s=quantity(one.max_duration, SECONDS, "s", "--max-duration"),
        vs=one.vs,
        gates={name: limit for name, limit in gates.items() if limit is not None},
        power=one.power,
        power_csv=_file(one.power_csv),
        allow_cap=one.allow_power_cap,
        origins={name: origin for name, origin in origins.items() if origin != "default"},
    )
    check_gates(options)
    check_power(options)
    return options


def _file(name: str | None) -> str | None:
    """The absolute path of an existing file, because workers run in other folders."""
    if name is None:
        return None
    if not Path(name).is_file():
        text = f"no file of power readings: {name}"
        raise OctcError("OCT-E104", text, hint="start the meter's log before the bench", place="--power-csv")
    return str(Path(name).resolve())
