"""`octc export`: a run's network as artifacts that are complete by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octc.cli._app.session import Session
from octc.core.errors import OctcError
from octc.core.targets import PRECISIONS

if TYPE_CHECKING:
    from octc.store.runs import Run


def _targets() -> str:
    from octc.export.formats import spelt_targets

    return spelt_targets()


def export(
    session: Session,
    run: Annotated[str | None, typer.Argument(help="Run (id, its beginning, or path); newest successful student")] = None,
    target: Annotated[str, typer.Option(help=_targets())] = "all",
    fp32: Annotated[bool, typer.Option("--fp32", help="FP32 only")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="FP16 only")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="INT8 only")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace artifacts that exist")] = False,
    opset: Annotated[int | None, typer.Option(help="ONNX opset instead of the target's default")] = None,
    ptq: Annotated[
        str | None,
        typer.Option(
            metavar="ENGINE", help="Quantise after training, with octc, onnxruntime, nncf or modelopt (octc ptq compares)"
        ),
    ] = None,
    amax: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Activation ranges of pytorch-quantization (safetensors), with --ptq octc"),
    ] = None,
    margin: Annotated[float, typer.Option(help="Largest loss of accuracy that the gate accepts, percentage points")] = 1.0,
    gate: Annotated[bool, typer.Option("--gate/--no-gate", help="Judge INT8 on the select set before publishing")] = True,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Fold the temperature that fits the select set into the last layer")
    ] = False,
    allow_fallback: Annotated[bool, typer.Option("--allow-fallback", help="FP16 where INT8 is rejected")] = False,
    require_engine: Annotated[bool, typer.Option("--require-engine", help="Fail unless a TensorRT engine is built")] = False,
    from_bundle: Annotated[
        Path | None,
        typer.Option("--from-bundle", metavar="DIR", help="Build the engine of a TensorRT artifact here"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and stop")] = False,
) -> int:
    """Write ONNX, OpenVINO, TensorRT (Q/DQ) or torch artifacts of a run."""
    precision = _precision(fp32, fp16, int8)
    from octc.export.formats import FORMATS, choose_opset, libraries, wanted

    if target not in (*FORMATS, "all"):
        raise OctcError("OCT-E104", f"unknown target {target!r}", hint=f"one of: {', '.join(FORMATS)}, all")
    from octc.cli.export_engine import build_bundle, find_backends

    if from_bundle is not None:
        if run is not None or precision is not None or temperature or target not in ("all", *libraries()):
            text = "--from-bundle builds the engine of one artifact: what decides what is in it does not go with it"
            raise OctcError("OCT-E102", text, hint="octc export --from-bundle DIR --target tensorrt")
        return build_bundle(session, from_bundle, force=force, allow_fallback=allow_fallback)
    from octc.core.optional import need_wing

    need_wing("export")
    _check_ptq(ptq, amax, target, precision)
    backends = find_backends(target, require_engine)
    from octc.stats.test_plan import ParityOptions

    options = ParityOptions(margin=margin)
    chosen = find_student(session, run)
    session.run_id = chosen.id
    pairs = wanted(target, precision, str(chosen.read().get("kind")))
    from octc.export.targets import Job

    jobs = [Job(t, p, choose_opset(t, opset) if FORMATS[t].reads else None, engine=ptq or "") for t, p in pairs]
    _check_room(chosen, [j.name for j in jobs], force)
    if dry_run:
        plan = [{"target": j.target, "precision": j.precision, "opset": j.opset, "engine": j.engine} for j in jobs]
        session.report({"run": chosen.id, "plan": plan})
        session.result("\n".join(f"would write {chosen.artifacts / j.name}" for j in jobs))
        return 0
    from octc.cli.export_run import export_all

    return export_all(
        session, chosen, jobs, options, force=force, gate=gate, allow_fallback=allow_fallback, backends=backends, amax=amax,
        temperature=temperature,
    )  # fmt: skip


def _check_ptq(engine: str | None, amax: Path | None, target: str, precision: str | None) -> None:
    """Refuse what does not go together, and an engine that is not here, before anything is read."""
    if amax is not None and engine != "octc":
        text = "--amax sets the ranges of octc's own quantisers"
        raise OctcError("OCT-E102", text, hint="--int8 --ptq octc --amax FILE", place="--amax")
    if engine is None:
        return
    if precision != "int8":
        raise OctcError("OCT-E102", "--ptq makes INT8 artifacts", hint=f"--int8 --ptq {engine}", place="--ptq")
    if target == "all" and engine != "octc":
        text = f"--ptq {engine} makes no artifact for every target"
        raise OctcError("OCT-E102", text, hint="--target onnx or --target openvino", place="--target")
    from octc.export.ptq.engines import find_engine

    find_engine(engine, target)


def _precision(fp32: bool, fp16: bool, int8: bool) -> str | None:
    asked = [name for name, on in zip(PRECISIONS, (fp32, fp16, int8), strict=True) if on]
    if len(asked) > 1:
        text = " and ".join(f"--{name}" for name in asked)
        raise OctcError(
            "OCT-E102", f"{text} contradict each other", hint="name one precision; without one all sensible ones are made"
        )
    return asked[0] if asked else None


def find_student(session: Session, name: str | None) -> Run:
    """The named run, or the newest successful student."""
    from octc.store.runs import find_run, newest_run

    if name is not None:
        return find_run(session.run_dir, name)
    chosen = newest_run(session.run_dir, "student")
    session.say(f"using run {chosen.id} (newest successful student; choose with RUN)")
    return chosen


def _check_room(run: Run, names: list[str], force: bool) -> None:
    there = [str(run.artifacts / name) for name in names if (run.artifacts / name).exists()]
    if there and not force:
        raise OctcError("OCT-E106", f"output exists: {', '.join(there)}", hint="--force, or another run", place=there[0])
