"""octc.quantize and octc.export: any traceable network to a complete artifact, without a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

import octc
from octc.compress.placement import int8_share
from octc.core import progress
from octc.core.errors import OctcError
from octc.core.progress import LogReporter, Step
from octc.export.lint.check import counts, lint
from octc.store.artifacts import read_artifact
from octc.train.loop.evaluate import logits_of
from octc.train.networks.models import normalise

PRE = octc.Preprocess(size=64)
QUICK = octc.QuantizeOptions(rounding=False, observers=["max"])
CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")


class Heard(LogReporter):
    """Keeps what was said and how far it was."""

    def __init__(self) -> None:
        super().__init__()
        self.bars: list[tuple[str, int | None, list[int]]] = []
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def progress(self, label: str, total: int | None) -> Iterator[Step]:
        self.bars.append((label, total, []))
        yield self.bars[-1][2].append


def pictures(count: int, seed: int = 0) -> list[Image.Image]:
    """Noise over steps of grey: enough for ranges."""
    rng = np.random.default_rng(seed)
    return [Image.fromarray((rng.integers(0, 120, (72, 80)) + 25 * (i % 4)).astype(np.uint8)) for i in range(count)]


class Asks(nn.Module):
    """Looks into its input, which a trace cannot."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if bool(x.sum() > 1e9) else x


class Own(nn.Module):
    def __init__(self, middle: nn.Module | None = None, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.middle = middle or nn.Identity()
        self.head = nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.middle(torch.relu(self.norm(self.stem(x)))).mean((2, 3)))
        return result


def network(which: str) -> nn.Module:
    torch.manual_seed(0)
    if which == "timm":
        return timm.create_model("resnet10t", num_classes=4)  # type: ignore[no-any-return]
    if which == "torchvision":
        return torchvision.models.squeezenet1_1(weights=None, num_classes=4)  # type: ignore[no-any-return]
    return Own()


def test_the_rounding_says_how_far_it_is_and_for_how_long_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    told = Heard()
    model = timm.create_model("test_resnet", num_classes=4)
    octc.quantize(model, pictures(16), PRE, options=replace(QUICK, rounding=True), reporter=told)
    count = len(told.lines) + 1
    assert [line.split("  ")[2].partition(",")[0] for line in told.lines] == [f"{k} of {count}" for k in range(1, count)]
    timed = [line.endswith(" left") for line in told.lines]
    assert timed == sorted(timed)  # from some line on; a first layer tells nothing of the others
    assert timed[-1]
    assert count > 9


@pytest.mark.parametrize("which", ["timm", "torchvision", "own"])
def test_a_network_becomes_an_artifact_that_answers_as_its_grid_does(which: str, tmp_path: Path) -> None:
    model = network(which)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images = pictures(24)
    told = Heard()
    quantized = octc.quantize(model, images, PRE, classes=CLASSES, options=QUICK, reporter=told)
    assert [(label, sum(steps) == total) for label, total, steps in told.bars] == [("calibration", True)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    (folder,) = octc.export(quantized, ["onnx"], out=tmp_path)
    artifact = read_artifact(folder)
    assert artifact.classes == CLASSES
    assert artifact.preprocess == PRE
    assert artifact.details["quantisation"]["calibration_images"] == 18  # a quarter chose among the calibrators
    assert artifact.details["gate"] is None
    assert artifact.lineage["run"] is None
    assert artifact.lineage["weights"] == {"source": "own network", "licence": "unknown"}
    assert not list(tmp_path.glob(".tmp-*"))
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, images, strict=False):
        image.save(path)
    with octc.load(folder, threads=1) as loaded:
        said = loaded.predict(paths)
    assert quantized.module is not None
    inputs = np.concatenate([PRE.prepare(image) for image in images[:4]])
    expected = torch.softmax(logits_of(quantized.module, inputs, PRE, "cpu"), 1).numpy()
    for one, row in zip(said, expected, strict=True):
        assert one.probabilities is not None
        assert list(one.probabilities.values()) == pytest.approx(row.tolist(), abs=2e-3)


