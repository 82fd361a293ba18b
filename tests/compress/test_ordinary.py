"""Networks out of their wrappers, with weights that are parameters: the copy answers as the network does in eval mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load
from timm.layers import ScaledStdConv2d, StdConv2d, StdConv2dSame
from torch import nn
from torch.nn.utils import parametrizations, prune

from octc.compress.calibrate import observe, set_ranges
from octc.compress.ordinary import ordinary_copy
from octc.compress.placement import convolutions, prepare
from octc.compress.rounding import round_with_compensation
from octc.core.errors import OctcError
from octc.train.loop.checkpoint import tensors_as_bytes


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


class LowRank(nn.Conv2d):
    """A weight and what was learned beside it, added in the forward."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.more = nn.ParameterList([torch.randn(8, 2), torch.randn(2, 27) * 0.1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        down, up = self.more
        return self._conv_forward(x, self.weight + (down @ up).view_as(self.weight), self.bias)


class Begun(nn.Conv2d):
    """Begins with other weights, and computes as any convolution does."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        nn.init.normal_(self.weight, 0, 0.3)


class Repeated(nn.Conv2d):
    """Borders of its own: no nn.Conv2d computes so."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"))


def of(kind: Callable[..., nn.Module], **keys: Any) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        torch.manual_seed(0)
        return Net(kind(3, 8, 3, 2, **keys))

    return made


KINDS: dict[str, Callable[[], nn.Module]] = {
    "weight standardisation": of(StdConv2d, bias=True),
    "weight standardisation, padded by size": of(StdConv2dSame, bias=True),
    "weight standardisation with a gain": of(ScaledStdConv2d),
    "a weight of two parts": of(LowRank),
    "a convolution that begins otherwise": of(Begun),
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
    with torch.no_grad():  # a class that a parametrisation made is the network's and its copy's
        torch.testing.assert_close(net(images.to(next(net.parameters()).dtype)).float(), wanted)
        torch.testing.assert_close(ordinary_copy(net)(images), wanted, atol=2e-3, rtol=2e-3)


class Bordered(nn.Conv2d):
    """Puts zeros around its input first, as TensorFlow's networks in PyTorch do for one size."""

    def __init__(self, *args: Any, borders: tuple[int, ...]) -> None:
        super().__init__(*args)
        self.static_padding = nn.ZeroPad2d(borders)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(self.static_padding(x), self.weight, self.bias)


@pytest.mark.parametrize(("borders", "parts"), [((0, 1, 0, 1), 2), ((2, 2, 1, 1), 1), ((1, 0, 3, 2), 2)])
def test_borders_of_zeros_stand_in_front_of_an_ordinary_convolution(borders: tuple[int, ...], parts: int) -> None:
    net, images = of(Bordered, borders=borders)().eval(), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    copied = ordinary_copy(net)
    assert len(list(copied.conv.modules())) == (3 if parts == 2 else 1)  # type: ignore[union-attr]
    quantised = prepare(copied, 64)
    assert len(convolutions(quantised)) == 1
    with torch.no_grad():
        torch.testing.assert_close(quantised(images), net(images), atol=1e-5, rtol=1e-5)


class Tied(nn.Module):
    """Two convolutions of one weight, and a third one under two names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.a, self.b, self.c = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.b.weight, self.again = self.a.weight, self.c
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(torch.relu(self.a(torch.relu(self.stem(x)))))
        y: torch.Tensor = self.head(self.again(torch.relu(self.c(x))))
        return y


def test_a_weight_that_two_share_is_rounded_for_each_by_itself() -> None:
    net, images = Tied().eval(), torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    copied = ordinary_copy(net)
    quantised = prepare(copied, 64)
    observe(quantised, lambda: [images])
    set_ranges(quantised, "max")
    round_with_compensation(quantised, lambda: [images])
    layers = convolutions(quantised)
    assert all(torch.equal(layers[name].float_weight(), net.a.weight) for name in "ab")
    assert not torch.equal(layers["a"].conv.weight, layers["b"].conv.weight)
    assert net.b.weight is net.a.weight
    state = load(tensors_as_bytes(copied.state_dict()))  # "c" stands there under both of its names
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())


def test_a_norm_of_instances_with_statistics_is_a_batch_norm() -> None:
    norm = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
    for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
        assert tensor is not None
        nn.init.uniform_(tensor, 0.5, 2)
    net = nn.Sequential(norm, nn.InstanceNorm2d(3)).eval()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    copied = ordinary_copy(net)
    torch.testing.assert_close(copied(images), net(images))
    assert [type(one) for one in copied] == [nn.BatchNorm2d, nn.InstanceNorm2d]  # type: ignore[attr-defined]


def test_a_convolution_that_computes_otherwise_is_named_and_may_stay_whole() -> None:
    net, images = ordinary_copy(nn.Sequential(conv(), Repeated(8, 8, 3))), torch.randn(2, 3, 64, 64)
    with pytest.raises(OctcError, match="convolution 1 is a Repeated, which computes otherwise") as caught:
        prepare(net, 64)
    assert "whole=[Repeated]" in caught.value.hint
    quantised = prepare(net, 64, (Repeated,))
    assert set(convolutions(quantised)) == {"0"}
    torch.testing.assert_close(quantised(images), net(images))


class Optional(nn.Module):
    """Takes more than an image, as transformers' networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net(conv())

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, scale: float = 2.0) -> Any:
        logits = self.net(pixel_values) * scale
        return logits if labels is None else (nn.functional.cross_entropy(logits, labels), logits)


