#!/usr/bin/env bash
# ncnn 1.0.20261020 (Python): Mat(array) uses the memory of a numpy array that it does not keep.
#
# Guess, written down before the run: ncnn.Mat(array) copies, or holds the array as long as it needs it, as torch.from_numpy,
# ov.Tensor(shared_memory=True) and memoryview do.
#
# Seen on 2026-12-01: the array dies while the Mat is in use, and what is written into the array afterwards is in the Mat. So
# Mat((image / 255).astype(numpy.float32)), the line that everyone writes, gives the network memory that is free already and
# soon holds something else; clone() on the same line comes too late. Small inputs mostly go well in a test and answer about
# another image under load. Give the array a name, call clone(), and only then let the name go.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps numpy==2.4.6 ncnn==1.0.20261020
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import weakref

import ncnn
import numpy as np

image = np.ones((3, 8, 8), np.float32)
given = ncnn.Mat(image)
copied = given.clone()
image[:] = 7
print("a Mat after its array changed:", np.array(given)[0, 0, 0], "its clone:", np.array(copied)[0, 0, 0])
assert np.array(given)[0, 0, 0] == 7 and np.array(copied)[0, 0, 0] == 1, "the behaviour changed"

kept = memoryview(other := np.ones((3, 8, 8), np.float32))
alive = weakref.ref(other)
del other
assert alive() is not None
alive = weakref.ref(image)
del image
print("the array of a Mat that is in use is", "gone" if alive() is None else "kept")
assert alive() is None, "the behaviour changed"
PY
