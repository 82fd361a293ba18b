"""`octc.import_model`: a network that was trained elsewhere, as an artifact that everything on the device side works with.

Without labelled images the artifact lies in a folder of its own. With them (`data`) it belongs to a run with a split, so that
`octc verify` judges on its test part, and `octc export --ptq` quantises it with calibration images of its train part.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from octc.core.clock import utc_now
from octc.core.errors import OctcError
from octc.core.files import publishing, sha256_file, write_bytes
from octc.core.import_options import ImportOptions
from octc.core.progress import LogReporter, Reporter
from octc.core.scratch import scratch
from octc.datasets.pictures import read_picture
from octc.datasets.reading import read_data, refuse_contradictions
from octc.datasets.registry import guess_layout, spec_of
from octc.datasets.split import CLEAN, IMPORTED, Split, make_split, read_split
from octc.datasets.synthetic.bscans import CLASSES as DRAWN
from octc.datasets.synthetic.bscans import draw_phantom
from octc.datasets.tree import scan_images
from octc.export.golden import are_probabilities, choose_golden, make_golden
from octc.export.imports import differences
from octc.export.imports.graph import ONE_LOGIT, Described, choose_size, describe, read_file, refused
from octc.export.imports.intermediate import write_ir
from octc.export.imports.network import ImportedFile, OnnxNetwork, run_float, write_pair
from octc.export.imports.pixels import refuse_twice, steps_of_onnx
from octc.export.imports.presets import read_preset
from octc.export.imports.run import NETWORK, candidates, is_imported, keep_network, lineage_of, read_facts
from octc.export.onnx.float import check_batches, facts_of, read_onnx
from octc.export.pipeline import versions
from octc.export.source import read_statistics
from octc.export.usage import write_usage
from octc.imaging.decode import read_image
from octc.imaging.foreign import Foreign
from octc.imaging.input_statistics import InputStatistics
from octc.imaging.preprocess import Float32
from octc.imaging.value_range import value_range_of
from octc.runtimes.golden import replay, require_golden
from octc.runtimes.registry import open_runtime
from octc.stats.patients import patient_ids
from octc.store.artifacts import Artifact, Golden, write_golden, write_manifest
from octc.store.runs import Run, create_run, find_run

DYNAMIC = "export it with a dynamic batch: torch.onnx.export(..., dynamic_shapes=({0: torch.export.Dim('batch')},))"
CANDIDATES = 32  # pictures of which golden ones are chosen, where there are no labelled images


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        folder, artifact: the artifact's folder and manifest. run: its run; None without labelled images.
        difference: effect of octc's preprocessing against the stated one, on ten pictures
            (`octc.export.imports.differences.measure`).
        notes: remarks about the import, also recorded in the manifest.
    """

    folder: Path
    artifact: Artifact
    run: Run | None
    difference: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Asked:
    """What an import is told, and what is known before the network runs. split: None without labelled images."""

    file: Path
    classes: tuple[str, ...]
    foreign: Foreign
    options: ImportOptions
    root: Path
    split: Split | None
    before: Run | None


def import_model(
    file: str | os.PathLike[str], preprocess: Any, classes: Sequence[str], *, options: ImportOptions | None = None,
    reporter: Reporter | None = None,
) -> Imported:  # fmt: skip
    """Make an artifact from an ONNX file or an OpenVINO IR that was exported elsewhere.

    Args:
        file: takes images (float32, float16 or uint8, [N, C, H, W] or [N, H, W, C]) and gives logits [N, K].
        preprocess: how pictures were prepared in training: an `octc.Preprocess`; a dictionary or JSON file of timm
            (pretrained_cfg), torchvision (crop_size, resize_size), transformers (preprocessor_config.json) or octc; or
            "timm:NAME", "torchvision:NAME" for a model of an installed library.
        classes: names in the order of the logits.
        options: data, run folder, name. reporter: receives messages; None: the log `octc`.

    Returns: the artifact's folder and manifest, its run, and the measured effect of preprocessing that octc does differently.

    Raises:
        OctcError: E411 the file cannot become an artifact; E104 the preprocessing is not understood; E309 the number of classes
            is not that of the logits; E401 an opset that is not supported; E402 a fixed batch that cannot be changed; E502,
            E503, E504 an unsafe file or weights elsewhere; E106 the artifact exists; and what reading images raises.

    >>> import octc
    >>> options = octc.ImportOptions(out="imported")
    >>> octc.import_model("net.onnx", "preprocessor_config.json", ["CNV", "NORMAL"], options=options).folder
    PosixPath('imported/onnx-fp32')
    """
    tell = reporter or LogReporter()
    asked = _asked(Path(file), tuple(map(str, classes)), read_preset(preprocess), options or ImportOptions(), tell)
    with scratch("import") as folder:
        made = _write(asked, folder)
        pictures = _pictures(asked)
        difference = differences.measure(asked.foreign, pictures[: differences.PICTURES], made.run)
        golden = _golden(asked, made, pictures)
        if golden.logits.shape[1] != len(asked.classes):
            text = f"{len(asked.classes)} class names, {golden.logits.shape[1]} logits"
            raise OctcError("OCT-E309", text, hint="give one name for each logit, in their order", place="--classes")
        notes = _say(asked, made.known, difference, tell)
        with _home(asked) as (home, run):
            target = home / f"{made.target}-{made.known.precision}"
            artifact = _publish(asked, made, target, golden, run, {"difference": difference, "notes": list(notes)})
            if run is not None and asked.before is None:
                keep_network(run, made, artifact)
    if run is not None:
        run.log_stage("import", artifact=artifact.name, file=asked.file.name)
        run.update(status="done")
    return Imported(target, artifact, run, difference, notes)


