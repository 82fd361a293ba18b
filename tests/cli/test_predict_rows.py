"""Rows of `octc predict` as they are done, in real processes that are read, terminated and killed; and where stdout is lost."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from octc.cli._app.session import Session
from octc.cli.predict import taken
from octc.cli.predict_rows import Asked, deliver
from octc.core.csv_files import parse_csv
from octc.runtimes.predict import Record
from octc.store.artifacts import read_artifact
from octc.store.find import Found
from octc.store.runs import Run
from tests.octc.test_find import write_artifact
from tests.tiny_artifacts import copied, resign, shared_run

OCTC = (sys.executable, "-m", "octc.cli._app.main", "predict")
STRANGE = [
    "=cmd|'x'!A0.png",
    "+1.png",
    "-1.png",
    "@SUM(A1).png",
    "\t=1.png",
    "\r=1.png",
    "a\rb.png",
    "'=1.png",
    'q"u,o.png',
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture
def many(run: Run, tmp_path: Path) -> Path:
    """3,000 pictures that take a while."""
    known = sorted((run.path.parent.parent / "patterns" / "dark").iterdir())
    (tmp_path / "in").mkdir()
    for number in range(3000):
        os.link(known[number % len(known)], tmp_path / "in" / f"{number:04d}.png")
    return tmp_path / "in"


@contextmanager
def predicting(run: Run, many: Path, *words: str, wait: int = 20) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process that has written some lines of its answer into a file, and is far from done."""
    out = many.parent / "out.txt"
    command = [*OCTC, str(run.artifacts / "onnx-int8"), str(many), "--threads", "1", "--batch", "1", "--tta", "5", *words]
    with out.open("wb") as stream, (many.parent / "err.txt").open("wb") as err:
        process = subprocess.Popen(command, stdout=stream, stderr=err, cwd=many.parent)
    try:
        end = time.monotonic() + 60
        while out.read_bytes().count(b"\n") < wait and process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        assert process.poll() is None, (many.parent / "err.txt").read_text()
        yield process, out
    finally:
        process.kill()
        process.wait(30)


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_rows_appear_at_once_and_what_is_done_stays(run: Run, many: Path, format_: str, number: signal.Signals) -> None:
    with predicting(run, many, "--format", format_) as (process, out):
        process.send_signal(number)
        code = process.wait(30)
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    text = out.read_text()
    assert text.endswith("\n")  # no row is torn
    rows = list(csv.DictReader(io.StringIO(text))) if format_ == "csv" else [json.loads(line) for line in text.splitlines()]
    marked = number != signal.SIGKILL
    assert [row["status"] for row in rows].count("incomplete") == marked
    done = rows[:-1] if marked else rows
    assert 15 < len(done) < 3000
    assert [Path(row["file"]).name for row in done] == [f"{i:04d}.png" for i in range(len(done))]
    assert {(row["status"], row["label"]) for row in done} == {("ok", "dark")}
    if marked:
        assert (rows[-1]["status"], not rows[-1]["file"]) == ("incomplete", True)
        word = "terminated" if number == signal.SIGTERM else "interrupted"
        assert word in (rows[-1]["error"] if format_ == "csv" else rows[-1]["stopped_by"])
    assert "Traceback" not in (many.parent / "err.txt").read_text()


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("words", [("--json",), ("--format", "json"), ("--format", "table")])
def test_a_document_and_a_table_hold_what_is_done_and_say_so(run: Run, many: Path, words: tuple[str, ...]) -> None:
    """They are written at the end. A second of computing after the golden images is some pictures, not all."""
    with predicting(run, many, *words, wait=0) as (process, out):
        end = time.monotonic() + 60
        while b"golden" not in (many.parent / "err.txt").read_bytes() and time.monotonic() < end:
            time.sleep(0.01)
        begun = cpu_seconds(process.pid)
        while cpu_seconds(process.pid) < begun + 1.0 and time.monotonic() < end:
            time.sleep(0.01)
        process.terminate()
        assert process.wait(30) == 143
    text = out.read_text()
    if words == ("--format", "table"):
        assert "incomplete" in text
        assert "not all of 3000 inputs" in text
        assert re.search(r"\b[01]\.\d{4}\b", text)  # a probability of what was done; a long path may be broken over lines
        return
    document = json.loads(text)
    data = document["data"] if words == ("--json",) else document
    assert (data["complete"], data["inputs"], data["stopped_by"]) == (False, 3000, "terminated")
    assert 0 < len(data["records"]) < 3000
    if words == ("--json",):
        assert (document["status"], document["exit_code"]) == ("interrupted", 143)


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_no_record_and_no_path_is_kept(tmp_path: Path, format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory does not grow with the number of pictures."""
    folder = write_artifact(tmp_path)
    found = Found(folder, read_artifact(folder))
    refs: list[weakref.ref[object]] = []

    paths = [Path(f"{number}.png") for number in range(500)]

    def records() -> Iterator[Record]:
        for number, path in enumerate(taken(paths), 1):
            assert len(paths) == 500 - number
            record = Record(path, (0.3, 0.7), 1, notes=(("OCT-W211", "dark"),))
            refs.append(weakref.ref(record))
            yield record
            del record
            assert sum(ref() is not None for ref in refs) <= 1  # the one that the loop outside still holds

    assert deliver(Session("predict", quiet=True), found, records(), Asked(500, format=format_)) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == (501 if format_ == "csv" else 500)
    assert "500 inputs, the first: dark; 0.png, 1.png" in err
    assert "and 490 more" in err


def test_csv_names_come_back_and_no_cell_is_a_formula(run: Run, tmp_path: Path) -> None:
    """Names of files and of classes, in rows, in the header and in errors; numbers stay numbers."""
    folder = copied(run, "onnx-int8", tmp_path)
    classes = ["=1+1", "-dark", "@lying", "+upright"]
    resign(folder, lambda value: value.update(classes=classes))
    picture = next((run.path.parent.parent / "patterns" / "dark").iterdir())
    for name in [*STRANGE, os.fsdecode(b"=\xe9.png")]:
        os.link(picture, tmp_path / name)
    (tmp_path / "=bad.png").write_text("no picture")
    names = [*STRANGE, os.fsdecode(b"=\xe9.png"), "=bad.png"]
    command = [*OCTC, "onnx-int8", *(f"./{name}" if name.startswith(("-", "+")) else name for name in names), "--format", "csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    head, *rows = parse_csv(done.stdout.decode())
    assert [row[0] for row in rows] == names
    assert {row[2] for row in rows[:-1]} == {"-dark"}
    assert head[4:8] == [f"p_{name}" for name in classes]
    for row in csv.reader(io.StringIO(done.stdout.decode(), newline=""), strict=True):
        assert len(row) == len(head)
        for cell in row:
            assert not cell.startswith(("=", "+", "@", "\t", "\r")), cell
            assert not cell.startswith("-")
    assert all(float(cell) >= 0 for row in rows[:-1] for cell in row[3:8])


def test_a_row_that_begins_like_a_mark_is_not_altered(run: Run, tmp_path: Path) -> None:
    """`! x` and `✓ x` at the beginning of a line are signs of octc's own text, not of an answer for programs."""
    picture = next((run.path.parent.parent / "patterns" / "dark").iterdir())
    os.link(picture, tmp_path / "! x.png")
    command = [*OCTC, str(run.artifacts / "onnx-int8"), "! x.png", "--format", "csv"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, timeout=60, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert done.stdout.decode().splitlines()[1].startswith("! x.png,ok,dark")


@pytest.mark.parametrize("words", ["--format csv", "--format jsonl", "--format table", "--format json", "--json"])
@pytest.mark.parametrize(("where", "code"), [(">&-", "OCT-E907"), ("1</dev/null", "OCT-E907"), (">/dev/full", "OCT-E904")])
def test_an_answer_that_cannot_be_written_is_an_error(run: Run, tmp_path: Path, words: str, where: str, code: str) -> None:
    if where == ">/dev/full" and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    picture = next((run.path.parent.parent / "patterns" / "dark").iterdir())
    command = f"{' '.join(OCTC)} {run.artifacts / 'onnx-int8'} {picture} {words} {where}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("error["), f"error[{code}]" in done.stderr) == (4, 1, True), done.stderr
    assert "Traceback" not in done.stderr
