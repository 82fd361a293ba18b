"""Five spellings of the same trained quantisers, the torch reference of each, and the graph that is written as Q/DQ.

int8    codes -128..127, zero-point 0, no quantiser on the convolution side of an addition: networks with SiLU or hard-swish
half    the same with scales that FP16 holds exactly, so that the files with an FP32 and an FP16 remainder agree: TensorRT
mixed   as int8, but behind ReLU uint8 with zero-point 0 and scale s * 127 / 255 (same range, finer grid), which x86 kernels
        multiply without a correction: OpenVINO, ReLU networks only
uint8   the residual quantisers too; behind ReLU as mixed, elsewhere uint8 with zero-point 128 and the same scale (the same
        values bit for bit): onnxruntime's CPU kernels, ReLU networks only
residual  behind ReLU as mixed, elsewhere int8, and the residual quantisers too: what LiteRT's file is written from
"""

from __future__ import annotations

import copy
import math
import operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from octc.compress.fake_quant import ActivationQuantiser, GateQuantiser, OnGrid, QuantConv2d, half_up, spread
from octc.compress.lowest import is_nonnegative, is_one
from octc.compress.placement import ADDITIONS, behind_moves, input_path, is_dense
from octc.compress.rounding import forget_floats
from octc.compress.trace import ChannelAffine, calls_module, set_module
from octc.core.errors import OctcError
from octc.export.formats import FORMATS
from octc.export.onnx.pack import round_weights

AGAIN = 1 + 2.0**-14  # scale of a second quantiser: OpenVINO takes one away that repeats the first to within 1e-6
RELU6_STEP = 6 * (1 - 2.0**-20) / 127  # ends below 6: OpenVINO then takes the rectifier as part of the quantiser
LINEAR_CALLS = (*ADDITIONS, operator.sub, torch.cat)


@dataclass(frozen=True)
class Encoding:
    """rectified, elsewhere: type of the codes behind a rectifier and of all others, int8 with zero-point 0 or uint8.

    residual: also Q/DQ on convolution outputs that go into an addition. half: scales are FP16 numbers (rounded up). packed:
    large weights of float convolutions are stored as codes too (pack.py). inner: also Q/DQ on every other tensor that has a
    quantiser (the placement "xnnpack"), int8 with a zero-point where a tensor's lowest value is known, as behind SiLU. typed:
    where a dense convolution's result has codes of another type than its input and a convolution reads it, a second Q/DQ of
    the same grid follows (the placement "acl"): the first is computed in the input's type, whatever zero-point that takes.
    """

    name: str
    rectified: str = "int8"
    elsewhere: str = "int8"
    residual: bool = False
    half: bool = False
    packed: bool = False
    inner: bool = False
    typed: bool = False


ENCODINGS = {
    "int8": Encoding("int8", packed=True),
    "half": Encoding("int8", half=True),
    "mixed": Encoding("mixed", rectified="uint8", packed=True),
    "residual": Encoding("residual", rectified="uint8", residual=True, packed=True, inner=True),
    "uint8": Encoding("uint8", rectified="uint8", elsewhere="uint8", residual=True),
    "acl": Encoding("acl", rectified="uint8", residual=True, packed=True, typed=True),
}


@dataclass(frozen=True)
class Grid:
    """One activation quantiser as it stands in the file."""

    scale: float
    zero: int
    low: int
    high: int


GATE = Grid(1 / 256, 0, 0, 255)


