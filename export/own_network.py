"""Bring your own network: any traceable `nn.Module` to FP32, FP16 and INT8 artifacts, without a run folder.

The network takes normalised float [N, 3, S, S] and gives logits [N, K]. What is made is what a run's export makes: the model
file, its checksums, golden images, the preprocessing, and a manifest that says what is not known (data, patients, licences).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from octc.compress.finetune import calibrated, looks_of
from octc.compress.ordinary import ordinary_copy
from octc.compress.placement import int8_share
from octc.core.errors import OctcError, first_line, shorten
from octc.core.files import canonical_json, sha256_bytes
from octc.core.progress import LogReporter, Reporter, absolute
from octc.core.scratch import scratch
from octc.datasets.base import Sample
from octc.datasets.calibration import check_count
from octc.export.formats import FORMATS, choose_opset, pairs
from octc.export.golden import are_probabilities, choose_golden
from octc.export.imports.graph import ONE_LOGIT
from octc.export.int8_speed import say_speed
from octc.export.pipeline import Device, Published, export_artifact
from octc.export.source import Quantised, Select, Source, quantisation_facts
from octc.export.targets import Job, Workshop
from octc.imaging.input_statistics import describe, fit_statistics
from octc.imaging.preparing import prepare_pictures
from octc.imaging.preprocess import Preprocess, UInt8
from octc.runtimes.room import BATCH
from octc.stats.patients import patient_ids
from octc.stats.test_plan import ParityOptions
from octc.train.loop.checkpoint import Checkpoint, tensors_as_bytes
from octc.train.loop.evaluate import answer, logits_of, network_input
from octc.train.loop.training import Data
from octc.train.recipes.config import Quantisation

HELD_OUT = 4  # every fourth calibration image chooses among calibrators, where no validation images are given
GOLDEN = 32  # images from which golden ones are chosen, at most
MOSTLY = 0.5  # of the multiply-accumulates: with fewer in INT8, an INT8 network is one by its name
ROWS = "wrap it: a module whose forward returns the one tensor of its result that has a row of logits an image"
# what leaves the values of a tensor as they are, by the names of torch's functions
UNCHANGED = frozenset((
    "__get__", "__getitem__", "clone", "contiguous", "detach", "double", "dropout", "expand", "flatten", "float",
    "half", "permute", "reshape", "squeeze", "to", "transpose", "type", "unsqueeze", "view",
))  # fmt: skip
GREY = "octc spreads grey to three channels: wrap it, forward taking x[:, :1] of its input"


@dataclass(frozen=True)
class OwnNetwork:
    """A network with the images that are needed to export it; `octc.quantize` makes one.

    Attributes:
        float_model: a copy in eval mode, on the CPU.
        preprocess: how a picture becomes the network's input. classes: names in the order of the logits.
        golden: uint8 [N, C, S, S], images whose logits every artifact records. name: of the network, in manifests.
        quantised: the fake-quantised graph (`module`) with its facts. select: the validation images. statistics: of the
            calibration images, by which a device recognises pictures unlike them.
    """

    float_model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]
    golden: UInt8
    name: str
    quantised: Quantised | None = None
    select: Select | None = None
    statistics: Any = None

    @property
    def module(self) -> fx.GraphModule | None:
        """The fake-quantised network (torch.fx): normalised float in, logits out, with the rounding of the INT8 files."""
        return None if self.quantised is None else self.quantised.module

    @property
    def facts(self) -> dict[str, Any]:
        """Observer, calibration images, agreement with the float network on images that set no range."""
        return {} if self.quantised is None else self.quantised.facts


@dataclass(frozen=True)
class QuantizeOptions:
    """How `octc.quantize` calibrates, beyond its images.

    Attributes:
        rounding: try rounding with error compensation (GPTQ), and keep it if it agrees better with the float network.
        observers: the calibrators to try ("max", "mse", ...); the best one is kept. seed: of the choice of images.
        whole: types of modules that cannot be traced: they stay as they are, in float.
        placement: where quantisers are inserted (`octc.compress.placement`): "acl" for the target "openvino-arm", "xnnpack" for
            "litert", else "engines".
    """

    rounding: bool = True
    observers: Sequence[str] = Quantisation.observers
    seed: int = 0
    whole: Sequence[type[nn.Module]] = ()
    placement: str = Quantisation.placement


def quantize_network(
    module: nn.Module,
    calibration: Sequence[Any],
    preprocess: Preprocess,
    *,
    classes: Sequence[str] | None = None,
    validation: tuple[Sequence[Any], Sequence[Any]] | None = None,
    name: str | None = None,
    options: QuantizeOptions = QuantizeOptions(),
    reporter: Reporter | None = None,
) -> OwnNetwork:
    """Quantise a network of your own to INT8 without training: fold norms, insert quantisers, set ranges, round weights (GPTQ).

    Args:
        module: normalised float32 [N, 3, S, S] -> logits float32 [N, K]; it is copied, never changed.
        calibration: at least 16 training images (paths or Pillow images); never images that you will test on.
        preprocess: size in pixels, channels, mean and std that the network was trained with.
        classes: names in the order of the logits; None: "0", "1", ...
        validation: (images, labels), disjoint from the calibration images; labels as names or indices. Used to choose among the
            calibrators, and by the gate of `octc.export`. None: every fourth calibration image is used for the choice, and
            an export has no gate.
        name: of the network, in manifests; None: the name of its class.
        options: calibrators, rounding, seed, modules that are not traced.
        reporter: receives progress and the time left; None: the log `octc`.

    Returns: the float copy and its fake-quantised graph, for `octc.export`.

    Raises:
        OctcError: E404 the network cannot be traced (with module and line), has no convolution, or gives no logits [N, K];
            E102 the placement does not suit the network; E104 unknown placement; E214 too few images; E309 the number of
            classes is not that of the logits; E706 labels; E201 and others an image cannot be read.

    >>> import numpy as np, octc
    >>> from PIL import Image
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    >>> images = [Image.fromarray(np.full((64, 64), 15 * i, np.uint8)) for i in range(16)]
    >>> quantized = octc.quantize(network, images, octc.Preprocess(size=64), classes=["CNV", "NORMAL"])
    >>> quantized.classes
    ('CNV', 'NORMAL')
    """
    prepared, sums, statistics = _looked_at(calibration, preprocess)
    check_count(len(prepared))
    own = _network(module, preprocess, classes, name, prepared[:GOLDEN])
    select = None if validation is None else _select(own, validation)
    if select is None:
        judges = np.arange(len(prepared)) % HELD_OUT == HELD_OUT - 1
        ranges, chosen, sums = prepared[~judges], prepared[judges], [s for s, j in zip(sums, judges, strict=True) if not j]
    else:
        ranges, chosen = prepared, select.images
        known = {s.sha256 for s in select.samples}
        if shared := sorted(set(sums) & known):
            text = f"{len(shared)} calibration images are validation images too"
            raise OctcError(
                "OCT-E214", text, hint="calibrate on other images", place="calibration", why="measured on seen images"
            )
    how = Quantisation(
        observers=tuple(options.observers), calibration=len(ranges), rounding=options.rounding, placement=options.placement
    )
    data = Data(ranges, [0] * len(ranges), chosen, [0] * len(chosen), preprocess)
    tell = reporter or LogReporter()
    with tell.progress("calibration", looks_of(how, len(ranges), len(chosen))) as step:
        graph, facts = calibrated(
            own.float_model, how, data, options.seed, progress=absolute(step), whole=tuple(options.whole), say=tell.say
        )
    quantised = Quantised(graph, _digest(own.float_model), quantisation_facts("ptq", facts, sums, {}))
    return replace(own, quantised=quantised, select=select, statistics=statistics)


def export_network(
    network: OwnNetwork,
    targets: Sequence[str] = ("onnx",),
    precision: str = "int8",
    *,
    out: str | os.PathLike[str] = "artifacts",
    gate: ParityOptions | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> list[Path]:
    """`octc.export` of a network from `octc.quantize`: artifacts OUT/<target>-<precision>/, in the order of `targets`.

    Raises:
        OctcError: as `octc.export`; E102 a gate without validation images.
    """
    able = [pair for pair in pairs() if FORMATS[pair[0]].any_network]
    for target in targets:
        if (target, precision) not in able:
            known = ", ".join(f"{t} {p}" for t, p in able)
            raise OctcError("OCT-E104", f"no artifact {target} {precision}", hint=f"one of: {known}", place="targets")
    if gate is not None and (network.select is None or precision != "int8"):
        text = "a gate compares INT8 with the float network on validation images"
        raise OctcError("OCT-E102", text, hint="octc.quantize(..., validation=(images, labels)), or gate=None", place="gate")
    home = Path(out)
    home.mkdir(parents=True, exist_ok=True)
    source = source_of(network, home)
    device, tell = Device(), reporter or LogReporter()
    done: list[Published] = []
    with scratch("export", home, hidden=True) as folder:
        shop = Workshop(source, folder, network.quantised)
        for target in targets:
            job = Job(target, precision, choose_opset(target, None))
            select = None if gate is None else network.select
            done.append(export_artifact(shop, job, device, select=select, options=gate, force=force, say=tell.say))
            say_speed(done[-1].folder, done[-1].artifact, tell, network.float_model)
            _say_share(network, done[-1], tell)
    return [one.folder for one in done]


def _say_share(network: OwnNetwork, made: Published, tell: Reporter) -> None:
    """A warning (OCT-W412) where the least part of an INT8 network's work is INT8."""
    if network.module is None or made.artifact.precision != "int8":
        return
    share = int8_share(network.module, network.preprocess.size)
    if share < MOSTLY:
        text = f"{100 * share:.0f} % of the multiply-accumulates of {network.name} are INT8, the rest is computed in float"
        tell.warn("OCT-W412", f"{text}: octc quantises convolutions of maps", path=str(made.folder))


