"""What an engine really runs: one report from the four places where TensorRT says it.

The build log of TensorRT for RTX ("Layers:"), the inspector's JSON of TensorRT 10 ("Bindings") and 11 ("I/O Tensors"), and what
trtexec exports. They agree on no layer name, so kernels are matched by the ONNX nodes in their metadata, else by the parts of a
fused name; what matches nothing is listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from octc.core.files import parse_json
from octc.schemas.tensorrt_plan import BuildPlan

INT8, FP16, FP32, UNKNOWN = "int8", "fp16", "fp32", "unknown"
WORDS = {INT8: ("int8",), FP16: ("half", "fp16", "float16"), FP32: ("float", "fp32")}  # in this order: "float16" holds "float"
COMPUTE = re.compile(r"conv|correlation|gemm|runtime_fusion|matrix|deconv", re.IGNORECASE)
REFORMAT = re.compile(r"reformat|copy", re.IGNORECASE)
ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
DEQUANTISES = re.compile(r"Cast\w*(Fc|Gemm|Conv)")  # codes times scales inside the kernel: its product is one of floats
WRAPPED = re.compile(r"^(?:PWN|\{ForeignNode)?[(\[{]+|[\]})]+$")


@dataclass(frozen=True)
class Kernel:
    """One layer of an engine: nodes are ONNX nodes, precision that of its first input, name and kind as TensorRT has them."""

    name: str
    kind: str
    nodes: tuple[str, ...]
    precision: str

    @property
    def computes(self) -> bool:
        return bool(COMPUTE.search(self.kind))


@dataclass(frozen=True)
class LayerReport:
    """Attributes:
    nodes: convolution -> the precision that it runs in ("unknown" where no kernel names it).
    missing: convolutions that were promised in INT8 and run otherwise.
    macs: share of the multiply-accumulates of all convolutions, by precision.
    unmatched: names of kernels that belong to no ONNX node.
    """

    kernels: int
    reformats: int
    nodes: dict[str, str]
    missing: tuple[str, ...]
    macs: dict[str, float]
    unmatched: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Convolutions by precision."""
        return {kind: n for kind in (*WORDS, UNKNOWN) if (n := sum(v == kind for v in self.nodes.values()))}

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "convolutions": self.counts()}


def read_kernels(text: str) -> list[Kernel]:
    """Kernels of a dump, whichever it is (ValueError when it is none, or was made without detailed verbosity)."""
    if text.startswith("Layers:"):
        return [kernel for line in text.splitlines() if (kernel := _from_log(line))]
    try:
        value = parse_json(text)
    except ValueError:
        raise ValueError("neither a build log nor the inspector's JSON") from None
    layers = value.get("Layers") if isinstance(value, dict) else value
    if not isinstance(layers, list) or not all(isinstance(one, dict) for one in layers):
        raise ValueError("layers without details: build with profiling verbosity DETAILED")
    return [_from_json(one) for one in layers]


def report_layers(text: str, plan: BuildPlan) -> LayerReport:
    """Match the kernels of a dump with the convolutions of a plan. Raises ValueError as `read_kernels` does."""
    kernels = read_kernels(text)
    found: dict[str, set[str]] = {name: set() for name in plan.convolutions}
    fallback: dict[str, set[str]] = {name: set() for name in plan.convolutions}
    for kernel in kernels:
        for node in kernel.nodes:
            if node in found:
                (found if kernel.computes else fallback)[node].add(kernel.precision)
    nodes = {name: _precision(found[name] or fallback[name]) for name in plan.convolutions}
    total = sum(plan.convolutions.values()) or 1
    shares = {
        kind: sum(m for name, m in plan.convolutions.items() if nodes[name] == kind) / total for kind in (*WORDS, UNKNOWN)
    }
    return LayerReport(
        kernels=len(kernels),
        reformats=sum(bool(REFORMAT.search(f"{k.kind} {k.name}")) for k in kernels),
        nodes=nodes,
        missing=tuple(name for name in plan.promised if nodes.get(name) != INT8),
        macs={kind: round(value, 6) for kind, value in shares.items() if value},
        unmatched=tuple(k.name for k in kernels if not k.nodes),
    )


def _precision(kinds: set[str]) -> str:
    """A node in several kernels (helpers around it) runs in the lowest that reads its data."""
    return next((kind for kind in WORDS if kind in kinds), UNKNOWN)


def _of(text: str) -> str:
    low = text.lower()
    return next((kind for kind, words in WORDS.items() if any(word in low for word in words)), UNKNOWN)


def _from_log(line: str) -> Kernel | None:
    kind = re.search(r"LayerType: (\w+)", line)
    if not kind:
        return None
    name = re.search(r"Name: (.*?), LayerType", line)
    inputs = line.partition("Inputs:")[2].partition("Constants:")[0].partition("Outputs:")[0]
    types = re.findall(r"Datatype: (\w+)", inputs)
    lowest = INT8 if "Int8" in types else _of(types[0]) if types else UNKNOWN
    if lowest == INT8 and name and DEQUANTISES.search(name[1]):
        made = re.search(r"Outputs: .*?Datatype: (\w+)", line)
        lowest = _of(made[1]) if made else UNKNOWN
    return Kernel(name[1] if name else "", kind[1], tuple(ONNX_NODE.findall(line)), lowest)


def _from_json(layer: dict[str, Any]) -> Kernel:
    name, kind = str(layer.get("Name", "")), str(layer.get("LayerType", ""))
    inputs = [i for i in layer.get("Inputs", []) if isinstance(i, dict)]
    types = [_of(str(i.get("Datatype") or i.get("Format/Datatype") or i.get("Format") or "")) for i in inputs[:1]]
    nodes = tuple(ONNX_NODE.findall(str(layer.get("Metadata", "")))) or tuple(name_parts(name))
    return Kernel(name, f"{kind} {layer.get('ParameterType', '')}".strip(), nodes, types[0] if types else UNKNOWN)


def name_parts(name: str) -> Iterator[str]:
    """ONNX nodes in the name of a fused layer: "a/Conv + PWN(PWN(a/Sigmoid), a/Mul)", "{ForeignNode[a...b]}"."""
    for part in re.split(r" \+ |, |\.\.\.", name):
        bare = part.strip()
        while (stripped := WRAPPED.sub("", bare)) != bare:
            bare = stripped
        if bare:
            yield bare
