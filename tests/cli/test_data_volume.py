"""`octc data volume`, `convert` and `synthetic-volumes` as their user meets them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.datasets.synthetic.volumes import WRITERS, draw_eye_volume, e2e_bytes, img_bytes
from octc.volumes import read_volume
from tests.cli.conftest import Said


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two eyes in one .e2e, one of them in a file without a header."""
    folder = tmp_path_factory.mktemp("clinic")
    left, right = (
        draw_eye_volume("CNV", 1, "L", frames=3, size=(64, 48)),
        draw_eye_volume("DME", 1, "R", frames=2, size=(64, 48)),
    )
    (folder / "both.e2e").write_bytes(e2e_bytes([left, right]))
    (folder / "cube.img").write_bytes(img_bytes(left))
    return folder


def test_drawn_volumes_are_read_and_match_their_table(said: Said, tmp_path: Path) -> None:
    root = tmp_path / "clinic"
    code, out, _ = said(
        "data", "synthetic-volumes", str(root), "--patients", "1", "--frames", "2", "--format", ",".join(WRITERS)
    )
    assert code == 0, out
    rows = list(csv.DictReader((root / "volumes.csv").read_text().splitlines()))
    assert len(rows) == 8
    assert {row["eye"] for row in rows} == {"R", "L"}
    for row in rows:
        volume = read_volume(root / row["path"])
        assert volume.laterality.value in (row["eye"], None)
        assert volume.frames == 2
    assert said("data", "synthetic-volumes", str(root))[0] == 2  # it exists


