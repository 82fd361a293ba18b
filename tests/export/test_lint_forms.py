"""Forms of operators, shapes and scales by expression: the linter's word, and NVIDIA's compiler as the judge of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from octc.export.lint.check import lint, to_repair
from tests.export.oracle import INT8, judge, need_oracle
from tests.export.qdq_graphs import SIDE, Builder, Knobs, layer

Op = Callable[[Builder, str], str]


def behind(op: Op, opset: int = 19) -> onnx.ModelProto:
    """A quantised convolution, and `op` on its result. The output has no shape, as some exporters write it."""
    b = Builder(np.float32, opset)
    b.inputs.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 16, SIDE, SIDE]))
    b.outputs.append(helper.make_tensor_value_info(op(b, layer(b, "image", Knobs())), TensorProto.FLOAT, None))
    return finish(b)


def scaled(scale: Callable[[Builder], str]) -> onnx.ModelProto:
    """A quantised convolution whose activation has its scale from an expression."""
    return behind(lambda b, x: conv(b, pair(b, x, scale(b))))


def pair(b: Builder, x: str, scale: str) -> str:
    zero = b.const(np.int8(0))
    return b.add("DequantizeLinear", b.add("QuantizeLinear", x, scale, zero), scale, zero)


def conv(b: Builder, x: str, cin: int = 16, *bias: str, **attributes: object) -> str:
    codes, scale = b.const(np.ones((16, cin, 3, 3), np.int8)), b.const(np.full(16, 0.01, np.float32))
    weight = b.add("DequantizeLinear", codes, scale, b.const(np.zeros(16, np.int8)), axis=0)
    out = b.add("Conv", x, weight, *bias, **{"pads": [1, 1, 1, 1], **attributes})
    b.promised.append(b.last())
    return out


def finish(b: Builder) -> onnx.ModelProto:
    graph = helper.make_graph(b.nodes, "g", b.inputs, b.outputs, b.constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", b.opset)], ir_version=9)
    proto.metadata_props.add(key="promised", value=" ".join(b.promised))
    return proto


def number(value: float) -> Callable[[Builder], str]:
    return lambda b: b.const(np.float32(value))


def whole(b: Builder, *values: int) -> str:
    return b.const(np.array(values, np.int64))


BAD: dict[str, tuple[onnx.ModelProto, str]] = {
    "indices": (behind(lambda b, x: b.add("MaxPool", x, outputs=2, kernel_shape=[2, 2])), "E16"),
    "dilated_pool": (behind(lambda b, x: b.add("MaxPool", x, kernel_shape=[2, 2], dilations=[2, 2])), "E16"),
    "cast_uint32": (behind(lambda b, x: b.add("Cast", b.add("Cast", x, to=TensorProto.UINT32), to=TensorProto.FLOAT)), "E16"),
    "resize": (behind(lambda b, x: b.add("Resize", x, "", b.const(np.array([1, 1, 2, 2], np.float32)),
                                         coordinate_transformation_mode="half_pixel_symmetric")), "E16"),
    "empty_bias": (behind(lambda b, x: conv(b, pair(b, x, number(0.1)(b)), 16, "")), "E16"),
    "kernel_shape": (behind(lambda b, x: conv(b, pair(b, x, number(0.1)(b)), kernel_shape=[5, 5])), "E16"),
    "channels": (behind(lambda b, x: conv(b, pair(b, x, number(0.1)(b)), 8)), "E16"),
    "blocks": (behind(lambda b, x: b.add("DepthToSpace", x, blocksize=3)), "E16"),
    "volume": (behind(lambda b, x: b.add("Reshape", x, whole(b, 7, 7))), "E16"),
    "broadcast": (behind(lambda b, x: b.add("Add", x, b.const(np.ones((3, 5), np.float32)))), "E17"),
    "types": (behind(lambda b, x: b.add("Add", x, whole(b, 1))), "E17"),
    "scale_pow": (scaled(lambda b: b.add("Pow", number(2)(b), number(-4)(b))), "E04"),
    "scale_softplus": (scaled(lambda b: b.add("Softplus", number(-3)(b))), "E04"),
    "scale_of_rank_2": (scaled(lambda b: b.const(np.full((1, 1), 0.1, np.float32))), "E12"),
    "scale_of_integers": (scaled(lambda b: b.const(np.int32(1))), "E05"),
    "scale_list": (scaled(lambda b: b.add("Unsqueeze", number(0.1)(b), whole(b, 0))), "W27"),
    "half_concatenated": (behind(lambda b, x: conv(b, b.add("Concat", pair(b, x, number(0.1)(b)), b.add("Relu", x), axis=1),
                                                   32)), "W20"),
}  # fmt: skip
SILENT = {"scale_of_nought": (scaled(lambda b: b.add("Sub", number(0.1)(b), number(0.1)(b))), "E05")}
LEGAL: dict[str, onnx.ModelProto] = {
    "output_without_shape": behind(lambda b, x: b.add("Relu", x)),
    "scale_div": scaled(lambda b: b.add("Div", number(6.35)(b), number(127)(b))),
    "scale_exp": scaled(lambda b: b.add("Exp", number(-3)(b))),
    "scale_sqrt": scaled(lambda b: b.add("Sqrt", number(0.01)(b))),
    "scale_gather": scaled(lambda b: b.add("Gather", b.const(np.array([0.1, 0.2], np.float32)), b.const(np.int64(0)))),
    "split": behind(lambda b, x: conv(b, b.add("Split", pair(b, x, number(0.1)(b)), whole(b, 8, 8), outputs=2, axis=1), 8)),
    "infinite_bound": behind(lambda b, x: b.add("Min", x, b.const(np.float32(np.inf)))),
}  # fmt: skip


@pytest.mark.parametrize("name", [*BAD, *SILENT])
def test_the_rule_fires(name: str) -> None:
    graph, rule = {**BAD, **SILENT}[name]
    assert rule in {f.rule for f in to_repair(lint(graph, "tensorrt"))}


@pytest.mark.parametrize("name", LEGAL)
def test_no_rule_fires(name: str) -> None:
    assert to_repair(lint(LEGAL[name], "tensorrt")) == []


def test_the_compiler_says_the_same(tmp_path: Path) -> None:
    need_oracle()
    found = judge({**{name: graph for name, (graph, _) in {**BAD, **SILENT}.items()}, **LEGAL}, tmp_path)
    assert {name: found[name] for name in LEGAL} == dict.fromkeys(LEGAL, INT8)
    assert INT8 not in {found[name] for name in BAD}
    assert {found[name] for name in SILENT} == {INT8}  # compiled without a word
