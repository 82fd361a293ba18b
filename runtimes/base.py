"""What a runtime is: numpy in, numpy out. The seam between an artifact and whoever measures or predicts with it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from octc.core.errors import OctcError
from octc.core.faults import fault_of
from octc.imaging.preprocess import Float32, UInt8
from octc.store.artifacts import Artifact


class Runtime(Protocol):
    """An opened artifact.

    Attributes:
        name: of the artifact, for example "openvino-int8".
        facts: what was set and read back: runtime, version, provider, device, precision_hint, threads, streams, batch, ...
            (None where an engine has no such thing).
    """

    name: str
    facts: dict[str, Any]

    def __call__(self, batch: UInt8) -> Float32:
        """uint8 [N, channels, size, size] -> logits float32 [N, K], an array of its own."""
        ...

    def precision_found(self) -> dict[str, int]:
        """Convolutions (and fused ones) of the graph that really runs, by precision: {"int8": 41, "fp32": 2}."""
        ...

    def close(self) -> None:
        """Free what the engine holds; a closed runtime cannot be called."""
        ...


def no_facts(runtime: str, version: str) -> dict[str, Any]:
    """The facts of a runtime of which nothing is known but its name and version."""
    rest = dict.fromkeys(("provider", "device", "precision_hint", "threads", "streams", "batch"))
    return {"runtime": runtime, "version": version, **rest}


def check_batch(batch: UInt8, artifact: Artifact) -> None:
    """Refuse what is not uint8 [N >= 1, channels, size, size] of this artifact (E104): engines would broadcast or crash."""
    pre = artifact.preprocess
    shape = (pre.channels, pre.size, pre.size)
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != shape or not len(batch):
        text = f"{artifact.name} takes uint8 [N, {', '.join(map(str, shape))}], not {batch.dtype} {list(batch.shape)}"
        raise OctcError("OCT-E104", text, hint="prepare images with the artifact's own Preprocess")


def check_logits(logits: Float32, count: int, artifact: Artifact) -> Float32:
    """Refuse an engine's answer that is not float [count, K] (E502: the model file is not what the manifest says)."""
    expected = (count, len(artifact.classes))
    if logits.shape != expected or logits.dtype.kind != "f":
        text = f"{artifact.main_file} gives {logits.dtype} {list(logits.shape)}, the manifest says float {list(expected)}"
        raise OctcError("OCT-E502", text, hint="do not use this artifact; copy it again from where it was made")
    return np.ascontiguousarray(logits, dtype=np.float32)


def broken(artifact: Artifact, error: BaseException) -> OctcError:
    """An engine that refuses a file whose checksums fit: E502 with its last line of words; or what the machine lacks."""
    if (fault := fault_of(error, artifact.name)) is not None:
        return fault
    lines = [line.strip() for line in str(error).splitlines() if any(sign.isalnum() for sign in line)]
    text = f"{artifact.name}: the engine refuses {artifact.main_file}: {(lines or [type(error).__name__])[-1][:300]}"
    return OctcError("OCT-E502", text, hint="make it again: octc export --force", place=artifact.main_file)


def closed(name: str) -> RuntimeError:
    """A call after `close` is a mistake in octc, not of the user."""
    return RuntimeError(f"{name} is closed")
