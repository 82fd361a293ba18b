"""The placement for OpenVINO on Arm: every dense convolution gives its result to one quantiser, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from octc.compress.fake_quant import WIDEST, ActivationQuantiser
from octc.compress.placement import ACL, ENGINES, convolutions, counts, is_dense, placement_of, prepare
from octc.core.errors import OctcError
from octc.train.networks.models import build_model
from tests.compress.test_placement import random_network

# convolutions in INT8, in float, quantisers on inputs, on residual sums, and behind dense convolutions that had none
GOLDEN = {"tf_efficientnet_lite0": (49, 0, 49, 9, 1), "mobilenetv4_conv_small": (45, 1, 45, 10, 1)}


@pytest.mark.parametrize("name", GOLDEN)
def test_counts_and_float_equality(name: str) -> None:
    model = random_network(name).double()
    module = prepare(model, 64, placement=ACL)
    assert tuple(counts(module).values()) == GOLDEN[name]
    assert (placement_of(module), {conv.widest for conv in convolutions(module).values()}) == (ACL, {WIDEST})
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert float((model(x) - module(x)).abs().max()) <= 1e-9


def results(module: fx.GraphModule) -> list[tuple[fx.Node, list[fx.Node]]]:
    """Each dense convolution and what reads its result, through a rectifier."""
    found = []
    for node in [node for node in module.graph.nodes if is_dense(module, node)]:
        readers = list(node.users)
        if len(readers) == 1 and isinstance(module.get_submodule(str(readers[0].target)), (nn.ReLU, nn.ReLU6)):
            readers = list(readers[0].users)
        found.append((node, readers))
    return found


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv4_conv_small", "resnet18"])
def test_every_dense_convolution_gives_codes_alone(name: str) -> None:
    module = prepare(build_model(name, 4), 64, placement=ACL)
    found = results(module)
    assert len(found) > 15
    for node, readers in found:
        assert len(readers) == 1, node
        assert isinstance(module.get_submodule(str(readers[0].target)), ActivationQuantiser), node


def test_a_smooth_activation_is_refused_with_what_runs_there() -> None:
    for name in ("efficientnet_b0", "mobilenetv3_small_050"):
        with pytest.raises(OctcError) as caught:
            prepare(build_model(name, 4), 64, placement=ACL)
        assert (caught.value.code, caught.value.place in dict(build_model(name, 4).named_modules())) == ("OCT-E102", True)
        assert "--activation relu" in caught.value.hint
        assert "--target onnx" in caught.value.hint


def test_a_checkpoint_loads_into_its_own_placement_alone() -> None:
    model = build_model("mobilenetv4_conv_small", 4)
    state = prepare(model, 64, placement=ACL).state_dict()
    prepare(model, 64, placement=ACL).load_state_dict(state)
    other = prepare(model, 64)
    assert placement_of(other) == ENGINES
    with pytest.raises(RuntimeError, match="quant_inner"):
        other.load_state_dict(state)
