"""A network made simpler: what is folded and cut gives what was promised, and is rebuilt from data."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import octc
from octc.compress.simplify.activation import activation_step
from octc.compress.simplify.pruning import (
    channel_macs,
    channel_step,
    choose_channels,
    cut_channels,
    find_groups,
    importance,
    importance_per_mac,
)
from octc.compress.simplify.steps import SHARES, Calibration, Wanted, lots, make_step, preview, share_within
from octc.core.errors import OctcError
from octc.imaging.preprocess import Preprocess
from octc.schemas.simplified import steps_json
from octc.train.networks.macs import count_macs
from octc.train.networks.models import build_model
from octc.train.networks.simplified import apply_steps
from octc.train.networks.squeeze_excite import fold_gates, mean_gates
from tests.house.tree import ROOT

PRE = Preprocess(64)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (16, 1, 64, 64), dtype=np.uint8)
PICTURES = [Image.fromarray(one[0]) for one in IMAGES]
X = torch.from_numpy(RNG.normal(size=(4, 3, 64, 64)).astype(np.float32))
Y = torch.tensor([0, 1, 2, 3])


def network(name: str) -> nn.Module:
    """One with norms that do something, as after a training."""
    torch.manual_seed(0)
    model = build_model(name, 4).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.2, 0.2)
    return model


def of(one: OctcError) -> tuple[str, int]:
    return one.code, one.exit_code


class Squeeze(nn.Module):
    """A gate by hand: the mean of each channel, doubled, through a sigmoid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.fc.bias)
        self.fc.weight.data = 2 * torch.eye(width)[:, :, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc(x.mean((2, 3), keepdim=True)).sigmoid()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 4, 1), Squeeze(4), nn.Conv2d(4, 5, 3, padding=1, groups=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.gate(self.first(x))).mean((2, 3))


@torch.no_grad()
def test_mean_gates_are_those_that_are_computed_by_hand_and_go_into_the_next_convolution() -> None:
    torch.manual_seed(1)
    model = Small().eval()
    expected = (2 * model.first(X).mean((2, 3))).sigmoid().mean(0)
    before = model.last.weight.clone()
    assert torch.allclose(mean_gates(model, lambda: [X[:1], X[1:]])["gate"], expected, atol=1e-5)
    constant = model.last(model.first(X) * expected.view(1, -1, 1, 1)).mean((2, 3))
    found = fold_gates(model, lambda: [X[:1], X[1:]])
    assert found.into == {"gate": ["last"]}
    assert torch.allclose(model.last.weight, before * expected.view(1, -1, 1, 1), atol=1e-5)
    assert isinstance(model.gate, nn.Identity)
    assert torch.allclose(model(X), constant, atol=1e-5)


@pytest.mark.parametrize(("name", "layer"), [("test_efficientnet", "conv_pwl"), ("seresnet18", "bn2")])
def test_gates_of_timm_go_into_the_convolution_behind_or_the_norm_in_front(name: str, layer: str) -> None:
    model = network(name)
    found = fold_gates(model, lambda: [X])
    assert not found.kept
    assert {layers[0].rsplit(".", 1)[1] for layers in found.into.values()} == {layer}
    assert all(0 < float(gate.min()) <= float(gate.max()) < 1 for gate in found.gates.values())


def test_every_silu_is_replaced_and_nothing_else_changes() -> None:
    model = network("test_efficientnet")
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    step = activation_step(model, "hard-swish")
    apply_steps(model, [step])
    kinds = [type(part).__name__ for part in model.modules()]
    assert (kinds.count("SiLU"), kinds.count("Hardswish")) == (0, len(step.modules))
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


class Several(nn.Module):
    """One activation, and one gate, in two places."""

    def __init__(self) -> None:
        super().__init__()
        act, gate = nn.SiLU(), Squeeze(16)
        self.c1, self.a1, self.g1 = nn.Conv2d(3, 16, 3, 2, 1), act, gate
        self.c2, self.a2, self.g2 = nn.Conv2d(16, 16, 3, 2, 1), act, gate
        self.c3, self.fc = nn.Conv2d(16, 16, 3, 2, 1), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.g1(self.a1(self.c1(x)))
        return self.fc(self.c3(self.g2(self.a2(self.c2(x)))).mean((2, 3)))


