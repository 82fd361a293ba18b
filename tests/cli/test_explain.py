"""`octc explain`, `octc completion`, `octc runs prune`, and the schemas of what every command prints with --json."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from octc.bench.parity.tasks.table import WORDINGS
from octc.bench.parity.words import HEAD
from octc.bench.timing.gates import REASONS
from octc.bench.timing.interleaved import INT8_WORDS
from octc.bench.timing.render import COLUMNS as BENCH_COLUMNS
from octc.cli import prune
from octc.cli._app.commands import COMMANDS
from octc.cli._app.main import main
from octc.cli.explain import _plain, entry_of, texts
from octc.cli.json_schema import FILES, schema_names, schema_of
from octc.cli.ptq import COLUMNS as ENGINE_COLUMNS
from octc.core.codes import CODES
from octc.core.errors import OctcError
from octc.export.lint.check import MODEL_RULES, RULES
from octc.runtimes.golden import TOLERANCES
from octc.stats.verdict import WORDS
from octc.store.runs import create_run, owning
from tests.schema_checks import validate

Said = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """octc WORDS in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def document(said: Said, *words: str) -> tuple[int, Any]:
    """The --json document of a command, which fits its schema."""
    code, out, _ = said(*words, "--json")
    value = json.loads(out)
    validate(value, schema_of(value["command"]))
    assert value["exit_code"] == code
    return code, value


def test_every_code_is_explained() -> None:
    known = texts()
    assert not sorted(set(CODES) - set(known))
    for name, entry in known.items():
        assert set(entry) <= {"means", "why", "causes", "hint", "related", "also"}, name
        assert entry["why"].endswith((".", "!", "?")), name
        assert entry["hint"], name
        assert name not in CODES or entry["causes"], name
        assert all(one in known for one in entry.get("related", [])), name


def test_a_rule_of_lint_is_explained_and_no_rule_that_there_is_not(said: Said) -> None:
    code, out, _ = said("explain", "w26")
    assert code == 0
    assert out.startswith("W26: a convolution in float in an INT8 graph\n")
    rules = {rule.id for rule in (*RULES, *MODEL_RULES.values())}
    assert {name for name in texts() if re.fullmatch(r"[EWI]\d\d", name)} == rules
    assert all(texts()[name]["means"] for name in rules)


def test_no_spelling_stands_for_two_things() -> None:
    names = {_plain(name): name for name in (*CODES, *texts())}
    assert len(names) == len({*CODES, *texts()})
    others = [other for entry in texts().values() for other in {_plain(one) for one in entry.get("also", ())}]
    assert [word for word, count in Counter(others).items() if count > 1] == []
    assert sorted(set(others) & set(names)) == []


@pytest.mark.parametrize("word", ["OCT-E705", "e705", "E705"])
def test_a_code_is_explained_however_it_is_written(said: Said, word: str) -> None:
    code, out, _ = said("explain", word)
    assert code == 0
    assert out.startswith("OCT-E705  (exit 1): inconclusive")
    for head in ("why", "causes", "hint", "related"):
        assert f"\n  {head}" in out


def test_words_that_tables_and_verdicts_are_made_of_are_explained() -> None:
    """Reasons, columns, rules and rows, from where they are defined: a new one without a text fails here."""
    words: set[str] = {*TOLERANCES, *WORDS, *REASONS, *INT8_WORDS, *HEAD, *BENCH_COLUMNS, *ENGINE_COLUMNS}
    words |= {column for wording in WORDINGS.values() for column in wording.columns}
    words |= {rule.id for rule in (*RULES, *MODEL_RULES.values())} | {
        "VALID",
        "INVALID",
        "NA",
        "PASS",
        "FAIL",
        "INTERRUPTED",
        "planned",
        "exploratory",
    }
    words |= {"guard holds", "guard open", "tango", "tango_scaled", "tango_scaled and bootstrap", "one_cluster", "no_patients"}
    unknown = sorted(word for word in words if not explained(word))
    assert unknown == []


def explained(word: str) -> bool:
    try:
        return bool(entry_of(word)["why"])
    except OctcError:
        return False