def test_float_files_need_no_calibration_to_be_right(tmp_path: Path) -> None:
    quantized = octc.quantize(Own(), pictures(16), PRE, options=QUICK)
    folders = octc.export(quantized, ["onnx", "openvino"], "fp16", out=tmp_path)
    assert [folder.name for folder in folders] == ["onnx-fp16", "openvino-fp16"]
    assert quantized.classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(("build", "words", "code", "place"), [
    (lambda: Own(Asks()), {}, "OCT-E404", "middle"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4)), {}, "OCT-E404", None),
    (lambda: nn.Conv2d(3, 4, 3), {}, "OCT-E404", None),
    (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), {}, "OCT-E404", None),
    (Own, {"classes": ("a", "b")}, "OCT-E309", "classes"),
    (Own, {"classes": ("a", "a", "b", "c")}, "OCT-E309", "classes"),
    (Own, {"images": 15}, "OCT-E214", "calibration"),
    (Own, {"images": 0}, "OCT-E214", "calibration"),
    (Own, {"options": octc.QuantizeOptions(observers=["median"])}, "OCT-E104", None),
    (Own, {"validation": (pictures(4, 9), [0, 1])}, "OCT-E706", "validation"),
    (Own, {"validation": (pictures(4, 9), [0, 1, 2, 7])}, "OCT-E706", "validation"),
    (Own, {"validation": (pictures(4), [0, 1, 2, 3])}, "OCT-E214", "calibration"),
])  # fmt: skip
def test_what_cannot_be_quantised_is_refused(build: Any, words: dict[str, Any], code: str, place: str | None) -> None:
    words = dict(words)
    images = pictures(words.pop("images", 16))
    with pytest.raises(OctcError) as caught:
        octc.quantize(build(), images, PRE, **{"options": QUICK, **words})
    assert caught.value.code == code
    assert caught.value.place == place


class Sampled(nn.Module):
    """A spatial transformer: where it looks follows from what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = self.where(x.mean((2, 3))).view(-1, 2, 3) * 0.1 + torch.tensor([[1.0, 0, 0], [0, 1, 0]])
        grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
        return nn.functional.grid_sample(torch.atan(x.sinh()), grid, align_corners=False)


class Spectral(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft2(x, norm="ortho").real


def test_what_an_artifact_may_not_hold_is_named_when_it_is_written(tmp_path: Path) -> None:
    """A Fourier transform is no operator of an artifact; a grid that is sampled, and functions of single values, are."""
    with pytest.raises(OctcError, match="DFT") as caught:
        octc.export(octc.quantize(Own(Spectral()), pictures(16), PRE, options=QUICK), ["onnx"], out=tmp_path / "not")
    assert (caught.value.code, caught.value.place) == ("OCT-E404", "Own")
    assert not list((tmp_path / "not").glob("*"))
    model, images = Own(Sampled()), pictures(16)
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for image, file in zip(images, files, strict=False):
        image.save(file)
    pixels = torch.from_numpy(np.concatenate([PRE.prepare(image) for image in images[:4]]))
    with torch.no_grad():
        wanted = torch.softmax(model.eval()(normalise(pixels, PRE)), 1).tolist()
    quantized = octc.quantize(model, images, PRE, options=QUICK)
    for folder in octc.export(quantized, ["onnx", "openvino"], "fp32", out=tmp_path):
        with octc.load(folder, threads=1) as loaded:
            for said, row in zip(loaded.predict(files), wanted, strict=True):
                assert said.probabilities is not None
                assert list(said.probabilities.values()) == pytest.approx(row, abs=1e-4)


class Gives(Own):
    """Its result in another form than logits."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor) -> Any:
        return self.form(super().forward(x))


