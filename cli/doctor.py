"""`octc doctor`: checks what this machine can run, with a command for what is missing. Changes and sends nothing."""

from __future__ import annotations

import textwrap
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError
from octc.core.options import OneOf
from octc.machine.checks import TARGETS, Check

SIGNS = {"ok": "✓", "info": "·", "warning": "!", "problem": "✗"}


def doctor(
    session: Session,
    target: Annotated[str | None, OneOf(TARGETS), typer.Option(help="Check what this kind of machine needs")] = None,
    log: Annotated[
        Path | None,
        typer.Option("--log", metavar="FILE", help="Explain an error log of pip, Python or TensorRT (-: stdin)"),
    ] = None,
) -> int:
    """Check what this machine can run, and print how to get what is missing. Exit code 4: there is a problem."""
    from octc.runtimes.doctor import DoctorOptions, examine, explained
    from octc.train.recipes.weight_packages import PACKAGES

    weights = {"weights": tuple(package.module for package in PACKAGES.values())}
    told = [] if log is None else explained(log)  # the log comes first: the user asked about it
    checks = [*told, *examine(DoctorOptions(target, session.run_dir, session.data, session.offline, weights))]
    counts = Counter(check.state for check in checks)
    session.report({"target": target, "checks": [_plain(check) for check in checks], "counts": {k: counts[k] for k in SIGNS}})
    last = f"{counts['ok']} ok · {counts['warning']} warnings · {counts['problem']} problems"
    session.result("\n".join([*_lines(session, checks), last]))
    if problems := [check for check in checks if check.state == "problem"]:
        why = "; ".join(f"{check.text} [{check.code}]" if check.code else check.text for check in problems)
        hint = next((check.hint for check in problems if check.hint), "the lines marked ✗ say how")
        raise OctcError("OCT-E905", f"problems on this machine: {len(problems)}", why=why, hint=hint)
    return 0


def _plain(check: Check) -> dict[str, Any]:
    shown = {
        "group": check.group,
        "state": check.state,
        "text": check.text,
        "hint": check.hint,
        "mend": check.hint,
        "code": check.code,
    }
    return {key: value or None for key, value in shown.items()}


def _lines(session: Session, checks: list[Check]) -> list[str]:
    """The checks as lines by group, wrapped to the width of stdout."""
    lines: list[str] = []
    for place, check in enumerate(checks):
        if not place or check.group != checks[place - 1].group:
            lines.append(check.group)
        text = f"{SIGNS[check.state]} {check.text}"
        lines += textwrap.wrap(text, session.width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
        if check.hint and check.state != "ok":
            lines += textwrap.wrap(
                f"→ {check.hint}", session.width, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False
            )
    return lines
