#!/usr/bin/env bash
# torch-uncertainty 0.13.0: with equal confidences the area under the risk-coverage curve depends on the order of the images.
#
# Guess, written down before the run: AURC of the same answers is the same number in whatever order the images come; images of equal confidence
# are rejected together, or share the mean of their errors.
#
# Seen on 2026-12-02: 400 answers, of which a tenth is wrong, with the eight confidences that a coarse grid has, have areas from
# 0.115 to 0.130; where all have one confidence, which says nothing, it is 0.046 with the wrong answers first in the file and 0.147 with them last: one
# network is three times as good as itself. Equal confidences are cut one by one, as the sort leaves them. No warning. Softmax of INT8 logits is full of ties
# (hundreds of 255/256), that of the teacher has none, and folders are sorted by class or patient. So the small network
# rejects better or worse by the order of the files. Shuffle, and take the mean over several orders, or sum over groups of ties.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 torch-uncertainty==0.13.0 lightning==2.6.6 rich==15.0.0
cd "$dir"
HOME="$dir" MPLCONFIGDIR="$dir" venv/bin/python -W ignore - <<'PY'
import numpy as np
import torch
from torch_uncertainty.metrics.classification import AURC

rng = np.random.default_rng(0)
right = rng.random(400) < 0.9
wrong_first, wrong_last = np.argsort(right, kind="stable"), np.argsort(~right, kind="stable")


def area(confidence, order):
    metric = AURC()
    scores = np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)
    metric.update(torch.from_numpy(scores[order]), torch.from_numpy(np.where(right, 0, 1)[order]))
    return float(metric.compute())


several = rng.uniform(0.5, 1, 400)
grid = 1 - 2.0 ** -rng.integers(1, 9, 400)
for name, confidence in (("no ties", several), ("eight confidences", grid), ("one confidence", np.full(400, 0.75))):
    orders = [wrong_first, wrong_last, *(rng.permutation(400) for _ in range(8))]
    areas = [area(confidence, order) for order in orders]
    print(f"{name}: wrong first {areas[0]:.4f}, wrong last {areas[1]:.4f}, smallest {min(areas):.4f}, largest {max(areas):.4f}")
    if name == "no ties":
        assert max(areas) - min(areas) < 1e-6
    else:
        assert max(areas) > (1.05 if name == "eight confidences" else 2) * min(areas), "the behaviour changed"
PY
