"""`octc lint`: static checks of an ONNX file, with repairs on request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError

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
    """Find what an engine would reject, run in float or mis-scale. Exit 0: nothing to repair."""
    from octc.core.optional import need

    need("onnx")
    from octc.export.formats import lint_targets
    from octc.export.lint.check import lint as examine

    if target not in lint_targets():
        raise OctcError("OCT-E104", f"unknown target {target!r}", hint=f"one of: {', '.join(lint_targets())}", place="--target")
    proto = _read(model)
    found = examine(proto, target)
    document: dict[str, Any] = {"file": str(model), "target": target, "findings": [f.to_json() for f in found]}
    if fix:
        fixed, done = _fix(proto, model, force)
        after = examine(fixed, target)
        document |= {"repairs": done, "findings_after": [f.to_json() for f in after], "fixed_file": str(_beside(model))}
        for line in done:
            session.say(f"  repaired: {line}")
        session.say(f"  wrote {_beside(model)}" if done else "  nothing that can be repaired safely; no file was written")
        found = after
    bad = sum(f.severity in "EW" for f in found)
    document["clean"] = bad == 0
    session.report(document)
    session.result(table(found, model.name, target))
    return int(bad > 0)


def table(found: list[Finding], name: str, target: str) -> str:
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


def _read(path: Path) -> Any:
    from octc.core.optional import need

    onnx = need("onnx")
    if not path.is_file():
        raise OctcError("OCT-E107", f"no file {path}", hint="octc lint FILE.onnx", place=str(path))
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's errors share no base class with onnx's
        text = str(error).strip().splitlines()
        why = text[0][:200] if text else type(error).__name__
        raise OctcError(
            "OCT-E502", f"{path.name} cannot be read as ONNX: {why}", hint="export it again", place=str(path)
        ) from error


def _beside(path: Path) -> Path:
    return path.with_suffix(".fixed.onnx")


def _fix(proto: Any, path: Path, force: bool) -> tuple[Any, list[str]]:
    from octc.core.files import write_bytes
    from octc.export.lint.fix import fix

    out = _beside(path)
    if out.exists() and not force:
        raise OctcError("OCT-E106", f"output exists: {out}", hint="--force", place=str(out))
    fixed, done = fix(proto)
    if done:
        write_bytes(out, fixed.SerializeToString())
    return fixed, done
