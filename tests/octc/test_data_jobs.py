"""The Python functions of `octc data ...` and `octc choose` give what the commands print, and are what the commands call."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import octc as library
from octc.core.progress import LogReporter
from octc.datasets.download.fetch import FetchOptions
from octc.datasets.download.job import fetch_data
from octc.datasets.jobs import data_stats, find_data, open_data, preview_patients, write_splits
from octc.datasets.split import read_split

HERE = ("octc",)
BY_NAME = library.DataOptions(patient_pattern="p[0-9]+")
WORDS = ("--patient-pattern", "p[0-9]+")


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """48 images of 12 patients in two classes."""
    rng = np.random.default_rng(0)
    for i in range(48):
        folder = tmp_path / "set" / ("bright", "dark")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 48), dtype=np.uint8)).save(folder / f"p{i // 4}-{i}.png")
    return tmp_path / "set"


def printed(octc_command: Any, *words: str | Path) -> dict[str, Any]:
    done = octc_command(*words, "--json")
    value: dict[str, Any] = json.loads(done.stdout)["data"]
    return value


def test_a_check_is_the_document_of_the_command(drawn: Path, octc: Any, tmp_path: Path) -> None:
    report = library.check_data(drawn, options=BY_NAME, run_dir=tmp_path / "runs")
    assert report.findings == ()
    assert report.patients["all"] == {"bright": 12, "dark": 12}
    assert printed(octc, "data", "check", drawn, *WORDS) == json.loads(json.dumps(report.to_json()))


def test_a_finding_is_returned_with_what_it_is_about(drawn: Path) -> None:
    same = drawn / "dark" / "p0-copy.png"
    same.write_bytes((drawn / "bright" / "p0-0.png").read_bytes())
    found = library.check_data(drawn, options=BY_NAME).findings
    assert any({"bright/p0-0.png", "dark/p0-copy.png"} <= set(" ".join(one.items).split()) for one in found)
    with pytest.raises(library.OctcError) as refused:
        library.split_data(drawn, options=BY_NAME)
    assert refused.value.code == "OCT-E213"


def test_splits_are_those_of_the_command_and_are_written_once(drawn: Path, octc: Any, tmp_path: Path) -> None:
    (one,) = library.split_data(drawn, library.SplitOptions(seed=3), options=BY_NAME)
    assert sum(count or 0 for count in one.people().values()) == 12
    assert printed(octc, "data", "split", drawn, "--seed", "3", *WORDS)["digest"] == one.digest
    folds = library.split_data(drawn, library.SplitOptions(folds=4), options=BY_NAME)
    said = printed(octc, "data", "split", drawn, "--folds", "4", *WORDS)
    assert [fold["digest"] for fold in said["splits"]] == [fold.digest for fold in folds]
    paths = write_splits(folds, tmp_path / "out")
    assert [read_split(path).digest for path in paths] == [fold.digest for fold in folds]
    with pytest.raises(library.OctcError) as refused:
        write_splits(folds, tmp_path / "out")
    assert refused.value.code == "OCT-E106"


def test_statistics_are_those_of_the_command(drawn: Path, octc: Any) -> None:
    opened = open_data(drawn, options=BY_NAME)
    found = data_stats(opened, 1)
    said = printed(octc, "data", "stats", drawn, "--seed", "1", *WORDS)
    assert said["mean"] == list(found.mean)
    assert said["split_digest"] == found.split_digest


def test_a_rule_is_previewed_stored_and_then_used(drawn: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    bare = preview_patients(drawn, run_dir=runs)
    assert (bare.rule, bare.stored) == (None, False)
    shown = preview_patients(drawn, options=BY_NAME, run_dir=runs)
    assert (shown.patients, shown.unknown, shown.stored) == (12, 0, False)
    assert preview_patients(drawn, run_dir=runs).rule is None, "a preview stores nothing"
    preview_patients(drawn, options=BY_NAME, run_dir=runs, save=True)
    again = preview_patients(drawn, run_dir=runs)
    assert (again.patients, again.stored) == (12, True)
    assert library.split_data(drawn, run_dir=runs)[0].digest == library.split_data(drawn, options=BY_NAME)[0].digest
    with pytest.raises(library.OctcError) as refused:
        preview_patients(drawn, run_dir=runs, save=True)
    assert refused.value.code == "OCT-E102"


@pytest.mark.parametrize(
    ("what", "data", "name"), [("set", None, "folder"), ("folder", "set", "folder"), ("table.csv", None, "csv")]
)
def test_a_data_set_is_found_by_folder_name_or_table(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, data: str | None, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("path,label\nset/bright/p0-0.png,bright\n")
    found, root, _ = find_data(what, data, library.DataOptions(), {})
    assert (found, root) == (name, Path(data or what))


@dataclass
class Heard(LogReporter):
    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)


def test_messages_and_warnings_go_to_the_reporter(drawn: Path) -> None:
    heard = Heard()
    (drawn / "bright" / "notes.txt").write_text("no image")
    library.split_data(drawn, options=library.DataOptions(patients="unknown"), reporter=heard)
    assert any(str(drawn) in line for line in heard.said)
    assert library.split_data(drawn, options=library.DataOptions(patients="unknown"))[0].leakage != "none"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (FetchOptions(sha256="0" * 64), "OCT-E102"),
        (FetchOptions(place="a.zip", sha256="no digest"), "OCT-E104"),
        (FetchOptions(size=64), "OCT-E102"),
    ],
)
def test_options_of_a_download_are_checked_for_python_too(options: FetchOptions, code: str, tmp_path: Path) -> None:
    with pytest.raises(library.OctcError) as refused:
        fetch_data("ucsd", root=tmp_path / "new", options=options)
    assert refused.value.code == code
    with pytest.raises(library.OctcError) as refused:
        fetch_data("octmnist", root=tmp_path / "new", options=FetchOptions(size=65))
    assert refused.value.code == "OCT-E104"
    assert not (tmp_path / "new").exists()


def test_a_local_archive_is_fetched_by_python(tmp_path: Path, drawn: Path) -> None:
    import zipfile

    archive = tmp_path / "ucsd.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for part in ("train", "test"):
            for kind in ("CNV", "DME", "DRUSEN", "NORMAL"):
                for i, path in enumerate(sorted(drawn.rglob("*.png"))[:2]):
                    packed.writestr(f"CellData/OCT/{part}/{kind}/{kind}-{i}{part}-1.jpeg", path.read_bytes())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    done = fetch_data("ucsd", root=tmp_path / "new", options=FetchOptions(place=str(archive), sha256=digest))
    assert done.written == 16
    assert (tmp_path / "new" / "CellData").is_dir()
