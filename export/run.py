"""Export of a run: read it, make and judge each artifact, report the results."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from octc.bench.parity.tasks.multiclass import margins
from octc.compress.placement import ENGINES
from octc.core.errors import OctcError, combined
from octc.core.faults import of_machine
from octc.core.progress import LogReporter, Reporter, absolute
from octc.datasets.licences import read_known, refuse, terms_of
from octc.export.clinic import choice_words, choose_for_eyes, clinic_details
from octc.export.formats import FORMATS, choose_opset, for_cpu, wanted
from octc.export.int8_speed import say_speed
from octc.export.kept_validation import read_validation
from octc.export.pipeline import Device, Published, export_artifact
from octc.export.ptq.engines import OWN, find_engine
from octc.export.reference import Validation
from octc.export.source import Quantised, RunSource, Select, calibration_work, quantise, read_select, read_source
from octc.export.targets import Job, Workshop
from octc.export.temperature import fold_temperatures, spell_temperatures
from octc.export.tensorrt.engines import Backends, find_backends
from octc.machine.cpu import EVERY
from octc.runtimes.cpu_families import require_cpu
from octc.runtimes.tensorrt.rebuild import engine_builder, say_engine
from octc.schemas.simplified import KEY
from octc.stats.test_plan import ParityOptions
from octc.stats.verdict import GateResult
from octc.store.locations import image_root
from octc.store.runs import Run, owning

GATE = ParityOptions()
UNSHOWN = ("operators", "input_statistics", "monitor")  # long lists, that the manifest holds


@dataclass(frozen=True)
class ExportOptions:
    """Options of `octc.export` for a run, besides target, precision and gate.

    Attributes:
        opset: ONNX opset, instead of the target's default.
        quantiser: post-training quantiser ("octc", "onnxruntime", "nncf", "modelopt"); "": the quantisation of the run.
        amax: file with activation ranges from pytorch-quantization (safetensors), for the quantiser "octc".
        temperature: fold the temperature that fits the validation set into the last layer (temperature scaling).
        allow_fallback: FP16 under its own name where INT8 is rejected.
        require_engine: fail unless a TensorRT engine is built.
        cpu: processors that the artifacts will run on ("x86", "arm", "arm-nofp16"): selects the INT8 file for them, and refuses
            one that does not run there.
        use: intended use ("commercial"): refused if a licence of data, weights or teachers does not allow it.
        licences: licences known to the user (`octc.datasets.licences.read_known`).
        data: folder of the run's images; None: where `octc.store.locations.image_root` finds them.
    """

    opset: int | None = None
    quantiser: str = ""
    amax: Path | None = None
    temperature: bool = False
    allow_fallback: bool = False
    require_engine: bool = False
    data: str | None = None
    cpu: str = ""
    use: str | None = None
    licences: Path | None = None

    def check(self, targets: Sequence[str], precision: str | None) -> None:
        """Refuse what does not go together, and a quantiser that is not here, before anything is read.

        Raises:
            OctcError: E102 options that contradict each other, E104 no such quantiser, E901 it is not installed.
        """
        if self.amax is not None and self.quantiser != OWN:
            text = "--amax sets the ranges of octc's own quantisers"
            raise OctcError("OCT-E102", text, hint="--int8 --ptq octc --amax FILE", place="--amax")
        if not self.quantiser:
            return
        if precision != "int8":
            text = "--ptq makes INT8 artifacts"
            raise OctcError("OCT-E102", text, hint=f"--int8 --ptq {self.quantiser}", place="--ptq")
        if "all" in targets and self.quantiser != OWN:
            text = f"--ptq {self.quantiser} makes no artifact for every target"
            raise OctcError("OCT-E102", text, hint="--target onnx or --target openvino", place="--target")
        for target in targets:
            find_engine(self.quantiser, target)


@dataclass(frozen=True)
class Exported:
    """What came of an export.

    Attributes:
        published: artifacts that were written. refused: why others were not.
        fallback: an FP16 artifact stands for each one that the gate refused.
    """

    run: str
    published: tuple[Published, ...]
    refused: tuple[OctcError, ...] = ()
    fallback: bool = False

    @property
    def failure(self) -> OctcError | None:
        """What to raise; None where everything was written, or FP16 in place of what the gate refused."""
        if not self.refused or (self.fallback and all(error.code == "OCT-E405" for error in self.refused)):
            return None
        return combined(self.refused)

    def to_json(self) -> dict[str, Any]:
        """The document of `octc export --json`."""
        artifacts = [published_json(one) for one in self.published]
        return {"run": self.run, "artifacts": artifacts, "rejected": [error.message for error in self.refused]}


def plan_export(run: Run, targets: Sequence[str], precision: str | None, options: ExportOptions) -> list[Job]:
    """The artifacts of a request, in the order in which they are made.

    Args:
        targets: keys of `octc.export.formats.FORMATS`, or "all". precision: None: every one that makes sense for the run.

    Raises:
        OctcError: E104 no such target or precision, E102 one that has no file of a simplified network, E401 an opset that
            cannot be had, and what `ExportOptions.check` raises.
    """
    if unknown := [target for target in targets if target not in (*FORMATS, "all")]:
        text = f"unknown target {unknown[0]!r}"
        raise OctcError("OCT-E104", text, hint=f"one of: {', '.join(FORMATS)}, all", place="targets")
    options.check(targets, precision)
    kind = str(run.read().get("kind"))
    named = is_named(run)
    if not named and (without := [target for target in targets if target != "all" and not FORMATS[target].any_network]):
        text = f"octc's eager runtime builds networks by their names in timm, and {run.id} was simplified"
        hint = f"octc export {run.id} --fp32 --target onnx holds the same network, and runs without torch"
        raise OctcError("OCT-E102", text, hint=hint, place=f"--target {without[0]}")
    chosen = dict.fromkeys(
        (for_cpu(name, one, options.cpu), one)
        for target in targets
        for name, one in wanted(target, precision, kind)
        if named or target != "all" or FORMATS[name].any_network
    )
    if options.cpu:
        require_cpu(options.cpu, [(FORMATS[t].artifact, p) for t, p in chosen])
    return [
        Job(t, p, choose_opset(t, options.opset) if FORMATS[t].reads else None, engine=options.quantiser) for t, p in chosen
    ]


def is_named(run: Run) -> bool:
    """Whether timm builds the network of a run by its name; one that octc simplify made it does not."""
    student = (run.read().get("recipe") or {}).get("student") or {}
    return KEY not in student.get("model_kwargs", {})


def check_room(place: Path, jobs: Sequence[Job], *, force: bool = False) -> None:
    """Refuse to overwrite artifacts (E106)."""
    there = [str(place / job.name) for job in jobs if (place / job.name).exists()]
    if there and not force:
        raise OctcError("OCT-E106", f"output exists: {', '.join(there)}", hint="--force, or another run", place=there[0])


def export_run(
    run: Run,
    jobs: Sequence[Job],
    options: ExportOptions = ExportOptions(),
    gate: ParityOptions | None = GATE,
    *,
    out: Path | None = None,
    force: bool = False,
    backends: Backends | None = None,
    reporter: Reporter | None = None,
) -> Exported:
    """Make all artifacts of `jobs`; a refused one does not stop the others.

    Args:
        jobs: of `plan_export`. gate: margins that INT8 must hold on the validation set; None: INT8 is published unjudged.
        out: folder for the artifacts; None: artifacts/ of the run. force: replace artifacts that are there.
        backends: who builds TensorRT engines; None: who is found here.

    Raises:
        OctcError: E106 an artifact exists, E107 the run holds no checkpoint, E230 its images are not here, E410 a required
            engine cannot be built, and what `octc.export.source` raises. Errors of single artifacts are in `refused`.
    """
    reporter = reporter or LogReporter()
    check_room(out or run.artifacts, jobs, force=force)
    for line in require_cpu(options.cpu, [(FORMATS[j.target].artifact, j.precision) for j in jobs]) if options.cpu else ():
        reporter.say(f"  ! {line}")
    if backends is None:
        backends = find_backends([job.target for job in jobs], required=options.require_engine)
    device = Device(build=engine_builder(backends, reporter, allow_fallback=options.allow_fallback))
    with owning(run) as recovered, tempfile.TemporaryDirectory(dir=run.path, prefix=".tmp-export-") as folder:
        if recovered:
            reporter.say(recovered)
        source = read_source(run, image_root(run, options.data, os.environ))
        if options.use is not None:
            own = () if options.licences is None else read_known(options.licences)
            known = source.checkpoint
            facts = {**source.lineage, "weights": known.weights, "parent": known.parent}
            refuse(terms_of(facts, known.model, own), options.use)
        shop = Workshop(source if out is None else replace(source, artifacts=out), Path(folder))
        select = _prepared(source, shop, jobs, options, gate, reporter)
        making = _Making(run, shop, select, gate, force, device, reporter)
        published, refused = _each(making, list(jobs), allow_fallback=options.allow_fallback)
    found = Exported(run.id, tuple(published), tuple(refused), options.allow_fallback)
    if found.refused and found.failure is None:
        for error in found.refused:
            reporter.warn("OCT-W405", f"{error.message}; FP16 was delivered instead, under its own name")
    return found


@dataclass(frozen=True)
class _Making:
    """The context for making one artifact."""

    run: Run
    shop: Workshop
    select: Select | None
    gate: ParityOptions | None
    force: bool
    device: Device
    reporter: Reporter


def _prepared(
    source: RunSource,
    shop: Workshop,
    jobs: Sequence[Job],
    options: ExportOptions,
    gate: ParityOptions | None,
    reporter: Reporter,
) -> Select | None:
    """Quantise if INT8 is requested, scale by temperature if requested; returns the validation set for the gate."""
    shop.validation = _for_monitor(source, reporter)
    int8 = [job for job in jobs if job.precision == "int8"]
    if any(job.engine in ("", OWN) for job in int8):
        shop.quantised = _quantised(source, options, reporter, _placement(int8))
    if int8 and gate is None:
        reporter.warn("OCT-W405", "no gate: INT8 is published without being judged on the validation set")
    if not options.temperature and (gate is None or not int8):
        _for_volumes(source, shop, None, reporter)
        return None
    with reporter.progress("validation set", 2 * len(source.split.parts["val"])) as step:
        select = read_select(source, absolute(step))
    if options.temperature:
        select, shop.temperatures = fold_temperatures(shop, select)
        reporter.say(f"  temperature    {spell_temperatures(shop.temperatures)}")
    _for_volumes(source, shop, select, reporter)
    return None if gate is None else select


def _placement(jobs: Sequence[Job]) -> str:
    """The placement of quantisers for all jobs (E102 if they need different ones: each needs its own calibration)."""
    found = {FORMATS[job.target].placement for job in jobs if job.engine in ("", OWN)}
    if len(found) > 1:
        apart = " and ".join(dict.fromkeys(job.target for job in jobs if FORMATS[job.target].placement != ENGINES))
        text = f"{apart} needs its quantisers elsewhere than the other targets"
        raise OctcError("OCT-E102", text, hint=f"export {apart} by itself, and the others in another call", place="--target")
    return found.pop()


def _for_monitor(source: RunSource, reporter: Reporter) -> Validation | None:
    """What students' artifacts store about the validation set; None (with a message) if its images are not here."""
    known = source.checkpoint
    if known.role != "student" or known.recipe.get("task") == "multilabel" or not source.split.parts["val"]:
        return None
    try:
        with reporter.progress("validation set, for octc monitor", len(source.split.parts["val"])) as step:
            return read_validation(source, absolute(step))
    except OctcError as error:
        if of_machine(error) is not None:
            raise
        reporter.say(
            f"  ! monitor        not kept: {error.message}; octc monitor {source.run.id} --learn, where the images are"
        )
        return None


