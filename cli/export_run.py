"""What `octc export` does once it is clear what is wanted: read the run, make each artifact, say what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.session import Session
from octc.cli.export_engine import Backends, say_engine
from octc.core.errors import OctcError, Several

if TYPE_CHECKING:
    from octc.export.pipeline import Device, Published
    from octc.export.source import Quantised, RunSource, Select
    from octc.export.targets import Job, Workshop
    from octc.stats.test_plan import ParityOptions
    from octc.stats.verdict import GateResult
    from octc.store.runs import Run


def export_all(
    session: Session, run: Run, jobs: list[Job], options: ParityOptions, *, force: bool, gate: bool, allow_fallback: bool,
    backends: Backends, amax: Path | None = None, temperature: bool = False,
) -> int:  # fmt: skip
    """Make every artifact of `jobs`; one that is refused does not stop the others, and is raised at the end."""
    import tempfile

    from octc.export.formats import choose_opset
    from octc.export.source import read_select, read_source
    from octc.export.targets import Job, Workshop
    from octc.export.temperature import spell_temperatures, temper
    from octc.store.runs import owning

    done: list[Published] = []
    errors: list[OctcError] = []
    with owning(run) as recovered, tempfile.TemporaryDirectory(dir=run.path, prefix=".tmp-export-") as folder:
        if recovered:
            session.say(recovered)
        source = read_source(run, find_data(session, run))
        shop = Workshop(source, Path(folder))
        select = None
        if any(job.precision == "int8" for job in jobs):
            if any(job.engine in ("", "octc") for job in jobs):
                shop.quantised = _quantised(session, source, after=bool(jobs[0].engine), amax=amax)
            if not gate:
                session.warn("OCT-W405", "--no-gate: INT8 is published without being judged on the validation set")
        if temperature or (gate and any(job.precision == "int8" for job in jobs)):
            with session.progress("validation set", 2 * len(source.split.parts["val"])) as step:
                select = read_select(source, absolute(step))
            if temperature:
                select, shop.temperatures = temper(shop, select)
                session.say(f"  temperature    {spell_temperatures(shop.temperatures)}")
            select = select if gate else None
        queue = list(jobs)
        with session.progress("artifacts", len(queue)) as step:
            while queue:
                job = queue.pop(0)
                try:
                    device = _device(session, backends, allow_fallback)
                    done.append(_one(session, run, shop, job, select, options, force, device))
                except OctcError as error:
                    errors.append(error)
                    if allow_fallback and error.code == "OCT-E405":
                        instead = job.target
                        if not any((j.target, j.precision) == (instead, "fp16") for j in jobs):
                            queue.append(Job(instead, "fp16", choose_opset(instead, None)))
                step(1)
    session.report({"run": run.id, "artifacts": [_document(p) for p in done], "rejected": [e.message for e in errors]})
    if done:
        session.result("\n".join(_line(p) for p in done))
    if errors and allow_fallback and all(e.code == "OCT-E405" for e in errors):
        for refused in errors:
            session.warn("OCT-W405", f"{refused.message}; FP16 was delivered instead, under its own name")
        return 0
    if errors:
        raise errors[0] if len(errors) == 1 else Several(errors)
    session.say("next: octc verify && octc bench")
    return 0


def absolute(step: Callable[[int], None]) -> Callable[[int, int], None]:
    """A bar that takes steps, for work that tells how far it is."""
    before = 0

    def tell(done: int, _total: int) -> None:
        nonlocal before
        step(done - before)
        before = done

    return tell


def _quantised(session: Session, source: RunSource, *, after: bool, amax: Path | None) -> Quantised:
    from octc.export.source import calibration_work, quantise

    with session.progress("calibration", calibration_work(source, after=after) or None) as step:
        quantised = quantise(source, progress=absolute(step), after=after, amax=amax)
    facts, counts = quantised.facts, quantised.facts["placement"]
    how = "trained (QAT)" if facts["method"] == "qat" else "calibrated after training (PTQ)"
    trained = not after and (source.run.path / "qat").is_dir()
    where = "qat/ of the run" if trained else "calibrated now" + ("" if after else ": the run has no qat stage")
    session.say(f"  quantisation   {how}, {where}; observer {facts['observer']}")
    session.say(f"  calibration    {facts['calibration_images']} images, train only, 0 shared with val or test")
    session.say(f"  graph          Q/DQ on {counts['int8_convolutions']} convolutions, {counts['float_convolutions']} in float")
    return quantised


def _one(
    session: Session, run: Run, shop: Workshop, job: Job, select: Select | None, options: ParityOptions, force: bool,
    device: Device,
) -> Published:  # fmt: skip
    from octc.export.pipeline import export_artifact

    say = session.say
    published = export_artifact(
        shop, job, device, select=select, options=options, force=force, say=lambda text: say(f"  ! {text}")
    )
    name, details = published.artifact.name, published.artifact.details
    say(f"  ✓ {name}: {_facts(details)}")
    if "processors" in details:
        say(f"    for {details['processors']} processors; elsewhere (Arm: Raspberry Pi, Jetson) use onnx-int8: --target onnx")
    result = published.gate
    if result is not None:
        say(f"    select: {_gate_line(result, options)}")
        if result.word == "parity not shown yet":
            more = f"; about {result.needed} images would settle it" if result.needed else ""
            session.warn("OCT-W405", f"{name}: parity not shown yet on the validation set{more}", path=str(published.folder))
    if published.artifact.target == "tensorrt":
        say_engine(session, published.folder, details)
    run.log_stage("export", artifact=name, sums={n: e.sha256 for n, e in published.artifact.files.items()})
    return published


def _facts(details: dict[str, Any]) -> str:
    parts = [f"{details['bytes'] / 1e6:.2f} MB"]
    if "opset" in details:
        parts.append(f"opset {details['opset']}")
    if "encoding" in details:
        left = f", float by fallback: {', '.join(details['float_layers'])}" if details["float_layers"] else ""
        codes = "uint8 and int8" if details["encoding"] == "mixed" else details["encoding"]
        parts.append(f"{details['int8_convolutions']} INT8 convolutions ({codes} activations){left}")
    return ", ".join(parts)


def _gate_line(result: GateResult, options: ParityOptions) -> str:
    one = result.comparison
    if one is None:
        return _eye_line(result) if getattr(result, "found", None) else result.word
    before, after = (100 * one.hits(name) / one.n for name in ("reference", "candidate"))
    limits = one.pair.deciding
    between = "" if limits is None else f" [{100 * limits[0]:+.3f}, {100 * limits[1]:+.3f}]"
    return (
        f"n={one.n}, margin {options.margin:g} pp, accuracy {before:.2f} -> {after:.2f}, "
        f"D {100 * one.pair.difference:+.2f}{between}, agreement {100 * one.agreement['rate']:.2f} %: {result.word}"
    )


def _eye_line(result: GateResult) -> str:
    """Where classes do not exclude each other: mAP and decisions."""
    found: dict[str, Any] = getattr(result, "found", {})
    between = found["map_difference_interval_pp"]
    limits = "" if between is None else f" [{between[0]:+.3f}, {between[1]:+.3f}]"
    known = [found["map"][name] for name in ("reference", "candidate")]
    shown = " -> ".join("n/a" if value is None else f"{value:.2f}" for value in known)
    drop = found["map_difference_pp"]
    change = "" if drop is None else f", D {drop:+.2f}{limits}"
    return f"{found['eyes']} eyes, mAP {shown}{change}, decisions equal {100 * found['agreement']:.2f} %: {result.word}"


def _line(published: Published) -> str:
    return f"{published.folder}  {published.artifact.details['bytes'] / 1e6:.2f} MB"


def _document(published: Published) -> dict[str, Any]:
    details = {k: v for k, v in published.artifact.details.items() if k not in ("operators", "input_statistics")}
    return {
        "folder": str(published.folder),
        "name": published.artifact.name,
        "details": details,
        "steps": list(published.steps),
    }


def find_data(session: Session, run: Run) -> Path:
    """Where a run's images lie now."""
    import os

    from octc.store.locations import image_root

    return image_root(run, session.data, os.environ)


def _device(session: Session, backends: Backends, allow_fallback: bool) -> Device:
    from octc.cli.export_engine import engine_builder
    from octc.export.pipeline import Device

    return Device(build=engine_builder(session, backends, allow_fallback))
