"""Calibration against numpy: the three observers on tensors whose right answer is known otherwise."""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from octc.compress.calibrate import OBSERVERS, PERCENTILE, observe, set_ranges
from octc.compress.fake_quant import BINS, LARGE, ActivationQuantiser
from octc.compress.finetune import calibration_indices, check_calibration
from octc.compress.placement import prepare, quantisers, set_mode
from octc.core.errors import OctcError
from octc.datasets.base import Sample
from octc.train.networks.models import build_model


class Chain(nn.Module):
    """Two convolutions with a ReLU between: three tensors of different ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(self.act(self.first(x)))
        return y


def observed(x: torch.Tensor, batch: int = 4) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """A calibrated chain, and what its quantisers met, computed here: |values| of input and activation."""
    torch.manual_seed(0)
    chain = Chain().eval()
    module = prepare(chain, 64)
    observe(module, lambda: x.split(batch))
    with torch.no_grad():
        hidden = chain.act(chain.first(x))
    first, second = quantisers(module)
    return module, {first: np.abs(x.numpy()).ravel(), second: np.abs(hidden.numpy()).ravel()}


def scales(module: nn.Module, observer: str) -> dict[str, float]:
    set_ranges(module, observer)
    return {name: float(q.scale) for name, q in quantisers(module).items()}


@pytest.fixture
def pictures() -> torch.Tensor:
    torch.manual_seed(1)
    x = torch.randn(12, 3, 24, 24)
    x[5, 1, 3, 3] = 30.0  # one far outlier
    return x


def test_max_is_numpys(pictures: torch.Tensor) -> None:
    module, met = observed(pictures)
    for name, scale in scales(module, "max").items():
        assert scale == pytest.approx(met[name].max() / 127, rel=1e-6)


def test_percentile_is_numpys_within_a_bin(pictures: torch.Tensor) -> None:
    module, met = observed(pictures)
    for name, scale in scales(module, "percentile").items():
        values = np.sort(met[name])
        width = values[-1] / BINS
        exact = values[int(np.ceil(PERCENTILE / 100 * len(values))) - 1]
        assert exact - 1e-5 <= scale * 127 <= exact + width + 1e-5


def test_mse_is_the_least_of_all_clippings_on_the_values_themselves(pictures: torch.Tensor) -> None:
    module, met = observed(pictures)

    def error(values: np.ndarray, top: float) -> float:
        codes = np.clip(np.round(values / (top / 127)), None, 127)
        return float(((values - codes * top / 127) ** 2).mean())

    for name, scale in scales(module, "mse").items():
        values = met[name].astype(np.float64)
        tops = np.linspace(0.3, 1.0, 141) * values.max()
        best = min(error(values, top) for top in tops)
        assert error(values, scale * 127) <= best * 1.02
    outlier = next(iter(met))
    assert scales(module, "mse")[outlier] < 0.95 * scales(module, "max")[outlier]


def test_batches_do_not_matter(pictures: torch.Tensor) -> None:
    found = [scales(observed(pictures, batch)[0], name) for name in OBSERVERS for batch in (12, 5, 1)]
    for row in range(0, 3 * len(OBSERVERS), 3):
        for other in found[row + 1 : row + 3]:
            assert other == pytest.approx(found[row], rel=1e-5)


def test_large_maps_are_sampled_close_to_the_whole() -> None:
    torch.manual_seed(2)
    x = torch.randn(4, 3, 160, 160)
    assert x.numel() > LARGE
    module, met = observed(x, batch=4)
    name = next(iter(met))
    found = scales(module, "percentile")[name] * 127
    assert found == pytest.approx(float(np.quantile(met[name], PERCENTILE / 100)), rel=0.03)
    assert scales(module, "max")[name] * 127 == pytest.approx(met[name].max(), rel=1e-6)  # the range takes every value


def test_images_are_run_twice_and_observing_leaves_everything_off(pictures: torch.Tensor) -> None:
    module = prepare(Chain().eval(), 64)
    seen: list[int] = []

    def batches() -> list[torch.Tensor]:
        seen.append(len(pictures))
        return list(pictures.split(4))

    observe(module, batches)
    assert seen == [12, 12]
    assert {q.mode for q in quantisers(module).values()} == {"off"}
    counted = {name: q.histogram.sum().item() for name, q in quantisers(module).items()}
    assert list(counted.values()) == [pictures.numel(), 12 * 8 * 24 * 24]


def test_a_second_calibration_forgets_the_first(pictures: torch.Tensor) -> None:
    module, _ = observed(pictures * 100)
    observe(module, lambda: [pictures])
    fresh, _ = observed(pictures)
    assert scales(module, "max") == pytest.approx(scales(fresh, "max"), rel=1e-6)


def test_t20_ranges_stay_where_they_are_when_the_network_runs(pictures: torch.Tensor) -> None:
    module, _ = observed(pictures)
    before = scales(module, "mse")
    set_mode(module, "on")
    x = pictures * 50
    with torch.no_grad():
        first = module(x)
        second = module(x)
    assert torch.equal(first, second)
    module.train()
    module(x).sum().backward()
    assert {name: float(q.scale) for name, q in quantisers(module).items()} == before
    assert all(q.amax < 60 for q in quantisers(module).values())


def test_calibration_of_a_real_network_is_reproducible() -> None:
    torch.manual_seed(0)
    model = build_model("test_efficientnet", 4).eval()
    x = torch.randn(8, 3, 64, 64)
    found = []
    for _ in range(2):
        module = prepare(model, 64)
        observe(module, lambda: x.split(4))
        found.append([scales(module, name) for name in OBSERVERS])
    assert found[0] == found[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activation_that_is_not_finite_is_named(value: float, pictures: torch.Tensor) -> None:
    chain = Chain().eval()
    with torch.no_grad():
        chain.first.bias[0] = value  # type: ignore[index]
    module = prepare(chain, 64)
    with pytest.raises(OctcError) as caught:
        observe(module, lambda: [pictures])
    assert caught.value.code == "OCT-E701"
    assert "act" in str(caught.value.place)


def test_calibration_draw_is_stratified_seeded_and_without_repeats() -> None:
    labels = [0] * 100 + [1] * 50 + [2] * 5
    chosen = calibration_indices(labels, 60, 0)
    assert len(chosen) == len(set(chosen.tolist())) == 60
    assert chosen.tolist() == sorted(chosen.tolist())
    assert Counter(labels[i] for i in chosen) == {0: 28, 1: 27, 2: 5}
    assert np.array_equal(chosen, calibration_indices(labels, 60, 0))
    assert not np.array_equal(chosen, calibration_indices(labels, 60, 1))
    assert len(calibration_indices(labels, 999, 0)) == 155


def sample(name: str, label: int = 0) -> Sample:
    return Sample(path=f"A/{name}.png", label=label, patient=name, part=None, sha256=name)


def test_d25_calibration_images_that_stand_in_val_or_test_are_refused_by_name() -> None:
    good = [sample(f"t{i}", i % 2) for i in range(20)]
    check_calibration(good, {"val": (sample("v"),), "test": (sample("w"),)})
    for part in ("val", "test"):
        other = {"val": (sample("v"),), "test": (sample("w"),), part: (replace(good[3], path="B/copy.png"), sample("x"))}
        with pytest.raises(OctcError) as caught:
            check_calibration(good, other)
        assert caught.value.code == "OCT-E214"
        assert caught.value.exit_code == 3
        assert f"overlap the {part} split (1 files" in caught.value.message
        assert "A/t3.png" in caught.value.message


@pytest.mark.parametrize("images", [[sample(f"t{i}", i % 2) for i in range(15)], [sample(f"t{i}") for i in range(40)], []])
def test_calibration_set_that_cannot_do_is_refused(images: list[Sample]) -> None:
    with pytest.raises(OctcError) as caught:
        check_calibration(images, {})
    assert caught.value.code == "OCT-E214"


def entropy_by_definition(counts: np.ndarray, amax: float) -> float:
    """The search in words of its definition: merge into 128 levels, spread over filled bins, Kullback-Leibler divergence."""
    bins = counts.astype(float).copy()
    bins[0] = bins[1]
    found = []
    for kept in range(128, len(bins) + 1):
        level = np.digitize(np.arange(kept), np.linspace(0, kept, 129)) - 1
        filled = bins[:kept] > 0
        mean = np.bincount(level, bins[:kept], 128) / np.maximum(np.bincount(level, filled, 128), 1)
        merged = np.where(filled, mean[level], 0.0)
        clipped = bins[:kept].copy()
        clipped[-1] += bins[kept:].sum()
        found.append(scipy.stats.entropy(clipped, merged) if merged.any() else np.inf)
    return (128 + len(found) - 1 - int(np.argmin(found[::-1]))) * amax / len(bins)


def met(values: np.ndarray) -> ActivationQuantiser:
    """A quantiser that has seen these 20,000 values."""
    quantiser = ActivationQuantiser("input")
    for quantiser.mode in ("range", "histogram"):
        quantiser(torch.from_numpy(values).float().view(1, 1, 100, 200))
    return quantiser


def test_entropy_is_its_definition() -> None:
    """Zeros of a ReLU, empty bins and a far outlier."""
    values = np.maximum(np.round(np.random.default_rng(4).normal(0, 10, 20_000)) / 10, 0)
    values[0] = 60.0
    quantiser = met(values)
    found = OBSERVERS["entropy"](quantiser)
    assert found == pytest.approx(entropy_by_definition(quantiser.histogram.numpy(), quantiser.amax))
    assert 0 < found <= quantiser.amax


@pytest.mark.parametrize("name", OBSERVERS)
def test_x_constant_and_zero_activations_have_a_grid(name: str) -> None:
    """A constant is kept to half a step, and zero is exact; no scale is zero, infinite or NaN."""
    constant = met(np.full(20_000, 2.5))
    top = OBSERVERS[name](constant)
    assert top == pytest.approx(2.5, rel=1 / BINS)
    module, _ = observed(torch.zeros(4, 3, 24, 24))
    found = scales(module, name)
    assert all(0 < scale < 1e6 for scale in found.values())
    set_mode(module, "on")
    with torch.no_grad():
        assert torch.isfinite(module(torch.zeros(1, 3, 24, 24))).all()


def test_calibrator_that_is_not_known_is_refused(pictures: torch.Tensor) -> None:
    module, _ = observed(pictures)
    with pytest.raises(OctcError, match="unknown calibrator 'median'"):
        set_ranges(module, "median")


def test_observers_are_nvidias(pictures: torch.Tensor) -> None:
    """Against ModelOpt's HistogramCalibrator, which is pytorch-quantization's: within one bin."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = importlib.import_module("modelopt.torch.quantization.calib.histogram")
    quantiser = ActivationQuantiser("input")
    torch.manual_seed(3)
    x = torch.randn(8, 4, 40, 40) ** 3
    calibrator = theirs.HistogramCalibrator()
    calibrator.collect(x)
    for mode in ("range", "histogram"):
        quantiser.mode = mode
        quantiser(x)
    for name in ("percentile", "entropy"):  # the curve of mse is flat, and theirs is computed in float32
        expected = float(calibrator.compute_amax(name))
        assert OBSERVERS[name](quantiser) == pytest.approx(expected, abs=1.01 * quantiser.amax / BINS), name