def _asked(file: Path, classes: tuple[str, ...], foreign: Foreign, options: ImportOptions, tell: Reporter) -> _Asked:
    """Check what goes together, and read what is labelled."""
    if (values := value_range_of(options.value_range)) is not None:
        foreign = replace(foreign, value_range=values)
    if len(classes) < 2 or len(set(classes)) < len(classes):
        text = f"{len(classes)} class names, {len(set(classes))} different"
        raise OctcError("OCT-E309", text, hint="give each logit a name of its own, in their order", place="--classes")
    if options.run is not None:
        before = _earlier(options, classes, foreign)
        root = options.data or Path(str(before.read().get("data_root", "")))
        return _Asked(file, classes, foreign, options, root, read_split(before.split), before)
    if options.data is None:
        return _Asked(file, classes, foreign, options, Path(), None, None)
    kind = guess_layout(options.data)
    if (options.column or options.image_root) and not spec_of(kind).table:
        kind = "csv"
    found = read_data((kind, options.data), options, options.run_dir, tell.say, classes=classes)
    refuse_contradictions(found, kind, options.data, options)
    if any(s.targets is not None for s in found.items):
        text = f"{options.data} holds several labels an image"
        raise OctcError("OCT-E104", text, hint="--data DIR with one class an image", place="--data")
    split = make_split(found, kind, options.seed)
    split = replace(split, protocol=CLEAN if options.held_out else IMPORTED)
    train, val, test = (len(split.parts[part]) for part in ("train", "val", "test"))
    tell.say(f"  data           {kind} in {options.data}: {train} images to calibrate on, {val} in val, {test} in test")
    return _Asked(file, classes, foreign, options, found.root, split, None)


def _earlier(options: ImportOptions, classes: tuple[str, ...], foreign: Foreign) -> Run:
    """The run of an earlier import, which must be of the same classes and preprocessing."""
    run = find_run(options.run_dir, str(options.run))
    if not is_imported(run):
        raise OctcError("OCT-E102", f"{run.id} was trained here", hint="leave --run out", place="--run")
    known = read_facts(run)
    if tuple(known["classes"]) != classes or known["preprocess"] != _plain(foreign):
        text = f"{run.id} has the classes {', '.join(known['classes'])}, or another preprocessing"
        raise OctcError("OCT-E309", text, hint="the same --classes and --preprocess as for its first file", place="--run")
    return run


def _plain(foreign: Foreign) -> dict[str, Any]:
    """The preprocessing as a JSON file gives it back."""
    value = foreign.preprocess.to_json()
    return {key: list(one) if isinstance(one, tuple) else one for key, one in value.items()}


