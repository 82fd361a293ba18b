from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import fx, nn

from octc.compress.activation_ranges import apply_amax, read_amax
from octc.compress.calibrate import observe, set_ranges
from octc.compress.fake_quant import QuantConv2d
from octc.compress.placement import convolutions, prepare
from octc.core.errors import OctcError
from octc.train.networks.models import build_model


@pytest.fixture
def network() -> fx.GraphModule:
    torch.manual_seed(0)
    module = prepare(build_model("test_resnet", 4).eval(), 64)
    observe(module, lambda: [torch.randn(4, 3, 64, 64)])
    set_ranges(module, "max")
    return module


def state(names: list[str], value: float = 5.08) -> dict[str, torch.Tensor]:
    """As pytorch-quantization saves it: ranges of activations and of weights."""
    found = {f"{name}._input_quantizer._amax": torch.tensor(value) for name in names}
    return {**found, **{f"{name}._weight_quantizer._amax": torch.ones(8, 1, 1, 1) for name in names}}


@pytest.mark.parametrize("spelling", ["{}", "module.{}"])
def test_ranges_become_scales(network: fx.GraphModule, tmp_path: Path, spelling: str) -> None:
    names = list(convolutions(network))
    kept = state([spelling.format(name) for name in names[:-1]])
    save_file({**kept, "fc._input_quantizer._amax": torch.tensor(3.0)}, tmp_path / "q.safetensors")
    ranges = read_amax(tmp_path / "q.safetensors")
    before = scales(network)
    told = apply_amax(network, ranges)
    after = scales(network)
    assert told["unused"] == ["fc"]
    assert len(told["kept"]) == 1
    for name in names[:-1]:
        assert after[name] == pytest.approx(5.08 / 127)
    assert after[names[-1]] == before[names[-1]] != pytest.approx(5.08 / 127)


def scales(network: fx.GraphModule) -> dict[str, float]:
    """Of the quantiser in front of each convolution."""
    found = {}
    for node in network.graph.nodes:
        if node.op == "call_module" and isinstance(network.get_submodule(node.target), QuantConv2d):
            quantiser = network.get_submodule(str(node.args[0].target))
            found[str(node.target)] = float(quantiser.scale)  # type: ignore[arg-type]
    return found


class Fork(nn.Module):
    """Two convolutions that read one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = (self.left(x) * self.right(x)).mean((2, 3))
        return y


def test_shared_quantisers_take_the_largest() -> None:
    module = prepare(Fork().eval(), 64)
    told = apply_amax(module, {"left": 1.0, "right": 2.0})
    assert told == {"taken": 1, "kept": [], "unused": []}
    assert scales(module) == {"left": pytest.approx(2 / 127), "right": pytest.approx(2 / 127)}


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"conv1.0._input_quantizer._amax": torch.tensor(0.0)}, "OCT-E404", "is 0.0: no range"),
        ({"conv1.0._input_quantizer._amax": torch.tensor(float("inf"))}, "OCT-E404", "is inf: no range"),
        ({"conv1.0._input_quantizer._amax": torch.tensor(float("nan"))}, "OCT-E404", "is nan: no range"),
        ({"conv1.0._input_quantizer._amax": torch.ones(3)}, "OCT-E307", "has 3 values"),
        ({"conv1.0.weight": torch.ones(3)}, "OCT-E307", "holds no _input_quantizer._amax"),
    ],
)
def test_what_is_no_range_is_refused(tmp_path: Path, change: dict[str, torch.Tensor], code: str, word: str) -> None:
    save_file(change, tmp_path / "q.safetensors")
    with pytest.raises(OctcError, match=word) as caught:
        read_amax(tmp_path / "q.safetensors")
    assert caught.value.code == code


def test_ranges_of_another_network_are_refused(network: fx.GraphModule) -> None:
    with pytest.raises(OctcError) as caught:
        apply_amax(network, {"blocks.0.conv": 1.0})
    assert caught.value.code == "OCT-E307"


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save(state(["conv1.0"]), tmp_path / "q.pth")
    with pytest.raises(OctcError) as caught:
        read_amax(tmp_path / "q.pth")
    assert caught.value.code == "OCT-E308"
