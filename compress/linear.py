"""Linear layers of maps and tokens as 1 x 1 convolutions: the same products, which quantisers, rounding and engines know.

A transformer or ConvNeXt does nearly all of its work in them. A layer of rows, [N, C], is a head or part of a gate, and stays.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from octc.compress.attention import linear_of
from octc.compress.shapes import of_the_image, value_of
from octc.compress.trace import computes_as, set_module

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)  # [N, C, H, W] -> [N, H, W, C], and back
ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def as_convolutions(module: fx.GraphModule, whole: tuple[type[nn.Module], ...] = ()) -> list[str]:
    """Replace, in place, the linear layers that work on [N, L, C], [L, N, C], [N * L, C], [N, H, W, C] or [N, ..., C]
    wherever they are called.

    module: every node has its shape in `meta["tensor_meta"]`. whole: types that stay as they are.

    Returns: the names of the layers; the new nodes have no shapes yet.
    """
    if nn.Linear not in whole:
        _modules_of_functions(module)
    moving = of_the_image(module.graph)
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
        if not all(_of_places(node) and node in moving for node in nodes):
            continue
        set_module(module, name, _convolution(layer))
        for node in nodes:
            _around(module, node, turned)
        done.append(name)
    if done:
        module.graph.lint()
        module.recompile()
    return done


def _modules_of_functions(module: fx.GraphModule) -> None:
    """A linear function or convolution of weights that no image decides (`F.linear(x, self.qkv.weight, bias)`, a blur) becomes
    a layer of its own."""
    values: dict[fx.Node, Any] = {}
    with torch.no_grad():
        for node in module.graph.nodes:
            if node.op == "get_attr":
                values[node] = value_of(module, node, values).detach().clone()
            elif node.op in ("call_function", "call_method") and _are_known(node, values):
                values[node] = value_of(module, node, values)
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target not in FUNCTIONS or node in values:
            continue
        given = dict(zip(ARGUMENTS, node.args, strict=False)) | node.kwargs
        weight, bias = given["weight"], given.get("bias")
        if weight not in values or not (bias is None or bias in values) or values[weight].ndim not in (2, 4):
            continue
        layer = FUNCTIONS[node.target](values[weight], None if bias is None else values[bias], given)
        if layer is None:
            continue
        name = f"{WORDS[node.target]}_of_{node.name}"
        module.add_submodule(name, layer)
        with module.graph.inserting_before(node):
            made = module.graph.call_module(name, (given["input"],))
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        module.graph.erase_node(node)
    for node in reversed(list(values)):
        if not node.users and not (node.op == "call_method" and str(node.target).endswith("_")):
            module.graph.erase_node(node)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, _given: dict[str, Any]) -> nn.Module:
    return linear_of(weight, bias)


def _conv(weight: torch.Tensor, bias: torch.Tensor | None, given: dict[str, Any]) -> nn.Module | None:
    """None: its strides, borders or groups are no numbers of the graph."""
    keys = {key: given[key] for key in ARGUMENTS[3:] if key in given}
    numbers: list[Any] = []
    fx.node.map_aggregate(tuple(keys.values()), numbers.append)
    if any(isinstance(one, fx.Node) for one in numbers):
        return None
    outputs, inputs, *sides = weight.shape
    groups = int(keys.get("groups", 1))
    made = nn.Conv2d(inputs * groups, outputs, tuple(sides), bias=bias is not None, **keys).to(weight)  # type: ignore[arg-type]
    made.weight = nn.Parameter(weight.clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made.requires_grad_(False).eval()


FUNCTIONS: dict[Any, Any] = {functional.linear: _linear, torch.conv2d: _conv}
WORDS: dict[Any, str] = {functional.linear: "linear", torch.conv2d: "convolution"}  # names that checkpoints have


def _are_known(node: fx.Node, values: dict[fx.Node, Any]) -> bool:
    return bool(node.all_input_nodes) and values.keys() >= set(node.all_input_nodes)


def _of_places(node: fx.Node) -> bool:
    """Whether a call is of several places of an image, with the channels last."""
    source = node.args[0] if node.args else None
    shape = getattr(source.meta.get("tensor_meta"), "shape", ()) if isinstance(source, fx.Node) else ()
    return _added_axes(shape) is not None


def _added_axes(shape: Sequence[int]) -> tuple[int, ...] | None:
    """Where axes of 1 are added, one after the other, to make [N, H, W, C] of the shape for one image; None: it is of no
    places, or of more axes. Tokens are a map of one row; where images are not the first axis, all of them are one map."""
    if len(shape) == 4 and max(shape[1:3]) > 1:
        return ()
    if len(shape) == 3 and shape[1] > 1:
        return (1,)
    if len(shape) in (2, 3) and shape[0] > 1:
        return (0,) * (4 - len(shape))
    if len(shape) > 4 and max(shape[1:-1]) > 1:
        return (1,)
    return None


def _convolution(layer: Any) -> nn.Conv2d:
    made = nn.Conv2d(layer.in_features, layer.out_features, 1, bias=layer.bias is not None)
    made = made.to(layer.weight)
    with torch.no_grad():
        made.weight.copy_(layer.weight[:, :, None, None])
        if made.bias is not None:
            made.bias.copy_(layer.bias)
    return made.requires_grad_(layer.weight.requires_grad).train(layer.training)


def _around(module: fx.GraphModule, node: fx.Node, turned: dict[fx.Node, fx.Node]) -> None:
    """Channels first in front of a call, and last behind it."""
    graph, source = module.graph, node.args[0]
    assert isinstance(source, fx.Node)
    added = _added_axes(source.meta["tensor_meta"].shape) or ()
    many = len(source.meta["tensor_meta"].shape) > 4  # axes of places: they are one meanwhile
    if source not in turned:
        given = source
        if many:
            with graph.inserting_after(source):
                given = graph.call_method("flatten", (source, 1, -2))
        for axis in added:
            with graph.inserting_after(given):
                given = graph.call_method("unsqueeze", (given, axis))
        with graph.inserting_after(given):
            turned[source] = graph.call_method("permute", (given, *FIRST))
    readers = list(node.users)
    with graph.inserting_after(node):
        found = graph.call_method("permute", (node, *LAST))
    for axis in added:
        with graph.inserting_after(found):
            found = graph.call_method("squeeze", (found, axis))
    if many:
        width = node.meta["tensor_meta"].shape[-1:]
        with graph.inserting_after(found):
            whole = graph.call_function(getattr, (source, "shape"))
        with graph.inserting_after(whole):
            places = graph.call_function(operator.getitem, (whole, slice(None, -1)))
        with graph.inserting_after(places):
            sides = graph.call_function(operator.add, (places, tuple(width)))
        with graph.inserting_after(sides):
            found = graph.call_method("reshape", (found, sides))
    found.meta["tensor_meta"] = node.meta["tensor_meta"]  # which a layer that follows directly reads
    for reader in readers:
        reader.replace_input_with(node, found)
    node.args = (turned[source],)
