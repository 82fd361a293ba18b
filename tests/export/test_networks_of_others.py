"""Networks that octc has no recipe for, as their libraries build them: through `octc import`, and through `octc.quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

import octc
from octc.datasets.synthetic.bscans import CLASSES, draw_phantom
from octc.imaging.preprocess import Preprocess
from octc.store.artifacts import read_artifact

SIZE = 64
HALF = [0.5, 0.5, 0.5]
TIMM = ("resnet10t", "mobilenetv3_small_050", "lcnet_050", "regnetx_002", "convnext_atto")


def built(library: str, name: str) -> nn.Module:
    """A network with random weights and four classes, in eval mode."""
    torch.manual_seed(0)
    if library == "timm":
        return timm.create_model(name, pretrained=False, num_classes=len(CLASSES)).eval()
    made: nn.Module = getattr(torchvision.models, name)(weights=None, num_classes=len(CLASSES)).eval()
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("pictures")
    paths = [root / f"{name}-{seed}.png" for seed in range(4) for name in CLASSES]
    for path in paths:
        name, seed = path.stem.split("-")
        draw_phantom(name, int(seed), int(seed)).save(path)
    return paths


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize(("library", "name"), [*(("timm", name) for name in TIMM), ("torchvision", "shufflenet_v2_x0_5")])
def test_a_network_of_another_library_goes_both_ways(library: str, name: str, pictures: list[Path], tmp_path: Path) -> None:
    network = built(library, name)
    file = tmp_path / "net.onnx"
    torch.onnx.export(network, (torch.zeros(1, 3, SIZE, SIZE),), str(file), dynamo=True, external_data=False, verbose=False)
    stated: dict[str, Any] = {"size": SIZE, "channels": 3, "mean": HALF, "std": HALF}
    made = octc.import_model(file, stated, CLASSES, options=octc.ImportOptions(out=str(tmp_path / "out")))
    assert read_artifact(made.folder).details["batches_run"] == [1, 2, 5]
    with octc.load(made.folder, threads=1) as model:
        answers = model.predict(pictures)
    pre = Preprocess(size=SIZE, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    from octc.imaging.decode import read_image

    images = np.concatenate([pre.prepare(read_image(path).image) for path in pictures])
    with torch.no_grad():
        wanted = network((torch.from_numpy(images).float() / 255 - 0.5) / 0.5).softmax(1).numpy()
    found = np.array([list((one.probabilities or {}).values()) for one in answers])
    np.testing.assert_allclose(found, wanted, atol=1e-4)

    quantised = octc.quantize(network, pictures, pre, classes=CLASSES)
    (folder,) = octc.export(quantised, ["onnx"], out=tmp_path / "int8")
    assert read_artifact(folder).precision == "int8"
    with octc.load(folder, threads=1) as model:
        assert model.golden.ok
