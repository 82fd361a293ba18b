from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import fx, nn

from octc.compress.calibrate import observe, set_ranges
from octc.compress.fake_quant import ActivationQuantiser, learn_steps, learned_step
from octc.compress.finetune import anchored_loss, damping_loss
from octc.compress.placement import convolutions, prepare, quantisers, set_mode
from octc.export.onnx.encoding import ENCODINGS, encode
from octc.train.networks.models import build_model
from octc.train.recipes.config import Quantisation


@pytest.fixture
def network() -> fx.GraphModule:
    torch.manual_seed(0)
    model = build_model("test_resnet", 4).eval()
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        nn.init.ones_(norm.weight)  # the last one of a block begins at zero, and nothing would pass it
    module = prepare(model, 64).requires_grad_(True)
    x = torch.randn(4, 3, 64, 64)
    observe(module, lambda: [x])
    set_ranges(module, "max")
    set_mode(module, "on")
    return module


def test_gradients_are_those_of_the_paper() -> None:
    """Equations 3 and 5 of LSQ, value by value: s = 0.5, codes -4..3."""
    x = torch.tensor([0.6, -0.1, 1.3, 9.0, -9.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    y = learned_step(x, scale, -4, 3)
    assert y.tolist() == pytest.approx([0.5, 0.0, 1.5, 1.5, -2.0])
    upstream = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    y.backward(upstream)
    v = x.detach() / 0.5
    inside = [1 - 1.2, 0 - -0.2, 3 - 2.6]
    expected = sum(g * d for g, d in zip(upstream.tolist(), [*inside, 3, -4], strict=True)) / math.sqrt(5 * 3)
    assert v.tolist() == pytest.approx([1.2, -0.2, 2.6, 18.0, -18.0])
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(expected, rel=1e-5)
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([1.0, 2.0, 3.0, 0.0, 0.0])


def test_learning_begins_at_the_calibrated_network(network: fx.GraphModule) -> None:
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = network(x)
    keys = set(network.state_dict())
    learn_steps(network)
    with torch.no_grad():
        assert torch.equal(network(x), before)
    assert (network(x) - before).abs().max() < 2e-2 * (before.max() - before.min())  # the same grid by other kernels
    new = set(network.state_dict()) - keys
    assert new == {f"{name}.step" for name in convolutions(network)}


def test_every_scale_learns_and_the_result_is_what_is_exported(network: fx.GraphModule) -> None:
    learn_steps(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    before = {name: float(q.scale.detach()) for name, q in quantisers(network).items()}
    network(torch.randn(4, 3, 64, 64)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    optimizer.step()
    assert all(float(q.scale.detach()) != before[name] for name, q in quantisers(network).items())
    again = prepare(build_model("test_resnet", 4).eval(), 64)
    learn_steps(again)
    again.load_state_dict(network.state_dict())
    set_mode(again, "on")
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x), network.eval()(x))
        set_mode(network, "on", residual=False)
        written = encode(again, replace(ENCODINGS["int8"], packed=False))(x)
        assert torch.allclose(written, network(x), atol=1e-4)


def test_a_scale_that_crosses_zero_stays_a_grid() -> None:
    quantiser = ActivationQuantiser("input")
    quantiser.scale.fill_(0.5)
    learn_steps(quantiser)
    with torch.no_grad():
        quantiser.scale.fill_(0.0)
    quantiser.mode = "on"
    assert torch.isfinite(quantiser(torch.ones(1, 1, 2, 2))).all()


def test_damping_pulls_weights_to_their_grid(network: fx.GraphModule) -> None:
    distance = damping_loss(network)
    assert 0 < distance.item() < 0.25
    distance.backward()
    with torch.no_grad():
        for conv in convolutions(network).values():
            conv.conv.weight -= 2e2 * conv.weight_scale().view(-1, 1, 1, 1) ** 2 * conv.conv.weight.grad
    assert damping_loss(network).item() < distance.item()
    how = Quantisation(damping=0.5)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        total, parts = anchored_loss(network, None, how, network)(network(x), x, torch.zeros(2))
        plain, _ = anchored_loss(network, None, replace(how, damping=0.0), network)(network(x), x, torch.zeros(2))
    assert float(total - plain) == pytest.approx(0.5 * float(parts["damping"]), rel=1e-3)
