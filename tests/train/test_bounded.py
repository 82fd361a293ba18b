"""A student of a teacher with ReLU6: its channels end where the teacher's do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from octc.train.loop.averaging import refresh_norms
from octc.train.networks.bounded import END, end_as_the_teacher
from octc.train.networks.lent import lend
from octc.train.networks.models import build_model
from octc.train.recipes.config import Stage
from tests.train.test_lent import SIZE, batches, images, kept, learned, started

NAME = "test_efficientnet"


def wide(**kwargs: Any) -> nn.Module:
    """A network of ReLU6 in front of which a channel of every norm reaches far beyond 6."""
    model = learned(NAME, act_layer="relu6", **kwargs)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data[0] = 60.0
    return model


def tops(model: nn.Module) -> dict[str, torch.Tensor]:
    """The largest value of each channel behind each norm with an activation."""
    found: dict[str, torch.Tensor] = {}
    hooks = [
        part.register_forward_hook(lambda _part, _inputs, output, name=name: found.__setitem__(name, output.amax((0, 2, 3))))
        for name, part in model.named_modules()
        if isinstance(part, nn.BatchNorm2d) and not isinstance(getattr(part, "act", nn.Identity()), nn.Identity)
    ]
    with torch.no_grad():
        model.eval()(images()[0])
    for hook in hooks:
        hook.remove()
    return found


def test_channels_end_where_the_teachers_do_and_the_others_stay() -> None:
    teacher, student = wide(), build_model(NAME, 4)
    lend(student, teacher.state_dict(), "here")
    refresh_norms(student, batches())
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    was = tops(student)
    assert max(float(top.max()) for top in was.values()) > 20
    scaled = end_as_the_teacher(student, teacher, batches)
    assert all(scaled[name] >= int((top > END).sum()) for name, top in was.items() if (top > END).any())
    assert max(float(top.max()) for top in tops(student).values()) < 2 * END  # the statistics are those of two batches
    kept_as_they_were = 0
    for name, top in was.items():
        same = student.state_dict()[f"{name}.weight"] == before[f"{name}.weight"]
        assert not same[top > END].any()
        kept_as_they_were += int(same.sum())
    assert kept_as_they_were > 100
    linear = [name for name in before if name.endswith("bn3.weight")]
    assert linear
    assert all(torch.equal(student.state_dict()[name], before[name]) for name in linear)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("relu6", "relu6"), ("hard_sigmoid", "relu6"), ("silu", "silu"), ("silu", "relu")]
)
def test_nothing_is_scaled_where_the_student_ends_too_or_the_teacher_does_not(ours: str, theirs: str) -> None:
    teacher, student = learned(NAME, act_layer=theirs), build_model(NAME, 4, act_layer=ours)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    assert end_as_the_teacher(student, teacher, batches) == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_the_record_says_how_many(tmp_path: Any) -> None:
    stage = Stage(model=NAME, weights="hub", size=SIZE, epochs=1, lr=1e-3, batch=16)
    _, source = started(stage, kept(tmp_path, wide(), act_layer="relu6"))
    assert source["fit"]["channels_that_end"] > 5
    _, source = started(stage, kept(tmp_path / "plain", learned(NAME)))
    assert "channels_that_end" not in source["fit"]
