"""The session of a command: its common options, and its only access to the terminal.

The result goes to stdout, everything else to stderr; with `--json` stdout carries one document and nothing else.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

from octc.cli._app.terminal import (
    COLOURS,
    PLAIN,
    Untiring,
    answer,
    has_colour,
    marked,
    reaching_stdout,
    shown,
    shown_line,
    tell,
)
from octc.core.progress import Step, ignore, spell_seconds

QUIET_SECONDS = 10.0  # seconds between progress lines without a terminal


@dataclass
class Session:
    """Common options and output of a command; for a job it is the `Reporter`.

    Attributes:
        run_dir: folder of the runs. data: root of the data set, or None (then OCTC_DATA, then the default).
        settings: merged configuration files and environment, section -> key -> (value, origin).
        origins: origin of each option of this command: "flag", "env:NAME", "project:octc.toml:12", ... or "default".
        run_id: id of the run that was used or made, for the JSON envelope.
    """

    command: str
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    color: bool = True
    offline: bool = False
    config: str | None = None
    run_dir: Path = Path("runs")
    data: str | None = None
    settings: dict[str, dict[str, tuple[Any, str]]] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    run_id: str | None = None
    document: dict[str, Any] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    _bar: Any = None

    @property
    def colour(self) -> bool:
        """Whether stderr is written in colour."""
        return self.color and has_colour(sys.stderr, os.environ)

    def say(self, text: str) -> None:
        """A message for the user, on stderr."""
        if not self.quiet:
            tell(marked(shown(text), sys.stderr, self.colour) + "\n")

    def warn(self, code: str, message: str, path: str | None = None) -> None:
        """Print a warning, which `--json` lists too; the command continues."""
        self.warnings.append({"code": code, "message": message, "path": path})
        head = f"warning[{code}]"
        if self.colour:
            head = f"{COLOURS['warning']}{head}{PLAIN}"
        place = f"\n  --> {shown_line(path)}" if path else ""
        tell(f"{head}: {shown_line(message)}{place}\n")

    def result(self, what: Any) -> None:
        """Print the result to stdout: a text, or anything that rich can render. Prints nothing with `--json`."""
        if self.json:
            return
        text = self._marked(what) if isinstance(what, str) else self._rendered(what)
        answer(text if text.endswith("\n") else text + "\n")

    def expect_table(self) -> None:
        """Import the table renderer now, while other threads work."""
        for name in () if self.json else ("box", "console", "measure", "table"):
            import_module(f"rich.{name}")

    def rows(self, text: str) -> None:
        """Print lines for programs to stdout, unchanged and immediately. Prints nothing with `--json`."""
        if not self.json:
            answer(text)

    @property
    def width(self) -> int:
        """Width of stdout in columns: 160 without a terminal and without COLUMNS, and never below 40."""
        return max(shutil.get_terminal_size((160, 24)).columns, 40)

    @property
    def _result_colour(self) -> bool:
        return self.color and has_colour(sys.stdout, os.environ)

    def _marked(self, text: str) -> str:
        return "\n".join(marked(line, sys.stdout, self._result_colour) for line in shown(text).split("\n"))

    def report(self, data: dict[str, Any]) -> None:
        """Set the command's document, `data` of the JSON envelope."""
        self.document = data

    def _rendered(self, what: Any) -> str:
        from rich.console import Console

        colour = self._result_colour
        console = Console(
            file=sys.stdout,
            no_color=not colour,
            force_terminal=colour,
            width=self.width,
            markup=False,
            highlight=False,
            emoji=False,
        )
        with reaching_stdout(), console.capture() as captured:  # rich still touches stdout
            console.print(what)
        return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Step]:
        """A progress bar with the remaining time; without a terminal, a line for every 10 %."""
        if self.quiet:
            yield ignore
        elif sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            yield from self._bar_steps(label, total)
        else:
            yield self._line_steps(label, total)

    def _bar_steps(self, label: str, total: int | None) -> Iterator[Step]:
        from rich import progress
        from rich.console import Console
        from rich.text import Text

        outermost = self._bar is None
        if outermost:
            columns = (
                progress.TextColumn("  {task.description}", markup=False),
                progress.BarColumn(bar_width=24),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(compact=True),
            )
            told = cast(IO[str], Untiring(sys.stderr))
            console = Console(file=told, no_color=not self.colour, markup=False, highlight=False, emoji=False)
            self._bar = progress.Progress(*columns, console=console, transient=True, redirect_stdout=False)
            self._bar.start()
        bar = self._bar
        task = bar.add_task(Text(label).plain, total=total)
        try:
            yield functools.partial(bar.advance, task)
        finally:
            if outermost:
                bar.stop()
                self._bar = None
            else:
                bar.remove_task(task)

    def _line_steps(self, label: str, total: int | None) -> Step:
        start = time.monotonic()
        state = {"done": 0, "tenth": 0, "said": start}

        def step(count: int = 1) -> None:
            state["done"] += count
            now = time.monotonic()
            done = int(state["done"])
            tenth = 10 * done // total if total else 0
            due = tenth > state["tenth"] or not total
            if not due or now - state["said"] < QUIET_SECONDS:
                return
            state["tenth"], state["said"] = tenth, now
            left = f", {spell_seconds((now - start) / done * (total - done))} left" if total and done else ""
            share = f"{min(100 * done // total, 100)} % ({done}/{total})" if total else str(done)
            self.say(f"  {label}  {share}{left}")

        return step
