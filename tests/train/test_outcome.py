"""Evaluations: every table and figure follows from the stored predictions, and agrees with scikit-learn."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.core.csv_files import read_csv
from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.stats.metrics import log_softmax, softmax
from octc.train.evaluation.files import report_text, title_of, write_evaluation
from octc.train.evaluation.outcome import Predictions, class_rows, combined, evaluate, read_predictions

CLASSES = ("cnv", "drusen", "normal")
FILES = {
    "predictions.csv", "figures.json", "report.txt", "confusion.csv", "per_class.csv", "roc.csv", "confusion.svg",
    "confusion.png", "per_class.svg", "per_class.png", "roc.svg", "roc.png",
}  # fmt: skip


def make(count: int = 60, views: tuple[str, ...] = ("identity",), patients: bool = True) -> Predictions:
    rng = np.random.default_rng(4)
    labels = np.arange(count) % 3
    logits = rng.normal(0, 1, (count, len(views), 3)) + 1.2 * np.eye(3)[labels][:, None]
    return Predictions(
        paths=tuple(f"a, b/{i:03d} \"x\".png" for i in range(count)), sums=tuple(f"{i:064x}" for i in range(count)),
        patients=tuple(f"p{i // 4}" if patients else None for i in range(count)), labels=tuple(labels.tolist()),
        logits=logits.astype(np.float32), views=views, classes=CLASSES, facts={"run": "r-0001", "part": "test"},
    )  # fmt: skip


def test_predictions_come_back_to_the_last_bit(tmp_path: Path) -> None:
    given = make(views=("identity", "hflip"))
    write_evaluation(tmp_path / "e", given)
    found = read_predictions(tmp_path / "e")
    assert np.array_equal(found.logits, given.logits)
    assert replace(found, logits=given.logits) == given
    no_patients = make(patients=False)
    write_evaluation(tmp_path / "n", no_patients)
    assert read_predictions(tmp_path / "n").patients == (None,) * 60


def test_names_that_a_spreadsheet_would_run_come_back(tmp_path: Path) -> None:
    """In predictions.csv, in the tables of the classes and in their headers; logits stay numbers."""
    classes = ("=cnv", "-dme", "@x,y")
    paths = ("=1+1.png", "+a.png", "-b.png", "@c.png", "\tt.png", "\rr.png", "a\rb\n.png", "'=q.png", "caf\udce9.png")
    given = replace(
        make(len(paths)), paths=paths, classes=classes, patients=tuple(f"{sign}{k // 2}" for k, sign in enumerate("=+-@=+-@'"))
    )
    write_evaluation(tmp_path / "e", given)
    found = read_predictions(tmp_path / "e")
    assert (found.paths, found.patients, found.classes, found.labels) == (paths, given.patients, classes, given.labels)
    assert np.array_equal(found.logits, given.logits)
    for path in (tmp_path / "e").glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream, strict=True))
        assert {len(row) for row in rows} == {len(rows[0])}, path.name
        for cell in (cell for row in rows for cell in row):
            assert not cell.startswith(("=", "+", "@", "\t", "\r")), (path.name, cell)
            assert not cell.startswith("-") or float(cell) < 0, (path.name, cell)
    assert read_csv(tmp_path / "e" / "confusion.csv")[0] == ["true", *classes]


def test_an_evaluation_is_whole_and_follows_from_its_predictions(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "one", make())
    assert {path.name for path in (tmp_path / "one").iterdir()} == FILES
    write_evaluation(tmp_path / "two", read_predictions(tmp_path / "one"))
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    with pytest.raises(OctcError) as caught:
        write_evaluation(tmp_path / "one", make(30))  # nothing takes the place of an evaluation
    assert caught.value.code == "OCT-E106"
    assert json.loads((tmp_path / "one" / "figures.json").read_text())["figures"]["n"] == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_altered_predictions_are_refused(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "e", make())
    path = tmp_path / "e" / "predictions.csv"
    path.write_text(path.read_text().replace("cnv,", "drusen,", 1))
    with pytest.raises(OctcError) as caught:
        read_predictions(tmp_path / "e")
    assert caught.value.code == "OCT-E501"
    with pytest.raises(OctcError) as caught:
        read_predictions(tmp_path)
    assert caught.value.code == "OCT-E107"


@pytest.mark.parametrize("how", ["probabilities", "logits"])
def test_figures_are_scikit_learns(how: str) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    given = make(150, ("identity", "hflip", "vflip"))
    p, logs = combined(given, how)
    labels, said = np.array(given.labels), p.argmax(1)
    found = evaluate(given, how)
    assert found.figures.accuracy == pytest.approx(metrics.accuracy_score(labels, said))
    assert found.figures.macro_sensitivity == pytest.approx(metrics.balanced_accuracy_score(labels, said))
    assert found.figures.macro_f1 == pytest.approx(metrics.f1_score(labels, said, average="macro"))
    assert found.loss == pytest.approx(metrics.log_loss(labels, p))
    assert found.loss == pytest.approx(-logs[np.arange(150), labels].mean())
    areas = [curve.area for curve in found.rocs if curve is not None]
    assert np.mean(areas) == pytest.approx(metrics.roc_auc_score(labels, p, multi_class="ovr"))
    for k in range(3):
        assert found.precisions[k] == pytest.approx(metrics.average_precision_score(labels == k, p[:, k]))
    assert found.matrix.tolist() == metrics.confusion_matrix(labels, said).tolist()


def test_views_are_averaged_as_probabilities_or_as_logits() -> None:
    given = make(6, ("identity", "hflip"))
    one, other = given.logits[:, 0], given.logits[:, 1]
    assert combined(given)[0] == pytest.approx((softmax(one) + softmax(other)) / 2, abs=1e-7)
    assert combined(given, "logits")[1] == pytest.approx(log_softmax((one.astype(float) + other) / 2), abs=1e-6)


def test_report_is_the_classification_report() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    given = make(90)
    found = evaluate(given)
    said = combined(given)[0].argmax(1)
    expected = metrics.classification_report(given.labels, said, target_names=CLASSES, digits=4)
    assert [line.split() for line in report_text(found, CLASSES).splitlines()] == [
        line.split() for line in expected.splitlines()
    ]


def test_tables_say_the_same_as_the_figures(tmp_path: Path) -> None:
    given = make()
    found = write_evaluation(tmp_path / "e", given)

    def table(name: str) -> list[dict[str, str]]:
        with (tmp_path / "e" / name).open(newline="") as stream:
            return list(csv.DictReader(stream))

    assert [[int(row[name]) for name in CLASSES] for row in table("confusion.csv")] == found.matrix.tolist()
    document: dict[str, Any] = json.loads((tmp_path / "e" / "figures.json").read_text())
    for row, known, stored in zip(table("per_class.csv"), class_rows(found, CLASSES), document["per_class"], strict=True):
        assert {key: float(value) for key, value in row.items() if key != "class"} == {
            key: value for key, value in known.items() if key != "class"
        }
        assert stored == known
    assert document["confusion"] == found.matrix.tolist()
    assert document["predictions_sha256"] == sha256_file(tmp_path / "e" / "predictions.csv")
    assert document["facts"] == {"run": "r-0001", "part": "test"}
    points = [row for row in table("roc.csv") if row["class"] == "cnv"]
    assert float(points[-1]["true_positive_rate"]) == 1.0
    curve = found.rocs[0]
    assert curve is not None
    assert [float(row["false_positive_rate"]) for row in points] == curve.false_positive.tolist()


def test_a18_both_f1_stand_side_by_side() -> None:
    for row in class_rows(evaluate(make()), CLASSES):
        sens, spec, precision = row["recall"], row["specificity"], row["precision"]
        assert row["f1_ss"] == pytest.approx(2 * sens * spec / (sens + spec))
        assert row["f1"] == pytest.approx(2 * sens * precision / (sens + precision))


def test_intervals_hold_the_value_and_widen_with_fewer_patients() -> None:
    many, few = evaluate(make(120)), evaluate(replace(make(120), patients=tuple(f"p{i // 30}" for i in range(120))))
    for found in (many, few):
        assert found.accuracy_patients is not None
        assert found.accuracy_patients[0] <= (found.figures.accuracy or 0) <= found.accuracy_patients[1]
        assert found.accuracy_wilson is not None
    assert many.recall_patients is not None
    none = evaluate(make(120, patients=False))
    assert none.accuracy_patients is None
    assert none.recall_patients is None
    assert evaluate(replace(make(), patients=("p",) * 60)).accuracy_patients is None


def test_a_class_without_images_is_null_everywhere(tmp_path: Path) -> None:
    given = make()
    found = write_evaluation(tmp_path / "e", replace(given, labels=tuple(0 if k == 1 else k for k in given.labels)))
    assert found.rocs[1] is None
    assert found.precisions[1] is None
    row = json.loads((tmp_path / "e" / "figures.json").read_text())["per_class"][1]
    assert (row["recall"], row["auc"], row["ap"], row["support"]) == (None, None, None, 0)
    assert "n/a" in report_text(found, CLASSES)


def test_a_leaky_split_says_so_in_every_title() -> None:
    assert title_of({"run": "r-1", "model": "m", "part": "test", "warning": "LEAKY split"}) == "r-1 · m · test · LEAKY split"
    assert title_of({"run": "r-1", "part": "val", "warning": ""}) == "r-1 · val"
