"""Writes a report: one HTML page, Markdown with its figures, JSON, model card, checklist, bill of materials."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
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
from octc.bench.report.collect.rules import rules_section
from octc.bench.report.collect.run_summary import RunSummary
from octc.bench.report.collect.speed import latency_section, pareto_section, summary_section
from octc.bench.report.model_card import card_section, facts
from octc.bench.report.page import Block, Plot, Section, Table, Text, to_html, to_json, to_markdown
from octc.bench.report.sbom import cyclonedx
from octc.core.errors import OctcError
from octc.core.files import publishing, write_bytes, write_json
from octc.datasets.base import Sample
from octc.datasets.pictures import read_picture
from octc.figures.canvas import to_svg
from octc.imaging.decode import Values
from octc.machine.host import versions

SCHEMA = "1.0"
PHOTO_SIDE = 320
SENTENCES = re.compile(r"(?<=[.!?]) +(?=[A-Z])")
LEAST_WORDS = 5  # of a cell that is a sentence


@dataclass(frozen=True)
class Wanted:
    """What to write. redact: images by keyed checksums; photos: root of the data set whose changed images are shown."""

    html: bool = True
    md: bool = True
    redact: bool = False
    photos: Path | None = None
    checklist: str | None = None
    sbom: bool = False


def sections(summary: RunSummary, wanted: Wanted) -> list[Section]:
    """The report, in its order."""
    values = summary.first.artifact.preprocess.value_range
    show = (
        None if wanted.photos is None else photo_of(wanted.photos, {one.path: one for one in summary.images.values()}, values)
    )
    rules = rules_section(summary)
    return [
        answer_section(summary),
        summary_section(summary),
        verdict_section(summary),
        *([] if rules is None else [rules]),
        classes_section(summary),
        confusion_section(summary),
        roc_section(summary),
        calibration_section(summary),
        latency_section(summary),
        pareto_section(summary),
        layers_section(summary),
        flipped_section(summary, redact=wanted.redact, show=show),
        card_section(summary),
        *([checklist_section(summary, wanted.checklist)] if wanted.checklist else []),
    ]


def told_once(made: Sequence[Section]) -> list[Section]:
    """The sections without the sentences of an earlier paragraph, note or two-column table; no section becomes empty."""
    seen: set[str] = set()
    found = []
    for section in made:
        kept = [new for block in section.blocks if (new := _without(block, seen)) is not None]
        found.append(replace(section, blocks=kept or section.blocks))
    return found


def _without(block: Block, seen: set[str]) -> Block | None:
    """A block without what was seen already, None where nothing of it is left; what it says is seen from now on."""
    if isinstance(block, Text):
        text = _new_sentences(block.text, seen)
        return replace(block, text=text) if text else None
    if isinstance(block, Table):
        described = len(block.columns) == 2
        rows = [row for row in block.rows if not described or len(row[1].split()) < LEAST_WORDS or _new_sentences(row[1], seen)]
        return replace(block, rows=rows, note=_new_sentences(block.note, seen)) if rows or not block.rows else None
    return block


def _new_sentences(text: str, seen: set[str]) -> str:
    found = []
    for sentence in SENTENCES.split(text):
        key = sentence.strip(" .").casefold()
        if key not in seen or not key:
            seen.add(key)
            found.append(sentence)
    return " ".join(found)


def checklist_section(summary: RunSummary, name: str) -> Section:
    """A reporting checklist with what is known."""
    known = facts(summary)
    title, rows = filled(name, known)
    counts = counted(name, known)
    text = f"octc answers {counts[ANSWERED]} of {len(rows)} items and has a hint for {counts[HINT]} more; the others are open."
    table = Table(("item", "topic (shortened)", "what octc knows"), rows)
    return Section("checklist", title, [Text(text), table], rows)


def photo_of(root: Path, samples: Mapping[str, Sample], values: Values | None = None) -> Show:
    """Reads an image of the data set by its path in the split and makes it small."""

    def show(path: str) -> bytes | None:
        if path not in samples:
            return None
        try:
            image = read_picture(root, samples[path], values).image.convert("L")
        except OctcError:
            return None
        image.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()

    return show


def write_report(folder: Path, summary: RunSummary, wanted: Wanted, time_utc: str) -> tuple[list[str], dict[str, Any]]:
    """Write the folder, whole or not at all; the names of its files, and the document of report.json.

    Raises:
        OctcError: E106 the folder exists.
    """
    title = f"octc report: {summary.first.artifact.lineage.get('run')}"
    foot = f"Made by octc {versions().get('octc', 'unknown')} on {time_utc} from what train, verify and bench stored."
    made = sections(summary, wanted)
    head = {
        "schema_version": SCHEMA,
        "command": "report",
        "run": summary.first.artifact.lineage.get("run"),
        "time_utc": time_utc,
    }
    card = [section for section in made if section.id == "card"]  # a page of its own, and whole
    made = told_once(made)
    document = to_json(title, made, head)
    with publishing(folder) as new:
        writes: dict[str, Callable[[], str]] = {
            "report.html": lambda: to_html(title, made, foot),
            "report.md": lambda: to_markdown(title, made, foot, "figures"),
            "model-card.md": lambda: to_markdown(f"Model card: {summary.first.artifact.model}", card, foot),
        }
        for name, text in writes.items():
            if {"report.html": wanted.html, "report.md": wanted.md}.get(name, True):
                write_bytes(new / name, text().encode())
        write_json(new / "report.json", document)
        if wanted.md:
            _write_figures(new / "figures", made)
        if wanted.sbom:
            write_json(new / "sbom.cdx.json", cyclonedx(summary, time_utc))
        names = sorted(p.relative_to(new).as_posix() for p in new.rglob("*") if p.is_file())
    return names, document


def _write_figures(folder: Path, made: list[Section]) -> None:
    for section in made:
        plots = [block for block in section.blocks if isinstance(block, Plot)]
        for number, plot in enumerate(plots, 1):
            write_bytes(folder / f"{section.id}-{number}.svg", to_svg(plot.figure))