def _for_volumes(source: RunSource, shop: Workshop, select: Select | None, reporter: Reporter) -> None:
    """Add to the manifests what is known about volumes: grey levels, and how an eye's prediction is combined."""
    choice = choose_for_eyes(source, select)
    shop.more = clinic_details(source, choice)
    if choice is not None:
        reporter.say(f"  eyes           {choice_words(choice)}")


def _quantised(source: RunSource, options: ExportOptions, reporter: Reporter, placement: str) -> Quantised:
    after = bool(options.quantiser)
    with reporter.progress("calibration", calibration_work(source, after=after) or None) as step:
        quantised = quantise(
            source, progress=absolute(step), say=reporter.say, after=after, amax=options.amax, placement=placement
        )
    facts, counts = quantised.facts, quantised.facts["placement"]
    how = "trained (QAT)" if facts["method"] == "qat" else "calibrated after training (PTQ)"
    trained = not after and (source.run.path / "qat").is_dir()
    where = "qat/ of the run" if trained else "calibrated now" + ("" if after else ": the run has no qat stage")
    reporter.say(f"  quantisation   {how}, {where}; observer {facts['observer']}")
    reporter.say(f"  calibration    {facts['calibration_images']} images, train only, 0 shared with val or test")
    reporter.say(
        f"  graph          Q/DQ on {counts['int8_convolutions']} convolutions, {counts['float_convolutions']} in float"
    )
    return quantised


