"""Tracing and folding: the folded graph computes what the network computes, at sizes that padding depends on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from octc.compress.trace import trace_folded
from octc.core.errors import OctcError
from octc.train.networks.models import build_model
from octc.train.networks.weights import start_weights
from octc.train.recipes.config import Stage


class ConvNorm(nn.Module):
    """One convolution and its norm."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=bias, groups=1)
        self.norm = nn.BatchNorm2d(4, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.norm(self.conv(x))
        return y


@pytest.mark.parametrize("bias", [False, True])
def test_folded_weights_follow_the_formula(bias: bool) -> None:
    torch.manual_seed(0)
    model = ConvNorm(bias).eval()
    norm = model.norm
    with torch.no_grad():
        norm.weight.uniform_(-2, 2)
        norm.bias.uniform_(-1, 1)
        norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.01, 3)  # type: ignore[union-attr]
    folded = trace_folded(model, 64).get_submodule("conv")
    assert isinstance(folded, nn.Conv2d)
    assert folded.bias is not None
    w, b = model.conv.weight.detach().numpy(), 0 if model.conv.bias is None else model.conv.bias.detach().numpy()
    gain = norm.weight.detach().numpy() / np.sqrt(norm.running_var.numpy() + 1e-3)  # type: ignore[union-attr]
    assert np.allclose(folded.weight.detach().numpy(), w * gain[:, None, None, None], atol=1e-6)
    shift = (b - norm.running_mean.numpy()) * gain + norm.bias.detach().numpy()  # type: ignore[union-attr]
    assert np.allclose(folded.bias.detach().numpy(), shift, atol=1e-6)


def norms(module: nn.Module) -> list[str]:
    return [name for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)]


def settled(name: str) -> nn.Module:
    """Random weights whose BatchNorms have met data, with logits of ordinary size."""
    torch.manual_seed(0)
    model = build_model(name, 4).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        model(torch.randn(8, 3, 75, 75))
    return model.eval()


@pytest.mark.parametrize(
    "name", ["efficientnet_b2", "mobilenetv4_conv_small", "test_resnet", "test_efficientnet", "test_byobnet"]
)
@pytest.mark.parametrize("size", [75, 64])
def test_folded_network_equals_its_network_in_float32(name: str, size: int) -> None:
    model = settled(name)
    folded = trace_folded(model, size)
    assert norms(model)
    assert not norms(folded)
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        expected, found = model(x), folded(x)
    assert float((expected - found).abs().max()) <= 2e-5 * max(1.0, float(expected.abs().max()))


def test_folded_lite0_with_real_weights_equals_its_network_at_an_odd_size() -> None:
    """TensorFlow's padding depends on the input's size: 1 px on one side only at even ones."""
    torch.manual_seed(0)
    model = build_model("tf_efficientnet_lite0", 4).eval()
    start_weights(model, Stage(model="tf_efficientnet_lite0", weights="package", size=64, epochs=1, lr=1e-3), None, False)
    folded = trace_folded(model, 97)
    for size in (97, 96, 65, 33):
        x = torch.rand(2, 3, size, size) * 2 - 1
        with torch.no_grad():
            expected = model(x)
            assert float((expected - folded(x)).abs().max()) <= 2e-5 * max(1.0, float(expected.abs().max()))


def test_the_network_itself_is_left_as_it_was() -> None:
    model = settled("test_resnet").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace_folded(model, 64)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_every_node_carries_its_shape_and_dropout_is_gone() -> None:
    folded = trace_folded(build_model("efficientnet_b2", 4, drop_rate=0.3, drop_path_rate=0.2), 64)
    calls = [node for node in folded.graph.nodes if node.op == "call_module"]
    assert all("tensor_meta" in node.meta for node in calls)
    assert not [m for m in folded.modules() if isinstance(m, (nn.Dropout, nn.Identity))]
    stem = next(node for node in calls if isinstance(folded.get_submodule(str(node.target)), nn.Conv2d))
    assert tuple(stem.meta["tensor_meta"].shape) == (1, 32, 32, 32)


def test_training_mode_changes_nothing_in_the_folded_graph() -> None:
    """T20: no statistics move, nothing is dropped; what is tuned is what is exported."""
    folded = trace_folded(settled("test_efficientnet"), 64)
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        expected = folded.eval()(x)
        assert torch.equal(folded.train()(x), expected)
        assert torch.equal(folded.train()(x), expected)
    assert not [name for name, _ in folded.named_buffers() if "running" in name]


def test_small_inputs_are_traced_at_a_size_where_maps_are_maps() -> None:
    """At 32 px the last stages would be 1 x 1, like squeeze-excite."""
    shapes = [
        node.meta["tensor_meta"].shape[2]
        for node in trace_folded(build_model("test_resnet", 4), 32).graph.nodes
        if "tensor_meta" in node.meta and len(node.meta["tensor_meta"].shape) == 4
    ]
    assert max(shapes) == 64


class SharedConv(nn.Module):
    """The convolution's output goes to its norm and elsewhere: folding would change the other branch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        z: torch.Tensor = self.norm(y) + y
        return z


def test_a_norm_that_cannot_be_folded_becomes_a_scale_and_a_shift() -> None:
    model = SharedConv().eval()
    torch.nn.init.uniform_(model.norm.running_var, 0.1, 3)  # type: ignore[arg-type]
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(trace_folded(model, 64)(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "named"),
    [("test_nfnet", "ScaledStdConv2d"), ("levit_128s", "does not run at 64 px")],
)
def test_networks_that_cannot_be_folded_are_refused_in_words(name: str, named: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Weight standardisation above all: its raw weight would be quantised, and another network come out."""
    with pytest.raises(OctcError) as caught:
        trace_folded(build_model(name, 4), 64)
    assert caught.value.code == "OCT-E404"
    assert named in caught.value.message
    assert "octc list models" in caught.value.hint
    assert "Traceback" not in capfd.readouterr().err


class Looking(nn.Module):
    """Reads the weight of a convolution that is quantised."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.head = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x)).to(self.last.weight.dtype)
        logits: torch.Tensor = self.head((self.last(x) + self.stem.weight.abs().mean()).mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("make", "looked_at"),
    [(Looking, {"stem", "last"}), (lambda: build_model("edgenext_xx_small", 4), set())],
    ids=["a weight's value", "the type and device of positions"],
)
def test_a_network_that_looks_into_its_convolutions_is_quantised(make: Callable[[], nn.Module], looked_at: set[str]) -> None:
    from octc.compress.placement import convolutions, prepare

    torch.manual_seed(0)
    model, images = make().eval(), torch.randn(2, 3, 64, 64)
    quantised = prepare(model, 64)
    with torch.no_grad():
        torch.testing.assert_close(quantised(images), model(images), atol=1e-4, rtol=1e-4)
    assert looked_at <= set(convolutions(quantised))
    assert "stages.1.blocks.1.pos_embd.token_projection" not in convolutions(quantised), "no image decides what it reads"
    again = prepare(model, 64)
    again.load_state_dict(quantised.state_dict())
