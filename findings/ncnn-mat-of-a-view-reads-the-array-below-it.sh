#!/usr/bin/env bash
# ncnn 1.0.20261020 (Python): Mat(view) takes the numbers as they lie in memory, not those of the view.
#
# Guess, written down before the run: an image that was turned from height-width-channel to channel-height-width by
# transpose(2, 0, 1), or cropped, is taken as numpy shows it, or refused, as by onnxruntime, OpenVINO and OpenCV.
#
# Seen on 2026-12-01: the Mat has the shape of the view and, from the view's first number on, the numbers that follow in memory: a
# transposed picture has its channels and rows mixed, a cropped one holds what lies beside the crop. No error, no warning, and a
# finite answer of the network. ncnn.Mat(numpy.ascontiguousarray(view)) is right; keep that array under a name
# (ncnn-mat-does-not-keep-its-array.sh).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --no-deps numpy==2.4.6 ncnn==1.0.20261020
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import ncnn
import numpy as np

picture = np.arange(2 * 8 * 8, dtype=np.float32).reshape(8, 8, 2)  # height, width, channel
plain = np.ascontiguousarray(picture.transpose(2, 0, 1))
frame = np.pad(plain, ((0, 0), (1, 1), (1, 1)))
views = {"transposed": picture.transpose(2, 0, 1), "cropped": frame[:, 1:-1, 1:-1]}
assert np.array_equal(np.array(ncnn.Mat(plain)), plain)
for name, view in views.items():
    assert np.array_equal(view, plain)
    seen = np.array(ncnn.Mat(view).clone())
    copied = np.ascontiguousarray(view)
    right = np.array(ncnn.Mat(copied).clone())
    print(name, "row of the view", view[0, 1].tolist(), "of the Mat", seen[0, 1].tolist())
    assert seen.shape == view.shape and np.array_equal(right, view)
    assert not np.array_equal(seen, view), "the behaviour changed"
assert np.array_equal(np.array(ncnn.Mat(views["transposed"]).clone())[0, 0], picture.ravel()[:8]), "the behaviour changed"
PY
