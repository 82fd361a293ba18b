"""TensorRT artifacts: which engine they hold, whether it was built for this machine, how to get one, and running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from octc.core.errors import OctcError
from octc.core.optional import have, need
from octc.imaging.preprocess import Float32, UInt8
from octc.machine.host import read_gpus, versions
from octc.runtimes.base import check_batch, check_logits, closed, no_facts
from octc.runtimes.tensorrt.process import has_gpu
from octc.runtimes.tensorrt.worker import Engine, WorkerError
from octc.store.artifacts import Artifact, read_listed

FIELDS = ("sm", "tensorrt", "driver")
DISTRIBUTIONS = {"tensorrt": ("tensorrt",), "tensorrt_rtx": ("tensorrt-rtx-cu12", "tensorrt-rtx-cu13")}


class TrtRuntime:
    """An opened engine: one execution context and one stream; another batch size takes buffers of its own."""

    def __init__(self, folder: Path, artifact: Artifact, facts: dict[str, Any], batch: int | None) -> None:
        self.name = artifact.name
        self._artifact, self._built = artifact, facts
        self._trt = need(facts["package"])
        self._data: bytes | None = read_listed(folder, artifact, facts["file"])
        self._engines: dict[int, Any] = {}
        self._engine(batch or 1)
        gpus = read_gpus()
        self.facts = {
            **no_facts(facts["package"], self._trt.__version__),
            "provider": "TensorRT",
            "device": gpus[0].name if gpus else "GPU",
            "precision_hint": facts["precision"],
            "batch": batch,
            "cuda_graph": False,
            "streams": 1,
            "sm": facts["sm"],
            "driver": facts["driver"],
            "engine": facts["file"],
        }

    def _engine(self, batch: int) -> Any:
        if self._data is None:
            raise closed(self.name)
        if batch not in self._engines:
            try:
                self._engines[batch] = Engine(self._trt, self._data, batch)
            except WorkerError as error:
                code = "OCT-E505" if error.stage == "load" else "OCT-E903"
                raise OctcError(code, f"{self.name}: {error}", hint="octc doctor --target tensorrt") from error
        return self._engines[batch]

    def __call__(self, batch: UInt8) -> Float32:
        engine = self._engine(len(batch))
        check_batch(batch, self._artifact)
        try:
            return check_logits(engine(batch), len(batch), self._artifact)
        except WorkerError as error:
            raise OctcError("OCT-E903", f"{self.name}: {error}", hint="octc doctor --target tensorrt") from error

    def precision_found(self) -> dict[str, int]:
        """Convolutions by precision, as the inspector named them when the engine was built."""
        rows = [one for one in self._built["built"] if one["engine"] == self._built["file"]]
        return {kind: int(count) for kind, count in rows[0]["convolutions"].items()} if rows else {}

    def close(self) -> None:
        self._engines.clear()
        self._data = None


def why_no_engine(artifact: Artifact) -> str | None:
    """Why a TensorRT artifact cannot run here, in one sentence; None when it can."""
    engine = artifact.details.get("engine")
    if not isinstance(engine, dict):
        return "no TensorRT engine was built; the Q/DQ file is input for a builder, not for ONNX Runtime"
    package = str(engine.get("package", "tensorrt"))
    different = differences(engine, this_machine(package))
    if different:
        return f"the engine was built for another machine: {different}"
    if not have(package):
        return f"{package} cannot be imported by this Python; trt_worker.py verify and bench run under the one that has it"
    return None if has_gpu() else "no GPU was found on this machine"


def open_trt(folder: Path, artifact: Artifact, threads: int, batch: int | None) -> TrtRuntime:
    """Open the engine of an artifact.

    Raises:
        OctcError: E505 it is for another device or version, E903 there is none, or TensorRT or a GPU is missing.
    """
    del threads
    reason = why_no_engine(artifact)
    engine = artifact.details.get("engine") or {}
    if reason is not None:
        different = differences(engine, this_machine(str(engine.get("package", "tensorrt"))))
        code = "OCT-E505" if different else "OCT-E903"
        raise OctcError(code, f"{artifact.name}: {reason}", hint=rebuild(folder, artifact), place=str(folder))
    return TrtRuntime(folder, artifact, engine, batch)


def rebuild(folder: Path, artifact: Artifact) -> str:
    """The commands that build an engine on the machine where it will run."""
    onnx = next((name for name in artifact.files if name.endswith(".onnx")), artifact.main_file)
    recipe = artifact.details.get("engine_recipe")
    more = f"   (see {folder / recipe})" if isinstance(recipe, str) else ""
    again = " --force" if artifact.details.get("engine") else ""
    by_hand = f"trtexec --onnx={folder / onnx} --saveEngine=model.engine{more}"
    return f"on the device: octc export --from-artifact {folder} --target tensorrt{again}; without octc: {by_hand}"


def this_machine(package: str = "tensorrt") -> dict[str, str | None]:
    """What an engine depends on: compute capability and driver of the first GPU, version of TensorRT."""
    gpus = read_gpus()
    first = gpus[0] if gpus else None
    found = versions(DISTRIBUTIONS.get(package, (package,)))
    return {
        "sm": first.sm if first else None,
        "tensorrt": next(iter(found.values()), None),
        "driver": first.driver if first else None,
    }


def differences(engine: dict[str, Any], here: dict[str, str | None]) -> str:
    """Fields in which an engine's machine and this one differ, as text; empty when there are none."""
    rows = [(name, str(engine[name]), here.get(name)) for name in FIELDS if engine.get(name) is not None]
    return ", ".join(f"{name} {built} (here: {found or 'none'})" for name, built, found in rows if built != found)
