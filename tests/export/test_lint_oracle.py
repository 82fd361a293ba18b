"""The linter against NVIDIA's compiler, on graphs that it was never tuned on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from octc.export.lint.check import lint, to_repair
from tests.export.oracle import INT8, agreement, judge, need_oracle, promised, stricter
from tests.export.qdq_graphs import Knobs, model
from tests.export.qdq_random import random_model

HELD_OUT = range(60_000, 60_060)  # seeds; rules and judge were written with those below 51,000


@pytest.fixture(scope="module")
def held_out() -> dict[str, onnx.ModelProto]:
    made = {f"seed-{seed}": random_model(seed) for seed in HELD_OUT}
    return {name: one for name, one in made.items() if promised(one)}


def test_linter_and_compiler_agree_on_graphs_kept_aside(held_out: dict[str, onnx.ModelProto], tmp_path: Path) -> None:
    need_oracle()
    verdicts = judge(held_out, tmp_path)
    kinds = set(verdicts.values())
    assert {INT8, "reject", "float"} <= kinds  # the set is neither all good nor all bad
    disagree, laxer = agreement(held_out, verdicts)
    share = 1 - len(disagree) / len(held_out)
    assert laxer == []
    assert share >= 0.95, f"{share:.3f}: {disagree}"


# accepted without a word, and wrong: the linter must say what the compiler does not
SILENT = {
    "uint8 with zero-point 0": (Knobs(code=np.uint8), "E11"),
    "no zero-point": (Knobs(zero_given=False), "E11"),
    "infinite scale": (Knobs(act_scale=float("inf")), "E05"),
    "scale below the normal numbers": (Knobs(act_scale=1e-39), "E05"),
    "int8 bias": (Knobs(bias="int8"), "E03"),
    "constant that is not finite": (Knobs(extra="nan"), "E13"),
    "DQ with another scale": (Knobs(dq_scale=0.2), "W28"),
    "Relu on codes": (Knobs(inner="Relu"), "W40"),
    "only the weight": (Knobs(pairs="weight"), "W20"),
    "only the activation": (Knobs(pairs="activation"), "W20"),
    "axis 1 of a Conv": (Knobs(axis=1), "W21"),
    "ConvTranspose": (Knobs(op="ConvTranspose"), "W24"),
    "scales for each channel of an activation": (Knobs(scale="vector"), "W27"),
    "Relu behind the weight's DQ": (Knobs(weight="relu"), "W20"),
    "AveragePool behind the DQ": (Knobs(between="AveragePool"), "W20"),
    "wrong axis of a Gemm": (Knobs(op="Gemm", axis=1), "W21"),
}


def test_what_is_silently_wrong_is_found_and_compiles(tmp_path: Path) -> None:
    graphs = {name.replace(" ", "_"): model([knobs]) for name, (knobs, _) in SILENT.items()}
    for name, (knobs, rule) in SILENT.items():
        found = to_repair(lint(model([knobs]), "tensorrt"))
        assert rule in {f.rule for f in found}, name
    need_oracle()
    assert set(judge(graphs, tmp_path).values()) <= {INT8, "float"}  # none of them was rejected: only the linter speaks


LOUD = {
    "zero-point 3": (Knobs(zero=3), "E01"),
    "weight zero-point 1": (Knobs(weight_zero=1), "E01"),
    "uint8 with 128": (Knobs(code=np.uint8, zero=128), "E01"),
    "int32 bias": (Knobs(bias="int32"), "E03"),
    "negative scale": (Knobs(act_scale=-0.1), "E05"),
    "zero scale": (Knobs(act_scale=0.0), "E05"),
    "scale that is not a number": (Knobs(weight_scale=float("nan")), "E05"),
    "scale at run time": (Knobs(scale="dynamic"), "E04"),
    "scale as input": (Knobs(scale="input"), "E04"),
    "uint8 weight": (Knobs(weight_code=np.uint8), "E02"),
    "too few scales": (Knobs(weight="short"), "E12"),
    "ConvInteger": (Knobs(extra="integer"), "E07"),
    "Col2Im": (Knobs(extra="Col2Im"), "E08"),
    "custom operator": (Knobs(extra="microsoft"), "E07"),
}


def test_what_the_compiler_rejects_or_crashes_on_is_found(tmp_path: Path) -> None:
    graphs = {name.replace(" ", "_"): model([knobs]) for name, (knobs, _) in LOUD.items()}
    for name, (knobs, rule) in LOUD.items():
        assert rule in {f.rule for f in lint(model([knobs]), "tensorrt") if f.severity == "E"}, name
    half = model([Knobs(scale_type=np.float32)], opset=19, dtype=np.float16)
    codes16 = model([Knobs(code=np.int16)], opset=21)
    assert "E06" in {f.rule for f in lint(half, "tensorrt")}
    assert "E02" in {f.rule for f in lint(codes16, "tensorrt")}
    need_oracle()
    verdicts = judge({**graphs, "half": half, "codes16": codes16}, tmp_path)
    assert set(verdicts.values()) <= {"reject", "crash", "fail"}
    assert "crash" in verdicts.values()  # and this process is still here


LEGAL = {
    "float weight with Q": Knobs(weight="q"), "one scale": Knobs(axis=None), "axis -4": Knobs(axis=-4),
    "no bias": Knobs(bias="none"), "constant scale": Knobs(scale="constant"), "scale behind Identity": Knobs(scale="identity"),
    "depthwise": Knobs(group=16), "5 x 5 depthwise": Knobs(group=16, kernel=(5, 5)), "1 x 1": Knobs(kernel=(1, 1)),
    "SiLU": Knobs(act="Silu"), "ReLU": Knobs(act="Relu"),
    "pooling between Q and DQ": Knobs(inner="MaxPool"), "pooling behind DQ": Knobs(between="MaxPool"), "Gemm": Knobs(op="Gemm"),
    "stem": Knobs(cin=3, cout=32),
}  # fmt: skip


def test_what_is_legal_is_clean_and_runs_in_int8(tmp_path: Path) -> None:
    graphs = {name.replace(" ", "_"): model([knobs]) for name, knobs in LEGAL.items()}
    graphs["half"] = model([Knobs()], opset=19, dtype=np.float16)
    graphs["open_batch"] = model([Knobs(), Knobs(act="Relu")], batch="batch")
    for name, graph in graphs.items():
        assert to_repair(lint(graph, "tensorrt")) == [], name
    need_oracle()
    assert set(judge(graphs, tmp_path).values()) == {INT8}


def test_every_stricter_rule_says_why() -> None:
    assert all(len(reason) > 8 for reason in stricter().values())
    assert not {"E01", "E02", "E04", "W21", "W24"} & set(stricter())
