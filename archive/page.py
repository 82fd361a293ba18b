"""A page about a folder of results, in one file. Pictures are on it only where they were asked for."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from octc.archive.results import BINS, Group, Named, Summary
from octc.bench.report.page import Photo, Plot, Section, Table, Text, to_html
from octc.core.errors import OctcError
from octc.core.files import write_bytes
from octc.figures.plots import bars_figure
from octc.runtimes.predict import Scan, decoded
from octc.volumes.formats import read_volume

WIDTH = 240  # pixels of a photo


def write_page(path: Path, found: Summary, *, photos: bool = False) -> None:
    """Write the page. photos: read the least certain and the most unlike B-scans once more and show them."""
    artifact = found.artifact
    state = "complete" if found.complete else "NOT complete: some inputs are not done yet"
    failed = sum(found.failures.values())
    lead = (
        f"{found.inputs:,} inputs, {found.whole.scans:,} B-scans and {found.eyes:,} eyes have answers, {failed:,} rows of "
        f"failures; {state}."
    )
    rate = "not known" if found.per_second is None else f"{found.per_second:.1f} B-scans a second and process"
    facts = [("artifact", artifact["name"]), ("network", artifact["model"]), ("digest", artifact["digest"]), ("rate", rate)]
    confidence = {f"{place / BINS:.2f}": count for place, count in enumerate(found.confidence) if count}
    sections = [
        Section("summary", "Summary", [Text(lead, "" if found.complete else "warn"), Table(("", ""), facts)], found.to_json()),
        Section(
            "answers",
            "Answers",
            [
                Plot(bars_figure(dict(found.whole.labels.most_common()), "labels of B-scans"), "B-scans by label"),
                Plot(bars_figure(confidence, "largest probability, from"), "B-scans by their largest probability"),
            ],
        ),
        *(_section(name, values) for name, values in sorted(found.groups.items())),
        Section("failures", "Failures", [_failures(found)]),
        Section("look", "To be looked at", _named("least certain", found.least_certain, photos)
                + _named("most unlike the training images", found.most_unlike, photos)),
    ]  # fmt: skip
    foot = "Written by octc from stored rows; nothing on this page is fetched."
    write_bytes(path, to_html(f"Results of {artifact['name']}", sections, foot).encode(errors="backslashreplace"))


def _section(name: str, values: Mapping[str, Group]) -> Section:
    labels = sorted({label for group in values.values() for label in group.labels})
    rows = [
        (value, f"{one.scans:,}", _share(one.unlike, one.judged), *(_share(one.labels[label], one.scans) for label in labels))
        for value, one in sorted(values.items())
    ]
    return Section(f"by-{name}", f"By {name}", [Table((name, "B-scans", "unlike", *labels), rows)])


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % ({part:,})" if whole else "not known"


def _failures(found: Summary) -> Text | Table:
    if not found.failures:
        return Text("None.")
    return Table(("code", "rows"), [(code, f"{count:,}") for code, count in found.failures.most_common()])


def _named(title: str, chosen: Sequence[Named], photos: bool) -> list[Text | Table | Photo]:
    rows = [(f"{one.value:.3f}", one.file, "" if one.frame is None else str(one.frame)) for one in chosen]
    blocks: list[Text | Table | Photo] = [Text(f"The {title}:"), Table(("value", "file", "frame"), rows)]
    for one in chosen if photos else ():
        try:
            blocks.append(Photo(_png(one), f"{one.value:.3f} {one.file} {'' if one.frame is None else one.frame}"))
        except OctcError as error:
            blocks.append(Text(f"{one.file}: {error.code} {error.message}", "note"))
    return blocks


def _png(one: Named) -> bytes:
    path = Path(one.file)
    item = path if one.frame is None else Scan(read_volume(path, index=one.volume), one.frame)
    picture = decoded(item).image.convert("L")
    picture.thumbnail((WIDTH, 4 * WIDTH), Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
