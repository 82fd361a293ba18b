#!/usr/bin/env bash
# statsmodels 0.15.0: an empty cell in the table of two networks' answers is half an eye, and hides that they differ.
#
# Guess, written down before the run: the tests of SquareTable (homogeneity of Stuart and Maxwell, symmetry of Bowker) are those by the formula on
# the counts as they are, or refused where they cannot be computed.
#
# Seen on 2026-12-02: the answers of two networks for 200 eyes in four classes have a p of 0.041 by the formula, and 0.100 here: every 0 is
# replaced by 0.5 (shift_zeros, which is True by default; its description says that 0.5 is added to all cells). Two networks that agree on nearly all
# eyes always have empty cells, so the test is never the one that was asked for. With shift_zeros=False the p is 0.041. Symmetry counts the pairs of classes that nobody ever
# exchanged among its degrees of freedom, with both settings: where one network calls 9 CNV what the other calls DME, and 1 the other way round, and they
# agree on everything else, p is 0.38 with four classes, and 0.011 with the one pair (exact McNemar 0.021). And the halves are written into the
# caller's own array where that holds floats: what is computed from it next is of other counts. No warning. A gate "p < 0.05 is a change" passes what it
# should stop. Give a copy and shift_zeros=False, and drop classes and pairs without cases.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 scipy==1.17.1 pandas==2.3.3 statsmodels==0.15.0
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import numpy as np
from scipy.stats import chi2
from statsmodels.stats.contingency_tables import SquareTable, mcnemar


def stuart_maxwell(table):
    """The p of equal marginal counts, over all classes but the last."""
    rows, columns = table.sum(1), table.sum(0)
    covariance = np.diag(rows + columns) - table - table.T
    difference = (rows - columns)[:-1]
    return chi2.sf(difference @ np.linalg.solve(covariance[:-1, :-1], difference), len(table) - 1)


answers = np.array([[50, 5, 0, 1], [1, 40, 0, 0], [2, 0, 30, 6], [0, 0, 1, 64]], float)
halves = np.where(answers == 0, 0.5, answers)
default, asked = (SquareTable(answers.copy(), shift_zeros=shift).homogeneity().pvalue for shift in (True, False))
assert SquareTable(answers.copy()).homogeneity().pvalue == default, "the behaviour changed"
print(f"homogeneity: by the formula {stuart_maxwell(answers):.4f}, default {default:.4f}, shift_zeros=False {asked:.4f}")
assert abs(stuart_maxwell(answers) - asked) < 1e-9 and asked < 0.05
assert abs(default - stuart_maxwell(halves)) < 1e-9 and default > 0.09, "the behaviour changed"
handed = answers.copy()
SquareTable(handed)
print("the caller's first row:", answers[0].tolist(), "before,", handed[0].tolist(), "after")
assert (handed == halves).all(), "the behaviour changed"

one_pair = np.array([[40, 9, 0, 0], [1, 40, 0, 0], [0, 0, 50, 0], [0, 0, 0, 60]], float)
only = chi2.sf((9 - 1) ** 2 / (9 + 1), 1)
for shift in (True, False):
    symmetry = SquareTable(one_pair.copy(), shift_zeros=shift).symmetry()
    print(f"symmetry, shift_zeros={shift}: p {symmetry.pvalue:.3f} with {symmetry.df:g} degrees of freedom; of the pair {only:.3f}")
    assert symmetry.df == 6 and symmetry.pvalue > 0.3, "the behaviour changed"
exact = mcnemar(one_pair[:2, :2], exact=True).pvalue
print(f"exact McNemar {exact:.3f}")
assert exact < 0.03 and only < 0.02
PY
