"""An inference engine asked in a process of its own: what it is, and what it can read. One JSON document on stdout.

A library that crashes, or hangs, then does so there and not in `octc doctor`.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import Any

from octc.core.files import parse_json
from octc.core.offline import go_offline
from octc.core.optional import need, openvino_core
from octc.core.protobuf import bytes_field, number_field
from octc.core.targets import TARGETS, called
from octc.machine.emulated import emulated

SECONDS = 4.0
EMULATED_SECONDS = 120.0  # under an emulator
NEWEST_OPSET, NEWEST_IR = 40, 30  # where the search for what an engine reads begins


def ask(target: str, seconds: float | None = None) -> dict[str, Any]:
    """What the installed engine of a target says of itself; {"error": why} or {"slow": why} where it does not.

    seconds: that it may take; None: 4, or 120 under an emulator.
    """
    seconds = seconds or (EMULATED_SECONDS if emulated() else SECONDS)
    code = f"from octc.runtimes.probe import answer; answer({target!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"slow": f"no answer within {seconds:g} s"}
    except OSError as error:  # under qemu-user without a script as `sys.executable`: another processor's program
        return {"error": f"this Python cannot start itself: {error.strerror}"}
    try:
        value: dict[str, Any] = parse_json(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return {"error": lines[-1][:200] if lines else f"it ended with {done.returncode}"}
    return value


def answer(target: str) -> None:
    """In the process of its own: print what the engine says."""
    if os.environ.get("OCTC_OFFLINE") == "1":
        go_offline()
    sys.stdout.write("\n" + json.dumps(_said(target)) + "\n")


def _said(target: str) -> dict[str, Any]:
    engine = TARGETS[target]
    found: dict[str, Any] = called(engine.asks)(engine.library)
    return found


def onnxruntime(_library: str) -> dict[str, Any]:
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4

    def reads(ir: int, opset: int) -> bool:
        try:
            ort.InferenceSession(smallest_onnx(ir, opset), options, providers=["CPUExecutionProvider"])
        except Exception:  # onnxruntime's errors share no base class
            return False
        return True

    return {
        "version": ort.__version__,
        "devices": ort.get_available_providers(),
        "opset": next((opset for opset in range(NEWEST_OPSET, 6, -1) if reads(8, opset)), None),
        "ir": next((ir for ir in range(NEWEST_IR, 2, -1) if reads(ir, 13)), None),
    }


def openvino(_library: str) -> dict[str, Any]:
    return {"version": need("openvino").__version__.split("-")[0], "devices": list(openvino_core().available_devices)}


def version_of(library: str) -> dict[str, Any]:
    """Of an engine of which nothing else is asked."""
    return {"version": str(importlib.import_module(library).__version__), "devices": []}


def smallest_onnx(ir: int, opset: int) -> bytes:
    """An ONNX file of one Identity, float [1] -> float [1], written without the onnx package (it is not on an edge box).

    Field numbers as in onnx.proto: ModelProto ir_version 1, graph 7, opset_import 8; GraphProto node 1, name 2, input 11,
    output 12; NodeProto input 1, output 2, op_type 4; ValueInfoProto name 1, type 2.
    """
    shape = bytes_field(1, number_field(1, 1))
    tensor = number_field(1, 1) + bytes_field(2, shape)
    values = {name: bytes_field(1, name) + bytes_field(2, bytes_field(1, tensor)) for name in (b"x", b"y")}
    node = bytes_field(1, b"x") + bytes_field(2, b"y") + bytes_field(4, b"Identity")
    graph = bytes_field(1, node) + bytes_field(2, b"g") + bytes_field(11, values[b"x"]) + bytes_field(12, values[b"y"])
    return number_field(1, ir) + bytes_field(7, graph) + bytes_field(8, number_field(2, opset))
