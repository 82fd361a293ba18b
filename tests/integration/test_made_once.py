"""What is kept is made once, again after a change of it or of the code, and never half."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration import made_once as module
from tests.integration.made_once import MAKERS, RECIPES, ROOT, digest_of_makers, made_once


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> object:
    """Calling it begins another session of tests."""

    def begin() -> None:
        monkeypatch.setattr(module, "_seen", set())

    begin()
    return begin


def test_it_is_made_once_and_again_when_it_was_changed(tmp_path: Path, session: object) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "below").mkdir()
        (folder / "below" / "file").write_text("whole")

    place = made_once("thing", make, tmp_path, "a")
    assert (place / "below" / "file").read_text() == "whole"
    session()  # type: ignore[operator]
    assert made_once("thing", make, tmp_path, "a") == place
    assert len(made) == 1
    (place / "below" / "file").write_text("spoilt by a test")
    session()  # type: ignore[operator]
    assert (made_once("thing", make, tmp_path, "a") / "below" / "file").read_text() == "whole"
    assert len(made) == 2
    other = made_once("thing", make, tmp_path, "b")
    assert other != place
    assert not place.exists()


def test_what_broke_off_is_made_again(tmp_path: Path, session: object) -> None:
    def breaks(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        made_once("thing", breaks, tmp_path, "a")
    place = made_once("thing", lambda folder: (folder / "file").touch(), tmp_path, "a")
    assert [path.name for path in place.iterdir()] == ["file"]


def test_a_change_of_any_source_that_makes_it_is_another_digest(tmp_path: Path) -> None:
    for name in (*MAKERS, "tests/integration", "tests/cli"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in RECIPES:
        shutil.copy(ROOT / name, tmp_path / name)
    digest_of_makers.cache_clear()
    seen = {digest_of_makers(tmp_path)}
    for name in ("octc/core/files.py", "export/pipeline.py", "tests/tiny_run.py"):
        with (tmp_path / name).open("a") as stream:
            stream.write("\n")
        digest_of_makers.cache_clear()
        seen.add(digest_of_makers(tmp_path))
    digest_of_makers.cache_clear()
    assert len(seen) == 4
