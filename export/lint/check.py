"""Static checks of an ONNX graph: what TensorRT would reject, run in float, mis-scale or run slowly. onnx and numpy only.

E  will not build, or computes something else than the file says      W  silently in float, or slow      I  advice
A file is clean without E and W. Rules were compared with NVIDIA's compiler (TensorRT for RTX 1.7.1); where they are stricter on
purpose, `Rule.stricter` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import onnx

from octc.core.errors import OctcError, shorten
from octc.export.formats import lint_targets
from octc.export.lint import forms, values
from octc.export.lint import placement as place
from octc.export.lint.graph import DQ, Graph, Q, graphs_of

WEAK, STRONG = "tensorrt", "tensorrt-strong"  # 10.0 to 10.11 types weakly by default, later versions strongly
TENSORRT = tuple(lint_targets(compiled=True))
EVERY: tuple[str, ...] = ()  # targets of a rule that holds for all of them
MEANT = "octc.float_convolutions"
Check = Callable[[Graph], Iterator[values.Hit]]


@dataclass(frozen=True)
class Finding:
    """rule: id ("E01"). severity: E, W or I. node: its name in the file. code: of octc/core/codes.py. fix: what to do."""

    rule: str
    name: str
    severity: str
    node: str
    message: str
    fix: str
    code: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """stricter: why this one fires on graphs that NVIDIA's compiler takes ("" where they agree)."""

    id: str
    name: str
    check: Check
    fix: str
    targets: tuple[str, ...] = TENSORRT
    stricter: str = ""
    code: str = "OCT-E404"