def _write(asked: _Asked, folder: Path) -> ImportedFile:
    """The foreign file behind octc's input, checked."""
    path, foreign = asked.file, asked.foreign
    if path.suffix.lower() == ".xml":
        return write_ir(path, foreign, asked.options.output, folder)
    proto = read_file(path)
    known = describe(proto, asked.options.output)
    choose_size(known, foreign.size, foreign.source)
    if known.type == "uint8" and (foreign.mean, foreign.std, foreign.factor) != ((0.0,) * 3, (1.0,) * 3, 1 / 255):
        text = "the network takes uint8 pixels and normalises them itself, its preprocessing normalises too"
        raise OctcError("OCT-E104", text, hint='"mean": [0, 0, 0], "std": [1, 1, 1] in --preprocess', place="--preprocess")
    if known.type != "uint8":
        refuse_twice(steps_of_onnx(proto.graph, known.input), foreign)
    network, main, plain = folder / NETWORK, folder / "model.onnx", folder / "plain.onnx"
    try:
        write_pair(proto, known, foreign, (network, main))
        write_pair(proto, known, replace(foreign, between=foreign.size), (plain, folder / "unused.onnx"))
    except OctcError as error:
        if error.code != "OCT-E407":
            raise
        text = f"{path.name}: {error.message.replace('the exported ONNX', 'the ONNX')}"
        raise refused(
            text, "export it again, until onnx.checker.check_model(FILE, full_check=True) passes", str(path)
        ) from error
    session = _opened(plain, path)
    facts = {**facts_of(read_onnx(main)), "bytes": main.stat().st_size, "exporter": "imported"}
    facts["batches_run"] = _batches(main, foreign, path)
    return ImportedFile(known, "onnx", (main,), network, facts, lambda images: _logits(session, images, path))


def _batches(main: Path, foreign: Foreign, path: Path) -> list[int]:
    try:
        return check_batches(main, foreign.preprocess, DYNAMIC)
    except OctcError as error:
        if error.code != "OCT-E402":
            raise
        raise OctcError(error.code, f"{path.name}: {error.message}", hint=error.hint, place=str(path)) from error


def _opened(plain: Path, path: Path) -> Any:
    try:
        return OnnxNetwork(plain, plain).session
    except Exception as error:  # onnxruntime's errors share no base class
        raise refused(f"ONNX Runtime cannot open {path.name}: {_line(error)}", "export it again with another opset") from error


def _logits(session: Any, images: Float32, path: Path) -> Float32:
    try:
        found = run_float(session, images)
    except Exception as error:  # onnxruntime's errors share no base class
        raise refused(f"{path.name} does not run: {_line(error)}", "export it again, in eval mode") from error
    return found


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1][:300]


@cache
def _drawn() -> tuple[Image.Image, ...]:
    """Half a second to draw, and the same for every file: 8 MiB. Nobody writes into them."""
    return tuple(draw_phantom(DRAWN[i % len(DRAWN)], i, i) for i in range(CANDIDATES))


def _pictures(asked: _Asked) -> list[Image.Image]:
    """Pictures for golden images and differences: of the train part, of a folder, else drawn ones."""
    if asked.split is not None:
        return [read_picture(asked.root, s, asked.foreign.value_range).image for s in candidates(asked.split)]
    if asked.options.images is None:
        return [*_drawn()]
    paths, _ = scan_images(Path(asked.options.images))
    if not paths:
        raise OctcError("OCT-E201", "no image in this folder", hint="--images DIR", place=asked.options.images)
    return [read_image(path, asked.foreign.value_range).image for path in paths[:CANDIDATES]]


def _golden(asked: _Asked, made: ImportedFile, pictures: Sequence[Image.Image]) -> Golden:
    """Golden images with the logits of a run without graph optimisation."""
    foreign = asked.foreign
    images = np.stack([foreign.preprocess.prepare(one)[0] for one in pictures])
    logits = made.run(foreign.normalised(foreign.middle(images)))
    if logits.ndim != 2 or len(logits) != len(images):
        raise refused(f"{asked.file.name} gives {list(logits.shape)}, one row of logits an image is needed", "--output NAME")
    if logits.shape[1] == 1:
        raise refused(f"{asked.file.name} gives one number an image, for one class", ONE_LOGIT)
    if not np.isfinite(logits).all():
        raise OctcError("OCT-E701", f"{asked.file.name} gives logits that are not finite", hint="export trained weights")
    if are_probabilities(logits):
        raise refused(f"{asked.file.name} gives probabilities, not logits", "export the network without its softmax")
    own = [int(row.argmax()) for row in logits] if asked.split is None else [s.label for s in candidates(asked.split)]
    chosen = choose_golden(own, logits)
    return make_golden(None, foreign.preprocess, images[chosen], logits[chosen])


