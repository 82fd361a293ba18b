"""`octc weights convert` and `--teacher FILE`: checkpoints as other programs write them, each a real file of torch.save."""

from __future__ import annotations

import argparse
import json
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.store.runs import Run, scan_runs
from octc.train.loop.checkpoint import read_checkpoint
from octc.train.networks import torch_files
from octc.train.networks.checkpoint_files import read_checkpoint_file
from tests.cli.train_words import patterns
from tests.volume_run import write_clinic

__all__ = ["patterns"]  # a fixture
NAME = "test_resnet"
Make = Callable[[dict[str, torch.Tensor]], Any]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    made: dict[str, torch.Tensor] = timm.create_model(NAME, num_classes=4).state_dict()
    return made


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return OrderedDict((f"{prefix}{name}", tensor) for name, tensor in state.items())


# name of the file -> what is in it, the dictionary that is taken, what was taken off its names
KINDS: dict[str, tuple[Make, str, str]] = {
    "best_model.pth": (lambda s: s, "the whole file", ""),  # KD-OCT: the state_dict of timm's network
    "plain.pth.tar": (lambda s: {"epoch": 3, "state_dict": s, "best_acc1": torch.tensor(80.0)}, "state_dict", ""),
    "timm.pth.tar": (
        lambda s: {
            "epoch": 3, "arch": NAME, "state_dict": s, "optimizer": {"state": {}, "param_groups": []}, "version": 2,
            "args": argparse.Namespace(lr=0.1, model=NAME), "metric": 81.0,
        }, "state_dict", "",
    ),
    "deit.pth": (lambda s: {"model": s, "optimizer": {}, "scaler": {"scale": 1.0}, "epoch": 1}, "model", ""),
    "lightning.ckpt": (
        lambda s: {
            "epoch": 1, "global_step": 10, "pytorch-lightning_version": "2.1.0", "optimizer_states": [{}], "loops": {},
            "state_dict": {**under("model.", s), "criterion.weight": torch.ones(4)},
            "hyper_parameters": {"lr": np.float64(0.1)},
        }, "state_dict", "model.",
    ),
    "parallel.pth": (lambda s: under("module.", s), "the whole file", "module."),
    "compiled.pt": (lambda s: {"model_state_dict": under("_orig_mod.", s)}, "model_state_dict", ""),
    "both.pt": (lambda s: {"net": under("module._orig_mod.", s)}, "net", "module."),
    "swa.pth": (lambda s: {"n_averaged": torch.tensor(3), **under("module.", s)}, "the whole file", "module."),
    "nested.bin": (lambda s: {"checkpoint": 1, "model": {"state_dict": s, "step": 3}}, "model.state_dict", ""),
    "half.pth": (lambda s: {"ema": {k: v.half() if v.is_floating_point() else v for k, v in s.items()}}, "ema", ""),
}  # fmt: skip


