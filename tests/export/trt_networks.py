"""Networks, calibrated on noise, as the variants of a TensorRT artifact: for tests that compile them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from octc.compress.calibrate import observe, set_ranges
from octc.compress.placement import convolutions, prepare, set_mode
from octc.core.files import read_json
from octc.export.onnx.encoding import ENCODINGS, encode
from octc.export.onnx.float import write_onnx
from octc.export.tensorrt.variants import narrow, write_int8
from octc.imaging.preprocess import Preprocess
from octc.runtimes.tensorrt.layers import LayerReport, report_layers
from octc.runtimes.tensorrt.process import Ran, run_worker
from octc.schemas.tensorrt_plan import BuildPlan, plan_from_json
from octc.train.networks.models import build_model

OPSET = 19


@dataclass(frozen=True)
class Written:
    """folder: what an artifact would hold. promised: convolutions by placement. facts: of `write_int8`."""

    folder: Path
    promised: int
    floats: frozenset[str]
    facts: dict[str, Any]

    def plan(self, precision: str, **more: Any) -> BuildPlan:
        return replace(plan_from_json(read_json(self.folder / f"build-{precision}.json")["strong"]), **more)

    def compile(self, plan: BuildPlan) -> tuple[Ran, LayerReport]:
        """Build with NVIDIA's compiler, in a process."""
        ran = run_worker(self.folder, plan, "build")
        assert ran.outcome == "ok", ran.error
        return ran, report_layers((self.folder / plan.layers).read_text(), plan)


def write_network(name: str, size: int, folder: Path, seed: int = 0) -> Written:
    """Weights are random, ranges come from noise: legality and precision do not depend on them."""
    torch.manual_seed(seed)
    network: nn.Module = build_model(name, 4).eval()
    pre = Preprocess(size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    images = np.random.default_rng(seed).integers(0, 256, (4, pre.channels, size, size), dtype=np.uint8)
    module = prepare(network, size)
    observe(module, lambda: [torch.randn(2, 3, size, size)])
    set_ranges(module, "max")
    set_mode(module, "on")
    floats = narrow(module)
    written = encode(module, ENCODINGS["half"], opset=OPSET, floats=floats)
    reference = encode(module, ENCODINGS["half"], floats=floats)
    source = folder / "source"
    source.mkdir(parents=True)
    write_onnx(written, pre, source / "qdq.onnx", OPSET)
    write_onnx(network, pre, source / "plain.onnx", OPSET)
    paths = source / "qdq.onnx", source / "plain.onnx"
    facts = write_int8(*paths, folder, (reference, network), pre, images, floats, "tensorrt_rtx")
    return Written(folder, len(convolutions(module)) - len(floats), floats, facts)