@pytest.mark.parametrize(("form", "words", "hint"), [
    (lambda y: {"logits": y}, "a dict of 1 (logits)", "wrap it"),
    (lambda y: (y, y), "gives a tuple", "wrap it"),
    (lambda y: y[:, :1], "gives [16, 1]", "torch.zeros_like(z)"),
    (lambda y: y.softmax(1), "gives probabilities", "softmax"),
    (torch.sigmoid, "ends in a sigmoid", "leave out the sigmoid"),
    (lambda y: y[:, :1].sigmoid(), "the probability of one of two classes", "torch.zeros_like(z)"),
    (lambda y: y[:, 0].sigmoid(), "the probability of one of two classes", "torch.zeros_like(z)"),
    (lambda y: nn.Sigmoid()(y).squeeze().float(), "ends in a sigmoid", "leave out the sigmoid"),
    (lambda y: y.argmax(1), "whole numbers (int64)", "argmax"),
])  # fmt: skip
def test_results_that_are_no_logits_are_refused_with_the_way_out(form: Any, words: str, hint: str) -> None:
    with pytest.raises(OctcError) as caught:
        octc.quantize(Gives(form), pictures(16), PRE, options=QUICK)
    assert caught.value.code == "OCT-E404"
    assert words in caught.value.message
    assert hint in caught.value.hint


def test_the_hint_for_one_logit_is_an_artifact_with_the_same_probability(tmp_path: Path) -> None:
    net = Gives(lambda y: torch.cat([torch.zeros_like(y[:, :1]), y[:, :1]], 1)).eval()
    found = octc.quantize(net, pictures(16), PRE, options=QUICK)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found.float_model(x).softmax(1)[:, 1], Own.forward(net, x)[:, 0].sigmoid())


def test_an_int8_network_that_is_mostly_float_is_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    linear = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.Flatten(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 4))
    found = octc.quantize(linear, pictures(16), PRE, options=QUICK, name="linear")
    octc.export(found, ["onnx"], out=tmp_path)
    convolutions = 8 * 8 * 8 * 3 * 8 * 8
    share = convolutions / (convolutions + 512 * 512 + 512 * 4)
    assert found.module is not None
    assert int8_share(found.module, 64) == pytest.approx(share)
    assert share < 0.5
    assert f"{100 * share:.0f} % of the multiply-accumulates of linear are INT8" in caplog.text


def test_a_module_that_cannot_be_traced_is_named_with_its_line_and_may_stay_whole() -> None:
    with pytest.raises(OctcError) as caught:
        octc.quantize(Own(Asks()), pictures(16), PRE)
    assert "Asks" in caught.value.message
    assert f"{Path(__file__).name}:" in caught.value.message
    assert "whole=[Asks]" in caught.value.hint
    quantized = octc.quantize(
        Own(Asks()), pictures(16), PRE, options=octc.QuantizeOptions(whole=[Asks], rounding=False, observers=["max"])
    )
    assert quantized.facts["placement"]["int8_convolutions"] == 1


class ByFunction(nn.Module):
    """A convolution that is no module, behind one that is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.weight = nn.Conv2d(8, 8, 3, padding=1), nn.Parameter(torch.randn(8, 8, 3, 3) * 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(self.conv(x), self.weight, padding=1)


class Asked(nn.Module):
    """One query over a map: a parameter goes into a module."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.attention = nn.Parameter(torch.randn(1, 1, 8)), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        found: torch.Tensor = self.attention(self.query.expand(x.shape[0], -1, -1), tokens, tokens)[0]
        return found.transpose(1, 2).unsqueeze(-1)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [[ByFunction], []], ids=["whole", "traced"])
def test_convolutions_that_no_quantiser_is_meant_for_stay_in_float(whole: list[type[nn.Module]], tmp_path: Path) -> None:
    torch.manual_seed(0)
    quantized = octc.quantize(Own(ByFunction()), pictures(16), PRE, options=replace(QUICK, whole=whole))
    (folder,) = octc.export(quantized, ["onnx"], out=tmp_path)
    proto = onnx.load(str(folder / "model.onnx"))
    assert counts(proto)["int8_convolutions"] == (1 if whole else 3)
    assert counts(proto)["float_convolutions"] == (2 if whole else 0)
    assert not [one for one in lint(proto, "onnx") if one.rule == "W26"]  # the file itself says that they are meant