CLASSIC = "classic TensorRT has fewer INT8 kernels than TensorRT for RTX"
WRONG = "compiled without a word, but the numbers are not those of the file"
FOREIGN = "other parsers and engines know the operators of ONNX alone"
SLOW = "runs, but slowly"
RULES = (
    Rule(
        "E01",
        "zero-point",
        values.zero_points,
        "--fix where it is uint8 with 128; else calibrate symmetrically",
        code="OCT-E403",
    ),
    Rule("E02", "type of codes", values.code_types, "store int8 codes"),
    Rule("E03", "bias", values.quantised_bias, "--fix keeps it in float", EVERY, WRONG + " (int8 bias)"),
    Rule("E04", "scale source", values.scale_sources, "freeze the scale into the file", EVERY),
    Rule("E05", "scale", values.scale_values, "calibrate again", EVERY, WRONG),
    Rule(
        "E06", "mixed types", values.mixed_types, "give scales the type of the tensor", stricter="not valid ONNX below opset 23"
    ),
    Rule("E07", "operator", values.integer_operators, "export with QuantizeLinear and DequantizeLinear", EVERY, FOREIGN),
    Rule("E08", "missing operator", values.missing_operators, "export with other operators"),
    Rule("E09", "open shape", values.dynamic_shapes, "fix every axis but the batch", stricter="octc builds for one image size"),
    Rule("E10", "FP16 range", values.half_constants, "keep these operators in FP32", (WEAK, STRONG), WRONG + " in FP16"),
    Rule("E11", "unsigned", values.unsigned, "calibrate symmetrically with int8 and zero-point 0", stricter=WRONG),
    Rule("E12", "scale shape", values.scale_shapes, "one scale, or one for each output channel", EVERY),
    Rule("E13", "not finite", values.not_finite, "look at the training", EVERY, WRONG),
    Rule("E14", "float64", values.doubles, "export in float32", stricter=WRONG),
    Rule("E16", "form", forms.forms, "export with another form of the operator"),
    Rule("W20", "one-sided", place.one_sided, "quantise both inputs, or --fix where only the weight is", EVERY, CLASSIC),
    Rule("W21", "axis", place.wrong_axis, "scales on the output channels", EVERY),
    Rule("W22", "weight path", place.weight_path, "fold what stands between", stricter=CLASSIC),
    Rule("W23", "channels", place.narrow, "leave this convolution in float", stricter=CLASSIC),
    Rule("W24", "transposed convolution", place.transposed, "leave it in float, or use Resize and Conv"),
    Rule("W25", "FP16 opset", values.early_half, "export with opset 19", stricter="not valid ONNX"),
    Rule("W26", "float convolution", place.bare, "quantise it, or leave it in float on purpose", EVERY, SLOW),
    Rule("W27", "activation scales", place.vector_scales, "one scale for each activation"),
    Rule("W28", "other scale", place.other_scales, "the same scale for Q and its DQ", EVERY, "legal, and hardly ever meant"),
    Rule("W29", "logits", place.outputs, "leave outputs in float", EVERY, SLOW),
    Rule("W30", "between", place.between, "move Q behind the activation", EVERY, SLOW),
    Rule("W31", "shortcut", place.residuals, "--fix takes the block's own quantiser", stricter=SLOW),
    Rule("W32", "second quantiser", place.second_quantisers, "one quantiser for each tensor", stricter=SLOW),
    Rule("W33", "squeeze-excite", place.squeeze_excite, "all three or none", stricter=SLOW),
    Rule("W34", "decider", place.deciders, "leave it in float", EVERY, SLOW),
    Rule("W35", "concatenation", place.concatenated, "one scale for all inputs", stricter=SLOW),
    Rule("W36", "needless pair", place.needless, "one pair is enough", stricter=SLOW),
    Rule("W37", "requantised", place.chains, "one scale", stricter=SLOW),
    Rule("W38", "FP32 remainder", place.float_remainder, "use the file with the FP16 remainder", (STRONG,), SLOW),
    Rule("W39", "SiLU", place.inside_silu, "move Q behind the product", EVERY, SLOW),
    Rule("W40", "codes", place.on_codes, "dequantise first", stricter=WRONG),
    Rule("W41", "FP16 norm", values.decomposed_norms, "keep norms in FP32", stricter=WRONG),
    Rule("I40", "BatchNorm", place.batch_norms, "--fix folds it", EVERY),
    Rule("I41", "depthwise", place.depthwise, "the mixed-precision fallback puts them into FP16"),
    Rule("I42", "share", place.share, ""),
    Rule("I43", "both branches", place.both_branches, "leave the convolution's side in float"),
    Rule("I44", "no Q/DQ", place.nothing_quantised, "octc export --int8, or name the INT8 file", EVERY),
)
MODEL_RULES = {
    "E08": Rule(
        "E08", "opset", lambda _: iter(()), "export with --opset 19", stricter="TensorRT 10.0 to 10.3 document up to 20"
    ),
    "E17": Rule(
        "E17", "shapes", lambda _: iter(()), "export again", stricter="the parser is lenient where nothing depends on it"
    ),
    "E15": Rule("E15", "not valid", lambda _: iter(()), "export again", stricter="the parser is lenient"),
}


def lint(proto: onnx.ModelProto, target: str = WEAK) -> list[Finding]:
    """All findings for a target, advice included; the worst first."""
    main, *inner = graphs_of(proto)
    found = [
        _finding(rule, hit)
        for rule in RULES
        if not rule.targets or target in rule.targets
        for graph in (main, *inner)
        for hit in _guarded(rule.check, graph)
    ]
    if (highest := lint_targets().get(target)) is not None:
        found += [_finding(MODEL_RULES["E08"], hit) for hit in values.opset_range(main, highest)]
    if not any(f.severity == "E" for f in found):
        found += [_finding(MODEL_RULES["E15"], hit) for hit in values.validity(proto)]
        # W25, FP16 scales in an old opset: types that no checker knows
        if target in TENSORRT and not any(f.rule in ("W25", "E15") for f in found):
            found += [_finding(MODEL_RULES["E17"], hit) for hit in forms.impossible(proto)]
    meant = meant_float(proto)
    unique = dict.fromkeys(f for f in found if f.rule != "W26" or f.node not in meant)
    return sorted(unique, key=lambda f: ("EWI".index(f.severity), f.rule))