@pytest.mark.parametrize(
    ("word", "name", "part"),
    [
        ("K7", "tolerance", "delta over s 0.05"), ("k10", "tolerance", "0.25"), ("guard holds", "guard", "class margin"),
        ("tango_scaled", "tango_scaled", "design effect"), ("class:DRUSEN", "guard", "class margin"), ("E03", "E03", "bias"),
        ("harm:CNV", "harm", "Holm"), ("p, Holm", "holm", "classes"), ("tier_99.9", "tier", "99"),
    ],
)  # fmt: skip
def test_words_as_they_are_printed(said: Said, word: str, name: str, part: str) -> None:
    code, value = document(said, "explain", word)
    assert (code, value["data"]["name"]) == (0, name)
    assert part in value["data"]["why"]


@pytest.mark.parametrize("word", ["inconclusive", "INVALID", "non_inferior", "non-inferior", "clock_drop"])
def test_words_of_verdicts_and_measurements_are_explained(said: Said, word: str) -> None:
    code, value = document(said, "explain", word)
    assert (code, value["data"]["exit_code"]) == (0, None)
    assert value["data"]["why"]


def test_all_are_listed_and_an_unknown_word_gets_a_near_one(said: Said) -> None:
    code, value = document(said, "explain", "--list")
    assert code == 0
    assert set(CODES) <= {entry["name"] for entry in value["data"]["entries"]}
    code, _, err = said("explain", "inconclusiv")
    assert code == 2
    assert "error[OCT-E101]" in err
    assert "octc explain inconclusive" in err
    assert said("explain")[0] == said("explain", "E705", "--list")[0] == 2


def test_every_command_has_a_schema_that_is_one() -> None:
    commands = {entry.name for entry in COMMANDS}
    assert not sorted((commands | {"version"}) - set(schema_names()))
    for name in schema_names():
        schema = schema_of(name)
        jsonschema.Draft202012Validator.check_schema(schema)
        expected = f"octc:file:{name}:1" if name in FILES else f"octc:command:{name.replace(' ', '-')}:1"
        assert schema["$id"] == expected


def test_a_schema_is_printed_and_refuses_what_does_not_fit(said: Said) -> None:
    code, out, _ = said("explain", "--schema", "runs prune")
    assert code == 0
    schema = json.loads(out)
    good = {
        "schema_version": "1.0", "command": "runs prune", "status": "ok", "exit_code": 0, "run_id": None,
        "data": {"deleted": False, "bytes": 0, "found": []}, "warnings": [], "error": None,
    }  # fmt: skip
    validate(good, schema)
    failed = {**good, "status": "error", "exit_code": 2, "data": {}}
    validate(
        {**failed, "error": dict.fromkeys(("why", "path", "field")) | {"code": "OCT-E107", "message": "m", "help": "h"}}, schema
    )
    for bad in ({**good, "data": {}}, {**good, "data": {"deleted": 1, "bytes": 0, "found": []}}, {**good, "more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            validate(bad, schema)
    assert said("explain", "--schema", "nothing")[0] == 2


PASTED = (
    ("--version", 0), ("runs list", 0), ("list runs", 0), ("data list", 0), ("config show --origins", 0), ("config init", 0),
    ("config validate", 0), ("completion bash", 0), ("runs prune", 0), ("data phantom --images 4", 0),
    ("data synthetic --images 4", 0), ("runs show r-1", 2),
    ("verify", 2), ("bench", 2), ("predict nowhere x.png", 2), ("data check nowhere", 2), ("verify --margin 0", 2),
    ("verify --no-such-option", 2), ("eval", 2),
)  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), PASTED, ids=[line for line, _ in PASTED])
def test_what_commands_print_fits_their_schemas(said: Said, line: str, expected: int) -> None:
    code, value = document(said, *line.split())
    assert code == expected
    assert (value["error"] is None) == (code == 0)
    if code:
        assert value["error"]["help"]


def test_a_runs_document_fits_too(said: Said, tmp_path: Path) -> None:
    create_run(tmp_path / "runs", "student", "phantom", recipe={"name": "smoke"}).log_stage("train", epochs=2)
    assert document(said, "runs", "show", "r-0001")[0] == 0


