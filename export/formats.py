"""The targets of `octc export`, one row of a table for each. Imports no torch, so that commands can list them.

The engine that runs the artifact is a row of `octc/core/targets.py`; `artifact` names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from octc.core.errors import OctcError


@dataclass(frozen=True)
class Reads:
    """The ONNX that a target reads. opset: the default. lowest, highest: the allowed range. ir: newest file format."""

    opset: int
    lowest: int
    highest: int
    ir: int


@dataclass(frozen=True)
class Format:
    """A target of an export.

    Attributes:
        artifact: target of the artifact, a key of `octc.core.targets.TARGETS`.
        makers: precision -> (workshop, job, folder) -> Made, written "module:function" and imported when it is called.
        reads: what is written for it as ONNX; None: no ONNX is involved.
        encoding: of Q/DQ (a key of `octc.export.onnx.encoding.ENCODINGS`) for networks with rectifiers; others: for all others.
        library: Python module of the TensorRT that compiles it, "" where nothing is compiled.
        checked: what `octc lint` calls it -> the newest opset that is documented for it; empty: its own name, any opset.
        takes: (Made, folder) -> Made, files of it from the Q/DQ ONNX file of another library; "" where there is no such way.
        unasked: precisions that are made only when they are named. by_name: it is made only when it is named itself.
        any_network: also of a network that is not timm's.
        placement: of quantisers, where they are set after training (`octc.compress.placement`).
        cpus: processors that are asked for (keys of `octc.runtimes.cpu_families.CPUS`) -> the target whose INT8 file is theirs.
        everywhere: its INT8 file is for every processor, also where the engine's usual one is not.
        linted: its Q/DQ is held against the rules of `octc lint`; False: it has a placement of quantisers of its own.
    """

    artifact: str
    makers: Mapping[str, str]
    reads: Reads | None = None
    encoding: str = "int8"
    others: str = "int8"
    library: str = ""
    checked: Mapping[str, int] = field(default_factory=dict)
    takes: str = ""
    unasked: tuple[str, ...] = ()
    by_name: bool = False
    any_network: bool = True
    placement: str = "engines"
    cpus: Mapping[str, str] = field(default_factory=dict)
    everywhere: bool = False
    linted: bool = True


_M = "octc.export.targets:"
_TENSORRT = {"int8": f"{_M}tensorrt_int8", "fp16": f"{_M}tensorrt_fp16"}
# Opsets: dynamo writes 18 and above (17 comes out as 18). onnxruntime 1.20 and OpenVINO 2025.0 read 21, TensorRT 10 reads 20.
# FP16 scales are legal from 19 on.
# TensorRT 10.0 documents opsets 9 to 20, 11 documents 9 to 25.
# Unasked: FP16 files of OpenVINO run in FP32 on a CPU and are half as large; an INT8 artifact for TensorRT holds the FP16 file.
# TensorRT for RTX compiles an engine, and LiteRT wants quantisers of its own behind SiLU: they are made by name only.
# OpenVINO on Arm wants a quantiser behind every dense convolution: its INT8 file is made where the processors are named.
FORMATS: dict[str, Format] = {
    "onnx": Format(
        "onnx", {"fp32": f"{_M}onnx_fp32", "fp16": f"{_M}onnx_fp16", "int8": f"{_M}onnx_int8"},
        Reads(20, 18, 21, 10), encoding="uint8", takes=f"{_M}copied",
    ),
    "openvino": Format(
        "openvino", {"fp32": f"{_M}openvino_fp32", "fp16": f"{_M}openvino_fp16", "int8": f"{_M}openvino_int8"},
        Reads(20, 18, 21, 10), encoding="mixed", takes=f"{_M}converted", unasked=("fp32",),
        cpus={"arm": "openvino-arm", "arm-nofp16": "openvino-arm"},
    ),
    "openvino-arm": Format(
        "openvino", {"int8": f"{_M}openvino_int8"}, Reads(20, 18, 21, 10), encoding="acl", others="acl", by_name=True,
        placement="acl", everywhere=True,
    ),
    "tensorrt": Format(
        "tensorrt", _TENSORRT, Reads(19, 19, 20, 10), encoding="half", others="half", library="tensorrt",
        checked={"tensorrt": 20, "tensorrt-strong": 25}, unasked=("fp16",),
    ),
    "tensorrt-rtx": Format(
        "tensorrt", _TENSORRT, Reads(19, 19, 21, 10), encoding="half", others="half", library="tensorrt_rtx",
        checked={"tensorrt-rtx": 25}, unasked=("fp16",), by_name=True,
    ),
    "litert": Format(
        "litert", {"fp32": f"{_M}litert_fp32", "int8": f"{_M}litert_int8"}, Reads(20, 18, 21, 10), encoding="residual",
        others="residual", by_name=True, placement="xnnpack", linted=False,
    ),
    "torch": Format("torch", {"fp32": f"{_M}torch_fp32"}, any_network=False),
}  # fmt: skip


def pairs() -> Iterator[tuple[str, str]]:
    """All (target, precision) pairs, in the order in which they are made."""
    return ((name, precision) for name, one in FORMATS.items() for precision in one.makers)


def libraries() -> dict[str, str]:
    """Targets that TensorRT compiles, with its Python module."""
    return {name: one.library for name, one in FORMATS.items() if one.library}


def lint_targets(*, compiled: bool = False) -> dict[str, int | None]:
    """What `octc lint` knows -> the newest opset that is documented, None where none is; compiled: TensorRT's alone."""
    known: dict[str, int | None] = {}
    for name, one in FORMATS.items():
        if one.reads is not None and one.linted and (one.library or not compiled):
            known.update({key: one.checked.get(key) for key in one.checked or (name,)})
    return known


