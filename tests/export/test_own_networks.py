"""Networks of train/networks as ONNX: the file says what torch says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octc.export.formats import choose_opset
from octc.export.onnx.float import write_onnx
from octc.imaging.preprocess import Preprocess
from octc.train.networks.models import WithInput, build_model

onnxruntime = pytest.importorskip("onnxruntime")
PRE = Preprocess(64)
SMALL: dict[str, dict[str, Any]] = {
    "sfnet": {"trunk": "test_convnext"},
    "fpn-resnet50": {"trunk": "resnet18", "widths": (64, 64, 128, 256, 512)},
    "hog-svm": {"size": 64},
}


@pytest.mark.parametrize("name", [*SMALL, pytest.param("fpn-densenet121", marks=pytest.mark.slow)])
def test_the_file_says_what_torch_says(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(name, 3, **SMALL.get(name, {})).eval()
    write_onnx(model, PRE, tmp_path / "m.onnx", choose_opset("onnx", None))
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 64, 64), dtype=np.uint8)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: images})
    with torch.no_grad():
        expected = WithInput(model, PRE)(torch.from_numpy(images)).numpy()
    assert found == pytest.approx(expected, abs=1e-4)
