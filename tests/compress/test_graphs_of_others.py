"""Graphs as others write them: the quantised graph is the network's own in float, near to it in INT8, or refused in words."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from octc.compress.calibrate import observe, set_ranges
from octc.compress.placement import prepare, set_mode
from octc.compress.rounding import round_with_compensation
from octc.core.errors import OctcError

SIZE = 64
Body = Callable[["Net", torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """A stem, what is tried, and a head that sees borders: no pooling over the whole map."""

    def __init__(self, body: Body, **parts: nn.Module) -> None:
        super().__init__()
        self.stem, self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU()), body
        self.parts = nn.ModuleDict(parts)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.body(self, self.stem(x)))
        return y


def conv(**keys: object) -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, padding=1, **keys)  # type: ignore[arg-type]


class Doubled(nn.BatchNorm2d):
    """A norm with a forward of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2 + 1


class Lowered(nn.ReLU):
    """A rectifier whose result is not above zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu() - 0.7


class Shifted(nn.Identity):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0.3 - 1


def hooked(layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda _module, _inputs, output: output * 3 + 1)
    return layer


def norm() -> nn.BatchNorm2d:
    return nn.BatchNorm2d(8)


def rectified_in_place(net: Net, x: torch.Tensor) -> torch.Tensor:
    """What is added last was written over in the meantime."""
    y = net.parts["b"](net.parts["a"](x))
    return net.parts["c"](net.parts["r"](y)) + y  # type: ignore[no-any-return]


def added_in_place(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = net.parts["a"](x)
    z = y.mul_(2)
    return net.parts["c"](z) + y  # type: ignore[no-any-return]


def swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)


def scripted() -> Net:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated; networks that are there have such functions
        function = torch.jit.script(swish)
    return Net(lambda n, x: n.parts["b"](function(n.parts["a"](x))), a=conv(), b=conv())


def set_on_itself() -> Net:
    """A forward that its class does not have."""
    net = Net(lambda n, x: n.parts["a"](x), a=conv())
    vars(net)["forward"] = types.MethodType(lambda self, x: self.head(self.body(self, self.stem(x)) * 2), net)
    return net


KINDS: dict[str, Callable[[], Net]] = {
    "one convolution, two norms": lambda: Net(
        lambda n, x: n.parts["q"](n.parts["a"](functional.relu(n.parts["p"](n.parts["a"](x))))), a=conv(), p=norm(), q=norm()
    ),
    "one convolution, with a norm and without": lambda: Net(
        lambda n, x: n.parts["a"](functional.relu(n.parts["p"](n.parts["a"](x)))), a=conv(), p=norm()
    ),
    "two convolutions, one norm": lambda: Net(
        lambda n, x: n.parts["p"](n.parts["b"](functional.relu(n.parts["p"](n.parts["a"](x))))), a=conv(), b=conv(), p=norm()
    ),
    "a weight that a function reads too": lambda: Net(
        lambda n, x: functional.conv2d(n.parts["a"](x).relu(), n.parts["a"].weight, n.parts["a"].bias, padding=1), a=conv()
    ),
    "a norm in front": lambda: Net(lambda n, x: n.parts["a"](functional.relu(n.parts["p"](x))), a=conv(), p=norm()),
    "a norm behind a concatenation": lambda: Net(
        lambda n, x: n.parts["b"](n.parts["p"](torch.cat([x, n.parts["a"](x)], 1))),
        a=conv(), b=nn.Conv2d(16, 8, 1), p=nn.BatchNorm2d(16),
    ),
    "a norm behind a transposed convolution": lambda: Net(
        lambda n, x: n.parts["a"](n.parts["p"](n.parts["t"](x))), a=conv(), p=norm(), t=nn.ConvTranspose2d(8, 8, 2, 2)
    ),
    "a norm without weights": lambda: Net(
        lambda n, x: n.parts["p"](n.parts["a"](x)), a=conv(), p=nn.BatchNorm2d(8, affine=False)
    ),
    "a norm of its own kind": lambda: Net(lambda n, x: n.parts["p"](n.parts["a"](x)), a=conv(), p=Doubled(8)),
    "a rectifier of its own kind": lambda: Net(lambda n, x: n.parts["b"](n.parts["r"](n.parts["a"](x))), a=conv(), b=conv(),
                                               r=Lowered()),
    "an identity of its own kind": lambda: Net(lambda n, x: n.parts["i"](n.parts["a"](x)), a=conv(), i=Shifted()),
    "a hook on a norm": lambda: Net(lambda n, x: n.parts["p"](n.parts["a"](x)), a=conv(), p=hooked(norm())),
    "a hook on an identity": lambda: Net(lambda n, x: n.parts["i"](n.parts["a"](x)), a=conv(), i=hooked(nn.Identity())),
    "reflected borders": lambda: Net(lambda n, x: n.parts["a"](x), a=conv(padding_mode="reflect")),
    "circular borders": lambda: Net(lambda n, x: n.parts["a"](x), a=conv(padding_mode="circular")),
    "borders by a word": lambda: Net(lambda n, x: n.parts["a"](x), a=nn.Conv2d(8, 8, 5, padding="same")),
    "no borders by a word": lambda: Net(lambda n, x: n.parts["a"](x), a=nn.Conv2d(8, 8, 3, padding="valid")),
    "an input by its name": lambda: Net(lambda n, x: n.parts["a"](input=x), a=conv()),
    "a convolution of volumes": lambda: Net(
        lambda n, x: n.parts["v"](n.parts["a"](x).unsqueeze(1)).mean(1), a=conv(), v=nn.Conv3d(1, 2, 3, padding=1)
    ),
    "a function of TorchScript": scripted,
    "a forward that was set on it": set_on_itself,
    "written over, and read again": lambda: Net(rectified_in_place, a=conv(), b=norm(), c=conv(), r=nn.ReLU(inplace=True)),
    "multiplied in place, and read again": lambda: Net(added_in_place, a=conv(), c=conv()),
}  # fmt: skip


def used(net: Net) -> Net:
    """A network that has answered three images."""
    with torch.no_grad():
        net.eval()(torch.zeros(3, 3, SIZE, SIZE))
    return net


def settled(kind: Callable[[], Net]) -> Net:
    """Random weights, and statistics that are not those of a new norm."""
    torch.manual_seed(0)
    net = kind().eval()
    for one in net.modules():
        if isinstance(one, nn.BatchNorm2d) and one.track_running_stats:
            nn.init.normal_(one.running_mean, 0, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(one.running_var, 0.5, 2)  # type: ignore[arg-type]
    return net


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_graph_is_the_network(kind: Callable[[], Net]) -> None:
    net, images = settled(kind), torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = net(images)
        quantised = prepare(net, SIZE)
        torch.testing.assert_close(quantised(images), wanted, atol=1e-4, rtol=1e-4)
        observe(quantised, lambda: [images])
        set_ranges(quantised, "max")
        round_with_compensation(quantised, lambda: [images])
        set_mode(quantised, "on")
        noise = (quantised(images) - wanted).square().mean() / wanted.var()
    assert 0 < float(noise) < 0.01


class Kept(nn.Module):
    """A hook keeps what its forward reads, of the network that it was made for and of no copy."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.kept = conv(), {}
        self.conv.register_forward_hook(lambda _module, _inputs, output: self.kept.update(found=output))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(x) + self.kept.get("found", 0)
        return found


def noisy(net: Net, x: torch.Tensor) -> torch.Tensor:
    return functional.dropout(net.parts["a"](x), 0.3)


REFUSED: dict[str, tuple[Callable[[], Net], str]] = {
    "a hook on a convolution": (lambda: Net(lambda n, x: n.parts["a"](x), a=hooked(conv())), "hooks .*: parts.a"),
    "a norm of each batch": (
        lambda: Net(lambda n, x: n.parts["p"](n.parts["a"](x)), a=conv(), p=nn.BatchNorm2d(8, track_running_stats=False)),
        "parts.p keeps no statistics",
    ),
    "a hook that keeps a tensor": (
        lambda: used(Net(lambda n, x: n.parts["k"](x), k=Kept())),
        "on 2 images.*hooks.*parts.k.conv",
    ),
    "dropout that is always on": (lambda: Net(noisy, a=conv()), "at every call"),
}


@pytest.mark.parametrize(("kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_the_network_is_refused_in_words(kind: Callable[[], Net], words: str) -> None:
    with pytest.raises(OctcError, match=words) as caught:
        prepare(settled(kind), SIZE)
    assert caught.value.code == "OCT-E404"
