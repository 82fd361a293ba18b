"""The TensorRT side of `octc export`: who can build here, and engines of artifacts that came from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octc.cli._app.session import Session
from octc.core.errors import OctcError

if TYPE_CHECKING:
    from octc.runtimes.tensorrt.process import Backend
    from octc.store.artifacts import Artifact

Backends = dict[str, "Backend | None"]  # by target
Build = Callable[[Path, "Artifact", str], "dict[str, Any] | None"]
CACHE = ".timing.cache"


def find_backends(target: str, required: bool) -> Backends:
    """Who builds for the targets of a request.

    Raises:
        OctcError: E410 an engine is wanted and nobody can build it here, E409 a version that octc does not support.
    """
    from octc.export.formats import FORMATS, libraries
    from octc.runtimes.tensorrt.process import find_backend

    known = libraries()
    asked = [name for name in known if target == name or (target == "all" and not FORMATS[name].by_name)]
    found: Backends = {name: find_backend(known[name], os.environ) for name in asked}
    if found.get(target, True) is None and (required or target == "tensorrt-rtx"):
        raise _absent(target)
    if required and not any(found.values()):
        raise _absent("tensorrt")
    return found


def _absent(target: str) -> OctcError:
    if target == "tensorrt-rtx":
        text, hint = "tensorrt-rtx: the compiler is not installed here", "pip install 'octc[trt-oracle]'   (Linux x86-64)"
    else:
        text = "--require-engine: TensorRT or a GPU is not here, no engine can be built"
        hint = "leave out --require-engine: the files, the plan and the recipe are written, and the device builds"
    return OctcError("OCT-E410", text, hint=hint)


def engine_builder(session: Session, backends: Backends, fallback: bool) -> Build:
    """What `export.pipeline.Device.build` is."""

    def build(folder: Path, artifact: Artifact, target: str) -> dict[str, Any] | None:
        from octc.runtimes.tensorrt.artifact import build_artifact

        backend = backends.get(target)
        if backend is None:
            return None
        session.say(f"  building with {backend.module} {backend.version} ({backend.kind})")
        return build_artifact(folder, artifact, backend, allow_fallback=fallback, say=lambda text: session.say(f"  ! {text}"))

    return build


def say_engine(session: Session, folder: Path, details: dict[str, Any]) -> None:
    """One sentence about the engine, or about its absence."""
    engine = details["engine"]
    if engine is None:
        session.say(f"  ! no engine was built on this machine; {folder / details['engine_recipe']} says how to on the device")
        return
    for one in engine["built"]:
        counts = ", ".join(f"{count} {kind.upper()}" for kind, count in one["convolutions"].items())
        timed = one["measured"]["value"]
        speed = f"{timed['device']['p50_ms']:.3f} ms" if timed else f"not timed ({one['measured']['reason']})"
        session.say(f"    {one['engine']}: {one['bytes'] / 1e6:.1f} MB, convolutions {counts}; {speed}")
    if engine["fell_back"]:
        session.warn("OCT-W406", f"the engine is not what was asked for: {engine['sidecar']} lists the steps of the fallback")
    if count := sum(bool(one["measured"]["value"]) for one in engine["built"]):
        among = "" if count == len(engine["built"]) else f" of the {count} that were timed"
        session.say(f"    used: {engine['file']} (the quickest{among} whose golden images agree)")


def build_engine(session: Session, place: Path, *, force: bool, allow_fallback: bool) -> int:
    """Build the engines of an artifact on this machine; the folder is replaced as a whole."""
    from octc.export.formats import libraries
    from octc.runtimes.tensorrt.process import find_backend
    from octc.store.artifacts import MANIFEST, read_artifact

    artifact = read_artifact(place)
    if artifact.target != "tensorrt":
        text = f"{artifact.name} is no TensorRT artifact"
        raise OctcError("OCT-E104", text, hint="octc export --target tensorrt", place=str(place))
    if artifact.details.get("engine") and not force:
        raise OctcError("OCT-E106", f"{place} holds an engine already", hint="--force", place=str(place))
    target = "tensorrt-rtx" if artifact.name.startswith("tensorrt-rtx") else "tensorrt"
    backend = find_backend(libraries()[target], os.environ)
    if backend is None:
        text = "TensorRT or a GPU is not here: no engine can be built"
        hint = "run this on the device (octc doctor --target tensorrt says what is missing)"
        raise OctcError("OCT-E410" if target == "tensorrt" else "OCT-E903", text, hint=hint)
    built = rebuild_engines(session, place, artifact, target, backend, allow_fallback)
    facts = built.details["engine"]
    say_engine(session, place, built.details)
    session.report({"folder": str(place), "engine": facts, "manifest": MANIFEST})
    session.result(str(place / str(facts["file"])))
    return 0


def rebuild_engines(
    session: Session, place: Path, artifact: Artifact, target: str, backend: Backend, allow_fallback: bool
) -> Artifact:
    """Build the engines of an artifact anew; the folder is replaced as a whole, without what was measured there before.

    Timing caches are kept: they make the next build quick.

    Raises:
        OctcError: as `octc.runtimes.tensorrt.build.build_engine`.
    """
    import shutil
    from dataclasses import replace

    from octc.core.files import publishing
    from octc.store.artifacts import write_manifest

    old = {str(one["engine"]) for one in (artifact.details.get("engine") or {}).get("built", [])}
    with publishing(place, force=True) as temporary:
        for name in artifact.files:
            if name.endswith(CACHE) or not any(name.startswith(Path(engine).stem) for engine in old):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place / name, temporary / name)
        facts = engine_builder(session, {target: backend}, allow_fallback)(temporary, artifact, target)
        return write_manifest(temporary, replace(artifact, details={**artifact.details, "engine": facts}))
