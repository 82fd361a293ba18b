#!/usr/bin/env bash
# statsmodels 0.15.0: McNemar's chi-squared test of two models with the same answers gives p = 0.
#
# Guess, written down before the run: two classifiers that are right on the same eyes have no discordant pair and so no difference:
# p is 1 (as in the exact test), or nan, or the table is refused.
#
# Seen on 2026-11-30: exact=True gives 1; exact=False gives statistic inf and p = 0.0, with nothing but a RuntimeWarning of numpy about a
# division; without the correction p is nan. The correction of continuity takes 1 off |b - c| also where that is 0, and squares
# the -1: with one pair each way p is 0.48 in place of 1, with five each way 0.75. By a rule "p < 0.05" a compressed classifier
# that keeps every answer of its teacher is worse (or better) than it, with certainty. Use the exact or the mid-p test.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 scipy==1.17.1 pandas==3.1.1 statsmodels==0.15.0
cd "$dir"
HOME="$dir" venv/bin/python -W ignore::RuntimeWarning - <<'PY'
import numpy as np
from statsmodels.stats.contingency_tables import mcnemar

found = {}
for lost, gained in ((0, 0), (1, 1), (5, 5), (9, 1)):
    table = np.array([[400, lost], [gained, 20]])
    exact, chi2, plain = mcnemar(table), mcnemar(table, exact=False), mcnemar(table, exact=False, correction=False)
    found[lost, gained] = [float(p) for p in (exact.pvalue, chi2.pvalue, plain.pvalue)]
    print(f"{lost} and {gained} discordant: exact, corrected, not corrected", np.round(found[lost, gained], 3))
assert found[9, 1][0] < 0.05 and found[9, 1][1] < 0.05
assert found[0, 0][0] == 1 and found[0, 0][1] == 0, "the behaviour changed"
assert np.isnan(found[0, 0][2]), "the behaviour changed"
assert np.allclose(found[1, 1][1], 0.4795, atol=1e-3) and np.allclose(found[5, 5][1], 0.7518, atol=1e-3), "the behaviour changed"
PY
