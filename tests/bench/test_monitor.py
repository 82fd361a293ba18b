"""`octc monitor`: from predictions of every door into a store to an alarm, a page and a text file for Prometheus."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import octc
from octc.bench.monitor.judge import Limits, judge_confidence, judge_truth
from octc.cli._app.main import main
from octc.core.files import sha256_file
from octc.datasets.split import read_split
from octc.imaging.input_statistics import describe, fit_statistics
from octc.runtimes.monitored import STREAMS
from octc.stats.reference_sketch import ReferenceSketch, stated_sketch
from octc.store.artifacts import MANIFEST, read_artifact
from octc.store.monitor_store import Seen, Truth, open_store
from octc.store.rewriting import rewrite_details
from octc.store.runs import Run
from tests.bench.conftest import Said
from tests.bench.verify_world import change_constants, make_world
from tests.house.tree import ROOT

REFERENCE = ReferenceSketch(
    streams={}, accuracy=0.95, gap=0.0, gap_limits=[-0.1, 0.1], alpha=0.025, images=100, images_without_patient=0, patients=100
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = make_world(tmp_path_factory.mktemp("monitor"))
    looks = [describe(Image.open(path)) for path in pictures_of(run)]
    known = fit_statistics([one for one in looks if one is not None])
    assert known is not None
    for name in ("onnx-fp32", "onnx-int8"):
        rewrite_details(run.artifacts / name, {"input_statistics": known.to_json()})
    octc.fit_reference(run.path, run_dir=run.path.parent)
    return run


def pictures_of(run: Run) -> list[Path]:
    """One picture of each patient, as the reference has them, classes mixed as there."""
    place = Path(run.read()["data_root"])
    found = [path for name in ("bright", "dark", "lying", "upright") for path in sorted((place / name).glob("*-0.png"))]
    return [found[k] for k in np.random.default_rng(0).permutation(len(found))]


def darker(paths: list[Path], place: Path) -> list[Path]:
    """The same through another scanner: gamma 1.8."""
    place.mkdir()
    for path in paths:
        grey = np.asarray(Image.open(path).convert("L"), np.float64) / 255
        Image.fromarray((255 * grey**1.8).astype(np.uint8)).save(place / path.name)
    return sorted(place.iterdir(), key=lambda path: [one.name for one in paths].index(path.name))


def test_pictures_as_on_validation_raise_no_alarm_and_those_of_another_scanner_do(run: Run, said: Said, tmp_path: Path) -> None:
    artifact, store = str(run.artifacts / "onnx-int8"), str(tmp_path / "box.sqlite")
    files = pictures_of(run)
    same, other = files[:60], darker(files[60:], tmp_path / "other")
    assert said("predict", artifact, *map(str, same), "--monitor", store)[0] == 0
    code, document = said("monitor", artifact, store, "--out", "page")
    report = document["data"]["report"]
    assert code == 0, report["alarms"]
    assert report["eyes"] == 60
    assert report["golden"] == {"count": 1, "failed": 0, "last_failed": None, **{
        name: report["golden"][name] for name in ("last_day", "last_delta")
    }}  # fmt: skip
    low, high = report["without_labels"]["limits"]
    assert low <= report["without_labels"]["accuracy"] <= high
    assert said("predict", artifact, *map(str, other), "--monitor", store)[0] == 0
    code, document = said("monitor", artifact, store, "--out", "page", "--no-replay")
    assert (code, document["error"]["code"]) == (1, "OCT-E711")
    report = document["data"]["report"]
    assert 60 < report["drift"]["alarm_at"] <= 60 + 30
    assert {"mean", "p50"} & {row["name"] for row in report["drift"]["streams"][:6]}
    page = (tmp_path / "page" / "monitor.html").read_text()
    assert "<script" not in page
    assert "http:" not in page
    assert "https:" not in page
    assert json.loads((tmp_path / "page" / "monitor.json").read_text())["alarms"] == report["alarms"]
    metrics = (tmp_path / "page" / "monitor.prom").read_text()
    assert re.search(r'^octc_monitor_drift_alarm\{artifact="onnx-int8"\} 1$', metrics, re.M)


def test_a_store_holds_no_name_and_no_picture(run: Run, said: Said, tmp_path: Path) -> None:
    files = pictures_of(run)[:20]
    said("predict", str(run.artifacts / "onnx-int8"), *map(str, files), "absent.png", "--monitor", "box.sqlite")
    said("predict", str(run.artifacts / "onnx-int8"), *map(str, files), "--monitor", "box.sqlite")  # once more: counts once
    digest = sha256_file(run.artifacts / "onnx-int8" / MANIFEST)
    with open_store(tmp_path / "box.sqlite") as store:
        rows = store.seen(digest)
    assert len(rows) in (20, 21)
    held = b"".join(path.read_bytes() for path in tmp_path.glob("box.sqlite*"))
    for path in files:
        assert path.stem.encode() not in held
        assert sha256_file(path).encode() not in held
    assert set(rows[0].sketch) == set(STREAMS)
    assert rows[0].sketch["confidence"] == rows[0].confidence


def test_rows_of_an_artifact_before_it_was_changed_are_counted_as_not_judged(run: Run, said: Said, tmp_path: Path) -> None:
    """A store of an older artifact is not a store without predictions."""
    artifact, store = run.artifacts / "onnx-int8", tmp_path / "box.sqlite"
    said("predict", str(artifact), *map(str, pictures_of(run)[:5]), "--monitor", str(store))
    report = said("monitor", str(artifact), str(store), "--no-replay")[1]["data"]["report"]
    assert (report["eyes"], report["eyes_of_others"]) == (5, 0)
    rewrite_details(artifact, {"changed": 1})
    report = said("monitor", str(artifact), str(store), "--no-replay", "--out", "page")[1]["data"]["report"]
    assert (report["eyes"], report["eyes_of_others"]) == (0, 5)
    assert re.search(
        r'^octc_monitor_eyes_of_others\{artifact="onnx-int8"\} 5$', (tmp_path / "page/monitor.prom").read_text(), re.M
    )


def test_archive_and_python_add_to_the_same_store(run: Run, said: Said, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    files = [str(path) for path in pictures_of(run)[:12]]
    store = tmp_path / "box.sqlite"
    octc.predict_archive(run.artifacts / "onnx-int8", files, tmp_path / "rows", options=octc.ArchiveOptions(monitor=store))
    digest = sha256_file(run.artifacts / "onnx-int8" / MANIFEST)
    with open_store(store) as kept:
        before = kept.seen(digest)
    assert len(before) == 12
    said("predict", str(run.artifacts / "onnx-int8"), *files, "--monitor", str(store))
    with open_store(store) as kept:
        assert kept.seen(digest) == before
    report = octc.monitor(run.artifacts / "onnx-int8", store, options=octc.MonitorOptions(replay=False))
    assert report.eyes == 12
    assert report.alarms == []


def test_labels_that_arrive_are_judged_against_the_floor(run: Run, said: Said, tmp_path: Path) -> None:
    artifact, files = str(run.artifacts / "onnx-int8"), pictures_of(run)[:40]
    said("predict", artifact, *map(str, files), "--monitor", "box.sqlite")
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as stream:
        rows = [[str(path), path.parent.name, path.stem] for path in files]
        csv.writer(stream).writerows([["path", "label", "patient"], *rows, ["absent.png", "dark", "x"]])
    code, document = said("monitor", artifact, "box.sqlite", "--labels", "labels.csv", "--no-replay", "--margin", "10")
    field = document["data"]["report"]["with_labels"]
    assert code == 0
    assert field["groups"] == 40
    assert field["limits"][0] <= field["accuracy"] <= field["limits"][1]
    again = said("monitor", artifact, "box.sqlite", "--labels", "labels.csv", "--no-replay", "--margin", "10")[1]
    assert again["data"]["report"]["with_labels"] == field  # the same labels count once
    usual = "".join(f"{path},{path.parent.name},{path.stem}\n" for path in files)
    table.write_text(f"File Path,Diagnosis,Patient ID\n{usual}")
    assert (
        said("monitor", artifact, "box.sqlite", "--labels", "labels.csv", "--no-replay")[1]["data"]["report"]["with_labels"][
            "groups"
        ]
        == 40
    )
    table.write_text(f"path,label\n{files[0]},drusen\n")
    assert said("monitor", artifact, "box.sqlite", "--labels", "labels.csv")[1]["error"]["code"] == "OCT-E209"
    table.write_text("file,truth\n")
    assert said("monitor", artifact, "box.sqlite", "--labels", "labels.csv")[1]["error"]["code"] == "OCT-E209"


def test_tables_that_overlap_count_each_patient_and_each_image_once(run: Run, said: Said, tmp_path: Path) -> None:
    """Cumulative tables: who is known by an image stays as counted first, whatever else a later table says of them."""
    artifact, files = str(run.artifacts / "onnx-int8"), pictures_of(run)[:8]
    said("predict", artifact, *map(str, files), "--monitor", "box.sqlite")
    a, b, c, d, e, f, g, h = (f"{path},{path.parent.name}" for path in files)

    def counted(head: str, *lines: str) -> tuple[int, int]:
        (tmp_path / "labels.csv").write_text("\n".join([head, *lines]) + "\n")
        code, document = said("monitor", artifact, "box.sqlite", "--labels", "labels.csv", "--no-replay")
        assert code == 0, document
        field = document["data"]["report"]["with_labels"]
        return field["groups"], field["images"]

    whole, bare = "path,label,patient", "path,label"
    assert counted(whole, f"{a},p1", f"{b},p1", f"{c},p2") == (2, 3)
    assert counted(whole, f"{a},p1", f"{b},p1", f"{c},p2", f"{d},p1", f"{e},p3") == (3, 4)
    assert counted(bare, a, b, c, d, e) == (4, 5)  # without patients d is one of its own: nobody can tell otherwise
    assert counted(whole, f"{d},p1", f"{a},p1", f"{f},p4") == (5, 6)
    assert counted(whole, f"{g},p5", f"{h},p6", f"{h},p5") == (6, 8)  # who shares an image counts as one
    assert counted(whole, f"{g},other", f"{h},", f"{h},other") == (6, 8)
    other = "dark" if files[0].parent.name != "dark" else "bright"
    (tmp_path / "labels.csv").write_text(f"{whole}\n{a},p1\n{files[0]},{other},p1\n")
    assert said("monitor", artifact, "box.sqlite", "--labels", "labels.csv", "--no-replay")[1]["error"]["code"] == "OCT-E209"


def test_a_patient_that_is_not_known_is_nobody_of_many_images(run: Run, said: Said, tmp_path: Path) -> None:
    artifact, files = str(run.artifacts / "onnx-int8"), pictures_of(run)[:4]
    said("predict", artifact, *map(str, files), "--monitor", "box.sqlite")
    words = ("nan", "unknown", "#N/A", "None")
    lines = [f"{path},{path.parent.name},{words[i % 2]}" for i, path in enumerate(files[:3])]
    lines.append(f"{files[3]},{files[3].parent.name},{words[2]}")
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,patient", *lines]) + "\n")
    document = said("monitor", artifact, "box.sqlite", "--labels", "labels.csv", "--no-replay")[1]
    assert document["data"]["report"]["with_labels"]["groups"] == len(files)


def test_an_accuracy_below_the_floor_is_an_alarm_and_one_above_is_shown() -> None:
    rng = np.random.default_rng(0)
    limits = Limits(margin=0.05)
    for accuracy, word in ((0.8, "below"), (0.97, "above")):
        truth = [Truth("d", "a", (str(k),), float(rng.random() < accuracy), 1) for k in range(900)]
        assert judge_truth(truth, REFERENCE, limits).word == word
        assert judge_truth(truth[:5], REFERENCE, limits).word == "open"
    assert judge_truth([], None, limits).accuracy is None


def test_an_accuracy_without_labels_holds_at_the_levels_of_its_two_parts() -> None:
    seen = [Seen("d", "a", str(k), "dark", 0.9, {}) for k in range(30)]
    assert judge_confidence(seen, REFERENCE, 0.05).level == 0.05
    assert judge_confidence(seen, REFERENCE, 0.01).level == pytest.approx(0.03)


def test_an_engine_that_computes_something_else_is_an_alarm(run: Run, said: Said) -> None:
    artifact = run.artifacts / "onnx-int8"
    said("predict", str(artifact), str(pictures_of(run)[0]), "--monitor", "box.sqlite")
    change_constants(artifact, lambda name, value: value * np.float32(1.5) if name == "conv2.weight_scale" else value)
    code, document = said("monitor", str(artifact), "box.sqlite")
    assert code == 1
    assert document["data"]["report"]["golden"]["failed"] == 1


def test_every_artifact_knows_its_validation_set(run: Run) -> None:
    for name in ("onnx-fp32", "onnx-int8"):
        found = stated_sketch(read_artifact(run.artifacts / name).details)
        assert found is not None
        assert found.patients is not None
        assert found.patients >= 20
        assert len(found.streams["confidence"]) == found.patients
        assert 0.9 * found.patients <= len(found.streams["label"]) <= found.patients  # an unlike picture gets no label


def test_a_box_that_decides_by_rules_is_held_against_what_the_rules_answer(run: Run, said: Said, tmp_path: Path) -> None:
    """A cautious operating point answers its class more often, and is right less often, than the likeliest class: on pictures
    of the validation set that is neither drift nor a loss of accuracy."""
    artifact, place = run.artifacts / "onnx-int8", {"run_dir": run.path.parent}
    plain = stated_sketch(read_artifact(artifact).details)
    octc.fit_rules(artifact, octc.PointOptions(class_name="dark", sensitivity=0.995), **place)
    kept = stated_sketch(read_artifact(artifact).details)
    assert plain is not None
    assert kept is not None
    samples = read_split(run.split).parts["val"]
    files = [Path(run.read()["data_root"]) / one.path for one in samples]
    with octc.load(artifact) as model:
        answers = model.predict(files)
    told = [k for k, one in enumerate(answers) if one.label is not None]
    assert len(told) >= 0.9 * len(files)
    right = [answers[k].label == model.classes[samples[k].label] for k in told]
    likeliest = [max(answers[k].probabilities, key=answers[k].probabilities.__getitem__) for k in told]
    assert np.mean(right) < np.mean([name == model.classes[samples[k].label] for k, name in zip(told, likeliest, strict=True)])
    assert kept.accuracy < plain.accuracy
    assert kept.accuracy == pytest.approx(np.mean(right), abs=0.03)  # without the unlike, and images for patients
    assert Counter(kept.streams["label"])[1.0] > Counter(plain.streams["label"])[1.0]
    octc.fit_reference(artifact, **place)
    assert stated_sketch(read_artifact(artifact).details) == kept  # --learn looks at the rules that are there
    octc.fit_rules(artifact, octc.PointOptions(remove=True), **place)
    assert stated_sketch(read_artifact(artifact).details) == plain


@pytest.mark.parametrize(
    "words", [("ARTIFACT",), ("ARTIFACT", "box.sqlite", "--learn"), ("ARTIFACT", "box.sqlite", "--false-alarms", "0")]
)
def test_requests_that_cannot_be_are_refused(run: Run, said: Said, words: tuple[str, ...]) -> None:
    assert said("monitor", *(str(run.artifacts / "onnx-int8") if one == "ARTIFACT" else one for one in words))[0] == 2


def test_the_example_of_the_page_runs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    page = (ROOT / "docs" / "monitor.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- test: monitor -->\n```sh\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").symlink_to(run.read()["data_root"])
    for line in block.strip().splitlines():
        assert main(shlex.split(line)[1:]) in (0, 1), line
    assert (tmp_path / "monitor" / "monitor.prom").is_file()
    assert "golden       replayed 1 times" in capsys.readouterr().out
