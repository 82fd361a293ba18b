"""Who builds TensorRT engines on this machine, and engines of artifacts that were exported elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.progress import LogReporter, Reporter
from octc.export.formats import FORMATS, libraries
from octc.runtimes.tensorrt.process import Backend, find_backend
from octc.runtimes.tensorrt.rebuild import rebuild_engines, say_engine
from octc.store.artifacts import Artifact, read_artifact

Backends = dict[str, Backend | None]  # by target


def find_backends(targets: Sequence[str], *, required: bool = False) -> Backends:
    """Who builds for the targets of a request.

    Args:
        required: fail unless an engine can be built for one of them. A target that is made by name only is always required.

    Raises:
        OctcError: E410 an engine is requested and nobody can build it here, E409 a version that octc does not support.
    """
    known = libraries()
    found: Backends = {name: find_backend(known[name], os.environ) for name in targets if name in known}
    for name, backend in found.items():
        if backend is None and (FORMATS[name].by_name or (required and len(found) == 1)):
            raise _absent(name)
    if required and not any(found.values()):
        raise _absent("tensorrt")
    return found


def _absent(target: str) -> OctcError:
    if FORMATS[target].by_name:
        text, hint = f"{target}: the compiler is not installed here", "pip install 'octc[trt-oracle]'   (Linux x86-64)"
    else:
        text = "--require-engine: TensorRT or a GPU is not here, no engine can be built"
        hint = "leave out --require-engine: the files, the plan and the recipe are written, and the device builds"
    return OctcError("OCT-E410", text, hint=hint)


def build_engines_of(
    place: Path, *, force: bool = False, allow_fallback: bool = False, reporter: Reporter | None = None
) -> Artifact:
    """Build the engines of a TensorRT artifact on this machine; the folder is replaced as a whole.

    Args:
        place: the artifact's folder. force: also where it holds an engine. allow_fallback: FP16 where INT8 cannot be built.

    Returns: the artifact with details["engine"].

    Raises:
        OctcError: E104 no TensorRT artifact, E106 it holds an engine, E410 or E903 nobody can build here, and what
            `octc.runtimes.tensorrt.build.build_engine` raises.
    """
    reporter = reporter or LogReporter()
    artifact = read_artifact(place)
    if artifact.target != "tensorrt":
        text = f"{artifact.name} is no TensorRT artifact"
        raise OctcError("OCT-E104", text, hint="octc export --target tensorrt", place=str(place))
    if artifact.details.get("engine") and not force:
        raise OctcError("OCT-E106", f"{place} holds an engine already", hint="--force", place=str(place))
    target = target_of(artifact)
    backend = find_backend(libraries()[target], os.environ)
    if backend is None:
        text = "TensorRT or a GPU is not here: no engine can be built"
        hint = "run this on the device (octc doctor --target tensorrt says what is missing)"
        raise OctcError("OCT-E410" if target == "tensorrt" else "OCT-E903", text, hint=hint)
    built = rebuild_engines(place, artifact, target, backend, reporter, allow_fallback=allow_fallback)
    say_engine(reporter, place, built.details)
    return built


def target_of(artifact: Artifact) -> str:
    """The target of an export that a TensorRT artifact was made for: the longest name that its own begins with."""
    return max((name for name in libraries() if artifact.name.startswith(name)), key=len, default=artifact.target)