class _FakeActivation(OnGrid):
    """The reference: quantise and dequantise in float."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = self.grid
        return torch.fake_quantize_per_tensor_affine(x, grid.scale, grid.zero, grid.low, grid.high)


class _WrittenActivation(OnGrid):
    """The same as QuantizeLinear and DequantizeLinear nodes; it only runs inside the exporter."""

    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, grid: Grid, opset: int) -> None:
        super().__init__()
        self.opset = opset
        self.register_buffer("scale", torch.tensor(grid.scale, dtype=torch.float32))
        self.register_buffer("zero", torch.tensor(grid.zero, dtype=torch.int8 if grid.low < 0 else torch.uint8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes = _symbolic("QuantizeLinear", (x, self.scale, self.zero), self.zero.dtype, x.shape, self.opset)
        return _symbolic("DequantizeLinear", (codes, self.scale, self.zero), torch.float32, x.shape, self.opset)


class _WrittenConv(nn.Module):
    """A convolution whose weight enters the file as int8 codes with one DequantizeLinear; the float weight does not."""

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, conv: QuantConv2d, opset: int) -> None:
        super().__init__()
        self.opset = opset
        codes, scale = conv.weight_codes()
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int8))
        self.shell = copy.deepcopy(conv)
        self.shell.conv.weight = nn.Parameter(torch.zeros(()), requires_grad=False)  # stride and padding are all it is kept for

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = (self.codes, self.scale, self.zero)
        weight = _symbolic("DequantizeLinear", parts, torch.float32, self.codes.shape, self.opset, {"axis": 0})
        return self.shell.convolve(x, weight)


def _symbolic(
    name: str, inputs: tuple[torch.Tensor, ...], dtype: torch.dtype, shape: Any, opset: int, attrs: dict[str, Any] | None = None
) -> torch.Tensor:
    out: torch.Tensor = torch.onnx.ops.symbolic(name, inputs, attrs or {}, dtype=dtype, shape=shape, version=opset)
    return out


def is_rectified(quantised: fx.GraphModule) -> bool:
    """Whether every quantised tensor is the input, a sum or product of convolutions, or stands behind a rectifier (no SiLU)."""
    return all(is_nonnegative(quantised, source) or _linear(quantised, source) for _, source in _sources(quantised, "input"))


def encoding_for(quantised: fx.GraphModule, target: str) -> Encoding:
    """For ReLU networks uint8 in onnxruntime and mixed in OpenVINO, for all others int8; TensorRT: int8 with FP16 scales."""
    known = FORMATS[target]
    return ENCODINGS[known.encoding if known.encoding == known.others or is_rectified(quantised) else known.others]


def encode(
    quantised: fx.GraphModule, encoding: Encoding, *, opset: int | None = None, floats: frozenset[str] = frozenset()
) -> fx.GraphModule:
    """A copy with the quantisers in one encoding: fake-quantised torch (the reference), or Q/DQ for the exporter with `opset`.

    Args:
        quantised: calibrated, from `octc.compress.placement.prepare`.
        floats: names of convolutions that stay in float (a step of the mixed-precision fallback).
    """
    module = copy.deepcopy(quantised).cpu().eval()
    if not (encoding.inner and _sources(module, "inner")):  # there everything else stays on its grid
        _leave_float(module, floats)
    forget_floats(module, floats)
    for node in [n for n in module.graph.nodes if calls_module(module, n, GateQuantiser)]:
        set_module(module, str(node.target), _written(GATE, opset))
    for kind in ("input", "residual", "inner"):
        for node, source in _sources(module, kind):
            if kind == "residual" and not encoding.residual:
                _remove(module, node)
                continue
            grid = _grid(module, node, source, encoding)
            set_module(module, str(node.target), _written(grid, opset))
            if encoding.typed and _changes_type(module, node, source):
                _repeat(module, node, _written(replace(grid, scale=grid.scale * AGAIN), opset))
    for name, conv in [(n, m) for n, m in module.named_modules() if isinstance(m, QuantConv2d)]:
        _check_weight(name, conv)
        conv.enabled, conv.half_scales = name not in floats, encoding.half
        if opset is not None and name not in floats:
            set_module(module, name, _WrittenConv(conv, opset))
    if encoding.packed:
        round_weights(module, floats)
    module.delete_all_unused_submodules()
    module.graph.lint()
    module.recompile()
    return module


def _changes_type(module: fx.GraphModule, node: fx.Node, source: fx.Node) -> bool:
    """Whether a quantiser stands behind a dense convolution that reads codes of the other type, and a dense one reads it."""
    behind = source if is_dense(module, source) else source.args[0] if len(source.args) == 1 else None
    if not (isinstance(behind, fx.Node) and is_dense(module, behind)):
        return False
    read = any(is_dense(module, user) for user in node.users)
    return read and is_nonnegative(module, behind.args[0]) != is_nonnegative(module, source)  # type: ignore[arg-type]


def _repeat(module: fx.GraphModule, node: fx.Node, written: nn.Module) -> None:
    """A second quantiser behind one, which everything reads that read the first."""
    name, readers = f"{node.target}_again", list(node.users)
    module.add_submodule(name, written)
    with module.graph.inserting_after(node):
        second = module.graph.call_module(name, (node,))
    for reader in readers:
        reader.replace_input_with(node, second)


def _written(grid: Grid, opset: int | None) -> nn.Module:
    return _FakeActivation(grid) if opset is None else _WrittenActivation(grid, opset)


def _sources(module: fx.GraphModule, kind: str) -> list[tuple[fx.Node, Any]]:
    """Each activation quantiser of a kind, and what it reads."""
    return [(node, node.args[0]) for node in module.graph.nodes if _is_quantiser(module, node, kind)]


def _grid(module: fx.GraphModule, node: fx.Node, source: fx.Node, encoding: Encoding) -> Grid:
    quantiser: Any = module.get_submodule(str(node.target))
    scale = float(quantiser.step())
    if not 0 < scale < math.inf:
        text = f"quantiser {node.target} has {'no range' if scale == 0 else f'the scale {scale}'}"
        raise OctcError("OCT-E404", text, hint="calibrate first: octc train student without --no-qat", place=str(node.target))
    if encoding.half:
        scale = float(half_up(quantiser.step()))
    rectified = is_nonnegative(module, source)
    if encoding.typed and is_one(module, source, (nn.ReLU6,), (functional.relu6,)):
        scale = min(scale, RELU6_STEP)
    if (encoding.inner or encoding.typed) and quantiser.least is not None:  # the grid that it was trained on
        wide, zero = spread(quantiser.step().clamp_max(scale), quantiser.least)
        return Grid(float(wide), 0, 0, 255) if rectified else Grid(float(wide), int(zero), -128, 127)
    if (encoding.rectified if rectified else encoding.elsewhere) == "int8":
        return Grid(scale, 0, -128, 127)
    return Grid(scale * 127 / 255, 0, 0, 255) if rectified else Grid(scale, 128, 0, 255)


def _check_weight(name: str, conv: QuantConv2d) -> None:
    if not (torch.isfinite(conv.weight_scale()).all() and torch.isfinite(conv.conv.weight).all()):
        text = f"weights of {name} are not finite: they have no scale"
        raise OctcError("OCT-E701", text, hint="train the student again", place=name)


def _leave_float(module: fx.GraphModule, floats: frozenset[str]) -> None:
    """Take the named convolutions off their quantisers; a quantiser that no convolution reads any more goes."""
    for node in [n for n in module.graph.nodes if n.op == "call_module" and str(n.target) in floats]:
        path = input_path(module, node)
        for user in list(node.users):
            if _is_quantiser(module, user, "residual"):
                _remove(module, user)
        if not path:
            continue
        quantiser, *moves = path
        plain: Any = quantiser.args[0]
        for move in moves:
            with module.graph.inserting_before(node):
                made = module.graph.node_copy(move)
            made.replace_input_with(move.args[0], plain)  # type: ignore[arg-type]
            plain = made
        node.replace_input_with(path[-1], plain)
        for move in reversed(moves):
            if not move.users:
                module.graph.erase_node(move)
        if not any(_reads_convolution(module, user) for user in quantiser.users):
            _remove(module, quantiser)


def _reads_convolution(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a reader of a quantiser is a convolution in INT8, or moves values to one."""
    return any(calls_module(module, one, QuantConv2d) for one in (node, *behind_moves(module, node)))


def _remove(module: fx.GraphModule, node: fx.Node) -> None:
    node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    module.graph.erase_node(node)


def _is_quantiser(module: fx.GraphModule, node: fx.Node, kind: str) -> bool:
    return calls_module(module, node, ActivationQuantiser) and module.get_submodule(str(node.target)).kind == kind


def _linear(module: fx.GraphModule, node: fx.Node) -> bool:
    call = node.op == "call_function" and node.target in LINEAR_CALLS
    return call or node.op == "placeholder" or calls_module(module, node, (QuantConv2d, ActivationQuantiser, ChannelAffine))
