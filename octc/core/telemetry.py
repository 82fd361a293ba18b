"""Usage events that dependencies send, and the switches with which octc prevents it.

`import octc` sets them (octc/__init__.py), for this process and for every process that it starts. They must be there before the
dependency is imported: onnxruntime writes its device id when it is loaded, and OpenVINO asks for a server's name.
Nobody's setting counts against them: octc promises that nothing is sent. What was seen with which version: docs/privacy.md.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType


@dataclass(frozen=True)
class Dependency:
    """A dependency whose network use was observed.

    Attributes:
        module: what is imported. names: distributions that bring it.
        seen: versions that were watched.
        sends: what it sends unless it is prevented; empty where nothing was seen. at_once: as soon as it is imported.
        switches: environment variables that prevent it.
        hidden: module without which it cannot send; octc lets nobody import it.
        leaves: what it wrote below the user's home folder where it was not prevented.
    """

    module: str
    names: tuple[str, ...]
    seen: tuple[str, ...]
    sends: str = ""
    at_once: bool = False
    switches: Mapping[str, str] = field(default_factory=dict)
    hidden: str | None = None
    leaves: tuple[str, ...] = ()


INTEL = ("intel/openvino_ga_cid", "intel/stats")
DEPENDENCIES = (
    Dependency(
        "onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
        ("1.23.2", "1.24.4", "1.26.0", "1.28.0", "1.29.0", "1.30.0", "1.31.1", "1.32.0"),
        "usage events to Microsoft, with a device id and an event store below the cache folder", True,
        {"ORT_DISABLE_TELEMETRY": "1"},
        leaves=(".cache/Microsoft/DeveloperTools/.onnxruntime",),
    ),
    Dependency(
        "openvino", ("openvino",), ("2026.4.1",), "usage events to Google Analytics through openvino-telemetry", True,
        hidden="openvino_telemetry", leaves=INTEL,
    ),
    Dependency(
        "nncf", ("nncf",), ("3.4.0",), "usage events to Google Analytics through openvino-telemetry", True,
        {"NNCF_CI": "1"}, "openvino_telemetry", INTEL,
    ),
    Dependency(
        "huggingface_hub", ("huggingface-hub",), ("2.4.0",), "usage events to Hugging Face when a library asks for it", False,
        {"HF_HUB_DISABLE_TELEMETRY": "1"},
    ),
    Dependency(
        "ray", ("ray",), ("2.60.0",), "usage events to Ray's makers, when a cluster is started", False,
        {"RAY_USAGE_STATS_ENABLED": "0"}, leaves=(".ray/auth_token",),
    ),
    Dependency("pyarrow", ("pyarrow",), ("26.0.1",)),
    Dependency("duckdb", ("duckdb",), ("2.0.1",)),
    Dependency("ai_edge_litert", ("ai-edge-litert",), ("2.3.0",)),
    Dependency("model_signing", ("model-signing",), ("1.1.1",)),
    Dependency("modelopt", ("nvidia-modelopt",), ("0.47.0",)),
    Dependency("timm", ("timm",), ("1.0.31",)),
    Dependency("torch", ("torch",), ("2.14.1",)),
    Dependency("torch_pruning", ("torch-pruning",), ("1.6.1",)),
    Dependency("transformers", ("transformers",), ("5.24.0",)),
    Dependency("onnx", ("onnx",), ("1.23.2",)),
    Dependency("onnxscript", ("onnxscript",), ("0.7.2",)),
    Dependency("grpc", ("grpcio",), ("1.85.3",)),
    Dependency("tritonclient", ("tritonclient",), ("2.73.0",)),
    Dependency("tensorrt_rtx", ("tensorrt-rtx-cu12",), ("1.7.1.116",)),
)  # fmt: skip
SWITCHES = {name: value for one in DEPENDENCIES for name, value in one.switches.items()}
WORDS = " ".join(f"{name}={value}" for name, value in SWITCHES.items())  # before a command of a shell


def keep_quiet() -> None:
    """Set every switch, here and for child processes; a dependency that was imported earlier without it is named in the log."""
    late = [one.names[0] for one in DEPENDENCIES if one.at_once and one.module in sys.modules and not is_quiet(one)]
    os.environ.update(SWITCHES)
    for one in DEPENDENCIES:
        if one.hidden is not None:
            sys.modules.setdefault(one.hidden, None)  # type: ignore[arg-type]
    if late:
        text = "%s: imported before octc, and may have sent something; import octc first, or: export %s"
        logging.getLogger("octc").warning(text, ", ".join(late), WORDS)


def is_quiet(
    one: Dependency, environ: Mapping[str, str] = os.environ, modules: Mapping[str, ModuleType | None] = sys.modules
) -> bool:
    """Whether a dependency is prevented from sending in this process."""
    if one.hidden is not None and modules.get(one.hidden, sys) is not None:  # None there: importing it fails
        return False
    return all(environ.get(name) == value for name, value in one.switches.items())
