from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx

from octc.compress.calibrate import observe, set_ranges
from octc.compress.placement import convolutions, prepare, set_mode
from octc.core.errors import OctcError
from octc.export.lint.check import Finding, counts, lint, mark_float, require_clean, to_repair
from octc.export.onnx.encoding import ENCODINGS, encode
from octc.export.onnx.float import read_onnx, write_onnx
from octc.export.pipeline import fallback_steps
from octc.export.source import Quantised
from octc.export.tensorrt.variants import narrow
from octc.imaging.preprocess import Preprocess
from octc.train.networks.models import build_model

SIZE = 64


def quantised_network(name: str) -> fx.GraphModule:
    torch.manual_seed(0)
    module = prepare(build_model(name, 4).eval(), SIZE)
    observe(module, lambda: [torch.randn(4, 3, SIZE, SIZE)])
    set_ranges(module, "max")
    set_mode(module, "on")
    return module


@pytest.fixture(scope="module", params=["test_efficientnet", "test_resnet", "mobilenetv4_conv_small_050"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[fx.GraphModule, onnx.ModelProto]:
    module = quantised_network(request.param)
    path = tmp_path_factory.mktemp("lint") / "m.onnx"
    write_onnx(encode(module, ENCODINGS["int8"], opset=19), Preprocess(SIZE), path, 19)
    return module, read_onnx(path)


@pytest.fixture(scope="module")
def silu(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = tmp_path_factory.mktemp("lint") / "m.onnx"
    write_onnx(encode(quantised_network("test_efficientnet"), ENCODINGS["int8"], opset=20), Preprocess(SIZE), path, 20)
    return read_onnx(path)


@pytest.mark.slow
def test_what_octc_writes_is_clean(written: tuple[fx.GraphModule, onnx.ModelProto]) -> None:
    module, proto = written
    found = require_clean(proto, "tensorrt")
    assert found["int8_convolutions"] == len(convolutions(module))
    assert found["dequantize_nodes"] == found["quantize_nodes"] + found["int8_convolutions"]


def test_convolutions_left_in_float_on_purpose_are_allowed(tmp_path: Path) -> None:
    module = quantised_network("test_resnet")
    floats = frozenset(list(convolutions(module))[:2])
    path = tmp_path / "m.onnx"
    write_onnx(encode(module, ENCODINGS["int8"], opset=20, floats=floats), Preprocess(SIZE), path, 20)
    proto = read_onnx(path)
    assert require_clean(proto, "tensorrt", floats)["float_convolutions"] == 2
    with pytest.raises(OctcError) as caught:
        require_clean(proto, "tensorrt", frozenset(list(floats)[:1]))
    assert caught.value.code == "OCT-E404"
    assert rules(proto) == {"W26"}
    mark_float(proto, floats)  # the file itself says so: whoever lints it later is not told again
    assert rules(proto) == set()


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "mobilenetv4_conv_small_050", pytest.param("ghostnet_100", marks=pytest.mark.slow)]
)
def test_every_step_of_the_fallback_is_clean(tmp_path: Path, name: str) -> None:
    """Blocks that begin with a depthwise convolution (MobileNetV4) have their shortcut in float where that is in float; those
    of GhostNet add two branches of convolutions."""
    module = quantised_network(name)
    quantised = Quantised(module, "", {})
    some, always = frozenset(quantised.names[1::5]), narrow(module)  # as the export for TensorRT has it
    for k, (_, step) in enumerate(fallback_steps(quantised, lambda: some)):
        floats = step | always
        path = tmp_path / f"{k}.onnx"
        write_onnx(encode(module, ENCODINGS["half"], opset=20, floats=floats), Preprocess(SIZE), path, 20)
        assert require_clean(read_onnx(path), "tensorrt", floats)["int8_convolutions"] == len(quantised.names) - len(floats)
    assert k == 2


def changed(proto: onnx.ModelProto, change: Callable[[onnx.ModelProto], None]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    change(copy)
    return copy


def rules(proto: onnx.ModelProto, target: str = "tensorrt") -> set[str]:
    return {finding.rule for finding in to_repair(lint(proto, target))}


def fired(proto: onnx.ModelProto, rule: str) -> list[Finding]:
    return [finding for finding in lint(proto, "tensorrt") if finding.rule == rule]


def nodes(proto: onnx.ModelProto, kind: str) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.op_type == kind]


def maker(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if name in node.output)


def insert_pair(proto: onnx.ModelProto, tensor: str, readers: list[onnx.NodeProto]) -> str:
    """Q and DQ of scale 1 on the way from a tensor to some of its readers; the name of the Q node."""
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    proto.graph.initializer.append(numpy_helper.from_array(np.int8(0), "nought"))
    first = helper.make_node("QuantizeLinear", [tensor, "one", "nought"], ["codes"], name="intruder")
    second = helper.make_node("DequantizeLinear", ["codes", "one", "nought"], ["values"], name="intruder_dq")
    place = next(i for i, node in enumerate(proto.graph.node) if tensor in node.output) + 1
    for node in (second, first):
        proto.graph.node.insert(place, node)
    for reader in readers:
        for i, name in enumerate(reader.input):
            if name == tensor:
                reader.input[i] = "values"
    return "intruder"


def test_x04_zero_point_other_than_nought_names_the_node(silu: onnx.ModelProto) -> None:
    def shift(proto: onnx.ModelProto) -> None:
        node = nodes(proto, "QuantizeLinear")[3]
        proto.graph.initializer.append(numpy_helper.from_array(np.int8(3), "shifted"))
        node.input[2] = "shifted"

    bad = changed(silu, shift)
    name = nodes(bad, "QuantizeLinear")[3].name
    with pytest.raises(OctcError) as caught:
        require_clean(bad, "tensorrt")
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E403", 5)
    assert caught.value.place == name
    assert name in caught.value.message
    assert not to_repair(lint(bad, "onnx"))  # other engines take it


def test_x05_pair_inside_a_silu_names_the_node(silu: onnx.ModelProto) -> None:
    def between(proto: onnx.ModelProto) -> None:
        gate = next(n for n in nodes(proto, "Sigmoid") if len([u for u in proto.graph.node if n.input[0] in u.input]) == 2)
        insert_pair(proto, gate.output[0], [u for u in proto.graph.node if gate.output[0] in u.input])

    with pytest.raises(OctcError) as caught:
        require_clean(changed(silu, between), "openvino")
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E404", 5)
    assert caught.value.place == "intruder"


@pytest.mark.parametrize("side", ["both", "product"])
def test_x05_pair_between_convolution_and_silu_names_the_node(silu: onnx.ModelProto, side: str) -> None:
    def before(proto: onnx.ModelProto) -> None:
        gate = next(n for n in nodes(proto, "Sigmoid") if maker(proto, n.input[0]).op_type == "Conv")
        users = [u for u in proto.graph.node if gate.input[0] in u.input]
        insert_pair(proto, gate.input[0], users if side == "both" else [u for u in users if u.op_type == "Mul"])

    assert {f.node for f in to_repair(lint(changed(silu, before), "tensorrt"))} == {"intruder"}


def test_x05_convolution_without_pairs_names_the_node(silu: onnx.ModelProto) -> None:
    def bare(proto: onnx.ModelProto) -> None:
        conv = nodes(proto, "Conv")[2]
        weight = maker(proto, conv.input[1])
        codes = next(t for t in proto.graph.initializer if t.name == weight.input[0])
        values = numpy_helper.to_array(codes).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, "bare"))
        conv.input[1] = "bare"
        conv.input[0] = maker(proto, maker(proto, conv.input[0]).input[0]).input[0]

    bad = changed(silu, bare)
    assert [f.node for f in fired(bad, "W26")] == [nodes(bad, "Conv")[2].name]


