"""Conflicts between installed packages, with packages that are really installed into a folder (their metadata)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from octc.machine.package_conflicts import can_check, find_conflicts, same_module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def put(site: Path, name: str, version: str, *needs: str, extras: tuple[str, ...] = ()) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {need}" for need in needs]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


def test_this_environment_is_sound() -> None:
    assert can_check()
    assert find_conflicts() == []


def test_what_does_not_fit_is_found_behind_other_packages_and_extras(site: Path) -> None:
    put(site, "top-a", "1.0", "middle.a[fast] >= 2")
    put(site, "middle-a", "2.1", 'low_a < 5; extra == "fast"', 'low_a < 1; extra == "slow"', extras=("fast", "slow"))
    put(site, "low-a", "7.0", "top-a")  # back to the beginning: it must end
    found = find_conflicts(["top-a"])
    assert [(one.name, one.version, one.needs) for one in found] == [("low-a", "7.0", (("middle-a 2.1", "low-a<5"),))]
    assert found[0].message() == "low-a 7.0 is installed; middle-a 2.1 needs low-a<5"
    assert found[0].hint() == "pip install 'low-a<5'"


def test_markers_count_and_versions_are_compared_as_versions(site: Path) -> None:
    never = f"python_version < '{sys.version_info.major}.0'"
    put(
        site, "top-b", "1", f"low-b < 1; {never}", "low-b >= 2.9", "low-b != 2.10.1", "low-b ~= 2.8", "not a requirement at all"
    )
    put(site, "low-b", "2.10.0rc1")
    assert find_conflicts(["top-b"]) == []


def test_two_that_want_different_things_cannot_live_together(site: Path) -> None:
    put(site, "top-c", "1", "low-c >= 3")
    put(site, "other-c", "1", "low-c < 3", "gone-c == 1")
    put(site, "low-c", "3.0")
    gone, low = find_conflicts(["top-c", "other-c"])
    assert gone.message() == "gone-c is not installed; other-c 1 needs gone-c==1"
    assert low.needs == (("other-c 1", "low-c<3"), ("top-c 1", "low-c>=3"))
    assert low.hint().startswith("keep other-c in an environment of its own")


def test_an_extra_of_octc_that_is_not_installed_is_no_conflict_but_an_old_package_is(site: Path) -> None:
    put(site, "octc", "9", 'absent-d >= 1; extra == "d"', 'old-d >= 2; extra == "d"', extras=("d",))
    put(site, "old-d", "1.5")
    found = find_conflicts(["octc"])
    assert [(one.name, one.hint()) for one in found] == [("old-d", "pip install 'old-d>=2'")]


def test_packages_with_the_same_module(site: Path) -> None:
    put(site, "onnxruntime-gpu", "1.99")
    assert same_module() == [("onnxruntime", "onnxruntime-gpu")]
