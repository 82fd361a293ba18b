"""What a network loses before it is trained: which channels, how many, and that weights do not decide its widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from octc.compress.simplify.pruning import choose_evenly, find_groups
from octc.compress.simplify.untrained import structure_steps, weight_importance
from octc.core.errors import OctcError
from octc.schemas.simplified import ChannelStep, GateStep, steps_json
from octc.train.networks.macs import count_macs
from octc.train.networks.models import build_model


class Chain(nn.Module):
    """A group with two norms and a depthwise convolution between them, one without a norm, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.wise, self.norm_b = nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6)
        self.b = nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm_b(self.wise(self.norm_a(self.a(x)).relu())).relu()
        return self.fc(self.b(x).relu().mean((2, 3)))  # type: ignore[no-any-return]


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def test_importance_is_the_scales_that_give_a_channel_times_the_weights_that_read_it() -> None:
    torch.manual_seed(0)
    model = Chain().eval()
    for norm in (model.norm_a, model.norm_b):
        nn.init.uniform_(norm.weight, -1, 1)
    groups = find_groups(model, 16)
    found = {group.count: score for group, score in zip(groups, weight_importance(model, groups), strict=True)}
    with torch.no_grad():
        first = (model.norm_a.weight.double() ** 2 + model.norm_b.weight.double() ** 2) * (model.b.weight.double() ** 2).sum(
            (0, 2, 3)
        )
        second = (model.b.weight.double() ** 2).sum((1, 2, 3)) * (model.fc.weight.double() ** 2).sum(0)
    assert torch.allclose(found[6], first)
    assert torch.allclose(found[4], second)


def test_every_group_loses_the_same_share_its_least_important_channels_first() -> None:
    scores = [torch.arange(64.0), 1e6 + torch.arange(32.0), torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.arange(24.0)]
    one, other, small, middle = choose_evenly(scores, 0.5)
    assert (one, other, small) == (list(range(32)), list(range(16)), [1, 3])
    assert middle == list(range(8)), "of twelve, so that a multiple of eight stays"
    assert [len(gone) for gone in choose_evenly(scores, 0.75)] == [48, 24, 3, 16]
    with pytest.raises(OctcError) as error:
        choose_evenly(scores, 0.8)
    assert error.value.code == "OCT-E104"


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_widths_hang_on_the_share_alone_and_steps_build_the_network_again(name: str) -> None:
    torch.manual_seed(0)
    found = []
    for learned in (True, False):
        model = build_model(name, 4)
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.1, 1.0)
        whole = count_macs(model, 32)
        steps = structure_steps(model, 32, no_se=name == "test_efficientnet", share=0.5, learned=learned)
        built = build_model(name, 4, simplified=steps_json(steps))
        assert shapes(built) == shapes(model)
        assert count_macs(built, 32) == count_macs(model, 32) < 0.5 * whole
        found.append((shapes(model), steps))
    assert found[0][0] == found[1][0]
    assert found[0][1] != found[1][1], "which channels go, the weights say"
    if name == "test_efficientnet":
        gates, _ = found[0][1]
        assert isinstance(gates, GateStep)
        assert gates.modules == ["blocks.3.0.se", "blocks.4.0.se"], "at 32 px too, where the last map is one value"
    assert isinstance(found[0][1][-1], ChannelStep)


def test_a_channel_that_weighs_nothing_goes_first() -> None:
    torch.manual_seed(0)
    model = Chain()
    with torch.no_grad():
        model.norm_a.weight[2] = model.norm_b.weight[2] = 0
        model.norm_a.weight[5] = model.norm_b.weight[5] = 0
        kept = model.a.weight[[0, 1, 3, 4]].clone()
    structure_steps(model, 16, no_se=False, share=0.34, learned=True)
    assert torch.equal(model.a.weight, kept)


class Shared(nn.Module):
    """Two gates; behind one of them the map is read by a pooling too, past the convolution: it cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.free = nn.Conv2d(3, 8, 1), Gate(8)
        self.second, self.bound = nn.Conv2d(8, 8, 1), Gate(8)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bound(self.second(self.free(self.first(x))))
        return self.last(x).mean((2, 3)) + x.mean((2, 3))[:, :4]


class Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc(x.mean((2, 3), keepdim=True)).sigmoid()


@pytest.mark.parametrize(
    ("model", "wanted", "code"),
    [
        (lambda: build_model("test_resnet", 4), {"no_se": True, "share": 0.0}, "OCT-E413"),
        (Shared, {"no_se": True, "share": 0.0}, "OCT-E413"),
        (lambda: build_model("test_resnet", 4), {"no_se": False, "share": 0.01}, "OCT-E413"),
        (lambda: build_model("test_vit", 4, img_size=32), {"no_se": False, "share": 0.5}, "OCT-E413"),
        (lambda: build_model("test_resnet", 4), {"no_se": False, "share": 0.9}, "OCT-E104"),
    ],
)
def test_what_cannot_go_is_refused(model: Any, wanted: dict[str, Any], code: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(OctcError) as error:
        structure_steps(model(), 32, learned=True, **wanted)
    assert error.value.code == code
