"""Layer norms in OpenVINO on x86 processors without AVX, whose kernels it cannot make."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest
import torch
from PIL import Image
from torch import nn

import octc
from octc.runtimes.openvino import with_means, written_out

PRE = octc.Preprocess(size=32)


class Normed(nn.Module):
    """A convolution and two layer norms over the last axis, as ConvNeXt and every transformer have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.last = nn.Conv2d(3, 16, 8, 8), nn.LayerNorm(16), nn.LayerNorm(16)
        self.hidden, self.head = nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x).permute(0, 2, 3, 1))
        logits: torch.Tensor = self.head(self.last(x + self.hidden(x)).mean((1, 2)))
        return logits


@pytest.mark.parametrize("mode", ["inside_sqrt", "outside_sqrt"])
@pytest.mark.parametrize("scaled", [True, False])
def test_a_layer_norm_written_out_is_the_same_function(mode: str, scaled: bool) -> None:
    x = ops.parameter((2, 3, 17), np.float32)
    norm = ops.mvn(x, ops.constant(np.array([-1])), scaled, 0.25, mode)
    model = ov.Model([ops.add(norm, ops.constant(np.float32(1)))], [x], "norm")
    images = np.random.default_rng(0).normal(3, 2, (2, 3, 17)).astype(np.float32)
    core, settings = ov.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    expected = core.compile_model(model, "CPU", settings)(images)[0]
    assert with_means(model) == 1
    compiled = core.compile_model(model, "CPU", settings)
    assert written_out(compiled.get_runtime_model()) == 1
    np.testing.assert_allclose(compiled(images)[0], expected, rtol=1e-5, atol=1e-5)
    assert with_means(model) == 0


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="a variable of x86 kernels")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_artifact_with_layer_norms_runs_without_avx(precision: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray((rng.integers(0, 120, (40, 40)) + 40 * (i % 4)).astype(np.uint8)) for i in range(16)]
    images[1].save(tmp_path / "scan.png")
    torch.manual_seed(0)
    options = octc.QuantizeOptions(rounding=False, observers=["max"])
    quantized = octc.quantize(Normed().eval(), images, PRE, classes=["a", "b"], options=options)
    folder = octc.export(quantized, ["openvino"], precision, out=tmp_path / "made")[0]
    program = [sys.executable, "-m", "octc.cli._app.main"]
    command = [*program, "predict", getattr(folder, "folder", folder), tmp_path / "scan.png", "--json"]
    variables = os.environ | {"OCTC_COMPILED": str(tmp_path / "kept")}
    answers, warned = [], []
    for more in ({}, {"ONEDNN_MAX_CPU_ISA": "SSE41"}, {"ONEDNN_MAX_CPU_ISA": "SSE41"}):  # the last one is read from the cache
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=variables | more)
        assert done.returncode == 0, done.stderr
        answers.append([list(one["probabilities"].values()) for one in json.loads(done.stdout)["data"]["records"]])
        warned.append("OCT-W906" in done.stderr + done.stdout)
    assert warned == [False, True, True]
    assert len(list((tmp_path / "kept").iterdir())) == 2
    np.testing.assert_allclose(answers[1:], [answers[0]] * 2, atol=1e-5 if precision == "fp32" else 0.02)
