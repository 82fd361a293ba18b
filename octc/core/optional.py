"""Optional dependencies: imported on use, with the pip command as the hint. octc never installs anything."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

from octc.core.errors import MissingExtra, OctcError, first_line

# module -> the extra of octc that brings it
EXTRAS = {
    "accelerate": "train",
    "anyio": "serve",
    "ai_edge_litert": "litert",
    "cryptography": "sign",
    "duckdb": "duckdb",
    "grpc": "serve",
    "httptools": "serve",
    "highdicom": "clinic",
    "medmnist": "octmnist",
    "model_signing": "oms",
    "modelopt": "ptq",
    "nncf": "ptq",
    "onnx": "export",
    "onnxconverter_common": "export",
    "onnxruntime": "ort",
    "onnxscript": "export",
    "openvino": "openvino",
    "pooch": "fetch",
    "prometheus_client": "serve",
    "pyarrow": "archive",
    "pydicom": "clinic",
    "pynvml": "power",
    "ray": "ray",
    "pynetdicom": "serve",
    "python_multipart": "serve",
    "requests": "fetch",
    "safetensors": "train",
    "scipy": "stats",
    "sklearn": "baselines",
    "starlette": "serve",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "trt-oracle",
    "timm": "train",
    "torch": "train",
    "torch_pruning": "prune",
    "torchvision": "train",
    "transformers": "baselines",
    "tritonclient": "serve",
    "uvicorn": "serve",
    "yaml": "yaml",
}


# what a wing of octc needs before any of it can be imported, and the extra that brings all of it
WINGS = {
    "train": ("torch", "torchvision", "timm", "safetensors", "accelerate"),
    "export": ("torch", "timm", "safetensors", "onnx", "onnxscript", "onnxconverter_common", "onnxruntime"),
    "serve": (
        "starlette", "uvicorn", "httptools", "anyio", "python_multipart", "grpc", "tritonclient", "prometheus_client",
    ),
}  # fmt: skip


# modules whose distributions have another name than the module with hyphens
_DISTRIBUTIONS = {
    "grpc": "grpcio",
    "modelopt": "nvidia-modelopt",
    "pynvml": "nvidia-ml-py",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def distribution_of(module: str) -> str:
    """The pip name of a module."""
    return _DISTRIBUTIONS.get(module, module.replace("_", "-"))


def modules_of(extra: str) -> tuple[str, ...]:
    """The modules of an extra."""
    return WINGS.get(extra) or tuple(module for module, brings in EXTRAS.items() if brings == extra)


def missing_modules(extra: str) -> list[str]:
    """Modules of an extra that are not installed."""
    return [module for module in modules_of(extra) if not have(module)]


def need_wing(extra: str) -> None:
    """Raise MissingExtra of a whole wing where any of it is absent: one pip line brings all. Nothing is imported here."""
    for module in WINGS[extra]:
        if not have(module):
            raise MissingExtra(module, extra)


def absent_extra(error: ImportError) -> OctcError | None:
    """A failed import as MissingExtra, where the module is of an extra; as E903 where it is there and broken; else None."""
    top = (error.name or "").split(".")[0]
    if top not in EXTRAS:
        return None
    if isinstance(error, ModuleNotFoundError) and not have(top):
        return MissingExtra(top, EXTRAS[top])
    line = first_line(error, 300)
    hint = f"pip install --force-reinstall 'octc[{EXTRAS[top]}]'"
    return OctcError("OCT-E903", f"{top} is installed and cannot be imported", hint=hint, why=line)


def need(module: str) -> ModuleType:
    """Import `module`, or raise MissingExtra with the exact pip line."""
    try:
        return _openvino() if module == "openvino" else importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise MissingExtra(module, EXTRAS[module.split(".", maxsplit=1)[0]]) from error


CONVERTER = "openvino.tools.ovc"  # a quarter of OpenVINO's import; nothing that opens an artifact needs it


def _openvino() -> ModuleType:
    """OpenVINO, whose converter is imported when somebody asks for it."""
    if "openvino" in sys.modules or CONVERTER in sys.modules:
        return importlib.import_module("openvino")
    sys.modules[CONVERTER] = None  # type: ignore[assignment]
    try:
        found = importlib.import_module("openvino")
    finally:
        del sys.modules[CONVERTER]
    if not hasattr(found, "convert_model"):
        vars(found)["__getattr__"] = _of_converter
    return found


def _of_converter(name: str) -> Any:
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    return importlib.import_module(CONVERTER).convert_model


_making = threading.Lock()


def openvino_core() -> Any:
    """The one Core of this process, kept until its end; whoever asks, in whatever thread, gets it.

    OpenVINO's CPU plugin gives the thread a signal stack of its own, and the end of a Core puts back the one that it found. Of
    two Cores that end in the order in which they were made, the second puts back the first one's, which is gone by then: the
    next signal (Ctrl-C) ends the process with SIGSEGV (docs/experiments.md, 2026-11-27).

    Of two threads that give OpenVINO 2026.4.1 the first arrays of the process, each may wait for the other for ever (one has
    the interpreter and waits for the first use of numpy, the other makes that and waits for the interpreter): it is made here.
    """
    with _making:
        return _core()


@cache
def _core() -> Any:
    import numpy as np  # not before: whoever asks for help needs none

    openvino = need("openvino")
    _ = openvino.Tensor(np.zeros(1, np.uint8)).data
    return openvino.Core()


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Around other libraries that make Cores: afterwards the thread has the signal stack that it had before (Linux)."""
    if sys.platform != "linux":
        yield
        return
    kept = ctypes.create_string_buffer(24)  # stack_t: pointer, flags, size
    change = ctypes.CDLL(None).sigaltstack
    change(None, kept)
    try:
        yield
    finally:
        change(kept, None)


def have(module: str) -> bool:
    """Whether `module` can be found, without importing it."""
    return importlib.util.find_spec(module) is not None
