"""`octc predict` and `octc bench` where the address space is limited, as processes of their own; standard input as an input."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.cli._app.main import main
from octc.store.artifacts import read_golden, write_golden
from octc.store.runs import Run
from tests.tiny_artifacts import copied, resign, shared_run

MIB = 1 << 20
OCTC = [sys.executable, "-m", "octc.cli._app.main"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture
def pictures(run: Run) -> list[Path]:
    return sorted((run.path.parent.parent / "patterns").rglob("*.png"))


def limited(mib: int, *words: object, where: Path) -> subprocess.CompletedProcess[str]:
    """`octc WORDS...` with an address space of so many MiB."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (mib * MIB, mib * MIB))

    plain = {key: value for key, value in os.environ.items() if key not in ("MALLOC_ARENA_MAX", "OPENBLAS_NUM_THREADS")}
    return subprocess.run(
        [*OCTC, *map(str, words)],
        cwd=where,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=plain,
    )


def test_predict_fits_into_400_mib_of_address_space(run: Run, pictures: list[Path], tmp_path: Path) -> None:
    words = ("predict", run.artifacts / "onnx-int8", *pictures[::24], "--json")
    done = limited(400, *words, where=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["data"]
    assert found["complete"]
    assert "address space limited to 400 MiB" in done.stderr


def test_with_less_than_anything_needs_it_says_how_much_that_is(run: Run, pictures: list[Path], tmp_path: Path) -> None:
    done = limited(260, "predict", run.artifacts / "onnx-int8", pictures[0], where=tmp_path)
    assert done.returncode == 4
    assert "at least 320 MiB are needed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_bench_fits_into_400_mib_of_address_space(run: Run, tmp_path: Path) -> None:
    folder = copied(run, "onnx-int8", tmp_path)
    done = limited(400, "bench", folder, "--quick", "--vs", "none", "--json", where=tmp_path)
    assert done.returncode in (0, 1), done.stderr  # a busy machine makes rows INVALID
    rows = json.loads(done.stdout)["data"]["rows"]
    assert rows
    assert all(row["latency_ms"] for row in rows if row["status"] != "NA")


Said = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def said(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """`octc predict ARTIFACT WORDS... --json` with bytes (None: closed) on standard input."""
    monkeypatch.chdir(tmp_path)

    def call(
        data: bytes | None, *words: object, artifact: Path = run.artifacts / "onnx-fp32"
    ) -> tuple[int, dict[str, Any], str]:
        stream = None if data is None else io.TextIOWrapper(io.BytesIO(data))
        monkeypatch.setattr(sys, "stdin", stream)
        code = main(["predict", str(artifact or run.artifacts / "onnx-fp32"), *map(str, words), "--json"])
        captured = capsys.readouterr()
        return code, json.loads(captured.out), captured.err

    return call


def test_a_picture_on_standard_input_is_answered_like_its_file(said: Said, pictures: list[Path]) -> None:
    _, named, _ = said(b"", pictures[0])
    code, piped, _ = said(pictures[0].read_bytes(), "-")
    assert code == 0
    (record,) = piped["data"]["records"]
    assert record["file"] == "-"
    assert record["probabilities"] == named["data"]["records"][0]["probabilities"]
    code, beside, _ = said(pictures[0].read_bytes(), pictures[1], "-", pictures[2])
    assert [one["file"] for one in beside["data"]["records"]] == [str(pictures[1]), "-", str(pictures[2])]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\0"])
def test_names_on_standard_input_are_inputs(said: Said, pictures: list[Path], end: str) -> None:
    names = [str(one) for one in pictures[:3]] + ["absent.png"]
    code, found, _ = said((end.join(names) + end).encode(), "-")
    assert code == 3  # one of them is not here, and the others are answered
    records = found["data"]["records"]
    assert [one["file"] for one in records] == names
    assert [one["status"] for one in records] == ["ok", "ok", "ok", "error"]


def test_standard_input_that_holds_no_input(said: Said, pictures: list[Path]) -> None:
    for data, words in ((b"", "is empty"), (None, "is closed")):
        code, found, _ = said(data, "-")
        assert (code, found["error"]["code"]) == (2, "OCT-E104")
        assert words in found["error"]["message"]
    code, found, _ = said(pictures[0].read_bytes(), "-", "-")
    assert (code, found["error"]["code"]) == (2, "OCT-E104")
    for data in (b"<html>not found</html>\n", pictures[0].read_bytes()[:40], b"\xff\xfe" * 4000):
        code, found, _ = said(data, "-")
        (record,) = found["data"]["records"]
        assert (code, record["file"], record["status"]) == (3, "-", "error")
        assert "/octc-" not in json.dumps(found)  # the file that held it is nobody's business


def test_a_network_that_gives_every_image_the_same_class_is_found(
    said: Said, run: Run, pictures: list[Path], tmp_path: Path
) -> None:
    """Golden logits of one class; the engine's own answers are the golden ones, by a network whose head is zero."""
    import onnx
    from onnx import numpy_helper

    folder = copied(run, "onnx-fp32", tmp_path)
    model = onnx.load(str(folder / "model.onnx"))
    node = next(one for one in reversed(model.graph.node) if one.op_type in ("Gemm", "MatMul"))
    for tensor in model.graph.initializer:
        if tensor.name in node.input:
            zero = np.zeros_like(numpy_helper.to_array(tensor))
            if zero.ndim == 1:
                zero[2] = 1
            tensor.CopyFrom(numpy_helper.from_array(zero, tensor.name))
    onnx.save(model, str(folder / "model.onnx"))
    golden = read_golden(folder)
    logits = np.tile(np.array([0, 0, 1, 0], np.float32), (len(golden.logits), 1))
    write_golden(folder, type(golden)(golden.inputs, logits, golden.source_png, golden.source_input))
    resign(folder)
    code, found, err = said(b"", *pictures[::12], artifact=folder)
    assert code == 0
    told = [one["message"] for one in found["warnings"] if one["code"] == "OCT-W809"]
    assert "all of its 8 golden images the same answer: lying" in told[0]
    assert "does not look at them" in told[1]
    assert "OCT-W809" in err
    _, found, _ = said(b"", *pictures[::12])
    assert not [one for one in found["warnings"] if one["code"] == "OCT-W809"]
    shutil.rmtree(folder)
