"""What every command that walks through folders says of parts, of files that it does not read, of folders that are closed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from octc.datasets.layouts.neh import IMAGES
from octc.store.runs import Run
from tests.class_tree import must_obey, obey_permissions, of_parts, write_abyss, write_tree
from tests.octc.neh_tree import write_neh
from tests.paired_set import write_pairs
from tests.tiny_artifacts import shared_run

Octc = Callable[..., "subprocess.CompletedProcess[str]"]
Said = Callable[..., "tuple[int, str, str]"]
Closed = Callable[[Path, int], Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture
def closed() -> Iterator[Closed]:
    """Take permissions from a folder (0: all of them) and give them back at the end."""
    taken: list[Path] = []
    must_obey()

    def close(folder: Path, mode: int = 0) -> Path:
        taken.append(folder)
        folder.chmod(mode)
        return folder

    yield close
    for folder in reversed(taken):
        folder.chmod(0o700)


def folder_set(root: Path) -> Path:
    return write_tree(root, [*of_parts(["Train", "Test"], images=6), "Train/CNV/more/CNV-77-1.png"])


def csv_set(root: Path) -> Path:
    write_tree(root, [f"scans/{n}/{n}.png" for n in range(6)])
    lines = [f"scans/{n}/{n}.png,{('dry', 'wet')[n % 2]},P{n}" for n in range(6)]
    (root / "labels.csv").write_text("\n".join(["path,label,patient", *lines, ""]))
    return root


def neh_set(root: Path) -> Path:
    write_neh(root)
    return root


# kind of data set -> how it is written, and the folder in it that will be closed
SETS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "folder": (folder_set, "Train/CNV/more"),
    "a whole class": (folder_set, "Train/CNV"),
    "a whole part": (folder_set, "Test"),
    "the root": (folder_set, "."),
    "csv": (csv_set, "scans/3"),
    "neh": (neh_set, f"{IMAGES}/CNV"),
    "paired": (write_pairs, "train/Images"),
}


@pytest.mark.parametrize("kind", sorted(SETS))
def test_a_folder_that_cannot_be_entered_ends_data_check(kind: str, tmp_path: Path, octc: Octc, closed: Closed) -> None:
    write, name = SETS[kind]
    root = write(tmp_path / "set")
    place = closed(root / name)
    done = octc("data", "check", root, "--json", preexec_fn=obey_permissions)
    assert done.returncode == 3, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "OCT-E231"
    assert error["path"] == str(place)
    assert "nothing found" not in done.stderr
    assert "no image" not in done.stderr


def test_every_closed_folder_is_named(tmp_path: Path, octc: Octc, closed: Closed) -> None:
    root = folder_set(tmp_path / "set")
    places = [closed(root / "Test"), closed(root / "Train/CNV/more")]
    done = octc("data", "check", root, "--json", preexec_fn=obey_permissions)
    assert done.returncode == 3
    assert {one["path"] for one in json.loads(done.stdout)["error"]["all"]} == set(map(str, places))


def test_a_folder_whose_files_cannot_be_read_names_them(tmp_path: Path, octc: Octc, closed: Closed) -> None:
    root = folder_set(tmp_path / "set")
    closed(root / "Train/CNV/more", 0o400)  # its names can be read, what it holds cannot
    done = octc("data", "check", root, "--json", preexec_fn=obey_permissions)
    assert done.returncode == 3
    (found,) = (f for f in json.loads(done.stdout)["data"]["findings"] if f["code"] == "OCT-E201")
    assert len(found["items"]) == 1
    assert "Train/CNV/more/CNV-77-1.png" in found["items"][0]


@pytest.mark.parametrize("words", [
    ("data", "check", "SET"), ("data", "split", "SET"), ("data", "stats", "SET"),
    ("train", "student", "--dataset", "folder", "--data", "SET", "--recipe", "smoke"),
    ("train", "teacher", "--dataset", "folder", "--data", "SET", "--recipe", "smoke", "--skip-bad"),
    ("train", "student", "--dataset", "folder", "--data", "SET", "--recipe", "smoke", "--folds", "2", "--dry-run"),
])  # fmt: skip
def test_a_folder_that_no_path_reaches_ends_every_command(words: tuple[str, ...], tmp_path: Path, said: Said) -> None:
    """As a sub-folder with an error of the disk: it cannot be listed, not even by root."""
    root = folder_set(tmp_path / "set")
    last = write_abyss(root / "Train/DME")
    code, out, err = said(*(str(root) if word == "SET" else word for word in words), "--json")
    assert code == 3, err
    error = json.loads(out)["error"]
    assert (error["code"], error["path"]) == ("OCT-E231", str(last))
    assert not list((tmp_path / "runs").glob("r-*"))


def test_retnet_too(tmp_path: Path, said: Said) -> None:
    root = write_pairs(tmp_path / "set", patients=8)
    write_abyss(root / "train/Images")
    words = ["train", "retnet-teacher", "--dataset", "paired-phantom", "--data", str(root), "--modality", "fundus", "--dry-run"]
    code, out, _ = said(*words, "--recipe", "retnet-edge", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (3, "OCT-E231")


@pytest.mark.parametrize("how", ["permission", "path"])
def test_predict_classifies_the_rest_and_ends_with_3(
    how: str, run: Run, tmp_path: Path, octc: Octc, request: pytest.FixtureRequest
) -> None:
    patterns = run.path.parent.parent / "patterns"
    (tmp_path / "in/more").mkdir(parents=True)
    for number, path in enumerate(sorted(patterns.rglob("*.png"))[:4]):
        (tmp_path / "in" / ("more" if number == 3 else "") / path.name).write_bytes(path.read_bytes())
    place = tmp_path / "in/more"
    if how == "permission":
        request.getfixturevalue("closed")(place)
    else:
        place = write_abyss(place)
    words = ["predict", run.artifacts / "onnx-fp32", tmp_path / "in"]
    done = octc(*words, "--json", preexec_fn=obey_permissions)
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    records = {record["file"]: record for record in document["data"]["records"]}
    assert records.pop(str(place))["status"] == "error"
    assert [record["status"] for record in records.values()] == ["ok"] * (3 if how == "permission" else 4)
    assert (str(place) in document["error"]["message"], document["error"]["code"]) == (True, "OCT-E801")
    stopped = octc(*words, "--on-bad", "stop", preexec_fn=obey_permissions)
    assert stopped.returncode == 3
    assert str(place) in stopped.stderr


def test_predict_of_a_closed_folder_or_a_file_in_one(run: Run, tmp_path: Path, octc: Octc, closed: Closed) -> None:
    write_tree(tmp_path, ["in/a.png"])
    closed(tmp_path / "in")
    for word, code in (("in", "OCT-E231"), ("in/a.png", "OCT-E201"), ("in/sub/", "OCT-E201")):
        done = octc("predict", run.artifacts / "onnx-fp32", word, "--json", preexec_fn=obey_permissions)
        assert done.returncode == 3, done.stderr
        assert json.loads(done.stdout)["data"]["records"][0]["error"]["code"] == code


def test_predict_says_what_it_left_out(run: Run, tmp_path: Path, said: Said) -> None:
    picture = min((run.path.parent.parent / "patterns").rglob("*.png")).read_bytes()
    write_tree(tmp_path, ["in/b.gif", "in/c.gif", "in/__MACOSX/._a.png", "in/__MACOSX/a.png", "in/x/Thumbs.db", "in/note"])
    (tmp_path / "in/a.png").write_bytes(picture)
    code, out, err = said("predict", str(run.artifacts / "onnx-fp32"), "in", "--json")
    assert code == 0, err
    data = json.loads(out)["data"]
    assert [record["file"] for record in data["records"]] == ["in/a.png"]
    assert {one["path"]: one["why"] for one in data["left_out"]} == {
        "in/__MACOSX/": "debris", "in/b.gif": ".gif", "in/c.gif": ".gif", "in/note": "no ending",
        "in/x/Thumbs.db": "debris",
    }  # fmt: skip
    assert "2 .gif" in err


def test_bench_refuses_a_folder_of_images_that_it_cannot_walk(run: Run, tmp_path: Path, said: Said) -> None:
    patterns = run.path.parent.parent / "patterns"
    place = tmp_path / "in"
    place.mkdir()
    for number, path in enumerate(sorted(patterns.rglob("*.png"))[:70]):
        (place / f"{number}.png").write_bytes(path.read_bytes())
    last = write_abyss(place)
    code, out, _ = said("bench", str(run.artifacts / "onnx-fp32"), "--images", str(place), "--quick", "--json")
    error = json.loads(out)["error"]
    assert (code, error["code"], error["path"]) == (3, "OCT-E231", str(last))


LAYOUTS: dict[str, tuple[list[str], dict[str, int], dict[str, str]]] = {
    "train-val": (of_parts(["train", "val"]), {"train": 4}, {"train": "train", "val": "val"}),
    "Train-Test": (of_parts(["Train", "Test"]), {"train": 2, "test": 2}, {"Train": "train", "Test": "test"}),
    "long": (
        of_parts(["training", "validation", "testing"]), {"train": 4, "test": 2},
        {"training": "train", "validation": "val", "testing": "test"},
    ),
    "valid": (
        of_parts(["train", "valid", "test"]), {"train": 4, "test": 2}, {"train": "train", "valid": "val", "test": "test"},
    ),
    "upper": (of_parts(["TRAIN", "VAL", "TEST"]), {"train": 4, "test": 2}, {"TRAIN": "train", "VAL": "val", "TEST": "test"}),
    "sets": (of_parts(["Train_data", "test-set"]), {"train": 2, "test": 2}, {"Train_data": "train", "test-set": "test"}),
    "debris": ([*of_parts([""]), "__MACOSX/CNV/._a.png", "CNV/@eaDir/a.png", ".DS_Store", "DME/Thumbs.db"], {"all": 2}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_data_check_of_a_layout(name: str, tmp_path: Path, said: Said) -> None:
    paths, parts, folders = LAYOUTS[name]
    root = write_tree(tmp_path / "set", paths)
    code, out, err = said("data", "check", str(root), "--json", "--near-duplicates", "off")
    assert code == 0, err
    data = json.loads(out)["data"]
    assert data["counts"] == {part: dict.fromkeys(("CNV", "DME"), count) for part, count in parts.items()}
    assert data["parts"] == folders
    assert data["read"] == sum(2 * count for count in parts.values())
    assert data["left_out_counts"] == ({"debris": 3, "hidden": 1} if name == "debris" else {})
    for folder in folders:
        assert any(line.startswith(f"{folder}: ") for line in data["lines"])
    (line,) = (line for line in data["lines"] if line.startswith("read: "))
    assert line.startswith(f"read: {data['read']} images; left out: {'3 debris' if name == 'debris' else 'nothing'}")
    code, out, _ = said("data", "check", str(root), "--near-duplicates", "off")
    assert (code, line in out) == (0, True)


def test_split_stats_and_train_name_what_is_left_out(tmp_path: Path, said: Said) -> None:
    root = write_tree(tmp_path / "set", [*of_parts(["Train", "valid", "Test"], images=8), "Train/CNV/a.gif", "Test/b"])
    words = ["--dataset", "folder", "--data", str(root), "--recipe", "smoke", "--dry-run"]
    for command in (
        ("data", "split", str(root)),
        ("data", "stats", str(root)),
        ("train", "teacher", *words),
    ):
        code, out, err = said(*command, "--json")
        assert code == 0, err
        document: dict[str, Any] = json.loads(out)
        scan = document["data"]["scan"]
        assert (scan["read"], scan["parts"]) == (48, {"Train": "train", "valid": "val", "Test": "test"})
        assert scan["left_out_counts"] == {".gif": 1, "no ending": 1}
        assert "OCT-W220" in {one["code"] for one in document["warnings"]}
        assert "1 .gif" in err
        assert "Train/CNV/a.gif" in err


JUDGE = """
import sys
from pathlib import Path
from octc.bench.parity.evaluation_set import LabelledSet, check_images
from octc.datasets.split import read_split
from octc.core.errors import OctcError
split = read_split(Path(sys.argv[1]))
try:
    check_images(LabelledSet("test", Path(sys.argv[2]), split.classes, split.parts["test"], "", ""), split, lambda count: None)
except OctcError as error:
    print(error.code, error.message)
"""


def test_verify_names_a_folder_that_it_cannot_list(tmp_path: Path, closed: Closed) -> None:
    """Its files can be read, but whether others were added to them cannot be seen."""
    from octc.datasets.registry import scan_dataset
    from octc.datasets.split import make_split

    root = write_tree(tmp_path / "set", of_parts(["train", "test"], images=6))
    make_split(scan_dataset("folder", root), "folder", 0).write(tmp_path / "split.json")
    words = [sys.executable, "-c", JUDGE, str(tmp_path / "split.json"), str(root)]
    assert subprocess.run(words, preexec_fn=obey_permissions, capture_output=True, text=True, check=True).stdout == ""
    closed(root / "test/CNV", 0o300)
    done = subprocess.run(words, preexec_fn=obey_permissions, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OCT-E216")
    assert "unreadable test/CNV/" in done.stdout
