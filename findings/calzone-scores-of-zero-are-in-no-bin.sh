#!/usr/bin/env bash
# calzone-tool 0.1.0: an eye whose score is exactly 0 is in no bin, so that three hundred diseased eyes with score 0 change no number.
#
# Guess, written down before the run: the calibration error, the test of Hosmer and Lemeshow and the diagram count each eye once, scores of 0 and 1
# too: 300 diseased eyes of 2,000 with a score of 0 add 0.15 to the calibration error.
#
# Seen on 2026-12-02: a bin holds what is above its lower edge, and the lowest edge is 0. reliability_diagram counts 1,700 of 2,000 eyes; the
# calibration error is 0.012 and the p of Hosmer and Lemeshow 0.88, whether the 300 are healthy or diseased. For the other class, whose score is then 1, it is
# 0.156 and p = 0. With bins of equal counts the smallest score is left out, whatever it is, and whoever shares it. No warning. A softmax in INT8 or float16
# gives exact zeros by the hundred, and a network that misses a disease with certainty is well calibrated. Raise zeros to 1e-12 before the call.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 scipy==1.17.1 pandas==2.3.3 statsmodels==0.15.0 \
    scikit-learn==1.9.1 calzone-tool==0.1.0
cd "$dir"
HOME="$dir" MPLCONFIGDIR="$dir" venv/bin/python -W ignore - <<'PY'
import numpy as np
from calzone.metrics import calculate_ece_mce, hosmer_lemeshow_test
from calzone.utils import reliability_diagram

EYES, SURE = 2000, 300
rng = np.random.default_rng(0)
score = rng.beta(0.3, 0.3, EYES)
score[:SURE] = 0
diseased = (rng.random(EYES) < score).astype(int)


def judged(truth, scores, of_class, equal=False):
    """Eyes in all bins, expected calibration error, p of Hosmer and Lemeshow."""
    table = np.stack([1 - scores, scores], axis=1)
    share, mean, _, count = reliability_diagram(truth, table, num_bins=10, class_to_plot=of_class, is_equal_freq=equal)[:4]
    return int(count.sum()), float(calculate_ece_mce(share, mean, count)[0]), float(hosmer_lemeshow_test(share, mean, count, df=10)[1])


missed = diseased.copy()
missed[:SURE] = 1
for name, truth in (("healthy", diseased), ("diseased", missed)):
    for of_class in (1, 0):
        print(f"{SURE} {name} eyes with score 0, class {of_class}: counted %d, error %.3f, p %.3f" % judged(truth, score, of_class))
assert judged(diseased, score, 1) == judged(missed, score, 1), "the behaviour changed"
assert judged(missed, score, 1)[0] == EYES - SURE and judged(missed, score, 1)[2] > 0.05, "the behaviour changed"
assert judged(missed, score, 0)[0] > EYES - SURE and judged(missed, score, 0)[1] > 0.15 and judged(missed, score, 0)[2] < 1e-6
count, error, p = judged(missed, np.maximum(score, 1e-12), 1)
print(f"with 1e-12 in place of 0: counted {count}, error {error:.3f}, p {p:.3f}")
assert count == EYES and error > 0.15
assert judged(diseased, np.clip(score, 0.2, 1), 1, equal=True)[0] < EYES, "the behaviour changed"
PY
