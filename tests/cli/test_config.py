"""Configuration as its user meets it: the value that reaches a command, and one error for each way to be wrong."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.cli._app.commands import COMMON, apply_settings, open_session
from octc.cli._app.main import main
from octc.datasets.synthetic.bscans import write_phantoms
from octc.export.formats import FORMATS
from octc.schemas.configuration import read_settings
from octc.store.runs import create_run

Octc = Callable[..., "subprocess.CompletedProcess[str]"]
HERE = True  # commands in this process (tests/conftest.py)
DRY = ("train", "student", "--dataset", "phantom", "--recipe", "smoke", "--teacher", "none", "--dry-run", "--json")


@pytest.fixture
def phantoms(tmp_path: Path) -> Path:
    write_phantoms(tmp_path / "Dataset" / "phantom", 12, 12, 0, size=(96, 96))
    return tmp_path


def resolved(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    """The recipe that a training would take. In this process: torch is loaded once."""
    assert main([*DRY, *more]) == 0
    recipe: dict[str, Any] = json.loads(capsys.readouterr().out)["data"]["recipe"]
    return recipe


def test_the_higher_origin_wins_up_to_the_command_line(
    phantoms: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(phantoms)

    def epochs(*more: str) -> int:
        return int(resolved(capsys, *more)["student"]["epochs"])

    assert epochs() not in (31, 32, 33, 34)
    (phantoms / "octc.toml").write_text("[train]\nepochs = 31\n")
    (phantoms / "mine.toml").write_text("[train]\nepochs = 32\n")
    assert epochs() == 31
    assert epochs("--config", "mine.toml") == 32
    monkeypatch.setenv("OCTC_TRAIN__EPOCHS", "33")
    assert epochs("--config", "mine.toml") == 33
    assert epochs("--config", "mine.toml", "--epochs", "34") == 34


def test_keys_without_an_option_reach_the_recipe(
    phantoms: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(phantoms)
    (phantoms / "octc.toml").write_text("[train]\nlr = 0.25\nsize = 64\nval = 0.34\n")
    recipe = resolved(capsys)
    assert (recipe["student"]["lr"], recipe["student"]["size"], recipe["val"]) == (0.25, 64, 0.34)


def shared(**given: Any) -> dict[str, Any]:
    return {**{key: default for key, (_, default) in COMMON.items()}, **given}


def test_common_options_from_a_file_give_way_to_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTC_DATA", "to be restored")
    monkeypatch.delenv("OCTC_DATA")
    (tmp_path / "octc.toml").write_text('offline = true\n[run]\ndir = "there"\n[data]\nroot = "images"\n')
    settings, _ = read_settings(None, {}, tmp_path)
    session = open_session("list", shared())
    apply_settings(session, shared(), settings)
    assert (session.offline, session.run_dir) == (True, Path("there"))
    assert os.environ["OCTC_DATA"] == "images"  # for the real images; phantoms stay where they are drawn
    given = shared(run_dir="mine", data="own")
    session = open_session("list", given)
    apply_settings(session, given, settings)
    assert (session.run_dir, session.data) == (Path("mine"), "own")  # --data stands above OCTC_DATA


def test_a_data_root_in_the_configuration_gives_way_to_the_variable(tmp_path: Path, octc: Octc) -> None:
    for name in ("one", "two"):
        write_phantoms(tmp_path / name, 2, 2, 0, size=(96, 96))
    (tmp_path / "octc.toml").write_text('[data]\nroot = "one"\n')
    said = octc("data", "check", "ucsd")
    assert "using data set ucsd in one" in said.stderr
    assert "using data set ucsd in two" in octc("data", "check", "ucsd", env={"OCTC_DATA": "two"}).stderr


def test_offline_in_a_file_switches_the_guard_on(tmp_path: Path, octc: Octc) -> None:
    (tmp_path / "octc.toml").write_text("offline = true\n")
    done = octc("list", "recipes", "--json", env={"OCTC_OFFLINE": ""})
    assert "offline" not in json.loads(done.stdout)  # the variable stands above the file
    octc_environment = {"OCTC_OFFLINE": "1"}
    assert json.loads(octc("list", "recipes", "--json", env=octc_environment).stdout)["offline"]["requested"]


def test_two_project_files_are_a_warning(tmp_path: Path, octc: Octc) -> None:
    (tmp_path / "octc.toml").write_text("[train]\nepochs = 1\n")
    (tmp_path / "pyproject.toml").write_text("[tool.octc.train]\nepochs = 2\n")
    done = octc("list", "recipes", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["warnings"][0]["code"] == "OCT-W101"
    assert "warning[OCT-W101]" in done.stderr


# name -> (octc.toml, code, words of the help, place)
WRONG = {
    "unknown key": ("[train]\nepoch = 3\n", "OCT-E103", "`train.epochs`", ("project:octc.toml:2", "train.epoch")),
    "wrong type": ('[train]\nepochs = "x"\n', "OCT-E104", "a whole number", ("project:octc.toml:2", "train.epochs")),
    "negative epochs": ("[train]\nepochs = -5\n", "OCT-E104", "at least 1", ("project:octc.toml:2", "train.epochs")),
    "lr is not a number": ("[train]\nlr = nan\n", "OCT-E104", "finite", ("project:octc.toml:2", "train.lr")),
    "syntax": ("[train\nepochs = 1\n", "OCT-E105", "correct this line", ("octc.toml:1:7", None)),
}


@pytest.mark.parametrize("case", WRONG)
def test_c01_each_way_to_be_wrong(case: str, tmp_path: Path, octc: Octc) -> None:
    text, code, help_text, (path, field) = WRONG[case]
    (tmp_path / "octc.toml").write_text(text)
    done = octc("train", "teacher", "--dataset", "phantom", "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == code
    assert help_text in error["help"]
    assert str(error["path"]).endswith(path)
    assert error["field"] == field
    assert f"error[{code}]" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_c01_yaml_syntax_and_a_file_that_is_absent(tmp_path: Path, octc: Octc) -> None:
    (tmp_path / "c.yaml").write_text("train:\n  epochs: [1\n")
    for name, place in (("c.yaml", "c.yaml:3:1"), ("absent.toml", "absent.toml")):
        done = octc("list", "--config", name)
        assert done.returncode == 2
        assert "error[OCT-E105]" in done.stderr
        assert place in done.stderr
        assert "help:" in done.stderr


def test_c01_a_variable_is_named_by_its_own_name(octc: Octc) -> None:
    done = octc("list", env={"OCTC_TRAIN__EPOCHS": "-5"})
    assert done.returncode == 2
    assert "--> env:OCTC_TRAIN__EPOCHS  train.epochs" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--epochs", "-5"],
        ["--epochs", "many"],
        ["--seed", "-1"],
        ["--batch", "0"],
        ["--batch", "x"],
        ["--batch", "²"],
        ["--batch", "9" * 30],
        ["--device", "0"],
        ["--device", "cuda:³"],
    ],
)
def test_c01_options_out_of_range_are_refused_before_any_work(words: list[str], tmp_path: Path, octc: Octc) -> None:
    done = octc("train", "teacher", "--dataset", "phantom", "--recipe", "smoke", *words)
    assert done.returncode == 2
    assert "error[OCT-E104]" in done.stderr
    assert words[0] in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["export", "--int8", "--fp16"], ("--int8", "--fp16")),
        (["export", "--fp32", "--fp16", "--int8", "--target", "openvino"], ("--fp32", "--fp16", "--int8")),
        (["train", "student", "--dataset", "phantom", "--with-teacher", "--teacher", "none"], ("--with-teacher", "--teacher")),
    ],
    ids=" ".join,
)
def test_c02_options_that_contradict_each_other_are_both_named(words: list[str], named: tuple[str, ...], octc: Octc) -> None:
    done = octc(*words, "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "OCT-E102"
    assert all(option in error["message"] for option in named)
    assert error["help"]


def test_show_says_value_and_origin_of_every_key(tmp_path: Path, octc: Octc) -> None:
    from octc.schemas.configuration import KEYS

    (tmp_path / "octc.toml").write_text("[verify]\nmargin_pp = 2\n")
    done = octc("config", "show", "--origins", "--json", env={"OCTC_BENCH__THREADS": "3"})
    rows = {row["key"]: (row["value"], row["origin"]) for row in json.loads(done.stdout)["data"]["settings"]}
    assert set(rows) == {f"{section}.{name}".lstrip(".") for section, keys in KEYS.items() for name in keys}
    assert rows["verify.margin_pp"] == (2.0, "project:octc.toml:2")
    assert rows["bench.threads"] == (3, "env:OCTC_BENCH__THREADS")
    assert rows["export.margin_pp"] == (1.0, "default")
    assert rows["train.epochs"] == (None, "recipe")
    shown = octc("config", "show", "--origins").stdout
    assert ["verify.margin_pp", "2.0", "project:octc.toml:2"] in [line.split() for line in shown.splitlines()]
    assert "project" not in octc("config", "show").stdout


def test_the_template_holds_every_key_with_a_value_that_is_allowed(tmp_path: Path) -> None:
    from octc.cli.config import OF_DATA, template
    from octc.schemas.configuration import KEYS

    path = tmp_path / "octc.toml"
    path.write_text(template())
    assert read_settings(None, {}, tmp_path) == ({}, [])
    lines = [line.removeprefix("# ") if " = " in line else line for line in template().splitlines()]
    path.write_text("\n".join(lines))
    settings, _ = read_settings(None, {}, tmp_path)
    wanted = {section: set(keys) for section, keys in KEYS.items()}
    wanted["data"] -= set(OF_DATA)  # named without a value: none would be true of every data set
    assert {section: set(keys) for section, keys in settings.items()} == wanted
    assert all(f"# {name}: as --" in template() for name in OF_DATA)


OWN = "# root = "  # the folder of the user's images, which has to be there


def test_every_line_of_the_template_may_be_uncommented(
    phantoms: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values of the template are those that count without it, and every command takes them."""
    for name in (
        "OCTC_DATA",
        "OCTC_ARTIFACT__SIGNATURE",
        "OCTC_ARTIFACT__TRUSTED",
    ):  # what a configuration puts there goes again
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.chdir(phantoms)
    run = create_run(phantoms / "runs", "student", "phantom")
    run.update(status="done")
    plain = resolved(capsys, "--recipe", "edge")
    assert main(("config", "init")) == 0
    text = (phantoms / "octc.toml").read_text()
    (phantoms / "octc.toml").write_text(
        "\n".join(line.removeprefix("# ") if " = " in line and not line.startswith(OWN) else line for line in text.splitlines())
    )
    assert main(("config", "validate")) == 0
    capsys.readouterr()
    assert resolved(capsys, "--recipe", "edge") == plain
    for target in ("all", *FORMATS):
        assert main(("export", run.id, "--target", target, "--dry-run")) == 0, target
    for words in (("verify",), ("bench", "--dry-run"), ("report",), ("predict", "x.png")):
        capsys.readouterr()
        assert main(words) == 2
        assert "OCT-E107" in capsys.readouterr().err, words  # nothing is here yet; the configuration was taken


def test_init_writes_once_and_validate_checks(tmp_path: Path, octc: Octc) -> None:
    assert octc("config", "init").stdout == "octc.toml\n"
    text = (tmp_path / "octc.toml").read_text()
    done = octc("config", "init")
    assert done.returncode == 2
    assert "error[OCT-E106]" in done.stderr
    assert (tmp_path / "octc.toml").read_text() == text
    assert octc("config", "init", "other.toml").returncode == 0
    (tmp_path / "octc.toml").write_text("[train]\nepochs = 3\n")
    done = octc("config", "validate", "--json")
    assert {row["key"]: row["origin"] for row in json.loads(done.stdout)["data"]["values"]}[
        "train.epochs"
    ] == "project:octc.toml:2"
    assert octc("config", "validate").stdout.startswith("valid: ")
    (tmp_path / "octc.toml").write_text("[train]\nepoch = 3\n")
    assert octc("config", "validate").returncode == 2
