"""OpenVINO IR: what is written is read again, gives the same answers, and carries no padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from octc.export.to_openvino import MAIN, write_openvino
from octc.optional import openvino_core


def test_the_description_is_not_indented_and_is_read_again(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 2], [1, 2, 3, 4, 5, 6])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", k]) for name, k in (("x", 3), ("y", 2))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "source.onnx")
    facts = write_openvino(tmp_path / "source.onnx", tmp_path, half=False)
    text = (tmp_path / MAIN).read_bytes()
    assert b"\n\t" not in text
    assert b"\n<layers>" in text
    assert facts["file_bytes"][MAIN] == len(text)
    compiled = openvino_core().compile_model(tmp_path / MAIN, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.allclose(compiled(np.float32([[1, 0, 2]]))[0], [[11, 14]])
