#!/usr/bin/env bash
# MLServer 1.7.1: a vector of labels comes back as a column, and a comparison with the truth then compares every image with every other.
#
# Guess, written down before the run: decode_output(encode_output(labels)) of MLServer's NumpyCodec is an array equal to labels, in shape too.
#
# Seen on 2026-12-01: labels of the shape (200,) are sent with the shape [200, 1] and decoded as (200, 1); a matrix comes back with its shape, and a single number
# as (1,). So (answers == truth).mean() of a network without an error, on 170 normal eyes, 20 with CNV and 10 with DME, is 0.735, the mean of a
# 200 x 200 table, where without the codec it is 1.0; of one that answers NORMAL for all it is 0.85 either way. Numbers like these are not
# noticed. No error, no warning. Take answers.reshape(truth.shape), or metrics that refuse shapes that differ.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-compile mlserver==1.7.1 numpy==2.4.6
cd "$dir"
HOME="$dir" venv/bin/python -W ignore - <<'PY'
import numpy as np
from mlserver.codecs import NumpyCodec


def through(array):
    sent = NumpyCodec.encode_output("labels", array)
    received = type(sent).model_validate_json(sent.model_dump_json())
    return sent.shape, NumpyCodec.decode_output(received)


truth = np.array([0] * 170 + [1] * 20 + [2] * 10)
shape, answers = through(truth)
normal = through(np.zeros_like(truth))[1]
print("sent as", shape, "received as", answers.shape)
print("right in all:", (truth == truth).mean(), "through the codec", (answers == truth).mean(), "- normal for all:", (normal == truth).mean())
matrix = np.arange(6.0).reshape(2, 3)
assert np.array_equal(through(matrix)[1], matrix) and np.array_equal(answers.ravel(), truth)
assert answers.shape == (200, 1) and through(np.array(3.0))[1].shape == (1,), "the behaviour changed"
assert abs((answers == truth).mean() - 0.735) < 1e-9
PY
