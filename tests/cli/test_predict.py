"""`octc predict`: what it says of images, of bad files, of pictures that are no scans."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from octc.cli._app.main import main
from octc.core.csv_files import parse_csv
from octc.imaging.decode import read_image
from octc.imaging.preprocess import VIEWS
from octc.runtimes.inputs import scan_inputs, split_inputs
from octc.runtimes.registry import open_runtime
from octc.stats.metrics import combine_views
from octc.store.artifacts import read_artifact
from octc.store.runs import Run
from tests.tiny_artifacts import copied, resign, shared_run

Said = Callable[..., tuple[int, str, str]]
CLASSES = ["bright", "dark", "lying", "upright"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture(scope="module")
def patterns(run: Run) -> Path:
    return run.path.parent.parent / "patterns"


@pytest.fixture
def said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run `octc predict WORDS...` in tmp_path, where the tiny run lies: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")  # a table is as wide as its paths, wherever the repository lies
    (tmp_path / "runs").symlink_to(run.path.parent)

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main(["predict", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def cat() -> Image.Image:
    """A drawn cat, in colour, on a lawn."""
    picture = Image.new("RGB", (320, 240), (90, 160, 80))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((80, 60, 240, 220), fill=(200, 140, 70))
    for left in (90, 180):
        pen.polygon([(left, 80), (left + 25, 20), (left + 55, 70)], fill=(180, 120, 60))
    for left in (120, 180):
        pen.ellipse((left, 110, left + 24, 134), fill=(60, 200, 90))
    return picture


def test_a_folder_gives_every_image_its_label(patterns: Path, said: Said, tmp_path: Path) -> None:
    code, out, err = said(patterns, "--json")
    assert code == 0, err
    document = json.loads(out)
    data = document["data"]
    assert document["run_id"].startswith("r-0001")
    assert data["artifact"]["name"] == "openvino-int8"
    sizes = {p.name: sum(f.bytes for f in read_artifact(p).files.values()) for p in (tmp_path / "runs").glob("r-*/artifacts/*")}
    assert sizes["onnx-int8"] < sizes["openvino-int8"]
    assert "smallest" not in err
    said_of = next(line for line in err.splitlines() if line.startswith("using "))
    assert str(Path(data["artifact"]["folder"])) in said_of
    assert "MiB (the lowest precision that runs here; openvino is taken before onnx)" in said_of
    assert "golden" in err
    records = data["records"]
    assert [r["file"] for r in records] == sorted((str(p) for p in patterns.rglob("*.png")), key=lambda p: Path(p).parts)
    right = sum(r["label"] == Path(r["file"]).parent.name for r in records)
    assert right > 0.95 * len(records)
    for record in records:
        assert record["status"] == "ok"
        assert list(record["probabilities"]) == CLASSES
        assert sum(record["probabilities"].values()) == pytest.approx(1)
        assert record["confidence"] == max(record["probabilities"].values())
        assert record["distance"] < record["distance_limit"]


@pytest.mark.parametrize(("name", "tta"), [("onnx-fp32", "5"), ("openvino-fp16", "hflip"), ("torch-fp32", "none")])
def test_probabilities_are_those_of_the_runtime_whatever_the_batch(
    run: Run, patterns: Path, said: Said, name: str, tta: str
) -> None:
    """Views are averaged as probabilities; a batch smaller than the views of one picture is no obstacle."""
    folder = run.artifacts / name
    artifact = read_artifact(folder)
    paths = sorted((patterns / "lying").iterdir())[:7]
    runtime = open_runtime(folder, artifact, threads=1)
    prepared = np.stack([artifact.preprocess.prepare(read_image(path).image, VIEWS[tta]) for path in paths])
    logits = runtime(prepared.reshape(-1, *prepared.shape[2:])).reshape(*prepared.shape[:2], -1)
    runtime.close()
    expected = combine_views(logits)[0]
    for batch in (1, 3, 64):
        code, out, _ = said(folder, *paths, "--tta", tta, "--batch", str(batch), "--threads", "1", "--format", "json")
        assert code == 0
        found = [list(record["probabilities"].values()) for record in json.loads(out)["records"]]
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_table_and_csv_say_the_same(patterns: Path, said: Said) -> None:
    path = min((patterns / "dark").iterdir())
    code, out, _ = said("r-0001", path)
    assert code == 0
    head, row = (line.split() for line in out.splitlines() if "confidence" in line or path.name in line)
    assert head == ["file", "label", "confidence", *CLASSES, "remarks"]
    _, out, _ = said("r-0001", path, "--format", "csv")
    (record,) = csv.DictReader(io.StringIO(out))
    assert (record["label"], record["status"], record["error"]) == ("dark", "ok", "")
    assert row[1:3] == ["dark", f"{float(record['confidence']):.4f}"]
    assert row[3:7] == [f"{float(record[f'p_{name}']):.4f}" for name in CLASSES]


def test_p01_one_bad_input_among_a_thousand(patterns: Path, said: Said, tmp_path: Path) -> None:
    known = sorted((patterns / "bright").iterdir())
    (tmp_path / "in").mkdir()
    for number in range(1000):
        os.link(known[number % len(known)], tmp_path / "in" / f"{number:04d}.png")
    (tmp_path / "in" / "0500.png").unlink()
    (tmp_path / "in" / "0500.png").write_bytes(known[0].read_bytes()[:700])
    code, out, err = said("in", "--json")
    document = json.loads(out)
    assert (code, document["error"]["code"]) == (3, "OCT-E801")
    records = document["data"]["records"]
    assert len(records) == 1000
    assert sum(record["label"] == "bright" for record in records) == 999
    (bad,) = (record for record in records if record["error"])
    assert (bad["file"], bad["error"]["code"], bad["label"]) == ("in/0500.png", "OCT-E201", None)
    assert "1 of 1000 inputs failed: in/0500.png (OCT-E201)" in err


def test_p01_or_stop_at_the_first_bad_one(patterns: Path, said: Said, tmp_path: Path) -> None:
    (tmp_path / "bad.jpeg").write_text("<html>not found</html>")
    good = sorted((patterns / "bright").iterdir())
    code, out, err = said(*good[:10], "bad.jpeg", *good[10:], "--on-bad", "stop", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, len(rows), rows[-1]["file"]) == (3, 11, "bad.jpeg")
    assert {row["label"] for row in rows[:-1]} == {"bright"}
    assert "error[OCT-E202]" in err


def test_p02_a_picture_that_is_no_scan_gets_a_flag_and_no_label(patterns: Path, said: Said, tmp_path: Path) -> None:
    cat().save(tmp_path / "cat.png")
    good = min((patterns / "bright").iterdir())
    code, out, err = said("cat.png", good, "--json")
    assert code == 0
    flagged, taken = json.loads(out)["data"]["records"]
    assert (flagged["out_of_distribution"], flagged["label"], flagged["status"]) == (True, None, "unlike")
    assert flagged["distance"] > flagged["distance_limit"]
    assert (taken["out_of_distribution"], taken["label"]) == (False, "bright")
    assert "warning[OCT-W801]: unlike the training images, no label" in err
    code, out, _ = said("cat.png")
    assert (code, "unlike" in out, "OCT-W801" in out) == (0, True, True)


def test_p02_an_artifact_that_does_not_know_its_images_says_so(run: Run, said: Said, tmp_path: Path) -> None:
    cat().save(tmp_path / "cat.png")
    folder = copied(run, "onnx-int8", tmp_path)
    resign(folder, lambda value: value["details"].update(input_statistics=None))
    code, out, err = said(folder, "cat.png", "--json")
    (record,) = json.loads(out)["data"]["records"]
    assert (code, record["out_of_distribution"]) == (0, None)
    assert "OCT-W803" in err
    resign(folder, lambda value: value["details"].update(input_statistics={"mean": "x"}))
    code, _, err = said(folder, "cat.png")
    assert (code, "OCT-E502" in err) == (3, True)


def test_d11_black_and_constant_pictures_are_flagged_and_the_rest_goes_on(patterns: Path, said: Said, tmp_path: Path) -> None:
    Image.new("L", (80, 80)).save(tmp_path / "black.png")
    Image.new("L", (80, 80), 130).save(tmp_path / "flat.png")
    code, out, err = said("black.png", "flat.png", min(patterns.rglob("*.png")), "--json")
    assert code == 0
    records = json.loads(out)["data"]["records"]
    assert ["OCT-W211" in {note["code"] for note in record["notes"]} for record in records] == [True, True, False]
    assert "constant image" in err


def test_what_a_folder_holds(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/A.tiff", ".hidden.png", ".cache/x.png", "notes.txt", "bad\nname.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    paths, left_out = scan_inputs([str(tmp_path), "named.txt"])
    assert [str(p.relative_to(tmp_path)) for p in paths[:-1]] == ["b.png", "bad\nname.bmp", "a/A.tiff", "a/z.JPG"]
    assert str(paths[-1]) == "named.txt"
    assert sorted(Path(p).name for p in left_out) == ["loop", "notes.txt"]


def test_which_word_is_the_artifact(run: Run, patterns: Path) -> None:
    runs = run.path.parent
    for place in (run.artifacts / "onnx-int8", run.artifacts, run.path, run.path / "run.json", run.id, "r-0001", "r-0077"):
        assert split_inputs([str(place), "a.png"], runs) == (str(place), ["a.png"])
    for word in (str(patterns), "a.png", "r-0077.png"):
        assert split_inputs([word, "a.png"], runs) == (None, [word, "a.png"])


@pytest.mark.parametrize(("words", "code", "text"), [
    (("x.png", "--tta", "7"), 2, "OCT-E104"), (("x.png", "--format", "xml"), 2, "OCT-E104"),
    (("x.png", "--on-bad", "ignore"), 2, "OCT-E104"), (("x.png", "--batch", "0"), 2, "OCT-E104"),
    (("x.png", "--least-certain", "0"), 2, "OCT-E104"),
    (("x.png", "--threads", "9999"), 2, "OCT-E104"), ((), 2, "OCT-E101"), (("r-0001",), 2, "no input"),
    (("missing.png",), 3, "OCT-E801"), (("empty",), 3, "no image in this folder"),
])  # fmt: skip
def test_wrong_use(said: Said, tmp_path: Path, words: tuple[str, ...], code: int, text: str) -> None:
    (tmp_path / "empty").mkdir()
    found, _, err = said(*words)
    assert (found, text in err) == (code, True), err


def test_without_an_artifact(octc: Any) -> None:
    done = octc("predict", "x.png")
    assert (done.returncode, "OCT-E107" in done.stderr, "octc export" in done.stderr) == (2, True, True)


def test_a_damaged_file_name_breaks_nothing(patterns: Path, said: Said, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n[red]x[bold].png")
    (tmp_path / name).write_bytes(min(patterns.rglob("*.png")).read_bytes())
    for style in ("table", "csv", "json"):
        assert said("r-0001", name, "--format", style)[0] == 0
    _, out, _ = said("r-0001", name, "--format", "csv")
    assert parse_csv(out)[1][0] == name
    _, out, _ = said("r-0001", name, "--format", "jsonl")
    assert json.loads(out)["file"] == name


def test_it_needs_nothing_but_one_engine(run: Run, patterns: Path) -> None:
    """In a process where torch, timm, onnx and OpenVINO cannot be imported."""
    blocked = ("torch", "timm", "torchvision", "safetensors", "onnx", "openvino", "accelerate", "onnxscript")
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); from octc.cli._app.main import run; run()"
    words = ["predict", str(run.artifacts), str(patterns / "dark"), "--format", "csv"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert {row["label"] for row in csv.DictReader(io.StringIO(done.stdout))} == {"dark"}
    assert "onnx-int8, 0." in done.stderr
    assert "(the lowest precision that runs here)" in done.stderr


def test_a_summary_counts_every_image_once(patterns: Path, said: Said, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for path in patterns.rglob("*.png"):
        shutil.copyfile(path, tmp_path / "in" / f"{path.parent.name}-{path.name}")
    cat().save(tmp_path / "in" / "cat.png")
    (tmp_path / "in" / "torn.png").write_bytes(b"no picture")
    code, out, _ = said("in", "--json")
    counts = json.loads(out)["data"]["summary"]
    labels = [record["label"] for record in json.loads(out)["data"]["records"]]
    assert counts["classes"] == {name: labels.count(name) for name in CLASSES}
    assert (counts["unlike"], counts["failed"], counts["done"]) == (1, 1, len(labels))
    code, out, _ = said("in", "--summary")
    assert code == 3
    shown = {row[0]: row[1] for row in map(str.split, out.splitlines()) if len(row) == 3}
    assert {name: int(shown[name]) for name in CLASSES} == counts["classes"]
    assert (shown["unlike"], shown["failed"]) == ("1", "1")
    assert "cat.png" not in out  # counts in place of the rows
    code, out, err = said("in", "--summary", "--format", "csv")
    assert len(list(csv.DictReader(io.StringIO(out)))) == len(labels)
    assert "unlike 1, failed 1" in err


@pytest.mark.parametrize("format_", ["json", "jsonl", "csv"])
def test_the_least_certain_answers_come_first_and_no_others(patterns: Path, said: Said, format_: str) -> None:
    _, out, _ = said(patterns, "--format", "json")
    every = sorted(json.loads(out)["records"], key=lambda record: record["confidence"])
    code, out, _ = said(patterns, "--least-certain", "3", "--format", format_)
    assert code == 0
    if format_ == "json":
        document = json.loads(out)
        assert (document["complete"], document["inputs"]) == (True, len(every))
        found = [(record["file"], record["confidence"]) for record in document["records"]]
    elif format_ == "jsonl":
        found = [(record["file"], record["confidence"]) for record in map(json.loads, out.splitlines())]
    else:
        found = [(record["file"], float(record["confidence"])) for record in csv.DictReader(io.StringIO(out))]
    assert len(found) == 3
    assert [value for _, value in found] == sorted(value for _, value in found)
    assert found[-1][1] <= every[3]["confidence"]
    known = {record["file"]: record["confidence"] for record in every}
    assert all(value == pytest.approx(known[file], abs=1e-4) for file, value in found)
