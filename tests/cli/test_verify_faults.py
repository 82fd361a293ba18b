"""`octc verify` when something is wrong: images, artifacts, references, folders. Each fault is injected for real."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from octc.bench.parity import open_artifact as verify_open
from octc.datasets.split import read_split
from octc.store.runs import Run
from tests.cli.test_verify import Said, made, run, said, uses, verdict_of
from tests.cli.verify_runs import DECIDABLE, change_logits, constant, read_manifest, respelled, spoil_golden

__all__ = ["made", "run", "said"]  # fixtures


def test_d27_a_changed_test_image_is_refused_and_nothing_is_looked_at(run: Run, said: Said, tmp_path: Path) -> None:
    first, second, *_ = read_split(run.split).parts["test"]
    Image.new("L", (80, 80), 3).save(tmp_path / "patterns" / first.path)
    (tmp_path / "patterns" / second.path).write_bytes(b"cut")
    code, _, err = said(str(run.artifacts / "onnx-int8"))
    assert (code, "OCT-E216" in err) == (3, True)
    assert f"changed {first.path}" in err
    assert f"changed {second.path}" in err
    assert uses(run) == 0
    assert not (run.path / "records").exists()


def test_without_the_images_only_the_golden_ones_are_checked(run: Run, said: Said, tmp_path: Path) -> None:
    shutil.move(tmp_path / "patterns", tmp_path / "elsewhere")
    code, out, err = said("--json")
    assert code == 0, err
    documents = json.loads(out)["data"]["artifacts"]
    assert [one["verdict"]["word"] for one in documents] == ["golden_only", "golden_only"]
    assert "not on this machine" in documents[0]["set_reason"]
    assert verdict_of(run, "onnx-int8") is None
    assert uses(run) == 0
    code, _, err = said("--require-set")
    assert (code, "OCT-E230" in err) == (3, True)
    code, _, err = said("--data", "nowhere")
    assert (code, "OCT-E230" in err) == (3, True)
    assert said("--data", "elsewhere", "--against", "fp32", *DECIDABLE)[0] == 0
    assert said("--against", "fp32", *DECIDABLE)[0] == 0  # golden only again
    assert verdict_of(run, "onnx-int8")["verdict"]["word"] == "equivalent"  # which does not touch what was measured


def test_an_edge_box_says_where_it_was_measured(run: Run, said: Said, tmp_path: Path) -> None:
    folder = run.artifacts / "onnx-int8"
    assert said(str(folder), *DECIDABLE)[0] == 0
    (tmp_path / "box").mkdir()
    shutil.copytree(folder, tmp_path / "box" / "onnx-int8")
    code, out, _ = said(str(tmp_path / "box" / "onnx-int8"), "--run-dir", str(tmp_path / "none"))
    assert code == 0
    assert out.startswith("GOLDEN ONLY: onnx-int8")
    assert "measured elsewhere" in out
    assert "equivalent · margin 30 pp, alpha 0.05, n=32, test set, 8 patients" in out


def test_golden_images_that_differ_fail_before_the_test_set_is_used(run: Run, said: Said) -> None:
    spoil_golden(run.artifacts / "onnx-int8")
    code, out, err = said(str(run.artifacts / "onnx-int8"))
    assert (code, "OCT-E506" in err) == (1, True)
    assert out.startswith("FAIL: onnx-int8: golden outputs differ on this machine")
    assert uses(run) == 0
    code, out, err = said("--against", "fp32", *DECIDABLE)  # the other one is judged all the same
    assert (code, "error[OCT-E506]" in err) == (1, True)
    assert "EQUIVALENT (exploratory)" not in out
    assert "EQUIVALENT: openvino-int8" in out


def test_a_reference_that_computes_something_else_is_refused(run: Run, said: Said) -> None:
    spoil_golden(run.artifacts / "onnx-fp32")
    code, _, err = said(str(run.artifacts / "onnx-int8"))
    assert (code, "OCT-E708" in err, uses(run)) == (3, True, 0)


def test_without_an_fp32_artifact_there_is_no_verdict(run: Run, said: Said) -> None:
    shutil.rmtree(run.artifacts / "onnx-fp32")
    code, _, err = said()
    assert (code, "OCT-E708" in err, f"octc export {run.id} --target onnx --fp32" in err) == (3, True, True)


def test_a_constant_predictor_is_at_chance(run: Run, said: Said) -> None:
    shutil.copytree(run.artifacts / "onnx-fp32", run.artifacts / "onnx-fp16")
    change_logits(run.artifacts / "onnx-fp16", constant, name="onnx-fp16", precision="fp16")
    code, out, err = said(str(run.artifacts / "onnx-fp16"), *DECIDABLE)
    assert (code, "error[OCT-E702]" in err) == (1, True)
    assert out.startswith("FAIL: onnx-fp16")
    assert "chance_level" in out
    assert "tier_99" in out
    assert "NOT TESTED: onnx-fp16 against its teacher" in out


def test_a_reference_at_chance_is_nothing_worth_preserving(run: Run, said: Said) -> None:
    change_logits(run.artifacts / "onnx-fp32", constant)
    code, _, err = said(str(run.artifacts / "onnx-int8"), *DECIDABLE)
    assert (code, "OCT-E708" in err, "at chance" in err) == (3, True, True)


def test_worse_calibration_is_its_own_failure(run: Run, said: Said) -> None:
    shutil.copytree(run.artifacts / "onnx-fp32", run.artifacts / "onnx-fp16")
    change_logits(run.artifacts / "onnx-fp16", lambda v: v * np.float32(0.2), name="onnx-fp16", precision="fp16")
    code, out, err = said(str(run.artifacts / "onnx-fp16"), *DECIDABLE)
    assert (code, "error[OCT-E707]" in err) == (1, True)
    assert "reasons      ece" in out


def test_logits_that_are_not_finite_fail_with_the_images(run: Run, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine gives NaN for one image of the test set, and the right golden images."""
    opened = verify_open.open_runtime

    def spoiling(folder: Path, artifact: Any, **more: Any) -> Any:
        runtime = opened(folder, artifact, **more)
        if artifact.precision != "int8":
            return runtime
        call = type(runtime).__call__

        class Spoilt(type(runtime)):  # type: ignore[misc]
            def __call__(self, batch: Any) -> Any:
                out = call(self, batch)
                if len(batch) == 16:  # golden images are eight
                    out[2, 1] = np.nan
                return out

        runtime.__class__ = Spoilt
        return runtime

    monkeypatch.setattr(verify_open, "open_runtime", spoiling)
    code, out, err = said(str(run.artifacts / "onnx-int8"), *DECIDABLE)
    assert (code, "error[OCT-E701]" in err) == (1, True)
    assert "not finite   2 of 32 images" in out
    document = verdict_of(run, "onnx-int8")
    assert document["accuracy"] is None
    assert len(document["not_finite"]) == 2


