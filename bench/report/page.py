"""A document of sections that is written three times from one list: HTML in one file, Markdown, JSON.

Every text is escaped. The page asks the network for nothing, prints, and follows the reader's light or dark colours.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from octc.core.files import write_bytes, write_json
from octc.figures.canvas import COLOURS, GREY, INK, PAPER, Figure, to_inline

THEME = {
    INK: "var(--ink)",
    "#000000": "var(--ink)",
    GREY: "var(--grid)",
    PAPER: "var(--paper)",
    COLOURS[0]: "var(--first)",
    COLOURS[1]: "var(--second)",
}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #555; --grid: #ccc; --paper: #fff; --first: #0072b2; --second: #d55e00;
  --line: #ddd; --mark: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --soft: #a8a8a8; --grid: #444; --paper: #16191d;
  --first: #56b4e9; --second: #ff9650; --line: #333a42; --mark: #20252b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-top: 1px solid var(--line);
  padding-top: 1rem; } h3 { font-size: 1.05rem; }
.lead { border-left: 4px solid var(--first); background: var(--mark); padding: .6rem 1rem; }
.warn { border-left: 4px solid var(--second); background: var(--mark); padding: .6rem 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .7rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: normal; } th { color: var(--soft); font-weight: 600; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; flex: 1 1 min(28rem, 100%); min-width: 0; }
figure svg { display: block; width: 100%; height: auto; font-family: system-ui, sans-serif; } figure img { max-width: 100%; }
figcaption, .note { color: var(--soft); font-size: .9rem; } nav a { margin-right: .8rem; } a { color: var(--first); }
@media print { :root { --ink: #000; --soft: #333; --grid: #ccc; --paper: #fff; --first: #0072b2; --second: #d55e00;
  --line: #bbb; --mark: #fff; } body { max-width: none; padding: 0; font-size: 11px; } nav { display: none; }
  figure, tr { break-inside: avoid; } h2 { break-after: avoid; } .wide { overflow: visible; } }
"""


@dataclass(frozen=True)
class Text:
    """A paragraph. kind: "", "lead", "warn" or "note"."""

    text: str
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows of text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """A figure with what it shows in words; `data` is what it was drawn from."""

    figure: Figure
    caption: str
    data: Any = None


@dataclass(frozen=True)
class Photo:
    """A picture of the data set as PNG bytes: only where it was requested."""

    png: bytes
    caption: str


Block = Text | Table | Plot | Photo


@dataclass(frozen=True)
class Section:
    """A heading and what is below it. data: the same as numbers, for the JSON."""

    id: str
    title: str
    blocks: Sequence[Block]
    data: Any = field(default=None)


def to_html(title: str, sections: Sequence[Section], foot: str) -> str:
    """The page. It has no script, and nothing in it is fetched."""
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>',
        f"<h1>{escape(title)}</h1>",
        "<nav>" + "".join(f'<a href="#{escape(s.id)}">{escape(s.title)}</a>' for s in sections) + "</nav>",
    ]
    for section in sections:
        parts.append(f'<section id="{escape(section.id)}">\n<h2>{escape(section.title)}</h2>')
        parts += _html_blocks(section.blocks)
        parts.append("</section>")
    return "\n".join([*parts, f'<footer><p class="note">{escape(foot)}</p></footer>', "</body>\n</html>"]) + "\n"


def _html_blocks(blocks: Sequence[Block]) -> Iterator[str]:
    """Neighbouring figures stand side by side where there is room."""
    row: list[str] = []
    for block in blocks:
        if isinstance(block, (Plot, Photo)):
            row.append(_html_figure(block))
            continue
        if row:
            yield '<div class="figures">\n' + "\n".join(row) + "\n</div>"
            row = []
        if isinstance(block, Text):
            yield f'<p class="{block.kind}">{escape(block.text)}</p>' if block.kind else f"<p>{escape(block.text)}</p>"
        else:
            yield _html_table(block)
    if row:
        yield '<div class="figures">\n' + "\n".join(row) + "\n</div>"


def _html_figure(block: Plot | Photo) -> str:
    if isinstance(block, Plot):
        inner = to_inline(block.figure, block.caption, THEME)
    else:
        inner = f'<img alt="{escape(block.caption)}" src="data:image/png;base64,{base64.b64encode(block.png).decode()}">'
    return f"<figure>\n{inner}\n<figcaption>{escape(block.caption)}</figcaption>\n</figure>"


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    note = f'\n<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>{note}'


def write_forms(folder: Path, name: str, title: str, made: Sequence[Section], foot: str, document: Mapping[str, Any]) -> None:
    """One document as NAME.html, NAME.md and NAME.json of a folder."""
    write_bytes(folder / f"{name}.html", to_html(title, made, foot).encode())
    write_bytes(folder / f"{name}.md", to_markdown(title, made, foot).encode())
    write_json(folder / f"{name}.json", dict(document))


def to_markdown(title: str, sections: Sequence[Section], foot: str, figures: str = "") -> str:
    """The same in Markdown. figures: folder of the figures as files ("" leaves their captions alone)."""
    parts = [f"# {plain(title)}", ""]
    for section in sections:
        parts += [f"## {plain(section.title)}", ""]
        number = 0
        for block in section.blocks:
            if isinstance(block, Text):
                parts += [f"> {plain(block.text)}" if block.kind in ("lead", "warn") else plain(block.text), ""]
            elif isinstance(block, Table):
                parts += [*md_table(block.columns, block.rows), "", *([plain(block.note), ""] if block.note else [])]
            elif isinstance(block, Plot):
                number += 1
                where = f"{figures}/{section.id}-{number}.svg"
                parts += [f"![{plain(block.caption)}]({where})" if figures else f"*{plain(block.caption)}*", ""]
    return "\n".join([*parts, f"*{plain(foot)}*"]) + "\n"


def plain(text: str) -> str:
    """Text that Markdown takes literally."""
    for sign in "\\`*<>[]|":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def md_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    body = [f"| {' | '.join(plain(cell) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(map(plain, columns))} |", f"|{' --- |' * len(columns)}", *body]


def to_json(title: str, sections: Sequence[Section], head: dict[str, Any]) -> dict[str, Any]:
    """The same as numbers: of each section its data, its texts, its tables and what its figures show."""
    return {**head, "title": title, "sections": [_section_json(section) for section in sections]}


def _section_json(section: Section) -> dict[str, Any]:
    return {
        "id": section.id,
        "title": section.title,
        "data": section.data,
        "texts": [b.text for b in section.blocks if isinstance(b, Text)],
        "tables": [
            {"columns": list(b.columns), "rows": [list(r) for r in b.rows]} for b in section.blocks if isinstance(b, Table)
        ],
        "figures": [{"shows": b.caption, "data": b.data} for b in section.blocks if isinstance(b, Plot)],
    }
