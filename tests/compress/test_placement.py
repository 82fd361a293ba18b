from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from octc.compress.calibrate import observe, set_ranges
from octc.compress.fake_quant import ActivationQuantiser, QuantConv2d
from octc.compress.placement import ADDITIONS, convolutions, counts, prepare, quantisers, set_mode
from octc.core.errors import OctcError
from octc.train.networks.models import build_model

# convolutions in INT8, in float (squeeze-excite; heads behind the pooling), quantisers on inputs and on residual sums
GOLDEN = {
    "efficientnet_b2": (69, 46, 69, 16),
    "tf_efficientnet_lite0": (49, 0, 49, 9),
    "tf_efficientnet_lite2": (64, 0, 64, 14),
    "mobilenetv4_conv_small": (45, 1, 45, 10),
    "mobilenetv4_conv_medium": (76, 1, 76, 18),
    "resnet18": (20, 0, 17, 11),
    "resnet50": (53, 0, 49, 20),
}


def random_network(name: str) -> nn.Module:
    """Random weights, and BatchNorm statistics that folding cannot ignore, with activations of ordinary size."""
    torch.manual_seed(0)
    model = build_model(name, 4)
    x = torch.randn(4, 3, 97, 97)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        model(x)
    return model.eval()


@pytest.mark.parametrize("name", GOLDEN)
def test_counts_and_float_equality_at_an_odd_size(name: str) -> None:
    model = random_network(name).double()  # in float32 a random network's rounding alone exceeds 1e-5
    quantised = prepare(model, 97)
    assert tuple(counts(quantised).values()) == GOLDEN[name]
    assert not [m for m in quantised.modules() if isinstance(m, nn.BatchNorm2d)]
    x = torch.randn(2, 3, 97, 97, dtype=torch.float64)
    with torch.no_grad():
        expected, found = model(x), quantised(x)
    assert float((expected - found).abs().max()) <= 1e-9


def test_every_tensor_has_one_quantiser_and_the_shortcut_shares_it() -> None:
    quantised = prepare(build_model("tf_efficientnet_lite0", 4), 64)
    sources = [node.args[0] for node in quantised.graph.nodes if is_quantiser(quantised, node)]
    assert len(sources) == len(set(sources))
    additions = [node for node in quantised.graph.nodes if node.target in ADDITIONS]
    assert len(additions) == 9
    for addition in additions:
        kinds = sorted(quantised.get_submodule(str(arg.target)).kind for arg in addition.args)
        assert kinds == ["input", "residual"]
        shared = next(arg for arg in addition.args if quantised.get_submodule(str(arg.target)).kind == "input")
        assert any(
            isinstance(quantised.get_submodule(str(user.target)), QuantConv2d) for user in shared.users if user is not addition
        )


def is_quantiser(module: fx.GraphModule, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), ActivationQuantiser)


@pytest.mark.parametrize("name", ["efficientnet_b2", "tf_efficientnet_lite0", "resnet18"])
def test_x05_nothing_between_a_convolution_and_its_activation(name: str) -> None:
    quantised = prepare(build_model(name, 4), 64)
    for node in quantised.graph.nodes:
        if is_quantiser(quantised, node):
            users = {
                type(quantised.get_submodule(str(u.target))).__name__ if u.op == "call_module" else u.target for u in node.users
            }
            assert users <= {"QuantConv2d", *ADDITIONS}, (node, users)
    gates = [n for n in quantised.graph.nodes if n.target in (operator.mul, torch.mul)]
    assert not [arg for gate in gates for arg in gate.args if is_quantiser(quantised, arg)]


def test_state_dict_reloads_into_a_fresh_network() -> None:
    model = random_network("mobilenetv4_conv_small_050")
    quantised = prepare(model, 64)
    x = torch.randn(4, 3, 64, 64)
    observe(quantised, lambda: [x])
    set_ranges(quantised, "percentile")
    set_mode(quantised, "on")
    again = prepare(build_model("mobilenetv4_conv_small_050", 4), 64)
    again.load_state_dict(quantised.state_dict())
    set_mode(again, "on")
    with torch.no_grad():
        assert torch.equal(quantised(x), again(x))


def test_gradients_reach_every_weight_and_bias() -> None:
    quantised = prepare(random_network("tf_efficientnet_lite0"), 64).requires_grad_(True)
    x = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    observe(quantised, lambda: [x])
    set_ranges(quantised, "max")
    set_mode(quantised, "on")
    quantised(x).square().sum().backward()
    for name, parameter in quantised.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    moved = [name for name, p in quantised.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert len(moved) > 0.95 * len(list(quantised.parameters()))


def test_residual_quantisers_can_be_left_out() -> None:
    quantised = prepare(random_network("resnet18"), 64)
    x = torch.randn(2, 3, 64, 64)
    observe(quantised, lambda: [x])
    set_ranges(quantised, "max")
    set_mode(quantised, "on", residual=False)
    assert {q.mode for q in quantisers(quantised, "residual").values()} == {"off"}
    assert {q.mode for q in quantisers(quantised, "input").values()} == {"on"}
    assert all(conv.enabled for conv in convolutions(quantised).values())


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return y if y.sum() > 0 else -y


class _NoConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(x.mean((2, 3)))
        return y


@pytest.mark.parametrize("kind", [_Branching, _NoConvolution])
def test_networks_that_cannot_be_quantised_are_refused(kind: Callable[[], nn.Module]) -> None:
    with pytest.raises(OctcError) as caught:
        prepare(kind(), 64)
    assert caught.value.code == "OCT-E404"
