"""Sections of a report about this machine: latency, ratios, accuracy against latency and size; and the summary of it all."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from octc.bench.report.collect.accuracy import leading, percent
from octc.bench.report.collect.run_summary import RunSummary, Timing, samples_ms
from octc.bench.report.figures.comparisons import latency_figure
from octc.bench.report.page import Block, Plot, Section, Table, Text
from octc.bench.timing.latency import spell_number
from octc.bench.timing.render import SCOPES
from octc.figures.pareto import Point, best_points
from octc.store.verdicts import word_of

MOST_ROWS = 8  # curves in one figure
NOT_A_DEVICE = "Software for research. Not a medical device; nothing here is a diagnosis."


def summary_section(summary: RunSummary) -> Section:
    """One row for every artifact: size, accuracy, agreement, verdict, latency, how long the teacher takes."""
    claims = {pair.name: pair for pair in leading(summary)}
    rows: list[tuple[str, ...]] = []
    for found in summary.found:
        name = found.artifact.name
        pair, timing = claims.get(name), summary.timings.get(name)
        measured = accuracy_of(summary, name)
        shown = "not measured" if measured is None else percent(*measured)
        agreement = "" if pair is None else f"{100 * pair.document['agreement']['rate']:.2f}"
        known = summary.verdicts.get(name)
        none = "not verified" if summary.as_reference(name) is None else "reference"
        word = none if known is None or (pair is None and none == "reference") else word_of(known)
        rows.append((name, f"{summary.mib(found):.2f}", shown, agreement, word, p50_text(timing), _ratio_text(timing)))
    columns = (
        "artifact",
        "MiB",
        "accuracy % [95 %]",
        "agreement with its reference %",
        "verdict",
        "p50 ms, batch 1",
        "the teacher takes … times as long",
    )
    artifact = summary.first.artifact
    lineage = artifact.lineage
    teacher = lineage.get("teacher_run")
    made = f"{artifact.role} {artifact.model} at {artifact.preprocess.size} px"
    made += f", run {lineage.get('run')}, data set {lineage.get('dataset')}"
    taught = f", taught by {teacher}" if teacher else ", trained without a teacher"
    return Section("summary", "Summary", [Text(NOT_A_DEVICE, "lead"), Text(f"{made}{taught}."), Table(columns, rows)])


def accuracy_of(summary: RunSummary, name: str) -> tuple[float, list[float]] | None:
    """Accuracy of an artifact in percent with its interval: of its own verdict, else as the reference of another one."""
    own = next(summary.claims(name), None)
    document, side = (own, "candidate") if own is not None else (summary.as_reference(name), "reference")
    return None if document is None else (document["accuracy"][side], document["accuracy"]["wilson"][side])


def device_row(timing: Timing | None) -> dict[str, Any] | None:
    """The row of one picture at a time."""
    rows = () if timing is None else timing.rows
    single = [r for r in rows if r["scenario"] == "single_stream" and r["batch"] == 1 and r.get("latency_ms")]
    return next((r for scope in ("device", "host") for r in single if r["scope"] == scope), None)


def p50_text(timing: Timing | None) -> str:
    """p50 with its interval, and what is wrong with it."""
    row = device_row(timing)
    if row is None:
        return "not measured"
    text = _measure(row["latency_ms"]["p50"])
    return text if row["status"] == "VALID" else f"({text}) {row['status']}: {', '.join(row['reasons'])}"


def _measure(measure: dict[str, Any] | None) -> str:
    if measure is None or measure.get("value") is None:
        return str((measure or {}).get("reason", "null"))
    limits = measure.get("ci95")
    text = spell_number(measure["value"])
    return text if not limits else f"{text} [{spell_number(limits[0])}, {spell_number(limits[1])}]"


def _ratio_text(timing: Timing | None) -> str:
    row = device_row(timing)
    if timing is None or row is None:
        return ""
    mine = [c for c in timing.document["comparisons"] if c["kind"] == "as_shipped" and c["candidate_row"] == row["id"]]
    return next((_measure(c["ratio"]) for c in mine), "")


def latency_section(summary: RunSummary) -> Section:
    """Percentiles, their distribution, ratios and findings, under the conditions that they were measured in."""
    blocks: list[Block] = []
    curves: list[tuple[str, npt.NDArray[np.float64]]] = []
    table: list[tuple[str, ...]] = []
    data: list[dict[str, Any]] = []
    lines: list[str] = []
    for name, timing in summary.timings.items():
        for row in timing.rows:
            if not row.get("latency_ms"):
                continue
            what = f"{name}, {SCOPES[row['scope']]}" + ("" if row["batch"] == 1 else f", batch {row['batch']}")
            known = row["latency_ms"]
            energy = (row.get("energy") or {}).get("gross_mj")
            status = row["status"] if row["status"] == "VALID" else f"{row['status']}: {', '.join(row['reasons'])}"
            table.append(
                (
                    what,
                    f"{row['n']:,}",
                    *(_measure(known[p]) for p in ("p50", "p90", "p99")),
                    _measure(row["memory"]["rss_peak_mib"]),
                    _measure(energy),
                    status,
                )
            )
            data.append(row)
            times = samples_ms(timing, row) if row["status"] == "VALID" else None
            if times is not None and len(curves) < MOST_ROWS:
                curves.append((what, times))
        lines += [f["text"] for f in timing.document["findings"] if f["level"] != "info"]
        lines += [f"{c['candidate_row']} and {c['reference_row']}: {c['text']}" for c in timing.document["comparisons"]]
    if not table:
        return Section("latency", "Latency", [Text("Not measured: octc bench", "note")])
    if curves:
        numbers = {what: {"n": len(times)} for what, times in curves}
        blocks.append(Plot(latency_figure(curves, "Share of samples done by a time"), "Distribution of the latencies", numbers))
    columns = ("row", "n", "p50 ms [95 %]", "p90", "p99", "peak MiB", "mJ/image", "status")
    blocks.append(
        Table(columns, table, "Nearest-rank percentiles with intervals of order statistics; INVALID rows count for nothing.")
    )
    blocks += [Text(line) for line in dict.fromkeys(lines)]
    blocks.append(Text(_machine(next(iter(summary.timings.values())).document), "note"))
    return Section("latency", "Latency", blocks, data)


def _machine(document: dict[str, Any]) -> str:
    machine, settings = document["machine"], document["settings"]
    virtual = ", virtual machine" if machine["virtual"] else ""
    return (
        f"{machine['cpu_model']}, {machine['cores_physical']} cores{virtual}, {' '.join(machine['isa'])}; "
        f"{settings['profile']} profile, {settings['threads']} threads; octc {document['octc_version']}, "
        f"{document['started_utc']}."
    )


def points(summary: RunSummary) -> list[Point]:
    """Artifacts with an accuracy and a valid latency; the FP32 reference too, where it was measured beside the others."""
    found = []
    for one in summary.found:
        name = one.artifact.name
        row = device_row(summary.timings.get(name))
        measured = accuracy_of(summary, name)
        if (
            measured is not None
            and row is not None
            and row["status"] == "VALID"
            and row["latency_ms"]["p50"]["value"] is not None
        ):
            p50, (accuracy, (low, high)) = row["latency_ms"]["p50"]["value"], measured
            found.append(Point(name, p50, accuracy, low, high, summary.mib(one)))
    return found


def pareto_section(summary: RunSummary) -> Section:
    """Accuracy against latency and size; INVALID rows are not in it."""
    found = points(summary)
    if not found:
        return Section("pareto", "Accuracy, latency, size", [Text("Needs octc verify and a valid octc bench.", "note")])
    best = ", ".join(p.name for p in best_points(found))
    text = Text(f"No other of the {len(found)} artifacts that have both is quicker and as accurate: {best}.")
    rows = [(p.name, spell_number(p.ms), percent(p.accuracy, (p.low, p.high)), f"{p.mib:.2f}") for p in found]
    table = Table(("artifact", "p50 ms", "accuracy % [95 %]", "MiB"), rows, "The figure at the top shows them.")
    return Section("pareto", "Accuracy, latency, size", [table, text], [vars(p) for p in found])
