"""`octc predict` and `octc.load(...).predict` of volumes and of mixed folders: an answer for each B-scan and for each eye."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import octc
from octc.cli._app.main import main
from octc.datasets.synthetic import volumes as synthetic
from octc.datasets.synthetic.volumes import DrawnEye
from octc.store.runs import Run
from octc.volumes import read_volume
from octc.volumes.writing import write_pictures
from tests.tiny_artifacts import shared_run

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared_run(tmp_path_factory)


@pytest.fixture(scope="module")
def eye(run: Run) -> DrawnEye:
    """A left eye whose B-scans are pictures that the tiny network knows: four of one class, one of another."""
    patterns = run.path.parent.parent / "patterns"
    files = sorted((patterns / "test").rglob("*.png")) or sorted(patterns.rglob("*.png"))
    by_class = {name: [file for file in files if file.parent.name == name] for name in ("lying", "upright")}
    chosen = [*by_class["lying"][:4], by_class["upright"][0]]
    frames = [np.asarray(Image.open(file).convert("L").resize((64, 64))) for file in chosen]
    return DrawnEye(np.stack(frames), "L", "SYN-1", datetime(2026, 1, 2, 3, 4), "lying")


@pytest.fixture
def said(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")  # a table is as wide as its paths
    (tmp_path / "runs").symlink_to(run.path.parent)

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main(["predict", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def records(said: Said, *words: str | Path, code: int = 0) -> list[dict[str, Any]]:
    found, out, err = said(*words, "--json")
    assert found == code, err
    return list(json.loads(out)["data"]["records"])


@pytest.mark.parametrize("name", ["dicom", "vol", "fda", "e2e"])
def test_every_b_scan_has_a_record_and_the_eye_has_one(name: str, said: Said, eye: DrawnEye, tmp_path: Path) -> None:
    ending, write = synthetic.WRITERS[name]
    write(eye, tmp_path / f"scan{ending}")
    found = records(said, tmp_path / f"scan{ending}")
    assert [one.get("frame") for one in found] == [0, 1, 2, 3, 4, None]
    last = found[-1]
    assert last["eye"] == {
        "laterality": "L", "frames": 5, "usable": last["eye"]["usable"], "patient": None, "no_answer": last["eye"]["no_answer"],
        "aggregation": {"method": "mean", "top": 3, "chosen_on": ""},
    }  # fmt: skip
    probabilities = np.array([list(one["probabilities"].values()) for one in found[:-1] if one["status"] == "ok"])
    if len(probabilities) == 5:
        expected = np.exp(np.log(probabilities).mean(axis=0))
        assert np.allclose(list(last["probabilities"].values()), expected / expected.sum(), atol=1e-9)


def test_b_scans_are_answered_as_pictures_of_them_are(said: Said, eye: DrawnEye, tmp_path: Path) -> None:
    synthetic.write_dicom(eye, tmp_path / "scan.dcm")
    for index, frame in enumerate(eye.frames):
        Image.fromarray(frame).save(tmp_path / f"{index}.png")
    of_volume = records(said, tmp_path / "scan.dcm")[:-1]
    of_pictures = records(said, *(tmp_path / f"{index}.png" for index in range(5)))
    assert [one["probabilities"] for one in of_volume] == [one["probabilities"] for one in of_pictures]


def test_a_mixed_tree_is_done_whatever_is_in_it(said: Said, eye: DrawnEye, tmp_path: Path) -> None:
    """Pictures, volumes, a scrambled file, a text: exit code 3 with all others done, and a line for what was not taken."""
    from octc.volumes.writing import Scan, opt_object, save

    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    Image.fromarray(eye.frames[0]).save(tree / "a.jpeg", quality=95)
    synthetic.write_dicom(eye, tree / "b.dcm")
    (tree / "deep" / "c.vol").write_bytes(synthetic.vol_bytes(eye))
    (tree / "deep" / "d.fda").write_bytes(synthetic.fda_bytes(eye))
    scrambled = opt_object(Scan(frames=[eye.frames[0]], laterality="R", seed="x", written="2026-01-01T00:00:00"))
    scrambled.add_new(0x04071005, "OB", b"12")
    save(scrambled, tree / "e.EX.DCM")
    (tree / "notes.txt").write_text("a text")
    write_pictures(read_volume(tree / "b.dcm"), tree / "pictures")
    code, out, err = said(tree, "--json")
    assert code == 3, err
    data = json.loads(out)["data"]
    assert sum(one.get("eye") is not None for one in data["records"]) == 4
    assert sum(one.get("frame") is not None for one in data["records"]) == 20
    assert [Path(one["file"]).name for one in data["records"] if "frame" not in one and "eye" not in one] == [
        "a.jpeg",
        "e.EX.DCM",
    ]
    failed = [one for one in data["records"] if one["status"] == "error"]
    assert [one["error"]["code"] for one in failed] == ["OCT-E223"]
    assert [Path(one["path"]).name for one in data["left_out"]] == ["notes.txt"]
    assert data["inputs"] == 22
    assert data["complete"] is True


def test_a_disc_of_a_clinic_is_answered_and_what_can_hold_no_scans_is_left_out(
    said: Said, eye: DrawnEye, tmp_path: Path
) -> None:
    """An index, a report, a photograph, a document lie beside the scans of every study; named alone, each is an error."""
    from pydicom.dataset import Dataset, FileMetaDataset

    disc = tmp_path / "disc"
    disc.mkdir()
    synthetic.write_dicom(eye, disc / "IM000001")
    kinds = {
        "DICOMDIR": "3.10",
        "SR000001": "5.1.4.1.1.88.33",
        "OP000001": "5.1.4.1.1.77.1.5.1",
        "PDF00001.dcm": "5.1.4.1.1.104.1",
    }
    for name, kind in kinds.items():
        other = Dataset()
        other.file_meta = FileMetaDataset()
        other.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = (
            f"1.2.840.10008.{'1.' if name == 'DICOMDIR' else ''}{kind}"
        )
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        other.save_as(disc / name, enforce_file_format=True)
    code, out, err = said(disc, "--json")
    assert code == 0, err
    data = json.loads(out)["data"]
    assert {Path(one["file"]).name for one in data["records"]} == {"IM000001"}
    left = {Path(one["path"]).name: one["why"] for one in data["left_out"]}
    assert set(left) == set(kinds)
    assert all(why.startswith("DICOM, ") for why in left.values())
    for name in kinds:
        assert [one["error"]["code"] for one in records(said, disc / name, code=3)] == ["OCT-E227"], name


def test_a_file_without_a_header_is_refused_with_what_helps(
    said: Said, eye: DrawnEye, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """octc predict cannot be told the dimensions; octc data convert can."""
    (tmp_path / "cube.img").write_bytes(synthetic.img_bytes(eye))
    (error,) = (one["error"] for one in records(said, tmp_path / "cube.img", code=3))
    assert error["code"] == "OCT-E225"
    words = error["help"].split(" makes ")[0]
    shape = "x".join(map(str, eye.frames.shape))
    words = words.replace("FRAMESxROWSxCOLUMNS", shape).replace("FILE.dcm", str(tmp_path / "cube.dcm"))
    assert main(words.split()[1:]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "cube.dcm")
    assert len(records(said, tmp_path / "cube.dcm")) == len(eye.frames) + 1


def test_a_file_that_is_called_a_volume_and_is_none_is_a_record_of_its_own(said: Said, eye: DrawnEye, tmp_path: Path) -> None:
    """Not a name among those that were left out: one scan of a clinic's folder is lost, and the exit code says so."""
    tree = tmp_path / "tree"
    tree.mkdir()
    synthetic.write_dicom(eye, tree / "a.dcm")
    whole = (tree / "a.dcm").read_bytes()
    for name, data in {"b.DCM": whole[132:], "c.vol": b"", "d.fda": b"no volume", "e.dcm": whole[:100]}.items():
        (tree / name).write_bytes(data)
    (tree / "notes.txt").write_text("a text")
    code, out, err = said(tree, "--json")
    assert code == 3, err
    data = json.loads(out)["data"]
    failed = {Path(one["file"]).name: one["error"] for one in data["records"] if one["status"] == "error"}
    assert sorted(failed) == ["b.DCM", "c.vol", "d.fda", "e.dcm"]
    assert "without its header" in failed["b.DCM"]["message"]
    assert [Path(one["path"]).name for one in data["left_out"]] == ["notes.txt"]
    Image.fromarray(eye.frames[0]).save(tmp_path / "f.dcm", "PNG")  # named so, and a picture: as before
    (tmp_path / "f.dcm").rename(tmp_path / "f.png.dcm")
    assert [one["status"] for one in records(said, tmp_path / "f.png.dcm")] == ["ok"]


