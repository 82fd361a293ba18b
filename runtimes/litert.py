"""LiteRT (TFLite) on the CPU with its XNNPACK delegate: T threads, channels last, one image at a time or a static batch."""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.optional import need
from octc.imaging.preprocess import Float32, UInt8
from octc.machine.host import versions
from octc.runtimes.base import broken, check_batch, check_logits, closed, no_facts
from octc.store.artifacts import Artifact, read_listed

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
NAMES = {"int8": "int8", "uint8": "int8", "float32": "fp32", "float16": "fp16"}
OWN_LINE = re.compile(rb"(?:VERBOSE|INFO|WARNING|ERROR|FATAL): |[IWEF]\d{4} ")
_stderr = threading.Lock()


class LiteRtRuntime:
    """An opened .tflite file."""

    def __init__(self, folder: Path, artifact: Artifact, threads: int, batch: int | None) -> None:
        need("ai_edge_litert")
        from ai_edge_litert.interpreter import Interpreter

        self.name = artifact.name
        self._artifact = artifact
        self._size = batch or 1
        self._data = read_listed(folder, artifact, artifact.main_file)  # the interpreter copies none of it
        try:
            with _quiet():
                self._interpreter: Any = Interpreter(model_content=self._data, num_threads=threads)
                inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
                if [len(inputs), len(outputs), np.dtype(inputs[0]["dtype"]).name] != [1, 1, "uint8"]:
                    raise ValueError("it does not take one uint8 tensor and give one tensor")
                self._input, self._output = inputs[0]["index"], outputs[0]["index"]
                self._allocate()
        except (ValueError, RuntimeError) as error:
            raise broken(artifact, error) from error
        inside, beside = self._kernels()
        self.facts = {
            **no_facts("litert", version()),
            "provider": "XNNPACK" if inside else "built-in kernels",
            "device": "CPU",
            "threads": threads,
            "batch": batch,
            "delegated": dict(sorted(inside.items())),
            "not_delegated": dict(sorted(beside.items())),
        }

    def _allocate(self) -> None:
        pre = self._artifact.preprocess
        self._interpreter.resize_tensor_input(self._input, (self._size, pre.size, pre.size, pre.channels), strict=True)
        self._interpreter.allocate_tensors()

    def resize(self, batch: int) -> None:
        """Run so many images at once from now on, where it was opened for a number of them."""
        if self.facts["batch"] in (None, batch):
            return
        self._size = self.facts["batch"] = batch
        try:
            with _quiet():
                self._allocate()
        except (ValueError, RuntimeError) as error:
            raise broken(self._artifact, error) from error

    def __call__(self, batch: UInt8) -> Float32:
        if self._interpreter is None:
            raise closed(self.name)
        check_batch(batch, self._artifact)
        images = np.ascontiguousarray(batch.transpose(0, 2, 3, 1))
        parts = [self._run(images[start : start + self._size]) for start in range(0, len(images), self._size)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, images: UInt8) -> Float32:
        count = len(images)
        if count < self._size:  # the last part is filled up
            images = np.concatenate([images, np.repeat(images[-1:], self._size - count, axis=0)])
        try:
            self._interpreter.set_tensor(self._input, images)
            self._interpreter.invoke()
            found = self._interpreter.get_tensor(self._output)  # a copy
        except (ValueError, RuntimeError) as error:
            raise broken(self._artifact, error) from error
        return check_logits(found, self._size, self._artifact)[:count]

    def _kernels(self) -> tuple[Counter[str], Counter[str]]:
        """Operators that the delegate runs, and those beside it, each as "CONV_2D int8"."""
        operators = self._interpreter._get_ops_details()  # there is no public way to ask
        inside = delegated([one for one in operators if one["op_name"] == "DELEGATE"], operators)
        known: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        for one in operators:
            if one["op_name"] != "DELEGATE":
                known[one["index"] not in inside][f"{one['op_name']} {precision_of(one)}"] += 1
        return known

    def precision_found(self) -> dict[str, int]:
        if self._interpreter is None:
            raise closed(self.name)
        counts: Counter[str] = Counter()
        for kernels in self._kernels():
            for name, count in kernels.items():
                kind, _, precision = name.partition(" ")
                if kind in CONVOLUTIONS:
                    counts[precision] += count
        return dict(counts)

    def close(self) -> None:
        self._interpreter, self._data = None, b""


def open_litert(folder: Path, artifact: Artifact, threads: int, batch: int | None) -> LiteRtRuntime:
    """Open a LiteRT artifact; with `batch` images run in such parts, else one by one.

    Raises:
        OctcError: E502 the file cannot be opened, E901 ai-edge-litert is not installed.
    """
    return LiteRtRuntime(folder, artifact, threads, batch)


def delegated(delegates: list[dict[str, Any]], operators: list[dict[str, Any]]) -> set[int]:
    """Which operators were replaced by a delegate's: those that its results are made by, back to what it reads."""
    makers = {int(tensor): one for one in operators if one["op_name"] != "DELEGATE" for tensor in one["outputs"]}
    inside: set[int] = set()
    for one in delegates:
        given, waiting = {int(t) for t in one["inputs"]}, [int(t) for t in one["outputs"]]
        while waiting:
            maker = makers.get(waiting.pop())
            if maker is not None and maker["index"] not in inside:
                inside.add(maker["index"])
                waiting += [int(t) for t in maker["inputs"] if int(t) >= 0 and int(t) not in given]
    return inside


def precision_of(operator: dict[str, Any]) -> str:
    """int8 where codes come out of it (or go into a conversion), fp32 and the like where floats do."""
    name = str(np.dtype(operator["result_types"][0]).name)
    return NAMES.get(name, name)


def version() -> str:
    """Of the installed package."""
    return versions(("ai-edge-litert",)).get("ai-edge-litert", "unknown")


def probe(library: str) -> dict[str, Any]:
    """What `octc doctor` says of the engine."""
    need(f"{library}.interpreter")
    return {"version": version(), "devices": ["CPU"]}


@contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT writes a line to stderr when it makes its delegate, and no setting keeps it from that (2.3.0).

    Stderr belongs to the process: what other threads write meanwhile (the log of a server that reads its artifacts again, a
    warning) comes out at the end.
    """
    with _stderr:
        kept = os.dup(2)
        aside = os.memfd_create("stderr") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(aside, 2)
            yield
        finally:
            os.dup2(kept, 2)
            written = os.pread(aside, os.fstat(aside).st_size, 0)
            with suppress(OSError):  # stderr that cannot be written stops nothing
                os.write(kept, b"".join(line for line in written.splitlines(keepends=True) if not OWN_LINE.match(line)))
            os.close(kept)
            os.close(aside)
