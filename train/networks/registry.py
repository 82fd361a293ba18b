"""Networks that timm does not have, by name; recipes name them like a timm network.

What their part `trunk` starts from stands in octc.train.recipes.weight_packages.TRUNKS.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from octc.train.networks.fpn import Pyramid
from octc.train.networks.hog import HogSvm
from octc.train.networks.medsiglip import MedSigLip
from octc.train.networks.retnet import KeptClassifier
from octc.train.networks.sfnet import SfNet
from octc.train.networks.trunk import Pooled, densenet_levels, resnet_levels, vgg_levels

VGG: dict[str, Any] = {"trunk": "vgg16", "levels": vgg_levels}
DENSE: dict[str, Any] = {"trunk": "densenet121", "levels": densenet_levels}
RES: dict[str, Any] = {"trunk": "resnet50", "levels": resnet_levels}

# name -> builder: number of classes and keyword arguments -> network
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "vgg16-gap": partial(Pooled, **VGG, width=512),
    "fpn-vgg16": partial(Pyramid, **VGG, widths=(64, 128, 256, 512, 512)),
    "fpn-densenet121": partial(Pyramid, **DENSE, widths=(64, 256, 512, 1024, 1024)),
    "fpn-resnet50": partial(Pyramid, **RES, widths=(64, 256, 512, 1024, 2048)),
    "qd-resnet50": partial(KeptClassifier, "resnet50"),
    "qd-tiny": partial(KeptClassifier, "test_resnet"),
    "sfnet": SfNet,
    "medsiglip": MedSigLip,
    "hog-svm": HogSvm,
}
