"""torch's attention as layers that can be traced into: what nn.MultiheadAttention computes, with its weights as linear layers.

A trace keeps a module of torch whole, and what it computes with weights of its own in float. Transformers of torch are entered
by the tracer; they call the attention that stands here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import transformer

# modules of torch that are traced into: layers and an order, nothing else
TRANSFORMERS = (
    nn.Transformer, nn.TransformerDecoder, nn.TransformerDecoderLayer, nn.TransformerEncoder, nn.TransformerEncoderLayer,
)  # fmt: skip


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d) + mask) v of each head (Vaswani et al. 2017, arXiv 1706.03762), as nn.MultiheadAttention has it
    in eval mode, with its arguments and results.

    query [N, L, E], key and value [N, S, E] give [N, L, E] and the weights [N, L, S] ([N, heads, L, S] where they are not
    averaged, None if not asked for). Without `batch_first` images are the second axis of all but the weights.
    """

    # what torch's transformers ask before they leave the layers for a kernel of their own, which they do not with these answers
    in_proj_bias, _qkv_same_embed_dim = None, False

    def __init__(self, layer: nn.MultiheadAttention) -> None:
        super().__init__()
        self.batch_first, self.num_heads = layer.batch_first, layer.num_heads
        if layer._qkv_same_embed_dim:
            weights = layer.in_proj_weight.detach().chunk(3)
        else:
            weights = tuple(one.detach() for one in (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight))
        biases = (None,) * 3 if layer.in_proj_bias is None else layer.in_proj_bias.detach().chunk(3)
        self.query, self.key, self.value = (linear_of(*pair) for pair in zip(weights, biases, strict=True))
        self.out_proj = linear_of(layer.out_proj.weight.detach(), layer.out_proj.bias)
        self.train(layer.training)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if not self.batch_first:
            same_key, same_value = key is query, value is key
            query = query.transpose(0, 1)
            key = query if same_key else key.transpose(0, 1)
            value = key if same_value else value.transpose(0, 1)
        heads = (self.num_heads, -1)
        q, k, v = (
            layer(x).unflatten(-1, heads).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mask = None
        if attn_mask is not None:
            mask = _added(attn_mask if attn_mask.dim() == 2 else attn_mask.unflatten(0, (-1, self.num_heads)), q)
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, q)[:, None, None, :]
            mask = padding if mask is None else mask + padding
        weights = None
        if need_weights:
            scores = q @ k.transpose(2, 3) / math.sqrt(self.query.out_features // self.num_heads)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            found = weights @ v
        else:
            found = functional.scaled_dot_product_attention(q, k, v, mask)
        found = self.out_proj(found.transpose(1, 2).flatten(2))
        if not self.batch_first:
            found = found.transpose(0, 1)
        return found, weights.mean(1) if weights is not None and average_attn_weights else weights


def attention_of(layer: nn.MultiheadAttention) -> Attention | None:
    """The same attention that can be traced into; None where there is none: keys and values that are added to those given."""
    added = layer.bias_k is not None or layer.add_zero_attn
    return None if added else Attention(layer)


@contextmanager
def layers_alone(*, masks: bool) -> Iterator[None]:
    """Meanwhile torch's transformers compute in their layers and ask no mask for its values: whether one is causal is a hint to
    a kernel, and a whole layer in one kernel cannot be written.

    masks: they also pass masks on as they are, for `Attention`.
    """
    inner: Any = functional
    before = torch.backends.mha.get_fastpath_enabled(), transformer._detect_is_causal_mask
    known = inner._canonical_mask, inner._none_or_dtype
    torch.backends.mha.set_fastpath_enabled(False)
    transformer._detect_is_causal_mask = lambda *_args, **_kwargs: False
    if masks:
        inner._canonical_mask, inner._none_or_dtype = (lambda mask, **_kwargs: mask), (lambda _mask: None)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before[0])
        transformer._detect_is_causal_mask = before[1]
        inner._canonical_mask, inner._none_or_dtype = known


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A mask as what is added to scores: where it is true, nothing is looked at."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)


def linear_of(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    """A linear layer with these values, [out, in] and [out]."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None).to(weight)
    made.weight = nn.Parameter(weight.clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made
