"""A temperature in the last layer: what it does to probabilities, to no prediction, and what is refused."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from octc.bench.parity.evaluation_set import folded_temperature
from octc.core.errors import OctcError
from octc.export.formats import choose_opset
from octc.export.pipeline import export_artifact
from octc.export.source import Quantised, Select, quantise, read_source
from octc.export.targets import Job, Workshop
from octc.export.temperature import find_head, fold_temperatures, spell_temperatures
from octc.runtimes.registry import open_runtime
from octc.stats.metrics import softmax
from octc.stats.temperature import fit, nll_at
from octc.store.runs import Run
from octc.train.batches.images import cached_images
from octc.train.loop.evaluate import logits_of
from tests.tiny_artifacts import DEVICE


@pytest.fixture(scope="module")
def quantised(trained: Run, patterns: Path) -> Quantised:
    return quantise(read_source(trained, patterns))


@pytest.fixture
def shop(run: Run, patterns: Path, quantised: Quantised, tmp_path: Path) -> Workshop:
    return Workshop(read_source(run, patterns), tmp_path, copy.deepcopy(quantised))


@pytest.fixture
def wrong(shop: Workshop) -> Select:
    """A select set of 128 images of which every sixth has another label than it shows: there are errors to be sure of."""
    source = shop.source
    samples = source.split.parts["train"][:128]
    images = np.array(cached_images(source.cache, source.root, samples, source.checkpoint.preprocess))
    labelled = tuple(replace(s, label=(s.label + (i % 6 == 0)) % 4) for i, s in enumerate(samples))
    return Select(labelled, images, logits_of(source.model, images, source.checkpoint.preprocess, "cpu").numpy())


def test_each_network_gets_its_own_and_keeps_every_prediction(shop: Workshop, wrong: Select) -> None:
    assert shop.quantised is not None
    pre, before = shop.source.checkpoint.preprocess, wrong.reference
    quantised = logits_of(shop.quantised.module, wrong.images, pre, "cpu").numpy()
    after, found = fold_temperatures(shop, wrong)
    labels = [s.label for s in wrong.samples]
    assert found["float"].value == pytest.approx(fit(before, labels), rel=1e-4)
    assert found["quantised"].value == pytest.approx(fit(quantised, labels), rel=1e-4)
    assert found["float"].value > 1.2  # every sixth label is wrong, and the network was sure
    np.testing.assert_allclose(after.reference * found["float"].value, before, atol=1e-5 * np.ptp(before))
    assert (after.reference.argmax(1) == before.argmax(1)).all()
    assert nll_at(after.reference[:, None], labels, 1.0) == pytest.approx(found["float"].after, rel=1e-5)
    folded = logits_of(shop.quantised.module, wrong.images, pre, "cpu").numpy()
    np.testing.assert_allclose(softmax(folded), softmax(quantised / found["quantised"].value), atol=1e-6)
    assert spell_temperatures(found).startswith(f"float {found['float'].value:.3f} (n=128), quantised ")


def test_the_files_carry_it_and_the_manifest_says_so(shop: Workshop, wrong: Select, run: Run) -> None:
    plain = softmax(wrong.reference)
    select, shop.temperatures = fold_temperatures(shop, wrong)
    options = {"onnx-fp32": "float", "onnx-int8": "quantised"}
    for name, network in options.items():
        target, precision = name.split("-")
        job = Job(target, precision, choose_opset(target, None))
        published = export_artifact(shop, job, DEVICE, select=select if precision == "int8" else None)
        assert folded_temperature(published.artifact) == shop.temperatures[network].value
        assert published.artifact.details["temperature"]["nll_after"] < published.artifact.details["temperature"]["nll_before"]
        runtime = open_runtime(published.folder, published.artifact)
        found = softmax(runtime(wrong.images[:8]))
        runtime.close()
        assert found.max(axis=1).mean() < plain[:8].max(axis=1).mean()


def test_without_an_error_there_is_nothing_to_fit(shop: Workshop, wrong: Select) -> None:
    seen = wrong.reference.argmax(1)
    right = replace(wrong, samples=tuple(replace(s, label=int(k)) for s, k in zip(wrong.samples, seen, strict=True)))
    after, found = fold_temperatures(shop, right)
    assert (found["float"].value, found["float"].reason) == (1.0, "no_errors")
    np.testing.assert_array_equal(after.reference, wrong.reference)
    assert "float none: no_errors" in spell_temperatures(found)


class Doubled(nn.Module):
    """A network whose logits are not proportional to its last layer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: object) -> object:
        logits = self.inner(x)
        return logits + 3 * logits.detach().sign()


def test_a_head_that_cannot_be_divided_is_refused(shop: Workshop, wrong: Select) -> None:
    odd = Doubled(copy.deepcopy(shop.source.model)).eval()
    other = replace(shop, source=replace(shop.source, model=odd), quantised=None)
    with pytest.raises(OctcError, match="dividing the last layer is not dividing the logits") as caught:
        fold_temperatures(other, wrong)
    assert caught.value.code == "OCT-E404"
    with pytest.raises(OctcError, match="no last layer"):
        find_head(nn.Sequential(nn.Linear(3, 5)), 4)


def test_several_labels_an_image_have_no_temperature(shop: Workshop, wrong: Select) -> None:
    checkpoint = replace(shop.source.checkpoint, recipe={"task": "multilabel"})
    with pytest.raises(OctcError) as caught:
        fold_temperatures(replace(shop, source=replace(shop.source, checkpoint=checkpoint)), wrong)
    assert (caught.value.code, caught.value.exit_code) == ("OCT-E102", 2)
    assert math.isfinite(wrong.reference.sum())
