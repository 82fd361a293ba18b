"""Post-training quantisation by other libraries, behind one table: what each reads, makes and needs. All are optional.

Each takes the float network and calibration images of the training part, and writes a Q/DQ ONNX file with uint8 input. It is
what the library makes of the network with the settings that are named here, not what octc would make of it.
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from octc.compress.trace import trace_folded
from octc.core.errors import MissingExtra, OctcError
from octc.core.optional import have, need, openvino_core, signal_stack_kept
from octc.core.scratch import scratch
from octc.core.targets import called
from octc.export.formats import FORMATS, foreign_targets
from octc.export.lint.check import counts
from octc.export.onnx.float import INPUT, OUTPUT, check_batches, facts_of, opset_of, read_onnx, save, strip
from octc.export.source import calibration_set, describe_calibration, of_run
from octc.export.targets import Job, Made, Workshop
from octc.imaging.preprocess import Float32, UInt8
from octc.runtimes.onnxrt import reference_session
from octc.runtimes.room import BATCH
from octc.train.batches.images import eval_batches
from octc.train.loop.evaluate import network_input
from octc.train.networks.models import WithInput

OWN = "octc"


@dataclass(frozen=True)
class Engine:
    """A library. modules: what must be installed; package: whose version is recorded; make: writes the quantised file.

    targets: what can be made of it. exported: offered by `octc export`, not only by the comparison.
    """

    modules: tuple[str, ...]
    package: str
    what: str
    make: Callable[[Workshop, Path, Path, UInt8, int], None] | None = None
    targets: tuple[str, ...] = field(default_factory=foreign_targets)
    exported: bool = True


def _onnxruntime(_shop: Workshop, source: Path, path: Path, images: UInt8, _opset: int) -> None:
    tool = need("onnxruntime.quantization")
    preparing = need("onnxruntime.quantization.shape_inference")
    rows = iter(images)

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def get_next(self) -> dict[str, UInt8] | None:
            image = next(rows, None)
            return None if image is None else {INPUT: image[None]}

    with scratch("ptq") as folder:
        prepared = folder / "prepared.onnx"
        preparing.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        tool.quantize_static(
            str(prepared),
            str(path),
            Reader(),
            quant_format=tool.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=tool.QuantType.QUInt8,
            weight_type=tool.QuantType.QInt8,
            calibrate_method=tool.CalibrationMethod.MinMax,
        )


def _nncf(_shop: Workshop, source: Path, path: Path, images: UInt8, _opset: int) -> None:
    nncf = need("nncf")
    dataset = nncf.Dataset([{INPUT: image[None]} for image in images])
    narrow = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)  # for processors without VNNI
    made = nncf.quantize(onnx.load(str(source)), dataset, subset_size=len(images), advanced_parameters=narrow)
    onnx.save(made, str(path))


def nncf_default(source: Path, path: Path, images: UInt8) -> None:
    """NNCF with nothing but its defaults on the OpenVINO model (static shape): writes an IR. Slow around squeeze-excite."""
    nncf, openvino = need("nncf"), need("openvino")
    model = openvino_core().read_model(str(source))
    model.reshape([1, *images.shape[1:]])
    with quiet():
        made = nncf.quantize(model, nncf.Dataset([image[None] for image in images]), subset_size=len(images))
    openvino.save_model(made, str(path), compress_to_fp16=False)


def _modelopt(shop: Workshop, _source: Path, path: Path, images: UInt8, opset: int) -> None:
    """INT8_DEFAULT_CFG on the folded network, written by torch's older exporter: its quantisers do not pass the new one."""
    tool, pre = need("modelopt.torch.quantization"), shop.source.checkpoint.preprocess
    model = trace_folded(copy.deepcopy(shop.source.model), pre.size)

    def calibrate(network: Any) -> None:
        with torch.no_grad():
            for chunk in eval_batches(images, BATCH):
                network(network_input(chunk, pre))

    made = tool.quantize(model, copy.deepcopy(tool.INT8_DEFAULT_CFG), calibrate)
    example = torch.zeros((2, pre.channels, pre.size, pre.size), dtype=torch.uint8)
    axes = {name: {0: "batch"} for name in (INPUT, OUTPUT)}
    with torch.no_grad():
        torch.onnx.export(
            WithInput(made, pre).eval(),
            (example,),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=axes,
        )


