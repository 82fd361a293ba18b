"""Networks out of their wrappers, with weights that are parameters: the copy answers as the network does in eval mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from octc.compress.ordinary import ordinary_copy
from octc.compress.placement import prepare
from octc.core.errors import OctcError


class Net(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv, self.head = conv, nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(4))
        with torch.no_grad():
            self.eval()(torch.zeros(1, 3, 64, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.conv(x))
        return y


def conv() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 8, 3, 2)


def older(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them deprecated; networks that are there have them
        made: nn.Module = getattr(torch.nn.utils, name)(conv())
    return made


def masked() -> nn.Module:
    made = conv()
    prune.l1_unstructured(made, "weight", 0.5)
    return made


KINDS: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: Net(parametrizations.weight_norm(conv())),
    "spectral norm": lambda: Net(parametrizations.spectral_norm(conv())),
    "weight norm of older torch": lambda: Net(older("weight_norm")),
    "spectral norm of older torch": lambda: Net(older("spectral_norm")),
    "a pruning mask": lambda: Net(masked()),
    "data parallel": lambda: nn.DataParallel(Net(conv())),
    "compiled": lambda: torch.compile(Net(conv()), backend="eager"),  # type: ignore[return-value]
    "half": lambda: Net(conv()).half(),
    "double": lambda: Net(conv()).double(),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_copy_answers_as_the_network_does(kind: Callable[[], nn.Module]) -> None:
    net, images = kind().eval(), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        wanted = net(images.to(next(net.parameters()).dtype)).float()
        copied = ordinary_copy(net)
        torch.testing.assert_close(copied(images), wanted, atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(prepare(copied, 64)(images), copied(images), atol=1e-5, rtol=1e-5)
    assert set(dict(copied.named_parameters())) == {"conv.weight", "conv.bias", "head.2.weight", "head.2.bias"}
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "TorchScript": (lambda: torch.jit.trace(Net(conv()), torch.zeros(1, 3, 64, 64)), "is TorchScript"),
    "TorchScript inside": (lambda: nn.Sequential(torch.jit.trace(conv(), torch.zeros(1, 3, 64, 64))), "0 of Sequential"),
    "weights alone": (lambda: Net(conv()).state_dict(), "is no network"),
    "a function": (lambda: len, "is no network"),
    "without shapes": (lambda: nn.Sequential(nn.LazyConv2d(8, 3)), "have no shape yet"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")  # deprecated; files of it are there
@pytest.mark.parametrize(("kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_network_is_refused_in_words(kind: Callable[[], Any], words: str) -> None:
    with pytest.raises(OctcError, match=words) as caught:
        ordinary_copy(kind())
    assert caught.value.code == "OCT-E404"
