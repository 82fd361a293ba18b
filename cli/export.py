"""`octc export`: exports a run's network as self-contained artifacts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError
from octc.core.options import OneOf
from octc.core.targets import PRECISIONS
from octc.schemas.licences import USES

if TYPE_CHECKING:
    from octc.export.run import Exported
    from octc.store.runs import Run


def _targets() -> Iterable[str]:
    from octc.export.formats import FORMATS

    return FORMATS


def export(  # noqa: PLR0913 - an option a parameter
    session: Session,
    run: Annotated[str | None, typer.Argument(metavar="RUN", help="Run, by id or path (newest successful student)")] = None,
    target: Annotated[str, OneOf((*_targets(), "all")), typer.Option(help="Inference engine to export for")] = "all",
    fp32: Annotated[bool, typer.Option("--fp32", help="Export FP32 only")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Export FP16 only")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Export INT8 only")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing artifacts")] = False,
    opset: Annotated[int | None, typer.Option(help="ONNX opset instead of the target's default")] = None,
    ptq: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE",
            help="Post-training quantisation with octc, onnxruntime, nncf or modelopt (octc ptq compares them)",
        ),
    ] = None,
    amax: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --ptq octc: activation ranges of pytorch-quantization (safetensors)"),
    ] = None,
    margin: Annotated[float, typer.Option(help="Gate: largest accepted loss of accuracy, percentage points")] = 1.0,
    class_margin: Annotated[
        float,
        typer.Option(
            help="Largest loss of each class's sensitivity, percentage points; classes beyond it are reported, --margin decides"
        ),
    ] = 3.0,
    gate: Annotated[bool, typer.Option("--gate/--no-gate", help="Test INT8 on the validation set before publishing")] = True,
    temperature: Annotated[
        bool,
        typer.Option("--temperature", help="Temperature scaling, fitted on the validation set and folded into the last layer"),
    ] = False,
    allow_fallback: Annotated[bool, typer.Option("--allow-fallback", help="Export FP16 if the gate rejects INT8")] = False,
    require_engine: Annotated[bool, typer.Option("--require-engine", help="Fail unless a TensorRT engine is built")] = False,
    from_artifact: Annotated[
        Path | None,
        typer.Option("--from-artifact", metavar="DIR", help="Build the engine of this TensorRT artifact on this machine"),
    ] = None,
    cpu: Annotated[str, typer.Option(metavar="CPU", help="Target processors: x86, arm or arm-nofp16")] = "",
    use: Annotated[
        str | None,
        OneOf(USES),
        typer.Option(help="Intended use; refuse if a licence of data, weights or teachers forbids it"),
    ] = None,
    licences: Annotated[Path | None, typer.Option(metavar="FILE", help="With --use: licences that you know (JSON)")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be written, and stop")] = False,
) -> int:
    """Export a run as ONNX, OpenVINO, LiteRT, TensorRT (Q/DQ) or torch artifacts."""
    precision = _precision(fp32, fp16, int8)
    from octc.export.formats import FORMATS, libraries

    if from_artifact is not None:
        if run is not None or precision is not None or temperature or target not in ("all", *libraries()):
            text = "--from-artifact builds the engine of one artifact: what decides what is in it does not go with it"
            raise OctcError("OCT-E102", text, hint="octc export --from-artifact DIR --target tensorrt")
        return _build(session, from_artifact, force=force, allow_fallback=allow_fallback)
    from octc.core.optional import need_wing

    need_wing("export")
    from octc.export.run import ExportOptions, check_room, export_run, plan_export
    from octc.export.tensorrt.engines import find_backends
    from octc.stats.test_plan import ParityOptions

    options = ExportOptions(
        opset, ptq or "", amax, temperature, allow_fallback, require_engine, session.data, cpu, use, licences
    )
    options.check([target], precision)
    by_default = [name for name, one in FORMATS.items() if not one.by_name]
    backends = find_backends(by_default if target == "all" else [target], required=require_engine)
    margins = ParityOptions(margin=margin, class_margin=class_margin)
    chosen = find_student(session, run)
    session.run_id = chosen.id
    jobs = plan_export(chosen, [target], precision, options)
    check_room(chosen.artifacts, jobs, force=force)
    if dry_run:
        plan = [{"target": j.target, "precision": j.precision, "opset": j.opset, "engine": j.engine} for j in jobs]
        session.report({"run": chosen.id, "plan": plan})
        session.result("\n".join(f"would write {chosen.artifacts / j.name}" for j in jobs))
        return 0
    judged = margins if gate else None
    return _show(session, export_run(chosen, jobs, options, judged, force=force, backends=backends, reporter=session))


def _show(session: Session, found: Exported) -> int:
    session.report(found.to_json())
    if found.published:
        rows = (f"{one.folder}  {one.artifact.details['bytes'] / 1e6:.2f} MB" for one in found.published)
        session.result("\n".join(rows))
    if found.failure is not None:
        raise found.failure
    if not found.refused:
        session.say("next: octc verify && octc bench")
    return 0


def _build(session: Session, place: Path, *, force: bool, allow_fallback: bool) -> int:
    from octc.export.tensorrt.engines import build_engines_of
    from octc.store.artifacts import MANIFEST

    built = build_engines_of(place, force=force, allow_fallback=allow_fallback, reporter=session)
    facts = built.details["engine"]
    session.report({"folder": str(place), "engine": facts, "manifest": MANIFEST})
    session.result(str(place / str(facts["file"])))
    return 0


def _precision(fp32: bool, fp16: bool, int8: bool) -> str | None:
    requested = [name for name, on in zip(PRECISIONS, (fp32, fp16, int8), strict=True) if on]
    if len(requested) > 1:
        text = " and ".join(f"--{name}" for name in requested)
        hint = "name one precision; without one all sensible ones are made"
        raise OctcError("OCT-E102", f"{text} contradict each other", hint=hint)
    return requested[0] if requested else None


def find_student(session: Session, name: str | None) -> Run:
    """The named run, or the newest successful student."""
    from octc.store.runs import find_run, newest_run

    if name is not None:
        return find_run(session.run_dir, name)
    chosen = newest_run(session.run_dir, "student")
    session.say(f"using run {chosen.id} (newest successful student; choose with RUN)")
    return chosen
