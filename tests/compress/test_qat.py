"""Quantisation-aware tuning: what calibrates, what is kept, that it repeats itself, and that it computes on the whole grid."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octc.compress import finetune as qat
from octc.compress.choosing import choose_kept, losses_of, room_to_gain
from octc.compress.finetune import (
    anchored_loss,
    calibrated,
    closeness,
    load_quantised,
    quantise_student,
)
from octc.compress.placement import convolutions, counts, set_mode
from octc.core.errors import OctcError
from octc.datasets.split import Split, read_split
from octc.store.runs import Run
from octc.train.distill.loading import SameView
from octc.train.loop.checkpoint import load_strictly, read_checkpoint, write_checkpoint
from octc.train.loop.evaluate import logits_of, network_input
from octc.train.loop.processes import make_accelerator
from octc.train.loop.training import Data
from octc.train.networks.models import build_model
from octc.train.recipes.config import Quantisation, Recipe, Stage
from octc.train.stages import Context, load_data
from tests.tiny_run import MODEL, SIZE, trained_run
from tests.train.contexts import make_context

STAGE = Stage(model=MODEL, weights="none", size=SIZE, epochs=1, lr=1e-3, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
HOW = Quantisation(epochs=1, lr=1e-5, batch=32, calibration=64, observers=("max",), start="always")
RECIPE = Recipe("tiny", STAGE, STAGE, quantisation=HOW)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A student that tells four patterns apart, and its images."""
    whole = trained_run()
    copy = Run(Path(shutil.copytree(whole.path, tmp_path_factory.mktemp("qat") / "runs" / whole.id)))
    return copy, whole.path.parent.parent / "patterns"


@pytest.fixture
def ctx(made: tuple[Run, Path], tmp_path: Path) -> Context:
    """The stage before tuning, in a folder of its own; the decoded images are shared."""
    run, root = made
    mine = Run(run.path.parent / f"r-{9000 + abs(hash(tmp_path)) % 999}-student-folder")
    checkpoint, state = read_checkpoint(run.path / "train")
    write_checkpoint(mine.path / "train", state, checkpoint)
    return make_context(mine, root, read_split(run.split), RECIPE)


def with_how(ctx: Context, **fields: Any) -> Context:
    return replace(ctx, recipe=replace(RECIPE, quantisation=replace(HOW, **fields)))


def student_of(ctx: Context) -> torch.nn.Module:
    checkpoint, state = read_checkpoint(ctx.run.path / "train")
    model = build_model(checkpoint.model, len(checkpoint.classes))
    load_strictly(model, state, "")
    return model.eval().requires_grad_(False)


def data_of(ctx: Context) -> Data:
    return load_data(ctx, read_checkpoint(ctx.run.path / "train")[0].preprocess)


