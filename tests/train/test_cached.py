"""Cached logits: what the student sees is what the teacher saw, bit by bit; a cache of anything else is refused."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from octc.core.errors import OctcError
from octc.train.batches.images import EpochBatches
from octc.train.batches.inputs import training_views
from octc.train.distill import cached_logits as cached
from octc.train.distill.cached_logits import Drawn, Logits, folder_of, missing_views, read_logits, sampled, write_view
from octc.train.distill.teachers import (
    Teacher,
    asked,
    cache_of,
    cached_ways,
    calibrated,
    check_distillation,
    distilled_loss,
    mean_logits,
)
from octc.train.loop.label_losses import label_loss
from octc.train.loop.processes import make_accelerator
from octc.train.loop.training import Data
from octc.train.loop.ways import Ways
from octc.train.networks.models import build_model
from octc.train.recipes.config import Distillation, Mix, Objective
from tests.train.tiny import CLASSES, STAGE, make_data, train

DRAWN = Drawn(STAGE, 2, 5, "cpu", "no")
HOW = Distillation(views=2, view_seed=5)
ON_LABELS = label_loss(Objective(), 0.0, [], CLASSES)
SPLIT = "s" * 64


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(11)
    return Teacher(build_model("test_efficientnet", CLASSES).eval().requires_grad_(False), "t" * 64)


@pytest.fixture(scope="module")
def data() -> Data:
    return make_data(44)


@pytest.fixture
def cache(tmp_path: Path, teacher: Teacher, data: Data) -> Logits:
    return cache_of(teacher, SPLIT, data, DRAWN, tmp_path, make_accelerator("cpu"))


def batch_of(data: Data, indices: list[int], view: int) -> torch.Tensor:
    images = torch.from_numpy(np.array(data.images[indices]))
    return training_views(images, torch.tensor(indices), STAGE, data.preprocess, DRAWN.seed, view)


def test_the_cache_holds_what_the_teacher_says_of_each_view(cache: Logits, teacher: Teacher, data: Data) -> None:
    for view in range(2):
        indices = [40, 3, 17]
        with torch.inference_mode():
            expected = teacher.net(batch_of(data, indices, view))
        assert torch.allclose(cache.of(view, indices), expected, atol=2e-3, rtol=1e-3)  # float16
    assert not torch.allclose(cache.values[0].float(), cache.values[1].float(), atol=1e-3)
    assert cache.values.dtype == torch.float16
    sizes = [path.stat().st_size for path in cache.folder.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 44 * 2 * CLASSES + 44 * 32 + 2000  # 2 bytes a class, the sums of the sample, the header


def test_every_batch_of_every_epoch_shows_the_student_the_teachers_bits(cache: Logits, data: Data) -> None:
    """All 44 images are in the sample here; batches differ from those that the teacher saw in order, and in size."""
    assert len(sampled(44)) == 44
    assert len(sampled(10_000)) == cached.SAMPLED
    for size in (8, 16, 5, 1):
        sampler = EpochBatches(44, size, seed=1)
        for epoch in range(3 if size == 8 else 1):
            sampler.epoch = epoch
            for indices in sampler:
                cache.check(epoch % 2, indices, batch_of(data, indices, epoch % 2))
    with pytest.raises(OctcError, match="not the picture") as caught:
        cache.check(0, [3, 4], batch_of(data, [3, 4], 1))
    assert caught.value.code == "OCT-E311"
    other = batch_of(data, [3, 4], 0)
    other[1, 0, 0, 0] += 1e-6
    with pytest.raises(OctcError, match="image 4"):
        cache.check(0, [3, 4], other)


def ways_of(cache: Logits) -> Ways:
    return cached_ways([cache], [1.0], HOW, ON_LABELS)


@pytest.mark.slow
def test_learning_from_the_cache_is_learning_from_the_teacher(
    tmp_path: Path, cache: Logits, teacher: Teacher, data: Data
) -> None:  # fmt: skip
    """The same views, asked on line: the same losses but for the rounding to float16."""
    one = train(tmp_path / "cached", loss=ways_of(cache), data=data, epochs=2)
    online = distilled_loss(asked([teacher], make_accelerator("cpu").autocast), HOW, ON_LABELS)
    other = train(tmp_path / "online", loss=replace(ways_of(cache), step=train_step(online)), data=data, epochs=2)
    for a, b in zip(one.history, other.history, strict=True):
        assert a["train_soft"] == pytest.approx(b["train_soft"], rel=0.01)
        assert a["train_hard"] == pytest.approx(b["train_hard"], rel=0.01)


def train_step(loss: Any) -> Any:
    from octc.train.loop.ways import plain_ways

    return plain_ways(loss).step


def stop_at(step: int) -> Callable[[int], None]:
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        if done == step:
            signal.raise_signal(signal.SIGINT)

    return tick


@pytest.mark.slow
def test_a_student_of_cached_logits_goes_on_with_the_same_bits(
    tmp_path: Path, cache: Logits, teacher: Teacher, data: Data
) -> None:  # fmt: skip
    whole = train(tmp_path / "whole", loss=ways_of(cache), data=data)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", loss=ways_of(cache), data=data, tick=stop_at(7))
    again = cache_of(teacher, SPLIT, data, DRAWN, cache.folder.parent, make_accelerator("cpu"))
    resumed = train(tmp_path / "cut", loss=ways_of(again), data=data, resume=True)
    assert all(torch.equal(whole.state[name], resumed.state[name]) for name in whole.state)


def test_views_that_are_there_are_not_computed_again(cache: Logits, teacher: Teacher, data: Data) -> None:
    class Silent(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("asked again")

    again = cache_of(Teacher(Silent(), teacher.sha256), SPLIT, data, DRAWN, cache.folder.parent, make_accelerator("cpu"))
    assert torch.equal(again.values, cache.values)
    (cache.folder / "view-0001.safetensors").unlink()  # as after a kill
    assert missing_views(cache.folder, 2) == [1]
    seen: list[tuple[int, int]] = []
    third = cache_of(
        teacher, SPLIT, data, DRAWN, cache.folder.parent, make_accelerator("cpu"), lambda *at: seen.append(at)
    )  # fmt: skip
    assert seen[-1] == (44, 44)
    assert torch.equal(third.values, cache.values)


@pytest.mark.parametrize(
    ("wrong", "named"), [({"teacher": "u" * 64}, "teacher"), ({"split": "r" * 64}, "split"), ({"seed": 6}, "seed")]
)
def test_logits_of_another_teacher_split_or_drawing_are_refused(cache: Logits, wrong: dict[str, Any], named: str) -> None:
    key = {**DRAWN.key("t" * 64, SPLIT), **wrong}
    assert folder_of(cache.folder.parent, key) != cache.folder  # they are not even looked for there; a copied file is
    with pytest.raises(OctcError, match=named) as caught:
        read_logits(cache.folder, key, 2, 44)
    assert caught.value.code == "OCT-E311"


def test_damaged_and_exchanged_files_are_refused(cache: Logits) -> None:
    key, first = DRAWN.key("t" * 64, SPLIT), cache.folder / "view-0000.safetensors"
    whole = first.read_bytes()
    second = (cache.folder / "view-0001.safetensors").read_bytes()
    for content, code in ((whole[:-4] + b"\0\1\2\3", "OCT-E501"), (whole[:50], "OCT-E501"), (second, "OCT-E311")):
        first.write_bytes(content)
        with pytest.raises(OctcError) as caught:
            read_logits(cache.folder, key, 2, 44)
        assert caught.value.code == code
    first.write_bytes(whole)
    with pytest.raises(OctcError, match="train has 43"):
        read_logits(cache.folder, key, 2, 43)


def test_logits_that_float16_cannot_hold_are_refused(tmp_path: Path, data: Data) -> None:
    with pytest.raises(OctcError) as caught:
        write_view(tmp_path, {}, 0, lambda x: torch.full((len(x), CLASSES), 1e6), data, DRAWN, "cpu")
    assert caught.value.code == "OCT-E301"
    assert not list(tmp_path.iterdir())


def test_several_teachers_are_their_geometric_mean() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 3, (2, 6, 4))
    found = torch.softmax(mean_logits([torch.tensor(a), torch.tensor(b)], [1.0, 2.0]) / 4, 1).numpy()

    def soft(z: np.ndarray) -> np.ndarray:
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)

    product = np.sqrt(soft(a / 4) * soft(b / 8))
    assert np.allclose(found, product / product.sum(1, keepdims=True))
    only = torch.tensor(a)
    assert mean_logits([only], [1.0]) is only


class Loud(nn.Module):
    """Says its class of grey with far too much certainty, and is wrong for every fourth image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = ((x.mean((1, 2, 3)) + 1) * 127.5 - 60) / 60
        logits = -((level[:, None] - torch.arange(CLASSES)) ** 2) * 8
        wrong = torch.arange(len(x)) % 4 == 0
        return torch.where(wrong[:, None], logits.roll(1, 1), logits)


def test_a_teacher_is_calibrated_on_val_where_val_can_tell() -> None:
    loud = Teacher(Loud(), "l" * 64)
    found, facts = calibrated(loud, make_data(8, 120), "cpu")
    assert facts["fitted"]
    assert found.temperature > 3
    assert facts["nll_after"] < facts["nll_before"]
    few, why = calibrated(loud, make_data(8, 12), "cpu")
    assert few.temperature == 1.0
    assert why["reason"] == "too_few_images"


def test_mixed_images_have_no_cached_view_and_no_one_class() -> None:
    mixing = replace(STAGE, mix=Mix(mixup=0.2))
    check_distillation(Distillation(), mixing)
    for how in (Distillation(views=3), Distillation(kind="dkd")):
        check_distillation(how, STAGE)
        with pytest.raises(OctcError, match="MixUp") as caught:
            check_distillation(how, mixing)
        assert caught.value.code == "OCT-E104"
