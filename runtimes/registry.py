"""Opens an artifact with its engine (`octc/core/targets.py` is the table), and says which of several is taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from octc.core.errors import OctcError
from octc.core.optional import EXTRAS, have, need
from octc.core.targets import PRECISIONS, TARGETS, Target, called, in_order, processors_of
from octc.machine.cpu import EVERY, family_of, read_cpus, usable_threads, why_other_family
from octc.machine.memory import check_space
from octc.runtimes.base import Runtime
from octc.runtimes.safety import check_model
from octc.store.artifacts import MANIFEST, Artifact
from octc.store.find import Found

TORCH = ("torch", "fp32")


def open_runtime(
    folder: Path, artifact: Artifact, *, threads: int | None = None, batch: int | None = None, kept: bool = False
) -> Runtime:
    """Open an artifact that `read_artifact` has read.

    Args:
        threads: None takes the usable physical cores within the quota (docs/measurement.md, section 6).
        batch: a static shape where the engine has one; None: any batch works.
        kept: take the compiled network from the user's cache, where the engine has one, and keep it there. Who measures or
            judges an artifact does without.

    Raises:
        OctcError: E901 its engine is not installed, E903 it is not for this processor, E903 or E505 no engine for this machine,
            E104 threads,
            E503 or E504 the model file is not safe to open, E906 too little address space, and what the engine's file raises.
    """
    engine = TARGETS[artifact.target]
    if (why := other_processor(artifact)) is not None:
        raise OctcError("OCT-E903", f"{artifact.name} cannot run here: {why}", hint=_instead(folder), place=str(folder))
    missing = _missing(engine)
    if missing:
        text = f"{artifact.name} cannot run here: {missing} is not installed"
        raise OctcError("OCT-E901", text, hint=install(missing), place=str(folder))
    count = choose_threads(threads)
    check_space()
    check_model(folder, artifact)
    opens = engine.opens_kept if kept and engine.opens_kept else engine.opens
    runtime: Runtime = called(opens)(folder, artifact, count, batch)
    return runtime


def import_engine(artifact: Artifact) -> None:
    """Import the library of an artifact's engine, if it is here, and what opens the artifact."""
    engine = TARGETS[artifact.target]
    if other_processor(artifact) is None and _missing(engine) is None:
        for module in engine.needs:
            need(module)
        called(engine.opens)


def choose_threads(asked: int | None) -> int:
    """The number of threads; more than this process may use is an error (E104)."""
    if asked is None:
        return usable_threads()[0]
    usable = len(read_cpus().usable)
    if not 1 <= asked <= usable:
        raise OctcError("OCT-E104", f"--threads {asked} is out of range", hint=f"--threads 1 to {usable}", place="--threads")
    return asked


def other_processor(artifact: Artifact, kind: str | None = None) -> str | None:
    """Why an artifact is not for this processor, in one sentence; None when it is. kind: `platform.machine()`."""
    usual = processors_of(artifact.target, artifact.precision)
    made_for = artifact.details.get("processors", usual)  # artifacts of before say nothing of it
    return why_other_family(made_for if isinstance(made_for, str) else usual, kind)


def _instead(folder: Path) -> str:
    """What to do with an artifact that is not for this processor: its ONNX sister, if she lies beside it."""
    beside = folder.resolve().parent
    for precision in reversed(PRECISIONS):
        if (beside / f"onnx-{precision}" / MANIFEST).is_file():
            return f"use the ONNX artifact, which runs on every processor: {folder.parent / f'onnx-{precision}'}"
    return "use the ONNX artifact, which runs on every processor: where the run is, octc export --int8 --target onnx"


def passed_over(founds: Sequence[Found]) -> str:
    """Which artifacts among several are not for this processor, for the line that says what was taken; empty when all are."""
    reasons = [(found.artifact.name, other_processor(found.artifact)) for found in founds]
    return "; ".join(f"{name}: {why}" for name, why in reasons if why is not None)


