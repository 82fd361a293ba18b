"""`octc results`: counts, SQL, accuracy by patient, two results compared, a page; and shards that do not fit."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

import octc
from octc.archive.judge import accuracy, compare_results, share_interval
from octc.archive.results import select, summarise
from octc.cli._app.main import main
from octc.core.errors import OctcError
from octc.stats.proportions import wilson
from tests.archive.world import patterns, write_volume
from tests.tiny_artifacts import artifact_folder

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two artifacts, and the labels: the names of the folders, a patient for each two pictures."""
    base = tmp_path_factory.mktemp("results")
    lines = ["path,label,patient"]
    for number, path in enumerate(patterns()[::3]):
        target = base / "archive" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        lines.append(f"archive/{path.parent.name}/{path.name},{path.parent.name},p{number // 2}")
    write_volume(base / "archive" / "eye", frames=3)
    (base / "archive" / "bad.png").write_bytes(b"")
    (base / "labels.csv").write_text("\n".join([*lines, "archive/none.png,dark,p9"]) + "\n")
    for name, folder in (("onnx-int8", "first"), ("onnx-fp32", "second")):
        octc.predict_archive(
            artifact_folder(name), [base / "archive"], base / folder, options=octc.ArchiveOptions(workers=1, anyway=True)
        )
    return base


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main(["results", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_summary_counts_rows_labels_and_failures(world: Path, said: Said) -> None:
    found = summarise(world / "first")
    pictures = len(list((world / "archive").rglob("*.png"))) - 1
    assert (found.inputs, found.whole.scans, found.eyes, found.complete) == (pictures + 2, pictures + 3, 1, True)
    assert found.failures == {"OCT-E201": 1}
    assert sum(found.whole.labels.values()) == sum(found.confidence) == pictures + 3
    assert found.groups["month"]["2026-01"].scans == 3
    assert found.groups["scanner"]["unknown"].scans >= pictures
    values = [one.value for one in found.least_certain]
    assert values == sorted(values)
    code, out, _ = said(world / "first", "--json")
    assert (code, json.loads(out)["data"]["whole"]["scans"]) == (0, pictures + 3)
    assert said(world / "first")[0] == 0
    assert said(world / "archive")[0] == 2


def test_results_that_are_gone_on_with_are_not_complete(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "first", tmp_path / "again")
    (tmp_path / "again" / "_SUCCESS").unlink()  # as a call does that has something to do
    assert summarise(tmp_path / "again") == replace(summarise(world / "first"), complete=False)


def test_rows_by_sql_see_the_tables_and_nothing_else(world: Path, said: Said) -> None:
    code, out, err = said(world / "first", "--where", "label = 'dark' AND frame IS NULL")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert rows
    assert {row["label"] for row in rows} == {"dark"}
    assert said(world / "first", "--where", "code LIKE 'OCT-E2%'", "--table", "failed", "--json")[0] == 0
    for condition in ("label =", "file IN (SELECT content FROM read_text('/etc/hostname'))"):
        with pytest.raises(OctcError) as caught:
            list(select(world / "first", condition)[1])
        assert caught.value.code == "OCT-E104", condition


def test_a_column_of_ones_own_keeps_its_nan_for_sql(world: Path, tmp_path: Path) -> None:
    """Bounds that leave NaN out, as pyarrow writes them, hide these rows from a condition on the file."""
    pictures = sorted(str(path.resolve()) for path in (world / "archive" / "dark").glob("*.png"))
    pressures = [float(k) for k in range(len(pictures))]
    pressures[1] = math.nan
    near = pa.array([[one] for one in pressures], pa.list_(pa.float32()))
    parquet.write_table(pa.table({"path": pictures, "pressure": pressures, "near": near}), tmp_path / "table.parquet")
    options = octc.ArchiveOptions(workers=1, anyway=True)
    octc.predict_archive(artifact_folder("onnx-int8"), [tmp_path / "table.parquet"], tmp_path / "results", options=options)
    for condition, count in (
        ("isnan(pressure)", 1), ("pressure > 1e9", 1), ("isnan(near[1])", 1), ("pressure <= 1e9", len(pictures) - 1),
    ):  # fmt: skip
        assert len(list(select(tmp_path / "results", condition)[1])) == count, condition


def test_a_table_without_a_row_is_asked_like_any_other(world: Path, tmp_path: Path, said: Said) -> None:
    pictures = list((world / "archive" / "dark").glob("*.png"))[:2]
    octc.predict_archive(artifact_folder(), pictures, tmp_path / "results", options=octc.ArchiveOptions(workers=1, anyway=True))
    for table in ("eyes", "failed"):
        code, out, err = said(tmp_path / "results", "--where", "true", "--table", table)
        assert (code, len(list(csv.reader(io.StringIO(out))))) == (0, 1), err
    assert csv.DictReader(io.StringIO(said(world / "first", "--where", "true", "--table", "eyes")[1])).fieldnames == list(
        csv.DictReader(io.StringIO(said(tmp_path / "results", "--where", "true", "--table", "eyes")[1])).fieldnames or []
    )
    assert list(select(tmp_path / "results", "file NOT IN (SELECT file FROM failed)")[1])
    with pytest.raises(OctcError) as caught:
        select(tmp_path / "results", "nothing = 1", "eyes")
    assert caught.value.code == "OCT-E104"


def test_accuracy_against_labels_is_by_patient(world: Path, said: Said) -> None:
    found = accuracy(world / "first", world / "labels.csv")
    lines = len((world / "labels.csv").read_text().splitlines()) - 1
    assert (found.labels, found.absent, found.answered + found.unlabelled) == (lines, 1, lines - 1)
    assert found.patients == -(-(lines - 1) // 2)
    assert found.interval is not None
    assert found.interval[0] <= found.accuracy <= found.interval[1]
    assert sum(map(sum, found.matrix)) == found.answered
    assert found.accuracy == pytest.approx(sum(found.matrix[k][k] for k in range(4)) / found.answered)
    assert said(world / "first", "--against", world / "labels.csv")[0] == 0
    head, *rows = (world / "labels.csv").read_text().splitlines()
    (world / "nobody.csv").write_text("\n".join([head, *(f"{row.rsplit(',', 1)[0]},nan" for row in rows)]) + "\n")
    assert accuracy(world / "first", world / "nobody.csv").patients is None  # no patient is called nan
    (world / "wrong.csv").write_text("path,label\narchive/bad.png,nothing\n")
    with pytest.raises(OctcError) as caught:
        accuracy(world / "first", world / "wrong.csv")
    assert caught.value.code == "OCT-E706"


def test_an_interval_by_patient_is_wider_than_one_by_image() -> None:
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(40) < 0.8, 10)
    people = [str(i // 10) for i in range(400)]
    plain, clustered = wilson(int(right.sum()), 400), share_interval(right, people)
    assert plain is not None
    assert clustered is not None
    assert clustered[1] - clustered[0] > 2 * (plain[1] - plain[0])
    assert share_interval(right, [None] * 400) == plain
    assert share_interval(right, ["one"] * 400) is None


def test_many_patients_are_pooled_for_the_interval() -> None:
    """60,000 patients: about the width of Wilson's interval at the design effect, in the time of 5,000."""
    right = np.random.default_rng(0).random(60_000) < 0.9
    low, high = share_interval(right, [f"p{k}" for k in range(60_000)]) or (0.0, 0.0)
    plain = wilson(int(right.sum()), 60_000)
    assert plain is not None
    assert high - low == pytest.approx(plain[1] - plain[0], rel=0.08)


def test_two_results_are_paired_by_their_bytes(world: Path, said: Said) -> None:
    found = compare_results(world / "first", world / "second", world / "labels.csv")
    assert found.n == summarise(world / "first").whole.scans
    assert found.only == (0, 0)
    assert 0 < found.largest < 1
    assert found.judged is not None
    assert found.judged.n == len((world / "labels.csv").read_text().splitlines()) - 2
    assert compare_results(world / "first", world / "first").agreement == 1
    code, out, _ = said(world / "first", "--compare", world / "second", "--against", world / "labels.csv", "--json")
    assert (code, json.loads(out)["data"]["judged"]["n"]) == (found.judged.verdict.exit_code, found.judged.n)
    assert said(world / "first", "--compare", world / "second")[0] == 0
    both = (world / "first", "--compare", world / "second", "--against", world / "labels.csv", "--margin", "40")
    for more, stated in ((), "class margin 3 pp"), (("--class-margin", "0.5"), "class margin 0.5 pp"):
        assert stated in said(*both, *more)[1]
    assert said(*both, "--class-margin", "0")[0] == said(world / "first", "--class-margin", "5")[0] == 2


def test_a_page_has_pictures_only_when_asked(world: Path, said: Said, tmp_path: Path) -> None:
    assert said(world / "first", "--page", tmp_path / "plain.html")[0] == 0
    assert said(world / "first", "--page", tmp_path / "photos.html", "--photos")[0] == 0
    plain, photos = ((tmp_path / f"{name}.html").read_text() for name in ("plain", "photos"))
    assert "data:image/png" not in plain
    assert photos.count("data:image/png") > 5
    assert "http://" not in plain.replace("http://www.w3.org", "")
    assert said(world / "first", "--photos")[0] == 2


def test_a_shard_that_was_altered_is_refused(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "first", tmp_path / "copy")
    path = next((tmp_path / "copy" / "scans").iterdir())
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(OctcError) as caught:
        summarise(tmp_path / "copy")
    assert caught.value.code == "OCT-E501"