@pytest.mark.parametrize("place", [0, 1])
def test_x05_convolution_quantised_on_one_side_names_the_node(silu: onnx.ModelProto, place: int) -> None:
    def half(proto: onnx.ModelProto) -> None:
        conv = nodes(proto, "Conv")[2]
        if place == 0:
            conv.input[0] = maker(proto, maker(proto, conv.input[0]).input[0]).input[0]
        else:
            shape = next(list(t.dims) for t in proto.graph.initializer if t.name == maker(proto, conv.input[1]).input[0])
            proto.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), "bare"))
            conv.input[1] = "bare"

    bad = changed(silu, half)
    assert [f.node for f in fired(bad, "W20")] == [nodes(bad, "Conv")[2].name]


def test_squeeze_excite_may_stay_in_float(silu: onnx.ModelProto) -> None:
    assert counts(silu)["float_convolutions"] == 4
    assert not rules(silu)


@pytest.mark.parametrize(
    ("rule", "value"),
    [("E05", np.float32(-1)), ("E05", np.float32(0)), ("E05", np.float32("nan")), ("E05", np.float32("inf")), ("E04", None)],
)
def test_scales_must_be_constant_and_positive(silu: onnx.ModelProto, rule: str, value: np.float32 | None) -> None:
    def spoil(proto: onnx.ModelProto) -> None:
        node = nodes(proto, "QuantizeLinear")[1]
        if value is None:
            proto.graph.node.insert(0, helper.make_node("ReduceMax", [node.input[0]], ["computed"], name="max", keepdims=0))
            node.input[1] = "computed"
        else:
            proto.graph.initializer.append(numpy_helper.from_array(value, "spoilt"))
            node.input[1] = "spoilt"

    bad = changed(silu, spoil)
    assert [f.node for f in fired(bad, rule)] == [nodes(bad, "QuantizeLinear")[1].name]


