"""How long a network takes in INT8 on this machine: calibrated on noise, written, opened by the engine of a user, and timed.

The weights do not change a time, so a network is measured before it is trained. That is no benchmark (`octc bench` is one): it
chooses how many channels a network may keep.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

import numpy as np
from PIL import Image
from torch import nn

from octc.core.errors import OctcError
from octc.core.optional import have
from octc.core.scratch import scratch
from octc.datasets.calibration import MINIMUM
from octc.export.formats import FORMATS, choose_opset
from octc.export.own_network import QuantizeOptions, quantize_network, source_of
from octc.export.pipeline import write_files
from octc.export.targets import Job, Workshop
from octc.imaging.preprocess import Preprocess
from octc.runtimes.registry import open_runtime

SECONDS, WARM, FEWEST = 1.0, 3, 9
ENGINES = ("openvino", "onnx")  # the first that is here is taken where none is named


def latency_of(preprocess: Preprocess, target: str | None = None) -> Callable[[nn.Module], float]:
    """Make a function that measures the latency of a network in INT8: median milliseconds per image at batch 1, over a second.

    Args:
        preprocess: of the networks that will be measured.
        target: "openvino" or "onnx"; None: the first of these whose engine is installed. The engine uses its default threads.

    Returns: a function from a network (normalised float32 [N, 3, S, S] -> logits [N, K]) to milliseconds. It raises what
        `octc.quantize` raises, for example E404 for a network that cannot be traced.

    Raises:
        OctcError: E104 another target.

    >>> import octc
    >>> milliseconds = octc.latency_of(octc.Preprocess(size=224), target="onnx")
    >>> milliseconds(network)  # doctest: +SKIP
    4.83
    """
    if target is not None and target not in ENGINES:
        raise OctcError("OCT-E104", f"no latency by {target!r}", hint=f"one of: {', '.join(ENGINES)}", place="target")
    chosen = target or ("openvino" if have("openvino") else "onnx")
    return lambda model: _measure(model, preprocess, chosen)


def _measure(model: nn.Module, preprocess: Preprocess, target: str) -> float:
    rng = np.random.default_rng(0)
    side = preprocess.size
    noise = [Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)) for _ in range(MINIMUM)]
    options = QuantizeOptions(rounding=False, observers=("max",))
    own = quantize_network(model, noise, preprocess, options=options)
    with scratch("latency") as home:
        shop = Workshop(source_of(own, home), home, own.quantised)
        place = home / target
        place.mkdir()
        opset = choose_opset(target, None) if FORMATS[target].reads else None
        _, artifact = write_files(shop, Job(target, "int8", opset), place)
        image = rng.integers(0, 256, (1, preprocess.channels, side, side), dtype=np.uint8)
        with closing(open_runtime(place, artifact)) as runtime:
            return _median(lambda: runtime(image))


def _median(call: Callable[[], object]) -> float:
    """Milliseconds, the median of a second's calls."""
    for _ in range(WARM):
        call()
    found: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(found) < FEWEST or time.perf_counter() < end:
        began = time.perf_counter_ns()
        call()
        found.append((time.perf_counter_ns() - began) / 1e6)
    return float(np.median(found))
