"""A deliberately ruined layer: found first, and the fallback recovers parity with real engines and without a human."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from octc.core.errors import OctcError
from octc.export.pipeline import export_artifact
from octc.export.sensitivity import choose_images, sensitivity_of
from octc.export.source import Select, quantise, read_select, read_source
from octc.export.targets import Job, Workshop
from octc.store.artifacts import read_artifact
from octc.store.runs import Run
from tests.export.engines import DEVICE
from tests.ruined import ruin


@pytest.fixture
def ruined(run: Run, patterns: Path, tmp_path: Path) -> tuple[Workshop, Select, str]:
    layer = ruin(run)
    source = read_source(run, patterns)
    (tmp_path / "shop").mkdir()
    return Workshop(source, tmp_path / "shop", quantise(source)), read_select(source), layer


@pytest.mark.slow
def test_ruined_layer_is_found_and_the_fallback_recovers_parity(ruined: tuple[Workshop, Select, str]) -> None:
    shop, select, layer = ruined
    labels = np.array([s.label for s in select.samples])
    assert (select.reference.argmax(1) == labels).mean() > 0.95  # the float network is as good as before
    said: list[str] = []
    published = export_artifact(shop, Job("openvino", "int8", 20), DEVICE, select=select, say=said.append)
    steps = published.steps
    assert [step["accepted"] for step in steps] == [False, True]
    assert steps[0]["float_layers"] == []
    assert steps[1]["float_layers"] == [layer]
    assert published.artifact.details["float_layers"] == [layer]
    assert published.artifact.details["int8_convolutions"] == 14
    assert published.gate is not None
    assert published.gate.accepted
    assert read_artifact(published.folder).details["ladder"] == list(steps)
    assert "rejected (every convolution in INT8)" in " ".join(said)
    folder = shop.source.run.path / "analysis"
    stored = json.loads((folder / "sensitivity.json").read_text())
    assert stored["costs"][0]["layer"] == layer
    assert json.loads((folder / "keep_float.json").read_text()) == [layer]
    assert "<svg" in (folder / "sensitivity.svg").read_text()
    assert layer in (folder / "sensitivity.svg").read_text()


def test_an_analysis_is_measured_once_and_a_damaged_one_again(ruined: tuple[Workshop, Select, str]) -> None:
    shop, select, _ = ruined
    assert shop.quantised is not None
    said: list[str] = []
    first = sensitivity_of(shop.source, shop.quantised, select.images, said.append)
    assert sensitivity_of(shop.source, shop.quantised, select.images, said.append) == first
    assert len(said) == 1
    path = shop.source.run.path / "analysis" / "sensitivity.json"
    path.write_text(path.read_text()[:-40])
    assert sensitivity_of(shop.source, shop.quantised, select.images, said.append) == first
    assert len(said) == 2
    with np.errstate(all="raise"):
        assert len(choose_images(select.images, 5)) == 5


def test_ranges_of_a_file_that_are_none_leave_nothing_behind(run: Run, patterns: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"conv1.0._input_quantizer._amax": torch.tensor(float("inf"))}, tmp_path / "amax.safetensors")
    before = sorted(run.path.rglob("*"))
    with pytest.raises(OctcError) as caught:
        quantise(read_source(run, patterns), amax=tmp_path / "amax.safetensors")
    assert caught.value.code == "OCT-E404"
    assert sorted(run.path.rglob("*")) == before