def source_of(network: OwnNetwork, home: Path) -> Source:
    """What the makers of artifacts are given of a network without a run: nothing is known of data, patients and licences."""
    unknown = ("run", "teacher_run", "recipe", "dataset", "split_digest", "data_digest", "protocol")
    lineage: dict[str, Any] = {**dict.fromkeys(unknown), **patient_ids(()).to_json()}
    checkpoint = Checkpoint(
        role="student",
        model=network.name,
        model_kwargs={},
        classes=network.classes,
        preprocess=network.preprocess,
        recipe={},
        dataset="",
        split_digest="",
        data_digest="",
        weights={"source": "own network", "licence": "unknown"},
        sha256=_digest(network.float_model),
    )
    return Source(checkpoint, network.float_model, network.golden, home, home, lineage, network.statistics)


def _network(
    module: nn.Module, preprocess: Preprocess, classes: Sequence[str] | None, name: str | None, candidates: UInt8
) -> OwnNetwork:
    """The copy in eval mode, its classes, its golden images (of prepared candidates)."""
    model = ordinary_copy(module)
    kind = type(model).__name__
    logits = _answers(model, candidates, preprocess)
    if logits.ndim != 2 or logits.shape[1] < 2 or len(logits) != len(candidates):
        text = f"{kind} gives {list(logits.shape)}, logits [N, K] are needed"
        raise OctcError("OCT-E404", text, hint=ONE_LOGIT if logits[0].size == 1 else ROWS)
    if not np.isfinite(logits).all():
        raise OctcError("OCT-E701", f"{kind} gives logits that are not finite", hint="load trained weights")
    if are_probabilities(logits):
        raise OctcError("OCT-E404", f"{kind} gives probabilities, not logits", hint="leave out the softmax at its end")
    names = tuple(str(k) for k in range(logits.shape[1])) if classes is None else tuple(map(str, classes))
    if len(names) != logits.shape[1] or len(set(names)) < len(names):
        text = f"{len(names)} class names ({len(set(names))} different), {logits.shape[1]} logits"
        raise OctcError("OCT-E309", text, hint="give each logit a name of its own", place="classes")
    chosen = choose_golden([int(row.argmax()) for row in logits], logits)
    return OwnNetwork(model, preprocess, names, candidates[chosen], name or kind)