def test_a_module_in_several_places_is_replaced_in_all_of_them_and_its_gates_are_none() -> None:
    torch.manual_seed(0)
    model = Several()
    made = octc.simplify(model, PICTURES, PRE, octc.Simplification(activation="relu"))
    assert [type(part).__name__ for part in (made.module.a1, made.module.a2)] == ["ReLU", "ReLU"]
    again = octc.rebuild_simplified(Several(), made.steps)
    again.load_state_dict(made.module.state_dict())
    assert torch.equal(again.eval()(X), made.module(X))
    assert mean_gates(model, lambda: [X]) == {}, "two places have gates of their own"


class Plain(nn.Module):
    """A gate behind a norm without weights, whose output no convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.gate = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8, affine=False), Squeeze(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.gate(self.norm(self.conv(x))).mean((2, 3)))


def test_a_gate_that_nothing_can_take_stays() -> None:
    with pytest.raises(OctcError) as caught:
        octc.simplify(Plain(), PICTURES, PRE, octc.Simplification(no_se=True))
    assert of(caught.value) == ("OCT-E413", 2)


@pytest.mark.parametrize("label", [4, -1, "bright", 0.5, None])
def test_labels_that_are_no_class_are_refused(label: Any) -> None:
    wanted = octc.Simplification(prune=0.5)
    with pytest.raises(OctcError) as caught:
        octc.simplify(network("test_resnet"), PICTURES, PRE, wanted, labels=[label] * len(PICTURES))
    assert of(caught.value) == ("OCT-E706", 3)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "densenet121"])
def test_a_cut_network_is_the_one_whose_channels_are_zero(name: str) -> None:
    """Scale and shift of a channel zero: ReLU and SiLU give zero for it, and what reads it gets nothing."""
    model = network(name)
    groups = find_groups(model, 64)
    chosen = choose_channels(importance(model, groups, [(X, Y)]), 0.5)
    zeroed = copy.deepcopy(model)
    with torch.no_grad():
        for group, channels in zip(groups, chosen, strict=True):
            for member in (one for one in group.members if one.gives):
                rows = [i for c, i in zip(member.channel, member.index, strict=True) if c in set(channels)]
                for values in zeroed.get_submodule(member.name).parameters(recurse=False):
                    values[rows] = 0
        step = channel_step(groups, chosen)
        assert step is not None
        stored = json.loads(json.dumps(steps_json([step])))
        apply_steps(model, [step])
        assert torch.allclose(model(X), zeroed(X), atol=1e-5)
        assert sum(p.numel() for p in model.parameters()) < 0.8 * sum(p.numel() for p in zeroed.parameters())
        again = build_model(name, 4, simplified=stored).eval()
        again.load_state_dict(model.state_dict())
        assert torch.equal(again(X), model(X))


def test_importance_is_the_squared_first_order_change_of_the_loss() -> None:
    """Of a channel whose scale and shift shrink by a small share, the loss changes by that share of g * w."""
    model = network("test_resnet")
    groups = find_groups(model, 64)
    number = max(range(len(groups)), key=lambda i: groups[i].count)
    scores = importance(model, groups, [(X, Y)])
    channel, share = int(scores[number].argmax()), 1e-3
    smaller = copy.deepcopy(model).double()
    members = [one for one in groups[number].members if one.gives]
    norms = [smaller.get_submodule(one.name) for one in members if isinstance(model.get_submodule(one.name), nn.BatchNorm2d)]
    loss = lambda: float(nn.functional.cross_entropy(smaller(X.double()), Y))  # noqa: E731
    with torch.no_grad():
        before = loss()
        for norm in norms:
            norm.weight[channel] *= 1 - share
            norm.bias[channel] *= 1 - share
        changed = (loss() - before) / share
    assert float(scores[number][channel]) == pytest.approx(changed**2, rel=0.02)
    assert not any(one.grad is not None for one in model.parameters())


class Sliced(nn.Module):
    """Two convolutions side by side, of whose channels so many are taken as the network was made for; then another two."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.width = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 16, 3), 24
        self.behind, self.last = nn.Conv2d(24, 32, 3), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.one(x), self.other(x)], 1)[:, : self.width].relu()
        return self.last(self.behind(both).relu().mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", [Sliced(), network("test_nfnet")], ids=["slices", "gains"])
def test_channels_that_cannot_go_stay(model: nn.Module) -> None:
    groups = find_groups(copy.deepcopy(model), 64)
    scores = [torch.rand(one.count, generator=torch.Generator().manual_seed(k)) for k, one in enumerate(groups)]
    smaller = copy.deepcopy(model)
    assert cut_channels(smaller, groups, choose_channels(scores, 0.5), 64) is not None
    with torch.no_grad():
        assert smaller(X).shape == (4, 4)
    if isinstance(smaller, Sliced):
        assert (smaller.one.out_channels, smaller.behind.in_channels, smaller.last.in_features) == (16, 24, 16)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "mobilenetv4_conv_small_050", "regnety_002"])