def test_the_observer_that_agrees_best_is_kept_and_the_student_stays_as_it_was(ctx: Context) -> None:
    student, data = student_of(ctx), data_of(ctx)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    seen: list[tuple[int, int]] = []
    how = replace(HOW, observers=Quantisation().observers)
    quantised, facts = calibrated(student, how, data, 3, progress=lambda done, total: seen.append((done, total)))
    table = facts["observers"]
    assert set(table) == {"max", "percentile", "entropy", "mse"}
    best = max(table, key=lambda name: (table[name]["agreement"], -table[name]["kl"]))
    assert facts["observer"] == best
    found = closeness(
        logits_of(student, data.val_images, data.preprocess, "cpu"),
        logits_of(quantised, data.val_images, data.preprocess, "cpu"),
    )
    assert facts["rounded"] == {**found, "chosen": "gptq"}
    assert found["kl"] < table[best]["kl"], "than with nearest codes"
    assert found["agreement"] > 0.9
    assert 0 < found["kl"] < 0.1
    assert facts["counts"] == counts(quantised)
    assert facts["counts"]["int8_convolutions"] == 15
    assert seen[-1][0] == seen[-1][1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_rounding_that_agrees_less_on_val_is_taken_back(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(module: torch.nn.Module, *_: object) -> None:
        for layer in convolutions(module).values():
            layer.plain = layer.conv.weight.detach().clone()
            layer.conv.weight.data.zero_()

    plain, _ = calibrated(student_of(ctx), replace(HOW, rounding=False), data_of(ctx), 3)
    monkeypatch.setattr(qat, "round_with_compensation", spoil)
    kept, facts = calibrated(student_of(ctx), HOW, data_of(ctx), 3)
    assert facts["rounded"]["chosen"] == "nearest"
    assert facts["rounded"]["agreement"] < 0.9
    assert all(torch.equal(tensor, plain.state_dict()[name]) for name, tensor in kept.state_dict().items())


def test_fake_quantisation_acts_and_passes_gradients(ctx: Context) -> None:
    data = data_of(ctx)
    quantised, _ = calibrated(student_of(ctx), HOW, data, 3)
    x = network_input(torch.from_numpy(np.array(data.val_images[:4])), data.preprocess)
    with torch.no_grad():
        on = quantised(x)
        set_mode(quantised, "off")
        off = quantised(x)
    assert float((on - off).abs().max()) > 1e-4
    assert torch.allclose(off, student_of(ctx)(x), atol=1e-5)
    set_mode(quantised, "on")
    quantised(x).square().sum().backward()
    for name, parameter in quantised.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def test_loss_is_the_anchor_and_the_teacher_both_softened() -> None:
    torch.manual_seed(0)
    own, taught, z = torch.randn(5, 4), torch.randn(5, 4), torch.randn(5, 4, requires_grad=True)
    how = Quantisation(anchor=0.25, temperature=3.0)

    class Says(torch.nn.Module):
        def __init__(self, logits: torch.Tensor) -> None:
            super().__init__()
            self.logits = logits

        def forward(self, _x: torch.Tensor) -> torch.Tensor:
            return self.logits

    def kl(target: torch.Tensor) -> float:
        p, q = (torch.softmax(v.detach() / 3, 1).double() for v in (target, z))
        return 9 * float((p * (p.log() - q.log())).sum(1).mean())

    value, parts = anchored_loss(Says(own), Says(taught), how, torch.nn.Identity())(
        z, torch.zeros(1), torch.zeros(5, dtype=torch.long)
    )
    assert value.item() == pytest.approx(0.25 * kl(own) + 0.75 * kl(taught), rel=1e-5)
    assert parts["anchor"].item() == pytest.approx(kl(own), rel=1e-5)
    alone, _ = anchored_loss(Says(own), None, how, torch.nn.Identity())(z, torch.zeros(1), torch.zeros(5, dtype=torch.long))
    assert alone.item() == pytest.approx(kl(own), rel=1e-5)


def test_tuned_student_comes_back_from_its_checkpoint_with_the_numbers_that_it_states(ctx: Context) -> None:
    made = quantise_student(ctx)
    checkpoint, network = load_quantised(ctx.run.path / "qat")
    assert (checkpoint.sha256, checkpoint.metrics, checkpoint.parent) == (made.sha256, made.metrics, made.parent)
    data = data_of(ctx)
    logits = logits_of(network, data.val_images, data.preprocess, "cpu")
    assert torch.equal(logits, logits_of(network, data.val_images, data.preprocess, "cpu"))  # T20
    assert torch.equal(logits, logits_of(network.train(), data.val_images, data.preprocess, "cpu"))
    near = closeness(logits_of(student_of(ctx), data.val_images, data.preprocess, "cpu"), logits)
    right = float((logits.argmax(1) == torch.tensor(list(data.val_labels))).double().mean())
    stated = made.metrics[made.metrics["chosen"]]
    assert {**near, "val_accuracy": right} == {name: stated[name] for name in ("agreement", "kl", "val_accuracy")}
    assert stated["val_loss"] == pytest.approx(float(losses_of(logits, list(data.val_labels)).mean()))
    found = {name: made.metrics[name] for name in ("ptq", "qat")}
    assert made.metrics["chosen"] == choose_kept(found)
    assert stated["val_loss"] == min(one["val_loss"] for one in found.values() if one["accepted"] == stated["accepted"])
    assert made.parent is not None
    assert made.parent["sha256"] == read_checkpoint(ctx.run.path / "train")[0].sha256
    assert made.quantisation is not None
    train = {s.sha256 for s in ctx.split.parts["train"]}
    assert len(made.quantisation["calibration"]) == 64
    assert set(made.quantisation["calibration"]) <= train


def test_tuning_that_harms_is_thrown_away(ctx: Context) -> None:
    """A rate that destroys the network: what comes out is the calibrated one, bit for bit."""
    plain = quantise_student(with_how(ctx, epochs=0))
    assert plain.metrics["chosen"] == "ptq"
    assert "qat" not in plain.metrics
    harmed = quantise_student(with_how(ctx, lr=0.3))
    assert harmed.metrics["qat"]["val_accuracy"] < harmed.metrics["ptq"]["val_accuracy"]
    assert harmed.metrics["chosen"] == "ptq"
    assert harmed.sha256 == plain.sha256


def test_tuning_that_helps_is_kept(ctx: Context) -> None:
    """The same function with four channels sixty times larger between two convolutions: their int8 codes lose the rest."""
    before, data = student_of(ctx), data_of(ctx)
    checkpoint, state = read_checkpoint(ctx.run.path / "train")
    for name in ("conv1.1.weight", "conv1.1.bias"):
        state[name][:4] *= 60
    state["conv1.3.weight"][:, :4] /= 60
    write_checkpoint(ctx.run.path / "train", state, checkpoint)
    rows = [logits_of(model, data.val_images, data.preprocess, "cpu") for model in (before, student_of(ctx))]
    assert torch.allclose(rows[0], rows[1], atol=1e-4)
    made = quantise_student(with_how(ctx, epochs=2, lr=1e-4))
    assert made.metrics["qat"]["kl"] < made.metrics["ptq"]["kl"] / 2
    assert made.metrics["chosen"] == choose_kept({name: made.metrics[name] for name in ("ptq", "qat")})


def test_tuning_begins_only_where_calibration_left_something_to_gain(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """What calibration costs is told to the stage, in nats of each image; the test on it is that of `room_to_gain`."""
    for cost, begun in ((0.0, False), (0.05, True)):
        ticks: list[int] = []
        real = [0]

        def told(logits: torch.Tensor, labels: object, cost: float = cost, real: list[int] = real) -> object:
            real[0] += 1  # the float student's losses are asked for first in `room_to_gain`
            return np.full(len(logits), 1.0 if real[0] == 2 else 1.0 + cost)

        monkeypatch.setattr(qat, "losses_of", told)
        made = quantise_student(replace(with_how(ctx, start="gain"), tick=ticks.append))
        assert bool(ticks) == begun
        assert ("qat" in made.metrics) == begun
        assert made.metrics["gain"]["tune"] == begun
        assert made.metrics["gain"]["difference"] == pytest.approx(cost)


def test_room_to_gain_is_judged_by_the_upper_limit_with_patients_as_they_are() -> None:
    rng = np.random.default_rng(0)
    float_loss = rng.uniform(0.0, 0.4, 200)
    small, noise = float_loss + 0.001, np.repeat(rng.normal(0, 0.05, 20), 10)
    assert not room_to_gain(float_loss, small, [None] * 200)["tune"]
    assert room_to_gain(float_loss, float_loss + 0.02, [None] * 200)["tune"]
    people = [f"p{i // 10}" for i in range(200)]
    alone, together = (room_to_gain(float_loss, float_loss + noise, who) for who in ([None] * 200, people))
    assert together["upper"] - together["difference"] > 2 * (alone["upper"] - alone["difference"])
    assert alone["difference"] == pytest.approx(float(noise.mean()))
    assert room_to_gain(float_loss, small, ["one"] * 200)["tune"], "one patient shows nothing"


def test_what_the_gate_refuses_is_kept_only_where_it_refuses_all() -> None:
    judged = {"ptq": {"accepted": True, "val_loss": 0.3}, "qat": {"accepted": False, "val_loss": 0.1}}
    assert choose_kept(judged) == "ptq"
    assert choose_kept({**judged, "ptq": {"accepted": False, "val_loss": 0.3}}) == "qat"
    assert choose_kept({name: {"accepted": True, "val_loss": 0.2} for name in judged}) == "qat"


@pytest.mark.slow
def test_stopped_and_resumed_tuning_gives_the_same_bits(ctx: Context) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process may have begun without it
    try:
        _stop_and_resume(ctx)
    finally:
        signal.signal(signal.SIGINT, before)


def _stop_and_resume(ctx: Context) -> None:
    steps: list[int] = []
    whole = quantise_student(replace(with_how(ctx, epochs=2), tick=steps.append))
    qat_folder = ctx.run.path / "qat"
    for path in qat_folder.rglob("*"):
        if path.is_file():
            path.unlink()
    count = 0

    def tick(_steps: int) -> None:
        nonlocal count
        count += 1
        if count == len(steps) // 2 + 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        quantise_student(replace(with_how(ctx, epochs=2), tick=tick))
    assert not (qat_folder / "checkpoint.json").exists()
    resumed = quantise_student(replace(with_how(ctx, epochs=2), resume=True))
    assert (resumed.sha256, resumed.metrics) == (whole.sha256, whole.metrics)


def test_tuning_of_another_student_begins_anew(ctx: Context) -> None:
    """A finished tuning is not passed off as that of a student that was trained further."""
    quantise_student(ctx)
    checkpoint, state = read_checkpoint(ctx.run.path / "train")
    state["fc.bias"] += torch.tensor([0.5, -0.5, 0.25, 0.0])
    write_checkpoint(ctx.run.path / "train", state, checkpoint)
    steps: list[int] = []
    made = quantise_student(replace(ctx, resume=True, allow_change=True, tick=steps.append))
    assert len(steps) == len(ctx.split.parts["train"]) // 32
    _, network = load_quantised(ctx.run.path / "qat")
    assert torch.allclose(network.get_submodule("fc").bias, state["fc.bias"], atol=0.01)
    assert made.parent is not None
    assert made.parent["sha256"] == read_checkpoint(ctx.run.path / "train")[0].sha256


def test_short_floats_never_reach_the_grid(ctx: Context) -> None:
    """bf16 has fewer digits than int8 codes need: with it, the tuned weights are those of float32."""
    from accelerate.state import AcceleratorState

    expected = quantise_student(ctx)
    try:
        AcceleratorState._reset_state()
        short = quantise_student(replace(ctx, accelerator=make_accelerator("cpu", "bf16")))
    finally:
        AcceleratorState._reset_state()
    assert short.sha256 == expected.sha256
    assert short.metrics == expected.metrics


def test_teacher_with_another_normalisation_sees_the_same_picture(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, state = read_checkpoint(ctx.run.path / "train")
    other = replace(checkpoint, role="teacher", preprocess=replace(checkpoint.preprocess, mean=(0.4, 0.4, 0.4)))
    write_checkpoint(tmp_path / "teacher", state, other)
    seen: list[torch.nn.Module | None] = []
    real = anchored_loss
    monkeypatch.setattr(qat, "anchored_loss", lambda s, teacher, *more: seen.append(teacher) or real(s, teacher, *more))
    made = quantise_student(replace(ctx, teachers=(tmp_path / "teacher",)))
    assert isinstance(seen[0], SameView)
    assert made.metrics["chosen"] in ("ptq", "qat")


def test_calibration_uses_no_image_that_the_split_keeps_for_val_or_test(ctx: Context) -> None:
    """The same pixels under another name in test: the split would never make this, a hand-made one may."""
    parts = dict(ctx.split.parts)
    parts["test"] = (*parts["test"], *(replace(s, path=f"copy/{i}.png") for i, s in enumerate(parts["train"])))
    torn = Split(ctx.split.dataset, ctx.split.classes, ctx.split.seed, parts)
    with pytest.raises(OctcError) as caught:
        quantise_student(replace(ctx, split=torn))
    assert caught.value.code == "OCT-E214"
    assert "test split" in caught.value.message