@pytest.mark.slow
def test_a_query_that_is_a_parameter_is_no_obstacle(tmp_path: Path) -> None:
    quantized = octc.quantize(Own(Asked()), pictures(16), PRE, options=QUICK)
    (folder,) = octc.export(quantized, ["onnx"], out=tmp_path)
    with octc.load(folder, threads=1) as model:
        assert model.golden.ok


@pytest.mark.parametrize(("words", "code"), [
    ({"targets": ["torch"], "precision": "fp32"}, "OCT-E104"),
    ({"targets": ["onnx"], "precision": "int4"}, "OCT-E104"),
    ({"targets": ["coreml"]}, "OCT-E104"),
    ({"targets": ["onnx"], "gate": octc.Gate(margin=1)}, "OCT-E102"),
])  # fmt: skip
def test_a_request_that_cannot_be_met_writes_nothing(words: dict[str, Any], code: str, tmp_path: Path) -> None:
    quantized = octc.quantize(Own(), pictures(16), PRE, options=QUICK)
    with pytest.raises(OctcError) as caught:
        octc.export(quantized, out=tmp_path / "new", **words)
    assert caught.value.code == code
    assert not (tmp_path / "new").exists()


def test_an_artifact_that_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    quantized = octc.quantize(Own(), pictures(16), PRE, options=QUICK)
    (folder,) = octc.export(quantized, ["onnx"], "fp32", out=tmp_path)
    before = (folder / "artifact.json").read_bytes()
    with pytest.raises(OctcError) as caught:
        octc.export(quantized, ["onnx"], "fp32", out=tmp_path)
    assert caught.value.code == "OCT-E106"
    assert (folder / "artifact.json").read_bytes() == before
    assert octc.export(quantized, ["onnx"], "fp32", out=tmp_path, force=True) == [folder]


class ChannelsFirst(nn.Module):
    """Its views want channels first, in a map of the image and in a parameter of four axes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8 * 64, 4)
        self.turns = nn.Parameter(torch.randn(8, 8, 5, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.stem(x)
        turned = torch.fft.irfft2(torch.fft.rfft2(maps) * torch.view_as_complex(self.turns), s=(8, 8))
        logits: torch.Tensor = self.head((maps + 0.1 * turned).view(x.size(0), -1) + maps.view(x.size(0), -1))
        return logits


def test_a_network_whose_views_want_channels_first_is_quantised() -> None:
    torch.manual_seed(0)
    net = ChannelsFirst().eval()
    found = octc.quantize(net, pictures(16), PRE, options=QUICK)
    x = torch.randn(2, 3, 64, 64)
    assert found.module is not None
    for images in (x, x.contiguous(memory_format=torch.channels_last)):
        with torch.no_grad():
            wanted = net(x)
            assert float((found.module(images) - wanted).abs().max()) < 0.1 * float(np.ptp(wanted.numpy()))


class Columns(nn.Module):
    """Reads the columns of a map one after the other, to and fro."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(32, 4)
        self.read, self.again = nn.LSTM(8, 8, batch_first=True, bidirectional=True), nn.GRU(16, 32, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found, _ = self.again(self.read(self.stem(x).relu().mean(2).transpose(1, 2))[0])
        logits: torch.Tensor = self.head(found[:, -1])
        return logits


@pytest.mark.slow
def test_recurrent_layers_are_exported_and_answer_as_torch_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Columns().eval()
    found = octc.quantize(net, pictures(16), PRE, options=QUICK)
    files = [tmp_path / f"{k}.png" for k in range(3)]
    for file, picture in zip(files, pictures(3), strict=True):
        picture.save(file)
    for folder in octc.export(found, ["onnx", "openvino"], "fp32", out=tmp_path / "out"):
        with octc.load(folder, threads=1) as model:
            answers = [list((one.probabilities or {}).values()) for one in model.predict(files)]
        images = np.concatenate([PRE.prepare(Image.open(one)) for one in files])
        wanted = logits_of(net, images, PRE, "cpu").softmax(1).numpy()
        np.testing.assert_allclose(answers, wanted, atol=1e-4)
