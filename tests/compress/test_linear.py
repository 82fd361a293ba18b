"""Linear layers of tokens and maps become convolutions with the same answers; those of rows stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from octc.compress.fake_quant import QuantConv2d
from octc.compress.linear import as_convolutions
from octc.compress.placement import int8_share, prepare
from octc.compress.trace import trace_folded

SIZE = 32
X = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32))


class Maps(nn.Module):
    """As ConvNeXt: channels last around two linear layers, and a head of rows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.wide, self.narrow = nn.Linear(8, 16), nn.Linear(16, 8, bias=False)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.narrow(torch.relu(self.wide(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        logits: torch.Tensor = self.head((x + y).mean((2, 3)))
        return logits


class Tokens(nn.Module):
    """As a transformer: three layers read one tensor, a fourth one is called twice, a fifth one has rows too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.out, self.both = nn.Linear(8, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        y = torch.nn.functional.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        x = self.out(self.out(x + y))
        x = self.both(x).mean(1)
        logits: torch.Tensor = self.head(self.both(x))
        return logits


class Read(nn.Module):
    """Reads the weight of a layer beside calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2))
        return x @ self.layer.weight


class Functions(nn.Module):
    """As torchvision's and timm's Swin: functions of weights, whose bias may be made of others; and one of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.out = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.first = nn.Parameter(torch.randn(8))
        self.register_buffer("second", torch.zeros(16))
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        bias = self.qkv.bias.clone()
        bias[8:16].zero_()
        q, k, v = functional.linear(x, self.qkv.weight, bias).chunk(3, -1)
        x = functional.linear(input=(q @ k.transpose(1, 2)).softmax(-1) @ v, weight=self.out.weight, bias=self.out.bias)
        x = functional.linear(x, self.qkv.weight[:8], torch.cat([self.first[:4], self.second[:4]]))
        x = functional.linear(x, x.mean((0, 1))[None] * self.qkv.weight[8:16] * 0)
        logits: torch.Tensor = self.head(x.mean(1) + q.mean(1))
        return logits


class Flat(nn.Module):
    """Tokens in front of images, and tokens of all images in one row."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.one(self.stem(x).flatten(2).permute(2, 0, 1)))
        count = x.shape[1]
        x = self.two(x.transpose(0, 1).reshape(-1, 8)).reshape(count, -1, 8)
        logits: torch.Tensor = self.head(x.mean(1))
        return logits


class Windows(nn.Module):
    """As Twins: a layer of windows that stand apart, [N, 2, 2, 2, 2, C], read by a second one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).unflatten(3, (2, 2)).unflatten(2, (2, 2)).permute(0, 2, 4, 3, 5, 1)
        x = self.two(self.one(x)).flatten(3, 4)
        x = x - x.softmax(3)
        logits: torch.Tensor = self.head(x.mean((1, 2, 3)))
        return logits


class Held(nn.Module):
    """A token of its own, which is a buffer: torch's own method is given a symbol."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.register_buffer("token", torch.randn(1, 1, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.stem(x).flatten(2).transpose(1, 2)], 1)
        logits: torch.Tensor = self.head(self.layer(x)[:, 0])
        return logits


def traced(model: nn.Module) -> fx.GraphModule:
    torch.manual_seed(0)
    return trace_folded(model.eval(), SIZE)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Maps, {"wide", "narrow"}),
        (Tokens, {"query", "key", "value", "out"}),
        (Read, set()),
        (Functions, {"linear_of_linear", "linear_of_linear_1", "linear_of_linear_2"}),
        (Flat, {"one", "two"}),
        (Windows, {"one", "two"}),
        (Held, {"layer"}),
    ],
)
def test_layers_of_places_are_convolutions_that_answer_alike(kind: type[nn.Module], names: set[str]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    module = traced(model)
    assert set(as_convolutions(module)) == names
    layers = dict(module.named_modules())
    assert all(isinstance(layers[name], nn.Conv2d) and layers[name].kernel_size == (1, 1) for name in names)
    assert all(type(layer) is nn.Linear for name, layer in layers.items() if name in ("head", "both"))
    for count in (1, 3):
        with torch.no_grad():
            assert torch.allclose(module(X[:count]), model(X[:count]), atol=1e-5), count


def test_types_that_stay_whole_stay() -> None:
    assert as_convolutions(traced(Maps()), (nn.Linear,)) == []


def test_what_is_trained_can_be_trained_in_the_copy() -> None:
    model = Maps()
    model.narrow.requires_grad_(False)
    module = traced(model)
    as_convolutions(module)
    assert module.get_submodule("wide").weight.requires_grad
    assert not module.get_submodule("narrow").weight.requires_grad


@pytest.mark.parametrize("placement", ["engines", "xnnpack"])
@pytest.mark.parametrize("kind", [Maps, Tokens])
def test_they_are_quantised_as_convolutions_are(kind: type[nn.Module], placement: str) -> None:
    torch.manual_seed(0)
    module = prepare(kind().eval(), SIZE, placement=placement)
    found = {name for name, one in module.named_modules() if isinstance(one, QuantConv2d)}
    assert {"stem"} <= found
    assert found >= ({"wide", "narrow"} if kind is Maps else {"query", "key", "value"})


class Blurred(nn.Module):
    """A fixed filter and standardised weights, both as functions, and one whose number of groups no graph knows."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 2)
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3))
        self.register_buffer("blur", torch.ones(8, 1, 2, 2) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.conv2d(self.stem(x), self.blur, stride=2, groups=8)
        weight = self.weight / self.weight.std((1, 2, 3), keepdim=True)
        x = functional.conv2d(x, weight, None, 1, (1, 0), groups=1)
        logits: torch.Tensor = self.head(functional.conv2d(x, self.blur, groups=x.shape[1]).mean((2, 3)))
        return logits


def test_convolutions_of_functions_are_layers() -> None:
    torch.manual_seed(0)
    net = Blurred().eval()
    module = prepare(net, SIZE)
    found = [one.conv for one in module.modules() if isinstance(one, QuantConv2d)]
    assert [(one.groups, one.stride, one.padding) for one in found] == [
        (1, (4, 4), (0, 0)), (8, (2, 2), (0, 0)), (1, (1, 1), (1, 0)),
    ]  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(module(X), net(X), rtol=1e-4, atol=1e-5)


class Windows(nn.Module):
    """A layer of tokens in windows, which stand beside the images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.stem(x).unflatten(3, (2, 4)).unflatten(2, (2, 4))
        tokens = self.layer(maps.permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 8))
        logits: torch.Tensor = self.head(tokens.reshape(x.shape[0], 64, 8).mean(1))
        return logits


def test_the_share_of_int8_counts_every_window() -> None:
    stem, layer, head = 64 * 8 * 48, 64 * 64, 16
    assert int8_share(prepare(Windows().eval(), SIZE), SIZE) == pytest.approx((stem + layer) / (stem + layer + head))
