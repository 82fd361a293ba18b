#!/usr/bin/env bash
# frouros 0.9.0: one scan of 1,000 that lies outside the reference is a population stability index of 0.7, a major shift.
#
# Guess, written down before the run: a bin that one of the two samples leaves empty gets a small share (half a scan, 0.0001) before the
# logarithm, so that one odd scan of 1,000 adds less than 0.01, and two samples of the same patients stay below 0.1.
#
# Seen on 2026-12-01: an empty bin gets the smallest float, 2.2e-308, whose logarithm is -708. One scan of 1,000 in such a bin adds 0.7,
# where 0.25 is the usual line of a major shift: the index is below 0.1 for 1,000 scans more of the same distribution, and
# above 0.7 with one overexposed scan among them. The bins are cut from both samples together, so that a far value is always in a
# bin that the reference leaves empty. Bin by quantiles of the reference, or look at the empty bins before the index.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile frouros==0.9.0 numpy==2.1.3 scipy==1.14.1 matplotlib==3.9.4
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import numpy as np
from frouros.detectors.data_drift import PSI

rng = np.random.default_rng(0)
reference, new = rng.uniform(0.2, 0.5, 1000), rng.uniform(0.2, 0.5, 1000)
overexposed = new.copy()
overexposed[0] = 0.54  # mean brightness of one image
detector = PSI()
detector.fit(X=reference)
same, odd = (detector.compare(X=sample)[0].distance for sample in (new, overexposed))


def by_hand(empty):
    edges = np.histogram_bin_edges(np.hstack([reference, overexposed]), bins=10)
    before, after = (np.histogram(sample, edges)[0] / 1000 for sample in (reference, overexposed))
    before, after = np.maximum(before, empty), np.maximum(after, empty)
    return float(((after - before) * np.log(after / before)).sum())


print("same distribution", round(same, 3), "with one odd image", round(odd, 3))
print("by hand: empty bins as half an image", round(by_hand(0.0005), 3), "as the smallest float", round(by_hand(2.2250738585072014e-308), 3))
assert same < 0.1 and by_hand(0.0005) < 0.1
assert odd > 0.7 and np.isclose(odd, by_hand(2.2250738585072014e-308)), "the behaviour changed"
PY