def test_a_volume_that_is_cut_short_gives_no_answer_for_the_eye(said: Said, eye: DrawnEye, tmp_path: Path) -> None:
    data = synthetic.vol_bytes(eye)
    (tmp_path / "cut.vol").write_bytes(data[: len(data) - 100])
    assert [one["error"]["code"] for one in records(said, tmp_path / "cut.vol", code=3)] == ["OCT-E226"]
    found = records(said, tmp_path / "cut.vol", "--allow-cut")
    assert len(found) == 5
    assert (found[-1]["status"], found[-1]["label"]) == ("no_answer", None)
    assert "the volume is incomplete" in found[-1]["eye"]["no_answer"]


def test_the_eye_is_a_row_of_csv_and_a_line_of_json(said: Said, eye: DrawnEye, tmp_path: Path) -> None:
    synthetic.write_dicom(eye, tmp_path / "scan.dcm")
    code, out, _ = said(tmp_path / "scan.dcm", "--format", "csv", "--aggregation", "largest")
    rows = list(csv.reader(io.StringIO(out)))
    assert code == 0
    assert len(rows) == 7
    assert rows[-1][0].endswith("(eye L)")
    code, out, _ = said(tmp_path / "scan.dcm", "--format", "jsonl", "--aggregation", "top")
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[-1]["eye"]["aggregation"] == {"method": "top", "top": 3, "chosen_on": "the user"}
    code, out, _ = said(tmp_path / "scan.dcm")
    assert code == 0
    assert "scan.dcm[4]" in out
    assert said(tmp_path / "scan.dcm", "--aggregation", "median")[0] == 2


