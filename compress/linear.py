"""Linear layers of maps and tokens as 1 x 1 convolutions: the same products, which quantisers, rounding and engines know.

A transformer or ConvNeXt does nearly all of its work in them. A layer of rows, [N, C], is a head or part of a gate, and stays.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from octc.compress.trace import computes_as, set_module

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # [N, C, H, W] -> [N, H, W, C], and back


def as_convolutions(module: fx.GraphModule, whole: tuple[type[nn.Module], ...] = ()) -> list[str]:
    """Replace, in place, the linear layers that work on [N, L, C] or [N, H, W, C] wherever they are called.

    module: every node has its shape in `meta["tensor_meta"]`. whole: types that stay as they are.

    Returns: the names of the layers; the new nodes have no shapes yet.
    """
    calls: dict[str, list[fx.Node]] = {}
    read = {str(node.target).rpartition(".")[0] for node in module.graph.nodes if node.op == "get_attr"}
    for node in module.graph.nodes:
        if node.op == "call_module":
            calls.setdefault(str(node.target), []).append(node)
    done: list[str] = []
    turned: dict[fx.Node, fx.Node] = {}  # one for all layers that read a tensor: queries, keys and values
    for name, nodes in calls.items():
        layer = module.get_submodule(name)
        if not computes_as(layer, (nn.Linear,)) or isinstance(layer, whole) or name in read:
            continue
        if not all(_of_places(node) for node in nodes):
            continue
        set_module(module, name, _convolution(layer))
        for node in nodes:
            _around(module, node, turned)
        done.append(name)
    if done:
        module.graph.lint()
        module.recompile()
    return done


def _of_places(node: fx.Node) -> bool:
    """Whether a call is of several places of an image, with the channels last."""
    source = node.args[0] if node.args else None
    shape = getattr(source.meta.get("tensor_meta"), "shape", ()) if isinstance(source, fx.Node) else ()
    return len(shape) in (3, 4) and max(shape[1:-1]) > 1


def _convolution(layer: Any) -> nn.Conv2d:
    made = nn.Conv2d(layer.in_features, layer.out_features, 1, bias=layer.bias is not None)
    made = made.to(layer.weight)
    with torch.no_grad():
        made.weight.copy_(layer.weight[:, :, None, None])
        if made.bias is not None:
            made.bias.copy_(layer.bias)
    return made.requires_grad_(layer.weight.requires_grad).train(layer.training)


def _around(module: fx.GraphModule, node: fx.Node, turned: dict[fx.Node, fx.Node]) -> None:
    """Channels first in front of a call, and last behind it; tokens are a map of one row."""
    graph, source = module.graph, node.args[0]
    assert isinstance(source, fx.Node)
    tokens = len(source.meta["tensor_meta"].shape) == 3
    if source not in turned:
        given = source
        if tokens:
            with graph.inserting_after(source):
                given = graph.call_method("unsqueeze", (source, 1))
        with graph.inserting_after(given):
            turned[source] = graph.call_method("permute", (given, *FIRST))
    readers = list(node.users)
    with graph.inserting_after(node):
        found = graph.call_method("permute", (node, *LAST))
    if tokens:
        behind = found
        with graph.inserting_after(behind):
            found = graph.call_method("squeeze", (behind, 1))
    found.meta["tensor_meta"] = node.meta["tensor_meta"]  # which a layer that follows directly reads
    for reader in readers:
        reader.replace_input_with(node, found)
    node.args = (turned[source],)
