"""The functions that write the model files of an artifact, one for each pair of target and precision in
`octc.export.formats`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import fx, nn

from octc.compress.placement import ACL, XNNPACK, convolutions, placement_of
from octc.core.errors import OctcError
from octc.core.files import write_bytes
from octc.core.targets import called
from octc.export.formats import FORMATS
from octc.export.imports.network import OnnxNetwork
from octc.export.lint.check import mark_rest, require_clean
from octc.export.litert.write import LITERT, write_litert
from octc.export.onnx.encoding import Encoding, encode, encoding_for
from octc.export.onnx.float import check_batches, facts_of, read_onnx, save, write_onnx
from octc.export.onnx.fp16 import write_fp16
from octc.export.onnx.pack import pack_weights
from octc.export.openvino import MAIN, write_openvino
from octc.export.reference import Validation
from octc.export.source import Quantised, Source
from octc.export.tensorrt.variants import narrow, require_agreement, write_half, write_int8
from octc.imaging.preprocess import Float32, Preprocess
from octc.stats.temperature import Temperature
from octc.store.artifacts import Artifact
from octc.train.loop.checkpoint import WEIGHTS, tensors_as_bytes

ONNX = "model.onnx"


@dataclass(frozen=True)
class Made:
    """Written model files: the main file, the torch network that it must agree with, and facts for the manifest.

    golden: logits of the golden images, for files of another library, which no torch network reproduces.
    """

    main_file: str
    reference: nn.Module
    facts: dict[str, Any]
    golden: Float32 | None = None


@dataclass
class Workshop:
    """ONNX files that several artifacts of one command share, each exported and checked once. `folder` is temporary.

    Attributes:
        temperatures: divisors of the last layer (export/temperature.py), for the "float" and the "quantised" network.
        more: details about the run's images for every artifact (export/clinic.py).
        plain: target -> folder and manifest of an FP32 artifact against which INT8 is timed (export/int8_speed.py).
        validation: what students' artifacts store about the validation set for a monitor (export/reference.py).
    """

    source: Source
    folder: Path
    quantised: Quantised | None = None
    made: dict[tuple[Any, ...], Made] = field(default_factory=dict)
    temperatures: dict[str, Temperature] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, tuple[Path, Artifact]] = field(default_factory=dict)
    validation: Validation | None = None

    def float_onnx(self, opset: int) -> Made:
        """The float network as FP32 ONNX; batches of 1, 2 and 5 were run."""
        model = self.source.model
        if isinstance(model, OnnxNetwork):
            return self.once(("float", opset), lambda path: imported_onnx(model, self.source.checkpoint.preprocess, path))
        return self.once(("float", opset), lambda path: self._write(model, model, path, opset))

    def int8_onnx(self, opset: int, encoding: Encoding, floats: frozenset[str], target: str) -> Made:
        """The quantised network as Q/DQ ONNX, linted for `target`."""

        def write(path: Path) -> Made:
            assert self.quantised is not None  # export_artifact sees to it
            written = encode(self.quantised.module, encoding, opset=opset, floats=floats)
            reference = encode(self.quantised.module, encoding, floats=floats)
            made = self._write(written, reference, path, opset)
            _mark_rest(path, self.quantised.module, floats)
            if FORMATS[target].linted:
                made.facts.update(require_clean(read_onnx(path), target, floats))
            if encoding.packed:
                made.facts.update(pack_weights(path))
            made.facts.update(
                encoding=encoding.name,
                weight_bits=8 if placement_of(self.quantised.module) == XNNPACK else 7,
                float_layers=sorted(floats),
                quantisation=self.quantised.facts,
            )
            return made

        return self.once(("int8", opset, encoding.name, floats, target), write)

    def _write(self, model: nn.Module, reference: nn.Module, path: Path, opset: int) -> Made:
        pre = self.source.checkpoint.preprocess
        facts = write_onnx(model, pre, path, opset)
        return Made(str(path), reference, {**facts, "batches_run": check_batches(path, pre)})

    def once(self, key: tuple[Any, ...], write: Callable[[Path], Made]) -> Made:
        """The result of `write` on a new path in the folder; computed once for each key."""
        if key not in self.made:
            self.made[key] = write(self.folder / f"{len(self.made)}.onnx")
        return self.made[key]


@dataclass(frozen=True)
class Job:
    """One artifact to make.

    Attributes:
        opset: None if no ONNX is involved. floats: names of the convolutions that stay in float.
        engine: post-training quantiser (a key of `octc.export.ptq.engines.ENGINES`); "": the quantisation of the run.
    """

    target: str
    precision: str
    opset: int | None
    floats: frozenset[str] = frozenset()
    engine: str = ""

    @property
    def name(self) -> str:
        """Name of the artifact and of its folder."""
        return "-".join(filter(None, (self.target, self.precision, self.engine)))


def imported_onnx(network: OnnxNetwork, pre: Preprocess, path: Path) -> Made:
    """The ONNX file of an imported network, in its own opset."""
    write_bytes(path, network.artifact.read_bytes())
    facts = {**facts_of(read_onnx(path)), "bytes": path.stat().st_size, "exporter": "imported"}
    return Made(str(path), network, {**facts, "batches_run": check_batches(path, pre)})


def _mark_rest(path: Path, quantised: fx.GraphModule, floats: frozenset[str]) -> None:
    """Mark the convolutions of a Q/DQ file that stay in float on purpose, for the linter."""
    layers = convolutions(quantised)
    placed = sum(
        node.op == "call_module" and node.target in layers and node.target not in floats for node in quantised.graph.nodes
    )
    proto = read_onnx(path)
    mark_rest(proto, placed)
    if proto.metadata_props:
        save(proto, path)


Maker = Callable[[Workshop, Job, Path], Made]


def maker_of(target: str, precision: str) -> Maker:
    """The function that writes the model files of a target and precision."""
    return called(FORMATS[target].makers[precision])


def onnx_fp32(shop: Workshop, job: Job, folder: Path) -> Made:
    """The FP32 network as ONNX."""
    return copied(shop.float_onnx(_opset(job)), folder)


def onnx_fp16(shop: Workshop, job: Job, folder: Path) -> Made:
    """The FP32 ONNX file converted to half precision."""
    made = shop.float_onnx(_opset(job))
    facts = write_fp16(Path(made.main_file), folder / ONNX, shop.source.golden)
    return Made(ONNX, made.reference, {**made.facts, **facts})


def onnx_int8(shop: Workshop, job: Job, folder: Path) -> Made:
    """The quantised network as Q/DQ ONNX."""
    return copied(_int8(shop, job), folder)


def openvino_fp32(shop: Workshop, job: Job, folder: Path) -> Made:
    """An OpenVINO IR of the FP32 ONNX file."""
    return _openvino(shop.float_onnx(_opset(job)), folder, half=False)


def openvino_fp16(shop: Workshop, job: Job, folder: Path) -> Made:
    """An OpenVINO IR with weights in half precision."""
    return _openvino(shop.float_onnx(_opset(job)), folder, half=True)


def openvino_int8(shop: Workshop, job: Job, folder: Path) -> Made:
    """An OpenVINO IR of the Q/DQ ONNX file."""
    return converted(_int8(shop, job), folder)


def tensorrt_int8(shop: Workshop, job: Job, folder: Path) -> Made:
    """Q/DQ ONNX files with weak and strong typing, build plans, and the worker that builds the engine."""
    made, plain, source = _int8(shop, job), shop.float_onnx(_opset(job)), shop.source
    facts = write_int8(
        Path(made.main_file),
        Path(plain.main_file),
        folder,
        (made.reference, source.model),
        source.checkpoint.preprocess,
        source.golden,
        frozenset(made.facts["float_layers"]),
        FORMATS[job.target].library,
    )
    require_agreement(facts["variants"])
    return Made(ONNX, made.reference, {**made.facts, **facts})


def tensorrt_fp16(shop: Workshop, job: Job, folder: Path) -> Made:
    """The FP16 ONNX file and its build plan."""
    plain, source = shop.float_onnx(_opset(job)), shop.source
    pre, module = source.checkpoint.preprocess, FORMATS[job.target].library
    facts = write_half(Path(plain.main_file), folder, source.model, pre, source.golden, module)
    require_agreement(facts["variants"])
    return Made("model.fp16.onnx", plain.reference, {**plain.facts, **facts})


def litert_fp32(shop: Workshop, job: Job, folder: Path) -> Made:
    """A LiteRT file of the float network."""
    return _litert(shop.float_onnx(_opset(job)), folder)


def litert_int8(shop: Workshop, job: Job, folder: Path) -> Made:
    """A LiteRT file of the quantised network."""
    return _litert(_int8(shop, job), folder, int8=True)


def _litert(made: Made, folder: Path, *, int8: bool = False) -> Made:
    facts = write_litert(Path(made.main_file), folder, int8=int8)
    return Made(LITERT, made.reference, {**made.facts, **facts}, made.golden)


def torch_fp32(shop: Workshop, job: Job, folder: Path) -> Made:
    """The weights as safetensors, for PyTorch."""
    source = shop.source
    write_bytes(folder / WEIGHTS, tensors_as_bytes(source.model.state_dict()))
    facts = {"model_kwargs": source.checkpoint.model_kwargs, "bytes": (folder / WEIGHTS).stat().st_size}
    return Made(WEIGHTS, source.model, facts)


def _int8(shop: Workshop, job: Job) -> Made:
    assert shop.quantised is not None  # export_artifact sees to it
    placed, meant = placement_of(shop.quantised.module), FORMATS[job.target].placement
    if placed != meant and (placed == XNNPACK or ACL in (placed, meant)):
        text = f'the network was tuned with the quantisers of "{placed}"; {job.target} needs those of "{meant}"'
        hint = f"octc export --int8 --target {job.target} --ptq octc calibrates for it; octc list recipes: some tune for it"
        raise OctcError("OCT-E102", text, hint=hint, place="--target")
    encoding = encoding_for(shop.quantised.module, job.target)
    floats = job.floats | narrow(shop.quantised.module) if FORMATS[job.target].library else job.floats
    return shop.int8_onnx(_opset(job), encoding, floats, job.target)


def copied(made: Made, folder: Path) -> Made:
    """Artifact files from an ONNX file, unchanged."""
    write_bytes(folder / ONNX, Path(made.main_file).read_bytes())
    return Made(ONNX, made.reference, dict(made.facts), made.golden)


def converted(made: Made, folder: Path) -> Made:
    """Artifact files from an ONNX file, as an OpenVINO IR."""
    return _openvino(made, folder, half=False)


def _openvino(made: Made, folder: Path, *, half: bool) -> Made:
    facts = write_openvino(Path(made.main_file), folder, half=half)
    return Made(MAIN, made.reference, {**made.facts, **facts}, made.golden)


def _opset(job: Job) -> int:
    assert job.opset is not None  # every maker that calls this stands in the table with a target that reads ONNX
    return job.opset
