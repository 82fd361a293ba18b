"""`octc lint` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from octc.cli._app.main import main
from tests.export.qdq_graphs import Knobs, model
from tests.tiny_artifacts import artifact_folder

Captured = pytest.CaptureFixture[str]


def write(path: Path, *layers: Knobs) -> Path:
    onnx.save(model(list(layers)), str(path))
    return path


def test_clean_is_0_and_anything_to_repair_is_1(tmp_path: Path, capsys: Captured) -> None:
    assert main(["lint", str(write(tmp_path / "good.onnx", Knobs()))]) == 0
    assert "clean" in capsys.readouterr().out
    assert main(["lint", str(write(tmp_path / "bad.onnx", Knobs(zero=3)))]) == 1
    out = capsys.readouterr().out
    assert "E01 zero-point" in out
    assert "QuantizeLinear_3: zero-point 3" in out
    assert "hint:" in out
    assert main(["lint", str(write(tmp_path / "slow.onnx", Knobs(pairs="activation")))]) == 1


def test_a_folder_of_an_artifact_is_its_model_file_and_other_formats_are_named(capsys: Captured) -> None:
    assert main(["lint", str(artifact_folder("onnx-int8")), "--target", "onnx"]) == 0
    assert capsys.readouterr().out.startswith("model.onnx for onnx: clean")
    for place in (artifact_folder("openvino-int8"), artifact_folder("openvino-int8") / "model.xml"):
        assert main(["lint", str(place), "--target", "openvino", "--json"]) == 2
        found = json.loads(capsys.readouterr().out)["error"]
        assert (found["code"], "of the ONNX file" in found["help"]) == ("OCT-E104", True)


def test_json_names_rule_severity_node_and_fix(tmp_path: Path, capsys: Captured) -> None:
    assert main(["lint", str(write(tmp_path / "bad.onnx", Knobs(bias="int32"))), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    worst = document["data"]["findings"][0]
    assert (worst["rule"], worst["severity"]) == ("E03", "E")
    assert worst["node"].startswith("DequantizeLinear_")
    assert worst["fix"]
    assert (document["exit_code"], document["data"]["clean"]) == (1, False)


def test_fix_writes_a_file_beside_and_says_what_it_did(tmp_path: Path, capsys: Captured) -> None:
    bad = write(tmp_path / "bad.onnx", Knobs(code=np.uint8, zero=128, bias="int32"))
    before = bad.read_bytes()
    assert main(["lint", str(bad), "--fix"]) == 0
    err = capsys.readouterr().err
    assert err.count("repaired:") == 3
    fixed = tmp_path / "bad.fixed.onnx"
    assert main(["lint", str(fixed)]) == 0
    assert bad.read_bytes() == before
    capsys.readouterr()
    assert main(["lint", str(bad), "--fix"]) == 2  # nothing is overwritten
    assert "OCT-E106" in capsys.readouterr().err
    assert main(["lint", str(bad), "--fix", "--force"]) == 0


def test_targets_differ(tmp_path: Path, capsys: Captured) -> None:
    bad = str(write(tmp_path / "bad.onnx", Knobs(code=np.uint8, zero=128)))
    assert main(["lint", bad, "--target", "onnx"]) == 0
    assert main(["lint", bad, "--target", "tensorrt-rtx"]) == 1
    assert main(["lint", bad, "--target", "coreml"]) == 2
    assert "tensorrt-strong" in capsys.readouterr().err


@pytest.mark.parametrize(("content", "code"), [(None, 2), (b"", 3), (b"no onnx at all", 3)])
def test_files_that_are_none(tmp_path: Path, capsys: Captured, content: bytes | None, code: int) -> None:
    path = tmp_path / "x.onnx"
    if content is not None:
        path.write_bytes(content)
    assert main(["lint", str(path)]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_list_ends_after_five_names_and_all_has_the_rest(tmp_path: Path, capsys: Captured) -> None:
    bad = str(write(tmp_path / "bad.onnx", *[Knobs(bias="int32")] * 8))
    assert main(["lint", bad]) == 1
    short = capsys.readouterr().out
    assert short.count(": quantised bias") == 5
    assert "and 3 more (--all)" in short
    assert "(octc explain E" in short
    assert main(["lint", bad, "--all"]) == 1
    out = capsys.readouterr().out
    assert out.count(": quantised bias") == 8
    assert "more (--all)" not in out


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-strong", "tensorrt-rtx", "openvino", "onnx"])
def test_a_graph_without_quantisers_will_not_run_in_int8_and_is_told_so(target: str, tmp_path: Path, capsys: Captured) -> None:
    plain = str(write(tmp_path / "plain.onnx", Knobs(pairs="none"), Knobs(pairs="none")))
    main(["lint", plain, "--target", target])
    assert "nothing of it will run in INT8 (2 layers in float)" in capsys.readouterr().out
    main(["lint", str(write(tmp_path / "int8.onnx", Knobs())), "--target", target])
    assert "nothing of it will run" not in capsys.readouterr().out