def why_not(artifact: Artifact) -> str | None:
    """Why an artifact cannot run on this machine, in one sentence; None when it can."""
    if (why := other_processor(artifact)) is not None:
        return why
    engine = TARGETS[artifact.target]
    if missing := _missing(engine):
        return f"{missing} is not installed: {install(missing)}"
    reason: str | None = called(engine.why_not)(artifact) if engine.why_not else None
    return reason


def install(module: str) -> str:
    """The command that brings a module of an engine."""
    return f"pip install 'octc[{EXTRAS[module]}]'" if module in EXTRAS else f"pip install {module}"


def engine_order(kind: str | None = None) -> tuple[str, ...]:
    """Targets that predict may choose from, for files of one precision, the first that is there.

    kind: `platform.machine()`; None: this machine.
    """
    return in_order(family_of(kind))


def preferences(kind: str | None = None) -> tuple[tuple[str, str], ...]:
    """(target, precision) in the order in which predict takes them: low precision before high, then `engine_order`, and the
    eager network last."""
    return (*((target, precision) for precision in reversed(PRECISIONS) for target in engine_order(kind)), TORCH)


def prefer(founds: Sequence[Found]) -> Found:
    """The artifact that predict takes among several: a student's, in the lowest precision whose engine is installed.

    Raises:
        OctcError: E901 when no engine for any of them is installed, E903 when only TensorRT artifacts are there, or none
            for this processor.
    """
    students = _able(founds)
    for pair in preferences():
        for found in students:
            if _pair(found) == pair:
                return found
    reasons = "; ".join(f"{found.artifact.name}: {why_not(found.artifact)}" for found in founds)
    usual = [found for found in founds if other_processor(found.artifact) is None]
    wanted = next((missing for found in usual if (missing := _missing(TARGETS[found.artifact.target]))), None)
    if wanted is None and founds and not usual:
        raise OctcError("OCT-E903", f"no artifact can run on this machine: {reasons}", hint=_instead(founds[0].folder))
    if wanted is None:
        from octc.runtimes.tensorrt.runtime import rebuild

        hint = rebuild(usual[0].folder, usual[0].artifact) if usual else "octc export"
        raise OctcError("OCT-E903", f"no artifact can run on this machine: {reasons}", hint=hint)
    raise OctcError("OCT-E901", f"no artifact can run on this machine: {reasons}", hint=install(wanted))


def why_preferred(chosen: Found, founds: Sequence[Found]) -> str:
    """What decided for the artifact that `prefer` took among `founds`, true of these very ones."""
    rivals = [_pair(found) for found in _able(founds) if found is not chosen and _pair(found) in preferences()]
    if not rivals:
        return "the only one that predict can choose here"
    target, precision = _pair(chosen)
    others = [other for other in (*engine_order(), "torch") if (other, precision) in rivals and other != target]
    words = ["the lowest precision that runs here"] if any(p != precision for _, p in rivals) else []
    words += [f"{target} is taken before {' and '.join(others)}"] if others else []
    same = [found for found in _able(founds) if found is not chosen and _pair(found) == (target, precision)]
    own = bool(same) and all(_for_every(found) for found in same) and not _for_every(chosen)
    words += [f"the {target} {precision} file that is made for this processor"] if own else []
    words += [f"the first by name of the {target} {precision} files"] if same and not own else []
    return "; ".join(words)


def _able(founds: Sequence[Found]) -> list[Found]:
    """Those that run here: students', or where there is none what there is; one for every processor behind this one's own."""
    able = [found for found in founds if why_not(found.artifact) is None]
    able.sort(key=_for_every)
    return [found for found in able if found.artifact.role == "student"] or able


def _for_every(found: Found) -> bool:
    return bool(found.artifact.details.get("processors") == EVERY)


def _pair(found: Found) -> tuple[str, str]:
    return found.artifact.target, found.artifact.precision


def missing_extra(artifact: Artifact) -> OctcError | None:
    """What to raise where the library of an artifact's engine is not installed here: E901 with its pip line."""
    module = _missing(TARGETS[artifact.target])
    return None if module is None else OctcError("OCT-E901", f"{module} is not installed", hint=install(module))


def _missing(engine: Target) -> str | None:
    return next((module for module in engine.needs if not have(module)), None)
