#!/usr/bin/env bash
# mlxtend 0.25.0: proportion_difference gives p = 1 for a network that is far worse, if it is named second.
#
# Guess, written down before the run: the test for a difference of two accuracies is two-sided, so that p is the same whichever network is named
# first, and small where they differ much.
#
# Seen on 2026-12-01: 97 % (FP32) and 90 % (INT8) of 500 images give p = 0.999997, and the other way round 0.000003; of 95 % and 93 % it is 0.909 and 0.091, where
# the two-sided test has 0.183 (proportions_ztest of statsmodels). What is returned is the normal
# distribution below z, and the documentation calls it "the p-value" of a test for a difference. No warning. By the rule "p below 0.05 is a loss" a
# compressed network named second never loses. Take 2 * norm.sf(abs(z)), or a paired test on the same images.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile mlxtend==0.25.0 statsmodels==0.15.0 numpy==2.4.6
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
from mlxtend.evaluate import proportion_difference
from statsmodels.stats.proportion import proportions_ztest

images, found = 500, {}
for first, second in ((0.97, 0.90), (0.90, 0.97), (0.95, 0.93), (0.93, 0.95)):
    z, p = proportion_difference(first, second, images, images)
    right_z, right = proportions_ztest([round(first * images), round(second * images)], [images, images])
    found[first, second] = p, right
    print(f"{first} and {second}: z {z:.3f}, p {p:.6f}; statsmodels z {right_z:.3f}, p {right:.6f}")
assert all(abs(found[a, b][1] - found[b, a][1]) < 1e-12 for a, b in found)
assert found[0.97, 0.90][1] < 1e-5
assert found[0.97, 0.90][0] > 0.99999 and found[0.90, 0.97][0] < 1e-5, "the behaviour changed"
PY
