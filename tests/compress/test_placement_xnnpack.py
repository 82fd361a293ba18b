"""The placement for LiteRT: everything up to the last map is on a grid, gates on the engine's own, and nothing else changes."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn

from octc.compress.calibrate import observe, set_ranges
from octc.compress.fake_quant import ActivationQuantiser, GateQuantiser, learn_steps
from octc.compress.lowest import GATE_LEAST, SILU_LEAST
from octc.compress.placement import XNNPACK, convolutions, counts, placement_of, prepare, quantisers, set_mode
from octc.core.errors import OctcError
from octc.export.litert.write import write_litert
from octc.export.onnx.encoding import ENCODINGS, encode
from octc.export.onnx.float import write_onnx
from octc.imaging.preprocess import Preprocess
from octc.train.networks.models import build_model, normalise
from tests.compress.test_placement import random_network

# convolutions in INT8, in float, quantisers on inputs, on residual sums and on all else
GOLDEN = {"efficientnet_b2": (115, 0, 115, 16, 116), "tf_efficientnet_lite0": (49, 0, 49, 9, 1), "resnet18": (20, 0, 17, 11, 1)}
PRE = Preprocess(64)
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 1, 64, 64), dtype=np.uint8)


def placed(name: str = "test_efficientnet") -> torch.fx.GraphModule:
    """A small network of SiLU and squeeze-excite, calibrated, its quantisers on."""
    module = prepare(random_network(name), 64, placement=XNNPACK)
    observe(module, lambda: [normalise(torch.from_numpy(IMAGES), PRE)])
    set_ranges(module, "max")
    set_mode(module, "on")
    return module


@pytest.mark.parametrize("name", GOLDEN)
def test_counts_and_float_equality(name: str) -> None:
    model = random_network(name).double()
    module = prepare(model, 64, placement=XNNPACK)
    assert tuple(counts(module).values()) == GOLDEN[name]
    assert placement_of(module) == XNNPACK
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert float((model(x) - module(x)).abs().max()) <= 1e-9


def test_every_operator_reads_codes() -> None:
    """Up to the last map: convolutions, products, sums and means read a quantiser, and a rectifier what it is part of."""
    module = placed()
    readers = [n for n in module.graph.nodes if n.target in (operator.mul, operator.add) or n.target == "mean"]
    readers += [n for n in module.graph.nodes if str(n.target) in convolutions(module)]
    assert len(readers) > 20
    kinds = (ActivationQuantiser, GateQuantiser)
    for node in readers:
        sources = [one for one in node.args if isinstance(one, torch.fx.Node)]
        assert all(isinstance(module.get_submodule(str(one.target)), kinds) for one in sources), node


def test_weights_take_eight_bits_and_a_gate_has_256_codes() -> None:
    module = placed()
    codes = [conv.weight_codes()[0] for conv in convolutions(module).values()]
    assert max(int(one.abs().max()) for one in codes) == 127
    gate = next(part for part in module.modules() if isinstance(part, GateQuantiser))
    assert torch.equal(gate(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([0.0, 0.5, 255 / 256]))
    set_mode(module, "range")
    assert gate(torch.tensor([0.3])) == torch.tensor([0.3])  # a calibration sees the float network


def test_a_checkpoint_is_read_again_and_its_steps_can_be_learned() -> None:
    module = placed()
    again = prepare(build_model("test_efficientnet", 4), 64, placement=XNNPACK)
    again.load_state_dict(module.state_dict())
    set_mode(again, "on")
    x = normalise(torch.from_numpy(IMAGES), PRE)
    with torch.no_grad():
        assert torch.equal(module(x), again(x))
    learn_steps(again)
    again.requires_grad_(True)
    again(x).square().sum().backward()
    for name, part in quantisers(again).items():
        assert part.scale.grad is not None, name


def test_behind_silu_every_code_is_used() -> None:
    """The lowest value is known there: the grid reaches from it to the largest one, and what training chose keeps its top."""
    module = placed()
    plain = {name: part for name, part in encode(module, ENCODINGS["residual"]).named_modules() if hasattr(part, "grid")}
    grids = [part.grid for name, part in plain.items() if "mul" in name]
    assert len(grids) > 5
    for grid in grids:
        low, high = grid.scale * (-128 - grid.zero), grid.scale * (127 - grid.zero)
        assert low == pytest.approx(SILU_LEAST, abs=grid.scale)
        assert high > 0
    name = next(name for name in plain if "mul" in name)
    top = 127 * float(quantisers(module)[name].scale)
    grid = plain[name].grid
    assert grid.scale * (127 - grid.zero) == pytest.approx(top, abs=grid.scale)


@pytest.mark.parametrize("name", ["test_efficientnet", "resnet18", "tf_efficientnet_lite0"])
def test_training_sees_the_grids_of_the_file(name: str) -> None:
    """The fake-quantised network and the reference of its file give the same logits, bit for bit."""
    module = placed(name)
    x = normalise(torch.from_numpy(IMAGES), PRE)
    with torch.no_grad():
        assert torch.equal(module(x), encode(module, ENCODINGS["residual"])(x))


def test_in_front_of_silu_no_code_is_spent_on_what_its_gate_makes_zero() -> None:
    """A wide tensor's codes begin where the gate's do; a narrow one's reach as far below zero as above."""
    gate = GateQuantiser()
    gate.mode = "on"
    x = torch.linspace(-100, 100, 200_001)
    silu = x * gate(torch.sigmoid(x))
    assert torch.equal(silu[x < GATE_LEAST], torch.zeros(int((x < GATE_LEAST).sum())))
    assert float(silu[(x > GATE_LEAST) & (x < GATE_LEAST + 0.01)].abs().min()) > 0
    module = placed()
    front = [name for name, part in quantisers(module).items() if part.least == GATE_LEAST]
    assert len(front) > 5
    part = quantisers(module)[front[0]]
    for top, low in ((40.0, GATE_LEAST), (3.0, -3.0)):
        part.scale.fill_(top / 127)
        found = part(x)
        step = float(torch.unique(found).diff().min())
        assert float(found.min()) == pytest.approx(low, abs=step)
        assert float(found.max()) == pytest.approx(top, abs=step)
        assert len(torch.unique(found)) == 256


