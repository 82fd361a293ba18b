"""What is measured is fixed before anything runs: which artifacts, which rows, against what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from octc.bench.timing.plan import NOT_QUICK, ONLY_BLOCKS, Plan, check_gates, make_plan
from octc.bench.timing.profiles import CANDIDATE, QUICK, REFERENCE, STANDARD, Options, reaches_minimum
from octc.bench.timing.render import plan_rows
from octc.core.errors import OctcError
from octc.imaging.preprocess import Preprocess
from octc.store.artifacts import Artifact
from octc.store.find import Found

ALL = ("onnx-fp16", "onnx-fp32", "onnx-int8", "openvino-fp16", "openvino-int8", "tensorrt-int8", "torch-fp32")


def found(name: str, role: str = "student") -> Found:
    target, precision = name.split("-")
    artifact = Artifact(name, role, "net", target, precision, ("a", "b"), Preprocess(64), {"run": "r-1"}, main_file="m")
    return Found(Path(role) / name, artifact)


def plan(
    names: tuple[str, ...] = ALL, teachers: tuple[str, ...] = ("torch-fp32", "onnx-fp32"), quick: bool = False,
    named: bool = False, why: str | None = None, **more: object,
) -> Plan:  # fmt: skip
    options = Options(QUICK if quick else STANDARD, 2, "quota", **more)  # type: ignore[arg-type]
    founds, references = [found(n) for n in names], [found(n, "teacher") for n in teachers]
    return make_plan(founds, references, options, [named] * len(founds), why)


def rows_of(made: Plan, name: str) -> list[tuple[str, int]]:
    return [(row.scope, row.batch) for row in made.measured() if row.subject == name and not row.hidden]


def test_standard_profile_measures_all_that_runs_here() -> None:
    made = plan()
    for name in ALL[:5]:
        assert rows_of(made, name) == [("device", 1), ("end_to_end", 1), ("device", 8)]
    missing = [row for row in made.rows if row.subject == "tensorrt-int8"]
    assert [row.na is not None for row in missing] == [True]
    assert "engine" in str(missing[0].na)
    assert {row.na for row in made.rows if row.scope == "host"} == {"same_as_device"}
    assert rows_of(made, "teacher-torch-fp32") == [("device", 1), ("end_to_end", 1)]
    assert made.gated == ("openvino-int8",)  # the one that `octc predict` takes


def test_as_shipped_is_the_teacher_as_it_was_trained_and_same_precision_the_same_file_format() -> None:
    made = plan()
    shipped = [v for v in made.versus if v.kind == "as_shipped"]
    assert {v.others for v in shipped} == {("teacher-torch-fp32",)}
    assert [v.scope for v in shipped if v.candidate == "openvino-int8"] == ["device", "end_to_end"]
    assert {v.candidate for v in shipped} == {*ALL} - {"tensorrt-int8"}
    same = [v for v in made.versus if v.kind == "same_precision"]
    assert {(v.candidate, v.others) for v in same} == {("onnx-fp32", ("teacher-onnx-fp32",))}
    same = [v for v in plan(teachers=("onnx-fp32", "openvino-fp16")).versus if v.kind == "same_precision"]
    assert {(v.candidate, v.others) for v in same} == {("openvino-fp16", ("teacher-openvino-fp16",))}


def test_int8_is_compared_with_the_float_files_of_its_engine_else_with_any() -> None:
    found_ = {v.candidate: v.others for v in plan().versus if v.kind == "int8_vs_other"}
    assert found_ == {"onnx-int8": ("onnx-fp16", "onnx-fp32"), "openvino-int8": ("openvino-fp16",)}
    alone = plan(("openvino-int8", "onnx-fp32"))
    assert [v.others for v in alone.versus if v.kind == "int8_vs_other"] == [("onnx-fp32",)]
    assert not [v for v in plan(("openvino-int8",)).versus if v.kind == "int8_vs_other"]


def test_quick_profile_measures_int8_and_one_float_file_of_each_engine_and_says_so() -> None:
    made = plan(quick=True)
    assert made.notes[0] == "quick profile: not comparable, not for publication"
    assert "openvino-int8 only" in made.notes[1]
    assert rows_of(made, "openvino-int8") == [("device", 1), ("end_to_end", 1), ("device", 8)]
    for name in ("onnx-fp32", "onnx-int8", "openvino-fp16"):
        assert rows_of(made, name) == [("device", 1)]
    assert [row.na for row in made.rows if row.subject == "torch-fp32"] == [NOT_QUICK]
    assert [row.na for row in made.rows if row.subject == "teacher-onnx-fp32"] == [ONLY_BLOCKS]
    options = Options(QUICK, 2, "quota")
    assert made.seconds(options) < 130
    assert plan().seconds(Options(STANDARD, 2, "quota")) > 20 * 60


def test_quick_profile_measures_a_named_artifact_in_full() -> None:
    made = plan(("torch-fp32", "onnx-fp16"), quick=True, named=True)
    for name in ("torch-fp32", "onnx-fp16"):
        assert rows_of(made, name) == [("device", 1), ("end_to_end", 1), ("device", 8)]
    assert len(made.notes) == 1
    assert made.gated == ("onnx-fp16", "torch-fp32")
    assert plan(quick=True).gated == ("openvino-int8",)


def test_one_batch_size_that_was_asked_for_is_the_only_one() -> None:
    made = plan(batch=4)
    assert rows_of(made, "onnx-int8") == [("device", 4), ("end_to_end", 4)]
    assert rows_of(made, "teacher-torch-fp32") == [("device", 4), ("end_to_end", 4)]


def test_offline_measures_throughput_and_compares_nothing() -> None:
    made = plan(scenario="offline")
    assert rows_of(made, "onnx-int8") == [("device", 0)]
    assert not made.versus
    assert {s.role for s in made.subjects} == {CANDIDATE}


def test_r09_teacher_that_is_not_here_or_cannot_run_is_na_with_the_reason_and_there_is_no_ratio() -> None:
    made = plan(teachers=(), why="no artifact of its teacher r-9 is here; where that run is: octc export r-9 --target all")
    teacher = [row for row in made.rows if row.subject == "teacher"]
    assert "octc export r-9" in str(teacher[0].na)
    assert [v.na for v in made.versus if v.kind == "as_shipped"] == [teacher[0].na]
    made = plan(teachers=("tensorrt-int8",))
    assert [v.na is not None for v in made.versus if v.kind == "as_shipped"] == [True]
    assert "engine" in str(next(row.na for row in made.rows if row.subject.startswith("teacher")))
    assert not [v for v in plan(vs="none").versus if v.kind != "int8_vs_other"]


def test_teacher_in_torch_that_cannot_run_here_stays_visible_beside_the_one_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octc.runtimes.registry.have", lambda module: module != "torch")
    made = plan()
    assert "octc[train]" in str(next(row.na for row in made.rows if row.subject == "teacher-torch-fp32"))
    assert {v.others for v in made.versus if v.kind == "as_shipped"} == {("teacher-onnx-fp32",)}


def test_artifacts_that_cannot_run_at_all_are_an_error_of_the_environment() -> None:
    with pytest.raises(OctcError) as caught:
        plan(("tensorrt-int8",))
    assert caught.value.exit_code == 4


def test_artifacts_of_the_same_name_are_told_apart() -> None:
    made = plan(("onnx-fp32", "onnx-fp32"), teachers=())
    assert [s.id for s in made.subjects] == ["onnx-fp32.1", "onnx-fp32.2"]


def test_plan_for_people_lists_rows_and_comparisons_with_their_least() -> None:
    lines = plan_rows(plan(), Options(STANDARD, 2, "quota"))
    assert ("onnx-int8", "device, batch 8", "60", "1024") in lines
    assert ("onnx-fp32", "same precision, device, against teacher-onnx-fp32", "20", "10 pairs of blocks") in lines
    assert not [line for line in lines if "host" in line[1]]


def test_r02_a_minimum_that_an_option_lowered_still_counts() -> None:
    lowered = Options(STANDARD, 1, "option", duration_s=1.0, min_queries=10)
    assert lowered.limits(CANDIDATE).min_queries == 10
    assert not reaches_minimum(lowered, CANDIDATE, 5000, 1.0)
    assert not reaches_minimum(lowered, CANDIDATE, 1023, 61.0)
    assert reaches_minimum(lowered, CANDIDATE, 1024, 60.0)
    assert Options(STANDARD, 1, "option").limits(CANDIDATE).duration_s == 60


def test_slow_teacher_ended_by_the_longest_time_is_valid_from_100_queries_on() -> None:
    plain = Options(STANDARD, 1, "option")
    assert reaches_minimum(plain, REFERENCE, 100, 600.0)
    assert not reaches_minimum(plain, REFERENCE, 99, 600.0)
    assert not reaches_minimum(plain, REFERENCE, 100, 599.0)
    assert not reaches_minimum(plain, CANDIDATE, 1000, 600.0)
    assert not reaches_minimum(replace(plain, max_duration_s=20.0), REFERENCE, 500, 20.0)
    quick = Options(QUICK, 1, "option")
    assert quick.limits(REFERENCE).min_queries == 20
    assert reaches_minimum(quick, REFERENCE, 20, 10.0)
    assert not reaches_minimum(quick, CANDIDATE, 458, 10.0)


@pytest.mark.parametrize(
    ("profile", "scenario", "gates"),
    [(QUICK, "single_stream", {"max_p90_ms": 3.0}), (STANDARD, "single_stream", {"min_images_per_s": 3.0}),
     (STANDARD, "offline", {"max_p50_ms": 3.0})],
)  # fmt: skip
def test_gates_that_cannot_be_judged_are_refused(profile: object, scenario: str, gates: dict[str, float]) -> None:
    with pytest.raises(OctcError) as caught:
        check_gates(Options(profile, 1, "option", scenario=scenario, gates=gates))  # type: ignore[arg-type]
    assert caught.value.code == "OCT-E102"
    assert caught.value.exit_code == 2
