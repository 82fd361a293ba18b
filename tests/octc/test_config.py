"""Configuration: what stands above what, where each value came from, and every way to write it wrong."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from octc.core.deprecated import OLD_NAMES
from octc.core.errors import MissingExtra, OctcError
from octc.core.options import Key
from octc.core.variables import VARIABLES
from octc.schemas.configuration import KEYS, bool_of, config_option, read_settings
from tests.house.tree import sources, tree

LEVELS = ("user", "embedded", "project", "file", "env")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def levels(tmp_path: Path) -> Callable[..., tuple[dict[str, dict[str, tuple[object, str]]], list[str], Path]]:
    """Settings of a folder where the named levels set train.epochs to 1, 2, 3, ... in the order of LEVELS."""

    def read(*names: str) -> tuple[dict[str, dict[str, tuple[object, str]]], list[str], Path]:
        folder = tmp_path / "-".join(("at", *names))
        folder.mkdir()
        environ = {"HOME": str(folder / "home")}
        if "user" in names:
            write(folder / "home/.config/octc/config.toml", "[train]\nseed = 5\nepochs = 1\n")
        if "embedded" in names:
            write(folder / "pyproject.toml", '[project]\nname = "x"\n\n[tool.octc.train]\nepochs = 2\n')
        if "project" in names:
            write(folder / "octc.toml", "# mine\n[train]\nepochs = 3\n")
        if "env" in names:
            environ["OCTC_TRAIN__EPOCHS"] = "5"
        chosen = str(write(folder / "other.toml", "train.epochs = 4\n")) if "file" in names else None
        return (*read_settings(chosen, environ, folder), folder)

    return read


def test_each_level_stands_above_those_before_it(levels: Callable[..., tuple[dict[str, object], list[str], Path]]) -> None:
    origins = []
    for count in range(1, len(LEVELS) + 1):
        settings, _, folder = levels(*LEVELS[:count])
        value, origin = settings["train"]["epochs"]  # type: ignore[index]
        assert value == count
        assert settings["train"]["seed"][0] == 5  # type: ignore[index]  # merged key by key
        origins.append(origin.replace(str(folder), "."))
    assert origins == [
        "user:./home/.config/octc/config.toml:3", "project:pyproject.toml:5", "project:octc.toml:3", "file:./other.toml:1",
        "env:OCTC_TRAIN__EPOCHS",
    ]  # fmt: skip


def test_two_project_files_are_said(levels: Callable[..., tuple[dict[str, object], list[str], Path]]) -> None:
    assert levels("project")[1] == []
    assert levels("embedded")[1] == []
    assert "passed over" in levels("embedded", "project")[1][0][1]


def test_nothing_is_read_where_nothing_is(tmp_path: Path) -> None:
    assert read_settings(None, {}, tmp_path) == ({}, [])
    write(tmp_path / "pyproject.toml", "this is [not TOML, and not ours to judge")
    assert read_settings(None, {}, tmp_path) == ({}, [])


def test_the_plain_variables(tmp_path: Path) -> None:
    chosen = write(tmp_path / "mine.toml", "offline = false\n[bench]\nthreads = 2\n")
    settings, _ = read_settings(None, {"OCTC_CONFIG": str(chosen), "OCTC_OFFLINE": "1", "OCTC_ARTIFACT": "b"}, tmp_path)
    assert settings[""]["offline"] == (True, "env:OCTC_OFFLINE")
    assert bool_of(settings, "offline")
    assert settings["bench"]["threads"] == (2, f"file:{chosen}:3")
    assert not bool_of({}, "offline")


def test_yaml_has_the_same_keys(tmp_path: Path) -> None:
    chosen = write(tmp_path / "c.yaml", "# a comment\ntrain:\n  epochs: 7\n  lr: 0.5\nverify:\n  alpha: 0.01\n")
    settings, _ = read_settings(str(chosen), {}, tmp_path)
    assert settings["train"] == {"epochs": (7, f"file:{chosen}:3"), "lr": (0.5, f"file:{chosen}:4")}
    assert settings["verify"]["alpha"] == (0.01, f"file:{chosen}:6")


def test_yaml_without_its_extra_says_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingExtra) as caught:
        read_settings(str(write(tmp_path / "c.yml", "train: {}\n")), {}, tmp_path)
    assert caught.value.hint == "pip install 'octc[yaml]'"


WRONG = {
    "unknown key": ("[train]\nepoch = 3\n", "OCT-E103", "epochs", ":2  train.epoch"),
    "unknown section": ("[trian]\nepochs = 3\n", "OCT-E103", "did you mean", "trian"),
    "unknown and far from all": ("zzzzzz = 1\n", "OCT-E103", "known keys", ":1  zzzzzz"),
    "wrong type": ('[train]\nepochs = "many"\n', "OCT-E104", "a whole number", ":2  train.epochs"),
    "a switch for a number": ("[train]\nepochs = true\n", "OCT-E104", "a whole number", "train.epochs"),
    "a number for a switch": ("offline = 1\n", "OCT-E104", "true or false", ":1  offline"),
    "negative": ("[train]\nseed = 1\nepochs = -1\n", "OCT-E104", "at least 1", ":3  train.epochs"),
    "not a number": ("[train]\nlr = nan\n", "OCT-E104", "finite", ":2  train.lr"),
    "more than 64 bits": ("[train]\nepochs = 9223372036854775808\n", "OCT-E104", "a whole number", "train.epochs"),
    "infinite": ("[train]\nlr = inf\n", "OCT-E104", "finite", "train.lr"),
    "on the edge": ("[verify]\nalpha = 0.5\n", "OCT-E104", "below 0.5", "verify.alpha"),
    "empty name": ('[train]\nrecipe = "  "\n', "OCT-E104", "not empty", "train.recipe"),
    "a value for a section": ("train = 3\n", "OCT-E104", "[train]", "train"),
    "syntax": ("[train]\nepochs = \n", "OCT-E105", "correct this line", ":2:10"),
    "syntax at the end": ("[train", "OCT-E105", "correct this line", ":1:"),
}


@pytest.mark.parametrize("case", WRONG)
def test_c01_a_wrong_file_names_file_line_field_and_mend(case: str, tmp_path: Path) -> None:
    text, code, hint, place = WRONG[case]
    write(tmp_path / "octc.toml", text)
    with pytest.raises(OctcError) as caught:
        read_settings(None, {}, tmp_path)
    assert caught.value.code == code
    assert caught.value.exit_code == 2
    assert hint in caught.value.hint
    assert place in str(caught.value.place)
    assert "octc.toml" in str(caught.value.place)


def test_c01_yaml_syntax_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    cases = {
        str(write(tmp_path / "a.yaml", "train:\n  epochs: [1\n")): "a.yaml:3:1",
        str(write(tmp_path / "b.yaml", "- a\n- b\n")): "b.yaml:1:1",
        str(tmp_path / "absent.toml"): "absent.toml",
        str(tmp_path): str(tmp_path),
    }
    (tmp_path / "latin.toml").write_bytes(b"[train]\nrecipe = '\xe9'\n")
    for chosen, place in {**cases, str(tmp_path / "latin.toml"): "latin.toml"}.items():
        with pytest.raises(OctcError) as caught:
            read_settings(chosen, {}, tmp_path)
        assert caught.value.code == "OCT-E105"
        assert place in str(caught.value.place)


def test_yaml_is_read_without_making_objects(tmp_path: Path) -> None:
    chosen = write(tmp_path / "c.yaml", "train: !!python/object/apply:os.system ['touch touched']\n")
    with pytest.raises(OctcError, match="not YAML"):
        read_settings(str(chosen), {}, tmp_path)


@pytest.mark.parametrize(
    ("variable", "text", "code"),
    [
        ("OCTC_TRAIN__EPOCH", "3", "OCT-E103"), ("OCTC_TRAIN__EPOCHS", "three", "OCT-E104"),
        ("OCTC_TRAIN__EPOCHS", "3.5", "OCT-E104"), ("OCTC_TRAIN__LR", "nan", "OCT-E104"), ("OCTC_OFFLINE", "maybe", "OCT-E104"),
        ("OCTC_TRAIN__RECIPE", "", "OCT-E104"), ("OCTC_NOSUCH__KEY", "1", "OCT-E103"),
    ],
)  # fmt: skip
def test_c01_a_wrong_variable_is_named(variable: str, text: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        read_settings(None, {variable: text}, tmp_path)
    assert caught.value.code == code
    assert f"env:{variable}" in str(caught.value.place)


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    assert read_settings(None, {"OCTC_TEST_UCSD": "x", "OCTC_DATA": "y", "PATH": "z", "TRAIN__EPOCHS": "1"}, tmp_path)[0] == {}


@pytest.mark.parametrize(("variable", "meant"), [
    ("OCTC_TRAIN_EPOCHS", "OCTC_TRAIN__EPOCHS"), ("OCTC_BENCH_REMOTE_PYTHON", "OCTC_BENCH__REMOTE_PYTHON"),
    ("OCTC_DTA", "OCTC_DATA"), ("octc_data", "OCTC_DATA"), ("OCTC_ARTEFACT", "OCTC_ARTIFACT"),
    ("OCTC_OFF_LINE", "OCTC_OFFLINE"), ("OCTC_BUNDLE_SIGNATURE", "OCTC_BUNDLE__SIGNATURE"),
    ("OCTC_TENSORRT__PYTHON", "OCTC_TENSORRT_PYTHON"), ("OCTC_RUN_DIR", "OCTC_RUN__DIR"),
])  # fmt: skip
def test_a_misspelt_variable_is_refused_with_the_one_that_was_meant(variable: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(OctcError) as caught:
        read_settings(None, {variable: "3"}, tmp_path)
    assert caught.value.code == "OCT-E103"
    assert variable in caught.value.message
    assert f"did you mean {meant}?" in caught.value.hint


def test_a_variable_that_may_be_of_other_programs_is_a_warning(tmp_path: Path) -> None:
    notes = read_settings(None, {"OCTC_MY_SCRIPTS": "x", "OCT_DATA": "y", "OCTAVE_HOME": "z", "OCT_HOME": "z"}, tmp_path)[1]
    assert [code for code, _ in notes] == ["OCT-W103", "OCT-W103"]
    assert "OCTC_MY_SCRIPTS" in notes[0][1]
    assert "OCTC_DATA is one" not in notes[0][1]
    assert notes[1][1].startswith("OCT_DATA") or "OCTC_DATA is one" in notes[1][1]


def test_keys_feed_the_options_they_say() -> None:
    assert config_option("export", "margin") == "margin_pp"
    assert config_option("verify", "class_margin") == "class_margin_pp"
    assert config_option("train", "epochs") == "epochs"
    assert config_option("train", "no_such") is None
    assert config_option("list", "what") is None


def test_every_key_says_what_it_allows_and_takes_it() -> None:
    for keys in KEYS.values():
        for key in keys.values():
            assert key.allowed()
    assert Key(float, above=0).fits(1)  # a whole number is a number
    assert not Key(int).fits(1.0)
    assert Key(str, choices=("a", "b")).fits("a")
    assert not Key(str, choices=("a", "b")).fits("c")
    assert Key(str, choices=("a", "b")).allowed() == "one of: a, b"


def test_every_key_feeds_an_option_or_is_read_by_name() -> None:
    """A key that nothing reads would be a promise that is not kept."""
    from tests.house.test_options import current

    by_name = {
        "bench.remote_python",
        "artifact.signature",
        "artifact.trusted",
        "offline",
        "data.root",
        "run.dir",
        "train.lr",
        "train.size",
        "train.val",
    }
    commands = current()["commands"]
    for section, keys in KEYS.items():
        options = {
            w
            for name, command in commands.items()
            if name.split()[0] == section
            for o in command["options"]
            for w in o.split("/")
        }
        for name, key in keys.items():
            path = f"{section}.{name}" if section else name
            option = f"--{(key.option or name).replace('_', '-')}"
            assert path in by_name or option in options, f"{path} feeds nothing"


def test_every_variable_that_the_source_reads_is_known() -> None:
    found = {
        node.value
        for path in sources()
        if "OCTC_" in path.read_text()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"OCTC_[A-Z]+(_[A-Z]+)*", node.value)
    }
    old = {one.old for one in OLD_NAMES}
    assert found - old == set(VARIABLES)


def test_a_file_with_a_mark_in_front_is_read(tmp_path: Path) -> None:
    """As editors of Windows write it."""
    (tmp_path / "octc.toml").write_bytes(b"\xef\xbb\xbf[train]\r\nepochs = 3\r\n")
    assert read_settings(None, {}, tmp_path)[0]["train"]["epochs"] == (3, "project:octc.toml:2")


@pytest.mark.parametrize("where", ["octc.toml", "home/octc/config.toml"])
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_a_name_that_is_no_file_is_refused_and_not_passed_over(where: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    make = {"link": lambda: path.symlink_to("gone.toml"), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}
    make[kind]()
    with pytest.raises(OctcError) as caught:
        read_settings(None, {"XDG_CONFIG_HOME": str(tmp_path / "home")}, tmp_path)
    assert (caught.value.code, caught.value.place) == ("OCT-E105", str(path))


@pytest.mark.parametrize("text", ["[tool]\noctc = { train = { epochs = 3 } }\n", '["tool" . octc . train]\nepochs = 3\n'])
def test_the_table_of_a_project_is_found_however_it_is_written(text: str, tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", text)
    assert read_settings(None, {}, tmp_path)[0]["train"]["epochs"][0] == 3
    write(tmp_path / "pyproject.toml", "dependencies = ['octc'\n")  # another tool's file, and not TOML
    assert read_settings(None, {}, tmp_path) == ({}, [])