def meant_float(proto: onnx.ModelProto) -> frozenset[str]:
    """Nodes of convolutions that the file says were left in float on purpose (a step of the mixed-precision fallback)."""
    return frozenset(name for entry in proto.metadata_props if entry.key == MEANT for name in entry.value.split())


def mark_float(proto: onnx.ModelProto, floats: frozenset[str]) -> None:
    """Write into the file which convolutions (by their name in the network) were left in float on purpose."""
    allowed = [name.replace(".", "_") for name in floats]
    _mark(proto, [node.name for node in proto.graph.node if node.op_type == "Conv" and _named(proto, node.name, allowed)])


def mark_rest(proto: onnx.ModelProto, placed: int) -> None:
    """Where as many convolutions of a file are INT8 as have quantisers in its network, the others were meant to be float (in
    modules that stayed whole, called as functions): write so into the file."""
    if counts(proto)["int8_convolutions"] == placed:
        _mark(proto, [node.name for node, _ in place.bare(Graph(proto.graph, 0))])


def _mark(proto: onnx.ModelProto, names: list[str]) -> None:
    if not names:
        return
    known = sorted(meant_float(proto) | {*names})
    kept = [entry for entry in proto.metadata_props if entry.key != MEANT]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    proto.metadata_props.add(key=MEANT, value=" ".join(known))


def _guarded(check: Check, graph: Graph) -> list[values.Hit]:
    """A rule on a graph that may be malformed: nodes without inputs, tensors without makers."""
    try:
        return list(check(graph))
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return [("model", f"cannot be examined ({type(error).__name__}: {error})")]


def _finding(rule: Rule, hit: values.Hit) -> Finding:
    node, message = hit
    name = node if isinstance(node, str) else str(node.name or (node.output[0] if node.output else node.op_type))
    return Finding(rule.id, rule.name, rule.id[0], name, message, rule.fix, rule.code)


def to_repair(findings: list[Finding]) -> list[Finding]:
    """Errors and warnings; advice is none of them."""
    return [f for f in findings if f.severity in "EW"]


def require_clean(
    proto: onnx.ModelProto, target: str, floats: frozenset[str] = frozenset(), *, quantised: bool = True
) -> dict[str, int]:
    """Raise on anything to repair; count what is quantised.

    Args:
        floats: convolutions (by their name in the network) that were left in float on purpose.
        quantised: whether the file must hold Q/DQ.

    Raises:
        OctcError: E403 a zero-point other than 0, E404 Q/DQ misplaced or missing; nodes are named.
    """
    allowed = [name.replace(".", "_") for name in floats]
    found = [f for f in to_repair(lint(proto, target)) if f.rule != "W26" or not _named(proto, f.node, allowed)]
    if found:
        same = [f for f in found if f.code == found[0].code]
        text = f"{len(same)} findings for {target}: {shorten([f'{f.node}: {f.message}' for f in same], 5)}"
        raise OctcError(found[0].code, text, hint="octc export again with this version; report the model", place=same[0].node)
    result = counts(proto)
    if quantised and not result["int8_convolutions"]:
        raise OctcError("OCT-E404", "no convolution stands between Q/DQ", hint="octc export --fp16")
    return result


def counts(proto: onnx.ModelProto) -> dict[str, int]:
    """Convolutions in INT8 (both inputs from a DequantizeLinear) and in float, and the Q and DQ nodes."""
    graph = Graph(proto.graph, 0)
    convs = list(graph.of("Conv"))
    int8 = sum(all(graph.maker(name) == DQ for name in conv.input[:2]) for conv in convs)
    return {
        "int8_convolutions": int8,
        "float_convolutions": len(convs) - int8,
        "quantize_nodes": len(list(graph.of(Q))),
        "dequantize_nodes": len(list(graph.of(DQ))),
    }


def _named(proto: onnx.ModelProto, node: str, allowed: list[str]) -> bool:
    weights = [name for n in proto.graph.node if n.name == node for name in n.input[1:2]]
    return any(name.replace(".", "_").endswith(f"{one}_conv_weight") for name in weights for one in allowed)
