"""The inputs of an export: float network, quantised network (trained or calibrated now), golden and validation images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx, nn

from octc.compress.activation_ranges import apply_amax, read_amax
from octc.compress.finetune import calibrated, calibration_indices, check_calibration, load_quantised, looks_of
from octc.compress.finetune_crossmodal import decision_closeness
from octc.compress.placement import ENGINES, convolutions, placement_of, prepare
from octc.compress.rounding import remember_floats
from octc.core.errors import OctcError
from octc.core.files import canonical_json, sha256_bytes, sha256_file
from octc.core.progress import silent
from octc.datasets.base import Progress, Sample
from octc.datasets.pictures import read_picture
from octc.datasets.split import Split
from octc.export.golden import SEED, choose_golden, golden_candidates
from octc.export.imports.run import is_imported, load_imported
from octc.imaging.decode import Values
from octc.imaging.input_statistics import InputStatistics, describe, fit_statistics
from octc.imaging.preprocess import Float32, UInt8
from octc.runtimes.room import BATCH
from octc.store.runs import Run
from octc.train.batches.images import cached_images
from octc.train.evaluation.assess import network_of
from octc.train.loop.checkpoint import Checkpoint, is_checkpoint
from octc.train.loop.evaluate import logits_of
from octc.train.loop.training import Data
from octc.train.recipes.config import Quantisation

DESCRIBED = 256  # training images whose statistics travel with an artifact


@dataclass(frozen=True)
class Source:
    """A network to export, from any origin.

    Attributes:
        checkpoint, model: the float network and what is known of it; the model is in eval mode and gives logits of
            normalised float [N, 3, S, S].
        golden: prepared golden images, uint8 [N, C, S, S].
        artifacts: where artifact folders go. home: where refused files and analyses go.
        lineage: where it comes from, for the manifest.
        statistics: what training images look like, so that a device can tell what is none; None where too few are known.
    """

    checkpoint: Checkpoint
    model: nn.Module
    golden: UInt8
    artifacts: Path
    home: Path
    lineage: dict[str, Any]
    statistics: InputStatistics | None = None


@dataclass(frozen=True)
class RunSource(Source):
    """The network of a run, whose folder is its home. root: of the data set."""

    root: Path = field(kw_only=True)
    split: Split = field(kw_only=True)

    @property
    def run(self) -> Run:
        return Run(self.home)

    @property
    def cache(self) -> Path:
        return self.run.path.parent / ".cache"


@dataclass(frozen=True)
class Quantised:
    """A calibrated network, the checksum of the weights it came from, and how: method "qat" or "ptq", observer, counts."""

    module: fx.GraphModule
    sha256: str
    facts: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The quantised convolutions, in the order of the graph."""
        known = convolutions(self.module)
        return [str(n.target) for n in self.module.graph.nodes if n.op == "call_module" and str(n.target) in known]


@dataclass(frozen=True)
class Select:
    """The validation set (the split's "val") with the float network's logits, float32 [N, K]."""

    samples: tuple[Sample, ...]
    images: UInt8
    reference: Float32


def read_source(run: Run, root: Path) -> RunSource:
    """Read a finished training.

    Raises:
        OctcError: E107 no checkpoint, E216 the split is not the one that was trained on, E307, E501, E201... a golden image.
    """
    model, checkpoint, split = load_imported(run) if is_imported(run) else network_of(run)
    model.eval().requires_grad_(False)
    pre = checkpoint.preprocess
    candidates = golden_candidates(split.parts["train"], len(checkpoint.classes))
    images = np.concatenate([pre.prepare(read_picture(root, s, pre.value_range).image) for s in candidates])
    chosen = choose_golden([s.label for s in candidates], logits_of(model, images, pre, "cpu", batch=BATCH).numpy())
    lineage = {
        "run": run.id,
        "teacher_run": run.read().get("teacher_run"),
        "recipe": checkpoint.recipe.get("name"),
        "dataset": checkpoint.dataset,
        "split_digest": checkpoint.split_digest,
        "data_digest": checkpoint.data_digest,
        "protocol": split.protocol,
        **split.patient_ids.to_json(),
    }
    return RunSource(
        checkpoint,
        model,
        images[chosen],
        run.artifacts,
        run.path,
        lineage,
        read_statistics(split.parts["train"], root, pre.value_range),
        root=root,
        split=split,
    )


