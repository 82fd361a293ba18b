"""Lowest values of tensors, as far as they follow from the graph alone."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from octc.compress.fake_quant import ActivationQuantiser, GateQuantiser, OnGrid
from octc.compress.trace import calls_module, computes_as

NONNEGATIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid)
NONNEGATIVE_CALLS = (torch.relu, torch.relu_, functional.relu, functional.relu6, torch.sigmoid, functional.hardsigmoid)
NONNEGATIVE_METHODS = ("relu", "relu_", "sigmoid")
SIGMOID_CALLS = (torch.sigmoid, functional.sigmoid)
GATES, GATE_CALLS = (nn.Sigmoid, nn.Hardsigmoid), (*SIGMOID_CALLS, functional.hardsigmoid)  # at most 1
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
PRODUCTS = (operator.mul, operator.imul, torch.mul)
SILU_LEAST = -0.27846454276107374  # x * sigmoid(x) at x = -1.2784645427610738
HARD_SWISH_LEAST = -0.375  # x * relu6(x + 3) / 6 at x = -1.5
GATE_LEAST = -math.log(511)  # sigmoid(x) = 1 / 512: below it lies code 0 of a gate's grid, whose step is 1 / 256


def set_lowest(module: fx.GraphModule, *, rectified: bool = False) -> None:
    """Set the lowest value of every quantiser whose tensor has a known one; its codes then start there.

    For a tensor that only SiLU reads, values below `GATE_LEAST` do not matter: x times a gate of code 0 is 0.

    rectified: set it behind rectifiers only.
    """
    for node in module.graph.nodes:
        part = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(part, ActivationQuantiser) or (rectified and not is_nonnegative(module, node.args[0])):
            continue
        part.least = lowest_value(module, node.args[0])
        if part.least is None and _feeds_silu_alone(module, node):
            part.least = GATE_LEAST


def is_one(module: fx.GraphModule, node: fx.Node, kinds: Any, calls: Any) -> bool:
    """Whether a node calls a module that computes as one of these kinds, or one of these functions."""
    if node.op == "call_module":
        return computes_as(module.get_submodule(str(node.target)), kinds)
    return node.op == "call_function" and node.target in calls


def is_nonnegative(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node's result comes from a rectifier or a sigmoid, through pools and quantisers."""
    while calls_module(module, node, (*POOLS, OnGrid)):
        node = node.args[0]  # type: ignore[assignment]
    if node.op == "call_module":
        return computes_as(module.get_submodule(str(node.target)), NONNEGATIVE)
    calls: tuple[Any, ...] = NONNEGATIVE_METHODS if node.op == "call_method" else NONNEGATIVE_CALLS
    return node.op in ("call_function", "call_method") and node.target in calls


def lowest_value(module: fx.GraphModule, node: fx.Node) -> float | None:
    """The lowest value that a tensor can have; None: not known.

    0 behind a rectifier, `SILU_LEAST` behind SiLU (in the graph the product x * sigmoid(x)), `HARD_SWISH_LEAST`, and so what
    gates (0 to 1) and means make of such tensors.
    """
    if is_nonnegative(module, node):
        return 0.0
    if is_one(module, node, (nn.Hardswish,), (functional.hardswish,)):
        return HARD_SWISH_LEAST
    if calls_module(module, node, OnGrid) or _is_mean(module, node):
        return lowest_value(module, node.args[0])  # type: ignore[arg-type]
    if node.op != "call_function" or node.target not in PRODUCTS or len(node.args) != 2:
        return None
    gates = [one for one in node.args if isinstance(one, fx.Node) and is_nonnegative(module, one)]
    values = [one for one in node.args if isinstance(one, fx.Node) and one not in gates]
    if len(gates) != 1 or len(values) != 1:
        return None
    gate = gates[0]
    while calls_module(module, gate, OnGrid):
        gate = gate.args[0]  # type: ignore[assignment]
    if gate.target in SIGMOID_CALLS and gate.args[0] is values[0]:
        return SILU_LEAST
    bounded = is_one(module, gate, GATES, GATE_CALLS) or (gate.op == "call_method" and gate.target == "sigmoid")
    return lowest_value(module, values[0]) if bounded else None


def _feeds_silu_alone(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a tensor goes into x * sigmoid(x) and nowhere else, with the gate on the engine's grid."""
    gates = [user for user in node.users if user.target in SIGMOID_CALLS and user.op == "call_function"]
    products = [user for user in node.users if user.target in PRODUCTS]
    if len(gates) != 1 or len(products) != 1 or len(node.users) != 2:
        return False
    on_grid = list(gates[0].users)
    return len(on_grid) == 1 and calls_module(module, on_grid[0], GateQuantiser) and list(on_grid[0].users) == products


def _is_mean(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether no result of a node is lower than the lowest value of its input: means and maxima."""
    if node.op == "call_method":
        return node.target == "mean"
    return (
        calls_module(module, node, POOLS) and getattr(module.get_submodule(str(node.target)), "divisor_override", None) is None
    )
