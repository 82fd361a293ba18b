#!/usr/bin/env bash
# OpenVINO 2026.4.1: networks that were compiled for one thread each all compute on the same processor.
#
# Guess, written down before the run: two networks, compiled with INFERENCE_NUM_THREADS 1 and asked from two threads (or
# from two processes), run beside each other on two processors, as two sessions of any other engine do.
#
# Seen on 2026-11-30: with the LATENCY hint ENABLE_CPU_PINNING is on by itself, and each compiled network binds its thread
# to the first processor, whatever others were compiled before; both wait for each other there (an EfficientNet-Lite0
# in INT8 on two processors: 8.5 ms an image from two threads as from one, 5.0 ms without binding). Two processes do the
# same. Nothing says so: the property reads True, and the operating system shows both processors as allowed until an
# inference runs. With ENABLE_CPU_PINNING False no thread is bound. A service that opens a network for each processor has
# the throughput of one.
#
# Needs two processors; with one the script says so and ends with 0.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps numpy==2.4.6 openvino==2026.4.1
cd "$dir"
HOME="$dir" venv/bin/python - <<'EOF'
import os
import sys
import threading

import numpy as np
import openvino as ov
from openvino import opset13 as ops

everything = frozenset(os.sched_getaffinity(0))
if len(everything) < 2:
    print("one processor: nothing to see")
    sys.exit(0)


def network() -> ov.Model:
    node = image = ops.parameter([1, 16, 96, 96], np.float32)
    for seed in range(6):
        weights = np.random.default_rng(seed).normal(0, 0.1, (16, 16, 3, 3)).astype(np.float32)
        node = ops.relu(ops.convolution(node, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    return ov.Model([node], [image])


def narrowed() -> set[frozenset[int]]:
    found = set()
    for task in os.listdir("/proc/self/task"):
        try:
            found.add(frozenset(os.sched_getaffinity(int(task))))
        except ProcessLookupError:
            pass
    return {one for one in found if one < everything}


def bound(settings: dict[str, object]) -> set[frozenset[int]]:
    """Processors to which threads are bound while two networks are asked from two threads."""
    core = ov.Core()
    words = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, **settings}
    requests = [core.compile_model(network(), "CPU", words).create_infer_request() for _ in range(2)]
    image = np.zeros((1, 16, 96, 96), np.float32)

    for request in requests:
        request.infer({0: image})  # before there are threads: two first calls at once may wait for each other for ever

    def work(request: ov.InferRequest) -> None:
        for _ in range(200):
            request.infer({0: image})

    threads = [threading.Thread(target=work, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    seen: set[frozenset[int]] = set()
    while any(thread.is_alive() for thread in threads):
        seen |= narrowed()
    for thread in threads:
        thread.join()
    return seen


free = bound({"ENABLE_CPU_PINNING": False})
usual = bound({})
print("openvino", ov.__version__, "pinning off:", [sorted(one) for one in free], "as it is:", [sorted(one) for one in usual])
assert free == set(), "the behaviour changed"
assert len(usual) == 1 and len(next(iter(usual))) == 1, "the behaviour changed"
EOF
