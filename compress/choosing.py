"""Decide by validation loss and gate whether quantisation-aware training is worthwhile, and which network is kept.

A tuned network learns from the teacher and may leave the float student behind, so that nearness to the student, by which
calibrations are told apart (they learn nothing), says nothing about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from octc.stats.cluster_bootstrap import clusters_of

NATS, SHARE = 0.005, 0.02  # what calibration may cost without a tuning: nats, or a share of the float student's loss
Z = 1.96  # of the upper limit: one-sided 97.5 %


def losses_of(logits: torch.Tensor, labels: Sequence[int]) -> npt.NDArray[np.float64]:
    """Cross-entropy of each image in nats, [N], of logits [N, K]."""
    values: npt.NDArray[np.float64] = functional.cross_entropy(
        logits.double().cpu(), torch.tensor(list(labels)), reduction="none"
    ).numpy()
    return values


def room_to_gain(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], patients: Sequence[str | None]
) -> dict[str, Any]:
    """Whether calibration left something to gain: unless its loss is shown to be that of the float student.

    The upper limit of the mean difference of the losses, image by image, one-sided at 97.5 %, with the variance of sums over
    patients (an image without one is a patient of its own), must lie below 0.005 nats or 2 % of the float loss, whichever is
    more. `before`, `after`: losses [N] of the float student and of the calibrated network on the validation set.

    Returns: float_loss, difference, upper, limit (nats), and "tune": whether a tuning is worth its time.
    """
    difference = after - before
    mean = float(difference.mean())
    sums = np.bincount(clusters_of(patients), weights=difference - mean)
    groups = len(sums)
    error = float(np.sqrt((sums**2).sum() * groups / max(groups - 1, 1))) / len(difference)
    upper = mean + Z * error
    limit = max(NATS, SHARE * float(before.mean()))
    return {
        "float_loss": float(before.mean()),
        "difference": mean,
        "upper": upper,
        "limit": limit,
        "tune": bool(groups < 2 or upper >= limit),
    }


def choose_kept(judged: Mapping[str, Mapping[str, Any]]) -> str:
    """The network to keep: accepted by the gate before refused, then the smaller validation loss.

    judged: of each, "accepted" and "val_loss". Of equal ones the tuned one ("qat").
    """
    return max(sorted(judged), key=lambda name: (bool(judged[name]["accepted"]), -float(judged[name]["val_loss"]), name))
