"""`octc lint` as a function: an ONNX file in, findings out, and a repaired file beside it on request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from octc.core.errors import OctcError
from octc.core.files import write_bytes
from octc.export.formats import lint_targets
from octc.export.lint.check import Finding, lint
from octc.export.lint.fix import fix
from octc.export.onnx.domains import spell_domains
from octc.store.artifacts import MANIFEST, read_artifact

ENGINES_OWN = (".xml", ".tflite", ".safetensors", ".engine", ".plan")


@dataclass(frozen=True)
class LintReport:
    """What was found in a file.

    Attributes:
        findings: of the file as it is. repairs: what was repaired, None where nothing was to be repaired.
        after, fixed: findings of the repaired file, and where it lies.
    """

    file: Path
    target: str
    findings: tuple[Finding, ...]
    repairs: tuple[str, ...] | None = None
    after: tuple[Finding, ...] = ()
    fixed: Path | None = None

    @property
    def left(self) -> tuple[Finding, ...]:
        """Findings of the file that there is now: the repaired one where one was requested."""
        return self.findings if self.repairs is None else self.after

    @property
    def clean(self) -> bool:
        """Without errors and warnings; advice does not count."""
        return not any(one.severity in "EW" for one in self.left)

    def to_json(self) -> dict[str, Any]:
        """The document of `octc lint --json`."""
        value: dict[str, Any] = {
            "file": str(self.file),
            "target": self.target,
            "findings": [one.to_json() for one in self.findings],
        }
        if self.repairs is not None:
            value["repairs"] = list(self.repairs)
            value["findings_after"] = [one.to_json() for one in self.after]
            value["fixed_file"] = str(self.fixed)
        return {**value, "clean": self.clean}


def lint_file(path: Path, target: str = "tensorrt", *, repair: bool = False, force: bool = False) -> LintReport:
    """Check an ONNX file for what an engine rejects, runs in float or mis-scales.

    Args:
        path: the file, or an artifact's folder. target: key of `octc.export.formats.lint_targets`.
        repair: write NAME.fixed.onnx beside it with what can be repaired safely; nothing is written where nothing can.
        force: replace a NAME.fixed.onnx that is there.

    Raises:
        OctcError: E104 no such target, or a file of an engine's own format, E107 no such file, E502 it is no ONNX, E106 the
            repaired file exists.
    """
    if target not in lint_targets():
        raise OctcError("OCT-E104", f"unknown target {target!r}", hint=f"one of: {', '.join(lint_targets())}", place="--target")
    path = _file_of(path)
    proto = _read(path)
    found = tuple(lint(proto, target))
    if not repair:
        return LintReport(path, target, found)
    out = path.with_suffix(".fixed.onnx")
    if out.exists() and not force:
        raise OctcError("OCT-E106", f"output exists: {out}", hint="--force", place=str(out))
    fixed, done = fix(proto)
    if done:
        write_bytes(out, fixed.SerializeToString())
    return LintReport(path, target, found, tuple(done), tuple(lint(fixed, target)), out)


def _file_of(path: Path) -> Path:
    """The file itself; of an artifact's folder the model file that its manifest names."""
    if (path / MANIFEST).is_file():
        path = path / read_artifact(path).main_file
    if path.suffix.lower() in ENGINES_OWN:
        text = f"{path.name} is no ONNX file: the rules are about the graphs that engines read as ONNX"
        hint = "octc lint of the ONNX file that it was made from; octc bench shows in which precision its engine runs it"
        raise OctcError("OCT-E104", text, hint=hint, place=str(path))
    return path


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise OctcError("OCT-E107", f"no file {path}", hint="octc lint FILE.onnx", place=str(path))
    try:
        proto = onnx.load(str(path))
        spell_domains(proto)
        if not proto.graph.node:
            raise ValueError("there is no graph in it")
        return proto
    except Exception as error:  # protobuf's errors share no base class with onnx's
        text = str(error).strip().splitlines()
        why = text[0][:200] if text else type(error).__name__
        hint = "export it again"
        raise OctcError("OCT-E502", f"{path.name} cannot be read as ONNX: {why}", hint=hint, place=str(path)) from error
