"""`octc export`: a run's network as artifacts that are complete by themselves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from octc.cli.session import Session

from octc.errors import OctcError, Several

if TYPE_CHECKING:
    from octc.export.pipeline import Device, Published

    from octc.run import Run

TARGETS = ("onnx", "openvino", "tensorrt")
PRECISIONS = ("fp32", "fp16", "int8")
# what can be made, and what `--target all` makes when no precision is named
PAIRS = (
    ("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8"), ("openvino", "fp32"), ("openvino", "fp16"), ("openvino", "int8"),
    ("tensorrt", "int8"), ("torch", "fp32"),
)  # fmt: skip
UNASKED = (("openvino", "fp32"),)  # FP16 files run in FP32 on a CPU and are half as large


def export(
    session: Session,
    run: Annotated[str | None, typer.Argument(help="Run (id, its beginning, or path); newest successful student")] = None,
    target: Annotated[str, typer.Option(help="onnx, openvino, tensorrt, torch or all")] = "all",
    fp32: Annotated[bool, typer.Option("--fp32", help="FP32 only")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="FP16 only")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="INT8 only")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace artifacts that exist")] = False,
    opset: Annotated[int | None, typer.Option(help="ONNX opset instead of the target's default")] = None,
    margin: Annotated[float, typer.Option(help="Largest loss of accuracy that the gate accepts, percentage points")] = 1.0,
    gate: Annotated[bool, typer.Option("--gate/--no-gate", help="Judge INT8 on the select set before publishing")] = True,
    allow_fallback: Annotated[bool, typer.Option("--allow-fallback", help="FP16 where INT8 is rejected")] = False,
    require_engine: Annotated[bool, typer.Option("--require-engine", help="Fail unless a TensorRT engine is built")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and stop")] = False,
) -> int:
    """Write ONNX, OpenVINO, TensorRT (Q/DQ) or torch artifacts of a run."""
    precision = _precision(fp32, fp16, int8)
    if target not in (*TARGETS, "torch", "all"):
        raise OctcError("OCT-E104", f"unknown target {target!r}", mend="one of: onnx, openvino, tensorrt, torch, all")
    if require_engine:
        _require_engine()
    from octc.plan import ParityOptions

    options = ParityOptions(margin=margin)
    chosen = _find(session, run)
    session.run_id = chosen.id
    pairs = wanted(target, precision, str(chosen.read().get("kind")))
    from octc.export.makers import Job
    from octc.export.to_onnx import choose_opset

    jobs = [Job(t, p, None if t == "torch" else choose_opset(t, opset)) for t, p in pairs]
    _check_room(chosen, [f"{j.target}-{j.precision}" for j in jobs], force)
    if dry_run:
        plan = [{"target": j.target, "precision": j.precision, "opset": j.opset} for j in jobs]
        session.report({"run": chosen.id, "plan": plan})
        session.result("\n".join(f"would write {chosen.artifacts / (j.target + '-' + j.precision)}" for j in jobs))
        return 0
    return _export_all(session, chosen, jobs, options, force=force, gate=gate, allow_fallback=allow_fallback)


def wanted(target: str, precision: str | None, kind: str) -> list[tuple[str, str]]:
    """(target, precision) pairs of a request; E104 when a named pair does not exist.

    Without a precision: every sensible one, and INT8 for students only.
    """
    fits = [(t, p) for t, p in PAIRS if target in (t, "all") and precision in (p, None)]
    if not fits:
        have = ", ".join(f"--{p}" for t, p in PAIRS if t == target)
        text = f"{target} has no {precision} artifact"
        raise OctcError("OCT-E104", text, mend=f"--target {target} with {have}; FP16 for TensorRT is --target onnx --fp16")
    if precision is None:
        return [pair for pair in fits if pair not in UNASKED and (kind != "teacher" or pair[1] != "int8")] or fits
    return fits


def _precision(fp32: bool, fp16: bool, int8: bool) -> str | None:
    asked = [name for name, on in zip(PRECISIONS, (fp32, fp16, int8), strict=True) if on]
    if len(asked) > 1:
        text = " and ".join(f"--{name}" for name in asked)
        raise OctcError(
            "OCT-E102", f"{text} contradict each other", mend="name one precision; without one all sensible ones are made"
        )
    return asked[0] if asked else None


def _require_engine() -> None:
    from octc.optional import have

    found = "is installed, but this octc builds no engines" if have("tensorrt") else "is not installed here"
    raise OctcError(
        "OCT-E410",
        f"--require-engine: TensorRT {found}",
        mend="leave out --require-engine: the Q/DQ file and the build recipe are written, and trtexec builds on the device",
    )


def _find(session: Session, name: str | None) -> Run:
    from octc.run import find_run, newest_run

    if name is not None:
        return find_run(session.run_dir, name)
    chosen = newest_run(session.run_dir, "student")
    session.say(f"using run {chosen.id} (newest successful student; choose with RUN)")
    return chosen


def _check_room(run: Run, names: list[str], force: bool) -> None:
    there = [str(run.artifacts / name) for name in names if (run.artifacts / name).exists()]
    if there and not force:
        raise OctcError("OCT-E106", f"output exists: {', '.join(there)}", mend="--force, or another run", place=there[0])


def _root(session: Session, run: Run) -> Path:
    import os

    from octc.datasets.table import find_root

    facts = run.read()
    stored = facts.get("data_root")
    if session.data is None and stored and Path(stored).is_dir():
        return Path(stored)
    return find_root(str(facts["dataset"]), session.data, os.environ)


def _device() -> Device:
    from octc.export.pipeline import Device
    from octc.runtimes.golden import replay
    from octc.runtimes.table import open_runtime

    return Device(open=open_runtime, replay=lambda runtime, golden, artifact: asdict(replay(runtime, golden, artifact)))


def _export_all(
    session: Session, run: Run, jobs: list[Any], options: Any, *, force: bool, gate: bool, allow_fallback: bool
) -> int:
    import tempfile

    from octc.export.makers import Job, Workshop
    from octc.export.pipeline import export_artifact
    from octc.export.source import quantise, read_select, read_source
    from octc.export.to_onnx import choose_opset

    from octc.run import owning

    done: list[Published] = []
    errors: list[OctcError] = []
    with owning(run) as recovered, tempfile.TemporaryDirectory(dir=run.path, prefix=".tmp-export-") as folder:
        if recovered:
            session.say(recovered)
        source = read_source(run, _root(session, run))
        shop = Workshop(source, Path(folder))
        select = None
        if any(job.precision == "int8" for job in jobs):
            shop.quantised = _quantised(session, source, quantise)
            if gate:
                with session.progress("select set", 1) as step:
                    select = read_select(source)
                    step(1)
            else:
                session.warn("OCT-W405", "--no-gate: INT8 is published without being judged on the select set")
        queue = list(jobs)
        with session.progress("artifacts", len(queue)) as step:
            while queue:
                job = queue.pop(0)
                try:
                    done.append(_one(session, run, shop, job, export_artifact, select, options, force))
                except OctcError as error:
                    errors.append(error)
                    if allow_fallback and error.code == "OCT-E405":
                        instead = "onnx" if job.target == "tensorrt" else job.target
                        if not any((j.target, j.precision) == (instead, "fp16") for j in jobs):
                            queue.append(Job(instead, "fp16", choose_opset(instead, None)))
                step(1)
    session.report({"run": run.id, "artifacts": [_document(p) for p in done], "rejected": [e.message for e in errors]})
    session.result("\n".join(_line(p) for p in done))
    if errors and allow_fallback and all(e.code == "OCT-E405" for e in errors):
        for refused in errors:
            session.warn("OCT-W405", f"{refused.message}; FP16 was delivered instead, under its own name")
        return 0
    if errors:
        raise errors[0] if len(errors) == 1 else Several(errors)
    session.say("next: octc verify && octc bench")
    return 0


def _quantised(session: Session, source: Any, quantise: Any) -> Any:
    with session.progress("quantised network", 1) as step:
        quantised = quantise(source)
        step(1)
    facts, counts = quantised.facts, quantised.facts["placement"]
    how = "trained (QAT)" if facts["method"] == "qat" else "calibrated after training (PTQ)"
    where = "qat/ of the run" if (source.run.path / "qat").is_dir() else "calibrated now: the run has no qat stage"
    session.say(f"  quantisation   {how}, {where}; observer {facts['observer']}")
    session.say(f"  calibration    {facts['calibration_images']} images, train only, 0 shared with val or test")
    session.say(f"  graph          Q/DQ on {counts['int8_convolutions']} convolutions, {counts['float_convolutions']} in float")
    return quantised


def _one(session: Session, run: Run, shop: Any, job: Any, make: Any, select: Any, options: Any, force: bool) -> Published:
    say = session.say
    published: Published = make(
        shop, job, _device(), select=select, options=options, force=force, say=lambda t: say(f"  ! {t}")
    )
    name, details = published.artifact.name, published.artifact.details
    say(f"  ✓ {name}: {_facts(details)}")
    result = published.gate
    if result is not None:
        say(f"    select: {_gate_line(result, options)}")
        if result.word == "parity not shown yet":
            more = f"; about {result.needed} images would settle it" if result.needed else ""
            session.warn("OCT-W405", f"{name}: parity not shown yet on the select set{more}", path=str(published.folder))
    if job.target == "tensorrt":
        say(f"  ! no engine was built on this machine; {published.folder / details['engine_recipe']} says how to on the device")
    run.log_stage("export", artifact=name, sums={n: e.sha256 for n, e in published.artifact.files.items()})
    return published


def _facts(details: dict[str, Any]) -> str:
    parts = [f"{details['bytes'] / 1e6:.2f} MB"]
    if "opset" in details:
        parts.append(f"opset {details['opset']}")
    if "encoding" in details:
        left = f", float by the ladder: {', '.join(details['float_layers'])}" if details["float_layers"] else ""
        parts.append(f"{details['int8_convolutions']} INT8 convolutions ({details['encoding']} activations){left}")
    return ", ".join(parts)


def _gate_line(result: Any, options: Any) -> str:
    one = result.comparison
    before, after = (100 * one.hits(name) / one.n for name in ("reference", "candidate"))
    limits = one.pair.deciding
    between = "" if limits is None else f" [{100 * limits[0]:+.3f}, {100 * limits[1]:+.3f}]"
    return (
        f"n={one.n}, margin {options.margin:g} pp, accuracy {before:.2f} -> {after:.2f}, "
        f"D {100 * one.pair.difference:+.2f}{between}, agreement {100 * one.agreement['rate']:.2f} %: {result.word}"
    )


def _line(published: Published) -> str:
    return f"{published.folder}  {published.artifact.details['bytes'] / 1e6:.2f} MB"


def _document(published: Published) -> dict[str, Any]:
    details = {k: v for k, v in published.artifact.details.items() if k != "operators"}
    return {
        "folder": str(published.folder),
        "name": published.artifact.name,
        "details": details,
        "steps": list(published.steps),
    }
