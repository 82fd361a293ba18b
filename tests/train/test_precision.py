"""A teacher in bfloat16: near to itself, refused where it is not, and never mixed up with one in fp32."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from octc.core.errors import OctcError
from octc.train.distill import precision
from octc.train.distill.cached_logits import Drawn
from octc.train.distill.precision import MOST_KL, MOST_SHARE, compared, in_precision
from octc.train.distill.teachers import Teacher, cache_of
from octc.train.loop.processes import make_accelerator
from octc.train.networks.models import build_model
from tests.train.tiny import CLASSES, STAGE, make_data

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _a_processor_with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _device: True)


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(11)
    return build_model("test_efficientnet", CLASSES).eval().requires_grad_(False)


class Cancels(nn.Module):
    """Logits that are small differences of large numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean(dim=(1, 2, 3), keepdim=False)[:, None]
        return (means + 1000.0 + torch.arange(4, dtype=x.dtype)) - 1000.0


def test_fp32_is_the_network_itself(net: nn.Module) -> None:
    found, facts = compared(net, "fp32", make_data(8), CPU)
    assert found is net
    assert facts == {}


def test_a_network_in_bf16_says_nearly_the_same_and_how_near_is_told(net: nn.Module) -> None:
    data, before = make_data(8), copy.deepcopy(net)
    found, facts = compared(net, "bf16", data, CPU)
    assert facts["precision"] == "bf16"
    assert facts["images"] == len(data.val_images)
    assert 0 < facts["delta_over_s"] <= MOST_SHARE
    assert 0 <= facts["kl"] <= MOST_KL
    x = torch.randn(3, 3, STAGE.size, STAGE.size)
    answer = found(x)
    assert answer.dtype == torch.float32
    assert torch.equal(answer, found(x))
    assert not torch.equal(answer, before(x))
    assert next(found.parameters()).dtype == torch.bfloat16


def test_a_network_that_says_something_else_is_refused() -> None:
    with pytest.raises(OctcError, match="something else in bf16") as caught:
        compared(Cancels(), "bf16", make_data(8), CPU)
    assert caught.value.code == "OCT-E312"


def test_a_processor_without_bf16_is_refused(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda _device: False)
    with pytest.raises(OctcError, match="does not compute bfloat16") as caught:
        compared(net, "bf16", make_data(8), CPU)
    assert caught.value.code == "OCT-E903"


@pytest.mark.parametrize(("flags", "expected"), [(("avx512_bf16",), True), (("avx512f",), False), (("asimd", "bf16"), True)])
def test_what_the_processor_says_decides(monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], expected: bool) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(precision, "read_flags", lambda: ("x", flags))
    assert precision.has_bf16(CPU) is expected


def test_a_cache_holds_one_precision(net: nn.Module, tmp_path: object) -> None:
    plain = Drawn(STAGE, 1, 5, "cpu", "no")
    other = replace(plain, teacher_precision="bf16")
    assert "teacher_precision" not in plain.key("t", "s")  # caches of before are found
    assert other.key("t", "s") == {**plain.key("t", "s"), "teacher_precision": "bf16"}
    data, accelerator = make_data(8), make_accelerator("cpu")
    first = cache_of(Teacher(net, "t" * 64), "s" * 64, data, plain, tmp_path, accelerator)  # type: ignore[arg-type]
    asked = Teacher(in_precision(net, "bf16"), "t" * 64)
    second = cache_of(asked, "s" * 64, data, other, tmp_path, accelerator)  # type: ignore[arg-type]
    assert first.folder != second.folder
    assert not torch.equal(first.values, second.values)
    assert torch.allclose(first.values.float(), second.values.float(), atol=0.1)
