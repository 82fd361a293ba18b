"""Networks whose Python asks for shapes: one graph for one input size and any batch; values are refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from octc.compress.placement import prepare, set_mode
from octc.compress.trace import trace_folded
from octc.core.errors import OctcError

Body = Callable[["Net", torch.Tensor], torch.Tensor]


class Net(nn.Module):
    def __init__(self, body: Body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv, self.head, self.body = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 4), body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self, self.stem(x)).mean((2, 3)))  # type: ignore[no-any-return]


def branched(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Halved above 32 pixels."""
    return net.conv(functional.avg_pool2d(x, 2) * 3 if x.shape[-1] > 32 else x)  # type: ignore[no-any-return]


def asserted(net: Net, x: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = x.shape
    assert channels == 8, "channels"
    assert x.dim() == len(x.shape) == x.ndim
    assert height == width, f"{height} x {width}"
    torch._assert(width % 2 == 0, "even")
    return net.conv(x.view(batch, channels, height * width).view(batch, channels, height, width))  # type: ignore[no-any-return]


def looped(net: Net, x: torch.Tensor) -> torch.Tensor:
    for _ in range(x.size(2) // 16):
        x = net.conv(x) + 1
    return x


def computed(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Sizes through math, a while loop, `for` over the sizes, and a constant that is made of them."""
    side = math.ceil(x.shape[2] / 3)
    while x.shape[-1] > 8:
        x = functional.avg_pool2d(net.conv(x), 2)
    total = sum(int(n) for n in x.shape[1:])
    return net.conv(functional.interpolate(x, size=(side, side)) + torch.ones(int(side), int(side)) * total)  # type: ignore[no-any-return]


def in_parts(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Channels in four parts, however many images there are."""
    return net.conv(torch.cat([part * k for k, part in enumerate(x.split(2, 1))], 1))  # type: ignore[no-any-return]


def typed(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.conv(x * 2 if x.dtype == torch.float32 and not x.is_cuda else x)  # type: ignore[no-any-return]


def written_into(net: Net, x: torch.Tensor) -> torch.Tensor:
    """A part is written into a tensor, another one is added to in place, and what was there before is read no more."""
    y = net.conv(x).clone()
    y[:, :2] = 0
    y[:, 2:4, 1:] += x[:, :2, 1:]
    return net.conv(y) + y  # type: ignore[no-any-return]


def in_a_context(net: Net, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast(device_type=x.device.type, enabled=False):
        return net.conv(x.float())  # type: ignore[no-any-return]


def by_weights(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.conv(x) if net.conv.weight.abs().max() > 0 else x  # type: ignore[no-any-return]


def stated(net: Net, x: torch.Tensor) -> torch.Tensor:
    """A state that begins with zeros for every image, and goes from row to row."""
    state = torch.zeros(x.shape[0], 8, x.shape[3], dtype=x.dtype, device=x.device)
    places = torch.arange(x.shape[2], device=x.device) + torch.full((x.size(0), 1), 0.5)
    for row in range(4):
        state = torch.tanh(x[:, :, row] + state + places[:, None, :1])
    return net.conv(x) + state[:, :, None]  # type: ignore[no-any-return]


BODIES = [branched, asserted, looped, computed, in_parts, typed, written_into, in_a_context, by_weights, stated]


@pytest.mark.parametrize("size", [32, 64, 96])
@pytest.mark.parametrize("body", BODIES)
def test_shapes_are_answered_for_the_size_and_the_batch_stays_free(body: Body, size: int) -> None:
    net = Net(body).eval()
    graphs = trace_folded(net, size), prepare(net, size)
    set_mode(graphs[1], "off")
    for count in (1, 2, 5):
        x = torch.randn(count, 3, size, size)
        for graph in graphs:
            with torch.no_grad():
                assert torch.allclose(graph(x), net(x), atol=1e-5), count


def test_a_transformer_that_looks_at_its_shapes_is_traced() -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_vit", num_classes=4).eval()
    graph = trace_folded(net, 160)
    for count in (1, 2, 5):
        x = torch.randn(count, 3, 160, 160)
        with torch.no_grad():
            assert torch.allclose(graph(x), net(x), atol=1e-5), count


def by_value(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.conv(x if x.mean() > 0 else -x)  # type: ignore[no-any-return]


def by_value_and_shape(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.conv(x if x.sum() / x.shape[0] > x.shape[1] else -x)  # type: ignore[no-any-return]


def by_item(net: Net, x: torch.Tensor) -> torch.Tensor:
    for _ in range(int(x.amax())):
        x = net.conv(x)
    return x


def by_batch(net: Net, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([net.conv(x[k : k + 1]) for k in range(x.size(0))])


def by_batch_branch(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.conv(x * 2 if x.shape[0] > 1 else x)  # type: ignore[no-any-return]


def by_length(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.conv(x) / len(x)  # type: ignore[no-any-return]


def one_by_one(net: Net, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([net.conv(one) for one in x])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (by_value, "control flow"), (by_value_and_shape, "control flow"), (by_item, "control flow"),
        (by_batch, "number of images"), (by_batch_branch, "number of images"), (by_length, "number of images"),
        (one_by_one, "number of images"),
    ],
)  # fmt: skip
def test_values_and_the_number_of_images_are_refused_with_module_and_line(body: Body, words: str) -> None:
    with pytest.raises(OctcError) as caught:
        trace_folded(Net(body), 64)
    assert (caught.value.code, words in caught.value.message, "test_shapes.py:" in caught.value.message) == (
        "OCT-E404",
        True,
        True,
    )


def test_an_assertion_that_fails_at_this_size_is_refused_with_its_line() -> None:
    def odd(net: Net, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] % 7 == 0, "a multiple of 7"
        return net.conv(x)  # type: ignore[no-any-return]

    with pytest.raises(OctcError) as caught:
        trace_folded(Net(odd), 64)
    assert (caught.value.code, "a multiple of 7" in caught.value.message) == ("OCT-E404", True)
    assert trace_folded(Net(odd), 28) is not None
