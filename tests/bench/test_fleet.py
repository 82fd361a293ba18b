"""`octc verify --fleet`: one artifact on several machines: who differs, in how many labels, from which layer on."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octc.bench.parity.fleet import read_fleet
from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.errors import OctcError
from octc.store.runs import Run
from tests.bench.verify_world import FORGIVING, change_constants, make_world
from tests.schema_checks import validate


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `octc verify --layers --json` prints of a sound artifact, and of one whose second layer went wrong."""
    run = make_world(tmp_path_factory.mktemp("fleet"))
    other = Run(Path(shutil.copytree(run.path, tmp_path_factory.mktemp("spoilt") / "runs" / run.id)))
    change_constants(other.artifacts / "onnx-int8", lambda name, value: value * (1.5 if name == "conv2.weight_scale" else 1))
    return document(run), document(other)


def document(run: Run) -> dict[str, Any]:
    out = io.StringIO()
    words = ["verify", str(run.artifacts / "onnx-int8"), "--layers", "--json", "--run-dir", str(run.path.parent), *FORGIVING]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main(words)
    found = json.loads(out.getvalue())
    validate(found, schema_of("verify"))
    return dict(found["data"]["artifacts"][0])


def put(folder: Path, host: str, found: dict[str, Any], change: Callable[[dict[str, Any]], None] | None = None) -> None:
    """A machine's document, as it would be copied there."""
    own = copy.deepcopy(found)
    own["machine"]["host"] = host
    if change is not None:
        change(own)
    folder.mkdir(exist_ok=True)
    (folder / f"{host}.json").write_text(json.dumps({"command": "verify", "data": {"artifacts": [own]}}))


def test_machines_that_answer_alike_pass(tmp_path: Path, answers: tuple[dict[str, Any], dict[str, Any]]) -> None:
    def older(own: dict[str, Any]) -> None:
        own["machine"]["cpu_isa"] = "avx2"

    put(tmp_path / "fleet", "a", answers[0])
    put(tmp_path / "fleet", "b", answers[0], older)
    (tmp_path / "fleet" / "notes.json").write_text('{"of": "something else"}')
    found = read_fleet(tmp_path / "fleet")
    assert (found.reference, [row.box for row in found.rows], found.errors) == ("a", ["a", "b"], [])
    assert found.rows[1].differs == ["cpu_isa"]
    assert (found.rows[1].delta_over_s, found.rows[1].labels, found.rows[1].first_layer) == (0.0, 0, None)
    assert found.passed_over == ("notes.json",)
    assert found.rows[1].images == answers[0]["set"]["n"]


def test_a_machine_that_computes_a_layer_differently_is_found_with_the_layer(
    tmp_path: Path, answers: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    sound, spoilt = answers
    assert spoilt["verdict"]["word"] == "fail"

    def same_artifact(own: dict[str, Any]) -> None:
        own["candidate"]["artifact_sha256"] = sound["candidate"]["artifact_sha256"]

    put(tmp_path / "fleet", "good", sound)
    put(tmp_path / "fleet", "worse", spoilt, same_artifact)
    found = read_fleet(tmp_path / "fleet")
    (row,) = [one for one in found.rows if one.box == "worse"]
    assert row.first_layer is not None
    assert "conv2" in row.first_layer
    assert row.first_error == pytest.approx(0.5, abs=0.1)
    assert "own verdict" in (row.short or "")
    (error,) = found.errors
    assert (error.code, "conv2" in (error.hint or "")) == ("OCT-E506", True)


def test_small_differences_are_counted_and_do_not_fail(tmp_path: Path, answers: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """A label that differs where two logits are closer than golden logits moved is told from one that differs elsewhere."""

    def near(own: dict[str, Any]) -> None:
        labels = own["box"]["labels"]
        labels["gaps"] = [1.0, 1.0, 1.0, 1.5e-4, *labels["gaps"][4:-1], 1.0]

    def nudged(own: dict[str, Any]) -> None:
        own["box"]["golden_logits"][0][0] += 1e-4
        for place in (3, -1):
            own["box"]["labels"]["predictions"][place] ^= 1
        for layer in own["box"]["layers"][1:]:
            layer["values"] = [value * 1.001 for value in layer["values"]]

    put(tmp_path / "fleet", "x", answers[0], near)
    put(tmp_path / "fleet", "y", answers[0], nudged)
    (row,) = [one for one in read_fleet(tmp_path / "fleet").rows if one.box == "y"]
    assert (row.labels, row.labels_at_ties, row.golden_labels, row.short) == (2, 1, 0, None)
    assert 0 < (row.delta_over_s or 0) < 1e-3
    assert row.first_layer == answers[0]["box"]["layers"][1]["name"]


def test_golden_logits_beyond_the_tolerance_fall_short(tmp_path: Path, answers: tuple[dict[str, Any], dict[str, Any]]) -> None:
    def far(own: dict[str, Any]) -> None:
        own["box"]["golden_logits"] = (2 * np.asarray(own["box"]["golden_logits"])).tolist()

    put(tmp_path / "fleet", "x", answers[0])
    put(tmp_path / "fleet", "y", answers[0], far)
    assert "golden logits differ" in (read_fleet(tmp_path / "fleet").rows[1].short or "")


def test_what_cannot_be_put_side_by_side_is_refused(tmp_path: Path, answers: tuple[dict[str, Any], dict[str, Any]]) -> None:
    def code_of(reference: str | None = None) -> str:
        with pytest.raises(OctcError) as error:
            read_fleet(tmp_path / "fleet", reference)
        return error.value.code

    assert code_of() == "OCT-E107"
    put(tmp_path / "fleet", "a", answers[0], lambda own: own.pop("box"))
    assert code_of() == "OCT-E708"
    put(tmp_path / "fleet", "b", answers[0])
    assert code_of("elsewhere") == "OCT-E107"
    assert [row.short is None for row in read_fleet(tmp_path / "fleet").rows] == [True, False]
    put(tmp_path / "fleet", "c", answers[1])
    assert code_of() == "OCT-E706"


def test_the_command_writes_the_matrix_and_ends_with_1_where_a_machine_falls_short(
    tmp_path: Path,
    answers: tuple[dict[str, Any], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "fleet", "a<b>", answers[0])
    put(tmp_path / "fleet", "c", answers[0])
    assert main(["verify", "--fleet", "fleet", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    validate(found, schema_of("verify"))
    page = Path(found["data"]["page"])
    assert {one.name for one in page.parent.iterdir()} == {"fleet.html", "fleet.md", "fleet.json"}
    assert "a<b>" not in page.read_text()
    put(tmp_path / "fleet", "c", answers[0], lambda own: own["verdict"].update(word="inferior", exit_code=1))
    assert main(["verify", "c", "--fleet", "fleet"]) == 1
    assert "c falls short" in capsys.readouterr().err
