"""Multiply-accumulates of one image through a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

Shape = Sequence[int]


def count_macs(model: nn.Module, size: int) -> int:
    """MACs of the convolutions, linear and recurrent layers and attention of one [1, 3, size, size] input; works on the meta
    device."""
    return int(_counted(model, size).get_total_flops()) // 2


def layer_macs(model: nn.Module, size: int) -> dict[str, int]:
    """The same for each module that has any, by its name: those of a block are the sum of its layers'."""
    found = _counted(model, size).get_flop_counts()
    whole = type(model).__name__
    return {
        name.removeprefix(f"{whole}."): sum(each.values()) // 2 for name, each in found.items() if name.startswith(f"{whole}.")
    }


def _recurrent(given: Shape, of_input: Shape, of_state: Shape, *_args: Any, **_kwargs: Any) -> int:
    """Of a layer [T, N, C]: each step multiplies its input and the state before it with a matrix each."""
    return 2 * math.prod(given[:2]) * (math.prod(of_input) + math.prod(of_state))


def _times_row(matrix: Shape, *_args: Any, **_kwargs: Any) -> int:
    return 2 * math.prod(matrix)


def _attention(query: Shape, key: Shape, value: Shape, *_args: Any, **_kwargs: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


# what torch's counter passes over: LSTMs as oneDNN computes them, attention in one kernel of the CPU, a matrix times one row
MORE = {
    torch.ops.aten.mkldnn_rnn_layer: _recurrent,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten.mv: _times_row,
}


def _counted(model: nn.Module, size: int) -> FlopCounterMode:
    device = next(model.parameters()).device
    trained, learned = model.training, [one for one in model.parameters() if one.requires_grad]
    model.eval()
    counter = FlopCounterMode(display=False, custom_mapping=MORE)
    for one in learned:  # the counter minds gradients of what is passed to a module, without them too
        one.requires_grad_(False)
    try:
        with torch.no_grad(), counter:
            model(torch.zeros(1, 3, size, size, device=device))
    finally:
        for one in learned:
            one.requires_grad_(True)
        model.train(trained)
    return counter