def test_the_library_takes_volumes_and_files_of_them(run: Run, eye: DrawnEye, tmp_path: Path) -> None:
    nameless = replace(eye, eye="?")
    (tmp_path / "scan.e2e").write_bytes(synthetic.e2e_bytes([nameless]))
    with octc.load(run.path / "artifacts" / "onnx-fp32") as model:
        found = model.predict([read_volume(tmp_path / "scan.e2e"), tmp_path / "scan.e2e"])
        assert [one.frame for one in found] == [0, 1, 2, 3, 4, None] * 2
        assert found[5].eye is not None
        assert found[5].eye.laterality is None
        assert found[:6] == [replace(one, file=found[0].file) for one in found[6:]]


def test_maps_are_made_of_b_scans(said: Said, eye: DrawnEye, tmp_path: Path) -> None:
    synthetic.write_dicom(replace(eye, frames=eye.frames[:2]), tmp_path / "scan.dcm")
    code, _, err = said(tmp_path / "scan.dcm", "--maps", tmp_path / "maps")
    assert code == 0, err
    assert len(list((tmp_path / "maps").glob("*.png"))) == 2


@pytest.mark.parametrize("kind", ["volume", "picture", "text", "cut"])
def test_what_is_piped_in_is_answered_as_the_file_is(
    said: Said, eye: DrawnEye, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "input"
    if kind in ("volume", "cut"):
        data = synthetic.vol_bytes(eye)
        path.write_bytes(data if kind == "volume" else data[:-9])
    elif kind == "picture":
        Image.fromarray(eye.frames[0]).save(path, "PNG")
    else:
        path.write_text("a text")
    code = 0 if kind in ("volume", "picture") else 3
    expected = records(said, path, code=code)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    found = records(said, "-", code=code)
    assert [one["file"] for one in found] == ["-"] * len(expected)

    def rest(one: dict[str, Any]) -> str:
        return json.dumps({key: value for key, value in one.items() if key != "file"}).replace('"input ', '"- ')

    assert [rest(one) for one in found] == [rest(one) for one in expected]


def test_nothing_piped_in_or_asked_for_twice_is_an_error(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert said("-", "-")[0] == 2
    found, out, _ = said("-", "--json")
    assert found == 2
    assert json.loads(out)["error"]["code"] == "OCT-E104"