ENGINES: dict[str, Engine] = {
    OWN: Engine((), "octc", "the calibrators of octc, the one that agrees best with the float network on the validation set"),
    "onnxruntime": Engine(("onnxruntime",), "onnxruntime", "static, uint8 activations, 7-bit weights, MinMax", _onnxruntime),
    "nncf": Engine(("nncf",), "nncf", "on the ONNX graph, preset PERFORMANCE, overflow fix", _nncf),
    "nncf-default": Engine(("nncf", "openvino"), "nncf", "on the OpenVINO graph, all defaults", None, ("openvino",), False),
    "modelopt": Engine(("modelopt", "requests"), "nvidia-modelopt", "INT8_DEFAULT_CFG on the torch network", _modelopt),
}


def find_engine(name: str, target: str) -> Engine:
    """An engine that is installed and makes artifacts for `target`.

    Raises:
        OctcError: E104 no such engine, E102 it makes nothing for that target, E901 it is not installed.
    """
    offered = [key for key, engine in ENGINES.items() if engine.exported]
    if name not in offered:
        raise OctcError(
            "OCT-E104", f"unknown PTQ engine {name!r}", hint=f"--ptq with one of: {', '.join(offered)}", place="--ptq"
        )
    engine = ENGINES[name]
    if name != OWN and target not in engine.targets:
        text = f"{name} makes no artifact for {target}"
        raise OctcError("OCT-E102", text, hint=f"--target {' or '.join(engine.targets)}, or --ptq octc", place="--ptq")
    if missing := missing_of(engine):
        raise MissingExtra(missing, "ptq" if missing != "onnxruntime" else "ort")
    return engine


def missing_of(engine: Engine) -> str | None:
    """The first module of an engine that is not installed."""
    return next((module for module in engine.modules if not have(module)), None)


def make_foreign(shop: Workshop, job: Job, folder: Path) -> Made:
    """The artifact files of an engine that is not octc's own; the golden logits are those of the file, run unoptimised.

    Raises:
        OctcError: E407 when the library fails or writes another opset, E214 the calibration set cannot do, and `find_engine`'s.
    """
    engine = find_engine(job.engine, job.target)
    assert engine.make is not None  # the engines that are offered, and are not octc's
    assert job.opset is not None
    opset = job.opset
    make = engine.make
    made = shop.float_onnx(opset)
    samples, images = calibration_set(of_run(shop.source))

    def write(path: Path) -> Made:
        try:
            with quiet():
                make(shop, Path(made.main_file), path, images, opset)
        except Exception as error:  # each library has errors of its own
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            text = f"{job.engine} cannot quantise {shop.source.checkpoint.model}: {lines[-1][:300]}"
            raise OctcError("OCT-E407", text, hint="octc export --int8 --ptq octc") from error
        proto = read_onnx(path)
        if opset_of(proto) != opset and job.engine == "modelopt":
            raise OctcError("OCT-E401", f"{job.engine} wrote opset {opset_of(proto)}, not {opset}", hint="another --opset")
        strip(proto)
        save(proto, path)
        facts = {
            **facts_of(proto),
            **counts(proto),
            "bytes": path.stat().st_size,
            "encoding": job.engine,
            "float_layers": [],
            "batches_run": check_batches(path, shop.source.checkpoint.preprocess),
            "quantisation": {
                "method": "ptq",
                "engine": job.engine,
                "engine_version": version(engine.package),
                "observer": engine.what,
                **describe_calibration(samples),
            },
        }
        return Made(str(path), shop.source.model, facts, run_unoptimised(path, shop.source.golden))

    found = shop.once(("foreign", job.engine, opset), write)
    finished: Made = called(FORMATS[job.target].takes)(found, folder)
    return finished


def run_unoptimised(path: Path, images: UInt8) -> Float32:
    """Logits float32 [N, K] of an ONNX file with every operator executed as it stands: the reference of a Q/DQ graph."""
    session = reference_session(path)
    return np.concatenate([session.run([OUTPUT], {INPUT: image[None]})[0] for image in images])


@contextmanager
def quiet() -> Iterator[None]:
    """The libraries warn and log about their own insides."""
    loggers = [logging.getLogger(name) for name in ("nncf", "root", "onnxruntime", "modelopt")]
    before = [logger.level for logger in loggers]
    stdout = sys.stdout
    try:
        sys.stdout = sys.stderr  # progress bars and prints: stdout is for the result
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), signal_stack_kept():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stdout = stdout
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