def converted(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(("weights", "convert", *map(str, words), "--json"))
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, value


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_becomes_the_same_safetensors(
    kind: str, zipped: bool, state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, where, prefix = KINDS[kind]
    torch.save(make(state), tmp_path / kind, _use_new_zipfile_serialization=zipped)
    code, value = converted(capsys, tmp_path / kind, "--model", NAME)
    assert code == 0, value["error"]
    found, document = load_file(value["data"]["file"]), value["data"]
    assert Path(document["file"]).suffix == ".safetensors"
    assert set(found) == set(state)
    for name, tensor in state.items():
        torch.testing.assert_close(found[name].to(tensor.dtype), tensor, rtol=1e-3, atol=1e-3)
    assert (document["taken"], document["prefix"]) == (where, prefix)
    if kind == "lightning.ckpt":
        assert document["dropped"][0] == "criterion.weight"
        assert "optimizer_states (list)" in document["dropped"]
    if kind == "timm.pth.tar":
        assert document["architecture"] == NAME
        assert "optimizer (a dictionary)" in document["dropped"]
        assert read_checkpoint_file(Path(document["file"])).architecture == NAME  # it goes on in the file


def test_a_network_and_its_average_are_two_and_the_one_that_is_meant_is_named(
    state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    average = {name: tensor + 1 for name, tensor in state.items()}
    for first, second in (("state_dict", "state_dict_ema"), ("model", "model_ema")):
        torch.save({first: state, second: average}, tmp_path / "two.pth")
        code, value = converted(capsys, tmp_path / "two.pth", "--force")
        assert (code, value["error"]["code"]) == (3, "OCT-E307")
        assert f"{first} (" in value["error"]["message"]
        assert f"--take {second}" in value["error"]["help"]
        code, value = converted(capsys, tmp_path / "two.pth", "--take", second, "--force")
        assert code == 0
        assert f"{first} (a network)" in value["data"]["dropped"]
        found = load_file(value["data"]["file"])
        torch.testing.assert_close(found["conv1.0.weight"], average["conv1.0.weight"])
    code, value = converted(capsys, tmp_path / "two.pth", "--take", "teacher", "--force")
    assert (code, value["error"]["code"]) == (3, "OCT-E307")


class Bad:
    """Writes a file when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return (Path.write_text, (self.place, "done"))


@pytest.mark.parametrize("zipped", [True, False])
def test_what_does_more_than_hold_tensors_is_refused_and_not_executed(
    zipped: bool, state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import os

    class Runs:
        def __reduce__(self) -> Any:
            return (os.system, (f"touch {tmp_path / 'executed'}",))

    for value in (Runs(), Bad(tmp_path / "executed"), nn.Linear(2, 2), {"a": {"b": [Runs()]}}):
        torch.save({"state_dict": state, "x": value}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        code, document = converted(capsys, tmp_path / "x.pth")
        assert (code, document["error"]["code"]) == (3, "OCT-E308")
        assert not (tmp_path / "executed").exists()
        assert not (tmp_path / "x.safetensors").exists()


def test_files_beyond_the_limits_and_files_that_are_none(
    state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deep: dict[str, Any] = state
    for _ in range(torch_files.DEEPEST + 2):
        deep = {"a": deep}
    torch.save(deep, tmp_path / "deep.pth")
    torch.save({"w": torch.ones(1).expand(10**10)}, tmp_path / "claims.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(torch_files.PICKLE + 1))
    for name in ("deep.pth", "claims.pth", "bomb.pth"):
        code, value = converted(capsys, tmp_path / name)
        assert (code, value["error"]["code"]) == (3, "OCT-E504"), name
    torch.save(state, tmp_path / "whole.pth")
    for limit in ("LARGEST", "ENTRIES"):
        monkeypatch.setattr(torch_files, limit, 10)
        assert converted(capsys, tmp_path / "whole.pth")[1]["error"]["code"] == "OCT-E504"
        monkeypatch.undo()
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:3000])
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.write(tmp_path / "whole.pth", "inside.pth")
    with tarfile.open(tmp_path / "packed.pth.tar", "w") as packed:
        packed.add(tmp_path / "whole.pth", "inside.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    (tmp_path / "text.pth").write_text("hello")
    for name in ("cut.pth", "zip.pth", "packed.pth.tar", "list.pth", "empty.pth", "text.pth"):
        code, value = converted(capsys, tmp_path / name)
        assert (code, value["error"]["code"]) == (3, "OCT-E307"), (name, value["error"])
    assert "inside.pth" in converted(capsys, tmp_path / "packed.pth.tar")[1]["error"]["message"]
    assert converted(capsys, tmp_path / "absent.pth")[1]["error"]["code"] == "OCT-E310"


def test_another_network_is_refused_with_the_shapes_and_nothing_is_replaced_unasked(
    state: dict[str, torch.Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(state, tmp_path / "a.pth")
    code, value = converted(capsys, tmp_path / "a.pth", "--model", "resnet18")
    assert (code, value["error"]["code"]) == (3, "OCT-E307")
    assert "different shapes (" in value["error"]["message"]
    assert "file [" in value["error"]["message"]
    assert converted(capsys, tmp_path / "a.pth")[0] == 0
    before = (tmp_path / "a.safetensors").read_bytes()
    assert converted(capsys, tmp_path / "a.pth")[1]["error"]["code"] == "OCT-E106"
    assert converted(capsys, tmp_path / "a.safetensors")[1]["error"]["code"] == "OCT-E106"  # never onto itself
    assert (tmp_path / "a.safetensors").read_bytes() == before


@pytest.fixture(scope="module")
def taught(patterns: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a teacher that learned the patterns, as another program has them: without octc's description."""
    place = tmp_path_factory.mktemp("taught")
    words = ("--dataset", "folder", "--data", str(patterns), "--recipe", "smoke", "--epochs", "12", "--run-dir", str(place))
    assert main(("train", "teacher", *words, "--quiet")) == 0
    known, weights = read_checkpoint(scan_runs(place)[0].path / "train")
    torch.save({"arch": known.model, "state_dict": weights, "args": argparse.Namespace(lr=1)}, place / "theirs.pth.tar")
    torch.save(weights, place / "best_model.pth")
    return place


def student(place: Path, patterns: Path, *words: object) -> tuple[str, ...]:
    given = ("train", "student", "--dataset", "folder", "--data", patterns, "--recipe", "smoke", "--epochs", "1", "--no-qat")
    return tuple(map(str, (*given, "--run-dir", place, *words)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["theirs.pth.tar", "best_model.pth"])
def test_a_teacher_of_another_program_teaches(
    name: str, taught: Path, patterns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(student(tmp_path / "runs", patterns, "--teacher", taught / name, "--any-teacher", "--dry-run")) == 0
    heard = capsys.readouterr().err
    assert f"named by {f'file {name}' if 'tar' in name else 'recipe smoke'}" in heard
    assert "taken in the order of the data set, bright, dark, lying, upright" in heard
    assert "what it was trained on is not known" in heard
    assert "validation images right" in heard
    assert not (tmp_path / "runs").exists()  # a dry run
    assert main(student(tmp_path / "runs", patterns, "--teacher", taught / name, "--any-teacher")) == 0
    (run,) = scan_runs(tmp_path / "runs")
    known, _ = read_checkpoint(run.path / "train")
    assert known.parent is not None
    assert known.parent["weights"]["source"] == f"file {name}"
    assert known.parent["weights"]["trained_on"] == "unknown"
    Run(run.path).update(status="interrupted")
    assert main(student(tmp_path / "runs", patterns, "--resume", run.id)) == 0  # it is remembered by its content


@pytest.mark.slow
def test_a_teacher_file_that_does_not_fit_is_refused(
    taught: Path, patterns: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*words: object) -> dict[str, Any]:
        capsys.readouterr()
        assert main((*student(tmp_path / "runs", patterns, *words), "--json")) != 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)["error"]
        return found

    weights = read_checkpoint_file(taught / "best_model.pth").state
    head = next(name for name in weights if name.startswith("classifier.") and name.endswith("weight"))
    order = [1, 2, 3, 0]
    turned = {k: v[order] if k.startswith("classifier.") else v for k, v in weights.items()}
    save_file({k: v.contiguous() for k, v in turned.items()}, tmp_path / "turned.safetensors")
    found = error("--teacher", tmp_path / "turned.safetensors")
    assert found["code"] in ("OCT-E309", "OCT-E702"), found  # another order of classes, or one that knows too little to tell
    three = {k: v[:3] if k.startswith("classifier.") else v for k, v in weights.items()}
    assert weights[head].shape[0] == 4
    torch.save(three, tmp_path / "three.pth")
    found = error("--teacher", tmp_path / "three.pth")
    assert (found["code"], "3 classes, 4 are needed" in found["message"]) == ("OCT-E307", True)
    torch.save({"state_dict": weights, "classes": ["upright", "bright", "dark", "lying"]}, tmp_path / "named.pth")
    found = error("--teacher", tmp_path / "named.pth")
    assert found["code"] == "OCT-E309"
    assert "teacher upright, bright, dark, lying; data bright, dark, lying, upright" in found["message"]
    found = error("--teacher", taught / "best_model.pth", "--teacher-model", "resnet18")
    assert found["code"] == "OCT-E307"
    assert not list((tmp_path / "runs").glob("r-*"))


def test_files_of_other_frameworks_are_named_with_the_way_from_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08\x12\x07pytorch" + bytes(200))
    (tmp_path / "net.tflite").write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(200))
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as made:
        made.writestr("config.json", "{}")
        made.writestr("model.weights.h5", b"\x89HDF")
    for name in ("net.h5", "net.onnx", "net.tflite", "net.keras"):
        code, value = converted(capsys, tmp_path / name)
        assert (code, value["error"]["code"]) == (3, "OCT-E307")
        assert "octc import" in value["error"]["help"], name


def a_teacher(file: Path, classes: int) -> Path:
    """A network of smoke's teacher that learned nothing."""
    torch.manual_seed(0)
    torch.save(timm.create_model("mobilenetv4_conv_small", num_classes=classes).state_dict(), file)
    return file


def write_volumes(place: Path) -> tuple[str, ...]:
    write_clinic(place / "clinic", 4)
    return "--dataset", "volumes", "--data", str(place / "clinic")


def write_deep(place: Path) -> tuple[str, ...]:
    """A table in a folder, the images (12 bits) in another one; the options that name them."""
    rng = np.random.default_rng(1)
    (place / "pixels").mkdir()
    (place / "tables").mkdir()
    lines = ["path,label,patient"]
    for n in range(24):
        pixels = rng.integers(0, 4096, (48, 64)).astype(np.uint16)
        Image.fromarray(pixels).save(place / "pixels" / f"{n}.png")
        lines.append(f"{n}.png,{('wet', 'dry')[n % 2]},P{n // 2}")
    (place / "tables" / "labels.csv").write_text("\n".join(lines) + "\n")
    words = ("--dataset", "csv", "--data", str(place / "tables"), "--image-root", str(place / "pixels"))
    return *words, "--value-range", "0,4095"


@pytest.mark.parametrize(("write", "classes"), [(write_volumes, 4), (write_deep, 2)])
def test_a_teacher_of_another_program_is_asked_about_every_kind_of_images(
    write: Callable[[Path], tuple[str, ...]], classes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--recipe", "smoke", "--no-qat", "--run-dir", str(tmp_path / "runs"), "--any-teacher", "--dry-run")
    file = str(a_teacher(tmp_path / "theirs.pth", classes))
    assert main(("train", "student", *write(tmp_path), *words, "--teacher", file)) == 0, capsys.readouterr().err
    assert "validation images right" in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_in_a_folder_with_images_elsewhere_is_gone_on_with(tmp_path: Path) -> None:
    words = write_deep(tmp_path)
    common = ("--recipe", "smoke", "--teacher", "none", "--no-qat", "--epochs", "1", "--run-dir", str(tmp_path / "runs"))
    assert main(("train", "student", *words, *common)) == 0
    (run,) = scan_runs(tmp_path / "runs")
    Run(run.path).update(status="interrupted")
    assert main(("train", "student", "--run-dir", str(tmp_path / "runs"), "--resume", run.id)) == 0


def test_an_order_of_classes_is_told_by_the_answers() -> None:
    from octc.train.jobs.foreign_teacher import _check_order

    names = ("a", "b", "c")
    _check_order([0, 1, 2] * 5, [0, 1, 2] * 5, names, "-")
    _check_order([0, 1, 2] * 5, [0] * 15, names, "-")  # one answer to everything is no order
    with pytest.raises(OctcError, match=r"teacher's is c, a, b; data a, b, c") as caught:
        _check_order([0, 1, 2] * 5, [1, 2, 0] * 5, names, "-")
    assert caught.value.code == "OCT-E309"
