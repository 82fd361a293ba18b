"""The students for the edge: placed, calibrated, tuned for a step with a teacher, written, and run by both engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from octc.compress.calibrate import observe, set_ranges
from octc.compress.finetune import anchored_loss
from octc.compress.placement import counts, prepare, set_mode
from octc.core.optional import openvino_core
from octc.export.onnx.encoding import encode, encoding_for
from octc.export.onnx.float import write_onnx
from octc.export.onnx.pack import pack_weights
from octc.imaging.preprocess import Preprocess
from octc.train.networks.models import WithInput, build_model, normalise
from octc.train.recipes.registry import RECIPES

# recipe -> convolutions in INT8, in float
STUDENTS = {
    "edge-b2": (69, 46), "edge-b2-hardswish": (69, 46), "edge": (49, 0), "edge-lite2": (64, 0), "edge-mnv4-medium": (76, 1),
    "edge-mnv4-small": (45, 1),
}  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 1, 64, 64), dtype=np.uint8)


def student(recipe: str) -> nn.Module:
    torch.manual_seed(0)
    stage = RECIPES[recipe]().student
    return build_model(stage.model, 4, **stage.model_kwargs).eval()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["edge-b2-hardswish", "edge-mnv4-small"])
def test_a_student_is_tuned_with_its_teacher_and_runs_on_both_engines(recipe: str, tmp_path: Path) -> None:
    pre, x = Preprocess(64), normalise(torch.from_numpy(IMAGES), Preprocess(64))
    plain, teacher = student(recipe), build_model("test_resnet", 4).eval()
    module = prepare(plain, 64).requires_grad_(True)
    assert tuple(counts(module).values())[:2] == STUDENTS[recipe]
    observe(module, lambda: [x])
    set_ranges(module, "max")
    set_mode(module, "on")
    how = replace(RECIPES[recipe]().quantisation, damping=0.01)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-5)
    loss, _ = anchored_loss(plain, teacher, how, module)(module(x), x, torch.zeros(4))
    loss.backward()
    optimizer.step()
    encoding = encoding_for(module, "onnx")
    assert encoding.name == ("int8" if recipe == "edge-b2-hardswish" else "uint8")
    path = tmp_path / "m.onnx"
    write_onnx(encode(module, encoding, opset=20), pre, path, 20)
    if encoding.packed:
        assert pack_weights(path)["packed_weights"] > 0
    with torch.no_grad():
        expected = WithInput(encode(module, encoding), pre)(torch.from_numpy(IMAGES)).numpy()
    compiled = openvino_core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = (onnxruntime.InferenceSession(str(path)).run(None, {"image": IMAGES})[0], np.array(compiled(IMAGES)[0]))
    for found in answers:
        assert found.shape == (4, 4)
        assert np.abs(found - expected).max() <= 0.1 * np.ptp(expected)


@pytest.mark.parametrize("recipe", ["edge-b2", "edge", "edge-lite2", "edge-mnv4-medium"])
def test_the_other_students_are_not_refused(recipe: str) -> None:
    assert tuple(counts(prepare(student(recipe), 64)).values())[:2] == STUDENTS[recipe]