def test_the_arithmetic_of_a_channel_is_what_goes_with_it(name: str) -> None:
    model = network(name)
    groups = find_groups(copy.deepcopy(model), 64)
    macs, whole = channel_macs(model, groups, 64), count_macs(model, 64)
    for number in range(0, len(groups), 3):
        cut = channel_step(groups, [[0] if k == number else [] for k in range(len(groups))])
        assert cut is not None
        smaller = copy.deepcopy(model)
        apply_steps(smaller, [cut])
        assert whole - count_macs(smaller, 64) == macs[number][0]


def test_of_channels_that_matter_alike_those_that_cost_more_go_first() -> None:
    model = network("test_efficientnet")
    known = Calibration(IMAGES, list(RNG.integers(0, 4, 16)), PRE)
    groups = find_groups(copy.deepcopy(model), 64)
    plain = importance(model, groups, known.labelled())
    each = importance_per_mac(model, groups, known.labelled(), 64)
    macs = channel_macs(model, groups, 64)
    assert all(torch.allclose(a * c, b) for a, b, c in zip(each, plain, macs, strict=True))
    left = []
    for scores in (plain, each):
        cut, smaller = channel_step(groups, choose_channels(scores, 0.25)), copy.deepcopy(model)
        assert cut is not None
        apply_steps(smaller, [cut])
        left.append(count_macs(smaller, 64))
    made = copy.deepcopy(model)
    make_step(made, Wanted("channels", share=0.25), known)
    assert left[1] < 0.8 * left[0]
    assert count_macs(made, 64) == left[1]


def test_least_important_channels_go_first_layers_keep_a_quarter_and_multiples_of_eight() -> None:
    scores = [torch.arange(32.0), torch.arange(32.0) + 100, torch.full((6,), 1e-9)]
    first, second, third = choose_channels(scores, 0.35)
    assert first == list(range(16))  # of twenty, so that a multiple of eight stays
    assert second == []
    assert third == [0, 1, 2, 3]  # six channels are cut exactly, and two of them stay
    assert [round(one, 3) for one in lots(0.5)] == [0.25, 0.333]
    assert lots(0.2) == [0.2]
    for wrong in (0.0, -1.0, 0.8):
        with pytest.raises(OctcError) as error:
            choose_channels(scores, wrong)
        assert of(error.value) == ("OCT-E104", 2)


