"""`octc lint`: static checks of an ONNX file, with repairs on request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session

if TYPE_CHECKING:
    from octc.export.lint.check import Finding

SHOWN = 20  # nodes of one rule


def _targets() -> str:
    from octc.export.formats import lint_targets

    return f"{', '.join(lint_targets())}; tensorrt: 10.0 to 10.11, tensorrt-strong: later"


def lint(
    session: Session,
    model: Annotated[Path, typer.Argument(metavar="ONNX", help="ONNX file")],
    target: Annotated[str, typer.Option(help=_targets())] = "tensorrt",
    fix: Annotated[bool, typer.Option("--fix", help="Write MODEL.fixed.onnx with what can be repaired safely")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace MODEL.fixed.onnx")] = False,
) -> int:
    """Find what an engine would reject, run in float or mis-scale. Exit 0: no error and no warning."""
    from octc.core.optional import need

    need("onnx")
    from octc.export.lint.files import lint_file

    found = lint_file(model, target, repair=fix, force=force)
    for line in found.repairs or ():
        session.say(f"  repaired: {line}")
    if found.repairs is not None:
        session.say(f"  wrote {found.fixed}" if found.repairs else "  nothing that can be repaired safely; no file was written")
    session.report(found.to_json())
    session.result(table(found.left, model.name, target))
    return int(not found.clean)


def table(found: Sequence[Finding], name: str, target: str) -> str:
    """One line for each rule and message kind, with its nodes."""
    lines = []
    grouped: dict[tuple[str, str], list[Finding]] = {}
    for one in found:
        grouped.setdefault((one.rule, one.name), []).append(one)
    for (rule, words), members in grouped.items():
        lines.append(f"{rule} {words}: {len(members)}" + (f"   hint: {members[0].fix}" if members[0].fix else ""))
        lines += [f"    {one.node}: {one.message}" for one in members[:SHOWN]]
        lines += [f"    and {len(members) - SHOWN} more"] if len(members) > SHOWN else []
    errors, warnings = (sum(f.severity == kind for f in found) for kind in "EW")
    verdict = "clean" if errors + warnings == 0 else f"{errors} errors, {warnings} warnings"
    return "\n".join([*lines, f"{name} for {target}: {verdict}"])
