#!/usr/bin/env bash
# MLstatkit 0.1.91: DeLong's test of two models with the same ranking answers p = 0.
#
# Guess, written down before the run: a model against itself, or against one that orders the images alike, has no difference
# of the areas, so that Delong_test gives z = 0 and p = 1 (or nan).
#
# Seen on 2026-11-30: z = 0.0 and p = 0.0, for the same scores and for scores that are a rising function of them (temperature
# scaling, INT8 logits that keep the order), and for two models that separate the classes perfectly. The variance of the
# difference is zero, the function falls back to a bootstrap, and its p is twice the smaller of the shares of differences <= 0
# and > 0: all are 0, so none is above. By a rule "p < 0.05" a compressed classifier that ranks every eye as its teacher does is
# significantly different from it. Treat a zero variance of the difference as no difference before calling it.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1 MLstatkit==0.1.91
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import numpy as np
from MLstatkit import Delong_test

rng = np.random.default_rng(1)
labels = rng.integers(0, 2, 200)
teacher = labels + rng.normal(0, 1, 200)
cases = {
    "itself": (teacher, teacher),
    "a rising function of it": (teacher, 1 / (1 + np.exp(-teacher / 1.7))),
    "both perfect": (labels * 1.0, labels * 0.9 + 0.05),
    "independent noise": (teacher, labels + rng.normal(0, 1, 200)),
}
found = {}
for name, (one, other) in cases.items():
    z, p, *_, info = Delong_test(labels, one, other, random_state=0)
    found[name] = (float(z), float(p))
    print(f"{name}: z {z:.3f}, p {p:.3f} ({info['method']})")
assert 0.05 < found.pop("independent noise")[1] < 1
assert all(pair == (0.0, 0.0) for pair in found.values()), "the behaviour changed"
PY
