"""ONNX Runtime on the CPU: one provider, T threads, sequential, every setting read back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from octc.artifact import Artifact
from octc.errors import OctcError
from octc.image import Float32, UInt8
from octc.optional import need
from octc.runtimes.base import broken, check_batch, check_logits, closed, no_facts
from octc.runtimes.onnx_file import count_operators

PROVIDERS = ("CPUExecutionProvider",)
FLOATS = ("Conv", "FusedConv", "NhwcFusedConv")
INT8 = ("QLinearConv", "ConvInteger")


class OrtRuntime:
    """An opened ONNX file."""

    def __init__(self, folder: Path, artifact: Artifact, threads: int, providers: tuple[str, ...] = PROVIDERS) -> None:
        self.name = artifact.name
        self._artifact = artifact
        self._path = folder / artifact.main_file
        self._session: Any = _open(self._path, artifact, threads, providers)
        found = tuple(self._session.get_providers())
        require_providers(providers, found)
        ort = need("onnxruntime")
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self.facts = {
            **no_facts("onnxruntime", ort.__version__), "provider": found[0], "providers": list(found), "device": "CPU",
            "threads": self._session.get_session_options().intra_op_num_threads, "inter_op_threads": 1,
            "execution": "sequential", "optimisation": "all", "precision_hint": None,
        }  # fmt: skip

    def __call__(self, batch: UInt8) -> Float32:
        if self._session is None:
            raise closed(self.name)
        check_batch(batch, self._artifact)
        return check_logits(self._session.run([self._output], {self._input: batch})[0], len(batch), self._artifact)

    def precision_found(self) -> dict[str, int]:
        """Counted in the graph that ONNX Runtime made of the file: it is written out once, to a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="octc-") as folder:
            path = Path(folder) / "optimised.onnx"
            _open(self._path, self._artifact, 1, PROVIDERS, optimised=path)
            counts = count_operators(path)
        half = self._artifact.precision == "fp16"
        found = {"int8": sum(counts.get(name, 0) for name in INT8)}
        found["fp16" if half else "fp32"] = sum(counts.get(name, 0) for name in FLOATS)
        return {name: count for name, count in found.items() if count}

    def close(self) -> None:
        self._session = None


def open_ort(folder: Path, artifact: Artifact, threads: int, batch: int | None) -> OrtRuntime:
    """Open an ONNX artifact; the batch axis is dynamic, so `batch` changes nothing.

    Raises:
        OctcError: E601 a provider is absent or fell back, E502 the file cannot be opened, E901 onnxruntime is not installed.
    """
    del batch
    return OrtRuntime(folder, artifact, threads)


def require_providers(asked: tuple[str, ...], found: tuple[str, ...]) -> None:
    """Every provider that was asked for must be active, and first in its place (E601)."""
    if found[: len(asked)] != asked:
        text = f"provider fell back: asked for {', '.join(asked)}, active is {', '.join(found) or 'none'}"
        raise OctcError("OCT-E601", text, mend="octc doctor shows what is available here")


def _open(path: Path, artifact: Artifact, threads: int, providers: tuple[str, ...], optimised: Path | None = None) -> Any:
    ort = need("onnxruntime")
    ort.disable_telemetry_events()
    absent = [name for name in providers if name not in ort.get_available_providers()]
    if absent:
        text = f"provider not in this onnxruntime: {', '.join(absent)}"
        mend = f"one of: {', '.join(ort.get_available_providers())}"
        raise OctcError("OCT-E601", text, mend=mend)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors: what octc refuses, it says itself
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    try:
        return ort.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # onnxruntime's errors share no base class
        raise broken(artifact, error) from error
