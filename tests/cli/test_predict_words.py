"""Which network answers: the one that was named, or none. Two runs whose networks answer differently lie in runs/."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from octc.cli._app.main import main
from octc.runtimes.model_kind import is_picture, model_kind
from octc.store.runs import Run
from tests.tiny_artifacts import copied, resign, shared_run

Said = Callable[..., tuple[int, str, str]]
OTHER = ("here", "there", "near", "far")  # class names of the artifact that is not the newest


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture
def place(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/ with the tiny run, other/onnx-int8 with an artifact of other classes, a.png and b.png, foreign models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(run.path.parent)
    other = copied(run, "onnx-int8", tmp_path / "other")
    resign(other, lambda value: value.update(classes=list(OTHER)))
    pictures = sorted((run.path.parent.parent / "patterns" / "dark").iterdir())
    for name, picture in (("a.png", pictures[0]), ("b.png", pictures[1]), ("c.onnx", pictures[2])):
        shutil.copy(picture, tmp_path / name)
    shutil.copy(other / "model.onnx", tmp_path / "foreign.onnx")
    return tmp_path


@pytest.fixture
def said(place: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main(["predict", *map(str, words), "--json"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.mark.parametrize("word", ["other/onnx-int8/model.onnx", "other/onnx-int8/artifact.json", "other/onnx-int8/golden.npz",
                                  "other/onnx-int8/", "./other/onnx-int8", "other"])  # fmt: skip
def test_a_file_of_an_artifact_as_first_word_means_that_artifact(said: Said, word: str) -> None:
    code, out, err = said(word, "a.png")
    data = json.loads(out)["data"]
    assert (code, data["artifact"]["classes"], Path(data["artifact"]["folder"])) == (0, list(OTHER), Path("other/onnx-int8"))
    assert [Path(record["file"]).name for record in data["records"]] == ["a.png"]
    assert "other/onnx-int8" in err.splitlines()[0]


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def torch_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("archive/data.pkl", b"x")


MODELS: dict[str, Callable[[Path], object]] = {
    "m.engine": lambda p: p.write_bytes(b"ftrt" + bytes(100)),
    "m.plan": lambda p: p.write_bytes(bytes(100)),
    "m.pt": torch_zip,
    "m.pth": lambda p: p.write_bytes(pickle.dumps({"a": 1})),
    "m.ckpt": torch_zip,
    "m.safetensors": lambda p: p.write_bytes(struct.pack("<Q", 2) + b"{}"),
    "m.tflite": lambda p: p.write_bytes(b"\x1c\0\0\0TFL3" + bytes(20)),
    "m.xml": lambda p: p.write_text('<?xml version="1.0"?>\n<net name="x" version="11"></net>'),
    "m.h5": lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(20)),
    "renamed.png": lambda p: p.write_bytes(Path("foreign.onnx").read_bytes()),
    "renamed.jpeg": lambda p: p.write_bytes(struct.pack("<Q", 2) + b"{}"),
    "no-ending": lambda p: p.write_bytes(Path("foreign.onnx").read_bytes()),
    "CAPITAL.ONNX": lambda p: p.write_bytes(b"cut off"),
    "empty.onnx": lambda p: p.write_bytes(b""),
    "m.bin": lambda p: p.write_bytes(bytes(100)),
    "box.zip": lambda p: p.write_bytes(b"PK\x03\x04" + bytes(20)),
    "without-manifest/model.onnx": lambda p: write(p, b"x"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_without_an_artifact_is_refused_and_nobody_else_answers(said: Said, place: Path, name: str) -> None:
    (place / name).parent.mkdir(exist_ok=True)
    MODELS[name](place / name)
    for word in {name, name.partition("/")[0]}:
        code, out, err = said(word, "a.png")
        document = json.loads(out)
        assert (code, document["error"]["code"], document["data"]) == (2, "OCT-E107", {}), err
        assert word in document["error"]["message"]


@pytest.mark.parametrize(("words", "code"), [
    (("foreign.onnx", "a.png"), "OCT-E107"), (("foreign.onnx",), "OCT-E107"), (("r-0077", "a.png"), "OCT-E107"),
    (("runs/r-0077-student-x/artifacts/onnx-int8", "a.png"), "OCT-E107"), (("runs", "a.png"), "OCT-E107"),
    (("runs",), "OCT-E107"),
    (("a.png", "foreign.onnx"), "OCT-E104"), (("a.png", "other/onnx-int8"), "OCT-E104"),
    (("a.png", "other/onnx-int8/model.onnx", "b.png"), "OCT-E104"), (("a.png", "runs"), "OCT-E104"),
    (("a.png", "r-0001"), "OCT-E104"), (("other", "a.png", "r-0001"), "OCT-E104"),
    (("other", "other/onnx-int8/model.onnx", "a.png"), "OCT-E104"), (("other/onnx-int8/model.onnx",), "OCT-E104"),
])  # fmt: skip
def test_a_network_that_is_not_there_or_stands_elsewhere_is_refused(said: Said, words: tuple[str, ...], code: str) -> None:
    ended, out, err = said(*words)
    document = json.loads(out)
    assert (ended, document["error"]["code"], document["data"]) == (2, code, {}), err
    assert document["error"]["help"]


def test_content_decides_what_a_file_is(said: Said, place: Path) -> None:
    """A picture is a picture whatever its name; a model among named images is a bad input; one in a folder is left out."""
    code, out, _ = said("c.onnx", "a.png")
    assert (code, [r["status"] for r in json.loads(out)["data"]["records"]]) == (0, ["ok", "ok"])
    code, out, _ = said("other", "a.png", "foreign.onnx", "b.png")
    records = json.loads(out)["data"]["records"]
    assert (code, [r["error"] and r["error"]["code"] for r in records]) == (3, [None, "OCT-E202", None])
    (place / "mixed").mkdir()
    shutil.copy("a.png", "mixed/a.png")
    shutil.copy("foreign.onnx", "mixed/x.onnx")
    shutil.copy("foreign.onnx", "mixed/y.png")
    code, out, err = said("mixed")
    document = json.loads(out)
    assert (code, [Path(r["file"]).name for r in document["data"]["records"]]) == (3, ["a.png", "y.png"])
    assert [one["path"] for one in document["data"]["left_out"]] == ["mixed/x.onnx"]
    assert "x.onnx" in err


def test_artifacts_of_several_runs_are_ambiguous(said: Said, run: Run, place: Path) -> None:
    one = copied(run, "onnx-fp32", place / "mixed")
    resign(one, lambda value: value["lineage"].update(run="r-0009-student-x"))
    copied(run, "onnx-int8", place / "mixed")
    code, out, err = said("mixed", "a.png")
    assert (code, json.loads(out)["error"]["code"], "r-0009-student-x" in err) == (2, "OCT-E107", True)


def test_other_commands_take_a_file_of_an_artifact_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And refuse a foreign model. The report needs no images; what verify says of golden images alone is its own."""
    model = "other/onnx-int8/model.onnx"
    code = main(["report", model, "--md", "--json", "-o", "page"])
    document = json.loads(capsys.readouterr().out)
    assert (code, "onnx-int8" in json.dumps(document["data"])) == (0, True)
    for words in (
        ["report"],
        ["verify"],
        ["bench"],
        ["bundle", "verify"],
        ["eval"],
        ["analyze"],
        ["ptq"],
        ["export"],
        ["runs", "show"],
    ):
        code = main([*words, "foreign.onnx", "--json"])
        document = json.loads(capsys.readouterr().out)
        assert (code, document["error"]["code"]) == (2, "OCT-E107"), words
    assert main(["bundle", "verify", model, "--json"]) in (0, 3)  # not signed
    code = main(["serve-config", "triton", model, "-o", "models", "--json"])
    assert (code, len(list(Path("models").iterdir()))) == (0, 1), capsys.readouterr().err


def test_kinds_by_content(tmp_path: Path, run: Run) -> None:
    for name, kind in (
        ("onnx-int8/model.onnx", "ONNX"),
        ("openvino-int8/model.xml", "OpenVINO"),
        ("torch-fp32/model.safetensors", "safetensors"),
    ):
        path = run.artifacts / name
        moved = tmp_path / f"{kind}.png"
        os.link(path, moved)
        assert (model_kind(path), model_kind(moved), is_picture(moved)) == (kind, kind, False)
    picture = next((run.path.parent.parent / "patterns" / "dark").iterdir())
    assert (model_kind(picture), is_picture(picture), model_kind(tmp_path), model_kind(tmp_path / "absent.onnx")) == (
        None,
        True,
        None,
        None,
    )
    for text in ("notes", "<annotation><object/></annotation>", "{}"):
        (tmp_path / "notes.xml").write_text(text)
        assert model_kind(tmp_path / "notes.xml") is None