def _answers(model: nn.Module, candidates: UInt8, preprocess: Preprocess) -> npt.NDArray[Any]:
    """What the network gives for the candidates, refused in words where that is nothing that could be logits (E404)."""
    kind, size = type(model).__name__, preprocess.size
    try:
        last = _Last()
        with torch.no_grad(), last:
            found = answer(model, network_input(torch.from_numpy(candidates[:1]), preprocess))
        if isinstance(found, torch.Tensor) and (fault := _no_logits(kind, found, last.name)) is None:
            return logits_of(model, candidates, preprocess, "cpu", batch=BATCH).numpy()
    except Exception as error:  # whatever a network of others raises
        line = first_line(error, 300)
        hint = (
            GREY
            if "1 channels" in line
            else "octc.Preprocess(size=...) as it was trained, three channels in, logits [N, K] out"
        )
        raise OctcError("OCT-E404", f"{kind} does not run on float [N, 3, {size}, {size}]: {line}", hint=hint) from error
    if isinstance(found, torch.Tensor) and fault is not None:
        raise fault
    several = f" of {len(found)} ({shorten([str(one) for one in found], 4)})" if isinstance(found, dict) else ""
    raise OctcError("OCT-E404", f"{kind} gives a {type(found).__name__}{several}, logits [N, K] are needed", hint=ROWS)


