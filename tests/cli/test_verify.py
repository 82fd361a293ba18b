"""`octc verify` on artifacts that were really trained, exported and run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from octc.cli._app.main import main
from octc.store.artifacts import read_artifact
from octc.store.runs import Run
from octc.store.test_set_log import read_log
from tests.cli.verify_runs import DECIDABLE, made_pair

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made() -> Run:
    return made_pair()


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    """A copy with images of its own."""
    shutil.copytree(made.path.parent, tmp_path / "runs")
    shutil.copytree(made.path.parent.parent / "patterns", tmp_path / "patterns")
    for one in (tmp_path / "runs").glob("r-*"):
        Run(one).update(data_root=str(tmp_path / "patterns"))
    return Run(tmp_path / "runs" / made.id)


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run `octc verify WORDS...` in tmp_path: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(("verify", *words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def verdict_of(run: Run, name: str, key: str = "test") -> Any:
    return json.loads((run.artifacts / name / "verify.json").read_text())[key]


def uses(run: Run) -> int:
    return read_log(run.path).uses


def test_the_command_of_the_readme_in_a_process_of_its_own(run: Run, octc: Any) -> None:
    done = octc("verify", process=True)
    assert done.returncode == 1, done.stderr
    assert f"using runs/{run.id}/artifacts (newest valid; choose with ARTIFACT)" in done.stderr
    assert "NA       tensorrt-int8: no TensorRT engine was built" in done.stderr
    assert "locked" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("margin 1 pp, class margin 3 pp, alpha 0.05, test set, n=32 images, 8 patients")
    for row in ("student onnx-fp32", "teacher torch-fp32", "onnx-int8", "openvino-int8"):
        assert any(line.strip().startswith(row) for line in lines)
    assert "INCONCLUSIVE: onnx-int8 against its FP32 reference onnx-fp32" in done.stdout
    assert "NOT TESTED: openvino-int8 against its teacher torch-fp32" in done.stdout
    assert done.stderr.count("error[OCT-E705]") == 2
    assert "about" in done.stderr
    assert "images would settle it" in done.stderr
    for name in ("onnx-int8", "openvino-int8"):
        assert read_artifact(run.artifacts / name).name == name  # verify.json beside it is allowed
        assert verdict_of(run, name)["verdict"]["word"] == "inconclusive"
        assert verdict_of(run, name)["claims"][0]["verdict"]["word"] == "not_tested"
    assert not (run.artifacts / "tensorrt-int8" / "verify.json").exists()
    assert not list(run.path.rglob(".tmp*"))


def test_margins_that_can_be_decided_and_the_same_again(run: Run, said: Said) -> None:
    code, out, err = said("--json", *DECIDABLE)
    assert code == 0, err
    envelope = json.loads(out)
    assert (envelope["status"], envelope["error"], envelope["run_id"]) == ("ok", None, run.id)
    data = envelope["data"]
    assert [one["artifact"] for one in data["artifacts"]] == ["onnx-int8", "openvino-int8"]
    assert [one["name"] for one in data["absent"]] == ["tensorrt-int8"]
    first = data["artifacts"][0]
    assert (first["verdict"]["word"], first["claims"][0]["verdict"]["word"]) == ("equivalent", "equivalent")
    assert (first["against"], first["claims"][0]["against"]) == ("fp32", "teacher")
    assert first["set"]["leakage"] == "none"
    assert first["plan"]["d_plan_source"] == "option"
    assert first["candidate"]["runtime"] == "onnxruntime"
    assert first["golden"]["ok"] is True
    assert uses(run) == data["uses_of_test"] == 1
    again = said("--json", *DECIDABLE)
    assert "records  of onnx-fp32, onnx-int8, openvino-int8, torch-fp32 are read back" in again[2]
    repeated = json.loads(again[1])["data"]["artifacts"][0]
    assert (repeated["accuracy"], repeated["agreement"]) == (first["accuracy"], first["agreement"])
    assert (uses(run), len(read_log(run.path).readings)) == (1, 2)
    assert verdict_of(run, "onnx-int8") == first  # the planned verdict stays, its repeat stands beside it
    assert verdict_of(run, "onnx-int8", "repeated")["accuracy"] == first["accuracy"]


def test_margins_stated_after_a_look_are_exploratory(run: Run, said: Said) -> None:
    assert said(str(run.artifacts / "onnx-int8"))[0] == 1
    code, out, _ = said(str(run.artifacts / "onnx-int8"), *DECIDABLE)
    assert code == 0
    assert out.startswith("EQUIVALENT (exploratory): ")
    assert "margin 1.0 -> 30.0" in out.splitlines()[1]
    assert verdict_of(run, "onnx-int8")["verdict"]["word"] == "inconclusive"  # as planned, untouched
    (other,) = verdict_of(run, "onnx-int8", "exploratory")
    assert (other["verdict"]["word"], other["verdict"]["exploratory"], other["plan"]["margin_pp"]) == ("equivalent", True, 30)
    code, out, _ = said(str(run.artifacts / "onnx-int8"))  # without options the plan again
    assert (code, "(exploratory)" in out) == (1, False)
    assert "margin 1 pp, class margin 3 pp" in out
    assert (uses(run), len(read_log(run.path).readings)) == (2, 3)


def test_a_verdict_is_ten_lines_and_the_rest_comes_with_v(run: Run, said: Said) -> None:
    folder = str(run.artifacts / "onnx-int8")
    for words in ((), DECIDABLE):
        _, out, err = said(folder, *words)
        assert len(out.splitlines()) <= 10, out
        heads = ("deciding", "accuracy", "classes")
        assert all(any(line.strip().startswith(head) for line in out.splitlines()) for head in heads)
        assert "octc verify -v" in err
    _, long, _ = said(folder, "-v", *DECIDABLE)
    assert len(long.splitlines()) > 2 * len(out.splitlines())
    assert "McNemar" in long
    assert "McNemar" not in out


def test_margins_of_the_configuration_are_the_plan(run: Run, said: Said, tmp_path: Path) -> None:
    (tmp_path / "octc.toml").write_text("[verify]\nmargin_pp = 30\nclass_margin_pp = 60.0\n")
    code, out, _ = said(str(run.artifacts / "onnx-int8"), "--plan-discordance", "0.5")
    assert code == 0
    assert "EQUIVALENT: onnx-int8" in out
    assert "margin 30 pp, class margin 60 pp" in out


def test_one_artifact_at_a_time_makes_the_second_exploratory(run: Run, said: Said) -> None:
    assert said(str(run.artifacts / "onnx-int8"), "--against", "fp32", *DECIDABLE)[0] == 0
    _, out, err = said(str(run.artifacts / "openvino-int8"), "--against", "fp32", *DECIDABLE)
    assert "EQUIVALENT (exploratory): openvino-int8" in out
    assert "test set used 2 times by this run" in err
    assert "teacher" not in out


def test_against_the_teacher_alone(run: Run, said: Said) -> None:
    code, out, _ = said(str(run.artifacts / "onnx-int8"), "--against", "teacher", *DECIDABLE)
    assert code == 0
    assert out.startswith("EQUIVALENT: onnx-int8 against its teacher torch-fp32")
    assert "FP32 reference" not in out


def test_without_the_teachers_artifact_its_claim_is_left_out_and_said(run: Run, said: Said) -> None:
    teacher = run.read()["teacher_run"]
    shutil.rmtree(run.path.parent / teacher / "artifacts")
    code, out, err = said(str(run.artifacts / "onnx-int8"), *DECIDABLE)
    assert code == 0
    assert "teacher" not in out
    assert f"octc export {teacher} --target torch" in err
    code, _, err = said("--against", "teacher")
    assert (code, "OCT-E107" in err, f"octc export {teacher} --target torch" in err) == (2, True, True)


def test_the_select_set_has_its_own_words_key_and_no_plan(run: Run, said: Said) -> None:
    code, out, _ = said(str(run.artifacts / "onnx-int8"), "--set", "select", *DECIDABLE)
    assert code == 0
    assert out.startswith("EQUIVALENT on the validation set: ")
    assert "validation set, n=32" in out
    assert uses(run) == 0
    assert verdict_of(run, "onnx-int8") is None
    assert verdict_of(run, "onnx-int8", "select")["set"]["name"] == "select"


def test_five_views_are_a_row_of_their_own_beside_the_headline(run: Run, said: Said) -> None:
    code, out, _ = said(str(run.artifacts / "onnx-int8"), "--tta", "5", "--against", "fp32", *DECIDABLE)
    assert code == 0
    heads = [line for line in out.splitlines() if line.startswith("EQUIVALENT")]
    assert [" with TTA 5" in line for line in heads] == [False, True]
    document = verdict_of(run, "onnx-int8")
    assert (document["set"]["tta"], [row["set"]["tta"] for row in document["tta"]]) == ("none", ["5"])
    assert document["tta"][0]["agreement"] != document["agreement"]
    _, _, err = said(str(run.artifacts / "onnx-int8"), "--against", "fp32", *DECIDABLE)
    assert "are read back" in err  # five views hold the one


def test_fp32_is_compared_with_another_fp32_else_with_itself_which_shows_nothing(run: Run, said: Said) -> None:
    code, out, _ = said(str(run.artifacts / "onnx-fp32"), "--against", "fp32", *DECIDABLE)
    assert code == 1
    assert "self_comparison" in out
    assert "identical artifacts" in out
    assert main(("export", run.id, "--target", "torch", "-q")) == 0
    code, out, _ = said(str(run.artifacts / "onnx-fp32"), "--against", "fp32", *DECIDABLE, "-v")
    assert code == 0
    assert "onnx-fp32 against its FP32 reference torch-fp32" in out
    assert "K1: within its row" in out


def test_only_the_reference_is_nothing_to_compare(run: Run, said: Said) -> None:
    for name in ("onnx-int8", "openvino-int8", "tensorrt-int8"):
        shutil.rmtree(run.artifacts / name)
    code, _, err = said()
    assert (code, "OCT-E107" in err, f"octc export {run.id} --int8" in err) == (2, True, True)
    code, out, _ = said("--against", "teacher", *DECIDABLE)  # against the teacher it is a candidate
    assert (code, "onnx-fp32 against its teacher" in out) == (0, True)


@pytest.mark.parametrize(("words", "code"), [
    (("--margin", "0"), "OCT-E104"), (("--margin", "-1"), "OCT-E104"), (("--alpha", "0.5"), "OCT-E104"),
    (("--against", "me"), "OCT-E104"), (("--set", "train"), "OCT-E104"), (("--tta", "7"), "OCT-E104"),
    (("--test", "x"), "OCT-E104"), (("--tier", "98"), "OCT-E104"), (("--bootstrap", "5"), "OCT-E104"),
    (("--threads", "0"), "OCT-E104"), (("--plan-discordance", "0"), "OCT-E104"), (("nothing-here",), "OCT-E107"),
])  # fmt: skip
def test_wrong_use_ends_with_2_and_looks_at_nothing(run: Run, said: Said, words: tuple[str, ...], code: str) -> None:
    found, _, err = said(*words)
    assert (found, f"error[{code}]" in err) == (2, True), err
    assert uses(run) == 0


def test_equivalence_asked_for_and_only_non_inferiority_shown(run: Run, said: Said) -> None:
    """D = 0 with n = 32 gives +-23.1 pp: within 30 both ways, so tost holds; within 20 neither does."""
    assert said(str(run.artifacts / "onnx-int8"), "--against", "fp32", "--test", "tost", *DECIDABLE)[0] == 0
    code, out, _ = said(str(run.artifacts / "onnx-int8"), "--against", "fp32", "--test", "tost", *DECIDABLE, "--margin", "20")
    assert (code, "two one-sided tests" in out) == (1, True)
