"""How a data set is read, as every command that splits or trains may be told: patients, columns, links, lacking classes."""

from __future__ import annotations

import json
import os
import pty
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octc.cli._app.session import Session
from octc.cli.whose import asker
from octc.compress.jobs import new_job
from octc.core.errors import OctcError
from octc.datasets.patient_rules import PatientRule, read_rule
from octc.datasets.registry import scan_dataset
from octc.schemas.training import TrainOptions
from octc.train.jobs.data import scan_and_check
from octc.train.jobs.request import make_requests
from tests.class_tree import write_tree
from tests.cli.conftest import Said, said

__all__ = ["said"]  # a fixture

TRAIN = ("train", "student", "--recipe", "smoke", "--teacher", "none", "--dry-run")


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.as_posix().encode()))
    Image.fromarray(rng.integers(0, 256, (48, 48), dtype=np.uint8)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two classes, five people each with a folder of their own, four images of each, whose names say nothing."""
    for kind in ("AMD", "NORMAL"):
        for person in range(5):
            for index in range(4):
                picture(tmp_path / "my set" / kind / f"{kind[0]}{person}" / f"scan {index}.png")
    return tmp_path / "my set"


def split_of(out: str) -> tuple[str, dict[str, int | None]]:
    value = json.loads(out)["data"]
    return value["patient_ids"], value["patients"]


RULES = (
    ("--patients", "unknown"),
    ("--patient-pattern", r"/([AN]\d)/"),
    ("--patient-from", "folder"),
    ("--patient-from", "people.csv"),
)


def write_people(tree: Path) -> None:
    lines = [f"{path.relative_to(tree)},{path.parent.name}" for path in sorted(tree.rglob("*.png"))]
    (tree.parent / "people.csv").write_text("file,patient\n" + "\n".join(lines) + "\n")


@pytest.mark.parametrize("rule", RULES, ids=[words[1][:8] for words in RULES])
def test_every_command_that_splits_takes_a_rule(rule: tuple[str, str], tree: Path, said: Said, tmp_path: Path) -> None:
    write_people(tree)
    state = "unknown" if rule[1] == "unknown" else "known"
    code, out, err = said("data", "split", str(tree), *rule, "--json")
    assert code == 0, err
    assert split_of(out)[0] == state
    code, out, _ = said("data", "split", str(tree), *rule, "--folds", "3", "--json")
    assert {one["patient_ids"] for one in json.loads(out)["data"]["splits"]} == {state}
    code, out, _ = said("data", "check", str(tree), *rule, "--near-duplicates", "off", "--json")
    assert (code, json.loads(out)["data"]["patient_ids"]) == (0, state)
    code, out, _ = said("data", "stats", str(tree), *rule, "--json")
    assert (code, json.loads(out)["data"]["patient_ids"]) == (0, state)
    for folds in ((), ("--folds", "3")):
        code, _, err = said(*TRAIN, "--dataset", "folder", "--data", str(tree), *rule, *folds)
        assert code == 0, err
        assert ("patient-level" in err) == (state == "known")
    assert not (tmp_path / "runs").exists()


def test_a_training_without_patients_is_refused_with_three_commands_that_answer(tree: Path, said: Said) -> None:
    code, _, err = said(*TRAIN, "--dataset", "folder", "--data", str(tree))
    assert (code, "OCT-E232" in err) == (2, True)
    commands = [line.strip() for line in err.splitlines() if line.strip().startswith("octc data patients")]
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command.replace("REGEX", "'[AN][0-9]'"))
        assert said(*words[1:])[0] == 0
        code, _, err = said(*TRAIN, "--dataset", "folder", "--data", str(tree))
        assert (code, "saved before" in err) == (0, True), err


def test_commands_that_a_training_names_read_a_table_as_it_did(said: Said, tmp_path: Path) -> None:
    """Where the columns were stated, the commands state them too; a data set elsewhere is named with its place."""
    store = tmp_path / "a store"
    write_tree(store, [f"i{n}.png" for n in range(16)])
    (store / "i1.png").write_bytes((store / "i0.png").read_bytes())
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["file,dx", *(f"i{n}.png,{'AN'[n % 2]}" for n in range(16))]) + "\n")
    read = ("--dataset", "csv", "--data", str(table), "--column", "path=file,label=dx", "--image-root", str(store))
    code, _, err = said(*TRAIN, *read)
    assert (code, "OCT-E232" in err) == (2, True)
    command = next(line.strip() for line in err.splitlines() if "--patients unknown" in line)
    assert said(*shlex.split(command)[1:])[0] == 0
    code, _, err = said(*TRAIN, *read)
    assert (code, "OCT-E213" in err) == (1, True)
    words = shlex.split(err[err.index("(octc data check") + 1 : err.index(" lists all)")])
    code, _, err = said(*words[1:])
    assert (code, "i0.png (A) = i1.png (N)" in err) == (1, True)
    place = ("csv", "--data", str(table), "--column", "path=file,label=dx", "--image-root", str(store))
    for command in ("split", "stats"):
        code, _, err = said("data", command, *place)
        assert (code, "OCT-E213" in err, "i0.png = i1.png" in err) == (1, True, True)
    code, _, err = said("data", "split", *place, "--out", str(tmp_path / "written"))
    assert (code, (tmp_path / "written").exists()) == (1, False)


def test_a_saved_rule_counts_for_check_and_import_and_a_changed_table_is_refused(tree: Path, said: Said) -> None:
    write_people(tree)
    assert said("data", "patients", str(tree), "--patient-from", "people.csv", "--save")[0] == 0
    code, out, err = said("data", "check", str(tree), "--near-duplicates", "off", "--json")
    assert (code, json.loads(out)["data"]["patient_ids"]) == (0, "known")
    assert "saved before" in err
    (tree.parent / "people.csv").write_text("file,patient\n")
    code, _, err = said("data", "split", str(tree))
    assert (code, "OCT-E216" in err) == (3, True)
    assert said("data", "split", str(tree), "--patients", "unknown")[0] == 0


def test_the_configuration_may_say_it_and_an_option_replaces_it(tree: Path, said: Said, tmp_path: Path) -> None:
    (tmp_path / "octc.toml").write_text('[data]\npatient_from = "folder"\n')
    assert split_of(said("data", "split", str(tree), "--json")[1])[0] == "known"
    assert said(*TRAIN, "--dataset", "folder", "--data", str(tree))[0] == 0
    assert split_of(said("data", "split", str(tree), "--patients", "unknown", "--json")[1])[0] == "unknown"
    code, _, err = said("data", "split", str(tree), "--patients", "unknown", "--patient-from", "name")
    assert (code, "OCT-E102" in err) == (2, True)


@contextmanager
def terminal(answers: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A terminal as stdin and stderr, at which somebody types; what was said there."""
    here, there = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        while True:
            try:
                seen.append(os.read(here, 4096))
            except OSError:  # closed
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    os.write(here, answers.encode())
    with open(there, closefd=False) as typed, open(there, "w", closefd=False) as said_there, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", typed)
        patch.setattr(sys, "stderr", said_there)
        yield seen
    os.close(there)
    reader.join(5)
    os.close(here)


@pytest.mark.parametrize(("answers", "rule"), [
    ("1\ny\n", PatientRule("folder")), ("(\n[AN](\\d)\nno\n3\ny\n", PatientRule("unknown")),
    ("/(?P<patient>[AN]\\d)/\ny\n", PatientRule("pattern", "/(?P<patient>[AN]\\d)/")), ("\n", None),
])  # fmt: skip
def test_at_a_terminal_it_is_asked_once_and_kept(
    answers: str, rule: PatientRule | None, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session("train teacher", run_dir=tmp_path / "runs", data=str(tree))
    job = new_job(session.run_dir, session.data, session)
    (asked,) = make_requests(job, "teacher", TrainOptions(dataset="folder", recipe="smoke"))
    assert asker(session) is None
    with terminal(answers, monkeypatch) as seen:
        job.ask = asker(session)
        assert job.ask is not None
        if rule is None:
            with pytest.raises(OctcError) as refused:
                scan_and_check(job, asked, tree)
            assert refused.value.code == "OCT-E232"
        else:
            assert scan_and_check(job, asked, tree).rule == str(rule)
            scan_and_check(job, asked, tree)  # nobody types a second answer
    assert b"10 patients of 40 of 40 images" in b"".join(seen)
    assert read_rule(session.run_dir, scan_dataset("folder", tree).digest) == rule
