"""Networks of train/networks: sizes and MACs of the KD-OCT specification, their wiring, start weights, MedSigLIP's files."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from octc.core.errors import OctcError
from octc.train.networks.macs import count_macs
from octc.train.networks.medsiglip import LICENCE, MedSigLip
from octc.train.networks.models import build_model, parameter_count
from octc.train.networks.registry import NETWORKS
from octc.train.networks.sfnet import SfNet
from octc.train.networks.trunk import densenet_levels, make_trunk, resnet_levels, vgg_levels
from octc.train.networks.weights import start_weights
from octc.train.recipes.config import Stage
from octc.train.recipes.registry import RECIPES

TINY_TOWER = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip

# recipe, classes, side, millions of parameters (as printed, to the last digit), GMAC
SIZES = [
    ("kd-oct-ucsd", "teacher", 3, 384, 196.424, 100.98),
    ("kd-oct-neh-as-released", "teacher", 4, 224, 196.426, 34.36),
    ("kd-oct-ucsd", "student", 3, 384, 7.705, 1.930),
    ("kd-oct-neh", "student", 4, 384, 7.707, None),
    ("resnet50", "teacher", 3, 224, 23.514, None),
    ("densenet121", "teacher", 3, 224, 6.957, None),
    ("efficientnet-b0", "teacher", 3, 224, 4.011, None),
    ("vgg16", "teacher", 3, 224, 14.716, None),
    ("fpn-vgg16", "teacher", 3, 224, 21.651, 35.45),
    ("fpn-densenet121", "teacher", 3, 224, 14.251, 23.12),
    ("fpn-resnet50", "teacher", 3, 224, 31.067, 24.39),
    ("medsiglip", "teacher", 3, 448, 430.407, None),
]


@functools.cache
def full_size(name: str, classes: int) -> nn.Module:
    """On the meta device: shapes without memory."""
    with torch.device("meta"):
        return build_model(name, classes)


@pytest.mark.parametrize(("recipe", "role", "classes", "side", "millions", "gmac"), SIZES)
def test_full_size_is_that_of_the_specification(
    recipe: str, role: str, classes: int, side: int, millions: float, gmac: float | None
) -> None:
    model = full_size(getattr(RECIPES[recipe](), role).model, classes)
    assert parameter_count(model) / 1e6 == pytest.approx(millions, abs=0.0006)
    if gmac is not None:
        assert count_macs(model, side) / 1e9 == pytest.approx(gmac, abs=0.005)


def test_exact_counts_and_batch_norm_buffers() -> None:
    vgg, dense, siglip = (full_size(name, 3) for name in ("fpn-vgg16", "fpn-densenet121", "medsiglip"))
    assert parameter_count(vgg) == 21_651_011
    assert parameter_count(dense) == 14_250_627
    floats = sum(b.numel() for b in dense.buffers() if b.is_floating_point() or b.is_meta)
    assert (parameter_count(dense) + floats) / 1e6 == pytest.approx(14.334, abs=0.001)  # as Keras counts
    assert isinstance(siglip, MedSigLip)
    assert parameter_count(siglip.trunk) / 1e6 == pytest.approx(428.6, abs=0.05)
    assert parameter_count(siglip.head) / 1e6 == pytest.approx(1.84, abs=0.005)


def test_sfnet_saves_the_maps_that_the_released_code_computes_twice() -> None:
    model = full_size(RECIPES["sfnet"]().teacher.model, 3)
    assert parameter_count(model) == 29_262_051
    twice = sum(width * 384 * side**2 for width, side in ((192, 28), (384, 14), (768, 7)))
    assert (count_macs(model, 224) + twice) / 1e9 == pytest.approx(4.774, abs=0.001)


class Reader(nn.Module):
    """Reads the columns of an image one after the other."""

    def __init__(self, kind: Any, **keys: Any) -> None:
        super().__init__()
        self.read = kind(3, 8, batch_first=True, **keys)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.read(x.mean(2).transpose(1, 2))[0][:, -1]
        return logits


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_counted(kind: Any, gates: int, device: str) -> None:
    step = gates * 8 * (3 + 8)
    assert count_macs(Reader(kind).to(device), 16) == 16 * step
    second = gates * 8 * (16 + 8)
    assert count_macs(Reader(kind, num_layers=2, bidirectional=True).to(device), 16) == 16 * 2 * (step + second)


class Looks(nn.Module):
    """Attention over the places of a map, in one kernel, or a whole layer of torch's transformers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        if isinstance(self.layer, nn.MultiheadAttention):
            found: torch.Tensor = self.layer(tokens, tokens, tokens, need_weights=False)[0].mean(1)
            return found
        return self.layer(tokens).mean(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_attention_is_counted_in_whatever_kernel(device: str) -> None:
    places = 8 * 8
    attention = 4 * places * 3 * 3 + 2 * places * places * 3
    assert count_macs(Looks(nn.MultiheadAttention(3, 1, batch_first=True)).to(device), 8) == attention
    layer = nn.TransformerEncoderLayer(3, 1, 5, batch_first=True)
    assert count_macs(Looks(layer).to(device), 8) == attention + 2 * places * 3 * 5


LEVELS: list[tuple[str, Callable[..., list[torch.Tensor]], list[int]]] = [
    ("vgg16", vgg_levels, [64, 128, 256, 512, 512]),
    ("densenet121", densenet_levels, [64, 256, 512, 1024, 1024]),
    ("resnet50", resnet_levels, [64, 256, 512, 1024, 2048]),
]


@pytest.mark.parametrize(("name", "levels", "widths"), LEVELS)
def test_pyramid_levels_have_strides_2_to_32(name: str, levels: Callable[..., list[torch.Tensor]], widths: list[int]) -> None:
    with torch.device("meta"):
        found = levels(make_trunk(name), torch.zeros(1, 3, 224, 224))
    assert [list(level.shape[1:]) for level in found] == [[w, s, s] for w, s in zip(widths, (112, 56, 28, 14, 7), strict=True)]


def test_levels_end_where_timms_own_network_ends() -> None:
    """The walk through the trunk is timm's forward pass."""
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 64)
    for name, levels, _ in LEVELS:
        trunk = make_trunk(name).eval()
        with torch.no_grad():
            expected = trunk.features(x) if name == "vgg16" else trunk.forward_features(x)
            assert torch.allclose(levels(trunk, x)[-1], expected, atol=1e-6), name


