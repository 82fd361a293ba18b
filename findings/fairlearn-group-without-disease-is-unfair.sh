#!/usr/bin/env bash
# fairlearn 0.15.0: a group of eyes without the disease has a sensitivity of 0, and is the whole difference between groups.
#
# Guess, written down before the run: the true positive rate of a group in which no eye is diseased is not defined (nan), and the
# difference between the groups leaves it out or is nan too.
#
# Seen on 2026-11-30: a classifier without any error gets true_positive_rate 0 in the group without disease and 1 in the other;
# MetricFrame.difference(), equal_opportunity_difference and equalized_odds_difference say 1.0, the worst that can be, and ratio() 0.
# No warning (false_positive_rate of a group that is all diseased is 0 too, the best that can be). Groups by device, clinic
# or age are small, and a device that is used for screening sees no case of a rare class; a gate on these numbers
# stops a perfect network, or an optimiser works at it. Count the diseased of each group first.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 scipy==1.17.1 pandas==3.1.1 scikit-learn==1.9.1 fairlearn==0.15.0
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import numpy as np
from fairlearn.metrics import (
    MetricFrame,
    equal_opportunity_difference,
    equalized_odds_difference,
    false_positive_rate,
    true_positive_rate,
)

ill = np.array([1] * 20 + [0] * 20 + [0] * 10 + [1] * 10)
device = np.array(["clinic"] * 40 + ["screening"] * 10 + ["referral"] * 10)
frame = MetricFrame(
    metrics={"tpr": true_positive_rate, "fpr": false_positive_rate}, y_true=ill, y_pred=ill, sensitive_features=device
)
rates = frame.by_group.to_dict("index")
odds = [f(ill, ill, sensitive_features=device) for f in (equal_opportunity_difference, equalized_odds_difference)]
print("a classifier without error:", rates)
print("difference", frame.difference().to_dict(), "equal opportunity and odds", [float(value) for value in odds])
assert rates["clinic"] == {"tpr": 1.0, "fpr": 0.0}
assert rates["screening"]["tpr"] == 0.0 and rates["referral"]["fpr"] == 0.0, "the behaviour changed"
assert frame.difference()["tpr"] == 1.0 and odds == [1.0, 1.0], "the behaviour changed"
PY
