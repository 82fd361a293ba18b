"""OpenVINO on the CPU: FP32 where nothing is quantised, latency hint, T threads, static shapes; all read back."""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from octc.core.errors import OctcError, first_line
from octc.core.optional import need, openvino_core
from octc.imaging.preprocess import Float32, UInt8
from octc.machine.cpu import family_of, read_cpus
from octc.runtimes.base import broken, check_batch, check_logits, closed, no_facts
from octc.runtimes.compiled import VARIABLE, cache_folder, key_of, read_compiled, write_compiled
from octc.store.artifacts import Artifact, read_listed

HINT = "f32"
PERFORMANCE = "LATENCY"
MOST = 32  # images in one compiled shape; more are run in parts
KEPT = 4  # compiled shapes at once
FOR_ARM = "acl"  # encoding of files whose INT8 kernels are those of Arm
# Elsewhere it is computed in f32 on the grids that it states: on x86 OpenVINO 2026.4.1 fuses a convolution, the quantiser
# of its result and the addition behind them, and does not round what is added.
IN_FLOAT = {"LP_TRANSFORMS_MODE": "NO"}
NAMES = {"u8": "int8", "i8": "int8", "f32": "fp32", "f16": "fp16", "bf16": "bf16"}
WORDS = ("layerType", "primitiveType", "runtimePrecision")