def test_quantised_bias_and_integer_operators_are_found(silu: onnx.ModelProto) -> None:
    def add(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.int32), "bias32"))
        proto.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
        proto.graph.node.append(helper.make_node("DequantizeLinear", ["bias32", "one"], ["b"], name="bias"))
        proto.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["b"], ["p", "q", "r"], name="dynamic"))

    assert {"E03", "E07"} <= rules(changed(silu, add))


def test_weight_scales_on_the_wrong_axis_are_found(silu: onnx.ModelProto) -> None:
    def turn(proto: onnx.ModelProto) -> None:
        weight = maker(proto, nodes(proto, "Conv")[0].input[1])
        next(a for a in weight.attribute if a.name == "axis").i = 1

    assert "W21" in rules(changed(silu, turn))


def test_quantised_logits_are_found(silu: onnx.ModelProto) -> None:
    def tail(proto: onnx.ModelProto) -> None:
        proto.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
        proto.graph.initializer.append(numpy_helper.from_array(np.int8(0), "nought"))
        proto.graph.node.append(helper.make_node("QuantizeLinear", ["logits", "one", "nought"], ["c"], name="tail"))
        proto.graph.node.append(helper.make_node("DequantizeLinear", ["c", "one", "nought"], ["end"], name="tail_dq"))
        proto.graph.output[0].name = "end"

    assert rules(changed(silu, tail)) == {"W29"}


def test_a_convolution_of_what_no_image_decides_needs_no_quantiser(silu: onnx.ModelProto) -> None:
    def positions(proto: onnx.ModelProto) -> None:
        graph = proto.graph
        shape = [one.dim_value for one in graph.input[0].type.tensor_type.shape.dim[2:]]
        graph.initializer.append(numpy_helper.from_array(np.ones((32, 32, 3, 3), np.float32), "weight of places"))
        graph.initializer.append(numpy_helper.from_array(np.ones((1, 32, *shape), np.float32), "places"))
        graph.node.insert(0, helper.make_node("Conv", ["places", "weight of places"], ["placed"], name="placed"))

    assert rules(changed(silu, positions)) == set()


@pytest.mark.parametrize(
    ("value", "last", "clean"),
    [(-np.inf, "Softmax", True), (-np.inf, "Relu", False), (np.inf, "Softmax", False), (np.nan, "Softmax", False)],
)
def test_a_mask_of_minus_infinity_is_for_a_softmax(value: float, last: str, clean: bool) -> None:
    scores, out = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("scores", "y"))
    mask = numpy_helper.from_array(np.float32([0, value, 0]), "mask")
    chain = [
        helper.make_node("Add", ["scores", "mask"], ["a"], name="masked"),
        helper.make_node("Reshape", ["a", "s"], ["b"], name="moved"),
        helper.make_node(last, ["b"], ["y"], name="last"),
    ]
    graph = helper.make_graph(chain, "g", [scores], [out], [mask, numpy_helper.from_array(np.int64([-1, 3]), "s")])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert [one.node for one in fired(proto, "E13")] == ([] if clean else ["masked"])


def test_malformed_graphs_do_not_break_the_linter() -> None:
    opsets = [helper.make_opsetid("", 19)]
    empty = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=opsets)
    assert lint(empty, "tensorrt") == []
    dangling = helper.make_node("QuantizeLinear", ["nowhere", "missing"], ["out"], name="q")
    bare = [
        helper.make_node(kind, [], [])
        for kind in ("Conv", "DequantizeLinear", "QuantizeLinear", "Gemm", "Mul", "Concat", "Pow")
    ]
    info = helper.make_tensor_value_info("out", TensorProto.INT8, None)
    for nodes_ in ([dangling], bare, [dangling, *bare]):
        found = lint(helper.make_model(helper.make_graph(nodes_, "g", [], [info]), opset_imports=opsets), "tensorrt")
        assert found
        assert found[0].severity == "E"
