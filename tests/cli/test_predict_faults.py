"""Artifacts that must not be used, closed pipes, several processes: injected for real, through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from octc.cli._app.main import main
from octc.store.artifacts import read_golden, write_golden
from octc.store.runs import Run
from tests.tiny_artifacts import copied, resign, shared_run

OCTC = (sys.executable, "-m", "octc.cli._app.main")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture(scope="module")
def pictures(run: Run) -> Path:
    return run.path.parent.parent / "patterns" / "dark"


def flip(folder: Path) -> None:
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)


def missing(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def extra(folder: Path) -> None:
    (folder / "payload.py").write_text("print('x')")


def traversal(folder: Path) -> None:
    resign(folder, lambda value: value["files"].update({"../../etc/passwd": value["files"]["model.onnx"]}))


def absolute(folder: Path) -> None:
    resign(folder, lambda value: value["files"].update({"/etc/passwd": value["files"]["model.onnx"]}))


def link(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("/etc/passwd")


def write_model(folder: Path, proto: onnx.ModelProto) -> None:
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    resign(folder)


def external(folder: Path) -> None:
    proto = onnx.load(str(folder / "model.onnx"))
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    write_model(folder, proto)


def custom(folder: Path) -> None:
    proto = onnx.load(str(folder / "model.onnx"))
    proto.graph.node.append(helper.make_node("Surprise", [], [], domain="com.evil"))
    write_model(folder, proto)


def loop(folder: Path) -> None:
    proto = onnx.load(str(folder / "model.onnx"))
    proto.graph.node.append(helper.make_node("Loop", ["", ""], [], body=helper.make_graph([], "bomb", [], [])))
    write_model(folder, proto)


def huge(folder: Path) -> None:
    with (folder / "model.onnx").open("r+b") as stream:
        stream.truncate(2 << 30)
    text = json.loads((folder / "artifact.json").read_text())
    text["files"]["model.onnx"]["bytes"] = 2 << 30
    (folder / "artifact.json").write_text(json.dumps(text))


def engine(folder: Path) -> None:
    """As if an engine had been built on an Orin with another TensorRT."""
    built = {"sm": "8.7", "tensorrt": "10.3.0", "driver": "540.4.0"}
    resign(folder, lambda value: (value.update(name="tensorrt-int8", target="tensorrt"), value["details"].update(engine=built)))


def golden(folder: Path) -> None:
    known = read_golden(folder)
    known.logits[0] += 0.3 * np.ptp(known.logits)
    known.logits[0, 0] -= 0.6 * np.ptp(known.logits)
    write_golden(folder, known)
    resign(folder)


def source(folder: Path) -> None:
    known = read_golden(folder)
    known.source_input[0, 0, 3, 3] ^= 1
    write_golden(folder, known)
    resign(folder)


@pytest.mark.parametrize(("spoil", "exit_code", "code", "word"), [
    (flip, 3, "OCT-E501", "model.onnx"), (missing, 3, "OCT-E502", "model.onnx"), (extra, 3, "OCT-E502", "payload.py"),
    (traversal, 3, "OCT-E502", "../../etc/passwd"), (absolute, 3, "OCT-E502", "/etc/passwd"), (link, 3, "OCT-E502", "symbolic"),
    (external, 3, "OCT-E503", "../../etc/passwd"), (custom, 3, "OCT-E504", "com.evil::Surprise"), (loop, 3, "OCT-E504", "Loop"),
    (huge, 3, "OCT-E504", "2147483648"), (engine, 4, "OCT-E505", "sm 8.7"), (golden, 1, "OCT-E506", "delta over s"),
    (source, 3, "OCT-E508", "1 of 4096 values"),
])  # fmt: skip
def test_artifacts_that_must_not_be_used(
    run: Run, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], exit_code: int,
    code: str, word: str,
) -> None:  # fmt: skip
    """B01, B02, B04, B05, B07, B08: one error, no result, and with --json the same in one document."""
    folder = copied(run, "onnx-fp32", tmp_path)
    spoil(folder)
    found = main(["predict", str(folder), str(pictures), "--json"])
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (found, document["exit_code"], document["error"]["code"]) == (exit_code, exit_code, code), err
    assert word in document["error"]["message"]
    assert document["error"]["help"]
    assert document["data"] == {}
    assert "Traceback" not in err
    if code == "OCT-E505":
        assert "trtexec --onnx=" in document["error"]["help"]
        assert "tensorrt 10.3.0 (here: " in document["error"]["message"]


def test_p03_nobody_reads_the_rest(run: Run, pictures: Path) -> None:
    words = " ".join([*OCTC, "predict", str(run.artifacts), str(pictures), str(pictures), "--format", "csv"])
    command = f"set -o pipefail; {words} 2>err.txt | head -n 1; echo ${{PIPESTATUS[0]}}"
    folder = run.path.parent.parent
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=folder, timeout=60, check=False)
    first, code = done.stdout.splitlines()
    assert first.startswith("file,status,label")
    assert code in ("0", "141")
    assert "Traceback" not in (folder / "err.txt").read_text()


def test_p03_a_reader_that_has_gone_before_the_first_line(run: Run, pictures: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    words = [*OCTC, "predict", str(run.artifacts), str(pictures), "--quiet"]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr


def test_p03_closed_stdin(run: Run, pictures: Path) -> None:
    words = " ".join([*OCTC, "predict", str(run.artifacts), str(pictures)])
    done = subprocess.run(["sh", "-c", f"{words} <&-"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "DARK-" in done.stdout


def test_p04_several_processes_on_one_artifact(run: Run, pictures: Path) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in run.artifacts.rglob("*"))
    words = [*OCTC, "predict", str(run.artifacts / "onnx-int8"), str(pictures), "--format", "csv", "--threads", "1"]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ended = [(process.communicate(timeout=60)[0], process.returncode) for process in running]
    assert {code for _, code in ended} == {0}
    assert len({out for out, _ in ended}) == 1
    assert len(ended[0][0].splitlines()) == 1 + len(list(pictures.iterdir()))
    assert sorted((p, p.stat().st_mtime_ns) for p in run.artifacts.rglob("*")) == before
