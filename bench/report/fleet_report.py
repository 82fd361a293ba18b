"""The page of a fleet: the matrix of machines, what differs, and where it begins."""

from __future__ import annotations

from pathlib import Path

from octc.bench.parity.fleet import Fleet
from octc.bench.report.page import Block, Section, Table, Text, write_forms
from octc.core.files import at_free_name, publishing, stamped
from octc.core.version import own_version

NOTE = (
    "Labels and logits are counted against the reference machine, not against the truth; each machine's own verdict is beside "
    "them. A layer is named where its values differ by more than the rounding of additions in another order."
)


def sections_of(found: Fleet) -> list[Section]:
    """The matrix, the machines that fall short, and what each machine is."""
    short = [Text(f"{row.box} falls short: {row.short}", "warn") for row in found.rows if row.short is not None]
    head: list[Block] = [*(short or [Text("No machine falls short.", "lead")]), Table(found.COLUMNS, found.table(), NOTE)]
    keys = sorted({key for row in found.rows for key in row.engine})
    facts = [(row.box, *(str(row.engine.get(key, "")) for key in keys)) for row in found.rows]
    layers = [
        (row.box, str(row.first_layer), f"{row.first_error:.2e}", str(row.worst_layer), f"{row.worst_error:.2e}")
        for row in found.rows
        if row.first_error is not None and row.worst_error is not None
    ]
    made = [Section("matrix", "Machines", head, found.to_json())]
    if layers:
        columns = ("machine", "begins at", "error", "most is added by", "error")
        made.append(Section("layers", "Layers", [Table(columns, layers)]))
    return [*made, Section("engines", "What each machine is", [Table(("machine", *keys), facts)])]


def write_fleet(found: Fleet, reports: Path, time_utc: str) -> Path:
    """reports/fleet-<time>/ with fleet.html, fleet.md and fleet.json; the page."""
    made, foot = sections_of(found), f"Made by octc {own_version()} on {time_utc}."

    def write(folder: Path) -> None:
        with publishing(folder) as new:
            write_forms(new, "fleet", found.title, made, foot, {**found.to_json(), "time_utc": time_utc})

    return at_free_name(lambda: stamped(reports, "fleet"), write)[0] / "fleet.html"