def _make(name: str) -> tuple[nn.Module, int]:
    tiny: dict[str, dict[str, Any]] = {"sfnet": {"trunk": "test_convnext"}, "medsiglip": TINY_TOWER, "hog-svm": {"size": 64}}
    torch.manual_seed(1)
    return build_model(name, 3, **tiny.get(name, {})), 64 if name == "hog-svm" else 32


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_learns(name: str) -> None:
    if name == "medsiglip":
        pytest.importorskip("transformers")
    model, side = _make(name)
    logits = model.train()(torch.rand(2, 3, side, side))
    assert logits.shape == (2, 3)
    nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None]
    assert idle == []


def test_unknown_options_of_an_own_network_are_refused() -> None:
    with pytest.raises(OctcError, match="cannot be built") as caught:
        build_model("fpn-vgg16", 3, invented=1)
    assert caught.value.code == "OCT-E307"


def test_f73_read_out_is_what_the_maps_are_scaled_with() -> None:
    torch.manual_seed(0)
    model = SfNet(3, trunk="test_convnext").eval()
    x = torch.rand(2, 3, 64, 64)
    weights = model.read_out(x)
    assert [w.shape[1] for w in weights] == [int(info["num_chs"]) for info in model.trunk.feature_info]
    assert all(bool(((w > 0) & (w < 1)).all()) for w in weights)
    before = model(x)
    with torch.no_grad():
        model.excite[-1].up.weight.mul_(5)
    assert not torch.equal(model(x), before)
    assert not torch.equal(model.read_out(x)[-1], weights[-1])