class OvRuntime:
    """An opened IR. Every batch size is a network of its own, compiled when it is first needed.

    cache: where compiled networks are kept (`octc.runtimes.compiled`); None: nowhere. not_kept: why one was not, else "".
    """

    def __init__(self, folder: Path, artifact: Artifact, threads: int, batch: int | None, cache: Path | None = None) -> None:
        openvino = need("openvino")
        self.name = artifact.name
        self._artifact = artifact
        self._threads, self._batch = threads, batch
        self._cache, self.not_kept = cache, ""
        self._version = str(openvino.__version__)
        self._core: Any = openvino_core()
        self._files = _files_of(folder, artifact)  # every shape is compiled from them
        self._compiled: OrderedDict[int, Any] = OrderedDict()
        request = self._request(batch or 1)
        self.facts = {
            **no_facts("openvino", self._version.split("-")[0]),
            **read_back(request.get_compiled_model()),
            "batch": batch,
        }

    def __call__(self, batch: UInt8) -> Float32:
        if self._core is None:
            raise closed(self.name)
        check_batch(batch, self._artifact)
        size = self._batch or min(len(batch), MOST)
        if len(batch) == size:
            return self._run(batch)
        return np.concatenate([self._run(batch[start : start + size]) for start in range(0, len(batch), size)])

    def _run(self, images: UInt8) -> Float32:
        if self._batch is not None and len(images) < self._batch:  # the last part is filled up rather than compiled for
            filled = np.concatenate([images, np.repeat(images[-1:], self._batch - len(images), axis=0)])
            return self._run(filled)[: len(images)]
        request = self._request(len(images))
        try:
            found = request.infer({0: np.ascontiguousarray(images)}, share_inputs=True)[0]
        except RuntimeError as error:
            raise broken(self._artifact, error) from error
        return check_logits(np.array(found), len(images), self._artifact)

    def _request(self, size: int) -> Any:
        """The infer request of a batch size; the least recently used one is let go."""
        if size in self._compiled:
            self._compiled.move_to_end(size)
            return self._compiled[size]
        pre = self._artifact.preprocess
        shape = [size, pre.channels, pre.size, pre.size]
        settings = {"INFERENCE_PRECISION_HINT": HINT, "PERFORMANCE_HINT": PERFORMANCE, "INFERENCE_NUM_THREADS": self._threads}
        if self._threads < len(read_cpus().usable):
            # it binds its threads to the first processors, and those of any other network, of any process, to the same ones
            settings["ENABLE_CPU_PINNING"] = False
        if self._artifact.details.get("encoding") == FOR_ARM and family_of() != "arm":
            settings |= IN_FLOAT
        compiled = self._compile(shape, settings) if self._cache is None else self._kept(self._cache, shape, settings)
        self._compiled[size] = compiled.create_infer_request()
        if len(self._compiled) > KEPT:
            self._compiled.popitem(last=False)
        return self._compiled[size]

    def _compile(self, shape: list[int], settings: dict[str, Any]) -> Any:
        """The network of the artifact for a shape, compiled and read back."""
        try:
            model = self._core.read_model(*self._files)
            if [len(model.inputs), len(model.outputs), str(model.input(0).element_type)] != [1, 1, "<Type: 'uint8_t'>"]:
                raise RuntimeError("it does not take one uint8 tensor and give one tensor")
            model.reshape(shape)
            compiled = self._core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            raise broken(self._artifact, error) from error
        require_settings(read_back(compiled), self._threads)
        require_kernels(compiled.get_runtime_model(), self.name)
        return compiled

    def _kept(self, cache: Path, shape: list[int], settings: dict[str, Any]) -> Any:
        """The same from the cache; what is not there, or is not taken by the engine, is compiled and kept.

        Kernels were read back before it was kept: the key names the engine, the processor and the settings that choose them.
        """
        key = key_of(self._artifact, f"openvino {self._version}", {**settings, "shape": shape}, os.environ)
        data = read_compiled(cache, key)
        if data is not None:
            with suppress(RuntimeError, OctcError):
                compiled = self._core.import_model(data, "CPU", settings)
                require_settings(read_back(compiled), self._threads)
                if list(compiled.input(0).shape) == shape:
                    return compiled
        compiled = self._compile(shape, settings)
        try:
            write_compiled(cache, key, compiled.export_model().getvalue())
        except (OSError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or first_line(error)
            self.not_kept = (
                f"the compiled network is not kept in {cache} ({why}): every start compiles it ({VARIABLE}=DIR or off)"
            )
        return compiled

    def resize(self, batch: int) -> None:
        """Run so many images at once from now on, where it was opened for a number of them; the shapes of before are let go."""
        if self._batch not in (None, batch):
            self._compiled.clear()
            self._batch = self.facts["batch"] = batch

    def precision_found(self) -> dict[str, int]:
        if self._core is None:
            raise closed(self.name)
        if not self._compiled:
            self._request(self._batch or 1)
        latest = next(reversed(self._compiled.values())).get_compiled_model()
        return layer_precisions(latest.get_runtime_model())

    def close(self) -> None:
        self._compiled.clear()
        self._core, self._files = None, (b"", b"")


def open_ov(folder: Path, artifact: Artifact, threads: int, batch: int | None) -> OvRuntime:
    """Open an OpenVINO artifact; with `batch` that shape is compiled now and larger batches are run in such parts.

    Raises:
        OctcError: E406 the compiled network has another precision than asked, E502 the file cannot be opened,
            E901 openvino is not installed.
    """
    return OvRuntime(folder, artifact, threads, batch)


def _files_of(folder: Path, artifact: Artifact) -> tuple[bytes, bytes]:
    """The graph and its weights (`check_ir` has seen that they are listed)."""
    graph, weights = artifact.main_file, artifact.main_file.removesuffix(".xml") + ".bin"
    return read_listed(folder, artifact, graph), read_listed(folder, artifact, weights)


def open_kept(folder: Path, artifact: Artifact, threads: int, batch: int | None) -> OvRuntime:
    """The same by way of the user's cache of compiled networks (`octc.runtimes.compiled`), where there is one."""
    return OvRuntime(folder, artifact, threads, batch, cache_folder(os.environ))


def read_back(compiled: Any) -> dict[str, Any]:
    """What a compiled network says of itself."""
    return {
        "precision_hint": str(_type_name(compiled.get_property("INFERENCE_PRECISION_HINT"))),
        "performance_hint": str(compiled.get_property("PERFORMANCE_HINT")).rpartition(".")[2],
        "threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
        "streams": int(compiled.get_property("NUM_STREAMS")),
        "device": ",".join(compiled.get_property("EXECUTION_DEVICES")),
        "provider": None,
    }


def require_settings(found: dict[str, Any], threads: int) -> None:
    """A network that was compiled with other settings than asked is not used (E406 precision, E601 device or threads)."""
    if found["precision_hint"] != HINT:
        text = f"OpenVINO compiled for {found['precision_hint']}, {HINT} was asked for"
        raise OctcError("OCT-E406", text, hint="pip install -U openvino; octc doctor shows what is here")
    if found["device"] != "CPU" or found["threads"] != threads:
        text = f"OpenVINO runs on {found['device']} with {found['threads']} threads, asked for CPU with {threads}"
        raise OctcError("OCT-E601", text, hint="--threads N with at most the usable cores (octc doctor)")


def require_kernels(model: Any, name: str) -> None:
    """Refuse a compiled network with a convolution in half precision, which its own properties do not say (E406).

    On Arm a pass of OpenVINO takes "ref_any_f16" for INT8 convolutions that it has no kernel for, although f32 is the hint.
    """
    halves = [(layer, kernel) for layer, kernel, _ in kernels_of(model) if kernel.lower().endswith(("_f16", "_bf16"))]
    if halves:
        layer, kernel = halves[0]
        text = (
            f"{name}: OpenVINO computes {len(halves)} convolutions in another precision than {HINT}, first {layer} ({kernel})"
        )
        hint = "use the ONNX or LiteRT artifact on this processor: octc export --int8 --target onnx"
        raise OctcError("OCT-E406", text, hint=hint, place=layer)


def kernels_of(model: Any) -> list[tuple[str, str, str]]:
    """(layer, kernel, precision) of every convolution of OpenVINO's runtime model."""
    found = []
    for node in model.get_ops():
        info = {key: str(value.astype(str)) for key, value in node.get_rt_info().items() if key in WORDS}
        if "Convolution" in info.get("layerType", ""):
            kernel = info.get("primitiveType", "")
            ending = kernel.rpartition("_")[2].lower()
            precision = ending if ending in NAMES else info.get("runtimePrecision", "unknown")
            found.append((str(node.get_friendly_name()), kernel, NAMES.get(precision, precision)))
    return found


def layer_precisions(model: Any) -> dict[str, int]:
    """Convolutions of OpenVINO's runtime model by the precision of the kernel that runs them.

    The kernel's name ends with it ("brgconv_avx512_1x1_i8"). `runtimePrecision` is only a fallback: it names the stored
    weights, "f16" for FP16 files whose kernels compute in FP32.
    """
    return dict(Counter(precision for _, _, precision in kernels_of(model)))


def _type_name(value: Any) -> str:
    return str(value.get_type_name() if hasattr(value, "get_type_name") else value)
