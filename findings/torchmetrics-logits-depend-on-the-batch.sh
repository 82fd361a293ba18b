#!/usr/bin/env bash
# torchmetrics 1.9.0: of logits, the area under the curve depends on how the images were cut into batches.
#
# Guess, written down before the run: BinaryAUROC and MulticlassCalibrationError of the same logits and labels are the same numbers
# whatever the batches are (logits are allowed, by the documentation).
#
# Seen on 2026-12-01 (400 eyes): 0.888 in batches of 64, 0.873 of 4, 0.870 of 2 and 0.831 one by one; the calibration error of four
# classes 0.177 and 0.189. Whether the numbers are logits is decided for each batch, by whether one of them lies outside
# 0..1. A batch whose logits all lie within is taken as probabilities, the others go through the sigmoid, and both are put in
# one ranking. No warning. Evaluation on an edge device has batch 1, the teacher was evaluated in batches of 64: the small network
# loses five points that it has. Give probabilities.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 torch==2.14.1 torchmetrics==1.9.0
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import numpy as np
import torch
from torchmetrics.classification import BinaryAUROC, MulticlassCalibrationError

random = np.random.default_rng(0)
ill = random.integers(0, 2, 400)
logits = 0.5 + 0.8 * (1.2 * ill - 0.6) + 0.6 * random.normal(size=400)
classes = random.integers(0, 4, 400)
scores = 0.4 + 0.5 * random.normal(size=(400, 4)) + 0.5 * np.eye(4)[classes]


def over(metric, values, labels, batch):
    for start in range(0, len(labels), batch):
        metric.update(torch.from_numpy(values[start : start + batch]), torch.from_numpy(labels[start : start + batch]))
    return round(float(metric.compute()), 4)


right = float(np.mean([(a > logits[ill == 0]).mean() for a in logits[ill == 1]]))
area = {batch: over(BinaryAUROC(), logits, ill, batch) for batch in (1, 2, 4, 64, 400)}
given = {batch: over(BinaryAUROC(), 1 / (1 + np.exp(-logits)), ill, batch) for batch in (1, 400)}
error = {batch: over(MulticlassCalibrationError(4), scores, classes, batch) for batch in (1, 400)}
print("area by hand", round(right, 4), "of logits by batch", area, "of probabilities", given, "calibration error", error)
assert abs(area[400] - right) < 1e-3 and set(given.values()) == {area[400]}
assert area[1] < area[400] - 0.03, "the behaviour changed"
assert error[1] > error[400] + 0.01, "the behaviour changed"
PY
