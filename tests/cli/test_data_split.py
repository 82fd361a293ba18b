"""`octc data split`, `stats`, `audit`, and what the check says of NEH and of a table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.datasets.registry import scan_dataset
from octc.datasets.split import read_split
from octc.datasets.synthetic.bscans import write_phantoms
from tests.conftest import Octc
from tests.octc.neh_tree import write_neh, write_table

HERE = True  # commands in this process (tests/conftest.py)

IMAGES = "NEH_UT_2021RetinalOCTDataset"


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn") / "phantom"
    write_phantoms(root, 24, 12, 0, size=(64, 62))
    return root


def test_folds_are_shown_written_and_the_official_test_named(phantoms: Path, tmp_path: Path, octc: Octc) -> None:
    done = octc("split", phantoms, "--folds", "3", "--out", "folds")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert sum(row[1:2] == ["official"] for row in rows) == 3
    assert done.stdout.count("leakage: none") == 3
    files = sorted((tmp_path / "folds").iterdir())
    assert [path.name for path in files] == [f"fold-{i}-of-3.json" for i in (1, 2, 3)]
    splits = [read_split(path) for path in files]
    held = [s.path for split in splits for s in split.parts["test"]]
    assert sorted(held) == [s.path for s in scan_dataset("phantom", phantoms).items if s.part == "train"]
    again = octc("split", phantoms, "--folds", "3", "--out", "folds")
    assert again.returncode == 2
    assert "OCT-E106" in again.stderr


def test_the_split_of_a_run_is_the_same_as_before(phantoms: Path, octc: Octc) -> None:
    value = json.loads(octc("data", "split", phantoms, "--json").stdout)["data"]
    assert value["protocol"] == "clean"
    assert value["seed"] == 0
    assert value["leaks"] == []
    assert len(value["splits"]) == 1
    assert value["digest"] == value["splits"][0]["digest"]


@pytest.mark.parametrize(("protocol", "count"), [("as-released", 5), ("as-released-teacher", 1)])
def test_released_splits_are_labelled_leaky(phantoms: Path, octc: Octc, protocol: str, count: int) -> None:
    done = octc("data", "split", phantoms, "--protocol", protocol)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"LEAKY split ({protocol}): for comparison with published numbers only")
    assert "leakage: none" not in done.stdout
    assert done.stderr.count("warning[OCT-W219]") >= count
    assert "are in both train and val" in done.stderr


def test_protocols_and_folds_that_cannot_be(phantoms: Path, octc: Octc) -> None:
    for words, code, exit_code in (
        (["--protocol", "leaky"], "OCT-E104", 2),
        (["--folds", "40"], "OCT-E207", 3),
        (["--protocol", "as-released-teacher", "--folds", "5"], "OCT-E102", 2),
    ):
        done = octc("data", "split", phantoms, *words)
        assert done.returncode == exit_code
        assert f"error[{code}]" in done.stderr


def test_stats_are_of_the_training_part_only(tmp_path: Path, octc: Octc) -> None:
    """Train is grey 51 and 153, test is white: the mean knows nothing of test."""
    for part, greys in (("train", (51, 153)), ("test", (255, 255))):
        for kind in ("dry", "wet"):
            for patient in range(10):
                path = tmp_path / "set" / part / kind / f"{kind}-{len(part)}{len(kind) + ord(kind[0])}{patient}-1.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.full((40, 50), greys[0], np.uint8)
                pixels[:, :25] = greys[1]
                pixels[0, int(kind == "wet")] = patient if part == "train" else 0
                Image.fromarray(pixels).save(path)
    done = octc("data", "stats", tmp_path / "set", "--json")
    value = json.loads(done.stdout)["data"]
    assert value["images"]["test"] == {"dry": 10, "wet": 10}
    assert value["sizes"] == {"50x40": 40}
    assert value["mean"] == pytest.approx([0.4] * 3, abs=1e-3)
    assert value["std"] == pytest.approx([0.2] * 3, abs=1e-3)
    assert value["weights"] == {"dry": 1.0, "wet": 1.0}
    assert value["split_digest"] == json.loads(octc("data", "split", tmp_path / "set", "--json").stdout)["data"]["digest"]
    shown = octc("data", "stats", tmp_path / "set").stdout
    assert "mean  0.3997  0.3997  0.3997" in shown


def test_stats_refuse_an_image_that_cannot_be_read(phantoms: Path, tmp_path: Path, octc: Octc) -> None:
    root = Path(shutil.copytree(phantoms, tmp_path / "phantom"))
    next(root.rglob("*.jpeg")).write_bytes(b"")
    done = octc("data", "stats", root)
    assert done.returncode == 3
    assert "OCT-E201" in done.stderr


def test_audit_is_the_check(phantoms: Path, octc: Octc) -> None:
    done = octc("data", "audit", phantoms, "--near-duplicates", "off", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["data"]["counts"]["train"]["CNV"] == 18


def test_neh_is_found_checked_and_split_with_its_faults_said(tmp_path: Path, octc: Octc) -> None:
    root = tmp_path / "Dataset/NEH"
    lines = write_neh(root)
    shutil.copy(root / IMAGES / "CNV/3/OD/000_cnv.jpg", root / IMAGES / "DRUSEN/4/OD/000_drusen.jpg")
    shutil.copy(root / IMAGES / "CNV/2/OD/000_cnv.jpg", root / IMAGES / "CNV/5/OD/000_cnv.jpg")
    write_table(root, [*lines, (*lines[0][:2], "OS", *lines[0][3:])])
    done = octc("data", "check", "neh", "--near-duplicates", "off")
    assert done.returncode == 0, done.stderr
    for code in ("W214", "W215", "W216", "W217", "W218"):
        assert f"warning[OCT-{code}]" in done.stderr
    assert "CNV/3=DRUSEN/4" in done.stderr
    assert "line 56: Eye OS, path od" in done.stderr
    split = octc("split", "neh", "--json")
    value = json.loads(split.stdout)
    assert {w["code"] for w in value["warnings"]} == {"OCT-W214", "OCT-W216", "OCT-W217", "OCT-W218"}
    assert sum(value["data"]["counts"]["train"].values()) > 0
    every = octc("split", "neh-all", "--json")
    assert sum(sum(row.values()) for row in json.loads(every.stdout)["data"]["counts"].values()) == 51
    listed = octc("data", "list", "--json")
    assert json.loads(listed.stdout)["data"]["datasets"]["neh-all"]["root"]


def test_a_line_that_cannot_be_used_ends_with_3(tmp_path: Path, octc: Octc) -> None:
    lines = write_neh(tmp_path / "NEH", patients=2)
    write_table(tmp_path / "NEH", [*lines, (1, "CNV", "OD", 0, "unknown", "CNV/1/OD/000_cnv.jpg")])
    done = octc("data", "check", tmp_path / "NEH")
    assert done.returncode == 3
    assert "error[OCT-E209]" in done.stderr
    assert "line 20" in done.stderr


def test_the_way_to_a_data_set_that_is_not_here(octc: Octc) -> None:
    for name in ("ucsd", "neh", "octmnist"):
        done = octc("data", "check", name)
        assert done.returncode == 3
        assert f"octc data fetch {name}" in done.stderr


def test_real_folds_hold_every_training_image_once(ucsd: Path, octc: Octc) -> None:
    done = octc("split", "ucsd", "--data", ucsd, "--folds", "5", "--json")
    splits = json.loads(done.stdout)["data"]["splits"]
    assert sum(sum(one["counts"]["test"].values()) for one in splits) == 862
    assert {sum(one["counts"]["official"].values()) for one in splits} == {826}
    assert all(not one["leaks"] and not one["dropped"] for one in splits)