@pytest.mark.parametrize("kind", [Optional, lambda: torch.optim.swa_utils.AveragedModel(Net(conv()))], ids=["labels", "args"])
def test_arguments_besides_the_image_have_their_defaults(kind: Callable[[], nn.Module]) -> None:
    net, images = kind().eval(), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(prepare(ordinary_copy(net), 64)(images), net(images), atol=1e-5, rtol=1e-5)


def tuned_by_torch() -> nn.Module:
    net = nn.Sequential(torch.ao.quantization.QuantStub(), conv(), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated; networks that are there were made by it
        net.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")  # type: ignore[assignment]
        return torch.ao.quantization.prepare_qat(net.train())  # type: ignore[no-any-return]


def coded_by_torch() -> nn.Module:
    net = nn.Sequential(conv(), nn.Linear(8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(net, {nn.Linear})  # type: ignore[no-any-return]


def test_sums_of_torchs_networks_for_quantisation_are_float_ones() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stub, self.conv, self.add = torch.ao.quantization.QuantStub(), conv(), torch.ao.nn.quantized.FloatFunctional()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(self.stub(x))
            z: torch.Tensor = self.add.add_relu(y, y).mean((2, 3))
            return z

    net, images = Sum().eval(), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(prepare(ordinary_copy(net), 64)(images), net(images), atol=1e-5, rtol=1e-5)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "TorchScript": (lambda: torch.jit.trace(Net(conv()), torch.zeros(1, 3, 64, 64)), "is TorchScript"),
    "TorchScript inside": (lambda: nn.Sequential(torch.jit.trace(conv(), torch.zeros(1, 3, 64, 64))), "0 of Sequential"),
    "weights alone": (lambda: Net(conv()).state_dict(), "is no network"),
    "a function": (lambda: len, "is no network"),
    "on the device meta": (lambda: Net(conv()).to("meta"), "conv of Net is a Conv2d on the device meta"),
    "prepared for training in INT8": (
        tuned_by_torch,
        "of torch.ao.quantization.fake_quantize: the network is quantised, or prepared for it",
    ),
    "with codes for weights": (coded_by_torch, "1 of Sequential is a Linear of torch.ao.nn.quantized"),
    "without shapes": (lambda: nn.Sequential(nn.LazyConv2d(8, 3)), "have no shape yet"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")  # deprecated; files of it are there
@pytest.mark.parametrize(("kind", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_network_is_refused_in_words(kind: Callable[[], Any], words: str) -> None:
    with pytest.raises(OctcError, match=words) as caught:
        ordinary_copy(kind())
    assert caught.value.code == "OCT-E404"
