"""From a plan to an engine: build, look at what really runs, fall back step by step where that is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octc.core.errors import OctcError, shorten
from octc.core.files import read_json
from octc.runtimes.tensorrt.faults import explained
from octc.runtimes.tensorrt.layers import LayerReport, name_parts, report_layers
from octc.runtimes.tensorrt.process import TAIL, Backend, Ran
from octc.runtimes.tensorrt.worker import typing_for
from octc.schemas.tensorrt_plan import RTX, BuildPlan, plan_from_json, without

ROUNDS = 8
NO_KERNEL = re.compile(r"[Cc]ould not find any implementation for node (.+?)\.?(?:\s|$)")
HOPELESS = ("timed out", "killed", "environment", "bad plan")
Say = Callable[[str], None]
Said = tuple[Ran, "LayerReport | None"]


@dataclass(frozen=True)
class Attempt:
    """One step of the fallback, as it stands in the sidecar."""

    rung: str
    precision: str
    dequantized: tuple[str, ...]
    outcome: str
    error: str
    seconds: float
    peak_rss_mib: int


@dataclass(frozen=True)
class Built:
    """An engine in a folder. plan: the one that led to it."""

    plan: BuildPlan
    facts: dict[str, Any]
    layers: LayerReport
    attempts: tuple[Attempt, ...]

    @property
    def fell_back(self) -> bool:
        return len(self.attempts) > 1


def read_plans(folder: Path, version: str, module: str) -> dict[str, BuildPlan]:
    """The plans of an artifact for a version of TensorRT: {"int8": ..., "fp16": ...}.

    Raises:
        OctcError: E502 a plan file cannot be read, E409 it has none for this version.
    """
    found = {}
    for path in sorted(folder.glob("build-*.json")):
        try:
            plans = {key: plan_from_json(value) for key, value in read_json(path).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise OctcError("OCT-E502", f"{path.name} is no build plan: {error!r}", hint="octc export again") from error
        plan = plans.get(typing_for(version, module == RTX) or "")
        if plan is None or plan.module != module:
            made = ", ".join(sorted({f"{p.module} ({p.typing}ly typed)" for p in plans.values()}))
            text = f"{path.name} is for {made}; found is {module} {version}"
            raise OctcError("OCT-E409", text, hint="octc export --target tensorrt (or tensorrt-rtx) on the workstation")
        found[plan.precision] = plan
    return found


def build_engine(
    folder: Path,
    plan: BuildPlan,
    backend: Backend,
    *,
    fp16: BuildPlan | None = None,
    allow_fallback: bool = False,
    say: Say = lambda _text: None,
) -> Built:
    """Build `plan` in `folder`; where that fails and it is allowed, take the next step of the fallback.

    Raises:
        OctcError: E406 a promised precision is not in the engine, E407 the builder failed, E409 version or plan do not fit,
            E903 TensorRT cannot be used here.
    """
    attempts: list[Attempt] = []
    steps = _rungs(plan, fp16)
    rung, current = next(steps)
    while True:
        ran, layers, error = _try(folder, current, backend)
        attempts.append(
            Attempt(rung, current.precision, current.dequantize, ran.outcome, error, round(ran.seconds, 3), ran.peak_rss_mib)
        )
        if layers is not None and not error:
            return Built(current, ran.result, layers, tuple(attempts))
        _clean(folder, current)
        refusal = _refusal(current, ran, layers, error)
        if not allow_fallback or ran.outcome in HOPELESS:
            raise refusal
        say(f"{rung}: {error}")
        try:
            rung, current = steps.send((ran, layers))
        except StopIteration:
            raise refusal from None


def _rungs(plan: BuildPlan, fp16: BuildPlan | None) -> Generator[tuple[str, BuildPlan], Said, None]:
    """Full INT8, named convolutions in float (at most 8 rounds), depthwise ones, FP16; told what the last step said."""
    said = yield "as planned", plan
    current = plan
    for _ in range(ROUNDS):
        named = _named(current, *said)
        if not named:
            break
        current = without(current, named)
        said = yield f"{', '.join(named)} in float", current
    depthwise = [name for name in plan.depthwise if name in current.promised]
    if depthwise:
        current = without(current, depthwise)
        yield f"{len(depthwise)} depthwise convolutions in float", current
    if fp16 is not None and plan.precision == "int8":
        yield "FP16 engine", fp16


def _named(plan: BuildPlan, ran: Ran, layers: LayerReport | None) -> list[str]:
    """Promised convolutions that TensorRT names as the cause, or that do not run in INT8."""
    if layers is not None:
        return list(layers.missing)
    names = [part for found in NO_KERNEL.findall(f"{ran.error}\n{ran.log}") for part in name_parts(found)]
    return [name for name in plan.promised if name in names]


def _try(folder: Path, plan: BuildPlan, backend: Backend) -> tuple[Ran, LayerReport | None, str]:
    """Build once. Returns what ran, the layers of an engine, and why it does not do ("" when it does)."""
    ran = backend.run(folder, plan, "build")
    if ran.outcome != "ok":
        return ran, None, ran.error
    if sorted(ran.result.get("dequantized", [])) != sorted(plan.dequantize):
        return ran, None, "not all of the named convolutions could be taken off their Q/DQ"
    try:
        layers = report_layers((folder / plan.layers).read_text(errors="replace"), plan)
    except (OSError, ValueError) as error:
        return ran, None, f"the layers of the engine cannot be read: {error}"
    missing = shorten(list(layers.missing), 5)
    return ran, layers, f"{len(layers.missing)} convolutions do not run in INT8: {missing}" if layers.missing else ""


def _refusal(plan: BuildPlan, ran: Ran, layers: LayerReport | None, error: str) -> OctcError:
    made = _plain_refusal(plan, ran, layers, error)
    return explained(made, f"{error}\n{ran.log}") if ran.outcome in ("environment", "failed") else made


def _plain_refusal(plan: BuildPlan, ran: Ran, layers: LayerReport | None, error: str) -> OctcError:
    tail = "\n".join(ran.log.splitlines()[-TAIL:])
    if layers is not None:
        hint = "--allow-fallback leaves these in float (recorded in the sidecar), or octc export --fp16"
        return OctcError("OCT-E406", f"requested precision is not in the engine: {error}", hint=hint, why=tail or None)
    if ran.outcome == "environment":
        return OctcError(
            "OCT-E903", f"TensorRT cannot be used: {error}", hint="octc doctor --target tensorrt", why=tail or None
        )
    if ran.outcome == "bad plan":
        return OctcError(
            "OCT-E409", f"this TensorRT does not fit the plan: {error}", hint="octc export again", why=tail or None
        )
    hint = "--allow-fallback tries with fewer INT8 layers; octc lint looks at the graph"
    if ran.outcome in ("timed out", "killed"):
        hint = f"close what uses the memory of the GPU, or lower workspace_mb (now {plan.workspace_mb}) in build-*.json"
    return OctcError("OCT-E407", f"TensorRT builder {ran.outcome}: {error}", hint=hint, why=tail or None)


def _clean(folder: Path, plan: BuildPlan) -> None:
    for name in (plan.output, plan.layers, plan.result):
        (folder / name).unlink(missing_ok=True)
        (folder / f"{name}.part").unlink(missing_ok=True)