def _each(making: _Making, queue: list[Job], *, allow_fallback: bool) -> tuple[list[Published], list[OctcError]]:
    """Run all jobs; if the gate refuses INT8 and a fallback is allowed, FP16 of the same target is added."""
    published: list[Published] = []
    refused: list[OctcError] = []
    precisions = {(job.target, job.precision) for job in queue}
    with making.reporter.progress("artifacts", len(queue)) as step:
        while queue:
            job = queue.pop(0)
            try:
                published.append(_one(making, job))
            except OctcError as error:
                refused.append(error)
                if allow_fallback and error.code == "OCT-E405" and (job.target, "fp16") not in precisions:
                    queue.append(Job(job.target, "fp16", choose_opset(job.target, None)))
            step(1)
    return published, refused


def _one(making: _Making, job: Job) -> Published:
    reporter = making.reporter
    published = export_artifact(
        making.shop,
        job,
        making.device,
        select=making.select,
        options=making.gate,
        force=making.force,
        say=lambda text: reporter.say(f"  ! {text}"),
    )
    artifact, details = published.artifact, published.artifact.details
    reporter.say(f"  ✓ {artifact.name}: {_facts(details)}")
    if details.get("processors", EVERY) != EVERY:
        elsewhere = "elsewhere (Arm: Raspberry Pi, Jetson) use onnx-int8: --target onnx, or make it with --cpu arm"
        reporter.say(f"    for {details['processors']} processors; {elsewhere}")
    say_speed(published.folder, artifact, reporter, making.shop.source.model)
    if published.gate is not None and making.gate is not None:
        _say_gate(published.gate, making.gate, published, reporter)
    if artifact.target == "tensorrt":
        say_engine(reporter, published.folder, details)
    making.run.log_stage("export", artifact=artifact.name, sums={n: e.sha256 for n, e in artifact.files.items()})
    return published


