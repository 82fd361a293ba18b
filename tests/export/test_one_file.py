"""One exported INT8 ONNX file: the same answers from onnxruntime, OpenVINO and the fake-quantised torch network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from octc.core.optional import openvino_core
from octc.export.onnx.encoding import encode, encoding_for
from octc.export.pipeline import write_files
from octc.export.source import quantise, read_source
from octc.export.targets import Job, Workshop
from octc.store.runs import Run
from octc.train.batches.images import cached_images
from octc.train.networks.models import WithInput


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_top1_is_the_same_on_three_engines(trained: Run, patterns: Path, tmp_path: Path, target: str) -> None:
    source = read_source(trained, patterns)
    quantised = quantise(source)
    (tmp_path / "work").mkdir()
    shop = Workshop(source, tmp_path / "work", quantised)
    (tmp_path / "made").mkdir()
    write_files(shop, Job(target, "int8", 20), tmp_path / "made")
    (written,) = (made.main_file for key, made in shop.made.items() if key[0] == "int8")
    pre = source.checkpoint.preprocess
    images = np.concatenate(
        [cached_images(source.cache, patterns, source.split.parts[p], pre) for p in ("train", "val", "test")]
    )
    assert len(images) == 192
    whole = WithInput(encode(quantised.module, encoding_for(quantised.module, target)), pre)
    with torch.no_grad():
        answers = {"torch": whole(torch.from_numpy(images)).numpy()}
    answers["onnxruntime"] = onnxruntime.InferenceSession(written).run(None, {"image": images})[0]
    compiled = openvino_core().compile_model(written, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers["openvino"] = np.array(compiled(images)[0])
    top1 = {name: logits.argmax(1) for name, logits in answers.items()}
    assert len(set(top1["torch"].tolist())) == 4
    for name, found in top1.items():
        assert (found == top1["torch"]).mean() >= 0.995, name