def test_a_file_with_two_eyes_is_shown_as_two(said: Said, clinic: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    code, out, _ = said("data", "volume", str(clinic / "both.e2e"), "--sheet", str(sheet), "--json")
    assert code == 0
    document = json.loads(out)["data"]
    assert [one["laterality"]["value"] for one in document["volumes"]] == ["L", "R"]
    assert all(one["experimental"] and one["patient"] is None for one in document["volumes"])
    assert [Path(path).name for path in document["sheets"]] == ["sheet-0.png", "sheet-1.png"]
    with Image.open(document["sheets"][0]) as picture:
        assert picture.mode == "L"
        assert np.asarray(picture).std() > 10
    code, out, _ = said("data", "volume", str(clinic / "both.e2e"), "--index", "1", "--json")
    assert [one["part"] for one in json.loads(out)["data"]["volumes"]] == [1]


def test_identity_is_shown_as_a_hash_under_the_sites_key_only(said: Said, clinic: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123")
    code, out, _ = said("data", "volume", str(clinic / "both.e2e"), "--identity-key", str(key), "--json")
    assert code == 0
    hashes = [one["patient"] for one in json.loads(out)["data"]["volumes"]]
    assert len(set(hashes)) == 1
    assert len(hashes[0]) == 32
    assert "SYN" not in out
    key.write_text("short")
    assert said("data", "volume", str(clinic / "both.e2e"), "--identity-key", str(key))[0] == 2


def test_a_file_without_a_header_asks_for_its_dimensions(said: Said, clinic: Path, tmp_path: Path) -> None:
    cube = str(clinic / "cube.img")
    code, _, err = said("data", "volume", cube)
    assert code == 2
    assert "OCT-E225" in err
    assert said("data", "volume", cube, "--shape", "3x48x64", "--eye", "L")[0] == 0
    out = tmp_path / "out.dcm"
    assert said("data", "convert", cube, "--shape", "3x48x64", "-o", str(out))[0] == 2  # OPT names an eye
    assert said("data", "convert", cube, "--shape", "3x48x64", "--eye", "L", "-o", str(out))[0] == 0
    assert read_volume(out).laterality.value == "L"
    assert said("data", "convert", cube, "--shape", "3x48x64", "--eye", "L", "-o", str(out))[0] == 2  # it exists
    assert said("data", "convert", str(out), "--to", "png", "-o", str(tmp_path / "pictures"))[0] == 0
    again, before = read_volume(tmp_path / "pictures" / "volume.json"), read_volume(out)
    assert all(np.array_equal(again.frame(k), before.frame(k)) for k in range(3))


@pytest.mark.parametrize("wrong", [("--eye", "X"), ("--shape", "48x64"), ("--index", "7"), ("--eye", "R", "--index", "0")])
def test_wrong_words_are_refused(wrong: tuple[str, ...], said: Said, clinic: Path) -> None:
    code, _, err = said("data", "volume", str(clinic / "both.e2e"), *wrong)
    assert code == 2
    assert "OCT-E" in err


def test_outputs_never_fall_on_inputs_or_on_what_is_there(said: Said, clinic: Path, tmp_path: Path) -> None:
    source = tmp_path / "scan.e2e"
    source.write_bytes((clinic / "both.e2e").read_bytes())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept.txt").write_text("kept")
    one = (str(source), "--index", "0")
    for words in (
        ("data", "volume", *one, "--sheet", str(source), "--force"),
        ("data", "volume", *one, "--sheet", str(tmp_path / "folder"), "--force"),
        ("data", "convert", *one, "-o", str(source), "--force"),
        ("data", "convert", *one, "-o", str(tmp_path / "folder"), "--force"),
        ("data", "convert", *one, "-o", str(tmp_path / "folder"), "--to", "png", "--force"),
        ("data", "convert", *one, "-o", ".", "--to", "png", "--force"),
        ("data", "synthetic-volumes", str(tmp_path / "folder"), "--force"),
        ("data", "synthetic-volumes", str(tmp_path / "new"), "--format", ""),
        ("data", "volume", str(source), "--shape", "1x2x3"),
    ):
        code, _, err = said(*words)
        assert code == 2, (words, err)
    assert source.read_bytes() == (clinic / "both.e2e").read_bytes()
    assert (tmp_path / "folder" / "kept.txt").read_text() == "kept"


def test_an_ending_that_says_another_format_is_refused(said: Said, clinic: Path, tmp_path: Path) -> None:
    source = str(clinic / "both.e2e")
    for words in (
        ("data", "volume", source, "--sheet", str(tmp_path / "sheet.jpg")),
        ("data", "volume", source, "--sheet", str(tmp_path / "sheet")),
        ("data", "convert", source, "--index", "0", "-o", str(tmp_path / "eye.png")),
        ("data", "convert", source, "--index", "0", "-o", str(tmp_path / "eye.vol")),
        ("data", "convert", source, "--index", "0", "--to", "png", "-o", str(tmp_path / "eye.dcm")),
    ):
        code, _, err = said(*words)
        assert code == 2, words
        assert "OCT-E104" in err
    assert list(tmp_path.iterdir()) == []
    assert said("data", "convert", source, "--index", "0", "-o", str(tmp_path / "eye"))[0] == 0


@pytest.mark.parametrize("name", ["both.e2e", "cube.img"])
def test_a_volume_can_be_piped_in(said: Said, clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def piped() -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((clinic / name).read_bytes())))

    piped()
    if name == "cube.img":  # nothing in it says what it is, and a pipe has no ending
        assert said("data", "volume", "-", "--shape", "3x48x64")[0] == 3
        return
    code, out, _ = said("data", "volume", "-", "--json")
    assert code == 0
    assert [one["file"] for one in json.loads(out)["data"]["volumes"]] == ["-", "-"]
    piped()
    assert said("data", "convert", "-", "--index", "0", "-o", str(tmp_path / "eye.dcm"))[0] == 0
    assert read_volume(tmp_path / "eye.dcm").frames == 3


@pytest.mark.parametrize("words", [("-o", "file/eye.dcm"), ("--to", "png", "-o", "file/eye")])
def test_a_place_behind_a_file_is_an_error_of_the_place(
    words: tuple[str, ...], said: Said, clinic: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    place = str(tmp_path / words[-1])
    code, _, err = said("data", "convert", str(clinic / "both.e2e"), "--index", "0", *words[:-1], place)
    assert (code, "OCT-E109" in err) == (2, True), err
    assert (tmp_path / "file").read_text() == "x"
