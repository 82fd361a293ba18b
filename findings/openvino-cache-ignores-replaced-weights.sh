#!/usr/bin/env bash
# OpenVINO 2026.4.1: with CACHE_DIR a network whose .bin was replaced still answers with the old weights.
#
# Guess, written down before the run: when the weights beside an .xml are replaced by those of another training of the same
# network, compile_model(path) sees it (by content, size or time) and compiles anew.
#
# Seen on 2026-11-30 on the CPU device: weights of 1 give 27; the .bin is replaced by one with weights of -1, and a new Core
# with the same cache folder still gives 27 and says LOADED_FROM_CACHE; without the cache it gives -27. Only the .xml is looked
# at: written again with other times, it makes the network anew. No warning. A deployment that copies only files whose content
# differs (rsync --checksum, a layer of an image, a store by digests) leaves the .xml of a retrained classifier as it is and
# goes on serving the old labels. So give every version a folder and a cache of its own, or key the cache by checksums.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 openvino==2026.4.1
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import shutil
import time

import numpy as np
import openvino as ov
from openvino import opset13 as ops


def network(weight):
    image = ops.parameter([1, 3, 8, 8], np.float32, name="image")
    weights = ops.constant(np.full((4, 3, 3, 3), weight, np.float32))
    maps = ops.convolution(image, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    return ov.Model([ops.reduce_mean(maps, ops.constant([2, 3]), False)], [image], "network")


def answer(cache):
    core = ov.Core()
    if cache:
        core.set_property({"CACHE_DIR": "cache"})
    compiled = core.compile_model("network.xml", "CPU")
    logit = float(compiled(np.ones((1, 3, 8, 8), np.float32))[0][0, 0])
    return logit, bool(compiled.get_property("LOADED_FROM_CACHE"))


ov.save_model(network(1), "network.xml")
ov.save_model(network(-1), "retrained.xml")
print("first:", answer(cache=True))
time.sleep(2)
shutil.copyfile("retrained.bin", "network.bin")
stale, fresh = answer(cache=True), answer(cache=False)
print("weights replaced:", stale, "without the cache:", fresh)
time.sleep(2)
shutil.copyfile("retrained.xml", "network.xml")
again = answer(cache=True)
print("graph written again too:", again)
assert fresh == (-27.0, False) and again == (-27.0, False)
assert stale == (27.0, True), "the behaviour changed"
PY
