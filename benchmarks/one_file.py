"""One exported INT8 file: the answers of onnxruntime, OpenVINO and the fake-quantised torch network on a run's test images.

    python benchmarks/one_file.py RUN_FOLDER --data DIR [--target onnx]

Compares answers with each other, never with labels: this look at the test images chooses nothing and measures no accuracy.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from octc.core.clock import utc_now
from octc.core.optional import need, openvino_core
from octc.export.formats import choose_opset
from octc.export.onnx.encoding import encode, encoding_for
from octc.export.pipeline import write_files
from octc.export.source import quantise, read_source
from octc.export.targets import Job, Workshop
from octc.store.runs import Run
from octc.store.test_set_log import log_part
from octc.train.batches.images import cached_images
from octc.train.networks.models import WithInput

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished student run")
    parser.add_argument("--data", type=Path, required=True, help="root of its data set")
    parser.add_argument("--target", default="onnx", help="whose Q/DQ file: onnx, openvino or tensorrt")
    chosen = parser.parse_args()
    source = read_source(Run(chosen.run), chosen.data)
    quantised = quantise(source)
    pre = source.checkpoint.preprocess
    sums = {"weights": source.checkpoint.sha256}
    log_part(chosen.run, source.split, "test", sums, "benchmarks/one_file.py", utc_now(), target=chosen.target)
    images = cached_images(source.cache, chosen.data, source.split.parts["test"], pre)
    with tempfile.TemporaryDirectory() as scratch:
        work, made = Path(scratch) / "work", Path(scratch) / "made"
        work.mkdir()
        made.mkdir()
        shop = Workshop(source, work, quantised)
        write_files(shop, Job(chosen.target, "int8", choose_opset(chosen.target, None)), made)
        (written,) = (file.main_file for key, file in shop.made.items() if key[0] == "int8")
        session = need("onnxruntime").InferenceSession(written)
        compiled = openvino_core().compile_model(written, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        whole = WithInput(encode(quantised.module, encoding_for(quantised.module, chosen.target)), pre)
        top1: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]] = {
            "torch": [],
            "onnxruntime": [],
            "openvino": [],
        }
        for start in range(0, len(images), BATCH):
            chunk = np.array(images[start : start + BATCH])
            with torch.no_grad():
                top1["torch"].append(whole(torch.from_numpy(chunk)).numpy().argmax(1))
            top1["onnxruntime"].append(session.run(None, {"image": chunk})[0].argmax(1))
            top1["openvino"].append(np.asarray(compiled(chunk)[0]).argmax(1))
    answers = {name: np.concatenate(rows) for name, rows in top1.items()}
    for one, other in combinations(answers, 2):
        same = int((answers[one] == answers[other]).sum())
        sys.stdout.write(
            f"{one} and {other}: the same top-1 on {same} of {len(images)} images ({100 * same / len(images):.2f} %)\n"
        )


if __name__ == "__main__":
    main()
