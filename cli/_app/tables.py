"""Tables for any width: columns if they fit without breaking a word, otherwise a block of lines per row."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from octc.cli._app.terminal import shown

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text


def wrapped(line: str, width: int) -> str:
    """Wrap a line to `width` columns; a longer word (a path) is broken."""
    return textwrap.fill(line, width, subsequent_indent="  ", break_on_hyphens=False)


def _text(cell: str, overflow: Literal["fold"] | None = None) -> Text:
    from rich.text import Text

    return Text(shown(cell), overflow=overflow)


@dataclass(frozen=True)
class Rows:
    """A table that `Session.result` prints. Cells are plain text; brackets in names are not markup."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.measure import Measurement

        table = self._table()
        if Measurement.get(console, options.update(width=10_000), table).minimum <= options.max_width:
            yield table
        else:
            yield from self._blocks()

    def _table(self) -> Any:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(title=_text(self.title) if self.title else None, title_justify="left", box=SIMPLE_HEAD)
        for name in self.columns:
            table.add_column(name)
        for row in self.rows:
            table.add_row(*map(_text, row))
        return table

    def _blocks(self) -> RenderResult:
        """`name: cell` lines under the first cell as heading; long lines continue with an indent."""
        from rich.padding import Padding

        if self.title:
            yield _text(self.title)
        for first, *rest in self.rows:
            yield _text(first, overflow="fold")
            for name, cell in zip(self.columns[1:], rest, strict=True):
                yield Padding(_text(f"{name}: {cell}", overflow="fold"), (0, 0, 0, 2))
            yield _text("")
