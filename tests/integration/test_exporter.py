"""tests/exporter.py gives a file again for a network that is alike in everything, and a graph for one of the same form."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import export

from octc.compress.calibrate import observe, set_ranges
from octc.compress.placement import prepare
from octc.export.onnx.encoding import ENCODINGS, encode
from octc.export.onnx.float import write_onnx
from octc.imaging.preprocess import Preprocess
from octc.train.networks.models import build_model
from tests.exporter import ALIKE, key_of

PRE = Preprocess(16)
OPTIONS = {
    "dynamo": True, "opset_version": 20, "input_names": ["image"], "output_names": ["logits"],
    "dynamic_shapes": ({0: torch.export.Dim("batch")},), "external_data": False, "verbose": False,
}  # fmt: skip


class Net(nn.Module):
    """A network with an attribute that is no tensor, and a tensor that is no parameter or buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.head, self.slope = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2), 0.1
        self.more, self.shift = nn.Parameter(torch.ones(2, 4)), torch.tensor([0.5, -0.5])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.leaky_relu(self.norm(self.conv(x)), self.slope)
        answers: torch.Tensor = self.head(x.mean((2, 3))) + self.shift + self.more.sum()
        return answers


def changed(change: Callable[[Net], Any]) -> Net:
    net = Net()
    change(net)
    return net


def key(net: nn.Module, **more: Any) -> str | None:
    return key_of(net, (torch.zeros(2, 3, 16, 16),), {**OPTIONS, **more})


def test_another_weight_attribute_layer_or_option_is_another_network() -> None:
    with torch.no_grad():
        others = [
            changed(lambda net: net.conv.weight[0, 0, 0].add_(1e-3)),
            changed(lambda net: setattr(net, "slope", 0.2)),
            changed(lambda net: setattr(net, "conv", nn.Conv2d(3, 4, 3, padding=1))),
            changed(lambda net: net.eval()),
            changed(lambda net: setattr(net.head, "bias", None)),
        ]
    keys = [key(Net()), *map(key, others), key(Net(), opset_version=19), key(Net(), output_names=["other"])]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert key(copy.deepcopy(Net())) == key(Net()) == keys[0]


def test_networks_of_one_form_differ_in_the_values_of_parameters_and_buffers_alone() -> None:
    def form(net: nn.Module) -> str | None:
        return key_of(net, (torch.zeros(2, 3, 16, 16),), OPTIONS, values=False)

    with torch.no_grad():
        alike = [
            changed(lambda net: net.conv.weight[0, 0, 0].add_(1e-3)),
            changed(lambda net: net.norm.running_mean.add_(1)),
        ]
        others = [
            changed(lambda net: setattr(net, "slope", 0.2)),
            changed(lambda net: net.shift.add_(1)),  # a tensor that is neither: it is a constant of the trace
            changed(lambda net: net.conv.double()),
            changed(lambda net: net.conv.requires_grad_(False)),
            changed(lambda net: net.eval()),
            changed(lambda net: setattr(net.head, "weight", net.more)),
        ]
    assert {form(net) for net in alike} == {form(Net())} != {None}
    forms = [form(Net()), *map(form, others)]
    assert None not in forms
    assert len(set(forms)) == len(forms)


def test_two_tensors_that_are_one_are_another_network_than_two_that_are_alike() -> None:
    def alike(net: Net) -> None:
        net.again = nn.Parameter(net.head.weight.detach().clone())

    def shared(net: Net) -> None:
        net.again = net.head.weight

    assert key(changed(alike)) != key(changed(shared))


def test_what_cannot_be_told_whole_or_is_asked_for_otherwise_is_exported_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local(Net):
        pass

    assert key(Local()) is None
    assert key(changed(lambda net: net.register_forward_hook(lambda *_: None))) is None
    for name in (*ALIKE, "dynamic_shapes"):
        assert key_of(Net(), (), {kept: value for kept, value in OPTIONS.items() if kept != name}) is None
    assert key(Net(), dynamo=False) is None
    monkeypatch.delenv("WARM_EXPORTS")
    assert key(Net()) is None


def test_the_file_that_is_given_again_is_the_one_that_torch_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, plain = (tmp_path / name for name in ("first.onnx", "again.onnx", "plain.onnx"))
    for path in (first, again):
        write_onnx(Net(), PRE, path, 20)
    monkeypatch.setattr(torch.onnx, "export", torch.onnx.export.__wrapped__)  # type: ignore[attr-defined]
    write_onnx(Net(), PRE, plain, 20)
    assert first.read_bytes() == again.read_bytes() == plain.read_bytes()


def quantised(seed: int) -> nn.Module:
    """timm's smallest ResNet with every quantiser as its file has it."""
    torch.manual_seed(seed)
    module = prepare(build_model("test_resnet", 4).eval(), 32)
    observe(module, lambda: [torch.randn(4, 3, 32, 32)])
    set_ranges(module, "max")
    return encode(module, ENCODINGS["mixed"], opset=20)


def other_network(seed: int) -> Net:
    net = Net()
    with torch.no_grad():
        for place, one in enumerate((*net.parameters(), net.norm.running_mean, net.norm.running_var)):
            one.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(seed + place))
    return net


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("make", [other_network, quantised], ids=["float", "quantised"])
def test_the_graph_that_is_given_again_becomes_the_file_that_torch_writes(
    make: Callable[[int], nn.Module], opset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again, plain = (tmp_path / name for name in ("first.onnx", "again.onnx", "plain.onnx"))
    write_onnx(make(1), PRE, first, opset)
    traced = []
    monkeypatch.setattr(torch.export, "export", lambda *words, **more: traced.append(words) or export(*words, **more))
    write_onnx(make(2), PRE, again, opset)
    assert not traced
    monkeypatch.setattr(torch.onnx, "export", torch.onnx.export.__wrapped__)  # type: ignore[attr-defined]
    write_onnx(make(2), PRE, plain, opset)
    assert traced
    assert first.read_bytes() != again.read_bytes() == plain.read_bytes()