def test_sfnet_and_medsiglip_checkpoint_their_activations_without_another_result() -> None:
    pytest.importorskip("transformers")
    for model in (SfNet(3, trunk="test_convnext", drop_rate=0.0), MedSigLip(3, drop_rate=0.0, **TINY_TOWER)):
        x, grads = torch.rand(2, 3, 32, 32), []
        for switch in (False, True):
            model.train().zero_grad()
            model.set_grad_checkpointing(switch)
            model(x).sum().backward()
            grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        assert len(grads[0]) == len(grads[1])
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


def _stage(model: str, weights: str = "none") -> Stage:
    return Stage(model=model, weights=weights, size=32, epochs=1, lr=1e-3)


def test_trunk_starts_from_a_file_of_timms_network_and_the_head_stays(tmp_path: Path) -> None:
    theirs = timm.create_model("resnet50", pretrained=False, num_classes=1000)
    save_file(theirs.state_dict(), tmp_path / "resnet50.safetensors")
    model: Any = build_model("fpn-resnet50", 4)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    source = start_weights(model, _stage("fpn-resnet50"), tmp_path / "resnet50.safetensors", fetch=False)
    assert source["source"] == "file resnet50.safetensors"
    after = model.state_dict()
    assert torch.equal(after["trunk.layer4.2.conv3.weight"], theirs.state_dict()["layer4.2.conv3.weight"])
    rest = [name for name in after if not name.startswith("trunk.")]
    assert all(torch.equal(after[name], before[name]) for name in rest)


def test_another_network_does_not_pass_for_the_trunk(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(OctcError, match="missing keys") as caught:
        start_weights(build_model("fpn-resnet50", 4), _stage("fpn-resnet50"), tmp_path / "other.safetensors", fetch=False)
    assert caught.value.code == "OCT-E307"


def test_a_network_of_other_classes_gives_everything_but_the_last_layer(tmp_path: Path) -> None:
    """FPN-VGG16 on NEH after UCSD: four classes become three."""
    ucsd = build_model("hog-svm", 4, size=64)
    save_file(ucsd.state_dict(), tmp_path / "model.safetensors")
    small = SfNet(4, trunk="test_convnext")
    save_file(small.state_dict(), tmp_path / "sfnet.safetensors")
    model = SfNet(3, trunk="test_convnext")
    start_weights(model, _stage("sfnet"), tmp_path / "sfnet.safetensors", fetch=False)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, small.state_dict()[name]) == (not name.startswith("head.5.")), name


def test_medsiglip_reads_the_tower_of_a_downloaded_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    tower = MedSigLip(3, **TINY_TOWER).trunk.state_dict()
    whole = {f"vision_model.{name}": t for name, t in tower.items()} | {"text_model.head.bias": torch.zeros(3)}
    save_file(whole, tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        model = MedSigLip(3, **TINY_TOWER)
        source = start_weights(model, _stage("medsiglip"), place, fetch=False)
        assert source["licence"] == LICENCE
        assert all(torch.equal(t, tower[name]) for name, t in model.trunk.state_dict().items())


def test_medsiglip_refuses_a_file_without_a_tower(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(OctcError, match="no SigLIP vision tower"):
        start_weights(MedSigLip(3, **TINY_TOWER), _stage("medsiglip"), tmp_path, fetch=False)


def test_gated_weights_that_are_not_here_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OctcError) as caught:
        start_weights(MedSigLip(3, **TINY_TOWER), _stage("medsiglip", "hub"), None, fetch=False)
    assert caught.value.code == "OCT-E310"
    assert "accept the terms" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint


def test_medsiglip_without_transformers_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(OctcError, match="transformers") as caught:
        build_model("medsiglip", 3)
    assert caught.value.code == "OCT-E901"
    assert "octc[baselines]" in caught.value.hint


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("kd-oct-ucsd", "cc-by-nc-4.0"),
        ("kd-oct-open", "apache-2.0"),
        ("resnet50", "bsd-3-clause"),
        ("densenet121", "apache-2.0"),
    ],
)
def test_timm_knows_the_licence_of_the_weights(recipe: str, words: str) -> None:
    stage = RECIPES[recipe]().teacher
    known: Any = timm.get_pretrained_cfg(stage.model)
    assert known.license == words
    assert known.hf_hub_id
