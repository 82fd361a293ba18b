"""Whole jobs on trees whose files name nobody, some, or everybody: what is claimed of patients, in words and in fields."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from octc.cli._app.main import main
from octc.datasets.split import read_split
from octc.store.runs import Run, scan_runs
from tests.cli.conftest import Said
from tests.cli.verify_runs import DECIDABLE
from tests.tiny_run import make_run, write_patterns

CLAIMS = re.compile(
    r"\d patients?\b|patient-level|leakage: none|by patient\b(?! where)|over patients|patients? apart|patient[ -]bootstrap"
    r"|(its|validation|whole|different) patients?\b|patients that",
    re.IGNORECASE,
)
STATED = ("--patients", "unknown")
DRY = (*STATED, "--dry-run")
UNKNOWN = "patients unknown: leakage cannot be excluded"
Name = Callable[[int, Path], str]
NAMES: dict[str, Name] = {
    "nobody": lambda i, _: f"img_{i:04d}.png",
    "dates": lambda i, path: (f"OD-2019-03-{i % 28 + 1:02d}-{i}.png", f"{path.parent.name}_201903{i % 28 + 1:02d}_{i}.png")[
        i % 2
    ],
    "some": lambda i, path: f"scan{i}.png" if i % 4 == 0 else path.name,
    "all": lambda _, path: path.name.replace("-", "_"),
}


def write_tree(root: Path, kind: str, patients: int = 12, images: int = 4) -> Path:
    """The patterns with other names."""
    write_patterns(root, patients=patients, images=images)
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        path.rename(path.with_name(NAMES[kind](i, path)))
    return root


def fields(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field whose name is about patients or leakage."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if ("patient" in key or key == "leakage") and not isinstance(inner, dict):
                yield f"{path}/{key}", inner
            yield from fields(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from fields(inner, path)


def check_unknown(value: Any) -> None:
    """No field about patients has a value, but the one that says so."""
    found = list(fields(value))
    for path, inner in found:
        name = path.rpartition("/")[2]
        if name == "patient_ids":
            assert inner == "unknown", path
        elif name == "leakage":
            assert UNKNOWN in inner, path
        elif name != "images_without_patient":
            assert inner is None, path
    assert any(path.endswith("patient_ids") for path, _ in found)


@pytest.mark.parametrize("kind", ["nobody", "dates"])
def test_check_split_stats_and_the_plan_of_a_training_claim_nothing(tmp_path: Path, said: Said, kind: str) -> None:
    root = str(write_tree(tmp_path / "set", kind, 6, 2))
    for words in (
        ("data", "check", root), ("data", "split", root), ("data", "stats", root), ("data", "split", root, "--folds", "3"),
        ("train", "student", "--dataset", "folder", "--data", root, "--recipe", "smoke", "--teacher", "none", *DRY),
    ):  # fmt: skip
        code, out, err = said(*words)
        assert code == 0, err
        assert CLAIMS.search(out + err) is None, words
        assert f"warning[OCT-W212]: {UNKNOWN}; intervals are not clustered" in err
        if words[0] == "data":
            document = json.loads(said(*words, "--json")[1])
            assert "OCT-W212" in {one["code"] for one in document["warnings"]}
            check_unknown({**document["data"], "warnings": None})


def test_where_some_or_all_are_known_it_is_said(tmp_path: Path, said: Said) -> None:
    """The same words as before for a tree that names everybody; how many name nobody, for the other."""
    data = {}
    for kind in ("some", "all"):
        root = str(write_tree(tmp_path / kind, kind, 6, 2))
        code, out, err = said("data", "split", root)
        assert code == 0, err
        assert ("leakage: none" in out) == (kind == "all")
        assert ("12 images have no patient id (of 48): leakage cannot be excluded" in err) == (kind == "some")
        _, _, err = said(
            "train", "student", "--dataset", "folder", "--data", root, "--recipe", "smoke", "--teacher", "none", "--dry-run"
        )
        assert ("patient-level" in err and "leakage: none" in err) == (kind == "all")
        data[kind] = json.loads(said("data", "check", root, "--json")[1])["data"]
    assert [data[kind]["patient_ids"] for kind in ("some", "all")] == ["partial", "known"]
    assert [data[kind]["images_without_patient"] for kind in ("some", "all")] == [12, 0]
    assert data["all"]["leakage"] == "none"
    assert set(data["all"]["patients"]["all"].values()) == {6}


@pytest.fixture(scope="module", params=["nobody", "some", "all"])
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, str]]:
    """(kind, folder, what each command said) of a small run that was exported, verified, evaluated, compared and reported."""
    place = tmp_path_factory.mktemp("job")
    run = make_run(place / "runs", write_tree(place / "set", request.param))
    texts: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for words in (
            ("export", run.id, "--target", "onnx", "--fp32"), ("export", run.id, "--target", "onnx", "--int8"),
            ("verify", run.id, *DECIDABLE), ("eval", run.id, "--split", "select"), ("eval", run.id, "--split", "test"),
            ("compare", run.id, str(run.artifacts / "onnx-int8")),
            ("report", run.id, "--checklist", "claim", "--out", "report"),
        ):  # fmt: skip
            stream = io.StringIO()
            with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                code = main(words)
            texts[words[0]] = texts.get(words[0], "") + stream.getvalue()
            assert code == 0 or words[0] == "verify", (words, texts[words[0]])
    return request.param, place, texts


def files(place: Path) -> Iterator[Path]:
    for path in sorted(place.rglob("*")):
        if path.suffix in (".json", ".md", ".html", ".txt") and "set" not in path.relative_to(place).parts[:1]:
            yield path


@pytest.mark.slow
def test_a_whole_job_says_of_patients_what_is_known(job: tuple[str, Path, dict[str, str]]) -> None:
    kind, place, texts = job
    (run,) = scan_runs(place / "runs")
    everything = "\n".join(texts.values())
    documents = {path: json.loads(path.read_text()) for path in files(place) if path.suffix == ".json"}
    verdict = json.loads((run.artifacts / "onnx-int8" / "verify.json").read_text())["test"]
    lineage = json.loads((run.artifacts / "onnx-int8" / "artifact.json").read_text())["lineage"]
    state = {"nobody": "unknown", "some": "partial", "all": "known"}[kind]
    assert verdict["set"]["patient_ids"] == lineage["patient_ids"] == read_split(run.split).patient_ids.state == state
    pages = "\n".join(path.read_text() for path in files(place / "report") if path.suffix != ".json")
    if kind == "nobody":
        for path in files(place):
            assert CLAIMS.search(path.read_text()) is None, path
        assert CLAIMS.search(everything) is None
        for name in ("verify", "eval", "compare"):
            assert UNKNOWN in texts[name]
        check_unknown({str(path.relative_to(place)): value for path, value in documents.items() if path.name != "split.json"})
        assert UNKNOWN in pages
        assert "not clustered" in pages
        assert verdict["accuracy"]["decided_by"] == "tango"
    elif kind == "some":
        assert "leakage: none" not in everything + pages
        assert "patient-level" not in pages
        assert "leakage cannot be excluded" in texts["verify"]
        named = {s.patient for s in read_split(run.split).parts["test"] if s.patient is not None}
        assert verdict["set"]["patients"] == len(named)
        assert verdict["set"]["images_without_patient"] > 0
        assert "leakage cannot be excluded" in pages
    else:
        assert "leakage: none" in texts["verify"]
        assert verdict["set"]["leakage"] == "none"
        assert verdict["set"]["patients"] == 8
        assert "patient-level split" in pages
        assert "no patient and no image is in two parts" in pages
        assert UNKNOWN not in everything + pages


@pytest.mark.slow
def test_a_real_training_stores_what_is_known(tmp_path: Path, said: Said) -> None:
    root = str(write_tree(tmp_path / "set", "dates", 6, 2))
    words = ("--dataset", "folder", "--data", root, "--recipe", "smoke", "--epochs", "1", *STATED)
    code, out, err = said("train", "student", *words, "--with-teacher", "--any-teacher")
    assert code == 0, err
    assert CLAIMS.search(out + err) is None
    for run in scan_runs(tmp_path / "runs"):
        assert run.read()["patient_ids"] == "unknown"
        check_unknown(json.loads((run.path / "eval" / "val-none" / "figures.json").read_text()))
    code, out, err = said("train", "teacher", *words, "--folds", "2")
    assert code == 0, err
    assert CLAIMS.search(out + err) is None
    (summary,) = (tmp_path / "runs").glob("cv-*/summary.json")
    value = json.loads(summary.read_text())
    check_unknown(value)
    assert value["out_of_fold"]["drawn"] == "images"
    assert value["out_of_fold"]["bootstrap_95"]["accuracy"] is not None


@pytest.mark.slow
def test_an_artifact_and_a_verdict_of_before_claim_nothing(
    job: tuple[str, Path, dict[str, str]], tmp_path: Path, said: Said
) -> None:
    """Without the fields, the split is read again."""
    kind, place, _ = job
    copy = Path(shutil.copytree(place / "runs", tmp_path / "runs"))
    (run,) = scan_runs(copy)
    value = json.loads(run.split.read_text())
    del value["patient_ids"], value["images_without_patient"]
    run.split.write_text(json.dumps(value))
    assert read_split(run.split).patient_ids == read_split(Run(place / "runs" / run.id).split).patient_ids
    code, out, err = said("verify", run.id, "--data", str(place / "set"), *DECIDABLE)
    assert ("leakage: none" in out + err) == (kind == "all"), code
