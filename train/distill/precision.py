"""A frozen teacher in bfloat16, where it says the same: on processors and GPUs that compute it, about half of the time."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from octc.core.errors import OctcError
from octc.machine.cpu import read_flags
from octc.stats.metrics import kl_scores, log_softmax
from octc.train.loop.evaluate import logits_of
from octc.train.loop.training import Data

FP32, BF16 = "fp32", "bf16"
NATIVE = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # flags of processors that multiply bfloat16: x86, and Arm
IMAGES = 64  # of val that both are shown
MOST_KL = 1e-3  # nats, mean
MOST_SHARE = 0.05  # largest difference of a logit, over the mean range of an image's logits
HINT = "leave --teacher-precision out: the teacher is asked in fp32"


class Bf16(nn.Module):
    """A network whose weights and values are bfloat16; it takes float32 and gives float32. The network itself is changed."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.to(torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x.to(torch.bfloat16)).float()
        return logits


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes bfloat16 itself; else it would only take longer."""
    if device.type == "cpu":
        return bool(NATIVE.intersection(read_flags()[1]))
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def in_precision(net: nn.Module, precision: str) -> nn.Module:
    """A frozen network in a precision."""
    return Bf16(net) if precision == BF16 else net


def compared(net: nn.Module, precision: str, data: Data, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """A frozen network in a precision, and how what it says of the first images of val differs from fp32; {} for fp32.

    Raises:
        OctcError: E903 the device has no bfloat16, E312 the network says something else in it.
    """
    if precision == FP32:
        return net, {}
    if not has_bf16(device):
        text = (
            f"--teacher-precision {precision}: this {'processor' if device.type == 'cpu' else 'GPU'} does not compute bfloat16"
        )
        raise OctcError("OCT-E903", text, hint=HINT, place="--teacher-precision")
    images = data.val_images[:IMAGES]
    before = logits_of(net, images, data.preprocess, device).double().numpy()
    made = in_precision(net, precision)
    after = logits_of(made, images, data.preprocess, device).double().numpy()
    finite = bool(np.isfinite(after).all())
    spread = float(np.ptp(before, axis=1).mean()) or 1.0
    share = float(np.abs(after - before).max()) / spread if finite else float("inf")
    kl = float(kl_scores(log_softmax(before), log_softmax(after)).mean()) if finite else float("inf")
    if share > MOST_SHARE or kl > MOST_KL:
        text = (
            f"the teacher says something else in {precision}: logits differ by {share:.2g} of their range "
            f"(limit {MOST_SHARE:g}), KL {kl:.2g} (limit {MOST_KL:g}) on {len(images)} images of val"
        )
        raise OctcError("OCT-E312", text, hint=HINT, place="--teacher-precision")
    return made, {"precision": precision, "images": len(images), "delta_over_s": share, "kl": kl}
