"""Layer reports from recorded and from written-down texts: who runs in which precision."""

from __future__ import annotations

import json

import pytest

from octc.runtimes.tensorrt.layers import name_parts, read_kernels, report_layers
from octc.schemas.tensorrt_plan import BuildPlan, PlannedFiles, make_plan

SUMS = dict.fromkeys(("model.onnx", "model.int8fp16.onnx", "model.fp16.onnx"), "0" * 64)
# two lines of a build log of TensorRT for RTX 1.7.1.116, names shortened
LOG = """Layers:
Name: exp_myl0_3, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [1,32,32,32], Datatype: Int8, Format: (NHWC) }], \
Constants: [ { Name: c, Datatype: Float }], Outputs: [ { Name: b, Datatype: Float }], TacticName: t, StreamId: 0, \
Metadata: [ONNX Layer: conv_1][ONNX Layer: q1/DequantizeLinear]
Name: k_myl0_4, LayerType: kgen, Inputs: [ { Name: b, Datatype: Float }], Outputs: [ { Name: d, Datatype: Int8 }], \
Metadata: [ONNX Layer: conv_1][ONNX Layer: silu]
Name: se_myl0_5, LayerType: runtime_fusion, Inputs: [ { Name: d, Datatype: Half }], Outputs: [ { Datatype: Half }], \
Metadata: [ONNX Layer: conv_2]
Name: dw_myl0_6, LayerType: correlation, Inputs: [ { Name: d, Datatype: Float }], Constants: [ { Datatype: Int8 }], \
Outputs: [ { Datatype: Float }], Metadata: [ONNX Layer: conv_3]
Name: __myl_CastMulCastMulCastFc_myl0_7, LayerType: runtime_fusion, Inputs: [ { Name: f, Datatype: Int8 }], \
Constants: [ { Datatype: Int8 }], Outputs: [ { Datatype: Float }], Metadata: [ONNX Layer: conv_4]
Name: shape_call, LayerType: shape_call, Inputs: [ ], Outputs: [ ], Metadata:
"""


def plan(*promised: str) -> BuildPlan:
    macs = {"conv_1": 600, "conv_2": 100, "conv_3": 300, **({"conv_4": 0} if "conv_4" in promised else {})}
    return make_plan("int8", "strong", PlannedFiles(SUMS, [1, 8, 8], macs, promised=promised))


def test_log_of_tensorrt_for_rtx() -> None:
    report = report_layers(LOG, plan("conv_1"))
    assert report.nodes == {"conv_1": "int8", "conv_2": "fp16", "conv_3": "fp32"}
    assert report.counts() == {"int8": 1, "fp16": 1, "fp32": 1}
    assert report.macs == {"int8": 0.6, "fp16": 0.1, "fp32": 0.3}
    assert (report.missing, report.unmatched, report.kernels) == ((), ("shape_call",), 6)


def test_x10_a_promise_that_is_not_kept_is_named() -> None:
    assert report_layers(LOG, plan("conv_1", "conv_3")).missing == ("conv_3",)
    assert report_layers(LOG, plan("conv_2", "conv_4")).missing == ("conv_2", "conv_4")


def test_codes_that_are_dequantised_inside_a_kernel_are_not_int8() -> None:
    report = report_layers(LOG, plan("conv_1", "conv_4"))
    assert (report.nodes["conv_4"], report.missing) == ("fp32", ("conv_4",))


def layer(name: str, kind: str, form: str, metadata: str = "", **more: str) -> dict[str, object]:
    tensor = {"Name": "x", "Location": "Device", "Dimensions": [1, 16, 8, 8], **({"Format/Datatype": form} if form else more)}
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": [tensor],
        "Outputs": [tensor],
        "TacticValue": "0x0",
        "Metadata": metadata,
    }


@pytest.mark.parametrize("ending", ["Bindings", "I/O Tensors"])
def test_json_of_the_inspector(ending: str) -> None:
    """TensorRT 10 ends with "Bindings", 11 with "I/O Tensors"; formats as users reported them."""
    text = json.dumps({"Layers": [
        layer("Reformatting CopyNode for Input Tensor 0 to conv_1", "Reformat", "Row major linear FP32"),
        layer("model.conv_1.weight + QuantizeLinear + conv_1 + PWN(relu_1)", "CaskConvolution",
              "Thirty-two wide channel vectorized row major Int8 format"),
        layer("fused", "CaskGemmConvolution", "Channel major FP16 format where channel % 8 == 0",
              "[ONNX Layer: conv_2]\x1e[ONNX Layer: silu]"),
        layer("{ForeignNode[conv_3...head]}", "Myelin", "", Datatype="Float"),
    ], ending: ["image", "logits"]})  # fmt: skip
    report = report_layers(text, plan("conv_1"))
    assert report.nodes == {"conv_1": "int8", "conv_2": "fp16", "conv_3": "fp32"}
    assert (report.reformats, report.missing) == (1, ())


@pytest.mark.parametrize("text", ['{"Layers": ["a", "b"]}', "nonsense", "[1]", "{}"])
def test_dumps_without_details_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"details|neither"):
        read_kernels(text)


def test_dynamic_shapes_without_a_context_hide_the_types() -> None:
    text = json.dumps({"Layers": [layer("conv_1", "CaskConvolution", "N/A due to dynamic shapes")]})
    report = report_layers(text, plan("conv_1"))
    assert (report.nodes["conv_1"], report.missing) == ("unknown", ("conv_1",))


@pytest.mark.parametrize(("name", "parts"), [
    ("a/Conv + PWN(PWN(a/Sigmoid), a/Mul)", ["a/Conv", "a/Sigmoid", "a/Mul"]),
    ("{ForeignNode[/blocks/0/Conv.../head/Gemm]}", ["/blocks/0/Conv", "/head/Gemm"]),
    ("node_Conv_31", ["node_Conv_31"]),
])  # fmt: skip
def test_parts_of_fused_names(name: str, parts: list[str]) -> None:
    assert list(name_parts(name)) == parts