@pytest.mark.usefixtures("forks")
def test_the_doctors_document_fits_too(octc: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    value = json.loads(octc("doctor", "--json").stdout)
    validate(value, schema_of("doctor"))
    assert sum(value["data"]["counts"].values()) == len(value["data"]["checks"])


@pytest.mark.parametrize(
    ("shell", "word"),
    [
        ("bash", "complete"),
        ("zsh", "compdef"),
        ("fish", "complete --command octc"),
        ("powershell", "Register-ArgumentCompleter"),
    ],
)
def test_completion_is_printed_and_not_installed(said: Said, tmp_path: Path, shell: str, word: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, out, err = said("completion", shell)
    assert code == 0
    assert word in out
    assert "octc completion" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_module_in_the_folder_of_work_is_not_run_for_completion(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("queue", "json", "typer"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)\n")
    monkeypatch.chdir(tmp_path)
    code, out, _ = said("completion", "bash")
    assert code == 0
    assert "_octc_completion" in out


def test_the_script_completes_in_a_real_bash(tmp_path: Path) -> None:
    """Words of octc as bash would offer them, through the very script."""
    (tmp_path / "octc").write_text(f'#!/bin/sh\nexec {sys.executable} -m octc.cli._app.main "$@"\n')
    (tmp_path / "octc").chmod(0o755)
    script = (
        'eval "$(octc completion bash 2>/dev/null)"; COMP_WORDS=(octc comple); COMP_CWORD=1; '
        'name=$(complete -p octc | sed "s/.*-F \\([^ ]*\\).*/\\1/"); $name octc; echo "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["completion"], done.stderr


def test_an_unknown_shell_is_refused(said: Said) -> None:
    code, _, err = said("completion", "tcsh")
    assert code == 2
    assert "bash, zsh, fish, powershell" in err.replace("'", "")


def test_prune_lists_and_deletes_only_what_nothing_refers_to(said: Said, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    teacher, done, failed, used, mine = (create_run(runs, kind, "phantom") for kind in ("teacher", *["student"] * 4))
    done.update(status="done", teacher_run=teacher.id)
    (done.path / "rejected" / "onnx-int8").mkdir(parents=True)
    (done.artifacts / ".tmp-7-onnx-int8").mkdir(parents=True)
    failed.update(status="failed")
    (failed.path / "big.bin").write_bytes(bytes(5000))
    used.update(status="interrupted")
    second, source, taught, simple = (create_run(runs, "student", "phantom") for _ in range(4))
    for one in (second, source):
        one.update(status="interrupted")
    taught.update(status="done", more_teachers=[str(second.path / "train")])
    simple.update(status="done", simplify={"source": source.id})
    copied = tmp_path / "bundles" / "onnx-int8"
    copied.mkdir(parents=True)
    (copied / "artifact.json").write_text(json.dumps({"lineage": {"run": used.id}}))
    with owning(mine):
        code, value = document(said, "runs", "prune")
        listed = {Path(row["path"]).name for row in value["data"]["found"]}
        assert (code, value["data"]["deleted"]) == (0, False)
        assert listed == {failed.id, "rejected", ".tmp-7-onnx-int8"}
        assert value["data"]["bytes"] >= 5000
        assert failed.path.is_dir()
        assert document(said, "runs", "prune", "--yes")[1]["data"]["deleted"]
    left = {path.name for path in runs.iterdir() if path.is_dir()}
    assert left == {one.id for one in (teacher, done, used, mine, second, source, taught, simple)}
    assert not (done.path / "rejected").exists()
    assert not list(done.artifacts.iterdir())


def test_a_run_that_went_on_while_the_list_was_made_is_not_deleted(tmp_path: Path) -> None:
    run = create_run(tmp_path, "student", "phantom")
    with owning(run), pytest.raises(OctcError) as caught:
        prune._delete(run.path)
    assert caught.value.code == "OCT-E108"
    assert run.read()["status"] == "running"
    prune._delete(run.path)
    assert not list(tmp_path.glob("*r-0001*"))


def test_hints_name_options_that_are_there() -> None:
    root = Path(__file__).parents[2]
    option = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
    known = set(option.findall((root / "tests" / "house" / "options.json").read_text()))
    said = set(option.findall((root / "cli" / "explain.toml").read_text()))
    assert said - known == {"--help", "--version", "--shm-size"}  # of every command, of octc itself, of docker
