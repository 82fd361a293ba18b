"""Writes a report: one HTML page, Markdown with its figures, JSON, model card, checklist, bill of materials."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from octc.bench.report.checklists import ANSWERED, HINT, counted, filled
from octc.bench.report.collect.accuracy import (
    Show,
    calibration_section,
    classes_section,
    confusion_section,
    flipped_section,
    roc_section,
    verdict_section,
)
from octc.bench.report.collect.answer import answer_section
from octc.bench.report.collect.layers import layers_section
from octc.bench.report.collect.run_summary import Dossier
from octc.bench.report.collect.speed import latency_section, pareto_section, summary_section
from octc.bench.report.model_card import card_section, facts
from octc.bench.report.page import Plot, Section, Table, Text, to_html, to_json, to_markdown
from octc.bench.report.sbom import cyclonedx
from octc.core.errors import OctcError
from octc.core.files import publishing, write_bytes, write_json
from octc.figures.canvas import to_svg
from octc.imaging.preprocess import read_image
from octc.machine.host import versions

SCHEMA = "1.0"
PHOTO_SIDE = 320


@dataclass(frozen=True)
class Wanted:
    """What to write. redact: images by keyed sums; photos: root of the data set whose flipped images are shown, or None."""

    html: bool = True
    md: bool = True
    redact: bool = False
    photos: Path | None = None
    checklist: str | None = None
    sbom: bool = False


def sections(dossier: Dossier, wanted: Wanted) -> list[Section]:
    """The report, in its order."""
    show = None if wanted.photos is None else photo_of(wanted.photos)
    return [
        answer_section(dossier),
        summary_section(dossier),
        verdict_section(dossier),
        classes_section(dossier),
        confusion_section(dossier),
        roc_section(dossier),
        calibration_section(dossier),
        latency_section(dossier),
        pareto_section(dossier),
        layers_section(dossier),
        flipped_section(dossier, redact=wanted.redact, show=show),
        card_section(dossier),
        *([checklist_section(dossier, wanted.checklist)] if wanted.checklist else []),
    ]


def told_once(made: Sequence[Section]) -> list[Section]:
    """The sections without the paragraphs that stand in an earlier one; no section becomes empty."""
    seen: set[str] = set()
    found = []
    for section in made:
        kept = [block for block in section.blocks if not (isinstance(block, Text) and block.text in seen)]
        found.append(replace(section, blocks=kept or section.blocks))
        seen |= {block.text for block in kept if isinstance(block, Text)}
    return found


def checklist_section(dossier: Dossier, name: str) -> Section:
    """A reporting checklist with what is known."""
    known = facts(dossier)
    title, rows = filled(name, known)
    counts = counted(name, known)
    text = f"octc answers {counts[ANSWERED]} of {len(rows)} items and has a hint for {counts[HINT]} more; the others are open."
    table = Table(("item", "topic (shortened)", "what octc knows"), rows)
    return Section("checklist", title, [Text(text), table], rows)


def photo_of(root: Path) -> Show:
    """Reads an image of the data set and makes it small."""

    def show(path: str) -> bytes | None:
        try:
            image = read_image(root / path).image.convert("L")
        except OctcError:
            return None
        image.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()

    return show


def write_report(folder: Path, dossier: Dossier, wanted: Wanted, time_utc: str) -> tuple[list[str], dict[str, Any]]:
    """Write the folder, whole or not at all; the names of its files, and the document of report.json.

    Raises:
        OctcError: E106 the folder exists.
    """
    title = f"octc report: {dossier.first.artifact.lineage.get('run')}"
    foot = f"Made by octc {versions().get('octc', 'unknown')} on {time_utc} from what train, verify and bench stored."
    made = sections(dossier, wanted)
    head = {
        "schema_version": SCHEMA,
        "command": "report",
        "run": dossier.first.artifact.lineage.get("run"),
        "time_utc": time_utc,
    }
    card = [section for section in made if section.id == "card"]  # a page of its own, and whole
    made = told_once(made)
    document = to_json(title, made, head)
    with publishing(folder) as new:
        writes: dict[str, Callable[[], str]] = {
            "report.html": lambda: to_html(title, made, foot),
            "report.md": lambda: to_markdown(title, made, foot, "figures"),
            "model-card.md": lambda: to_markdown(f"Model card: {dossier.first.artifact.model}", card, foot),
        }
        for name, text in writes.items():
            if {"report.html": wanted.html, "report.md": wanted.md}.get(name, True):
                write_bytes(new / name, text().encode())
        write_json(new / "report.json", document)
        if wanted.md:
            _write_figures(new / "figures", made)
        if wanted.sbom:
            write_json(new / "sbom.cdx.json", cyclonedx(dossier, time_utc))
        names = sorted(p.relative_to(new).as_posix() for p in new.rglob("*") if p.is_file())
    return names, document


def _write_figures(folder: Path, made: list[Section]) -> None:
    for section in made:
        plots = [block for block in section.blocks if isinstance(block, Plot)]
        for number, plot in enumerate(plots, 1):
            write_bytes(folder / f"{section.id}-{number}.svg", to_svg(plot.figure))