def test_behind_hard_swish_the_grid_begins_at_its_lowest_value() -> None:
    module = placed("mobilenetv3_small_050")
    x = torch.linspace(-6, 6, 100_001)
    least = float(torch.nn.functional.hardswish(x).min())
    part = next(part for name, part in quantisers(module).items() if part.least is not None and part.least < 0)
    assert part.least == pytest.approx(least, abs=1e-6)
    assert len(torch.unique(part(torch.linspace(least, 127 * float(part.scale), 10_000)))) == 256


class Product(nn.Module):
    """What a tensor of known lowest value becomes on its way to the next convolution."""

    def __init__(self, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, 4), nn.Conv2d(3, 8, 3, 4), nn.Conv2d(8, 8, 3)
        self.change, self.head = change, nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.c(self.change(self.a(x), self.b(x))).mean((2, 3)))
        return found


@pytest.mark.parametrize(("change", "least"), [
    (lambda a, b: nn.functional.silu(a) * torch.sigmoid(b), SILU_LEAST),
    (lambda a, b: nn.functional.silu(a) * torch.relu(b), None),  # a rectifier makes more of it than there was
    (lambda a, b: torch.where(a > b, a, b), None),  # a mask is no tensor for codes
])  # fmt: skip
def test_what_a_product_makes_of_a_lowest_value(change: Any, least: float | None) -> None:
    module = prepare(Product(change).eval(), 64, placement=XNNPACK)
    x = 9 * torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        observe(module, lambda: [x])
        set_ranges(module, "max")
        wanted = module(x)
        set_mode(module, "on")
        noise = (module(x) - wanted).square().mean() / wanted.var()
    (node,) = (one for one in module.graph.nodes if one.target == "c")
    part = module.get_submodule(str(node.args[0].target))
    assert isinstance(part, ActivationQuantiser)
    assert part.least == least
    assert float(noise) < 0.01


