"""The HTML of one bench, and the figure of accuracy against latency."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from octc.bench.report.collect.run_summary import read_run_summary
from octc.bench.report.collect.speed import points
from octc.bench.report.figures.comparisons import latency_figure, series_figure
from octc.bench.report.page import Block, Plot, Section, Table, Text, to_html
from octc.bench.timing.findings import Finding
from octc.bench.timing.gates import Judgement
from octc.bench.timing.render import COLUMNS, head, reasons, row_name, table, tail
from octc.bench.timing.result import warnings
from octc.bench.timing.rows import Row
from octc.bench.timing.state import State
from octc.core.errors import OctcError
from octc.core.files import write_bytes
from octc.figures.canvas import to_svg
from octc.figures.pareto import pareto_figure

MOST_CURVES = 8
Times = npt.NDArray[np.float64]


def write_page(state: State, verdict: Judgement, findings: Sequence[Finding], reports: Path) -> Path:
    """reports/bench-<id>.html: the first screen, then distributions and the course of every row."""
    lines = [*reasons(state), *tail(state, verdict, findings, [])]
    first: list[Block] = [Text(line, "lead" if k == 0 and state.plan.notes else "") for k, line in enumerate(head(state))]
    first += [Table(COLUMNS, table(state)), *(Text(line, "warn" if line.startswith("FINDING") else "") for line in lines)]
    rows = [(row, *times) for row in state.rows.values() if (times := _times(state, row)) is not None]
    sections = [Section("first", "Result", first), Section("latency", "Latency", _figures(rows))]
    sections.append(Section("warnings", "Warnings", [Text(line) for line in warnings(state)]))
    place = reports / f"bench-{state.run_id}.html"
    foot = f"octc bench {state.run_id}, {state.started}"
    write_bytes(place, to_html(f"octc bench on {state.machine.name}", sections, foot).encode())
    return place


def _times(state: State, row: Row) -> tuple[Times, Times] | None:
    """Start (s) and duration (ms) of every sample of a row."""
    if row.samples is None:
        return None
    values = np.loadtxt(io.BytesIO(state.samples[row.plan.id]), delimiter=",", skiprows=1, dtype=np.float64, ndmin=2)
    return values[:, 1] / 1e9, values[:, 2] / 1e6


def _figures(rows: Sequence[tuple[Row, Times, Times]]) -> list[Block]:
    valid = [(_label(row), times) for row, _, times in rows if row.status == "VALID"][:MOST_CURVES]
    blocks: list[Block] = []
    if valid:
        blocks.append(Plot(latency_figure(valid, "Share of samples done by a time"), "Distribution of the latencies"))
    for row, starts, times in rows:
        looks = () if row.conditions is None else row.conditions.looks
        begin = looks[0].at_ns if looks else 0
        clocks = [((k.at_ns - begin) / 1e9, k.clock_mhz) for k in looks if k.clock_mhz is not None]
        degrees = [((k.at_ns - begin) / 1e9, k.temp_c) for k in looks if k.temp_c is not None]
        beside = {"clock, MHz": clocks, "temperature, °C": degrees}
        figure = series_figure(starts, times, beside, f"{_label(row)} ({row.status})")
        blocks.append(Plot(figure, f"Course of {_label(row)}, n={row.n:,}"))
    return blocks


def _label(row: Row) -> str:
    return f"{row.plan.subject}, {row_name(row.plan)}"


def write_pareto(state: State, reports: Path, run_dir: Path) -> Path:
    """reports/bench-<id>-pareto.svg, of what was just measured and what verify stored.

    Raises:
        OctcError: E705 nothing here has both an accuracy and a valid latency.
    """
    found = points(read_run_summary([s.found for s in state.plan.subjects if s.role == "candidate"], run_dir))
    if not found:
        text = "no artifact has both an accuracy on labelled images and a valid latency"
        raise OctcError("OCT-E705", text, hint="octc verify, then octc bench --pareto")
    place = reports / f"bench-{state.run_id}-pareto.svg"
    write_bytes(place, to_svg(pareto_figure(found, "Accuracy against latency (area: size of the files)")))
    return place
