"""The main operator set under one name: "ai.onnx" is another one for "", which onnx's checker does not know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

OTHER = "ai.onnx"


def spell_domains(proto: onnx.ModelProto) -> None:
    """Write "" for "ai.onnx" in every node and every list of operator sets, in place."""
    for holder in (proto, *proto.functions):
        sets = holder.opset_import
        plain = any(not one.domain for one in sets)
        kept = [one for one in sets if one.domain != OTHER or not plain]
        for one in kept:
            one.domain = "" if one.domain == OTHER else one.domain
        if len(kept) < len(sets):
            held = [onnx.helper.make_opsetid(one.domain, one.version) for one in kept]
            del sets[:]
            sets.extend(held)
    for node in _nodes([proto.graph.node, *(function.node for function in proto.functions)]):
        if node.domain == OTHER:
            node.domain = ""


def _nodes(lists: Iterable[Iterable[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    """Every node, those of subgraphs too."""
    for nodes in lists:
        for node in nodes:
            yield node
            for inner in node.attribute:
                yield from _nodes(graph.node for graph in ([inner.g] if inner.HasField("g") else inner.graphs))
