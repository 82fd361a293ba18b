"""NVIDIA's compiler on full-size networks, on this CPU: size, time, memory and what the layers run in. Nothing is executed.

python benchmarks/tensorrt_rtx.py [NETWORK SIZE ...]     default: efficientnet_b2 384 tf_efficientnet_lite0 256 resnet50 224
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from octc.core.files import sha256_file
from tests.export.trt_networks import write_network

DEFAULT = ("efficientnet_b2", "384", "tf_efficientnet_lite0", "256", "resnet50", "224")


def main(words: list[str]) -> None:
    """One line for each network and variant. Weights are random: precision and legality do not depend on them."""
    for name, size in zip(words[::2], words[1::2], strict=True):
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            one = write_network(name, int(size), Path(folder) / "net")
            say(f"{name} {size} px: exported in {time.monotonic() - started:.1f} s, {one.promised} convolutions promised")
            wide = {"onnx": "model.onnx", "onnx_sha256": sha256_file(one.folder / "model.onnx")}
            plans = {"int8fp16": one.plan("int8"), "int8 (FP32 rest)": one.plan("int8", **wide), "fp16": one.plan("fp16")}
            for variant, plan in plans.items():
                ran, report = one.compile(plan)
                counts = ", ".join(f"{count} {kind}" for kind, count in report.counts().items())
                shares = ", ".join(f"{100 * share:.1f} % {kind}" for kind, share in report.macs.items())
                size_mb = ran.result["bytes"] / 1e6
                say(
                    f"  {variant}: {size_mb:.1f} MB engine, {ran.seconds:.1f} s, {ran.peak_rss_mib} MiB; "
                    f"convolutions {counts}; multiply-accumulates {shares}; missing {len(report.missing)}"
                )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:] or list(DEFAULT))
