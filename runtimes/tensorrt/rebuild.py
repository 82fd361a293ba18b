"""TensorRT engines of an artifact that lies here already: built anew on this machine, and what came of it in words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from octc.core.files import publishing
from octc.core.progress import Reporter
from octc.runtimes.tensorrt.artifact import build_artifact
from octc.runtimes.tensorrt.process import Backend
from octc.store.artifacts import Artifact, write_manifest

Build = Callable[[Path, Artifact, str], "dict[str, Any] | None"]
CACHE = ".timing.cache"


def engine_builder(backends: dict[str, Backend | None], reporter: Reporter, *, allow_fallback: bool = False) -> Build:
    """A function (folder, artifact, target) -> facts of the engine that then lies in the folder, None where nobody can build.

    Args:
        backends: target -> who builds for it here. allow_fallback: FP16 is built where INT8 cannot be.
    """

    def build(folder: Path, artifact: Artifact, target: str) -> dict[str, Any] | None:
        backend = backends.get(target)
        if backend is None:
            return None
        reporter.say(f"  building with {backend.module} {backend.version} ({backend.kind})")
        return build_artifact(
            folder, artifact, backend, allow_fallback=allow_fallback, say=lambda text: reporter.say(f"  ! {text}")
        )

    return build


def rebuild_engines(
    place: Path, artifact: Artifact, target: str, backend: Backend, reporter: Reporter, *, allow_fallback: bool = False
) -> Artifact:
    """Build the engines of an artifact anew; the folder is replaced as a whole, without what was measured there before.

    Timing caches are kept: they make the next build quick.

    Raises:
        OctcError: as `octc.runtimes.tensorrt.build.build_engine`.
    """
    old = {str(one["engine"]) for one in (artifact.details.get("engine") or {}).get("built", [])}
    with publishing(place, force=True) as temporary:
        for name in artifact.files:
            if name.endswith(CACHE) or not any(name.startswith(Path(engine).stem) for engine in old):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place / name, temporary / name)
        build = engine_builder({target: backend}, reporter, allow_fallback=allow_fallback)
        facts = build(temporary, artifact, target)
        return write_manifest(temporary, replace(artifact, details={**artifact.details, "engine": facts}))


def say_engine(reporter: Reporter, folder: Path, details: dict[str, Any]) -> None:
    """The engines of an artifact in a line each, or that there is none and how to build it."""
    engine = details["engine"]
    if engine is None:
        reporter.say(f"  ! no engine was built on this machine; {folder / details['engine_recipe']} says how to on the device")
        return
    for one in engine["built"]:
        counts = ", ".join(f"{count} {kind.upper()}" for kind, count in one["convolutions"].items())
        timed = one["measured"]["value"]
        speed = f"{timed['device']['p50_ms']:.3f} ms" if timed else f"not timed ({one['measured']['reason']})"
        reporter.say(f"    {one['engine']}: {one['bytes'] / 1e6:.1f} MB, convolutions {counts}; {speed}")
    if engine["fell_back"]:
        text = f"the engine is not what was requested: {engine['sidecar']} lists the steps of the fallback"
        reporter.warn("OCT-W406", text)
    if count := sum(bool(one["measured"]["value"]) for one in engine["built"]):
        among = "" if count == len(engine["built"]) else f" of the {count} that were timed"
        reporter.say(f"    used: {engine['file']} (the quickest{among} whose golden images agree)")
