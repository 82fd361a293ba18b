"""Weights of other programs: loaded where they are the same network, tensor for tensor, and refused by name where not."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from octc.core.errors import OctcError
from octc.train.loop.checkpoint import read_any_weights, read_weights
from octc.train.networks.models import build_model
from octc.train.networks.weight_matching import words
from octc.train.networks.weights import check_weights, start_weights
from octc.train.recipes.config import Stage
from octc.train.recipes.weight_packages import TRUNKS

NAME, CLASSES = "test_resnet", 4
STAGE = Stage(model=NAME, weights="none", size=32, epochs=1, lr=1e-3)
State = dict[str, torch.Tensor]
BODY = "layer1.0.conv1.weight"


def network(classes: int = CLASSES, seed: int = 1, name: str = NAME) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = build_model(name, classes)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # so that buffers are not what a new network has
                module.running_mean.normal_()  # type: ignore[union-attr, operator]
                module.num_batches_tracked.fill_(7)  # type: ignore[union-attr, operator]
    return model


def state_of(classes: int = CLASSES, seed: int = 1) -> State:
    return {name: tensor.clone() for name, tensor in network(classes, seed).state_dict().items()}


def loaded(state: Mapping[str, torch.Tensor], path: Path) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A network of other values that a file of that state was loaded into, and what was said of it."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)
    else:
        torch.save(dict(state), path)
    model = build_model(NAME, CLASSES)
    facts = start_weights(model, STAGE, path, False)
    assert check_weights(STAGE, CLASSES, path) == facts  # what a dry run finds
    return model, facts


def same(model: torch.nn.Module, state: Mapping[str, torch.Tensor], but: tuple[str, ...] = ()) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[name], state[name]) for name in own if not name.startswith(but or ("\0",)))


def refused(state: Mapping[str, Any], path: Path) -> OctcError:
    before = {name: tensor.clone() for name, tensor in network(seed=3).state_dict().items()}
    model = network(seed=3)
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)
    elif state:
        torch.save(state, path)
    with pytest.raises(OctcError) as caught:
        start_weights(model, STAGE, path, False)
    assert same(model, before)  # nothing was half loaded
    assert caught.value.hint
    return caught.value


def test_the_same_names_need_no_words(tmp_path: Path) -> None:
    model, facts = loaded(state_of(), tmp_path / "w.safetensors")
    assert same(model, state_of())
    assert "fit" not in facts


PREFIXES = (
    "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "student.", "backbone.", "net.", "encoder.",
    "state_dict.module.", "a.b.c.",
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
def test_one_prefix_more_is_the_same_network(prefix: str, tmp_path: Path) -> None:
    model, facts = loaded({f"{prefix}{name}": tensor for name, tensor in state_of().items()}, tmp_path / "w.safetensors")
    assert same(model, state_of())
    assert facts["fit"] == {"prefixes": [prefix]}
    assert any(prefix in line for line in words(facts["fit"]))


def test_a_prefix_on_some_names_only(tmp_path: Path) -> None:
    """A compiled block; a network that was wrapped without its classifier."""
    state = state_of()
    some = {(f"module.{name}" if name.startswith("layer") else name): tensor for name, tensor in state.items()}
    model, facts = loaded(some, tmp_path / "a.safetensors")
    assert same(model, state)
    assert facts["fit"]["prefixes"] == ["module."]
    inside = {name.replace("layer1.0.", "layer1.0._orig_mod."): tensor for name, tensor in state.items()}
    model, facts = loaded(inside, tmp_path / "b.safetensors")
    assert same(model, state)
    assert facts["fit"]
    body = {(name if name.startswith("fc.") else f"backbone.{name}"): tensor for name, tensor in state.items()}
    model, facts = loaded(body, tmp_path / "c.safetensors")
    assert same(model, state)
    assert facts["fit"] == {"prefixes": ["backbone."]}


def test_counters_that_are_missing_begin_at_zero(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in state_of().items() if not name.endswith("num_batches_tracked")}
    model, facts = loaded({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.safetensors")
    own = model.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in state)
    counters = [name for name in own if name not in state]
    assert counters
    assert all(int(own[name]) == 0 for name in counters)
    assert facts["fit"] == {"prefixes": ["module."], "counters_from_zero": len(counters)}
    assert any("num_batches_tracked" in line for line in words(facts["fit"]))
    del state["bn1.running_mean"]  # no counter: the network computes with it
    assert "bn1.running_mean" in refused(state, tmp_path / "w.safetensors").message


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_classifier_of_another_size_is_said_and_recorded(prefix: str, tmp_path: Path) -> None:
    state = state_of(1000)
    model, facts = loaded({f"{prefix}{name}": tensor for name, tensor in state.items()}, tmp_path / "w.safetensors")
    assert same(model, state, ("fc.",))
    drawn = facts["fit"]["classifier_drawn"]
    assert set(drawn) == {"fc.weight", "fc.bias"}
    assert "[1000, " in drawn["fc.weight"]
    assert f"[{CLASSES}, " in drawn["fc.weight"]
    assert any("classifier" in line and "fc.weight" in line for line in words(facts["fit"]))
    body = {name: tensor for name, tensor in state_of().items() if not name.startswith("fc.")}
    model, facts = loaded(body, tmp_path / "headless.safetensors")
    assert same(model, state_of(), ("fc.",))
    assert "not in the file" in facts["fit"]["classifier_drawn"]["fc.bias"]


def test_what_a_training_keeps_beside_the_network_is_left_out_and_named(tmp_path: Path) -> None:
    extra = {"n_averaged": torch.tensor(3), "epoch": torch.tensor([7.0]), "optimizer.state.0.exp_avg": torch.ones(4)}
    model, facts = loaded({**state_of(), **extra}, tmp_path / "a.safetensors")
    assert same(model, state_of())
    assert set(facts["fit"]["left_out_names"]) == set(extra)
    averaged = {f"module.{name}": tensor for name, tensor in state_of().items()}
    model, facts = loaded(
        {**averaged, "n_averaged": torch.tensor(3), "proj.weight": torch.ones(3, 3)}, tmp_path / "b.safetensors"
    )
    assert same(model, state_of())
    assert facts["fit"]["left_out"] == 2
    wrapped = {f"model.{name}": tensor for name, tensor in state_of().items()}  # octc's own, behind its preprocessing
    model, facts = loaded(
        {**wrapped, "scale": torch.ones(1, 3, 1, 1), "shift": torch.ones(1, 3, 1, 1)}, tmp_path / "c.safetensors"
    )
    assert same(model, state_of())


def test_a_tensor_of_another_network_is_refused(tmp_path: Path) -> None:
    for prefix in ("", "module."):
        state = {f"{prefix}{name}": tensor for name, tensor in state_of().items()}
        error = refused({**state, f"{prefix}layer5.0.conv1.weight": torch.ones(3)}, tmp_path / "w.safetensors")
        assert error.code == "OCT-E307"
        assert "layer5.0.conv1.weight" in error.message
        other = {f"{prefix}{name}": tensor for name, tensor in build_model("test_efficientnet", 4).state_dict().items()}
        error = refused(other, tmp_path / "w.safetensors")
        assert "missing keys" in error.message
        assert "unknown keys" in error.message


def test_a_shape_that_differs_is_named_with_both(tmp_path: Path) -> None:
    state = state_of()
    shape = list(state[BODY].shape)
    state[BODY] = torch.zeros(shape[0] + 1, *shape[1:])
    error = refused({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.safetensors")
    assert BODY in error.message
    assert str(shape) in error.message
    assert str([shape[0] + 1, *shape[1:]]) in error.message


@pytest.mark.parametrize(
    "pair", [("student.", "teacher."), ("", "ema."), ("state_dict.", "state_dict_ema."), ("", "_orig_mod.")]
)
def test_two_networks_in_one_file_are_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    both = {f"{prefix}{name}": tensor for seed, prefix in enumerate(pair) for name, tensor in state_of(seed=seed).items()}
    error = refused(both, tmp_path / "w.safetensors")
    assert error.code == "OCT-E307"
    assert "which one is meant" in error.message
    assert pair[1] in error.message


def test_a_student_beside_a_teacher_of_another_kind_is_one_to_one(tmp_path: Path) -> None:
    teacher = {f"teacher.{name}": tensor for name, tensor in build_model("test_efficientnet", 4).state_dict().items()}
    model, facts = loaded({**{f"student.{n}": t for n, t in state_of().items()}, **teacher}, tmp_path / "w.safetensors")
    assert same(model, state_of())
    assert facts["fit"]["left_out"] == len(teacher)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_used_as_float32_and_said(kind: torch.dtype, tmp_path: Path) -> None:
    state = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in state_of().items()}
    model, facts = loaded(state, tmp_path / "w.safetensors")
    assert torch.equal(model.state_dict()[BODY], state[BODY].float())
    assert facts["fit"] == {"types": [str(kind).removeprefix("torch.")]}


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    state = {**state_of(), BODY: torch.ones_like(state_of()[BODY], dtype=torch.int8)}
    assert BODY in refused(state, tmp_path / "w.safetensors").message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", [BODY, "bn1.running_var", "fc.bias"])
def test_weights_that_are_not_finite_are_named(value: float, where: str, tmp_path: Path) -> None:
    state = state_of()
    state[where].view(-1)[1] = value
    error = refused({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "w.safetensors")
    assert error.code == "OCT-E307"
    assert f"module.{where}" in error.message
    assert "not finite" in error.message
    assert "learning rate" not in error.hint
    too_large = {**state_of(), BODY: torch.full_like(state_of()[BODY], 1e300, dtype=torch.float64)}
    assert BODY in refused(too_large, tmp_path / "w.safetensors").message


def test_a_classifier_that_is_not_used_may_hold_anything(tmp_path: Path) -> None:
    state = state_of(1000)
    state["fc.bias"][0] = float("nan")
    model, _ = loaded(state, tmp_path / "w.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values())


NESTED: dict[str, Callable[[State], dict[str, Any]]] = {
    "plain": dict,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "arch": NAME},
    "model": lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}, "args": {"lr": 0.1}},
    "model_state_dict": lambda state: {
        "model_state_dict": {f"module.{n}": t for n, t in state.items()},
        "loss": torch.tensor(2.0),
    },
    "ema": lambda state: {"ema": {"module": state}, "updates": 7},
    "deep": lambda state: {"a": {"b": {"state_dict": state}}},
}


@pytest.mark.parametrize("kind", NESTED)
def test_a_file_of_torch_save_is_read(kind: str, tmp_path: Path) -> None:
    content = NESTED[kind](state_of())
    torch.save(content, tmp_path / "w.pth")
    model = build_model(NAME, CLASSES)
    facts = start_weights(model, STAGE, tmp_path / "w.pth", False)
    assert same(model, state_of())
    assert ("fit" in facts) == (kind != "plain")


def test_two_networks_in_a_dictionary_are_refused(tmp_path: Path) -> None:
    error = refused({"state_dict": state_of(), "state_dict_ema": state_of(seed=2)}, tmp_path / "w.pth")
    assert error.code == "OCT-E307"
    assert "state_dict_ema." in error.message


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


def test_nothing_in_such_a_file_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    for zipped in (True, False):
        torch.save({"state_dict": state_of(), "x": Trap(trap)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        assert refused({}, tmp_path / "w.pth").code == "OCT-E308"
    torch.save(network(), tmp_path / "w.pth")  # a whole module: a class of its own, not tensors
    assert refused({}, tmp_path / "w.pth").code == "OCT-E308"
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": Trap(trap)}))
    assert refused({}, tmp_path / "w.pth").code == "OCT-E308"
    assert not trap.exists()


@pytest.mark.parametrize("share", [0.001, 0.3, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_refused(share: float, tmp_path: Path) -> None:
    save_file(state_of(), tmp_path / "w.safetensors")
    torch.save(state_of(), tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: max(9, int(len(data) * share))])
        with pytest.raises(OctcError) as caught:
            read_any_weights(tmp_path / name)
        assert caught.value.code in ("OCT-E307", "OCT-E308")
        if name == "w.safetensors":
            assert "cut short" in caught.value.message


def test_a_pointer_of_git_lfs_and_other_files_that_are_no_weights(tmp_path: Path) -> None:
    pointer = tmp_path / "w.safetensors"
    pointer.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 123\n")
    for read in (read_weights, read_any_weights):
        with pytest.raises(OctcError) as caught:
            read(pointer)
        assert caught.value.code == "OCT-E310"
        assert caught.value.hint == "git lfs pull"
    for content in (b"", b"<!DOCTYPE html><html></html>", b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'):
        pointer.write_bytes(content)
        with pytest.raises(OctcError) as caught:
            read_any_weights(pointer)
        assert caught.value.code in ("OCT-E307", "OCT-E308")


def test_a_network_with_a_trunk_takes_both_kinds_of_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published trunk with its own classifier, and a checkpoint of the whole network, each behind a prefix."""
    monkeypatch.setitem(TRUNKS, "qd-tiny", "timm/test_resnet")
    stage = Stage(model="qd-tiny", weights="none", size=32, epochs=1, lr=1e-3)
    trunk = {f"module.{name}": tensor for name, tensor in state_of(1000).items()}
    save_file(trunk, tmp_path / "trunk.safetensors")
    model = build_model("qd-tiny", CLASSES)
    facts = start_weights(model, stage, tmp_path / "trunk.safetensors", False)
    own: Any = model.trunk
    assert torch.equal(own.state_dict()[BODY], trunk[f"module.{BODY}"])
    assert facts["fit"] == {"prefixes": ["module."]}
    torch.manual_seed(5)
    whole = build_model("qd-tiny", CLASSES).state_dict()
    save_file({f"model.{name}": tensor for name, tensor in whole.items()}, tmp_path / "whole.safetensors")
    model = build_model("qd-tiny", CLASSES)
    start_weights(model, stage, tmp_path / "whole.safetensors", False)
    assert same(model, whole)
