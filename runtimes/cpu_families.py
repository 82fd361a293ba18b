"""CPU families as data: how one is recognised, and what each engine does there with octc's INT8 files, with the measurement.

`octc doctor`, `octc export --cpu` and docs/edge-cpus.md read this table. A cell that nobody measured says "unknown".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from octc.core.errors import OctcError

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Cell:
    """An engine's INT8 file of octc on a family.

    runs: whether it opens and passes its golden images; None: not known. share: which convolutions compute in INT8.
    measured: by which command or run; "unknown" where nobody did.
    """

    runs: bool | None
    share: str
    measured: str


@dataclass(frozen=True)
class Family:
    """title: in words. machine: "x86" or "arm". has, lacks: tokens of `octc.machine.cpu` that decide. boxes: examples.

    int8: target -> what is known of its INT8 file.
    """

    title: str
    machine: str
    has: frozenset[str]
    lacks: frozenset[str]
    boxes: str
    int8: Mapping[str, Cell]


_ALL = "all that are quantised"
_TESTS = "tests/runtimes/test_engines.py on an AMD EPYC with AVX-512 VNNI"
_EMULATED = "qemu-user 10.0.2, 2026-11-30 (docs/experiments.md)"
_DENSE = "all dense ones of openvino-arm-int8, depthwise ones in f32"
_DENSE_BY = "qemu-user 10.0.2, 2026-12-01 (docs/experiments.md)"

# The first family of a machine whose tokens fit; the strongest come first.
FAMILIES: dict[str, Family] = {
    "x86-amx": Family(
        "x86 with AMX", "x86", frozenset({"amx"}), frozenset(), "Intel Xeon from Sapphire Rapids on",
        {
            "onnx": Cell(True, _ALL, "benchmarks/int8.py on an Intel Xeon with AMX (docs/int8.md)"),
            "openvino": Cell(True, _ALL, "benchmarks/int8.py on an Intel Xeon with AMX (docs/int8.md)"),
            "litert": Cell(True, _ALL, "benchmarks/int8.py on an Intel Xeon with AMX (docs/experiments.md)"),
        },
    ),
    "x86-vnni": Family(
        "x86 with VNNI", "x86", frozenset({"vnni"}), frozenset(), "Intel from Ice Lake on, AMD from Zen 4 on",
        {"onnx": Cell(True, _ALL, _TESTS), "openvino": Cell(True, _ALL, _TESTS), "litert": Cell(True, _ALL, _TESTS)},
    ),
    "x86": Family(
        "x86 without VNNI", "x86", frozenset(), frozenset({"vnni"}), "older Intel and AMD, many mini PCs",
        {
            "onnx": Cell(True, _ALL, "benchmarks/int8.py on an AMD EPYC with AVX2 (docs/int8.md)"),
            "openvino": Cell(True, _ALL, "benchmarks/int8.py on an AMD EPYC with AVX2 (docs/int8.md)"),
            "litert": Cell(True, f"{_ALL}; answers bit-equal to those with VNNI, 8-bit weights too", f"{_EMULATED}, Haswell"),
        },
    ),
    "arm-sme": Family(
        "Arm with SME", "arm", frozenset({"sme"}), frozenset(), "Apple M4 and newer Arm cores",
        {
            "onnx": Cell(True, _ALL, f'{_EMULATED}, "max"'),
            "openvino": Cell(True, _DENSE, f'{_DENSE_BY}, "max"'),
            "litert": Cell(True, "unknown, golden images pass", f'{_EMULATED}, "max"'),
        },
    ),
    "arm-i8mm": Family(
        "Arm with i8mm", "arm", frozenset({"i8mm"}), frozenset({"sme"}), "Neoverse-V1 and N2, Cortex-A710 and newer",
        {
            "onnx": Cell(True, _ALL, f"{_EMULATED}, Neoverse-V1"),
            "openvino": Cell(True, _DENSE, f"{_DENSE_BY}, Neoverse-V1"),
            "litert": Cell(True, _ALL, f"{_EMULATED}, Neoverse-V1"),
        },
    ),
    "arm-dotprod": Family(
        "Arm with f16 and dot product", "arm", frozenset({"neon-fp16", "neon-dotprod"}), frozenset({"i8mm", "sme"}),
        "Raspberry Pi 5, RK3588, Jetson Orin, Neoverse-N1",
        {
            "onnx": Cell(True, _ALL, f"{_EMULATED}, Neoverse-N1"),
            "openvino": Cell(True, _DENSE, f"{_DENSE_BY}, Neoverse-N1"),
            "litert": Cell(True, f"{_ALL}; logits within 2e-5 of their range of x86's", f"{_EMULATED}, Neoverse-N1"),
        },
    ),
    "arm-nofp16": Family(
        "Arm without f16 arithmetic", "arm", frozenset({"neon"}), frozenset({"neon-fp16"}),
        "Raspberry Pi 3 and 4, Jetson Nano",
        {
            "onnx": Cell(True, _ALL, f"{_EMULATED}, Cortex-A72"),
            "openvino": Cell(True, _DENSE, f"{_DENSE_BY}, Cortex-A72"),
            "litert": Cell(True, f"{_ALL}; logits within 2e-5 of their range of x86's", f"{_EMULATED}, Cortex-A72"),
        },
    ),
}  # fmt: skip
# what `octc export --cpu` takes -> families that the files must run on
CPUS: dict[str, tuple[str, ...]] = {
    "x86": tuple(name for name, one in FAMILIES.items() if one.machine == "x86"),
    "arm": tuple(name for name, one in FAMILIES.items() if one.machine == "arm"),
    "arm-nofp16": ("arm-nofp16",),
}


def family_with(tokens: Iterable[str], machine: str | None) -> str | None:
    """The family of a processor, by its tokens and `octc.machine.cpu.family_of`; None: it is none of these, or not known."""
    have = frozenset(tokens)
    if "unknown" in have:
        return None
    fits = (name for name, one in FAMILIES.items() if one.machine == machine and one.has <= have and not one.lacks & have)
    return next(fits, None)


def lines_of(name: str) -> list[str]:
    """What each engine does with INT8 on a family, a line an engine."""
    words = {True: "runs", False: "does not run", None: UNKNOWN}
    return [
        f"{target} INT8: {words[cell.runs]}" + ("" if cell.runs is None else f", in INT8: {cell.share} ({cell.measured})")
        for target, cell in FAMILIES[name].int8.items()
    ]


def require_cpu(cpu: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Refuse files that do not run on the processors that they are for.

    Args:
        cpu: a key of `CPUS`. pairs: (target of an artifact, precision).

    Returns: what is not known of them, a sentence each.

    Raises:
        OctcError: E104 no such processor, E102 an INT8 file that does not run there, with what to take instead.
    """
    if cpu not in CPUS:
        raise OctcError("OCT-E104", f"unknown processor {cpu!r}", hint=f"one of: {', '.join(CPUS)}", place="--cpu")
    open_questions = []
    for target in [target for target, precision in pairs if precision == "int8"]:
        known = {name: FAMILIES[name].int8.get(target) for name in CPUS[cpu]}
        failing = [name for name, cell in known.items() if cell is not None and cell.runs is False]
        if failing:
            where = ", ".join(FAMILIES[name].title for name in failing)
            text = f"{target} INT8 does not run on {where}"
            hint = "--target onnx or --target litert, which run there; or --fp32"
            raise OctcError("OCT-E102", text, hint=hint, place="--cpu")
        unknown = [FAMILIES[name].title for name, cell in known.items() if cell is None or cell.runs is None]
        if unknown:
            open_questions.append(f"{target} INT8 was not measured on {', '.join(unknown)}: octc verify there decides")
    return open_questions
