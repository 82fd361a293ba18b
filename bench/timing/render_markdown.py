"""The report in Markdown: the summary, then latencies, load times, memory, engines, versions and warnings."""

from __future__ import annotations

from collections.abc import Sequence

from octc.bench.timing.findings import Finding
from octc.bench.timing.gates import Judgement
from octc.bench.timing.latency import median_of, spell, spell_interval, spell_number
from octc.bench.timing.render import COLUMNS, head, reasons, row_name, table, tail
from octc.bench.timing.result import warnings
from octc.bench.timing.rows import Row
from octc.bench.timing.state import State
from octc.machine.host import versions


def markdown(state: State, verdict: Judgement, findings: Sequence[Finding]) -> str:
    """The whole report; invalid numbers are struck out."""
    parts = [
        *(f"**{note}**\n" for note in state.plan.notes[:1]),
        f"# octc bench {state.run_id}",
        "",
        *_listed(head(state)[len(state.plan.notes[:1]) :]),
        "",
        *table_lines(COLUMNS, table(state, ("~~", "~~"))),
        "",
        *_listed([*reasons(state), *tail(state, verdict, findings, [])]),
        "",
        *_latencies(state),
        *_footprint(state),
        *_versions(state),
        *_warnings(state),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _listed(lines: Sequence[str]) -> list[str]:
    return [f"* {' '.join(line.split())}" for line in lines]


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; bars within cells are escaped."""
    body = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}", *body]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _measured(state: State) -> list[Row]:
    return [state.rows[p.id] for p in state.plan.rows if p.id in state.rows and state.rows[p.id].latency is not None]


def _latencies(state: State) -> list[str]:
    """The section with percentiles, intervals, parts of the end-to-end time, and samples."""
    lines = ["## Latency", "", "Milliseconds; nearest rank, 95 % intervals of order statistics.", ""]
    for row in _measured(state):
        assert row.latency is not None  # `_measured` selects rows with latency
        lines += [
            f"### {row.plan.subject}, {row_name(row.plan)} ({row.status})",
            "",
            *row.latency.to_markdown().splitlines(),
            "",
        ]
        lines.append(
            f"{row.latency.above} samples above three medians; {row.wall_s:.1f} s; images/s "
            f"{spell(row.rate) if row.rate is not None else 'null'}."
        )
        if row.parts:
            parts = ", ".join(f"{name} {spell(m)} {spell_interval(m)}".strip() for name, m in row.parts.items())
            lines.append(f"Medians of the parts: {parts} (they need not add up; reading the file is not in the row).")
        if row.samples is not None:
            lines.append(f"Samples: `{row.samples[0]}` in the artifact's folder, sha256 `{row.samples[1]}`.")
        lines.append("")
    return lines


def _footprint(state: State) -> list[str]:
    """The section with load times and memory."""
    columns = ("artifact", "import ms", "load ms", "load max", "first call", "cold start", "processes", "MiB of the runtime")
    rows = []
    for name, known in state.facts.items():
        if known.load_ms:
            times = [
                median_of(known.import_ms),
                median_of(known.load_ms),
                max(known.load_ms),
                median_of(known.first_ms),
                median_of(known.cold_ms),
            ]
            deltas = [r.rss_delta_mib.value for r in _measured(state) if r.plan.subject == name and r.rss_delta_mib is not None]
            held = f"{max(d for d in deltas if d is not None):.0f}" if deltas else "null"
            rows.append((name, *(spell_number(t) for t in times), str(len(known.load_ms)), held))
    return [
        "## Load and memory",
        "",
        "Files were in the page cache (their checksums had just been checked).",
        "",
        *table_lines(columns, rows),
        "",
    ]


def _versions(state: State) -> list[str]:
    """The section with engines as read back, golden images, versions and options."""
    columns = ("artifact", "engine", "precisions of convolutions", "golden images")
    rows = []
    for name, known in state.facts.items():
        if not known.engine:
            continue
        engine = ", ".join(f"{key} {value}" for key, value in known.engine.items() if value is not None)
        precisions = ", ".join(f"{key} {count}" for key, count in known.precision.items())
        golden = known.golden
        delta = "" if golden is None or golden.delta_over_s is None else f"{golden.delta_over_s:.2g} of {golden.tolerance:g}"
        rows.append((name, engine, precisions, f"{delta} ({golden.tolerance_id}, n={golden.images})" if golden else ""))
    installed = ", ".join(f"{name} {number}" for name, number in versions().items())
    origins = ", ".join(f"{name}: {origin}" for name, origin in state.options.origins.items()) or "all defaults"
    return ["## Engines", "", *table_lines(columns, rows), "", f"Installed: {installed}.", "", f"Options: {origins}.", ""]


def _warnings(state: State) -> list[str]:
    return ["## Warnings", "", *_listed(warnings(state)), ""]
