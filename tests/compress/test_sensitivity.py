from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import fx, nn

from octc.compress.calibrate import observe, set_ranges
from octc.compress.placement import convolutions, input_path, prepare, quantisers, set_mode
from octc.compress.sensitivity import Trial, analyse, divergence, layer_costs, without_inplace, work
from octc.train.networks.models import build_model


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(7)
    return torch.randn(6, 3, 64, 64)


@pytest.fixture(scope="module")
def resnet(images: torch.Tensor) -> fx.GraphModule:
    """In-place ReLU and in-place additions."""
    torch.manual_seed(0)
    module = prepare(build_model("test_resnet", 4).eval(), 64)
    observe(module, lambda: [images])
    set_ranges(module, "max")
    set_mode(module, "on")
    return module


class Last(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


class Pooled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2))


def alone(module: fx.GraphModule, name: str, x: torch.Tensor, reads: str | None = "") -> torch.Tensor:
    """One convolution in INT8 by running the whole network, its quantiser before it alone."""
    set_mode(module, "off")
    conv = convolutions(module)[name]
    source = next(n.args[0] for n in module.graph.nodes if n.op == "call_module" and n.target == name)
    quantiser = None if reads is None else quantisers(module)[reads or str(source.target)]

    def before(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> torch.Tensor:
        if quantiser is None:
            return args[0]
        quantiser.mode = "on"
        found = quantiser.forward(args[0])
        quantiser.mode = "off"
        return found

    handle = conv.register_forward_pre_hook(before)
    conv.enabled = True
    with torch.no_grad():
        logits: torch.Tensor = module(x)
    handle.remove()
    set_mode(module, "on")
    return logits


def test_costs_behind_moved_codes_are_those_of_the_whole_network(images: torch.Tensor) -> None:
    """LiteRT's quantiser stands in front of the permutation that a linear layer reads."""
    torch.manual_seed(0)
    stem, wide, narrow = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 12), nn.Linear(12, 8)
    last = Last()
    module = prepare(
        nn.Sequential(stem, nn.ReLU(), last, wide, nn.ReLU(), narrow, Pooled(), nn.Linear(8, 4)).eval(), 64, placement="xnnpack"
    )
    observe(module, lambda: [images])
    set_ranges(module, "max")
    for cost in layer_costs(without_inplace(module), lambda: [images]):
        call = next(n for n in module.graph.nodes if n.op == "call_module" and n.target == cost.layer)
        path = input_path(module, call)
        set_mode(module, "off")
        with torch.no_grad():
            reference = module(images)
            expected = divergence(reference, alone(module, cost.layer, images, str(path[0].target) if path else None))
        assert cost.kl == pytest.approx(expected, rel=1e-4, abs=1e-12), cost.layer
        assert len(path) > 1 or cost.layer == "0"


def test_cached_costs_are_those_of_the_whole_network(resnet: fx.GraphModule, images: torch.Tensor) -> None:
    costs = {cost.layer: cost for cost in layer_costs(without_inplace(resnet), lambda: images.split(4))}
    assert set(costs) == set(convolutions(resnet))
    set_mode(resnet, "off")
    with torch.no_grad():
        reference = resnet(images)
    for name, cost in costs.items():
        logits = alone(resnet, name, images)
        assert cost.kl == pytest.approx(divergence(reference, logits), rel=1e-3, abs=1e-9), name
        assert cost.flips == int((reference.argmax(1) != logits.argmax(1)).sum())
    assert [c.kl for c in costs.values()] == sorted((c.kl for c in costs.values()), reverse=True)


def test_analysis_leaves_the_network_as_it_was(resnet: fx.GraphModule, images: torch.Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    with torch.no_grad():
        logits = resnet(images)
    ticks: list[int] = []
    found = analyse(resnet, lambda: images.split(4), ticks.append)
    with torch.no_grad():
        assert torch.equal(resnet(images), logits)
    assert all(torch.equal(tensor, before[name]) for name, tensor in resnet.state_dict().items())
    assert {q.mode for q in quantisers(resnet).values()} == {"on"}
    assert sum(ticks) <= work(resnet, len(images), 4)
    assert found.images == 6
    assert set(found.keep) <= {cost.layer for cost in found.costs}


class Deep(nn.Module):
    """A chain of eight convolutions; nothing goes around any of them."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 8, 8, 8, 8, 8, 8, 8, 8]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.act, self.head = nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = self.act(conv(x))
        y: torch.Tensor = self.head(x.mean((2, 3)))
        return y


@pytest.mark.parametrize("place", [1, 4, 7])
def test_a_ruined_layer_is_found_first_and_alone_mends_the_network(place: int) -> None:
    torch.manual_seed(place)
    model = Deep().eval()
    with torch.no_grad():
        for conv in model.convs:
            conv.weight *= 2.2  # type: ignore[operator]
        model.convs[place - 1].weight[::2] *= 1e4  # type: ignore[index, operator]
        model.convs[place - 1].bias[::2] *= 1e4  # type: ignore[index, operator]
        model.convs[place].weight[:, ::2] /= 1e4  # type: ignore[index, operator]
        model.head.weight *= 30
    x = torch.randn(16, 3, 64, 64) + torch.randn(16, 3, 1, 1)
    module = prepare(model, 64)
    observe(module, lambda: [x])
    set_ranges(module, "max")
    set_mode(module, "on")

    def batches() -> Iterator[torch.Tensor]:
        yield from x.split(8)

    found = analyse(module, batches)
    assert found.costs[0].layer == f"convs.{place}"
    assert found.costs[0].kl > 10 * found.costs[1].kl
    assert found.keep == (f"convs.{place}",)
    assert [len(trial.kept) for trial in found.trials] == [0, 1]
    assert found.trials[1].kl < 0.1 * found.trials[0].kl
    assert replace(found.trials[0], agreement=1.0, kl=0.0) == Trial((), 1.0, 0.0)
