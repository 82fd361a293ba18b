"""Artifacts to measure the speed of octc with, in a minute and without a training: their answers are of no use.

    python benchmarks/stand_in.py IMAGES OUT

OUT/edge: the network and size of the recipe `edge` (tf_efficientnet_lite0, 224 px, grey) from its ImageNet weights. OUT/tiny:
timm's `test_resnet` at 32 px, random. Both have a classifier that was fitted to IMAGES (CLASS/*.jpeg) with the trunk as it is;
the first knows what its training images look like, the second, from too few of them, does not. They are written as onnx-int8
and onnx-fp32; where OpenVINO is installed, as openvino-int8 too.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import timm
import torch

import octc
from octc.export.own_network import QuantizeOptions
from octc.imaging.decode import read_image
from octc.train.networks.models import normalise
from octc.train.networks.weights import start_weights
from octc.train.recipes.config import Stage

# name -> network, side, start weights, images that calibrate
NETWORKS = {"edge": ("tf_efficientnet_lite0", 224, "package", 64), "tiny": ("test_resnet", 32, "none", 16)}


def fit_classifier(network: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    """A ridge regression on the features of the trunk, so that no small feature has a large weight."""
    with torch.no_grad():
        features = network.eval().forward_head(network.forward_features(inputs), pre_logits=True)  # type: ignore[operator]
        mean = features.mean(0)
        centred = (features - mean).double()
        wanted = torch.nn.functional.one_hot(labels, network.num_classes).double()
        gram = centred @ centred.T
        inner = torch.linalg.solve(gram + gram.diagonal().mean() * torch.eye(len(gram)), wanted - wanted.mean(0))
        head = network.get_classifier()  # type: ignore[operator]
        head.weight.copy_(10 * (centred.T @ inner).T)
        head.bias.copy_(-head.weight @ mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    chosen = parser.parse_args()
    known = sorted(chosen.images.rglob("*.jpeg"))
    classes = sorted({path.parent.name for path in known})
    written = [("onnx", "int8"), ("onnx", "fp32"), *([("openvino", "int8")] if find_spec("openvino") else [])]
    torch.manual_seed(0)
    for name, (model, size, weights, count) in NETWORKS.items():
        paths = known[:: max(1, len(known) // count)][:count]
        pre = octc.Preprocess(size=size)
        network = timm.create_model(model, num_classes=len(classes))
        start_weights(network, Stage(model=model, weights=weights, size=size, epochs=1, lr=1e-3), None, fetch=False)
        inputs = np.concatenate([pre.prepare(read_image(path).image) for path in paths])
        labels = torch.tensor([classes.index(path.parent.name) for path in paths])
        fit_classifier(network, normalise(torch.from_numpy(inputs), pre), labels)
        how = QuantizeOptions(rounding=False, observers=("max",))
        quantised = octc.quantize(network, list(map(str, paths)), pre, classes=classes, name=model, options=how)
        for target, precision in written:
            (folder,) = octc.export(quantised, [target], precision, out=chosen.out / name)
            sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
