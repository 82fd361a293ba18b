"""What is kept is made once, again after a change of it or of the code, and never half."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from tests import tiny_run
from tests.integration import made_once as module
from tests.integration.made_once import MAKERS, RECIPES, ROOT, digest_of_makers, made_once
from tests.tiny_run import _learn as learn


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


def test_a_network_learns_once_from_the_same_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learned: list[nn.Module] = []
    monkeypatch.setattr(tiny_run, "made_once", partial(made_once, base=tmp_path, digest="a"))
    monkeypatch.setattr(tiny_run, "_learn", lambda network, *data: learned.append(network) or learn(network, *data))
    images, labels = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 4

    def fitted(rectifier: type[nn.Module], x: torch.Tensor) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), rectifier(), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(4, 4)
        )
        tiny_run._fit(network, x, labels)
        return network.state_dict()

    first, again = fitted(nn.ReLU, images), fitted(nn.ReLU, images)
    assert len(learned) == 1
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())
    assert int(first["1.num_batches_tracked"]) == 60
    for rectifier, x in ((nn.SiLU, images), (nn.ReLU, images + 0.1)):
        other = fitted(rectifier, x)
        assert not torch.equal(first["0.weight"], other["0.weight"])
    assert len(learned) == 3
