"""Attention and transformers of torch are traced into: their linear layers are INT8, and the answers stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from octc.compress.placement import convolutions, prepare
from octc.compress.trace import trace_folded

SIZE, TOKENS, WIDTH = 32, 16, 8
Of = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    """A stem, attention over its places as `read` calls it (tokens [N, L, C], or [L, N, C]), and a head."""

    def __init__(self, attention: nn.Module, read: Of, first: bool = True) -> None:
        super().__init__()
        self.stem, self.attention, self.head = nn.Conv2d(3, WIDTH, 8, 8), attention, nn.Linear(WIDTH, 3)
        self.query = nn.Parameter(torch.randn(1, 2, WIDTH))
        self.register_buffer("mask", torch.randn(TOKENS, TOKENS))
        self.register_buffer("hidden", (torch.rand(TOKENS, TOKENS) > 0.6).fill_diagonal_(False))
        self.read, self.first = read, first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.stem(x).flatten(2)
        found = self.read(self, tokens.transpose(1, 2) if self.first else tokens.permute(2, 0, 1))
        logits: torch.Tensor = self.head(found.mean(1 if self.first else 0))
        return logits


def of(*args: Any, **kwargs: Any) -> nn.Module:
    return nn.MultiheadAttention(WIDTH, 2, *args, **kwargs)


def encoder(**kwargs: Any) -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(WIDTH, 2, 12, **kwargs), 2, enable_nested_tensor=False)


def decoder(**kwargs: Any) -> nn.Module:
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, 2, 12, **kwargs), 1)


def itself(**kwargs: Any) -> Of:
    return lambda net, t: net.attention(t, t, t, **kwargs)[0]  # type: ignore[operator]


def masked(word: str, buffer: str) -> Of:
    return lambda net, t: net.attention(t, t, t, **{word: getattr(net, buffer)})[0]  # type: ignore[operator]


def weighted(net: Any, t: torch.Tensor) -> torch.Tensor:
    found, weights = net.attention(t, t, t, average_attn_weights=False)
    return torch.cat([found, weights.mean(1) @ t], 1)


def padded(net: Any, t: torch.Tensor) -> torch.Tensor:
    return net.attention(t, t, t, key_padding_mask=net.hidden[:1].expand(t.shape[0], -1))[0]  # type: ignore[no-any-return]


def asked(net: Any, t: torch.Tensor) -> torch.Tensor:
    return net.attention(net.query.expand(t.shape[0], -1, -1), t)  # type: ignore[no-any-return]


# name: what attends, how it is called, whether images come first, how many layers of it are INT8
CASES: dict[str, tuple[Callable[[], nn.Module], Of, bool, int]] = {
    "itself": (lambda: of(batch_first=True), itself(), True, 4),
    "without weights": (lambda: of(batch_first=True), itself(need_weights=False), True, 4),
    "images second": (of, itself(), False, 4),
    "no bias": (lambda: of(bias=False, batch_first=True), itself(), True, 4),
    "added scores": (lambda: of(batch_first=True), masked("attn_mask", "mask"), True, 4),
    "hidden": (lambda: of(batch_first=True), masked("attn_mask", "hidden"), True, 4),
    "padding": (lambda: of(batch_first=True), padded, True, 4),
    "weights": (lambda: of(batch_first=True), weighted, True, 4),
    "other widths": (
        lambda: of(kdim=4, vdim=4, batch_first=True),
        lambda net, t: net.attention(t, t[..., :4], t[..., 4:])[0],  # type: ignore[operator]
        True,
        4,
    ),
    "added keys": (lambda: of(add_zero_attn=True, batch_first=True), itself(), True, 0),
    "encoder": (lambda: encoder(batch_first=True), lambda net, t: net.attention(t), True, 12),  # type: ignore[operator]
    "encoder, images second": (
        lambda: encoder(norm_first=True, activation="gelu"),
        lambda net, t: net.attention(t, mask=net.mask),  # type: ignore[operator]
        False,
        12,
    ),
    "encoder with a boolean mask": (encoder, lambda net, t: net.attention(t, mask=net.hidden), False, 12),  # type: ignore[operator]
    "encoder with a boolean mask and padding": (
        lambda: encoder(batch_first=True),
        lambda net, t: net.attention(t, mask=net.hidden, src_key_padding_mask=net.hidden[:1].expand(t.shape[0], -1)),  # type: ignore[operator]
        True,
        12,
    ),
    "decoder of tokens of its own, which are known": (lambda: decoder(batch_first=True), asked, True, 5),
}


@pytest.mark.parametrize("name", CASES)
def test_its_layers_are_quantised_and_answer_alike(name: str) -> None:
    torch.manual_seed(0)
    make, read, first, layers = CASES[name]
    net = Net(make(), read, first).eval()
    module = prepare(net, SIZE)
    assert len(convolutions(module)) == 1 + layers
    for count in (1, 3):
        images = torch.randn(count, 3, SIZE, SIZE)
        with torch.no_grad():
            assert torch.allclose(module(images), net(images), atol=1e-5), count


@pytest.mark.parametrize("kind", [nn.MultiheadAttention, nn.TransformerEncoder])
def test_what_is_kept_whole_stays(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = Net(encoder(batch_first=True), lambda net, t: net.attention(t)).eval()  # type: ignore[operator]
    module = trace_folded(net, SIZE, (kind,))
    assert any(type(part) is kind for part in module.modules())