def test_b01_a_flipped_byte_is_refused_by_name_and_passed_over_among_several(run: Run, said: Said) -> None:
    path = run.artifacts / "onnx-int8" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(bytes(data))
    code, _, err = said(str(run.artifacts / "onnx-int8"))
    assert (code, "OCT-E501" in err, "model.onnx" in err) == (3, True, True)
    code, out, err = said("--against", "fp32", *DECIDABLE)
    assert (code, "passed over" in err) == (0, True)
    assert "EQUIVALENT: openvino-int8" in out


def test_a_file_that_no_engine_opens_does_not_stop_the_others(run: Run, said: Said) -> None:
    folder = run.artifacts / "onnx-int8"
    (folder / "model.onnx").write_bytes(b"no model at all")
    respelled(folder)
    code, out, err = said("--against", "fp32", *DECIDABLE)
    assert code == 3
    assert "EQUIVALENT: openvino-int8" in out
    assert "NOT OPENED: onnx-int8" in out
    assert "error[OCT-E50" in err
    code, _, err = said(str(folder))
    assert (code, "error[OCT-E50" in err) == (3, True)


def test_d25_a_calibration_image_in_test_is_refused(run: Run, said: Said) -> None:
    folder = run.artifacts / "onnx-int8"
    leaked = read_split(run.split).parts["test"][0]
    details = read_manifest(folder).details
    assert details["quantisation"]["calibration"]  # the export lists what it calibrated on
    details["quantisation"]["calibration"].append(leaked.sha256)
    respelled(folder, details=details)
    code, _, err = said(str(folder))
    assert (code, "OCT-E214" in err, leaked.path in err, uses(run)) == (3, True, True, 0)


def test_an_artifact_of_another_split_is_refused(run: Run, said: Said) -> None:
    folder = run.artifacts / "onnx-int8"
    respelled(folder, lineage={**read_manifest(folder).lineage, "split_digest": "0" * 64})
    code, _, err = said(str(folder))
    assert (code, "OCT-E216" in err) == (3, True)


def test_a_teacher_of_another_split_makes_no_claim(run: Run, said: Said) -> None:
    teacher = run.path.parent / run.read()["teacher_run"] / "artifacts" / "torch-fp32"
    respelled(teacher, lineage={**read_manifest(teacher).lineage, "split_digest": "0" * 64})
    code, out, err = said(str(run.artifacts / "onnx-int8"), *DECIDABLE)
    assert (code, "no claim against the teacher" in err) == (0, True)
    assert "teacher" not in out
    assert said(str(run.artifacts / "onnx-int8"), "--against", "teacher")[0] == 3


def test_a_result_that_cannot_be_stored_is_a_warning(run: Run, said: Said) -> None:
    (run.artifacts / "onnx-int8" / "verify.json").mkdir()
    code, out, err = said(str(run.artifacts / "onnx-int8"), *DECIDABLE)
    assert (code, "warning[OCT-W701]" in err) == (0, True)
    assert out.startswith("EQUIVALENT: ")


def test_a_damaged_record_of_the_uses_stops_the_look(run: Run, said: Said) -> None:
    (run.path / "verify-plan.json").write_text("{")
    code, _, err = said(str(run.artifacts / "onnx-int8"))
    assert (code, "OCT-E709" in err) == (3, True)
    assert not (run.path / "records").exists()


def test_it_works_without_torch(run: Run, tmp_path: Path) -> None:
    script = "import sys; sys.modules['torch'] = None\nfrom octc.cli._app.main import main\nsys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", script, "verify", str(run.artifacts / "onnx-int8"), *DECIDABLE]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "EQUIVALENT: onnx-int8" in done.stdout
    assert "no claim against the teacher" in done.stderr
