"""Networks that timm does not have, by name; recipes name them like a timm network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from octc.train.nets.fpn import Pyramid
from octc.train.nets.hog import HogSvm
from octc.train.nets.medsiglip import MedSigLip
from octc.train.nets.sfnet import SfNet
from octc.train.nets.trunk import Pooled, densenet_levels, resnet_levels, vgg_levels


@dataclass(frozen=True)
class Own:
    """build: number of classes and keyword arguments -> network. trunk: timm name whose weights its part `trunk` starts from."""

    build: Callable[..., nn.Module]
    trunk: str = ""


VGG = {"trunk": "vgg16", "levels": vgg_levels}
DENSE = {"trunk": "densenet121", "levels": densenet_levels}
RES = {"trunk": "resnet50", "levels": resnet_levels}

NETWORKS: dict[str, Own] = {
    "vgg16-gap": Own(partial(Pooled, **VGG, width=512), "vgg16.tv_in1k"),
    "fpn-vgg16": Own(partial(Pyramid, **VGG, widths=(64, 128, 256, 512, 512)), "vgg16.tv_in1k"),
    "fpn-densenet121": Own(partial(Pyramid, **DENSE, widths=(64, 256, 512, 1024, 1024)), "densenet121.tv_in1k"),
    "fpn-resnet50": Own(partial(Pyramid, **RES, widths=(64, 256, 512, 1024, 2048)), "resnet50.tv_in1k"),
    "sfnet": Own(SfNet, "convnext_tiny"),
    "medsiglip": Own(MedSigLip),
    "hog-svm": Own(HogSvm),
}