def test_a_budget_takes_the_smallest_share_that_is_quick_enough() -> None:
    model = network("test_resnet")
    known = Calibration(IMAGES, list(RNG.integers(0, 4, 16)), PRE)
    whole = sum(p.numel() for p in model.parameters())
    sizes = {}
    latency = lambda one: 10 * sum(p.numel() for p in one.parameters()) / whole  # noqa: E731
    for share in SHARES:
        smaller = copy.deepcopy(model)
        make_step(smaller, Wanted("channels", share=share), known, refresh=False)
        sizes[share] = latency(smaller)
    budget = sizes[0.5] + 1e-6
    share, rows = share_within(model, known, budget, latency)
    assert share == next(one for one in SHARES if sizes[one] <= budget)
    assert rows[0] == {"share": 0.0, "ms": 10.0}
    assert share_within(model, known, 11.0, latency)[0] == 0.0
    with pytest.raises(OctcError) as error:
        share_within(model, known, 0.001, latency)
    assert of(error.value) == ("OCT-E604", 1)


@pytest.mark.parametrize(
    ("name", "wanted", "code"),
    [
        ("test_resnet", Wanted("activation", to="relu"), "OCT-E413"),
        ("test_resnet", Wanted("squeeze-excite"), "OCT-E413"),
        ("test_efficientnet", Wanted("activation", to="tanh"), "OCT-E104"),
        ("test_efficientnet", Wanted("channels", share=0.9), "OCT-E104"),
        ("test_vit", Wanted("activation", to="relu"), "OCT-E413"),
        ("test_convnext", Wanted("channels", share=0.5), "OCT-E413"),
    ],
)
def test_what_a_network_has_not_is_refused_before_any_work(name: str, wanted: Wanted, code: str) -> None:
    model = build_model(name, 4, **({"img_size": 64} if name == "test_vit" else {}))
    with pytest.raises(OctcError) as error:
        preview(model, [wanted], 64)
    assert error.value.code == code


@pytest.mark.parametrize(
    "stored",
    [
        [{"step": "activation", "to": "hard-swish", "modules": ["no.such"]}],
        [{"step": "channels", "groups": [{"removed": [9999], "out": ["conv_stem"], "into": []}]}],
        [{"step": "channels", "groups": [{"removed": [0], "out": ["act1"], "into": []}]}],
        [{"step": "something", "modules": ["a"]}],
        "text",
    ],
)
def test_a_simplification_of_another_network_is_refused(stored: Any) -> None:
    with pytest.raises(OctcError) as error:
        build_model("test_efficientnet", 4, simplified=stored)
    assert error.value.code == "OCT-E307"


def test_a_network_of_ones_own_is_made_simpler_rebuilt_and_left_as_it_was() -> None:
    model = timm.create_model("test_efficientnet", num_classes=4).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pictures = [Image.fromarray(one[0]) for one in IMAGES]
    told: list[str] = []
    wanted = octc.Simplification(activation="hard-swish", no_se=True, prune=0.4)
    small = octc.simplify(
        model,
        pictures,
        PRE,
        wanted,
        tune=lambda _net, name: told.append(name),
        keep=lambda _net, name: name != "squeeze-excite",
    )
    assert told == ["activation", "squeeze-excite", "channels"]
    assert [fact["kept"] for fact in small.facts] == [True, False, True]
    assert [step["step"] for step in small.steps] == ["activation", "channels"]
    assert small.facts[2]["macs"][1] < small.facts[2]["macs"][0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = octc.rebuild_simplified(model, json.loads(json.dumps(small.steps)))
    again.load_state_dict(small.module.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(X), small.module(X))
    for fields in ({}, {"prune": 0.5, "budget_ms": 3.0, "latency": float}, {"budget_ms": 3.0}):
        with pytest.raises(OctcError) as error:
            octc.Simplification(**fields)  # type: ignore[arg-type]
        assert error.value.code == "OCT-E102"
    with pytest.raises(OctcError) as error:
        octc.simplify(model, pictures[:3], PRE, wanted)
    assert error.value.code == "OCT-E214"


def test_the_python_of_the_page_runs_and_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "simplify.md").read_text(encoding="utf-8")
    ((code, shown),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.S)
    exec(compile(code, "docs/simplify.md", "exec"), {"images": [Image.fromarray(one[0]) for one in IMAGES]})
    assert capsys.readouterr().out == shown
