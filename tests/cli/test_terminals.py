"""C04 and P03 for the commands that print tables: no terminal, any encoding, 40 columns, a reader that goes away, no stdin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.datasets.synthetic.bscans import write_phantoms

WORDS = {
    "data list": 0, "data check 眼底": 1, "data split 眼底": 0, "data check absent": 2, "list": 0, "config show --origins": 0,
    "runs list": 0, "data check 眼底 --json": 1,
}  # fmt: skip
ENCODINGS = {"ascii": {"LANG": "C", "LC_ALL": "C"}, "cp1252": {"NO_COLOR": "1"}, "utf-8": {"TERM": "dumb"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set whose name and one of whose files no Western encoding has; one finding in it."""
    folder = tmp_path_factory.mktemp("place")
    write_phantoms(folder / "眼底", 4, 4, 0, size=(96, 96))
    train = folder / "眼底" / "CellData" / "OCT" / "train" / "CNV"
    pixels = np.random.default_rng(0).integers(0, 255, (96, 96), dtype=np.uint8)
    for name in ("CNV-900-1 ü→.png", os.fsdecode(b"CNV-901-1 \xff.png")):
        Image.fromarray(pixels).save(train / name)
    (folder / "眼底" / "CellData" / "OCT" / "test" / "CNV" / "CNV-902-1.png").write_bytes(
        (train / "CNV-900-1 ü→.png").read_bytes()
    )
    return folder


def start(words: str, place: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "octc.cli._app.main", *words.split()], cwd=place, env={**os.environ, **environment}, timeout=120,
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("words", WORDS)
def test_c04_any_encoding_at_forty_columns(words: str, encoding: str, place: Path) -> None:
    done = start(words, place, PYTHONIOENCODING=encoding, PYTHONUTF8="0", COLUMNS="40", **ENCODINGS[encoding])
    text = done.stdout.decode(encoding) + done.stderr.decode(encoding)
    assert done.returncode == WORDS[words], text
    assert "Traceback" not in text
    assert "\033" not in text
    if "--json" not in words and encoding == "utf-8":  # elsewhere a sign may become a word
        lines = [line for line in done.stdout.decode().splitlines() if not line.startswith(("digest ", "leakage: "))]
        assert max(map(len, lines), default=0) <= 40


@pytest.mark.parametrize("words", WORDS)
def test_p03_a_reader_that_goes_away_and_no_stdin(words: str, place: Path) -> None:
    command = f"{sys.executable} -m octc.cli._app.main {words} 2>&1 <&- | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, timeout=120, check=False)
    assert done.returncode in (WORDS[words], 0, 141)
    assert done.stderr == b""


SEIZED = "x\n\033[31merror[OCT-E999]: forged\033[0m\033]0;title\a\u202eg.png"  # a line of its own, colour, the title, direction


@pytest.fixture(scope="module")
def seized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a class and images whose names a terminal would obey: two that are alike, one that is empty."""
    folder = tmp_path_factory.mktemp("seized")
    write_phantoms(folder / "set", 4, 4, 0, size=(96, 96))
    train = folder / "set" / "CellData" / "OCT" / "train"
    first = sorted((train / "CNV").iterdir())[0]
    (train / "DME" / SEIZED).write_bytes(first.read_bytes())
    (train / "DME" / ("y" + SEIZED)).touch()
    for part in ("train", "test"):
        own = folder / "set" / "CellData" / "OCT" / part
        (own / "NORMAL").rename(own / "NOR\033[2JMAL")
    return folder


@pytest.mark.parametrize("words", ["data check set", "data check set -vv", "data split set", "data check \033[2J\u2066"])
def test_no_name_reaches_a_terminal_as_a_command(words: str, seized: Path) -> None:
    done = start(words, seized, PYTHONIOENCODING="utf-8")
    text = done.stdout.decode() + done.stderr.decode()
    assert not {"\033", "\a", "\u202e", "\u2066"} & set(text), text
    assert "\nerror[OCT-E999]" not in text
    assert "\\x1b[2J" in text  # it is shown, not dropped
