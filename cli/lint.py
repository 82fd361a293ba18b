"""`octc lint`: static checks of an ONNX file, with repairs on request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.core.options import OneOf

if TYPE_CHECKING:
    from octc.export.lint.check import Finding

SHOWN = 5  # nodes shown per rule without --all


def _targets() -> Iterable[str]:
    from octc.export.formats import lint_targets

    return lint_targets()


def lint(
    session: Session,
    model: Annotated[Path, typer.Argument(metavar="ONNX", help="ONNX file, or the folder of an artifact")],
    target: Annotated[
        str, OneOf(_targets()), typer.Option(help="Engine (tensorrt: up to 10.11; tensorrt-strong: later)")
    ] = "tensorrt",
    fix: Annotated[bool, typer.Option("--fix", help="Write MODEL.fixed.onnx with the safe repairs")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace MODEL.fixed.onnx")] = False,
    every: Annotated[bool, typer.Option("--all", help="Show every node of a rule, not the first five")] = False,
) -> int:
    """Find nodes that an engine would reject, run in float or scale wrongly. Exit code 0: no error and no warning."""
    from octc.core.optional import need

    need("onnx")
    from octc.export.lint.files import lint_file

    found = lint_file(model, target, repair=fix, force=force)
    for line in found.repairs or ():
        session.say(f"  repaired: {line}")
    if found.repairs is not None:
        session.say(f"  wrote {found.fixed}" if found.repairs else "  nothing that can be repaired safely; no file was written")
    session.report(found.to_json())
    session.result(table(found.left, found.file.name, target, None if every else SHOWN))
    return int(not found.clean)


def table(found: Sequence[Finding], name: str, target: str, most: int | None = SHOWN) -> str:
    """One line per rule, with up to `most` nodes each (None: all)."""
    lines = []
    grouped: dict[tuple[str, str], list[Finding]] = {}
    for one in found:
        grouped.setdefault((one.rule, one.name), []).append(one)
    for (rule, words), members in grouped.items():
        lines.append(f"{rule} {words}: {len(members)}" + (f"   hint: {members[0].fix}" if members[0].fix else ""))
        lines += [f"    {one.node}: {one.message}" for one in members[:most]]
        lines += [f"    and {len(members) - most} more (--all)"] if most is not None and len(members) > most else []
    errors, warnings = (sum(f.severity == kind for f in found) for kind in "EW")
    verdict = "clean" if errors + warnings == 0 else f"{errors} errors, {warnings} warnings"
    verdict += f"   (octc explain {found[0].rule})" if found else ""
    return "\n".join([*lines, f"{name} for {target}: {verdict}"])
