"""The set that is judged on, records that are read back, verify.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from octc.bench.parity.evaluation_set import LabelledSet, check_artifact, check_images, linked, read_set
from octc.bench.parity.inference import records_of
from octc.bench.parity.predictions import MEASURED, records_path, store_records, stored_records
from octc.core.errors import OctcError
from octc.core.files import sha256_file
from octc.datasets.base import Sample
from octc.datasets.split import Split
from octc.imaging.preprocess import VIEWS, Preprocess
from octc.store.artifacts import Artifact
from octc.store.locations import run_of
from octc.store.runs import Run, create_run
from octc.store.verdicts import FILE, read_verdict, write_verdict

CLASSES = ("a", "b")
PRE = Preprocess(32)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Twelve pictures of six patients; train, val and test in folders of their classes."""
    rng = np.random.default_rng(0)
    parts: dict[str, list[Sample]] = {"train": [], "val": [], "test": []}
    for i in range(12):
        part, label = ("train", "val", "test")[i // 4], i % 2
        path = f"{CLASSES[label]}/{i:02d}.png"
        (tmp_path / "images" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(tmp_path / "images" / path)
        parts[part].append(Sample(path, label, f"p{i // 2}", None, sha256_file(tmp_path / "images" / path)))
    return Split("folder", CLASSES, 0, {part: tuple(items) for part, items in parts.items()})


@pytest.fixture
def run(tmp_path: Path, split: Split) -> Run:
    made = create_run(tmp_path / "runs", "student", "folder", data_root=str(tmp_path / "images"))
    split.write(made.split)
    return made


@pytest.fixture
def test_set(run: Run, tmp_path: Path) -> LabelledSet:
    return read_set(run, tmp_path / "images", "test")


def ignore(_count: int) -> None:
    """No bar."""


def refused(call: Callable[..., Any], *args: Any) -> OctcError:
    with pytest.raises(OctcError) as caught:
        call(*args)
    return caught.value


def test_a_set_is_a_part_of_the_split(run: Run, tmp_path: Path, split: Split) -> None:
    for name, part in (("test", "test"), ("select", "val")):
        found = read_set(run, tmp_path / "images", name)
        assert found.samples == split.parts[part]
    assert read_set(run, tmp_path / "images", "test").protocol == "patient-level test split"
    told: list[int] = []
    check_images(found, split, told.append)
    assert sum(told) == 4


def test_a_published_test_part_is_called_that(run: Run, tmp_path: Path, split: Split) -> None:
    official = {**split.parts, "test": tuple(replace(s, part="test") for s in split.parts["test"])}
    replace(split, parts=official, dropped=7).write(run.split)
    assert "published test part (7 training images" in read_set(run, tmp_path / "images", "test").protocol


def test_d27_removed_changed_and_added_files_are_refused_and_listed(test_set: LabelledSet, split: Split) -> None:
    first, second, *_ = test_set.samples
    (test_set.root / first.path).unlink()
    Image.new("L", (40, 40), 7).save(test_set.root / second.path)
    Image.new("L", (40, 40), 9).save(test_set.root / "a" / "new.png")
    error = refused(check_images, test_set, split, ignore)
    assert (error.code, error.exit_code) == ("OCT-E216", 3)
    for words in (f"removed {first.path}", f"changed {second.path}", "added a/new.png", "3 files"):
        assert words in error.message


@pytest.mark.parametrize("how", ["empty", "cut off", "a folder"])
def test_a_picture_that_became_unreadable_is_refused_by_name(test_set: LabelledSet, split: Split, how: str) -> None:
    path = test_set.root / test_set.samples[2].path
    data = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"" if how == "empty" else data[:100])
    error = refused(check_images, test_set, split, ignore)
    assert error.code == "OCT-E216"
    assert test_set.samples[2].path in error.message


def test_files_that_were_left_out_of_the_split_are_not_called_new(test_set: LabelledSet, split: Split) -> None:
    (test_set.root / "a" / "broken.png").write_bytes(b"cut off")  # --skip-bad left it out
    (test_set.root / "a" / "._x.png").write_bytes(b"")
    (test_set.root / "a" / "notes.txt").write_text("hello")
    check_images(test_set, split, ignore)
    Image.new("L", (40, 40), 9).save(test_set.root / "a" / "dropped.png")
    check_images(test_set, replace(split, dropped=1), ignore)  # training images that the split left out lie here too


def test_a_patient_in_two_parts_is_leakage_before_anything_else(run: Run, tmp_path: Path, split: Split) -> None:
    guest = replace(split.parts["test"][0], patient=split.parts["train"][0].patient)
    replace(split, parts={**split.parts, "test": (guest, *split.parts["test"][1:])}).write(run.split)
    error = refused(read_set, run, tmp_path / "images", "test")
    assert (error.code, error.exit_code) == ("OCT-E212", 1)


def test_one_picture_under_two_patient_numbers_links_them() -> None:
    rows = [Sample("x", 0, "p1", None, "same"), Sample("y", 0, "p2", None, "same"), Sample("z", 1, "p2", None, "other")]
    assert [s.patient for s in linked([*rows, Sample("w", 1, None, None, "alone")])] == ["p1", "p1", "p1", None]


def artifact(split: Split, **more: Any) -> Artifact:
    fields: dict[str, Any] = {"classes": CLASSES, "lineage": {"run": "r", "split_digest": split.digest}, **more}
    return Artifact("onnx-int8", "student", "m", "onnx", "int8", preprocess=PRE, **fields)


def test_an_artifact_of_this_split_passes_and_others_do_not(split: Split) -> None:
    check_artifact(artifact(split), split)
    assert refused(check_artifact, artifact(split, lineage={"split_digest": "0" * 64}), split).code == "OCT-E216"
    assert refused(check_artifact, artifact(split, classes=("b", "a")), split).code == "OCT-E309"


@pytest.mark.parametrize("part", ["val", "test"])
def test_d25_a_calibration_image_in_val_or_test_is_refused_by_name(split: Split, part: str) -> None:
    seen = split.parts[part][1]
    details = {"quantisation": {"calibration": [split.parts["train"][0].sha256, seen.sha256]}}
    error = refused(check_artifact, artifact(split, details=details), split)
    assert (error.code, error.exit_code) == ("OCT-E214", 3)
    assert seen.path in error.message


def test_the_run_of_an_artifact_is_around_it_or_found_by_its_id(run: Run, tmp_path: Path, split: Split) -> None:
    mine = artifact(split, lineage={"run": run.id})
    assert run_of(run.artifacts / "onnx-int8", mine, tmp_path / "nowhere") == Run(run.path)
    assert run_of(tmp_path / "copied" / "onnx-int8", mine, run.path.parent) == Run(run.path)
    assert run_of(tmp_path / "copied" / "onnx-int8", mine, tmp_path / "nowhere") is None
    assert run_of(run.artifacts / "x", artifact(split, lineage={"run": "r-0099"}), run.path.parent) is None


# --- records

NOW = "2026-01-01T00:00:00Z"
FACTS = {"runtime": "onnxruntime", "version": "1", "threads": 2, "cpu_model": "x"}


def stored(run: Run, one: LabelledSet, views: str = "5", **more: Any) -> Any:
    names = VIEWS[views]
    logits = np.arange(len(one.samples) * len(names) * 2, dtype=np.float32).reshape(len(one.samples), len(names), 2)
    records = records_of(one.samples, logits, names, "a" * 64, PRE, {**FACTS, MEASURED: NOW})
    store_records(run.path, one, "onnx-int8", replace(records, **more))
    return logits


def read_back(run: Run, one: LabelledSet, **more: Any) -> Any:
    values: dict[str, Any] = {"sha256": "a" * 64, "preprocess": PRE, "views": VIEWS["none"], "facts": FACTS, **more}
    return stored_records(run.path, one, "onnx-int8", **values)


def test_records_are_read_back_and_five_views_hold_one(run: Run, test_set: LabelledSet) -> None:
    assert read_back(run, test_set) is None
    logits = stored(run, test_set)
    found = read_back(run, test_set)
    np.testing.assert_array_equal(found.logits, logits[:, :1])
    assert found.views == ("identity",)
    assert found.patients == tuple(s.patient for s in test_set.samples)
    assert read_back(run, test_set, views=VIEWS["hflip"]).logits.shape[1] == 2
    mixed = replace(test_set, samples=test_set.samples[::-1])
    np.testing.assert_array_equal(read_back(run, mixed).logits, logits[::-1, :1])


def test_records_of_one_view_do_not_stand_for_five(run: Run, test_set: LabelledSet) -> None:
    stored(run, test_set, "none")
    assert read_back(run, test_set) is not None
    assert read_back(run, test_set, views=VIEWS["5"]) is None


@pytest.mark.parametrize("changed", [
    {"sha256": "b" * 64}, {"preprocess": replace(PRE, resize="bicubic")}, {"facts": {**FACTS, "version": "2"}},
    {"facts": {**FACTS, "threads": 1}},
])  # fmt: skip
def test_records_are_not_read_back_when_anything_differs(run: Run, test_set: LabelledSet, changed: dict[str, Any]) -> None:
    stored(run, test_set)
    assert read_back(run, test_set, **changed) is None


def test_records_are_not_read_back_for_other_images_or_labels_nor_when_damaged(run: Run, test_set: LabelledSet) -> None:
    stored(run, test_set)
    relabelled = replace(test_set, samples=tuple(replace(s, label=1 - s.label) for s in test_set.samples))
    assert read_back(run, relabelled) is None
    assert read_back(run, replace(test_set, samples=test_set.samples[1:])) is None
    path = records_path(run.path, "test", "onnx-int8", "a" * 64, VIEWS["5"])
    path.write_bytes(path.read_bytes()[:200])
    assert read_back(run, test_set) is None


# --- verify.json


def document(word: str, when: str = NOW) -> dict[str, Any]:
    return {"verdict": {"word": word}, "time_utc": when}


def test_results_of_test_and_select_stand_beside_each_other(tmp_path: Path) -> None:
    write_verdict(tmp_path, "onnx-int8", "a", "test", document("inconclusive"), None)
    write_verdict(tmp_path, "onnx-int8", "a", "select", document("equivalent"), None)
    found = read_verdict(tmp_path, "a")
    assert found is not None
    assert (found["test"]["verdict"]["word"], found["select"]["verdict"]["word"]) == ("inconclusive", "equivalent")
    assert found["golden"] is None
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    assert read_verdict(tmp_path, "another manifest") is None


def test_a_result_that_is_replaced_is_kept_under_its_run_else_beside_it(tmp_path: Path, run: Run) -> None:
    for word in ("fail", "inconclusive", "equivalent"):
        write_verdict(tmp_path, "onnx-int8", "a", "test", document(word), run)
    kept = sorted((run.path / "verify").iterdir())
    assert [p.name for p in kept] == ["verify-onnx-int8-repeated-20260101T000000Z.json"]
    assert {json.loads(p.read_text())["verdict"]["word"] for p in kept} == {"inconclusive"}
    found = read_verdict(tmp_path, "a")
    assert found is not None
    assert (found["test"]["verdict"]["word"], found["repeated"]["verdict"]["word"]) == ("fail", "equivalent")
    write_verdict(tmp_path, "onnx-int8", "a", "test", document("fail"), None)
    assert len(list((tmp_path / "samples").iterdir())) == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"schema_version": "1.0", "artifact_sha256": "a", "test": 3}'])
def test_a_damaged_verify_json_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_verdict(tmp_path, "a") is None
    write_verdict(tmp_path, "onnx-int8", "a", "golden", document("golden_only"), None)
    assert read_verdict(tmp_path, "a") is not None


def test_a_folder_that_cannot_be_written_is_an_error_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    error = refused(write_verdict, tmp_path / "file", "x", "a", "test", document("fail"), None)
    assert (error.code, error.place) == ("OCT-E109", str(tmp_path / "file"))
