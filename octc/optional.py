"""Optional dependencies: import them late, and say how to get them. Nothing is ever installed for the user."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from octc.errors import MissingExtra

# module -> the extra of octc that brings it
EXTRAS = {
    "accelerate": "train",
    "cryptography": "sign",
    "medmnist": "octmnist",
    "modelopt": "ptq",
    "nncf": "ptq",
    "onnx": "export",
    "onnxconverter_common": "export",
    "onnxruntime": "ort",
    "onnxscript": "export",
    "openvino": "openvino",
    "pooch": "fetch",
    "pynvml": "power",
    "requests": "fetch",
    "safetensors": "train",
    "sklearn": "baselines",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "trt-oracle",
    "timm": "train",
    "torch": "train",
    "torchvision": "train",
    "transformers": "baselines",
    "yaml": "yaml",
}
# module -> the telemetry package that it would import; without it, it takes its own stub
TALKERS = {"nncf": "openvino_telemetry", "openvino": "openvino_telemetry"}


def need(module: str) -> ModuleType:
    """Import `module`, or raise MissingExtra with the exact pip line. Telemetry stays out."""
    if module in TALKERS:
        sys.modules.setdefault(TALKERS[module], None)  # type: ignore[arg-type]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise MissingExtra(module, EXTRAS[module.split(".", maxsplit=1)[0]]) from error


def have(module: str) -> bool:
    """Whether `module` can be found, without importing it."""
    return importlib.util.find_spec(module) is not None