def read_statistics(train: Sequence[Sample], root: Path, values: Values | None = None) -> InputStatistics | None:
    """Statistics of up to 256 training images, the same number of every class (a second or two)."""
    chosen = calibration_indices([s.label for s in train], DESCRIBED, SEED)
    known = (describe(read_picture(root, train[int(i)], values).image) for i in chosen)
    return fit_statistics([values for values in known if values is not None])


def read_select(source: RunSource, progress: Progress | None = None) -> Select:
    """The validation set's images and the float network's logits (a minute or more for a large network)."""
    samples, pre = source.split.parts["val"], source.checkpoint.preprocess
    tell = progress or (lambda _done, _total: None)
    count = len(samples)
    images = cached_images(source.cache, source.root, samples, pre, lambda done, _: tell(done, 2 * count))
    rows = []
    for start in range(0, count, BATCH):
        rows.append(logits_of(source.model, images[start : start + BATCH], pre, "cpu", batch=BATCH).numpy())
        tell(count + min(start + BATCH, count), 2 * count)
    return Select(samples, images, np.concatenate(rows))


def calibration_work(source: RunSource, *, after: bool = False) -> int:
    """Number of image passes in `quantise`, for its progress; 0 if the run was quantised in training."""
    if is_checkpoint(source.run.path / "qat") and not after:
        return 0
    parts = source.split.parts
    return looks_of(quantisation_of(source), len(parts["train"]), len(parts["val"]))


def of_run(source: Source) -> RunSource:
    """The source of a run, for what needs its training images (E102 for a network without one)."""
    if not isinstance(source, RunSource):
        text = "other quantisers calibrate on a run's training images, and this network has no run"
        raise OctcError("OCT-E102", text, hint="octc.quantize calibrates a network of your own")
    return source


def calibration_set(source: RunSource, seed: int = 0) -> tuple[list[Sample], UInt8]:
    """Calibration samples of the training part, stratified, and their prepared images.

    Raises:
        OctcError: E214 when one of them stands in val or test, or they are too few or of one class.
    """
    train = source.split.parts["train"]
    how = quantisation_of(source)
    chosen = [train[int(i)] for i in calibration_indices([s.label for s in train], how.calibration, seed)]
    check_calibration(chosen, {part: source.split.parts[part] for part in ("val", "test")})
    return chosen, cached_images(source.cache, source.root, chosen, source.checkpoint.preprocess)


def quantisation_of(source: Source) -> Quantisation:
    """The quantisation settings of the run's recipe."""
    return Quantisation(**source.checkpoint.recipe.get("quantisation", {}))


def trainable(source: Source) -> bool:
    """Whether the network is one of torch's own modules, whose layers can be traced and changed."""
    return any(True for _ in source.model.parameters())


