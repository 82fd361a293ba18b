"""NVIDIA's own compiler as the judge of graphs: TensorRT for RTX 1.7.1.116 on the CPU, in processes of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest

from octc.core.optional import have
from octc.export.lint.check import MODEL_RULES, RULES, lint, to_repair

PROBE = Path(__file__).with_name("oracle_probe.py")
INT8, FLOAT = "int8", "float"


def stricter() -> dict[str, str]:
    """Rules that fire where the compiler says nothing, and why."""
    return {rule.id: rule.stricter for rule in (*RULES, *MODEL_RULES.values()) if rule.stricter}


def need_oracle() -> None:
    """Skip with a reason where the compiler cannot be; fail in CI on the one kind of machine that has it."""
    if have("tensorrt_rtx"):
        return
    could = sys.platform == "linux" and platform.machine() == "x86_64"
    reason = "tensorrt-rtx is not installed: pip install 'octc[trt-oracle]'"
    if could and os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def judge(models: Mapping[str, onnx.ModelProto], folder: Path) -> dict[str, str]:
    """For each graph: reject, fail, crash, or what its promised layers run in (int8 only when all of them do)."""
    for name, model in models.items():
        onnx.save(model, str(folder / f"{name}.onnx"))
    subprocess.run([sys.executable, str(PROBE), str(folder)], check=True, timeout=1200)
    verdicts = json.loads((folder / "verdicts.json").read_text())
    return {name: _verdict(verdicts[f"{name}.onnx"], promised(model)) for name, model in models.items()}


def promised(model: onnx.ModelProto) -> list[str]:
    return next((entry.value.split() for entry in model.metadata_props if entry.key == "promised"), [])


def _verdict(found: dict[str, Any], names: list[str]) -> str:
    if found["outcome"] != "built":
        return str(found["outcome"])
    return INT8 if set(names) <= set(found["int8"]) else FLOAT


def agreement(models: Mapping[str, onnx.ModelProto], verdicts: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Graphs on which linter and compiler disagree, and those where the linter is laxer.

    A finding of a rule that is stricter on purpose (its reason stands in the table) does not count where a graph compiles.
    """
    reasons = stricter()
    disagree, laxer = [], []
    for name, model in models.items():
        hint = to_repair(lint(model, "tensorrt-rtx"))
        if verdicts[name] == INT8:
            disagree += [name] if [f for f in hint if f.rule not in reasons] else []
        elif not hint:
            disagree.append(name)
            laxer.append(name)
    return disagree, laxer
