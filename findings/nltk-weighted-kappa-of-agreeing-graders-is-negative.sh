#!/usr/bin/env bash
# nltk 3.10.4: weighted_kappa gives -0.25 for graders who agree as 0.58, if it is told the largest distance of two grades.
#
# Guess, written down before the run: AnnotationTask's kappa, weighted kappa and alpha are those of scikit-learn and krippendorff. max_distance
# had no guess of its own; a factor on all distances cancels out of a weighted kappa.
#
# Seen on 2026-12-02 (80 images, four grades, a distance of |a - b|, so of 3 at most): weighted_kappa(max_distance=3) is -0.246 where scikit-learn's linear kappa
# is 0.585, and with squared distances and 9 it is -2.558 for 0.605, below what a kappa can be. The expected disagreement is divided by max_distance,
# the observed one is not: 1 - 3 * (1 - kappa). No warning. With the default of 1 it is right for any distance, and so is alpha(). Read as it is told,
# two graders who agree do worse than chance. Leave max_distance out.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile numpy==2.4.6 scikit-learn==1.9.1 nltk==3.10.4
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import numpy as np
from nltk.metrics.agreement import AnnotationTask
from sklearn.metrics import cohen_kappa_score

rng = np.random.default_rng(0)
first = rng.integers(0, 4, 80)
second = np.where(rng.random(80) < 0.7, first, rng.integers(0, 4, 80))
rows = [(name, image, int(grade)) for name, grades in (("a", first), ("b", second)) for image, grade in enumerate(grades)]
for weights, largest, distance in (("linear", 3, lambda a, b: abs(a - b)), ("quadratic", 9, lambda a, b: (a - b) ** 2)):
    task = AnnotationTask(data=rows, distance=distance)
    right = cohen_kappa_score(first, second, weights=weights)
    plain, told = task.weighted_kappa(), task.weighted_kappa(max_distance=largest)
    print(f"{weights}: scikit-learn {right:.4f}, nltk {plain:.4f}, with max_distance={largest} {told:.4f}")
    assert abs(plain - right) < 1e-9
    assert abs(told - (1 - largest * (1 - right))) < 1e-9 and told < 0 < 0.5 < right, "the behaviour changed"
PY
