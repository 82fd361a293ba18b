"""TensorRT artifacts: which engine they hold, whether it was built for this machine, and how to get one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from octc.artifact import Artifact
from octc.errors import OctcError
from octc.host import read_gpus, versions

FIELDS = ("sm", "tensorrt", "driver")


def why_no_engine(artifact: Artifact) -> str:
    """Why a TensorRT artifact cannot run here, in one sentence."""
    engine = artifact.details.get("engine")
    if not isinstance(engine, dict):
        return "no TensorRT engine was built; the Q/DQ file is input for a builder, not for ONNX Runtime"
    different = differences(engine, this_machine())
    if different:
        return f"the engine was built for another machine: {different}"
    return "this octc opens no TensorRT engines"


def open_trt(folder: Path, artifact: Artifact, threads: int, batch: int | None) -> NoReturn:
    """Refuse: E505 for an engine of another device or version, E903 where there is none to open."""
    del threads, batch
    different = differences(artifact.details.get("engine") or {}, this_machine())
    code = "OCT-E505" if different else "OCT-E903"
    raise OctcError(code, f"{artifact.name}: {why_no_engine(artifact)}", mend=rebuild(folder, artifact), place=str(folder))


def rebuild(folder: Path, artifact: Artifact) -> str:
    """The command that builds an engine on the machine where it will run."""
    onnx = next((name for name in artifact.files if name.endswith(".onnx")), artifact.main_file)
    recipe = artifact.details.get("engine_recipe")
    more = f"   (see {folder / recipe})" if isinstance(recipe, str) else ""
    return f"on the device: trtexec --onnx={folder / onnx} --saveEngine=model.engine{more}"


def this_machine() -> dict[str, str | None]:
    """What an engine depends on: compute capability and driver of the first GPU, version of TensorRT."""
    gpus = read_gpus()
    first = gpus[0] if gpus else None
    return {
        "sm": first.sm if first else None,
        "tensorrt": versions(("tensorrt",)).get("tensorrt"),
        "driver": first.driver if first else None,
    }


def differences(engine: dict[str, Any], here: dict[str, str | None]) -> str:
    """Fields in which an engine's machine and this one differ, as text; empty when there are none."""
    rows = [(name, str(engine[name]), here.get(name)) for name in FIELDS if engine.get(name) is not None]
    return ", ".join(f"{name} {built} (here: {found or 'none'})" for name, built, found in rows if built != found)
