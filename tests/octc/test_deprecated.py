"""Old names: each still works and says what it is called now, and none outlives the version that was named for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from octc.cli._app.commands import COMMANDS
from octc.cli._app.main import main
from octc.cli.explain import entry_of
from octc.core.deprecated import COMMAND, FIELD, OLD_NAMES, OPTION, SECTION, VARIABLE, new_of, old_of, overdue, variable
from octc.core.errors import OctcError
from octc.schemas.configuration import KEYS, read_settings
from tests.house.test_options import parameters
from tests.house.tree import ROOT

Said = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        return (code, *capsys.readouterr())

    return call


def test_no_old_name_is_overdue() -> None:
    found = re.search(r'^version = "([\d.]+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert found is not None
    assert overdue(found[1]) == [], "take these rows out of OLD_NAMES, and what reads the old names"


def test_a_row_is_overdue_from_its_version_on() -> None:
    removed = OLD_NAMES[0].removed
    first, second = (int(part) for part in removed.split("."))
    assert OLD_NAMES[0] in overdue(f"{removed}.1")
    assert OLD_NAMES[0] in overdue(f"{first + 1}.0.0")
    assert OLD_NAMES[0] not in overdue(f"{first}.{second - 1}.9")


def test_new_names_are_names_of_today_and_old_ones_are_not() -> None:
    commands, sections = {entry.name for entry in COMMANDS}, set(KEYS)
    for one in OLD_NAMES:
        known = {COMMAND: commands, SECTION: sections}.get(one.kind)
        if one.kind == OPTION:
            known = set(parameters(one.where)["options"])
        assert known is None or (one.new in known and one.old not in known), one
        assert new_of(one.kind, one.old) == one.new
        assert old_of(one.kind, one.new) == one.old
    assert new_of(COMMAND, "verify") == "verify"
    assert old_of(COMMAND, "verify") is None


def test_an_old_command_works_and_says_its_new_name(said: Said) -> None:
    code, out, err = said("data", "phantom", "--images", "2", "--json")
    document = json.loads(out)
    assert (code, document["command"], document["data"]["images"]) == (0, "data synthetic", 8)
    assert [(one["code"], "data synthetic" in one["message"]) for one in document["warnings"]] == [("OCT-W102", True)]
    assert "warning[OCT-W102]: command data phantom is now data synthetic; octc 0.3 no longer has the old name" in err
    code, out, err = said("bundle", "--help")
    assert (code, "sign" in out, err) == (0, True, "")
    assert said("data", "synthetic", "elsewhere", "--images", "2")[2].count("OCT-W102") == 0


@pytest.mark.parametrize("option", [("--from-bundle", "nowhere"), ("--from-bundle=nowhere",)])
def test_an_old_option_works_and_says_its_new_name(said: Said, option: tuple[str, ...]) -> None:
    code, _, err = said("export", *option, "--target", "tensorrt")
    assert (code, "OCT-E107" in err) == (2, True)
    assert "option --from-bundle is now --from-artifact" in err


def test_an_old_section_and_its_variable_are_read(tmp_path: Path) -> None:
    (tmp_path / "octc.toml").write_text('[bundle]\nsignature = "required"\n')
    settings, notes = read_settings(None, {"OCTC_BUNDLE__TRUSTED": "key.pub"}, tmp_path)
    assert settings["artifact"] == {
        "signature": ("required", "project:octc.toml:2"),
        "trusted": ("key.pub", "env:OCTC_BUNDLE__TRUSTED"),
    }
    assert notes == [
        ("OCT-W102", "[bundle] in project:octc.toml is now [artifact]"),
        ("OCT-W102", "OCTC_BUNDLE__TRUSTED is now OCTC_ARTIFACT__TRUSTED"),
    ]


def test_both_names_of_one_key_are_refused(tmp_path: Path) -> None:
    (tmp_path / "octc.toml").write_text('[bundle]\nsignature = "required"\n[artifact]\nsignature = "optional"\n')
    with pytest.raises(OctcError) as caught:
        read_settings(None, {}, tmp_path)
    assert caught.value.code == "OCT-E102"
    with pytest.raises(OctcError) as caught:
        read_settings(None, {"OCTC_BUNDLE__TRUSTED": "a", "OCTC_ARTIFACT__TRUSTED": "b"}, tmp_path / "none")
    assert caught.value.code == "OCT-E102"


def test_a_variable_of_today_counts_before_its_old_name() -> None:
    assert variable({"OCTC_BUNDLE": "a", "OCTC_ARTIFACT": "b"}, "OCTC_ARTIFACT") == "b"
    assert variable({"OCTC_BUNDLE": "a"}, "OCTC_ARTIFACT") == "a"
    assert variable({}, "OCTC_ARTIFACT") is None
    assert all(one.new.startswith("OCTC_") for one in OLD_NAMES if one.kind == VARIABLE)


def test_an_old_field_stands_beside_the_new_one() -> None:
    assert {one.where for one in OLD_NAMES if one.kind == FIELD} == {"explain", "doctor", "data check"}
    entry = entry_of("OCT-E705")
    assert entry["hint"] == entry["mend"] != []