class _Last(TorchFunctionMode):
    """Remembers what computed last, but for what leaves the values as they are. name: of the function."""

    name = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found, name = func(*args, **(kwargs or {})), str(getattr(func, "__name__", ""))
        if isinstance(found, torch.Tensor) and name not in UNCHANGED:
            self.name = name
        return found


def _no_logits(kind: str, found: torch.Tensor, last: str) -> OctcError | None:
    """Why a result is none of logits, by what computed it."""
    if "sigmoid" in last or "expit" in last:
        if found.numel() == 1:
            text = f"{kind} ends in a sigmoid of one number an image: the probability of one of two classes"
            return OctcError("OCT-E404", text, hint=ONE_LOGIT)
        text = f"{kind} ends in a sigmoid: probabilities of labels that do not exclude each other"
        return OctcError("OCT-E404", text, hint="classes that exclude each other: leave out the sigmoid at its end")
    if not found.is_floating_point() and not found.is_complex():
        text = f"{kind} gives whole numbers ({str(found.dtype).removeprefix('torch.')}), logits [N, K] are needed"
        return OctcError("OCT-E404", text, hint="leave out the argmax or topk at its end")
    return None


def _select(own: OwnNetwork, validation: tuple[Sequence[Any], Sequence[Any]]) -> Select:
    """Validation images with their labels and what the float network says of them."""
    images, labels = validation
    if len(images) != len(labels) or not len(images):
        text = f"{len(images)} validation images, {len(labels)} labels"
        raise OctcError("OCT-E706", text, hint="give one label an image", place="validation")
    known = {name: k for k, name in enumerate(own.classes)}
    indices = [int(one) if isinstance(one, (int, np.integer)) else known.get(str(one), -1) for one in labels]
    if wrong := sorted({str(one) for one, k in zip(labels, indices, strict=True) if not 0 <= k < len(known)}):
        text = f"labels that are no class: {shorten(wrong)}"
        raise OctcError("OCT-E706", text, hint=f"one of: {', '.join(own.classes)}", place="validation")
    prepared, sums, _ = _looked_at(images, own.preprocess)
    samples = tuple(Sample(str(i), k, None, None, one) for i, (k, one) in enumerate(zip(indices, sums, strict=True)))
    return Select(samples, prepared, logits_of(own.float_model, prepared, own.preprocess, "cpu", batch=BATCH).numpy())


def _looked_at(images: Sequence[Any], preprocess: Preprocess) -> tuple[UInt8, list[str], Any]:
    """Images uint8 [N, C, S, S], the checksum of each one's pixels, and their statistics (None where too few)."""
    sums, known = [], []

    def look(picture: Image.Image) -> None:
        sums.append(sha256_bytes(np.ascontiguousarray(np.asarray(picture)).tobytes()))
        known.append(describe(picture.convert("L") if picture.mode not in ("L", "RGB") else picture))

    prepared = prepare_pictures(images, preprocess, look)
    return prepared, sums, fit_statistics([values for values in known if values is not None])


def _digest(model: nn.Module) -> str:
    """Of the weights, whatever their names' order."""
    state = {name: tensor for name, tensor in model.state_dict().items() if isinstance(tensor, torch.Tensor)}
    return sha256_bytes(canonical_json(sorted(state)) + tensors_as_bytes(state))
