from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from octc.compress.calibrate import observe, set_ranges
from octc.compress.placement import prepare, set_mode
from octc.core.optional import openvino_core
from octc.export.onnx import pack
from octc.export.onnx.encoding import ENCODINGS, encode
from octc.export.onnx.float import write_onnx
from octc.export.onnx.pack import pack_weights, round_weights
from octc.imaging.preprocess import Preprocess
from octc.train.networks.models import WithInput, build_model, normalise

PRE = Preprocess(64)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 1, 64, 64), dtype=np.uint8)


def test_squeeze_excite_weights_are_stored_as_codes_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "LEAST", 64)
    torch.manual_seed(0)
    module = prepare(build_model("test_efficientnet", 4).eval(), 64)
    observe(module, lambda: [normalise(torch.from_numpy(IMAGES), PRE)])
    set_ranges(module, "max")
    set_mode(module, "on")
    path = tmp_path / "m.onnx"
    write_onnx(encode(module, ENCODINGS["int8"], opset=20), PRE, path, 20)
    before, size = run(path), path.stat().st_size
    facts = pack_weights(path)
    after = run(path)
    floats = [m for n, m in module.named_modules() if isinstance(m, torch.nn.Conv2d) and not n.endswith(".conv")]
    assert facts["packed_weights"] == sum(conv.weight.numel() >= 64 for conv in floats) > 0
    assert facts["bytes"] == path.stat().st_size < size
    assert np.abs(after - before).max() <= 1e-5 * np.ptp(before)
    with torch.no_grad():
        reference = WithInput(encode(module, ENCODINGS["int8"]), PRE)(torch.from_numpy(IMAGES)).numpy()
    assert np.abs(after - reference).max() <= 2e-2 * np.ptp(reference)
    proto = onnx.load(str(path))
    wide = [t.name for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 4]
    assert not [name for name in wide if np.prod(next(t.dims for t in proto.graph.initializer if t.name == name)) >= 64]
    compiled = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.abs(np.array(compiled(IMAGES)[0]) - reference).max() <= 5e-2 * np.ptp(reference)
    assert pack_weights(path)["packed_weights"] == 0  # what is packed already stays


def run(path: Path) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found: np.ndarray = onnxruntime.InferenceSession(str(path), options).run(None, {"image": IMAGES})[0]
    return found


def test_layers_of_the_fallback_keep_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "LEAST", 1)
    torch.manual_seed(0)
    chain = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 1), torch.nn.Conv2d(4, 4, 1))
    before = [conv.weight.detach().clone() for conv in chain]
    round_weights(chain, frozenset({"1"}))
    assert not torch.equal(chain[0].weight, before[0])
    assert torch.allclose(chain[0].weight, before[0], atol=float(before[0].abs().max()) / 250)
    assert torch.equal(chain[1].weight, before[1])
