"""What each step of `octc simplify` is worth in INT8 on OpenVINO here, in one interleaved run, with random weights.

    python benchmarks/simplified.py [MODEL] [SIZE] [--rounds N] [--threads N]

Times do not depend on the weights; accuracy means nothing here. Each network is calibrated on noise and written as octc's INT8
file, all are opened, and every round calls each three times, one image a call.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image

import octc
from octc.export.formats import choose_opset
from octc.export.own_network import source_of
from octc.export.pipeline import write_files
from octc.export.targets import Job, Workshop
from octc.runtimes.registry import open_runtime

BOTH: dict[str, Any] = {"activation": "hard-swish", "no_se": True}
ROWS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "hard-swish": {"activation": "hard-swish"},
    "relu": {"activation": "relu"},
    "no squeeze-excite": {"no_se": True},
    "hard-swish, no squeeze-excite": BOTH,
    "the same, 25 % of the channels out": {**BOTH, "prune": 0.25},
    "the same, 50 % of the channels out": {**BOTH, "prune": 0.5},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?", default="efficientnet_b2")
    parser.add_argument("size", nargs="?", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    torch.manual_seed(0)
    rng, preprocess = np.random.default_rng(0), octc.Preprocess(size=words.size)
    noise = [Image.fromarray(rng.integers(0, 256, (words.size, words.size), dtype=np.uint8)) for _ in range(16)]
    network = timm.create_model(words.model, num_classes=4).eval()
    options = octc.QuantizeOptions(rounding=False, observers=("max",))
    times: dict[str, list[float]] = {name: [] for name in ROWS}
    with tempfile.TemporaryDirectory() as folder:
        runtimes = {}
        for name, wanted in ROWS.items():
            small = (
                octc.simplify(network, noise, preprocess, octc.Simplification(**wanted, refresh=False)).module
                if wanted
                else network
            )
            own, home = octc.quantize(small, noise, preprocess, options=options), Path(folder) / str(len(runtimes))
            (home / "openvino").mkdir(parents=True)
            shop = Workshop(source_of(own, home), home, own.quantised)
            _, artifact = write_files(shop, Job("openvino", "int8", choose_opset("openvino", None)), home / "openvino")
            runtimes[name] = open_runtime(home / "openvino", artifact, threads=words.threads)
        image = rng.integers(0, 256, (1, 1, words.size, words.size), dtype=np.uint8)
        for _ in range(words.rounds):
            for name, runtime in runtimes.items():
                runtime(image)
                for _ in range(3):
                    begun = time.perf_counter_ns()
                    runtime(image)
                    times[name].append((time.perf_counter_ns() - begun) / 1e6)
        for runtime in runtimes.values():
            runtime.close()
    first = statistics.median(times["as it is"])
    for name, found in times.items():
        median = statistics.median(found)
        sys.stdout.write(f"{name}: {median:.2f} ms, {first / median:.2f} times as fast\n")


if __name__ == "__main__":
    main()
