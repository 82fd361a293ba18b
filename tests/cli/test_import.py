"""octc import, and the commands that follow: from somebody's ONNX file to a judged INT8 artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from octc.store.artifacts import read_artifact
from octc.train.evaluation.assess import network_of
from tests.cli.conftest import Said
from tests.tiny_run import PATTERNS, SIZE, make_run, write_patterns

HALF = "0.5, 0.5, 0.5"
STATED = f'{{"size": {SIZE}, "channels": 3, "mean": [{HALF}], "std": [{HALF}]}}'


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network that learned the patterns, exported with one image as its example, and the patterns."""
    folder = tmp_path_factory.mktemp("theirs")
    write_patterns(folder / "data")
    model = network_of(make_run(folder / "runs", folder / "data"))[0].eval()
    example = (torch.zeros(1, 3, SIZE, SIZE),)
    torch.onnx.export(model, example, str(folder / "net.onnx"), dynamo=True, external_data=False, verbose=False)
    return folder / "net.onnx", folder / "data"


def test_from_an_onnx_file_to_a_judged_int8_artifact(theirs: tuple[Path, Path], said: Said, tmp_path: Path) -> None:
    file, data = theirs
    classes = ",".join(PATTERNS)
    code, out, err = said("import", str(file), "--preprocess", STATED, "--classes", classes, "--data", str(data), "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["run_id"] == "r-0001-student-folder-imported"
    assert document["data"]["difference"]["changed"] == 0
    assert "whether it saw these images is not known" in err
    run = tmp_path / "runs" / document["run_id"]

    code, out, err = said("export", "--int8", "--target", "onnx", "--ptq", "onnxruntime", "--data", str(data))
    assert code == 0, err
    quantised = read_artifact(run / "artifacts" / "onnx-int8-onnxruntime")
    assert quantised.details["gate"]["accepted"] is True
    assert quantised.details["quantisation"]["calibration_images"] == 128

    code, out, err = said("verify", "--json", "--margin", "30", "--class-margin", "60", "--data", str(data))
    document = json.loads(out)["data"]
    assert document["set"] == "test"
    assert (
        document["artifacts"][0]["set"]["note"] == "the network was trained elsewhere: whether it saw these images is not known"
    )
    assert document["artifacts"][0]["set"]["n"] == 32
    for words in (("report",), ("lint", str(run / "artifacts" / "onnx-fp32" / "model.onnx"), "--target", "onnx")):
        code, out, err = said(*words)
        assert code == 0, err
    code, out, err = said("predict", str(data / "dark" / "DARK-1000-0.png"), "--json")
    assert code == 0, err
    assert json.loads(out)["data"]["records"][0]["label"] == "dark"

    code, out, err = said("export", "--int8", "--target", "onnx")
    assert code == 2
    assert "OCT-E102" in err
    assert "--ptq onnxruntime" in err

    int8 = run / "artifacts" / "onnx-int8-onnxruntime" / "model.onnx"
    words = ("--preprocess", '{"size": 64, "channels": 3, "mean": [0, 0, 0], "std": [1, 1, 1]}', "--classes", classes)
    code, out, err = said("import", str(int8), *words, "--run", "r-0001")
    assert code == 3
    assert "another preprocessing" in err


def test_an_import_that_fails_leaves_no_run(theirs: tuple[Path, Path], said: Said, tmp_path: Path) -> None:
    file, data = theirs
    wrong = (("bright,dark,lying", "OCT-E206"), ("bright,dark,lying,sideways", "OCT-E206"))
    for classes, code in wrong:
        status, _, err = said("import", str(file), "--preprocess", STATED, "--classes", classes, "--data", str(data))
        assert status == 3
        assert code in err
    given = STATED.replace("64", "96")
    status, _, err = said("import", str(file), "--preprocess", given, "--classes", ",".join(PATTERNS), "--data", str(data))
    assert status == 2
    assert "takes 64 px" in err
    assert not list((tmp_path / "runs").glob("r-*"))


def test_classes_come_from_files_as_people_have_them(theirs: tuple[Path, Path], said: Said, tmp_path: Path) -> None:
    file, _ = theirs
    named = {
        "names.txt": "\n".join(PATTERNS) + "\n",
        "list.json": json.dumps(PATTERNS),
        "config.json": json.dumps({"id2label": {str(k): name for k, name in enumerate(PATTERNS)}}),
        "timm.json": json.dumps({"pretrained_cfg": {"label_names": PATTERNS}}),
    }
    for name, text in named.items():
        (tmp_path / name).write_text(text)
        code, _, err = said("import", str(file), "--preprocess", STATED, "--classes", name, "--out", f"{name}.d")
        assert code == 0, err
        assert read_artifact(tmp_path / f"{name}.d" / "onnx-fp32").classes == PATTERNS
    (tmp_path / "bad.json").write_text('{"0": "a", "2": "b"}')
    code, _, err = said("import", str(file), "--preprocess", STATED, "--classes", "bad.json")
    assert code == 2
    assert "numbers of classes are [0, 2]" in err
