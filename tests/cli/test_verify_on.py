"""`octc verify --on user@host` against a real sshd on this machine: what is carried, what comes back, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.bench.parity import remote
from octc.bench.parity.fleet import read_fleet
from octc.bench.parity.remote import verify_on
from octc.bench.parity.verify import place_of
from octc.cli._app.main import main
from octc.cli.json_schema import schema_of
from octc.core.errors import OctcError
from octc.core.progress import LogReporter
from octc.schemas.verification import VerifyOptions
from octc.store.runs import Run
from octc.store.test_set_log import read_log
from tests.bench.verify_world import FORGIVING, change_constants, make_world
from tests.far_machine import Far, box, other, tools
from tests.schema_checks import validate

__all__ = ["box", "other"]  # fixtures
NAME = "onnx-int8"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def run(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, box: Far) -> Run:
    """A copy that may be changed, in whose folder `octc` is called; the far machine is reached from there."""
    shutil.copytree(made.path.parent, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    for name, value in box.environment.items():
        monkeypatch.setenv(name, value)
    return Run(tmp_path / "runs" / made.id)


def document(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    ended = main([*words, "--json"])
    captured = capsys.readouterr()
    assert ended == code, captured.err
    value = json.loads(captured.out)
    validate(value, schema_of("verify"))
    return dict(value)


def test_the_verdict_of_another_machine_joins_the_fleet(run: Run, box: Far, capsys: pytest.CaptureFixture[str]) -> None:
    """Same numbers as here, one reading of the test set, nothing left there, and the fleet has two machines that agree."""
    artifact = str(run.artifacts / NAME)
    far = document(capsys, "verify", artifact, "--on", box.address, "--fleet", "fleet", *FORGIVING)["data"]
    assert (far["remote_host"], far["file"]) == ("box", "fleet/box.json")
    assert box.left() == []
    assert [one.command for one in read_log(run.path).readings] == ["verify"]
    stored = json.loads(Path(far["file"]).read_text())
    assert stored == far["verdicts"]
    assert stored["test"]["machine"]["remote_host"] == "box"
    assert stored["test"]["verdict"]["exploratory"] is False

    here = document(capsys, "verify", artifact, "--layers")["data"]["artifacts"][0]
    log = read_log(run.path)
    assert (len(log.readings), log.uses) == (2, 1), "the same artifact by the same plan: nothing new is learnt"
    kept = ("verdict", "accuracy", "plan", "calibration", "agreement", "auc")
    assert {key: stored["test"][key] for key in kept if key != "verdict"} == {
        key: here[key] for key in kept if key != "verdict"
    }
    assert stored["test"]["verdict"]["word"] == here["verdict"]["word"]
    shutil.copy(run.artifacts / NAME / "verify.json", "fleet/here.json")
    found = read_fleet(Path("fleet"), "box")
    assert len(found.rows) == 2
    assert {(row.short, row.labels, row.images, row.delta_over_s) for row in found.rows} == {(None, 0, here["set"]["n"], 0.0)}
    assert found.rows[1].first_layer is None


def test_the_validation_set_and_golden_images_alone_read_no_test_image(
    run: Run, box: Far, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    artifact = str(run.artifacts / NAME)
    select = document(capsys, "verify", artifact, "--on", box.address, "--set", "val", *FORGIVING)["data"]
    assert select["verdicts"]["select"]["set"]["name"] == "select"
    assert select["verdicts"]["test"] is None
    folder = Path(select["file"]).parent
    assert folder.parent == Path("fleet")
    assert folder.name.startswith(f"{NAME}-")
    run.update(data_root=str(tmp_path / "gone"))
    golden = document(capsys, "verify", artifact, "--on", box.address)["data"]["verdicts"]
    assert golden["golden"]["verdict"]["word"] == "golden_only"
    assert golden["golden"]["box"]["layers"], "of the layers of every box a fleet is made"
    assert read_log(run.path).readings == ()
    assert main(["verify", artifact, "--on", box.address, "--require-set"]) == 3


def test_an_artifact_that_falls_short_there_ends_as_it_ended_there(
    run: Run, box: Far, capsys: pytest.CaptureFixture[str]
) -> None:
    change_constants(run.artifacts / NAME, lambda name, value: value * (1.5 if name == "conv2.weight_scale" else 1))
    value = document(capsys, "verify", str(run.artifacts / NAME), "--on", box.address, "--set", "val", code=1)
    assert value["error"]["code"] == "OCT-E506"
    assert value["data"]["verdicts"]["golden"]["verdict"]["word"] == "fail"
    assert value["data"]["verdicts"]["golden"]["layers"], "where it begins is said by the machine that it happens on"


def test_the_connection_is_refused_as_that_of_a_bench(
    run: Run, box: Far, other: Callable[..., Far], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    artifact = str(run.artifacts / NAME)
    kept = (box.place / "known").read_text()
    try:
        stranger = (box.place / "user.pub").read_text().split()
        (box.place / "known").write_text(f"[127.0.0.1]:{box.port} {stranger[0]} {stranger[1]}\n")
        assert main(["verify", artifact, "--on", box.address, "--set", "val"]) == 6
    finally:
        (box.place / "known").write_text(kept)
    assert "host key is not the one that is known" in capsys.readouterr().err
    bare = other(path=tools(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**bare.environment, "OCTC_BENCH__REMOTE_PYTHON": "python3"}.items():
            patch.setenv(name, value)
        assert main(["verify", artifact, "--on", bare.address, "--set", "val"]) == 6
    assert "no Python of at least 3.10" in capsys.readouterr().err
    assert bare.left() == []
    assert not Path("fleet").exists()


def test_what_cannot_be_asked_of_another_machine_is_refused_before_anything_is_sent(
    run: Run, box: Far, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = str(run.artifacts / NAME)
    wrong = (
        ("--on", "a b"), ("--on", "-oProxyCommand=touch x"), ("--on", box.address, "--emulate", "x86-64-v3"),
        ("--on", box.address, "--subgroups", "groups.csv"), ("--on", box.address, "--target", "tensorrt"),
        ("--on", box.address, "--offline"),
    )  # fmt: skip
    for words in wrong:
        assert main(["verify", artifact, *words]) == 2, words
    assert main(["verify", str(run.path), "--on", box.address]) == 2  # two artifacts
    assert not Path("x").exists()

    def code_of() -> str:
        with pytest.raises(OctcError) as error:
            verify_on(box.address, artifact, VerifyOptions(), place_of(Path("runs"), None), LogReporter(), sys.executable)
        return error.value.code

    with monkeypatch.context() as patch:
        patch.setattr(remote, "MOST", 1000)
        assert code_of() == "OCT-E104"
    shutil.rmtree(run.artifacts / "onnx-fp32")
    assert code_of() == "OCT-E708"
    assert read_log(run.path).readings == ()
    assert box.left() == []
    capsys.readouterr()
