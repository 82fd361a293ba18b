"""ONNX Runtime on the CPU: one provider, T threads, sequential, every setting read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.faults import filling
from octc.core.optional import need
from octc.core.scratch import scratch
from octc.imaging.preprocess import Float32, UInt8
from octc.machine.cpu import usable_threads
from octc.runtimes.base import broken, check_batch, check_logits, closed, no_facts
from octc.runtimes.onnx_reader import convolution_precisions
from octc.store.artifacts import Artifact, read_listed

PROVIDERS = ("CPUExecutionProvider",)


class OrtRuntime:
    """An opened ONNX file."""

    def __init__(self, folder: Path, artifact: Artifact, threads: int, providers: tuple[str, ...] = PROVIDERS) -> None:
        self.name = artifact.name
        self._artifact = artifact
        self._folder = folder
        self._session: Any = _open(folder, artifact, threads, providers)
        found = tuple(self._session.get_providers())
        require_providers(providers, found)
        ort = need("onnxruntime")
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [one.type for one in (*inputs, *outputs)] != ["tensor(uint8)", "tensor(float)"]:
            raise broken(artifact, ValueError("it does not take one uint8 tensor and give one float tensor"))
        self._input, self._output = inputs[0].name, outputs[0].name
        self.facts = {
            **no_facts("onnxruntime", ort.__version__),
            "provider": found[0],
            "providers": list(found),
            "device": "CPU",
            "threads": self._session.get_session_options().intra_op_num_threads,
            "inter_op_threads": 1,
            "execution": "sequential",
            "optimisation": "all",
            "precision_hint": None,
        }

    def __call__(self, batch: UInt8) -> Float32:
        if self._session is None:
            raise closed(self.name)
        check_batch(batch, self._artifact)
        try:
            found = self._session.run([self._output], {self._input: batch})[0]
        except Exception as error:  # onnxruntime's errors share no base class
            raise broken(self._artifact, error) from error
        return check_logits(found, len(batch), self._artifact)

    def precision_found(self) -> dict[str, int]:
        """Counted in the graph that ONNX Runtime made of the file: it is written out once, to a temporary folder."""
        with scratch("graph") as folder, filling(folder):
            path = folder / "optimised.onnx"
            _open(self._folder, self._artifact, 1, PROVIDERS, optimised=path)
            return convolution_precisions(path)

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
        raise OctcError("OCT-E601", text, hint="octc doctor shows what is available here")


def reference_session(model: Path | bytes, *, optimised: bool = False, threads: int | None = None) -> Any:
    """A plain session on the CPU, to compare with and to look into; by default every operator runs as it is written.

    threads: None takes the usable physical cores within the quota. onnxruntime's own errors come through: what they mean,
    the caller knows.
    """
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_threads()[0]
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(model) if isinstance(model, Path) else model, options, providers=list(PROVIDERS))


def _open(folder: Path, artifact: Artifact, threads: int, providers: tuple[str, ...], optimised: Path | None = None) -> Any:
    ort = need("onnxruntime")
    absent = [name for name in providers if name not in ort.get_available_providers()]
    if absent:
        text = f"provider not in this onnxruntime: {', '.join(absent)}"
        hint = f"one of: {', '.join(ort.get_available_providers())}"
        raise OctcError("OCT-E601", text, hint=hint)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors: what octc refuses, it says itself
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    data = read_listed(folder, artifact, artifact.main_file)
    try:
        return ort.InferenceSession(data, options, providers=list(providers))
    except Exception as error:  # onnxruntime's errors share no base class
        raise broken(artifact, error) from error
