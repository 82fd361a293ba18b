"""What the tests of `octc train` share: images, words, one processor."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from octc.cli._app.main import main
from tests.tiny_run import write_patterns

Said = Callable[..., tuple[int, str, str]]
SMOKE = ("--dataset", "folder", "--recipe", "smoke")


@pytest.fixture(scope="module", autouse=True)
def one_processor() -> Iterator[None]:
    """Here and in every process started from here: octc takes a thread for each, and sums of floats depend on that."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [max(before)])
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module")
def patterns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("patterns") / "set"
    write_patterns(root, patients=6, images=2)
    return root


@pytest.fixture
def said(tmp_path: Path, patterns: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run `octc train WORDS...` in tmp_path on the patterns: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OCTC_DATA", str(patterns))
    monkeypatch.setenv("OCTC_TRAIN__ANY_TEACHER", "1")  # teachers of an epoch or two

    def call(*words: str) -> tuple[int, str, str]:
        code = main(("train", *words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
