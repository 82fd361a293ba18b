"""The page of a monitor, its JSON and a text file for Prometheus."""

from __future__ import annotations

from pathlib import Path

import msgspec

from octc.bench.report.page import Section, Table, Text, to_html
from octc.core.files import write_bytes, write_json
from octc.schemas.monitor import MonitorReport

PAGE, DOCUMENT, METRICS = "monitor.html", "monitor.json", "monitor.prom"


def write_report(folder: Path, found: MonitorReport) -> None:
    """monitor.html, monitor.json and monitor.prom in a folder, each replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DOCUMENT, msgspec.to_builtins(found))
    write_bytes(folder / PAGE, page(found).encode())
    write_bytes(folder / METRICS, metrics(found).encode())


def words_of(found: MonitorReport) -> list[str]:
    """The report in lines."""
    drift, field, free = found.drift, found.with_labels, found.without_labels
    lines = [f"{'ALARM' if found.alarms else 'no alarm'}: {found.artifact}, {found.eyes:,} eyes"]
    lines += [f"  alarm        {text}" for text in found.alarms]
    if found.eyes_of_others:
        lines.append(f"  not judged   {found.eyes_of_others:,} eyes: of other artifacts, or of this one before it was changed")
    lines.append(
        f"  drift        {'found' if drift.alarm else 'none found'} against {drift.against}: "
        f"evidence e^{drift.log_capital:.1f}, alarm from {1 / drift.alpha:,.0f} on "
        f"(false in {100 * drift.alpha:g} % of stores, ever, where each row is another patient's)"
    )
    lines += [f"               {row.name}: e^{row.log_capital:.1f}" for row in drift.streams[:3]]
    lines.append(f"  golden       replayed {found.golden.count} times, {found.golden.failed} times they differed")
    if free.limits is None:
        lines.append(f"  no labels    accuracy not known: {free.reason}")
    else:
        lines.append(
            f"  no labels    accuracy {_percent(free.accuracy)} {_span(free.limits)}, if calibration is as on validation "
            f"({free.answers:,} answers)"
        )
    if field.accuracy is None:
        lines.append("  labels       none arrived: octc monitor --labels FILE")
    else:
        lines.append(
            f"  labels       accuracy {_percent(field.accuracy)} {_span(field.limits)} of {field.images:,} images, "
            f"{field.groups:,} patients or images without one, "
            f"floor {_percent(field.floor)}: {field.word}"
        )
    return lines


def _percent(value: float | None) -> str:
    return "not known" if value is None else f"{100 * value:.1f} %"


def _span(limits: list[float] | None) -> str:
    return "" if limits is None else f"[{100 * limits[0]:.1f}, {100 * limits[1]:.1f}]"


def page(found: MonitorReport) -> str:
    """One HTML file that asks the network for nothing."""
    state = "; ".join(found.alarms) or "No alarm."
    facts = [
        ("artifact", found.artifact), ("digest", found.artifact_sha256), ("eyes", f"{found.eyes:,}"),
        ("eyes of others", f"{found.eyes_of_others:,}"),
        ("days", f"{found.first_day or '-'} to {found.last_day or '-'}"), ("time", found.time_utc),
        *((f"label {name}", f"{count:,}") for name, count in sorted(found.labels.items())),
    ]  # fmt: skip
    streams = [
        (row.name, f"{row.values:,}", f"{row.reference:,}", f"{row.log_capital:.2f}", "alarm" if row.alarm else "")
        for row in found.drift.streams
    ]
    lines = [Text(line.strip()) for line in words_of(found)[1:]]
    sections = [
        Section("summary", "Summary", [Text(state, "warn" if found.alarms else "lead"), Table(("", ""), facts), *lines]),
        Section(
            "drift",
            "Drift",
            [
                Text(
                    f"Natural logarithm of the bettors' largest capital, stream by stream: an alarm from "
                    f"{len(found.drift.streams)} streams / {found.drift.alpha:g} on.",
                    "note",
                ),
                Table(("stream", "values", "reference", "log capital", ""), streams),
            ],
        ),
    ]
    return to_html(f"Monitor of {found.artifact}", sections, "Written by octc from a local store; nothing is fetched or sent.")


def metrics(found: MonitorReport) -> str:
    """Gauges in Prometheus' text format, for the textfile collector of node_exporter."""
    free, field = found.without_labels, found.with_labels
    rows: list[tuple[str, str, float | None]] = [
        ("octc_monitor_alarm", "1 where anything is an alarm", float(bool(found.alarms))),
        ("octc_monitor_eyes", "predictions in the store", float(found.eyes)),
        ("octc_monitor_eyes_of_others", "predictions in the store that are of another artifact", float(found.eyes_of_others)),
        ("octc_monitor_drift_alarm", "1 where drift was found", float(found.drift.alarm)),
        ("octc_monitor_drift_log_evidence", "natural logarithm of the evidence", found.drift.log_capital),
        ("octc_monitor_golden_failures", "replays of the golden images that differed", float(found.golden.failed)),
        ("octc_monitor_accuracy_without_labels", "mean of the interval's estimate", free.accuracy),
        ("octc_monitor_accuracy", "share right, of labels that arrived", field.accuracy),
        ("octc_monitor_accuracy_below_floor", "1 where that is shown", float(field.word == "below")),
    ]
    name = found.artifact.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    lines = []
    for metric, words, value in rows:
        if value is not None:
            lines += [f"# HELP {metric} {words}", f"# TYPE {metric} gauge", f'{metric}{{artifact="{name}"}} {value:.10g}']
    return "\n".join(lines) + "\n"