def _say_gate(result: GateResult, options: ParityOptions, published: Published, reporter: Reporter) -> None:
    reporter.say(f"    select: {gate_line(result, options)}")
    if result.word == "parity not shown yet":
        more = f"; about {result.needed} images would settle it" if result.needed else ""
        text = f"{published.artifact.name}: parity not shown yet on the validation set{more}"
        reporter.warn("OCT-W405", text, path=str(published.folder))


def _facts(details: dict[str, Any]) -> str:
    parts = [f"{details['bytes'] / 1e6:.2f} MB"]
    if "opset" in details:
        parts.append(f"opset {details['opset']}")
    if "encoding" in details:
        floats = ", ".join(details["float_layers"])
        left = f", float by the mixed-precision fallback: {floats}" if floats else ""
        codes = "uint8 and int8" if details["encoding"] in ("mixed", "acl") else details["encoding"]
        parts.append(f"{details['int8_convolutions']} INT8 convolutions ({codes} activations){left}")
    return ", ".join(parts)


def gate_line(result: GateResult, options: ParityOptions) -> str:
    """The gate's decision and the numbers behind it, in one line."""
    one = result.comparison
    if one is None:
        return _labels_line(result) if getattr(result, "found", None) else result.word
    before, after = (100 * one.hits(name) / one.n for name in ("reference", "candidate"))
    limits = one.pair.deciding
    between = "" if limits is None else f" [{100 * limits[0]:+.3f}, {100 * limits[1]:+.3f}]"
    return (
        f"n={one.n}, {margins(options)}, accuracy {before:.2f} -> {after:.2f}, "
        f"D {100 * one.pair.difference:+.2f}{between}, agreement {100 * one.agreement['rate']:.2f} %: {result.word}"
    )


def _labels_line(result: GateResult) -> str:
    """The same for multi-label networks: mAP and decisions."""
    found: dict[str, Any] = getattr(result, "found", {})
    between = found["map_difference_interval_pp"]
    limits = "" if between is None else f" [{between[0]:+.3f}, {between[1]:+.3f}]"
    known = [found["map"][name] for name in ("reference", "candidate")]
    shown = " -> ".join("n/a" if value is None else f"{value:.2f}" for value in known)
    drop = found["map_difference_pp"]
    change = "" if drop is None else f", D {drop:+.2f}{limits}"
    return f"{found['eyes']} eyes, mAP {shown}{change}, decisions equal {100 * found['agreement']:.2f} %: {result.word}"


def published_json(one: Published) -> dict[str, Any]:
    """An artifact in the document of `octc export`."""
    details = {key: value for key, value in one.artifact.details.items() if key not in UNSHOWN}
    return {"folder": str(one.folder), "name": one.artifact.name, "details": details, "steps": list(one.steps)}
