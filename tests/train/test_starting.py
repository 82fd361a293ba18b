"""A network that loses parts before its training: start weights belong to the whole one, and what stays is what they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from octc.core.errors import OctcError
from octc.schemas.simplified import ChannelStep, GateStep, read_steps, steps_json
from octc.train.networks import starting
from octc.train.networks.models import build_model
from octc.train.networks.squeeze_excite import mean_gates
from octc.train.networks.starting import start_network
from octc.train.recipes.config import Stage

NAME = "test_efficientnet"
GATES = [name for name, part in build_model(NAME, 4).named_modules() if type(part).__name__ == "SqueezeExcite"]
RNG = torch.Generator().manual_seed(0)
BATCHES = [1 + 2 * torch.randn(8, 3, 64, 64, generator=RNG) for _ in range(2)]


def images() -> Iterator[torch.Tensor]:
    return iter(BATCHES)


def stage(steps: list[Any], weights: str = "hub") -> Stage:
    return Stage(model=NAME, weights=weights, size=64, epochs=1, lr=1e-3, model_kwargs={"simplified": steps_json(steps)})


def cut(removed: list[int]) -> ChannelStep:
    """Channels of the first block go."""
    layers = {name for name, _ in build_model(NAME, 4).named_modules()}
    assert "blocks.0.0.conv" in layers
    (step,) = read_steps(
        [{"step": "channels", "groups": [{"removed": removed, "out": ["conv_stem", "bn1"], "into": ["blocks.0.0.conv"]}]}]
    )
    assert isinstance(step, ChannelStep)
    return step


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A network that has learnt something; what stands for the weights of the hub gives its weights."""
    torch.manual_seed(1)
    model = build_model(NAME, 4)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.2, 0.2)

    def load(other: nn.Module, *_: Any) -> dict[str, Any]:
        other.load_state_dict(model.state_dict())
        return {"source": "timm test", "licence": "none"}

    monkeypatch.setattr(starting, "start_weights", load)
    return model.eval()


def test_mean_gates_of_training_images_go_into_the_weights_and_norms_are_estimated_anew(learned: nn.Module) -> None:
    assert GATES
    network, source = start_network(stage([GateStep(modules=GATES)]), 4, None, False, images)
    assert source == {"source": "timm test", "licence": "none", "changed": f"{len(GATES)} squeeze-excite out"}
    gates = mean_gates(learned, images)
    assert sorted(gates) == sorted(GATES)
    for name, gate in gates.items():
        block = name.rpartition(".")[0]
        before, after = (one.get_submodule(f"{block}.conv_pwl").weight for one in (learned, network))
        assert torch.allclose(after, before * gate.view(1, -1, 1, 1), rtol=1e-4, atol=1e-7)
        assert isinstance(network.get_submodule(name), nn.Identity)
    with torch.no_grad():
        maps = torch.cat([network.conv_stem(batch) for batch in BATCHES])
    assert torch.allclose(network.bn1.running_mean, maps.mean((0, 2, 3)), atol=1e-4)
    assert network.training


def test_channels_are_cut_from_the_start_weights(learned: nn.Module) -> None:
    network, source = start_network(stage([cut([0, 2])]), 4, None, False, images)
    kept = [k for k in range(learned.conv_stem.out_channels) if k not in (0, 2)]
    assert torch.equal(network.conv_stem.weight, learned.conv_stem.weight[kept])
    assert torch.equal(network.blocks[0][0].conv.weight, learned.blocks[0][0].conv.weight[:, kept])
    assert source["changed"] == "channels out"


def test_a_network_at_random_loses_its_parts_and_looks_at_no_image() -> None:
    def none() -> Iterator[torch.Tensor]:
        raise AssertionError

    steps = [GateStep(modules=GATES), cut([1])]
    torch.manual_seed(2)
    network, source = start_network(stage(steps, "none"), 4, None, False, none)
    torch.manual_seed(2)
    same = build_model(NAME, 4, simplified=steps_json(steps))
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in network.state_dict().items())
    assert source["source"] == "random"
    torch.manual_seed(2)
    plain, source = start_network(replace(stage([], "none"), model_kwargs={}), 4, None, False, none)
    torch.manual_seed(2)
    assert torch.equal(plain.conv_stem.weight, build_model(NAME, 4).conv_stem.weight)
    assert source == {"source": "random", "licence": "none"}


def test_a_file_is_one_of_the_changed_network(tmp_path: Path) -> None:
    steps = [GateStep(modules=GATES), cut([1])]
    changed = build_model(NAME, 4, simplified=steps_json(steps))
    save_file(changed.state_dict(), tmp_path / "changed.safetensors")
    network, _ = start_network(stage(steps), 4, tmp_path / "changed.safetensors", False, images)
    assert torch.equal(network.conv_stem.weight, changed.conv_stem.weight)
    save_file(build_model(NAME, 4).state_dict(), tmp_path / "whole.safetensors")
    with pytest.raises(OctcError) as error:
        start_network(stage(steps), 4, tmp_path / "whole.safetensors", False, images)
    assert error.value.code == "OCT-E307"


def test_changes_of_another_network_are_refused(learned: nn.Module) -> None:
    with pytest.raises(OctcError) as error:
        start_network(stage([GateStep(modules=["no.such"])]), 4, None, False, images)
    assert error.value.code == "OCT-E307"
