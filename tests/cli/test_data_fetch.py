"""`octc data fetch` as a process: words, exit codes, a kill in the middle, and the network that is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from octc.datasets.synthetic.bscans import write_phantoms
from tests.conftest import Octc
from tests.octc.test_octmnist import arrays
from tests.octc.web import Web, serving


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_phantoms(folder / "phantom", 4, 2, 0, size=(64, 62))
    with zipfile.ZipFile(folder / "ZhangLabData.zip", "w") as made:
        for path in sorted((folder / "phantom").rglob("*.jpeg")):
            made.write(path, path.relative_to(folder / "phantom"))
        made.writestr("CellData/chest_xray/train/NORMAL/IM-1.jpeg", os.urandom(600_000))
    return folder / "ZhangLabData.zip"


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as web:
        yield web


def test_from_an_address_to_a_data_set_that_passes_its_check(web: Web, archive: Path, octc: Octc) -> None:
    page = web.put("/mirror/ZhangLabData.zip", archive.read_bytes())
    url = web.url("/mirror/ZhangLabData.zip")
    done = octc("data", "fetch", "ucsd", "--from", url, "--sha256", page.sha256)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "16 files of ucsd in Dataset/UCSD\n"
    said = [line.strip() for line in done.stderr.splitlines()]
    order = [
        next(i for i, line in enumerate(said) if line.startswith(word)) for word in ("licence", "address", "size", "sha256")
    ]
    assert order == sorted(order)
    assert "next: octc data check ucsd" in done.stderr
    checked = octc("data", "check", "ucsd", "--json")
    assert json.loads(checked.stdout)["data"]["counts"]["train"]["CNV"] == 2
    again = octc("data", "fetch", "ucsd", "--from", url)
    assert again.returncode == 2
    assert "OCT-E106" in again.stderr
    assert len(page.asked) == 1


def test_json_has_the_receipt(archive: Path, tmp_path: Path, octc: Octc) -> None:
    done = octc("data", "fetch", "ucsd", "--from", archive, "--data", tmp_path / "here", "--json", "--quiet")
    assert done.returncode == 0
    value = json.loads(done.stdout)["data"]
    assert value["written"] == 16
    assert value["files"][0]["bytes"] == archive.stat().st_size
    assert value["licence"].startswith("CC BY 4.0")
    assert done.stderr == ""


def test_killed_in_the_middle_it_goes_on(web: Web, archive: Path, tmp_path: Path, octc: Octc) -> None:
    page = web.put("/a.zip", archive.read_bytes(), faults=["slow"])
    words = ["data", "fetch", "ucsd", "--from", web.url("/a.zip"), "--sha256", page.sha256, "--data", str(tmp_path / "UCSD")]
    process = subprocess.Popen([sys.executable, "-m", "octc.cli._app.main", *words], stderr=subprocess.DEVNULL, cwd=tmp_path)
    part = tmp_path / ".tmp-fetch-UCSD" / "a.zip.part"
    end = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size > 100_000) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "UCSD").exists()
    done = octc(*words)
    assert done.returncode == 0, done.stderr
    assert "going on with a.zip at" in done.stderr
    assert page.asked[1].startswith("bytes=")
    assert (tmp_path / "UCSD/CellData/OCT/train/CNV").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["UCSD"]


def test_d29_causes_in_one_line_with_their_exit_codes(web: Web, archive: Path, octc: Octc) -> None:
    page = web.put("/a.zip", archive.read_bytes())
    gone = octc("data", "fetch", "ucsd", "--from", web.url("/gone.zip"))
    assert gone.returncode == 4
    assert "error[OCT-E218]" in gone.stderr
    assert "answered 404" in gone.stderr
    wrong = octc("data", "fetch", "ucsd", "--from", web.url("/a.zip"), "--sha256", page.sha256[::-1])
    assert wrong.returncode == 3
    assert "error[OCT-E217]" in wrong.stderr
    assert "does not have the checksum" in wrong.stderr
    for done in (gone, wrong):
        assert "help:" in done.stderr
        assert "Traceback" not in done.stderr


def test_without_a_network_it_is_refused_before_anything(tmp_path: Path, octc: Octc) -> None:
    for words in (["ucsd"], ["neh", "--offline"], ["octmnist"], ["ucsd", "--from", "https://example.org/a.zip"]):
        done = octc("data", "fetch", *words, env={"OCTC_OFFLINE": "1", "HOME": str(tmp_path)})
        assert done.returncode == 4, done.stderr
        assert "error[OCT-E990]" in done.stderr
        assert "--from FILE" in done.stderr
    assert not (tmp_path / "Dataset").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["usdc"], "OCT-E104"),
        (["ucsd", "--sha256", "0" * 64], "OCT-E102"),
        (["ucsd", "--from", "a.zip", "--sha256", "xyz"], "OCT-E104"),
        (["ucsd", "--size", "64"], "OCT-E102"),
        (["octmnist", "--size", "28"], "OCT-E104"),
        (["ucsd", "--from", "ftp://127.0.0.1/a.zip"], "OCT-E104"),
    ],
)
def test_options_that_make_no_sense(words: list[str], code: str, octc: Octc) -> None:
    done = octc("data", "fetch", *words)
    assert done.returncode == 2
    assert f"error[{code}]" in done.stderr


def test_octmnist_from_a_file_that_is_here(tmp_path: Path, octc: Octc) -> None:
    np.savez(tmp_path / "octmnist_64.npz", **arrays())  # type: ignore[arg-type]
    done = octc("data", "fetch", "octmnist", "--from", tmp_path / "octmnist_64.npz")
    assert done.returncode == 0, done.stderr
    assert "44 files of octmnist" in done.stdout
    split = octc("data", "split", "octmnist", "--json")
    assert sum(json.loads(split.stdout)["data"]["counts"]["test"].values()) == 12
