#!/usr/bin/env bash
# MONAI 1.6.1: "accuracy" of ConfusionMatrixMetric is 0.63 for a network that guesses among four classes, and 0.93 for one that always says NORMAL.
#
# Guess (an engineer's; that it misses was seen by accident): on one-hot answers and labels of four classes the metric "accuracy" is the share of images
# that are answered rightly, and "balanced accuracy" the mean sensitivity of the classes.
#
# Seen on 2026-12-02: each image counts once for each class, against all others, so a wrong one of four is half right: 0.25 becomes 0.63. One that says
# NORMAL to 850 normal eyes and 150 others is right in 0.85 and has 0.925, a specificity of 0.95 (none of the diseased is found, and every
# eye that is not NORMAL is called so) and a "balanced accuracy" of 0.90, where the mean sensitivity is 0.25. The default reduction adds the
# classes' counts up first, so that sensitivity, precision and F1 are all the accuracy. No warning. With more classes every network gets
# better: a teacher with four classes and a student with three cannot be compared. Take reduction="mean_batch" and the sensitivities.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile monai==1.6.1 torch==2.14.1 numpy==2.4.6
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import torch
from monai.metrics import ConfusionMatrixMetric

NAMES = ["accuracy", "sensitivity", "specificity", "precision", "f1 score", "balanced accuracy"]


def judged(answers, labels, reduction="mean"):
    metric = ConfusionMatrixMetric(metric_name=NAMES, reduction=reduction)
    metric(torch.nn.functional.one_hot(answers, 4), torch.nn.functional.one_hot(labels, 4))
    return {name: [round(number, 4) for number in value.tolist()] for name, value in zip(NAMES, metric.aggregate(), strict=True)}


chance = torch.Generator().manual_seed(0)
labels, answers = (torch.randint(0, 4, (4000,), generator=chance) for _ in range(2))
share = float((labels == answers).float().mean())
found = judged(answers, labels)
print(f"guessing, right in {share:.4f}:", found)
assert abs(found["accuracy"][0] - (0.5 + share / 2)) < 1e-3, "the behaviour changed"
assert abs(found["sensitivity"][0] - share) < 1e-3

labels = torch.tensor([3] * 850 + [0] * 95 + [1] * 40 + [2] * 15)
found = judged(torch.full_like(labels, 3), labels)
print("always NORMAL, right in 0.85:", found)
assert found["accuracy"] == [0.925] and found["specificity"] == [0.95] and found["balanced accuracy"] == [0.9], "the behaviour changed"
assert found["sensitivity"] == found["precision"] == found["f1 score"] == [0.85], "the behaviour changed"
each = judged(torch.full_like(labels, 3), labels, "mean_batch")["sensitivity"]
print("sensitivity of each class:", each)
assert each == [0, 0, 0, 1]
PY
