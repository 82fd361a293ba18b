#!/usr/bin/env bash
# scikit-learn 1.9.1: the weighted kappa of grades counts how many grades occur between two, not how far they are apart.
#
# Guess, written down before the run: cohen_kappa_score(weights="quadratic") of severity grades 0 to 4 weighs a disagreement by the
# distance of the grades, so that it is the same number whether or not some grade occurs.
#
# Seen on 2026-12-01: of readers who use the grades 0, 1 and 4 it is 0.927, and 0.849 with labels=[0, 1, 2, 3, 4]. The weights are made
# from the places in the sorted list of the grades that occur, so 1 for 4 counts as one step, like 0 for 1. No warning. The
# middle grades of a small test set, of a subgroup or of a bootstrap resample are easily missing, and then the agreement
# looks better than it is; two resamples are not measured with the same weights. Always give labels.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
cd "$dir"
HOME="$dir" venv/bin/python -W error - <<'PY'
import numpy as np
from sklearn.metrics import cohen_kappa_score

reader = np.repeat([0, 1, 4], 10)
network = np.array([0] * 10 + [1] * 8 + [4] * 2 + [4] * 9 + [1])


def by_hand(places):
    a, b = (np.array([places.index(grade) for grade in grades], float) for grades in (reader, network))
    return 1 - np.mean((a - b) ** 2) / np.mean((a[:, None] - b[None, :]) ** 2)


seen = cohen_kappa_score(reader, network, weights="quadratic")
given = cohen_kappa_score(reader, network, weights="quadratic", labels=[0, 1, 2, 3, 4])
print("as called", round(seen, 4), "with labels", round(given, 4))
print("by hand: places", round(by_hand([0, 1, 4]), 4), "grades", round(by_hand([0, 1, 2, 3, 4]), 4))
assert np.isclose(given, by_hand([0, 1, 2, 3, 4])) and round(given, 3) == 0.849
assert np.isclose(seen, by_hand([0, 1, 4])) and round(seen, 3) == 0.927, "the behaviour changed"
PY