def foreign_targets() -> tuple[str, ...]:
    """Targets whose INT8 files can be made by other quantisers (`octc ptq`)."""
    return tuple(name for name, one in FORMATS.items() if one.takes)


def opsets() -> range:
    """The opsets that every target supports."""
    reads = [one.reads for one in FORMATS.values() if one.reads is not None]
    return range(max(one.lowest for one in reads), min(one.highest for one in reads) + 1)


def choose_opset(target: str, asked: int | None) -> int:
    """The opset for a target (OctcError E401 if the requested one cannot be written or read)."""
    reads = FORMATS[target].reads
    assert reads is not None  # callers ask for targets that are written as ONNX
    opset = asked or reads.opset
    if not reads.lowest <= opset <= reads.highest:
        side = (
            f"{target} reads up to {reads.highest}" if opset > reads.highest else f"octc writes {reads.lowest} and above for it"
        )
        hint = f"--opset {reads.lowest} to {reads.highest}, or leave it out ({reads.opset})"
        raise OctcError("OCT-E401", f"opset {opset} cannot be had for {target}: {side}", hint=hint, place="--opset")
    return opset


def for_cpu(target: str, precision: str, cpu: str) -> str:
    """The target whose file of this precision is made for these processors ("": any)."""
    return FORMATS[target].cpus.get(cpu, target) if precision == "int8" else target


def wanted(target: str, precision: str | None, kind: str) -> list[tuple[str, str]]:
    """The (target, precision) pairs of a request (E104 for a pair that does not exist).

    Without a precision: every sensible one, and INT8 for students only.
    """
    whole = (name for name, one in FORMATS.items() if target == name or (target == "all" and not one.by_name))
    fits = [(name, p) for name in whole for p in FORMATS[name].makers if precision in (p, None)]
    if not fits:
        have = ", ".join(f"--{p}" for p in FORMATS[target].makers)
        text = f"{target} has no {precision} artifact"
        raise OctcError("OCT-E104", text, hint=f"--target {target} with {have}")
    if precision is None:
        able = [pair for pair in fits if kind != "teacher" or pair[1] != "int8"]
        return [(name, p) for name, p in able if p not in FORMATS[name].unasked] or able
    return fits
