"""Networks by name: what timm knows, and nothing that a foreign checkpoint could point elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octc.core.errors import OctcError
from octc.imaging.preprocess import Preprocess
from octc.train.networks.models import WithInput, build_model, check_answers, normalise, parameter_count
from tests.stand_ins import normalised


def refused(name: str, **kwargs: Any) -> OctcError:
    with pytest.raises(OctcError) as caught:
        build_model(name, 3, **kwargs)
    return caught.value


def test_networks_of_several_families_have_the_asked_classes() -> None:
    for name, kwargs in (("test_resnet", {}), ("test_efficientnet", {"drop_rate": 0.3}), ("test_vit", {"img_size": 64})):
        logits = build_model(name, 5, **kwargs).eval()(torch.zeros(2, 3, 64, 64))
        assert logits.shape == (2, 5)


def test_unknown_name_gets_near_ones() -> None:
    error = refused("tf_efficientnet_lite9")
    assert error.code == "OCT-E307"
    assert "tf_efficientnet_lite4" in error.hint
    assert refused("test_resnet.no_such_tag").code == "OCT-E307"


@pytest.mark.parametrize("name", ["hf-hub:someone/else", "hf_hub:someone/else", "local-dir:/etc", "../x", "a/b"])
def test_names_that_point_outside_timm_are_refused_without_a_look(name: str) -> None:
    error = refused(name)
    assert error.code == "OCT-E307"
    assert "outside" in error.message


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"])
def test_t09_options_that_read_a_file_are_refused(tmp_path: Path, key: str) -> None:
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"")
    error = refused("test_resnet", **{key: str(bad)})
    assert error.code == "OCT-E307"
    assert key in error.message


def test_options_that_the_network_does_not_take_are_refused_by_name() -> None:
    error = refused("test_resnet", no_such_option=3)
    assert error.code == "OCT-E307"
    assert "no_such_option" in error.message


@pytest.mark.parametrize(
    "told",
    [{"act_layer": "nope"}, {"global_pool": "nope"}, {"output_stride": 5}, {"block": "x"}, {"layers": [1]}, {"num_classes": 7}],
)
def test_options_that_a_builder_stumbles_over_are_refused(told: dict[str, Any]) -> None:
    error = refused("resnet18", **told)
    assert (error.code, next(iter(told)) in error.message + error.hint) == ("OCT-E307", True)


@pytest.mark.parametrize(
    ("name", "size", "told"),
    [("vit_tiny_patch16_224", 192, {}), ("inception_v3", 32, {}), ("test_resnet", 64, {"in_chans": 1}),
     ("test_resnet", 64, {"global_pool": ""}), ("test_resnet", 64, {"features_only": True})],
)  # fmt: skip
def test_a_network_that_does_not_answer_pictures_of_a_size_is_refused(name: str, size: int, told: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = build_model(name, 4, **told).train()
    with pytest.raises(OctcError) as caught:
        check_answers(model, name, size, 4)
    assert (caught.value.code, model.training) == ("OCT-E307", True)


def test_a_network_that_answers_is_as_it_was() -> None:
    model = build_model("test_resnet", 4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert check_answers(model, "test_resnet", 64, 4) is model
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_parameter_count_is_that_of_the_specification() -> None:
    with torch.device("meta"):
        assert parameter_count(build_model("efficientnet_b2", 4)) == pytest.approx(7.707e6, rel=1e-4)
        assert parameter_count(build_model("convnextv2_large.fcmae_ft_in22k_in1k", 3)) == pytest.approx(196.424e6, rel=1e-5)


def test_normalisation_in_the_graph_equals_the_one_of_every_runtime() -> None:
    pre = Preprocess(16)
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 16, 16)).astype(np.uint8)
    expected = normalised(images, pre)
    found = normalise(torch.from_numpy(images), pre).numpy()
    assert found.shape == (4, 3, 16, 16)
    assert np.abs(found - expected).max() < 2e-6
    inside = WithInput(torch.nn.Identity(), pre)(torch.from_numpy(images)).numpy()
    assert np.abs(inside - expected).max() < 2e-6
