"""octc import, and the commands that follow: from somebody's ONNX file to a judged INT8 artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch

from octc.machine.host import read_machine
from octc.store.artifacts import read_artifact
from octc.store.runs import scan_runs
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


def quantised(file: Path, place: Path) -> Path:
    """The INT8 file that ONNX Runtime's own tool makes of it."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        rows = iter([{"x": np.random.default_rng(0).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)} for _ in range(8)])

        def get_next(self) -> Any:
            return next(self.rows, None)

    name = onnx.load(str(file)).graph.input[0].name
    Reader.rows = iter([{name: row["x"]} for row in Reader.rows])
    quantize_static(str(file), str(place), Reader(), quant_format=QuantFormat.QDQ, reduce_range=True, per_channel=True)
    return place


def with_free_batch(file: Path, place: Path) -> Path:
    model = network_of(scan_runs(file.parent / "runs")[0])[0].eval()
    free = ({0: torch.export.Dim("batch")},)
    example = (torch.zeros(2, 3, SIZE, SIZE),)
    torch.onnx.export(model, example, str(place), dynamo=True, external_data=False, verbose=False, dynamic_shapes=free)
    return place


def as_ir(file: Path, place: Path) -> Path:
    openvino.save_model(openvino.Core().read_model(str(file)), str(place), compress_to_fp16=False)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_every_command_works_on_what_was_imported_in_float_and_in_int8(
    kind: str, theirs: tuple[Path, Path], said: Said, tmp_path: Path
) -> None:
    file, data = theirs
    words = ("--preprocess", STATED, "--classes", ",".join(PATTERNS))
    files = [file, quantised(file, tmp_path / "int8.onnx")]
    if kind == "openvino":
        code, _, err = said("import", str(as_ir(files[1], tmp_path / "frozen.xml")), *words, "--out", "none")
        assert (code, "OCT-E402" in err) == (5, True), err  # its reshape is for one image
        free = with_free_batch(file, tmp_path / "free.onnx")
        files = [as_ir(one, tmp_path / f"{one.stem}.xml") for one in (free, quantised(free, tmp_path / "int8.onnx"))]
    code, _, err = said("import", str(files[0]), *words, "--data", str(data))
    assert code == 0, err
    code, _, err = said("verify")
    assert (code, "octc import INT8-FILE ... --run r-0001-student-folder-imported" in err) == (2, True)
    code, _, err = said("import", str(files[1]), *words, "--run", "r-0001")
    assert code == 0, err
    artifacts = tmp_path / "runs" / "r-0001-student-folder-imported" / "artifacts"
    float_, int8 = artifacts / f"{kind}-fp32", artifacts / f"{kind}-int8"
    code, out, err = said("verify", str(int8), "--json", "--margin", "30", "--class-margin", "60", "--data", str(data))
    (row,) = json.loads(out)["data"]["artifacts"]
    assert (row["candidate"]["name"], row["set"]["n"]) == (f"{kind}-int8", 32), err
    assert (code in (0, 1), row["verdict"]["word"] != "golden_only") == (True, True)
    picture = str(data / "dark" / "DARK-1000-0.png")
    for folder in (float_, int8):
        code, out, err = said("predict", str(folder), picture, "--json")
        assert (code, json.loads(out)["data"]["records"][0]["label"]) == (0, "dark"), err
        code, out, err = said("lint", str(folder), "--target", kind)
        assert (code in (0, 1), "model.onnx for onnx" in out) == (kind == "onnx",) * 2, err
    short = ("--quick", "--duration", "1s", "--min-queries", "40", "--vs", "none", "--batch", "1", "--json")
    code, out, err = said("bench", str(float_), str(int8), *short)
    document = json.loads(out)["data"]
    found = {one["id"]: one["precision_found"] for one in document["artifacts"]}
    assert set(found) == {float_.name, int8.name}, err
    runs = found[int8.name].get("int8", 0) > 0
    wrong = {row["artifact"] for row in document["rows"] if "precision_mismatch" in row["reasons"]}
    assert (int8.name in wrong, float_.name in wrong) == (not runs, False)
    # OpenVINO 2026.4.1 computes this IR (onnxruntime's quantisers) in float where there is AMX, and in INT8 elsewhere
    assert runs or (kind == "openvino" and "amx" in read_machine(gpus=False).isa), found
    assert "int8" not in found[float_.name]
    code, out, err = said("report", str(artifacts.parent), "-o", "page")
    assert code == 0, err
    text = (tmp_path / "page" / "report.md").read_text()
    assert int8.name in text
    code, _, err = said("export", "--int8", "--target", "onnx", "--ptq", "onnxruntime", "--data", str(data))
    assert code == (0 if kind == "onnx" else 3), err
    if kind == "openvino":
        assert "octc import its FP32 ONNX file, or a file of it that is INT8 already" in err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_every_command_works_or_says_what_lacks_where_there_are_no_labelled_images(
    kind: str, theirs: tuple[Path, Path], said: Said, tmp_path: Path
) -> None:
    file, data = theirs
    if kind == "openvino":
        file = as_ir(file, tmp_path / "net.xml")
    code, _, err = said("import", str(file), "--preprocess", STATED, "--classes", ",".join(PATTERNS))
    assert code == 0, err
    folder = f"artifacts/{kind}-fp32"
    code, out, err = said("predict", folder, str(data / "dark" / "DARK-1000-0.png"), "--json")
    assert (code, json.loads(out)["data"]["records"][0]["label"]) == (0, "dark"), err
    code, out, err = said("verify", folder, "--json")
    assert json.loads(out)["data"]["artifacts"][0]["golden"]["ok"], err
    short = ("--quick", "--duration", "1s", "--min-queries", "40", "--batch", "1", "--json")
    code, out, err = said("bench", folder, *short)
    assert json.loads(out)["data"]["rows"], err
    code, _, err = said("report", folder, "-o", "page")
    assert code == 0, err
    code, _, err = said("export", "--int8", "--target", "onnx", "--ptq", "onnxruntime")
    assert (code, "OCT-E107" in err) == (2, True), err  # there is no run that it could be made from


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
