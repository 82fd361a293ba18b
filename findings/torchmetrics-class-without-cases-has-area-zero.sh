#!/usr/bin/env bash
# torchmetrics 1.9.0: a class without cases counts as an area under the curve of 0, in the mean too.
#
# Guess, written down before the run: the area of a class that does not occur is not defined, so that MulticlassAUROC leaves it out of
# the macro mean, as MulticlassAveragePrecision of the same package does, or is nan.
#
# Seen on 2026-12-01: a classifier without an error, on eyes of three of its four classes, has 0.75: 1, 1, 1 and 0. With thresholds=100
# nothing is said; without it there is a warning about "zero tensor in true positive score". MulticlassAveragePrecision leaves the
# class out (1.0), but with thresholds=100 it is 0 there too and the mean 0.75. MultilabelAUROC does the same for a finding that no eye
# has. So the number falls with the rarest disease of a clinic, a site or a fold, and an early stop or a gate that watches it acts on that. Count
# the cases of each class first, and take the mean over those that have some.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 torch==2.14.1 torchmetrics==1.9.0
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import warnings

import torch
from torchmetrics.classification import MulticlassAUROC, MulticlassAveragePrecision, MultilabelAUROC

labels = torch.tensor([0, 0, 1, 1, 2, 2])
perfect = torch.eye(4)[labels]
findings = torch.tensor([[1, 0], [0, 0], [1, 0]])


def seen(metric, scores, truth):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        value = round(float(metric(scores, truth)), 4)
    print(type(metric).__name__, "thresholds", getattr(metric, "thresholds", None) is not None, value, "warnings", len(told))
    return value, bool(told)


assert seen(MulticlassAUROC(4), perfect, labels) == (0.75, True), "the behaviour changed"
assert seen(MulticlassAUROC(4, thresholds=100), perfect, labels) == (0.75, False), "the behaviour changed"
assert seen(MulticlassAveragePrecision(4), perfect, labels)[0] == 1.0
assert seen(MulticlassAveragePrecision(4, thresholds=100), perfect, labels)[0] == 0.75, "the behaviour changed"
assert seen(MultilabelAUROC(2, thresholds=100), findings.float(), findings) == (0.5, False), "the behaviour changed"
PY