def _say(asked: _Asked, known: Described, difference: dict[str, Any], tell: Reporter) -> tuple[str, ...]:
    """Say what has to be known of this artifact, and give what its manifest keeps of it."""
    foreign, notes = asked.foreign, [known.logits] if known.logits else []
    seen = f"{foreign.size} px" if foreign.size == foreign.between else f"the middle {foreign.size} of {foreign.between} px"
    order = "blue first (turned round in the graph)" if foreign.bgr else "red first"
    tell.say(f"  preprocessing  {foreign.source}: {seen}, {foreign.preprocess.resize}, {order}")
    if foreign.unmatched:
        text = f"the preprocessing is not matched in full: {'; '.join(foreign.unmatched)}; {differences.words(difference)}"
        tell.warn("OCT-W411", text)
        notes.append(text)
    else:
        tell.say(f"  difference     {differences.words(difference)}")
    if asked.split is not None and asked.split.note:
        notes.append(asked.split.note)
        tell.say(f"  ! {asked.split.note} (--held-out, if it saw none of them)")
    if known.logits:
        tell.say(f"  ! {known.logits}")
    return tuple(notes)


@contextmanager
def _home(asked: _Asked) -> Iterator[tuple[Path, Run | None]]:
    """Where the artifact goes, and its run; a run that was made for an import that fails is taken away again."""
    if asked.before is not None:
        yield asked.before.artifacts, asked.before
        return
    if asked.split is None:
        yield Path(asked.options.out), None
        return
    split = asked.split
    run = create_run(
        asked.options.run_dir, "student", split.dataset, suffix="-imported", data_root=str(asked.root.resolve()),
        split_digest=split.digest, recipe={"name": "imported"}, protocol=split.protocol, seed=asked.options.seed,
        teacher_run=None, begin=lambda run: split.write(run.split),
    )  # fmt: skip
    try:
        yield run.artifacts, run
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise


def _publish(
    asked: _Asked, made: ImportedFile, folder: Path, golden: Golden, run: Run | None, said: dict[str, Any]
) -> Artifact:  # fmt: skip
    """The artifact folder, opened and replayed before it appears."""
    unknown = ("run", "teacher_run", "dataset", "split_digest", "data_digest", "protocol")
    came = {**dict.fromkeys(unknown), "recipe": "imported", **patient_ids(()).to_json()}
    if run is not None and asked.split is not None:
        came = lineage_of(run, asked.split)
    sha256 = sha256_file(asked.file)
    weights = {"source": asked.file.name, "licence": "unknown"}
    lineage: dict[str, Any] = {
        **came, "checkpoint": sha256, "quantised_checkpoint": None, "parent": None, "weights": weights,
        "versions": versions(), "exported": utc_now(),
    }  # fmt: skip
    known = _statistics(asked)
    details = {
        **made.facts, "imported": {"file": asked.file.name, "sha256": sha256, "preprocessing": asked.foreign.to_json(), **said},
        "gate": None, "ladder": [], "input_statistics": None if known is None else known.to_json(),
    }  # fmt: skip
    artifact = Artifact(
        name=folder.name, role="student", model=asked.options.name or asked.file.stem, target=made.target,
        precision=made.known.precision, classes=asked.classes, preprocess=asked.foreign.preprocess, lineage=lineage,
        details=details, main_file=made.files[0].name,
    )  # fmt: skip
    folder.parent.mkdir(parents=True, exist_ok=True)
    with publishing(folder, force=asked.options.force) as temporary:
        for path in made.files:
            write_bytes(temporary / path.name, path.read_bytes())
        write_golden(temporary, golden)
        write_usage(temporary, write_manifest(temporary, artifact))
        artifact = write_manifest(temporary, artifact)
        runtime = open_runtime(temporary, artifact)
        try:
            report = replay(runtime, golden, artifact)
        finally:
            runtime.close()
        try:
            require_golden(report, artifact)
        except OctcError as error:
            raise OctcError(error.code, error.message, hint=_nearer(artifact), place=str(asked.file)) from error
        return write_manifest(temporary, replace(artifact, details={**details, "golden": asdict(report)}))


def _nearer(artifact: Artifact) -> str:
    """What to do about an engine that computes something else than the operators as they are written."""
    if artifact.precision == "int8":
        return "quantise it with weights of 7 bits: quantize_static(..., reduce_range=True); those of 8 overflow on some CPUs"
    return "export it again in eval mode; octc import of its OpenVINO IR uses another engine"


def _statistics(asked: _Asked) -> InputStatistics | None:
    return None if asked.split is None else read_statistics(asked.split.parts["train"], asked.root, asked.foreign.value_range)