def quantise(
    source: RunSource,
    seed: int = 0,
    progress: Progress | None = None,
    *,
    say: Callable[[str], None] = silent,
    after: bool = False,
    amax: Path | None = None,
    placement: str = ENGINES,
) -> Quantised:
    """The run's quantisation-aware checkpoint, or, where it has none, octc's own calibration of the float network.

    Args:
        after: calibrate the float network even where there is a quantisation-aware checkpoint.
        amax: a safetensors file with activation ranges of pytorch-quantization, instead of those found here.
        placement: of quantisers that are calibrated here; a checkpoint has its own.

    Raises:
        OctcError: E214 when a calibration image stands in val or test; E404 when the network cannot be quantised;
            E307, E308, E310, E404 the file of ranges.
    """
    if not trainable(source):
        text = f"{source.run.id} holds an imported graph, and octc's own quantiser needs the network as a torch module"
        hint = (
            f"octc export {source.run.id} --int8 --target onnx --ptq onnxruntime, or octc.quantize(module, images, preprocess)"
        )
        raise OctcError("OCT-E102", text, hint=hint, place="--ptq")
    folder = source.run.path / "qat"
    if is_checkpoint(folder) and not after:
        checkpoint, module = load_quantised(folder)
        if (checkpoint.parent or {}).get("sha256") != source.checkpoint.sha256:
            text = "the quantised checkpoint was made from other weights than train/"
            raise OctcError("OCT-E307", text, hint="octc train student again", place=str(folder))
        kept = checkpoint.quantisation or {}
        require_disjoint(kept.get("calibration", []), source.split)
        if checkpoint.metrics.get("chosen") == "ptq" and kept.get("rounded", {}).get("chosen") == "gptq":
            floats = prepare(source.model, checkpoint.preprocess.size, placement=placement_of(module))
            remember_floats(module, floats)
        return Quantised(
            module, checkpoint.sha256, quantisation_facts("qat", kept, kept.get("calibration", []), checkpoint.metrics)
        )
    ranges = None if amax is None else read_amax(amax)
    chosen, images = calibration_set(source, seed)
    how, pre, val = quantisation_of(source), source.checkpoint.preprocess, source.split.parts["val"]
    data = Data(
        images,
        [s.label for s in chosen],
        cached_images(source.cache, source.root, val, pre),
        [s.label for s in val],
        pre,
        [s.path for s in chosen],
    )
    near = decision_closeness if source.checkpoint.recipe.get("task") == "multilabel" else None
    short = replace(how, calibration=len(chosen), placement=placement)
    module, facts = calibrated(source.model, short, data, seed, progress=progress, near=near, say=say)
    told = quantisation_facts("ptq", facts, [s.sha256 for s in chosen], {})
    if amax is not None and ranges is not None:
        told["amax"] = {"file": amax.name, "sha256": sha256_file(amax), **apply_amax(module, ranges)}
        told["observer"] = f"{amax.name}, else {told['observer']}"
        if "rounded" in told:  # agreement and KL were those of other ranges
            told["rounded"] = {"chosen": told["rounded"]["chosen"]}
    return Quantised(module, source.checkpoint.sha256, told)


def require_disjoint(calibration: Sequence[str], split: Split) -> None:
    """Refuse a network whose calibration images (checksums) stand in the split's val or test (E214), or are not known."""
    known = {s.sha256: s for part in ("val", "test") for s in split.parts[part]}
    shared = [known[one].path for one in calibration if one in known]
    if shared or not calibration:
        what = f"calibration images overlap val or test ({len(shared)} files, sha256 match)"
        text = what if shared else "the quantised checkpoint does not list its calibration images"
        place = ", ".join(shared[:10]) or None
        raise OctcError("OCT-E214", text, hint="octc train student again", place=place, why="measured on seen images")


def quantisation_facts(
    method: str, facts: dict[str, Any], calibration: Sequence[str], metrics: dict[str, Any]
) -> dict[str, Any]:
    rounded = {"rounded": facts["rounded"]} if "rounded" in facts else {}
    return {
        "method": metrics.get("chosen", method),
        "engine": "octc",
        "observer": facts["observer"],
        **rounded,
        "observers": facts["observers"],
        **describe_sums(calibration),
        "placement": facts["counts"],
    }


def describe_calibration(samples: Sequence[Sample]) -> dict[str, Any]:
    """The calibration images as facts of a manifest: how many, which."""
    return describe_sums([s.sha256 for s in samples])


def describe_sums(sums: Sequence[str]) -> dict[str, Any]:
    """Like `describe_calibration`, from the checksums of the images."""
    digest = sha256_bytes(canonical_json(sorted(sums)))
    return {"calibration_images": len(sums), "calibration_digest": digest, "calibration": sorted(sums)}