def test_a_sum_over_a_window_is_lower_than_what_it_adds() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.SiLU(), nn.AvgPool2d(2, divisor_override=1), nn.Conv2d(8, 8, 3), nn.Flatten())
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.SiLU(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3), nn.Flatten())
    for one, least in ((net, None), (plain, SILU_LEAST)):
        module = prepare(one.eval(), 64, placement=XNNPACK)
        (node,) = (one for one in module.graph.nodes if one.target == "3")
        part = module.get_submodule(str(node.args[0].target))
        assert isinstance(part, ActivationQuantiser)
        assert part.least == least


def test_a_learned_step_is_one_of_the_spread_grid() -> None:
    """The forward of training is that of inference, and the scale's gradient is that of its distance to the lowest value."""
    part = ActivationQuantiser("input")
    part.scale.fill_(0.05)
    part.mode, part.least = "on", SILU_LEAST
    x = torch.linspace(-1, 8, 1001)
    plain = part(x)
    learn_steps(part)
    learned = part(x)
    torch.testing.assert_close(learned, plain)
    learned.sum().backward()
    assert float(plain.min()) == pytest.approx(SILU_LEAST, abs=float(plain.diff().max()))
    assert float(plain.max()) == pytest.approx(127 * 0.05, abs=float(plain.diff().max()))
    gradient = part.scale.grad
    assert gradient is not None
    assert float(gradient) > 0  # what is cut off at the top asks for a wider range


def test_litert_computes_what_the_file_states(tmp_path: Path) -> None:
    """Every convolution in codes, and the whole answer near to that of the fake-quantised network."""
    from octc.train.loop.evaluate import logits_of

    module = placed()
    path = tmp_path / "m.onnx"
    write_onnx(encode(module, ENCODINGS["residual"], opset=20), PRE, path, 20)
    facts = write_litert(path, tmp_path, int8=True)
    assert (facts["int8_convolutions"], facts["float_convolutions"]) == (len(convolutions(module)), 0)
    assert facts["operators"]["DEQUANTIZE"] == 1  # in front of the head
    assert "TRANSPOSE" not in facts["operators"]
    reference = logits_of(encode(module, ENCODINGS["residual"]), IMAGES, PRE, "cpu", batch=8).numpy()
    interpreter = Interpreter(str(tmp_path / "model.tflite"), num_threads=1)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], (8, 64, 64, 1))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], IMAGES.transpose(0, 2, 3, 1))
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    spread = float(np.ptp(reference, axis=1).mean())
    apart = np.abs(found - reference)  # a value between two codes goes either way, on each processor another
    assert apart.mean() <= 0.06 * spread
    assert apart.max() <= 0.2 * spread


def test_a_layer_that_the_fallback_leaves_in_float_reads_its_grid_all_the_same(tmp_path: Path) -> None:
    module = placed()
    name = next(iter(convolutions(module)))
    path = tmp_path / "m.onnx"
    write_onnx(encode(module, ENCODINGS["residual"], opset=20, floats=frozenset({name})), PRE, path, 20)
    facts = write_litert(path, tmp_path, int8=True)
    assert facts["float_convolutions"] == 1


def test_another_placement_is_refused() -> None:
    with pytest.raises(OctcError, match="unknown placement") as caught:
        prepare(build_model("test_resnet", 4), 64, placement="everywhere")
    assert caught.value.code == "OCT-E104"


def test_the_network_is_not_changed() -> None:
    model = random_network("test_efficientnet")
    before = copy.deepcopy(model.state_dict())
    prepare(model, 64, placement=XNNPACK)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(isinstance(part, GateQuantiser) for part in model.modules())
